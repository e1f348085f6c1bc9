//! Short messages by SMPP 3.4: the daemon is an ESME that submits triggers and hears of receipts.
//!
//! One link at a time, to the first centre of the list that binds: one connection for both directions or one for
//! each. What is handed over goes out as fast as rate and window allow, pauses when the centre throttles, and ends
//! in exactly one event, also when the link breaks or the daemon stops. After a loss the list is tried from the
//! front again, with growing waits.

mod conn;
mod flow;
mod gateway;
mod link;
pub(crate) mod pdu;
mod rate;
mod receipt;
pub(crate) mod status;
#[cfg(test)]
mod tests;
pub mod udh;

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

pub use gateway::Gateway;

use crate::config::{Authorities, BindMode, Sms, SmsSource, Smsc, SystemId};
use crate::secret::Secret;

/// The shortest and the longest wait between attempts to bind.
const RECONNECT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How long the answers of what is under way are awaited before an unbind.
const DRAIN: Duration = Duration::from_secs(5);

/// How the gateway speaks to centres. Two are equal when nothing about the link would change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmsSettings {
    /// The centres, in order of preference, at least one.
    pub smsc: Vec<Smsc>,
    /// One connection or two.
    pub bind: BindMode,
    /// The name to bind with.
    pub system_id: SystemId,
    /// The password to bind with.
    pub password: Option<Secret>,
    /// Who vouches for `smpps://` centres; there when one of them is in [`Self::smsc`].
    pub authorities: Option<Authorities>,
    /// The sender's address; the centre's own without.
    pub source: Option<SmsSource>,
    /// Submissions without an answer at a time, at least 1.
    pub window: u16,
    /// Messages a second, at most; each part counts.
    pub rate: NonZeroU32,
    /// After how long a silence a centre is asked whether it is there.
    pub enquire_link: Duration,
    /// How long a centre may answer nothing though it should.
    pub response_timeout: Duration,
    /// The port that messages are addressed to and come from: the terminals' LTKM port.
    pub port: NonZeroU16,
    /// The first and the longest wait between attempts to bind.
    pub reconnect: (Duration, Duration),
    /// How long the answers of what is under way are awaited before an unbind.
    pub drain: Duration,
}

impl SmsSettings {
    /// What `[sms]` says, for terminals that listen on this port.
    pub fn new(sms: &Sms, port: NonZeroU16) -> Self {
        Self {
            smsc: sms.smsc.clone(),
            bind: sms.bind,
            system_id: sms.system_id.clone(),
            password: sms.password.clone(),
            authorities: sms.authorities.clone(),
            source: sms.source.clone(),
            window: sms.window,
            rate: sms.rate,
            enquire_link: sms.enquire_link,
            response_timeout: sms.response_timeout,
            port,
            reconnect: RECONNECT,
            drain: DRAIN,
        }
    }

    fn bounds(&self) -> flow::Bounds {
        let port = self.port.get();
        flow::Bounds {
            window: usize::from(self.window),
            rate: self.rate,
            response_timeout: self.response_timeout,
            ports: udh::Ports { destination: port, source: port },
        }
    }
}
