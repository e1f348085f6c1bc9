//! Which shards this daemon looks after: leases in the database, renewed every second, taken over when their holder is
//! gone. Times are the database's; only how long a lease is good without a word from the database is measured here.

use std::collections::BTreeSet;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::place::{RANGES, range, shard, shards_of};
use super::sql;
use crate::id::TerminalKey;
use crate::store::StoreError;
use crate::store::cluster::Membership;
use crate::time;

/// How long a lease is good after its last renewal.
pub(super) const LEASE: Duration = Duration::from_secs(6);

/// How long before that its holder stops relying on it.
const MARGIN: Duration = Duration::from_secs(1);

/// How often it is renewed.
pub(super) const RENEW: Duration = Duration::from_secs(1);

/// How long one try to change leases waits for the commits that are under way.
const EXCLUSION: Duration = Duration::from_millis(500);

/// A node that was not seen for so long is forgotten.
const FORGOTTEN: &str = "24 hours";

/// Whether a row of `ltkmd.node` is a daemon whose leases are good.
pub(super) const ALIVE: &str = "expires > now()";

/// Whether it is one that stopped renewing without a word: who leaves in order lets go before its leases end.
pub(super) const GONE: &str = "(expires <= now() AND expires >= seen + interval '6 seconds')";

/// Clocks that differ by more than this are told.
const CLOCK_TOLD: i64 = 1_000;

/// Readings of the clock that took longer than this are not taken for its offset.
const CLOCK_ROUND_TRIP: Duration = Duration::from_millis(200);

/// What this daemon holds.
#[derive(Debug)]
struct Held {
    ranges: [bool; RANGES],
    /// Rises whenever the ranges change.
    generation: u64,
    /// Until when they may be relied upon.
    until: Instant,
    /// Daemons that lived and that were gone, and ranges that nobody held, at the last renewal.
    alive: u32,
    gone: u32,
    unheld: u32,
}

/// This daemon's leases.
#[derive(Debug)]
pub(super) struct Leases {
    name: String,
    epoch: i64,
    held: RwLock<Held>,
}

/// A daemon as the database knows it.
struct Node {
    name: String,
    epoch: i64,
    alive: bool,
    gone: bool,
}

/// What one renewal found.
pub(super) struct Renewed {
    /// The revision of services and keys.
    pub(super) revision: u64,
    /// The T that terminals begin with.
    pub(super) first_t: u64,
}

impl Leases {
    /// Enters the cluster under a name. Who had it before has nothing any more.
    pub(super) async fn enter(
        client: &Client,
        name: &str,
        http: &str,
        format: i32,
    ) -> Result<Self, StoreError> {
        let text = "INSERT INTO ltkmd.node (name, epoch, started, seen, expires, version, format, http, overdue, \
                    clock_offset_ms) VALUES ($1, 1, now(), now(), now(), $2, $3, \
                    $4, 0, 0) ON CONFLICT (name) DO UPDATE SET epoch = node.epoch + 1, started = excluded.started, \
                    seen = excluded.seen, version = excluded.version, format = excluded.format, http = excluded.http \
                    RETURNING epoch";
        let version = env!("CARGO_PKG_VERSION");
        let row = client.query_one(text, &[&name, &version, &format, &http]).await?;
        let held = Held {
            ranges: [false; RANGES],
            generation: 0,
            until: Instant::now(),
            alive: 0,
            gone: 0,
            unheld: RANGES as u32,
        };
        Ok(Self { name: name.to_owned(), epoch: row.get(0), held: RwLock::new(held) })
    }

    /// The node's name and epoch.
    pub(super) fn node(&self) -> (String, i64) {
        (self.name.clone(), self.epoch)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a terminal's shard is this daemon's now.
    pub(super) fn holds(&self, key: TerminalKey) -> bool {
        let held = self.read();
        held.ranges[range(shard(key))] && Instant::now() < held.until
    }

    /// Whether this daemon minds what is done once for all.
    pub(super) fn leads(&self) -> bool {
        let held = self.read();
        held.ranges[0] && Instant::now() < held.until
    }

    /// The shards that are this daemon's now, and the generation of its leases.
    pub(super) fn shards(&self) -> (Vec<i32>, u64) {
        let held = self.read();
        if Instant::now() >= held.until {
            return (Vec::new(), held.generation);
        }
        let mine = (0..RANGES).filter(|range| held.ranges[*range]);
        (mine.flat_map(shards_of).collect(), held.generation)
    }

    /// What is known of the cluster since the last renewal.
    pub(super) fn membership(&self, overdue: Duration) -> Membership {
        let held = self.read();
        let left = held.until.saturating_duration_since(Instant::now());
        let count = held.ranges.iter().filter(|held| **held).count();
        Membership {
            alive: held.alive,
            gone: held.gone,
            held: if left.is_zero() { 0 } else { count as u32 },
            unheld: held.unheld,
            lease_left: Some(left),
            overdue,
            clock_offset_ms: time::offset(),
        }
    }

    /// Notes what a renewal has seen of the others.
    fn note(&self, nodes: &[Node], unheld: usize) {
        let count = |which: fn(&Node) -> bool| nodes.iter().filter(|n| which(n)).count() as u32;
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        (held.alive, held.gone, held.unheld) = (count(|n| n.alive), count(|n| n.gone), unheld as u32);
    }

    fn set(&self, ranges: [bool; RANGES], until: Option<Instant>) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        if held.ranges != ranges {
            let count = |ranges: &[bool; RANGES]| ranges.iter().filter(|held| **held).count();
            tracing::info!(
                before = count(&held.ranges),
                now = count(&ranges),
                of = RANGES,
                "shard ranges held"
            );
            held.ranges = ranges;
            held.generation += 1;
        }
        if let Some(until) = until {
            held.until = until;
        }
    }

    /// Renews the leases, gives up and claims what is fair.
    pub(super) async fn renew(&self, client: &mut Client, overdue: i64) -> Result<Renewed, StoreError> {
        let sent = Instant::now();
        let text = "UPDATE ltkmd.node SET seen = now(), expires = now() + make_interval(secs => $3), overdue = $4, \
                    clock_offset_ms = $5 WHERE name = $1 AND epoch = $2";
        let seconds = LEASE.as_secs_f64();
        let renewed =
            client.execute(text, &[&self.name, &self.epoch, &seconds, &overdue, &time::offset()]).await?;
        if renewed == 0 {
            self.set([false; RANGES], None);
            return Err(StoreError::Open(format!(
                "another daemon has entered the cluster as {}: give each its own node.name",
                self.name
            )));
        }
        let until = sent + LEASE - MARGIN;
        let (asked, clock) = (Instant::now(), unix_millis());
        let text = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
        let row = client.query_one(text, &[]).await?;
        self.keep_time(row.get(0), clock, asked.elapsed());
        let text = format!("SELECT name, epoch, {ALIVE}, {GONE} FROM ltkmd.node ORDER BY name");
        let nodes = client.query(&text, &[]).await?;
        let node = |row: &tokio_postgres::Row| Node {
            name: row.get(0),
            epoch: row.get(1),
            alive: row.get(2),
            gone: row.get(3),
        };
        let nodes: Vec<Node> = nodes.iter().map(node).collect();
        let text = "SELECT range, node, epoch FROM ltkmd.lease ORDER BY range";
        let (mut mine, mut free) = (Vec::new(), Vec::new());
        for row in client.query(text, &[]).await? {
            let (range, holder, epoch): (i32, Option<String>, Option<i64>) =
                (row.get(0), row.get(1), row.get(2));
            let alive = |n: &Node| Some(&n.name) == holder.as_ref() && Some(n.epoch) == epoch && n.alive;
            if holder.as_ref() == Some(&self.name) && epoch == Some(self.epoch) {
                mine.push(range);
            } else if !nodes.iter().any(alive) {
                free.push(range);
            }
        }
        let mut unheld = free.len();
        let fair = self.fair_share(&nodes);
        let surplus = mine.split_off(fair.min(mine.len()));
        let wanted: Vec<i32> = free.into_iter().take(fair.saturating_sub(mine.len())).collect();
        if !surplus.is_empty() || !wanted.is_empty() {
            // What is given up is not relied upon from here on, whatever becomes of the change; the rest is renewed.
            self.set(flags(&mine), Some(until));
            let gained = self.change(client, &surplus, &wanted).await?;
            unheld = (unheld + surplus.len()).saturating_sub(gained.len());
            mine.extend(gained);
        }
        self.set(flags(&mine), Some(until));
        self.note(&nodes, unheld);
        let row = client.query_one("SELECT revision, first_t FROM ltkmd.meta", &[]).await?;
        let (revision, first_t): (i64, i64) = (row.get(0), row.get(1));
        if self.leads() {
            let text = format!("DELETE FROM ltkmd.node WHERE seen < now() - interval '{FORGOTTEN}'");
            client.execute(&text, &[]).await?;
        }
        Ok(Renewed { revision: revision as u64, first_t: first_t as u64 })
    }

    /// How many ranges this node should have: all nodes that live have equally many, the first by name one more.
    fn fair_share(&self, nodes: &[Node]) -> usize {
        let alive: BTreeSet<&str> = nodes.iter().filter(|n| n.alive).map(|n| n.name.as_str()).collect();
        let place = alive.iter().position(|name| *name == self.name).unwrap_or(0);
        let n = alive.len().max(1);
        RANGES / n + usize::from(place < RANGES % n)
    }

    /// Gives up and claims ranges, while no update is between its guard and its commit. Those that it got.
    async fn change(
        &self,
        client: &mut Client,
        surplus: &[i32],
        wanted: &[i32],
    ) -> Result<Vec<i32>, StoreError> {
        let transaction = client.transaction().await?;
        // A commit that hangs keeps everybody out until the server ends it; who waits for it keeps the others waiting.
        let text = format!("SET LOCAL lock_timeout = {}", EXCLUSION.as_millis());
        transaction.batch_execute(&text).await?;
        match transaction.execute(sql::EXCLUDE, &[]).await {
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                transaction.rollback().await?;
                return Ok(Vec::new());
            }
            excluded => excluded?,
        };
        let text = "UPDATE ltkmd.lease SET node = NULL, epoch = NULL WHERE range = ANY($1) AND node = $2 AND epoch = $3";
        transaction.execute(text, &[&surplus, &self.name, &self.epoch]).await?;
        let text = "UPDATE ltkmd.lease l SET node = $2, epoch = $3 WHERE l.range = ANY($1) AND NOT EXISTS (SELECT 1 \
                    FROM ltkmd.node n WHERE n.name = l.node AND n.epoch = l.epoch AND n.expires > now()) \
                    RETURNING l.range";
        let gained = transaction.query(text, &[&wanted, &self.name, &self.epoch]).await?;
        transaction.commit().await?;
        Ok(gained.iter().map(|row| row.get(0)).collect())
    }

    /// The daemon's clock is the database's: where this machine's differs, what is read from it is corrected.
    fn keep_time(&self, database: i64, here: i64, round_trip: Duration) {
        if round_trip > CLOCK_ROUND_TRIP {
            return;
        }
        let offset = database - here - (round_trip.as_millis() / 2) as i64;
        let before = time::offset();
        if (offset - before).abs() > 2 * round_trip.as_millis() as i64 + 20 {
            if (offset - before).abs() > CLOCK_TOLD {
                tracing::warn!(
                    offset_ms = offset,
                    "this machine's clock differs from the database's, which counts"
                );
            }
            time::set_offset(offset);
        }
    }

    /// Leaves the cluster: what this node held is free at once.
    pub(super) async fn leave(&self, client: &mut Client) -> Result<(), StoreError> {
        self.set([false; RANGES], None);
        let transaction = client.transaction().await?;
        transaction.execute(sql::EXCLUDE, &[]).await?;
        let text = "UPDATE ltkmd.lease SET node = NULL, epoch = NULL WHERE node = $1 AND epoch = $2";
        transaction.execute(text, &[&self.name, &self.epoch]).await?;
        let text = "UPDATE ltkmd.node SET seen = now(), expires = now() WHERE name = $1 AND epoch = $2";
        transaction.execute(text, &[&self.name, &self.epoch]).await?;
        transaction.commit().await?;
        Ok(())
    }
}

fn flags(ranges: &[i32]) -> [bool; RANGES] {
    let mut flags = [false; RANGES];
    for range in ranges {
        if let Some(flag) = usize::try_from(*range).ok().and_then(|range| flags.get_mut(range)) {
            *flag = true;
        }
    }
    flags
}

fn unix_millis() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
