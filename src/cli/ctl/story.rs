//! A terminal's story: what is known of its registration, its keys and what was tried to bring them, by time.

use serde_json::Value;

use super::Failure;
use super::show::{Screen, cell};
use crate::time::Timestamp;

/// Something that happened, or will.
struct Moment {
    at: Timestamp,
    what: String,
}

/// How long ago, or how far ahead: the largest unit alone.
fn away(at: Timestamp, now: Timestamp) -> String {
    let (span, ahead) = if at > now { (at.since(now), true) } else { (now.since(at), false) };
    let seconds = span.as_secs();
    let text = match seconds {
        0 => return "now".to_owned(),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    };
    if ahead { format!("in {text}") } else { format!("{text} ago") }
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

fn with_age(value: &Value, now: Timestamp) -> String {
    time(value).map_or_else(|| cell(value), |at| format!("{at} ({})", away(at, now)))
}

/// What a delivery is of.
fn subject(delivery: &Value) -> String {
    let (service, msk_id) = (cell(&delivery["service"]), cell(&delivery["msk_id"]));
    match delivery["kind"].as_str() {
        Some("key") => format!("key {msk_id} of {service}"),
        Some("invalidate") => format!("the end of key {msk_id} of {service}"),
        _ if delivery["service"].is_null() => "a trigger to register".to_owned(),
        _ => format!("a trigger to ask for the keys of {service}"),
    }
}

fn attempts(delivery: &Value) -> String {
    let by = delivery["method"].as_str().map_or_else(String::new, |method| format!(" by {method}"));
    match delivery["attempts"].as_u64() {
        Some(1) => format!("1 attempt, the latest{by}"),
        Some(n) => format!("{n} attempts, the latest{by}"),
        None => String::new(),
    }
}

/// What is known of one delivery.
fn moments(delivery: &Value, all: &mut Vec<Moment>) {
    let subject = subject(delivery);
    let mut tell = |at: &Value, what: String| all.extend(time(at).map(|at| Moment { at, what }));
    let job = delivery["job"].as_u64().map_or_else(String::new, |job| format!(" (job {job})"));
    tell(&delivery["queued"], format!("{subject}: queued{job}"));
    tell(
        &delivery["receipt"]["at"],
        format!("{subject}: the short message is {}", cell(&delivery["receipt"]["state"])),
    );
    tell(&delivery["verified"], format!("{subject}: verified, after {}", attempts(delivery)));
    let how = match delivery["state"].as_str().unwrap_or_default() {
        // Nothing beyond what is told already.
        "verified" => None,
        "queued" if delivery["attempts"] == 0 => None,
        "queued" => Some(format!("waits for its turn, {}", attempts(delivery))),
        "sent" => Some(format!("sent, {}", attempts(delivery))),
        "assumed" => Some(format!("taken as there, {}", attempts(delivery))),
        "awaiting_pull" => Some(format!("the terminal's request is awaited, {}", attempts(delivery))),
        "failed" => Some(format!("failed ({}), {}", cell(&delivery["error"]), attempts(delivery))),
        "superseded" => Some("a newer one took its place".to_owned()),
        other => Some(other.to_owned()),
    };
    if let Some(how) = how {
        tell(&delivery["updated"], format!("{subject}: {how}"));
    }
    tell(&delivery["next_due"], format!("{subject}: looked at again"));
}

/// Tells it: who the terminal is, then what happened, the oldest first, then what is to come.
pub(super) fn tell(
    terminal: &Value,
    deliveries: &Value,
    now: Timestamp,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    screen.card(vec![
        ("btid", cell(&terminal["btid"])),
        ("subscriber", cell(&terminal["subscriber"])),
        ("address", cell(&terminal["address"])),
        ("methods", cell(&terminal["methods"])),
        ("services", cell(&terminal["services"])),
        ("registered", with_age(&terminal["registered_at"], now)),
        ("last seen", with_age(&terminal["last_seen"], now)),
        ("deliveries open", cell(&terminal["deliveries_open"])),
    ])?;
    let mut all = Vec::new();
    let mut tell = |at: &Value, what: String| all.extend(time(at).map(|at| Moment { at, what }));
    let services = match terminal["services"].as_array().is_none_or(Vec::is_empty) {
        true => "it has left all its services since".to_owned(),
        false => format!("for {}, by {}", cell(&terminal["services"]), cell(&terminal["methods"])),
    };
    tell(&terminal["registered_at"], format!("last registration: {services}"));
    if terminal["last_seen"] != terminal["registered_at"] {
        tell(&terminal["last_seen"], "last authenticated request".to_owned());
    }
    for delivery in deliveries["items"].as_array().into_iter().flatten() {
        moments(delivery, &mut all);
    }
    // Of one moment what was said first comes first.
    all.sort_by_key(|moment| moment.at);
    let row = |moment: &Moment| vec![moment.at.to_string(), away(moment.at, now), moment.what.clone()];
    screen.line("")?;
    screen.table(&["TIME", "AWAY", "WHAT"], all.iter().map(row).collect())?;
    match deliveries["next"].is_string() {
        true => screen.note("older deliveries are left out: ctl delivery list --terminal has all"),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_story_is_told_in_the_order_of_its_times() {
        let terminal = json!({
            "btid": "a@b", "subscriber": "alice", "address": "192.0.2.1", "methods": ["udp"],
            "services": ["urn:s"], "verified": [], "deliveries_open": 1,
            "registered_at": "2026-11-22T09:00:00Z", "last_seen": "2026-11-22T09:30:00Z",
        });
        let delivery = |msk_id: &str, state: &str, more: Value| {
            let mut delivery = json!({
                "kind": "key", "service": "urn:s", "msk_id": msk_id, "state": state, "method": "udp", "attempts": 2,
                "queued": "2026-11-22T09:00:01Z", "updated": "2026-11-22T09:00:04Z", "verified": null,
                "next_due": null, "error": null, "job": null, "receipt": null,
            });
            for (name, value) in more.as_object().into_iter().flatten() {
                delivery[name] = value.clone();
            }
            delivery
        };
        let deliveries = json!({"next": null, "items": [
            delivery("68c90001", "verified", json!({"verified": "2026-11-22T09:00:04Z"})),
            delivery("68c90002", "failed", json!({"error": "no_answer", "queued": "2026-11-22T09:10:00Z",
                "updated": "2026-11-22T09:11:00Z", "job": 7})),
            delivery("68c90003", "sent", json!({"queued": "2026-11-22T09:29:00Z",
                "updated": "2026-11-22T09:29:30Z", "next_due": "2026-11-22T09:32:00Z"})),
        ]});
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut screen = Screen { out: &mut out, err: &mut err, json: false, terminal: false, bars: false };
        tell(&terminal, &deliveries, "2026-11-22T09:31:00Z".parse().unwrap(), &mut screen).unwrap();
        let out = String::from_utf8(out).unwrap();
        let (_, story) = out.split_once("WHAT").unwrap();
        let lines: Vec<_> =
            story.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            [
                "2026-11-22T09:00:00Z 31 min ago last registration: for urn:s, by udp",
                "2026-11-22T09:00:01Z 30 min ago key 68c90001 of urn:s: queued",
                "2026-11-22T09:00:04Z 30 min ago key 68c90001 of urn:s: verified, after 2 attempts, the latest by udp",
                "2026-11-22T09:10:00Z 21 min ago key 68c90002 of urn:s: queued (job 7)",
                "2026-11-22T09:11:00Z 20 min ago key 68c90002 of urn:s: failed (no_answer), 2 attempts, the latest by udp",
                "2026-11-22T09:29:00Z 2 min ago key 68c90003 of urn:s: queued",
                "2026-11-22T09:29:30Z 1 min ago key 68c90003 of urn:s: sent, 2 attempts, the latest by udp",
                "2026-11-22T09:30:00Z 1 min ago last authenticated request",
                "2026-11-22T09:32:00Z in 1 min key 68c90003 of urn:s: looked at again",
            ]
        );
        assert!(out.contains("2026-11-22T09:00:00Z (31 min ago)"), "{out}");
    }
}
