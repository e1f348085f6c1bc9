//! The algorithms of RFC 7616 §3.4: hashes, A1, A2 and the response, the same for both sides and both directions.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use md5::Md5;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A digest algorithm. The `-sess` variants are not offered (LTKM profile §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// MD5, for terminals of RFC 2617; also meant when none is named.
    Md5,
    /// SHA-256 (RFC 7616).
    Sha256,
}

impl Algorithm {
    /// All algorithms, the stronger first.
    pub const ALL: &[Self] = &[Self::Sha256, Self::Md5];

    /// The name on the wire and in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
        }
    }

    /// The digits of its output in hexadecimal.
    pub(super) fn hex_len(self) -> usize {
        match self {
            Self::Md5 => 32,
            Self::Sha256 => 64,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|algorithm| algorithm.as_str().eq_ignore_ascii_case(text))
            .ok_or("must be \"SHA-256\" or \"MD5\"")
    }
}

/// Quality of protection: what of the message the digest covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qop {
    /// Method and URI.
    Auth,
    /// Method, URI and body.
    AuthInt,
}

impl Qop {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::AuthInt => "auth-int",
        }
    }

    pub(super) fn from_wire(text: &str) -> Option<Self> {
        [Self::Auth, Self::AuthInt].into_iter().find(|qop| qop.as_str() == text)
    }
}

/// A hash in lower-case hexadecimal, wiped when dropped: H(A1) is as good as the password.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct Hex {
    digits: [u8; 64],
    len: usize,
}

impl Hex {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.digits[..self.len]
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("hexadecimal digits are ASCII")
    }

    /// Compares with what a peer sent, in a time that does not depend on where they differ.
    pub(super) fn is(&self, other: &str) -> bool {
        self.as_bytes().ct_eq(other.as_bytes()).into()
    }
}

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hex(…)")
    }
}

/// H of the parts joined by colons.
pub(super) fn hash(algorithm: Algorithm, parts: &[&[u8]]) -> Hex {
    fn feed<D: Digest>(parts: &[&[u8]], out: &mut Hex) {
        let mut hasher = D::new();
        for (n, part) in parts.iter().enumerate() {
            if n > 0 {
                hasher.update(b":");
            }
            hasher.update(part);
        }
        HEXLOWER.encode_mut(&hasher.finalize(), &mut out.digits[..out.len]);
    }
    let mut out = Hex { digits: [0; 64], len: algorithm.hex_len() };
    match algorithm {
        Algorithm::Md5 => feed::<Md5>(parts, &mut out),
        Algorithm::Sha256 => feed::<Sha256>(parts, &mut out),
    }
    out
}

/// H(A1) (RFC 7616 §3.4.2).
pub(super) fn ha1(algorithm: Algorithm, username: &str, realm: &str, password: &[u8]) -> Hex {
    hash(algorithm, &[username.as_bytes(), realm.as_bytes(), password])
}

/// What stays the same between a request's response and its answer's rspauth.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exchange<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) qop: Qop,
    pub(super) nonce: &'a str,
    /// The count as it was sent: eight digits.
    pub(super) nc: &'a str,
    pub(super) cnonce: &'a str,
    pub(super) uri: &'a str,
}

impl Exchange<'_> {
    /// The response (RFC 7616 §3.4.1), or the rspauth when `method` is empty (§3.5).
    pub(super) fn response(&self, ha1: &Hex, method: &str, body: &[u8]) -> Hex {
        let (method, uri) = (method.as_bytes(), self.uri.as_bytes());
        let ha2 = match self.qop {
            Qop::Auth => hash(self.algorithm, &[method, uri]),
            Qop::AuthInt => {
                let body = hash(self.algorithm, &[body]);
                hash(self.algorithm, &[method, uri, body.as_bytes()])
            }
        };
        hash(
            self.algorithm,
            &[
                ha1.as_bytes(),
                self.nonce.as_bytes(),
                self.nc.as_bytes(),
                self.cnonce.as_bytes(),
                self.qop.as_str().as_bytes(),
                ha2.as_bytes(),
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RFC_7616: Exchange<'static> = Exchange {
        algorithm: Algorithm::Sha256,
        qop: Qop::Auth,
        nonce: "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
        nc: "00000001",
        cnonce: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
        uri: "/dir/index.html",
    };

    fn response(exchange: Exchange<'_>, realm: &str, password: &str) -> String {
        let ha1 = ha1(exchange.algorithm, "Mufasa", realm, password.as_bytes());
        exchange.response(&ha1, "GET", b"").as_str().to_owned()
    }

    #[test]
    fn rfc_7616_section_3_9_1_has_these_responses() {
        assert_eq!(
            response(RFC_7616, "http-auth@example.org", "Circle of Life"),
            "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"
        );
        let md5 = Exchange { algorithm: Algorithm::Md5, ..RFC_7616 };
        assert_eq!(
            response(md5, "http-auth@example.org", "Circle of Life"),
            "8ca523f5e9506fed4657c9700eebdbec"
        );
    }

    #[test]
    fn rfc_2617_section_3_5_has_this_response() {
        let exchange = Exchange {
            algorithm: Algorithm::Md5,
            nonce: "dcd98b7102dd2f0e8b11d0f600bfb0c093",
            cnonce: "0a4f113b",
            ..RFC_7616
        };
        assert_eq!(
            response(exchange, "testrealm@host.com", "Circle Of Life"),
            "6629fae49393a05397450978507c4ef1"
        );
    }

    #[test]
    fn auth_int_covers_the_body_and_auth_does_not() {
        let ha1 = ha1(Algorithm::Sha256, "u", "r", b"p");
        for (qop, covered) in [(Qop::Auth, false), (Qop::AuthInt, true)] {
            let exchange = Exchange { qop, ..RFC_7616 };
            let one = exchange.response(&ha1, "POST", b"one");
            let two = exchange.response(&ha1, "POST", b"two");
            assert_eq!(!one.is(two.as_str()), covered, "{qop:?}");
        }
    }

    #[test]
    fn a_hash_prints_nothing() {
        assert_eq!(format!("{:?}", ha1(Algorithm::Md5, "u", "r", b"p")), "Hex(…)");
    }
}
