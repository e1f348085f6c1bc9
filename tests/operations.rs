//! Several daemons on one PostgreSQL database: what each sees of the others, what happens when the database forgets,
//! and the files that are shipped for a cluster.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "operations/files.rs"]
mod files;
#[path = "operations/nodes.rs"]
mod nodes;
#[path = "harness/postgres.rs"]
mod postgres;
#[path = "operations/raise.rs"]
mod raise;
#[allow(dead_code, reason = "this binary uses its own part of the harness")]
#[path = "store/harness.rs"]
mod terminals;

use ltkmd::store::{PgSettings, PgStore};
use zeroize::Zeroizing;

/// How a daemon of this name opens a database.
fn settings(url: &str, node: &str) -> PgSettings {
    PgSettings {
        url: url.parse().expect("a URL"),
        password: None,
        master: Zeroizing::new([7; 32]),
        node: node.to_owned(),
        http: format!("{node}.example:8080"),
        connections: 4,
    }
}

fn open(url: &str, node: &str) -> PgStore {
    PgStore::open(&settings(url, node)).expect("the store opens")
}

/// An empty database on the server that all tests share.
fn database() -> String {
    let server = postgres::shared();
    server.url_of("postgres", &server.database())
}
