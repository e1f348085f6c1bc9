//! The cluster as an operator looks at it: all daemons, their leases, and the database's servers.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_postgres::{Client, Row};

use super::lease::{ALIVE, GONE};
use super::place::RANGES;
use crate::store::StoreError;
use crate::store::cluster::{Citus, Cluster, Database, Node, NodeState, Standby, Worker};
use crate::time::Timestamp;

/// What nothing is known of but that it cannot be less than nothing.
fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn node(row: &Row, here: &str, held: &BTreeMap<(String, i64), Vec<u32>>) -> Node {
    let (name, epoch): (String, i64) = (row.get(0), row.get(1));
    let state = match (row.get(2), row.get(3)) {
        (true, _) => NodeState::Alive,
        (_, true) => NodeState::Gone,
        _ => NodeState::Left,
    };
    let at = |column: usize| Timestamp(unsigned(row.get(column)));
    let leases = held.get(&(name.clone(), epoch)).filter(|_| state == NodeState::Alive);
    let http: String = row.get(6);
    Node {
        here: name == here,
        state,
        http: Some(http).filter(|http| !http.is_empty()),
        started: Some(at(4)),
        seen: at(5),
        version: row.get(7),
        format: u32::try_from(row.get::<_, i32>(8)).ok(),
        leases: leases.map_or(0, |ranges| ranges.len() as u32),
        leads: leases.is_some_and(|ranges| ranges.contains(&0)),
        overdue: Duration::from_millis(unsigned(row.get(9))),
        clock_offset_ms: row.get(10),
        name: Some(name),
    }
}

/// All daemons that the database knows, and what it says of itself.
pub(super) async fn look(client: &Client, here: &str, distributed: bool) -> Result<Cluster, StoreError> {
    let mut held: BTreeMap<(String, i64), Vec<u32>> = BTreeMap::new();
    let text = "SELECT node, epoch, range FROM ltkmd.lease WHERE node IS NOT NULL AND epoch IS NOT NULL";
    for row in client.query(text, &[]).await? {
        let range = u32::try_from(row.get::<_, i32>(2)).unwrap_or(u32::MAX);
        held.entry((row.get(0), row.get(1))).or_default().push(range);
    }
    let text = format!(
        "SELECT name, epoch, {ALIVE}, {GONE}, (extract(epoch FROM started) * 1000)::bigint, \
         (extract(epoch FROM seen) * 1000)::bigint, http, version, format, overdue, clock_offset_ms FROM ltkmd.node \
         ORDER BY name"
    );
    let rows = client.query(&text, &[]).await?;
    let nodes: Vec<Node> = rows.iter().map(|row| node(row, here, &held)).collect();
    let alive = |name: &str, epoch: i64| {
        rows.iter().any(|row| row.get::<_, &str>(0) == name && row.get::<_, i64>(1) == epoch && row.get(2))
    };
    held.retain(|(name, epoch), _| alive(name, *epoch));
    let ranges = RANGES as u32;
    let unheld = (0..ranges).filter(|range| !held.values().any(|of| of.contains(range))).collect();
    let database = Some(database(client, distributed).await?);
    Ok(Cluster { shared: true, nodes, ranges, unheld, database })
}

async fn database(client: &Client, distributed: bool) -> Result<Database, StoreError> {
    let text = "SELECT current_setting('server_version'), pg_database_size(current_database()), \
                current_setting('synchronous_standby_names') <> '', pg_has_role('pg_read_all_stats', 'USAGE')";
    let row = client.query_one(text, &[]).await?;
    let standbys = if row.get(3) { Some(standbys(client).await?) } else { None };
    Ok(Database {
        version: row.get(0),
        size: unsigned(row.get(1)),
        synchronous: row.get(2),
        standbys,
        citus: if distributed { Some(citus(client).await?) } else { None },
    })
}

async fn standbys(client: &Client) -> Result<Vec<Standby>, StoreError> {
    let text = "SELECT coalesce(application_name, ''), coalesce(host(client_addr), 'local'), \
                coalesce(sync_state, ''), pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint, \
                (extract(epoch FROM replay_lag) * 1000)::bigint FROM pg_stat_replication ORDER BY 1, 2";
    let rows = client.query(text, &[]).await?;
    let standby = |row: &Row| Standby {
        name: row.get(0),
        address: row.get(1),
        state: row.get(2),
        behind: row.get::<_, Option<i64>>(3).map(unsigned),
        late: row.get::<_, Option<i64>>(4).map(|ms| Duration::from_millis(unsigned(ms))),
    };
    Ok(rows.iter().map(standby).collect())
}

async fn citus(client: &Client) -> Result<Citus, StoreError> {
    let row = client.query_one("SELECT extversion FROM pg_extension WHERE extname = 'citus'", &[]).await?;
    let text = "SELECT n.nodename || ':' || n.nodeport, n.isactive, CASE WHEN r.success THEN r.result::bigint END \
                FROM pg_dist_node n LEFT JOIN run_command_on_workers('SELECT pg_database_size(current_database())') r \
                ON r.nodename = n.nodename AND r.nodeport = n.nodeport WHERE n.groupid <> 0 AND n.noderole = 'primary' \
                ORDER BY 1";
    let rows = client.query(text, &[]).await?;
    let worker = |row: &Row| Worker {
        address: row.get(0),
        active: row.get(1),
        size: row.get::<_, Option<i64>>(2).map(unsigned),
    };
    Ok(Citus { version: row.get(0), workers: rows.iter().map(worker).collect() })
}
