//! Triggers by SMS: what waits for its turn is handed to the gateway as it has room, and what it tells is
//! recorded on the deliveries.

use std::future::Future;
use std::pin::Pin;

use crate::delivery::{MessageId, ReceiptState};
use crate::id::{Msisdn, TerminalKey};

/// Which trigger a short message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SmsTag {
    /// The terminal.
    pub terminal: TerminalKey,
    /// T of the LTKM.
    pub t: u32,
}

/// A trigger to send.
#[derive(Debug)]
pub struct ShortMessage {
    /// Whose phone.
    pub to: Msisdn,
    /// The LTKM with empty key data, in octets.
    pub ltkm: Vec<u8>,
    /// What events about it will name.
    pub tag: SmsTag,
}

/// What becomes of short messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SmsEvent {
    /// A centre accepted all parts, under these names.
    Accepted {
        /// The trigger.
        tag: SmsTag,
        /// The centre's names of its parts, in order.
        ids: Vec<MessageId>,
    },
    /// A centre refuses it for good: sending it again would not help.
    Refused {
        /// The trigger.
        tag: SmsTag,
        /// SMPP's `command_status`.
        status: u32,
    },
    /// It was not accepted as far as anybody knows: the link broke, or no answer came. It may be sent again.
    Unsent {
        /// The trigger.
        tag: SmsTag,
    },
    /// A delivery receipt.
    Receipt {
        /// The centre's name of the message.
        id: MessageId,
        /// What became of it.
        state: ReceiptState,
    },
}

/// Where triggers leave by SMS.
pub trait SmsOutbox: Send + Sync + 'static {
    /// Waits until triggers may be handed over, and gives how many, at least 1: a centre is bound, the window
    /// has room, the rate allows it.
    fn room(&self) -> Pin<Box<dyn Future<Output = usize> + Send + '_>>;

    /// Takes a trigger over. What becomes of it is told by exactly one of [`SmsEvent::Accepted`],
    /// [`SmsEvent::Refused`] and [`SmsEvent::Unsent`], unless the process ends before.
    fn submit(&self, message: ShortMessage);
}
