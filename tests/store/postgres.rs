//! The engine on PostgreSQL.

use std::sync::atomic::{AtomicU32, Ordering};

use ltkmd::store::{PgSettings, PgStore, PgUrl};
use zeroize::Zeroizing;

use super::harness::Factory;

/// A database of its own.
pub(crate) struct Pg(String);

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Factory for Pg {
    type Store = PgStore;

    fn new() -> Self {
        let name = format!("t{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        if let Ok(script) = std::env::var("CITUS_SCRIPT") {
            assert!(std::process::Command::new("bash").arg(script).arg(&name).status().unwrap().success());
            return Self(format!("postgres://postgres@127.0.0.1:9700/{name}"));
        }
        let sql = format!("CREATE DATABASE {name}");
        let done = std::process::Command::new("psql")
            .args(["-q", "-h", "127.0.0.1", "-p", "5433", "-U", "postgres", "-c", &sql])
            .status();
        assert!(done.unwrap().success());
        Self(format!("postgres://postgres@127.0.0.1:5433/{name}"))
    }

    fn open(&self) -> PgStore {
        PgStore::open(&PgSettings {
            url: self.0.parse::<PgUrl>().expect("a URL"),
            password: None,
            master: Zeroizing::new([7; 32]),
            node: "a".to_owned(),
            http: String::new(),
            connections: 16,
        })
        .expect("the store opens")
    }
}
