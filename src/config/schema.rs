//! Every key of the configuration: its type, bounds, default and meaning, in one table.
//!
//! Reading, defaults, the names of environment variables, the nearest known name and
//! `docs/configuration.md` all come from here, so that they cannot disagree.

use std::sync::LazyLock;

use super::settings::{BindMode, LogFormat};
use crate::id::BTidForm;

/// What a key's value must be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// A string of the form that the words describe.
    Text(&'static str),
    /// A list of strings of that form; how few and how many. A single string is a list of one.
    List(&'static str, usize, usize),
    /// An integer within bounds, both included.
    Integer(i64, i64),
    /// A duration within bounds, both included, written as in the file.
    Duration(&'static str, &'static str),
    /// A size in octets within bounds, both included, written as in the file.
    Size(&'static str, &'static str),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
    /// The path of a file that holds a secret of that form.
    Secret(&'static str),
}

/// What holds when the key is left out.
#[derive(Debug, Clone, Copy)]
pub(super) enum Without {
    /// It must be given; what such a line looks like.
    Required(&'static str),
    /// This value, in TOML syntax.
    Toml(&'static str),
    /// Nothing; what that means.
    Absent(&'static str),
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// Parts joined by dots.
    pub(super) path: &'static str,
    /// Its type and bounds.
    pub(super) kind: Kind,
    /// What holds without it.
    pub(super) default: Without,
    /// What it does, in one sentence.
    pub(super) meaning: &'static str,
    /// Whether a new value takes effect on SIGHUP.
    pub(super) live: bool,
}

const fn key(path: &'static str, kind: Kind, default: Without, meaning: &'static str) -> Key {
    Key { path, kind, default, meaning, live: false }
}

const fn live(path: &'static str, kind: Kind, default: Without, meaning: &'static str) -> Key {
    Key { path, kind, default, meaning, live: true }
}

use self::Without::{Absent, Required, Toml};

const ADDRESS: &str = "IP:PORT";
const HEX_KEY: &str = "64 hex digits";
const TOKEN: &str = "visible ASCII";

/// All keys, table by table.
pub(super) const KEYS: &[Key] = &[
    key(
        "node.name",
        Kind::Text("letters, digits, `.`, `_`, `-`; at most 64"),
        Absent("the host's name"),
        "This daemon's name, unique in a cluster.",
    ),
    key(
        "node.fqdn",
        Kind::Text("host name"),
        Required("fqdn = \"bmsc.example.com\""),
        "NAF FQDN: what terminals derive their keys for, the digest realm and MIKEY IDi.",
    ),
    key(
        "node.cluster_secret_file",
        Kind::Secret(HEX_KEY),
        Absent("one made in the store directory; required with PostgreSQL"),
        "What the daemons of a cluster derive common values from (RAND, CSB ID, nonces).",
    ),
    key(
        "http.listen",
        Kind::List(ADDRESS, 1, 64),
        Toml("[\"127.0.0.1:8080\"]"),
        "Where terminals register. Port 0 takes a free one.",
    ),
    key("http.path", Kind::Text("URL path"), Toml("\"/keymanagement\""), "The path of the three procedures."),
    key(
        "http.trusted_proxies",
        Kind::List("CIDR", 0, 256),
        Toml("[]"),
        "Proxies whose `Forwarded` and `X-Forwarded-For` are believed.",
    ),
    live("http.max_body", Kind::Size("1KiB", "16MiB"), Toml("\"64KiB\""), "A longer body is answered 413."),
    live(
        "http.request_timeout",
        Kind::Duration("100ms", "5m"),
        Toml("\"10s\""),
        "A request that takes longer to arrive is answered 408.",
    ),
    live(
        "http.max_connections",
        Kind::Integer(1, 1_000_000),
        Toml("10000"),
        "Connections beyond are answered 503 and closed.",
    ),
    live(
        "http.max_items",
        Kind::Integer(1, 4096),
        Toml("256"),
        "A request that names more services or keys is answered 400.",
    ),
    live(
        "http.drain",
        Kind::Duration("0s", "5m"),
        Toml("\"10s\""),
        "How long open requests may take to end when the daemon stops.",
    ),
    live(
        "http.tls.certificate",
        Kind::Text("path of a PEM file"),
        Absent("without `http.tls`, plain HTTP"),
        "The certificate chain, the daemon's own first.",
    ),
    live(
        "http.tls.key",
        Kind::Text("path of a PEM file"),
        Absent("without `http.tls`, plain HTTP"),
        "The certificate's private key.",
    ),
    key(
        "digest.algorithms",
        Kind::List("SHA-256 or MD5", 1, 2),
        Toml("[\"SHA-256\", \"MD5\"]"),
        "Digest algorithms that are offered, in this order.",
    ),
    key(
        "digest.nonce_lifetime",
        Kind::Duration("100ms", "24h"),
        Toml("\"5m\""),
        "An older nonce is answered with a new one (`stale`).",
    ),
    key(
        "xml.children",
        Kind::OneOf(&["qualified", "default-namespace"]),
        Toml("\"qualified\""),
        "How the children of the BCAST containers are written.",
    ),
    key(
        "mikey.id_type",
        Kind::OneOf(&["nai", "uri"]),
        Toml("\"nai\""),
        "ID type of IDi and IDr in LTKMs (RFC 3830 §6.7).",
    ),
    key(
        "udp.listen",
        Kind::List(ADDRESS, 1, 64),
        Toml("[\"127.0.0.1:4359\"]"),
        "LTKMs leave from here, verification messages arrive here. Port 0 takes a free one.",
    ),
    key("udp.port", Kind::Integer(1, 65535), Toml("4359"), "The terminals' LTKM port."),
    key(
        "udp.attempts",
        Kind::Integer(1, 16),
        Toml("4"),
        "How often an LTKM is sent that is not verified, the first time included.",
    ),
    key(
        "udp.first_timeout",
        Kind::Duration("100ms", "1h"),
        Toml("\"2s\""),
        "The wait before the second attempt; each further wait is twice as long, ±10 %.",
    ),
    key(
        "udp.rate",
        Kind::Integer(1, 10_000_000),
        Absent("as fast as the socket takes them"),
        "LTKM datagrams a second, at most.",
    ),
    live(
        "sms.smsc",
        Kind::List("smpp://HOST[:PORT] or smpps://HOST:PORT", 1, 16),
        Required("smsc = \"smpp://127.0.0.1:2775\""),
        "The short message centres, in order of preference.",
    ),
    live(
        "sms.bind",
        Kind::OneOf(BindMode::NAMES),
        Toml("\"transceiver\""),
        "One connection for both directions, or one for each.",
    ),
    live(
        "sms.system_id",
        Kind::Text("visible ASCII, at most 15"),
        Toml("\"ltkmd\""),
        "The name to bind with (SMPP `system_id`).",
    ),
    live(
        "sms.sms_password_file",
        Kind::Secret("ASCII, at most 8"),
        Absent("no password"),
        "The password to bind with (SMPP `password`).",
    ),
    live(
        "sms.tls_ca",
        Kind::Text("path of a PEM file"),
        Absent("the system's authorities"),
        "The authorities that an `smpps://` centre's certificate must come from.",
    ),
    live(
        "sms.source",
        Kind::Text("up to 20 digits, or up to 11 other characters"),
        Absent("the centre's own address"),
        "The sender's address (SMPP `source_addr`): an international number, a short code of up to six digits, or a name.",
    ),
    live("sms.window", Kind::Integer(1, 1000), Toml("32"), "Submissions without an answer, at most."),
    live("sms.rate", Kind::Integer(1, 100_000), Toml("500"), "Messages a second, at most."),
    live(
        "sms.enquire_link",
        Kind::Duration("100ms", "1h"),
        Toml("\"30s\""),
        "A centre that was silent for so long is asked whether it is there.",
    ),
    live(
        "sms.response_timeout",
        Kind::Duration("100ms", "5m"),
        Toml("\"10s\""),
        "A centre that answers nothing for so long, though it should, is left.",
    ),
    key("sms.attempts", Kind::Integer(1, 16), Toml("2"), "Triggers by SMS for one delivery, at most."),
    key(
        "sms.pull_timeout",
        Kind::Duration("1s", "24h"),
        Toml("\"5m\""),
        "How long the terminal's request is awaited after a trigger.",
    ),
    key(
        "sms.terminal_interval",
        Kind::Duration("0s", "24h"),
        Toml("\"1m\""),
        "The least time between two triggers to one terminal.",
    ),
    key(
        "sms.terminal_daily",
        Kind::Integer(1, 10_000),
        Toml("50"),
        "Triggers to one terminal within a day, at most.",
    ),
    key(
        "sms.patience",
        Kind::Duration("1s", "7d"),
        Toml("\"24h\""),
        "How long a delivery waits for its turn by SMS before it goes another way or fails.",
    ),
    key(
        "delivery.methods",
        Kind::List("http, udp or sms", 1, 3),
        Toml("[\"http\", \"udp\", \"sms\"]"),
        "Methods that are enabled, in order of preference. `udp` is always among them; `sms` needs `[sms]`.",
    ),
    key(
        "delivery.verify",
        Kind::Flag,
        Toml("true"),
        "Whether terminals are asked to verify LTKMs (the V flag).",
    ),
    key(
        "delivery.sms_alone",
        Kind::OneOf(&["accept", "refuse"]),
        Toml("\"accept\""),
        "What a registration gets whose methods come down to SMS alone, which brings no key.",
    ),
    key(
        "keys.retain",
        Kind::Duration("1s", "3650d"),
        Toml("\"7d\""),
        "How long a key is kept past its end for what was promised.",
    ),
    key(
        "keys.lead_time",
        Kind::Duration("0s", "365d"),
        Toml("\"10m\""),
        "How long before it becomes valid a next key is distributed, at least; up to a tenth of `rotate_every` more, by service.",
    ),
    key(
        "store.url",
        Kind::Text("file:/DIRECTORY or postgres://USER@HOST[:PORT][,HOST…]/DATABASE"),
        Toml("\"file:/var/lib/ltkmd\""),
        "Where the daemon keeps what it must not forget: the directory of the embedded store, or a PostgreSQL database that the daemons of a cluster share.",
    ),
    key(
        "store.store_key_file",
        Kind::Secret(HEX_KEY),
        Absent("one made in the store directory; required with PostgreSQL"),
        "The master key that seals the secrets in the store.",
    ),
    key(
        "store.store_password_file",
        Kind::Secret("printable text"),
        Absent("no password"),
        "The password of the PostgreSQL user; the embedded store needs none.",
    ),
    key(
        "store.connections",
        Kind::Integer(2, 1000),
        Toml("16"),
        "Connections to PostgreSQL at a time, at most; the embedded store has none.",
    ),
    key(
        "admin.listen",
        Kind::Text("IP:PORT or unix:/PATH"),
        Toml("\"127.0.0.1:9470\""),
        "Where the admin API and the metrics are. Port 0 takes a free one.",
    ),
    key(
        "admin.admin_token_file",
        Kind::Secret(TOKEN),
        Absent("a fault over TCP; not needed over a unix socket"),
        "The bearer token of the admin API.",
    ),
    key(
        "admin.key_reader_token_file",
        Kind::Secret(TOKEN),
        Absent("keys cannot be read out"),
        "The bearer token that lets the BM-SC read keys (`?secrets=true`).",
    ),
    key(
        "audit.enabled",
        Kind::Flag,
        Toml("true"),
        "Whether changes by operators and reads of secrets are recorded; what cannot be recorded is refused then.",
    ),
    key(
        "audit.file",
        Kind::Text("/FILE"),
        Absent("`audit.log` in the store's directory; with PostgreSQL `/var/lib/ltkmd/audit.log`"),
        "The audit log: hash-chained lines of JSON, appended to. SIGHUP opens it anew after a rotation.",
    ),
    key("log.format", Kind::OneOf(LogFormat::NAMES), Toml("\"text\""), "How log lines are written."),
    live(
        "log.filter",
        Kind::Text("filter directives"),
        Toml("\"info\""),
        "What is logged: `level` and `target=level`, joined by commas.",
    ),
    live(
        "log.btid",
        Kind::OneOf(BTidForm::NAMES),
        Toml("\"short\""),
        "How log lines name terminals: the B-TID in full, its first 8 characters, 16 hex digits of its SHA-256, or not.",
    ),
];

/// Every table that has keys, in the order of [`KEYS`]: `node`, `http`, `http.tls` …
pub(super) static TABLES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let mut tables = Vec::new();
    for key in KEYS {
        for (dot, _) in key.path.match_indices('.') {
            let table = &key.path[..dot];
            if !tables.contains(&table) {
                tables.push(table);
            }
        }
    }
    tables
});

/// The prefix of the variables that override keys.
pub(super) const VARIABLE_PREFIX: &str = "LTKMD_";

/// The environment variable that overrides a key or a table.
pub(super) fn variable(path: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", path.to_ascii_uppercase().replace('.', "__"))
}

/// The key of that path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|k| k.path == path)
}

/// The table of that path.
pub(super) fn find_table(path: &str) -> Option<&'static str> {
    TABLES.iter().copied().find(|t| *t == path)
}

/// The file key of a secret that was given by its own name: `admin.admin_token` → `admin.admin_token_file`.
pub(super) fn secret_named(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|k| matches!(k.kind, Kind::Secret(_)) && k.path.strip_suffix("_file") == Some(path))
}

/// A path's table and its last part.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

fn best<'a>(names: impl Iterator<Item = &'a str>, likeness: impl Fn(&str) -> f64) -> &'a str {
    names
        .map(|n| (likeness(n), n))
        .reduce(|a, b| if b.0 > a.0 { b } else { a })
        .map(|(_, n)| n)
        .expect("the schema has keys")
}

/// The known key or table that an unknown one was most likely meant to be. A misspelled neighbour in the same
/// table comes before a like name elsewhere, but a key in the wrong table is found too.
pub(super) fn nearest(path: &str) -> &'static str {
    let (table, last) = split(path);
    best(KEYS.iter().map(|k| k.path).chain(TABLES.iter().copied()), |known| {
        let (known_table, known_last) = split(known);
        let neighbour = if table == known_table { 0.3 } else { 0.0 };
        let part = last.len() >= 3 && (known_last.contains(last) || last.contains(known_last));
        strsim::normalized_damerau_levenshtein(last, known_last) + neighbour + if part { 0.4 } else { 0.0 }
    })
}

/// The variable that an unknown one was most likely meant to be, and the path it overrides.
pub(super) fn nearest_variable(name: &str) -> (String, &'static str) {
    let name = name.to_ascii_uppercase();
    let path = best(KEYS.iter().map(|k| k.path).chain(TABLES.iter().copied()), |known| {
        strsim::normalized_damerau_levenshtein(&name, &variable(known))
    });
    (variable(path), path)
}
