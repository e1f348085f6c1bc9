//! Triggers by SMS: what waits for its turn is handed to the gateway as it has room, and what it tells is
//! recorded on the deliveries.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::fanout::decide_all;
use super::{Engine, Recipient};
use crate::delivery::{Context, MessageId, Order, Reason, ReceiptState, Terminal};
use crate::id::{Method, Msisdn, TerminalKey};
use crate::store::{Lane, Scope, StoreError};
use crate::time::Timestamp;

/// Terminals whose turn is decided in one commit.
const BATCH: usize = 200;

/// Events that are recorded in one commit.
const EVENTS: usize = 500;

/// How often turns are looked for when none was due.
const TICK: Duration = Duration::from_millis(50);

/// Receipts that wait for their message's name, at most: by a second connection, or for a message in parts, a
/// receipt may be told before the centre has accepted all of it.
const EARLY: usize = 1024;

/// How long they wait: longer than a throttled part is kept.
const EARLY_FOR: Duration = Duration::from_secs(15 * 60);

/// How long the store is left alone after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Which trigger a short message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SmsTag {
    /// The terminal.
    pub terminal: TerminalKey,
    /// T of the LTKM.
    pub t: u32,
}

/// A trigger to send.
#[derive(Debug)]
pub struct ShortMessage {
    /// Whose phone.
    pub to: Msisdn,
    /// The LTKM with empty key data, in octets.
    pub ltkm: Vec<u8>,
    /// What events about it will name.
    pub tag: SmsTag,
}

/// What becomes of short messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SmsEvent {
    /// A centre accepted all parts, under these names.
    Accepted {
        /// The trigger.
        tag: SmsTag,
        /// The centre's names of its parts, in order.
        ids: Vec<MessageId>,
    },
    /// A centre refuses it for good: sending it again would not help.
    Refused {
        /// The trigger.
        tag: SmsTag,
        /// SMPP's `command_status`.
        status: u32,
    },
    /// It was not accepted as far as anybody knows: the link broke, or no answer came. It may be sent again.
    Unsent {
        /// The trigger.
        tag: SmsTag,
    },
    /// A delivery receipt.
    Receipt {
        /// The centre's name of the message.
        id: MessageId,
        /// What became of it.
        state: ReceiptState,
    },
}

/// Where triggers leave by SMS.
pub trait SmsOutbox: Send + Sync + 'static {
    /// Waits until triggers may be handed over, and gives how many, at least 1: a centre is bound, the window
    /// has room, the rate allows it.
    fn room(&self) -> Pin<Box<dyn Future<Output = usize> + Send + '_>>;

    /// Takes a trigger over. What becomes of it is told by exactly one of [`SmsEvent::Accepted`],
    /// [`SmsEvent::Refused`] and [`SmsEvent::Unsent`], unless the process ends before.
    fn submit(&self, message: ShortMessage);
}

/// A receipt whose message is not known yet.
struct EarlyReceipt {
    event: SmsEvent,
    since: Timestamp,
}

impl Engine {
    /// Hands triggers over as their turns come, until the shutdown. Without an outbox SMS is switched off: what
    /// waits for a turn from before goes on otherwise.
    pub async fn run_sms(
        self: Arc<Self>,
        outbox: Option<Arc<dyn SmsOutbox>>,
        mut shutdown: watch::Receiver<bool>,
    ) {
        while !*shutdown.borrow() {
            if self.rests(&mut shutdown).await {
                continue;
            }
            let room = match &outbox {
                Some(outbox) => tokio::select! {
                    room = outbox.room() => room,
                    _ = shutdown.changed() => return,
                },
                None => BATCH,
            };
            let pause = match self.take_turns(room.min(BATCH), outbox.as_deref()).await {
                Ok(0) => TICK,
                Ok(_) => continue,
                Err(error) => {
                    tracing::warn!(%error, "triggers by SMS wait for the store");
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = shutdown.changed() => {}
            }
        }
    }

    /// Decides about the terminals whose turn it is; gives how many there were.
    async fn take_turns(&self, limit: usize, outbox: Option<&dyn SmsOutbox>) -> Result<usize, StoreError> {
        let keys = self.store.take_due(Lane::Sms, self.now(), limit);
        let taken = keys.len();
        if taken == 0 {
            return Ok(0);
        }
        let numbers = match outbox {
            Some(_) => match self.numbers(&keys).await {
                Ok(numbers) => Some(numbers),
                Err(error) => {
                    // What was taken from the queue goes back into it with whatever an update comes to.
                    self.turn_of(keys, |_, _, _| {}).await?;
                    return Err(error);
                }
            },
            None => None,
        };
        let known: Option<Vec<TerminalKey>> = numbers.as_ref().map(|n| n.keys().copied().collect());
        let work = self
            .turn_of(keys, move |terminal, ctx, orders| {
                let reachable = match &known {
                    None => Err(Reason::SmsOff),
                    Some(known) if known.contains(&terminal.key) => Ok(()),
                    Some(_) => Err(Reason::NoMsisdn),
                };
                terminal.take_turn(reachable, ctx, orders);
            })
            .await?;
        if let (Some(outbox), Some(numbers)) = (outbox, numbers) {
            self.submit(&work, &numbers, outbox);
        }
        Ok(taken)
    }

    /// The MSISDNs of those terminals whose subscriber has one.
    async fn numbers(&self, keys: &[TerminalKey]) -> Result<HashMap<TerminalKey, Msisdn>, StoreError> {
        let read = async {
            let found = self.store.terminals_of_subscribers(keys.to_vec()).await?;
            let numbers =
                found.into_iter().filter_map(|(terminal, owner)| Some((terminal.key, owner.msisdn?)));
            Ok(numbers.collect())
        };
        read.await.inspect_err(|_| self.metrics.store_failed())
    }

    /// Decides about terminals' deliveries by SMS; what goes on by UDP leaves at once, the rest is given back.
    async fn turn_of(
        &self,
        keys: Vec<TerminalKey>,
        mut decision: impl FnMut(&mut Terminal, &mut Context<'_>, &mut Vec<Order>) + Send + 'static,
    ) -> Result<Vec<(Recipient, Vec<Order>)>, StoreError> {
        let (work, failed) =
            self.update(Scope::Due(keys), move |view, ctx| decide_all(view, ctx, &mut decision)).await?;
        for reason in failed {
            self.metrics.failed(reason, 1);
        }
        let (mut by_udp, mut by_sms) = (Vec::new(), Vec::new());
        for (recipient, orders) in self.still_held(work) {
            let (sms, udp): (Vec<_>, Vec<_>) = orders.into_iter().partition(|o| o.via == Method::Sms);
            if !udp.is_empty() {
                by_udp.push((recipient.clone(), udp));
            }
            if !sms.is_empty() {
                by_sms.push((recipient, sms));
            }
        }
        self.push_held(&by_udp);
        Ok(by_sms)
    }

    /// Makes triggers and hands them over.
    fn submit(
        &self,
        work: &[(Recipient, Vec<Order>)],
        numbers: &HashMap<TerminalKey, Msisdn>,
        outbox: &dyn SmsOutbox,
    ) {
        let catalogue = self.catalogue();
        for (recipient, orders) in work {
            let terminal = self.store.terminal_key(&recipient.btid);
            let Some(to) = numbers.get(&terminal) else { continue };
            let maker = match self.maker(&catalogue, recipient) {
                Ok(maker) => maker,
                Err(error) => {
                    tracing::error!(%error, "a trigger cannot be made");
                    continue;
                }
            };
            for order in orders {
                let Some(ltkm) = maker.make(order) else { continue };
                self.metrics.built(1);
                let tag = SmsTag { terminal, t: order.t };
                outbox.submit(ShortMessage { to: to.clone(), ltkm, tag });
            }
        }
    }

    /// Records what becomes of short messages, until the gateway has ended and all that it told is recorded.
    pub async fn run_sms_events(
        self: Arc<Self>,
        mut events: mpsc::Receiver<SmsEvent>,
        gateway_ended: tokio::sync::oneshot::Receiver<()>,
    ) {
        let mut early: Vec<EarlyReceipt> = Vec::new();
        let mut batch = Vec::with_capacity(EVENTS);
        let mut gateway_ended = Some(gateway_ended);
        loop {
            let told = match &mut gateway_ended {
                Some(ended) => tokio::select! {
                    told = events.recv_many(&mut batch, EVENTS) => told,
                    _ = ended => {
                        gateway_ended = None;
                        events.close();
                        continue;
                    }
                },
                None => events.recv_many(&mut batch, EVENTS).await,
            };
            if told == 0 {
                return;
            }
            let accepted = batch.iter().filter(|e| matches!(e, SmsEvent::Accepted { .. })).count();
            self.metrics.sent(Method::Sms, accepted as u64);
            let (mut receipts, others): (Vec<_>, Vec<_>) =
                batch.drain(..).partition(|e| matches!(e, SmsEvent::Receipt { .. }));
            receipts.splice(0..0, early.iter().map(|held| held.event.clone()));
            let unknown = loop {
                let error = match self.record_events(&others, &receipts).await {
                    Ok(unknown) => break unknown,
                    Err(error) => error,
                };
                // At the end nobody thaws it any more.
                let ends = gateway_ended.is_none() && matches!(error, StoreError::Frozen(_));
                if ends || !error.is_retriable() {
                    let events = others.len() + receipts.len();
                    tracing::error!(%error, events, "what became of short messages is lost");
                    break Vec::new();
                }
                tracing::warn!(%error, "what became of short messages waits for the store");
                tokio::time::sleep(RETRY).await;
            };
            self.hold(&mut early, unknown);
        }
    }

    /// Keeps receipts whose message has no name yet, within bounds; what is let go is told.
    fn hold(&self, early: &mut Vec<EarlyReceipt>, unknown: Vec<SmsEvent>) {
        let now = self.now();
        let before = std::mem::take(early);
        for event in unknown {
            let since = before.iter().find(|held| held.event == event).map_or(now, |held| held.since);
            early.push(EarlyReceipt { event, since });
        }
        let surplus = early.len().saturating_sub(EARLY);
        let late = early.iter().skip(surplus).take_while(|held| now.since(held.since) >= EARLY_FOR).count();
        for held in early.drain(..surplus + late) {
            if let SmsEvent::Receipt { id, state } = held.event {
                tracing::info!(
                    message = id.as_str(),
                    state = state.as_str(),
                    "a receipt for an unknown message"
                );
            }
        }
    }

    /// Records events on the deliveries that they are about: names first, then the receipts that speak of them.
    /// Gives back the receipts that are about no message known.
    async fn record_events(
        &self,
        others: &[SmsEvent],
        receipts: &[SmsEvent],
    ) -> Result<Vec<SmsEvent>, StoreError> {
        let mut of: HashMap<TerminalKey, Vec<SmsEvent>> = HashMap::new();
        let mut named: HashMap<&MessageId, TerminalKey> = HashMap::new();
        let mut unknown = Vec::new();
        for event in others.iter().chain(receipts) {
            let terminal = match event {
                SmsEvent::Accepted { tag, ids } => {
                    named.extend(ids.iter().map(|id| (id, tag.terminal)));
                    Some(tag.terminal)
                }
                SmsEvent::Refused { tag, .. } | SmsEvent::Unsent { tag } => Some(tag.terminal),
                SmsEvent::Receipt { id, .. } => {
                    named.get(id).copied().or_else(|| self.store.terminal_of_message(id))
                }
            };
            match terminal {
                Some(terminal) => of.entry(terminal).or_default().push(event.clone()),
                None => unknown.push(event.clone()),
            }
        }
        if of.is_empty() {
            return Ok(unknown);
        }
        let keys = of.keys().copied().collect();
        self.turn_of(keys, move |terminal, ctx, orders| {
            for event in of.get(&terminal.key).into_iter().flatten() {
                match event {
                    SmsEvent::Accepted { tag, ids } => terminal.sms_accepted(tag.t, ids),
                    SmsEvent::Refused { tag, .. } => terminal.sms_refused(tag.t, ctx, orders),
                    SmsEvent::Unsent { tag } => terminal.sms_unsent(tag.t, ctx, orders),
                    SmsEvent::Receipt { id, state } => {
                        terminal.sms_receipt(id, *state, ctx, orders);
                    }
                }
            }
        })
        .await?;
        Ok(unknown)
    }
}
