//! Who shares a store: the daemons, the shard ranges they hold, and the database behind them.

use std::time::Duration;

use crate::time::Timestamp;

/// How a daemon is, as the others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// Its leases are good.
    Alive,
    /// It ended in order, and gave its leases up.
    Left,
    /// It stopped renewing its leases without a word: it was killed, or does not reach the database.
    Gone,
}

impl NodeState {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Alive, Self::Left, Self::Gone];

    /// The admin API's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Left => "left",
            Self::Gone => "gone",
        }
    }
}

/// A daemon of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its `node.name`; `None`: the store is one daemon's alone and knows no names.
    pub name: Option<String>,
    /// Whether it is the daemon that answers.
    pub here: bool,
    /// How it is.
    pub state: NodeState,
    /// Where it serves terminals; `None`: the store does not know.
    pub http: Option<String>,
    /// When it entered the cluster; `None`: the store does not know.
    pub started: Option<Timestamp>,
    /// When it last renewed its leases.
    pub seen: Timestamp,
    /// The version that runs.
    pub version: String,
    /// The format of the schema that it writes; `None`: the store has no formats that daemons agree on.
    pub format: Option<u32>,
    /// Shard ranges that it holds.
    pub leases: u32,
    /// Whether it minds what is done once for all daemons: schedules, purging.
    pub leads: bool,
    /// How late the earliest look at a delivery is that it should have taken, when it last told.
    pub overdue: Duration,
    /// How many milliseconds the clock that counts is ahead of its machine's, when it last told.
    pub clock_offset_ms: i64,
}

/// A server that gets what another one writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standby {
    /// Its `application_name`.
    pub name: String,
    /// Where it connects from.
    pub address: String,
    /// `sync`, `quorum`, `potential` or `async`.
    pub state: String,
    /// Octets that it has not replayed; `None`: it has not told yet.
    pub behind: Option<u64>,
    /// How long ago what it last replayed was written; `None`: it has caught up, or not told yet.
    pub late: Option<Duration>,
}

/// A server that has a part of a distributed database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Its host and port.
    pub address: String,
    /// Whether it takes part.
    pub active: bool,
    /// What its part takes, in octets; `None`: it does not answer.
    pub size: Option<u64>,
}

/// How a database is distributed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Citus {
    /// The extension's version.
    pub version: String,
    /// The servers that have the shards.
    pub workers: Vec<Worker>,
}

/// The database that daemons share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// The server's version, such as `15.4`.
    pub version: String,
    /// What it takes, in octets; of a distributed one the coordinator's part.
    pub size: u64,
    /// Whether commits wait for a standby (`synchronous_standby_names`).
    pub synchronous: bool,
    /// The server's standbys; `None`: the daemon's role has no right to see them (`pg_monitor`).
    pub standbys: Option<Vec<Standby>>,
    /// How it is distributed; `None`: it is not.
    pub citus: Option<Citus>,
}

/// All daemons on a store, and what is behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Whether other daemons may join: the store is a database.
    pub shared: bool,
    /// The daemons, by name; those that were not seen for a day are forgotten.
    pub nodes: Vec<Node>,
    /// Shard ranges that there are.
    pub ranges: u32,
    /// Those of them that nobody alive holds.
    pub unheld: Vec<u32>,
    /// The database; `None`: the store is a directory.
    pub database: Option<Database>,
}

impl Cluster {
    /// One daemon, which has the store for itself.
    pub fn alone(overdue: Duration) -> Self {
        let node = Node {
            name: None,
            here: true,
            state: NodeState::Alive,
            http: None,
            started: None,
            seen: Timestamp::now(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            format: None,
            leases: 1,
            leads: true,
            overdue,
            clock_offset_ms: 0,
        };
        Self { shared: false, nodes: vec![node], ranges: 1, unheld: Vec::new(), database: None }
    }
}

/// What a daemon knows of its cluster without asking anybody: as of the last renewal of its leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// Daemons that are [`NodeState::Alive`], this one included.
    pub alive: u32,
    /// Daemons that are [`NodeState::Gone`].
    pub gone: u32,
    /// Shard ranges that this daemon holds now.
    pub held: u32,
    /// Shard ranges that nobody alive held.
    pub unheld: u32,
    /// For how long its leases are good unless they are renewed; `None`: it needs none.
    pub lease_left: Option<Duration>,
    /// How late the earliest look at a delivery is that it should have taken.
    pub overdue: Duration,
    /// How many milliseconds the clock that counts is ahead of its machine's.
    pub clock_offset_ms: i64,
}

impl Membership {
    /// One daemon, which has the store for itself.
    pub fn alone(overdue: Duration) -> Self {
        Self { alive: 1, gone: 0, held: 1, unheld: 0, lease_left: None, overdue, clock_offset_ms: 0 }
    }
}

/// How late something is that is due at a moment.
pub(super) fn late(due: Option<Timestamp>) -> Duration {
    due.map_or(Duration::ZERO, |due| Timestamp::now().since(due))
}
