//! HDR, the common header (RFC 3830 §6.1), and the SRTP-ID map (§6.1.1).

use core::fmt;

use super::Next;
use crate::{
    CsbId,
    error::{DecodeError, DecodeErrorKind, MakeError},
    octets::{Reader, Writer, bounded, exactly},
    registry::{CsIdMapType, DataType, PayloadType, PrfFunc},
};

/// The only version of MIKEY (RFC 3830 §6.1).
const VERSION: u8 = 1;

/// Octets of one crypto session in an SRTP-ID map (RFC 3830 §6.1.1).
pub const SRTP_ID_LEN: usize = 9;

/// The common header, HDR (RFC 3830 §6.1). Its version is always 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Data type: what kind of message this is.
    pub data_type: DataType,
    /// V: whether the initiator expects a verification message.
    pub v: bool,
    /// PRF func, 7 bits.
    pub prf_func: PrfFunc,
    /// CSB ID.
    pub csb_id: CsbId,
    /// #CS: how many crypto sessions the map speaks of.
    pub cs_count: u8,
    /// CS ID map type.
    pub map_type: CsIdMapType,
    /// CS ID map info: 9 octets per crypto session in an SRTP-ID map, nothing in an empty map.
    pub map_info: &'a [u8],
}

/// The length of the map info, or `None` for a map type without a known layout. A map of no sessions is empty.
fn map_info_len(map_type: CsIdMapType, cs_count: u8) -> Option<usize> {
    match map_type {
        CsIdMapType::SRTP_ID => Some(usize::from(cs_count) * SRTP_ID_LEN),
        CsIdMapType::EMPTY => Some(0),
        _ if cs_count == 0 => Some(0),
        _ => None,
    }
}

impl<'a> Header<'a> {
    /// A header without crypto sessions and with the empty map (RFC 4563 §5), MIKEY-1 and V unset.
    #[must_use]
    pub const fn new(data_type: DataType, csb_id: CsbId) -> Self {
        Self {
            data_type,
            v: false,
            prf_func: PrfFunc::MIKEY_1,
            csb_id,
            cs_count: 0,
            map_type: CsIdMapType::EMPTY,
            map_info: &[],
        }
    }

    /// The crypto sessions of an SRTP-ID map; of any other map, none.
    pub fn srtp_ids(&self) -> impl ExactSizeIterator<Item = SrtpId> + use<'a> {
        let info = if self.map_type == CsIdMapType::SRTP_ID { self.map_info } else { &[] };
        info.as_chunks().0.iter().map(|octets| SrtpId::from_octets(*octets))
    }

    pub(crate) fn decode(reader: &mut Reader<'a>) -> Result<(Next, Self), DecodeError> {
        let at = reader.at();
        let version = reader.u8("version")?;
        if version != VERSION {
            return Err(DecodeError { at, kind: DecodeErrorKind::Version(version) });
        }
        let data_type = DataType(reader.u8("data type")?);
        let next = Next::decode(reader)?;
        let v_and_prf = reader.u8("V and PRF func")?;
        let csb_id = CsbId(reader.u32("CSB ID")?);
        let cs_count = reader.u8("#CS")?;
        let map_type = CsIdMapType(reader.u8("CS ID map type")?);
        let len = map_info_len(map_type, cs_count);
        let map_info = reader.implicit(len, map_type.0, false, "CS ID map info")?;
        if next.is_last() {
            return Err(DecodeError { at: next.at, kind: DecodeErrorKind::NoPayload });
        }
        let (v, prf_func) = (v_and_prf & 0x80 != 0, PrfFunc(v_and_prf & 0x7f));
        Ok((next, Self { data_type, v, prf_func, csb_id, cs_count, map_type, map_info }))
    }

    pub(crate) fn encode(&self, next: PayloadType, writer: &mut Writer<'_>) -> Result<(), MakeError> {
        bounded(self.prf_func.0.into(), 0x7f, "PRF func")?;
        let Some(info_len) = map_info_len(self.map_type, self.cs_count) else {
            return Err(MakeError::OnlyLast { field: "CS ID map info" });
        };
        exactly(self.map_info.len(), Some(info_len), "CS ID map info")?;
        writer.put(&[VERSION, self.data_type.0, next.0, u8::from(self.v) << 7 | self.prf_func.0])?;
        writer.u32(self.csb_id.0)?;
        writer.put(&[self.cs_count, self.map_type.0])?;
        writer.put(self.map_info)
    }
}

impl fmt::Display for Header<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "HDR: {}, V {}, PRF {}, CSB ID {}, #CS {}, map {}",
            self.data_type,
            u8::from(self.v),
            self.prf_func,
            self.csb_id,
            self.cs_count,
            self.map_type
        )?;
        self.srtp_ids().try_for_each(|id| write!(f, ", {id}"))
    }
}

/// One crypto session of an SRTP-ID map (RFC 3830 §6.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SrtpId {
    /// Policy_no: the number of the SP payload with this stream's policy.
    pub policy_no: u8,
    /// SSRC of the stream; 0 for the responder to fill in.
    pub ssrc: u32,
    /// ROC, the current rollover counter; 0 before the session has started.
    pub roc: u32,
}

impl SrtpId {
    /// Reads one session of the map.
    #[must_use]
    pub const fn from_octets(octets: [u8; SRTP_ID_LEN]) -> Self {
        let [policy_no, s0, s1, s2, s3, r0, r1, r2, r3] = octets;
        Self {
            policy_no,
            ssrc: u32::from_be_bytes([s0, s1, s2, s3]),
            roc: u32::from_be_bytes([r0, r1, r2, r3]),
        }
    }

    /// The session as it stands in the map.
    #[must_use]
    pub const fn to_octets(self) -> [u8; SRTP_ID_LEN] {
        let [s0, s1, s2, s3] = self.ssrc.to_be_bytes();
        let [r0, r1, r2, r3] = self.roc.to_be_bytes();
        [self.policy_no, s0, s1, s2, s3, r0, r1, r2, r3]
    }
}

impl fmt::Display for SrtpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SSRC {:08x} ROC {} policy {}", self.ssrc, self.roc, self.policy_no)
    }
}
