//! Delivery receipts: what a centre says of a message that it accepted (SMPP 3.4 §4.6, §5.2.12, appendix B).

use std::collections::{HashMap, VecDeque};

use crate::delivery::{MessageId, ReceiptState};

/// What deliver_sm or data_sm carries, as far as receipts go.
#[derive(Debug, Default)]
pub(super) struct Carried<'a> {
    /// `esm_class`.
    pub(super) esm_class: u8,
    /// `short_message`, or the TLV message_payload in its place.
    pub(super) text: &'a [u8],
    /// The TLV receipted_message_id.
    pub(super) receipted_message_id: Option<&'a str>,
    /// The TLV message_state.
    pub(super) message_state: Option<u8>,
}

/// What it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inbound {
    /// A receipt, with the id as the centre spells it there.
    Receipt(MessageId, ReceiptState),
    /// A receipt without an id or a state.
    Unreadable,
    /// A message of somebody to the daemon's address.
    Message,
}

/// Message Type in `esm_class` (SMPP 3.4 §5.2.12).
const MESSAGE_TYPE: u8 = 0b0011_1100;
/// The message is a delivery receipt.
const RECEIPT: u8 = 0b0000_0100;
/// The message is an intermediate notification.
const INTERMEDIATE: u8 = 0b0010_0000;

impl Carried<'_> {
    /// TLVs count before the text. Text without the mark of a receipt is a message: anybody may send such a text.
    pub(super) fn read(&self) -> Inbound {
        let message_type = self.esm_class & MESSAGE_TYPE;
        if !matches!(message_type, RECEIPT | INTERMEDIATE) && self.receipted_message_id.is_none() {
            return Inbound::Message;
        }
        let text = String::from_utf8_lossy(self.text);
        let id = self.receipted_message_id.filter(|id| !id.is_empty()).or_else(|| field(&text, "id:"));
        let state =
            self.message_state.map(state_of_octet).or_else(|| field(&text, "stat:").map(state_of_word));
        let state = state.or((message_type == INTERMEDIATE).then_some(ReceiptState::Enroute));
        match (id.and_then(MessageId::new), state) {
            (Some(id), Some(state)) => Inbound::Receipt(id, state),
            _ => Inbound::Unreadable,
        }
    }
}

/// SMPP 3.4 §5.2.28, and the two that SMPP 5.0 adds: scheduled, which is under way, and skipped.
fn state_of_octet(octet: u8) -> ReceiptState {
    match octet {
        0 => ReceiptState::Enroute,
        _ => ReceiptState::from_octet(octet).unwrap_or(ReceiptState::Unknown),
    }
}

/// SMPP 3.4 appendix B has words of seven letters; centres write longer ones too.
fn state_of_word(word: &str) -> ReceiptState {
    const WORDS: [(&str, ReceiptState); 9] = [
        ("DELIV", ReceiptState::Delivered),
        ("EXPIR", ReceiptState::Expired),
        ("DELET", ReceiptState::Deleted),
        ("UNDEL", ReceiptState::Undeliverable),
        ("ACCEP", ReceiptState::Accepted),
        ("REJEC", ReceiptState::Rejected),
        ("ENROU", ReceiptState::Enroute),
        ("BUFF", ReceiptState::Enroute),
        ("SCHED", ReceiptState::Enroute),
    ];
    let word = word.to_ascii_uppercase();
    WORDS.iter().find(|(start, _)| word.starts_with(start)).map_or(ReceiptState::Unknown, |(_, state)| *state)
}

/// A field's value in the text of a receipt: `id:IIII sub:SSS dlvrd:DDD … stat:DDDDDDD err:E text:…`. What stands
/// behind `text:` is somebody's message and not looked at.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let lower = text.to_ascii_lowercase();
    let end = lower.find("text:").unwrap_or(text.len());
    let starts = |at: &usize| *at == 0 || lower.as_bytes()[at - 1].is_ascii_whitespace();
    let at = lower[..end].match_indices(name).map(|(at, _)| at).find(starts)?;
    text[at + name.len()..end].split_whitespace().next()
}

/// Ids that are remembered, at most.
const REMEMBERED: usize = 16_384;

/// The spellings of message ids. Some centres name a message in hexadecimal when they accept it and in decimal in
/// its receipt, or the other way round, or leave out zeros in front.
#[derive(Debug, Default)]
pub(super) struct Spellings {
    known: HashMap<Spelling, MessageId>,
    order: VecDeque<MessageId>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Spelling {
    Exact(MessageId),
    Decimal(u128),
    Hexadecimal(u128),
}

fn decimal(id: &MessageId) -> Option<u128> {
    id.as_str().bytes().all(|b| b.is_ascii_digit()).then(|| id.as_str().parse().ok())?
}

fn hexadecimal(id: &MessageId) -> Option<u128> {
    let digits = id.as_str().bytes().all(|b| b.is_ascii_hexdigit());
    digits.then(|| u128::from_str_radix(id.as_str(), 16).ok())?
}

fn spellings(id: &MessageId) -> impl Iterator<Item = Spelling> + '_ {
    let decimal = decimal(id).map(Spelling::Decimal);
    let hexadecimal = hexadecimal(id).map(Spelling::Hexadecimal);
    std::iter::once(Spelling::Exact(id.clone())).chain(decimal).chain(hexadecimal)
}

impl Spellings {
    /// Notes the id of a message that was accepted; beyond a bound the oldest is forgotten.
    pub(super) fn remember(&mut self, id: &MessageId) {
        for spelling in spellings(id) {
            self.known.insert(spelling, id.clone());
        }
        self.order.push_back(id.clone());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            for spelling in spellings(&oldest) {
                if self.known.get(&spelling) == Some(&oldest) {
                    self.known.remove(&spelling);
                }
            }
        }
    }

    /// The id of a receipt as it was spelled when the message was accepted; as it stands there when no other
    /// spelling is known.
    pub(super) fn accepted_as(&self, id: MessageId) -> MessageId {
        let same = [decimal(&id).map(Spelling::Decimal), hexadecimal(&id).map(Spelling::Hexadecimal)];
        let other = [decimal(&id).map(Spelling::Hexadecimal), hexadecimal(&id).map(Spelling::Decimal)];
        let tried = [Some(Spelling::Exact(id.clone()))].into_iter().chain(same).chain(other).flatten();
        tried.filter_map(|spelling| self.known.get(&spelling)).next().cloned().unwrap_or(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> MessageId {
        MessageId::new(text).unwrap()
    }

    fn receipt(text: &str) -> Inbound {
        Carried { esm_class: RECEIPT, text: text.as_bytes(), ..Carried::default() }.read()
    }

    #[test]
    fn the_text_of_a_receipt_is_read_as_appendix_b_has_it() {
        for (word, state) in [
            ("ENROUTE", ReceiptState::Enroute),
            ("DELIVRD", ReceiptState::Delivered),
            ("EXPIRED", ReceiptState::Expired),
            ("DELETED", ReceiptState::Deleted),
            ("UNDELIV", ReceiptState::Undeliverable),
            ("ACCEPTD", ReceiptState::Accepted),
            ("UNKNOWN", ReceiptState::Unknown),
            ("REJECTD", ReceiptState::Rejected),
            ("Delivered", ReceiptState::Delivered),
            ("new", ReceiptState::Unknown),
        ] {
            let text = format!(
                "id:0123456789 sub:001 dlvrd:001 submit date:2611220600 done date:2611220601 stat:{word} err:000 text:x"
            );
            assert_eq!(receipt(&text), Inbound::Receipt(id("0123456789"), state), "{word}");
        }
        assert_eq!(receipt("STAT:DELIVRD ID:a-1"), Inbound::Receipt(id("a-1"), ReceiptState::Delivered));
    }

    #[test]
    fn nothing_is_read_out_of_the_message_that_a_receipt_quotes() {
        assert_eq!(receipt("id:7 text:stat:DELIVRD"), Inbound::Unreadable);
        assert_eq!(receipt("sub:001 stat:DELIVRD text: id:7"), Inbound::Unreadable);
        assert_eq!(receipt("paid:7 stat:DELIVRD"), Inbound::Unreadable, "a field begins a word");
        assert_eq!(receipt(""), Inbound::Unreadable);
    }

    #[test]
    fn tlvs_count_before_the_text() {
        let carried = Carried {
            esm_class: RECEIPT,
            text: b"id:1 stat:UNDELIV",
            receipted_message_id: Some("a1"),
            message_state: Some(2),
        };
        assert_eq!(carried.read(), Inbound::Receipt(id("a1"), ReceiptState::Delivered));
        let alone =
            Carried { receipted_message_id: Some("a1"), message_state: Some(5), ..Carried::default() };
        assert_eq!(alone.read(), Inbound::Receipt(id("a1"), ReceiptState::Undeliverable));
        let intermediate = Carried { esm_class: INTERMEDIATE, text: b"id:1", ..Carried::default() };
        assert_eq!(intermediate.read(), Inbound::Receipt(id("1"), ReceiptState::Enroute));
    }

    #[test]
    fn a_text_that_only_looks_like_a_receipt_is_a_message() {
        let text = Carried { text: b"id:1 stat:UNDELIV", ..Carried::default() };
        assert_eq!(text.read(), Inbound::Message);
    }

    #[test]
    fn an_id_is_found_under_its_other_spellings() {
        for (accepted, receipt) in [
            ("1A2b", "6699"),
            ("6699", "1a2b"),
            ("0000001A", "26"),
            ("00012", "12"),
            ("ABC", "abc"),
            ("x-1", "x-1"),
        ] {
            let mut spellings = Spellings::default();
            spellings.remember(&id("zzz"));
            spellings.remember(&id(accepted));
            assert_eq!(spellings.accepted_as(id(receipt)), id(accepted));
        }
        assert_eq!(Spellings::default().accepted_as(id("12")), id("12"), "unknown: as it stands");
    }

    #[test]
    fn the_same_spelling_counts_before_another() {
        let mut spellings = Spellings::default();
        spellings.remember(&id("10"));
        spellings.remember(&id("16"));
        assert_eq!(spellings.accepted_as(id("10")), id("10"));
        assert_eq!(spellings.accepted_as(id("16")), id("16"));
    }

    #[test]
    fn as_many_ids_are_remembered_as_the_bound_says() {
        let mut spellings = Spellings::default();
        for n in 0..=REMEMBERED {
            spellings.remember(&id(&format!("{n:08X}")));
        }
        assert_eq!(spellings.order.len(), REMEMBERED);
        assert_eq!(spellings.accepted_as(id("1")), id("00000001"));
        assert_eq!(spellings.accepted_as(id("0")), id("0"), "the oldest is forgotten");
    }
}
