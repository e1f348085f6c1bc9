//! Recording rules and alerts, and the proofs of each on made-up series.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{assert_known, config, promtool, read};

const ALERTS: &str = "prometheus/ltkmd.alerts.yml";

/// The files of proofs.
fn proofs() -> Vec<PathBuf> {
    let files = std::fs::read_dir(config("prometheus/tests")).expect("a directory");
    let mut files: Vec<_> = files.map(|f| f.expect("an entry").path()).collect();
    files.sort();
    assert!(files.iter().all(|f| f.extension().is_some_and(|e| e == "yml")) && !files.is_empty());
    files
}

/// Alerts by name, each with its part of the file.
fn alerts(text: &str) -> BTreeMap<&str, &str> {
    text.split("- alert: ").skip(1).map(|part| part.split_once('\n').expect("a part of lines")).collect()
}

#[test]
fn promtool_accepts_the_rules_the_alerts_and_the_example_that_loads_them() {
    for file in ["prometheus/ltkmd.rules.yml", ALERTS] {
        promtool::run_on(&["check", "rules"], &config(file));
    }
    promtool::run_on(&["check", "config"], &config("prometheus/prometheus.yml"));
}

#[test]
fn every_alert_fires_when_it_should_and_not_before() {
    for file in proofs() {
        promtool::run_on(&["test", "rules"], &file);
    }
}

#[test]
fn every_alert_is_proved_firing_and_not_firing() {
    let text = read(&config(ALERTS));
    let proofs: String = proofs().iter().map(|file| read(file)).collect();
    for name in alerts(&text).keys() {
        assert!(proofs.contains(&format!("alertname: {name}, exp_alerts: [] }}")), "{name} does not fire");
        assert!(proofs.contains(&format!("alertname: {name}\n        exp_alerts:\n")), "{name} fires");
    }
}

#[test]
fn every_alert_says_how_bad_it_is_what_happened_and_what_to_do_first() {
    let text = read(&config(ALERTS));
    let documented = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md"));
    let mut listed: BTreeSet<_> =
        documented.lines().filter_map(|l| l.strip_prefix("| `Ltkmd")?.split('`').next()).collect();
    let alerts = alerts(&text);
    assert!(alerts.len() > 20, "all were found");
    for (name, part) in alerts {
        let severity =
            ["critical", "warning"].map(|s| part.contains(&format!("labels: {{ severity: {s} }}")));
        assert_eq!(severity.into_iter().filter(|s| *s).count(), 1, "{name} is critical or a warning");
        assert!(
            part.contains("          summary: ") && part.contains("          description: >-\n"),
            "{name}"
        );
        let short = name.strip_prefix("Ltkmd").expect("names begin alike");
        assert!(listed.remove(short), "docs/metrics.md lists {name}");
    }
    assert!(listed.is_empty(), "docs/metrics.md lists what is no alert: {listed:?}");
}

#[test]
fn rules_alerts_and_proofs_name_only_what_the_daemon_has() {
    for file in ["prometheus/ltkmd.rules.yml", ALERTS].map(config).into_iter().chain(proofs()) {
        assert_known(&file.display().to_string(), &read(&file));
    }
}

#[test]
fn commands_that_alerts_advise_exist() {
    let text = read(&config(ALERTS));
    // Folded text: a command may go on in the next line.
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut advised = BTreeSet::new();
    for at in words.windows(4).filter(|w| w[..2] == ["ltkmd", "ctl"]) {
        let word = |w: &str| w.trim_end_matches(['.', ',', ';', ':', ')']).to_owned();
        advised.insert((word(at[2]), Some(word(at[3])).filter(|_| !["status", "cluster"].contains(&at[2]))));
    }
    assert!(advised.len() >= 4, "{advised:?}");
    for (group, command) in advised {
        let mut ltkmd = Command::new(env!("CARGO_BIN_EXE_ltkmd"));
        ltkmd.args(["ctl", &group]).args(&command).arg("--help");
        let output = ltkmd.output().expect("it runs");
        assert!(output.status.success(), "ltkmd ctl {group} {command:?}");
    }
}
