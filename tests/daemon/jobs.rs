//! Key updates at scale: held, ended, beside each other, and in time for the switch.

use std::time::{Duration, SystemTime};

use ltkmd::time::Timestamp;
use serde_json::{Value, json};

use crate::harness::Daemon;
use crate::harness::fleet::{BEHIND_PROXY, Fleet, first_ltkm, import, register, register_all};
use crate::harness::http::Connection;
use crate::harness::terminal::Terminal;

/// Terminals of a service that takes seconds.
const MANY: usize = 500;
/// Terminals of a service that takes a moment.
const FEW: usize = 3;

const UDP: fn(usize) -> &'static [u8] = |_| &[0];

/// A daemon whose pages take their time, and its terminals: many of `urn:many`, a few of `urn:few`.
fn slow_world() -> (Daemon, Fleet) {
    let slow = "udp.rate = 200\nudp.first_timeout = \"2s\"\nudp.attempts = 10";
    let daemon = Daemon::start_with(&format!("{BEHIND_PROXY}\n{slow}"));
    let fleet = Fleet::listen(daemon.port);
    daemon.put_service("urn:many", 1, json!({}));
    daemon.put_service("urn:few", 2, json!({}));
    import(&daemon, MANY);
    register_all(&daemon, &["urn:many"], 0..MANY, UDP);
    register_all(&daemon, &["urn:few"], 0..FEW, UDP);
    daemon.await_state("the first key everywhere", |_| {
        (fleet.holding("00010001") == MANY && fleet.holding("00020001") == FEW).then_some(())
    });
    (daemon, fleet)
}

/// A job as it is now; its states add up.
fn job(daemon: &Daemon, id: &Value) -> Value {
    let job = daemon.get(&format!("/v1/jobs/{id}"));
    let states = job["states"].as_object().expect("states");
    let sum: u64 = states.values().map(|n| n.as_u64().expect("a count")).sum();
    assert_eq!(job["terminals"].as_u64(), Some(sum), "{job}");
    job
}

fn visited(daemon: &Daemon, id: &Value) -> usize {
    job(daemon, id)["visited"].as_u64().expect("a count") as usize
}

/// Waits until a job has visited so many.
fn await_visited(daemon: &Daemon, id: &Value, at_least: usize) {
    daemon.await_state("visits", |daemon| (visited(daemon, id) >= at_least).then_some(()));
}

fn await_done(daemon: &Daemon, id: &Value) -> Value {
    daemon.await_state("the end of the job", |daemon| {
        Some(job(daemon, id)).filter(|job| job["state"] == "done")
    })
}

/// Pauses, resumes or cancels a job; the job as it is then.
fn act(daemon: &Daemon, id: &Value, action: &str) -> Value {
    let reply = daemon.admin("POST", &format!("/v1/jobs/{id}/{action}"), None);
    assert_eq!(reply.status, 202, "{action}: {}", reply.text());
    reply.json()
}

#[test]
fn a_paused_job_visits_nobody_also_after_a_kill_and_goes_on_when_it_is_resumed() {
    let (mut daemon, fleet) = slow_world();
    let (many, _) = daemon.rotate("urn:many", None);
    await_visited(&daemon, &many, MANY / 10);
    let paused = act(&daemon, &many, "pause");
    assert_eq!(paused["state"], "paused");
    let before = paused["visited"].as_u64().expect("a count") as usize;
    assert!(before < MANY, "it was paused in the middle");
    daemon.kill();
    daemon.restart();
    assert_eq!(daemon.get("/v1/jobs?state=paused")["items"][0]["id"], many);
    // Another job runs from its begin to its end meanwhile.
    let (few, _) = daemon.rotate("urn:few", None);
    await_done(&daemon, &few);
    // What was under way goes on to its end.
    let held = daemon.await_state("the answers of those visited", |daemon| {
        Some(job(daemon, &many)).filter(|job| job["verified"] == json!(before))
    });
    assert_eq!((&held["state"], &held["visited"]), (&json!("paused"), &json!(before)));
    assert_eq!((fleet.holding("00010002"), fleet.holding("00020002")), (before, FEW));
    assert_eq!(act(&daemon, &many, "resume")["state"], "running");
    let done = await_done(&daemon, &many);
    assert_eq!((&done["verified"], &done["terminals"]), (&json!(MANY), &json!(MANY)));
    assert_eq!(fleet.holding("00010002"), MANY);
    fleet.seen().assert_fresh();
}

#[test]
fn a_cancelled_job_visits_nobody_more_and_who_asks_for_the_key_gets_it() {
    let (mut daemon, fleet) = slow_world();
    let (many, msk_id) = daemon.rotate("urn:many", None);
    await_visited(&daemon, &many, MANY / 10);
    let cancelled = act(&daemon, &many, "cancel");
    let before = cancelled["visited"].as_u64().expect("a count") as usize;
    assert!(before < MANY, "it was cancelled in the middle");
    assert_eq!((&cancelled["state"], &cancelled["terminals"]), (&json!("cancelled"), &json!(MANY)));
    assert_eq!(cancelled["states"]["cancelled"], MANY - before);
    assert!(cancelled["finished"].is_string());
    daemon.kill();
    daemon.restart();
    let (few, _) = daemon.rotate("urn:few", None);
    await_done(&daemon, &few);
    // What went out cannot be called back: it goes on to its end.
    let over = daemon.await_state("the answers of those visited", |daemon| {
        Some(job(daemon, &many)).filter(|job| job["verified"] == json!(before))
    });
    assert_eq!((&over["state"], &over["finished"]), (&json!("cancelled"), &cancelled["finished"]));
    assert_eq!((&over["states"]["cancelled"], &over["terminals"]), (&json!(MANY - before), &json!(MANY)));
    assert_eq!(fleet.holding(&msk_id), before);
    for action in ["pause", "resume", "cancel"] {
        let refused = daemon.admin("POST", &format!("/v1/jobs/{many}/{action}"), None);
        assert_eq!(refused.status, 409, "{action}: {}", refused.text());
    }
    let holders = fleet.seen().holders[&msk_id].clone();
    let without = (0..MANY).find(|n| !holders.contains(n)).expect("one was not visited");
    let reply =
        register(&mut Connection::open(daemon.http), &["urn:many"], without, &[2]).expect("an answer");
    assert_eq!(first_ltkm(without, &reply).msk_id.to_string(), msk_id);
    // A later key update is not held up, and brings the newest key to everybody else.
    let (next, msk_id) = daemon.rotate("urn:many", None);
    let done = await_done(&daemon, &next);
    assert_eq!((&done["verified"], &done["awaiting_pull"]), (&json!(MANY - 1), &json!(1)));
    assert_eq!(fleet.holding(&msk_id), MANY - 1);
    fleet.seen().assert_fresh();
}

#[test]
fn jobs_take_turns_registrations_go_on_and_a_kill_stops_none_of_it() {
    let (mut daemon, fleet) = slow_world();
    daemon.put_service("urn:as-many", 3, json!({}));
    register_all(&daemon, &["urn:as-many"], 0..MANY, UDP);
    daemon.await_state("its first key", |_| (fleet.holding("00030001") == MANY).then_some(()));
    let (many, _) = daemon.rotate("urn:many", None);
    await_visited(&daemon, &many, 1);
    let (as_many, _) = daemon.rotate("urn:as-many", None);
    let began = visited(&daemon, &many);
    await_visited(&daemon, &as_many, MANY / 10);
    // Page by page: neither gets far ahead of the other.
    let (first, second) = (visited(&daemon, &many) - began, visited(&daemon, &as_many));
    assert!(first <= 3 * second && second <= 3 * first.max(10), "{first} and {second} were visited");
    // One that comes last and has little to do waits for one page of each.
    let (few, _) = daemon.rotate("urn:few", None);
    await_done(&daemon, &few);
    let reply = register(&mut Connection::open(daemon.http), &["urn:few"], FEW, &[2]).expect("an answer");
    assert_eq!(first_ltkm(FEW, &reply).msk_id.to_string(), "00020002");
    for large in [&many, &as_many] {
        let job = job(&daemon, large);
        assert_eq!(job["state"], "running");
        assert!(job["visited"].as_u64() < Some(MANY as u64), "they are still at it: {job}");
    }
    daemon.await_metric("ltkmd_fanout_jobs_running", 2.0);
    daemon.kill();
    daemon.restart();
    for large in [&many, &as_many] {
        let done = await_done(&daemon, large);
        let count = |field: &str| done[field].as_u64().expect("a count");
        // The one that registered for pulls alone had been visited, or had not.
        assert_eq!(count("verified") + count("awaiting_pull"), MANY as u64, "{done}");
        assert!(count("awaiting_pull") <= 1, "{done}");
    }
    fleet.seen().assert_fresh();
}

fn now() -> SystemTime {
    SystemTime::now()
}

/// A moment as the admin API writes it.
fn moment(value: &Value) -> SystemTime {
    let at: Timestamp = value.as_str().expect("a time").parse().expect("RFC 3339");
    SystemTime::UNIX_EPOCH + Duration::from_millis(at.0)
}

/// A key's validity.
fn validity(daemon: &Daemon, service: &str, msk_id: &str) -> (SystemTime, SystemTime) {
    let keys = daemon.keys(service);
    let key = keys.iter().find(|key| key["msk_id"] == msk_id).expect("a key that is kept");
    (moment(&key["valid_from"]), moment(&key["valid_to"]))
}

#[test]
fn a_terminal_holds_a_valid_key_at_every_switch_of_a_schedule() {
    let daemon = Daemon::start();
    let policy = json!({"lifetime": "3s", "rotate_every": "3s", "lead_time": "1400ms"});
    daemon.put_service("urn:s", 1, policy);
    let terminal = Terminal::provision(&daemon, &[]);
    terminal.registered(&["urn:s"], Some(&[0]));
    let mut held_until: Option<SystemTime> = None;
    for turn in 0..4 {
        let ltkm = terminal.receive();
        let received = now();
        terminal.verify(&ltkm);
        let (from, to) = validity(&daemon, "urn:s", &ltkm.msk_id.to_string());
        if let Some(until) = held_until {
            assert!(received < from, "key {} came when it was valid already", ltkm.msk_id);
            assert!(from <= until, "nothing is valid between {until:?} and {from:?}");
        }
        held_until = Some(to);
        if turn == 1 {
            // Who registers now is brought the key that is valid and the one that is about to be.
            let late = Terminal::provision(&daemon, &[]);
            let answer = late.registered(&["urn:s"], Some(&[2]));
            let brought: Vec<_> =
                answer.items[0].ltkms().iter().map(|l| late.open(l).msk_id.to_string()).collect();
            assert_eq!(brought, ["00010001", "00010002"]);
            assert!(now() < from, "the test itself was in time");
        }
    }
}

#[test]
fn who_registers_before_the_lead_time_of_a_key_gets_it_before_it_begins() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({"lead_time": "2500ms"}));
    let early = Terminal::provision(&daemon, &[]);
    early.registered(&["urn:s"], Some(&[0]));
    early.verify(&early.receive());
    let from = Timestamp::now() + Duration::from_secs(6);
    let (job, msk_id) = daemon.rotate("urn:s", Some(&json!({"valid_from": from.to_string()})));
    let ltkm = early.receive();
    assert_eq!(ltkm.msk_id.to_string(), msk_id, "who is registered gets it at once");
    early.verify(&ltkm);
    let between = Terminal::provision(&daemon, &[]);
    await_done(&daemon, &job);
    between.registered(&["urn:s"], Some(&[0]));
    let first = between.receive();
    assert_eq!(first.msk_id.to_string(), "00010001", "its lead time has not begun");
    between.verify(&first);
    let second = between.receive();
    let (from, _) = validity(&daemon, "urn:s", &msk_id);
    assert!(second.msk_id.to_string() == msk_id && now() < from);
    between.verify(&second);
    let again = daemon.get("/v1/jobs?limit=1")["items"][0]["id"].clone();
    assert_ne!(again, job);
    let done = await_done(&daemon, &again);
    assert_eq!((&done["msk_id"], &done["verified"]), (&json!(msk_id), &json!(2)));
    assert!(early.drain().is_empty(), "who has it gets it once");
}

#[test]
fn services_of_one_interval_are_given_their_next_keys_at_different_moments() {
    const SERVICES: u16 = 12;
    let daemon = Daemon::start();
    for n in 0..SERVICES {
        let policy = json!({"lifetime": "10s", "rotate_every": "10s", "lead_time": "4s"});
        daemon.put_service(&format!("urn:service:{n}"), n + 1, policy);
    }
    let jobs = daemon.await_state("a next key each", |daemon| {
        let jobs = daemon.get("/v1/jobs")["items"].as_array().expect("items").clone();
        (jobs.len() == usize::from(SERVICES)).then_some(jobs)
    });
    let mut made: Vec<SystemTime> = jobs.iter().map(|job| moment(&job["started"])).collect();
    made.sort();
    let spread = made[made.len() - 1].duration_since(made[0]).expect("sorted");
    // Their shares of a second lie so far apart; the clock is asked four times a second.
    assert!(spread > Duration::from_millis(500), "all within {spread:?}");
    for job in &jobs {
        let id = job["service"].as_str().expect("an id");
        let (from, _) = validity(&daemon, id, job["msk_id"].as_str().expect("an MSK ID"));
        let ahead = from.duration_since(moment(&job["started"])).expect("made before it begins");
        // A tick of the clock late at most, and some patience with a machine that has other things to do.
        assert!(ahead > Duration::from_secs(2) && ahead <= Duration::from_secs(5), "{id}: {ahead:?}");
    }
}
