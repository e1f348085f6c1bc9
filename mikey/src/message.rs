//! Whole messages: a header and a chain of payloads (RFC 3830 §5.2, §5.3, §6.1), of any data type.

use core::fmt;

use crate::{
    error::{DecodeError, DecodeErrorKind, MakeError},
    octets::{Reader, Writer},
    payload::{Header, Next, Payload},
    registry::PayloadType,
};

/// A received message: the decoded view beside the octets it was decoded from, since a MAC covers exactly those.
///
/// Nothing is allocated. Display prints one line for the header and one for each payload, without secrets.
///
/// ```
/// use mikey::message::Message;
///
/// // An error message: HDR(6) · T(COUNTER 7) · ERR(0)
/// let octets = [1, 6, 5, 0, 0, 0, 0, 9, 0, 1, 12, 2, 0, 0, 0, 7, 0, 0, 0, 0];
/// let message = Message::parse(&octets)?;
/// assert_eq!(
///     message.to_string(),
///     "HDR: error (6), V 0, PRF MIKEY-1 (0), CSB ID 00000009, #CS 0, map empty map (1)\n\
///      T: COUNTER (2) 7\n\
///      ERR: Auth failure (0)"
/// );
/// # Ok::<_, mikey::DecodeError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    octets: &'a [u8],
    header: Header<'a>,
    first: PayloadType,
    payloads_at: usize,
}

impl<'a> Message<'a> {
    /// Reads a message to its last octet.
    ///
    /// # Errors
    /// A [`DecodeError`] for octets that end too early or too late, for another version than 1, for a payload or
    /// a field that cannot be delimited, and for sub-payloads (Key ID, OMA BCAST, policy parameters) that are not
    /// what their RFC says.
    pub fn parse(octets: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(octets);
        let (first, header) = Header::decode(&mut reader)?;
        let payloads_at = reader.at();
        let mut next = first;
        while !next.is_last() {
            (next, _) = Payload::decode(next, &mut reader)?;
        }
        if !reader.is_empty() {
            return reader.fail(DecodeErrorKind::Trailing { left: reader.left() });
        }
        Ok(Self { octets, header, first: first.payload_type, payloads_at })
    }

    /// The octets as they were received.
    #[must_use]
    pub const fn octets(&self) -> &'a [u8] {
        self.octets
    }

    /// The common header, HDR.
    #[must_use]
    pub const fn header(&self) -> &Header<'a> {
        &self.header
    }

    /// The payloads behind the header, in order.
    #[must_use]
    pub fn payloads(&self) -> Payloads<'a> {
        let reader = Reader::at_base(&self.octets[self.payloads_at..], self.payloads_at);
        Payloads { reader, next: Next { at: 2, payload_type: self.first } }
    }

    /// Encodes the decoded view again, which gives the octets that it was decoded from.
    ///
    /// # Errors
    /// [`MakeError::BufferTooSmall`] when `out` is shorter than [`octets`](Self::octets).
    pub fn write(&self, out: &mut [u8]) -> Result<usize, MakeError> {
        write_all(&self.header, self.payloads(), out)
    }
}

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.header.fmt(f)?;
        self.payloads().try_for_each(|payload| write!(f, "\n{}", payload.payload))
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("header", &self.header)
            .field("payloads", &self.payloads().map(|placed| placed.payload).collect::<Vec<_>>())
            .finish()
    }
}

/// A payload, and where in the message it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed<'a> {
    /// Offset of the payload's first octet (its Next payload field, but for SIGN) from the message's first.
    pub at: usize,
    /// Octets of the payload.
    pub len: usize,
    /// The payload.
    pub payload: Payload<'a>,
}

/// The payloads of a [`Message`], in order.
#[derive(Debug, Clone)]
pub struct Payloads<'a> {
    reader: Reader<'a>,
    next: Next,
}

impl<'a> Iterator for Payloads<'a> {
    type Item = Placed<'a>;

    fn next(&mut self) -> Option<Placed<'a>> {
        if self.next.is_last() {
            return None;
        }
        let at = self.reader.at();
        // Message::parse has been through the same octets, so an error is as good as the end.
        let (next, payload) = Payload::decode(self.next, &mut self.reader).ok()?;
        self.next = next;
        Some(Placed { at, len: self.reader.at() - at, payload })
    }
}

/// Makes a message of any kind from its parts, unprotected: the MAC or signature is whatever the last payload
/// holds. [`psk::write`](crate::psk::write) makes protected ones. Returns the number of octets written.
///
/// # Errors
/// A [`MakeError`] when a part does not fit its fields, a payload that can only be the last is not, `payloads` is
/// empty, or `out` is too small.
pub fn write(header: &Header<'_>, payloads: &[Payload<'_>], out: &mut [u8]) -> Result<usize, MakeError> {
    let mut writer = Writer::new(out);
    write_chain(header, payloads.iter().copied(), PayloadType::LAST, &mut writer)?;
    Ok(writer.written())
}

fn write_all(header: &Header<'_>, payloads: Payloads<'_>, out: &mut [u8]) -> Result<usize, MakeError> {
    let mut writer = Writer::new(out);
    write_chain(header, payloads.map(|placed| placed.payload), PayloadType::LAST, &mut writer)?;
    Ok(writer.written())
}

/// Writes header and payloads; `behind` is what the caller puts behind the last of them.
pub(crate) fn write_chain<'p>(
    header: &Header<'_>,
    payloads: impl Iterator<Item = Payload<'p>>,
    behind: PayloadType,
    writer: &mut Writer<'_>,
) -> Result<(), MakeError> {
    let mut payloads = payloads.peekable();
    let first = payloads.peek().map_or(behind, Payload::payload_type);
    if first == PayloadType::LAST {
        return Err(MakeError::Missing("a payload behind the header"));
    }
    header.encode(first, writer)?;
    while let Some(payload) = payloads.next() {
        let next = payloads.peek().map_or(behind, Payload::payload_type);
        payload.encode(next, writer)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(octets: &[u8]) -> String {
        Message::parse(octets).unwrap_err().to_string()
    }

    #[test]
    fn every_refusal_says_what_and_at_which_octet() {
        let header = |next: u8| vec![1, 0, next, 0, 0, 0, 0, 1, 0, 1];
        let with = |next: u8, rest: &[u8]| [&header(next)[..], rest].concat();
        assert_eq!(refusal(&[]), "octet 0: version: 1 octets needed, 0 left");
        assert_eq!(refusal(&[2]), "octet 0: MIKEY version 2, only 1 is known");
        assert_eq!(refusal(&header(0)), "octet 2: the header is followed by no payload");
        assert_eq!(refusal(&header(13)), "octet 2: unsupported payload unknown (13)");
        assert_eq!(
            refusal(&header(20)),
            "octet 2: payload Key data (20) where a payload outside of a KEMAC belongs"
        );
        assert_eq!(refusal(&with(11, &[14, 1, 7])), "octet 10: unsupported payload unknown (14)");
        assert_eq!(refusal(&with(11, &[0, 3, 7, 7])), "octet 12: RAND: 3 octets needed, 2 left");
        assert_eq!(refusal(&with(11, &[0, 1, 7, 8, 9])), "octet 13: 2 octets behind the last payload");
        assert_eq!(
            refusal(&with(5, &[11, 9, 1, 2, 0, 0])),
            "octet 12: TS value: its length follows from number 9, which is unknown"
        );
        assert_eq!(
            refusal(&with(21, &[0, 3, 0, 4, 0, 3, 1, 2])),
            "octet 16: Key ID: 3 octets needed, 2 left",
            "inside of an extension, offsets still count from the first octet of the message"
        );
        assert_eq!(refusal(&with(21, &[0, 5, 0, 0])), "octet 14: OMA BCAST Subtype: 1 octets needed, 0 left");
        assert_eq!(
            refusal(&[1, 0, 5, 0, 0, 0, 0, 1, 2, 9, 0]),
            "octet 10: CS ID map info: its length follows from number 9, which is unknown"
        );
    }

    #[test]
    fn a_message_without_payloads_is_not_made() {
        let header = Header::new(crate::DataType::ERROR, crate::CsbId(1));
        assert_eq!(write(&header, &[], &mut [0; 64]), Err(MakeError::Missing("a payload behind the header")));
    }
}
