//! Operators' calls on subscribers, credentials and terminals; bulk import.

use std::collections::{HashMap, HashSet};

use super::fanout::decide_all;
use super::request::recipient;
use super::{Engine, EngineError, Put, Recipient};
use crate::delivery::{Context, Kind, Order, Terminal};
use crate::gba::{self, Credential, GbaType};
use crate::id::{BTid, ServiceId, ServiceNo, SubscriberId};
use crate::secret::Secret;
use crate::store::{Scope, StoreError, Subscriber, View};
use crate::time::Timestamp;

/// A terminal's keys as an operator brings them.
#[derive(Debug, Clone)]
pub enum CredentialKeys {
    /// Whole keys, 16–64 octets each.
    Pair {
        /// MBMS request key.
        mrk: Secret,
        /// MBMS user key.
        muk: Secret,
    },
    /// A bootstrapping run's Ks, from which they are derived.
    Ks {
        /// CK ‖ IK, 32 octets.
        ks: Secret,
        /// RAND, 16 octets.
        rand: Vec<u8>,
        /// The private identity.
        impi: String,
    },
}

/// A credential as an operator brings it.
#[derive(Debug, Clone)]
pub struct CredentialSpec {
    /// The transaction identifier.
    pub btid: BTid,
    /// Whose it is.
    pub subscriber: SubscriberId,
    /// The keys.
    pub keys: CredentialKeys,
    /// Where they live.
    pub gba: GbaType,
    /// When it ends; `None`: never.
    pub expires: Option<Timestamp>,
    /// The counter to go on from, when the terminal comes from another BM-SC.
    pub t: Option<u32>,
}

/// What a trigger asks the terminal to do.
#[derive(Debug, Clone)]
pub enum Trigger {
    /// Register again.
    Register,
    /// Request the current key of a service.
    MskRequest(ServiceId),
}

/// One line of an import.
#[derive(Debug, Clone)]
pub enum ImportItem {
    /// A service.
    Service(super::ServiceSpec),
    /// A subscriber.
    Subscriber(Subscriber),
    /// A credential.
    Credential(CredentialSpec),
}

/// LTKMs to carry out after a commit.
type Work = Vec<(Recipient, Vec<Order>)>;

fn invalid(field: &'static str, why: impl Into<String>) -> EngineError {
    EngineError::Invalid { field, why: why.into() }
}

impl Engine {
    /// Puts a subscriber in. Entitlements that it loses end their registrations.
    ///
    /// # Errors
    /// A service that does not exist.
    pub async fn put_subscriber(&self, subscriber: Subscriber) -> Result<Put, EngineError> {
        let mut outcomes = self.put_subscribers(vec![subscriber]).await;
        outcomes.pop().unwrap_or(Ok(Put::Updated))
    }

    async fn put_subscribers(&self, subscribers: Vec<Subscriber>) -> Vec<Result<Put, EngineError>> {
        let catalogue = self.catalogue();
        let check = |s: &Subscriber| {
            let unknown = s.services.iter().find(|id| catalogue.by_id(id).is_none());
            unknown.map(|id| invalid("services", format!("has {id}, which is no service: put it first")))
        };
        let faults: Vec<_> = subscribers.iter().map(check).collect();
        let right: Vec<Subscriber> =
            subscribers.into_iter().zip(&faults).filter(|(_, f)| f.is_none()).map(|(s, _)| s).collect();
        let mut ids: Vec<_> = right.iter().map(|s| s.id.clone()).collect();
        ids.sort();
        ids.dedup();
        let put = match ids.is_empty() {
            true => Ok((Vec::new(), Work::new())),
            false => self.update(Scope::Subscribers(ids), move |view, ctx| put_all(view, &right, ctx)).await,
        };
        let mut put = match put {
            Ok((put, work)) => {
                self.push_all(&work);
                Ok(put.into_iter())
            }
            Err(error) => Err(error),
        };
        let outcome = |fault: Option<EngineError>| match (fault, &mut put) {
            (Some(fault), _) => Err(fault),
            (None, Ok(put)) => Ok(put.next().unwrap_or(Put::Updated)),
            (None, Err(error)) => Err(error.clone().into()),
        };
        faults.into_iter().map(outcome).collect()
    }

    /// Deletes a subscriber: its terminals' registrations and deliveries end, their keys are invalidated.
    ///
    /// # Errors
    /// Unknown.
    pub async fn delete_subscriber(&self, id: &SubscriberId) -> Result<(), EngineError> {
        let (found, work) = self
            .update(Scope::Subscribers(vec![id.clone()]), |view, ctx| {
                let found = view.subscribers.values().any(Option::is_some);
                view.subscribers.values_mut().for_each(|s| *s = None);
                let (work, _) = decide_all(view, ctx, leave_all);
                (found, work)
            })
            .await?;
        self.push_all(&work);
        if found { Ok(()) } else { Err(EngineError::NotFound(format!("there is no subscriber {id}"))) }
    }

    /// Puts a credential in. Its counter goes on from the highest value known.
    ///
    /// # Errors
    /// Keys of other lengths than 16–64 octets; a subscriber that does not exist.
    pub async fn put_credential(&self, spec: CredentialSpec) -> Result<Put, EngineError> {
        let mut outcomes = self.put_credentials(vec![spec]).await;
        outcomes.pop().unwrap_or(Ok(Put::Updated))
    }

    async fn put_credentials(&self, specs: Vec<CredentialSpec>) -> Vec<Result<Put, EngineError>> {
        let sealed: Vec<_> = specs.into_iter().map(|spec| self.seal(spec)).collect();
        let mut right = Vec::new();
        let faults: Vec<_> = sealed
            .into_iter()
            .map(|s| match s {
                Ok(credential) => {
                    right.push(credential);
                    None
                }
                Err(fault) => Some(fault),
            })
            .collect();
        let mut seen = HashSet::new();
        let btids: Vec<_> =
            right.iter().map(|(c, _)| c.btid.clone()).filter(|b| seen.insert(b.clone())).collect();
        let mut subscribers: Vec<_> = right.iter().map(|(c, _)| c.subscriber.clone()).collect();
        subscribers.sort();
        subscribers.dedup();
        let place: HashMap<BTid, usize> = btids.iter().cloned().enumerate().map(|(i, b)| (b, i)).collect();
        let put = match btids.is_empty() {
            true => Ok(Vec::new()),
            false => {
                let scope = Scope::Credentials(btids, subscribers);
                self.update(scope, move |view, ctx| {
                    right
                        .iter()
                        .map(|(c, t)| put_one(view, place[&c.btid], c, *t, ctx.now))
                        .collect::<Vec<_>>()
                })
                .await
            }
        };
        let mut put = put.map(Vec::into_iter);
        let outcome = |fault: Option<EngineError>| match (fault, &mut put) {
            (Some(fault), _) => Err(fault),
            (None, Ok(put)) => match put.next() {
                Some(Ok(put)) => Ok(put),
                Some(Err(id)) => {
                    Err(invalid("subscriber", format!("is {id}, which is no subscriber: put it first")))
                }
                None => Ok(Put::Updated),
            },
            (None, Err(error)) => Err(error.clone().into()),
        };
        faults.into_iter().map(outcome).collect()
    }

    /// Checks a credential's keys and seals them.
    fn seal(&self, spec: CredentialSpec) -> Result<(Credential, Option<u32>), EngineError> {
        let CredentialSpec { btid, subscriber, keys, gba, expires, t } = spec;
        let (mrk, muk) = match keys {
            CredentialKeys::Pair { mrk, muk } => (mrk, muk),
            CredentialKeys::Ks { ks, rand, impi } => {
                if ks.len() != 32 {
                    return Err(invalid("ks", "holds 32 octets, in base64"));
                }
                if rand.len() != 16 {
                    return Err(invalid("rand", "holds 16 octets, in base64"));
                }
                let pair = gba::derive(gba, ks.expose(), &rand, &impi, &self.settings.identity.fqdn);
                (pair.mrk, pair.muk)
            }
        };
        for (field, key) in [("mrk", &mrk), ("muk", &muk)] {
            if !(16..=64).contains(&key.len()) {
                return Err(invalid(field, format!("holds 16 to 64 octets, not {}", key.len())));
            }
        }
        let no_randomness = |e| StoreError::Unavailable(format!("the system gives no randomness: {e}"));
        let sealer = self.store.sealer();
        let mrk = sealer.seal_mrk(&btid, mrk.expose()).map_err(no_randomness)?;
        let muk = sealer.seal_muk(&btid, muk.expose()).map_err(no_randomness)?;
        Ok((Credential { btid, subscriber, mrk, muk, gba, expires }, t))
    }

    /// Deletes a credential: its registration and deliveries end. Each key it may hold is invalidated once;
    /// no answer to that can be checked any more. The counter is kept.
    ///
    /// # Errors
    /// Unknown.
    pub async fn delete_credential(&self, btid: &BTid) -> Result<(), EngineError> {
        let work = self
            .update(Scope::Credentials(vec![btid.clone()], Vec::new()), |view, ctx| {
                let terminal = view.terminals.first_mut()?;
                let mut orders = Vec::new();
                let addressee = recipient(terminal)?;
                leave_all(terminal, ctx, &mut orders);
                terminal.end(ctx.now);
                terminal.credential = None;
                Some(vec![(addressee, orders)])
            })
            .await?;
        match work {
            Some(work) => {
                self.push_all(&work);
                Ok(())
            }
            None => Err(EngineError::NotFound(format!("there is no credential {btid}"))),
        }
    }

    /// Makes a terminal pull: a trigger LTKM by SMS if that is in its set, else by UDP.
    ///
    /// # Errors
    /// Unknown B-TID or service; the terminal is not registered, or its set has no method for it.
    pub async fn trigger(&self, btid: &BTid, what: Trigger) -> Result<(), EngineError> {
        let unknown = || EngineError::NotFound(format!("there is no terminal {btid}"));
        let catalogue = self.catalogue();
        let service = match &what {
            Trigger::Register => None,
            Trigger::MskRequest(id) => {
                let entry = catalogue.by_id(id);
                Some(
                    entry
                        .ok_or_else(|| invalid("service", format!("is {id}, which is no service")))?
                        .service
                        .no,
                )
            }
        };
        let triggered = self
            .try_update(Scope::Terminal(btid.clone()), move |view, ctx| {
                let terminal = view.terminals.first_mut()?;
                let mut orders = Vec::new();
                let registered = match service {
                    Some(no) => terminal.is_registered_for(no),
                    None => terminal.is_registered(),
                };
                let first = terminal.registration.as_ref().and_then(|r| r.services.first().copied());
                let (no, kind) = match service {
                    Some(no) => (no, Kind::TriggerMskRequest),
                    None => (first.unwrap_or(ServiceNo(0)), Kind::TriggerRegister),
                };
                let able = registered && terminal.trigger(no, kind, ctx, &mut orders);
                Some((able, recipient(terminal).map(|r| (r, orders))))
            })
            .await?;
        let (able, work) = triggered.flatten().ok_or_else(unknown)?;
        if !able {
            return Err(EngineError::Conflict(format!(
                "{btid} cannot be triggered: it is not registered, or its set has neither SMS nor UDP"
            )));
        }
        self.push_all(work.as_slice());
        Ok(())
    }

    /// Applies lines of an import in their order, durable when it returns; each line's outcome is its own.
    pub async fn import(&self, items: Vec<ImportItem>) -> Vec<Result<(), EngineError>> {
        let mut outcomes = Vec::with_capacity(items.len());
        let mut items = items.into_iter().peekable();
        while let Some(item) = items.next() {
            match item {
                ImportItem::Service(spec) => outcomes.push(self.put_service(spec).await.map(drop)),
                ImportItem::Subscriber(first) => {
                    let mut run = vec![first];
                    while let Some(ImportItem::Subscriber(next)) =
                        items.next_if(|i| matches!(i, ImportItem::Subscriber(_)))
                    {
                        run.push(next);
                    }
                    outcomes.extend(self.put_subscribers(run).await.into_iter().map(|o| o.map(drop)));
                }
                ImportItem::Credential(first) => {
                    let mut run = vec![first];
                    while let Some(ImportItem::Credential(next)) =
                        items.next_if(|i| matches!(i, ImportItem::Credential(_)))
                    {
                        run.push(next);
                    }
                    outcomes.extend(self.put_credentials(run).await.into_iter().map(|o| o.map(drop)));
                }
            }
        }
        outcomes
    }
}

/// Puts subscribers in their order; those whose entitlements shrink leave what they lost.
fn put_all(view: &mut View, subscribers: &[Subscriber], ctx: &mut Context<'_>) -> (Vec<Put>, Work) {
    let mut outcomes = Vec::with_capacity(subscribers.len());
    for subscriber in subscribers {
        let before = view.subscribers.insert(subscriber.id.clone(), Some(subscriber.clone()));
        outcomes.push(if before.flatten().is_some() { Put::Updated } else { Put::Created });
    }
    let entitled: HashMap<SubscriberId, HashSet<ServiceId>> = view
        .subscribers
        .values()
        .flatten()
        .map(|s| (s.id.clone(), s.services.iter().cloned().collect()))
        .collect();
    let (work, _) = decide_all(view, ctx, |terminal, ctx, orders| {
        let catalogue = ctx.catalogue;
        let owner = terminal.credential.as_ref().and_then(|c| entitled.get(&c.subscriber));
        let services = terminal.registration.as_ref().map_or_else(Vec::new, |r| r.services.clone());
        for entry in services.iter().filter_map(|no| catalogue.get(*no)) {
            if !entry.service.open && owner.is_some_and(|o| !o.contains(&entry.service.id)) {
                terminal.leave(entry, false, ctx, orders);
            }
        }
    });
    (outcomes, work)
}

/// Puts one credential into its slot. The error is the subscriber that does not exist.
fn put_one(
    view: &mut View,
    place: usize,
    credential: &Credential,
    t: Option<u32>,
    now: Timestamp,
) -> Result<Put, SubscriberId> {
    if !view.subscribers.get(&credential.subscriber).is_some_and(Option::is_some) {
        return Err(credential.subscriber.clone());
    }
    let terminal = &mut view.terminals[place];
    let before = terminal.credential.replace(credential.clone());
    if before.as_ref().is_some_and(|b| b.subscriber != credential.subscriber) {
        terminal.end(now);
    }
    if let Some(t) = t {
        terminal.next_t = terminal.next_t.max(u64::from(t) + 1);
    }
    Ok(if before.is_some() { Put::Updated } else { Put::Created })
}

/// Leaves every service.
fn leave_all(terminal: &mut Terminal, ctx: &mut Context<'_>, orders: &mut Vec<Order>) {
    let catalogue = ctx.catalogue;
    let services = terminal.registration.as_ref().map_or_else(Vec::new, |r| r.services.clone());
    for entry in services.iter().filter_map(|no| catalogue.get(*no)) {
        terminal.leave(entry, false, ctx, orders);
    }
}
