//! The metrics as a scraper gets them from the running binary.

use std::collections::{BTreeMap, BTreeSet};

use ltkmd::metrics::table::{self, Kind};
use serde_json::json;

use crate::harness::Daemon;
use crate::harness::http::request;
use crate::harness::terminal::Terminal;

const HTTP: Option<&[u8]> = Some(&[2]);

/// The names that the daemon's interface promises, without the prefix.
const PROMISED: [&str; 19] = [
    "http_requests_total",
    "http_request_duration_seconds",
    "digest_failures_total",
    "registered_terminals",
    "ltkm_built_total",
    "ltkm_sent_total",
    "ltkm_verified_total",
    "ltkm_failed_total",
    "deliveries_open",
    "delivery_duration_seconds",
    "udp_received_total",
    "sms_submitted_total",
    "smsc_up",
    "fanout_jobs_running",
    "fanout_duration_seconds",
    "store_commit_duration_seconds",
    "store_errors_total",
    "key_expires_timestamp_seconds",
    "build_info",
];

/// What is not 0 in a daemon that has served nobody.
const SET: [&str; 16] = [
    "ltkmd_start_timestamp_seconds",
    "ltkmd_build_info",
    "ltkmd_ready",
    "ltkmd_store_up",
    "ltkmd_store_disk_bytes",
    "ltkmd_store_journal_bytes",
    "ltkmd_store_free_bytes",
    "ltkmd_store_last_commit_timestamp_seconds",
    "ltkmd_store_commit_duration_seconds",
    "ltkmd_digest_nonces",
    "ltkmd_audit_enabled",
    "ltkmd_audit_up",
    "ltkmd_audit_lines_total",
    "ltkmd_audit_file_bytes",
    "ltkmd_cluster_nodes_alive",
    "ltkmd_cluster_ranges_held",
];

fn scrape(daemon: &Daemon) -> String {
    let reply = request(daemon.admin, "GET", "/metrics", &[], b"");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    reply.text()
}

/// Series with their values.
fn series(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').map(|(s, v)| (s, v.parse().expect("a number"))).expect("a value"))
        .collect()
}

fn described(text: &str) -> BTreeSet<&str> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect()
}

#[test]
fn every_metric_is_there_from_the_start_and_nothing_was_counted_yet() {
    let daemon = Daemon::start();
    let text = scrape(&daemon);
    let described = described(&text);
    assert_eq!(described, table::all().map(|m| m.name).collect(), "the table and the binary agree");
    for name in PROMISED {
        assert!(described.contains(format!("ltkmd_{name}").as_str()), "{name}");
    }
    let series = series(&text);
    for metric in table::all().filter(|m| !m.labels.iter().any(|l| l.name == "service")) {
        let first = match metric.kind {
            Kind::Histogram(_) => format!("{}_count", metric.name),
            _ => metric.name.to_owned(),
        };
        let of_this = |series: &str| series == first || series.starts_with(&format!("{first}{{"));
        let values: Vec<f64> = series.iter().filter(|(s, _)| of_this(s)).map(|(_, v)| *v).collect();
        assert!(!values.is_empty(), "{} has a series", metric.name);
        assert!(
            SET.contains(&metric.name) || values.iter().all(|v| *v == 0.0),
            "{}: {values:?}",
            metric.name
        );
    }
    daemon.await_metric("ltkmd_store_up", 1.0);
    daemon.await_metric("ltkmd_ready", 1.0);
    daemon.await_state("the disk", |d| (d.metric("ltkmd_store_free_bytes") > 0.0).then_some(()));
    assert!(daemon.metric("ltkmd_store_disk_bytes") >= daemon.metric("ltkmd_store_journal_bytes"));
}

#[test]
fn terminals_bring_counts_and_no_series() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({"rotate_every": "24h"}));
    daemon.await_metric("ltkmd_registered_terminals{service=\"urn:s\"}", 0.0);
    let before = scrape(&daemon);
    for _ in 0..5 {
        Terminal::provision(&daemon, &[]).register(&["urn:s"], HTTP);
    }
    daemon.rotate("urn:s", None);
    daemon.await_metric("ltkmd_registered_terminals{service=\"urn:s\"}", 5.0);
    daemon.await_metric("ltkmd_fanout_visited_total", 5.0);
    assert_eq!(daemon.metric("ltkmd_http_requests_total{procedure=\"register\",status=\"200\"}"), 5.0);
    assert_eq!(daemon.metric("ltkmd_fanout_jobs_visiting"), 0.0);
    assert!(
        daemon.metric("ltkmd_store_last_commit_timestamp_seconds")
            > daemon.metric("ltkmd_start_timestamp_seconds")
    );
    let end = daemon.metric("ltkmd_keys_end_timestamp_seconds{service=\"urn:s\"}");
    assert!(daemon.metric("ltkmd_key_rotation_due_timestamp_seconds{service=\"urn:s\"}") < end);
    let after = scrape(&daemon);
    let names = |text: &str| series(text).keys().map(|s| (*s).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(names(&before), names(&after));
}

#[test]
fn who_asks_for_open_metrics_gets_them() {
    let daemon = Daemon::start();
    let accept = ("Accept", "application/openmetrics-text; version=1.0.0,text/plain;q=0.5");
    let reply = request(daemon.admin, "GET", "/metrics", &[accept], b"");
    let media = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(reply.header("content-type"), Some(media));
    assert!(reply.text().ends_with("\n# EOF\n"));
    assert_eq!(described(&reply.text()), table::all().map(|m| m.family()).collect());
}
