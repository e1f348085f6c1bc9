//! Delivery receipts: made when a message has found its end, kept until an ESME takes them (SMPP 3.4 §4.6, appendix B).

use std::collections::VecDeque;
use std::str::FromStr;
use std::sync::Mutex;

use rusmpp_core::pdus::owned::DeliverSm;
use rusmpp_core::tlvs::owned::MessageDeliveryRequestTlvValue as Tlv;
use rusmpp_core::types::owned::{COctetString, OctetString};
use rusmpp_core::values::{DataCoding, EsmClass, MessageState, Npi, Ton};
use tokio::sync::watch;

use crate::delivery::ReceiptState;
use crate::time::Timestamp;

/// Receipts that wait for an ESME, at most; one more pushes the oldest out.
pub(super) const MAX_WAITING: usize = 1000;

/// esm_class of a delivery receipt (SMPP 3.4 §5.2.12).
const DELIVERY_RECEIPT: u8 = 0b0000_0100;

/// When a receipt is wanted (SMPP 3.4 §5.2.17).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Never,
    Always,
    OnFailure,
}

impl Wanted {
    /// What `registered_delivery` asks for.
    pub(super) fn of(registered_delivery: u8) -> Self {
        match registered_delivery & 0b11 {
            1 => Self::Always,
            2 => Self::OnFailure,
            _ => Self::Never,
        }
    }

    fn by(self, state: ReceiptState) -> bool {
        self == Self::Always || self == Self::OnFailure && state != ReceiptState::Delivered
    }
}

/// An address with its type and plan (SMPP 3.4 §4.4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) ton: Ton,
    pub(super) npi: Npi,
    pub(super) digits: COctetString<1, 21>,
}

/// What a submitted message is owed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ticket {
    /// The centre's name of it.
    pub(super) id: String,
    /// Who submitted it.
    pub(super) system_id: String,
    pub(super) from: Address,
    pub(super) to: Address,
    pub(super) wanted: Wanted,
    pub(super) submitted: Timestamp,
}

/// A receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Receipt {
    pub(super) ticket: Ticket,
    pub(super) state: ReceiptState,
    pub(super) done: Timestamp,
}

impl Receipt {
    /// The PDU: text and TLVs say the same.
    pub(super) fn pdu(&self) -> DeliverSm {
        let Ticket { id, from, to, submitted, .. } = &self.ticket;
        let (state, name) = match self.state {
            ReceiptState::Enroute => (MessageState::Enroute, "ENROUTE"),
            ReceiptState::Delivered => (MessageState::Delivered, "DELIVRD"),
            ReceiptState::Expired => (MessageState::Expired, "EXPIRED"),
            ReceiptState::Deleted => (MessageState::Deleted, "DELETED"),
            ReceiptState::Undeliverable => (MessageState::Undeliverable, "UNDELIV"),
            ReceiptState::Accepted => (MessageState::Accepted, "ACCEPTD"),
            ReceiptState::Unknown => (MessageState::Unknown, "UNKNOWN"),
            ReceiptState::Rejected => (MessageState::Rejected, "REJECTD"),
        };
        let delivered = u8::from(self.state == ReceiptState::Delivered);
        let text = format!(
            "id:{id} sub:001 dlvrd:00{delivered} submit date:{} done date:{} stat:{name} err:000 text:",
            minute(*submitted),
            minute(self.done),
        );
        let text = OctetString::from_vec(text.into_bytes()).expect("a receipt's text is below 255 octets");
        let id = COctetString::from_str(id).expect("an id is 16 hex digits");
        DeliverSm::builder()
            .source_addr_ton(to.ton)
            .source_addr_npi(to.npi)
            .source_addr(to.digits.clone())
            .dest_addr_ton(from.ton)
            .dest_addr_npi(from.npi)
            .destination_addr(from.digits.clone())
            .esm_class(EsmClass::from(DELIVERY_RECEIPT))
            .data_coding(DataCoding::default())
            .short_message(text)
            .tlvs(vec![Tlv::ReceiptedMessageId(id), Tlv::MessageState(state)])
            .build()
    }
}

/// `YYMMDDhhmm` in UTC, as appendix B has it.
fn minute(at: Timestamp) -> String {
    let text = at.to_string();
    [2..4, 5..7, 8..10, 11..13, 14..16].into_iter().filter_map(|digits| text.get(digits)).collect()
}

/// The receipts that wait for somebody to take them.
#[derive(Debug)]
pub(super) struct Receipts {
    waiting: Mutex<VecDeque<Receipt>>,
    changed: watch::Sender<()>,
}

impl Default for Receipts {
    fn default() -> Self {
        Self { waiting: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl Receipts {
    /// Tells of new receipts.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Makes the receipts that are wanted of these messages, which have come to this end.
    pub(super) fn settle(&self, tickets: Vec<Ticket>, state: ReceiptState, done: Timestamp) {
        let wanted = tickets.into_iter().filter(|ticket| ticket.wanted.by(state));
        let receipts: Vec<Receipt> = wanted.map(|ticket| Receipt { ticket, state, done }).collect();
        if receipts.is_empty() {
            return;
        }
        self.locked(|waiting| {
            waiting.extend(receipts);
            while waiting.len() > MAX_WAITING {
                waiting.pop_front();
            }
        });
        self.changed.send_replace(());
    }

    /// Takes the oldest receipt for this ESME.
    pub(super) fn take(&self, system_id: &str) -> Option<Receipt> {
        self.locked(|waiting| {
            let at = waiting.iter().position(|receipt| receipt.ticket.system_id == system_id)?;
            waiting.remove(at)
        })
    }

    /// Puts receipts back that nobody has acknowledged, oldest first.
    pub(super) fn put_back(&self, receipts: impl DoubleEndedIterator<Item = Receipt>) {
        self.locked(|waiting| {
            for receipt in receipts.rev() {
                if waiting.len() < MAX_WAITING {
                    waiting.push_front(receipt);
                }
            }
        });
        self.changed.send_replace(());
    }

    fn locked<R>(&self, work: impl FnOnce(&mut VecDeque<Receipt>) -> R) -> R {
        work(&mut self.waiting.lock().expect("no holder of this lock panics"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(id: &str, system_id: &str, wanted: Wanted) -> Ticket {
        let address = |digits: &str| Address {
            ton: Ton::International,
            npi: Npi::Isdn,
            digits: COctetString::from_str(digits).unwrap(),
        };
        Ticket {
            id: id.to_owned(),
            system_id: system_id.to_owned(),
            from: address("12345"),
            to: address("491701234567"),
            wanted,
            submitted: "2026-11-22T05:40:59.999Z".parse().unwrap(),
        }
    }

    const DONE: Timestamp = Timestamp(1_795_000_000_000);

    #[test]
    fn a_receipt_says_in_text_and_in_tlvs_what_became_of_which_message() {
        let receipt = |state| Receipt {
            ticket: ticket("0011223344556677", "ltkmd", Wanted::Always),
            state,
            done: "2026-11-22T05:41:00Z".parse().unwrap(),
        };
        let pdu = receipt(ReceiptState::Delivered).pdu();
        assert_eq!(
            pdu.short_message().to_str(),
            Ok("id:0011223344556677 sub:001 dlvrd:001 submit date:2611220540 done date:2611220541 \
                stat:DELIVRD err:000 text:")
        );
        assert_eq!(u8::from(pdu.esm_class), 4);
        assert_eq!((pdu.source_addr.as_str(), pdu.destination_addr.as_str()), ("491701234567", "12345"));
        assert_eq!(pdu.tlvs().len(), 2);
        let pdu = receipt(ReceiptState::Undeliverable).pdu();
        assert!(pdu.short_message().to_str().unwrap().contains("dlvrd:000 "));
        assert!(pdu.short_message().to_str().unwrap().contains("stat:UNDELIV "));
    }

    #[test]
    fn receipts_are_made_when_they_are_wanted() {
        for (asked, delivered, lost) in [(0, 0, 0), (1, 1, 1), (2, 0, 1), (0x11, 1, 1), (3, 0, 0)] {
            for (state, count) in [(ReceiptState::Delivered, delivered), (ReceiptState::Expired, lost)] {
                let receipts = Receipts::default();
                receipts.settle(vec![ticket("1", "ltkmd", Wanted::of(asked))], state, DONE);
                let taken = std::iter::from_fn(|| receipts.take("ltkmd")).count();
                assert_eq!(taken, count, "{asked} {state:?}");
            }
        }
    }

    #[test]
    fn an_esme_takes_its_own_receipts_oldest_first_and_what_it_left_comes_again() {
        let receipts = Receipts::default();
        let settle = |id: &str, system_id: &str| {
            let tickets = vec![ticket(id, system_id, Wanted::Always)];
            receipts.settle(tickets, ReceiptState::Delivered, DONE);
        };
        settle("1", "other");
        settle("2", "ltkmd");
        settle("3", "ltkmd");
        let first = receipts.take("ltkmd").unwrap();
        let second = receipts.take("ltkmd").unwrap();
        assert_eq!((first.ticket.id.as_str(), second.ticket.id.as_str()), ("2", "3"));
        assert!(receipts.take("ltkmd").is_none());
        receipts.put_back([first, second].into_iter());
        let ids = std::iter::from_fn(|| receipts.take("ltkmd")).map(|receipt| receipt.ticket.id);
        assert_eq!(ids.collect::<Vec<_>>(), ["2", "3"]);
        assert!(receipts.take("other").is_some());
    }

    #[test]
    fn what_waits_is_bounded_and_the_oldest_leaves() {
        let receipts = Receipts::default();
        for n in 0..=MAX_WAITING {
            let tickets = vec![ticket(&n.to_string(), "ltkmd", Wanted::Always)];
            receipts.settle(tickets, ReceiptState::Delivered, DONE);
        }
        let ids: Vec<_> =
            std::iter::from_fn(|| receipts.take("ltkmd")).map(|receipt| receipt.ticket.id).collect();
        assert_eq!((ids.len(), ids[0].as_str()), (MAX_WAITING, "1"));
    }
}
