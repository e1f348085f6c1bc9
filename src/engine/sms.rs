//! Triggers by SMS: what waits for its turn is handed to the gateway as it has room, and what it tells is
//! recorded on the deliveries.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

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
/// receipt may be told before the centre has accepted all of it; and another daemon's commit may be on its way.
const EARLY: usize = 1024;

/// How long they wait: longer than a throttled part is kept.
const EARLY_FOR: Duration = Duration::from_secs(15 * 60);

/// When the store is asked again for what it did not know, first and at most: each time takes twice as long. One question
/// is about all that wait, and never comes sooner after another than the first.
const ASK_FIRST: Duration = Duration::from_secs(1);
const ASK_AT_MOST: Duration = Duration::from_secs(60);

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

/// A receipt whose message is looked for.
struct Receipt {
    id: MessageId,
    state: ReceiptState,
    since: Timestamp,
    /// When the store is asked for its message, and how long it is left alone thereafter.
    ask: Instant,
    pause: Duration,
}

impl Receipt {
    fn new(id: MessageId, state: ReceiptState, since: Timestamp) -> Self {
        Self { id, state, since, ask: Instant::now(), pause: ASK_FIRST }
    }
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
        let mut receipts: Vec<Receipt> = Vec::new();
        let mut batch = Vec::with_capacity(EVENTS);
        let mut gateway_ended = Some(gateway_ended);
        let mut asked = Instant::now();
        loop {
            let told = match &mut gateway_ended {
                Some(ended) => tokio::select! {
                    told = events.recv_many(&mut batch, EVENTS) => Some(told),
                    () = time_to_ask(&receipts, asked) => None,
                    _ = ended => {
                        gateway_ended = None;
                        events.close();
                        continue;
                    }
                },
                None => Some(events.recv_many(&mut batch, EVENTS).await),
            };
            if told == Some(0) {
                return;
            }
            let accepted = batch.iter().filter(|e| matches!(e, SmsEvent::Accepted { .. })).count();
            self.metrics.sent(Method::Sms, accepted as u64);
            let held = receipts.len();
            let since = self.now();
            let mut others = Vec::new();
            for event in batch.drain(..) {
                match event {
                    SmsEvent::Receipt { id, state } => receipts.push(Receipt::new(id, state, since)),
                    other => others.push(other),
                }
            }
            let now = Instant::now();
            let again = now >= asked + ASK_FIRST;
            if again {
                asked = now;
            }
            // Those that have just come, and those whose time it is.
            let asks = (0..).zip(&receipts).map(|(i, r)| i >= held || (again && r.ask <= now));
            let asks: Vec<bool> = asks.collect();
            let known = loop {
                let error = match self.record_events(&others, &receipts, &asks).await {
                    Ok(known) => break known,
                    Err(error) => error,
                };
                // At the end nobody thaws it any more.
                let ends = gateway_ended.is_none() && matches!(error, StoreError::Frozen(_));
                if ends || !error.is_retriable() {
                    let events = others.len() + receipts.len();
                    tracing::error!(%error, events, "what became of short messages is lost");
                    break vec![true; receipts.len()];
                }
                tracing::warn!(%error, "what became of short messages waits for the store");
                tokio::time::sleep(RETRY).await;
            };
            self.hold(&mut receipts, &known, &asks);
        }
    }

    /// Keeps receipts whose message is not known yet, within bounds; what is let go is told.
    fn hold(&self, receipts: &mut Vec<Receipt>, known: &[bool], asked: &[bool]) {
        let (now, at) = (self.now(), Instant::now());
        let mut each = known.iter().zip(asked);
        receipts.retain_mut(|receipt| {
            let (known, asked) = each.next().expect("one of each receipt");
            if *asked && !known {
                tracing::debug!(message = receipt.id.as_str(), "a receipt waits for its message's name");
                receipt.ask = at + receipt.pause;
                receipt.pause = (receipt.pause * 2).min(ASK_AT_MOST);
            }
            !known
        });
        let surplus = receipts.len().saturating_sub(EARLY);
        let late = receipts.iter().skip(surplus).take_while(|r| now.since(r.since) >= EARLY_FOR).count();
        for Receipt { id, state, .. } in receipts.drain(..surplus + late) {
            tracing::info!(message = id.as_str(), state = state.as_str(), "a receipt for an unknown message");
        }
    }

    /// Records events on the deliveries that they are about: names first, then the receipts that speak of them. The store
    /// is asked for the messages of those receipts that say so. Gives of each receipt whether its message is known.
    ///
    /// A centre tells whichever daemon is bound to it, and these events happen once: whoever hears of them records them,
    /// and sends what follows, also for terminals that another daemon looks after.
    async fn record_events(
        &self,
        others: &[SmsEvent],
        receipts: &[Receipt],
        asks: &[bool],
    ) -> Result<Vec<bool>, StoreError> {
        let mut of: HashMap<TerminalKey, Vec<SmsEvent>> = HashMap::new();
        let mut named: HashMap<MessageId, TerminalKey> = HashMap::new();
        for event in others {
            let terminal = match event {
                SmsEvent::Accepted { tag, ids } => {
                    named.extend(ids.iter().map(|id| (id.clone(), tag.terminal)));
                    tag.terminal
                }
                SmsEvent::Refused { tag, .. } | SmsEvent::Unsent { tag } => tag.terminal,
                SmsEvent::Receipt { .. } => continue,
            };
            of.entry(terminal).or_default().push(event.clone());
        }
        let asked = receipts.iter().zip(asks).filter(|(r, asks)| **asks && !named.contains_key(&r.id));
        let asked: BTreeSet<MessageId> = asked.map(|(r, _)| r.id.clone()).collect();
        if !asked.is_empty() {
            let asked: Vec<MessageId> = asked.into_iter().collect();
            let found = self.store.terminals_of_messages(asked.clone()).await;
            let found = found.inspect_err(|_| self.metrics.store_failed())?;
            named.extend(asked.into_iter().zip(found).filter_map(|(id, terminal)| Some((id, terminal?))));
        }
        let mut known = Vec::with_capacity(receipts.len());
        for Receipt { id, state, .. } in receipts {
            let terminal = named.get(id);
            known.push(terminal.is_some());
            let Some(terminal) = terminal else { continue };
            of.entry(*terminal).or_default().push(SmsEvent::Receipt { id: id.clone(), state: *state });
        }
        if of.is_empty() {
            return Ok(known);
        }
        let keys = of.keys().copied().collect();
        let decision = move |terminal: &mut Terminal, ctx: &mut Context<'_>, orders: &mut Vec<Order>| {
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
        };
        let (work, failed) =
            self.update(Scope::Terminals(keys), move |view, ctx| decide_all(view, ctx, &decision)).await?;
        for reason in failed {
            self.metrics.failed(reason, 1);
        }
        // By UDP: a turn by SMS comes in its own time.
        self.push_all(&work);
        Ok(known)
    }
}

/// Waits until the store is to be asked again for what it did not know.
async fn time_to_ask(receipts: &[Receipt], asked: Instant) {
    match receipts.iter().map(|r| r.ask).min() {
        Some(first) => tokio::time::sleep_until(first.max(asked + ASK_FIRST)).await,
        None => std::future::pending().await,
    }
}
