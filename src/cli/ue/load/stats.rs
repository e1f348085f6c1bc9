//! What a load run counts, and the tables it ends with.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::cli::ue::report::table;
use crate::id::Method;
use crate::procedure::Procedure;

/// The longest latency that is told apart, in microseconds: two minutes.
const MAX_MICROS: u64 = 120_000_000;

/// The percentiles of the closing table.
const PERCENTILES: [(&str, f64); 4] = [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9)];

/// What one connection saw; those of all are added at the end.
#[derive(Debug)]
pub(super) struct Tally {
    latencies: [Histogram<u64>; 3],
    statuses: BTreeMap<u16, u64>,
    items: BTreeMap<u16, u64>,
    errors: BTreeMap<String, u64>,
    exchanges: u64,
}

impl Tally {
    pub(super) fn new() -> Self {
        let histogram = || {
            Histogram::new_with_max(MAX_MICROS, 3).expect("three digits up to two minutes are within bounds")
        };
        Self {
            latencies: [histogram(), histogram(), histogram()],
            statuses: BTreeMap::new(),
            items: BTreeMap::new(),
            errors: BTreeMap::new(),
            exchanges: 0,
        }
    }

    pub(super) fn answered(&mut self, procedure: Procedure, status: u16, took: Duration, exchanges: usize) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(MAX_MICROS);
        self.latencies[procedure as usize].saturating_record(micros);
        *self.statuses.entry(status).or_default() += 1;
        self.exchanges += exchanges as u64;
        if status != 200 {
            self.error(format!("status {status}"));
        }
    }

    pub(super) fn item(&mut self, code: u16) {
        *self.items.entry(code).or_default() += 1;
        if code != 200 {
            self.error(format!("item {code}"));
        }
    }

    pub(super) fn error(&mut self, kind: impl Into<String>) {
        self.errors_of(kind, 1);
    }

    pub(super) fn errors_of(&mut self, kind: impl Into<String>, count: u64) {
        if count > 0 {
            *self.errors.entry(kind.into()).or_default() += count;
        }
    }

    /// Adds what another connection saw.
    pub(super) fn add(&mut self, other: &Self) {
        for (own, others) in self.latencies.iter_mut().zip(&other.latencies) {
            own.add(others).expect("all histograms have the same bounds");
        }
        let sum = |own: &mut BTreeMap<u16, u64>, others: &BTreeMap<u16, u64>| {
            others.iter().for_each(|(code, n)| *own.entry(*code).or_default() += n);
        };
        sum(&mut self.statuses, &other.statuses);
        sum(&mut self.items, &other.items);
        other.errors.iter().for_each(|(kind, n)| self.errors_of(kind.clone(), *n));
        self.exchanges += other.exchanges;
    }

    fn requests(&self) -> u64 {
        self.statuses.values().sum()
    }

    pub(super) fn is_faultless(&self) -> bool {
        self.errors.is_empty()
    }

    pub(super) fn faults(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// What all connections and ports count together, while it happens.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) requests: AtomicU64,
    pub(super) ltkms: [AtomicU64; 2],
    pub(super) keys: AtomicU64,
    pub(super) invalidations: AtomicU64,
    pub(super) acknowledged: AtomicU64,
    pub(super) unopened: AtomicU64,
    pub(super) overtaken: AtomicU64,
    pub(super) strangers: AtomicU64,
    pub(super) unsent: AtomicU64,
    pub(super) port_errors: AtomicU64,
}

impl Live {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The counter of LTKMs that came this way.
    pub(super) fn ltkms(&self, method: Method) -> &AtomicU64 {
        &self.ltkms[usize::from(method == Method::Udp)]
    }

    pub(super) fn read(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    /// All LTKMs accepted by now.
    pub(super) fn accepted(&self) -> u64 {
        self.ltkms.iter().map(Self::read).sum()
    }

    /// Adds the LTKM side's errors to a tally.
    pub(super) fn settle(&self, tally: &mut Tally) {
        for (counter, kind) in [
            (&self.unopened, "LTKM not opened"),
            (&self.overtaken, "LTKM replayed or overtaken"),
            (&self.strangers, "LTKM for nobody here"),
            (&self.unsent, "verification not sent"),
            (&self.port_errors, "LTKM port failed"),
        ] {
            tally.errors_of(kind, Self::read(counter));
        }
    }
}

/// A whole run, as it is told at the end.
pub(super) struct Summary<'a> {
    pub(super) tally: &'a Tally,
    pub(super) live: &'a Live,
    pub(super) terminals: usize,
    pub(super) connections: usize,
    /// How long requests were made.
    pub(super) took: Duration,
    /// What the daemon's own counter of verified LTKMs rose by, when it could be asked.
    pub(super) verified: Option<u64>,
}

impl Summary<'_> {
    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// The closing tables.
    pub(super) fn print(&self) {
        let (tally, live) = (self.tally, self.live);
        let requests = tally.requests();
        println!(
            "{requests} requests in {:.2} s: {:.0}/s, {} HTTP exchanges; {} terminals on {} connections\n",
            self.took.as_secs_f64(),
            self.per_second(requests),
            tally.exchanges,
            self.terminals,
            self.connections,
        );
        let mut head = vec!["PROCEDURE", "REQUESTS", "PER SECOND"];
        head.extend(PERCENTILES.map(|(name, _)| name));
        head.push("MAX");
        let mut latencies = table(&head);
        for procedure in Procedure::ALL {
            let latency = &tally.latencies[procedure as usize];
            if latency.is_empty() {
                continue;
            }
            let mut row = vec![
                procedure.request_type().to_owned(),
                latency.len().to_string(),
                format!("{:.0}", self.per_second(latency.len())),
            ];
            row.extend(PERCENTILES.map(|(_, percent)| millis(latency.value_at_percentile(percent))));
            row.push(millis(latency.max()));
            latencies.add_row(row);
        }
        println!("{latencies}\n");

        let mut counts = table(&["WHAT", "COUNT"]);
        let mut row = |what: String, count: u64| {
            counts.add_row([what, count.to_string()]);
        };
        tally.statuses.iter().for_each(|(status, n)| row(format!("status {status}"), *n));
        tally.items.iter().for_each(|(code, n)| row(format!("item {code}"), *n));
        row("LTKMs inside answers".to_owned(), Live::read(live.ltkms(Method::Http)));
        row("LTKMs by UDP".to_owned(), Live::read(live.ltkms(Method::Udp)));
        row("keys".to_owned(), Live::read(&live.keys));
        row("invalidations".to_owned(), Live::read(&live.invalidations));
        row("verification messages sent".to_owned(), Live::read(&live.acknowledged));
        if let Some(verified) = self.verified {
            row("LTKMs verified, by the daemon's count".to_owned(), verified);
        }
        println!("{counts}");
        if !tally.errors.is_empty() {
            let mut errors = table(&["ERROR", "COUNT"]);
            tally.errors.iter().for_each(|(kind, n)| {
                errors.add_row([kind.clone(), n.to_string()]);
            });
            println!("\n{errors}");
        }
    }

    /// The same for programs; latencies are microseconds.
    pub(super) fn json(&self) -> Value {
        let (tally, live) = (self.tally, self.live);
        let latency = |procedure: Procedure| {
            let latency = &tally.latencies[procedure as usize];
            let mut told = json!({ "requests": latency.len(), "max": latency.max() });
            for (name, percent) in PERCENTILES {
                told[name] = json!(latency.value_at_percentile(percent));
            }
            (procedure.request_type().to_owned(), told)
        };
        let latencies: serde_json::Map<_, _> = Procedure::ALL.into_iter().map(latency).collect();
        json!({
            "seconds": self.took.as_secs_f64(),
            "terminals": self.terminals,
            "connections": self.connections,
            "requests": tally.requests(),
            "requests_per_second": self.per_second(tally.requests()),
            "exchanges": tally.exchanges,
            "latency_us": latencies,
            "statuses": tally.statuses,
            "items": tally.items,
            "ltkms": {
                "http": Live::read(live.ltkms(Method::Http)),
                "udp": Live::read(live.ltkms(Method::Udp)),
                "keys": Live::read(&live.keys),
                "invalidations": Live::read(&live.invalidations),
                "acknowledged": Live::read(&live.acknowledged),
                "verified": self.verified,
            },
            "errors": tally.errors,
        })
    }
}

fn millis(micros: u64) -> String {
    format!("{:.2} ms", micros as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connections_saw_adds_up() {
        let (mut one, mut two) = (Tally::new(), Tally::new());
        one.answered(Procedure::Register, 200, Duration::from_millis(1), 2);
        one.item(200);
        two.answered(Procedure::Register, 503, Duration::from_millis(3), 1);
        two.item(403);
        two.error("no connection");
        one.add(&two);
        assert_eq!((one.requests(), one.exchanges, one.faults()), (2, 3, 3));
        assert_eq!(one.latencies[Procedure::Register as usize].len(), 2);
        let errors: Vec<&str> = one.errors.keys().map(String::as_str).collect();
        assert_eq!(errors, ["item 403", "no connection", "status 503"]);
        assert!(!one.is_faultless() && Tally::new().is_faultless());
    }

    #[test]
    fn what_went_wrong_with_ltkms_is_an_error_of_the_run() {
        let (live, mut tally) = (Live::default(), Tally::new());
        live.settle(&mut tally);
        assert!(tally.is_faultless());
        Live::count(&live.overtaken);
        live.settle(&mut tally);
        assert_eq!(tally.faults(), 1);
    }

    #[test]
    fn a_latency_beyond_the_bounds_is_counted_at_them() {
        let mut tally = Tally::new();
        tally.answered(Procedure::Deregister, 200, Duration::from_secs(3600), 1);
        assert!(tally.latencies[Procedure::Deregister as usize].max() >= MAX_MICROS);
    }
}
