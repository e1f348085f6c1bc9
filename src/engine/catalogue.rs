//! Operators' calls on services and keys: create, change, delete, rotate.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::fanout::decide_all;
use super::{Engine, EngineError, Put};
use crate::id::{JobId, KeyDomainId, MskId, ServiceId, SubscriberId};
use crate::keys::{Catalogue, Msk, Service, ServiceKeys, Srtp, Validity};
use crate::secret::Secret;
use crate::store::{CatalogueWrite, Job, JobKind, Scope, StoreError, TerminalFilter};
use crate::time::Timestamp;

/// A service as an operator describes it; see [`Service`] for the fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSpec {
    /// The MBMS User Service ID.
    pub id: ServiceId,
    /// Key Domain ID.
    pub key_domain: KeyDomainId,
    /// Key Group.
    pub key_group: u16,
    /// How validity is written.
    pub validity: Validity,
    /// How long a new key is valid; at least a second.
    pub lifetime: Duration,
    /// From one key's start to the next one's, at least a second and at most the lifetime.
    pub rotate_every: Option<Duration>,
    /// Whether any authenticated terminal may register.
    pub open: bool,
    /// Management data of the OMA BCAST extension, at most 512 octets.
    pub ext_bcast: Option<Vec<u8>>,
    /// Whether the end of a registration invalidates keys.
    pub invalidate_on_deregister: bool,
    /// Lower and upper MTK ID.
    pub mtk_ids: (u16, u16),
    /// Whether keys carry a salt.
    pub salt: bool,
    /// SRTP-ID map and policies.
    pub srtp: Option<Srtp>,
    /// Lead time of next keys, shorter than `rotate_every`.
    pub lead_time: Option<Duration>,
}

/// What a rotation wants; what is left out is the daemon's to choose.
#[derive(Debug, Clone, Default)]
pub struct RotateSpec {
    /// A key brought from outside, 16 octets.
    pub msk: Option<Secret>,
    /// The first moment of its validity; now when left out.
    pub valid_from: Option<Timestamp>,
    /// The first moment after it; a lifetime later when left out.
    pub valid_to: Option<Timestamp>,
    /// Lower and upper MTK ID; the service's when left out.
    pub mtk_ids: Option<(u16, u16)>,
}

fn invalid(field: &'static str, why: impl Into<String>) -> EngineError {
    EngineError::Invalid { field, why: why.into() }
}

fn no_randomness(error: getrandom::Error) -> EngineError {
    StoreError::Unavailable(format!("the system gives no randomness: {error}")).into()
}

fn check_mtk_ids(ids: (u16, u16)) -> Result<(), EngineError> {
    if ids.0 == 0 || ids.0 > ids.1 {
        return Err(invalid("mtk_ids", "wants [lower, upper] with 1 ≤ lower ≤ upper ≤ 65535"));
    }
    Ok(())
}

impl ServiceSpec {
    fn check(&self) -> Result<(), EngineError> {
        const SECOND: Duration = Duration::from_secs(1);
        const CENTURY: Duration = Duration::from_secs(100 * 366 * 86_400);
        if !(SECOND..=CENTURY).contains(&self.lifetime) {
            return Err(invalid("lifetime", "wants 1s to 100 years"));
        }
        if let Some(every) = self.rotate_every {
            if every < SECOND || every > self.lifetime {
                return Err(invalid(
                    "rotate_every",
                    "wants 1s to the lifetime: a key must last until the next",
                ));
            }
            if self.lead_time.is_some_and(|lead| lead >= every) {
                return Err(invalid("lead_time", "must be shorter than rotate_every"));
            }
        }
        if self.ext_bcast.as_ref().is_some_and(|ext| ext.len() > 512) {
            return Err(invalid("ext_bcast", "holds at most 512 octets: an LTKM has to fit a datagram"));
        }
        check_mtk_ids(self.mtk_ids)?;
        if let Some(srtp) = &self.srtp {
            if srtp.streams.is_empty() || srtp.streams.len() > 64 {
                return Err(invalid("srtp", "wants 1 to 64 streams"));
            }
            let known = |no: u8| srtp.policies.iter().filter(|p| p.policy == no).count() == 1;
            if !srtp.streams.iter().all(|s| known(s.policy)) || !srtp.policies.iter().all(|p| known(p.policy))
            {
                return Err(invalid("srtp", "each stream's policy has to be defined, once"));
            }
        }
        Ok(())
    }

    fn service(&self, no: crate::id::ServiceNo) -> Service {
        Service {
            no,
            id: self.id.clone(),
            key_domain: self.key_domain,
            key_group: self.key_group,
            validity: self.validity,
            lifetime: self.lifetime,
            rotate_every: self.rotate_every,
            open: self.open,
            ext_bcast: self.ext_bcast.clone(),
            invalidate_on_deregister: self.invalidate_on_deregister,
            mtk_ids: self.mtk_ids,
            salt: self.salt,
            srtp: self.srtp.clone(),
            lead_time: self.lead_time,
            retired: None,
        }
    }
}

impl Engine {
    /// Creates a service with its first key, or changes one. Repeating a call is harmless.
    ///
    /// # Errors
    /// A field that cannot be so; a changed key domain or group, or a pair that another service has.
    pub async fn put_service(&self, spec: ServiceSpec) -> Result<Put, EngineError> {
        spec.check()?;
        let _changing = self.change_catalogue().await?;
        let catalogue = self.catalogue();
        if let Some(known) = catalogue.by_id(&spec.id) {
            let (old, id) = (&known.service, &spec.id);
            if (old.key_domain, old.key_group) != (spec.key_domain, spec.key_group) {
                return Err(EngineError::Conflict(format!(
                    "{id} keeps its key domain and key group: delete it first, or choose another service id"
                )));
            }
            let service = spec.service(old.no);
            if service != *old {
                let (before, keys) = (ServiceKeys::clone(known), known.keys.clone());
                let now = ServiceKeys { service: service.clone(), keys };
                let closing = old.open && !service.open;
                if closing {
                    // Who is not entitled goes before the change is durable: when this breaks off, the service is
                    // still open and the call can be repeated. Meanwhile nobody new comes in.
                    self.swap(|catalogue| catalogue.insert(now.clone()));
                    if let Err(error) = self.expel_unentitled(&spec.id).await {
                        self.swap(|catalogue| catalogue.insert(before));
                        return Err(error);
                    }
                }
                let written = self
                    .write(vec![CatalogueWrite::Service(service)], |catalogue| catalogue.insert(now))
                    .await;
                if let Err(error) = written {
                    self.swap(|catalogue| catalogue.insert(before));
                    return Err(error.into());
                }
                if closing && self.store.is_shared() {
                    // Other daemons let terminals in until they knew.
                    self.expel_unentitled(&spec.id).await?;
                }
            }
            return Ok(Put::Updated);
        }
        if let Some(other) = catalogue.by_group(spec.key_domain, spec.key_group) {
            return Err(EngineError::Conflict(format!(
                "the key domain and key group belong to {} already: choose another key group",
                other.service.id
            )));
        }
        let service = spec.service(catalogue.free_no());
        let now = self.now();
        let key = new_key(&catalogue, &service, RotateSpec::default(), now)?;
        let writes = vec![CatalogueWrite::Service(service.clone()), CatalogueWrite::Key(key.clone())];
        self.write(writes, |catalogue| catalogue.insert(ServiceKeys { service, keys: vec![Arc::new(key)] }))
            .await?;
        self.show_service(&spec.id);
        Ok(Put::Created)
    }

    /// Deletes a service. With `force` its terminals are deregistered and their keys invalidated, by a job.
    ///
    /// # Errors
    /// Unknown; terminals are registered and `force` is not set.
    pub async fn delete_service(&self, id: &ServiceId, force: bool) -> Result<(), EngineError> {
        let _changing = self.change_catalogue().await?;
        let catalogue = self.catalogue();
        let entry = catalogue.by_id(id).ok_or_else(|| unknown(id))?;
        let now = self.now();
        let no = entry.service.no;
        self.store.refresh().await?;
        let members = self.store.counts().members.get(&no).map_or(0, |m| m.total);
        if members > 0 && !force {
            return Err(EngineError::Conflict(format!(
                "{members} terminals are registered for {id}: delete it with ?force=true to invalidate their keys"
            )));
        }
        let retired = Service { retired: Some(now), ..entry.service.clone() };
        let keys = entry.keys.clone();
        let job = Job::new(self.store.new_job_id().await?, JobKind::Retire, no, 0, members, now);
        let writes = vec![CatalogueWrite::Service(retired.clone()), CatalogueWrite::Job(job)];
        self.write(writes, |catalogue| catalogue.insert(ServiceKeys { service: retired, keys })).await?;
        self.metrics.forget_service(id.as_str());
        self.jobs.notify_one();
        Ok(())
    }

    /// Gives a service a new key and starts the job that brings it to all registered terminals.
    ///
    /// # Errors
    /// Unknown service; a key or interval that cannot be so; all key numbers are retained.
    pub async fn rotate(&self, id: &ServiceId, spec: RotateSpec) -> Result<(JobId, MskId), EngineError> {
        let _changing = self.change_catalogue().await?;
        let catalogue = self.catalogue();
        let entry = catalogue.by_id(id).ok_or_else(|| unknown(id))?;
        self.rotate_locked(&catalogue, entry, spec).await
    }

    /// [`Engine::rotate`] for who holds the lock of the catalogue.
    pub(super) async fn rotate_locked(
        &self,
        catalogue: &Catalogue,
        entry: &Arc<ServiceKeys>,
        spec: RotateSpec,
    ) -> Result<(JobId, MskId), EngineError> {
        let now = self.now();
        let key = new_key(catalogue, &entry.service, spec, now)?;
        let (no, number) = (entry.service.no, key.number);
        self.store.refresh().await?;
        let members = self.store.counts().members.get(&no).map_or(0, |m| m.total);
        let job = Job::new(self.store.new_job_id().await?, JobKind::KeyUpdate, no, number, members, now);
        let id = job.id;
        let writes = vec![CatalogueWrite::Key(key.clone()), CatalogueWrite::Job(job)];
        let mut next = (**entry).clone();
        next.keys.push(Arc::new(key));
        self.write(writes, |catalogue| catalogue.insert(next)).await?;
        self.jobs.notify_one();
        self.show_service(&entry.service.id);
        Ok((id, entry.service.msk_id(number)))
    }

    /// Writes, then swaps the catalogue that decisions read. A job of the same write starts later, so that
    /// a registration decided before its page is visited and one decided after it sees the new key.
    pub(super) async fn write(
        &self,
        writes: Vec<CatalogueWrite>,
        change: impl FnOnce(&mut Catalogue),
    ) -> Result<(), StoreError> {
        let written = self.store.write_catalogue_at(self.catalogue().revision(), writes).await;
        let revision = written.inspect_err(|_| self.metrics.store_failed())?;
        self.swap(|catalogue| {
            change(catalogue);
            catalogue.set_revision(revision);
        });
        Ok(())
    }

    /// Swaps the catalogue that decisions read.
    fn swap(&self, change: impl FnOnce(&mut Catalogue)) {
        let mut next = Catalogue::clone(&self.catalogue());
        change(&mut next);
        self.store_catalogue(next);
    }

    /// A service that was open is not any more: who is not entitled loses it, a page of members in one commit.
    async fn expel_unentitled(&self, id: &ServiceId) -> Result<(), EngineError> {
        const PAGE: usize = 1000;
        let Some(no) = self.catalogue().by_id(id).map(|s| s.service.no) else { return Ok(()) };
        let mut after = None;
        loop {
            let filter = TerminalFilter { service: Some(no), ..TerminalFilter::default() };
            let page = self.store.list_terminals(filter, after, PAGE).await?;
            after = page.last().map(|t| t.key);
            let members = page.iter().filter_map(|t| t.credential.as_ref());
            let subscribers: BTreeSet<_> = members.map(|c| c.subscriber.clone()).collect();
            if !subscribers.is_empty() {
                let id = id.clone();
                let scope = Scope::Subscribers(subscribers.into_iter().collect());
                let (work, failed) = self
                    .update(scope, move |view, ctx| {
                        let entitled: HashSet<SubscriberId> = view
                            .subscribers
                            .values()
                            .flatten()
                            .filter(|s| s.services.contains(&id))
                            .map(|s| s.id.clone())
                            .collect();
                        decide_all(view, ctx, |terminal, ctx, orders| {
                            let owner = terminal.credential.as_ref().map(|c| &c.subscriber);
                            let stays = owner.is_some_and(|owner| entitled.contains(owner));
                            if let Some(entry) = ctx.catalogue.get(no)
                                && !stays
                                && terminal.is_registered_for(no)
                            {
                                terminal.leave(entry, false, ctx, orders);
                            }
                        })
                    })
                    .await?;
                for reason in failed {
                    self.metrics.failed(reason, 1);
                }
                self.push_all(&work);
            }
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }

    /// Shows a service in the metrics as it is now.
    pub(super) fn show_service(&self, id: &ServiceId) {
        let catalogue = self.catalogue();
        if let Some(entry) = catalogue.by_id(id) {
            self.show_entry(entry, &self.store.counts(), self.now());
        }
    }
}

fn unknown(id: &ServiceId) -> EngineError {
    EngineError::NotFound(format!("there is no service {id}"))
}

fn new_key(
    catalogue: &Catalogue,
    service: &Service,
    spec: RotateSpec,
    now: Timestamp,
) -> Result<Msk, EngineError> {
    let valid_from = spec.valid_from.unwrap_or(now);
    let valid_to = spec.valid_to.unwrap_or(valid_from + service.lifetime);
    if valid_to <= valid_from {
        return Err(invalid("valid_to", "must be after valid_from"));
    }
    if valid_to <= now {
        return Err(invalid("valid_to", "is over already"));
    }
    let mtk_ids = spec.mtk_ids.unwrap_or(service.mtk_ids);
    check_mtk_ids(mtk_ids)?;
    let mut msk = Zeroizing::new([0u8; 16]);
    match &spec.msk {
        Some(given) => {
            let given: &[u8; 16] =
                given.expose().try_into().map_err(|_| invalid("msk", "holds 16 octets, in base64"))?;
            msk.copy_from_slice(given);
        }
        None => getrandom::fill(&mut *msk).map_err(no_randomness)?,
    }
    let salt = if service.salt {
        let mut salt = Zeroizing::new([0u8; 14]);
        getrandom::fill(&mut *salt).map_err(no_randomness)?;
        Some(salt)
    } else {
        None
    };
    let number = catalogue.free_key_number(service.key_domain, service.key_group).ok_or_else(|| {
        EngineError::Conflict(format!(
            "all 65,535 key numbers of {} are retained: lower keys.retain",
            service.id
        ))
    })?;
    Ok(Msk { service: service.no, number, msk, salt, valid_from, valid_to, mtk_ids })
}
