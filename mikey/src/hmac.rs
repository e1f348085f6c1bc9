//! HMAC-SHA-1 (RFC 2104; RFC 3830 §4.1.2, §4.2.4) over the compression function of the `sha1` crate.
//!
//! One key makes many MACs here: six for each LTKM under a pre-shared key. So the key is kept as the two
//! chaining values behind its inner and outer padding, 40 octets in all, and a MAC costs no more than the
//! compressions of its own octets. The tests compare it with the `hmac` crate.

use sha1::block_api::compress;
use zeroize::{ZeroizeOnDrop, optimization_barrier};

/// Octets of a MAC: HMAC-SHA-1-160 (RFC 3830 Table 6.2.b).
pub(crate) const MAC_LEN: usize = 20;

/// Octets of a SHA-1 block.
const BLOCK_LEN: usize = 64;
/// Octets at the end of the last block that tell the length of all (FIPS 180-4 §5.1.1).
const LENGTH_LEN: usize = 8;

/// A SHA-1 chaining value.
type Chain = [u32; 5];

/// SHA-1's initial chaining value (FIPS 180-4 §5.3.1).
const INITIAL: Chain = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

/// A key, as the chaining values behind its paddings.
#[derive(Clone)]
pub(crate) struct HmacSha1 {
    inner: Chain,
    outer: Chain,
}

impl HmacSha1 {
    /// A key of at most one block, which all keys of MIKEY are: PRF blocks of 32 octets, authentication keys of 20.
    pub(crate) fn new(key: &[u8]) -> Self {
        debug_assert!(key.len() <= BLOCK_LEN, "a longer key would have to be hashed first");
        let mut block = [0x36; BLOCK_LEN];
        for (octet, key) in block.iter_mut().zip(key) {
            *octet ^= key;
        }
        let mut inner = INITIAL;
        compress(&mut inner, &[block]);
        for octet in &mut block {
            *octet ^= 0x36 ^ 0x5c;
        }
        let mut outer = INITIAL;
        compress(&mut outer, &[block]);
        block = [0; BLOCK_LEN];
        optimization_barrier(&block);
        Self { inner, outer }
    }

    /// The MAC of `parts`, one after the other.
    pub(crate) fn mac(&self, parts: &[&[u8]]) -> [u8; MAC_LEN] {
        let mut hash = Hash { chain: self.inner, block: [0; BLOCK_LEN], filled: 0, len: BLOCK_LEN };
        for part in parts {
            hash.update(part);
        }
        self.finish(hash.finish())
    }

    /// The MAC of a message that fits into one block.
    #[inline]
    pub(crate) fn mac_short(&self, message: &ShortMessage) -> [u8; MAC_LEN] {
        let mut chain = self.inner;
        compress(&mut chain, &[message.0]);
        self.finish(chain)
    }

    /// The outer hash, over the inner one.
    #[inline]
    fn finish(&self, inner: Chain) -> [u8; MAC_LEN] {
        let message = ShortMessage::of_hash(inner);
        let mut chain = self.outer;
        compress(&mut chain, &[message.0]);
        octets_of(chain)
    }
}

impl Drop for HmacSha1 {
    fn drop(&mut self) {
        (self.inner, self.outer) = ([0; 5], [0; 5]);
        optimization_barrier(self);
    }
}

impl ZeroizeOnDrop for HmacSha1 {}

#[inline]
fn octets_of(chain: Chain) -> [u8; MAC_LEN] {
    let mut octets = [0; MAC_LEN];
    for (octets, word) in octets.as_chunks_mut::<4>().0.iter_mut().zip(chain) {
        *octets = word.to_be_bytes();
    }
    octets
}

/// A message that fills one block together with SHA-1's padding, behind the block of the key.
pub(crate) struct ShortMessage([u8; BLOCK_LEN]);

impl ShortMessage {
    /// The longest such message, in octets.
    pub(crate) const MAX_LEN: usize = BLOCK_LEN - LENGTH_LEN - 1;

    /// A message of zeros to be filled in.
    ///
    /// # Panics
    /// When `len` is more than [`MAX_LEN`](Self::MAX_LEN).
    #[inline]
    pub(crate) fn zeros(len: usize) -> Self {
        assert!(len <= Self::MAX_LEN, "a short message fits into one block");
        let mut block = [0; BLOCK_LEN];
        block[len] = 0x80;
        block[BLOCK_LEN - LENGTH_LEN..].copy_from_slice(&(8 * (BLOCK_LEN + len) as u64).to_be_bytes());
        Self(block)
    }

    #[inline]
    fn of_hash(chain: Chain) -> Self {
        let mut message = Self::zeros(MAC_LEN);
        message.put(0, &octets_of(chain));
        message
    }

    /// Writes a part of the message at octet `at` of it.
    #[inline]
    pub(crate) fn put(&mut self, at: usize, octets: &[u8]) {
        self.0[at..at + octets.len()].copy_from_slice(octets);
    }
}

/// A SHA-1 under way behind a first block.
struct Hash {
    chain: Chain,
    block: [u8; BLOCK_LEN],
    filled: usize,
    len: usize,
}

impl Hash {
    #[inline]
    fn update(&mut self, mut octets: &[u8]) {
        self.len += octets.len();
        if self.filled > 0 {
            let (head, tail) = octets.split_at(octets.len().min(BLOCK_LEN - self.filled));
            self.block[self.filled..self.filled + head.len()].copy_from_slice(head);
            self.filled += head.len();
            octets = tail;
            if self.filled < BLOCK_LEN {
                return;
            }
            compress(&mut self.chain, &[self.block]);
            self.filled = 0;
        }
        let (blocks, tail) = octets.as_chunks();
        if !blocks.is_empty() {
            compress(&mut self.chain, blocks);
        }
        self.block[..tail.len()].copy_from_slice(tail);
        self.filled = tail.len();
    }

    /// Pads (FIPS 180-4 §5.1.1) and gives the hash.
    #[inline]
    fn finish(mut self) -> Chain {
        let bits = 8 * self.len as u64;
        self.block[self.filled] = 0x80;
        self.block[self.filled + 1..].fill(0);
        if self.filled > ShortMessage::MAX_LEN {
            compress(&mut self.chain, &[self.block]);
            self.block = [0; BLOCK_LEN];
        }
        self.block[BLOCK_LEN - LENGTH_LEN..].copy_from_slice(&bits.to_be_bytes());
        compress(&mut self.chain, &[self.block]);
        self.chain
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER_PERMISSIVE as HEX;
    use hmac::{Hmac, KeyInit, Mac};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_test_cases_of_rfc_2202_hold() {
        let cases: [(&[u8], &[u8], &str); 4] = [
            (&[0x0b; 20], b"Hi There", "b617318655057264e28bc0b6fb378c8ef146be00"),
            (b"Jefe", b"what do ya want for nothing?", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
            (&[0xaa; 20], &[0xdd; 50], "125d7342b9ac11cd91a39af48aa17b4f63f175d3"),
            (&[0x0c; 20], b"Test With Truncation", "4c1a03424b55e07fe7f27be1d58bb9324a9a5a04"),
        ];
        for (key, data, mac) in cases {
            assert_eq!(HEX.encode(&HmacSha1::new(key).mac(&[data])), mac);
        }
    }

    #[test]
    fn every_length_around_a_block_boundary_agrees_with_the_hmac_crate() {
        let data: Vec<u8> = (0..=255).collect();
        for key_len in 0..=64 {
            for len in [0, 1, 54, 55, 56, 57, 63, 64, 65, 118, 119, 120, 127, 128, 129, 200] {
                let mac = Hmac::<sha1::Sha1>::new_from_slice(&data[..key_len]).unwrap();
                let expected = mac.chain_update(&data[..len]).finalize().into_bytes();
                let own = HmacSha1::new(&data[..key_len]);
                assert_eq!(own.mac(&[&data[..len]]), expected[..], "key {key_len}, data {len}");
                if len <= ShortMessage::MAX_LEN {
                    let mut message = ShortMessage::zeros(len);
                    message.put(0, &data[..len]);
                    assert_eq!(own.mac_short(&message), expected[..], "key {key_len}, short data {len}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_mac_over_parts_is_the_mac_over_the_whole(
            key in prop::collection::vec(any::<u8>(), 0..=64),
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..5),
        ) {
            let mac = Hmac::<sha1::Sha1>::new_from_slice(&key).unwrap();
            let expected = mac.chain_update(parts.concat()).finalize().into_bytes();
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let own = HmacSha1::new(&key).mac(&parts);
            prop_assert_eq!(&own[..], &expected[..]);
        }
    }
}
