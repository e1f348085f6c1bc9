//! The schema and its versions, and how it is spread over the workers of a distributed database.

use deadpool_postgres::{ClientWrapper as Client, Transaction};
use tokio_postgres::error::SqlState;

use super::sql;
use crate::secret::Sealed;
use crate::store::{Sealer, StoreError};

/// The format of the schema and of the records in it that this program writes.
pub(super) const FORMAT: i32 = 1;

/// The oldest format with whose programs this one can share a database.
pub(super) const ACCEPTS: i32 = 1;

/// What a schema accepts that is being filled from another store: no program at all.
pub(super) const UNFINISHED: i32 = i32::MAX;

/// What makes the schema, of the newest format.
const SCHEMA: &str = include_str!("schema.sql");

/// A step from one format of the schema to the next.
#[derive(Debug, Clone, Copy)]
pub struct Upgrade {
    /// The format that it leads to, one above the one before.
    pub to: i32,
    /// The oldest format whose programs can go on with the schema as it is then.
    pub accepts: i32,
    /// What it does. It has to be quick: nothing is committed meanwhile.
    pub sql: &'static str,
}

/// The steps from format 1 to [`FORMAT`], in their order.
const UPGRADES: &[Upgrade] = &[];

/// Tables that grow with the number of terminals, spread by their shards.
const SPREAD: [&str; 6] = ["terminal", "subscriber", "member", "message", "tally", "job_shard"];

/// Small tables, whole on every worker.
const EVERYWHERE: [&str; 6] = ["meta", "service", "msk", "job", "node", "lease"];

/// Whether somebody began to raise every T and has not come to the end.
pub(super) const IS_RAISING: &str = "SELECT to_regclass('ltkmd.raising') IS NOT NULL";

/// What the database says of itself.
pub(super) struct Found {
    pub(super) sealer: Sealer,
    pub(super) first_t: u64,
    pub(super) revision: u64,
}

/// Makes the schema where there is none, and opens what is there.
pub(super) async fn open(
    client: &mut Client,
    master: &[u8; 32],
    distributed: bool,
) -> Result<Found, StoreError> {
    let transaction = client.transaction().await?;
    // One daemon makes it; the others wait.
    transaction.execute(sql::EXCLUDE, &[]).await?;
    let there = transaction.query_one("SELECT to_regclass('ltkmd.meta') IS NOT NULL", &[]).await?;
    if !there.get::<_, bool>(0) {
        tracing::info!(format = FORMAT, distributed, "making the schema");
        let (_, wrapped) = Sealer::create(master)
            .map_err(|e| StoreError::Unavailable(format!("the system gives no randomness: {e}")))?;
        create(&transaction, &wrapped, ACCEPTS, distributed).await?;
    }
    upgrade(&transaction, UPGRADES).await?;
    let found = read(&transaction, master).await?;
    if transaction.query_one(IS_RAISING, &[]).await?.get(0) {
        return Err(StoreError::Open(
            "raising every T was begun in this database and has not come to its end: give ltkmd raise-t once more"
                .to_owned(),
        ));
    }
    transaction.commit().await?;
    Ok(found)
}

/// Takes the schema forward, step by step, in the transaction that opens it: a daemon of the new version brings its schema
/// along, and those of the version before go on beside it where the steps accept them. A step that would leave a living
/// daemon behind is not taken.
pub(super) async fn upgrade(transaction: &Transaction<'_>, steps: &[Upgrade]) -> Result<(), StoreError> {
    for step in steps {
        let text = "SELECT format, accepts FROM ltkmd.meta";
        let row = transaction.query_one(text, &[]).await?;
        let (format, accepts): (i32, i32) = (row.get(0), row.get(1));
        if format != step.to - 1 || accepts == UNFINISHED {
            continue;
        }
        let text = "SELECT string_agg(name, ', ' ORDER BY name) FROM ltkmd.node WHERE expires > now() AND format < $1";
        let behind: Option<String> = transaction.query_one(text, &[&step.accepts]).await?.get(0);
        if let Some(names) = behind {
            return Err(StoreError::Open(format!(
                "the schema has to become format {}, which the running daemons {names} do not know: upgrade them to the \
                 version before this one first, or stop them",
                step.to
            )));
        }
        tracing::info!(from = format, to = step.to, "taking the schema forward");
        transaction.batch_execute(step.sql).await?;
        let text = "UPDATE ltkmd.meta SET format = $1, accepts = $2";
        transaction.execute(text, &[&step.to, &step.accepts]).await?;
    }
    Ok(())
}

/// Opens what is there.
pub(super) async fn read(transaction: &Transaction<'_>, master: &[u8; 32]) -> Result<Found, StoreError> {
    let text = "SELECT format, accepts, data_key, first_t, revision FROM ltkmd.meta";
    let row = transaction.query_opt(text, &[]).await.map_err(|error| match error.code() {
        Some(&SqlState::UNDEFINED_COLUMN | &SqlState::UNDEFINED_TABLE) => StoreError::Open(
            "the schema ltkmd in this database is not ltkmd's: use another database".to_owned(),
        ),
        _ => error.into(),
    })?;
    let row = row.ok_or_else(|| StoreError::Damaged("ltkmd.meta has no row".to_owned()))?;
    let (format, accepts): (i32, i32) = (row.get(0), row.get(1));
    if accepts == UNFINISHED {
        return Err(StoreError::Open(
            "the database is being filled by ltkmd migrate, or what it had begun did not come to its end: leave store.url \
             as it was, and let ltkmd migrate end or run it again"
                .to_owned(),
        ));
    }
    if accepts > FORMAT {
        return Err(StoreError::Open(format!(
            "the database's schema is of format {format} and accepts programs from format {accepts} on; this program \
             knows format {FORMAT}: use a newer ltkmd"
        )));
    }
    if format < ACCEPTS {
        return Err(StoreError::Open(format!(
            "the database's schema is of format {format}, and this program needs {ACCEPTS} or later: upgrade it with \
             the ltkmd in between"
        )));
    }
    let sealer = Sealer::unwrap(master, &Sealed::from_octets(row.get(2))).map_err(|_| {
        StoreError::Open(
            "the store key is not the one that this database was made with: all daemons of a cluster need the same \
             store.store_key_file"
                .to_owned(),
        )
    })?;
    let (first_t, revision): (i64, i64) = (row.get(3), row.get(4));
    Ok(Found { sealer, first_t: first_t as u64, revision: revision as u64 })
}

/// Makes the schema of a store with this data key.
pub(super) async fn create(
    transaction: &Transaction<'_>,
    wrapped: &Sealed,
    accepts: i32,
    distributed: bool,
) -> Result<(), StoreError> {
    transaction.batch_execute(SCHEMA).await?;
    let text = "INSERT INTO ltkmd.meta (format, accepts, data_key, first_t, revision, next_service, next_ordinal, \
                next_job) VALUES ($1, $2, $3, 1, 1, 0, 0, 1)";
    transaction.execute(text, &[&FORMAT, &accepts, &wrapped.octets()]).await?;
    if distributed {
        for table in EVERYWHERE {
            let text = format!("SELECT create_reference_table('ltkmd.{table}')");
            transaction.execute(&text, &[]).await?;
        }
        for table in SPREAD {
            let with = if table == SPREAD[0] { "default" } else { "ltkmd.terminal" };
            let text = format!(
                "SELECT create_distributed_table('ltkmd.{table}', 'shard', colocate_with => '{with}')"
            );
            transaction.execute(&text, &[]).await?;
        }
    }
    Ok(())
}
