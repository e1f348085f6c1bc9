//! The database's primary dies, and its synchronous standby takes its place.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::fleet::{Fleet, btid, fresh_nonce, import, register_by};
use crate::harness::http::Connection;
use crate::nodes::{Cluster, SERVICE, adds_up, alone, await_holders, await_verified, readyz, register_fleet};
use crate::server::process::poll;
use crate::server::{PATIENCE, Postgres};

/// Terminals that are there; most of them register while the primary dies.
const ALL: usize = 3_000;

/// Those that are registered before.
const BEFORE: usize = 600;

const SETTINGS: &str = "udp.first_timeout = \"2s\"\nudp.attempts = 12\nhttp.request_timeout = \"4s\"";

#[test]
fn a_registration_that_was_acknowledged_outlives_the_primary_and_nothing_else_is_acknowledged() {
    let _alone = alone();
    let mut primary = Postgres::start();
    let standby = primary.standby();
    let url = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres?sslmode=disable",
        primary.port(),
        standby.port()
    );
    let cluster = Cluster::new(&url, SETTINGS);
    let daemons = cluster.start(["a", "b", "c"]);
    let fleet = Fleet::listen(cluster.port);
    daemons[0].put_service(SERVICE, 1, json!({}));
    import(&daemons[0], ALL);
    let nonce = &fresh_nonce(&daemons[0]);
    let at = daemons.each_ref().map(|daemon| daemon.http);
    let register = |n: usize| {
        let to = at[n % at.len()];
        // A daemon that lives answers.
        register_by(&mut Connection::open(to), &[SERVICE], n, &[0], nonce).expect("an answer").status
    };
    register_fleet(&daemons.each_ref(), BEFORE);
    await_holders(&fleet, "00010001", BEFORE);

    // While the standby stands still nothing is acknowledged that it does not have.
    standby.freeze();
    assert_eq!(register(BEFORE), 503, "the standby does not have it");
    standby.thaw();
    let served = poll(Instant::now() + PATIENCE, || (register(BEFORE + 1) == 200).then_some(()));
    assert!(served.is_some(), "no request is served again");

    let (job, _) = daemons[1].rotate(SERVICE, None);
    let (next, promoted) = (AtomicUsize::new(BEFORE + 2), AtomicBool::new(false));
    let acknowledged = Mutex::new(HashSet::new());
    let (meanwhile, mut dead) = (AtomicUsize::new(0), None);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let before = promoted.load(Ordering::Acquire);
                    if n >= ALL {
                        return;
                    }
                    match register(n) {
                        200 => {
                            acknowledged.lock().expect("no holder panics").insert(n);
                            if before {
                                return;
                            }
                        }
                        503 => drop(meanwhile.fetch_add(1, Ordering::Relaxed)),
                        other => panic!("terminal {n} was answered {other}"),
                    }
                }
            });
        }
        let some = poll(Instant::now() + PATIENCE, || {
            (acknowledged.lock().expect("no holder panics").len() >= 100).then_some(())
        });
        assert!(some.is_some(), "nobody registers");
        primary.kill_9();
        dead = Some(Instant::now());
        // Everybody notices before anybody mends it.
        for daemon in &daemons {
            daemon.await_state("no readiness", |daemon| (readyz(daemon) == 503).then_some(()));
        }
        assert_eq!(register(ALL - 1), 503);
        standby.promote();
        promoted.store(true, Ordering::Release);
    });
    let acknowledged = acknowledged.into_inner().expect("no holder panics");
    println!(
        "{} acknowledged, {} refused; served again {:.1?} after the kill",
        acknowledged.len(),
        meanwhile.load(Ordering::Relaxed),
        dead.expect("it was killed").elapsed()
    );
    assert!(meanwhile.load(Ordering::Relaxed) > 0, "503 while there is no primary");
    for daemon in &daemons {
        daemon.await_state("readiness", |daemon| (readyz(daemon) == 200).then_some(()));
    }

    // Everybody who was told so is registered.
    for n in (0..BEFORE).chain(acknowledged.iter().copied()) {
        let known = daemons[n % 2].terminal(&btid(n));
        assert_eq!(known["services"], json!([SERVICE]), "{known}");
    }
    // Members of the service are those, and at most those whose answer was lost on the way.
    let members =
        daemons[2].get("/v1/services/urn:s")["terminals"]["total"].as_u64().expect("a count") as usize;
    let told = BEFORE + 1 + acknowledged.len();
    assert!((told..=told + 1 + meanwhile.load(Ordering::Relaxed)).contains(&members), "{members} of {told}");

    // The fan-out that was under way ends, another one reaches all of them, and every T is higher than those before.
    let expected =
        daemons[0].get(&format!("/v1/jobs/{job}"))["terminals"].as_u64().expect("a count") as usize;
    await_verified(&daemons.each_ref(), &job, expected);
    let (job, msk_id) = daemons[2].rotate(SERVICE, None);
    let now = daemons[0].get(&format!("/v1/jobs/{job}"));
    adds_up(&now, members);
    await_verified(&daemons.each_ref(), &job, members);
    assert_eq!(fleet.holding(&msk_id), members);
    fleet.seen().assert_fresh();
    for (n, counters) in &fleet.seen().counters {
        let newest = counters.last().expect("one");
        assert_eq!(counters.iter().max(), Some(newest), "T went back for terminal {n}: {counters:?}");
    }
    assert!(dead.expect("it was killed").elapsed() < Duration::from_secs(120));
}
