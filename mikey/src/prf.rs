//! MIKEY-1, the default pseudo-random function (RFC 3830 §4.1.2), and what is derived with it (§4.1.3, §4.1.4).

use core::fmt;

use zeroize::optimization_barrier;

use crate::{
    CsbId,
    hmac::{HmacSha1, MAC_LEN, ShortMessage},
};

/// Octets of the blocks that the input key is split into: 256 bits (RFC 3830 §4.1.2).
const BLOCK_LEN: usize = 32;

/// The MIKEY-1 PRF under one key, of any length: PRF(inkey, ·) (RFC 3830 §4.1.2).
///
/// The key is kept as prepared HMAC states, 40 octets for each 32 of the key, so that using it again costs no
/// set-up. Keys of up to 64 octets are kept without allocation. Zeroized when dropped; Debug shows nothing.
///
/// ```
/// // A vector of 128 bits of output from a key of 128 bits.
/// let inkey = 0xdeeb_dd87_0a70_7cef_f1ca_f6ec_3bff_b926_u128.to_be_bytes();
/// let label = [
///     0xc8, 0x3c, 0xec, 0xaf, 0x9f, 0x31, 0x5c, 0x9d, 0x62, 0x87, 0x03, 0xc9, 0xbf, 0xf4, 0x9d, 0xa0, 0x0f, 0xf3,
///     0x45, 0xd3, 0x41, 0xf3, 0x71, 0xfb, 0x33,
/// ];
/// let mut outkey = [0; 16];
/// mikey::prf::PrfKey::new(&inkey).fill(&label, &mut outkey);
/// assert_eq!(u128::from_be_bytes(outkey), 0xe928_b434_eff4_fd15_5bc7_4756_537f_3069);
/// ```
#[derive(Clone)]
pub struct PrfKey {
    first: HmacSha1,
    second: Option<HmacSha1>,
    more: Vec<HmacSha1>,
}

impl PrfKey {
    /// Prepares `inkey`.
    ///
    /// # Panics
    /// When `inkey` is empty: the PRF of no key is not defined, and a secret of no octets is always a mistake.
    #[must_use]
    pub fn new(inkey: &[u8]) -> Self {
        assert!(!inkey.is_empty(), "a MIKEY key has at least one octet");
        let (first, behind) = inkey.split_at(inkey.len().min(BLOCK_LEN));
        let (second, behind) = behind.split_at(behind.len().min(BLOCK_LEN));
        Self {
            first: HmacSha1::new(first),
            second: (!second.is_empty()).then(|| HmacSha1::new(second)),
            more: behind.chunks(BLOCK_LEN).map(HmacSha1::new).collect(),
        }
    }

    /// Fills `out` with PRF(inkey, label).
    pub fn fill(&self, label: &[u8], out: &mut [u8]) {
        self.fill_parts(label, &[], out);
    }

    /// Fills `out` with PRF(inkey, head ‖ tail).
    pub(crate) fn fill_parts(&self, head: &[u8], tail: &[u8], out: &mut [u8]) {
        out.fill(0);
        let blocks = [&self.first].into_iter().chain(&self.second).chain(&self.more);
        let label_len = head.len() + tail.len();
        if out.len() > MAC_LEN || MAC_LEN + label_len > ShortMessage::MAX_LEN {
            blocks.for_each(|block| xor_p(block, head, tail, out));
            return;
        }
        // The labels of the LTKM profile are this short: both MACs of P(s, label, 1) are of one block.
        let mut first = ShortMessage::zeros(label_len);
        first.put(0, head);
        first.put(head.len(), tail);
        let mut step = ShortMessage::zeros(MAC_LEN + label_len);
        step.put(MAC_LEN, head);
        step.put(MAC_LEN + head.len(), tail);
        for block in blocks {
            step.put(0, &block.mac_short(&first));
            xor(out, block.mac_short(&step));
        }
    }
}

/// XORs P(block, label, m) into `out`, with as many steps m as `out` is long (RFC 3830 §4.1.2).
fn xor_p(block: &HmacSha1, head: &[u8], tail: &[u8], out: &mut [u8]) {
    let mut a = block.mac(&[head, tail]);
    let mut chunks = out.chunks_mut(MAC_LEN).peekable();
    while let Some(chunk) = chunks.next() {
        xor(chunk, block.mac(&[&a, head, tail]));
        if chunks.peek().is_some() {
            a = block.mac(&[&a]);
        }
    }
}

/// XORs derived key material into `out`, and forgets it.
#[inline]
fn xor(out: &mut [u8], mut key: [u8; MAC_LEN]) {
    for (octet, key) in out.iter_mut().zip(&key) {
        *octet ^= key;
    }
    key = [0; MAC_LEN];
    optimization_barrier(&key);
}

impl fmt::Debug for PrfKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrfKey")
    }
}

/// What a key derived from a pre-shared or envelope key is for (RFC 3830 §4.1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PskConstant(pub u32);

impl PskConstant {
    /// The encryption key.
    pub const ENCRYPTION: Self = Self(0x1505_33e1);
    /// The authentication key.
    pub const AUTHENTICATION: Self = Self(0x2d22_ac75);
    /// The salt key.
    pub const SALT: Self = Self(0x29b8_8916);
}

/// What a key derived from a TGK is for (RFC 3830 §4.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TgkConstant(pub u32);

impl TgkConstant {
    /// The traffic encryption key.
    pub const TEK: Self = Self(0x2ad0_1c64);
    /// The authentication key of a security protocol that does not derive its own.
    pub const AUTHENTICATION: Self = Self(0x1b5c_7973);
    /// The encryption key of a security protocol that does not derive its own.
    pub const ENCRYPTION: Self = Self(0x1579_8cef);
    /// The salting key, where the Key data carries none.
    pub const SALT: Self = Self(0x39a2_c14b);
}

/// cs_id of keys that protect MIKEY messages themselves (RFC 3830 §4.1.4).
const CS_ID_MIKEY: u8 = 0xff;

impl PrfKey {
    /// Derives a key of a MIKEY message from a pre-shared or envelope key: the label is
    /// constant ‖ 0xFF ‖ csb_id ‖ RAND (RFC 3830 §4.1.4).
    pub fn derive_from_psk(&self, constant: PskConstant, csb_id: CsbId, rand: &[u8], out: &mut [u8]) {
        self.fill_parts(&label_head(constant.0, CS_ID_MIKEY, csb_id), rand, out);
    }

    /// Derives a key of a security protocol from a TGK: the label is constant ‖ cs_id ‖ csb_id ‖ RAND
    /// (RFC 3830 §4.1.3).
    pub fn derive_from_tgk(
        &self,
        constant: TgkConstant,
        cs_id: u8,
        csb_id: CsbId,
        rand: &[u8],
        out: &mut [u8],
    ) {
        self.fill_parts(&label_head(constant.0, cs_id, csb_id), rand, out);
    }
}

/// The label up to the RAND.
fn label_head(constant: u32, cs_id: u8, csb_id: CsbId) -> [u8; 9] {
    let [c0, c1, c2, c3] = constant.to_be_bytes();
    let [b0, b1, b2, b3] = csb_id.0.to_be_bytes();
    [c0, c1, c2, c3, cs_id, b0, b1, b2, b3]
}
