//! Terminals' requests: who may ask, and what it came to.

use std::net::IpAddr;
use std::time::Duration;

use super::{Engine, Recipient, failures};
use crate::delivery::{Reason, Terminal};
use crate::digest::{NonceUse, Refused};
use crate::gba::Credential;
use crate::id::{BTid, KeyDomainId, Method, MethodSet, MskId, ServiceId, SubscriberId};
use crate::procedure::{self, Code, Outcome};
use crate::secret::Secret;
use crate::store::{Scope, StoreError, Subscriber, View};
use crate::time::Timestamp;

/// What the digest needs to know of a B-TID.
#[derive(Debug)]
pub struct Authenticable {
    /// The digest secret.
    pub mrk: Secret,
    /// Whether the B-TID may still be used: not expired, its counter not spent.
    pub usable: bool,
}

/// What a request came to.
#[derive(Debug)]
pub enum Served {
    /// It was acted upon: per requested service or key its code and its LTKMs, in request order.
    Items {
        /// Code and LTKMs of each item.
        items: Vec<(Code, Vec<Vec<u8>>)>,
        /// The methods to announce.
        announced: Option<MethodSet>,
    },
    /// No declared method can serve: 403 on the status line.
    NoMethod,
    /// The B-TID is gone or spent by now: 401 with a fresh challenge.
    Unauthorized,
    /// Its nonce count was used before (`replay`), here or at another node, or its nonce may have been forgotten: 401
    /// with a fresh challenge. Nothing has changed.
    Stale {
        /// Whether it is the count.
        replay: bool,
    },
}

/// A decision's result and what carrying it out needs; or what is answered instead.
type Decided = Result<(Outcome, Recipient, Vec<Reason>), Served>;

impl Engine {
    /// Looks a digest user name up; `None` is a name that no B-TID can have. An unknown one costs the same
    /// reads as a known one.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn authenticable(&self, btid: Option<&BTid>) -> Result<Option<Authenticable>, StoreError> {
        if let Some(btid) = btid
            && let Some((credential, usable)) = self.look_up(btid).await?
        {
            let mrk = self.open_mrk(&credential)?;
            *self.reference.lock().expect("no holder of this lock panics") = Some(btid.clone());
            return Ok(Some(Authenticable { mrk, usable }));
        }
        let reference = self.reference.lock().expect("no holder of this lock panics").clone();
        if let Some(known) = reference
            && let Some((credential, _)) = self.look_up(&known).await?
        {
            self.open_mrk(&credential)?;
        }
        Ok(None)
    }

    fn open_mrk(&self, credential: &Credential) -> Result<Secret, StoreError> {
        let opened = self.store.sealer().open_mrk(&credential.btid, &credential.mrk);
        opened.map_err(|e| StoreError::Damaged(format!("MRK of {}: {e}", credential.btid)))
    }

    /// A B-TID whose subscriber is gone is unknown (LTKM profile §3).
    async fn look_up(&self, btid: &BTid) -> Result<Option<(Credential, bool)>, StoreError> {
        let read = async {
            let found = self.store.terminals_of_subscribers(vec![self.store.terminal_key(btid)]).await?;
            let Some((terminal, _)) = found.into_iter().next() else { return Ok(None) };
            let spent = terminal.spent();
            let Some(credential) = terminal.credential else { return Ok(None) };
            let usable = !spent && !credential.expired(self.now());
            Ok(Some((credential, usable)))
        };
        read.await.inspect_err(|_| self.metrics.store_failed())
    }

    /// Carries out a registration of the authenticated terminal. `nonce` is used up in the same commit, whatever the
    /// request comes to.
    ///
    /// # Errors
    /// The store cannot be written: nothing is promised, nothing leaves, the nonce count was not used.
    pub async fn register(
        &self,
        btid: &BTid,
        address: IpAddr,
        services: Vec<ServiceId>,
        declared: Option<Vec<u8>>,
        nonce: Option<NonceUse>,
    ) -> Result<Served, StoreError> {
        let lifetime = self.settings.nonce_lifetime;
        let decided = self
            .update(Scope::Terminal(btid.clone()), move |view, ctx| {
                use_up(view, nonce, lifetime, ctx.now)?;
                let (terminal, others, subscriber) = acting(view, ctx.now).ok_or(Served::Unauthorized)?;
                let entitled = &subscriber.services;
                let declared = declared.as_deref();
                match procedure::register(terminal, others, entitled, address, &services, declared, ctx) {
                    Some(outcome) => decided(outcome, terminal, ctx.now),
                    None => Err(Served::NoMethod),
                }
            })
            .await?;
        if let Ok((outcome, _, _)) = &decided
            && outcome.announced == Some(MethodSet::EMPTY.with(Method::Sms))
        {
            tracing::warn!(btid = %btid.logged(), "declares SMS alone, which brings no key: its deliveries will fail");
        }
        self.carry_out(decided)
    }

    /// Carries out a deregistration of the authenticated terminal.
    ///
    /// # Errors
    /// See [`Engine::register`].
    pub async fn deregister(
        &self,
        btid: &BTid,
        address: IpAddr,
        services: Vec<ServiceId>,
        nonce: Option<NonceUse>,
    ) -> Result<Served, StoreError> {
        let lifetime = self.settings.nonce_lifetime;
        let decided = self
            .update(Scope::Terminal(btid.clone()), move |view, ctx| {
                use_up(view, nonce, lifetime, ctx.now)?;
                let (terminal, _, _) = acting(view, ctx.now).ok_or(Served::Unauthorized)?;
                let outcome = procedure::deregister(terminal, address, &services, ctx);
                decided(outcome, terminal, ctx.now)
            })
            .await?;
        self.carry_out(decided)
    }

    /// Carries out an MSK request of the authenticated terminal.
    ///
    /// # Errors
    /// See [`Engine::register`].
    pub async fn msk_request(
        &self,
        btid: &BTid,
        address: IpAddr,
        keys: Vec<(KeyDomainId, MskId)>,
        nonce: Option<NonceUse>,
    ) -> Result<Served, StoreError> {
        let lifetime = self.settings.nonce_lifetime;
        let decided = self
            .update(Scope::Terminal(btid.clone()), move |view, ctx| {
                use_up(view, nonce, lifetime, ctx.now)?;
                let (terminal, _, _) = acting(view, ctx.now).ok_or(Served::Unauthorized)?;
                let outcome = procedure::msk_request(terminal, address, &keys, ctx);
                decided(outcome, terminal, ctx.now)
            })
            .await?;
        self.carry_out(decided)
    }

    /// Uses up the nonce count of a request that is refused before it gets here, so that nobody can send other content
    /// under its digest. The inner error: the count was used before, and that is the answer.
    ///
    /// # Errors
    /// See [`Engine::register`].
    pub async fn use_nonce(&self, btid: &BTid, nonce: NonceUse) -> Result<Result<(), Refused>, StoreError> {
        let lifetime = self.settings.nonce_lifetime;
        self.update(Scope::Terminal(btid.clone()), move |view, ctx| {
            // A terminal that is gone has no use for it.
            let terminal = view.terminals.first_mut();
            terminal.map_or(Ok(()), |terminal| terminal.nonces.use_up(nonce, lifetime, ctx.now))
        })
        .await
    }

    /// After the commit: makes what rides in the answer, and sends what leaves by UDP.
    fn carry_out(&self, decided: Decided) -> Result<Served, StoreError> {
        let (outcome, recipient, failed) = match decided {
            Ok(decided) => decided,
            Err(served) => return Ok(served),
        };
        for reason in failed {
            self.metrics.failed(reason, 1);
        }
        let any = outcome.items.iter().any(|i| !i.orders.is_empty()) || !outcome.push.is_empty();
        let mut items = Vec::with_capacity(outcome.items.len());
        if any {
            let catalogue = self.catalogue();
            let maker = self.maker(&catalogue, &recipient)?;
            let inside: usize = outcome.items.iter().map(|i| i.orders.len()).sum();
            self.metrics.sent(Method::Http, inside as u64);
            for item in &outcome.items {
                items.push((item.code, item.orders.iter().filter_map(|order| maker.make(order)).collect()));
            }
            self.metrics.built(inside as u64);
            self.push(&maker, &recipient, &outcome.push);
        } else {
            items.extend(outcome.items.iter().map(|i| (i.code, Vec::new())));
        }
        Ok(Served::Items { items, announced: outcome.announced })
    }
}

/// Uses up the pair that the acting terminal's request came with. What is decided afterwards is committed with it, also
/// when it is a refusal.
fn use_up(
    view: &mut View,
    nonce: Option<NonceUse>,
    lifetime: Duration,
    now: Timestamp,
) -> Result<(), Served> {
    let (Some(nonce), Some(terminal)) = (nonce, view.terminals.first_mut()) else { return Ok(()) };
    let used = terminal.nonces.use_up(nonce, lifetime, now);
    used.map_err(|refused| Served::Stale { replay: refused == Refused::Replayed })
}

/// The acting terminal, its subscriber's other terminals and the subscriber, if it still may act.
fn acting(view: &mut View, now: Timestamp) -> Option<(&mut Terminal, &mut [Terminal], Subscriber)> {
    let (terminal, others) = view.terminals.split_first_mut()?;
    let credential = terminal.credential.as_ref()?;
    let id: &SubscriberId = &credential.subscriber;
    let subscriber = view.subscribers.get(id)?.clone()?;
    let usable = !credential.expired(now) && !terminal.spent();
    usable.then_some((terminal, others, subscriber))
}

fn decided(outcome: Outcome, terminal: &Terminal, now: Timestamp) -> Decided {
    let recipient = recipient(terminal).ok_or(Served::Unauthorized)?;
    Ok((outcome, recipient, failures(&terminal.deliveries, now)))
}

/// Who a terminal's LTKMs are for and where they go. A terminal that never registered gets none, so its
/// address does not matter.
pub(super) fn recipient(terminal: &Terminal) -> Option<Recipient> {
    let credential = terminal.credential.as_ref()?;
    let unspecified = IpAddr::from([0, 0, 0, 0]);
    let address = terminal.registration.as_ref().map_or(unspecified, |r| r.address);
    Some(Recipient { btid: credential.btid.clone(), muk: credential.muk.clone(), address, key: terminal.key })
}
