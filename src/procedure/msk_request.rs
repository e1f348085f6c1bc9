//! MSK request (TS 33.246 §6.3.2.2, OMA BCAST §5.1.6.8: the LTKM request).

use std::net::IpAddr;

use super::{Code, Item, Outcome, item, rides};
use crate::delivery::{Context, Terminal};
use crate::id::{KeyDomainId, MskId};

/// Brings a terminal the keys that it asks for. Key Number 0 asks for the group's current key.
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
        served.push((no, key.number));
        let mut orders = Vec::new();
        terminal.deliver(entry, std::slice::from_ref(key), ctx, &mut orders);
        items.push(item(orders, &mut push));
    }
    terminal.contact(&served, rides(&items), ctx, &mut push);
    terminal.prune(catalogue, ctx.now);
    Outcome { items, push, announced: None }
}
