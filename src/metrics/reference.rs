//! The table of metrics for readers.

use std::fmt::Write;

use super::table::{GROUPS, Kind, Label, Metric, Values};

fn kind_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram(_) => "histogram",
        Kind::Info => "info",
    }
}

fn values_of(label: &Label) -> String {
    match label.values {
        Values::Fixed(values) => values().iter().map(|v| format!("`{v}`")).collect::<Vec<_>>().join(" "),
        Values::Services => "each service's id".to_owned(),
        Values::Version => "the version".to_owned(),
    }
}

fn meaning_of(metric: &Metric) -> String {
    let Kind::Histogram(bounds) = metric.kind else { return metric.help.to_owned() };
    let bounds = bounds.iter().map(f64::to_string).collect::<Vec<_>>().join(" ");
    format!("{}, in seconds. Buckets: {bounds}", metric.help)
}

/// All metrics as Markdown, a table for each group: what `docs/metrics.md` holds.
pub fn reference() -> String {
    let mut text = String::new();
    for (group, metrics) in GROUPS {
        // Writing to a String cannot fail.
        let _ =
            writeln!(text, "### {group}\n\n| name | type | labels | meaning |\n| --- | --- | --- | --- |");
        for metric in *metrics {
            let labels = metric.labels.iter().map(|l| format!("`{}`: {}", l.name, values_of(l)));
            let labels = labels.collect::<Vec<_>>().join("; ");
            let labels = if labels.is_empty() { "–" } else { &labels };
            let (kind, meaning) = (kind_of(metric.kind), meaning_of(metric));
            let _ = writeln!(text, "| `{}` | {kind} | {labels} | {meaning} |", metric.name);
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}
