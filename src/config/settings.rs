//! The validated configuration: whoever holds a [`Settings`] need not check anything again.

use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use mikey::IdType;

use super::fault::Fault;
use super::tls::{Authorities, Tls};
use super::value::{
    AdminListen, HostName, LogFilter, NodeName, SmsSource, Smsc, StoreUrl, SystemId, UrlPath,
};
use crate::delivery::{Rules, SmsAlone, SmsLimits};
use crate::digest::Algorithm;
use crate::document::{ContainerChildren, Limits};
use crate::id::{BTidForm, Method, MethodSet};
use crate::secret::Secret;

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant),+
        }

        impl $name {
            /// All values.
            pub const ALL: &[Self] = &[$(Self::$variant),+];
            /// The names of [`Self::ALL`], as configuration spells them.
            pub const NAMES: &[&str] = &[$($text),+];

            /// The name that configuration uses.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text),+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

named! {
    /// How log lines are written.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
        /// To systemd-journald, with fields (systemd.journal-fields(7)).
        Journald = "journald",
    }
}

named! {
    /// How the daemon binds to a short message centre (SMPP 3.4 §2.2).
    BindMode {
        /// One connection for both directions: `bind_transceiver`.
        Transceiver = "transceiver",
        /// One connection for each direction: `bind_transmitter` and `bind_receiver`.
        TransmitterReceiver = "transmitter-receiver",
    }
}

/// `[node]`: who this daemon is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name, unique in a cluster.
    pub name: NodeName,
    /// NAF FQDN: digest realm and MIKEY IDi.
    pub fqdn: HostName,
    /// The secret that the daemons of a cluster share, 32 octets; always there when the store is a database.
    pub cluster_secret: Option<Secret>,
}

/// `[http]`: the terminal-facing listener.
#[derive(Debug, Clone)]
pub struct Http {
    /// Addresses to listen on, at least one; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// The path of the procedures.
    pub path: UrlPath,
    /// Networks whose `Forwarded` and `X-Forwarded-For` are believed; host bits are zero.
    pub trusted_proxies: Vec<IpNet>,
    /// The longest body in octets, 1 KiB to 16 MiB.
    pub max_body: usize,
    /// How long a request may take to arrive, 100 ms to 5 min.
    pub request_timeout: Duration,
    /// Connections at a time, 1 to 1,000,000.
    pub max_connections: usize,
    /// Services or keys in one request, 1 to 4096.
    pub max_items: usize,
    /// How long open requests may take to end when the daemon stops, up to 5 min; zero waits for none.
    pub drain: Duration,
    /// The certificate and key; plain HTTP without.
    pub tls: Option<Tls>,
}

/// `[digest]`: the challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// Algorithms to offer, in this order; at least one, none twice.
    pub algorithms: Vec<Algorithm>,
    /// A nonce's life, 100 ms to 24 h.
    pub nonce_lifetime: Duration,
}

/// `[xml]`: how documents are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Xml {
    /// How container children are written.
    pub children: ContainerChildren,
}

/// `[mikey]`: how LTKMs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mikey {
    /// ID type of IDi and IDr: NAI or URI.
    pub id_type: IdType,
}

/// `[udp]`: delivery by datagrams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Udp {
    /// Addresses to send from and listen on, at least one; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// The terminals' LTKM port.
    pub port: NonZeroU16,
    /// How often an LTKM is sent, the first time included: 1 to 16.
    pub attempts: u8,
    /// The wait before the second attempt, 100 ms to 1 h; each further wait is twice as long.
    pub first_timeout: Duration,
    /// Datagrams a second, at most; without, as fast as the socket takes them.
    pub rate: Option<NonZeroU32>,
}

/// `[sms]`: triggers by short message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sms {
    /// The centres, in order of preference: 1 to 16.
    pub smsc: Vec<Smsc>,
    /// One connection or two.
    pub bind: BindMode,
    /// The name to bind with.
    pub system_id: SystemId,
    /// The password to bind with, at most 8 octets.
    pub password: Option<Secret>,
    /// Who vouches for centres over TLS; always there when one of [`Self::smsc`] is `smpps://`.
    pub authorities: Option<Authorities>,
    /// The sender's address; the centre's own without.
    pub source: Option<SmsSource>,
    /// Submissions without an answer at a time, 1 to 1000.
    pub window: u16,
    /// Messages a second, at most.
    pub rate: NonZeroU32,
    /// After how long a silence a centre is asked whether it is there, 100 ms to 1 h.
    pub enquire_link: Duration,
    /// How long a centre may answer nothing though it should, 100 ms to 5 min.
    pub response_timeout: Duration,
    /// How often, and for how long, one terminal is triggered.
    pub limits: SmsLimits,
}

/// `[delivery]`: which methods, and what is asked of terminals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Methods in order of preference, none twice, UDP always among them. SMS may be here without `[sms]`:
    /// [`Settings::enabled_methods`] says what can be used.
    pub methods: Vec<Method>,
    /// Whether LTKMs carry the V flag.
    pub verify: bool,
    /// What becomes of a set of SMS alone.
    pub sms_alone: SmsAlone,
}

/// `[keys]`: the life of MSKs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// How long a key is kept past its end, 1 s to 3650 d.
    pub retain: Duration,
    /// How long before it becomes valid a next key is distributed, up to 365 d.
    pub lead_time: Duration,
}

/// `[store]`: what outlives the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// The directory of an embedded store, which may not exist yet, or a database.
    pub url: StoreUrl,
    /// The master key, 32 octets; always there with a database, an embedded store makes its own without.
    pub store_key: Option<Secret>,
    /// The database's password, at most 1024 octets; an embedded store has none.
    pub password: Option<Secret>,
    /// Connections to the database at a time, 2 to 1000.
    pub connections: usize,
}

/// `[admin]`: the operator's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where the API is.
    pub listen: AdminListen,
    /// The bearer token; always there when [`Self::listen`] is TCP.
    pub admin_token: Option<Secret>,
    /// The bearer token that may read keys; not the same as the admin token.
    pub key_reader_token: Option<Secret>,
}

/// `[audit]`: what operators did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// The file, an absolute path; nothing is recorded without.
    pub file: Option<PathBuf>,
}

/// `[log]`: what operators read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// How lines are written.
    pub format: LogFormat,
    /// Which lines are written.
    pub filter: LogFilter,
    /// How they name terminals.
    pub btid: BTidForm,
}

/// A whole configuration, valid with all it points to at the time it was read. Debug shows no secrets.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who this daemon is.
    pub node: Node,
    /// The terminal-facing listener.
    pub http: Http,
    /// The digest challenge.
    pub digest: Digest,
    /// How documents are written.
    pub xml: Xml,
    /// How LTKMs are written.
    pub mikey: Mikey,
    /// Delivery by datagrams.
    pub udp: Udp,
    /// Triggers by short message; off without.
    pub sms: Option<Sms>,
    /// Methods and verification.
    pub delivery: Delivery,
    /// The life of MSKs.
    pub keys: Keys,
    /// What outlives the daemon.
    pub store: Store,
    /// The operator's side.
    pub admin: Admin,
    /// What operators did.
    pub audit: Audit,
    /// What is logged.
    pub log: Log,
    /// What is no fault but should be looked at, such as a secret that others can read.
    pub warnings: Vec<Fault>,
}

impl Settings {
    /// The methods that can be used, in order of preference: [`Delivery::methods`], without SMS when there is no
    /// `[sms]`.
    pub fn enabled_methods(&self) -> Vec<Method> {
        let usable = |m: &Method| *m != Method::Sms || self.sms.is_some();
        self.delivery.methods.iter().copied().filter(usable).collect()
    }

    /// [`Self::enabled_methods`] as a set.
    pub fn enabled_set(&self) -> MethodSet {
        self.enabled_methods().into_iter().collect()
    }

    /// What the decisions about deliveries follow.
    pub fn delivery_rules(&self) -> Rules {
        Rules {
            preference: self.enabled_methods(),
            verify: self.delivery.verify,
            attempts: self.udp.attempts,
            first_timeout: self.udp.first_timeout,
            sms_alone: self.delivery.sms_alone,
            lead_time: self.keys.lead_time,
            sms: self.sms.as_ref().map(|sms| sms.limits),
        }
    }

    /// Where the kept head of the audit log is: in the embedded store's directory, else beside the log itself.
    /// `None` when nothing is recorded.
    pub fn audit_head_directory(&self) -> Option<&Path> {
        let file = self.audit.file.as_deref()?;
        self.store.url.directory().or_else(|| file.parent())
    }

    /// What the readers of documents hold a body to.
    pub fn document_limits(&self) -> Limits {
        Limits { max_octets: self.http.max_body, max_items: self.http.max_items }
    }
}
