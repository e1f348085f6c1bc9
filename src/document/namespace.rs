//! The namespaces of the documents, and which of their dialects are read (LTKM profile §2.1).

/// The start of every namespace of the MBMS security documents; compared without regard to case.
const MBMS_STEM: &str = "urn:3GPP:metadata:2005:MBMS:";

/// The last parts of those namespaces. Any of them is accepted on any document: the root's local name decides.
const MBMS_PARTS: [&str; 6] = [
    "securityRegistration",
    "securityRegistrationRequest",
    "securityRegistrationResponse",
    "securityDeregistration",
    "mskRequest",
    "mskResponse",
];

/// The namespace that a registration is written in.
pub const REGISTRATION: &str = "urn:3GPP:metadata:2005:MBMS:securityRegistration";
/// The namespace that a deregistration is written in.
pub const DEREGISTRATION: &str = "urn:3GPP:metadata:2005:MBMS:securityDeregistration";
/// The namespace that an MSK request is written in.
pub const MSK_REQUEST: &str = "urn:3GPP:metadata:2005:MBMS:mskRequest";
/// The namespace of registration and deregistration answers.
pub const REGISTRATION_RESPONSE: &str = "urn:3GPP:metadata:2005:MBMS:securityRegistrationResponse";
/// The namespace of MSK answers.
pub const MSK_RESPONSE: &str = "urn:3GPP:metadata:2005:MBMS:mskResponse";
/// The namespace of the BCAST containers (OMA BCAST order queries 1.0).
pub const BCAST: &str = "urn:oma:xml:bcast:pr:orderqueries:1.0";

/// What a namespace means to the readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    /// No namespace at all.
    None,
    /// Any of the MBMS security documents' namespaces.
    Mbms,
    /// The BCAST containers' namespace.
    Bcast,
    /// The default namespace that the root element declares, when it is none of the above.
    RootDefault,
    /// Any other.
    Foreign,
}

impl Space {
    /// Sorts a namespace name; `root_default` is the default namespace in scope on the root element.
    pub(super) fn of(name: &str, root_default: &str) -> Self {
        match name {
            "" => Self::None,
            BCAST => Self::Bcast,
            name if is_mbms(name) => Self::Mbms,
            name if name == root_default => Self::RootDefault,
            _ => Self::Foreign,
        }
    }

    /// Whether a child of a BCAST container may be here: in the container's namespace, the document's default
    /// namespace, or none (LTKM profile §2.1).
    pub(super) fn holds_container_children(self) -> bool {
        self != Self::Foreign
    }
}

fn is_mbms(name: &str) -> bool {
    name.split_at_checked(MBMS_STEM.len())
        .is_some_and(|(stem, part)| stem.eq_ignore_ascii_case(MBMS_STEM) && MBMS_PARTS.contains(&part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stem_is_compared_without_case_and_the_last_part_with_it() {
        assert_eq!(Space::of("urn:3gpp:metadata:2005:mbms:mskRequest", ""), Space::Mbms);
        assert_eq!(Space::of("URN:3GPP:METADATA:2005:MBMS:securityRegistrationRequest", ""), Space::Mbms);
        for foreign in [
            "urn:3GPP:metadata:2005:MBMS:securityregistration",
            "urn:3GPP:metadata:2005:MBMS:",
            "urn:3GPP:metadata:2005:MBMS:userServiceDescription",
            "urn:3GPP:metadata:2005:MBMS",
            "urn:3GPP:metadata:2005:MBM\u{15a}:mskRequest",
        ] {
            assert_eq!(Space::of(foreign, ""), Space::Foreign, "{foreign}");
        }
    }

    #[test]
    fn every_namespace_that_is_written_is_read() {
        for name in [REGISTRATION, DEREGISTRATION, MSK_REQUEST, REGISTRATION_RESPONSE, MSK_RESPONSE] {
            assert_eq!(Space::of(name, ""), Space::Mbms, "{name}");
        }
        assert_eq!(Space::of(BCAST, ""), Space::Bcast);
        assert_eq!(Space::of("urn:x", "urn:x"), Space::RootDefault);
        assert_eq!(Space::of("", ""), Space::None);
    }
}
