//! The registry numbers of MIKEY, each a newtype over the octet it travels in.
//!
//! A number is never refused for being unknown: it survives a round trip, and what does not fit an
//! operation is refused by that operation, with the number in the error. The constants are those of RFC 3830,
//! RFC 4563 and RFC 5410; RFC 6309 rules over the registries.

use core::fmt;

macro_rules! registry {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$constant_doc:meta])* $constant:ident = $value:literal $text:literal,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u8);

        impl $name {
            $($(#[$constant_doc])* pub const $constant: Self = Self($value);)*

            /// The registered name of this number; `None` for one that this crate has no name for.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($text),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} ({})", self.name().unwrap_or("unknown"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({} {})", stringify!($name), self.0, self.name().unwrap_or("unknown"))
            }
        }
    };
}

registry! {
    /// Data type: what kind of message this is (RFC 3830 §6.1, Table 6.1.a).
    DataType {
        /// Initiator's pre-shared key message; an LTKM is one.
        PRE_SHARED = 0 "pre-shared",
        /// Verification message of a pre-shared key message.
        PSK_VERIFICATION = 1 "PSK ver msg",
        /// Initiator's public-key transport message.
        PUBLIC_KEY = 2 "public key",
        /// Verification message of a public-key message.
        PK_VERIFICATION = 3 "PK ver msg",
        /// Initiator's Diffie-Hellman message.
        DH_INIT = 4 "D-H init",
        /// Responder's Diffie-Hellman message.
        DH_RESP = 5 "D-H resp",
        /// Error message.
        ERROR = 6 "error",
    }
}

registry! {
    /// Next payload: the kind of the payload that follows (RFC 3830 §6.1, Table 6.1.b).
    PayloadType {
        /// Nothing follows.
        LAST = 0 "Last payload",
        /// Key data transport (§6.2).
        KEMAC = 1 "KEMAC",
        /// Envelope data (§6.3).
        PKE = 2 "PKE",
        /// Diffie-Hellman data (§6.4).
        DH = 3 "DH",
        /// Signature (§6.5).
        SIGN = 4 "SIGN",
        /// Timestamp (§6.6).
        T = 5 "T",
        /// Identity (§6.7).
        ID = 6 "ID",
        /// Certificate (§6.7).
        CERT = 7 "CERT",
        /// Certificate hash (§6.8).
        CHASH = 8 "CHASH",
        /// Verification message (§6.9).
        V = 9 "V",
        /// Security policy (§6.10).
        SP = 10 "SP",
        /// Random value (§6.11).
        RAND = 11 "RAND",
        /// Error (§6.12).
        ERR = 12 "ERR",
        /// Key data, only inside of a KEMAC (§6.13).
        KEY_DATA = 20 "Key data",
        /// General extension (§6.15).
        GENERAL_EXT = 21 "General Ext.",
    }
}

registry! {
    /// PRF func, 7 bits (RFC 3830 §6.1, Table 6.1.c).
    PrfFunc {
        /// MIKEY-1, the default PRF of §4.1.2.
        MIKEY_1 = 0 "MIKEY-1",
    }
}

registry! {
    /// CS ID map type (RFC 3830 §6.1, Table 6.1.d; RFC 4563 §5, Table 3).
    CsIdMapType {
        /// SRTP-ID (RFC 3830 §6.1.1): nine octets for each crypto session.
        SRTP_ID = 0 "SRTP-ID",
        /// Empty map (RFC 4563 §5): map and policy are conveyed outside of MIKEY.
        EMPTY = 1 "empty map",
    }
}

registry! {
    /// Encr alg of a KEMAC (RFC 3830 §6.2, Table 6.2.a).
    EncrAlg {
        /// No encryption; see the warning of §4.2.3.
        NULL = 0 "NULL",
        /// AES in counter mode with a 128-bit key, mandatory.
        AES_CM_128 = 1 "AES-CM-128",
        /// AES key wrap (RFC 3394) with a 128-bit key.
        AES_KW_128 = 2 "AES-KW-128",
    }
}

registry! {
    /// MAC alg of a KEMAC and Auth alg of a V payload (RFC 3830 §6.2, Table 6.2.b).
    MacAlg {
        /// No MAC; see the warning of §4.2.4.
        NULL = 0 "NULL",
        /// HMAC-SHA-1 with a tag of 160 bits, mandatory.
        HMAC_SHA_1_160 = 1 "HMAC-SHA-1-160",
    }
}

impl MacAlg {
    /// The length of the tag in octets (RFC 3830 Table 6.2.b); `None` for a number without a known length.
    #[must_use]
    pub const fn tag_len(self) -> Option<usize> {
        match self {
            Self::NULL => Some(0),
            Self::HMAC_SHA_1_160 => Some(20),
            _ => None,
        }
    }
}

registry! {
    /// C, the envelope key cache indicator of a PKE payload, 2 bits (RFC 3830 §6.3, Table 6.3).
    CacheType {
        /// The envelope key must not be cached.
        NO_CACHE = 0 "no cache",
        /// The envelope key must be cached.
        CACHE = 1 "cache",
        /// The envelope key must be cached for this CSB alone.
        CACHE_FOR_CSB = 2 "cache for CSB",
    }
}

registry! {
    /// DH-Group (RFC 3830 §6.4, Table 6.4).
    DhGroup {
        /// OAKLEY group 5, 1536 bits.
        OAKLEY_5 = 0 "OAKLEY 5",
        /// OAKLEY group 1, 768 bits.
        OAKLEY_1 = 1 "OAKLEY 1",
        /// OAKLEY group 2, 1024 bits.
        OAKLEY_2 = 2 "OAKLEY 2",
    }
}

impl DhGroup {
    /// The length of a DH-value in octets (RFC 3830 Table 6.4); `None` for a group without a known length.
    #[must_use]
    pub const fn value_len(self) -> Option<usize> {
        match self {
            Self::OAKLEY_5 => Some(192),
            Self::OAKLEY_1 => Some(96),
            Self::OAKLEY_2 => Some(128),
            _ => None,
        }
    }
}

registry! {
    /// S type of a SIGN payload, 4 bits (RFC 3830 §6.5, Table 6.5).
    SignatureType {
        /// RSA with PKCS #1 version 1.5 padding.
        RSA_PKCS1_V1_5 = 0 "RSA/PKCS#1/1.5",
        /// RSASSA-PSS.
        RSA_PSS = 1 "RSA/PSS",
    }
}

registry! {
    /// TS type of a T payload (RFC 3830 §6.6, Table 6.6).
    TsType {
        /// NTP timestamp in UTC, 64 bits.
        NTP_UTC = 0 "NTP-UTC",
        /// NTP timestamp, 64 bits.
        NTP = 1 "NTP",
        /// Counter, 32 bits; LTKMs use it.
        COUNTER = 2 "COUNTER",
    }
}

impl TsType {
    /// The length of the TS value in octets (RFC 3830 Table 6.6); `None` for a type without a known length.
    #[must_use]
    pub const fn value_len(self) -> Option<usize> {
        match self {
            Self::NTP_UTC | Self::NTP => Some(8),
            Self::COUNTER => Some(4),
            _ => None,
        }
    }
}

registry! {
    /// ID Type (RFC 3830 §6.7, Table 6.7.a).
    IdType {
        /// Network access identifier (RFC 4282).
        NAI = 0 "NAI",
        /// Uniform resource identifier.
        URI = 1 "URI",
    }
}

registry! {
    /// Cert Type (RFC 3830 §6.7, Table 6.7.b).
    CertType {
        /// X.509v3.
        X509V3 = 0 "X.509v3",
        /// Plain ASCII URL of an X.509v3 certificate.
        X509V3_URL = 1 "X.509v3 URL",
        /// X.509v3, for signatures only.
        X509V3_SIGN = 2 "X.509v3 Sign",
        /// X.509v3, for encryption only.
        X509V3_ENCR = 3 "X.509v3 Encr",
    }
}

registry! {
    /// Hash func of a CHASH payload (RFC 3830 §6.8, Table 6.8).
    HashFunc {
        /// SHA-1, 160 bits.
        SHA_1 = 0 "SHA-1",
        /// MD5, 128 bits.
        MD5 = 1 "MD5",
    }
}

impl HashFunc {
    /// The length of the hash in octets (RFC 3830 Table 6.8); `None` for a function without a known length.
    #[must_use]
    pub const fn hash_len(self) -> Option<usize> {
        match self {
            Self::SHA_1 => Some(20),
            Self::MD5 => Some(16),
            _ => None,
        }
    }
}

registry! {
    /// Prot type of an SP payload (RFC 3830 §6.10, Table 6.10).
    ProtType {
        /// SRTP.
        SRTP = 0 "SRTP",
    }
}

registry! {
    /// Type of an SRTP policy parameter (RFC 3830 §6.10.1, Table 6.10.1.a).
    SrtpParam {
        /// Encryption algorithm: one octet, 0 NULL, 1 AES-CM, 2 AES-F8 (Table 6.10.1.b).
        ENCR_ALG = 0 "encryption algorithm",
        /// Session encryption key length in octets.
        SESSION_ENCR_KEY_LEN = 1 "session encr. key length",
        /// Authentication algorithm: one octet, 0 NULL, 1 HMAC-SHA-1 (Table 6.10.1.c).
        AUTH_ALG = 2 "authentication algorithm",
        /// Session authentication key length in octets.
        SESSION_AUTH_KEY_LEN = 3 "session auth. key length",
        /// Session salt key length in octets.
        SESSION_SALT_KEY_LEN = 4 "session salt key length",
        /// SRTP pseudo-random function: one octet, 0 AES-CM (Table 6.10.1.d).
        PRF = 5 "SRTP pseudo-random function",
        /// Key derivation rate.
        KEY_DERIVATION_RATE = 6 "key derivation rate",
        /// SRTP encryption: 0 off, 1 on.
        SRTP_ENCRYPTION = 7 "SRTP encryption",
        /// SRTCP encryption: 0 off, 1 on.
        SRTCP_ENCRYPTION = 8 "SRTCP encryption",
        /// Sender's FEC order: 0 first FEC, then SRTP (Table 6.10.1.e).
        FEC_ORDER = 9 "sender's FEC order",
        /// SRTP authentication: 0 off, 1 on.
        SRTP_AUTHENTICATION = 10 "SRTP authentication",
        /// Authentication tag length in octets.
        AUTH_TAG_LEN = 11 "authentication tag length",
        /// SRTP prefix length in octets.
        PREFIX_LEN = 12 "SRTP prefix length",
    }
}

registry! {
    /// Error no of an ERR payload (RFC 3830 §6.12, Table 6.12).
    ErrorNo {
        /// Authentication failure.
        AUTH_FAILURE = 0 "Auth failure",
        /// Invalid timestamp.
        INVALID_TS = 1 "Invalid TS",
        /// PRF function not supported.
        INVALID_PRF = 2 "Invalid PRF",
        /// MAC algorithm not supported.
        INVALID_MAC = 3 "Invalid MAC",
        /// Encryption algorithm not supported.
        INVALID_EA = 4 "Invalid EA",
        /// Hash function not supported.
        INVALID_HA = 5 "Invalid HA",
        /// Diffie-Hellman group not supported.
        INVALID_DH = 6 "Invalid DH",
        /// ID not supported.
        INVALID_ID = 7 "Invalid ID",
        /// Certificate not supported.
        INVALID_CERT = 8 "Invalid Cert",
        /// Security policy type not supported.
        INVALID_SP = 9 "Invalid SP",
        /// Security policy parameters not supported.
        INVALID_SP_PAR = 10 "Invalid SPpar",
        /// Data type not supported.
        INVALID_DT = 11 "Invalid DT",
        /// An unspecified error.
        UNSPECIFIED = 12 "Unspecified error",
    }
}

registry! {
    /// Type of a Key data sub-payload, 4 bits (RFC 3830 §6.13, Table 6.13.a).
    KeyDataType {
        /// TEK generation key; an LTKM's SEK/PEK is one.
        TGK = 0 "TGK",
        /// TEK generation key and salt.
        TGK_SALT = 1 "TGK+SALT",
        /// Traffic encryption key.
        TEK = 2 "TEK",
        /// Traffic encryption key and salt.
        TEK_SALT = 3 "TEK+SALT",
    }
}

impl KeyDataType {
    /// Whether a salt travels beside the key (RFC 3830 Table 6.13.a); `None` for a type whose layout is unknown.
    #[must_use]
    pub const fn has_salt(self) -> Option<bool> {
        match self {
            Self::TGK | Self::TEK => Some(false),
            Self::TGK_SALT | Self::TEK_SALT => Some(true),
            _ => None,
        }
    }
}

registry! {
    /// KV, the kind of key validity, 4 bits (RFC 3830 §6.13, Table 6.13.b).
    KvType {
        /// No specific usage rule.
        NULL = 0 "Null",
        /// The key is associated with an SPI or MKI.
        SPI = 1 "SPI",
        /// The key has a start and an expiration.
        INTERVAL = 2 "Interval",
    }
}

impl KvType {
    /// Whether the layout of its KV data is known (RFC 3830 §6.14).
    #[must_use]
    pub const fn is_known(self) -> bool {
        matches!(self, Self::NULL | Self::SPI | Self::INTERVAL)
    }
}

registry! {
    /// Type of a General Extension payload (RFC 3830 §6.15, Table 6.15; RFC 4563 §4; RFC 5410 §3).
    ExtType {
        /// Vendor specific octets.
        VENDOR_ID = 0 "Vendor ID",
        /// List of SDP key management IDs (RFC 4567).
        SDP_IDS = 1 "SDP IDs",
        /// Key ID information (RFC 4563).
        KEY_ID = 3 "Key ID",
        /// OMA BCAST (RFC 5410).
        OMA_BCAST = 5 "OMA BCAST",
    }
}

registry! {
    /// Key ID Type (RFC 4563 §4, Table 2).
    KeyIdType {
        /// MBMS Key Domain ID, 3 octets in MBMS.
        KEY_DOMAIN = 0 "MBMS Key Domain ID",
        /// MBMS service key (MSK) ID, 4 octets in MBMS.
        SERVICE_KEY = 1 "MBMS Service Key ID",
        /// MBMS traffic key (MTK) ID, 2 octets in MBMS.
        TRAFFIC_KEY = 2 "MBMS Traffic Key ID",
    }
}

registry! {
    /// Subtype of the OMA BCAST extension (RFC 5410 §3, Figure 4).
    BcastSubtype {
        /// Long-term key message.
        LTKM = 1 "LTKM",
        /// Short-term key message.
        STKM = 2 "STKM",
        /// LTKM reporting message.
        LTKM_REPORTING = 3 "LTKM Reporting",
        /// Parental control message.
        PARENTAL_CONTROL = 4 "Parental Control",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_prints_its_registered_name_and_an_unknown_one_says_so() {
        assert_eq!(EncrAlg::AES_CM_128.to_string(), "AES-CM-128 (1)");
        assert_eq!(EncrAlg(77).to_string(), "unknown (77)");
        assert_eq!(format!("{:?}", PayloadType(77)), "PayloadType(77 unknown)");
    }
}
