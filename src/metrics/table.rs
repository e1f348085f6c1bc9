//! The table of metrics: names, kinds, labels and help texts. Registration, documentation and tests are made from it.

use super::outcome::{SmsOutcome, SmscFault, UdpOutcome};
use super::{COALESCED, HTTP_STATUSES, NO_PROCEDURE, UNREADABLE, status_label};
use crate::delivery::{HeldBack, Reason, ReceiptState, State};
use crate::digest;
use crate::id::Method;
use crate::procedure::Procedure;

/// What a metric is, in Prometheus' terms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Goes up alone, from 0 at the daemon's start. Its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts of what was observed, by these upper bounds; scraped as `_bucket`, `_sum` and `_count`.
    Histogram(&'static [f64]),
    /// Always 1: its labels say it. Its name ends in `_info`.
    Info,
}

impl Kind {
    /// The word of the text format for it; `info` is a gauge there.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge | Self::Info => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// The values that a label has.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    /// These, each from the daemon's start.
    Fixed(fn() -> Vec<&'static str>),
    /// One for each service that its operator made, from then until it is deleted.
    Services,
    /// The version that runs.
    Version,
}

/// A label.
#[derive(Debug, Clone, Copy)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub values: Values,
}

impl Label {
    const fn fixed(name: &'static str, values: fn() -> Vec<&'static str>) -> Self {
        Self { name, values: Values::Fixed(values) }
    }
}

/// A metric as it is described.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// The name as it is scraped, with the prefix and the suffix of its kind.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels; each series has all of them.
    pub labels: &'static [Label],
    /// What it says, without a full stop.
    pub help: &'static str,
}

impl Metric {
    /// The name without the suffix of its kind: how OpenMetrics calls the family.
    pub fn family(&self) -> &'static str {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram(_) => "",
        };
        self.name.strip_suffix(suffix).expect("the tests look at every name")
    }
}

const PROCEDURE: Label = Label::fixed("procedure", || {
    Procedure::ALL.map(Procedure::label).into_iter().chain([NO_PROCEDURE]).collect()
});
const STATUS: Label = Label::fixed("status", || HTTP_STATUSES.map(status_label).to_vec());
const DIGEST_REASON: Label =
    Label::fixed("reason", || digest::Reason::ALL.map(digest::Reason::as_str).to_vec());
const METHOD: Label = Label::fixed("method", || Method::ALL.map(Method::as_str).to_vec());
const FAILURE: Label = Label::fixed("reason", || Reason::ALL.map(Reason::as_str).to_vec());
const OPEN_STATE: Label =
    Label::fixed("state", || State::ALL.into_iter().filter(|s| s.is_open()).map(State::as_str).collect());
const UDP_OUTCOME: Label = Label::fixed("outcome", || UdpOutcome::ALL.map(UdpOutcome::as_str).to_vec());
const SMS_OUTCOME: Label = Label::fixed("outcome", || SmsOutcome::ALL.map(SmsOutcome::as_str).to_vec());
const HELD_BACK: Label =
    Label::fixed("reason", || HeldBack::ALL.map(HeldBack::as_str).into_iter().chain([COALESCED]).collect());
const RECEIPT: Label = Label::fixed("state", || {
    ReceiptState::ALL.map(ReceiptState::as_str).into_iter().chain([UNREADABLE]).collect()
});
const SMSC_FAULT: Label = Label::fixed("reason", || SmscFault::ALL.map(SmscFault::as_str).to_vec());
const SERVICE: Label = Label { name: "service", values: Values::Services };
const VERSION: Label = Label { name: "version", values: Values::Version };

/// Bounds for what a request or a commit takes, in seconds.
pub(super) const LATENCY: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Bounds for what a delivery takes, in seconds.
pub(super) const DELIVERY: [f64; 14] =
    [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0, 3600.0, 86400.0];
/// Bounds for what a fan-out job takes, in seconds.
pub(super) const FANOUT: [f64; 12] = [0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 600.0, 3600.0];

macro_rules! metrics {
    ($($group:literal { $($id:ident = $kind:expr, $name:literal, [$($label:expr),*], $help:literal;)* })*) => {
        $($(
            #[doc = concat!("`", $name, "`: ", $help, ".")]
            pub const $id: Metric = Metric { name: $name, kind: $kind, labels: &[$($label),*], help: $help };
        )*)*

        /// Every metric, by what it is about.
        pub const GROUPS: &[(&str, &[Metric])] = &[$(($group, &[$($id),*])),*];
    };
}

metrics! {
    "Terminals' requests" {
        HTTP_REQUESTS = Kind::Counter, "ltkmd_http_requests_total", [PROCEDURE, STATUS],
            "Terminal-facing requests answered";
        HTTP_REQUEST_DURATION = Kind::Histogram(&LATENCY), "ltkmd_http_request_duration_seconds", [PROCEDURE],
            "From a request's head to its answer";
        HTTP_CONNECTIONS = Kind::Gauge, "ltkmd_http_connections", [],
            "Terminal-facing connections open";
        DIGEST_FAILURES = Kind::Counter, "ltkmd_digest_failures_total", [DIGEST_REASON],
            "Requests that did not authenticate, each terminal's first one (missing) among them";
        DIGEST_NONCES = Kind::Gauge, "ltkmd_digest_nonces", [],
            "Nonces whose counts are remembered in memory: none in a cluster, whose store has them";
        TLS_CERTIFICATE_EXPIRES = Kind::Gauge, "ltkmd_tls_certificate_expires_timestamp_seconds", [],
            "When the first certificate of http.tls.certificate ends; 0 without TLS";
    }
    "Services and keys" {
        REGISTERED_TERMINALS = Kind::Gauge, "ltkmd_registered_terminals", [SERVICE],
            "Terminals registered for a service";
        KEY_HOLDERS = Kind::Gauge, "ltkmd_key_holders", [SERVICE],
            "Registered terminals that hold a service's current key; 0 when it has none";
        KEY_EXPIRES = Kind::Gauge, "ltkmd_key_expires_timestamp_seconds", [SERVICE],
            "When a service's current key ends; 0 when it has none";
        KEYS_END = Kind::Gauge, "ltkmd_keys_end_timestamp_seconds", [SERVICE],
            "When the last of a service's keys ends, next ones included; 0 when all have ended";
        KEY_ROTATION_DUE = Kind::Gauge, "ltkmd_key_rotation_due_timestamp_seconds", [SERVICE],
            "When the schedule makes a service's next key; 0 without a schedule";
    }
    "LTKMs and deliveries" {
        LTKM_BUILT = Kind::Counter, "ltkmd_ltkm_built_total", [],
            "LTKMs made";
        LTKM_SENT = Kind::Counter, "ltkmd_ltkm_sent_total", [METHOD],
            "LTKMs sent, by what carried them";
        LTKM_VERIFIED = Kind::Counter, "ltkmd_ltkm_verified_total", [METHOD],
            "LTKMs verified, by what had carried them";
        LTKM_FAILED = Kind::Counter, "ltkmd_ltkm_failed_total", [FAILURE],
            "Deliveries that failed";
        DELIVERIES_OPEN = Kind::Gauge, "ltkmd_deliveries_open", [OPEN_STATE],
            "Deliveries that are under way";
        DELIVERY_DURATION = Kind::Histogram(&DELIVERY), "ltkmd_delivery_duration_seconds", [METHOD],
            "From queueing a delivery to its verification";
        DELIVERIES_DUE = Kind::Gauge, "ltkmd_deliveries_due", [],
            "Looks at deliveries that are noted for a moment, past ones and stale ones included";
        DELIVERIES_NEXT_DUE = Kind::Gauge, "ltkmd_deliveries_next_due_timestamp_seconds", [],
            "The earliest moment at which a delivery has to be looked at; 0 when none has";
        UDP_RECEIVED = Kind::Counter, "ltkmd_udp_received_total", [UDP_OUTCOME],
            "Datagrams received";
    }
    "Triggers by SMS" {
        SMS_ENABLED = Kind::Gauge, "ltkmd_sms_enabled", [],
            "Whether triggers are sent by SMS";
        SMSC_UP = Kind::Gauge, "ltkmd_smsc_up", [],
            "Whether an SMSC is bound";
        SMSC_FAULTS = Kind::Counter, "ltkmd_smsc_faults_total", [SMSC_FAULT],
            "Why an SMSC could not be bound to, or was lost";
        SMS_SUBMITTED = Kind::Counter, "ltkmd_sms_submitted_total", [SMS_OUTCOME],
            "Short messages submitted, each part";
        SMS_IN_FLIGHT = Kind::Gauge, "ltkmd_sms_in_flight", [],
            "Submissions without an answer";
        SMS_RECEIPTS = Kind::Counter, "ltkmd_sms_receipts_total", [RECEIPT],
            "Delivery receipts, each part's";
        SMS_HELD_BACK_TOTAL = Kind::Counter, "ltkmd_sms_held_back_total", [HELD_BACK],
            "Triggers by SMS that limits held back, or that another one made unnecessary";
        SMS_TURNS = Kind::Gauge, "ltkmd_sms_turns", [],
            "Turns by SMS that are noted for a moment, past ones and stale ones included";
        SMS_NEXT_TURN = Kind::Gauge, "ltkmd_sms_next_turn_timestamp_seconds", [],
            "The earliest moment at which a terminal's turn by SMS comes; 0 when none waits";
    }
    "Fan-out" {
        FANOUT_JOBS_RUNNING = Kind::Gauge, "ltkmd_fanout_jobs_running", [],
            "Fan-out jobs that run, those that only wait for answers included";
        FANOUT_JOBS_VISITING = Kind::Gauge, "ltkmd_fanout_jobs_visiting", [],
            "Fan-out jobs that have terminals ahead of them and are not paused";
        FANOUT_OLDEST = Kind::Gauge, "ltkmd_fanout_oldest_start_timestamp_seconds", [],
            "When the oldest fan-out job began that has terminals ahead of it and is not paused; 0 without one";
        FANOUT_VISITED = Kind::Counter, "ltkmd_fanout_visited_total", [],
            "Terminals that fan-out jobs have visited";
        FANOUT_DURATION = Kind::Histogram(&FANOUT), "ltkmd_fanout_duration_seconds", [],
            "From a fan-out job's start to its end";
    }
    "The store" {
        STORE_UP = Kind::Gauge, "ltkmd_store_up", [],
            "Whether the store writes";
        STORE_ERRORS = Kind::Counter, "ltkmd_store_errors_total", [],
            "Store calls that failed";
        STORE_COMMIT_DURATION = Kind::Histogram(&LATENCY), "ltkmd_store_commit_duration_seconds", [],
            "Durable commits";
        STORE_LAST_COMMIT = Kind::Gauge, "ltkmd_store_last_commit_timestamp_seconds", [],
            "When something was last made durable, to a quarter of a second; 0 before the first commit";
        STORE_DISK = Kind::Gauge, "ltkmd_store_disk_bytes", [],
            "What the store takes on disk, its journals included";
        STORE_JOURNAL = Kind::Gauge, "ltkmd_store_journal_bytes", [],
            "What the store's journals take on disk";
        STORE_FREE = Kind::Gauge, "ltkmd_store_free_bytes", [],
            "What is free on the store's disk";
    }
    "The audit log" {
        AUDIT_ENABLED = Kind::Gauge, "ltkmd_audit_enabled", [],
            "Whether changes by operators are recorded";
        AUDIT_UP = Kind::Gauge, "ltkmd_audit_up", [],
            "Whether the audit log could be written when it was last tried; 0 without one";
        AUDIT_LINES = Kind::Counter, "ltkmd_audit_lines_total", [],
            "Lines written to the audit log";
        AUDIT_ERRORS = Kind::Counter, "ltkmd_audit_errors_total", [],
            "Lines that the audit log could not take";
        AUDIT_FILE = Kind::Gauge, "ltkmd_audit_file_bytes", [],
            "What the audit log's file takes, those it was rotated into not included";
    }
    "The cluster" {
        CLUSTER_ALIVE = Kind::Gauge, "ltkmd_cluster_nodes_alive", [],
            "Daemons on the same store whose leases are good, this one included: 1 on a store of its own";
        CLUSTER_GONE = Kind::Gauge, "ltkmd_cluster_nodes_gone", [],
            "Daemons that stopped renewing their leases without a word, within a day";
        CLUSTER_HELD = Kind::Gauge, "ltkmd_cluster_ranges_held", [],
            "Shard ranges that this daemon holds, of 64: 1 on a store of its own";
        CLUSTER_UNHELD = Kind::Gauge, "ltkmd_cluster_ranges_unheld", [],
            "Shard ranges that no daemon held when this one last renewed its leases";
        CLUSTER_LEASE_LEFT = Kind::Gauge, "ltkmd_cluster_lease_left_seconds", [],
            "Until this daemon's leases end unless they are renewed: about 5, falling when the database is away; 0 on a store of its own";
        CLUSTER_OVERDUE = Kind::Gauge, "ltkmd_cluster_overdue_seconds", [],
            "How late the earliest look at a delivery is that this daemon should have taken";
        CLUSTER_CLOCK_OFFSET = Kind::Gauge, "ltkmd_cluster_clock_offset_seconds", [],
            "How far the database's clock, which counts, is ahead of this machine's; 0 on a store of its own";
    }
    "The daemon" {
        READY = Kind::Gauge, "ltkmd_ready", [],
            "Whether everything works that /readyz looks at";
        START = Kind::Gauge, "ltkmd_start_timestamp_seconds", [],
            "When the daemon started";
        BUILD = Kind::Info, "ltkmd_build_info", [VERSION],
            "The version that runs";
    }
}

/// Every metric.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    GROUPS.iter().flat_map(|(_, metrics)| *metrics)
}
