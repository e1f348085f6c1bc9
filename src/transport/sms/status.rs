//! What each `command_status` of SMPP 3.4 (§5.1.3) means for a message, and for a bind: one table.

/// What an answer to submit_sm means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The centre has it.
    Accepted,
    /// Too fast: the whole link pauses, longer each time, and the message is tried again.
    Throttled,
    /// A queue is full, this phone's or the centre's: the message waits, and the link with it when the next answer
    /// says the same.
    Full,
    /// The centre is in trouble: tried again a few times, then given back as not sent.
    Again,
    /// Sending it again would not help.
    Refused,
    /// The link is of no use: it is closed, nothing on it was sent.
    Broken,
}

use Verdict::{Accepted, Again, Broken, Full, Refused, Throttled};

/// Number, name, and what it means for a message.
const TABLE: &[(u32, &str, Verdict)] = &[
    (0x00, "ESME_ROK", Accepted),
    (0x01, "ESME_RINVMSGLEN", Refused),
    (0x02, "ESME_RINVCMDLEN", Refused),
    (0x03, "ESME_RINVCMDID", Broken),
    (0x04, "ESME_RINVBNDSTS", Broken),
    (0x05, "ESME_RALYBND", Broken),
    (0x06, "ESME_RINVPRTFLG", Refused),
    (0x07, "ESME_RINVREGDLVFLG", Refused),
    (0x08, "ESME_RSYSERR", Again),
    (0x0A, "ESME_RINVSRCADR", Refused),
    (0x0B, "ESME_RINVDSTADR", Refused),
    (0x0C, "ESME_RINVMSGID", Refused),
    (0x0D, "ESME_RBINDFAIL", Broken),
    (0x0E, "ESME_RINVPASWD", Broken),
    (0x0F, "ESME_RINVSYSID", Broken),
    (0x11, "ESME_RCANCELFAIL", Refused),
    (0x13, "ESME_RREPLACEFAIL", Refused),
    (0x14, "ESME_RMSGQFUL", Full),
    (0x15, "ESME_RINVSERTYP", Refused),
    (0x33, "ESME_RINVNUMDESTS", Refused),
    (0x34, "ESME_RINVDLNAME", Refused),
    (0x40, "ESME_RINVDESTFLAG", Refused),
    (0x42, "ESME_RINVSUBREP", Refused),
    (0x43, "ESME_RINVESMCLASS", Refused),
    (0x44, "ESME_RCNTSUBDL", Refused),
    (0x45, "ESME_RSUBMITFAIL", Again),
    (0x48, "ESME_RINVSRCTON", Refused),
    (0x49, "ESME_RINVSRCNPI", Refused),
    (0x50, "ESME_RINVDSTTON", Refused),
    (0x51, "ESME_RINVDSTNPI", Refused),
    (0x53, "ESME_RINVSYSTYP", Broken),
    (0x54, "ESME_RINVREPFLAG", Refused),
    (0x55, "ESME_RINVNUMMSGS", Refused),
    (0x58, "ESME_RTHROTTLED", Throttled),
    (0x61, "ESME_RINVSCHED", Refused),
    (0x62, "ESME_RINVEXPIRY", Refused),
    (0x63, "ESME_RINVDFTMSGID", Refused),
    (RX_T_APPN, "ESME_RX_T_APPN", Again),
    (RX_P_APPN, "ESME_RX_P_APPN", Refused),
    (RX_R_APPN, "ESME_RX_R_APPN", Refused),
    (0x67, "ESME_RQUERYFAIL", Refused),
    (0xC0, "ESME_RINVOPTPARSTREAM", Refused),
    (0xC1, "ESME_ROPTPARNOTALLWD", Refused),
    (0xC2, "ESME_RINVPARLEN", Refused),
    (0xC3, "ESME_RMISSINGOPTPARAM", Refused),
    (0xC4, "ESME_RINVOPTPARAMVAL", Refused),
    (0xFE, "ESME_RDELIVERYFAILURE", Refused),
    (0xFF, "ESME_RUNKNOWNERR", Again),
];

/// ESME_ROK.
pub(super) const ROK: u32 = 0x00;
/// ESME_RINVMSGLEN: the daemon's own answer to a message that is too long.
pub(super) const RINVMSGLEN: u32 = 0x01;
/// ESME_RINVCMDID: the answer to a request that the daemon does not know.
pub(super) const RINVCMDID: u32 = 0x03;
/// ESME_RX_T_APPN: the answer to a receipt that cannot be taken now.
pub(super) const RX_T_APPN: u32 = 0x64;
/// ESME_RX_P_APPN: the daemon's own answer to a message that must not go by SMS.
pub(super) const RX_P_APPN: u32 = 0x65;
/// ESME_RX_R_APPN: the answer to a delivery that cannot be read.
pub(super) const RX_R_APPN: u32 = 0x66;

fn row(status: u32) -> Option<&'static (u32, &'static str, Verdict)> {
    TABLE.iter().find(|(number, ..)| *number == status)
}

/// What an answer to submit_sm means. Reserved numbers and a centre's own (0x400 to 0x4FF) are tried again.
pub(super) fn verdict(status: u32) -> Verdict {
    row(status).map_or(Again, |(.., verdict)| *verdict)
}

/// The status as logs have it: `ESME_RINVPASWD (0x0000000E)`.
pub(crate) fn shown(status: u32) -> String {
    let name = match row(status) {
        Some((_, name, _)) => name,
        None if (0x400..=0x4FF).contains(&status) => "a status of the centre's own",
        None => "an unknown status",
    };
    format!("{name} (0x{status:08X})")
}

/// What to do about a bind that was answered so.
pub(super) fn after_bind(status: u32) -> &'static str {
    match status {
        0x0D..=0x0F => "check sms.system_id and sms.sms_password_file",
        0x03 => "the centre may not know bind_transceiver: try sms.bind = \"transmitter-receiver\"",
        0x04 => "the centre may not allow this kind of bind: try the other sms.bind",
        0x05 => "another connection is bound with sms.system_id: end it, or have the centre allow more",
        0x08 | 0x14 | 0x58 | 0x64 => {
            "the centre is in trouble or wants fewer binds: ask its operator if it lasts"
        }
        _ => "ask the centre's operator",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ascend_and_each_has_a_name_of_its_own() {
        assert!(TABLE.is_sorted_by(|a, b| a.0 < b.0));
        let mut names: Vec<_> = TABLE.iter().map(|(_, name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len());
    }

    #[test]
    fn what_nobody_defined_is_tried_again() {
        assert_eq!(verdict(0x401), Again);
        assert_eq!(shown(0x401), "a status of the centre's own (0x00000401)");
        assert_eq!(verdict(0x0100_0000), Again);
        assert_eq!(shown(0x0E), "ESME_RINVPASWD (0x0000000E)");
    }
}
