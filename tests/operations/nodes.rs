//! What a daemon tells of the cluster.

use std::time::{Duration, Instant};

use ltkmd::store::Store;
use ltkmd::store::cluster::{Cluster, Node, NodeState};

use crate::postgres::citus::Citus;
use crate::postgres::process::poll;
use crate::postgres::{PATIENCE, Postgres, shared};
use crate::terminals::run;
use crate::{database, open};

fn node<'a>(cluster: &'a Cluster, name: &str) -> &'a Node {
    let found = cluster.nodes.iter().find(|node| node.name.as_deref() == Some(name));
    found.unwrap_or_else(|| panic!("{name} in {cluster:?}"))
}

/// Asks until the cluster is as it should be.
fn until(store: &impl Store, what: &str, is: impl Fn(&Cluster) -> bool) -> Cluster {
    let mut last = None;
    let found = poll(Instant::now() + PATIENCE, || {
        let cluster = run(store.cluster()).expect("an answer");
        last = Some(cluster.clone());
        is(&cluster).then_some(cluster)
    });
    found.unwrap_or_else(|| panic!("{what}: {last:?}"))
}

#[test]
fn each_daemon_sees_all_of_them_what_they_hold_and_who_is_gone_or_has_left() {
    let url = database();
    let (a, b, c) = (open(&url, "a"), open(&url, "b"), open(&url, "c"));
    let fair = until(&a, "the ranges are shared", |cluster| {
        let mut leases: Vec<u32> = cluster.nodes.iter().map(|node| node.leases).collect();
        leases.sort_unstable();
        leases == [21, 21, 22] && cluster.unheld.is_empty()
    });
    assert!(fair.shared && fair.ranges == 64);
    assert!(fair.nodes.iter().all(|node| node.state == NodeState::Alive && node.format == Some(1)));
    assert_eq!(fair.nodes.iter().filter(|node| node.leads).count(), 1, "{fair:?}");
    assert!(node(&fair, "a").here && !node(&fair, "b").here);
    assert_eq!(node(&fair, "b").http.as_deref(), Some("b.example:8080"));
    assert!(node(&fair, "a").seen >= node(&fair, "a").started.expect("it entered"));
    // Gone and left.
    drop(b);
    run(c.close()).expect("it ends in order");
    let alone = until(&a, "a has all", |cluster| node(cluster, "a").leases == 64);
    assert_eq!(node(&alone, "b").state, NodeState::Gone);
    assert_eq!(node(&alone, "c").state, NodeState::Left);
    assert_eq!((node(&alone, "b").leases, node(&alone, "c").leases), (0, 0));
    let known = poll(Instant::now() + PATIENCE, || {
        let m = a.membership();
        ((m.alive, m.gone, m.held, m.unheld) == (1, 1, 64, 0)).then_some(m)
    });
    let left = known.expect("the next renewal sees it").lease_left.expect("leases end");
    assert!(left > Duration::ZERO && left < Duration::from_secs(6), "{left:?}");
    // It comes back.
    let b = open(&url, "b");
    until(&b, "b is back", |cluster| node(cluster, "b").state == NodeState::Alive);
}

#[test]
fn a_lease_runs_out_while_the_database_stands_still() {
    let server = Postgres::start();
    let store = open(&server.url(), "a");
    let held = |held: bool| {
        let found = poll(Instant::now() + PATIENCE, || {
            let m = store.membership();
            let left = m.lease_left.expect("leases end");
            ((m.held > 0) == held && left.is_zero() != held).then_some(())
        });
        assert!(found.is_some(), "{:?}", store.membership());
    };
    held(true);
    server.freeze();
    held(false);
    server.thaw();
    held(true);
}

#[test]
fn the_database_is_told_with_its_standbys_to_whom_may_see_them() {
    let server = Postgres::start();
    let standby = server.standby();
    let store = open(&server.url(), "a");
    let cluster = until(&store, "the standby has told how far it is", |cluster| {
        let standbys = cluster.database.as_ref().and_then(|d| d.standbys.as_ref());
        standbys.is_some_and(|all| all.iter().any(|s| s.behind.is_some()))
    });
    let database = cluster.database.expect("a database");
    assert!(server.sql("SHOW server_version").starts_with(&database.version));
    assert!(database.synchronous && database.size > 1 << 20 && database.citus.is_none());
    let standbys = database.standbys.expect("a superuser sees them");
    assert_eq!((standbys[0].name.as_str(), standbys[0].state.as_str()), ("standby1", "sync"));
    run(store.close()).unwrap();
    drop(standby);
    // Who may not is told nothing.
    let name = shared().database();
    shared().sql("CREATE ROLE blind LOGIN");
    shared().sql(&format!("GRANT CREATE ON DATABASE {name} TO blind"));
    let store = open(&shared().url_of("blind", &name), "a");
    let database = run(store.cluster()).unwrap().database.expect("a database");
    assert_eq!((database.standbys, database.synchronous), (None, false));
}

#[test]
fn a_distributed_database_is_told_with_its_workers() {
    let Some(mut servers) = Citus::start() else { return };
    let name = servers.database();
    let store = open(&servers.coordinator.url_of("postgres", &name), "a");
    let workers = |cluster: &Cluster| {
        let citus = cluster.database.as_ref().and_then(|d| d.citus.clone());
        citus.expect("it is distributed").workers
    };
    let all = workers(&run(store.cluster()).unwrap());
    assert_eq!(all.len(), 2);
    assert!(all.iter().all(|w| w.active && w.size.is_some_and(|size| size > 1 << 20)), "{all:?}");
    servers.workers[1].kill_9();
    let address = format!("127.0.0.1:{}", servers.workers[1].port());
    let cluster = until(&store, "a worker that is dead has no size", |cluster| {
        workers(cluster).iter().any(|w| w.address == address && w.size.is_none())
    });
    assert_eq!(workers(&cluster).iter().filter(|w| w.size.is_some()).count(), 1);
}
