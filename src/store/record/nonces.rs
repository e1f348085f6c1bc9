//! The nonces that a terminal has in use, within the record of its state.

use super::{Read, put_time};
use crate::digest::{NonceLedger, NonceParts};
use crate::store::codec::{Damaged, Reader, put_option, put_varint};
use crate::time::Timestamp;

/// By age, each time as its distance from the one before.
pub(super) fn put_nonces(out: &mut Vec<u8>, ledger: &NonceLedger) {
    put_option(out, ledger.forgotten(), put_time);
    let parts = ledger.parts();
    put_varint(out, parts.len() as u64);
    let mut last = ledger.forgotten().unwrap_or_default();
    for part in parts {
        put_varint(out, part.issued.0 - last.0);
        out.extend_from_slice(&part.id.to_be_bytes());
        put_varint(out, u64::from(part.highest));
        put_varint(out, part.seen);
        last = part.issued;
    }
}

/// Reads [`put_nonces`]. A ledger without a use is no ledger.
pub(super) fn read_nonces(r: &mut Reader<'_>) -> Read<NonceLedger> {
    let forgotten = r.option(|r| r.varint().map(Timestamp))?;
    let n = r.count(19)?;
    let mut parts = Vec::with_capacity(n);
    let mut last = forgotten.unwrap_or_default();
    for _ in 0..n {
        let issued = Timestamp(last.0.checked_add(r.varint()?).ok_or(Damaged)?);
        let id = u128::from_be_bytes(r.array()?);
        parts.push(NonceParts { issued, id, highest: r.number()?, seen: r.varint()? });
        last = issued;
    }
    NonceLedger::from_parts(forgotten, &parts).filter(|ledger| !ledger.is_empty()).ok_or(Damaged)
}
