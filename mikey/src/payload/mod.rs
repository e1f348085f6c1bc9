//! The payloads of RFC 3830 §6, as views over received octets and as parts to make messages from.
//!
//! Every payload is decoded strictly, keeps what it read (reserved bits included) and encodes to the same
//! octets. Next payload fields are not part of the payloads: they follow from the order in the message.
//! Display tells an operator what a payload says; neither it nor Debug shows keys, MACs or encrypted data.

mod ext;
mod header;
mod id;
mod kemac;
mod key_data;
mod public_key;
mod simple;
mod sp;

pub use ext::{Bcast, GeneralExt, KeyId, KeyIds};
pub use header::{Header, SRTP_ID_LEN, SrtpId};
pub use id::{Cert, Id};
pub use kemac::Kemac;
pub use key_data::{KeyData, KeyDataList, KeyValidity};
pub use public_key::{Chash, Dh, Pke, Sign};
pub use simple::{ErrPayload, Rand, Timestamp, Ver};
pub use sp::{Sp, SpParam, SpParams};

use core::fmt;

use crate::{
    error::{DecodeError, DecodeErrorKind, MakeError},
    octets::{Reader, Writer},
    registry::PayloadType,
};

/// What a Next payload field said, and at which octet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Next {
    pub(crate) at: usize,
    pub(crate) payload_type: PayloadType,
}

impl Next {
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let at = reader.at();
        Ok(Self { at, payload_type: PayloadType(reader.u8("Next payload")?) })
    }

    /// The end of the chain behind a payload that has no Next payload field.
    fn last(reader: &Reader<'_>) -> Self {
        Self { at: reader.at(), payload_type: PayloadType::LAST }
    }

    pub(crate) fn is_last(self) -> bool {
        self.payload_type == PayloadType::LAST
    }
}

/// Any payload that can stand in a message behind the header (RFC 3830 Table 6.1.b).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Payload<'a> {
    /// Key data transport payload (RFC 3830 §6.2).
    Kemac(Kemac<'a>),
    /// Envelope data payload (RFC 3830 §6.3).
    Pke(Pke<'a>),
    /// DH data payload (RFC 3830 §6.4).
    Dh(Dh<'a>),
    /// Signature payload (RFC 3830 §6.5); always the last.
    Sign(Sign<'a>),
    /// Timestamp payload (RFC 3830 §6.6).
    T(Timestamp<'a>),
    /// ID payload (RFC 3830 §6.7).
    Id(Id<'a>),
    /// Certificate payload (RFC 3830 §6.7).
    Cert(Cert<'a>),
    /// Cert hash payload (RFC 3830 §6.8).
    Chash(Chash<'a>),
    /// Ver msg payload (RFC 3830 §6.9).
    V(Ver<'a>),
    /// Security policy payload (RFC 3830 §6.10).
    Sp(Sp<'a>),
    /// RAND payload (RFC 3830 §6.11).
    Rand(Rand<'a>),
    /// Error payload (RFC 3830 §6.12).
    Err(ErrPayload),
    /// General extension payload (RFC 3830 §6.15).
    Ext(GeneralExt<'a>),
}

impl<'a> Payload<'a> {
    /// The number by which the payload before this one announces it (RFC 3830 Table 6.1.b).
    #[must_use]
    pub const fn payload_type(&self) -> PayloadType {
        match self {
            Self::Kemac(_) => PayloadType::KEMAC,
            Self::Pke(_) => PayloadType::PKE,
            Self::Dh(_) => PayloadType::DH,
            Self::Sign(_) => PayloadType::SIGN,
            Self::T(_) => PayloadType::T,
            Self::Id(_) => PayloadType::ID,
            Self::Cert(_) => PayloadType::CERT,
            Self::Chash(_) => PayloadType::CHASH,
            Self::V(_) => PayloadType::V,
            Self::Sp(_) => PayloadType::SP,
            Self::Rand(_) => PayloadType::RAND,
            Self::Err(_) => PayloadType::ERR,
            Self::Ext(_) => PayloadType::GENERAL_EXT,
        }
    }

    /// Reads the payload that `announced` speaks of, and what follows it.
    pub(crate) fn decode(announced: Next, reader: &mut Reader<'a>) -> Result<(Next, Self), DecodeError> {
        if announced.payload_type == PayloadType::SIGN {
            let sign = Sign::decode(reader)?;
            return Ok((Next::last(reader), Self::Sign(sign)));
        }
        let refuse = |kind| Err(DecodeError { at: announced.at, kind });
        match announced.payload_type {
            PayloadType::KEY_DATA => {
                let wanted = "a payload outside of a KEMAC";
                return refuse(DecodeErrorKind::Misplaced { found: announced.payload_type, wanted });
            }
            PayloadType(1..=12) | PayloadType::GENERAL_EXT => {}
            other => return refuse(DecodeErrorKind::UnsupportedPayload(other)),
        }
        let next = Next::decode(reader)?;
        let is_last = next.is_last();
        let payload = match announced.payload_type {
            PayloadType::KEMAC => Self::Kemac(Kemac::decode(reader, is_last)?),
            PayloadType::PKE => Self::Pke(Pke::decode(reader)?),
            PayloadType::DH => Self::Dh(Dh::decode(reader, is_last)?),
            PayloadType::T => Self::T(Timestamp::decode(reader, is_last)?),
            PayloadType::ID => Self::Id(Id::decode(reader)?),
            PayloadType::CERT => Self::Cert(Cert::decode(reader)?),
            PayloadType::CHASH => Self::Chash(Chash::decode(reader, is_last)?),
            PayloadType::V => Self::V(Ver::decode(reader, is_last)?),
            PayloadType::SP => Self::Sp(Sp::decode(reader)?),
            PayloadType::RAND => Self::Rand(Rand::decode(reader)?),
            PayloadType::ERR => Self::Err(ErrPayload::decode(reader)?),
            _ => Self::Ext(GeneralExt::decode(reader)?),
        };
        Ok((next, payload))
    }

    /// Writes the payload; `next` goes into its Next payload field.
    pub(crate) fn encode(&self, next: PayloadType, writer: &mut Writer<'_>) -> Result<(), MakeError> {
        let is_last = next == PayloadType::LAST;
        if let Self::Sign(sign) = self {
            return if is_last { sign.encode(writer) } else { Err(MakeError::OnlyLast { field: "SIGN" }) };
        }
        writer.u8(next.0)?;
        match self {
            Self::Kemac(kemac) => kemac.encode(is_last, writer),
            Self::Pke(pke) => pke.encode(writer),
            Self::Dh(dh) => dh.encode(is_last, writer),
            Self::Sign(_) => Ok(()),
            Self::T(timestamp) => timestamp.encode(is_last, writer),
            Self::Id(id) => id.encode(writer),
            Self::Cert(cert) => cert.encode(writer),
            Self::Chash(chash) => chash.encode(is_last, writer),
            Self::V(ver) => ver.encode(is_last, writer),
            Self::Sp(sp) => sp.encode(writer),
            Self::Rand(rand) => rand.encode(writer),
            Self::Err(err) => err.encode(writer),
            Self::Ext(ext) => ext.encode(writer),
        }
    }
}

impl fmt::Display for Payload<'_> {
    /// One line that begins with the payload's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kemac(payload) => payload.fmt(f),
            Self::Pke(payload) => payload.fmt(f),
            Self::Dh(payload) => payload.fmt(f),
            Self::Sign(payload) => payload.fmt(f),
            Self::T(payload) => payload.fmt(f),
            Self::Id(payload) => payload.fmt(f),
            Self::Cert(payload) => payload.fmt(f),
            Self::Chash(payload) => payload.fmt(f),
            Self::V(payload) => payload.fmt(f),
            Self::Sp(payload) => payload.fmt(f),
            Self::Rand(payload) => payload.fmt(f),
            Self::Err(payload) => payload.fmt(f),
            Self::Ext(payload) => payload.fmt(f),
        }
    }
}

/// Refuses a field of unknown length that something follows: nobody could read it back.
fn delimited(len: Option<usize>, is_last: bool, field: &'static str) -> Result<(), MakeError> {
    if len.is_some() || is_last { Ok(()) } else { Err(MakeError::OnlyLast { field }) }
}
