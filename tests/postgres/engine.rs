//! The engine on PostgreSQL, and the same on one that is spread over workers where there is one to be had.

use ltkmd::store::{PgSettings, PgStore, PgUrl};
use zeroize::Zeroizing;

use super::harness::Factory;
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
    let settings = PgSettings {
        url: url.parse::<PgUrl>().expect("a URL"),
        password: None,
        master: Zeroizing::new([7; 32]),
        node: "a".to_owned(),
        http: String::new(),
        connections: 8,
    };
    PgStore::open(&settings).expect("the store opens")
}
