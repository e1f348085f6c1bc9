//! Error messages: HDR(data type 6) · T · {ERR} · {SP} · [V|SIGNr] (RFC 3830 §5.1.2).

use crate::{
    CsbId,
    error::{DecodeError, DecodeErrorKind, MakeError},
    message::{Message, Placed, write_chain},
    octets::Writer,
    payload::{ErrPayload, Header, Payload, Sp, Timestamp},
    registry::{DataType, ErrorNo, PayloadType},
};

/// A received error message. It proves nothing: RFC 3830 §5.1.2 recommends to view an unauthenticated one only as
/// a hint of what may have gone wrong, and this crate does not check the V or SIGN that may end it.
///
/// ```
/// use mikey::{CsbId, ErrorNo, TsType, error_message::{self, ErrorMessage}, payload::Timestamp};
///
/// let mut out = [0; 64];
/// let t = Timestamp { ts_type: TsType::COUNTER, value: &7u32.to_be_bytes() };
/// let len = error_message::write(CsbId(9), t, &[ErrorNo::AUTH_FAILURE], &[], &mut out)?;
///
/// let error = ErrorMessage::parse(&out[..len])?;
/// assert_eq!((error.csb_id(), error.timestamp().counter()), (CsbId(9), Some(7)));
/// assert!(error.errors().eq([ErrorNo::AUTH_FAILURE]));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ErrorMessage<'a> {
    message: Message<'a>,
    timestamp: Timestamp<'a>,
}

impl<'a> ErrorMessage<'a> {
    /// Reads an error message: T first, at least one ERR, and then nothing but ERR, SP, general extensions and a
    /// final V or SIGN.
    ///
    /// # Errors
    /// A [`DecodeError`] for octets that are no MIKEY message, or another one.
    pub fn parse(octets: &'a [u8]) -> Result<Self, DecodeError> {
        let message = Message::parse(octets)?;
        let data_type = message.header().data_type;
        if data_type != DataType::ERROR {
            let (found, wanted) = (data_type.0.into(), "6, an error message,");
            return Err(DecodeError {
                at: 1,
                kind: DecodeErrorKind::Unexpected { field: "data type", found, wanted },
            });
        }
        let (mut timestamp, mut errors, mut ended) = (None, 0, false);
        for Placed { at, payload, .. } in message.payloads() {
            match payload {
                Payload::Ext(_) if !ended => {}
                Payload::T(t) if timestamp.is_none() => timestamp = Some(t),
                Payload::Err(_) if timestamp.is_some() && !ended => errors += 1,
                Payload::Sp(_) if errors > 0 && !ended => {}
                Payload::V(_) | Payload::Sign(_) if errors > 0 && !ended => ended = true,
                _ => return misplaced(at, payload.payload_type()),
            }
        }
        match timestamp {
            Some(timestamp) if errors > 0 => Ok(Self { message, timestamp }),
            _ => misplaced(octets.len(), PayloadType::LAST),
        }
    }

    /// The CSB ID of the message that the error is about.
    #[must_use]
    pub const fn csb_id(&self) -> CsbId {
        self.message.header().csb_id
    }

    /// The timestamp of the message that the error is about.
    #[must_use]
    pub const fn timestamp(&self) -> Timestamp<'a> {
        self.timestamp
    }

    /// The errors, in order; at least one.
    pub fn errors(&self) -> impl Iterator<Item = ErrorNo> + use<'a> {
        self.message.payloads().filter_map(|placed| match placed.payload {
            Payload::Err(err) => Some(err.error_no),
            _ => None,
        })
    }

    /// The policies that the sender supports instead, in order.
    pub fn policies(&self) -> impl Iterator<Item = Sp<'a>> + use<'a> {
        self.message.payloads().filter_map(|placed| match placed.payload {
            Payload::Sp(sp) => Some(sp),
            _ => None,
        })
    }

    /// The whole message.
    #[must_use]
    pub const fn message(&self) -> &Message<'a> {
        &self.message
    }
}

fn misplaced<T>(at: usize, found: PayloadType) -> Result<T, DecodeError> {
    let wanted = "T, then ERR, SP and a final V or SIGN";
    Err(DecodeError { at, kind: DecodeErrorKind::Misplaced { found, wanted } })
}

/// Makes an unauthenticated error message about the message with this CSB ID and timestamp; `policies` are what
/// the sender supports instead (RFC 3830 §5.1.1). Returns the number of octets written.
///
/// # Errors
/// A [`MakeError`] when there is no error to report, a part does not fit its fields, or `out` is too small.
pub fn write(
    csb_id: CsbId,
    timestamp: Timestamp<'_>,
    errors: &[ErrorNo],
    policies: &[Sp<'_>],
    out: &mut [u8],
) -> Result<usize, MakeError> {
    if errors.is_empty() {
        return Err(MakeError::Missing("ERR"));
    }
    let errors = errors.iter().map(|error_no| Payload::Err(ErrPayload::from(*error_no)));
    let payloads =
        [Payload::T(timestamp)].into_iter().chain(errors).chain(policies.iter().copied().map(Payload::Sp));
    let mut writer = Writer::new(out);
    write_chain(&Header::new(DataType::ERROR, csb_id), payloads, PayloadType::LAST, &mut writer)?;
    Ok(writer.written())
}
