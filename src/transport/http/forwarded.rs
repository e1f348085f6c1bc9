//! Whose request it is when it came through proxies: the terminal's address, where UDP deliveries go
//! (LTKM profile §4; RFC 7239).
//!
//! A header is believed only as far as trusted proxies wrote it. Each proxy appends the address of its own peer, so
//! the list is read from the right: trusted addresses are proxies of ours and are passed over, and the first that is
//! not trusted is the terminal. Reading stops at an element that names no address (`unknown`, an obfuscated `_name`,
//! anything malformed): what stands to the left of it was written by who knows whom. Then the last trusted hop is
//! the best that is known.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// The elements of a header that are looked at, from the right.
const MAX_ELEMENTS: usize = 32;
/// The longest header line that is read, in octets.
const MAX_LINE: usize = 8 * 1024;

/// The address of the terminal behind a request. IPv4-mapped IPv6 addresses come out as IPv4.
///
/// * `peer` has the connection; when it is not trusted, it is the terminal.
/// * `forwarded` and `x_forwarded_for` are the values of all lines of these headers, in order. The rightmost
///   untrusted element of `Forwarded` wins, else that of `X-Forwarded-For`.
/// * When neither has one, it is the leftmost trusted address that was reached, of `Forwarded` before
///   `X-Forwarded-For`: a terminal inside a trusted network. Without any, it is `peer`.
pub fn client_address<'a>(
    peer: IpAddr,
    forwarded: impl IntoIterator<Item = &'a [u8]>,
    x_forwarded_for: impl IntoIterator<Item = &'a [u8]>,
    trusted: &[IpNet],
) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(peer, trusted) {
        return peer;
    }
    let forwarded = walk(hops(forwarded, forwarded_element), trusted);
    if let Walk::Untrusted(address) = forwarded {
        return address;
    }
    match (forwarded, walk(hops(x_forwarded_for, node), trusted)) {
        (_, Walk::Untrusted(address)) => address,
        (Walk::Trusted(Some(address)), _) | (_, Walk::Trusted(Some(address))) => address,
        _ => peer,
    }
}

enum Walk {
    /// The rightmost untrusted address.
    Untrusted(IpAddr),
    /// The last trusted one before the list or its readable part ended.
    Trusted(Option<IpAddr>),
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

fn walk(hops: VecDeque<Option<IpAddr>>, trusted: &[IpNet]) -> Walk {
    let mut last = None;
    for hop in hops.into_iter().rev() {
        match hop {
            Some(address) if is_trusted(address, trusted) => last = Some(address),
            Some(address) => return Walk::Untrusted(address),
            None => break,
        }
    }
    Walk::Trusted(last)
}

/// The addresses of a header's elements, none for one without; the rightmost [`MAX_ELEMENTS`] of them.
fn hops<'a>(
    lines: impl IntoIterator<Item = &'a [u8]>,
    address: fn(&str) -> Option<IpAddr>,
) -> VecDeque<Option<IpAddr>> {
    let mut hops = VecDeque::new();
    let mut push = |hop| {
        if hops.len() == MAX_ELEMENTS {
            hops.pop_front();
        }
        hops.push_back(hop);
    };
    for line in lines {
        match std::str::from_utf8(line) {
            Ok(line) if line.len() <= MAX_LINE => {
                // RFC 9110 §5.6.1: empty elements are no elements.
                let elements =
                    split_outside_quotes(line, ',').map(trim).filter(|element| !element.is_empty());
                elements.for_each(|element| push(address(element)));
            }
            _ => push(None),
        }
    }
    hops
}

/// Splits at a separator that is not inside a quoted string. Quotes count only when each is closed: a client that
/// opens one must not swallow what proxies append behind it.
fn split_outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut all = Quotes::default();
    text.chars().for_each(|c| all.pass(c));
    let mut quotes = Quotes::default();
    text.split(move |c| {
        quotes.pass(c);
        c == separator && (all.open || !quotes.open)
    })
}

/// Where in quoted strings a walk over characters is.
#[derive(Default)]
struct Quotes {
    open: bool,
    escaped: bool,
}

impl Quotes {
    fn pass(&mut self, c: char) {
        match c {
            _ if self.escaped => self.escaped = false,
            '\\' if self.open => self.escaped = true,
            '"' => self.open = !self.open,
            _ => {}
        }
    }
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// One element of `Forwarded`: the address of its one `for` (RFC 7239 §4).
fn forwarded_element(element: &str) -> Option<IpAddr> {
    let mut found = None;
    for pair in split_outside_quotes(element, ';').map(trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        if trim(name).eq_ignore_ascii_case("for") && found.replace(node(trim(value))?).is_some() {
            return None;
        }
    }
    found
}

/// A node (RFC 7239 §6): an address, IPv6 in brackets or bare, a port after it or not, in quotes or not. An element of
/// `X-Forwarded-For` is one too.
fn node(text: &str) -> Option<IpAddr> {
    let text = match text.strip_prefix('"') {
        // No address needs a backslash.
        Some(rest) => rest.strip_suffix('"')?,
        None => text,
    };
    let address = if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let port = port.is_empty() || is_port(port.strip_prefix(':')?);
        IpAddr::V6(address.parse::<Ipv6Addr>().ok().filter(|_| port)?)
    } else if let Ok(address) = text.parse() {
        address
    } else {
        let (address, port) = text.split_once(':')?;
        IpAddr::V4(address.parse().ok().filter(|_| is_port(port))?)
    };
    Some(address.to_canonical()).filter(is_one_hosts)
}

/// RFC 7239 §6.3: a number, or an obfuscated one.
fn is_port(text: &str) -> bool {
    match text.strip_prefix('_') {
        Some(name) => {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        }
        None => text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok(),
    }
}

/// Whether deliveries could go there at all.
fn is_one_hosts(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_unspecified() && !v4.is_multicast() && !v4.is_broadcast(),
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nets() -> Vec<IpNet> {
        ["10.0.0.0/8", "127.0.0.0/8", "fd00::/8"].iter().map(|net| net.parse().expect("a net")).collect()
    }

    fn from(peer: &str, forwarded: &[&str], x_forwarded_for: &[&str]) -> String {
        client_address(
            peer.parse().expect("an address"),
            forwarded.iter().map(|line| line.as_bytes()),
            x_forwarded_for.iter().map(|line| line.as_bytes()),
            &nets(),
        )
        .to_string()
    }

    #[test]
    fn a_peer_that_is_not_trusted_is_the_terminal_whatever_it_says() {
        assert_eq!(from("192.0.2.1", &["for=198.51.100.7"], &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(from("::ffff:192.0.2.1", &[], &[]), "192.0.2.1");
    }

    #[test]
    fn a_trusted_peer_that_says_nothing_is_the_terminal() {
        assert_eq!(from("10.0.0.1", &[], &[]), "10.0.0.1");
        assert_eq!(from("::ffff:10.0.0.1", &[""], &[" , "]), "10.0.0.1");
    }

    #[test]
    fn the_rightmost_untrusted_element_is_the_terminal() {
        for (lines, address) in [
            (&["for=198.51.100.7"][..], "198.51.100.7"),
            (&["for=203.0.113.9, for=198.51.100.7"], "198.51.100.7"),
            (&["for=203.0.113.9", "for=198.51.100.7, For=10.0.0.2;proto=http"], "198.51.100.7"),
            (&["for=198.51.100.7:4711"], "198.51.100.7"),
            (&["for=\"198.51.100.7:4711\";by=10.0.0.1"], "198.51.100.7"),
            (&["proto=http ; FOR = \"[2001:db8::17]:4711\""], "2001:db8::17"),
            (&["for=\"[2001:db8::17]\""], "2001:db8::17"),
            (&["for=\"[2001:db8::17]:_port\""], "2001:db8::17"),
            (&["for=\"[::ffff:198.51.100.7]\""], "198.51.100.7"),
            (&["host=\"a,b;for=203.0.113.9\";for=198.51.100.7"], "198.51.100.7"),
            (&["host=\"a\\\",for=203.0.113.9\";for=198.51.100.7"], "198.51.100.7"),
        ] {
            assert_eq!(from("10.0.0.1", lines, &["203.0.113.1"]), address, "{lines:?}");
        }
    }

    #[test]
    fn x_forwarded_for_serves_when_forwarded_does_not() {
        for (line, address) in [
            ("198.51.100.7", "198.51.100.7"),
            ("203.0.113.9, 198.51.100.7 ,10.3.0.1", "198.51.100.7"),
            ("198.51.100.7:80", "198.51.100.7"),
            ("2001:db8::17", "2001:db8::17"),
            ("[2001:db8::17]:80", "2001:db8::17"),
            ("[2001:db8::17]", "2001:db8::17"),
            ("\"[2001:db8::17]:80\"", "2001:db8::17"),
            ("::ffff:198.51.100.7", "198.51.100.7"),
        ] {
            assert_eq!(from("10.0.0.1", &[], &[line]), address, "{line}");
            assert_eq!(from("fd00::1", &["for=unknown"], &[line]), address, "{line}");
            assert_eq!(from("127.0.0.1", &["for=10.0.0.2"], &[line]), address, "{line}");
        }
    }

    #[test]
    fn nothing_left_of_an_element_without_an_address_is_believed() {
        for element in [
            "for=unknown",
            "for=_hidden",
            "for=\"_hidden:_port\"",
            "proto=https",
            "for",
            "for=",
            "for=198.51.100.7;for=198.51.100.8",
            "for=\"198.51.100.7",
            "for=198.51.100.7:99999",
            "for=198.51.100.7:",
            "for=198.51.100.700",
            "for=\"[2001:db8::17\"",
            "for=\"[198.51.100.7]\"",
            "for=\"[fe80::1%eth0]\"",
            "for=0.0.0.0",
            "for=255.255.255.255",
            "for=\"[ff02::1]\"",
            "garbage",
        ] {
            let line = format!("for=203.0.113.9, {element}, for=10.0.0.2");
            assert_eq!(from("10.0.0.1", &[&line], &[]), "10.0.0.2", "{element}");
        }
        assert_eq!(from("10.0.0.1", &[], &["203.0.113.9, unknown"]), "10.0.0.1");
    }

    #[test]
    fn a_terminal_inside_a_trusted_network_is_the_leftmost() {
        assert_eq!(from("127.0.0.1", &[], &["127.0.0.5"]), "127.0.0.5");
        assert_eq!(from("127.0.0.1", &["for=127.0.0.6"], &["127.0.0.5"]), "127.0.0.6");
        assert_eq!(from("127.0.0.1", &[], &["10.1.1.1, 10.2.2.2"]), "10.1.1.1");
    }

    #[test]
    fn long_lists_are_read_from_the_right_and_long_lines_not_at_all() {
        let many = format!("198.51.100.7{}", ", 10.0.0.9".repeat(MAX_ELEMENTS));
        assert_eq!(from("10.0.0.1", &[], &[&many]), "10.0.0.9");
        let some = format!("198.51.100.7{}", ", 10.0.0.9".repeat(MAX_ELEMENTS - 1));
        assert_eq!(from("10.0.0.1", &[], &[&some]), "198.51.100.7");
        let long = format!("198.51.100.7{}", " ".repeat(MAX_LINE));
        assert_eq!(from("10.0.0.1", &[], &[&long]), "10.0.0.1");
        assert_eq!(from("10.0.0.1", &[], &["203.0.113.9", &long]), "10.0.0.1");
    }

    proptest! {
        #[test]
        fn what_an_untrusted_client_prepends_never_matters(noise in "[ -!#-~]{0,60}") {
            let forwarded = format!("{noise}, for=198.51.100.7, for=10.0.0.2");
            prop_assert_eq!(from("10.0.0.1", &[&forwarded], &[]), "198.51.100.7");
            let quoted = format!("{noise}, proto=http;for=\"[2001:db8::17]:80\"");
            prop_assert_eq!(from("10.0.0.1", &[&quoted], &[]), "2001:db8::17");
            let list = format!("{noise}, 198.51.100.7");
            prop_assert_eq!(from("10.0.0.1", &[], &[&list]), "198.51.100.7");
        }

        #[test]
        fn noise_never_panics(noise in prop::collection::vec("(for=|[\\[\\]\",;:=_ \\\\]|[0-9a-f:.]{1,9}|é){0,20}", 0..4)) {
            let lines: Vec<&str> = noise.iter().map(String::as_str).collect();
            from("10.0.0.1", &lines, &lines);
        }
    }
}
