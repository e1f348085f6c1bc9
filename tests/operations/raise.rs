//! Every T of a database moves forward, once, whatever happens meanwhile.

use ltkmd::store::{PgStore, Scope, Store, StoreError, View, raise_t};

use crate::postgres::citus::Citus;
use crate::terminals::{all, btid, provision, register, run, services, terminal, update};
use crate::{database, open, settings};

/// Some in each shard, so that each shard is a page.
const TERMINALS: usize = 600;

const MARGIN: u64 = 1_000_000;

fn provisioned(url: &str) {
    let store = open(url, "a");
    run(async {
        services(&store, 1).await;
        provision(&store, 0..TERMINALS, 2).await;
        for n in 0..5 {
            register(&store, n, &[1]).await;
        }
        let keys = (0..TERMINALS / 2).map(|n| store.terminal_key(&btid(n))).collect();
        // Each with a T of its own; of the others nothing is known but that they begin.
        let spread = |view: &mut View| {
            for (n, terminal) in (0..).zip(&mut view.terminals) {
                terminal.next_t = 2 + n;
            }
        };
        update(&store, Scope::Terminals(keys), spread).await.unwrap();
        store.close().await.unwrap();
    });
}

fn sentence(error: StoreError) -> String {
    assert!(matches!(error, StoreError::Open(_)), "waiting does not mend it: {error}");
    error.to_string()
}

fn refused(url: &str, margin: u64) -> String {
    sentence(raise_t(&settings(url, "x"), margin, &mut |_, _| true).expect_err("refused"))
}

/// T of each terminal.
async fn counters(store: &PgStore) -> Vec<u64> {
    all(store, TERMINALS).await.iter().map(|t| t.next_t).collect()
}

fn before(url: &str) -> Vec<u64> {
    let store = open(url, "a");
    run(async {
        let counters = counters(&store).await;
        store.close().await.unwrap();
        counters
    })
}

fn raises_every_t_once(url: &str) {
    provisioned(url);
    let before = before(url);
    assert_eq!((before[0], before[9], before[TERMINALS - 1]), (2, 11, 1));
    // Broken off in the middle: nobody may start on the half of it.
    let broken = raise_t(&settings(url, "x"), MARGIN, &mut |shards, _| shards < 100).unwrap();
    assert!(!broken.finished && !broken.resumed && broken.terminals > 0, "{broken:?}");
    let told = sentence(PgStore::open(&settings(url, "a")).expect_err("it is not opened"));
    assert!(told.contains("give ltkmd raise-t once more"), "{told}");
    assert!(refused(url, MARGIN + 1).contains("by 1000000 was begun"), "another margin");
    let mut steps = Vec::new();
    let raised = raise_t(&settings(url, "x"), MARGIN, &mut |shards, terminals| {
        steps.push((shards, terminals));
        true
    })
    .unwrap();
    assert!(raised.finished && raised.resumed && raised.spent == 0, "{raised:?}");
    assert!(raised.terminals > broken.terminals && raised.terminals <= TERMINALS as u64);
    assert!(steps.is_sorted() && steps[0].0 == 100, "it goes on where it was: {:?}", steps[0]);
    assert_eq!(steps.last().map(|(shards, _)| *shards), Some(256));
    let store = open(url, "a");
    run(async {
        let raised: Vec<u64> = before.iter().map(|t| t + MARGIN).collect();
        assert_eq!(counters(&store).await, raised, "each by the margin, and once");
        // Of this one nothing was known: it may have been provisioned after the backup.
        provision(&store, TERMINALS..TERMINALS + 1, 2).await;
        assert_eq!(terminal(&store, TERMINALS).await.next_t, 1 + MARGIN);
        // The registration is as it was, and so is what decides over it.
        register(&store, 0, &[1]).await;
        store.close().await.unwrap();
    });
}

#[test]
fn every_t_is_raised_once_also_after_it_broke_off() {
    raises_every_t_once(&database());
}

#[test]
fn every_t_of_a_distributed_database_is_raised_once() {
    let Some(servers) = Citus::start() else { return };
    let name = servers.database();
    raises_every_t_once(&servers.coordinator.url_of("postgres", &name));
}

#[test]
fn it_is_refused_while_a_daemon_lives_and_no_daemon_starts_meanwhile() {
    let url = database();
    provisioned(&url);
    let store = open(&url, "node-1");
    let told = refused(&url, 1);
    assert!(told.contains("node-1 may still be at work: stop every daemon"), "{told}");
    run(store.close()).unwrap();
    let mut tried = 0;
    let raised = raise_t(&settings(&url, "x"), 1, &mut |shards, _| {
        if shards == 10 {
            let error = PgStore::open(&settings(&url, "b")).expect_err("it has to wait");
            assert!(error.is_retriable(), "and comes again by itself: {error}");
            // A thread of its own: this one is at work for the first.
            let other = std::thread::scope(|scope| scope.spawn(|| refused(&url, 1)).join().unwrap());
            assert!(other.contains("T is being raised already"), "{other}");
            tried += 1;
        }
        true
    });
    assert!(raised.unwrap().finished && tried == 1);
    open(&url, "b");
}

#[test]
fn what_has_nothing_to_raise_and_a_wrong_store_key_are_told() {
    let url = database();
    assert!(refused(&url, 1).contains("no schema ltkmd"));
    provisioned(&url);
    let known = before(&url);
    let mut other = settings(&url, "x");
    *other.master = [8; 32];
    let told = sentence(raise_t(&other, 1, &mut |_, _| true).expect_err("refused"));
    assert!(told.contains("the store key is not the one"), "{told}");
    assert_eq!(before(&url), known, "nothing was raised");
}

#[test]
fn a_counter_near_its_end_stays_there_and_is_told() {
    let url = database();
    provisioned(&url);
    let store = open(&url, "a");
    run(async {
        update(&store, Scope::Terminal(btid(0)), |view| view.terminals[0].next_t = 0xFFFE_0000)
            .await
            .unwrap();
        store.close().await.unwrap();
    });
    let raised = raise_t(&settings(&url, "x"), MARGIN, &mut |_, _| true).unwrap();
    assert_eq!(raised.spent, 1, "{raised:?}");
    let store = open(&url, "a");
    assert_eq!(run(terminal(&store, 0)).next_t, 1 << 32);
}
