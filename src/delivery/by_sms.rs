//! Deliveries by SMS: turns, the triggers that they become, and what centres tell about these
//! (LTKM profile §4). No short message carries a key.

use std::time::Duration;

use super::Order;
use super::life::{Delivery, Kind, Reason};
use super::sms::{HeldBack, MessageId, ReceiptState};
use super::terminal::{Context, Terminal};
use crate::id::Method;
use crate::time::Timestamp;

/// From this on a turn counts as held back for want of room.
const LATE: Duration = Duration::from_secs(1);

impl Terminal {
    /// The earliest moment at which a short message may have its turn.
    pub fn next_turn(&self) -> Option<Timestamp> {
        self.deliveries.iter().filter_map(Delivery::turn).min()
    }

    /// Waits for a turn by SMS, as the limits of this terminal allow.
    pub(super) fn await_turn(&mut self, i: usize, ctx: &mut Context<'_>) {
        let Some(limits) = ctx.rules.sms else { return };
        let (turn, held_back) = self.ledger.next(ctx.now, &limits);
        if let Some(why) = held_back {
            ctx.tally.held_back[why as usize] += 1;
        }
        self.deliveries[i].await_turn(turn, &limits, ctx.now);
    }

    /// SMS is of no use for this delivery: it goes on otherwise.
    pub(super) fn bar_sms(&mut self, i: usize, why: Reason, ctx: &mut Context<'_>, orders: &mut Vec<Order>) {
        let leg = self.deliveries[i].sms.get_or_insert_default();
        leg.barred = Some(why);
        leg.turn = None;
        self.go_on(i, ctx, orders);
    }

    /// The turn of this terminal's short message has come. One trigger serves all that waits: for an MSK
    /// request when it is about one service, else for a registration. `reachable`: whether a message can be
    /// sent at all, and why not.
    pub fn take_turn(
        &mut self,
        reachable: Result<(), Reason>,
        ctx: &mut Context<'_>,
        orders: &mut Vec<Order>,
    ) {
        if self.next_turn().is_none_or(|turn| turn > ctx.now) {
            return;
        }
        let mut waiting = Vec::new();
        for i in 0..self.deliveries.len() {
            if self.deliveries[i].turn().is_none() {
                continue;
            }
            let kind = self.deliveries[i].kind;
            let by_sms = ctx.rules.push_methods(self.set(ctx.rules), kind).any(|m| m == Method::Sms);
            match (self.alive(&self.deliveries[i], ctx), reachable) {
                (Err((state, reason)), _) => self.deliveries[i].settle(state, reason, ctx.now),
                (Ok(()), Ok(())) if !by_sms => self.go_on(i, ctx, orders),
                (Ok(()), Err(why)) => self.bar_sms(i, why, ctx, orders),
                (Ok(()), Ok(())) => waiting.push(i),
            }
        }
        let Some(limits) = ctx.rules.sms.filter(|_| !waiting.is_empty()) else { return };
        let (turn, held_back) = self.ledger.next(ctx.now, &limits);
        if let Some(why) = held_back {
            ctx.tally.held_back[why as usize] += 1;
            for i in waiting {
                self.deliveries[i].await_turn(turn, &limits, ctx.now);
            }
            return;
        }
        let service = self.deliveries[waiting[0]].service;
        let one = |i: &usize| {
            let d = &self.deliveries[*i];
            d.service == service && d.kind != Kind::TriggerRegister
        };
        let kind = if waiting.iter().all(one) { Kind::TriggerMskRequest } else { Kind::TriggerRegister };
        let late = waiting.iter().filter_map(|i| self.deliveries[*i].turn()).min();
        if late.is_some_and(|turn| ctx.now.since(turn) >= LATE) {
            ctx.tally.held_back[HeldBack::Room as usize] += 1;
        }
        let Ok(t) = u32::try_from(self.next_t) else { return };
        self.next_t += 1;
        self.ledger.note(ctx.now);
        ctx.tally.coalesced += waiting.len() as u64 - 1;
        for i in waiting {
            self.deliveries[i].triggered(t, &limits, ctx.now);
        }
        orders.push(Order { service, number: 0, kind, t, v: false, via: Method::Sms });
    }

    /// A centre accepted the trigger with this T under these names.
    pub fn sms_accepted(&mut self, t: u32, ids: &[MessageId]) {
        self.deliveries.iter_mut().for_each(|d| d.accepted(t, ids));
    }

    /// A centre refused the trigger with this T for good.
    pub fn sms_refused(&mut self, t: u32, ctx: &mut Context<'_>, orders: &mut Vec<Order>) {
        for i in self.awaiting(|d| d.sms.as_ref().is_some_and(|leg| leg.t == t)) {
            self.bar_sms(i, Reason::SmsRefused, ctx, orders);
        }
    }

    /// The trigger with this T did not leave, as far as anybody knows: it has its turn again, unless SMS has
    /// left the set meanwhile.
    pub fn sms_unsent(&mut self, t: u32, ctx: &mut Context<'_>, orders: &mut Vec<Order>) {
        let again = self.awaiting(|d| d.sms.as_ref().is_some_and(|leg| leg.t == t));
        if again.is_empty() {
            return;
        }
        self.ledger.undo();
        for i in again {
            if let Some(leg) = &mut self.deliveries[i].sms {
                leg.attempts = leg.attempts.saturating_sub(1);
            }
            self.go_on(i, ctx, orders);
        }
    }

    /// Notes a delivery receipt: a terminal that has its message gets the whole time for its pull; a lost
    /// message is one attempt that came to nothing. `false`: no delivery knows the message any more.
    pub fn sms_receipt(
        &mut self,
        id: &MessageId,
        state: ReceiptState,
        ctx: &mut Context<'_>,
        orders: &mut Vec<Order>,
    ) -> bool {
        let mut known = false;
        for d in &mut self.deliveries {
            known |= d.receipt(id, state, ctx.now);
        }
        let Some(limits) = ctx.rules.sms.filter(|_| known) else { return known };
        for i in self.awaiting(|d| d.sms.as_ref().is_some_and(|leg| leg.ids.contains(id))) {
            if state.is_lost() {
                self.bar_sms(i, Reason::SmsUndelivered, ctx, orders);
            } else if state == ReceiptState::Delivered {
                self.deliveries[i].next_due = Some(ctx.now + limits.pull_timeout);
            }
        }
        known
    }

    /// Deliveries that await the pull that a short message asked for.
    pub(super) fn awaiting(&self, of: impl Fn(&Delivery) -> bool) -> Vec<usize> {
        let awaits = |d: &Delivery| d.awaits_pull_by_sms() && of(d);
        (0..self.deliveries.len()).filter(|i| awaits(&self.deliveries[*i])).collect()
    }
}
