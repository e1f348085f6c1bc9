//! Key data sub-payloads (RFC 3830 §6.13) and key validity data (§6.14): the inside of a KEMAC.

use core::fmt;

use super::Next;
use crate::{
    error::{DecodeError, DecodeErrorKind, MakeError},
    hex::Hex,
    octets::{Reader, Writer, bounded},
    registry::{KeyDataType, KvType, PayloadType},
};

/// When a key is to be used (RFC 3830 §6.14).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum KeyValidity<'a> {
    /// No specific usage rule (KV 0).
    Null,
    /// The key is associated with this SPI or MKI, at most 255 octets (KV 1).
    Spi(&'a [u8]),
    /// The key has a start and an expiration, each at most 255 octets (KV 2).
    Interval {
        /// Valid From. In MBMS the lower MTK ID (2 octets), in BCAST NTP seconds (4 octets).
        from: &'a [u8],
        /// Valid To (expires), likewise.
        to: &'a [u8],
    },
    /// A KV type of unknown layout, or a key type of unknown layout, in the last sub-payload: KV type and
    /// everything behind the key, as received. The KV type is never one of the above unless the key type is unknown.
    Other {
        /// KV, 4 bits.
        kv_type: KvType,
        /// The octets behind the key.
        data: &'a [u8],
    },
}

impl<'a> KeyValidity<'a> {
    /// KV, the number of this kind (RFC 3830 Table 6.13.b).
    #[must_use]
    pub const fn kv_type(&self) -> KvType {
        match self {
            Self::Null => KvType::NULL,
            Self::Spi(_) => KvType::SPI,
            Self::Interval { .. } => KvType::INTERVAL,
            Self::Other { kv_type, .. } => *kv_type,
        }
    }

    /// Octets of the KV data.
    pub(crate) const fn encoded_len(&self) -> usize {
        match self {
            Self::Null => 0,
            Self::Spi(spi) => 1 + spi.len(),
            Self::Interval { from, to } => 2 + from.len() + to.len(),
            Self::Other { data, .. } => data.len(),
        }
    }

    pub(super) fn decode(
        kv_type: KvType,
        is_last: bool,
        reader: &mut Reader<'a>,
    ) -> Result<Self, DecodeError> {
        Ok(match kv_type {
            KvType::NULL => Self::Null,
            KvType::SPI => {
                let len = reader.u8("SPI Length")?;
                Self::Spi(reader.take(len.into(), "SPI")?)
            }
            KvType::INTERVAL => {
                let len = reader.u8("VF Length")?;
                let from = reader.take(len.into(), "Valid From")?;
                let len = reader.u8("VT Length")?;
                Self::Interval { from, to: reader.take(len.into(), "Valid To")? }
            }
            _ => Self::Other { kv_type, data: reader.implicit(None, kv_type.0, is_last, "KV data")? },
        })
    }

    pub(super) fn encode(&self, is_last: bool, writer: &mut Writer<'_>) -> Result<(), MakeError> {
        bounded(self.kv_type().0.into(), 0x0f, "KV")?;
        match self {
            Self::Other { .. } if !is_last => Err(MakeError::OnlyLast { field: "KV data" }),
            Self::Null => Ok(()),
            Self::Spi(spi) => writer.vec8(spi, "SPI"),
            Self::Interval { from, to } => {
                writer.vec8(from, "Valid From")?;
                writer.vec8(to, "Valid To")
            }
            Self::Other { data, .. } => writer.put(data),
        }
    }
}

impl fmt::Display for KeyValidity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("no validity"),
            Self::Spi(spi) => write!(f, "SPI {}", Hex(spi)),
            Self::Interval { from, to } => write!(f, "valid {} to {}", Hex(from), Hex(to)),
            Self::Other { kv_type, data } => write!(f, "KV {kv_type}, {} octets", data.len()),
        }
    }
}

impl fmt::Debug for KeyValidity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyValidity({self})")
    }
}

/// Key data sub-payload: a key, perhaps a salt, and its validity (RFC 3830 §6.13). Debug shows neither key nor salt.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyData<'a> {
    /// Type, 4 bits: TGK, TGK+SALT, TEK or TEK+SALT.
    pub key_type: KeyDataType,
    /// Key data: the TGK or TEK.
    pub key: &'a [u8],
    /// Salt data, there if and only if the type says so.
    pub salt: Option<&'a [u8]>,
    /// KV and KV data.
    pub kv: KeyValidity<'a>,
}

impl<'a> KeyData<'a> {
    /// Octets of this sub-payload.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        let salt = match self.salt {
            Some(salt) => 2 + salt.len(),
            None => 0,
        };
        4 + self.key.len() + salt + self.kv.encoded_len()
    }

    fn decode(reader: &mut Reader<'a>) -> Result<(Next, Self), DecodeError> {
        let next = Next::decode(reader)?;
        if !next.is_last() && next.payload_type != PayloadType::KEY_DATA {
            let kind = DecodeErrorKind::Misplaced { found: next.payload_type, wanted: "Key data or nothing" };
            return Err(DecodeError { at: next.at, kind });
        }
        let type_and_kv = reader.u8("Key data Type and KV")?;
        let (key_type, kv_type) = (KeyDataType(type_and_kv >> 4), KvType(type_and_kv & 0x0f));
        let len = reader.u16("Key data len")?;
        let key = reader.take(len.into(), "Key data")?;
        let salt = match key_type.has_salt() {
            Some(false) => None,
            Some(true) => {
                let len = reader.u16("Salt len")?;
                Some(reader.take(len.into(), "Salt data")?)
            }
            None => {
                let data = reader.implicit(None, key_type.0, next.is_last(), "what follows the Key data")?;
                let kv = KeyValidity::Other { kv_type, data };
                return Ok((next, Self { key_type, key, salt: None, kv }));
            }
        };
        let kv = KeyValidity::decode(kv_type, next.is_last(), reader)?;
        Ok((next, Self { key_type, key, salt, kv }))
    }

    /// Writes the sub-payload; `is_last` says whether another Key data follows it.
    pub(crate) fn encode(&self, is_last: bool, writer: &mut Writer<'_>) -> Result<(), MakeError> {
        if self.key_type.has_salt().unwrap_or(false) != self.salt.is_some() {
            return Err(MakeError::Salt);
        }
        bounded(self.key_type.0.into(), 0x0f, "Key data Type")?;
        let kv_type = self.kv.kv_type();
        let is_other = matches!(self.kv, KeyValidity::Other { .. });
        let is_opaque = self.key_type.has_salt().is_none() || !kv_type.is_known();
        if is_other != is_opaque {
            return Err(MakeError::Validity(kv_type));
        }
        let next = if is_last { PayloadType::LAST } else { PayloadType::KEY_DATA };
        writer.put(&[next.0, self.key_type.0 << 4 | kv_type.0])?;
        writer.vec16(self.key, "Key data")?;
        if let Some(salt) = self.salt {
            writer.vec16(salt, "Salt data")?;
        }
        self.kv.encode(is_last, writer)
    }
}

impl fmt::Display for KeyData<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key data: {}, {} octets, {}", self.key_type, self.key.len(), self.kv)
    }
}

impl fmt::Debug for KeyData<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyData")
            .field("key_type", &self.key_type)
            .field("kv", &self.kv)
            .finish_non_exhaustive()
    }
}

/// The decrypted inside of a KEMAC: a chain of Key data sub-payloads (RFC 3830 §6.2).
#[derive(Debug, Clone)]
pub struct KeyDataList<'a> {
    reader: Reader<'a>,
    ended: bool,
}

impl<'a> KeyDataList<'a> {
    /// Checks that `octets` are a chain of Key data sub-payloads to their end; no octets are an empty chain.
    ///
    /// # Errors
    /// A [`DecodeError`] counted from the first of `octets`.
    pub fn parse(octets: &'a [u8]) -> Result<Self, DecodeError> {
        let (list, left) = Self::parse_prefix(octets, 0)?;
        match left.len() {
            0 => Ok(list),
            left => {
                let at = octets.len() - left;
                Err(DecodeError { at, kind: DecodeErrorKind::Trailing { left } })
            }
        }
    }

    /// The chain at the beginning of `octets`, which stand at `base` of the message, and what is left behind it.
    pub(crate) fn parse_prefix(octets: &'a [u8], base: usize) -> Result<(Self, &'a [u8]), DecodeError> {
        let mut reader = Reader::at_base(octets, base);
        let list = Self { reader: reader.clone(), ended: octets.is_empty() };
        let mut ended = list.ended;
        while !ended {
            let (next, _) = KeyData::decode(&mut reader)?;
            ended = next.is_last();
        }
        Ok((list, reader.rest()))
    }
}

impl<'a> Iterator for KeyDataList<'a> {
    type Item = KeyData<'a>;

    fn next(&mut self) -> Option<KeyData<'a>> {
        if self.ended {
            return None;
        }
        // The list is only made from a chain that decodes, so an error is as good as the end.
        let (next, key_data) = KeyData::decode(&mut self.reader).ok()?;
        self.ended = next.is_last();
        Some(key_data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(keys: &[KeyData<'_>]) -> Result<Vec<u8>, MakeError> {
        let mut out = vec![0; 2000];
        let mut writer = Writer::new(&mut out);
        for (index, key) in keys.iter().enumerate() {
            key.encode(index + 1 == keys.len(), &mut writer)?;
        }
        let len = writer.written();
        assert_eq!(len, keys.iter().map(KeyData::encoded_len).sum());
        out.truncate(len);
        Ok(out)
    }

    fn kinds() -> Vec<KeyData<'static>> {
        let interval = KeyValidity::Interval { from: &[1, 2], to: &[3, 4, 5] };
        let mut keys = Vec::new();
        for kv in [KeyValidity::Null, KeyValidity::Spi(&[9; 255]), KeyValidity::Spi(&[]), interval] {
            for key_type in [KeyDataType::TGK, KeyDataType::TGK_SALT, KeyDataType::TEK, KeyDataType::TEK_SALT]
            {
                let salt = key_type.has_salt().unwrap().then_some(&[7; 14][..]);
                keys.push(KeyData { key_type, key: &[6; 16], salt, kv });
            }
        }
        keys
    }

    #[test]
    fn every_type_with_every_validity_survives_a_round_trip_and_no_truncation() {
        for key in kinds() {
            let octets = encode(&[key]).unwrap();
            assert!(KeyDataList::parse(&octets).unwrap().eq([key]));
            for len in 1..octets.len() {
                assert!(KeyDataList::parse(&octets[..len]).is_err(), "{key} cut to {len}");
            }
        }
    }

    #[test]
    fn a_chain_ends_where_its_last_member_says() {
        let keys = kinds();
        let octets = encode(&keys).unwrap();
        assert!(KeyDataList::parse(&octets).unwrap().eq(keys));
        let longer = [&octets[..], &[0]].concat();
        let error = KeyDataList::parse(&longer).unwrap_err();
        assert_eq!((error.at, error.kind), (octets.len(), DecodeErrorKind::Trailing { left: 1 }));
        assert_eq!(KeyDataList::parse(&[]).unwrap().count(), 0);
    }

    #[test]
    fn an_unknown_type_or_validity_survives_in_the_last_member_alone() {
        let other = KeyValidity::Other { kv_type: KvType(5), data: b"whatever" };
        for key_type in [KeyDataType::TEK, KeyDataType(12)] {
            let key = KeyData { key_type, key: &[6; 16], salt: None, kv: other };
            let mut octets = encode(&[key]).unwrap();
            assert!(KeyDataList::parse(&octets).unwrap().eq([key]));
            assert!(matches!(encode(&[key, key]), Err(MakeError::OnlyLast { .. })));
            octets[0] = PayloadType::KEY_DATA.0;
            let kind = KeyDataList::parse(&octets).unwrap_err().kind;
            assert!(matches!(kind, DecodeErrorKind::UnknownLength { .. }), "{kind}");
        }
    }

    #[test]
    fn no_validity_has_two_spellings() {
        let key = |key_type, kv| KeyData { key_type, key: &[6], salt: None, kv };
        let other = |kv_type| KeyValidity::Other { kv_type, data: &[] };
        for refused in [key(KeyDataType::TGK, other(KvType::NULL)), key(KeyDataType(9), KeyValidity::Null)] {
            assert_eq!(encode(&[refused]), Err(MakeError::Validity(KvType::NULL)));
        }
    }

    #[test]
    fn a_salt_where_the_type_has_none_is_refused() {
        let key = |key_type, salt| KeyData { key_type, key: &[6], salt, kv: KeyValidity::Null };
        for refused in [key(KeyDataType::TEK, Some(&[1][..])), key(KeyDataType::TEK_SALT, None)] {
            assert_eq!(encode(&[refused]), Err(MakeError::Salt));
        }
    }

    #[test]
    fn another_payload_inside_of_a_kemac_is_refused_at_its_octet() {
        let mut octets = encode(&kinds()[..2]).unwrap();
        octets[0] = PayloadType::ID.0;
        let error = KeyDataList::parse(&octets).unwrap_err();
        assert_eq!(error.to_string(), "octet 0: payload ID (6) where Key data or nothing belongs");
    }

    #[test]
    fn neither_key_nor_salt_is_shown() {
        let key = KeyData { salt: Some(&[0x77; 14]), key_type: KeyDataType::TGK_SALT, ..kinds()[0] };
        let octets = encode(&[key]).unwrap();
        let shown = format!("{key} {key:?} {:?}", KeyDataList::parse(&octets).unwrap());
        for secret in ["0606", "06, 06", "6, 6", "7777", "119"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}
