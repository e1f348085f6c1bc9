//! Values that are checked when they are read and cannot be wrong afterwards.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use tracing_subscriber::EnvFilter;

use crate::store::{PgUrl, UrlFault};
use crate::units;

/// Why a text is not the value it was given for, and what to do: the end of a sentence that the value begins.
/// Never repeats the text, which may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub(super) Cow<'static, str>);

fn refused<T>(why: impl Into<Cow<'static, str>>) -> Result<T, Refused> {
    Err(Refused(why.into()))
}

macro_rules! text_value {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub struct $name(String);

        impl $name {
            /// The value as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_value! {
    /// A daemon's name in its cluster: 1 to 64 of letters, digits, `.`, `_` and `-`.
    NodeName
}

impl FromStr for NodeName {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if text.is_empty() || text.len() > 64 || !text.chars().all(allowed) {
            return refused("is no node name: give 1 to 64 letters, digits, dots, underscores and hyphens");
        }
        Ok(Self(text.to_owned()))
    }
}

text_value! {
    /// A host name (RFC 1123 §2.1), as written: at most 253 octets, labels of 1 to 63 letters, digits and hyphens.
    HostName
}

impl FromStr for HostName {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        if text.parse::<IpAddr>().is_ok() {
            return refused("is an address: give a host name such as \"bmsc.example.com\"");
        }
        let label = |l: &str| {
            (1..=63).contains(&l.len())
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !l.starts_with('-')
                && !l.ends_with('-')
        };
        let numeric_end = text.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
        if text.len() > 253 || !text.split('.').all(label) || numeric_end {
            return refused(
                "is no host name: give letters, digits and hyphens between dots, such as \"bmsc.example.com\"",
            );
        }
        Ok(Self(text.to_owned()))
    }
}

text_value! {
    /// The path of a URL (RFC 3986 §3.3), with its leading slash: at most 255 octets.
    UrlPath
}

impl FromStr for UrlPath {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&b);
        if !text.starts_with('/') || text.len() > 255 || !text.bytes().all(allowed) {
            return refused(
                "is no URL path: begin with a slash and leave out spaces, ? and #, such as \"/keymanagement\"",
            );
        }
        Ok(Self(text.to_owned()))
    }
}

text_value! {
    /// The name that an SMPP client binds with (SMPP 3.4 §5.2.1): 1 to 15 visible ASCII characters.
    SystemId
}

impl FromStr for SystemId {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        if text.is_empty() || text.len() > 15 || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return refused("is no SMPP system_id: give 1 to 15 visible ASCII characters");
        }
        Ok(Self(text.to_owned()))
    }
}

text_value! {
    /// The sender's address of a short message (SMPP 3.4 §5.2.8): up to 20 digits, or up to 11 characters with
    /// others among them.
    SmsSource
}

impl SmsSource {
    /// Whether it is a number and not a name.
    pub fn is_number(&self) -> bool {
        self.0.bytes().all(|b| b.is_ascii_digit())
    }
}

impl FromStr for SmsSource {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let max = if digits { 20 } else { 11 };
        if text.is_empty() || text.len() > max || !text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
            return refused(
                "is no sender's address: give up to 20 digits, or up to 11 ASCII characters as a name",
            );
        }
        Ok(Self(text.to_owned()))
    }
}

/// Reads a duration such as `500ms`, `2s`, `5m`, `24h` or `7d`.
pub(super) fn duration(text: &str) -> Result<Duration, Refused> {
    units::parse_duration(text).or_else(|e| refused(e.to_string()))
}

/// Reads a size in octets such as `512B`, `64KiB`, `1MiB` or `1GiB`.
pub(super) fn size(text: &str) -> Result<usize, Refused> {
    units::parse_size(text).or_else(|e| refused(e.to_string()))
}

/// Reads a socket address; port 0 stands for any free one.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, Refused> {
    text.parse().or_else(|_| refused("is no socket address: give IP:PORT, such as \"127.0.0.1:8080\""))
}

/// Reads a CIDR.
pub(super) fn network(text: &str) -> Result<IpNet, Refused> {
    text.parse()
        .or_else(|_| refused("is no CIDR: give ADDRESS/PREFIX, such as \"10.0.0.0/8\" or \"::1/128\""))
}

/// Reads the path of a file; the file is not looked at.
pub(super) fn path(text: &str) -> Result<PathBuf, Refused> {
    if text.is_empty() || text.contains('\0') {
        return refused("is no path: name a file");
    }
    Ok(PathBuf::from(text))
}

/// A short message centre: `smpp://HOST[:PORT]`, or `smpps://HOST:PORT` for SMPP over TLS.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Smsc {
    /// Whether the connection is TLS.
    pub tls: bool,
    /// A host name, or an IP address without brackets.
    pub host: String,
    /// The TCP port; 2775 (IANA smpp) when the URL has none. Not 0.
    pub port: u16,
}

impl fmt::Display for Smsc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "smpps" } else { "smpp" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for Smsc {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let (tls, authority) = match (text.strip_prefix("smpp://"), text.strip_prefix("smpps://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return refused("is no SMSC URL: give smpp://HOST:PORT or smpps://HOST:PORT"),
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.contains('@') {
            return refused(
                "has a name or a password in it: give smpp://HOST:PORT alone, the name in sms.system_id and the \
                 password in a file named by sms.sms_password_file",
            );
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let port = match port.map(str::parse) {
            None if tls => return refused("has no port, and smpps has no usual one: give smpps://HOST:PORT"),
            None => 2775,
            Some(Ok(port)) if port > 0 => port,
            Some(_) => return refused("has no port from 1 to 65535: give smpp://HOST:PORT"),
        };
        let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let known = match literal {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => host.parse::<std::net::Ipv4Addr>().is_ok() || host.parse::<HostName>().is_ok(),
        };
        if !known {
            return refused("has no valid host: give smpp://HOST:PORT, an IPv6 address in brackets");
        }
        Ok(Self { tls, host: literal.unwrap_or(host).to_owned(), port })
    }
}

/// The directory of an embedded store: `file:` and an absolute path, taken as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StoreDirectory(PathBuf);

impl StoreDirectory {
    /// The directory, an absolute path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl FromStr for StoreDirectory {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let path = text.strip_prefix("file://").or_else(|| text.strip_prefix("file:"));
        match path.filter(|p| p.starts_with('/') && !p.contains('\0')) {
            Some(path) => Ok(Self(PathBuf::from(path))),
            None => refused(
                "is no store: give file: and an absolute path, such as \"file:/var/lib/ltkmd\", or \
                 postgres://USER@HOST/DATABASE",
            ),
        }
    }
}

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StoreUrl {
    /// The embedded store of this daemon alone.
    Directory(StoreDirectory),
    /// A PostgreSQL database, which the daemons of a cluster share.
    Postgres(PgUrl),
}

impl StoreUrl {
    /// The embedded store's directory.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(directory) => Some(directory.path()),
            Self::Postgres(_) => None,
        }
    }
}

impl fmt::Display for StoreUrl {
    /// The directory's path, or the database's URL, in which there is no password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(directory) => directory.path().display().fmt(f),
            Self::Postgres(url) => url.fmt(f),
        }
    }
}

impl FromStr for StoreUrl {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        match is_database(text) {
            true => text.parse().map(Self::Postgres).or_else(|fault: UrlFault| refused(fault.to_string())),
            false => text.parse().map(Self::Directory),
        }
    }
}

/// Whether a text is meant to be the URL of a database, right or wrong; it may hold a password.
pub(super) fn is_database(text: &str) -> bool {
    text.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("postgres"))
}

/// Where the admin API listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AdminListen {
    /// TCP; callers bring the admin token.
    Tcp(SocketAddr),
    /// A unix socket of that absolute path, at most 107 octets; its mode decides who may call.
    Unix(PathBuf),
}

impl fmt::Display for AdminListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for AdminListen {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let Some(path) = text.strip_prefix("unix:") else {
            return text.parse().map(Self::Tcp).or_else(|_| {
                refused("is no address: give IP:PORT, or unix: and the absolute path of a socket")
            });
        };
        let path = path.strip_prefix("//").filter(|p| p.starts_with('/')).unwrap_or(path);
        if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
            return refused(
                "is no socket: give unix: and an absolute path, such as \"unix:/run/ltkmd/admin.sock\"",
            );
        }
        // sockaddr_un holds 108 octets, the last a NUL (unix(7)).
        if path.len() > 107 {
            return refused("is too long for a socket: give a path of at most 107 octets");
        }
        Ok(Self::Unix(PathBuf::from(path)))
    }
}

text_value! {
    /// What is logged: directives that [`EnvFilter`] has read.
    LogFilter
}

/// What the daemon's libraries may say when the filter does not name them.
const QUIET: &str = "fjall=warn,lsm_tree=warn,tokio_postgres=warn";

impl LogFilter {
    /// The filter itself. Lines of the storage engine and of the database driver are for their makers:
    /// only warnings are shown, unless a directive names `fjall`, `lsm_tree` or `tokio_postgres`.
    pub fn env_filter(&self) -> EnvFilter {
        let wants_less =
            self.0.split(',').any(|d| ["off", "error"].iter().any(|l| d.trim().eq_ignore_ascii_case(l)));
        let directives = if wants_less { self.0.clone() } else { format!("{QUIET},{}", self.0) };
        EnvFilter::builder().parse(directives).expect("the directives were read when the filter was made")
    }
}

impl FromStr for LogFilter {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        if text.trim().is_empty() {
            return refused("is empty: give a level or directives, such as \"info\" or \"info,ltkmd=debug\"");
        }
        // A lone word that is no level names a target and opens it to everything: `inof` would log all of nothing.
        for word in text.split(',').map(|d| d.trim().to_ascii_lowercase()) {
            let near =
                LEVELS.iter().find(|l| word.starts_with(**l) || strsim::damerau_levenshtein(l, &word) <= 2);
            if let Some(level) = near
                && !LEVELS.contains(&word.as_str())
                && word.bytes().all(|b| b.is_ascii_alphabetic())
            {
                return refused(format!(
                    "has no level in {word:?}: did you mean {level:?}? A target is given as {word}=info"
                ));
            }
        }
        match EnvFilter::builder().parse(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(e) => refused(format!(
                "is no filter ({e}): give a level or directives, such as \"info\" or \"info,ltkmd=debug\""
            )),
        }
    }
}
