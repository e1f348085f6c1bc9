//! Making an LTKM.

use super::{KEY_ID_DATA_LEN, MIN_RAND_LEN, Srtp};
use crate::{
    CsbId, KeyDomainId, MskId,
    error::MakeError,
    octets::{Writer, bounded},
    payload::{GeneralExt, Header, Id, KeyData, Payload, Rand, Timestamp},
    psk::{self, PresharedKey},
    registry::{
        BcastSubtype, CsIdMapType, DataType, EncrAlg, ExtType, IdType, KeyIdType, PayloadType, TsType,
    },
};

/// Everything an LTKM carries (LTKM profile §5). It is a view: making a message allocates nothing.
///
/// ```
/// use mikey::{CsbId, IdType, KeyDomainId, MskId, ltkm::{self, KeyData, KeyDataType, KeyValidity, Ltkm}};
/// use mikey::psk::PresharedKey;
///
/// let muk = PresharedKey::new(&[0x2c; 32]);
/// let message = Ltkm {
///     v: true,
///     csb_id: CsbId(0x6342_9ca7),
///     counter: 1,
///     rand: &[0x47; 16],
///     id_type: IdType::NAI,
///     idi: b"bmsc.example.com",
///     idr: b"dGVybWluYWw=@bsf.example.com",
///     key_domain_id: KeyDomainId([0x62, 0xf2, 0x10]),
///     msk_id: MskId::new(0x68c9, 1),
///     ext_bcast: None,
///     srtp: None,
///     key: Some(KeyData {
///         key_type: KeyDataType::TGK,
///         key: &[0x11; 16],
///         salt: None,
///         kv: KeyValidity::Interval { from: &[0xed, 0xd2, 0x91, 0x80], to: &[0xed, 0xd3, 0xe3, 0x00] },
///     }),
/// };
///
/// let mut buffer = [0; ltkm::BUFFER_LEN];
/// let len = message.write(&muk, &mut buffer)?;
/// assert_eq!(len, message.encoded_len());
/// # Ok::<_, mikey::MakeError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Ltkm<'a> {
    /// V: whether the terminal is to answer with a verification message.
    pub v: bool,
    /// CSB ID, unique between this initiator and this terminal (RFC 3830 §6.1).
    pub csb_id: CsbId,
    /// T, a COUNTER that rises with each message under the same key (RFC 3830 §6.6).
    pub counter: u32,
    /// RAND: fresh random octets, 16 to 255 (RFC 3830 §6.11).
    pub rand: &'a [u8],
    /// ID Type of both identities (RFC 3830 §6.7).
    pub id_type: IdType,
    /// IDi: the NAF FQDN of the BSM, 1 to 65,535 octets.
    pub idi: &'a [u8],
    /// IDr: the B-TID of the terminal, 1 to 65,535 octets.
    pub idr: &'a [u8],
    /// Key Domain ID (RFC 4563 §4).
    pub key_domain_id: KeyDomainId,
    /// MSK ID (RFC 4563 §4).
    pub msk_id: MskId,
    /// Management data of OMA BCAST, without the subtype octet, at most 65,534 octets; `None` leaves the
    /// extension out (RFC 5410 §3).
    pub ext_bcast: Option<&'a [u8]>,
    /// SRTP-ID map and policies; `None` is an empty map of no crypto sessions (RFC 4563 §5).
    pub srtp: Option<&'a Srtp>,
    /// The SEK/PEK; `None` is a trigger: a message with Encr data len 0.
    pub key: Option<KeyData<'a>>,
}

/// What an LTKM is made with beyond its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The algorithm that encrypts the Key data.
    pub encr_alg: EncrAlg,
    /// The subtype of the OMA BCAST extension.
    pub bcast_subtype: BcastSubtype,
}

impl Default for Options {
    /// AES-CM-128, which every MIKEY implementation has, and the subtype LTKM.
    fn default() -> Self {
        Self { encr_alg: EncrAlg::AES_CM_128, bcast_subtype: BcastSubtype::LTKM }
    }
}

impl Ltkm<'_> {
    /// The exact length of the message that [`write`](Self::write) makes, in octets.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        self.encoded_len_with(Options::default())
    }

    /// The exact length of the message that [`write_with`](Self::write_with) makes, in octets.
    #[must_use]
    pub fn encoded_len_with(&self, options: Options) -> usize {
        let srtp = self.srtp.map_or(0, |srtp| {
            let policies: usize = srtp.policies().iter().map(|policy| policy.encoded_len()).sum();
            srtp.map().1.len() + policies
        });
        let ext_bcast = self.ext_bcast.map_or(0, |data| 5 + data.len());
        let ids = 4 + self.idi.len() + 4 + self.idr.len();
        let kemac = psk::kemac_len(options.encr_alg, self.key.as_slice());
        10 + srtp + 4 + KEY_ID_DATA_LEN + ext_bcast + 6 + 2 + self.rand.len() + ids + kemac
    }

    /// Makes the message at the beginning of `out` and returns its length in octets.
    ///
    /// # Errors
    /// A [`MakeError`] when a part does not fit its fields or `out` is too small; `out` then holds nothing secret.
    pub fn write(&self, key: &PresharedKey, out: &mut [u8]) -> Result<usize, MakeError> {
        self.write_with(key, Options::default(), out)
    }

    /// [`write`](Self::write) with another encryption or OMA BCAST subtype.
    ///
    /// # Errors
    /// Those of [`write`](Self::write), and [`MakeError::UnsupportedEncrAlg`].
    pub fn write_with(
        &self,
        key: &PresharedKey,
        options: Options,
        out: &mut [u8],
    ) -> Result<usize, MakeError> {
        at_least(self.rand, MIN_RAND_LEN, "RAND")?;
        at_least(self.idi, 1, "IDi")?;
        at_least(self.idr, 1, "IDr")?;
        if let Some(key_data) = &self.key {
            at_least(key_data.key, 1, "Key data")?;
        }
        let (needed, len) = (self.encoded_len_with(options), out.len());
        if len < needed {
            return Err(MakeError::BufferTooSmall { needed, len });
        }
        let mut writer = Writer::new(out);
        self.write_clear(options.bcast_subtype, &mut writer)?;
        let (csb_id, t, keys) = (self.csb_id, self.counter.into(), self.key.as_slice());
        psk::write_kemac(key, csb_id, t, self.rand, options.encr_alg, keys, &mut writer)?;
        Ok(writer.written())
    }

    /// Everything before the KEMAC.
    fn write_clear(&self, bcast_subtype: BcastSubtype, writer: &mut Writer<'_>) -> Result<(), MakeError> {
        let mut header = Header::new(DataType::PRE_SHARED, self.csb_id);
        header.v = self.v;
        if let Some(srtp) = self.srtp {
            (header.cs_count, header.map_info) = srtp.map();
            header.map_type = CsIdMapType::SRTP_ID;
        }
        header.encode(PayloadType::GENERAL_EXT, writer)?;

        let behind_key_id = if self.ext_bcast.is_some() { PayloadType::GENERAL_EXT } else { PayloadType::T };
        let key_ids = self.key_id_data();
        let key_id = GeneralExt::unchecked(ExtType::KEY_ID, &key_ids);
        Payload::Ext(key_id).encode(behind_key_id, writer)?;
        if let Some(data) = self.ext_bcast {
            let len = bounded(1 + data.len(), u16::MAX.into(), "General Ext. Data")?;
            writer.put(&[PayloadType::T.0, ExtType::OMA_BCAST.0])?;
            writer.u16(len as u16)?;
            writer.u8(bcast_subtype.0)?;
            writer.put(data)?;
        }

        let counter = self.counter.to_be_bytes();
        let timestamp = Timestamp { ts_type: TsType::COUNTER, value: &counter };
        Payload::T(timestamp).encode(PayloadType::RAND, writer)?;
        Payload::Rand(Rand { data: self.rand }).encode(PayloadType::ID, writer)?;
        let id = |data| Payload::Id(Id { id_type: self.id_type, data });
        id(self.idi).encode(PayloadType::ID, writer)?;

        let mut policies = self.srtp.map_or(&[][..], |srtp| srtp.policies()).iter().peekable();
        let behind = |there: bool| if there { PayloadType::SP } else { PayloadType::KEMAC };
        id(self.idr).encode(behind(policies.peek().is_some()), writer)?;
        while let Some(policy) = policies.next() {
            Payload::Sp(policy.sp()).encode(behind(policies.peek().is_some()), writer)?;
        }
        Ok(())
    }

    /// The Data field of the Key ID extension: Key Domain ID and MSK ID (LTKM profile §5).
    fn key_id_data(&self) -> [u8; KEY_ID_DATA_LEN] {
        let [d0, d1, d2] = self.key_domain_id.0;
        let [m0, m1, m2, m3] = self.msk_id.0;
        [KeyIdType::KEY_DOMAIN.0, 3, d0, d1, d2, KeyIdType::SERVICE_KEY.0, 4, m0, m1, m2, m3]
    }
}

fn at_least(octets: &[u8], min: usize, field: &'static str) -> Result<(), MakeError> {
    let found = octets.len();
    if found >= min { Ok(()) } else { Err(MakeError::TooShort { field, found, min }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::KeyValidity;
    use crate::registry::KeyDataType;

    fn message<'a>() -> Ltkm<'a> {
        let kv = KeyValidity::Spi(&[1, 2, 3]);
        Ltkm {
            v: false,
            csb_id: CsbId(1),
            counter: 2,
            rand: &[3; 16],
            id_type: IdType::NAI,
            idi: b"i",
            idr: b"r",
            key_domain_id: KeyDomainId([1, 2, 3]),
            msk_id: MskId::new(4, 5),
            ext_bcast: None,
            srtp: None,
            key: Some(KeyData { key_type: KeyDataType::TGK, key: &[6; 16], salt: None, kv }),
        }
    }

    fn refusal(message: &Ltkm<'_>) -> MakeError {
        message.write(&PresharedKey::new(b"key"), &mut vec![0; 200_000]).unwrap_err()
    }

    #[test]
    fn a_buffer_that_is_one_octet_short_gets_no_message_and_no_key() {
        let message = message();
        let mut out = vec![0xee; message.encoded_len() - 1];
        let (needed, len) = (out.len() + 1, out.len());
        let error = message.write(&PresharedKey::new(b"key"), &mut out).unwrap_err();
        assert_eq!(error, MakeError::BufferTooSmall { needed, len });
        assert!(out.iter().all(|octet| *octet == 0xee));
    }

    #[test]
    fn a_part_that_does_not_fit_leaves_no_key_in_the_buffer() {
        let mut message = message();
        let from = [0; 256];
        let kv = KeyValidity::Interval { from: &from, to: &[] };
        message.key = Some(KeyData { key_type: KeyDataType::TGK, key: &[0x66; 16], salt: None, kv });
        let mut out = vec![0; 1000];
        let error = message.write(&PresharedKey::new(b"key"), &mut out).unwrap_err();
        assert_eq!(error, MakeError::TooLong { field: "Valid From", found: 256, max: 255 });
        assert!(!out.contains(&0x66));
    }

    #[test]
    fn parts_outside_of_their_bounds_are_refused_by_name() {
        let long = vec![1; 65_536];
        let short = |field, found, min| MakeError::TooShort { field, found, min };
        let too_long = |field, found, max| MakeError::TooLong { field, found, max };
        let key = |key| Some(KeyData { key_type: KeyDataType::TGK, key, salt: None, kv: KeyValidity::Null });
        let cases: [(MakeError, Ltkm<'_>); 9] = [
            (short("RAND", 15, 16), Ltkm { rand: &[0; 15], ..message() }),
            (too_long("RAND", 256, 255), Ltkm { rand: &long[..256], ..message() }),
            (short("IDi", 0, 1), Ltkm { idi: &[], ..message() }),
            (short("IDr", 0, 1), Ltkm { idr: &[], ..message() }),
            (too_long("ID Data", 65_536, 65_535), Ltkm { idr: &long, ..message() }),
            (
                too_long("General Ext. Data", 65_536, 65_535),
                Ltkm { ext_bcast: Some(&long[1..]), ..message() },
            ),
            (short("Key data", 0, 1), Ltkm { key: key(&[]), ..message() }),
            (too_long("Encr data", 65_536, 65_535), Ltkm { key: key(&long[4..]), ..message() }),
            (
                MakeError::Salt,
                Ltkm { key: message().key.map(|key| KeyData { salt: Some(&[1]), ..key }), ..message() },
            ),
        ];
        for (error, message) in cases {
            assert_eq!(refusal(&message), error);
        }
    }

    #[test]
    fn an_encryption_that_the_crate_does_not_have_is_refused() {
        let options = Options { encr_alg: EncrAlg(7), ..Options::default() };
        let made = message().write_with(&PresharedKey::new(b"key"), options, &mut [0; 500]);
        assert_eq!(made, Err(MakeError::UnsupportedEncrAlg(EncrAlg(7))));
    }
}
