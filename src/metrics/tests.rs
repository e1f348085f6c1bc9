//! The table, the registry and the documentation say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::table::{self, Kind, Metric, Values};
use super::{Format, Metrics, ServiceGauges, reference};
use crate::time::Timestamp;

/// A series: its metric, its name, its labels, its value.
type Series<'a> = (&'static Metric, &'a str, BTreeMap<&'a str, &'a str>, f64);

/// The metric that a series of this name belongs to.
fn metric_of(name: &str) -> Option<&'static Metric> {
    table::all().find(|metric| match metric.kind {
        Kind::Histogram(_) => {
            let suffix = name.strip_prefix(metric.name);
            suffix.is_some_and(|s| ["_bucket", "_sum", "_count"].contains(&s))
        }
        _ => metric.name == name,
    })
}

fn series(text: &str) -> Vec<Series<'_>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}').unwrap();
            let pairs = labels.split(',').filter(|l| !l.is_empty()).map(|l| l.split_once('=').unwrap());
            let labels = pairs.map(|(name, value)| (name, value.trim_matches('"'))).collect();
            (
                metric_of(name).unwrap_or_else(|| panic!("{name} is in the table")),
                name,
                labels,
                value.parse().unwrap(),
            )
        })
        .collect()
}

fn with_a_service() -> Metrics {
    let metrics = Metrics::new();
    metrics.service("urn:a", ServiceGauges { terminals: 3, ..ServiceGauges::default() });
    metrics
}

#[test]
fn every_metric_of_the_table_is_registered_with_all_its_series() {
    let metrics = with_a_service();
    let text = metrics.encode();
    let series = series(&text);
    for metric in table::all() {
        let mut wanted = 1;
        for label in metric.labels {
            if let Values::Fixed(values) = label.values {
                wanted *= values().len();
            }
        }
        if let Kind::Histogram(bounds) = metric.kind {
            // One for +Inf, the sum and the count.
            wanted *= bounds.len() + 3;
        }
        let found: Vec<_> = series.iter().filter(|(of, ..)| of.name == metric.name).collect();
        assert_eq!(found.len(), wanted, "{}", metric.name);
        for (_, name, labels, _) in found {
            let names: BTreeSet<_> = labels.keys().copied().filter(|l| *l != "le").collect();
            assert_eq!(names, metric.labels.iter().map(|l| l.name).collect(), "{name}");
            for label in metric.labels {
                if let Values::Fixed(values) = label.values {
                    assert!(values().contains(&labels[label.name]), "{name} {labels:?}");
                }
            }
        }
    }
}

#[test]
fn every_series_stands_at_zero_from_the_start() {
    let text = Metrics::new().encode();
    for (metric, name, labels, value) in series(&text) {
        let set = [table::START.name, table::BUILD.name].contains(&metric.name);
        assert!(set || value == 0.0, "{name} {labels:?} {value}");
    }
    for series in [
        "ltkmd_http_requests_total{procedure=\"msk_request\",status=\"503\"} 0",
        "ltkmd_http_request_duration_seconds_count{procedure=\"register\"} 0",
        "ltkmd_digest_failures_total{reason=\"stale\"} 0",
        "ltkmd_ltkm_failed_total{reason=\"no_method\"} 0",
        "ltkmd_deliveries_open{state=\"awaiting_pull\"} 0",
        "ltkmd_udp_received_total{outcome=\"wrong_mac\"} 0",
        "ltkmd_sms_receipts_total{state=\"unreadable\"} 0",
        "ltkmd_fanout_jobs_running 0",
    ] {
        assert!(text.contains(series), "{series} is missing in\n{text}");
    }
}

#[test]
fn names_are_unique_and_say_kind_and_unit() {
    let mut names = BTreeSet::new();
    for metric in table::all() {
        let name = metric.name;
        assert!(names.insert(metric.family()), "{name} is there once");
        assert!(
            name.starts_with("ltkmd_") && !metric.help.ends_with('.') && !metric.help.is_empty(),
            "{name}"
        );
        assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
        assert_eq!(name.ends_with("_info"), metric.kind == Kind::Info, "{name}");
        assert!(!matches!(metric.kind, Kind::Histogram(_)) || name.ends_with("_seconds"), "{name}");
        for word in ["millis", "minutes", "kib", "octets", "_timestamp"] {
            assert!(!name.contains(word) || name.ends_with("_timestamp_seconds"), "{name} is in base units");
        }
    }
}

#[test]
fn each_format_describes_every_family_in_its_own_way() {
    let metrics = Metrics::new();
    let plain = metrics.encode();
    assert!(plain.contains("# TYPE ltkmd_ltkm_built_total counter\nltkmd_ltkm_built_total 0\n"));
    assert!(plain.contains("# TYPE ltkmd_build_info gauge\nltkmd_build_info{"));
    assert!(plain.contains("# HELP ltkmd_registered_terminals Terminals registered for a service.\n"));
    assert!(!plain.contains("# EOF"));
    let open = metrics.encode_as(Format::OpenMetrics);
    assert!(open.contains("# TYPE ltkmd_ltkm_built counter\nltkmd_ltkm_built_total 0\n"));
    assert!(open.contains("# TYPE ltkmd_build info\nltkmd_build_info{"));
    assert!(open.ends_with("\n# EOF\n"));
    for metric in table::all() {
        assert!(plain.contains(&format!("# TYPE {} ", metric.name)), "{}", metric.name);
        assert!(open.contains(&format!("# TYPE {} ", metric.family())), "{}", metric.name);
    }
}

#[test]
fn a_service_that_is_gone_leaves_no_series() {
    let metrics = Metrics::new();
    let at = |secs| Some(Timestamp::from_secs(secs));
    metrics.service(
        "urn:a",
        ServiceGauges {
            terminals: 3,
            holders: 2,
            key_expires: at(1_800_000_000),
            keys_end: at(1_900_000_000),
            rotation_due: at(1_700_000_000),
        },
    );
    let text = metrics.encode();
    for series in [
        "ltkmd_registered_terminals{service=\"urn:a\"} 3\n",
        "ltkmd_key_holders{service=\"urn:a\"} 2\n",
        "ltkmd_key_expires_timestamp_seconds{service=\"urn:a\"} 1800000000",
        "ltkmd_keys_end_timestamp_seconds{service=\"urn:a\"} 1900000000",
        "ltkmd_key_rotation_due_timestamp_seconds{service=\"urn:a\"} 1700000000",
    ] {
        assert!(text.contains(series), "{series} is missing in\n{text}");
    }
    metrics.forget_service("urn:a");
    assert!(!metrics.encode().contains("urn:a"));
}

#[test]
fn commits_are_counted_and_the_last_one_is_dated() {
    let metrics = Metrics::new();
    let now = Timestamp::from_secs(1_800_000_000);
    metrics.committed(&[], now);
    assert!(metrics.encode().contains("ltkmd_store_last_commit_timestamp_seconds 0.0\n"));
    metrics.committed(&[0.001, 0.002], now);
    let text = metrics.encode();
    assert!(text.contains("ltkmd_store_last_commit_timestamp_seconds 1800000000.0\n"), "{text}");
    assert!(text.contains("ltkmd_store_commit_duration_seconds_count 2\n"));
}

/// With `UPDATE_REFERENCE=1` in the environment the tables are written anew.
#[test]
fn the_documentation_has_the_tables_of_metrics() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let text = std::fs::read_to_string(&path).unwrap();
    const BEGIN: &str = "<!-- the table of metrics -->\n";
    const END: &str = "<!-- its end -->";
    let (head, rest) = text.split_once(BEGIN).expect("a mark before the tables");
    let (tables, tail) = rest.split_once(END).expect("a mark behind them");
    let wanted = format!("\n{}\n", reference());
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, format!("{head}{BEGIN}{wanted}{END}{tail}")).unwrap();
        return;
    }
    assert_eq!(tables, wanted, "UPDATE_REFERENCE=1 cargo test writes them anew");
}
