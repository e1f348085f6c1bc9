//! Every metric of the daemon. All series that do not belong to a service stand at 0 from the start; none has a
//! label that grows with the number of terminals.

mod audit;
mod gauges;
mod glance;
mod hour;
mod outcome;
mod reference;
pub mod table;
mod text;

#[cfg(test)]
mod tests;

pub use gauges::{ClusterGauges, DiskGauges, JobGauges, LaneGauges, ServiceGauges};
pub use glance::Glance;
pub use hour::{MINUTES, Minute};
pub use outcome::{SmsOutcome, SmscFault, UdpOutcome};
pub use reference::reference;
pub use text::Format;

use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{self, Registry};

use self::hour::Hour;
use self::table::{Metric, Values};
use crate::delivery::{Reason, ReceiptState, State};
use crate::id::Method;
use crate::procedure::Procedure;
use crate::time::Timestamp;

type Label = [(&'static str, &'static str); 1];
type Labels2 = [(&'static str, &'static str); 2];
type ServiceLabel = [(&'static str, String); 1];
/// A point in time in seconds since 1970, or another number that may be large.
type Float = Gauge<f64, AtomicU64>;

/// Statuses that an HTTP answer of a procedure may have; the values of the label `status`.
pub const HTTP_STATUSES: [u16; 17] =
    [200, 400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 429, 431, 500, 501, 503, 505];

/// The label `procedure` of requests that name none.
pub const NO_PROCEDURE: &str = "none";

/// The label `reason` of triggers by SMS that another one makes unnecessary.
pub const COALESCED: &str = "coalesced";

/// The label `state` of receipts that cannot be read.
const UNREADABLE: &str = "unreadable";

fn latency() -> Histogram {
    Histogram::new(table::LATENCY)
}

fn delivery() -> Histogram {
    Histogram::new(table::DELIVERY)
}

/// The daemon's metrics.
pub struct Metrics {
    registry: Registry,
    http_requests: Family<Labels2, Counter>,
    http_request_duration: Family<Label, Histogram, fn() -> Histogram>,
    http_connections: Gauge,
    digest_failures: Family<Label, Counter>,
    digest_nonces: Gauge,
    certificate_expires: Float,
    registered_terminals: Family<ServiceLabel, Gauge>,
    key_holders: Family<ServiceLabel, Gauge>,
    key_expires: Family<ServiceLabel, Float>,
    keys_end: Family<ServiceLabel, Float>,
    key_rotation_due: Family<ServiceLabel, Float>,
    ltkm_built: Counter,
    ltkm_sent: Family<Label, Counter>,
    ltkm_verified: Family<Label, Counter>,
    ltkm_failed: Family<Label, Counter>,
    deliveries_open: Family<Label, Gauge>,
    delivery_duration: Family<Label, Histogram, fn() -> Histogram>,
    deliveries_due: Gauge,
    deliveries_next_due: Float,
    udp_received: Family<Label, Counter>,
    sms_enabled: Gauge,
    smsc_up: Gauge,
    smsc_faults: Family<Label, Counter>,
    sms_submitted: Family<Label, Counter>,
    sms_in_flight: Gauge,
    sms_receipts: Family<Label, Counter>,
    sms_held_back: Family<Label, Counter>,
    sms_turns: Gauge,
    sms_next_turn: Float,
    fanout_jobs_running: Gauge,
    fanout_jobs_visiting: Gauge,
    fanout_oldest: Float,
    fanout_visited: Counter,
    fanout_duration: Histogram,
    store_up: Gauge,
    store_errors: Counter,
    store_commit_duration: Histogram,
    store_last_commit: Float,
    store_disk: Float,
    store_journal: Float,
    store_free: Float,
    audit_enabled: Gauge,
    audit_up: Gauge,
    audit_lines: Counter,
    audit_errors: Counter,
    audit_file: Float,
    cluster_alive: Gauge,
    cluster_gone: Gauge,
    cluster_held: Gauge,
    cluster_unheld: Gauge,
    cluster_lease_left: Float,
    cluster_overdue: Float,
    cluster_clock_offset: Float,
    ready: Gauge,
    start: Timestamp,
    hour: Hour,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Registers what the table describes.
struct Registration(Registry);

impl Registration {
    /// A metric without labels, or one whose series come with their services.
    fn add<M: registry::Metric + Clone>(&mut self, described: &Metric, metric: &M) {
        self.0.register(described.family(), described.help, metric.clone());
    }

    /// A family whose label has fixed values: a series for each.
    fn family<M, C>(&mut self, described: &Metric, family: &Family<Label, M, C>)
    where
        M: Clone + 'static,
        C: MetricConstructor<M> + Clone + 'static,
        Family<Label, M, C>: registry::Metric,
    {
        self.add(described, family);
        let [label] = described.labels else { unreachable!("{} has one label", described.name) };
        for value in fixed(label) {
            drop(family.get_or_create(&[(label.name, value)]));
        }
    }

    /// A family of two labels with fixed values: a series for each pair.
    fn family2(&mut self, described: &Metric, family: &Family<Labels2, Counter>) {
        self.add(described, family);
        let [one, other] = described.labels else { unreachable!("{} has two labels", described.name) };
        for value in fixed(one) {
            for second in fixed(other) {
                drop(family.get_or_create(&[(one.name, value), (other.name, second)]));
            }
        }
    }
}

fn fixed(label: &table::Label) -> Vec<&'static str> {
    match label.values {
        Values::Fixed(values) => values(),
        Values::Services | Values::Version => Vec::new(),
    }
}

fn gauge(gauge: &Gauge, value: impl TryInto<i64>) {
    gauge.set(value.try_into().unwrap_or(i64::MAX));
}

fn moment(gauge: &Float, at: Option<Timestamp>) {
    gauge.set(at.map_or(0.0, |at| at.0 as f64 / 1000.0));
}

impl Metrics {
    /// Registers everything at 0. Now is the daemon's start.
    pub fn new() -> Self {
        let m = Self {
            registry: Registry::default(),
            http_requests: Family::default(),
            http_request_duration: Family::new_with_constructor(latency),
            http_connections: Gauge::default(),
            digest_failures: Family::default(),
            digest_nonces: Gauge::default(),
            certificate_expires: Float::default(),
            registered_terminals: Family::default(),
            key_holders: Family::default(),
            key_expires: Family::default(),
            keys_end: Family::default(),
            key_rotation_due: Family::default(),
            ltkm_built: Counter::default(),
            ltkm_sent: Family::default(),
            ltkm_verified: Family::default(),
            ltkm_failed: Family::default(),
            deliveries_open: Family::default(),
            delivery_duration: Family::new_with_constructor(delivery),
            deliveries_due: Gauge::default(),
            deliveries_next_due: Float::default(),
            udp_received: Family::default(),
            sms_enabled: Gauge::default(),
            smsc_up: Gauge::default(),
            smsc_faults: Family::default(),
            sms_submitted: Family::default(),
            sms_in_flight: Gauge::default(),
            sms_receipts: Family::default(),
            sms_held_back: Family::default(),
            sms_turns: Gauge::default(),
            sms_next_turn: Float::default(),
            fanout_jobs_running: Gauge::default(),
            fanout_jobs_visiting: Gauge::default(),
            fanout_oldest: Float::default(),
            fanout_visited: Counter::default(),
            fanout_duration: Histogram::new(table::FANOUT),
            store_up: Gauge::default(),
            store_errors: Counter::default(),
            store_commit_duration: latency(),
            store_last_commit: Float::default(),
            store_disk: Float::default(),
            store_journal: Float::default(),
            store_free: Float::default(),
            audit_enabled: Gauge::default(),
            audit_up: Gauge::default(),
            audit_lines: Counter::default(),
            audit_errors: Counter::default(),
            audit_file: Float::default(),
            cluster_alive: Gauge::default(),
            cluster_gone: Gauge::default(),
            cluster_held: Gauge::default(),
            cluster_unheld: Gauge::default(),
            cluster_lease_left: Float::default(),
            cluster_overdue: Float::default(),
            cluster_clock_offset: Float::default(),
            ready: Gauge::default(),
            start: Timestamp::now(),
            hour: Hour::default(),
        };
        let mut r = Registration(Registry::default());
        r.family2(&table::HTTP_REQUESTS, &m.http_requests);
        r.family(&table::HTTP_REQUEST_DURATION, &m.http_request_duration);
        r.add(&table::HTTP_CONNECTIONS, &m.http_connections);
        r.family(&table::DIGEST_FAILURES, &m.digest_failures);
        r.add(&table::DIGEST_NONCES, &m.digest_nonces);
        r.add(&table::TLS_CERTIFICATE_EXPIRES, &m.certificate_expires);
        r.add(&table::REGISTERED_TERMINALS, &m.registered_terminals);
        r.add(&table::KEY_HOLDERS, &m.key_holders);
        r.add(&table::KEY_EXPIRES, &m.key_expires);
        r.add(&table::KEYS_END, &m.keys_end);
        r.add(&table::KEY_ROTATION_DUE, &m.key_rotation_due);
        r.add(&table::LTKM_BUILT, &m.ltkm_built);
        r.family(&table::LTKM_SENT, &m.ltkm_sent);
        r.family(&table::LTKM_VERIFIED, &m.ltkm_verified);
        r.family(&table::LTKM_FAILED, &m.ltkm_failed);
        r.family(&table::DELIVERIES_OPEN, &m.deliveries_open);
        r.family(&table::DELIVERY_DURATION, &m.delivery_duration);
        r.add(&table::DELIVERIES_DUE, &m.deliveries_due);
        r.add(&table::DELIVERIES_NEXT_DUE, &m.deliveries_next_due);
        r.family(&table::UDP_RECEIVED, &m.udp_received);
        r.add(&table::SMS_ENABLED, &m.sms_enabled);
        r.add(&table::SMSC_UP, &m.smsc_up);
        r.family(&table::SMSC_FAULTS, &m.smsc_faults);
        r.family(&table::SMS_SUBMITTED, &m.sms_submitted);
        r.add(&table::SMS_IN_FLIGHT, &m.sms_in_flight);
        r.family(&table::SMS_RECEIPTS, &m.sms_receipts);
        r.family(&table::SMS_HELD_BACK_TOTAL, &m.sms_held_back);
        r.add(&table::SMS_TURNS, &m.sms_turns);
        r.add(&table::SMS_NEXT_TURN, &m.sms_next_turn);
        r.add(&table::FANOUT_JOBS_RUNNING, &m.fanout_jobs_running);
        r.add(&table::FANOUT_JOBS_VISITING, &m.fanout_jobs_visiting);
        r.add(&table::FANOUT_OLDEST, &m.fanout_oldest);
        r.add(&table::FANOUT_VISITED, &m.fanout_visited);
        r.add(&table::FANOUT_DURATION, &m.fanout_duration);
        r.add(&table::STORE_UP, &m.store_up);
        r.add(&table::STORE_ERRORS, &m.store_errors);
        r.add(&table::STORE_COMMIT_DURATION, &m.store_commit_duration);
        r.add(&table::STORE_LAST_COMMIT, &m.store_last_commit);
        r.add(&table::STORE_DISK, &m.store_disk);
        r.add(&table::STORE_JOURNAL, &m.store_journal);
        r.add(&table::STORE_FREE, &m.store_free);
        r.add(&table::AUDIT_ENABLED, &m.audit_enabled);
        r.add(&table::AUDIT_UP, &m.audit_up);
        r.add(&table::AUDIT_LINES, &m.audit_lines);
        r.add(&table::AUDIT_ERRORS, &m.audit_errors);
        r.add(&table::AUDIT_FILE, &m.audit_file);
        r.add(&table::CLUSTER_ALIVE, &m.cluster_alive);
        r.add(&table::CLUSTER_GONE, &m.cluster_gone);
        r.add(&table::CLUSTER_HELD, &m.cluster_held);
        r.add(&table::CLUSTER_UNHELD, &m.cluster_unheld);
        r.add(&table::CLUSTER_LEASE_LEFT, &m.cluster_lease_left);
        r.add(&table::CLUSTER_OVERDUE, &m.cluster_overdue);
        r.add(&table::CLUSTER_CLOCK_OFFSET, &m.cluster_clock_offset);
        r.add(&table::READY, &m.ready);
        let start = Float::default();
        moment(&start, Some(m.start));
        r.add(&table::START, &start);
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        r.0.register(table::BUILD.family(), table::BUILD.help, version);
        Self { registry: r.0, ..m }
    }

    /// All metrics as text, in the format that everything reads.
    pub fn encode(&self) -> String {
        self.encode_as(Format::Plain)
    }

    /// All metrics as text.
    pub fn encode_as(&self, format: Format) -> String {
        text::encode(&self.registry, format)
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
        self.hour.sent(Timestamp::now(), method, count);
    }

    /// A delivery verified, so many seconds after it was queued.
    pub fn verified(&self, method: Method, seconds: f64) {
        self.ltkm_verified.get_or_create(&[("method", method.as_str())]).inc();
        self.delivery_duration.get_or_create(&[("method", method.as_str())]).observe(seconds);
        self.hour.verified(Timestamp::now(), method, seconds);
    }

    /// Deliveries that failed.
    pub fn failed(&self, reason: Reason, count: u64) {
        self.ltkm_failed.get_or_create(&[("reason", reason.as_str())]).inc_by(count);
        self.hour.failed(Timestamp::now(), reason, count);
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
        gauge(&self.sms_in_flight, submissions);
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

    /// The jobs that are open now.
    pub fn fanout_jobs(&self, jobs: JobGauges) {
        gauge(&self.fanout_jobs_running, jobs.running);
        gauge(&self.fanout_jobs_visiting, jobs.visiting);
        moment(&self.fanout_oldest, jobs.oldest);
    }

    /// A page of terminals was visited.
    pub fn fanout_visited(&self, terminals: usize) {
        self.fanout_visited.inc_by(terminals as u64);
    }

    /// Whether triggers are sent by SMS at all.
    pub fn sms_enabled(&self, enabled: bool) {
        self.sms_enabled.set(enabled.into());
    }

    /// Looks at deliveries, and turns by SMS, that are noted.
    pub fn lanes(&self, looks: LaneGauges, turns: LaneGauges) {
        gauge(&self.deliveries_due, looks.entries);
        moment(&self.deliveries_next_due, looks.next);
        gauge(&self.sms_turns, turns.entries);
        moment(&self.sms_next_turn, turns.next);
    }

    /// When the first certificate of the terminal-facing chain ends; `None` without TLS.
    pub fn certificate_expires(&self, at: Option<Timestamp>) {
        moment(&self.certificate_expires, at);
    }

    /// Whether everything works that readiness is about.
    pub fn ready(&self, ready: bool) {
        self.ready.set(ready.into());
    }

    /// Whether the store writes.
    pub fn store_up(&self, up: bool) {
        self.store_up.set(up.into());
    }

    /// The store's disk.
    pub fn store_disk(&self, disk: DiskGauges) {
        self.store_disk.set(disk.taken as f64);
        self.store_journal.set(disk.journals as f64);
        self.store_free.set(disk.free.map_or(f64::NAN, |free| free as f64));
    }

    /// The daemons that share the store.
    pub fn cluster(&self, cluster: ClusterGauges) {
        gauge(&self.cluster_alive, cluster.alive);
        gauge(&self.cluster_gone, cluster.gone);
        gauge(&self.cluster_held, cluster.held);
        gauge(&self.cluster_unheld, cluster.unheld);
        self.cluster_lease_left.set(cluster.lease_left);
        self.cluster_overdue.set(cluster.overdue);
        self.cluster_clock_offset.set(cluster.clock_offset);
    }

    /// Durable commits took so many seconds each, the last of them a moment before `now`.
    pub fn committed(&self, seconds: &[f64], now: Timestamp) {
        for seconds in seconds {
            self.store_commit_duration.observe(*seconds);
            self.hour.committed(now, *seconds);
        }
        if !seconds.is_empty() {
            moment(&self.store_last_commit, Some(now));
        }
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
        gauge(&self.digest_nonces, remembered);
    }

    /// A service as it is now.
    pub fn service(&self, id: &str, service: ServiceGauges) {
        let label = [("service", id.to_owned())];
        gauge(&self.registered_terminals.get_or_create(&label), service.terminals);
        gauge(&self.key_holders.get_or_create(&label), service.holders);
        moment(&self.key_expires.get_or_create(&label), service.key_expires);
        moment(&self.keys_end.get_or_create(&label), service.keys_end);
        moment(&self.key_rotation_due.get_or_create(&label), service.rotation_due);
    }

    /// A service is gone.
    pub fn forget_service(&self, id: &str) {
        let label = [("service", id.to_owned())];
        self.registered_terminals.remove(&label);
        self.key_holders.remove(&label);
        for family in [&self.key_expires, &self.keys_end, &self.key_rotation_due] {
            family.remove(&label);
        }
    }

    /// Open deliveries by state.
    pub fn open(&self, counts: &[u64; State::ALL.len()]) {
        for state in State::ALL.into_iter().filter(|s| s.is_open()) {
            gauge(&self.deliveries_open.get_or_create(&[("state", state.as_str())]), counts[state as usize]);
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
