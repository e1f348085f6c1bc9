//! Which terminal holds which key, and how the counters of it change.

use crate::delivery::{Delivery, Kind, State, Terminal};
use crate::id::{Method, ServiceNo};
use crate::store::Holders;

/// A service and the number of a key of it.
pub(super) type KeyOf = (ServiceNo, u16);

/// What brought a key to a terminal that holds it, and whether that is assumed; `None`: it does not hold it, as far as
/// anybody knows, or is not registered for the service.
pub(super) fn held(terminal: &Terminal, d: &Delivery) -> Option<(Method, bool)> {
    if d.kind != Kind::Key || !terminal.is_registered_for(d.service) {
        return None;
    }
    let (via, assumed) = match d.verified {
        Some((_, via)) => (via, false),
        None if d.state.is_held() => (d.method.unwrap_or(Method::Udp), d.state == State::Assumed),
        None => return None,
    };
    let by_sms = via == Method::Http && d.sms.as_ref().is_some_and(|leg| leg.attempts > 0);
    Some((if by_sms { Method::Sms } else { via }, assumed))
}

/// How one counter changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Shift {
    pub(super) udp: i64,
    pub(super) http: i64,
    pub(super) sms: i64,
    pub(super) assumed: i64,
}

impl Shift {
    /// One terminal more, or less.
    pub(super) fn count(&mut self, (via, assumed): (Method, bool), by: i64) {
        *match via {
            Method::Udp => &mut self.udp,
            Method::Http => &mut self.http,
            Method::Sms => &mut self.sms,
        } += by;
        self.assumed += if assumed { by } else { 0 };
    }

    /// Brings one counter up to date.
    pub(super) fn apply(&self, h: &mut Holders) {
        h.udp = h.udp.saturating_add_signed(self.udp);
        h.http = h.http.saturating_add_signed(self.http);
        h.sms = h.sms.saturating_add_signed(self.sms);
        h.assumed = h.assumed.saturating_add_signed(self.assumed);
    }
}
