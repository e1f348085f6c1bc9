//! What operators watch the daemon with: Prometheus' rules and alerts, and Grafana's dashboard. `promtool` judges, and
//! the running binary says which metrics there are.

mod harness;

#[path = "prometheus/dashboard.rs"]
mod dashboard;
#[path = "prometheus/promtool.rs"]
mod promtool;
#[path = "prometheus/rules.rs"]
mod rules;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use harness::Daemon;
use harness::http::request;

/// A path below the configuration that is shipped.
fn config(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(path)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What a running daemon with a service answers to a scraper.
fn scraped() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let daemon = Daemon::start();
        daemon.put_service("urn:s", 1, serde_json::json!({}));
        request(daemon.admin, "GET", "/metrics", &[], b"").text()
    })
}

/// Names of all series of a running daemon.
fn series() -> BTreeSet<&'static str> {
    let lines = scraped().lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split(['{', ' ']).next()).collect()
}

/// The words in a text that are names of our metrics or of series recorded from them.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    words.filter(|word| word.starts_with("ltkmd_") || word.contains(":ltkmd_")).collect()
}

/// Fails when a text names a series that neither the daemon has nor a rule records.
fn assert_known(what: &str, text: &str) {
    let rules = read(&config("prometheus/ltkmd.rules.yml"));
    let recorded: BTreeSet<&str> =
        rules.lines().filter_map(|l| l.trim().strip_prefix("- record: ")).collect();
    assert!(!recorded.is_empty(), "rules record something");
    for name in named(text) {
        // In prose a histogram goes by its own name.
        let histogram = format!("{name}_count");
        let known =
            series().contains(name) || series().contains(histogram.as_str()) || recorded.contains(name);
        assert!(known, "{what} names {name}, which the daemon does not have");
    }
}

#[test]
fn promtool_finds_nothing_to_say_about_the_metrics_of_the_running_daemon() {
    let told = promtool::run_with(&["check", "metrics"], scraped());
    assert_eq!(told, "", "promtool check metrics");
}

#[test]
fn a_metric_that_is_not_well_made_would_be_found() {
    let output = promtool::output(&["check", "metrics"], "# TYPE ltkmd_things counter\nltkmd_things 1\n");
    assert!(!output.status.success(), "no help, no _total");
}
