//! What a fuzzer does with an input: read it as every header of the digest.

use std::time::Duration;

use super::algorithm::Algorithm;
use super::client::Challenge;
use super::header::{Cursor, push_quoted};
use super::{Authenticator, Authorization, DigestConfig, NonceMemory, RequestLine};
use crate::secret::Secret;
use crate::time::Timestamp;

/// Reads `data` as `Authorization`, `WWW-Authenticate` and `Authentication-Info`.
///
/// # Panics
/// When credentials that nobody could make are taken for right, or a value does not survive quoting: the fault that
/// fuzzing looks for.
pub fn headers(data: &[u8]) {
    let config = DigestConfig {
        fqdn: "bmsc.example.com".to_owned(),
        algorithms: vec![Algorithm::Sha256, Algorithm::Md5],
        nonce_lifetime: Duration::from_secs(300),
        max_nonces: 128,
    };
    let server = Authenticator::new(config, NonceMemory::Process(Secret::new(vec![7; 32])));
    if let Ok(auth) = Authorization::parse(data) {
        let request = RequestLine { method: "POST", target: &auth.uri, host: None };
        for mrk in [None, Some(&b"an MRK that no input can know of."[..])] {
            let checked = server.check(&auth, &request, data, mrk, Timestamp(1));
            assert!(checked.is_err(), "forged credentials");
        }
        let mut quoted = String::new();
        push_quoted(&mut quoted, "x", auth.username());
        if auth.username().is_ascii() && !auth.username().contains(|c: char| c.is_ascii_control()) {
            let value = Cursor::new(quoted.as_bytes()).and_then(Cursor::params).map(|mut p| p.take("x"));
            assert_eq!(value, Ok(Some(auth.username().into())), "quoting changed a value");
        }
    }
    // Any result will do: only a panic is a fault.
    let _ = Challenge::strongest([data]);
    let _ = Cursor::new(data).and_then(Cursor::params);
}
