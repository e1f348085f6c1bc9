//! A centre that does what the test tells it, and a gateway before it.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use mikey::ltkm::{KeyData, KeyDataType, KeyValidity, Ltkm};
use mikey::psk::PresharedKey;
use mikey::{CsbId, IdType, MskId};
use rusmpp_core::pdus::owned::{BindTransceiverResp, SubmitSm, SubmitSmResp};
use rusmpp_core::types::owned::COctetString;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::super::pdu::{self, CommandId, Pdu, Received};
use super::super::{Gateway, SmsSettings};
use crate::config::{BindMode, Smsc};
use crate::delivery::MessageId;
use crate::engine::{ShortMessage, SmsEvent, SmsOutbox, SmsTag};
use crate::id::{Msisdn, TerminalKey};
use crate::metrics::Metrics;
use crate::secret::Secret;

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits, but not for ever.
#[track_caller]
pub(super) fn soon<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let place = std::panic::Location::caller();
    async move { tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waiting at {place}")) }
}

pub(super) fn id(name: &str) -> MessageId {
    MessageId::new(name).unwrap()
}

pub(super) fn tag(t: u32) -> SmsTag {
    SmsTag { terminal: TerminalKey([7; 16]), t }
}

/// An LTKM for a terminal with a B-TID of that many octets, with a key or without.
pub(super) fn ltkm(idr: usize, key: bool) -> Vec<u8> {
    let key = key.then_some(KeyData {
        key_type: KeyDataType::TGK,
        key: &[0x11; 16],
        salt: None,
        kv: KeyValidity::Interval { from: &[0, 0, 0, 1], to: &[0, 0, 0, 2] },
    });
    let ltkm = Ltkm {
        v: false,
        csb_id: CsbId(1),
        counter: 1,
        rand: &[0x47; 16],
        id_type: IdType::NAI,
        idi: b"bmsc.example.com",
        idr: &vec![b'a'; idr],
        key_domain_id: "62f210".parse().unwrap(),
        msk_id: MskId::new(0x68c9, 0),
        ext_bcast: None,
        srtp: None,
        key,
    };
    let mut octets = vec![0; ltkm.encoded_len()];
    let len = ltkm.write(&PresharedKey::new(&[0x2c; 32]), &mut octets).unwrap();
    octets.truncate(len);
    octets
}

pub(super) fn message(t: u32) -> ShortMessage {
    ShortMessage { to: Msisdn::new("4917012345678").unwrap(), ltkm: ltkm(20, false), tag: tag(t) }
}

/// A centre that nobody is bound to yet.
pub(super) struct Centre {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
}

impl Centre {
    pub(super) async fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), tls: None }
    }

    pub(super) fn with_tls(self, tls: TlsAcceptor) -> Self {
        Self { tls: Some(tls), ..self }
    }

    pub(super) fn smsc(&self) -> Smsc {
        let port = self.listener.local_addr().unwrap().port();
        Smsc { tls: self.tls.is_some(), host: "127.0.0.1".to_owned(), port }
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> Session {
        self.try_accept().await.unwrap()
    }

    /// The next connection, whose TLS may fail.
    pub(super) async fn try_accept(&self) -> std::io::Result<Session> {
        let (tcp, _) = soon(self.listener.accept()).await?;
        let stream: Box<dyn Stream> = match &self.tls {
            Some(tls) => Box::new(soon(tls.accept(tcp)).await?),
            None => Box::new(tcp),
        };
        Ok(Session { stream, received: BytesMut::new(), sequence: 1000 })
    }

    /// The next connection, bound.
    pub(super) async fn bound(&self) -> Session {
        let mut session = self.accept().await;
        session.accept_bind(CommandId::BindTransceiver).await;
        session
    }
}

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection as the centre sees it.
pub(super) struct Session {
    stream: Box<dyn Stream>,
    received: BytesMut,
    sequence: u32,
}

impl Session {
    /// The next PDU; none when the daemon has closed.
    pub(super) async fn read(&mut self) -> Option<Received> {
        loop {
            if let Some(received) = pdu::take(&mut self.received).expect("the daemon's PDUs are sound") {
                return Some(received);
            }
            match soon(self.stream.read_buf(&mut self.received)).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The next PDU, which must be of that kind.
    #[track_caller]
    pub(super) fn expect(&mut self, id: CommandId) -> impl Future<Output = Received> {
        let place = std::panic::Location::caller();
        async move {
            let received = self.read().await.unwrap_or_else(|| panic!("{id:?} and not the end at {place}"));
            assert_eq!(received.id, id, "at {place}: {received:?}");
            received
        }
    }

    pub(super) async fn write(&mut self, status: u32, sequence: u32, pdu: Pdu) {
        let mut out = BytesMut::new();
        pdu::put(&mut out, status, sequence, pdu);
        self.raw(&out).await;
    }

    pub(super) async fn raw(&mut self, octets: &[u8]) {
        // A daemon that has closed reads nothing: the test sees that elsewhere.
        let _ = soon(self.stream.write_all(octets)).await;
        let _ = soon(self.stream.flush()).await;
    }

    /// Sends a request; its sequence number.
    pub(super) async fn ask(&mut self, pdu: Pdu) -> u32 {
        self.sequence += 1;
        self.write(0, self.sequence, pdu).await;
        self.sequence
    }

    pub(super) async fn answer_bind(&mut self, bind: &Received, status: u32) {
        // The three answers have the same body.
        let body: Pdu = BindTransceiverResp::default().into();
        let mut out = BytesMut::new();
        pdu::put(&mut out, status, bind.sequence, body);
        out[4..8].copy_from_slice(&u32::from(bind.id.matching_response()).to_be_bytes());
        self.raw(&out).await;
    }

    pub(super) async fn accept_bind(&mut self, kind: CommandId) -> Received {
        let bind = self.expect(kind).await;
        self.answer_bind(&bind, 0).await;
        bind
    }

    /// The next submission and its sequence number.
    pub(super) async fn submission(&mut self) -> (u32, SubmitSm) {
        let received = self.expect(CommandId::SubmitSm).await;
        let Some(Pdu::SubmitSm(submit)) = received.body else { panic!("{:?}", received.body) };
        (received.sequence, submit)
    }

    pub(super) async fn answer(&mut self, sequence: u32, status: u32, id: &str) {
        let resp = SubmitSmResp::builder().message_id(id.parse::<COctetString<1, 65>>().unwrap()).build();
        self.write(status, sequence, resp.into()).await;
    }

    /// Proves that the daemon has sent nothing more: its answer to this comes behind it.
    pub(super) async fn quiet(&mut self) {
        let sequence = self.ask(Pdu::EnquireLink).await;
        assert_eq!(self.expect(CommandId::EnquireLinkResp).await.sequence, sequence);
    }

    /// Answers the unbind, and sees the end.
    pub(super) async fn unbound(mut self) {
        let unbind = self.expect(CommandId::Unbind).await;
        self.write(0, unbind.sequence, Pdu::UnbindResp).await;
        assert!(self.read().await.is_none());
    }
}

/// Settings for these centres: fast where tests would wait.
pub(super) fn settings(smsc: &[Smsc]) -> SmsSettings {
    SmsSettings {
        smsc: smsc.to_vec(),
        bind: BindMode::Transceiver,
        system_id: "ltkmd".parse().unwrap(),
        password: Some(Secret::from(&b"hunter2"[..])),
        authorities: None,
        source: Some("12345".parse().unwrap()),
        window: 3,
        rate: NonZeroU32::new(100_000).unwrap(),
        enquire_link: Duration::from_secs(3600),
        response_timeout: PATIENCE,
        port: NonZeroU16::new(4359).unwrap(),
        reconnect: (Duration::from_millis(1), Duration::from_millis(5)),
        drain: PATIENCE,
    }
}

/// A gateway that runs.
pub(super) struct Rig {
    pub(super) gateway: Arc<Gateway>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) shutdown: watch::Sender<bool>,
    events: mpsc::Receiver<SmsEvent>,
    run: JoinHandle<()>,
}

impl Rig {
    pub(super) fn start(settings: SmsSettings) -> Self {
        let metrics = Arc::new(Metrics::new());
        let (gateway, events) = Gateway::new(settings, Arc::clone(&metrics));
        let (shutdown, stop) = watch::channel(false);
        let run = tokio::spawn(Arc::clone(&gateway).run(stop));
        Self { gateway, metrics, shutdown, events, run }
    }

    /// Hands a message over as soon as there is room.
    #[track_caller]
    pub(super) fn submit(&self, t: u32) -> impl Future<Output = ()> {
        let room = soon(self.gateway.room());
        async move {
            assert!(room.await >= 1);
            self.gateway.submit(message(t));
        }
    }

    /// Whether a message may be handed over now.
    pub(super) async fn has_room(&self) -> bool {
        tokio::select! {
            biased;
            _ = self.gateway.room() => true,
            () = std::future::ready(()) => false,
        }
    }

    #[track_caller]
    pub(super) fn event(&mut self) -> impl Future<Output = SmsEvent> {
        let event = soon(self.events.recv());
        async move { event.await.expect("the gateway lives") }
    }

    /// A metric's value.
    pub(super) fn metric(&self, series: &str) -> u64 {
        let text = self.metrics.encode();
        let line = text.lines().find_map(|l| l.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series} in\n{text}")).parse().unwrap()
    }

    /// Sees that the gateway ends; gives what it told since.
    pub(super) async fn ended(self) -> Vec<SmsEvent> {
        let Self { gateway, mut events, run, .. } = self;
        soon(run).await.unwrap();
        drop(gateway);
        let mut told = Vec::new();
        while let Some(event) = soon(events.recv()).await {
            told.push(event);
        }
        told
    }

    /// Ends a gateway whose one bound session this is.
    pub(super) async fn stop(self, session: Session) -> Vec<SmsEvent> {
        self.shutdown.send_replace(true);
        session.unbound().await;
        self.ended().await
    }
}
