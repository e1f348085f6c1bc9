//! Deregistration (TS 33.246 §6.3.2.1B, OMA BCAST §5.1.6.9).

use std::net::IpAddr;

use super::{Code, Item, Outcome, item, rides};
use crate::delivery::{Context, Terminal};
use crate::id::ServiceId;

/// Ends a terminal's registration for services; the keys it may hold are invalidated inside the answer or
/// by UDP, as its set allows.
pub fn deregister(
    terminal: &mut Terminal,
    address: IpAddr,
    services: &[ServiceId],
    ctx: &mut Context<'_>,
) -> Outcome {
    terminal.seen(address, ctx.now);
    let catalogue = ctx.catalogue;
    let (mut items, mut push, mut served) = (Vec::with_capacity(services.len()), Vec::new(), Vec::new());
    let mut left = Vec::new();
    for id in services {
        let Some(entry) = catalogue.by_id(id) else {
            items.push(Item::bare(Code::NotFound));
            continue;
        };
        let no = entry.service.no;
        if left.contains(&no) {
            items.push(Item::bare(Code::Ok));
            continue;
        }
        if !terminal.is_registered_for(no) {
            items.push(Item::bare(Code::Forbidden));
            continue;
        }
        left.push(no);
        let mut orders = Vec::new();
        terminal.leave(entry, true, ctx, &mut orders);
        served.extend(orders.iter().map(|o| (o.service, o.number)));
        items.push(item(orders, &mut push));
    }
    terminal.contact(&served, rides(&items), ctx, &mut push);
    terminal.prune(catalogue, ctx.now);
    Outcome { items, push, announced: None }
}
