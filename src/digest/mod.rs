//! HTTP digest authentication with the MRK: the server's side of RFC 7616 and RFC 2617 (LTKM profile §3), and what a
//! terminal needs of the other side.
//!
//! The user name is the B-TID and the password base64 of the MRK. A challenge costs no state: nonces carry their time,
//! randomness and a MAC. Memory is spent on nonces that came back with a right answer alone, and is bounded: in the
//! process, or in the terminal's record where several processes share a store ([`NonceMemory`]).

mod algorithm;
pub mod client;
mod counts;
mod failure;
pub mod fuzz;
mod header;
mod ledger;
mod nonce;
mod server;
#[cfg(test)]
mod tests;
mod window;

pub use algorithm::{Algorithm, Qop};
pub use failure::{Failure, Reason};
pub use header::Authorization;
pub(crate) use ledger::NonceParts;
pub use ledger::{NonceLedger, NonceUse};
pub use server::{Authenticator, DEFAULT_MAX_NONCES, DigestConfig, NonceMemory, RequestLine, Verified};
pub use window::Refused;

use data_encoding::BASE64;
use zeroize::Zeroizing;

/// The realm of a NAF (TS 33.220 §4.5, TS 24.109 §5.2).
pub fn realm(fqdn: &str) -> String {
    format!("3GPP-bootstrapping@{fqdn}")
}

/// The digest password of an MRK: base64 of it (LTKM profile §3).
pub fn password(mrk: &[u8]) -> Zeroizing<Vec<u8>> {
    // Sized once, so that no copy is left behind by growing.
    let mut password = Zeroizing::new(vec![0; BASE64.encode_len(mrk.len())]);
    BASE64.encode_mut(mrk, &mut password);
    password
}
