//! MSK request (TS 33.246 §6.3.2.2, OMA BCAST §5.1.6.8: the LTKM request).

use std::net::IpAddr;

use super::{Code, Item, Outcome, item, rides};
use crate::delivery::{Context, Terminal};
use crate::id::{KeyDomainId, Method, MskId};

/// Brings a terminal the keys that it asks for. Key Number 0 asks for the group's current key, and brings a
/// terminal that UDP cannot reach the group's other keys that were under way to it.
pub fn msk_request(
    terminal: &mut Terminal,
    address: IpAddr,
    keys: &[(KeyDomainId, MskId)],
    ctx: &mut Context<'_>,
) -> Outcome {
    terminal.seen(address, ctx.now);
    let catalogue = ctx.catalogue;
    let (mut items, mut push, mut served) = (Vec::with_capacity(keys.len()), Vec::new(), Vec::new());
    for (domain, msk_id) in keys {
        let Some(entry) = catalogue.by_group(*domain, msk_id.group()) else {
            items.push(Item::bare(Code::NotFound));
            continue;
        };
        let no = entry.service.no;
        if !terminal.is_registered_for(no) {
            items.push(Item::bare(Code::Forbidden));
            continue;
        }
        let key = match msk_id.number() {
            0 => entry.current(ctx.now),
            number => entry.key(number).filter(|k| k.valid_to > ctx.now),
        };
        let Some(key) = key else {
            items.push(Item::bare(Code::NotFound));
            continue;
        };
        if served.contains(&(no, key.number)) {
            items.push(Item::bare(Code::Ok));
            continue;
        }
        terminal.pulled(&[no], false, ctx);
        let mut keys = vec![std::sync::Arc::clone(key)];
        // A request for the group, not for one key of it, is the one that other outstanding keys of it wait
        // for when the set has no way to push them.
        if msk_id.number() == 0 && !terminal.set(ctx.rules).contains(Method::Udp) {
            let outstanding = terminal.outstanding(entry, key.number, ctx.now);
            keys.extend(outstanding.into_iter().filter(|k| !served.contains(&(no, k.number))));
            keys.sort_by_key(|k| entry.age_rank(k.number));
        }
        served.extend(keys.iter().map(|k| (no, k.number)));
        let mut orders = Vec::new();
        terminal.deliver(entry, &keys, ctx, &mut orders);
        items.push(item(orders, &mut push));
    }
    terminal.contact(&served, rides(&items), ctx, &mut push);
    terminal.prune(catalogue, ctx.now);
    Outcome { items, push, announced: None }
}
