//! What an audit log's lines tell: who did what, and what the log has to say about itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// By what right a caller calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The bearer of the admin token.
    Admin,
    /// The bearer of the key reader's token.
    KeyReader,
    /// Whoever may open the unix socket.
    Unix,
}

/// Where a call came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Peer {
    /// Over TCP.
    Tcp {
        /// The address that the connection has at its other end. `Forwarded` is not believed here.
        peer: SocketAddr,
    },
    /// Over a unix socket (SO_PEERCRED, unix(7)): who connected, as the kernel knows it.
    Unix {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// Process id; absent where the kernel does not tell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pid: Option<i32>,
    },
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { peer } => peer.fmt(f),
            Self::Unix { uid, gid, pid: None } => write!(f, "uid={uid} gid={gid}"),
            Self::Unix { uid, gid, pid: Some(pid) } => write!(f, "uid={uid} gid={gid} pid={pid}"),
        }
    }
}

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// By what right.
    #[serde(rename = "as")]
    pub role: Role,
    /// From where.
    #[serde(flatten)]
    pub from: Peer,
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.role {
            Role::Admin => "admin",
            Role::KeyReader => "key_reader",
            Role::Unix => "unix",
        })?;
        write!(f, " {}", self.from)
    }
}

/// What was called. No body, which may hold keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Who called.
    pub who: Who,
    /// The HTTP method.
    pub method: String,
    /// The path, percent-encoded as it came; cut at 4,096 octets.
    pub path: String,
    /// Those parameters of the query that the call knows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, String>,
}

/// Ids that a call was about and that its path does not name: `msk_ids`, `subscriber`, `job` …
pub type Names = BTreeMap<String, Vec<String>>;

/// Names by kind.
pub fn names<const N: usize>(kinds: [(&str, Vec<String>); N]) -> Names {
    kinds.into_iter().map(|(kind, names)| (kind.to_owned(), names)).collect()
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A change is about to be made. Without an `answer` that names this line the daemon ended in between: whether
    /// the change was made is not told.
    Request(Call),
    /// What an import is about to change, before each commit.
    Import {
        /// The line of the `request`.
        of: u64,
        /// Ids by kind: `services`, `subscribers`, `credentials`.
        names: Names,
    },
    /// What a request came to, before it is answered.
    Answer {
        /// The line of the `request`.
        of: u64,
        /// The HTTP status.
        status: u16,
        /// Milliseconds from the request's line to this one.
        took_ms: u64,
        /// What it was about, beyond the path.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        names: Names,
    },
    /// A call that reads secrets, before it is answered.
    Read {
        /// What was called.
        #[serde(flatten)]
        call: Call,
        /// The HTTP status; no secret went out unless it is 200.
        status: u16,
        /// Whose secrets they are.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        names: Names,
    },
    /// A caller with a token of ours was refused what that token does not open.
    Refused {
        /// What was called.
        #[serde(flatten)]
        call: Call,
        /// The HTTP status.
        status: u16,
    },
    /// The daemon began.
    Started {
        /// Its version.
        version: String,
        /// Lines before this one that are newer than the head that was kept apart: none after an end in order, those of
        /// the last write after a crash, all when no head was kept.
        #[serde(default, skip_serializing_if = "is_zero")]
        unvouched: u64,
    },
    /// The daemon ended in order.
    Ended,
    /// A new file goes on where another one ended: `prev` is that one's last hash.
    Continued,
    /// The daemon broke off in the middle of writing: what stands before this line, behind the last whole one, is no
    /// line.
    Torn {
        /// So many octets, their line ends included.
        octets: u64,
        /// Their SHA-256.
        sha256: super::chain::Hash,
    },
    /// Lines are gone or were replaced, which were there before.
    Missing {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
}
