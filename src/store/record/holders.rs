//! The record of who holds a key.

use super::{Read, VERSION, put_varint};
use crate::store::Holders;
use crate::store::codec::Reader;

/// The counters of one key.
pub(crate) fn put_holders(h: &Holders) -> Vec<u8> {
    let mut out = vec![VERSION];
    for n in [h.udp, h.http, h.sms, h.assumed] {
        put_varint(&mut out, n);
    }
    out
}

/// Reads [`put_holders`].
pub(crate) fn read_holders(octets: &[u8]) -> Read<Holders> {
    let mut r = Reader::new(octets, VERSION)?;
    let holders = Holders { udp: r.varint()?, http: r.varint()?, sms: r.varint()?, assumed: r.varint()? };
    r.end()?;
    Ok(holders)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::codec::Damaged;

    #[test]
    fn who_holds_a_key_round_trips_and_damage_is_told() {
        let holders = Holders { udp: 1, http: 300, sms: u64::MAX, assumed: 0 };
        let octets = put_holders(&holders);
        assert_eq!(read_holders(&octets), Ok(holders));
        for n in 0..octets.len() {
            assert_eq!(read_holders(&octets[..n]), Err(Damaged));
        }
        assert_eq!(read_holders(&[&octets[..], &[0]].concat()), Err(Damaged));
    }
}
