//! Services, keys and jobs.

use std::sync::Arc;

use fjall::Slice;

use super::batch::Batch;
use super::spaces::{Spaces, damaged, small, unavailable};
use crate::id::{JobId, ServiceNo};
use crate::keys::{Catalogue, Service, ServiceKeys};
use crate::store::msk;
use crate::store::record;
use crate::store::{CatalogueWrite, Job, Sealer, StoreError};

/// Jobs that are remembered: a new one takes the place of the one so many before it, unless that still runs.
const KEPT_JOBS: u64 = 10_000;

/// Puts writes into a batch: all of them or, on an error, none.
pub(super) fn write(
    batch: &mut Batch,
    spaces: &Spaces,
    sealer: &Sealer,
    writes: Vec<CatalogueWrite>,
) -> Result<(), StoreError> {
    let mut records: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
    let mut jobs: Vec<Job> = Vec::new();
    let (mut next_service, mut next_ordinal) = (batch.totals.next_service, batch.totals.next_ordinal);
    for write in writes {
        match write {
            CatalogueWrite::Service(s) => {
                next_service = next_service.max(s.no.0.saturating_add(1));
                records.push((small::service(s.no), Some(record::put_service(&s))));
            }
            CatalogueWrite::Key(key) => {
                let place = small::key(key.service, key.number);
                let known = match records.iter().rfind(|(k, _)| *k == place) {
                    Some((_, value)) => value.as_ref().map(Slice::from),
                    None => batch.small(spaces, &place)?,
                };
                let known = known.map(|o| record::read_key(&o)).transpose();
                let ordinal = match known.map_err(damaged("a key"))? {
                    Some(known) => known.ordinal,
                    None => {
                        next_ordinal += 1;
                        next_ordinal - 1
                    }
                };
                records.push((place, Some(record::put_key(&msk::seal(sealer, &key, ordinal)?))));
            }
            CatalogueWrite::RemoveKey(no, number) => records.push((small::key(no, number), None)),
            CatalogueWrite::RemoveService(no) => {
                let mut places = batch.small_keys(small::keys_of(no));
                for guard in spaces.small.prefix(small::keys_of(no)) {
                    places.push(guard.key().map_err(unavailable)?.to_vec());
                }
                records.retain(|(k, _)| !k.starts_with(&small::keys_of(no)));
                records.extend(places.into_iter().map(|place| (place, None)));
                records.push((small::service(no), None));
            }
            CatalogueWrite::Job(job) => {
                let known = match jobs.iter().rfind(|j| j.id == job.id) {
                    Some(known) => Some(known.clone()),
                    None => batch.job(spaces, job.id)?,
                };
                if known.is_none() {
                    records.extend(outdated(batch, spaces, job.id)?.map(|place| (place, None)));
                }
                jobs.push(match known {
                    Some(mut known) => {
                        known.take_state(&job);
                        known
                    }
                    None => job,
                });
            }
        }
    }
    if (next_service, next_ordinal) != (batch.totals.next_service, batch.totals.next_ordinal) {
        let totals = batch.touch_totals();
        (totals.next_service, totals.next_ordinal) = (next_service, next_ordinal);
    }
    for (key, value) in records {
        batch.put_small(key, value);
    }
    for job in jobs {
        batch.put_job(job);
    }
    Ok(())
}

/// The record of the job that makes room for a new one.
fn outdated(batch: &Batch, spaces: &Spaces, new: JobId) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(old) = new.0.checked_sub(KEPT_JOBS).map(JobId) else { return Ok(None) };
    Ok(batch.job(spaces, old)?.filter(|job| !job.is_open()).map(|_| small::job(old)))
}

/// All services and keys that are on disk.
pub(super) fn load(spaces: &Spaces, sealer: &Sealer) -> Result<Catalogue, StoreError> {
    // One snapshot, so that a service never appears without the keys of its commit.
    let snapshot = spaces.db.snapshot();
    let mut catalogue = Catalogue::default();
    for (no, octets) in rows(fjall::Readable::prefix(&snapshot, &spaces.small, [small::SERVICE]), number)? {
        let service: Service = record::read_service(ServiceNo(no), &octets).map_err(damaged("a service"))?;
        let mut keys = Vec::new();
        let prefix = small::keys_of(service.no);
        for (number, octets) in rows(fjall::Readable::prefix(&snapshot, &spaces.small, prefix), key_number)? {
            let record = record::read_key(&octets).map_err(damaged("a key"))?;
            keys.push((record.ordinal, Arc::new(msk::open(sealer, service.no, number, &record)?)));
        }
        keys.sort_by_key(|(ordinal, _)| *ordinal);
        catalogue.insert(ServiceKeys { service, keys: keys.into_iter().map(|(_, key)| key).collect() });
    }
    let totals = fjall::Readable::get(&snapshot, &spaces.small, small::TOTALS).map_err(unavailable)?;
    let totals = totals.map(|o| record::read_totals(&o)).transpose().map_err(damaged("counters"))?;
    if let Some(highest) = totals.and_then(|t| t.next_service.checked_sub(1)) {
        catalogue.reserve_no(ServiceNo(highest));
    }
    Ok(catalogue)
}

fn number(key: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(key.get(1..)?.try_into().ok()?))
}

fn key_number(key: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(key.get(5..)?.try_into().ok()?))
}

fn job_number(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(1..)?.try_into().ok()?))
}

fn rows<N>(
    rows: impl Iterator<Item = fjall::Guard>,
    number: impl Fn(&[u8]) -> Option<N>,
) -> Result<Vec<(N, Slice)>, StoreError> {
    rows.map(|guard| {
        let (key, value) = guard.into_inner().map_err(unavailable)?;
        let no = number(&key).ok_or_else(|| StoreError::Damaged("a key of the catalogue".to_owned()))?;
        Ok((no, value))
    })
    .collect()
}

/// Jobs on disk, the newest first, at most `limit`.
pub(super) fn jobs(spaces: &Spaces, limit: usize) -> Result<Vec<Job>, StoreError> {
    let rows = rows(spaces.small.prefix([small::JOB]).rev().take(limit), job_number)?;
    let read = |(id, octets): (u64, Slice)| record::read_job(JobId(id), &octets).map_err(damaged("a job"));
    rows.into_iter().map(read).collect()
}
