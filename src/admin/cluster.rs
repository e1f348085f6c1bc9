//! Who shares the store: `GET /v1/cluster`.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State as Shared;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

use super::problem::Problem;
use super::query::Query;
use crate::engine::Engine;
use crate::store::cluster::{Citus, Cluster, Database, Node, NodeState, Standby, Worker};
use crate::time::Timestamp;

fn node_states() -> Schema {
    let words = NodeState::ALL.map(NodeState::as_str);
    Schema::Object(ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).build())
}

fn ms(took: std::time::Duration) -> u64 {
    took.as_millis().try_into().unwrap_or(u64::MAX)
}

/// The daemons on this store, the shard ranges that they hold, and the database.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Cluster)]
pub(super) struct ClusterView {
    /// Whether other daemons may join: the store is a database.
    shared: bool,
    /// The daemons, by name; those that were not seen for a day are forgotten.
    nodes: Vec<NodeView>,
    /// Shard ranges that there are.
    ranges: u32,
    /// Those of them that nobody alive holds: nobody goes on with their jobs and resends.
    unheld: Vec<u32>,
    /// The database; null: the store is a directory.
    database: Option<DatabaseView>,
}

/// A daemon of the cluster.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Node)]
pub(super) struct NodeView {
    /// Its `node.name`; null: the store is one daemon's alone and knows no names.
    name: Option<String>,
    /// Whether it is the one that answers.
    here: bool,
    /// `alive`: its leases are good. `left`: it ended in order. `gone`: it stopped without a word.
    #[schema(schema_with = node_states)]
    state: &'static str,
    /// Where it serves terminals; null: the store does not know.
    address: Option<String>,
    /// When it entered the cluster.
    #[schema(value_type = String, format = DateTime)]
    started: Timestamp,
    /// When it last renewed its leases.
    #[schema(value_type = String, format = DateTime)]
    seen: Timestamp,
    /// The version that runs.
    version: String,
    /// The format of the schema that it writes; null: its store is not shared.
    format: Option<u32>,
    /// Shard ranges that it holds.
    leases: u32,
    /// Whether it minds what is done once for all: schedules, purging.
    leads: bool,
    /// How late the earliest look at a delivery is that it should have taken, in milliseconds.
    overdue_ms: u64,
    /// How far the database's clock, which counts, is ahead of its machine's, in milliseconds.
    clock_offset_ms: i64,
}

/// The database that daemons share.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Database)]
pub(super) struct DatabaseView {
    /// The server's version.
    version: String,
    /// What it takes, in octets; of a distributed one the coordinator's part.
    size: u64,
    /// Whether commits wait for a standby.
    synchronous: bool,
    /// The server's standbys; null: the daemon's role has no right to see them.
    standbys: Option<Vec<StandbyView>>,
    /// How it is distributed; null: it is not.
    citus: Option<CitusView>,
}

/// A server that gets what another one writes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Standby)]
pub(super) struct StandbyView {
    /// Its `application_name`.
    name: String,
    /// Where it connects from.
    address: String,
    /// `sync`, `quorum`, `potential` or `async`.
    state: String,
    /// Octets that it has not replayed; null: it has not told yet.
    behind: Option<u64>,
    /// How long ago what it last replayed was written, in milliseconds; null: it has caught up.
    behind_ms: Option<u64>,
}

/// How a database is distributed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Citus)]
pub(super) struct CitusView {
    /// The extension's version.
    version: String,
    /// The servers that have the shards.
    workers: Vec<WorkerView>,
}

/// A server that has a part of a distributed database.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Worker)]
pub(super) struct WorkerView {
    /// Its host and port.
    address: String,
    /// Whether it takes part.
    active: bool,
    /// What its part takes, in octets; null: it does not answer.
    size: Option<u64>,
}

impl NodeView {
    /// A daemon; `since` is when the one that answers started.
    fn new(n: Node, since: Timestamp) -> Self {
        Self {
            name: n.name,
            here: n.here,
            state: n.state.as_str(),
            address: n.http,
            started: n.started.unwrap_or(since),
            seen: n.seen,
            version: n.version,
            format: n.format,
            leases: n.leases,
            leads: n.leads,
            overdue_ms: ms(n.overdue),
            clock_offset_ms: n.clock_offset_ms,
        }
    }
}

impl From<Standby> for StandbyView {
    fn from(s: Standby) -> Self {
        let Standby { name, address, state, behind, late } = s;
        Self { name, address, state, behind, behind_ms: late.map(ms) }
    }
}

impl From<Citus> for CitusView {
    fn from(c: Citus) -> Self {
        let worker = |Worker { address, active, size }| WorkerView { address, active, size };
        Self { version: c.version, workers: c.workers.into_iter().map(worker).collect() }
    }
}

impl From<Database> for DatabaseView {
    fn from(d: Database) -> Self {
        Self {
            version: d.version,
            size: d.size,
            synchronous: d.synchronous,
            standbys: d.standbys.map(|all| all.into_iter().map(StandbyView::from).collect()),
            citus: d.citus.map(CitusView::from),
        }
    }
}

/// `GET /v1/cluster`
pub(super) async fn show(
    Shared(engine): Shared<Arc<Engine>>,
    query: Query,
) -> Result<Answer<ClusterView>, Problem> {
    query.finish()?;
    let Cluster { shared, nodes, ranges, unheld, database } = engine.store().cluster().await?;
    let since = engine.metrics().glance().start;
    Ok(Answer(ClusterView {
        shared,
        nodes: nodes.into_iter().map(|node| NodeView::new(node, since)).collect(),
        ranges,
        unheld,
        database: database.map(DatabaseView::from),
    }))
}
