//! One terminal as decisions see it: its credential, what it negotiated, its counter, its deliveries.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::Order;
use super::life::{Answered, Delivery, Kind, Reason, State};
use super::plan::{Entropy, Rules};
use super::sms::{HeldBack, SmsLedger};
use crate::digest::NonceLedger;
use crate::gba::Credential;
use crate::id::{JobId, Method, MethodSet, ServiceNo, TerminalKey};
use crate::keys::{Catalogue, KeyState, Msk, ServiceKeys};
use crate::time::Timestamp;

/// From this counter value on a credential is spent (LTKM profile §5): what is under way still has room.
const SPENT_FROM: u64 = 0xFFFF_0000;

/// How long what goes by UDP waits when LTKMs ride in the answer to the same request: a datagram that
/// overtakes the answer has the higher T, and the terminal would take the answer's LTKMs for replays.
const BEHIND_ANSWER: Duration = Duration::from_millis(200);

/// Closed deliveries that are kept per terminal and service, newest first, while their keys are retained.
const KEPT_CLOSED: usize = 16;

/// What a terminal's registrations left behind (LTKM profile §4, §7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The methods that may be used, until the next registration.
    pub set: MethodSet,
    /// Where UDP goes: the address of the last authenticated request.
    pub address: IpAddr,
    /// The services it is registered for, in the order of their registration.
    pub services: Vec<ServiceNo>,
    /// When it last registered.
    pub registered_at: Timestamp,
    /// When it last made an authenticated request.
    pub last_seen: Timestamp,
}

/// One terminal's whole state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminal {
    /// Its place in the store.
    pub key: TerminalKey,
    /// Its security association; `None` once it was deleted (the counter stays).
    pub credential: Option<Credential>,
    /// What it negotiated; `None` before the first registration and after its end.
    pub registration: Option<Registration>,
    /// The T value of the next LTKM; only ever rises (LTKM profile §5).
    pub next_t: u64,
    /// Its deliveries: open ones, and closed ones of retained keys.
    pub deliveries: Vec<Delivery>,
    /// The short messages that it got of late.
    pub ledger: SmsLedger,
    /// The nonces that it has in use; empty unless several daemons share the store.
    pub nonces: NonceLedger,
}

/// What a decision needs besides the terminal.
pub struct Context<'a> {
    /// Services and keys.
    pub catalogue: &'a Catalogue,
    /// The operator's part.
    pub rules: &'a Rules,
    /// The moment of the decision.
    pub now: Timestamp,
    /// For spreading timers.
    pub entropy: Entropy,
    /// What the decision did that the driver counts once it is durable.
    pub tally: Tally,
}

impl<'a> Context<'a> {
    /// What a decision at this moment needs.
    pub fn new(catalogue: &'a Catalogue, rules: &'a Rules, now: Timestamp, entropy: Entropy) -> Self {
        Self { catalogue, rules, now, entropy, tally: Tally::default() }
    }
}

/// What decisions did, for the metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Triggers that the terminal followed.
    pub pulled: Vec<Answered>,
    /// Triggers by SMS that had to wait, by [`HeldBack`].
    pub held_back: [u64; HeldBack::ALL.len()],
    /// Deliveries that ride in another one's trigger by SMS.
    pub coalesced: u64,
}

impl Terminal {
    /// A terminal of which nothing is known but its place. T begins at 1.
    pub fn new(key: TerminalKey) -> Self {
        let (credential, registration, deliveries) = (None, None, Vec::new());
        let (ledger, nonces) = (SmsLedger::default(), NonceLedger::default());
        Self { key, credential, registration, next_t: 1, deliveries, ledger, nonces }
    }

    /// Whether its counter is so near its end that the credential is answered like an expired one.
    pub fn spent(&self) -> bool {
        self.next_t >= SPENT_FROM
    }

    /// Whether it is registered for a service.
    pub fn is_registered_for(&self, service: ServiceNo) -> bool {
        self.registration.as_ref().is_some_and(|r| r.services.contains(&service))
    }

    /// Whether it is registered for any service.
    pub fn is_registered(&self) -> bool {
        self.registration.as_ref().is_some_and(|r| !r.services.is_empty())
    }

    /// The methods that may be used now: negotiated and still enabled.
    pub fn set(&self, rules: &Rules) -> MethodSet {
        self.registration.as_ref().map_or(MethodSet::EMPTY, |r| r.set.intersection(rules.enabled()))
    }

    /// The earliest moment at which a delivery has to be looked at again.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.deliveries.iter().filter_map(|d| d.next_due).min()
    }

    /// Records an authenticated registration that passed the table of LTKM profile §4. Open resends by a
    /// method that left the set stop at once.
    pub fn renew(&mut self, set: MethodSet, address: IpAddr, now: Timestamp) {
        match &mut self.registration {
            Some(r) => {
                r.set = set;
                r.address = address;
                r.registered_at = now;
                r.last_seen = now;
            }
            None => {
                let (services, registered_at, last_seen) = (Vec::new(), now, now);
                self.registration = Some(Registration { set, address, services, registered_at, last_seen });
            }
        }
        for d in self.deliveries.iter_mut().filter(|d| d.state == State::Sent || d.turn().is_some()) {
            if d.method.is_none_or(|m| set.contains(m)) {
                continue;
            }
            if !set.contains(Method::Udp) {
                let http = set.contains(Method::Http) && !d.kind.is_trigger();
                let (state, error) =
                    if http { (State::AwaitingPull, None) } else { (State::Failed, Some(Reason::NoMethod)) };
                d.settle(state, error, now);
            } else if d.turn().is_some() {
                d.defer(now, now);
                d.udp_attempts = 0;
            }
            // What went inside an answer or by SMS goes on by UDP at its time.
        }
    }

    /// Notes an authenticated request of a terminal that has registered before.
    pub fn seen(&mut self, address: IpAddr, now: Timestamp) {
        if let Some(r) = &mut self.registration {
            r.address = address;
            r.last_seen = now;
        }
    }

    /// Registers for a service and sends the keys that a registration brings, inside the answer when HTTP is
    /// in the set, else by UDP. An invalidation that is still under way would end what this brings: it stops.
    pub fn join(&mut self, service: &ServiceKeys, ctx: &mut Context<'_>, orders: &mut Vec<Order>) {
        let no = service.service.no;
        if let Some(r) = &mut self.registration
            && !r.services.contains(&no)
        {
            r.services.push(no);
        }
        for d in self.deliveries.iter_mut().filter(|d| d.service == no && d.kind == Kind::Invalidate) {
            if d.state.is_open() || d.state == State::Failed {
                d.settle(State::Cancelled, None, ctx.now);
            }
        }
        let wanted: Vec<_> = service.wanted(ctx.now, ctx.rules.lead_time).cloned().collect();
        self.deliver(service, &wanted, ctx, orders);
    }

    /// Answers a request for keys of one service: each goes inside the answer or by UDP.
    pub fn deliver(
        &mut self,
        service: &ServiceKeys,
        keys: &[std::sync::Arc<Msk>],
        ctx: &mut Context<'_>,
        orders: &mut Vec<Order>,
    ) {
        let no = service.service.no;
        let numbers: Vec<u16> = keys.iter().map(|k| k.number).collect();
        for number in &numbers {
            let i = self.begin(no, *number, Kind::Key, None, ctx.now);
            self.answer_with(i, ctx, orders);
        }
        self.supersede_older(service, &numbers, ctx.now);
    }

    /// Ends the registration for a service: its deliveries are cancelled and, where the service wants it,
    /// each key that the terminal may hold is invalidated. `in_answer`: to the terminal's own request, so
    /// that HTTP may carry it.
    pub fn leave(
        &mut self,
        service: &ServiceKeys,
        in_answer: bool,
        ctx: &mut Context<'_>,
        orders: &mut Vec<Order>,
    ) {
        let no = service.service.no;
        if let Some(r) = &mut self.registration {
            r.services.retain(|s| *s != no);
        }
        let mut may_hold = Vec::new();
        for d in self.deliveries.iter_mut().filter(|d| d.service == no && d.kind != Kind::Invalidate) {
            let alive = service.key(d.number).is_some_and(|k| k.valid_to > ctx.now);
            if d.kind == Kind::Key && alive && (d.attempts > 0 || d.verified.is_some()) {
                may_hold.push(d.number);
            }
            if d.state.is_open() || d.state == State::Failed {
                d.settle(State::Cancelled, None, ctx.now);
            }
            if service.service.invalidate_on_deregister {
                d.verified = None;
            }
        }
        if !service.service.invalidate_on_deregister {
            return;
        }
        may_hold.sort_by_key(|number| service.age_rank(*number));
        for number in may_hold {
            let i = self.begin(no, number, Kind::Invalidate, None, ctx.now);
            if in_answer {
                self.answer_with(i, ctx, orders);
            } else {
                self.push(i, ctx, orders);
            }
        }
    }

    /// Ends the registration without a word to the terminal: its subscriber registered under another B-TID.
    pub fn end(&mut self, now: Timestamp) {
        self.registration = None;
        for d in &mut self.deliveries {
            if d.state.is_open() || d.state == State::Failed {
                d.settle(State::Cancelled, None, now);
            }
            d.verified = None;
        }
    }

    /// A key update reaches this member of the service: by what its set allows, or it waits for a pull.
    /// Harmless for a terminal that already has the key or is being sent it; the job counts that one too.
    pub fn update(
        &mut self,
        service: &ServiceKeys,
        number: u16,
        job: JobId,
        ctx: &mut Context<'_>,
        orders: &mut Vec<Order>,
    ) {
        let no = service.service.no;
        if let Some(d) = self.deliveries.iter_mut().find(|d| d.is(no, number, Kind::Key))
            && d.state != State::Cancelled
            && d.state != State::Failed
        {
            d.job = Some(job);
            return;
        }
        let i = self.begin(no, number, Kind::Key, Some(job), ctx.now);
        let past = service.key(number).is_none_or(|k| service.state(k, ctx.now) == KeyState::Past);
        if past {
            self.deliveries[i].settle(State::Superseded, None, ctx.now);
            return;
        }
        self.push(i, ctx, orders);
        self.supersede_older(service, &[number], ctx.now);
    }

    /// A job was cancelled: what waits for its turn does not go out. What went out goes on to its end, what waits
    /// for the terminal's own request stays, and what the terminal asked for beside an answer comes behind it.
    pub fn cancel_job(&mut self, job: JobId, now: Timestamp) {
        let waits = |d: &&mut Delivery| d.job == Some(job) && d.turn().is_some();
        for d in self.deliveries.iter_mut().filter(waits) {
            d.settle(State::Cancelled, None, now);
        }
    }

    /// Asks the terminal to pull: by SMS if that is in the set, else by UDP. One that is under way already is
    /// not doubled. `false` when the set has no method for it.
    pub fn trigger(
        &mut self,
        service: ServiceNo,
        kind: Kind,
        ctx: &mut Context<'_>,
        orders: &mut Vec<Order>,
    ) -> bool {
        let set = self.set(ctx.rules);
        if ctx.rules.push_methods(set, kind).next().is_none() {
            return false;
        }
        if self.deliveries.iter().any(|d| d.is(service, 0, kind) && d.turn().is_some()) {
            ctx.tally.coalesced += 1;
            return true;
        }
        let i = self.begin(service, 0, kind, None, ctx.now);
        self.push(i, ctx, orders);
        true
    }

    /// The terminal made a request: the triggers that asked for it are done. `services`: those that the
    /// request names; `registers`: it is a registration.
    pub fn pulled(&mut self, services: &[ServiceNo], registers: bool, ctx: &mut Context<'_>) {
        for d in &mut self.deliveries {
            let asked_for = match d.kind {
                Kind::TriggerRegister => registers,
                Kind::TriggerMskRequest => services.contains(&d.service),
                Kind::Key | Kind::Invalidate => false,
            };
            if asked_for {
                ctx.tally.pulled.extend(d.pulled(ctx.now));
            }
        }
    }

    /// Keys of a service besides `current` that were promised to this terminal and wait for its pull.
    pub fn outstanding(
        &self,
        service: &ServiceKeys,
        current: u16,
        now: Timestamp,
    ) -> Vec<std::sync::Arc<Msk>> {
        let no = service.service.no;
        let waits = |number: u16| {
            let d = self.deliveries.iter().find(|d| d.is(no, number, Kind::Key));
            d.is_some_and(|d| match d.state {
                State::AwaitingPull | State::Failed | State::Queued => true,
                State::Sent => d.awaits_pull_by_sms(),
                _ => false,
            })
        };
        let asked_for = |k: &&std::sync::Arc<Msk>| k.number != current && k.valid_to > now;
        service.keys.iter().filter(asked_for).filter(|k| waits(k.number)).cloned().collect()
    }

    /// Everything that is outstanding goes out when the terminal is heard of: keys that it lacks of services
    /// it is registered for, and invalidations. By UDP; else it waits for the request that names it.
    /// `served` are the (service, key number) pairs that this request already brought; `behind`: LTKMs ride in
    /// its answer, and what goes by UDP must not overtake them.
    pub fn contact(
        &mut self,
        served: &[(ServiceNo, u16)],
        behind: bool,
        ctx: &mut Context<'_>,
        orders: &mut Vec<Order>,
    ) {
        let catalogue = ctx.catalogue;
        let services = self.registration.as_ref().map_or_else(Vec::new, |r| r.services.clone());
        for entry in services.iter().filter_map(|no| catalogue.get(*no)) {
            let no = entry.service.no;
            let wanted: Vec<_> = entry.wanted(ctx.now, ctx.rules.lead_time).map(|k| k.number).collect();
            for number in wanted.into_iter().filter(|n| !served.contains(&(no, *n))) {
                let known = self.deliveries.iter().find(|d| d.is(no, number, Kind::Key));
                if known.is_some_and(|d| d.verified.is_some() || d.state.is_held()) {
                    continue;
                }
                self.remind((no, number, Kind::Key), behind, ctx, orders);
            }
        }
        let invalidations: Vec<_> = self
            .deliveries
            .iter()
            .filter(|d| d.kind == Kind::Invalidate && (d.state.is_open() || d.state == State::Failed))
            .map(|d| (d.service, d.number))
            .collect();
        for (no, number) in invalidations {
            if !served.contains(&(no, number)) {
                self.remind((no, number, Kind::Invalidate), behind, ctx, orders);
            }
        }
    }

    /// Sends one outstanding delivery again, unless its latest attempt is too young to be lost or its turn comes.
    fn remind(
        &mut self,
        (no, number, kind): (ServiceNo, u16, Kind),
        behind: bool,
        ctx: &mut Context<'_>,
        orders: &mut Vec<Order>,
    ) {
        let set = self.set(ctx.rules);
        let udp = set.contains(Method::Udp);
        let waits = |d: &Delivery| match d.state {
            // A trigger by SMS is on its way or will be; UDP need not wait for it.
            State::Sent if d.method == Some(Method::Sms) => !udp,
            State::Queued if d.turn().is_some() => !udp,
            State::Sent => ctx.now.since(d.updated) < ctx.rules.first_timeout,
            State::Queued => true,
            _ => false,
        };
        if self.deliveries.iter().any(|d| d.is(no, number, kind) && waits(d)) {
            return;
        }
        let i = self.begin(no, number, kind, None, ctx.now);
        if udp && behind {
            self.deliveries[i].defer(ctx.now + BEHIND_ANSWER, ctx.now);
        } else if udp {
            self.send(i, Method::Udp, ctx, orders);
        } else if set.contains(Method::Http) {
            if self.deliveries[i].state != State::AwaitingPull {
                self.deliveries[i].settle(State::AwaitingPull, None, ctx.now);
            }
        } else {
            self.deliveries[i].settle(State::Failed, Some(Reason::NoMethod), ctx.now);
        }
    }

    /// Notes an authentic answer to the LTKM with this T. `None`: no delivery knows it any more.
    pub fn answered(&mut self, t: u32, now: Timestamp) -> Option<Answered> {
        self.deliveries.iter_mut().find_map(|d| d.answered(t, now))
    }

    /// Drops closed deliveries of keys that are purged, and the oldest where many are kept; cancels what is
    /// open for a key that is purged.
    pub fn prune(&mut self, catalogue: &Catalogue, now: Timestamp) {
        let known = |d: &Delivery| {
            catalogue.get(d.service).is_some_and(|s| d.number == 0 || s.key(d.number).is_some())
        };
        self.deliveries.retain_mut(|d| {
            let known = known(d);
            if !known && d.state.is_open() {
                d.settle(State::Cancelled, None, now);
                return true;
            }
            known
        });
        if self.deliveries.len() <= KEPT_CLOSED {
            return;
        }
        let mut kept: BTreeMap<ServiceNo, usize> = BTreeMap::new();
        let keep: Vec<bool> = self
            .deliveries
            .iter()
            .rev()
            .map(|d| {
                let closed = kept.entry(d.service).or_default();
                *closed += usize::from(!d.state.is_open());
                d.state.is_open() || *closed <= KEPT_CLOSED
            })
            .collect();
        let mut keep = keep.into_iter().rev();
        self.deliveries.retain(|_| keep.next().unwrap_or(true));
    }
}
