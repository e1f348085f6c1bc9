//! A key for twenty thousand terminals: shared by three daemons, of which one dies or stands still, and with the database
//! away for half a minute.

use std::time::Instant;

use nix::sys::signal::Signal;

use crate::harness::fleet::{Fleet, fresh_nonce, register_by};
use crate::harness::http::Connection;
use crate::nodes::{
    Cluster, SERVICE, TAKEOVER, TERMINALS, adds_up, alone, await_holders, await_shares, await_verified,
    leases, populated, readyz,
};
use crate::server::process::poll;
use crate::server::{PATIENCE, shared};

const KEY: &str = "00010002";

/// Terminals answer at once, unless their datagrams were lost or their daemon is.
const SETTINGS: &str = "udp.first_timeout = \"3s\"\nudp.attempts = 10\nhttp.request_timeout = \"3s\"";

/// Threads of a daemon that send a fan-out's LTKMs and resends.
const AT_ONCE: usize = 5;

fn cluster() -> (Cluster, String) {
    let database = populated();
    (Cluster::new(&shared().url_of("postgres", &database), SETTINGS), database)
}

#[test]
fn three_daemons_share_a_fan_out_and_its_counts_add_up_at_each() {
    let _alone = alone();
    let (cluster, database) = cluster();
    let daemons = cluster.start(["a", "b", "c"]);
    let fleet = Fleet::listen(cluster.port);
    await_shares(shared(), &database, &["a", "b", "c"]);
    let (job, msk_id) = daemons[1].rotate(SERVICE, None);
    assert_eq!(msk_id, KEY);
    await_verified(&daemons.each_ref(), &job, TERMINALS);
    assert_eq!(fleet.holding(KEY), TERMINALS);
    fleet.seen().assert_rising();
    let sent = daemons.each_ref().map(|daemon| fleet.sent_by(daemon.udp));
    assert!(sent.iter().all(|sent| *sent >= TERMINALS / 5), "{sent:?} of {TERMINALS}");
}

#[test]
fn what_a_daemon_did_that_is_killed_is_taken_over_within_15_seconds() {
    let _alone = alone();
    let (cluster, database) = cluster();
    let [a, mut b, c] = cluster.start(["a", "b", "c"]);
    let fleet = Fleet::listen(cluster.port);
    await_shares(shared(), &database, &["a", "b", "c"]);
    let (job, _) = b.rotate(SERVICE, None);
    await_holders(&fleet, KEY, TERMINALS / 5);
    b.kill();
    let killed = Instant::now();
    let before = c.get(&format!("/v1/jobs/{job}"));
    adds_up(&before, TERMINALS);
    assert_eq!(before["state"], "running", "it was killed in the middle");
    await_shares(shared(), &database, &["a", "c"]);
    let took = killed.elapsed();
    println!("taken over {took:.1?} after the kill");
    assert!(took <= TAKEOVER, "its leases were taken over {took:?} after the kill");
    await_verified(&[&a, &c], &job, TERMINALS);
    assert_eq!(fleet.holding(KEY), TERMINALS);
    fleet.seen().assert_rising();

    b.restart();
    await_shares(shared(), &database, &["a", "b", "c"]);
}

#[test]
fn a_daemon_that_stood_still_past_its_leases_sends_nothing_for_what_is_others_now() {
    let _alone = alone();
    let (cluster, database) = cluster();
    let [a, mut b, c] = cluster.start(["a", "b", "c"]);
    let fleet = Fleet::listen(cluster.port);
    await_shares(shared(), &database, &["a", "b", "c"]);
    let (job, _) = a.rotate(SERVICE, None);
    // It stops while the first LTKMs of a page of its own have left and the others have not.
    let from = b.udp;
    let until = Instant::now() + PATIENCE;
    while fleet.sent_by(from) == 0 && Instant::now() < until {
        std::thread::yield_now();
    }
    b.signal(Signal::SIGSTOP);
    println!("stopped when {} of its LTKMs had come", fleet.sent_by(from));
    let running = a.get(&format!("/v1/jobs/{job}"))["state"] == "running";
    assert!(running, "it was stopped in the middle");
    let took = await_shares(shared(), &database, &["a", "c"]);
    println!("taken over {took:.1?} after the stop");
    assert!(took <= TAKEOVER, "its leases were taken over {took:?} after the stop");
    // Its own terminals get their key without it: of what it has decided, what had not left is sent again.
    await_holders(&fleet, KEY, TERMINALS);
    let sent = fleet.sent_by(from);
    assert!(sent > 0);

    b.signal(Signal::SIGCONT);
    // It sees that all that it had is gone, before it is given a share again.
    b.await_log("\"shard ranges held\",\"before\":2");
    await_shares(shared(), &database, &["a", "b", "c"]);
    await_verified(&[&a, &b, &c], &job, TERMINALS);
    // It was stopped between two datagrams, or between the question whether a terminal is still its own and the system's
    // call that sends: as many as send at once. Hundreds that were made were not sent.
    let late = fleet.sent_by(from) - sent;
    assert!(late <= AT_ONCE, "it has sent {late} LTKMs that were others' to send");
    const TOLD: &str = "not sent: their shards have moved to another daemon";
    if !b.logged.iter().any(|line| line.contains(TOLD)) {
        b.await_log(TOLD);
    }
    fleet.seen().assert_fresh();
    let fallen = fleet.seen().fallen();
    assert!(fallen.len() <= late, "T went back for {} terminals: {fallen:?}", fallen.len());

    // It is one of three again.
    let (job, msk_id) = c.rotate(SERVICE, None);
    await_verified(&[&a, &b, &c], &job, TERMINALS);
    assert_eq!(fleet.holding(&msk_id), TERMINALS);
    assert!(fleet.sent_by(from) > sent + TERMINALS / 5, "{sent}, then {}", fleet.sent_by(from));
    fleet.seen().assert_fresh();
    assert!(fleet.seen().fallen().len() <= late, "T went back");
}

#[test]
fn half_a_minute_without_the_database_is_answered_503_and_everything_goes_on_behind_it() {
    let _alone = alone();
    let (cluster, database) = cluster();
    let daemons = cluster.start(["a", "b", "c"]);
    let fleet = Fleet::listen(cluster.port);
    await_shares(shared(), &database, &["a", "b", "c"]);
    let nonce = fresh_nonce(&daemons[0]);
    let (job, _) = daemons[2].rotate(SERVICE, None);
    await_holders(&fleet, KEY, TERMINALS / 5);
    assert_eq!(daemons[0].get(&format!("/v1/jobs/{job}"))["state"], "running", "it is cut in the middle");

    shared().freeze();
    let back = Instant::now() + std::time::Duration::from_secs(30);
    let registered = |n: usize| {
        let to = daemons[n % daemons.len()].http;
        register_by(&mut Connection::open(to), &[SERVICE], n, &[0], &nonce).expect("an answer").status
    };
    let (mut n, mut unready) = (0, [false; 3]);
    while Instant::now() < back {
        assert_eq!(registered(n), 503, "request {n} while the database is gone");
        n += 1;
        for (unready, daemon) in unready.iter_mut().zip(&daemons) {
            *unready |= readyz(daemon) == 503;
        }
    }
    assert!(n >= 5);
    assert_eq!(unready, [true; 3], "readyz said 503");
    assert!(daemons.iter().all(|daemon| readyz(daemon) == 503), "readyz says 503");
    shared().thaw();

    let thawed = Instant::now();
    let served = poll(thawed + PATIENCE, || (registered(n) == 200).then_some(()));
    assert!(served.is_some(), "no request is served again");
    println!("served again {:.1?} after the cut", thawed.elapsed());
    for daemon in &daemons {
        daemon.await_state("readiness", |daemon| (readyz(daemon) == 200).then_some(()));
    }
    await_shares(shared(), &database, &["a", "b", "c"]);
    println!("ready, with all leases, {:.1?} after the cut", thawed.elapsed());
    // Who registered during it was answered 503 and may have been registered all the same, which changes nothing.
    await_verified(&daemons.each_ref(), &job, TERMINALS);
    await_holders(&fleet, KEY, TERMINALS);
    fleet.seen().assert_fresh();
    assert_eq!(leases(shared(), &database).len(), 3);
}
