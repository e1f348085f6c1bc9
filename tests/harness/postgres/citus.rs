//! A coordinator and two workers, where the extension Citus is installed for the server.

use std::sync::{Mutex, OnceLock, PoisonError};

use super::{Options, Postgres, shared};

/// A cluster of three servers.
pub struct Citus {
    pub coordinator: Postgres,
    pub workers: [Postgres; 2],
    /// Servers take one database at a time: joining writes what all databases of a server share.
    joining: Mutex<()>,
}

/// Whether the extension is there; says so when it is not.
pub fn is_installed() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let found = shared().sql("SELECT count(*) FROM pg_available_extensions WHERE name = 'citus'") == "1";
        if !found {
            eprintln!("skipped: the extension Citus is not installed for this PostgreSQL");
        }
        found
    })
}

impl Citus {
    /// Starts one; `None` where Citus is not installed.
    pub fn start() -> Option<Self> {
        if !is_installed() {
            return None;
        }
        let options = || Options {
            settings: "shared_preload_libraries = 'citus'\n\
                       citus.node_conninfo = 'sslmode=prefer'\n\
                       citus.enable_statistics_collection = off\n\
                       max_connections = 300\n\
                       max_prepared_transactions = 300\n\
                       max_worker_processes = 64\n"
                .to_owned(),
            ..Options::default()
        };
        let [coordinator, first, second] = std::thread::scope(|scope| {
            [(); 3]
                .map(|()| scope.spawn(move || Postgres::start_with(&options())))
                .map(|started| started.join().expect("it starts"))
        });
        Some(Self { coordinator, workers: [first, second], joining: Mutex::default() })
    }

    /// Makes an empty database on all three, with the extension, and joins them.
    pub fn database(&self) -> String {
        let _one_by_one = self.joining.lock().unwrap_or_else(PoisonError::into_inner);
        let name = self.coordinator.database();
        for worker in &self.workers {
            // Citus may have made it there too.
            if worker.sql(&format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'")) == "0" {
                worker.sql(&format!("CREATE DATABASE {name}"));
            }
            worker.sql_in(&name, "CREATE EXTENSION citus");
        }
        let port = self.coordinator.port();
        self.coordinator.sql_in(&name, "CREATE EXTENSION citus");
        self.coordinator.sql_in(&name, &format!("SELECT citus_set_coordinator_host('127.0.0.1', {port})"));
        for worker in &self.workers {
            let port = worker.port();
            self.coordinator.sql_in(&name, &format!("SELECT citus_add_node('127.0.0.1', {port})"));
        }
        name
    }
}
