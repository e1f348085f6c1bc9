//! Lists over all terminals, page by page: no snapshot is held for longer than one.

use std::ops::Bound;

use fjall::Slice;

use super::scope::{members, terminal_key};
use super::spaces::{Raw, Spaces, damaged, unavailable};
use crate::delivery::{Delivery, Terminal};
use crate::id::{BTid, TerminalKey};
use crate::store::record;
use crate::store::{Cursor, DeliveryFilter, Sealer, StoreError, Subscriber, TerminalFilter};

/// Records that one snapshot is held for.
const PAGE: usize = 1024;

/// The next page of state records.
fn states(spaces: &Spaces, from: Bound<TerminalKey>) -> Result<Vec<(TerminalKey, Slice)>, StoreError> {
    let range = (from.map(|key| key.0), Bound::Unbounded);
    let rows = spaces.state.range::<[u8; 16], _>(range).take(PAGE);
    rows.map(|guard| {
        let (key, octets) = guard.into_inner().map_err(unavailable)?;
        Ok((terminal_key(&key)?, octets))
    })
    .collect()
}

/// Several terminals that have a credential, in the order asked for.
pub(super) fn terminals(spaces: &Spaces, keys: &[TerminalKey]) -> Result<Vec<Terminal>, StoreError> {
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        let raw = spaces.raw_kept(*key)?;
        if raw.credential.is_some() {
            found.push(raw.terminal(*key, spaces.first_t)?);
        }
    }
    Ok(found)
}

/// Several terminals that have a credential and a subscriber that is known, in the order asked for.
pub(super) fn terminals_of_subscribers(
    spaces: &Spaces,
    keys: &[TerminalKey],
) -> Result<Vec<(Terminal, Subscriber)>, StoreError> {
    let mut found = Vec::with_capacity(keys.len());
    for terminal in terminals(spaces, keys)? {
        let Some(credential) = &terminal.credential else { continue };
        let subscriber = spaces.subscriber(&credential.subscriber)?.and_then(|record| record.subscriber);
        found.extend(subscriber.map(|subscriber| (terminal, subscriber)));
    }
    Ok(found)
}

/// Registered terminals behind `after`.
pub(super) fn registered(
    spaces: &Spaces,
    filter: &TerminalFilter,
    after: Option<TerminalKey>,
    limit: usize,
) -> Result<Vec<Terminal>, StoreError> {
    let mut found = Vec::new();
    let mut from = after.map_or(Bound::Unbounded, Bound::Excluded);
    while found.len() < limit {
        let page: Vec<(TerminalKey, Raw)> = match filter.service {
            Some(no) => {
                let from = if from == Bound::Unbounded { Bound::Included(TerminalKey::MIN) } else { from };
                let keys = members(spaces, no, from, PAGE.min(limit))?;
                keys.into_iter().map(|key| Ok((key, spaces.raw(key)?))).collect::<Result<_, StoreError>>()?
            }
            None => {
                let row = |(key, state)| (key, Raw { credential: None, state: Some(state) });
                states(spaces, from)?.into_iter().map(row).collect()
            }
        };
        let Some((last, _)) = page.last() else { break };
        from = Bound::Excluded(*last);
        for (key, mut raw) in page {
            let terminal =
                Raw { credential: None, state: raw.state.clone() }.terminal(key, spaces.first_t)?;
            if found.len() < limit && filter.lists(&terminal) {
                raw.credential = spaces.credential.get(key.0).map_err(unavailable)?;
                found.push(raw.terminal(key, spaces.first_t)?);
            }
        }
    }
    Ok(found)
}

/// Deliveries behind `after`. Those of a terminal without a credential have no B-TID and are left out.
pub(super) fn deliveries(
    spaces: &Spaces,
    sealer: &Sealer,
    filter: &DeliveryFilter,
    after: Option<Cursor>,
    limit: usize,
) -> Result<Vec<(BTid, Delivery, Cursor)>, StoreError> {
    let mut found = Vec::new();
    if let Some(btid) = &filter.terminal {
        let key = sealer.terminal_key(btid);
        if let Some(state) = spaces.state.get(key.0).map_err(unavailable)? {
            matching(spaces, filter, after, limit, (key, state), &mut found)?;
        }
        return Ok(found);
    }
    let mut from = after.map_or(Bound::Unbounded, |(key, _)| Bound::Included(key));
    while found.len() < limit {
        let page = states(spaces, from)?;
        let Some((last, _)) = page.last() else { break };
        from = Bound::Excluded(*last);
        for row in page {
            if found.len() < limit {
                matching(spaces, filter, after, limit, row, &mut found)?;
            }
        }
    }
    Ok(found)
}

fn matching(
    spaces: &Spaces,
    filter: &DeliveryFilter,
    after: Option<Cursor>,
    limit: usize,
    (key, state): (TerminalKey, Slice),
    found: &mut Vec<(BTid, Delivery, Cursor)>,
) -> Result<(), StoreError> {
    let terminal = record::read_state(key, &state).map_err(damaged(format_args!("state of {key:?}")))?;
    let mut btid: Option<BTid> = None;
    for (place, d) in (0u32..).zip(terminal.deliveries) {
        let cursor = (key, place);
        let passes = filter.lists(&d) && after.is_none_or(|a| a < cursor);
        if found.len() == limit || !passes {
            continue;
        }
        let name = match &btid {
            Some(name) => name.clone(),
            None => {
                let Some(octets) = spaces.credential.get(key.0).map_err(unavailable)? else { return Ok(()) };
                let read = record::read_credential(&octets);
                let name = read.map_err(damaged(format_args!("credential of {key:?}")))?.btid;
                btid.insert(name).clone()
            }
        };
        found.push((name, d, cursor));
    }
    Ok(())
}
