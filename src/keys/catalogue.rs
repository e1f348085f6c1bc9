//! All services and keys at one moment: small, in memory, replaced as a whole when anything changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::{KeyState, Msk, Service};
use crate::id::{KeyDomainId, ServiceId, ServiceNo};
use crate::time::Timestamp;

/// A service with its retained keys, oldest number given first.
#[derive(Debug, Clone)]
pub struct ServiceKeys {
    /// The service.
    pub service: Service,
    /// Its keys in the order they were made.
    pub keys: Vec<Arc<Msk>>,
}

impl ServiceKeys {
    /// The key valid now (of several, the one made last), or the earliest to come when none is
    /// (LTKM profile §7).
    pub fn current(&self, now: Timestamp) -> Option<&Arc<Msk>> {
        let valid = self.keys.iter().rfind(|k| k.valid_from <= now && now < k.valid_to);
        valid.or_else(|| self.keys.iter().filter(|k| k.valid_from > now).min_by_key(|k| k.valid_from))
    }

    /// The earliest key that begins after the current one.
    pub fn next(&self, now: Timestamp) -> Option<&Arc<Msk>> {
        let current = self.current(now)?;
        let later = self.keys.iter().filter(|k| k.valid_from > now && k.number != current.number);
        later.min_by_key(|k| k.valid_from)
    }

    /// The service's lead time, or the configuration's.
    pub fn lead_time(&self, default: Duration) -> Duration {
        self.service.lead_time.unwrap_or(default)
    }

    /// What a registration brings: the current key and, once its lead time has begun, the next.
    pub fn wanted(&self, now: Timestamp, default_lead: Duration) -> impl Iterator<Item = &Arc<Msk>> {
        let lead = self.lead_time(default_lead);
        let next = self.next(now).filter(move |k| k.valid_from <= now + lead);
        self.current(now).into_iter().chain(next)
    }

    /// A retained key by its number.
    pub fn key(&self, number: u16) -> Option<&Arc<Msk>> {
        self.keys.iter().find(|k| k.number == number)
    }

    /// Where a key stands at `now`.
    pub fn state(&self, key: &Msk, now: Timestamp) -> KeyState {
        if self.current(now).is_some_and(|c| c.number == key.number) {
            KeyState::Current
        } else if key.valid_from > now {
            KeyState::Next
        } else {
            KeyState::Past
        }
    }

    /// The place of a key number in the order the keys were made; unknown numbers come first.
    pub fn age_rank(&self, number: u16) -> usize {
        self.keys.iter().position(|k| k.number == number).map_or(0, |i| i + 1)
    }
}

/// All services and keys at one moment.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    by_no: BTreeMap<ServiceNo, Arc<ServiceKeys>>,
    by_id: HashMap<ServiceId, ServiceNo>,
    by_group: HashMap<(KeyDomainId, u16), ServiceNo>,
    next_no: u32,
}

impl Catalogue {
    /// Puts a service in, in place of an earlier state of it. A retired one is found by its number alone.
    pub fn insert(&mut self, entry: ServiceKeys) {
        self.remove(entry.service.no);
        self.reserve_no(entry.service.no);
        let service = &entry.service;
        if service.retired.is_none() {
            self.by_id.insert(service.id.clone(), service.no);
            self.by_group.insert((service.key_domain, service.key_group), service.no);
        }
        self.by_no.insert(service.no, Arc::new(entry));
    }

    /// Takes a service out.
    pub fn remove(&mut self, no: ServiceNo) {
        if let Some(old) = self.by_no.remove(&no) {
            let group = (old.service.key_domain, old.service.key_group);
            if self.by_id.get(&old.service.id) == Some(&no) {
                self.by_id.remove(&old.service.id);
            }
            if self.by_group.get(&group) == Some(&no) {
                self.by_group.remove(&group);
            }
        }
    }

    /// A service by its number, retired ones too.
    pub fn get(&self, no: ServiceNo) -> Option<&Arc<ServiceKeys>> {
        self.by_no.get(&no)
    }

    /// A service by its id.
    pub fn by_id(&self, id: &ServiceId) -> Option<&Arc<ServiceKeys>> {
        self.get(*self.by_id.get(id)?)
    }

    /// The service that a (domain, group) pair belongs to.
    pub fn by_group(&self, domain: KeyDomainId, group: u16) -> Option<&Arc<ServiceKeys>> {
        self.get(*self.by_group.get(&(domain, group))?)
    }

    /// All services that are not retired, by their ids.
    pub fn services(&self) -> Vec<&Arc<ServiceKeys>> {
        let mut all: Vec<_> = self.by_id.values().filter_map(|no| self.get(*no)).collect();
        all.sort_by(|a, b| a.service.id.cmp(&b.service.id));
        all
    }

    /// Every service, retired ones too, by number.
    pub fn all(&self) -> impl Iterator<Item = &Arc<ServiceKeys>> {
        self.by_no.values()
    }

    /// A number that no service has or ever had: terminals' records may still speak of a purged one.
    pub fn free_no(&self) -> ServiceNo {
        ServiceNo(self.next_no.max(1))
    }

    /// Marks a number, and all below it, as given out; the store calls it with what it remembers.
    pub fn reserve_no(&mut self, no: ServiceNo) {
        self.next_no = self.next_no.max(no.0 + 1);
    }

    /// The next key number of a (domain, group): after the newest, skipping 0 and what is retained, also
    /// by a retired service of the same group. `None` when all 65,535 are retained.
    pub fn free_key_number(&self, domain: KeyDomainId, group: u16) -> Option<u16> {
        let of_group = |s: &&Arc<ServiceKeys>| s.service.key_domain == domain && s.service.key_group == group;
        let taken: Vec<u16> =
            self.all().filter(of_group).flat_map(|s| s.keys.iter().map(|k| k.number)).collect();
        let newest = taken.last().copied().unwrap_or(0);
        (1..=u16::MAX).map(|step| newest.wrapping_add(step)).find(|n| *n != 0 && !taken.contains(n))
    }
}
