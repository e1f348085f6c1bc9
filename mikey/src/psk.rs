//! The pre-shared-key method (RFC 3830 §3.1), both ways, for any message of it; [`ltkm`](crate::ltkm) and
//! [`verification`](crate::verification) are the messages of the LTKM profile.

use core::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, optimization_barrier};

use crate::{
    CsbId,
    error::{DecodeError, DecodeErrorKind, MakeError, OpenError},
    hmac::{HmacSha1, MAC_LEN},
    message::{Message, write_chain},
    octets::{Writer, bounded},
    payload::{Header, Id, Kemac, KeyData, KeyDataList, Payload, Rand, Timestamp},
    prf::{PrfKey, PskConstant},
    registry::{CsIdMapType, DataType, EncrAlg, MacAlg, PayloadType, PrfFunc},
    secret::Secret,
    transform,
};

/// A pre-shared key, prepared for use: in MBMS a terminal's MUK.
///
/// It keeps the key's HMAC states instead of the key (see [`PrfKey`]), so that making or checking the next message
/// of the same terminal costs no set-up, and making it costs two SHA-1 compressions for each 32 octets of the key.
/// Zeroized when dropped; Debug shows nothing.
#[derive(Clone)]
pub struct PresharedKey(PrfKey);

impl PresharedKey {
    /// Prepares a key of any length but 0. Keys of up to 64 octets are kept without allocation.
    ///
    /// # Panics
    /// When `key` is empty.
    #[must_use]
    pub fn new(key: &[u8]) -> Self {
        Self(PrfKey::new(key))
    }

    /// Derives key material of a message (RFC 3830 §4.1.4). Making and opening messages does it by itself.
    pub fn derive(&self, constant: PskConstant, csb_id: CsbId, rand: &[u8], out: &mut [u8]) {
        self.0.derive_from_psk(constant, csb_id, rand, out);
    }

    /// The authentication key of the messages with this CSB ID and RAND, 160 bits (RFC 3830 §4.1.4, §4.2.4).
    #[must_use]
    pub fn auth_key(&self, csb_id: CsbId, rand: &[u8]) -> AuthKey {
        let mut auth_key = [0; MAC_LEN];
        self.derive(PskConstant::AUTHENTICATION, csb_id, rand, &mut auth_key);
        let prepared = AuthKey(HmacSha1::new(&auth_key));
        auth_key = [0; MAC_LEN];
        optimization_barrier(&auth_key);
        prepared
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey")
    }
}

/// The authentication key of a message and of its verification message (RFC 3830 §4.1.4), prepared for use.
/// Zeroized when dropped; Debug shows nothing.
#[derive(Clone)]
pub struct AuthKey(HmacSha1);

impl AuthKey {
    /// HMAC-SHA-1-160 over `parts`, one after the other (RFC 3830 §4.2.4).
    pub(crate) fn mac(&self, parts: &[&[u8]]) -> [u8; MAC_LEN] {
        self.0.mac(parts)
    }

    /// Whether `mac` is the MAC of `parts`, found out in a time that does not depend on it.
    #[must_use]
    pub(crate) fn is_mac(&self, parts: &[&[u8]], mac: &[u8]) -> bool {
        self.mac(parts).ct_eq(mac).into()
    }
}

impl fmt::Debug for AuthKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthKey")
    }
}

/// How [`write()`] protects a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protection<'a> {
    /// The algorithm that encrypts the Key data; the MAC is always HMAC-SHA-1-160.
    pub encr_alg: EncrAlg,
    /// The RAND of the CSB, for an update message, which carries none itself (RFC 3830 §4.5).
    pub csb_rand: Option<&'a [u8]>,
}

impl Default for Protection<'_> {
    /// AES-CM-128, and the message carries its RAND.
    fn default() -> Self {
        Self { encr_alg: EncrAlg::AES_CM_128, csb_rand: None }
    }
}

/// Makes a pre-shared key message: `header`, `payloads`, and a KEMAC with `keys` at the end. Returns the number of
/// octets written. No key at all makes a KEMAC with Encr data len 0.
///
/// `payloads` hold one T, one RAND (unless `protection` brings it), and as wanted IDi, IDr, SP and general
/// extensions, in the order in which they are to stand.
///
/// # Errors
/// A [`MakeError`] when `header` is not that of a pre-shared key message with MIKEY-1, T or RAND is missing, a part
/// does not fit its fields, the encryption is not supported, or `out` is too small.
///
/// ```
/// use mikey::{
///     CsbId, DataType, KeyDataType, TsType,
///     payload::{Header, KeyData, KeyValidity, Payload, Rand, Timestamp},
///     psk::{self, Acceptance, PresharedKey, Protection},
/// };
///
/// let key = PresharedKey::new(b"a secret of two parties");
/// let payloads = [
///     Payload::T(Timestamp { ts_type: TsType::NTP_UTC, value: &0xedd2_9180_0000_0000_u64.to_be_bytes() }),
///     Payload::Rand(Rand { data: &[7; 16] }), // from a random number generator, of course
/// ];
/// let tgk = KeyData { key_type: KeyDataType::TGK, key: &[1; 16], salt: None, kv: KeyValidity::Null };
///
/// let mut out = [0; 128];
/// let header = Header::new(DataType::PRE_SHARED, CsbId(1));
/// let len = psk::write(&key, &header, &payloads, &[tgk], Protection::default(), &mut out)?;
///
/// let opened = psk::open(&key, &out[..len], Acceptance::default())?;
/// assert!(opened.keys().eq([tgk]));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub fn write(
    key: &PresharedKey,
    header: &Header<'_>,
    payloads: &[Payload<'_>],
    keys: &[KeyData<'_>],
    protection: Protection<'_>,
    out: &mut [u8],
) -> Result<usize, MakeError> {
    if header.data_type != DataType::PRE_SHARED {
        return Err(MakeError::Missing("data type 0 in the header"));
    }
    if header.prf_func != PrfFunc::MIKEY_1 {
        return Err(MakeError::UnsupportedPrf(header.prf_func));
    }
    let mut parts = Parts { rand: protection.csb_rand, ..Parts::default() };
    for payload in payloads {
        let excluded = header.map_type == CsIdMapType::EMPTY && matches!(payload, Payload::Sp(_));
        if excluded || parts.add(payload).is_err() {
            return Err(MakeError::Misplaced(payload.payload_type()));
        }
    }
    let t = parts.timestamp.and_then(|timestamp| timestamp.as_u64()).ok_or(MakeError::Missing("T"))?;
    let rand = parts.rand.ok_or(MakeError::Missing("RAND"))?;
    let mut writer = Writer::new(out);
    write_chain(header, payloads.iter().copied(), PayloadType::KEMAC, &mut writer)?;
    write_kemac(key, header.csb_id, t, rand, protection.encr_alg, keys, &mut writer)?;
    Ok(writer.written())
}

/// Octets of the KEMAC that transports `keys`.
pub(crate) fn kemac_len(encr_alg: EncrAlg, keys: &[KeyData<'_>]) -> usize {
    let len = keys.iter().map(KeyData::encoded_len).sum();
    let encr_data_len = if encr_alg == EncrAlg::AES_KW_128 { transform::wrapped_len(len) } else { len };
    5 + encr_data_len + MAC_LEN
}

/// Encrypts `keys` into a KEMAC at the end of the message, and puts the MAC over all of it (RFC 3830 §5.2, §6.2).
pub(crate) fn write_kemac(
    key: &PresharedKey,
    csb_id: CsbId,
    t: u64,
    rand: &[u8],
    encr_alg: EncrAlg,
    keys: &[KeyData<'_>],
    writer: &mut Writer<'_>,
) -> Result<(), MakeError> {
    if !matches!(encr_alg, EncrAlg::NULL | EncrAlg::AES_CM_128 | EncrAlg::AES_KW_128) {
        return Err(MakeError::UnsupportedEncrAlg(encr_alg));
    }
    let len = bounded(kemac_len(encr_alg, keys) - 5 - MAC_LEN, u16::MAX.into(), "Encr data")?;
    writer.put(&[PayloadType::LAST.0, encr_alg.0])?;
    writer.u16(len as u16)?;
    let encr_data = writer.place(len)?;
    let clear_at = if encr_alg == EncrAlg::AES_KW_128 { len.min(8) } else { 0 };
    if let Err(error) = write_keys(keys, &mut encr_data[clear_at..]) {
        encr_data.zeroize();
        return Err(error);
    }
    match encr_alg {
        _ if len == 0 => {}
        EncrAlg::AES_CM_128 => transform::aes_cm(&key.0, csb_id, rand, t, encr_data),
        EncrAlg::AES_KW_128 => transform::aes_key_wrap(&key.0, csb_id, rand, encr_data),
        _ => {}
    }
    writer.u8(MacAlg::HMAC_SHA_1_160.0)?;
    let mac = key.auth_key(csb_id, rand).mac(&[writer.so_far()]);
    writer.put(&mac)
}

/// Writes the chain of Key data; what it leaves of `place` is padding, zeroed.
fn write_keys(keys: &[KeyData<'_>], place: &mut [u8]) -> Result<(), MakeError> {
    let mut writer = Writer::new(place);
    for (index, key) in keys.iter().enumerate() {
        key.encode(index + 1 == keys.len(), &mut writer)?;
    }
    let written = writer.written();
    place[written..].fill(0);
    Ok(())
}

/// What [`open`] accepts beyond the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Acceptance<'a> {
    /// Whether a message with NULL encryption is opened. It is authenticated all the same, but whoever carried it
    /// could read the key: RFC 3830 §4.2.3 allows it only where the underlying protocols guarantee security.
    pub null_encryption: bool,
    /// The RAND of the CSB, for an update message, which carries none itself (RFC 3830 §4.5).
    pub csb_rand: Option<&'a [u8]>,
}

/// A pre-shared key message whose MAC was right, decrypted.
pub struct Opened<'a> {
    message: Message<'a>,
    parts: Parts<'a>,
    timestamp: Timestamp<'a>,
    rand: &'a [u8],
    encr_alg: EncrAlg,
    key_data: Secret,
    key_data_at: usize,
    auth_key: AuthKey,
}

impl<'a> Opened<'a> {
    /// The whole message.
    #[must_use]
    pub const fn message(&self) -> &Message<'a> {
        &self.message
    }

    /// T. Whether it is new is for the caller to decide (RFC 3830 §5.4).
    #[must_use]
    pub const fn timestamp(&self) -> Timestamp<'a> {
        self.timestamp
    }

    /// RAND, of the message or of its CSB.
    #[must_use]
    pub const fn rand(&self) -> &'a [u8] {
        self.rand
    }

    /// The first ID payload: IDi, unless the parties have agreed to leave it out (RFC 3830 §3.1).
    #[must_use]
    pub const fn idi(&self) -> Option<Id<'a>> {
        self.parts.idi
    }

    /// The second ID payload: IDr.
    #[must_use]
    pub const fn idr(&self) -> Option<Id<'a>> {
        self.parts.idr
    }

    /// The algorithm that the Key data was encrypted with.
    #[must_use]
    pub const fn encr_alg(&self) -> EncrAlg {
        self.encr_alg
    }

    /// The transported keys, in order; none in a message with Encr data len 0.
    #[must_use]
    pub fn keys(&self) -> KeyDataList<'_> {
        KeyDataList::parse(self.key_data.expose()).expect("open has parsed the same octets")
    }

    /// The octet of the message at which the Encr data stand.
    pub(crate) const fn key_data_at(&self) -> usize {
        self.key_data_at
    }

    /// The authentication key, for the verification message (RFC 3830 §3.1).
    #[must_use]
    pub const fn auth_key(&self) -> &AuthKey {
        &self.auth_key
    }
}

impl fmt::Debug for Opened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("message", &self.message).finish_non_exhaustive()
    }
}

/// Opens a pre-shared key message: checks its MAC, over the octets as received and in constant time, and only then
/// decrypts. The NULL MAC is never accepted.
///
/// # Errors
/// An [`OpenError`] that says whether the octets, the parameters, the key or the sender is to blame.
pub fn open<'a>(
    key: &PresharedKey,
    octets: &'a [u8],
    acceptance: Acceptance<'a>,
) -> Result<Opened<'a>, OpenError> {
    let message = Message::parse(octets)?;
    let header = message.header();
    if header.data_type != DataType::PRE_SHARED {
        return Err(OpenError::DataType(header.data_type));
    }
    if header.prf_func != PrfFunc::MIKEY_1 {
        return Err(OpenError::UnsupportedPrf(header.prf_func));
    }
    let mut parts = Parts::default();
    let mut kemac = None;
    for placed in message.payloads() {
        match placed.payload {
            Payload::Kemac(found) if kemac.is_none() => kemac = Some((placed.at, found)),
            Payload::Kemac(_) => return Err(OpenError::Twice("KEMAC")),
            // RFC 3830 §6.2: with the pre-shared key method, KEMAC is the last payload.
            _ if kemac.is_some() => return Err(misplaced(placed.at, &placed.payload)),
            Payload::Sp(_) if header.map_type == CsIdMapType::EMPTY => {
                return Err(OpenError::PolicyBesideMap(header.map_type));
            }
            payload => match parts.add(&payload) {
                Ok(()) => {}
                Err(Refused::Twice(what)) => return Err(OpenError::Twice(what)),
                Err(Refused::Kind) => return Err(misplaced(placed.at, &payload)),
            },
        }
    }
    let (kemac_at, kemac) = kemac.ok_or(OpenError::Missing("KEMAC"))?;
    let timestamp = parts.timestamp.ok_or(OpenError::Missing("T"))?;
    let t = timestamp.as_u64().ok_or(OpenError::UnsupportedTsType(timestamp.ts_type))?;
    let rand = parts.rand.or(acceptance.csb_rand).ok_or(OpenError::Missing("RAND"))?;
    if kemac.mac_alg != MacAlg::HMAC_SHA_1_160 {
        return Err(OpenError::UnsupportedMacAlg(kemac.mac_alg));
    }
    let auth_key = key.auth_key(header.csb_id, rand);
    if !auth_key.is_mac(&[&octets[..octets.len() - MAC_LEN]], kemac.mac) {
        return Err(OpenError::WrongMac);
    }
    let key_data_at = kemac_at + 4;
    let key_data = decrypt(key, header.csb_id, t, rand, kemac, key_data_at, acceptance)?;
    let encr_alg = kemac.encr_alg;
    Ok(Opened { message, parts, timestamp, rand, encr_alg, key_data, key_data_at, auth_key })
}

/// Decrypts the Encr data of a KEMAC, which stand at octet `at`, and checks that they are Key data.
fn decrypt(
    key: &PresharedKey,
    csb_id: CsbId,
    t: u64,
    rand: &[u8],
    kemac: Kemac<'_>,
    at: usize,
    acceptance: Acceptance<'_>,
) -> Result<Secret, OpenError> {
    let mut key_data = Secret::from(kemac.encr_data);
    match kemac.encr_alg {
        EncrAlg::NULL if acceptance.null_encryption => {}
        EncrAlg::AES_CM_128 => transform::aes_cm(&key.0, csb_id, rand, t, key_data.expose_mut()),
        EncrAlg::AES_KW_128 if kemac.encr_data.is_empty() => {}
        EncrAlg::AES_KW_128 => {
            if !transform::aes_key_unwrap(&key.0, csb_id, rand, key_data.expose_mut()) {
                return Err(OpenError::WrongWrap);
            }
            return unpadded(&key_data.expose()[8..], at + 8);
        }
        other => return Err(OpenError::UnsupportedEncrAlg(other)),
    }
    let (_, left) = KeyDataList::parse_prefix(key_data.expose(), at).map_err(OpenError::KeyData)?;
    if left.is_empty() { Ok(key_data) } else { Err(trailing(at + kemac.encr_data.len(), left)) }
}

/// Takes off the zero octets that filled key data up to the blocks of AES key wrap.
fn unpadded(key_data: &[u8], at: usize) -> Result<Secret, OpenError> {
    let (_, padding) = KeyDataList::parse_prefix(key_data, at).map_err(OpenError::KeyData)?;
    let len = key_data.len() - padding.len();
    let is_padding =
        transform::wrapped_len(len) == key_data.len() + 8 && padding.iter().all(|octet| *octet == 0);
    if is_padding { Ok(Secret::from(&key_data[..len])) } else { Err(trailing(at + key_data.len(), padding)) }
}

fn trailing(end: usize, left: &[u8]) -> OpenError {
    let left = left.len();
    OpenError::KeyData(DecodeError { at: end - left, kind: DecodeErrorKind::Trailing { left } })
}

fn misplaced(at: usize, payload: &Payload<'_>) -> OpenError {
    let found = payload.payload_type();
    let wanted = "T, RAND, ID, SP, a general extension or a final KEMAC";
    OpenError::Malformed(DecodeError { at, kind: DecodeErrorKind::Misplaced { found, wanted } })
}

/// Why a payload does not belong into a pre-shared key message.
enum Refused {
    Twice(&'static str),
    Kind,
}

/// The payloads before the KEMAC that the method itself needs (RFC 3830 §3.1).
#[derive(Clone, Copy, Default)]
struct Parts<'a> {
    timestamp: Option<Timestamp<'a>>,
    rand: Option<&'a [u8]>,
    idi: Option<Id<'a>>,
    idr: Option<Id<'a>>,
}

impl<'a> Parts<'a> {
    fn add(&mut self, payload: &Payload<'a>) -> Result<(), Refused> {
        match *payload {
            Payload::T(_) if self.timestamp.is_some() => return Err(Refused::Twice("T")),
            Payload::T(timestamp) => self.timestamp = Some(timestamp),
            Payload::Rand(_) if self.rand.is_some() => return Err(Refused::Twice("RAND")),
            Payload::Rand(Rand { data }) => self.rand = Some(data),
            Payload::Id(id) if self.idi.is_none() => self.idi = Some(id),
            Payload::Id(id) if self.idr.is_none() => self.idr = Some(id),
            Payload::Id(_) => return Err(Refused::Twice("IDr")),
            Payload::Sp(_) | Payload::Ext(_) => {}
            _ => return Err(Refused::Kind),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{payload::KeyValidity, registry::KeyDataType};

    /// Key data of 21 octets, and so 3 of padding.
    fn padded() -> (Vec<u8>, usize) {
        let key =
            KeyData { key_type: KeyDataType::TGK, key: &[6; 16], salt: None, kv: KeyValidity::Spi(&[]) };
        let mut octets = vec![0xee; 24];
        write_keys(&[key], &mut octets).unwrap();
        (octets, key.encoded_len())
    }

    #[test]
    fn the_padding_of_wrapped_key_data_is_zeros_up_to_whole_blocks_and_nothing_else() {
        let (octets, len) = padded();
        assert_eq!(octets[len..], [0, 0, 0]);
        assert_eq!(unpadded(&octets, 100).unwrap().expose(), &octets[..len]);
        let longer = [&octets[..], &[0; 8]].concat();
        assert!(matches!(unpadded(&longer, 100), Err(OpenError::KeyData(DecodeError { at: 121, .. }))));
        let mut other = octets.clone();
        other[len + 1] = 1;
        assert!(matches!(unpadded(&other, 100), Err(OpenError::KeyData(DecodeError { at: 121, .. }))));
    }

    #[test]
    fn keys_are_shown_by_no_debug() {
        let key = PresharedKey::new(b"secret");
        assert_eq!(format!("{key:?}"), "PresharedKey");
        assert_eq!(format!("{:?}", key.auth_key(CsbId(1), &[2; 16])), "AuthKey");
        assert_eq!(format!("{:?}", Secret::from(&b"secret"[..])), "Secret");
    }

    #[test]
    #[should_panic(expected = "a MIKEY key has at least one octet")]
    fn no_key_is_not_a_key() {
        let _ = PresharedKey::new(&[]);
    }
}
