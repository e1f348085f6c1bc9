//! Which terminal a short message went to, for the receipts that name the message alone.
//!
//! A hint like the due times: fed by commits, and by a scan of the records after a restart.

use std::collections::{HashMap, VecDeque};

use crate::delivery::MessageId;
use crate::id::TerminalKey;

/// Messages remembered, about 120 octets each; the oldest are forgotten and their receipts find nobody.
const KEPT: usize = 1 << 20;

/// Messages by their centre's names.
#[derive(Debug, Default)]
pub(super) struct Messages {
    terminals: HashMap<MessageId, TerminalKey>,
    order: VecDeque<MessageId>,
}

impl Messages {
    /// Remembers a message.
    pub(super) fn feed(&mut self, id: MessageId, terminal: TerminalKey) {
        if self.terminals.insert(id.clone(), terminal).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > KEPT {
            if let Some(oldest) = self.order.pop_front() {
                self.terminals.remove(&oldest);
            }
        }
    }

    /// Whose message it was.
    pub(super) fn terminal(&self, id: &MessageId) -> Option<TerminalKey> {
        self.terminals.get(id).copied()
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_messages_are_forgotten_and_the_newest_terminal_counts() {
        let mut messages = Messages::default();
        let id = |n: usize| MessageId::new(&n.to_string()).expect("digits");
        for n in 0..=KEPT {
            messages.feed(id(n), TerminalKey([1; 16]));
        }
        assert_eq!(messages.terminal(&id(0)), None);
        assert_eq!(messages.terminal(&id(1)), Some(TerminalKey([1; 16])));
        messages.feed(id(7), TerminalKey([2; 16]));
        assert_eq!(messages.terminal(&id(7)), Some(TerminalKey([2; 16])));
        assert_eq!((messages.terminals.len(), messages.order.len()), (KEPT, KEPT));
    }
}
