//! PKE, DH, SIGN and CHASH (RFC 3830 §6.3–§6.5, §6.8): read and written, but not acted upon by this crate.

use core::fmt;

use super::{KeyValidity, delimited};
use crate::{
    error::{DecodeError, MakeError},
    octets::{Reader, Writer, bounded, exactly},
    registry::{CacheType, DhGroup, HashFunc, KvType, SignatureType},
};

/// PKE payload: the encrypted envelope key (RFC 3830 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pke<'a> {
    /// C, the envelope key cache indicator, 2 bits.
    pub cache: CacheType,
    /// Data, at most 16,383 octets.
    pub data: &'a [u8],
}

impl<'a> Pke<'a> {
    pub(crate) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let c_and_len = reader.u16("PKE C and Data len")?;
        let len = usize::from(c_and_len & 0x3fff);
        Ok(Self { cache: CacheType((c_and_len >> 14) as u8), data: reader.take(len, "PKE Data")? })
    }

    pub(crate) fn encode(&self, writer: &mut Writer<'_>) -> Result<(), MakeError> {
        let cache = bounded(self.cache.0.into(), 3, "C")?;
        let len = bounded(self.data.len(), 0x3fff, "PKE Data")?;
        writer.u16((cache << 14 | len) as u16)?;
        writer.put(self.data)
    }
}

impl fmt::Display for Pke<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PKE: {}, {} octets", self.cache, self.data.len())
    }
}

/// DH payload: a Diffie-Hellman value (RFC 3830 §6.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dh<'a> {
    /// DH-Group.
    pub group: DhGroup,
    /// DH-value, as long as the group makes it.
    pub value: &'a [u8],
    /// Reserv, 4 bits; kept as received, 0 in what is made.
    pub reserved: u8,
    /// KV and KV data.
    pub kv: KeyValidity<'a>,
}

impl<'a> Dh<'a> {
    pub(crate) fn decode(reader: &mut Reader<'a>, is_last: bool) -> Result<Self, DecodeError> {
        let group = DhGroup(reader.u8("DH-Group")?);
        // KV follows the value, so that even in the last payload an unknown group cannot be delimited.
        let value = reader.implicit(group.value_len(), group.0, false, "DH-value")?;
        let reserved_and_kv = reader.u8("Reserv and KV")?;
        let kv = KeyValidity::decode(KvType(reserved_and_kv & 0x0f), is_last, reader)?;
        Ok(Self { group, value, reserved: reserved_and_kv >> 4, kv })
    }

    pub(crate) fn encode(&self, is_last: bool, writer: &mut Writer<'_>) -> Result<(), MakeError> {
        delimited(self.group.value_len(), false, "DH-value")?;
        exactly(self.value.len(), self.group.value_len(), "DH-value")?;
        let reserved = bounded(self.reserved.into(), 0x0f, "Reserv")? as u8;
        let kv_type = self.kv.kv_type();
        if matches!(self.kv, KeyValidity::Other { .. }) == kv_type.is_known() {
            return Err(MakeError::Validity(kv_type));
        }
        writer.u8(self.group.0)?;
        writer.put(self.value)?;
        writer.u8(reserved << 4 | kv_type.0)?;
        self.kv.encode(is_last, writer)
    }
}

impl fmt::Display for Dh<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DH: {}, {} octets, {}", self.group, self.value.len(), self.kv)
    }
}

/// SIGN payload: the signature of a message (RFC 3830 §6.5). It has no Next payload field and is always the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sign<'a> {
    /// S type, 4 bits.
    pub signature_type: SignatureType,
    /// Signature, at most 4,095 octets.
    pub signature: &'a [u8],
}

impl<'a> Sign<'a> {
    pub(crate) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let type_and_len = reader.u16("S type and Signature len")?;
        let signature = reader.take(usize::from(type_and_len & 0x0fff), "Signature")?;
        Ok(Self { signature_type: SignatureType((type_and_len >> 12) as u8), signature })
    }

    pub(crate) fn encode(&self, writer: &mut Writer<'_>) -> Result<(), MakeError> {
        let signature_type = bounded(self.signature_type.0.into(), 0x0f, "S type")?;
        let len = bounded(self.signature.len(), 0x0fff, "Signature")?;
        writer.u16((signature_type << 12 | len) as u16)?;
        writer.put(self.signature)
    }
}

impl fmt::Display for Sign<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIGN: {}, {} octets", self.signature_type, self.signature.len())
    }
}

/// CHASH payload: the hash of the certificate used (RFC 3830 §6.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chash<'a> {
    /// Hash func.
    pub hash_func: HashFunc,
    /// Hash, as long as the function makes it; everything up to the end for an unknown function.
    pub hash: &'a [u8],
}

impl<'a> Chash<'a> {
    pub(crate) fn decode(reader: &mut Reader<'a>, is_last: bool) -> Result<Self, DecodeError> {
        let hash_func = HashFunc(reader.u8("Hash func")?);
        Ok(Self { hash_func, hash: reader.implicit(hash_func.hash_len(), hash_func.0, is_last, "Hash")? })
    }

    pub(crate) fn encode(&self, is_last: bool, writer: &mut Writer<'_>) -> Result<(), MakeError> {
        delimited(self.hash_func.hash_len(), is_last, "Hash")?;
        exactly(self.hash.len(), self.hash_func.hash_len(), "Hash")?;
        writer.u8(self.hash_func.0)?;
        writer.put(self.hash)
    }
}

impl fmt::Display for Chash<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CHASH: {}", self.hash_func)
    }
}
