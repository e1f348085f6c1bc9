//! Where a PostgreSQL store is: a URL as libpq reads it, as far as a daemon needs it.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::tls::authorities;

/// The port without one in the URL.
const DEFAULT_PORT: u16 = 5432;
/// Servers that a URL may name.
const MAX_HOSTS: usize = 16;
/// The longest name of a user or a database, in octets (`NAMEDATALEN` is 64 with its NUL).
const MAX_NAME: usize = 63;

/// Why a text is no URL of a store, and what to do: the end of a sentence that the value begins. Never repeats the
/// text, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UrlFault(Cow<'static, str>);

fn refused<T>(why: impl Into<Cow<'static, str>>) -> Result<T, UrlFault> {
    Err(UrlFault(why.into()))
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PgHost {
    /// A host name or an IP address, without brackets, and a port that is not 0.
    Tcp(String, u16),
    /// The directory of a unix socket, an absolute path, and the port that is part of the socket's name.
    Unix(PathBuf, u16),
}

impl PgHost {
    /// Whether what is said stays on this machine.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(..) => true,
            Self::Tcp(host, _) => {
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        }
    }
}

impl fmt::Display for PgHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(directory, port) => write!(f, "{}:{port}", directory.display()),
        }
    }
}

/// How a connection is protected; none over a unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsMode {
    /// Not at all.
    Disable,
    /// TLS with whoever answers: protects from who listens, not from who answers in the server's place.
    Require,
    /// TLS with a certificate that comes from `sslrootcert` and names the host.
    VerifyFull,
}

impl TlsMode {
    /// The value of `sslmode`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Require => "require",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// `postgres://[USER@]HOST[:PORT][,HOST…]/DATABASE[?sslmode=…&sslrootcert=FILE]`, for a unix socket
/// `postgres:///DATABASE?host=/DIRECTORY`. It holds no password: that one is in a file of its own.
///
/// Without `sslmode`, servers of this machine are spoken to in plain text and all others with
/// [`TlsMode::VerifyFull`]; with `sslrootcert` alone, all are verified.
///
/// ```
/// use ltkmd::store::postgres::{PgUrl, TlsMode};
///
/// let url: PgUrl = "postgres://ltkmd@db1,db2:5433/keys?sslrootcert=/etc/ltkmd/ca.pem".parse()?;
/// assert_eq!(url.hosts().len(), 2);
/// assert_eq!(url.tls(&url.hosts()[0]), TlsMode::VerifyFull);
///
/// let refused = "postgres://ltkmd:hunter2@db1/keys".parse::<PgUrl>().expect_err("a password has a file of its own");
/// assert!(refused.to_string().contains("store.store_password_file"));
/// # Ok::<(), ltkmd::store::postgres::UrlFault>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PgUrl {
    hosts: Vec<PgHost>,
    user: Option<String>,
    database: String,
    sslmode: Option<TlsMode>,
    sslrootcert: Option<PathBuf>,
}

impl PgUrl {
    /// The servers, 1 to 16, in the order in which they are tried.
    pub fn hosts(&self) -> &[PgHost] {
        &self.hosts
    }

    /// The user to connect as; without one, the name of the user that the daemon runs as.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The database.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The PEM file of the authorities that servers' certificates come from; always there when one is verified.
    pub fn sslrootcert(&self) -> Option<&Path> {
        self.sslrootcert.as_deref()
    }

    /// How a connection to one of [`Self::hosts`] is protected.
    pub fn tls(&self, host: &PgHost) -> TlsMode {
        match (host, self.sslmode) {
            (PgHost::Unix(..), _) => TlsMode::Disable,
            (_, Some(mode)) => mode,
            (_, None) if self.sslrootcert.is_some() || !host.is_local() => TlsMode::VerifyFull,
            (_, None) => TlsMode::Disable,
        }
    }

    /// Looks whether the file of authorities, if there is one, can be used. Nobody is connected to.
    ///
    /// # Errors
    /// What is wrong with it and what to do, as a sentence that begins with the file.
    pub fn check_authorities(&self) -> Result<(), String> {
        self.sslrootcert().map_or(Ok(()), |file| authorities(file).map(|_| ()))
    }

    /// A server as messages name it: `HOST:PORT/DATABASE`.
    pub fn place(&self, host: &PgHost) -> String {
        format!("{host}/{}", self.database)
    }

    fn is_verified(&self) -> bool {
        self.hosts.iter().any(|host| self.tls(host) == TlsMode::VerifyFull)
    }
}

impl fmt::Display for PgUrl {
    /// A URL that reads as the same value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://")?;
        if let Some(user) = &self.user {
            write!(f, "{}@", encoded(user, ""))?;
        }
        let mut parameters = Vec::new();
        match &self.hosts[..] {
            [PgHost::Unix(directory, port)] => {
                parameters.push(format!("host={}", encoded(&directory.to_string_lossy(), "/")));
                if *port != DEFAULT_PORT {
                    parameters.push(format!("port={port}"));
                }
            }
            hosts => {
                let shown = hosts.iter().map(|host| match host {
                    PgHost::Tcp(..) => host.to_string(),
                    PgHost::Unix(directory, port) => {
                        format!("{}:{port}", encoded(&directory.to_string_lossy(), ""))
                    }
                });
                f.write_str(&shown.collect::<Vec<_>>().join(","))?;
            }
        }
        write!(f, "/{}", encoded(&self.database, ""))?;
        if let Some(mode) = self.sslmode {
            parameters.push(format!("sslmode={}", mode.as_str()));
        }
        if let Some(file) = &self.sslrootcert {
            parameters.push(format!("sslrootcert={}", encoded(&file.to_string_lossy(), "/")));
        }
        for (i, parameter) in parameters.iter().enumerate() {
            write!(f, "{}{parameter}", if i == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

impl FromStr for PgUrl {
    type Err = UrlFault;

    fn from_str(text: &str) -> Result<Self, UrlFault> {
        let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
        let Some(rest) = rest else {
            return refused("is no URL of a database: give postgres://USER@HOST/DATABASE");
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, _)) if user.contains(':') => return password(),
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, authority),
        };
        let mut given = Parameters::read(query)?;
        // What follows a slash in a password would be taken for a database.
        if path.contains(['/', '@', ':']) {
            return refused(
                "has a database with /, @ or : in its name: write them as %2F, %40 and %3A, and put a password into \
                 the file that store.store_password_file names",
            );
        }
        let user = match (user, given.user.take()) {
            (Some(_), Some(_)) => return refused("names its user twice: give it once"),
            (Some(user), None) => Some(name(decoded(user)?, "user")?),
            (None, Some(user)) => Some(name(user, "user")?),
            (None, None) => None,
        };
        let database = match (path, given.dbname.take()) {
            ("", Some(database)) => name(database, "database")?,
            ("", None) => return refused("names no database: give postgres://USER@HOST/DATABASE"),
            (path, None) => name(decoded(path)?, "database")?,
            (_, Some(_)) => return refused("names its database twice: give it once"),
        };
        let url = Self {
            hosts: all_hosts(hosts, given.host.as_deref(), given.port.as_deref())?,
            user,
            database,
            sslmode: given.sslmode,
            sslrootcert: given.sslrootcert,
        };
        match (url.is_verified(), &url.sslrootcert) {
            (true, None) => refused(
                "is a server whose certificate must be verified (sslmode=verify-full holds for all but those of this \
                 machine): add ?sslrootcert=FILE, the PEM file of the authority it comes from",
            ),
            (false, Some(_)) => refused(
                "has an sslrootcert that nothing is verified with: give sslmode=verify-full, or leave it out",
            ),
            _ => Ok(url),
        }
    }
}

fn password<T>() -> Result<T, UrlFault> {
    refused(
        "has a password in it: take it out, and put it into the file that store.store_password_file names",
    )
}

/// The name of a user or a database.
fn name(text: String, of: &str) -> Result<String, UrlFault> {
    match text.len() {
        1..=MAX_NAME if !text.chars().any(char::is_control) => Ok(text),
        _ => refused(format!("has no {of} of 1 to {MAX_NAME} printable characters: give one")),
    }
}

/// What stands behind the question mark.
#[derive(Default)]
struct Parameters {
    host: Option<String>,
    port: Option<String>,
    user: Option<String>,
    dbname: Option<String>,
    sslmode: Option<TlsMode>,
    sslrootcert: Option<PathBuf>,
}

impl Parameters {
    fn read(query: &str) -> Result<Self, UrlFault> {
        let mut read = Self::default();
        let mut seen = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (decoded(key)?, decoded(value)?);
            if key.eq_ignore_ascii_case("password") {
                return password();
            }
            match key.as_str() {
                "host" => read.host = Some(value),
                "port" => read.port = Some(value),
                "user" => read.user = Some(value),
                "dbname" => read.dbname = Some(value),
                "sslmode" => read.sslmode = Some(sslmode(&value)?),
                "sslrootcert" if value.starts_with('/') && !value.contains('\0') => {
                    read.sslrootcert = Some(PathBuf::from(value));
                }
                "sslrootcert" => {
                    return refused("has an sslrootcert that is no absolute path: give /DIRECTORY/FILE");
                }
                // What is asked of every server anyway.
                "target_session_attrs" if value == "read-write" => {}
                "target_session_attrs" => {
                    return refused("has target_session_attrs, which is read-write here: leave it out");
                }
                _ => {
                    return refused(
                        "has a parameter that is not known here: host, port, user, dbname, sslmode and sslrootcert are",
                    );
                }
            }
            if seen.contains(&key) {
                return refused(format!("has {key} twice: give it once"));
            }
            seen.push(key);
        }
        Ok(read)
    }
}

fn sslmode(text: &str) -> Result<TlsMode, UrlFault> {
    let modes = [TlsMode::Disable, TlsMode::Require, TlsMode::VerifyFull];
    match modes.into_iter().find(|mode| mode.as_str() == text) {
        Some(mode) => Ok(mode),
        None => refused("has an sslmode that is not known here: give disable, require or verify-full"),
    }
}

/// The servers, from the authority or else from the parameters `host` and `port`.
fn all_hosts(authority: &str, host: Option<&str>, port: Option<&str>) -> Result<Vec<PgHost>, UrlFault> {
    let hosts: Result<Vec<_>, _> = match (authority, host) {
        ("", None) => {
            return refused(
                "names no server: give postgres://USER@HOST/DATABASE, or postgres:///DATABASE?host=/DIRECTORY for a \
                 unix socket",
            );
        }
        ("", Some(hosts)) => {
            let ports: Vec<&str> = port.map(|ports| ports.split(',').collect()).unwrap_or_default();
            let hosts: Vec<&str> = hosts.split(',').collect();
            let of = |i: usize| match ports.len() {
                0 => Ok(DEFAULT_PORT),
                1 => port_number(ports[0]),
                n if n == hosts.len() => port_number(ports[i]),
                _ => refused("has not as many ports as hosts: give one for each, or one for all"),
            };
            hosts.iter().enumerate().map(|(i, host)| one_host(host, of(i)?)).collect()
        }
        (_, None) if port.is_none() => authority.split(',').map(host_and_port).collect(),
        _ => return refused("names its servers twice: give them once"),
    };
    let hosts = hosts?;
    match hosts.len() {
        0..=MAX_HOSTS => Ok(hosts),
        n => refused(format!("names {n} servers: give {MAX_HOSTS} at most")),
    }
}

fn host_and_port(text: &str) -> Result<PgHost, UrlFault> {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => one_host(&decoded(host)?, port_number(port)?),
        _ => one_host(&decoded(text)?, DEFAULT_PORT),
    }
}

fn port_number(text: &str) -> Result<u16, UrlFault> {
    match text.parse() {
        Ok(port) if port > 0 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => refused("has no port from 1 to 65535: give HOST:PORT"),
    }
}

fn one_host(text: &str, port: u16) -> Result<PgHost, UrlFault> {
    if text.starts_with('/') && !text.contains('\0') {
        return Ok(PgHost::Unix(PathBuf::from(text), port));
    }
    let literal = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let known = match literal {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            (1..=253).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        }
    };
    match known {
        true => Ok(PgHost::Tcp(literal.unwrap_or(text).to_ascii_lowercase(), port)),
        false => refused(
            "has no valid host: give HOST:PORT, an IPv6 address in brackets, or the absolute path of a socket's directory",
        ),
    }
}

/// Percent-decoding (RFC 3986 §2.1).
fn decoded(text: &str) -> Result<String, UrlFault> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'%' {
            octets.push(*first);
            continue;
        }
        let digit = |i: usize| behind.get(i).and_then(|o| char::from(*o).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else {
            return refused("has a % without two hex digits behind it: write % itself as %25");
        };
        octets.push((high * 16 + low) as u8);
        rest = &behind[2..];
    }
    String::from_utf8(octets).or_else(|_| refused("is not UTF-8 once it is percent-decoded: mend it"))
}

/// Percent-encoding of all but unreserved characters (RFC 3986 §2.3) and those of `plain`.
fn encoded(text: &str, plain: &str) -> String {
    let mut out = String::new();
    for octet in text.bytes() {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) || plain.as_bytes().contains(&octet) {
            out.push(char::from(octet));
        } else {
            let _ = write!(out, "%{octet:02X}");
        }
    }
    out
}

#[cfg(test)]
#[path = "url_tests.rs"]
mod tests;
