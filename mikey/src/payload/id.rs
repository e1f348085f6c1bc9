//! ID and CERT, which share one layout (RFC 3830 §6.7).

use core::fmt;

use crate::{
    error::{DecodeError, MakeError},
    hex::Text,
    octets::{Reader, Writer},
    registry::{CertType, IdType},
};

/// ID payload: an identifier (RFC 3830 §6.7). IDi comes first, IDr second (§3.1).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Id<'a> {
    /// ID Type.
    pub id_type: IdType,
    /// The identifier, at most 65,535 octets.
    pub data: &'a [u8],
}

impl<'a> Id<'a> {
    pub(crate) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let id_type = IdType(reader.u8("ID Type")?);
        let len = reader.u16("ID len")?;
        Ok(Self { id_type, data: reader.take(len.into(), "ID Data")? })
    }

    pub(crate) fn encode(&self, writer: &mut Writer<'_>) -> Result<(), MakeError> {
        writer.u8(self.id_type.0)?;
        writer.vec16(self.data, "ID Data")
    }
}

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ID: {} {}", self.id_type, Text(self.data))
    }
}

impl fmt::Debug for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Id").field("id_type", &self.id_type).field("data", &Text(self.data)).finish()
    }
}

/// CERT payload: a certificate (RFC 3830 §6.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cert<'a> {
    /// Cert Type.
    pub cert_type: CertType,
    /// The certificate in DER, or its URL, at most 65,535 octets.
    pub data: &'a [u8],
}

impl<'a> Cert<'a> {
    pub(crate) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let cert_type = CertType(reader.u8("Cert Type")?);
        let len = reader.u16("Cert len")?;
        Ok(Self { cert_type, data: reader.take(len.into(), "Certificate Data")? })
    }

    pub(crate) fn encode(&self, writer: &mut Writer<'_>) -> Result<(), MakeError> {
        writer.u8(self.cert_type.0)?;
        writer.vec16(self.data, "Certificate Data")
    }
}

impl fmt::Display for Cert<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CERT: {}, {} octets", self.cert_type, self.data.len())
    }
}
