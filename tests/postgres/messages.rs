//! Which terminal a short message went to, asked at a daemon that did not submit it.

use std::collections::BTreeMap;

use ltkmd::delivery::Delivery;
use ltkmd::id::TerminalKey;
use ltkmd::store::backup::BackupStream;
use ltkmd::store::postgres::READ_MESSAGES;
use ltkmd::store::{EmbeddedStore, Migration, Scope, Store, View};
use ltkmd::time::Timestamp;
use zeroize::Zeroizing;

use super::engine::{open, open_as};
use super::harness::*;
use super::server::shared;

/// The rows of the table: whose message an id is, by shard.
fn rows(database: &str) -> BTreeMap<(u8, String), TerminalKey> {
    let text = "SELECT shard, id, encode(key, 'hex') FROM ltkmd.message";
    let row = |line: &str| {
        let columns: Vec<&str> = line.split('|').collect();
        let key = data_encoding::HEXLOWER.decode(columns[2].as_bytes()).unwrap();
        ((columns[0].parse().unwrap(), columns[1].to_owned()), TerminalKey(key.try_into().unwrap()))
    };
    shared().sql_in(database, text).lines().map(row).collect()
}

/// What they have to be.
fn named(of: &[(TerminalKey, &[&str])]) -> BTreeMap<(u8, String), TerminalKey> {
    of.iter().flat_map(|(key, ids)| ids.iter().map(|id| ((key.0[0], (*id).to_owned()), *key))).collect()
}

/// Puts other deliveries in place of a terminal's.
async fn deliver(store: &impl Store, n: usize, deliveries: &[Delivery]) {
    let deliveries = deliveries.to_vec();
    let put = move |view: &mut View| view.terminals[0].deliveries.clone_from(&deliveries);
    update(store, Scope::Terminals(vec![store.terminal_key(&btid(n))]), put).await.expect("delivered");
}

/// A delivery that changed so many seconds later than others.
fn later(mut d: Delivery, seconds: u64) -> Delivery {
    d.updated = Timestamp(d.updated.0 + 1000 * seconds);
    d
}

#[test]
fn a_message_that_one_daemon_recorded_is_found_at_another_for_as_long_as_a_delivery_names_it() {
    let url = shared().url_of("postgres", &shared().database());
    let (a, b) = (open_as(&url, "a"), open_as(&url, "b"));
    let [one, two, three] = [0, 1, 2].map(|n| a.terminal_key(&btid(n)));
    run(async {
        provision(&a, 0..3, 1).await;
        deliver(&a, 0, &[accepted(1, 1, &["1", "2"])]).await;
        deliver(&b, 1, &[accepted(1, 1, &["3"])]).await;
        assert_eq!(whose(&b, &["3", "9", "2", "1"]).await, [Some(two), None, Some(one), Some(one)]);
        assert_eq!(whose(&a, &["3"]).await, [Some(two)]);
        deliver(&a, 0, &[accepted(1, 2, &["4"])]).await;
        assert_eq!(whose(&b, &["1", "2", "4"]).await, [None, None, Some(one)]);
        deliver(&a, 0, &[]).await;
        assert_eq!(whose(&b, &["4"]).await, [None]);
        // Another centre gives the same id again: the newer message counts, in whatever order they are read.
        for (n, newer) in [(0, 20), (2, 10)] {
            deliver(&a, n, &[later(accepted(1, 3, &["5"]), newer)]).await;
            let id = format!("6-{n}");
            deliver(&a, n, &[later(accepted(1, 3, &["5"]), newer), accepted(2, 4, &[&id])]).await;
        }
        assert_eq!(whose(&b, &["5", "6-0", "6-2"]).await, [Some(one), Some(one), Some(three)]);
        deliver(&a, 2, &[later(accepted(1, 3, &["5"]), 30)]).await;
        assert_eq!(whose(&b, &["5", "6-2"]).await, [Some(three), None]);
        b.close().await.unwrap();
        assert!(b.terminals_of_messages(vec![id("1")]).await.is_err(), "nobody can say that it is unknown");
        a.close().await.unwrap();
    });
}

#[test]
fn the_table_has_the_messages_of_the_deliveries_and_a_later_terminals_stays() {
    let database = shared().database();
    let store = open(&shared().url_of("postgres", &database));
    // Two of one shard, and one of another.
    let key = |n: usize| store.terminal_key(&btid(n));
    let same = (1..).find(|n| key(*n).0[0] == key(0).0[0]).unwrap();
    let other = (1..).find(|n| key(*n).0[0] != key(0).0[0]).unwrap();
    run(async {
        for n in [0, same, other] {
            provision(&store, n..n + 1, 1).await;
        }
        let many: Vec<String> = (0..9).map(|n| format!("part-{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        deliver(&store, 0, &[accepted(1, 1, &many), accepted(2, 1, &many)]).await;
        deliver(&store, other, &[accepted(1, 1, &["x"])]).await;
        assert_eq!(rows(&database), named(&[(key(0), &many), (key(other), &["x"])]));
        deliver(&store, 0, &[accepted(1, 1, &many[..7]), accepted(2, 2, &["y", "z"])]).await;
        assert_eq!(
            rows(&database),
            named(&[(key(0), &many[..7]), (key(0), &["y", "z"]), (key(other), &["x"])])
        );
        // An id that came again in the shard is the later terminal's, whatever the earlier one does.
        deliver(&store, 0, &[accepted(1, 3, &["y", "again"])]).await;
        deliver(&store, same, &[accepted(1, 1, &["again"])]).await;
        assert_eq!(
            rows(&database),
            named(&[(key(0), &["y"]), (key(same), &["again"]), (key(other), &["x"])])
        );
        deliver(&store, 0, &[accepted(1, 3, &["y", "again"]), accepted(2, 4, &["w"])]).await;
        deliver(&store, 0, &[]).await;
        assert_eq!(rows(&database), named(&[(key(same), &["again"]), (key(other), &["x"])]));
        // It changes hands in one commit, and both come to it in one.
        let both = Scope::Terminals(vec![key(0), key(same)]);
        update(&store, both.clone(), |view| {
            view.terminals[0].deliveries = vec![accepted(1, 5, &["again"])];
            view.terminals[1].deliveries.clear();
        })
        .await
        .unwrap();
        assert_eq!(rows(&database), named(&[(key(0), &["again"]), (key(other), &["x"])]));
        update(&store, both, |view| {
            for t in &mut view.terminals {
                t.deliveries = vec![accepted(1, 6, &["both"])];
            }
        })
        .await
        .unwrap();
        assert_eq!(rows(&database), named(&[(key(same), &["both"]), (key(other), &["x"])]));
        // What is left of a terminal without its credential are its deliveries.
        let btids = vec![btid(other), btid(same)];
        update(&store, Scope::Credentials(btids, vec![]), |view| {
            view.terminals[0].credential = None;
            view.terminals[1].credential = None;
            view.terminals[1].deliveries.clear();
        })
        .await
        .unwrap();
        assert_eq!(rows(&database), named(&[(key(other), &["x"])]));
        store.close().await.unwrap();
    });
}

#[test]
fn messages_are_looked_for_by_the_key_among_many() {
    let database = shared().database();
    let store = open(&shared().url_of("postgres", &database));
    let many = "INSERT INTO ltkmd.message SELECT n % 256, 'm' || n, sha256('') FROM generate_series(1, 200000) n; ANALYZE";
    shared().sql_in(&database, many);
    for asked in [1, 10, 100] {
        let ids: Vec<String> = (0..asked).map(|n| format!("'m{}'", 17 * n)).collect();
        let call = format!("EXPLAIN (COSTS OFF) EXECUTE whose(ARRAY[{}])", ids.join(", "));
        let plan = shared().sql_in(&database, &format!("PREPARE whose AS {READ_MESSAGES}; {call}"));
        assert!(plan.contains("message_pkey") && !plan.contains("Seq Scan"), "{asked}: {plan}");
    }
    run(store.close()).unwrap();
}

/// The table is away: whoever speaks of it fails.
#[test]
fn a_commit_that_is_not_about_short_messages_does_not_speak_of_them() {
    let database = shared().database();
    let store = open(&shared().url_of("postgres", &database));
    run(async {
        services(&store, 1).await;
        provision(&store, 0..2, 1).await;
        deliver(&store, 0, &[accepted(1, 1, &["1"])]).await;
        shared().sql_in(&database, "ALTER TABLE ltkmd.message RENAME TO away");
        register(&store, 0, &[1]).await;
        deliver(&store, 1, &[sent(1, 1, 1, None)]).await;
        // Nor is one whose receipt came.
        deliver(&store, 0, &[later(accepted(1, 1, &["1"]), 5), sent(1, 2, 2, None)]).await;
        let keys = vec![store.terminal_key(&btid(1))];
        let speaks = |view: &mut View| view.terminals[0].deliveries = vec![accepted(1, 2, &["2"])];
        assert!(update(&store, Scope::Terminals(keys), speaks).await.is_err());
        shared().sql_in(&database, "ALTER TABLE ltkmd.away RENAME TO message");
        deliver(&store, 1, &[accepted(1, 2, &["2"])]).await;
        store.close().await.unwrap();
    });
}

#[test]
fn messages_move_with_their_terminals() {
    let dir = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(dir.path(), Some([7; 32])).unwrap();
    let database = shared().database();
    let url = shared().url_of("postgres", &database);
    let [one, two, three] = [0, 1, 2].map(|n| store.terminal_key(&btid(n)));
    run(async {
        provision(&store, 0..3, 1).await;
        deliver(&store, 0, &[accepted(1, 1, &["1", "2"]), accepted(2, 1, &["1", "2"])]).await;
        deliver(&store, 1, &[accepted(1, 1, &["3"])]).await;
        deliver(&store, 2, &[accepted(1, 1, &["4"])]).await;
        let (mut migration, _) =
            Migration::begin(url.parse().unwrap(), None, Zeroizing::new([7; 32])).await.unwrap();
        let first = copy(&store, &mut migration).await;
        assert_eq!(rows(&database), named(&[(one, &["1", "2"]), (two, &["3"]), (three, &["4"])]));
        migration.complete(&first).await.unwrap();
        // Meanwhile one has other messages, and one has none.
        deliver(&store, 0, &[accepted(1, 2, &["2", "5"])]).await;
        deliver(&store, 1, &[]).await;
        let last = copy(&store, &mut migration).await;
        assert_eq!(rows(&database), named(&[(one, &["2", "5"]), (three, &["4"])]));
        shared().sql_in(&database, "DELETE FROM ltkmd.message WHERE id = '4'");
        let missed = migration.complete(&last).await.unwrap_err();
        assert!(missed.to_string().contains("does not know the message 4"), "{missed}");
    });
}

async fn copy(store: &EmbeddedStore, migration: &mut Migration) -> ltkmd::store::PassReport {
    let mut stream = BackupStream::new(store.moment().await.unwrap());
    let mut pass = migration.pass().unwrap();
    while let Some(octets) = stream.next_octets().unwrap() {
        pass.feed(&octets).await.unwrap();
    }
    pass.finish().await.unwrap()
}
