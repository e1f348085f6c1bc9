//! PDUs on a link: the daemon's own frames, from the other side.

use std::io;

use bytes::BytesMut;
use rusmpp_core::CommandId;
use rusmpp_core::pdus::owned::Pdu;
use rusmpp_core::types::owned::AnyOctetString;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::transport::sms::pdu::{BadLength, Received, take};

/// What came.
#[derive(Debug)]
pub(super) enum Arrival {
    /// A PDU.
    Pdu(Box<Received>),
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
        Self { stream, buffer: BytesMut::new() }
    }

    /// Waits for the next PDU. Nothing is lost when the wait is given up.
    ///
    /// # Errors
    /// The connection broke.
    pub(super) async fn next(&mut self) -> io::Result<Arrival> {
        loop {
            match take(&mut self.buffer) {
                Ok(Some(received)) => return Ok(Arrival::Pdu(Box::new(received))),
                Ok(None) => {}
                Err(BadLength(length)) => return Ok(Arrival::OutOfStep { length }),
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(Arrival::End);
            }
        }
    }
}

/// The body of an answer that refuses: none (SMPP 3.4 §4.1.2, §4.4.2).
pub(super) fn refusal(request: CommandId) -> Pdu {
    Pdu::Other { command_id: request.matching_response(), body: AnyOctetString::empty() }
}

#[cfg(test)]
mod tests {
    use rusmpp_core::CommandStatus;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::transport::sms::pdu::put;

    #[tokio::test]
    async fn a_refusal_is_a_header_alone_and_pdus_may_come_octet_by_octet() {
        let mut octets = BytesMut::new();
        put(&mut octets, CommandStatus::EsmeRthrottled.into(), 7, refusal(CommandId::SubmitSm));
        assert_eq!(octets[..], [0, 0, 0, 16, 0x80, 0, 0, 4, 0, 0, 0, 0x58, 0, 0, 0, 7]);
        put(&mut octets, 0, 8, Pdu::EnquireLink);
        let (mut writing, reading) = tokio::io::duplex(1);
        let writer = tokio::spawn(async move { writing.write_all(&octets).await });
        let mut reader = PduReader::new(reading);
        for (id, sequence) in [(CommandId::SubmitSmResp, 7), (CommandId::EnquireLink, 8)] {
            let Arrival::Pdu(received) = reader.next().await.unwrap() else { panic!("no PDU") };
            assert_eq!((received.id, received.sequence), (id, sequence));
        }
        writer.await.unwrap().unwrap();
        assert!(matches!(reader.next().await, Ok(Arrival::End)));
    }
}
