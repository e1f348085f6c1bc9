//! All services and keys at one moment: small, in memory, replaced as a whole when anything changes.

use std::collections::{BTreeMap, HashMap, HashSet};
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

    /// How long before it begins a next key is made and distributed: its lead time, and up to a tenth of
    /// `rotate_every` more, by which services that rotate at one moment differ. The validity is not moved.
    /// With a schedule the lead time is at most half of the interval, so that there is one next key at a time.
    pub fn ahead(&self, default_lead: Duration) -> Duration {
        let lead = self.lead_time(default_lead);
        match self.service.rotate_every {
            None => lead,
            Some(every) => lead.min(every / 2) + self.service.share_of(every / 10),
        }
    }

    /// What a registration brings: the current key and, once its lead time has begun, the next. A key that the
    /// schedule made is there from the moment on from which it is distributed.
    pub fn wanted(&self, now: Timestamp, default_lead: Duration) -> impl Iterator<Item = &Arc<Msk>> {
        let lead = self.lead_time(default_lead).max(self.ahead(default_lead));
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
    revision: u64,
}

impl Catalogue {
    /// Which state of services and keys this is, where several daemons share a store; it rises with every change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Notes which state of services and keys this is.
    pub fn set_revision(&mut self, revision: u64) {
        self.revision = revision;
    }

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
        let numbers = || self.all().filter(of_group).flat_map(|s| s.keys.iter().map(|k| k.number));
        let newest = numbers().last().unwrap_or(0);
        let taken: HashSet<u16> = numbers().collect();
        (1..=u16::MAX).map(|step| newest.wrapping_add(step)).find(|n| *n != 0 && !taken.contains(n))
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::keys::Validity;

    const DOMAIN: KeyDomainId = KeyDomainId([1, 2, 3]);

    fn service(no: u32, group: u16) -> Service {
        Service {
            no: ServiceNo(no),
            id: ServiceId::new(&format!("urn:{no}")).expect("a service id"),
            key_domain: DOMAIN,
            key_group: group,
            validity: Validity::Ntp,
            lifetime: Duration::from_secs(10),
            rotate_every: None,
            open: true,
            ext_bcast: None,
            invalidate_on_deregister: true,
            mtk_ids: (1, 2),
            salt: false,
            srtp: None,
            lead_time: None,
            retired: None,
        }
    }

    fn key(number: u16, from: u64, to: u64) -> Arc<Msk> {
        Arc::new(Msk {
            service: ServiceNo(1),
            number,
            msk: Zeroizing::new([0; 16]),
            salt: None,
            valid_from: Timestamp(from),
            valid_to: Timestamp(to),
            mtk_ids: (1, 2),
        })
    }

    fn keys(keys: &[(u16, u64, u64)]) -> ServiceKeys {
        let keys = keys.iter().map(|(number, from, to)| key(*number, *from, *to)).collect();
        ServiceKeys { service: service(1, 1), keys }
    }

    #[test]
    fn the_current_key_is_the_one_valid_now_or_the_earliest_to_come() {
        let service = keys(&[(1, 0, 100), (2, 300, 400), (3, 200, 300), (4, 50, 150)]);
        let at = |now| service.current(Timestamp(now)).map(|k| k.number);
        assert_eq!(at(0), Some(1));
        assert_eq!(at(50), Some(4), "of two valid ones the one made last");
        assert_eq!(at(149), Some(4));
        assert_eq!(at(150), Some(3), "none is valid: the earliest to come");
        assert_eq!(at(300), Some(2));
        assert_eq!(at(400), None);
        let next = |now| service.next(Timestamp(now)).map(|k| k.number);
        assert_eq!((next(0), next(50), next(150), next(300)), (Some(4), Some(3), Some(2), None));
    }

    #[test]
    fn the_next_key_is_wanted_from_its_lead_time_on() {
        let mut service = keys(&[(1, 0, 10_000), (2, 10_000, 20_000)]);
        let wanted = |service: &ServiceKeys, now| -> Vec<u16> {
            service.wanted(Timestamp(now), Duration::from_secs(2)).map(|k| k.number).collect()
        };
        assert_eq!(wanted(&service, 7_999), [1]);
        assert_eq!(wanted(&service, 8_000), [1, 2]);
        assert_eq!(wanted(&service, 10_000), [2]);
        service.service.lead_time = Some(Duration::from_secs(5));
        assert_eq!(wanted(&service, 5_000), [1, 2], "the service's own lead time counts");
        assert!(wanted(&service, 30_000).is_empty());
    }

    #[test]
    fn services_of_one_interval_differ_in_when_their_next_keys_are_made_and_never_make_them_late() {
        const LEAD: Duration = Duration::from_secs(600);
        const DAY: Duration = Duration::from_secs(86_400);
        let ahead = |no, every, lead_time| {
            let service = Service { rotate_every: Some(every), lead_time, ..service(no, 1) };
            ServiceKeys { service, keys: Vec::new() }.ahead(LEAD)
        };
        let all: HashSet<Duration> = (1..=100).map(|no| ahead(no, DAY, None)).collect();
        assert_eq!(all.len(), 100, "each has a moment of its own");
        assert!(all.iter().all(|ahead| *ahead >= LEAD && *ahead < LEAD + DAY / 10));
        let mean = all.iter().sum::<Duration>() / 100;
        assert!(mean > LEAD + DAY / 25 && mean < LEAD + DAY * 3 / 50, "evenly spread: {mean:?}");
        assert_eq!(ahead(7, DAY, None), ahead(7, DAY, None), "a service's moment stays");
        // A lead time beyond half of the interval: there is one next key at a time.
        let short = Duration::from_secs(60);
        assert!(
            (1..=100).all(|no| ahead(no, short, None) >= short / 2 && ahead(no, short, None) < short * 3 / 5)
        );
        assert!(ahead(1, DAY, Some(Duration::ZERO)) < DAY / 10);
        assert_eq!(keys(&[]).ahead(LEAD), LEAD, "without a schedule it is the lead time alone");
    }

    #[test]
    fn a_registration_brings_a_scheduled_key_from_the_moment_it_is_made() {
        let mut service = keys(&[(1, 0, 100_000), (2, 100_000, 200_000)]);
        service.service.rotate_every = Some(Duration::from_secs(100));
        let lead = Duration::from_secs(20);
        let made = Timestamp(100_000) - service.ahead(lead);
        assert!(made < Timestamp(80_000), "this service's share is not nothing");
        let wanted = |now| service.wanted(now, lead).map(|k| k.number).collect::<Vec<_>>();
        assert_eq!(wanted(made - Duration::from_millis(1)), [1]);
        assert_eq!(wanted(made), [1, 2]);
    }

    #[test]
    fn key_numbers_go_up_wrap_at_65535_and_skip_0_and_what_is_retained() {
        let with = |numbers: &[u16]| {
            let mut catalogue = Catalogue::default();
            let keys = numbers.iter().map(|n| key(*n, 0, 1)).collect();
            catalogue.insert(ServiceKeys { service: service(1, 1), keys });
            catalogue
        };
        assert_eq!(with(&[]).free_key_number(DOMAIN, 1), Some(1));
        assert_eq!(with(&[7]).free_key_number(DOMAIN, 1), Some(8));
        assert_eq!(with(&[1, 2, u16::MAX]).free_key_number(DOMAIN, 1), Some(3), "0, 1 and 2 are skipped");
        assert_eq!(with(&[9, 4]).free_key_number(DOMAIN, 1), Some(5), "behind the one made last");
        assert_eq!(with(&[9]).free_key_number(DOMAIN, 2), Some(1), "each group counts for itself");
        let all: Vec<u16> = (1..=u16::MAX).collect();
        assert_eq!(with(&all).free_key_number(DOMAIN, 1), None);
    }

    #[test]
    fn numbers_go_on_from_a_retired_service_of_the_same_group() {
        let mut catalogue = Catalogue::default();
        let retired = Service { retired: Some(Timestamp(5)), ..service(1, 1) };
        catalogue.insert(ServiceKeys { service: retired, keys: vec![key(1, 0, 1), key(2, 0, 1)] });
        catalogue.insert(ServiceKeys { service: service(2, 1), keys: Vec::new() });
        assert_eq!(catalogue.free_key_number(DOMAIN, 1), Some(3));
        assert_eq!(catalogue.by_group(DOMAIN, 1).map(|s| s.service.no), Some(ServiceNo(2)));
        assert!(catalogue.by_id(&service(1, 1).id).is_none() && catalogue.get(ServiceNo(1)).is_some());
        assert_eq!(catalogue.free_no(), ServiceNo(3));
    }
}
