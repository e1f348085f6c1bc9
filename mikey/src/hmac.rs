//! HMAC-SHA-1 (RFC 2104; RFC 3830 §4.1.2, §4.2.4) over the compression function of the `sha1` crate.
//!
//! One key makes many MACs here: six for each LTKM under a pre-shared key. So the key is kept as the two
//! chaining values behind its inner and outer padding, 40 octets in all, and a MAC costs no more than the
//! compressions of its own octets. The tests compare it with the `hmac` crate.

use sha1::block_api::compress;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Octets of a MAC: HMAC-SHA-1-160 (RFC 3830 Table 6.2.b).
pub(crate) const MAC_LEN: usize = 20;

/// Octets of a SHA-1 block.
const BLOCK_LEN: usize = 64;

/// SHA-1's initial chaining value (FIPS 180-4 §5.3.1).
const INITIAL: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

/// A key, as the chaining values behind its paddings.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct HmacSha1 {
    inner: [u32; 5],
    outer: [u32; 5],
}

impl HmacSha1 {
    /// A key of at most one block, which all keys of MIKEY are: PRF blocks of 32 octets, authentication keys of 20.
    pub(crate) fn new(key: &[u8]) -> Self {
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
        block.zeroize();
        Self { inner, outer }
    }

    /// The MAC of `parts`, one after the other.
    pub(crate) fn mac(&self, parts: &[&[u8]]) -> [u8; MAC_LEN] {
        let mut hash = Hash { chain: self.inner, block: [0; BLOCK_LEN], filled: 0, len: BLOCK_LEN };
        for part in parts {
            hash.update(part);
        }
        let inner = hash.finish();
        let mut hash = Hash { chain: self.outer, block: [0; BLOCK_LEN], filled: 0, len: BLOCK_LEN };
        hash.update(&inner);
        hash.finish()
    }
}

/// A SHA-1 under way behind a first block.
struct Hash {
    chain: [u32; 5],
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
    fn finish(mut self) -> [u8; MAC_LEN] {
        let bits = 8 * self.len as u64;
        self.block[self.filled] = 0x80;
        self.block[self.filled + 1..].fill(0);
        if self.filled + 1 > BLOCK_LEN - 8 {
            compress(&mut self.chain, &[self.block]);
            self.block = [0; BLOCK_LEN];
        }
        self.block[BLOCK_LEN - 8..].copy_from_slice(&bits.to_be_bytes());
        compress(&mut self.chain, &[self.block]);
        let mut out = [0; MAC_LEN];
        for (octets, word) in out.as_chunks_mut::<4>().0.iter_mut().zip(self.chain) {
            *octets = word.to_be_bytes();
        }
        out
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
