//! The life of a delivery: which method, when again, when it is over (LTKM profile §4, §7).
//!
//! Pure: time and randomness come in as values; what comes out is a changed [`Terminal`] and the
//! [`Order`]s of LTKMs to make once the change is durable.

mod by_sms;
mod course;
mod life;
mod plan;
mod sms;
mod terminal;
#[cfg(test)]
mod tests;

pub use life::{Answered, Delivery, Kind, Reason, State};
pub use plan::{Entropy, Rules, SmsAlone};
pub use sms::{HeldBack, MessageId, ReceiptState, SmsLedger, SmsLeg, SmsLimits};
pub use terminal::{Context, Registration, Tally, Terminal};

use crate::id::{Method, ServiceNo};

/// An LTKM to make and send, ordered by a decision and carried out after its commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// The service whose key it is about.
    pub service: ServiceNo,
    /// The Key Number that goes into the MSK ID; 0 in a trigger for an MSK request.
    pub number: u16,
    /// What the LTKM does.
    pub kind: Kind,
    /// Its T value (COUNTER), assigned by the commit.
    pub t: u32,
    /// Whether the V flag is set.
    pub v: bool,
    /// What carries it.
    pub via: Method,
}
