//! Where log lines go when that is not stderr, and how long what they repeat may be.

mod journald;

pub use journald::{JOURNAL, Journal, JournalError};

/// A text's beginning of at most so many octets, whole characters of it.
pub(crate) fn beginning(text: &str, octets: usize) -> &str {
    let mut end = text.len().min(octets);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
