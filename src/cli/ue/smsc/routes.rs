//! Which terminal a subscriber's phone is.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use tokio::net::lookup_host;

use crate::id::Msisdn;

/// `HOST[:PORT]`: a terminal; without a port, the port that a message is addressed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    host: String,
    port: Option<u16>,
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str = "must be HOST or HOST:PORT, such as 127.0.0.2:4359";
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { host: address.ip().to_string(), port: Some(address.port()) });
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(Self { host: ip.to_string(), port: None });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port.parse().map_err(|_| SHAPE)?)),
            None => (text, None),
        };
        let fits = !host.is_empty() && host.bytes().all(|o| o.is_ascii_alphanumeric() || b".-_".contains(&o));
        if fits { Ok(Self { host: host.to_owned(), port }) } else { Err(SHAPE) }
    }
}

impl Place {
    /// The place's address.
    ///
    /// # Errors
    /// The name cannot be resolved.
    pub async fn resolve(&self) -> io::Result<Terminal> {
        let found = lookup_host((self.host.as_str(), 0)).await?.next();
        let found = found.ok_or_else(|| io::Error::other("the name has no address"))?;
        Ok(Terminal { ip: found.ip(), port: self.port })
    }
}

/// A terminal's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    ip: IpAddr,
    port: Option<u16>,
}

impl From<SocketAddr> for Terminal {
    fn from(address: SocketAddr) -> Self {
        Self { ip: address.ip(), port: Some(address.port()) }
    }
}

impl Terminal {
    /// Where a message to this port arrives.
    pub(super) fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, self.port.unwrap_or(port))
    }
}

/// The terminals of subscribers.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    by_number: BTreeMap<Msisdn, Terminal>,
    others: Option<Terminal>,
}

impl Routes {
    /// From here on, this is the terminal of that number.
    pub fn insert(&mut self, to: Msisdn, terminal: impl Into<Terminal>) {
        self.by_number.insert(to, terminal.into());
    }

    /// From here on, this is the terminal of every number without one of its own.
    pub fn insert_all(&mut self, terminal: impl Into<Terminal>) {
        self.others = Some(terminal.into());
    }

    /// The terminal of a number.
    pub(super) fn terminal(&self, to: &Msisdn) -> Option<Terminal> {
        self.by_number.get(to).copied().or(self.others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_is_an_address_or_a_name_with_or_without_a_port() {
        for (text, at) in [
            ("127.0.0.2:7", "127.0.0.2:7"),
            ("127.0.0.2", "127.0.0.2:4359"),
            ("[::1]:7", "[::1]:7"),
            ("[::1]", "[::1]:4359"),
            ("::1", "[::1]:4359"),
        ] {
            let terminal = text.parse::<Place>().unwrap().resolve().await.unwrap();
            assert_eq!(terminal.at(4359).to_string(), at, "{text}");
        }
        let localhost: Place = "localhost:7".parse().unwrap();
        assert!(localhost.resolve().await.unwrap().at(4359).ip().is_loopback());
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for text in ["", ":1", "a:", "a:x", "a:65536", "a b:1", "[::1", "[::g]:1", "http://a"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_number_goes_to_its_own_terminal_and_the_others_to_that_of_all() {
        let number = |text: &str| Msisdn::new(text).unwrap();
        let address = |n: u8| SocketAddr::from(([127, 0, 0, n], 4359));
        let mut routes = Routes::default();
        assert_eq!(routes.terminal(&number("4917")), None);
        routes.insert(number("+4917"), address(2));
        assert_eq!(routes.terminal(&number("4917")), Some(address(2).into()));
        assert_eq!(routes.terminal(&number("4918")), None);
        routes.insert_all(address(3));
        assert_eq!(routes.terminal(&number("4917")), Some(address(2).into()));
        assert_eq!(routes.terminal(&number("4918")), Some(address(3).into()));
    }
}
