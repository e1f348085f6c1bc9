//! Filling a database from the backups of a running daemon with an embedded store.
//!
//! A pass reads a whole backup and brings the database to what it shows. The first finds nothing there and copies all; a
//! later one writes what differs from the pass before, whose records it knows by hashes on disk. A backup has its
//! credentials before its terminals' states, both by key: credentials are set aside, and joined with the states as these
//! come. So neither takes memory by the number of terminals.
//!
//! Until the end, `accepts` in the schema is a number that no program has: no daemon opens what is half there.

mod batch;
mod fill;
mod pass;
mod spool;

use std::io;
use std::time::{Duration, Instant};

use deadpool_postgres::ClientWrapper as Client;
use zeroize::Zeroizing;

use super::connect::{Connection, Pool, check_server};
use super::schema::{self, UNFINISHED};
use super::url::PgUrl;
use crate::secret::Secret;
use crate::store::StoreError;
use crate::store::backup::Head;

pub use self::pass::{Pass, PassReport};

use self::pass::Known;

/// What the session is set to: a statement may go over all terminals.
const SESSION: &str = "\
    SET statement_timeout = '10min'; \
    SET idle_in_transaction_session_timeout = '10min'";

/// What a database has that is to be filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// No schema of ours, or one that nothing was ever put into.
    Empty,
    /// What a migration left that did not come to its end: it is begun anew.
    Unfinished,
}

/// A database that is being filled.
pub struct Migration {
    pool: Pool,
    client: Client,
    distributed: bool,
    master: Zeroizing<[u8; 32]>,
    head: Option<Head>,
    /// What the pass before wrote.
    known: Known,
}

/// Nothing can be set aside.
fn spooling(error: io::Error) -> StoreError {
    let dir = std::env::temp_dir();
    StoreError::Unavailable(format!(
        "records cannot be set aside in {} ({error}): it takes room for about a backup, TMPDIR names another place",
        dir.display()
    ))
}

impl Migration {
    /// Connects, and looks whether the database may be filled. `master` is the store key of the store that comes.
    ///
    /// # Errors
    /// The database cannot be reached or used; it has another store in it, or daemons on it; another migration fills it.
    pub async fn begin(
        url: PgUrl,
        password: Option<Secret>,
        master: Zeroizing<[u8; 32]>,
    ) -> Result<(Self, Found), StoreError> {
        let pool = Pool::new(url, password, 2)?;
        let client = Connection::take(pool.get().await?);
        let facts = check_server(&pool, &client).await?;
        client.batch_execute(SESSION).await?;
        let row = client.query_one("SELECT pg_try_advisory_lock(1819569006, 0)", &[]).await?;
        if !row.get::<_, bool>(0) {
            return Err(StoreError::Open(format!("another migration fills {}: wait for its end", pool.at())));
        }
        let found = look(&client, &pool.at()).await?;
        let distributed = facts.citus.is_some();
        let known = Known::default();
        Ok((Self { pool, client, distributed, master, head: None, known }, found))
    }

    /// The database as the subject of a sentence.
    pub fn at(&self) -> String {
        self.pool.at()
    }

    /// Begins a pass, which takes a backup's octets.
    ///
    /// # Errors
    /// Nothing can be set aside.
    pub fn pass(&mut self) -> Result<Pass<'_>, StoreError> {
        Pass::new(self)
    }

    /// Makes the schema anew, closed to daemons.
    async fn create(&mut self, head: &Head) -> Result<(), StoreError> {
        let transaction = self.client.transaction().await?;
        transaction.batch_execute("DROP SCHEMA IF EXISTS ltkmd CASCADE").await?;
        schema::create(&transaction, &head.wrapped, UNFINISHED, self.distributed).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Writes services, keys, jobs and counters as the last pass saw them, and compares what both sides have.
    ///
    /// # Errors
    /// The database does not work, or has something else than was copied.
    pub async fn complete(&mut self, last: &PassReport) -> Result<(), StoreError> {
        fill::fill(&self.client, last).await?;
        fill::verify(&self.client, last, self.distributed).await
    }

    /// Opens the database to daemons.
    ///
    /// # Errors
    /// The database does not work: whether it is open is not known, ask [`Migration::is_open`].
    pub async fn open(&self) -> Result<(), StoreError> {
        let text = "UPDATE ltkmd.meta SET accepts = $1";
        self.client.execute(text, &[&schema::ACCEPTS]).await?;
        Ok(())
    }

    /// What became of [`Migration::open`]: asked over a new connection, again and again, once the old one's session is over.
    ///
    /// # Errors
    /// It could not be asked in time.
    pub async fn is_open(self, within: Duration) -> Result<bool, StoreError> {
        let Self { pool, client, .. } = self;
        drop(client);
        let begun = Instant::now();
        loop {
            let asked = async {
                let client = Connection::take(pool.get().await?);
                // The old session has this lock until its end, and its last commit is known then.
                client.query_one("SELECT pg_advisory_lock(1819569006, 0)", &[]).await?;
                let row = client.query_one("SELECT accepts FROM ltkmd.meta", &[]).await?;
                Ok(row.get::<_, i32>(0) != UNFINISHED)
            };
            match asked.await {
                Err(error) if begun.elapsed() > within => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
                Ok(open) => return Ok(open),
            }
        }
    }
}

/// Refuses a database that must not be filled.
async fn look(client: &Client, at: &str) -> Result<Found, StoreError> {
    let refuse = |why: &str| Err(StoreError::Open(format!("{at} {why}")));
    let text = "SELECT to_regnamespace('ltkmd') IS NOT NULL, to_regclass('ltkmd.meta') IS NOT NULL";
    let row = client.query_one(text, &[]).await?;
    match (row.get(0), row.get(1)) {
        (false, _) => return Ok(Found::Empty),
        (true, false) => return refuse("has a schema ltkmd that is not ltkmd's: use another database"),
        (true, true) => {}
    }
    let accepts = client.query_opt("SELECT accepts FROM ltkmd.meta", &[]).await?;
    if accepts.is_some_and(|row| row.get::<_, i32>(0) == UNFINISHED) {
        return Ok(Found::Unfinished);
    }
    let text = "SELECT EXISTS (SELECT FROM ltkmd.terminal) OR EXISTS (SELECT FROM ltkmd.subscriber) \
                OR EXISTS (SELECT FROM ltkmd.service), EXISTS (SELECT FROM ltkmd.node WHERE expires > now())";
    let row = client.query_one(text, &[]).await?;
    match (row.get(0), row.get(1)) {
        (true, _) => refuse(
            "has a store already: use another database, or, when nobody needs it any more, remove it (DROP SCHEMA ltkmd \
             CASCADE)",
        ),
        (false, true) => refuse("has a daemon on it: end that one first"),
        (false, false) => Ok(Found::Empty),
    }
}
