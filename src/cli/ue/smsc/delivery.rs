//! What becomes of a message that has arrived as a whole: its terminal's port gets it, as a phone would hand it to the
//! port, and whoever submitted it gets receipts.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::event::{MessageSeen, Outcome, SmscEvent, printable};
use super::ltkm::LtkmSeen;
use super::receipts::Ticket;
use super::server::Shared;
use crate::delivery::ReceiptState;
use crate::id::Msisdn;
use crate::time::Timestamp;
use crate::transport::sms::udh::Ports;

/// Messages on their way to terminals, at most; the others wait.
pub(super) const MAX_DELIVERIES: usize = 64;

/// How long a port that nobody has open may take to say so.
const REFUSAL: Duration = Duration::from_millis(20);

/// Data coding schemes of 7-bit text (SMPP 3.4 §5.2.19).
const TEXT: [u8; 2] = [0, 1];

/// A message that has arrived as a whole.
#[derive(Debug)]
pub(super) struct Whole {
    /// What its parts are owed, at least one.
    pub(super) tickets: Vec<Ticket>,
    pub(super) ports: Option<Ports>,
    pub(super) data_coding: u8,
    pub(super) octets: Vec<u8>,
}

/// Delivers until nobody submits any more.
pub(super) async fn run(mut wholes: mpsc::Receiver<Whole>, shared: Arc<Shared>) {
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            whole = wholes.recv(), if under_way.len() < MAX_DELIVERIES => {
                let Some(whole) = whole else { break };
                let shared = Arc::clone(&shared);
                under_way.spawn(async move { deliver(whole, &shared).await });
            }
            Some(_) = under_way.join_next() => {}
        }
    }
    while under_way.join_next().await.is_some() {}
}

async fn deliver(whole: Whole, shared: &Shared) {
    let at = Timestamp::now();
    let outcome = hand_over(&whole, shared).await;
    let state = match outcome.is_delivered() {
        true => ReceiptState::Delivered,
        false => ReceiptState::Undeliverable,
    };
    let seen = seen(&whole, outcome);
    shared.tell_of(at, SmscEvent::Message(Box::new(seen))).await;
    shared.receipts.settle(whole.tickets, state, Timestamp::now());
}

async fn hand_over(whole: &Whole, shared: &Shared) -> Outcome {
    let undeliverable = |why: String| Outcome::Undeliverable { why };
    let Some(to) = whole.tickets.first().and_then(|ticket| Msisdn::new(ticket.to.digits.as_str()).ok())
    else {
        return undeliverable("its address is no number".to_owned());
    };
    let Some(terminal) = shared.behaviour.routes.terminal(&to) else {
        return undeliverable("there is no such terminal".to_owned());
    };
    let Some(ports) = whole.ports else { return Outcome::Shown };
    let terminal = terminal.at(ports.destination);
    match datagram(&whole.octets, terminal).await {
        Ok(()) => Outcome::Delivered { terminal },
        Err(error) => undeliverable(format!("{terminal}: {error}")),
    }
}

/// Sends a datagram, and waits a moment for what the system says when nobody has the port open.
async fn datagram(octets: &[u8], to: SocketAddr) -> io::Result<()> {
    let any = match to {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    socket.send(octets).await?;
    match tokio::time::timeout(REFUSAL, socket.recv(&mut [0; 1])).await {
        Ok(Err(error)) => Err(error),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

fn seen(whole: &Whole, outcome: Outcome) -> MessageSeen {
    let first = whole.tickets.first();
    let text_of = |of: fn(&Ticket) -> &str| first.map(|ticket| printable(of(ticket))).unwrap_or_default();
    let is_text = TEXT.contains(&whole.data_coding) && whole.octets.is_ascii();
    let text = is_text.then(|| String::from_utf8_lossy(&whole.octets).into_owned());
    let (ltkm, no_ltkm) = match LtkmSeen::read(&whole.octets) {
        Ok(ltkm) => (Some(ltkm), None),
        Err(_) if text.is_some() => (None, None),
        Err(why) => (None, Some(why)),
    };
    MessageSeen {
        system_id: text_of(|ticket| &ticket.system_id),
        from: text_of(|ticket| ticket.from.digits.as_str()),
        to: text_of(|ticket| ticket.to.digits.as_str()),
        ids: whole.tickets.iter().map(|ticket| ticket.id.clone()).collect(),
        data_coding: whole.data_coding,
        port: whole.ports.map(|ports| ports.destination),
        source_port: whole.ports.map(|ports| ports.source),
        octets: whole.octets.len(),
        ltkm,
        text,
        no_ltkm,
        outcome,
    }
}
