//! Who holds which key: counters that follow the terminals, one record for each key.
//!
//! A store whose counters were never made gets them by one walk over its terminals when it is opened.

use std::collections::{BTreeMap, BTreeSet};

use fjall::{OwnedWriteBatch, PersistMode};

use super::scope::terminal_key;
use super::spaces::{Spaces, damaged, small, unavailable};
use crate::id::ServiceNo;
use crate::store::held::{KeyOf, Shift, held};
use crate::store::record;
use crate::store::{Holders, StoreError};

/// The counters, and which of them a commit has to write.
#[derive(Debug, Default)]
pub(super) struct HolderCounts {
    all: BTreeMap<KeyOf, Holders>,
    dirty: BTreeSet<KeyOf>,
}

impl HolderCounts {
    /// The counters as they are on disk.
    pub(super) fn load(spaces: &Spaces) -> Result<Self, StoreError> {
        let mut all = BTreeMap::new();
        for guard in spaces.small.prefix(small::HOLDERS) {
            let (key, octets) = guard.into_inner().map_err(unavailable)?;
            let Some((no, number)) = key[1..].split_at_checked(4).filter(|(_, number)| !number.is_empty())
            else {
                continue;
            };
            let place = (<[u8; 4]>::try_from(no), <[u8; 2]>::try_from(number));
            let (Ok(no), Ok(number)) = place else {
                return Err(StoreError::Damaged("the key of a counter".to_owned()));
            };
            let holders = record::read_holders(&octets).map_err(damaged("who holds a key"))?;
            all.insert((ServiceNo(u32::from_be_bytes(no)), u16::from_be_bytes(number)), holders);
        }
        Ok(Self { all, dirty: BTreeSet::new() })
    }

    /// Counts all terminals if that was never done.
    pub(super) fn ensure(spaces: &Spaces) -> Result<(), StoreError> {
        if spaces.small.contains_key(small::HOLDERS).map_err(unavailable)? {
            return Ok(());
        }
        if !spaces.state.is_empty().map_err(unavailable)? {
            tracing::info!("counting which terminals hold which key, this once");
        }
        let mut shifts = BTreeMap::<KeyOf, Shift>::new();
        let mut terminals = 0u64;
        for guard in spaces.state.iter() {
            let (key, octets) = guard.into_inner().map_err(unavailable)?;
            let key = terminal_key(&key)?;
            let read = record::read_state(key, &octets);
            let terminal = read.map_err(damaged(format_args!("state of {key:?}")))?;
            for d in &terminal.deliveries {
                if let Some(how) = held(&terminal, d) {
                    shifts.entry((d.service, d.number)).or_default().count(how, 1);
                }
            }
            terminals += 1;
        }
        let mut counts = Self::default();
        counts.apply(&shifts);
        let mut batch = spaces.db.batch().durability(Some(PersistMode::SyncAll));
        counts.write(spaces, &mut batch);
        batch.insert(&spaces.small, small::HOLDERS, []);
        batch.commit().map_err(unavailable)?;
        if terminals > 0 {
            tracing::info!(terminals, keys = counts.all.len(), "counted which terminals hold which key");
        }
        Ok(())
    }

    /// Takes changes over.
    pub(super) fn apply(&mut self, shifts: &BTreeMap<KeyOf, Shift>) {
        for (key, shift) in shifts.iter().filter(|(_, shift)| **shift != Shift::default()) {
            let holders = self.all.entry(*key).or_default();
            shift.apply(holders);
            if *holders == Holders::default() {
                self.all.remove(key);
            }
            self.dirty.insert(*key);
        }
    }

    /// Whether a commit has nothing to write.
    pub(super) fn is_clean(&self) -> bool {
        self.dirty.is_empty()
    }

    /// What was changed is written.
    pub(super) fn clean(&mut self) {
        self.dirty.clear();
    }

    /// The counters that this commit changes; `None`: nobody holds the key any more.
    pub(super) fn changed(&self) -> impl Iterator<Item = (KeyOf, Option<Holders>)> {
        self.dirty.iter().map(|key| (*key, self.all.get(key).copied()))
    }

    /// All counters.
    pub(super) fn all(&self) -> &BTreeMap<KeyOf, Holders> {
        &self.all
    }

    /// Puts what changed into a commit.
    pub(super) fn write(&self, spaces: &Spaces, batch: &mut OwnedWriteBatch) {
        for ((no, number), holders) in self.changed() {
            let key = small::holders(no, number);
            match holders {
                Some(holders) => batch.insert(&spaces.small, key, record::put_holders(&holders)),
                None => batch.remove(&spaces.small, key),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::delivery::{Delivery, Kind, Registration, State};
    use crate::id::{BTid, Method, MethodSet};
    use crate::store::{EmbeddedStore, Scope, Store, View};
    use crate::time::Timestamp;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn open(dir: &Path) -> EmbeddedStore {
        EmbeddedStore::open(dir, Some([7; 32])).expect("a store")
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
    }

    /// A terminal that is registered for service 1 and holds its key 1; key 2 was sent to it.
    fn put(store: &EmbeddedStore, n: usize, via: Method) {
        let btid = BTid::new(&format!("t{n}@bsf")).expect("a B-TID");
        let decide = move |view: &mut View| {
            let terminal = &mut view.terminals[0];
            terminal.registration = Some(Registration {
                set: MethodSet::UDP,
                address: [127, 0, 0, 1].into(),
                services: vec![ServiceNo(1)],
                registered_at: NOW,
                last_seen: NOW,
            });
            let mut held = Delivery::new(ServiceNo(1), 1, Kind::Key, None, NOW);
            held.settle(State::Verified, None, NOW);
            held.verified = Some((NOW, via));
            let mut sent = Delivery::new(ServiceNo(1), 2, Kind::Key, None, NOW);
            sent.settle(State::Sent, None, NOW);
            terminal.deliveries = vec![held, sent];
        };
        run(store.update(Scope::Credentials(vec![btid], Vec::new()), Box::new(decide))).expect("written");
    }

    #[test]
    fn a_store_whose_holders_were_never_counted_counts_them_when_it_is_opened() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = open(dir.path());
        for n in 0..10 {
            put(&store, n, if n < 3 { Method::Http } else { Method::Udp });
        }
        let counted = Holders { udp: 7, http: 3, sms: 0, assumed: 0 };
        assert_eq!(store.holders(ServiceNo(1), 1), counted);
        assert_eq!(store.holders(ServiceNo(1), 2), Holders::default(), "sent is not held");
        run(store.close()).expect("closed");
        drop(store);
        // As an older program, or a restore, leaves it.
        let spaces = Spaces::open(&dir.path().join("db")).expect("its database");
        for guard in spaces.small.prefix(small::HOLDERS) {
            spaces.small.remove(guard.key().expect("readable")).expect("removed");
        }
        spaces.db.persist(PersistMode::SyncAll).expect("durable");
        drop(spaces);
        let store = open(dir.path());
        assert_eq!(store.holders(ServiceNo(1), 1), counted, "counted anew");
        put(&store, 10, Method::Udp);
        drop(store);
        assert_eq!(open(dir.path()).holders(ServiceNo(1), 1), Holders { udp: 8, ..counted }, "and once");
    }
}
