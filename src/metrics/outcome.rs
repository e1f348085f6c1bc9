//! Values of labels that no lower room names.

/// Outcomes of datagrams received; the values of the label `outcome` of `ltkmd_udp_received_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UdpOutcome {
    /// A verification message that proved a delivery.
    Verified,
    /// One that was taken before.
    Duplicate,
    /// No MIKEY verification message of the profile.
    Malformed,
    /// A MIKEY error message.
    Error,
    /// No terminal of this B-TID.
    Unknown,
    /// An authentic answer to an LTKM that no delivery knows any more.
    Stale,
    /// The MAC is wrong.
    WrongMac,
    /// Shed: the intake's queue was full.
    Shed,
    /// Authentic, but it could not be recorded: the store was down. The terminal is asked again.
    Unrecorded,
}

impl UdpOutcome {
    /// All outcomes.
    pub const ALL: [Self; 9] = [
        Self::Verified,
        Self::Duplicate,
        Self::Malformed,
        Self::Error,
        Self::Unknown,
        Self::Stale,
        Self::WrongMac,
        Self::Shed,
        Self::Unrecorded,
    ];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Duplicate => "duplicate",
            Self::Malformed => "malformed",
            Self::Error => "error",
            Self::Unknown => "unknown",
            Self::Stale => "stale",
            Self::WrongMac => "wrong_mac",
            Self::Shed => "shed",
            Self::Unrecorded => "unrecorded",
        }
    }
}

/// What becomes of a submit_sm; the values of the label `outcome` of `ltkmd_sms_submitted_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmsOutcome {
    /// The centre accepted it.
    Accepted,
    /// The centre asked for patience; it is sent again.
    Throttled,
    /// The centre refused it, or never answered.
    Failed,
}

impl SmsOutcome {
    /// All outcomes.
    pub const ALL: [Self; 3] = [Self::Accepted, Self::Throttled, Self::Failed];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Throttled => "throttled",
            Self::Failed => "failed",
        }
    }
}

/// Why a short message centre could not be bound to, or was lost; the values of the label `reason` of
/// `ltkmd_smsc_faults_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmscFault {
    /// It cannot be reached.
    Connect,
    /// No TLS with it.
    Tls,
    /// It refuses the bind.
    Refused,
    /// It answers nothing.
    Timeout,
    /// It closed the connection, or the connection broke.
    Closed,
    /// It does not keep to SMPP.
    Nonsense,
    /// It ended the session.
    Unbound,
}

impl SmscFault {
    /// All reasons.
    pub const ALL: [Self; 7] =
        [Self::Connect, Self::Tls, Self::Refused, Self::Timeout, Self::Closed, Self::Nonsense, Self::Unbound];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Nonsense => "nonsense",
            Self::Unbound => "unbound",
        }
    }
}
