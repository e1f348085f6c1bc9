//! The counters, added up over all shards and kept for a moment.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use deadpool_postgres::ClientWrapper as Client;

use crate::delivery::State;
use crate::id::ServiceNo;
use crate::store::held::KeyOf;
use crate::store::{Counts, Holders, Members, StoreError};

/// The counters as of a moment.
#[derive(Debug, Default)]
pub(super) struct Kept {
    all: RwLock<(Counts, BTreeMap<KeyOf, Holders>)>,
    /// One adds up at a time, lest an older sum comes after a newer one.
    adding: tokio::sync::Mutex<()>,
}

impl Kept {
    /// Deliveries and registrations.
    pub(super) fn counts(&self) -> Counts {
        self.all.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Who holds a key.
    pub(super) fn holders(&self, key: KeyOf) -> Holders {
        self.all.read().unwrap_or_else(PoisonError::into_inner).1.get(&key).copied().unwrap_or_default()
    }

    /// Registrations for a service.
    pub(super) fn members(&self, no: ServiceNo) -> u64 {
        self.all.read().unwrap_or_else(PoisonError::into_inner).0.members.get(&no).map_or(0, |m| m.total)
    }

    /// Adds the counters up as they are now.
    pub(super) async fn refresh(&self, client: &Client) -> Result<(), StoreError> {
        let text = "SELECT kind, a, b, sum(n0)::bigint, sum(n1)::bigint, sum(n2)::bigint, sum(n3)::bigint, \
                    sum(n4)::bigint, sum(n5)::bigint, sum(n6)::bigint, sum(n7)::bigint FROM ltkmd.tally WHERE kind < 3 \
                    GROUP BY kind, a, b";
        let _one_by_one = self.adding.lock().await;
        let statement = client.prepare_cached(text).await?;
        let (mut counts, mut holders) = (Counts::default(), BTreeMap::new());
        for row in client.query(&statement, &[]).await? {
            let (kind, a, b): (i16, i64, i32) = (row.get(0), row.get(1), row.get(2));
            // A counter below zero would be a fault of ours; it is shown as none.
            let n = |i: usize| u64::try_from(row.get::<_, i64>(i + 3)).unwrap_or(0);
            let no = ServiceNo(a as u32);
            match kind {
                0 => {
                    for (i, open) in counts.open.iter_mut().enumerate().take(State::ALL.len()) {
                        *open = n(i);
                    }
                }
                1 => {
                    let members = Members { udp: n(0), http: n(1), sms: n(2), total: n(3) };
                    if members != Members::default() {
                        counts.members.insert(no, members);
                    }
                }
                _ => {
                    let held = Holders { udp: n(0), http: n(1), sms: n(2), assumed: n(3) };
                    holders.insert((no, b as u16), held);
                }
            }
        }
        *self.all.write().unwrap_or_else(PoisonError::into_inner) = (counts, holders);
        Ok(())
    }
}
