//! Key data transport encryption (RFC 3830 §4.2.3): AES-CM and AES key wrap (RFC 3394).

use aes::{Aes128Dec, Aes128Enc};
use cipher::{Block, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use subtle::ConstantTimeEq;
use zeroize::{Zeroizing, optimization_barrier};

use crate::{
    CsbId,
    prf::{PrfKey, PskConstant},
};

/// Octets of an AES-128 key.
const KEY_LEN: usize = 16;
/// Octets of the salt S of AES-CM: 112 bits.
const SALT_LEN: usize = 14;
/// Octets of a block of RFC 3394, of its IV, and so of the salt of AES key wrap: 64 bits.
const WRAP_BLOCK_LEN: usize = 8;

/// Derives the encryption key of a message.
fn encryption_key(key: &PrfKey, csb_id: CsbId, rand: &[u8]) -> Zeroizing<[u8; KEY_LEN]> {
    let mut encr_key = Zeroizing::new([0; KEY_LEN]);
    key.derive_from_psk(PskConstant::ENCRYPTION, csb_id, rand, &mut encr_key[..]);
    encr_key
}

/// En- or decrypts in place with AES-CM-128: AES in counter mode from
/// IV = (S XOR (0x0000 ‖ CSB ID ‖ T)) ‖ 0x0000, with the timestamp as 64 bits.
pub(crate) fn aes_cm(key: &PrfKey, csb_id: CsbId, rand: &[u8], t: u64, data: &mut [u8]) {
    let encr_key = encryption_key(key, csb_id, rand);
    let mut iv = [0; SALT_LEN];
    key.derive_from_psk(PskConstant::SALT, csb_id, rand, &mut iv);
    let csb_id_and_t = csb_id.0.to_be_bytes().into_iter().chain(t.to_be_bytes());
    for (octet, mask) in iv[2..].iter_mut().zip(csb_id_and_t) {
        *octet ^= mask;
    }
    counter_mode(&encr_key, iv, data);
}

/// AES in counter mode as SRTP has it (RFC 3711 §4.1.1), in place: the counter is the last 16 bits of the block.
///
/// A few blocks at most make an LTKM's key data, for which one block after the other is faster than the set-up of
/// parallel ones.
fn counter_mode(key: &[u8; KEY_LEN], iv: [u8; SALT_LEN], data: &mut [u8]) {
    debug_assert!(data.len() <= usize::from(u16::MAX), "what a KEMAC can hold needs 4,096 counts");
    let cipher = Aes128Enc::new(key.into());
    let mut block = Block::<Aes128Enc>::default();
    for (count, data) in (0_u16..).zip(data.chunks_mut(block.len())) {
        block[..SALT_LEN].copy_from_slice(&iv);
        block[SALT_LEN..].copy_from_slice(&count.to_be_bytes());
        cipher.encrypt_block(&mut block);
        for (octet, key) in data.iter_mut().zip(&block) {
            *octet ^= key;
        }
    }
    block.fill(0);
    optimization_barrier(&block);
}

/// Octets that AES key wrap makes of `len` octets of key data.
///
/// RFC 3394 wraps whole blocks, at least two, and RFC 3830 does not say how other lengths come there. This crate
/// pads with zero octets behind the last Key data sub-payload, whose Next payload field marks the end.
pub(crate) const fn wrapped_len(len: usize) -> usize {
    if len == 0 {
        return 0;
    }
    let padded = len.next_multiple_of(WRAP_BLOCK_LEN);
    WRAP_BLOCK_LEN + if padded < 2 * WRAP_BLOCK_LEN { 2 * WRAP_BLOCK_LEN } else { padded }
}

/// Derives key and IV of AES key wrap: a 128-bit key and a 64-bit salt (RFC 3830 §4.2.3).
fn wrap_key(key: &PrfKey, csb_id: CsbId, rand: &[u8]) -> (Zeroizing<[u8; KEY_LEN]>, [u8; WRAP_BLOCK_LEN]) {
    let mut iv = [0; WRAP_BLOCK_LEN];
    key.derive_from_psk(PskConstant::SALT, csb_id, rand, &mut iv);
    (encryption_key(key, csb_id, rand), iv)
}

/// Wraps in place: the key data stand behind the first 8 octets of `data`, padded to whole blocks.
pub(crate) fn aes_key_wrap(key: &PrfKey, csb_id: CsbId, rand: &[u8], data: &mut [u8]) {
    let (kek, iv) = wrap_key(key, csb_id, rand);
    wrap(&kek, iv, data);
}

/// Unwraps in place; afterwards the key data stand behind the first 8 octets of `data`. `false` when the integrity
/// check fails or the length is not that of wrapped data.
#[must_use]
pub(crate) fn aes_key_unwrap(key: &PrfKey, csb_id: CsbId, rand: &[u8], data: &mut [u8]) -> bool {
    if data.len() < 3 * WRAP_BLOCK_LEN || !data.len().is_multiple_of(WRAP_BLOCK_LEN) {
        return false;
    }
    let (kek, iv) = wrap_key(key, csb_id, rand);
    unwrap(&kek, iv, data)
}

/// RFC 3394 §2.2.1, index based, with A in the first block of `data`.
fn wrap(kek: &[u8; KEY_LEN], iv: [u8; WRAP_BLOCK_LEN], data: &mut [u8]) {
    let cipher = Aes128Enc::new(kek.into());
    let mut a = u64::from_be_bytes(iv);
    let blocks = data.len() / WRAP_BLOCK_LEN - 1;
    let mut step = 0;
    for _ in 0..6 {
        for r in data.chunks_exact_mut(WRAP_BLOCK_LEN).skip(1).take(blocks) {
            step += 1;
            let mut b = Block::<Aes128Enc>::default();
            b[..8].copy_from_slice(&a.to_be_bytes());
            b[8..].copy_from_slice(r);
            cipher.encrypt_block(&mut b);
            a = first_half(&b) ^ step;
            r.copy_from_slice(&b[8..]);
        }
    }
    data[..WRAP_BLOCK_LEN].copy_from_slice(&a.to_be_bytes());
}

/// RFC 3394 §2.2.2, index based; the IV is compared in constant time.
fn unwrap(kek: &[u8; KEY_LEN], iv: [u8; WRAP_BLOCK_LEN], data: &mut [u8]) -> bool {
    let cipher = Aes128Dec::new(kek.into());
    let mut b = Block::<Aes128Dec>::default();
    b[..8].copy_from_slice(&data[..WRAP_BLOCK_LEN]);
    let mut a = first_half(&b);
    let mut step = 6 * (data.len() / WRAP_BLOCK_LEN - 1) as u64;
    for _ in 0..6 {
        for r in data.chunks_exact_mut(WRAP_BLOCK_LEN).skip(1).rev() {
            b[..8].copy_from_slice(&(a ^ step).to_be_bytes());
            b[8..].copy_from_slice(r);
            cipher.decrypt_block(&mut b);
            a = first_half(&b);
            r.copy_from_slice(&b[8..]);
            step -= 1;
        }
    }
    a.to_be_bytes().ct_eq(&iv).into()
}

fn first_half(block: &Block<Aes128Enc>) -> u64 {
    let half = block[..8].try_into().expect("an AES block has 16 octets");
    u64::from_be_bytes(half)
}

#[cfg(test)]
mod tests {
    use aes_kw::{KeyInit as _, KwAes128};
    use cipher::{KeyIvInit, StreamCipher};
    use ctr::Ctr128BE;
    use data_encoding::HEXLOWER_PERMISSIVE as HEX;
    use proptest::prelude::*;

    use super::*;

    /// The default IV (RFC 3394 §2.2.3.1).
    const DEFAULT_IV: [u8; 8] = [0xa6; 8];

    #[test]
    fn the_aes_cm_key_stream_of_rfc_3711_b_2_holds() {
        let key: [u8; 16] = HEX.decode(b"2b7e151628aed2a6abf7158809cf4f3c").unwrap().try_into().unwrap();
        let iv = std::array::from_fn(|index| 0xf0 + index as u8);
        let mut key_stream = [0; 48];
        counter_mode(&key, iv, &mut key_stream);
        let expected = "e03ead0935c95e80e166b16dd92b4eb4d23513162b02d0f72a43a2fe4a5f97ab\
                        41e95b3bb0a2e8dd477901e4fca894c0";
        assert_eq!(HEX.encode(&key_stream), expected);
    }

    #[test]
    fn the_128_bit_vector_of_rfc_3394_4_1_holds() {
        let kek: [u8; 16] = HEX.decode(b"000102030405060708090a0b0c0d0e0f").unwrap().try_into().unwrap();
        let key_data = HEX.decode(b"00112233445566778899aabbccddeeff").unwrap();
        let mut data = [&[0; 8][..], &key_data].concat();
        wrap(&kek, DEFAULT_IV, &mut data);
        assert_eq!(HEX.encode(&data), "1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5");
        assert!(unwrap(&kek, DEFAULT_IV, &mut data));
        assert_eq!(data[8..], key_data);
    }

    #[test]
    fn a_changed_bit_anywhere_fails_the_unwrapping() {
        let mut wrapped = vec![7; 40];
        wrap(&[9; 16], DEFAULT_IV, &mut wrapped);
        for bit in 0..8 * wrapped.len() {
            let mut data = wrapped.clone();
            data[bit / 8] ^= 1 << (bit % 8);
            assert!(!unwrap(&[9; 16], DEFAULT_IV, &mut data), "bit {bit}");
        }
    }

    #[test]
    fn key_data_are_padded_to_whole_blocks_and_at_least_two() {
        assert_eq!([0, 1, 16, 17, 30, 32].map(wrapped_len), [0, 24, 24, 32, 40, 40]);
    }

    #[test]
    fn what_cannot_be_wrapped_data_is_not_unwrapped() {
        let key = PrfKey::new(&[1; 16]);
        for len in [0, 8, 16, 23, 25] {
            assert!(!aes_key_unwrap(&key, CsbId(1), &[2; 16], &mut vec![0; len]), "{len}");
        }
    }

    proptest! {
        #[test]
        fn counter_mode_agrees_with_the_ctr_crate_to_the_largest_length(
            key in any::<[u8; 16]>(),
            iv in any::<[u8; 14]>(),
            len in prop_oneof![20 => 0_usize..100, 1 => Just(65_535)],
        ) {
            let (mut data, mut expected) = (vec![7; len], vec![7; len]);
            counter_mode(&key, iv, &mut data);
            let mut block = [0; 16];
            block[..14].copy_from_slice(&iv);
            Ctr128BE::<Aes128Enc>::new(&key.into(), &block.into()).apply_keystream(&mut expected);
            prop_assert_eq!(data, expected);
        }

        #[test]
        fn wrapping_agrees_with_the_aes_kw_crate(
            kek in any::<[u8; 16]>(),
            key_data in prop::collection::vec(any::<[u8; 8]>(), 2..20),
        ) {
            let key_data = key_data.concat();
            let mut expected = vec![0; key_data.len() + 8];
            KwAes128::new(&kek.into()).wrap_key(&key_data, &mut expected).unwrap();
            let mut data = [&[0; 8][..], &key_data].concat();
            wrap(&kek, DEFAULT_IV, &mut data);
            prop_assert_eq!(&data, &expected);
            prop_assert!(unwrap(&kek, DEFAULT_IV, &mut data));
            prop_assert_eq!(&data[8..], &key_data[..]);
        }
    }
}
