//! The engine on PostgreSQL, and the same on one that is spread over workers where there is one to be had.

use ltkmd::store::postgres::{Pool, Upgrade, upgrade_schema};
use ltkmd::store::{PgSettings, PgStore, PgUrl, Store, StoreError};
use zeroize::Zeroizing;

use super::harness::{Factory, provision, run, terminal};
use super::server::shared;

/// A database of its own on a server that all tests share.
pub(crate) struct Pg(String);

impl Factory for Pg {
    type Store = PgStore;

    fn new() -> Self {
        let server = shared();
        Self(server.url_of("postgres", &server.database()))
    }

    fn open(&self) -> PgStore {
        open(&self.0)
    }
}

/// Opens a store as the only daemon of a cluster.
pub(crate) fn open(url: &str) -> PgStore {
    open_as(url, "a")
}

/// Opens a store as the daemon of this name.
pub(crate) fn open_as(url: &str, node: &str) -> PgStore {
    let settings = PgSettings {
        url: url.parse::<PgUrl>().expect("a URL"),
        password: None,
        master: Zeroizing::new([7; 32]),
        node: node.to_owned(),
        http: String::new(),
        connections: 8,
    };
    PgStore::open(&settings).expect("the store opens")
}

#[test]
fn a_newer_schema_that_accepts_this_version_is_used_and_a_step_that_leaves_a_daemon_behind_is_not_taken() {
    let server = shared();
    let database = server.database();
    let url = server.url_of("postgres", &database);
    let store = open(&url);
    let format = || server.sql_in(&database, "SELECT format || ' ' || accepts FROM ltkmd.meta");
    assert_eq!(format(), "1 1");
    let take = |steps: &'static [Upgrade]| {
        let pool = Pool::new(url.parse().expect("a URL"), None, 1).expect("a pool");
        run(async move { upgrade_schema(&pool, steps).await })
    };
    const COLUMN: &[Upgrade] =
        &[Upgrade { to: 2, accepts: 1, sql: "ALTER TABLE ltkmd.terminal ADD COLUMN made_up int" }];
    take(COLUMN).expect("a step that the running daemon accepts");
    assert_eq!(format(), "2 1");
    take(COLUMN).expect("it is taken once");
    // The daemon of before goes on, and so does one that starts.
    run(provision(&store, 0..2, 1));
    run(store.close()).expect("closed");
    let store = open(&url);
    assert_eq!(run(terminal(&store, 1)).next_t, 1);
    const BREAKING: &[Upgrade] = &[
        Upgrade { to: 2, accepts: 1, sql: "SELECT 1/0" },
        Upgrade { to: 3, accepts: 3, sql: "ALTER TABLE ltkmd.terminal DROP COLUMN made_up" },
    ];
    match take(BREAKING) {
        Err(StoreError::Open(why)) => assert!(why.contains("running daemons a do not know"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(format(), "2 1");
    run(store.close()).expect("closed");
    drop(store);
    take(BREAKING).expect("nobody is left behind");
    assert_eq!(format(), "3 3");
}
