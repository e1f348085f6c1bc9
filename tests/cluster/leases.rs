//! Who has which share of the work that is done once for all.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::terminal::Terminal;
use crate::nodes::{Cluster, RANGES, alone, await_shares, leases, readyz};
use crate::server::{Postgres, process::poll, shared};

const SETTINGS: &str = "udp.first_timeout = \"30s\"";

#[test]
fn who_leaves_the_cluster_gives_its_share_away_at_once_and_a_lone_daemon_does_all() {
    let _alone = alone();
    let database = shared().database();
    let cluster = Cluster::new(&shared().url_of("postgres", &database), SETTINGS);
    let [a, mut b, mut c] = cluster.start(["a", "b", "c"]);
    await_shares(shared(), &database, &["a", "b", "c"]);
    c.signal(Signal::SIGTERM);
    assert!(c.wait().success());
    let took = await_shares(shared(), &database, &["a", "b"]);
    assert!(took < Duration::from_secs(5), "the share of who left was taken over {took:?} later");
    assert!(b.terminate().success());
    await_shares(shared(), &database, &["a"]);

    a.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&a, &[]);
    terminal.registered(&["urn:s"], Some(&[0]));
    let first = terminal.receive();
    terminal.verify(&first);
    let (job, _) = a.rotate("urn:s", None);
    let second = terminal.receive();
    terminal.verify(&second);
    a.await_state("the end of the job", |a| {
        (a.get(&format!("/v1/jobs/{job}"))["state"] == "done").then_some(())
    });
}

#[test]
fn a_transaction_that_hangs_at_the_database_ends_nobodys_leases_and_no_service() {
    const HANGS: Duration = Duration::from_secs(12);
    let _alone = alone();
    let database = shared().database();
    let cluster = Cluster::new(&shared().url_of("postgres", &database), SETTINGS);
    let [a, b, mut c] = cluster.start(["a", "b", "c"]);
    a.put_service("urn:s", 1, json!({}));
    let terminal = Terminal::provision(&a, &[]);
    await_shares(shared(), &database, &["a", "b", "c"]);
    std::thread::scope(|scope| {
        // What a daemon that is stopped in the middle of a commit leaves behind.
        scope.spawn(|| {
            let text =
                format!("SELECT pg_advisory_xact_lock_shared(4276215384), pg_sleep({})", HANGS.as_secs());
            // Beyond what a statement may take, as it were a session of its own that hangs.
            shared().sql_in(&database, &format!("SET statement_timeout = 0; {text}"));
        });
        let held = "SELECT count(*) > 0 FROM pg_locks l JOIN pg_stat_activity s USING (pid) WHERE l.locktype = 'advisory' \
                    AND l.granted AND s.query LIKE '%pg_sleep(12)%' AND s.pid <> pg_backend_pid()";
        shared().await_sql(held, "t");
        let begun = Instant::now();
        c.kill();
        let gone = poll(begun + HANGS, || (!leases(shared(), &database).contains_key("c")).then_some(()));
        assert!(gone.is_some(), "its leases have not ended");
        // Nobody can take them over now, and everything else goes on.
        while begun.elapsed() < HANGS - Duration::from_secs(1) {
            assert_eq!((readyz(&a), readyz(&b)), (200, 200), "{:?} after the kill", begun.elapsed());
            let held = leases(shared(), &database);
            assert!(held.len() == 2 && held.values().sum::<usize>() < RANGES, "{held:?}");
            let asked = Instant::now();
            terminal.registered(&["urn:s"], Some(&[2]));
            assert!(asked.elapsed() < Duration::from_secs(4), "served after {:?}", asked.elapsed());
        }
    });
    await_shares(shared(), &database, &["a", "b"]);
}

/// The longest time until one of a server's TCP connections is asked whether its peer still is there (proc(5), the timer
/// of net/tcp).
fn longest_keepalive(server: &Postgres) -> Option<Duration> {
    const ESTABLISHED: &str = "01";
    const KEEPALIVE: &str = "02";
    const TICKS: u64 = 100;
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the system's connections");
    let of = |line: &str| -> Option<Duration> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (kind, ticks) = fields.get(5)?.split_once(':')?;
        let here = fields[1].ends_with(&format!(":{:04X}", server.port())) && fields[3] == ESTABLISHED;
        let ticks = u64::from_str_radix(ticks, 16).ok()?;
        (here && kind == KEEPALIVE).then(|| Duration::from_millis(ticks * 1000 / TICKS))
    };
    table.lines().skip(1).filter_map(of).max()
}

#[test]
fn a_machine_that_lost_its_power_is_missed_by_the_database_before_it_is_back() {
    let _alone = alone();
    let database = shared().database();
    let cluster = Cluster::new(&shared().url_of("postgres", &database), SETTINGS);
    let [a] = cluster.start(["a"]);
    // Its name is free once its sessions have ended, which nobody told the server: it has to ask.
    // One that was just made is set a moment later.
    let short = |longest: &Duration| *longest <= Duration::from_secs(4);
    a.await_state("an end of sessions that nobody has", |_| longest_keepalive(shared()).filter(short));
}
