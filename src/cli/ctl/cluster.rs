//! `ctl cluster`: the daemons on the store, who does what, and the database.

use serde_json::Value;

use super::Failure;
use super::api::Api;
use super::show::{Screen, cell};

/// Milliseconds as seconds, as far as they matter.
fn seconds(value: &Value) -> String {
    value.as_i64().map_or_else(|| "-".to_owned(), |ms| format!("{:.1} s", ms as f64 / 1000.0))
}

/// Octets with a unit.
fn size(value: &Value) -> String {
    let Some(octets) = value.as_u64() else { return "-".to_owned() };
    indicatif::BinaryBytes(octets).to_string()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// What is not as it should be, each in a sentence.
fn faults(cluster: &Value) -> Vec<String> {
    let mut told = Vec::new();
    let unheld = items(&cluster["unheld"]).count();
    if unheld > 0 {
        told.push(format!(
            "{unheld} of {} shard ranges have no holder: nobody goes on with their jobs and resends",
            cell(&cluster["ranges"])
        ));
    }
    for node in items(&cluster["nodes"]).filter(|node| node["state"] == "gone") {
        told.push(format!(
            "{} stopped without a word, last seen {}",
            cell(&node["name"]),
            cell(&node["seen"])
        ));
    }
    for worker in items(&cluster["database"]["citus"]["workers"]).filter(|worker| worker["size"].is_null()) {
        told.push(format!("the database's worker {} does not answer", cell(&worker["address"])));
    }
    told
}

/// Shows it; exit code 1 when a range has no holder, a daemon is gone, or a worker does not answer.
pub(super) async fn show(api: &mut Api, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let reply = api.get("/v1/cluster").await?;
    let cluster = &reply.value;
    let faults = faults(cluster);
    if screen.json {
        screen.raw(&reply)?;
    } else if cluster["shared"] == false {
        let node = &cluster["nodes"][0];
        screen.line("one daemon: its store is a directory of its own, which no other daemon can share")?;
        screen.card(vec![
            ("daemon", format!("ltkmd {} at {}", cell(&node["version"]), api.endpoint())),
            ("started", cell(&node["started"])),
            ("overdue", seconds(&node["overdue_ms"])),
        ])?;
    } else {
        nodes(cluster, screen)?;
        database(cluster, screen)?;
    }
    match faults.is_empty() {
        true => Ok(()),
        false => Err(Failure::failed(faults.join("; "))),
    }
}

fn nodes(cluster: &Value, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let header = [
        "NODE",
        "STATE",
        "RANGES",
        "OVERDUE",
        "CLOCK",
        "LAST SEEN",
        "STARTED",
        "VERSION",
        "FORMAT",
        "ADDRESS",
    ];
    let row = |node: &Value| {
        let mark = if node["here"] == true { " (here)" } else { "" };
        let leads = if node["leads"] == true { ", leads" } else { "" };
        vec![
            format!("{}{mark}", cell(&node["name"])),
            format!("{}{leads}", cell(&node["state"])),
            format!("{} of {}", cell(&node["leases"]), cell(&cluster["ranges"])),
            seconds(&node["overdue_ms"]),
            seconds(&node["clock_offset_ms"]),
            cell(&node["seen"]),
            cell(&node["started"]),
            cell(&node["version"]),
            cell(&node["format"]),
            cell(&node["address"]),
        ]
    };
    screen.table(&header, items(&cluster["nodes"]).map(row).collect())
}

fn database(cluster: &Value, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let database = &cluster["database"];
    let standby = |s: &Value| {
        let behind = match &s["behind"] {
            Value::Null => "not told".to_owned(),
            behind => format!("{}, {}", size(behind), seconds(&s["behind_ms"])),
        };
        format!("{} at {}, {}, behind by {behind}", cell(&s["name"]), cell(&s["address"]), cell(&s["state"]))
    };
    let standbys = match &database["standbys"] {
        Value::Null => "not to be seen by this role: GRANT pg_monitor TO it".to_owned(),
        all if items(all).next().is_none() => "none".to_owned(),
        all => items(all).map(standby).collect::<Vec<_>>().join("; "),
    };
    let commits = match database["synchronous"] == true {
        true => "wait for a standby",
        false => "do not wait for a standby",
    };
    let worker = |w: &Value| {
        let size = if w["size"].is_null() { "does not answer".to_owned() } else { size(&w["size"]) };
        let idle = if w["active"] == true { "" } else { ", takes no part" };
        format!("{}, {size}{idle}", cell(&w["address"]))
    };
    let mut rows = vec![
        ("database", format!("PostgreSQL {}, {}", cell(&database["version"]), size(&database["size"]))),
        ("commits", commits.to_owned()),
        ("standbys", standbys),
    ];
    let citus = &database["citus"];
    if !citus.is_null() {
        let workers = items(&citus["workers"]).map(worker).collect::<Vec<_>>().join("; ");
        rows.push(("distributed", format!("Citus {}: {workers}", cell(&citus["version"]))));
    }
    screen.card(rows)
}
