//! Opening an LTKM: the terminal's side.

use core::fmt;

use super::{KEY_DOMAIN_ID_LEN, MSK_ID_LEN, Policy, Srtp};
use crate::{
    CsbId, KeyDomainId, MskId,
    error::{DecodeError, DecodeErrorKind, MakeError, OpenError},
    message::Message,
    payload::{Bcast, Id, KeyData, KeyIds, KeyValidity, Payload, Timestamp},
    psk::{self, Acceptance, AuthKey, PresharedKey},
    registry::{BcastSubtype, CsIdMapType, EncrAlg, IdType, KeyDataType, KeyIdType, TsType},
    secret::Secret,
    verification,
};

/// An LTKM whose MAC was right, decrypted. It owns what it says; Debug shows no keys.
pub struct OpenedLtkm {
    /// V: whether the sender wants a verification message.
    pub v: bool,
    /// CSB ID.
    pub csb_id: CsbId,
    /// T. Whether it is larger than any before it is for the terminal to check (RFC 3830 §5.4).
    pub counter: u32,
    /// RAND.
    pub rand: Vec<u8>,
    /// ID Type of IDi.
    pub idi_type: IdType,
    /// IDi: the NAF FQDN of the BSM.
    pub idi: Vec<u8>,
    /// ID Type of IDr.
    pub id_type: IdType,
    /// IDr: the B-TID of the terminal.
    pub idr: Vec<u8>,
    /// Key Domain ID.
    pub key_domain_id: KeyDomainId,
    /// MSK ID.
    pub msk_id: MskId,
    /// The subtype of the OMA BCAST extension, if there is one.
    pub bcast_subtype: Option<BcastSubtype>,
    /// The management data behind that subtype.
    pub ext_bcast: Option<Vec<u8>>,
    /// SRTP-ID map and policies, unless the map is empty (RFC 4563 §5).
    pub srtp: Option<Srtp>,
    /// The algorithm that the key was encrypted with.
    pub encr_alg: EncrAlg,
    /// The SEK/PEK; `None` in a trigger.
    pub key: Option<OpenedKey>,
    auth_key: AuthKey,
}

impl OpenedLtkm {
    /// Makes the verification message that answers this LTKM (LTKM profile §6, RFC 3830 §3.1) at the beginning of
    /// `out`, and returns its length: [`BASE_LEN`](verification::BASE_LEN) and that of the IDr.
    ///
    /// # Errors
    /// [`MakeError::BufferTooSmall`].
    pub fn verification(&self, out: &mut [u8]) -> Result<usize, MakeError> {
        let counter = self.counter.to_be_bytes();
        let timestamp = Timestamp { ts_type: TsType::COUNTER, value: &counter };
        let idr = Id { id_type: self.id_type, data: &self.idr };
        verification::write(&self.auth_key, self.csb_id, timestamp, &self.idi, idr, out)
    }
}

impl fmt::Debug for OpenedLtkm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenedLtkm")
            .field("csb_id", &self.csb_id)
            .field("counter", &self.counter)
            .field("key_domain_id", &self.key_domain_id)
            .field("msk_id", &self.msk_id)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// The key of an opened LTKM. Key and salt are zeroized when dropped, and Debug does not show them.
#[derive(Debug, Clone)]
pub struct OpenedKey {
    /// Type (RFC 3830 Table 6.13.a).
    pub key_type: KeyDataType,
    /// The SEK/PEK.
    pub key: Secret,
    /// The salt, if the type has one.
    pub salt: Option<Secret>,
    /// When the key is valid.
    pub kv: OpenedValidity,
}

/// When an opened key is valid (RFC 3830 §6.14).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenedValidity {
    /// No specific usage rule.
    Null,
    /// Associated with this SPI or MKI.
    Spi(Vec<u8>),
    /// From and to: in MBMS MTK IDs (2 octets), in BCAST NTP seconds (4 octets).
    Interval {
        /// Valid From.
        from: Vec<u8>,
        /// Valid To (expires).
        to: Vec<u8>,
    },
}

impl OpenedValidity {
    /// The validity as it stands in Key data.
    #[must_use]
    pub fn as_validity(&self) -> KeyValidity<'_> {
        match self {
            Self::Null => KeyValidity::Null,
            Self::Spi(spi) => KeyValidity::Spi(spi),
            Self::Interval { from, to } => KeyValidity::Interval { from, to },
        }
    }
}

impl OpenedKey {
    /// The key as it stands in Key data.
    #[must_use]
    pub fn as_key_data(&self) -> KeyData<'_> {
        KeyData {
            key_type: self.key_type,
            key: self.key.expose(),
            salt: self.salt.as_ref().map(Secret::expose),
            kv: self.kv.as_validity(),
        }
    }
}

/// Opens an LTKM: checks its MAC over the octets as received, in constant time, and only then decrypts.
///
/// Payloads may come in any order before the KEMAC (RFC 3830 §5.2 only recommends one), IDi before IDr. Extensions
/// that an LTKM does not need are authenticated and otherwise ignored.
///
/// # Errors
/// An [`OpenError`] that says whether the octets, the parameters, the key or the sender is to blame. NULL
/// encryption is refused.
pub fn open(key: &PresharedKey, octets: &[u8]) -> Result<OpenedLtkm, OpenError> {
    open_accepting(key, octets, false)
}

/// [`open`] that opens messages with NULL encryption too, if `null_encryption` says so: only for where the
/// underlying protocols guarantee security (RFC 3830 §4.2.3).
///
/// # Errors
/// Those of [`open`].
pub fn open_accepting(
    key: &PresharedKey,
    octets: &[u8],
    null_encryption: bool,
) -> Result<OpenedLtkm, OpenError> {
    let opened = psk::open(key, octets, Acceptance { null_encryption, csb_rand: None })?;
    let header = *opened.message().header();
    let timestamp = opened.timestamp();
    let counter = timestamp.counter().ok_or(OpenError::UnsupportedTsType(timestamp.ts_type))?;
    let idi = opened.idi().ok_or(OpenError::Missing("IDi"))?;
    let idr = opened.idr().ok_or(OpenError::Missing("IDr"))?;
    let extensions = Extensions::of(opened.message())?;
    let (key_domain_id, msk_id) = ids(extensions.key_ids.ok_or(OpenError::Missing("Key ID extension"))?)?;
    Ok(OpenedLtkm {
        v: header.v,
        csb_id: header.csb_id,
        counter,
        rand: opened.rand().to_vec(),
        idi_type: idi.id_type,
        idi: idi.data.to_vec(),
        id_type: idr.id_type,
        idr: idr.data.to_vec(),
        key_domain_id,
        msk_id,
        bcast_subtype: extensions.bcast.map(|bcast| bcast.subtype),
        ext_bcast: extensions.bcast.map(|bcast| bcast.data.to_vec()),
        srtp: (header.map_type == CsIdMapType::SRTP_ID)
            .then(|| Srtp::from_parts(header.srtp_ids(), extensions.policies)),
        encr_alg: opened.encr_alg(),
        key: only_key(&opened)?,
        auth_key: opened.auth_key().clone(),
    })
}

/// What stands in an LTKM beside what the pre-shared-key method itself needs.
#[derive(Default)]
struct Extensions<'a> {
    key_ids: Option<KeyIds<'a>>,
    bcast: Option<Bcast<'a>>,
    policies: Vec<Policy>,
}

impl<'a> Extensions<'a> {
    fn of(message: &Message<'a>) -> Result<Self, OpenError> {
        let mut found = Self::default();
        for placed in message.payloads() {
            match placed.payload {
                Payload::Ext(ext) => {
                    if let Some(key_ids) = ext.key_ids()
                        && found.key_ids.replace(key_ids).is_some()
                    {
                        return Err(OpenError::Twice("Key ID extension"));
                    }
                    if let Some(bcast) = ext.bcast()
                        && found.bcast.replace(bcast).is_some()
                    {
                        return Err(OpenError::Twice("OMA BCAST extension"));
                    }
                }
                Payload::Sp(sp) => found.policies.push(Policy::from_sp(&sp)),
                _ => {}
            }
        }
        Ok(found)
    }
}

/// Key Domain ID and MSK ID of a Key ID extension, each there exactly once.
fn ids(key_ids: KeyIds<'_>) -> Result<(KeyDomainId, MskId), OpenError> {
    let (mut key_domain_id, mut msk_id) = (None, None);
    for key_id in key_ids {
        let len = |field, wanted| OpenError::KeyIdLength { field, found: key_id.id.len(), wanted };
        match key_id.key_id_type {
            KeyIdType::KEY_DOMAIN => {
                let id = key_id.id.try_into().map_err(|_| len("Key Domain ID", KEY_DOMAIN_ID_LEN))?;
                if key_domain_id.replace(KeyDomainId(id)).is_some() {
                    return Err(OpenError::Twice("Key Domain ID"));
                }
            }
            KeyIdType::SERVICE_KEY => {
                let id = key_id.id.try_into().map_err(|_| len("MSK ID", MSK_ID_LEN))?;
                if msk_id.replace(MskId(id)).is_some() {
                    return Err(OpenError::Twice("MSK ID"));
                }
            }
            _ => {}
        }
    }
    let key_domain_id = key_domain_id.ok_or(OpenError::Missing("Key Domain ID"))?;
    Ok((key_domain_id, msk_id.ok_or(OpenError::Missing("MSK ID"))?))
}

/// The one key that an LTKM carries, or none.
fn only_key(opened: &psk::Opened<'_>) -> Result<Option<OpenedKey>, OpenError> {
    let mut keys = opened.keys();
    let Some(key) = keys.next() else { return Ok(None) };
    if keys.next().is_some() {
        return Err(OpenError::Twice("Key data"));
    }
    let kv = match key.kv {
        KeyValidity::Null => OpenedValidity::Null,
        KeyValidity::Spi(spi) => OpenedValidity::Spi(spi.to_vec()),
        KeyValidity::Interval { from, to } => {
            OpenedValidity::Interval { from: from.to_vec(), to: to.to_vec() }
        }
        KeyValidity::Other { kv_type, .. } => {
            let (field, found, wanted) = match key.key_type.has_salt() {
                None => ("Key data Type", key.key_type.0, "0 to 3"),
                Some(_) => ("KV", kv_type.0, "0 to 2"),
            };
            let kind = DecodeErrorKind::Unexpected { field, found: found.into(), wanted };
            return Err(OpenError::KeyData(DecodeError { at: opened.key_data_at() + 1, kind }));
        }
    };
    let salt = key.salt.map(Secret::from);
    Ok(Some(OpenedKey { key_type: key.key_type, key: Secret::from(key.key), salt, kv }))
}
