//! Every metric of the daemon: its name, its labels, its help text. All series stand at 0 from the start;
//! none has a label that grows with the number of terminals.

use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::delivery::{Reason, ReceiptState, State};
use crate::id::Method;
use crate::procedure::Procedure;

type Label = [(&'static str, &'static str); 1];
type Labels2 = [(&'static str, &'static str); 2];
type ServiceLabel = [(&'static str, String); 1];

/// Statuses that an HTTP answer of a procedure may have; the values of the label `status`.
pub const HTTP_STATUSES: [u16; 17] =
    [200, 400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 429, 431, 500, 501, 503, 505];

/// The label `procedure` of requests that name none.
pub const NO_PROCEDURE: &str = "none";

/// Outcomes of datagrams received; the values of the label `outcome` of `ltkmd_udp_received_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UdpOutcome {
    /// A verification message that proved a delivery.
    Verified,
    /// One that was taken before.
    Duplicate,
    /// No MIKEY verification message of the profile.
    Malformed,
    /// A MIKEY error message.
    Error,
    /// No terminal of this B-TID.
    Unknown,
    /// An authentic answer to an LTKM that no delivery knows any more.
    Stale,
    /// The MAC is wrong.
    WrongMac,
    /// Shed: the intake's queue was full.
    Shed,
    /// Authentic, but it could not be recorded: the store was down. The terminal is asked again.
    Unrecorded,
}

impl UdpOutcome {
    /// All outcomes.
    pub const ALL: [Self; 9] = [
        Self::Verified,
        Self::Duplicate,
        Self::Malformed,
        Self::Error,
        Self::Unknown,
        Self::Stale,
        Self::WrongMac,
        Self::Shed,
        Self::Unrecorded,
    ];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Duplicate => "duplicate",
            Self::Malformed => "malformed",
            Self::Error => "error",
            Self::Unknown => "unknown",
            Self::Stale => "stale",
            Self::WrongMac => "wrong_mac",
            Self::Shed => "shed",
            Self::Unrecorded => "unrecorded",
        }
    }
}

/// Values of the label `reason` of `ltkmd_sms_held_back_total`.
const SMS_HELD_BACK: [&str; 4] = ["interval", "daily_cap", "room", "coalesced"];

/// What becomes of a submit_sm; the values of the label `outcome` of `ltkmd_sms_submitted_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmsOutcome {
    /// The centre accepted it.
    Accepted,
    /// The centre asked for patience; it is sent again.
    Throttled,
    /// The centre refused it, or never answered.
    Failed,
}

impl SmsOutcome {
    /// All outcomes.
    pub const ALL: [Self; 3] = [Self::Accepted, Self::Throttled, Self::Failed];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Throttled => "throttled",
            Self::Failed => "failed",
        }
    }
}

/// Why a short message centre could not be bound to, or was lost; the values of the label `reason` of
/// `ltkmd_smsc_faults_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmscFault {
    /// It cannot be reached.
    Connect,
    /// No TLS with it.
    Tls,
    /// It refuses the bind.
    Refused,
    /// It answers nothing.
    Timeout,
    /// It closed the connection, or the connection broke.
    Closed,
    /// It does not keep to SMPP.
    Nonsense,
    /// It ended the session.
    Unbound,
}

impl SmscFault {
    /// All reasons.
    pub const ALL: [Self; 7] =
        [Self::Connect, Self::Tls, Self::Refused, Self::Timeout, Self::Closed, Self::Nonsense, Self::Unbound];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Nonsense => "nonsense",
            Self::Unbound => "unbound",
        }
    }
}

/// The label `state` of receipts that cannot be read.
const UNREADABLE: &str = "unreadable";

const LATENCY: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const DELIVERY: [f64; 14] =
    [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0, 3600.0, 86400.0];
const FANOUT: [f64; 12] = [0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 600.0, 3600.0];

fn latency() -> Histogram {
    Histogram::new(LATENCY)
}

fn delivery() -> Histogram {
    Histogram::new(DELIVERY)
}

/// The daemon's metrics.
pub struct Metrics {
    registry: Registry,
    http_requests: Family<Labels2, Counter>,
    http_request_duration: Family<Label, Histogram, fn() -> Histogram>,
    digest_failures: Family<Label, Counter>,
    registered_terminals: Family<ServiceLabel, Gauge>,
    key_expires: Family<ServiceLabel, Gauge<f64, AtomicU64>>,
    ltkm_built: Counter,
    ltkm_sent: Family<Label, Counter>,
    ltkm_verified: Family<Label, Counter>,
    ltkm_failed: Family<Label, Counter>,
    deliveries_open: Family<Label, Gauge>,
    delivery_duration: Family<Label, Histogram, fn() -> Histogram>,
    udp_received: Family<Label, Counter>,
    sms_submitted: Family<Label, Counter>,
    sms_held_back: Family<Label, Counter>,
    sms_receipts: Family<Label, Counter>,
    sms_in_flight: Gauge,
    smsc_up: Gauge,
    smsc_faults: Family<Label, Counter>,
    fanout_jobs_running: Gauge,
    fanout_duration: Histogram,
    store_commit_duration: Histogram,
    store_errors: Counter,
    http_connections: Gauge,
    digest_nonces: Gauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Registers everything at 0. `digest_reasons` are the values of the label of
    /// `ltkmd_digest_failures_total`.
    pub fn new(digest_reasons: &[&'static str]) -> Self {
        let mut registry = Registry::with_prefix("ltkmd");
        let m = Self {
            http_requests: Family::default(),
            http_request_duration: Family::new_with_constructor(latency),
            digest_failures: Family::default(),
            registered_terminals: Family::default(),
            key_expires: Family::default(),
            ltkm_built: Counter::default(),
            ltkm_sent: Family::default(),
            ltkm_verified: Family::default(),
            ltkm_failed: Family::default(),
            deliveries_open: Family::default(),
            delivery_duration: Family::new_with_constructor(delivery),
            udp_received: Family::default(),
            sms_submitted: Family::default(),
            sms_held_back: Family::default(),
            sms_receipts: Family::default(),
            sms_in_flight: Gauge::default(),
            smsc_up: Gauge::default(),
            smsc_faults: Family::default(),
            fanout_jobs_running: Gauge::default(),
            fanout_duration: Histogram::new(FANOUT),
            store_commit_duration: Histogram::new(LATENCY),
            store_errors: Counter::default(),
            http_connections: Gauge::default(),
            digest_nonces: Gauge::default(),
            registry: Registry::default(),
        };
        let r = &mut registry;
        r.register("http_requests", "Terminal-facing requests answered", m.http_requests.clone());
        let help = "From a request's head to its answer, in seconds";
        r.register("http_request_duration_seconds", help, m.http_request_duration.clone());
        r.register("digest_failures", "Requests that did not authenticate", m.digest_failures.clone());
        let help = "Terminals registered for a service";
        r.register("registered_terminals", help, m.registered_terminals.clone());
        r.register("ltkm_built", "LTKMs made", m.ltkm_built.clone());
        r.register("ltkm_sent", "LTKMs sent, by what carried them", m.ltkm_sent.clone());
        r.register("ltkm_verified", "LTKMs verified, by what had carried them", m.ltkm_verified.clone());
        r.register("ltkm_failed", "Deliveries that failed", m.ltkm_failed.clone());
        r.register("deliveries_open", "Deliveries that are under way", m.deliveries_open.clone());
        let help = "From queueing a delivery to its verification, in seconds";
        r.register("delivery_duration_seconds", help, m.delivery_duration.clone());
        r.register("udp_received", "Datagrams received", m.udp_received.clone());
        let help = "Triggers by SMS that limits held back, or that another one made unnecessary";
        r.register("sms_held_back", help, m.sms_held_back.clone());
        r.register("sms_submitted", "Short messages submitted, each part", m.sms_submitted.clone());
        r.register("sms_receipts", "Delivery receipts, each part's", m.sms_receipts.clone());
        r.register("sms_in_flight", "Submissions without an answer", m.sms_in_flight.clone());
        r.register("smsc_up", "Whether an SMSC is bound", m.smsc_up.clone());
        let help = "Why an SMSC could not be bound to, or was lost";
        r.register("smsc_faults", help, m.smsc_faults.clone());
        r.register("fanout_jobs_running", "Fan-out jobs that run", m.fanout_jobs_running.clone());
        let help = "From a fan-out job's start to its end, in seconds";
        r.register("fanout_duration_seconds", help, m.fanout_duration.clone());
        let help = "Durable commits of the store, in seconds";
        r.register("store_commit_duration_seconds", help, m.store_commit_duration.clone());
        r.register("store_errors", "Store calls that failed", m.store_errors.clone());
        let help = "When a service's current key ends, in seconds since 1970";
        r.register("key_expires_timestamp_seconds", help, m.key_expires.clone());
        r.register("http_connections", "Terminal-facing connections open", m.http_connections.clone());
        r.register("digest_nonces", "Nonces whose counts are remembered", m.digest_nonces.clone());
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        r.register("build", "The version that runs", version);
        for procedure in Procedure::ALL.map(Procedure::label).into_iter().chain([NO_PROCEDURE]) {
            for status in HTTP_STATUSES {
                drop(
                    m.http_requests
                        .get_or_create(&[("procedure", procedure), ("status", status_label(status))]),
                );
            }
            drop(m.http_request_duration.get_or_create(&[("procedure", procedure)]));
        }
        for reason in digest_reasons {
            drop(m.digest_failures.get_or_create(&[("reason", reason)]));
        }
        for method in Method::ALL.map(Method::as_str) {
            drop(m.ltkm_sent.get_or_create(&[("method", method)]));
            drop(m.ltkm_verified.get_or_create(&[("method", method)]));
            drop(m.delivery_duration.get_or_create(&[("method", method)]));
        }
        for reason in Reason::ALL {
            drop(m.ltkm_failed.get_or_create(&[("reason", reason.as_str())]));
        }
        for state in State::ALL.into_iter().filter(|s| s.is_open()) {
            drop(m.deliveries_open.get_or_create(&[("state", state.as_str())]));
        }
        for outcome in UdpOutcome::ALL {
            drop(m.udp_received.get_or_create(&[("outcome", outcome.as_str())]));
        }
        for reason in SMS_HELD_BACK {
            drop(m.sms_held_back.get_or_create(&[("reason", reason)]));
        }
        for outcome in SmsOutcome::ALL {
            drop(m.sms_submitted.get_or_create(&[("outcome", outcome.as_str())]));
        }
        for state in ReceiptState::ALL.map(ReceiptState::as_str).into_iter().chain([UNREADABLE]) {
            drop(m.sms_receipts.get_or_create(&[("state", state)]));
        }
        for fault in SmscFault::ALL {
            drop(m.smsc_faults.get_or_create(&[("reason", fault.as_str())]));
        }
        Self { registry, ..m }
    }

    /// All metrics as text.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("writing to a string does not fail");
        out
    }

    /// An answer to a request, of the procedure that it named if it named one. Statuses outside
    /// [`HTTP_STATUSES`] count as 500.
    pub fn http_answered(&self, procedure: Option<Procedure>, status: u16, seconds: f64) {
        let procedure = procedure.map_or(NO_PROCEDURE, Procedure::label);
        let labels = [("procedure", procedure), ("status", status_label(status))];
        self.http_requests.get_or_create(&labels).inc();
        self.http_request_duration.get_or_create(&[("procedure", procedure)]).observe(seconds);
    }

    /// A request that did not authenticate.
    pub fn digest_failed(&self, reason: &'static str) {
        self.digest_failures.get_or_create(&[("reason", reason)]).inc();
    }

    /// LTKMs made.
    pub fn built(&self, count: u64) {
        self.ltkm_built.inc_by(count);
    }

    /// LTKMs sent.
    pub fn sent(&self, method: Method, count: u64) {
        self.ltkm_sent.get_or_create(&[("method", method.as_str())]).inc_by(count);
    }

    /// A delivery verified, so many seconds after it was queued.
    pub fn verified(&self, method: Method, seconds: f64) {
        self.ltkm_verified.get_or_create(&[("method", method.as_str())]).inc();
        self.delivery_duration.get_or_create(&[("method", method.as_str())]).observe(seconds);
    }

    /// Deliveries that failed.
    pub fn failed(&self, reason: Reason, count: u64) {
        self.ltkm_failed.get_or_create(&[("reason", reason.as_str())]).inc_by(count);
    }

    /// A datagram was received.
    pub fn udp_received(&self, outcome: UdpOutcome) {
        self.udp_received.get_or_create(&[("outcome", outcome.as_str())]).inc();
    }

    /// Triggers by SMS that were held back.
    pub fn sms_held_back(&self, reason: &'static str, count: u64) {
        if count > 0 {
            self.sms_held_back.get_or_create(&[("reason", reason)]).inc_by(count);
        }
    }

    /// A submit_sm was answered, or will not be.
    pub fn sms_submitted(&self, outcome: SmsOutcome) {
        self.sms_submitted.get_or_create(&[("outcome", outcome.as_str())]).inc();
    }

    /// A delivery receipt; none for one that cannot be read.
    pub fn sms_receipt(&self, state: Option<ReceiptState>) {
        let state = state.map_or(UNREADABLE, ReceiptState::as_str);
        self.sms_receipts.get_or_create(&[("state", state)]).inc();
    }

    /// Submissions without an answer now.
    pub fn sms_in_flight(&self, submissions: usize) {
        self.sms_in_flight.set(i64::try_from(submissions).unwrap_or(i64::MAX));
    }

    /// Whether a centre is bound that takes messages.
    pub fn smsc_up(&self, up: bool) {
        self.smsc_up.set(up.into());
    }

    /// A centre could not be bound to, or was lost.
    pub fn smsc_fault(&self, fault: SmscFault) {
        self.smsc_faults.get_or_create(&[("reason", fault.as_str())]).inc();
    }

    /// A fan-out job ended.
    pub fn fanout_ended(&self, seconds: f64) {
        self.fanout_duration.observe(seconds);
    }

    /// Jobs that run now.
    pub fn fanout_jobs(&self, running: usize) {
        self.fanout_jobs_running.set(i64::try_from(running).unwrap_or(i64::MAX));
    }

    /// A durable commit took so many seconds.
    pub fn committed(&self, seconds: f64) {
        self.store_commit_duration.observe(seconds);
    }

    /// A store call failed.
    pub fn store_failed(&self) {
        self.store_errors.inc();
    }

    /// Connections open now.
    pub fn connections(&self) -> &Gauge {
        &self.http_connections
    }

    /// Nonces remembered now.
    pub fn nonces(&self, remembered: usize) {
        self.digest_nonces.set(i64::try_from(remembered).unwrap_or(i64::MAX));
    }

    /// A service's terminals and the end of its current key, if it has one.
    pub fn service(&self, id: &str, terminals: u64, expires_secs: Option<u64>) {
        let label = [("service", id.to_owned())];
        self.registered_terminals.get_or_create(&label).set(i64::try_from(terminals).unwrap_or(i64::MAX));
        self.key_expires.get_or_create(&label).set(expires_secs.unwrap_or(0) as f64);
    }

    /// A service is gone.
    pub fn forget_service(&self, id: &str) {
        let label = [("service", id.to_owned())];
        self.registered_terminals.remove(&label);
        self.key_expires.remove(&label);
    }

    /// Open deliveries by state.
    pub fn open(&self, counts: &[u64; State::ALL.len()]) {
        for state in State::ALL.into_iter().filter(|s| s.is_open()) {
            let count = i64::try_from(counts[state as usize]).unwrap_or(i64::MAX);
            self.deliveries_open.get_or_create(&[("state", state.as_str())]).set(count);
        }
    }
}

fn status_label(status: u16) -> &'static str {
    const LABELS: [&str; HTTP_STATUSES.len()] = [
        "200", "400", "401", "403", "404", "405", "408", "411", "413", "414", "415", "429", "431", "500",
        "501", "503", "505",
    ];
    HTTP_STATUSES.iter().position(|s| *s == status).map_or("500", |i| LABELS[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_stands_at_zero_from_the_start() {
        let text = Metrics::new(&["stale"]).encode();
        for series in [
            "ltkmd_http_requests_total{procedure=\"msk_request\",status=\"503\"} 0",
            "ltkmd_http_request_duration_seconds_count{procedure=\"register\"} 0",
            "ltkmd_digest_failures_total{reason=\"stale\"} 0",
            "ltkmd_ltkm_built_total 0",
            "ltkmd_ltkm_sent_total{method=\"sms\"} 0",
            "ltkmd_ltkm_verified_total{method=\"http\"} 0",
            "ltkmd_ltkm_failed_total{reason=\"no_method\"} 0",
            "ltkmd_deliveries_open{state=\"awaiting_pull\"} 0",
            "ltkmd_delivery_duration_seconds_count{method=\"udp\"} 0",
            "ltkmd_udp_received_total{outcome=\"wrong_mac\"} 0",
            "ltkmd_sms_submitted_total{outcome=\"throttled\"} 0",
            "ltkmd_sms_receipts_total{state=\"undeliverable\"} 0",
            "ltkmd_sms_receipts_total{state=\"unreadable\"} 0",
            "ltkmd_sms_in_flight 0",
            "ltkmd_smsc_up 0",
            "ltkmd_smsc_faults_total{reason=\"nonsense\"} 0",
            "ltkmd_fanout_jobs_running 0",
            "ltkmd_fanout_duration_seconds_count 0",
            "ltkmd_store_commit_duration_seconds_count 0",
            "ltkmd_store_errors_total 0",
            "ltkmd_build_info{version=",
        ] {
            assert!(text.contains(series), "{series} is missing in\n{text}");
        }
    }

    #[test]
    fn a_service_that_is_gone_leaves_no_series() {
        let metrics = Metrics::new(&[]);
        metrics.service("urn:a", 3, Some(1_800_000_000));
        assert!(metrics.encode().contains("ltkmd_registered_terminals{service=\"urn:a\"} 3"));
        assert!(
            metrics.encode().contains("ltkmd_key_expires_timestamp_seconds{service=\"urn:a\"} 1800000000")
        );
        metrics.forget_service("urn:a");
        assert!(!metrics.encode().contains("urn:a"));
    }
}
