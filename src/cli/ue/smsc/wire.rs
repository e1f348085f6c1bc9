//! PDUs on a link. Each is cut off by its length before anything looks into it, so that a malformed body harms nothing
//! behind it (SMPP 3.4 §3.2).

use std::io;

use bytes::{Buf, BytesMut};
use rusmpp_core::command::owned::Command;
use rusmpp_core::decode::owned::DecodeWithLength;
use rusmpp_core::encode::{Encode, Length};
use rusmpp_core::pdus::owned::Pdu;
use rusmpp_core::types::owned::AnyOctetString;
use rusmpp_core::{CommandId, CommandStatus};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest PDU that is taken, in octets: a message with a payload of any use.
pub(super) const MAX_PDU: usize = 8 << 10;

/// command_length, command_id, command_status and sequence_number, in octets (SMPP 3.4 §3.2).
const HEADER: usize = 16;

/// What came.
#[derive(Debug)]
pub(super) enum Arrival {
    /// A PDU.
    Pdu(Box<Command>),
    /// One whose body is not what its command has.
    Malformed {
        /// Its sequence number.
        sequence: u32,
    },
    /// A length that no PDU has: nothing behind it can be found.
    OutOfStep {
        /// The length.
        length: u32,
    },
    /// The peer has closed.
    End,
}

/// The reading half of a link.
#[derive(Debug)]
pub(super) struct PduReader<R> {
    stream: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> PduReader<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream, buffer: BytesMut::with_capacity(MAX_PDU) }
    }

    /// Waits for the next PDU. Nothing is lost when the wait is given up.
    ///
    /// # Errors
    /// The connection broke.
    pub(super) async fn next(&mut self) -> io::Result<Arrival> {
        loop {
            if let Some(arrival) = self.cut() {
                return Ok(arrival);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(Arrival::End);
            }
        }
    }

    fn cut(&mut self) -> Option<Arrival> {
        let head = self.buffer.first_chunk::<HEADER>()?;
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (length, sequence) = (word(0), word(12));
        let len = length as usize;
        if !(HEADER..=MAX_PDU).contains(&len) {
            return Some(Arrival::OutOfStep { length });
        }
        if self.buffer.len() < len {
            return None;
        }
        let mut pdu = self.buffer.split_to(len);
        pdu.advance(4);
        let body = pdu.len();
        match Command::decode(&mut pdu, body) {
            Ok((command, _)) if pdu.is_empty() && may_be(&command) => Some(Arrival::Pdu(Box::new(command))),
            _ => Some(Arrival::Malformed { sequence }),
        }
    }
}

/// Whether a command may be without a body: a refusal needs none (SMPP 3.4 §4.4.2), and of an unknown one nobody can
/// tell.
fn may_be(command: &Command) -> bool {
    command.pdu().is_some() || command.id().is_response() || matches!(command.id(), CommandId::Other(_))
}

/// A PDU's octets.
pub(super) fn encode(command: &Command) -> Vec<u8> {
    let len = 4 + command.length();
    let mut octets = vec![0; len];
    let length = u32::try_from(len).expect("no PDU that is made here is longer than 4 GiB");
    octets[..4].copy_from_slice(&length.to_be_bytes());
    command.encode(&mut octets[4..]);
    octets
}

/// An answer that refuses: a header alone (SMPP 3.4 §4.1.2, §4.4.2).
pub(super) fn refusal(request: CommandId, status: CommandStatus, sequence: u32) -> Command {
    let body = AnyOctetString::empty();
    let command_id = request.matching_response();
    Command::new(status, sequence, Pdu::Other { command_id, body })
}

/// A status as SMPP 3.4 §5.1.3 spells it, where this centre knows the name.
pub(super) fn status_name(status: CommandStatus) -> String {
    let name = match status {
        CommandStatus::EsmeRok => "ESME_ROK",
        CommandStatus::EsmeRinvcmdlen => "ESME_RINVCMDLEN",
        CommandStatus::EsmeRinvcmdid => "ESME_RINVCMDID",
        CommandStatus::EsmeRinvbndsts => "ESME_RINVBNDSTS",
        CommandStatus::EsmeRalybnd => "ESME_RALYBND",
        CommandStatus::EsmeRsyserr => "ESME_RSYSERR",
        CommandStatus::EsmeRinvdstadr => "ESME_RINVDSTADR",
        CommandStatus::EsmeRbindfail => "ESME_RBINDFAIL",
        CommandStatus::EsmeRinvpaswd => "ESME_RINVPASWD",
        CommandStatus::EsmeRinvsysid => "ESME_RINVSYSID",
        CommandStatus::EsmeRmsgqful => "ESME_RMSGQFUL",
        CommandStatus::EsmeRsubmitfail => "ESME_RSUBMITFAIL",
        CommandStatus::EsmeRthrottled => "ESME_RTHROTTLED",
        other => return format!("status 0x{:08X}", u32::from(other)),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pdu(id: u32, sequence: u32, body: &[u8]) -> Vec<u8> {
        let length = (HEADER + body.len()) as u32;
        let words = [length, id, 0, sequence];
        let mut octets: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        octets.extend_from_slice(body);
        octets
    }

    async fn all(octets: &[u8]) -> Vec<String> {
        let mut reader = PduReader::new(octets);
        let mut told = Vec::new();
        loop {
            told.push(match reader.next().await.unwrap() {
                Arrival::Pdu(command) => format!("{:?} {}", command.id(), command.sequence_number()),
                Arrival::Malformed { sequence } => format!("malformed {sequence}"),
                Arrival::OutOfStep { length } => {
                    told.push(format!("out of step {length}"));
                    return told;
                }
                Arrival::End => return told,
            });
        }
    }

    #[tokio::test]
    async fn a_malformed_pdu_harms_nothing_behind_it() {
        let enquire = |sequence| pdu(0x15, sequence, &[]);
        for (id, body) in [
            (0x04, &b""[..]),
            (0x04, b"\0\x01\x01no end"),
            (0x05, &[0xff; 40]),
            (0x09, b"user\0a password that is far too long\0\0\x34\0\0\0"),
            (0x15, b"a body where none is"),
            (0x103, b"\0\0\0\0\0\0\0\0\0\0\x04\x24\xff\xff"),
        ] {
            let octets = [enquire(1), pdu(id, 2, body), enquire(3)].concat();
            assert_eq!(all(&octets).await, ["EnquireLink 1", "malformed 2", "EnquireLink 3"], "{id:x}");
        }
    }

    #[tokio::test]
    async fn a_length_that_no_pdu_has_ends_the_reading() {
        for length in [0u32, 15, MAX_PDU as u32 + 1, u32::MAX] {
            let mut octets = pdu(0x15, 1, &[]);
            octets[..4].copy_from_slice(&length.to_be_bytes());
            assert_eq!(all(&octets).await, [format!("out of step {length}")]);
        }
    }

    #[tokio::test]
    async fn a_pdu_may_come_octet_by_octet() {
        let octets = [pdu(0x15, 1, &[]), pdu(0x80000004, 2, b"id\0")].concat();
        let (mut writing, reading) = tokio::io::duplex(1);
        let whole = octets.clone();
        let writer = tokio::spawn(async move {
            tokio::io::AsyncWriteExt::write_all(&mut writing, &whole).await.unwrap();
        });
        let mut reader = PduReader::new(reading);
        for id in [CommandId::EnquireLink, CommandId::SubmitSmResp] {
            let Arrival::Pdu(command) = reader.next().await.unwrap() else { panic!("no PDU") };
            assert_eq!(command.id(), id);
        }
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn a_refusal_is_a_header_alone() {
        let refusal = refusal(CommandId::SubmitSm, CommandStatus::EsmeRthrottled, 7);
        let octets = encode(&refusal);
        assert_eq!(octets, [0, 0, 0, 16, 0x80, 0, 0, 4, 0, 0, 0, 0x58, 0, 0, 0, 7]);
        assert_eq!(all(&octets).await, ["SubmitSmResp 7"]);
    }
}
