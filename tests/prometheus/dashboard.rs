//! Grafana's dashboard: what Grafana needs of the document, and that every expression in it can be asked.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::Value;

use crate::{assert_known, config, promtool, read};

fn dashboard() -> Value {
    serde_json::from_str(&read(&config("grafana/ltkmd.json"))).expect("JSON")
}

fn panels(dashboard: &Value) -> &[Value] {
    dashboard["panels"].as_array().expect("panels")
}

/// Every expression, with the panel that asks it.
fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for panel in panels(dashboard) {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let text = |v: &Value| v.as_str().expect("text").to_owned();
            all.push((text(&panel["title"]), text(&target["expr"])));
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().expect("annotations") {
        all.push(("annotation".to_owned(), annotation["expr"].as_str().expect("an expression").to_owned()));
    }
    all
}

/// The variables that a dashboard has.
fn variables(dashboard: &Value) -> Vec<&str> {
    let list = dashboard["templating"]["list"].as_array().expect("variables");
    list.iter().map(|v| v["name"].as_str().expect("a name")).collect()
}

/// An expression as Grafana sends it.
fn interpolated(expression: &str, variables: &[&str]) -> String {
    let mut sent = expression.replace("$__rate_interval", "1m");
    for variable in variables {
        sent = sent.replace(&format!("${variable}"), ".*");
    }
    assert!(!sent.contains('$'), "a variable that there is not: {sent}");
    sent
}

#[test]
fn the_document_has_what_grafana_needs() {
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "ltkmd");
    assert!(dashboard["id"].is_null(), "Grafana gives the number");
    assert!(dashboard["schemaVersion"].as_u64().is_some_and(|v| v >= 36) && dashboard["title"] == "ltkmd");
    assert_eq!(variables(&dashboard), ["datasource", "job", "instance", "service"]);
    let required: BTreeSet<&str> = dashboard["__requires"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|r| r["type"] == "panel")
        .map(|r| r["id"].as_str().expect("an id"))
        .collect();
    let (mut ids, mut titles, mut kinds) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut taken = BTreeSet::new();
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().expect("a title");
        assert!(ids.insert(panel["id"].as_u64().expect("a number")), "{title}: its id is its own");
        assert!(titles.insert(title), "{title} is there once");
        let place = |side: &str| panel["gridPos"][side].as_u64().expect("a number");
        let (x, y, w, h) = (place("x"), place("y"), place("w"), place("h"));
        assert!(w > 0 && h > 0 && x + w <= 24, "{title} is within the grid");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{title} lies on another panel");
        }
        if panel["type"] == "row" {
            continue;
        }
        kinds.insert(panel["type"].as_str().expect("a type"));
        let targets = panel["targets"].as_array().expect("targets");
        let refs: BTreeSet<_> = targets.iter().map(|t| t["refId"].as_str().expect("a letter")).collect();
        assert!(!targets.is_empty() && refs.len() == targets.len(), "{title}: each target has its letter");
        for asked in targets.iter().chain([panel]) {
            assert_eq!(asked["datasource"]["uid"], "${datasource}", "{title} asks the chosen source");
        }
        assert!(panel["fieldConfig"]["defaults"].is_object() && panel["options"].is_object(), "{title}");
    }
    assert_eq!(kinds, required, "the kinds of panels are told");
}

#[test]
fn every_expression_is_prom_ql() {
    let dashboard = dashboard();
    let variables = variables(&dashboard);
    let expressions = expressions(&dashboard);
    assert!(expressions.len() > 40, "all were found");
    // Quoted as JSON, which YAML reads.
    let mut rules = String::from("groups:\n  - name: dashboard\n    rules:\n");
    for (i, (_, expression)) in expressions.iter().enumerate() {
        let expression = Value::from(interpolated(expression, &variables));
        writeln!(rules, "      - {{ record: \"a{i}\", expr: {expression} }}").expect("written");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("dashboard.yml");
    std::fs::write(&file, &rules).expect("written");
    let told = promtool::run_on(&["check", "rules"], &file);
    assert!(told.contains(&format!("SUCCESS: {} rules found", expressions.len())), "{told}");
}

#[test]
fn the_dashboard_asks_only_for_what_the_daemon_has() {
    let text = read(&config("grafana/ltkmd.json"));
    assert!(!text.contains(":ltkmd_"), "it needs no recording rules");
    assert_known("the dashboard", &text);
}

#[test]
fn the_dashboard_shows_every_metric() {
    let text = read(&config("grafana/ltkmd.json"));
    for metric in ltkmd::metrics::table::all() {
        assert!(text.contains(metric.name), "{} is on no panel", metric.name);
    }
}
