//! Key updates to many terminals: killed in the middle, and beside registrations.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::harness::Daemon;
use crate::harness::fleet::{
    BEHIND_PROXY, Fleet, HTTP_THREADS, btid, counter, import, register, register_all,
};
use crate::harness::http::Connection;
use crate::harness::terminal::Terminal;

const TERMINALS: usize = 3000;
/// Terminals that have nothing but HTTP: one in so many.
const PULLING: usize = 10;

fn adds_up(job: &Value) {
    let states = job["states"].as_object().expect("states");
    let sum: u64 = states.values().map(|n| n.as_u64().expect("a count")).sum();
    assert_eq!((job["terminals"].as_u64(), sum), (Some(TERMINALS as u64), TERMINALS as u64), "{job}");
    assert!(job["sent"].as_u64() <= Some(TERMINALS as u64));
}

#[test]
fn a_fan_out_that_is_killed_goes_on_and_reaches_every_terminal() {
    let slow = "udp.first_timeout = \"2s\"\nudp.attempts = 10\nudp.rate = 2000";
    let mut daemon = Daemon::start_with(&format!("{BEHIND_PROXY}\n{slow}"));
    let terminals = Fleet::listen(daemon.port);
    daemon.put_service("urn:s", 1, json!({}));
    import(&daemon, TERMINALS);
    register_all(&daemon, &["urn:s"], 0..TERMINALS, |n| if n % PULLING == 0 { &[2] } else { &[0] });
    let pulling = TERMINALS / PULLING;
    let pushed = TERMINALS - pulling;
    daemon
        .await_state("the first key everywhere", |_| (terminals.holding("00010001") == pushed).then_some(()));
    let counts = daemon.get("/v1/services/urn:s")["terminals"].clone();
    assert_eq!(counts, json!({"udp": pushed, "http": pulling, "sms": 0, "total": TERMINALS}));

    let (job, _) = daemon.rotate("urn:s", None);
    let path = format!("/v1/jobs/{job}");
    let mut kills = 0;
    for share in [4, 2] {
        daemon.await_state("a part", |_| (terminals.holding("00010002") >= pushed / share).then_some(()));
        adds_up(&daemon.get(&path));
        daemon.kill();
        kills += 1;
        daemon.restart();
        let job = daemon.get(&path);
        adds_up(&job);
        assert_eq!(job["state"], "running");
    }
    let done = daemon.await_state("the end of the job", |daemon| {
        let job = daemon.get(&path);
        adds_up(&job);
        (job["state"] == "done").then_some(job)
    });
    assert_eq!((&done["verified"], &done["awaiting_pull"]), (&json!(pushed), &json!(pulling)), "{done}");
    assert_eq!((kills, terminals.holding("00010002")), (2, pushed), "everybody has the key");
    terminals.seen().assert_fresh();
    let verified = daemon.terminal(&btid(1))["verified"].clone();
    assert!(verified.as_array().expect("a list").iter().any(|v| v["msk_id"] == "00010002"), "{verified}");
}

#[test]
fn registrations_beside_key_updates_never_share_a_t_and_end_with_the_newest_key() {
    const ROTATIONS: u16 = 12;
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let terminals: Vec<_> = (0..16).map(|_| Terminal::provision(&daemon, &[])).collect();
    for terminal in &terminals {
        terminal.registered(&["urn:s"], Some(&[0, 2]));
    }
    let rotating = AtomicBool::new(true);
    let newest = format!("0001{:04x}", ROTATIONS + 1);
    std::thread::scope(|scope| {
        for terminal in &terminals {
            let rotating = &rotating;
            scope.spawn(move || {
                let mut all = Vec::new();
                while rotating.load(Ordering::Relaxed) {
                    let answer = terminal.registered(&["urn:s"], Some(&[0, 2]));
                    all.extend(answer.items[0].ltkms().iter().map(|l| terminal.open(l)));
                    all.extend(terminal.drain().iter().map(|l| terminal.open(l)));
                    all.iter().rev().take(3).for_each(|ltkm| terminal.verify(ltkm));
                }
                let answer = terminal.registered(&["urn:s"], Some(&[0, 2]));
                let last = terminal.open(&answer.items[0].ltkms()[0]);
                terminal.verify(&last);
                all.push(last);
                let distinct: HashSet<_> = all.iter().map(|l| l.counter).collect();
                assert_eq!(distinct.len(), all.len(), "T was used twice");
            });
        }
        for _ in 0..ROTATIONS {
            let (job, _) = daemon.rotate("urn:s", None);
            daemon.await_state("every member visited", |daemon| {
                let job = daemon.get(&format!("/v1/jobs/{job}"));
                let states = job["states"].as_object().expect("states");
                let sum: u64 = states.values().map(|n| n.as_u64().expect("a count")).sum();
                assert_eq!(job["terminals"].as_u64(), Some(sum));
                (job["states"]["queued"] == 0).then_some(())
            });
        }
        rotating.store(false, Ordering::Relaxed);
    });
    for terminal in &terminals {
        daemon.await_state("the newest key", |daemon| {
            let verified = daemon.terminal(&terminal.btid)["verified"].clone();
            let verified = verified.as_array().expect("a list").clone();
            verified.iter().any(|v| v["msk_id"] == json!(newest)).then_some(())
        });
    }
    assert_eq!(daemon.get("/v1/services/urn:s")["terminals"]["total"], 16);
    let shed = daemon.metric("ltkmd_udp_received_total{outcome=\"shed\"}");
    assert_eq!(shed, 0.0, "answers wait for one commit together");
}

#[test]
fn no_registration_that_was_answered_is_lost_when_the_daemon_is_killed() {
    const EACH: usize = 400;
    let mut daemon = Daemon::start_with(BEHIND_PROXY);
    daemon.put_service("urn:s", 1, json!({}));
    import(&daemon, HTTP_THREADS * EACH);
    let mut answered: HashMap<usize, u32> = HashMap::new();
    for round in 1..=3 {
        let enough = AtomicUsize::new(0);
        let to = daemon.http;
        let fresh: Vec<(usize, u32)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..HTTP_THREADS)
                .map(|thread| {
                    let enough = &enough;
                    scope.spawn(move || {
                        let mut connection = Connection::open(to);
                        let mut answered = Vec::new();
                        for n in (0..EACH).map(|i| thread * EACH + i).cycle() {
                            let Some(reply) = register(&mut connection, &["urn:s"], n, &[2]) else { break };
                            assert_eq!(reply.status, 200, "{}", reply.text());
                            answered.push((n, counter(n, &reply)));
                            enough.fetch_add(1, Ordering::Relaxed);
                        }
                        answered
                    })
                })
                .collect();
            daemon.await_state("some answers", |_| {
                (enough.load(Ordering::Relaxed) > 300 * round).then_some(())
            });
            daemon.kill();
            threads.into_iter().flat_map(|t| t.join().expect("no wrong answer")).collect()
        });
        for (n, t) in fresh {
            let before = answered.insert(n, t);
            assert!(before.is_none_or(|before| before < t), "T went back for terminal {n}");
        }
        daemon.restart();
        let registered = daemon.get("/v1/services/urn:s")["terminals"]["http"].as_u64().expect("a count");
        // One more of each thread may have been durable before its answer.
        let known = answered.len() as u64;
        assert!(
            (known..=known + (round * HTTP_THREADS) as u64).contains(&registered),
            "{registered} of {known}"
        );
    }
    let mut connection = Connection::open(daemon.http);
    for (n, t) in &answered {
        let record = daemon.terminal(&btid(*n));
        assert_eq!((&record["services"], &record["methods"]), (&json!(["urn:s"]), &json!(["http"])));
        let reply = register(&mut connection, &["urn:s"], *n, &[2]).expect("an answer");
        assert!(counter(*n, &reply) > *t, "T went back for terminal {n}");
    }
}

#[test]
fn a_key_update_without_terminals_is_done_at_once() {
    let daemon = Daemon::start();
    daemon.put_service("urn:s", 1, json!({}));
    let (job, _) = daemon.rotate("urn:s", None);
    let done = daemon.await_state("the end of the job", |daemon| {
        let job = daemon.get(&format!("/v1/jobs/{job}"));
        (job["state"] == "done").then_some(job)
    });
    assert_eq!((&done["terminals"], &done["sent"]), (&json!(0), &json!(0)));
    daemon.await_metric("ltkmd_fanout_duration_seconds_count", 1.0);
    daemon.await_metric("ltkmd_fanout_jobs_running", 0.0);
}
