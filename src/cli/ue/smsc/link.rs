//! One ESME's link: bind, messages in, answers and receipts out, until somebody ends it (SMPP 3.4 §2, §4).

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rusmpp_core::pdus::owned::{
    BindReceiverResp, BindTransceiverResp, BindTransmitterResp, DataSmResp, Pdu, SubmitSmResp,
};
use rusmpp_core::types::owned::COctetString;
use rusmpp_core::values::InterfaceVersion;
use rusmpp_core::{CommandId, CommandStatus};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::delivery::Whole;
use super::event::{BindMode, SmscEvent, printable};
use super::receipts::{Receipt, Ticket};
use super::server::{Shared, stopped};
use super::submission::Submission;
use super::wire::{Arrival, PduReader, refusal};
use crate::id::Msisdn;
use crate::secret::Secret;
use crate::time::Timestamp;
use crate::transport::sms::pdu::{Received, put};
use crate::transport::sms::status;

/// What this centre calls itself.
const SYSTEM_ID: &str = "ltkmd-ue-smsc";

/// Messages of a link that are not answered yet, at most; beyond that the link is not read.
pub(super) const MAX_UNANSWERED: usize = 1000;

/// Receipts of a link that are not acknowledged yet, at most; the others wait.
pub(super) const MAX_UNACKNOWLEDGED: usize = 32;

/// How long a connection may take to bind.
pub(super) const BIND_WAIT: Duration = Duration::from_secs(30);

/// How long a bound link may be silent.
pub(super) const IDLE: Duration = Duration::from_secs(600);

/// How long a peer may take to read what it is sent.
const WRITE: Duration = Duration::from_secs(10);

/// Why a link ended.
enum End {
    Peer,
    Unbound,
    Refused(CommandStatus),
    Stopped,
    Dropped,
    OutOfStep(u32),
    Silent,
    Broken(io::Error),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer => f.write_str("it closed the link"),
            Self::Unbound => f.write_str("unbound"),
            Self::Refused(status) => write!(f, "its bind was refused: {}", status::shown((*status).into())),
            Self::Stopped => f.write_str("the centre stopped"),
            Self::Dropped => f.write_str("dropped, as --drop-after asks"),
            Self::OutOfStep(length) => write!(f, "it sent a PDU of {length} octets"),
            Self::Silent => f.write_str("it was silent for too long"),
            Self::Broken(error) => write!(f, "the connection broke: {error}"),
        }
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// What will be answered at its time.
enum Due {
    Message { request: CommandId, sequence: u32, submission: Box<Submission> },
    Refusal { request: CommandId, sequence: u32, status: CommandStatus },
    Unbind { sequence: u32 },
}

struct Link {
    number: u32,
    peer: SocketAddr,
    shared: Arc<Shared>,
    wholes: mpsc::Sender<Whole>,
    reader: PduReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    bound: Option<(String, BindMode)>,
    heard: Instant,
    messages: u32,
    due: VecDeque<(Instant, Due)>,
    sequence: u32,
    unacknowledged: BTreeMap<u32, Receipt>,
}

/// Serves a connection, which has a number, to its end.
pub(super) async fn serve(
    (stream, peer, number): (TcpStream, SocketAddr, u32),
    place: OwnedSemaphorePermit,
    shared: Arc<Shared>,
    wholes: mpsc::Sender<Whole>,
    stopping: watch::Receiver<bool>,
) {
    // Answers are small and awaited; where the system cannot, they are only slower.
    drop(stream.set_nodelay(true));
    let (reader, writer) = stream.into_split();
    let mut link = Link {
        number,
        peer,
        shared,
        wholes,
        reader: PduReader::new(reader),
        writer,
        bound: None,
        heard: Instant::now(),
        messages: 0,
        due: VecDeque::new(),
        sequence: 0,
        unacknowledged: BTreeMap::new(),
    };
    let end = match link.run(stopping).await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    let Link { shared, bound, unacknowledged, mut writer, .. } = link;
    // The peer may be gone already.
    drop(timeout(WRITE, writer.shutdown()).await);
    shared.receipts.put_back(unacknowledged.into_values());
    // Whoever hears of the end finds room for another link.
    drop(place);
    let system_id = bound.map(|(system_id, _)| printable(&system_id));
    shared.tell(SmscEvent::Ended { link: number, system_id, why: end.to_string() }).await;
}

impl Link {
    async fn run(&mut self, mut stopping: watch::Receiver<bool>) -> Result<std::convert::Infallible, End> {
        let mut receipts = self.shared.receipts.changes();
        loop {
            self.send_receipts().await?;
            let silent = self.heard + if self.bound.is_some() { IDLE } else { BIND_WAIT };
            let due = self.due.front().map(|(at, _)| *at);
            let has_room = self.due.len() < MAX_UNANSWERED;
            tokio::select! {
                () = stopped(&mut stopping) => {
                    if self.bound.is_some() {
                        self.request(Pdu::Unbind).await?;
                    }
                    return Err(End::Stopped);
                }
                arrival = self.reader.next(), if has_room => self.arrived(arrival?).await?,
                () = sleep_until(due.unwrap_or(silent)), if due.is_some() => self.answer_next().await?,
                _ = receipts.changed() => {}
                () = sleep_until(silent), if has_room => return Err(End::Silent),
            }
        }
    }

    async fn send(&mut self, status: CommandStatus, sequence: u32, pdu: Pdu) -> Result<(), End> {
        let mut octets = BytesMut::new();
        put(&mut octets, status.into(), sequence, pdu);
        let sent = timeout(WRITE, self.writer.write_all(&octets)).await;
        sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(End::Broken)
    }

    async fn respond(&mut self, sequence: u32, pdu: impl Into<Pdu>) -> Result<(), End> {
        self.send(CommandStatus::EsmeRok, sequence, pdu.into()).await
    }

    async fn refuse(&mut self, request: CommandId, sequence: u32, status: CommandStatus) -> Result<(), End> {
        self.send(status, sequence, refusal(request)).await
    }

    async fn nack(&mut self, sequence: u32, status: CommandStatus) -> Result<(), End> {
        self.send(status, sequence, Pdu::GenericNack).await
    }

    /// Sends a request of the centre; gives its sequence number.
    async fn request(&mut self, pdu: impl Into<Pdu>) -> Result<u32, End> {
        // From 1 to 0x7FFFFFFF (SMPP 3.4 §5.1.4).
        self.sequence = self.sequence % 0x7FFF_FFFF + 1;
        let sequence = self.sequence;
        self.respond(sequence, pdu).await?;
        Ok(sequence)
    }

    async fn arrived(&mut self, arrival: Arrival) -> Result<(), End> {
        self.heard = Instant::now();
        let received = match arrival {
            Arrival::End => return Err(End::Peer),
            Arrival::OutOfStep { length } => {
                self.nack(0, CommandStatus::EsmeRinvcmdlen).await?;
                return Err(End::OutOfStep(length));
            }
            Arrival::Pdu(received) => received,
        };
        let Received { id: request, status, sequence, body } = *received;
        if request.is_response() {
            return self.acknowledged(sequence, status).await;
        }
        match body {
            Some(Pdu::EnquireLink) => self.respond(sequence, Pdu::EnquireLinkResp).await,
            Some(Pdu::BindTransmitter(bind)) => {
                let (id, version) = (bind.system_id.to_string(), bind.interface_version);
                let password = secret(bind.password);
                self.bind(BindMode::Transmitter, (request, sequence), id, &password, version).await
            }
            Some(Pdu::BindReceiver(bind)) => {
                let (id, version) = (bind.system_id.to_string(), bind.interface_version);
                let password = secret(bind.password);
                self.bind(BindMode::Receiver, (request, sequence), id, &password, version).await
            }
            Some(Pdu::BindTransceiver(bind)) => {
                let (id, version) = (bind.system_id.to_string(), bind.interface_version);
                let password = secret(bind.password);
                self.bind(BindMode::Transceiver, (request, sequence), id, &password, version).await
            }
            Some(Pdu::SubmitSm(submit)) => self.submitted(request, sequence, submit.into()).await,
            Some(Pdu::DataSm(data)) => self.submitted(request, sequence, data.into()).await,
            Some(Pdu::Unbind) => {
                // What came before it is answered first.
                let at = self.due.back().map_or_else(Instant::now, |(at, _)| *at);
                self.due.push_back((at, Due::Unbind { sequence }));
                Ok(())
            }
            // Of an unknown command nobody can tell whether it has a body.
            None if !matches!(request, CommandId::Other(_)) => {
                self.nack(sequence, CommandStatus::EsmeRinvcmdlen).await
            }
            _ => self.nack(sequence, CommandStatus::EsmeRinvcmdid).await,
        }
    }

    async fn acknowledged(&mut self, sequence: u32, status: u32) -> Result<(), End> {
        if let Some(receipt) = self.unacknowledged.remove(&sequence)
            && status != u32::from(CommandStatus::EsmeRok)
        {
            let (id, status) = (receipt.ticket.id, status::shown(status));
            self.shared.tell(SmscEvent::ReceiptRefused { id, status }).await;
        }
        Ok(())
    }

    async fn bind(
        &mut self,
        mode: BindMode,
        (request, sequence): (CommandId, u32),
        system_id: String,
        password: &Secret,
        version: InterfaceVersion,
    ) -> Result<(), End> {
        if self.bound.is_some() {
            return self.refuse(request, sequence, CommandStatus::EsmeRalybnd).await;
        }
        let (link, peer, shown) = (self.number, self.peer, printable(&system_id));
        if let Some(status) = self.bind_fault(&system_id, password) {
            self.refuse(request, sequence, status).await?;
            let event =
                SmscEvent::BindRefused { link, peer, system_id: shown, status: status::shown(status.into()) };
            self.shared.tell(event).await;
            return Err(End::Refused(status));
        }
        let name = COctetString::from_str(SYSTEM_ID).expect("the centre's name is below 16 octets");
        // Optional parameters are for peers that know of them (SMPP 3.4 §3.3).
        let ours =
            (u8::from(version) >= u8::from(InterfaceVersion::Smpp3_4)).then_some(InterfaceVersion::Smpp3_4);
        let answer: Pdu = match mode {
            BindMode::Transmitter => BindTransmitterResp::new(name, ours).into(),
            BindMode::Receiver => BindReceiverResp::new(name, ours).into(),
            BindMode::Transceiver => BindTransceiverResp::new(name, ours).into(),
        };
        self.respond(sequence, answer).await?;
        self.bound = Some((system_id, mode));
        self.shared.tell(SmscEvent::Bound { link, peer, system_id: shown, mode }).await;
        Ok(())
    }

    fn bind_fault(&self, system_id: &str, password: &Secret) -> Option<CommandStatus> {
        let behaviour = &self.shared.behaviour;
        if behaviour.reject_bind {
            Some(CommandStatus::EsmeRbindfail)
        } else if behaviour.system_id.as_deref().is_some_and(|right| right != system_id) {
            Some(CommandStatus::EsmeRinvsysid)
        } else if behaviour.password.as_ref().is_some_and(|right| right != password) {
            Some(CommandStatus::EsmeRinvpaswd)
        } else {
            None
        }
    }

    /// Notes a message; its answer comes when its time has come.
    async fn submitted(
        &mut self,
        request: CommandId,
        sequence: u32,
        submission: Submission,
    ) -> Result<(), End> {
        let submits = self.bound.as_ref().is_some_and(|(_, mode)| mode.submits());
        if !submits {
            return self.refuse(request, sequence, CommandStatus::EsmeRinvbndsts).await;
        }
        self.messages = self.messages.saturating_add(1);
        if self.shared.behaviour.drop_after.is_some_and(|last| self.messages >= last.get()) {
            return Err(End::Dropped);
        }
        let status = if !self.shared.admits() {
            Some((CommandStatus::EsmeRthrottled, String::new()))
        } else if Msisdn::new(submission.to.digits.as_str()).is_err() {
            Some((CommandStatus::EsmeRinvdstadr, String::new()))
        } else {
            let fault = submission.opened().err();
            fault.map(|fault| (CommandStatus::EsmeRsubmitfail, format!(": {fault}")))
        };
        let due = match status {
            None => Due::Message { request, sequence, submission: Box::new(submission) },
            Some((status, more)) => {
                self.tell_refused(&submission, status, &more).await;
                Due::Refusal { request, sequence, status }
            }
        };
        self.due.push_back((Instant::now() + self.shared.behaviour.delay, due));
        Ok(())
    }

    async fn tell_refused(&self, submission: &Submission, status: CommandStatus, more: &str) {
        let system_id = self.bound.as_ref().map(|(system_id, _)| printable(system_id)).unwrap_or_default();
        let (from, to) =
            (printable(submission.from.digits.as_str()), printable(submission.to.digits.as_str()));
        let status = status::shown(status.into()) + more;
        self.shared.tell(SmscEvent::Refused { system_id, from, to, status }).await;
    }

    async fn answer_next(&mut self) -> Result<(), End> {
        let Some((_, due)) = self.due.pop_front() else { return Ok(()) };
        let (request, sequence, submission) = match due {
            Due::Unbind { sequence } => {
                self.respond(sequence, Pdu::UnbindResp).await?;
                return Err(End::Unbound);
            }
            Due::Refusal { request, sequence, status } => {
                return self.refuse(request, sequence, status).await;
            }
            Due::Message { request, sequence, submission } => (request, sequence, submission),
        };
        let system_id = self.bound.as_ref().map(|(system_id, _)| system_id.clone()).unwrap_or_default();
        let ticket = Ticket {
            id: self.shared.name(),
            system_id,
            from: submission.from.clone(),
            to: submission.to.clone(),
            wanted: submission.wanted,
            submitted: Timestamp::now(),
        };
        let id = COctetString::from_str(&ticket.id).expect("an id is 16 hex digits");
        let Ok(opened) = submission.opened() else {
            return self.refuse(request, sequence, CommandStatus::EsmeRsubmitfail).await;
        };
        let whole = match self.shared.take(ticket, opened).await {
            Ok(whole) => whole,
            Err(fault) => {
                let status = CommandStatus::EsmeRsubmitfail;
                self.tell_refused(&submission, status, &format!(": {fault}")).await;
                return self.refuse(request, sequence, status).await;
            }
        };
        let answer: Pdu = match request {
            CommandId::DataSm => DataSmResp::new(id, Vec::new()).into(),
            _ => SubmitSmResp::new(id, Vec::new()).into(),
        };
        self.respond(sequence, answer).await?;
        if let Some(whole) = whole {
            // The one that delivers outlives all links.
            drop(self.wholes.send(whole).await);
        }
        Ok(())
    }

    /// Sends the receipts that wait for this ESME, as far as its window has room.
    async fn send_receipts(&mut self) -> Result<(), End> {
        let Some((system_id, mode)) = &self.bound else { return Ok(()) };
        if !mode.receives() {
            return Ok(());
        }
        let system_id = system_id.clone();
        while self.unacknowledged.len() < MAX_UNACKNOWLEDGED {
            let Some(receipt) = self.shared.receipts.take(&system_id) else { return Ok(()) };
            let (to, id) = (printable(receipt.ticket.to.digits.as_str()), receipt.ticket.id.clone());
            let (pdu, state) = (receipt.pdu(), receipt.state.as_str());
            // Noted before it leaves: what breaks on the way is put back.
            let sequence = self.sequence % 0x7FFF_FFFF + 1;
            self.unacknowledged.insert(sequence, receipt);
            self.request(pdu).await?;
            let system_id = printable(&system_id);
            self.shared.tell(SmscEvent::Receipt { system_id, to, id, state }).await;
        }
        Ok(())
    }
}

/// The password of a bind, out of the PDU.
fn secret<const MAX: usize>(password: COctetString<1, MAX>) -> Secret {
    Secret::from(password.as_str().as_bytes())
}
