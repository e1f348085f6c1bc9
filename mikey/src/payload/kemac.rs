//! KEMAC, the key data transport payload (RFC 3830 §6.2).

use core::fmt;

use super::delimited;
use crate::{
    error::{DecodeError, MakeError},
    octets::{Reader, Writer, exactly},
    registry::{EncrAlg, MacAlg},
};

/// KEMAC payload: encrypted Key data sub-payloads and the MAC of the message (RFC 3830 §6.2).
///
/// What is encrypted is opened by [`psk::open`](crate::psk::open).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kemac<'a> {
    /// Encr alg.
    pub encr_alg: EncrAlg,
    /// Encr data, at most 65,535 octets; empty in an LTKM that triggers a solicited pull.
    pub encr_data: &'a [u8],
    /// Mac alg.
    pub mac_alg: MacAlg,
    /// MAC, as long as Mac alg makes it; everything up to the end for an unknown algorithm.
    pub mac: &'a [u8],
}

impl<'a> Kemac<'a> {
    pub(crate) fn decode(reader: &mut Reader<'a>, is_last: bool) -> Result<Self, DecodeError> {
        let encr_alg = EncrAlg(reader.u8("Encr alg")?);
        let len = reader.u16("Encr data len")?;
        let encr_data = reader.take(len.into(), "Encr data")?;
        let mac_alg = MacAlg(reader.u8("Mac alg")?);
        let mac = reader.implicit(mac_alg.tag_len(), mac_alg.0, is_last, "MAC")?;
        Ok(Self { encr_alg, encr_data, mac_alg, mac })
    }

    pub(crate) fn encode(&self, is_last: bool, writer: &mut Writer<'_>) -> Result<(), MakeError> {
        delimited(self.mac_alg.tag_len(), is_last, "MAC")?;
        exactly(self.mac.len(), self.mac_alg.tag_len(), "MAC")?;
        writer.u8(self.encr_alg.0)?;
        writer.vec16(self.encr_data, "Encr data")?;
        writer.u8(self.mac_alg.0)?;
        writer.put(self.mac)
    }
}

impl fmt::Display for Kemac<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (encr_alg, len) = (self.encr_alg, self.encr_data.len());
        write!(f, "KEMAC: {encr_alg}, {len} octets of key data, {}", self.mac_alg)
    }
}

impl fmt::Debug for Kemac<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kemac")
            .field("encr_alg", &self.encr_alg)
            .field("encr_data_len", &self.encr_data.len())
            .field("mac_alg", &self.mac_alg)
            .finish_non_exhaustive()
    }
}
