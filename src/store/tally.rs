//! How counters follow the change of a terminal.

use std::collections::BTreeMap;

use crate::delivery::{Delivery, Registration, State, Terminal};
use crate::id::{JobId, Method, ServiceNo};
use crate::store::held::{KeyOf, Shift, held};
use crate::store::record::Totals;
use crate::store::{Job, Members};

/// What changed of a job's counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct JobTally {
    pub(super) states: [i64; State::ALL.len()],
    pub(super) sent: i64,
}

/// What changed of all counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// By service: UDP, HTTP, SMS, all.
    pub(super) members: BTreeMap<ServiceNo, [i64; 4]>,
    pub(super) deliveries: [i64; State::ALL.len()],
    pub(super) terminals: i64,
    /// Who holds which key.
    pub(super) holders: BTreeMap<KeyOf, Shift>,
    pub(super) jobs: BTreeMap<JobId, JobTally>,
}

impl Tally {
    /// Counts one terminal's change.
    pub(super) fn change(&mut self, before: &Terminal, after: &Terminal) {
        if before.registration != after.registration {
            self.member(before.registration.as_ref(), -1);
            self.member(after.registration.as_ref(), 1);
        }
        if before.deliveries == after.deliveries {
            if before.registration != after.registration {
                self.holders(before, after);
            }
            return;
        }
        self.holders(before, after);
        for b in &before.deliveries {
            self.deliveries[b.state as usize] -= 1;
            let a = after.deliveries.iter().find(|a| a.is(b.service, b.number, b.kind));
            self.left_or_went_on(b, a);
        }
        for a in &after.deliveries {
            self.deliveries[a.state as usize] += 1;
            let b = before.deliveries.iter().find(|b| b.is(a.service, a.number, a.kind));
            if a.job != b.and_then(|b| b.job) {
                self.entered(a);
            }
        }
    }

    fn member(&mut self, registration: Option<&Registration>, by: i64) {
        let Some(r) = registration else { return };
        for no in &r.services {
            let m = self.members.entry(*no).or_default();
            for (i, method) in [Method::Udp, Method::Http, Method::Sms].into_iter().enumerate() {
                m[i] += if r.set.contains(method) { by } else { 0 };
            }
            m[3] += by;
        }
    }

    /// A terminal that held a key and does not any more, or got it another way; and those that it holds now.
    fn holders(&mut self, before: &Terminal, after: &Terminal) {
        let of = |t: &Terminal, d: &Delivery| {
            let same = t.deliveries.iter().find(|x| x.is(d.service, d.number, d.kind));
            same.and_then(|same| held(t, same))
        };
        for d in &before.deliveries {
            if let Some(how) = held(before, d).filter(|how| Some(*how) != of(after, d)) {
                self.holders.entry((d.service, d.number)).or_default().count(how, -1);
            }
        }
        for d in &after.deliveries {
            if let Some(how) = held(after, d).filter(|how| Some(*how) != of(before, d)) {
                self.holders.entry((d.service, d.number)).or_default().count(how, 1);
            }
        }
    }

    /// A delivery that stays with its job counts at its new state. One that leaves it open counts there as
    /// cancelled; one that leaves it closed goes on to count as what it was.
    fn left_or_went_on(&mut self, b: &Delivery, a: Option<&Delivery>) {
        let Some(job) = b.job else { return };
        let same = a.filter(|a| a.job == b.job);
        let tally = self.jobs.entry(job).or_default();
        let now = match same {
            Some(a) => a.state,
            None if b.state.is_open() => State::Cancelled,
            None => b.state,
        };
        tally.states[b.state as usize] -= 1;
        tally.states[now as usize] += 1;
        tally.sent += i64::from(b.attempts == 0 && same.is_some_and(|a| a.attempts > 0));
    }

    fn entered(&mut self, a: &Delivery) {
        if let Some(job) = a.job {
            let tally = self.jobs.entry(job).or_default();
            tally.states[a.state as usize] += 1;
            tally.sent += i64::from(a.attempts > 0);
        }
    }

    /// Brings the store's counters up to date.
    pub(super) fn apply(&self, totals: &mut Totals) {
        for (no, by) in &self.members {
            let m = totals.members.entry(*no).or_default();
            m.udp = m.udp.saturating_add_signed(by[0]);
            m.http = m.http.saturating_add_signed(by[1]);
            m.sms = m.sms.saturating_add_signed(by[2]);
            m.total = m.total.saturating_add_signed(by[3]);
            if *m == Members::default() {
                totals.members.remove(no);
            }
        }
        for (n, by) in totals.deliveries.iter_mut().zip(self.deliveries) {
            *n = n.saturating_add_signed(by);
        }
        totals.terminals = totals.terminals.saturating_add_signed(self.terminals);
    }
}

impl JobTally {
    /// Brings a job's counts up to date.
    pub(super) fn apply(&self, job: &mut Job) {
        for (n, by) in job.states.iter_mut().zip(self.states) {
            *n = n.saturating_add_signed(by);
        }
        job.sent = job.sent.saturating_add_signed(self.sent);
    }
}
