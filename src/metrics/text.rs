//! The two text formats: families in the table's order, with their help even while they have no series.

use std::collections::HashMap;

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use super::table::{self, Kind, Metric};

/// A text format that scrapers read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own, version 0.0.4: counters and infos are described by the names of their series.
    Plain,
    /// OpenMetrics 1.0.0: they are described by their families' names, and the text has an end.
    OpenMetrics,
}

impl Format {
    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// How it calls a metric, and of which type.
    fn described(self, metric: &Metric) -> (&'static str, &'static str) {
        match (self, metric.kind) {
            (Self::Plain, kind) => (metric.name, kind.as_str()),
            (Self::OpenMetrics, Kind::Info) => (metric.family(), "info"),
            (Self::OpenMetrics, kind) => (metric.family(), kind.as_str()),
        }
    }
}

/// All metrics of a registry that the table has.
pub(super) fn encode(registry: &Registry, format: Format) -> String {
    let mut encoded = String::new();
    text::encode_registry(&mut encoded, registry).expect("writing to a string does not fail");
    let mut series: HashMap<&str, Vec<&str>> = HashMap::new();
    let mut family = "";
    for line in encoded.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(described) => family = described.split(' ').next().unwrap_or_default(),
            None if line.starts_with('#') => {}
            None => series.entry(family).or_default().push(line),
        }
    }
    let mut out = String::with_capacity(encoded.len() + 1024);
    for metric in table::all() {
        let (name, kind) = format.described(metric);
        for part in ["# HELP ", name, " ", metric.help, ".\n# TYPE ", name, " ", kind, "\n"] {
            out.push_str(part);
        }
        for line in series.get(metric.family()).into_iter().flatten() {
            out.push_str(line);
            out.push('\n');
        }
    }
    if format == Format::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}
