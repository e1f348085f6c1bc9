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

/// How often what did not go together is tried together again: of terminals of one subscriber one goes each time.
const ROUNDS: usize = 4;

type Lookup = Ask<(), Option<(Terminal, Subscriber)>>;
type Request = Ask<(BTid, Decide), ()>;

/// Requests that did not go with the others of their batch.
#[derive(Default)]
struct Apart {
    asks: Vec<Request>,
    /// Some were decided under services and keys that are older than these.
    revision: Option<u64>,
}

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
            // One's record is not another's trouble.
            Err(StoreError::Damaged(_)) if batch.len() > 1 => {
                for ask in batch {
                    let found = self.look_up_all(&[ask.key]).await.map(|mut found| found.remove(&ask.key));
                    ask.end(found);
                }
            }
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
        for _ in 0..ROUNDS {
            if batch.len() < 2 {
                break;
            }
            let mut apart = Apart::default();
            let tried = self.try_all(&mut batch, &mut apart).await;
            let mut left = apart.asks;
            match tried {
                Ok(Tried::Done) => batch.drain(..).for_each(|ask| ask.end(Ok(()))),
                Ok(Tried::Outdated(revision)) => apart.revision = apart.revision.max(Some(revision)),
                Ok(Tried::Again | Tried::Nothing) => {}
                // One's record is not another's trouble.
                Err(StoreError::Damaged(_)) => {
                    left.append(&mut batch);
                    batch = left;
                    break;
                }
                Err(error) => {
                    batch.into_iter().chain(left).for_each(|ask| ask.end(Err(error.clone())));
                    return;
                }
            }
            left.append(&mut batch);
            batch = left;
            if let Some(revision) = apart.revision
                && let Err(error) = self.await_revision(revision).await
            {
                batch.into_iter().for_each(|ask| ask.end(Err(error.clone())));
                return;
            }
        }
        // A single one, and those that did not go together; those of one terminal one after another.
        let mut by_terminal: HashMap<TerminalKey, Vec<Request>> = HashMap::new();
        for ask in batch {
            by_terminal.entry(ask.key).or_default().push(ask);
        }
        join_all(by_terminal.into_values().map(|asks| async {
            for mut ask in asks.into_iter().filter(Ask::is_awaited) {
                let scope = Scope::Terminal(ask.what.0.clone());
                let result = self.try_update(&scope, &mut ask.what.1).await;
                ask.end(result);
            }
        }))
        .await;
    }

    /// Decides about requests and writes what they come to in one commit, of which it says what it came to; those that
    /// cannot go with the others are taken out.
    async fn try_all(&self, batch: &mut Vec<Request>, apart: &mut Apart) -> Result<Tried, StoreError> {
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
                apart.asks.extend(asks.into_values().flatten());
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
                apart.asks.extend(asks);
                continue;
            }
            // Each sees what the one before decided.
            let mut view = std::mem::take(&mut reading.view);
            let mut agreed = Vec::with_capacity(asks.len());
            for mut ask in asks.into_iter().filter(Ask::is_awaited) {
                let mut next = view.clone();
                match decided(&mut ask.what.1, &mut next) {
                    Err(error) => ask.end(Err(error)),
                    Ok(()) if next.revision.is_some_and(|under| under < revision) => {
                        apart.revision = Some(revision);
                        apart.asks.push(ask);
                    }
                    Ok(()) => {
                        // All of them have to hold at the commit, the one of the oldest revision too.
                        let under = next.revision.take().map(|revision| revision as i64);
                        guard.revision = guard.revision.into_iter().chain(under).min();
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
