//! Nonces that need no memory: time ‖ randomness ‖ MAC under a secret of this process's life, or of a cluster.

use std::fmt;

use data_encoding::BASE64URL;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::secret::Secret;
use crate::time::Timestamp;

const TIME: usize = 6;
const RANDOM: usize = 16;
const MAC: usize = 20;
const LEN: usize = TIME + RANDOM + MAC;
/// What a nonce is after base64: 42 octets need no padding, so that it has one spelling alone.
const TEXT: usize = LEN / 3 * 4;

/// Makes nonces and knows its own again.
pub(super) struct Nonces {
    secret: Secret,
}

/// One of our nonces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Nonce {
    /// When it was made.
    pub(super) issued: Timestamp,
    /// What it is remembered by: part of its MAC, so nobody can choose it.
    pub(super) id: u128,
}

impl Nonces {
    pub(super) fn new(secret: Secret) -> Self {
        Self { secret }
    }

    /// Those of a cluster: every process with this secret knows them, also in a later life.
    pub(super) fn of_cluster(cluster_secret: &[u8]) -> Self {
        let mut hmac = Hmac::<Sha256>::new_from_slice(cluster_secret).expect("HMAC takes keys of any length");
        hmac.update(b"ltkmd digest nonces of a cluster");
        Self::new(Secret::from(hmac.finalize().into_bytes().as_slice()))
    }

    /// A nonce; unique as long as `random` is.
    pub(super) fn make(&self, now: Timestamp, random: [u8; RANDOM]) -> String {
        let mut octets = [0; LEN];
        octets[..TIME].copy_from_slice(&now.0.to_be_bytes()[8 - TIME..]);
        octets[TIME..TIME + RANDOM].copy_from_slice(&random);
        let mac = self.mac(&octets[..TIME + RANDOM]);
        octets[TIME + RANDOM..].copy_from_slice(&mac);
        BASE64URL.encode(&octets)
    }

    /// Reads a nonce; none when it is not one that this secret made.
    pub(super) fn open(&self, text: &str) -> Option<Nonce> {
        if text.len() != TEXT {
            return None;
        }
        let octets = BASE64URL.decode(text.as_bytes()).ok()?;
        let (made_of, mac) = octets.split_at_checked(TIME + RANDOM)?;
        if !bool::from(self.mac(made_of).ct_eq(mac)) {
            return None;
        }
        let mut issued = [0; 8];
        issued[8 - TIME..].copy_from_slice(&made_of[..TIME]);
        let id = u128::from_be_bytes(mac[..16].try_into().ok()?);
        Some(Nonce { issued: Timestamp(u64::from_be_bytes(issued)), id })
    }

    fn mac(&self, made_of: &[u8]) -> [u8; MAC] {
        let mut hmac =
            Hmac::<Sha256>::new_from_slice(self.secret.expose()).expect("HMAC takes keys of any length");
        hmac.update(b"ltkmd digest nonce");
        hmac.update(made_of);
        let mut mac = [0; MAC];
        mac.copy_from_slice(&hmac.finalize().into_bytes()[..MAC]);
        mac
    }
}

impl fmt::Debug for Nonces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonces(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonces(secret: u8) -> Nonces {
        Nonces::new(Secret::new(vec![secret; 32]))
    }

    #[test]
    fn a_nonce_carries_its_time_and_is_known_again() {
        let now = Timestamp(1_795_000_000_123);
        let text = nonces(1).make(now, [7; 16]);
        assert_eq!(text.len(), TEXT);
        assert_eq!(nonces(1).open(&text).map(|n| n.issued), Some(now));
    }

    #[test]
    fn another_lifes_nonce_and_any_changed_one_is_unknown() {
        let text = nonces(1).make(Timestamp(1), [7; 16]);
        assert_eq!(nonces(2).open(&text), None);
        assert_eq!(nonces(1).open(""), None);
        assert_eq!(nonces(1).open(&format!("{text}=")), None);
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(nonces(1).open(&String::from_utf8(changed).expect("ASCII")), None, "at {at}");
        }
    }

    #[test]
    fn a_clusters_nonces_are_known_wherever_its_secret_is_and_the_secret_is_not_used_as_it_stands() {
        let cluster = |secret: u8| Nonces::of_cluster(&[secret; 32]);
        let text = cluster(1).make(Timestamp(1), [7; 16]);
        assert_eq!(cluster(1).open(&text).map(|n| n.issued), Some(Timestamp(1)));
        assert_eq!(cluster(2).open(&text), None);
        assert_eq!(nonces(1).open(&text), None);
    }

    #[test]
    fn nonces_of_one_instant_differ_by_their_randomness() {
        let one = nonces(1).make(Timestamp(1), [1; 16]);
        let two = nonces(1).make(Timestamp(1), [2; 16]);
        assert_ne!(one, two);
        assert_ne!(nonces(1).open(&one).map(|n| n.id), nonces(1).open(&two).map(|n| n.id));
    }
}
