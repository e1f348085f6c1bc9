//! Terminals' requests, many at a time: who asks is looked up, and what is decided is written, for all that came at the
//! same time with the statements of one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::{join_all, try_join_all};

use super::change::Writes;
use super::commit::Guard;
use super::inner::{Inner, Tried, decided};
use super::place::shard;
use super::scope::{self, Reading, unique};
use super::together::{Ask, Together};
use crate::delivery::Terminal;
use crate::id::{BTid, TerminalKey};
use crate::store::{Decide, Scope, StoreError, Subscriber};

/// Terminals that are looked up, each with its subscriber.
pub(super) type Lookups = Together<(), Option<(Terminal, Subscriber)>>;

/// Requests that are carried out.
pub(super) type Requests = Together<(BTid, Decide), ()>;

type Lookup = Ask<(), Option<(Terminal, Subscriber)>>;
type Request = Ask<(BTid, Decide), ()>;

impl Inner {
    /// Terminals that have a credential and a subscriber that is known.
    pub(super) async fn terminals_of_subscribers(
        self: &Arc<Self>,
        keys: Vec<TerminalKey>,
    ) -> Result<Vec<(Terminal, Subscriber)>, StoreError> {
        let alike = self.alike();
        let calls = keys.into_iter().map(|key| {
            let inner = Arc::clone(self);
            let run = move |batch| Arc::clone(&inner).look_up(batch);
            self.lookups.call(key, (), alike, run)
        });
        Ok(try_join_all(calls).await?.into_iter().flatten().collect())
    }

    /// Carries a terminal's request out.
    pub(super) async fn request(self: &Arc<Self>, btid: BTid, decide: Decide) -> Result<(), StoreError> {
        let key = self.sealer.terminal_key(&btid);
        let inner = Arc::clone(self);
        let run = move |batch| Arc::clone(&inner).carry_out(batch);
        self.requests.call(key, (btid, decide), self.alike(), run).await
    }

    /// Which terminals' calls one statement may serve.
    fn alike(&self) -> impl Fn(TerminalKey, TerminalKey) -> bool + Copy + Send + 'static {
        let distributed = self.distributed;
        move |a, b| !distributed || shard(a) == shard(b)
    }

    async fn look_up(self: Arc<Self>, batch: Vec<Lookup>) {
        match self.look_up_all(&batch.iter().map(|ask| ask.key).collect::<Vec<_>>()).await {
            Ok(found) => batch.into_iter().for_each(|ask| {
                let found = found.get(&ask.key).cloned();
                ask.end(Ok(found));
            }),
            Err(error) => batch.into_iter().for_each(|ask| ask.end(Err(error.clone()))),
        }
    }

    async fn look_up_all(
        &self,
        keys: &[TerminalKey],
    ) -> Result<HashMap<TerminalKey, (Terminal, Subscriber)>, StoreError> {
        let connection = self.connection().await?;
        let mut owners = BTreeMap::new();
        for (key, raw) in scope::terminals(&connection, &unique(keys), self.distributed).await? {
            let terminal = raw.terminal(key, self.first_t())?;
            if let Some(owner) = terminal.credential.as_ref().map(|c| c.subscriber.clone()) {
                self.recent.keep_terminal(key, raw);
                owners.insert(key, (owner, terminal));
            }
        }
        let begun = Instant::now();
        let ids: BTreeSet<_> = owners.values().map(|(owner, _)| owner.clone()).collect();
        let ids: Vec<_> = ids.into_iter().collect();
        let rows = scope::subscribers(&connection, &ids, self.distributed).await?;
        connection.done();
        let mut found = HashMap::with_capacity(owners.len());
        for (key, (owner, terminal)) in owners {
            if let Some(subscriber) = &rows[&owner].record.subscriber {
                found.insert(key, (terminal, subscriber.clone()));
            }
        }
        for (id, row) in rows {
            self.recent.keep_subscriber(id, begun, row);
        }
        Ok(found)
    }

    async fn carry_out(self: Arc<Self>, mut batch: Vec<Request>) {
        if batch.len() > 1 {
            batch = match self.try_together(batch).await {
                Ok(left) => left,
                Err((error, batch)) => {
                    batch.into_iter().for_each(|ask| ask.end(Err(error.clone())));
                    return;
                }
            };
        }
        // A single one, and those that did not go together.
        join_all(batch.into_iter().map(|mut ask| async {
            let scope = Scope::Terminal(ask.what.0.clone());
            let result = self.try_update(&scope, &mut ask.what.1).await;
            ask.end(result);
        }))
        .await;
    }

    /// Decides about requests and writes what they come to in one commit. Gives back those that want to be tried one by
    /// one: all of them if anything that was read has changed meanwhile.
    async fn try_together(
        &self,
        mut batch: Vec<Request>,
    ) -> Result<Vec<Request>, (StoreError, Vec<Request>)> {
        let mut apart = Vec::new();
        match self.try_all(&mut batch, &mut apart).await {
            Ok(Tried::Done) => {
                batch.into_iter().for_each(|ask| ask.end(Ok(())));
                Ok(apart)
            }
            Ok(_) => {
                apart.append(&mut batch);
                Ok(apart)
            }
            Err(error) => {
                apart.append(&mut batch);
                Err((error, apart))
            }
        }
    }

    /// Takes those out to `apart` that cannot go with the others.
    async fn try_all(&self, batch: &mut Vec<Request>, apart: &mut Vec<Request>) -> Result<Tried, StoreError> {
        let connection = self.connection().await?;
        let keys = unique(&batch.iter().map(|ask| ask.key).collect::<Vec<_>>());
        let mut asks: HashMap<TerminalKey, Vec<Request>> = HashMap::with_capacity(keys.len());
        for ask in batch.drain(..) {
            asks.entry(ask.key).or_default().push(ask);
        }
        let (first_t, distributed) = (self.first_t(), self.distributed);
        let read = tokio::try_join!(
            self.revision(&connection),
            Reading::of_requests(&connection, &keys, &self.recent, first_t, distributed)
        );
        let (revision, readings) = match read {
            Ok(read) => read,
            Err(error) => {
                apart.extend(asks.into_values().flatten());
                return Err(error);
            }
        };
        let (mut writes, mut guard) = (Writes::default(), Guard::default());
        let mut taken: HashSet<TerminalKey> = HashSet::new();
        for (key, mut reading) in keys.iter().zip(readings) {
            let asks = asks.remove(key).unwrap_or_default();
            // Terminals of one subscriber follow one another.
            let about: Vec<_> =
                reading.siblings.iter().copied().chain(reading.raw.iter().map(|(key, _)| *key)).collect();
            if about.iter().any(|key| taken.contains(key)) {
                apart.extend(asks);
                continue;
            }
            // Each sees what the one before decided.
            let mut view = std::mem::take(&mut reading.view);
            let mut agreed = Vec::with_capacity(asks.len());
            for mut ask in asks {
                let mut next = view.clone();
                match decided(&mut ask.what.1, &mut next) {
                    Err(error) => ask.end(Err(error)),
                    Ok(()) if next.revision.is_some_and(|under| under < revision) => apart.push(ask),
                    Ok(()) => {
                        guard.revision = guard.revision.max(next.revision.take().map(|r| r as i64));
                        view = next;
                        agreed.push(ask);
                    }
                }
            }
            match Writes::of(&connection, reading, view, false, first_t, distributed).await {
                Ok(made) => writes.append(made),
                Err(error) => {
                    agreed.into_iter().for_each(|ask| ask.end(Err(error.clone())));
                    continue;
                }
            }
            taken.extend(about);
            batch.append(&mut agreed);
        }
        self.write(connection, writes, &guard).await
    }
}
