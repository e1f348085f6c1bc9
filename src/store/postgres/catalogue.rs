//! Services and keys: read as of one revision, changed by one daemon at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use deadpool_postgres::ClientWrapper as Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::{GenericClient, IsolationLevel};

use super::place::SHARDS;
use super::scope::damaged;
use super::{job, sql};
use crate::id::ServiceNo;
use crate::keys::{Catalogue, ServiceKeys};
use crate::store::{CatalogueWrite, Sealer, StoreError, msk, record};

/// All services and keys of one revision.
pub(super) async fn load(client: &mut Client, sealer: &Sealer) -> Result<Catalogue, StoreError> {
    let transaction =
        client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    let transaction = transaction.start().await?;
    let row = transaction.query_one("SELECT revision, next_service FROM ltkmd.meta", &[]).await?;
    let (revision, next_service): (i64, i64) = (row.get(0), row.get(1));
    let services = transaction.query("SELECT no, record FROM ltkmd.service", &[]).await?;
    let text = "SELECT service, number, record FROM ltkmd.msk ORDER BY ordinal";
    let rows = transaction.query(text, &[]).await?;
    transaction.commit().await?;
    let mut keys: BTreeMap<i64, Vec<_>> = BTreeMap::new();
    for row in rows {
        let (service, number): (i64, i32) = (row.get(0), row.get(1));
        let key = record::read_key(row.get(2)).map_err(damaged("a key"))?;
        let number =
            u16::try_from(number).map_err(|_| StoreError::Damaged("the number of a key".to_owned()))?;
        keys.entry(service).or_default().push(Arc::new(msk::open(
            sealer,
            service_no(service)?,
            number,
            &key,
        )?));
    }
    let mut catalogue = Catalogue::default();
    for row in services {
        let no: i64 = row.get(0);
        let service = record::read_service(service_no(no)?, row.get(1)).map_err(damaged("a service"))?;
        catalogue.insert(ServiceKeys { service, keys: keys.remove(&no).unwrap_or_default() });
    }
    if let Some(highest) = next_service.checked_sub(1).filter(|n| *n >= 0) {
        catalogue.reserve_no(service_no(highest)?);
    }
    catalogue.set_revision(revision as u64);
    Ok(catalogue)
}

fn service_no(no: i64) -> Result<ServiceNo, StoreError> {
    u32::try_from(no).map(ServiceNo).map_err(|_| StoreError::Damaged("the number of a service".to_owned()))
}

/// Makes counters, at 0 in every shard, where there are none yet.
pub(super) async fn ensure_counters(
    client: &impl GenericClient,
    kind: i16,
    a: i64,
    b: i32,
) -> Result<(), StoreError> {
    let text = "INSERT INTO ltkmd.tally (shard, kind, a, b) SELECT shard, $1::smallint, $2::bigint, $3::int FROM generate_series(0, $4::int) AS \
                shard ON CONFLICT DO NOTHING";
    client.execute(text, &[&kind, &a, &b, &(SHARDS - 1)]).await?;
    Ok(())
}

/// Writes in one commit, if services and keys are of the revision given; gives the revision that they have then. It
/// stays when only jobs are written.
pub(super) async fn write(
    client: &mut Client,
    sealer: &Sealer,
    at: Option<u64>,
    writes: Vec<CatalogueWrite>,
) -> Result<u64, StoreError> {
    let transaction = client.transaction().await?;
    transaction.execute(sql::EXCLUDE, &[]).await?;
    let jobs_alone = writes.iter().all(|write| matches!(write, CatalogueWrite::Job(_)));
    let at = at.map(|revision| revision as i64);
    let raise = i64::from(!jobs_alone);
    let text = "UPDATE ltkmd.meta SET revision = CASE WHEN revision = coalesce($1, revision) THEN revision + $2 END \
                RETURNING revision, next_ordinal";
    let found = transaction.query_one(text, &[&at, &raise]).await;
    let row = found.map_err(|error| match error.code() {
        Some(&SqlState::NOT_NULL_VIOLATION) => StoreError::Outdated,
        _ => error.into(),
    })?;
    let (revision, mut next_ordinal): (i64, i64) = (row.get(0), row.get(1));
    let mut next_service = 0i64;
    for write in writes {
        match write {
            CatalogueWrite::Service(service) => {
                let no = i64::from(service.no.0);
                next_service = next_service.max(no + 1);
                let text = "INSERT INTO ltkmd.service (no, record) VALUES ($1, $2) ON CONFLICT (no) DO UPDATE SET \
                            record = excluded.record";
                transaction.execute(text, &[&no, &record::put_service(&service)]).await?;
                ensure_counters(&*transaction, 1, no, 0).await?;
            }
            CatalogueWrite::Key(key) => {
                let (no, number) = (i64::from(key.service.0), i32::from(key.number));
                let record = record::put_key(&msk::seal(sealer, &key, next_ordinal as u64)?);
                // A key that is written again keeps its place.
                let text = "INSERT INTO ltkmd.msk (service, number, ordinal, record) VALUES ($1, $2, $3, $4) ON \
                            CONFLICT (service, number) DO UPDATE SET record = excluded.record";
                transaction.execute(text, &[&no, &number, &next_ordinal, &record]).await?;
                next_ordinal += 1;
                ensure_counters(&*transaction, 2, no, number).await?;
            }
            CatalogueWrite::RemoveKey(no, number) => {
                let (no, number) = (i64::from(no.0), i32::from(number));
                for text in [
                    "DELETE FROM ltkmd.msk WHERE service = $1 AND number = $2",
                    "DELETE FROM ltkmd.tally WHERE kind = 2 AND a = $1 AND b = $2",
                ] {
                    transaction.execute(text, &[&no, &number]).await?;
                }
            }
            CatalogueWrite::RemoveService(no) => {
                let no = i64::from(no.0);
                for text in [
                    "DELETE FROM ltkmd.msk WHERE service = $1",
                    "DELETE FROM ltkmd.service WHERE no = $1",
                    "DELETE FROM ltkmd.tally WHERE kind IN (1, 2) AND a = $1",
                ] {
                    transaction.execute(text, &[&no]).await?;
                }
            }
            CatalogueWrite::Job(job) => job::put(&transaction, job).await?,
        }
    }
    let text = "UPDATE ltkmd.meta SET next_ordinal = $1, next_service = greatest(next_service, $2)";
    transaction.execute(text, &[&next_ordinal, &next_service]).await?;
    transaction.commit().await?;
    Ok(revision as u64)
}
