//! The course of a delivery: what it goes by now, by what next, and when it is over (LTKM profile §4, §7).

use super::Order;
use super::life::{Delivery, Kind, Reason, State};
use super::plan::Rules;
use super::terminal::{Context, Terminal};
use crate::id::{JobId, Method, MethodSet, ServiceNo};
use crate::keys::ServiceKeys;
use crate::time::Timestamp;

impl Terminal {
    /// Looks at what is due: sends again, goes on to the next method, or gives up.
    pub fn due(&mut self, ctx: &mut Context<'_>, orders: &mut Vec<Order>) {
        for i in 0..self.deliveries.len() {
            let d = &self.deliveries[i];
            if d.next_due.is_none_or(|due| due > ctx.now) {
                continue;
            }
            match self.alive(d, ctx) {
                Ok(()) => self.lapse(i, ctx, orders),
                Err((state, reason)) => self.deliveries[i].settle(state, reason, ctx.now),
            }
        }
    }

    /// Whether there is still something to deliver, and to whom; else how the delivery ends.
    pub(super) fn alive(&self, d: &Delivery, ctx: &Context<'_>) -> Result<(), (State, Option<Reason>)> {
        let entry = ctx.catalogue.get(d.service);
        let key = entry.and_then(|s| s.key(d.number));
        let exists = if d.kind.is_trigger() { entry.is_some() } else { key.is_some() };
        if !exists || self.registration.is_none() {
            return Err((State::Cancelled, None));
        }
        if d.kind == Kind::Key && key.is_some_and(|k| k.valid_to <= ctx.now) {
            return Err((State::Failed, Some(Reason::KeyOver)));
        }
        self.pushable(ctx.now).map_err(|reason| (State::Failed, Some(reason)))
    }

    /// The wait for an answer is over, or for its turn.
    pub(super) fn lapse(&mut self, i: usize, ctx: &mut Context<'_>, orders: &mut Vec<Order>) {
        let set = self.set(ctx.rules);
        let d = &mut self.deliveries[i];
        if d.turn().is_some() {
            self.bar_sms(i, Reason::SmsLate, ctx, orders);
        } else if d.state == State::Queued && set.contains(Method::Udp) {
            self.send(i, Method::Udp, ctx, orders);
        } else if d.method == Some(Method::Http) && !set.contains(Method::Udp) {
            let (state, error) = match set.contains(Method::Http) {
                true => (State::AwaitingPull, None),
                false => (State::Failed, Some(Reason::NoMethod)),
            };
            d.settle(state, error, ctx.now);
        } else if d.method == Some(Method::Http) {
            self.send(i, Method::Udp, ctx, orders);
        } else {
            self.go_on(i, ctx, orders);
        }
    }

    /// Goes on by the first method of the set that is not used up, or gives up.
    pub(super) fn go_on(&mut self, i: usize, ctx: &mut Context<'_>, orders: &mut Vec<Order>) {
        let set = self.set(ctx.rules);
        let d = &self.deliveries[i];
        let leg = d.sms.as_deref();
        let left = |m: &Method| match m {
            Method::Udp => d.udp_attempts < ctx.rules.attempts,
            Method::Sms => {
                let limit = ctx.rules.sms.map_or(0, |limits| limits.attempts);
                leg.is_none_or(|leg| leg.barred.is_none() && leg.attempts < limit)
            }
            Method::Http => false,
        };
        let next = ctx.rules.push_methods(set, d.kind).find(left);
        match next {
            Some(Method::Sms) => self.await_turn(i, ctx),
            Some(method) => self.send(i, method, ctx, orders),
            None => {
                let reason = self.exhausted(i, set, ctx.rules);
                self.deliveries[i].settle(State::Failed, Some(reason), ctx.now);
            }
        }
    }

    /// Why no method is left for a delivery.
    pub(super) fn exhausted(&self, i: usize, set: MethodSet, rules: &Rules) -> Reason {
        let d = &self.deliveries[i];
        if let Some(barred) = d.sms.as_ref().and_then(|leg| leg.barred) {
            return barred;
        }
        if rules.push_methods(set, d.kind).next().is_some() {
            return Reason::NoAnswer;
        }
        Reason::NoMethod
    }

    /// Whether anything may be pushed at all.
    pub(super) fn pushable(&self, now: Timestamp) -> Result<(), Reason> {
        match &self.credential {
            Some(c) if !c.expired(now) => {}
            _ => return Err(Reason::Expired),
        }
        if self.spent() { Err(Reason::CounterSpent) } else { Ok(()) }
    }

    /// Finds or makes the delivery of (service, number, kind). One that had ended begins anew, at the end of
    /// the list; one that is open or failed goes on, with its UDP attempts counted from zero.
    pub(super) fn begin(
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
                if let Some(leg) = &mut d.sms {
                    leg.attempts = 0;
                    leg.barred = None;
                }
                d.job = job.or(d.job);
                return i;
            }
            fresh.verified = self.deliveries.remove(i).verified;
        }
        self.deliveries.push(fresh);
        self.deliveries.len() - 1
    }

    /// Carries a delivery in the answer to the terminal's own request, or by UDP beside it.
    pub(super) fn answer_with(&mut self, i: usize, ctx: &mut Context<'_>, orders: &mut Vec<Order>) {
        let set = self.set(ctx.rules);
        if set.contains(Method::Http) {
            self.send(i, Method::Http, ctx, orders);
        } else if set.contains(Method::Udp) && self.pushable(ctx.now).is_ok() {
            self.send(i, Method::Udp, ctx, orders);
        } else {
            self.push(i, ctx, orders);
        }
    }

    /// Carries a delivery unsolicited, by what the set allows.
    pub(super) fn push(&mut self, i: usize, ctx: &mut Context<'_>, orders: &mut Vec<Order>) {
        if let Err(reason) = self.pushable(ctx.now) {
            self.deliveries[i].settle(State::Failed, Some(reason), ctx.now);
            return;
        }
        let set = self.set(ctx.rules);
        let kind = self.deliveries[i].kind;
        if ctx.rules.push_methods(set, kind).next().is_some() {
            self.go_on(i, ctx, orders);
        } else if set.contains(Method::Http) {
            self.deliveries[i].settle(State::AwaitingPull, None, ctx.now);
        } else {
            let reason = self.exhausted(i, set, ctx.rules);
            self.deliveries[i].settle(State::Failed, Some(reason), ctx.now);
        }
    }

    /// Takes the next T and orders the LTKM.
    pub(super) fn send(&mut self, i: usize, via: Method, ctx: &mut Context<'_>, orders: &mut Vec<Order>) {
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
    pub(super) fn supersede_older(&mut self, service: &ServiceKeys, newer: &[u16], now: Timestamp) {
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
