//! Why a request is not authenticated, and what it gets for it.

use std::fmt;

use super::window::Refused;

/// The reason, as the metric `digest_failures_total{reason}` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// There is no `Authorization`.
    Missing,
    /// It is of another scheme.
    Scheme,
    /// It cannot be read, or a parameter is missing or improper.
    Malformed,
    /// Its `uri` is not the request's.
    Uri,
    /// It has a hashed user name.
    UserHash,
    /// Its realm is not ours.
    Realm,
    /// Its algorithm is not offered.
    Algorithm,
    /// Its user is unknown.
    UnknownUser,
    /// Its response is wrong.
    WrongResponse,
    /// Its nonce is expired, may have been forgotten, or is not one of ours; the response is right.
    Stale,
    /// Its count was used before or is too old; the response is right.
    Replay,
    /// Its credential has expired or is spent; the response is right.
    Expired,
}

impl Reason {
    /// All reasons, for series that are there from the start.
    pub const ALL: [Self; 12] = [
        Self::Missing,
        Self::Scheme,
        Self::Malformed,
        Self::Uri,
        Self::UserHash,
        Self::Realm,
        Self::Algorithm,
        Self::UnknownUser,
        Self::WrongResponse,
        Self::Stale,
        Self::Replay,
        Self::Expired,
    ];

    /// The metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Scheme => "scheme",
            Self::Malformed => "malformed",
            Self::Uri => "uri",
            Self::UserHash => "userhash",
            Self::Realm => "realm",
            Self::Algorithm => "algorithm",
            Self::UnknownUser => "unknown_user",
            Self::WrongResponse => "wrong_response",
            Self::Stale => "stale",
            Self::Replay => "replay",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A request that is not authenticated. The text is for the log alone: an answer must not tell an unknown user from a
/// wrong response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {what}")]
pub struct Failure {
    reason: Reason,
    what: &'static str,
}

impl Failure {
    pub(super) fn new(reason: Reason, what: &'static str) -> Self {
        Self { reason, what }
    }

    pub(super) fn malformed(what: &'static str) -> Self {
        Self::new(Reason::Malformed, what)
    }

    /// The failure of a request whose response was right but whose credential has expired or is spent
    /// (LTKM profile §3): the terminal bootstraps again.
    pub fn expired() -> Self {
        Self::new(Reason::Expired, "the credential has expired")
    }

    /// The failure of a request whose response was right but whose nonce count was used before (`replay`), or whose
    /// nonce may have been forgotten.
    pub fn stale(replay: bool) -> Self {
        if replay {
            Self::new(Reason::Replay, "the count was used before or is too old")
        } else {
            Self::new(Reason::Stale, "the nonce may have been forgotten")
        }
    }

    /// The reason.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// 400 for what cannot be read or contradicts the request, else 401, which asks for challenges
    /// (LTKM profile §3).
    pub fn status(&self) -> u16 {
        match self.reason {
            Reason::Malformed | Reason::Uri | Reason::UserHash => 400,
            _ => 401,
        }
    }

    /// Whether the challenges say `stale=true`: the response was right, only its nonce or count was not.
    pub fn is_stale(&self) -> bool {
        matches!(self.reason, Reason::Stale | Reason::Replay)
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::stale(refused == Refused::Replayed)
    }
}
