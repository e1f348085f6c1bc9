//! Registration (TS 33.246 §6.3.2.1A, OMA BCAST §5.1.6.7).

use std::net::IpAddr;

use super::{Code, Item, Outcome, item, rides};
use crate::delivery::{Context, Terminal};
use crate::id::ServiceId;

/// Registers a terminal for services.
///
/// `others` are the subscriber's other terminals: they end. `declared` holds the `LTKMDelivery` types as
/// sent, `entitled` the subscriber's services. `None`: no declared method can serve, the answer is 403 on the
/// status line, and nothing has changed.
pub fn register(
    terminal: &mut Terminal,
    others: &mut [Terminal],
    entitled: &[ServiceId],
    address: IpAddr,
    services: &[ServiceId],
    declared: Option<&[u8]>,
    ctx: &mut Context<'_>,
) -> Option<Outcome> {
    let set = ctx.rules.negotiate(declared)?;
    for other in others {
        other.end(ctx.now);
    }
    let catalogue = ctx.catalogue;
    let named: Vec<_> = services.iter().filter_map(|id| catalogue.by_id(id)).map(|s| s.service.no).collect();
    terminal.pulled(&named, true, ctx);
    terminal.renew(set, address, ctx.now);
    let (mut items, mut push, mut served) = (Vec::with_capacity(services.len()), Vec::new(), Vec::new());
    for (i, id) in services.iter().enumerate() {
        let Some(entry) = catalogue.by_id(id) else {
            items.push(Item::bare(Code::NotFound));
            continue;
        };
        if !entry.service.open && !entitled.contains(id) {
            items.push(Item::bare(Code::Forbidden));
            continue;
        }
        if services[..i].contains(id) {
            items.push(Item::bare(Code::Ok));
            continue;
        }
        let mut orders = Vec::new();
        terminal.join(entry, ctx, &mut orders);
        served.extend(entry.wanted(ctx.now, ctx.rules.lead_time).map(|k| (entry.service.no, k.number)));
        items.push(item(orders, &mut push));
    }
    terminal.contact(&served, rides(&items), ctx, &mut push);
    terminal.prune(catalogue, ctx.now);
    Some(Outcome { items, push, announced: declared.map(|_| set) })
}
