//! The centre itself: it listens, and what its links have in common.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::delivery::{self, MAX_DELIVERIES, Whole};
use super::event::{Happening, SmscEvent};
use super::link;
use super::parts::{Gathered, PartError, Parts, Taken, Whose};
use super::receipts::{Receipts, Ticket};
use super::routes::Routes;
use super::submission::Opened;
use super::throttle::Throttle;
use crate::delivery::ReceiptState;
use crate::secret::Secret;
use crate::time::Timestamp;
use crate::transport::sms::udh::{Part, Ports};

/// Links at a time; one more is closed at once.
pub(super) const MAX_LINKS: usize = 64;

/// Events that nobody has taken yet, at most; then the links wait.
const MAX_EVENTS: usize = 1024;

/// How often it is looked for messages whose parts did not all come.
const LOOK: Duration = Duration::from_secs(1);

/// How long the links may take to end.
const FAREWELL: Duration = Duration::from_secs(2);

/// How a centre behaves. By default it takes everybody and every message at once, and knows no terminal.
#[derive(Debug, Clone, Default)]
pub struct Behaviour {
    /// Who may bind; none: anybody.
    pub system_id: Option<String>,
    /// With which password; none: any.
    pub password: Option<Secret>,
    /// Where messages for terminals go.
    pub routes: Routes,
    /// Messages a second, of all links together; beyond: `ESME_RTHROTTLED`.
    pub throttle: Option<NonZeroU32>,
    /// How long the answer to a message takes.
    pub delay: Duration,
    /// Whether every bind is refused (`ESME_RBINDFAIL`).
    pub reject_bind: bool,
    /// Each link is closed in place of answering its message of this number.
    pub drop_after: Option<NonZeroU32>,
}

/// What came with each part.
#[derive(Debug)]
struct Piece {
    ticket: Ticket,
    ports: Option<Ports>,
    data_coding: u8,
}

/// What the links share.
pub(super) struct Shared {
    pub(super) behaviour: Behaviour,
    pub(super) receipts: Receipts,
    throttle: Mutex<Throttle>,
    parts: Mutex<Parts<Piece>>,
    next_id: AtomicU64,
    events: mpsc::Sender<Happening>,
}

impl Shared {
    /// Tells what happened; waits while too much is untold.
    pub(super) async fn tell(&self, event: SmscEvent) {
        self.tell_of(Timestamp::now(), event).await;
    }

    /// Tells what happened at that moment.
    pub(super) async fn tell_of(&self, at: Timestamp, event: SmscEvent) {
        // Whoever has dropped the receiver does not want to know.
        drop(self.events.send(Happening { at, event }).await);
    }

    /// Whether the rate allows one more message.
    pub(super) fn admits(&self) -> bool {
        self.throttle.lock().expect("no holder of this lock panics").admits(Instant::now())
    }

    /// A name for a message, which no other has, also after a restart.
    pub(super) fn name(&self) -> String {
        format!("{:016x}", self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes a message or a part of one. Gives what has become whole by it.
    pub(super) async fn take(&self, ticket: Ticket, opened: Opened<'_>) -> Result<Option<Whole>, PartError> {
        let Opened { part, ports, data_coding, octets } = opened;
        let Some(Part { reference, total, number }) = part else {
            return Ok(Some(Whole { tickets: vec![ticket], ports, data_coding, octets: octets.to_vec() }));
        };
        let whose = Whose {
            system_id: ticket.system_id.clone(),
            from: ticket.from.digits.to_string(),
            to: ticket.to.digits.to_string(),
            reference,
            total,
        };
        let piece = Piece { ticket, ports, data_coding };
        let taken = self.parts(|parts| parts.take(whose, number, octets, piece, Instant::now()));
        let Taken { whole, pushed_out } = taken?;
        if let Some(pushed_out) = pushed_out {
            self.give_up(pushed_out).await;
        }
        Ok(whole.map(|message| {
            let first = message.tickets.first();
            let ports = message.tickets.iter().find_map(|piece| piece.ports);
            let data_coding = first.map_or(0, |piece| piece.data_coding);
            let tickets = message.tickets.into_iter().map(|piece| piece.ticket).collect();
            Whole { tickets, ports, data_coding, octets: message.octets }
        }))
    }

    async fn give_up(&self, message: Gathered<Piece>) {
        let Gathered { whose: Whose { from, to, total, .. }, tickets, parts, .. } = message;
        self.tell(SmscEvent::Incomplete { from, to, parts, of: total }).await;
        let tickets = tickets.into_iter().map(|piece| piece.ticket).collect();
        self.receipts.settle(tickets, ReceiptState::Expired, Timestamp::now());
    }

    fn parts<R>(&self, work: impl FnOnce(&mut Parts<Piece>) -> R) -> R {
        work(&mut self.parts.lock().expect("no holder of this lock panics"))
    }
}

/// A short message centre for labs: the server's side of SMPP 3.4, which keeps nothing and delivers to UDP ports.
///
/// ```
/// use ltkmd::cli::ue::smsc::{Behaviour, Smsc};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let mut behaviour = Behaviour::default();
/// behaviour.routes.insert_all("127.0.0.2:4359".parse::<std::net::SocketAddr>()?);
/// let smsc = Smsc::bind("127.0.0.1:0".parse()?, behaviour).await?;
/// println!("smpp://{}", smsc.address());
/// smsc.close().await;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct Smsc {
    address: SocketAddr,
    events: mpsc::Receiver<Happening>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Smsc {
    /// Listens, and serves until [`stop`](Self::stop) or the drop.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(listen: SocketAddr, behaviour: Behaviour) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let (sender, events) = mpsc::channel(MAX_EVENTS);
        let shared = Arc::new(Shared {
            receipts: Receipts::default(),
            throttle: Mutex::new(Throttle::new(behaviour.throttle)),
            parts: Mutex::default(),
            // Names rise by one, from a point that the clock raises by a million a second.
            next_id: AtomicU64::new(Timestamp::now().0 << 10),
            events: sender,
            behaviour,
        });
        let (stop, stopping) = watch::channel(false);
        let (wholes, whole) = mpsc::channel(MAX_DELIVERIES);
        let mut tasks = JoinSet::new();
        tasks.spawn(delivery::run(whole, Arc::clone(&shared)));
        tasks.spawn(accept(listener, shared, wholes, stopping));
        Ok(Self { address, events, stop, tasks })
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happens next; none when the centre was stopped and everything has been told. Nothing is lost when the wait
    /// is given up. Whoever never asks has the links wait after 1,024 events.
    pub async fn next(&mut self) -> Option<Happening> {
        self.events.recv().await
    }

    /// Takes no more links, and ends those that are there with an unbind.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Stops, and waits a moment for the links to end.
    pub async fn close(mut self) {
        self.stop();
        let told = async { while self.events.recv().await.is_some() {} };
        // What takes longer ends with the drop.
        drop(tokio::time::timeout(FAREWELL, told).await);
        self.tasks.shutdown().await;
    }
}

impl fmt::Debug for Smsc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Smsc").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Waits for the stop, or for the one who could ask for it to be gone.
pub(super) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    drop(stopping.wait_for(|stop| *stop).await);
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    wholes: mpsc::Sender<Whole>,
    mut stopping: watch::Receiver<bool>,
) {
    let to_links = stopping.clone();
    let mut links = JoinSet::new();
    let places = Arc::new(Semaphore::new(MAX_LINKS));
    let mut number = 0u32;
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = stopped(&mut stopping) => break,
            Some(_) = links.join_next() => {}
            _ = look.tick() => {
                while let Some(message) = shared.parts(|parts| parts.expired(Instant::now())) {
                    shared.give_up(message).await;
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match Arc::clone(&places).try_acquire_owned() {
                    Ok(place) => {
                        number = number.wrapping_add(1);
                        let (shared, wholes) = (Arc::clone(&shared), wholes.clone());
                        let connection = (stream, peer, number);
                        links.spawn(link::serve(connection, place, shared, wholes, to_links.clone()));
                    }
                    Err(_) => {
                        drop(stream);
                        shared.tell(SmscEvent::TurnedAway { peer }).await;
                    }
                },
                Err(error) => {
                    // Out of file descriptors, most likely: wait for some to be freed.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(listener);
    while links.join_next().await.is_some() {}
}
