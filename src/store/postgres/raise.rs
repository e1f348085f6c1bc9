//! Every T moves forward: what has to happen when the database forgot commits that terminals have seen the LTKMs of,
//! because an older state of it was restored, or a standby took over that was behind.
//!
//! It goes page by page, each with its progress in one transaction, under the lock that no daemon's commit and no
//! daemon's start gets past. A database in which it broke off is opened by no daemon until it has come to its end: one
//! half of its terminals would be raised and the other would not.

use deadpool_postgres::ClientWrapper as Client;
use tokio::runtime::Builder;

use super::connect::{Connection, Pool, check_server};
use super::place::SHARDS;
use super::{PgSettings, schema, sql};
use crate::id::TerminalKey;
use crate::store::{StoreError, record};

/// Terminals of one transaction.
const PAGE: i64 = 1_000;

/// One above the last T that an LTKM can have: a counter that stands here gives none any more.
const T_END: u64 = 1 << 32;

/// How far it has come.
const PROGRESS: &str = "CREATE TABLE ltkmd.raising (one boolean PRIMARY KEY DEFAULT true CHECK (one), margin bigint NOT \
                        NULL, shard int NOT NULL, behind bytea NOT NULL, terminals bigint NOT NULL, spent bigint NOT NULL)";

/// What raising every T came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Raised {
    /// Terminals whose T was raised, those of an earlier try included.
    pub terminals: u64,
    /// Terminals whose counters came near their end by it: their credentials count as expired.
    pub spent: u64,
    /// Whether it went on where an earlier try had broken off.
    pub resumed: bool,
    /// Whether it came to its end; if not, the same call goes on with it.
    pub finished: bool,
}

/// Moves every T of a database forward by a margin, also the T that terminals begin with of which nothing is known. No
/// daemon may run. `progress` is told after each page how many of the 256 shards are through and how many terminals;
/// `false` stops it, and the same call goes on there later. Blocks.
///
/// # Errors
/// [`StoreError::Open`]: there is nothing to raise, a daemon runs, the store key is another, or an earlier try with
/// another margin has not come to its end; [`StoreError::Unavailable`] when the database does not answer.
pub fn raise_t(
    settings: &PgSettings,
    margin: u64,
    progress: &mut dyn FnMut(u32, u64) -> bool,
) -> Result<Raised, StoreError> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| StoreError::Open(format!("no thread for the database: {e}")))?;
    runtime.block_on(raise(settings, margin, progress))
}

async fn raise(
    settings: &PgSettings,
    margin: u64,
    progress: &mut dyn FnMut(u32, u64) -> bool,
) -> Result<Raised, StoreError> {
    let pool = Pool::new(settings.url.clone(), settings.password.clone(), 1)?;
    let mut client = Connection::take(pool.get().await?);
    check_server(&pool, &client).await?;
    claim(&client).await?;
    let resumed = begin(&mut client, &settings.master, margin).await?;
    let mut raised = Raised { resumed, ..Raised::default() };
    loop {
        let text = "SELECT shard, behind, terminals, spent FROM ltkmd.raising";
        let row = client.query_one(text, &[]).await?;
        let (shard, behind): (i32, Vec<u8>) = (row.get(0), row.get(1));
        let (terminals, spent): (i64, i64) = (row.get(2), row.get(3));
        (raised.terminals, raised.spent) = (terminals as u64, spent as u64);
        if !progress(shard as u32, raised.terminals) {
            return Ok(raised);
        }
        if shard >= SHARDS {
            break;
        }
        page(&mut client, margin, shard, &behind).await?;
    }
    client.execute("DROP TABLE ltkmd.raising", &[]).await?;
    raised.finished = true;
    Ok(raised)
}

/// Makes sure that no daemon works, and that none begins to until this connection ends.
async fn claim(client: &Client) -> Result<(), StoreError> {
    let there = client.query_one("SELECT to_regclass('ltkmd.node') IS NOT NULL", &[]).await?;
    if !there.get::<_, bool>(0) {
        return Err(StoreError::Open(
            "there is no schema ltkmd in this database: nothing to raise".to_owned(),
        ));
    }
    let lock = client.query_one(sql::TRY_EXCLUDE, &[]).await?;
    // Who lives has a lease that is good, or holds the lock of its name.
    let text = "SELECT coalesce((SELECT string_agg(name, ', ' ORDER BY name) FROM ltkmd.node WHERE expires > now()), \
                ''), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1819569005 AND objsubid = 2 \
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))";
    let row = client.query_one(text, &[]).await?;
    let (names, entered): (String, i64) = (row.get(0), row.get(1));
    if !names.is_empty() || entered > 0 {
        let who = if names.is_empty() { format!("{entered} daemons") } else { names };
        return Err(StoreError::Open(format!(
            "{who} may still be at work: stop every daemon of the cluster; one that was killed counts as gone 6 s later"
        )));
    }
    match lock.get(0) {
        true => Ok(()),
        false => Err(StoreError::Open("T is being raised already: wait for that to end".to_owned())),
    }
}

/// Begins, or finds that an earlier try began: `true`.
async fn begin(client: &mut Client, master: &[u8; 32], margin: u64) -> Result<bool, StoreError> {
    let by = i64::try_from(margin).map_err(|_| StoreError::Open("the margin is too large".to_owned()))?;
    let transaction = client.transaction().await?;
    schema::read(&transaction, master).await?;
    let begun = transaction.query_one(schema::IS_RAISING, &[]).await?;
    if begun.get(0) {
        let earlier: i64 = transaction.query_one("SELECT margin FROM ltkmd.raising", &[]).await?.get(0);
        return match earlier == by {
            true => Ok(true),
            false => Err(StoreError::Open(format!(
                "raising every T by {earlier} was begun and has not come to its end: give that margin first"
            ))),
        };
    }
    transaction.batch_execute(PROGRESS).await?;
    let text = "INSERT INTO ltkmd.raising (margin, shard, behind, terminals, spent) VALUES ($1, 0, '', 0, 0)";
    transaction.execute(text, &[&by]).await?;
    let text = "UPDATE ltkmd.meta SET first_t = greatest(first_t, least(first_t + $1, $2))";
    transaction.execute(text, &[&by, &(T_END as i64)]).await?;
    transaction.commit().await?;
    Ok(false)
}

/// Raises the next terminals of a shard. Where a part of the database commits before the other and the machine fails in
/// between, the page is raised once more: T only goes up.
async fn page(client: &mut Client, margin: u64, shard: i32, behind: &[u8]) -> Result<(), StoreError> {
    let transaction = client.transaction().await?;
    let text = "SELECT key, state FROM ltkmd.terminal WHERE shard = $1::int AND key > $2::bytea ORDER BY key LIMIT $3";
    let rows = transaction.query(text, &[&shard, &behind, &PAGE]).await?;
    let (mut keys, mut states, mut spent) = (Vec::new(), Vec::new(), 0i64);
    for row in &rows {
        let key: &[u8] = row.get(0);
        // Without a state it begins with the T that all begin with.
        let Some(state) = row.get::<_, Option<&[u8]>>(1) else { continue };
        let damaged = || StoreError::Damaged("records of a terminal".to_owned());
        let place = TerminalKey(key.try_into().map_err(|_| damaged())?);
        let mut terminal = record::read_state(place, state).map_err(|_| damaged())?;
        let before = terminal.spent();
        terminal.next_t = terminal.next_t.saturating_add(margin).min(T_END).max(terminal.next_t);
        spent += i64::from(terminal.spent() && !before);
        let mut octets = Vec::with_capacity(state.len() + 8);
        record::put_state(&mut octets, &terminal);
        keys.push(key.to_vec());
        states.push(octets);
    }
    if !keys.is_empty() {
        let text = "UPDATE ltkmd.terminal t SET version = t.version + 1, state = n.state FROM unnest($2::bytea[], \
                    $3::bytea[]) AS n(key, state) WHERE t.shard = $1::int AND t.key = n.key";
        transaction.execute(text, &[&shard, &keys, &states]).await?;
    }
    let next: (i32, Vec<u8>) = match rows.last() {
        Some(last) if rows.len() as i64 == PAGE => (shard, last.get(0)),
        _ => (shard + 1, Vec::new()),
    };
    let text =
        "UPDATE ltkmd.raising SET shard = $1, behind = $2, terminals = terminals + $3, spent = spent + $4";
    transaction.execute(text, &[&next.0, &next.1, &(keys.len() as i64), &spent]).await?;
    transaction.commit().await?;
    Ok(())
}
