//! Where records are: shards, and the ranges of them that daemons look after.

use sha2::{Digest, Sha256};

use crate::id::{SubscriberId, TerminalKey};

/// Shards: the first octet of a terminal's key. Few enough that a counter in each costs nothing to add up, and more
/// than any database of this kind has workers.
pub(super) const SHARDS: i32 = 256;

/// Ranges of shards that are leased as one.
pub(super) const RANGES: usize = 64;

/// A terminal's shard.
pub(super) fn shard(key: TerminalKey) -> i32 {
    i32::from(key.0[0])
}

/// The range that a shard belongs to.
pub(super) fn range(shard: i32) -> usize {
    (shard / (SHARDS / RANGES as i32)) as usize
}

/// The shards of a range.
pub(super) fn shards_of(range: usize) -> std::ops::Range<i32> {
    let each = SHARDS / RANGES as i32;
    let first = range as i32 * each;
    first..first + each
}

/// A subscriber's shard.
pub(super) fn subscriber_shard(id: &SubscriberId) -> i32 {
    i32::from(Sha256::digest(id.as_str().as_bytes())[0])
}

/// The lowest and the highest key of a shard.
pub(super) fn bounds(shard: i32) -> (TerminalKey, TerminalKey) {
    let (mut low, mut high) = (TerminalKey::MIN, TerminalKey::MAX);
    low.0[0] = shard as u8;
    high.0[0] = shard as u8;
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_is_in_one_range_and_every_key_in_one_shard() {
        let all: Vec<i32> = (0..RANGES).flat_map(shards_of).collect();
        assert_eq!(all, (0..SHARDS).collect::<Vec<_>>());
        for s in 0..SHARDS {
            assert!(shards_of(range(s)).contains(&s));
            let (low, high) = bounds(s);
            assert_eq!((shard(low), shard(high)), (s, s));
        }
        assert_eq!((bounds(0).0, bounds(SHARDS - 1).1), (TerminalKey::MIN, TerminalKey::MAX));
    }
}
