//! Lists over all terminals, page by page.

use deadpool_postgres::ClientWrapper as Client;

use super::place::shard;
use super::scope::{Raw, row};
use crate::delivery::{Delivery, Terminal};
use crate::id::{BTid, TerminalKey};
use crate::store::{Cursor, DeliveryFilter, Sealer, StoreError, TerminalFilter};

/// Rows that one statement reads.
const PAGE: usize = 1024;

/// The next rows behind a key, or from it on: of a service's members, or of all terminals.
async fn rows(
    client: &Client,
    from: (TerminalKey, bool),
    service: Option<i64>,
) -> Result<Vec<(TerminalKey, Raw)>, StoreError> {
    let (key, included) = from;
    let Some(key) = (if included { Some(key) } else { key.next() }) else { return Ok(Vec::new()) };
    let (place, octets) = (shard(key), &key.0[..]);
    let limit = PAGE as i64;
    let found = match service {
        Some(no) => {
            let text = "SELECT t.key, t.version, t.credential, t.state FROM ltkmd.member m JOIN ltkmd.terminal t ON \
                        t.shard = m.shard AND t.key = m.key WHERE m.service = $3 AND (m.shard, m.key) >= ($1, $2) \
                        ORDER BY m.shard, m.key LIMIT $4";
            let statement = client.prepare_cached(text).await?;
            client.query(&statement, &[&place, &octets, &no, &limit]).await
        }
        None => {
            let text = "SELECT key, version, credential, state FROM ltkmd.terminal WHERE (shard, key) >= ($1, $2) \
                        ORDER BY shard, key LIMIT $3";
            let statement = client.prepare_cached(text).await?;
            client.query(&statement, &[&place, &octets, &limit]).await
        }
    };
    found?.iter().map(row).collect()
}

/// Registered terminals behind `after`.
pub(super) async fn registered(
    client: &Client,
    filter: &TerminalFilter,
    after: Option<TerminalKey>,
    limit: usize,
    first_t: u64,
) -> Result<Vec<Terminal>, StoreError> {
    let mut found = Vec::new();
    let mut from = after.map_or((TerminalKey::MIN, true), |key| (key, false));
    while found.len() < limit {
        let page = rows(client, from, filter.service.map(|no| i64::from(no.0))).await?;
        let Some((last, _)) = page.last() else { break };
        from = (*last, false);
        let more = page.len() == PAGE;
        for (key, raw) in page {
            let terminal = raw.terminal(key, first_t)?;
            if found.len() < limit && filter.lists(&terminal) {
                found.push(terminal);
            }
        }
        if !more {
            break;
        }
    }
    Ok(found)
}

/// Deliveries behind `after`. Those of a terminal without a credential have no B-TID and are left out.
pub(super) async fn deliveries(
    client: &Client,
    sealer: &Sealer,
    filter: &DeliveryFilter,
    after: Option<Cursor>,
    limit: usize,
    first_t: u64,
) -> Result<Vec<(BTid, Delivery, Cursor)>, StoreError> {
    let mut found = Vec::new();
    let mut from = match &filter.terminal {
        Some(btid) => (sealer.terminal_key(btid), true),
        None => after.map_or((TerminalKey::MIN, true), |(key, _)| (key, true)),
    };
    while found.len() < limit {
        let mut page = rows(client, from, None).await?;
        if filter.terminal.is_some() {
            page.retain(|(key, _)| *key == from.0);
        }
        let Some((last, _)) = page.last() else { break };
        let more = page.len() == PAGE;
        from = (*last, false);
        for (key, raw) in page {
            let terminal = raw.terminal(key, first_t)?;
            let Some(btid) = terminal.credential.map(|c| c.btid) else { continue };
            for (place, d) in (0u32..).zip(terminal.deliveries) {
                let cursor = (key, place);
                if found.len() < limit && after.is_none_or(|a| a < cursor) && filter.lists(&d) {
                    found.push((btid.clone(), d, cursor));
                }
            }
        }
        if !more {
            break;
        }
    }
    Ok(found)
}
