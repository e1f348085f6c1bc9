//! One terminal as decisions see it: its credential, what it negotiated, its counter, its deliveries.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::Order;
use super::life::{Answered, Delivery, Kind, Reason, State};
use super::plan::{Entropy, Rules};
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
}

impl Terminal {
    /// A terminal of which nothing is known but its place. T begins at 1.
    pub fn new(key: TerminalKey) -> Self {
        Self { key, credential: None, registration: None, next_t: 1, deliveries: Vec::new() }
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
        for d in self.deliveries.iter_mut().filter(|d| d.state == State::Sent) {
            let left = d.method.is_some_and(|m| !set.contains(m));
            // What went inside an answer goes on by UDP at its time when UDP is in the new set.
            if left && !(d.method == Some(Method::Http) && set.contains(Method::Udp)) {
                let http = set.contains(Method::Http);
                let (state, error) =
                    if http { (State::AwaitingPull, None) } else { (State::Failed, Some(Reason::NoMethod)) };
                d.settle(state, error, now);
            }
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
        let waits = |d: &&mut Delivery| {
            let by_sms = d.method.is_none_or(|method| method == Method::Sms);
            d.job == Some(job) && d.state == State::Queued && by_sms
        };
        for d in self.deliveries.iter_mut().filter(waits) {
            d.settle(State::Cancelled, None, now);
        }
    }

    /// Sends a trigger by UDP: the terminal is asked to pull. `false` when the set has no method for it.
    pub fn trigger(
        &mut self,
        service: ServiceNo,
        kind: Kind,
        ctx: &mut Context<'_>,
        orders: &mut Vec<Order>,
    ) -> bool {
        let set = self.set(ctx.rules);
        if ctx.rules.push_method(set).is_none() {
            return false;
        }
        let i = self.begin(service, 0, kind, None, ctx.now);
        self.push(i, ctx, orders);
        true
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
        let young = |d: &Delivery| match d.state {
            State::Sent => ctx.now.since(d.updated) < ctx.rules.first_timeout,
            State::Queued => true,
            _ => false,
        };
        if self.deliveries.iter().any(|d| d.is(no, number, kind) && young(d)) {
            return;
        }
        let i = self.begin(no, number, kind, None, ctx.now);
        let set = self.set(ctx.rules);
        if set.contains(Method::Udp) && behind {
            self.deliveries[i].defer(ctx.now + BEHIND_ANSWER, ctx.now);
        } else if set.contains(Method::Udp) {
            self.send(i, Method::Udp, ctx, orders);
        } else if set.contains(Method::Http) {
            if self.deliveries[i].state != State::AwaitingPull {
                self.deliveries[i].settle(State::AwaitingPull, None, ctx.now);
            }
        } else {
            self.deliveries[i].settle(State::Failed, Some(Reason::NoMethod), ctx.now);
        }
    }

    /// Looks at what is due: sends again, goes on to the next method, or gives up.
    pub fn due(&mut self, ctx: &mut Context<'_>, orders: &mut Vec<Order>) {
        for i in 0..self.deliveries.len() {
            let d = &self.deliveries[i];
            if d.next_due.is_none_or(|due| due > ctx.now) {
                continue;
            }
            let entry = ctx.catalogue.get(d.service);
            let key = entry.and_then(|s| s.key(d.number));
            if key.is_none() || self.registration.is_none() {
                self.deliveries[i].settle(State::Cancelled, None, ctx.now);
            } else if d.kind == Kind::Key && key.is_some_and(|k| k.valid_to <= ctx.now) {
                self.deliveries[i].settle(State::Failed, Some(Reason::KeyOver), ctx.now);
            } else if let Err(reason) = self.pushable(ctx.now) {
                self.deliveries[i].settle(State::Failed, Some(reason), ctx.now);
            } else {
                self.lapse(i, ctx, orders);
            }
        }
    }

    /// The wait for an answer is over, or for its turn.
    fn lapse(&mut self, i: usize, ctx: &mut Context<'_>, orders: &mut Vec<Order>) {
        let set = self.set(ctx.rules);
        let (udp, http) = (set.contains(Method::Udp), set.contains(Method::Http));
        let d = &mut self.deliveries[i];
        let spent = d.method == Some(Method::Udp) && d.udp_attempts >= ctx.rules.attempts;
        if udp && !spent {
            self.send(i, Method::Udp, ctx, orders);
        } else if d.method != Some(Method::Udp) && http {
            d.settle(State::AwaitingPull, None, ctx.now);
        } else {
            let reason = if udp { Reason::NoAnswer } else { Reason::NoMethod };
            d.settle(State::Failed, Some(reason), ctx.now);
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

    /// Whether anything may be pushed at all.
    fn pushable(&self, now: Timestamp) -> Result<(), Reason> {
        match &self.credential {
            Some(c) if !c.expired(now) => {}
            _ => return Err(Reason::Expired),
        }
        if self.spent() { Err(Reason::CounterSpent) } else { Ok(()) }
    }

    /// Finds or makes the delivery of (service, number, kind). One that had ended begins anew, at the end of
    /// the list; one that is open or failed goes on, with its UDP attempts counted from zero.
    fn begin(
        &mut self,
        service: ServiceNo,
        number: u16,
        kind: Kind,
        job: Option<JobId>,
        now: Timestamp,
    ) -> usize {
        let mut fresh = Delivery::new(service, number, kind, job, now);
        if let Some(i) = self.deliveries.iter().position(|d| d.is(service, number, kind)) {
            let d = &mut self.deliveries[i];
            if d.state.is_open() || d.state == State::Failed {
                d.udp_attempts = 0;
                d.job = job.or(d.job);
                return i;
            }
            fresh.verified = self.deliveries.remove(i).verified;
        }
        self.deliveries.push(fresh);
        self.deliveries.len() - 1
    }

    /// Carries a delivery in the answer to the terminal's own request, or by UDP beside it.
    fn answer_with(&mut self, i: usize, ctx: &mut Context<'_>, orders: &mut Vec<Order>) {
        if self.set(ctx.rules).contains(Method::Http) {
            self.send(i, Method::Http, ctx, orders);
        } else {
            self.push(i, ctx, orders);
        }
    }

    /// Carries a delivery unsolicited, by what the set allows.
    fn push(&mut self, i: usize, ctx: &mut Context<'_>, orders: &mut Vec<Order>) {
        if let Err(reason) = self.pushable(ctx.now) {
            self.deliveries[i].settle(State::Failed, Some(reason), ctx.now);
            return;
        }
        let set = self.set(ctx.rules);
        match ctx.rules.push_method(set) {
            Some(method) => self.send(i, method, ctx, orders),
            None if set.contains(Method::Http) => {
                self.deliveries[i].settle(State::AwaitingPull, None, ctx.now)
            }
            None => self.deliveries[i].settle(State::Failed, Some(Reason::NoMethod), ctx.now),
        }
    }

    /// Takes the next T and orders the LTKM.
    fn send(&mut self, i: usize, via: Method, ctx: &mut Context<'_>, orders: &mut Vec<Order>) {
        let d = &mut self.deliveries[i];
        let Ok(t) = u32::try_from(self.next_t) else {
            d.settle(State::Failed, Some(Reason::CounterSpent), ctx.now);
            return;
        };
        self.next_t += 1;
        let v = ctx.rules.verify && matches!(d.kind, Kind::Key | Kind::Invalidate);
        d.attempt(via, t, v, ctx.now, ctx.rules, &mut ctx.entropy);
        orders.push(Order { service: d.service, number: d.number, kind: d.kind, t, v, via });
    }

    /// A newer key of the group supersedes older deliveries that are not verified yet.
    fn supersede_older(&mut self, service: &ServiceKeys, newer: &[u16], now: Timestamp) {
        let Some(oldest) = newer.iter().map(|n| service.age_rank(*n)).min() else { return };
        for d in self.deliveries.iter_mut().filter(|d| d.service == service.service.no && d.kind == Kind::Key)
        {
            let older = service.age_rank(d.number) < oldest;
            if older && (d.state.is_open() || d.state == State::Failed) {
                d.settle(State::Superseded, None, now);
            }
        }
    }
}
