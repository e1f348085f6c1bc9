//! What happens at the centre, for people and for programs.

use std::fmt;
use std::net::SocketAddr;

use serde::Serialize;

use super::ltkm::LtkmSeen;
use crate::time::Timestamp;

/// How an ESME is bound (SMPP 3.4 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BindMode {
    /// It sends messages.
    Transmitter,
    /// It takes receipts.
    Receiver,
    /// Both on one link.
    Transceiver,
}

impl BindMode {
    /// Whether messages may be submitted.
    pub fn submits(self) -> bool {
        self != Self::Receiver
    }

    /// Whether receipts may be sent.
    pub fn receives(self) -> bool {
        self != Self::Transmitter
    }
}

impl fmt::Display for BindMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transmitter => "transmitter",
            Self::Receiver => "receiver",
            Self::Transceiver => "transceiver",
        })
    }
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// A terminal's port took it.
    Delivered {
        /// The terminal's.
        terminal: SocketAddr,
    },
    /// There is a terminal, and the message is for no port: a phone shows it to its user.
    Shown,
    /// Nobody is there.
    Undeliverable {
        /// Why.
        why: String,
    },
}

impl Outcome {
    /// Whether the phone has it.
    pub fn is_delivered(&self) -> bool {
        !matches!(self, Self::Undeliverable { .. })
    }
}

/// A message that has arrived as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MessageSeen {
    /// Who submitted it.
    pub system_id: String,
    /// Its source address.
    pub from: String,
    /// Its destination address.
    pub to: String,
    /// The centre's names of its parts, in order.
    pub ids: Vec<String>,
    /// The data coding scheme (SMPP 3.4 §5.2.19).
    pub data_coding: u8,
    /// The destination port of its user data header.
    pub port: Option<u16>,
    /// The source port beside it.
    pub source_port: Option<u16>,
    /// Its octets, headers not counted.
    pub octets: usize,
    /// The LTKM that it is.
    pub ltkm: Option<LtkmSeen>,
    /// Its text, when it is one.
    pub text: Option<String>,
    /// Why it is no LTKM.
    pub no_ltkm: Option<String>,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

impl MessageSeen {
    fn line(&self) -> String {
        let parts = match self.ids.len() {
            1 => "1 part".to_owned(),
            n => format!("{n} parts"),
        };
        let port = match (self.port, self.source_port) {
            (None, _) => "no port".to_owned(),
            (Some(port), None | Some(0)) => format!("port {port}"),
            (Some(port), Some(source)) => format!("port {port} from {source}"),
        };
        let what = match (&self.ltkm, &self.text, &self.no_ltkm) {
            (Some(ltkm), _, _) => ltkm.line(),
            (None, Some(text), _) => format!("text {text:?}"),
            (None, None, why) => {
                let why = why.as_deref().map(|why| format!(", no LTKM: {why}")).unwrap_or_default();
                format!("{} octets{why}", self.octets)
            }
        };
        let outcome = match &self.outcome {
            Outcome::Delivered { terminal } => format!("handed to {terminal}"),
            Outcome::Shown => "no port takes it".to_owned(),
            Outcome::Undeliverable { why } => format!("UNDELIVERABLE: {why}"),
        };
        format!("{}  {parts}, {port}  {what}; {outcome}", way(&self.from, &self.to))
    }
}

/// What happens at the centre.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum SmscEvent {
    /// A connection too many was closed.
    TurnedAway {
        /// Where it came from.
        peer: SocketAddr,
    },
    /// An ESME is bound.
    Bound {
        /// The link's number, from 1 up.
        link: u32,
        /// Where it came from.
        peer: SocketAddr,
        /// As whom.
        system_id: String,
        /// As what.
        mode: BindMode,
    },
    /// A bind was refused.
    BindRefused {
        /// The link's number.
        link: u32,
        /// Where it came from.
        peer: SocketAddr,
        /// As whom.
        system_id: String,
        /// SMPP's `command_status`, by name.
        status: String,
    },
    /// A link has ended.
    Ended {
        /// Its number.
        link: u32,
        /// Who was bound.
        system_id: Option<String>,
        /// Why.
        why: String,
    },
    /// A message has arrived as a whole.
    Message(Box<MessageSeen>),
    /// A message was refused.
    Refused {
        /// Who submitted it.
        system_id: String,
        /// Its source address.
        from: String,
        /// Its destination address.
        to: String,
        /// SMPP's `command_status`, by name, and more where there is more to say.
        status: String,
    },
    /// Parts of a message were given up: the others did not come.
    Incomplete {
        /// Its source address.
        from: String,
        /// Its destination address.
        to: String,
        /// How many came.
        parts: usize,
        /// Of how many.
        of: u8,
    },
    /// A delivery receipt has left.
    Receipt {
        /// For whom.
        system_id: String,
        /// The terminal that the message was for.
        to: String,
        /// The centre's name of the message.
        id: String,
        /// `delivered`, `undeliverable` or `expired`.
        state: &'static str,
    },
    /// The ESME did not take a receipt.
    ReceiptRefused {
        /// The centre's name of the message.
        id: String,
        /// SMPP's `command_status`, by name.
        status: String,
    },
}

impl SmscEvent {
    /// One line, for those who watch.
    pub fn line(&self) -> String {
        match self {
            Self::TurnedAway { peer } => format!("{} turned away: too many links", peer.ip()),
            Self::Bound { peer, system_id, mode, .. } => {
                format!("{system_id} is bound as a {mode} from {}", peer.ip())
            }
            Self::BindRefused { peer, system_id, status, .. } => {
                format!("{system_id} is refused the bind from {}: {status}", peer.ip())
            }
            Self::Ended { system_id, why, .. } => {
                format!("{} is gone: {why}", system_id.as_deref().unwrap_or("somebody who never bound"))
            }
            Self::Message(message) => message.line(),
            Self::Refused { from, to, status, .. } => format!("{}  refused: {status}", way(from, to)),
            Self::Incomplete { from, to, parts, of } => {
                format!("{}  given up: {parts} of {of} parts came", way(from, to))
            }
            Self::Receipt { system_id, to, state, .. } => format!("receipt to {system_id}: {to} {state}"),
            Self::ReceiptRefused { id, status } => format!("the receipt for {id} was not taken: {status}"),
        }
    }
}

/// From whom to whom. A source may be left to the centre (SMPP 3.4 §4.4.1).
fn way(from: &str, to: &str) -> String {
    format!("{} → {to}", if from.is_empty() { "no source" } else { from })
}

/// What happened when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Happening {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub event: SmscEvent,
}

/// Text of a stranger for a terminal's screen: what would steer it is escaped.
pub(super) fn printable(text: &str) -> String {
    if text.chars().any(char::is_control) { text.escape_debug().to_string() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(outcome: Outcome) -> MessageSeen {
        MessageSeen {
            system_id: "ltkmd".to_owned(),
            from: "12345".to_owned(),
            to: "491701234567".to_owned(),
            ids: vec!["a".to_owned(), "b".to_owned()],
            data_coding: 4,
            port: Some(4359),
            source_port: Some(4359),
            octets: 200,
            ltkm: None,
            text: None,
            no_ltkm: None,
            outcome,
        }
    }

    #[test]
    fn a_message_is_one_line_that_says_what_became_of_it() {
        let terminal = SocketAddr::from(([127, 0, 0, 2], 4359));
        for (outcome, end) in [
            (Outcome::Delivered { terminal }, "200 octets; handed to 127.0.0.2:4359"),
            (Outcome::Shown, "200 octets; no port takes it"),
            (Outcome::Undeliverable { why: "why".to_owned() }, "200 octets; UNDELIVERABLE: why"),
        ] {
            let line = message(outcome).line();
            assert_eq!(line, format!("12345 → 491701234567  2 parts, port 4359 from 4359  {end}"));
        }
    }

    #[test]
    fn a_message_without_a_source_says_so() {
        let line = MessageSeen { from: String::new(), ..message(Outcome::Shown) }.line();
        assert!(line.starts_with("no source → 491701234567  "), "{line}");
    }

    #[test]
    fn an_event_is_one_flat_object_for_programs() {
        let terminal = SocketAddr::from(([127, 0, 0, 2], 4359));
        let event = SmscEvent::Message(Box::new(message(Outcome::Delivered { terminal })));
        let told = serde_json::json!(Happening { at: Timestamp(0), event });
        assert_eq!(
            (&told["at"], &told["event"], &told["outcome"]),
            (&"1970-01-01T00:00:00Z".into(), &"message".into(), &"delivered".into())
        );
        assert_eq!((&told["to"], &told["terminal"]), (&"491701234567".into(), &"127.0.0.2:4359".into()));
    }

    #[test]
    fn what_would_steer_a_screen_is_escaped() {
        assert_eq!(printable("Grüße"), "Grüße");
        assert_eq!(printable("a\u{1b}[2J"), "a\\u{1b}[2J");
    }
}
