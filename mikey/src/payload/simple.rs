//! T, V, RAND and ERR (RFC 3830 §6.6, §6.9, §6.11, §6.12).

use core::fmt;

use super::delimited;
use crate::{
    error::{DecodeError, MakeError},
    hex::Hex,
    octets::{Reader, Writer, bounded, exactly},
    registry::{ErrorNo, MacAlg, TsType},
};

/// T payload: a timestamp or a counter (RFC 3830 §6.6).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Timestamp<'a> {
    /// TS type.
    pub ts_type: TsType,
    /// TS value, big-endian: 8 octets for the NTP types, 4 for COUNTER.
    pub value: &'a [u8],
}

impl<'a> Timestamp<'a> {
    /// The value as the 64 bits that go into an initialization vector: a COUNTER is padded with leading zeros
    /// (RFC 3830 §6.6, §4.2.3). `None` for a type of unknown length.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self.ts_type {
            TsType::NTP_UTC | TsType::NTP => self.value.try_into().ok().map(u64::from_be_bytes),
            TsType::COUNTER => self.value.try_into().ok().map(|value| u32::from_be_bytes(value).into()),
            _ => None,
        }
    }

    /// The value of a COUNTER; `None` for any other type.
    #[must_use]
    pub fn counter(&self) -> Option<u32> {
        if self.ts_type != TsType::COUNTER {
            return None;
        }
        self.value.try_into().ok().map(u32::from_be_bytes)
    }

    pub(crate) fn decode(reader: &mut Reader<'a>, is_last: bool) -> Result<Self, DecodeError> {
        let ts_type = TsType(reader.u8("TS type")?);
        Ok(Self { ts_type, value: reader.implicit(ts_type.value_len(), ts_type.0, is_last, "TS value")? })
    }

    pub(crate) fn encode(&self, is_last: bool, writer: &mut Writer<'_>) -> Result<(), MakeError> {
        delimited(self.ts_type.value_len(), is_last, "TS value")?;
        exactly(self.value.len(), self.ts_type.value_len(), "TS value")?;
        writer.u8(self.ts_type.0)?;
        writer.put(self.value)
    }
}

impl fmt::Display for Timestamp<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.counter() {
            Some(counter) => write!(f, "T: {} {counter}", self.ts_type),
            None => write!(f, "T: {} {}", self.ts_type, Hex(self.value)),
        }
    }
}

impl fmt::Debug for Timestamp<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timestamp").field("ts_type", &self.ts_type).field("value", &Hex(self.value)).finish()
    }
}

/// V payload: the MAC of a verification message (RFC 3830 §6.9).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ver<'a> {
    /// Auth alg.
    pub auth_alg: MacAlg,
    /// Ver data, as long as Auth alg makes it; everything up to the end for an unknown algorithm.
    pub ver_data: &'a [u8],
}

impl<'a> Ver<'a> {
    pub(crate) fn decode(reader: &mut Reader<'a>, is_last: bool) -> Result<Self, DecodeError> {
        let auth_alg = MacAlg(reader.u8("Auth alg")?);
        Ok(Self { auth_alg, ver_data: reader.implicit(auth_alg.tag_len(), auth_alg.0, is_last, "Ver data")? })
    }

    pub(crate) fn encode(&self, is_last: bool, writer: &mut Writer<'_>) -> Result<(), MakeError> {
        delimited(self.auth_alg.tag_len(), is_last, "Ver data")?;
        exactly(self.ver_data.len(), self.auth_alg.tag_len(), "Ver data")?;
        writer.u8(self.auth_alg.0)?;
        writer.put(self.ver_data)
    }
}

impl fmt::Display for Ver<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "V: {}", self.auth_alg)
    }
}

impl fmt::Debug for Ver<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ver").field("auth_alg", &self.auth_alg).finish_non_exhaustive()
    }
}

/// RAND payload: a (pseudo-)random bit string, independent for each CSB (RFC 3830 §6.11).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rand<'a> {
    /// RAND, at most 255 octets; at least 16 are recommended.
    pub data: &'a [u8],
}

impl<'a> Rand<'a> {
    pub(crate) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let len = reader.u8("RAND len")?;
        Ok(Self { data: reader.take(len.into(), "RAND")? })
    }

    pub(crate) fn encode(&self, writer: &mut Writer<'_>) -> Result<(), MakeError> {
        bounded(self.data.len(), u8::MAX.into(), "RAND")?;
        writer.vec8(self.data, "RAND")
    }
}

impl fmt::Display for Rand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RAND: {}", Hex(self.data))
    }
}

impl fmt::Debug for Rand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rand").field("data", &Hex(self.data)).finish()
    }
}

/// ERR payload: one error of an error message (RFC 3830 §6.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrPayload {
    /// Error no.
    pub error_no: ErrorNo,
    /// Reserved; kept as received, 0 in what is made.
    pub reserved: u16,
}

impl ErrPayload {
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { error_no: ErrorNo(reader.u8("Error no")?), reserved: reader.u16("Reserved")? })
    }

    pub(crate) fn encode(&self, writer: &mut Writer<'_>) -> Result<(), MakeError> {
        writer.u8(self.error_no.0)?;
        writer.u16(self.reserved)
    }
}

impl From<ErrorNo> for ErrPayload {
    fn from(error_no: ErrorNo) -> Self {
        Self { error_no, reserved: 0 }
    }
}

impl fmt::Display for ErrPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ERR: {}", self.error_no)
    }
}
