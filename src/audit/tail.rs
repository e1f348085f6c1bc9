//! The end of a file that was written before: where its chain stands, and what does not belong to it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::chain::{self, Hash, Head, MAX_LINE};
use super::event::Event;

/// Octets at the end that are looked at: the longest batch with the longest line in front of it.
const WINDOW: u64 = 4 * MAX_LINE as u64;

/// How a line begins.
const BEGIN: &[u8] = b"{\"seq\":";

/// A file's end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// The last whole line; `None`: there is none.
    pub(super) last: Option<Head>,
    /// The line before or at the known head, whose hash the file has for it.
    pub(super) at_known: Option<Hash>,
    /// What stands behind the last whole line.
    pub(super) rest: Vec<u8>,
    /// Whether the last whole line lacks nothing but its end.
    pub(super) unended: bool,
}

impl Tail {
    /// Reads the end. `known`: the number of the line that [`Tail::at_known`] asks for.
    ///
    /// # Errors
    /// The file cannot be read; `InvalidData`: it is no audit log.
    pub(super) fn read(file: &File, known: u64) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let from = length.saturating_sub(WINDOW);
        let mut window = vec![0; usize::try_from(length - from).expect("at most the window")];
        file.read_exact_at(&mut window, from)?;
        let tail = Self::of(window, known);
        let begun = tail.rest.len().min(BEGIN.len());
        let first_torn = from == 0 && !tail.rest.contains(&b'\n') && tail.rest[..begun] == BEGIN[..begun];
        if tail.last.is_none() && !tail.rest.is_empty() && !first_torn {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it does not end as an audit log does: move it away, or name another file",
            ));
        }
        Ok(tail)
    }

    fn of(mut window: Vec<u8>, known: u64) -> Self {
        let fragment = window.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let unended = chain::read(&window[fragment..]).is_ok();
        if unended {
            window.push(b'\n');
        }
        let mut found = Self { last: None, at_known: None, rest: Vec::new(), unended };
        let mut end = window.len();
        // From the end to the front: each round looks at what ends at `end` with a line feed.
        while let Some(feed) = window[..end].iter().rposition(|b| *b == b'\n') {
            let begin = window[..feed].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            if let Ok((record, head)) = chain::read(&window[begin..feed]) {
                if found.last.is_none() {
                    found.last = Some(head);
                    found.rest = window[feed + 1..].to_vec();
                }
                if record.seq <= known {
                    found.at_known = (record.seq == known).then_some(head.hash);
                    break;
                }
                if known == 0 {
                    break;
                }
            }
            end = begin;
        }
        if found.last.is_none() {
            found.rest = window;
        }
        found
    }
}

/// How a chain goes on in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resumption {
    /// What the next line follows.
    pub(super) head: Head,
    /// What has to be written first: a line end behind a fragment, and a line that says what was found.
    pub(super) end_fragment: bool,
    /// That line.
    pub(super) event: Option<Event>,
    /// Lines at the end that nobody vouches for but the file itself: after a crash those of one batch.
    pub(super) unvouched: u64,
}

/// Decides how to go on from what the file has and what is known.
pub(super) fn resume(tail: &Tail, known: Option<Head>) -> Resumption {
    let end_fragment = tail.unended || tail.rest.last().is_some_and(|last| *last != b'\n');
    let last = tail.last.unwrap_or_default();
    let empty = tail.last.is_none() && tail.rest.is_empty();
    let known = known.filter(|known| known.seq > 0);
    let missing = |from: u64, to: u64, head: Head| Resumption {
        head,
        end_fragment,
        event: Some(Event::Missing { from, to }),
        unvouched: 0,
    };
    let torn = || {
        let mut rest = tail.rest.clone();
        if end_fragment && !tail.unended {
            rest.push(b'\n');
        }
        let octets = rest.len() as u64;
        (octets > 0).then(|| Event::Torn { octets, sha256: Hash::of(&rest) })
    };
    match known {
        Some(known) if empty => {
            Resumption { head: known, end_fragment, event: Some(Event::Continued), unvouched: 0 }
        }
        // The first line of a new file: the chain goes on, behind what is there of it.
        Some(known) if tail.last.is_none() => {
            Resumption { head: known, end_fragment, event: torn(), unvouched: 0 }
        }
        Some(known) if last.seq < known.seq => missing(last.seq + 1, known.seq, known),
        Some(known) if tail.at_known != Some(known.hash) => missing(known.seq, known.seq, known),
        Some(known) => {
            Resumption { head: last, end_fragment, event: torn(), unvouched: last.seq - known.seq }
        }
        // A write that broke off leaves no line end; whole lines that are none were changed.
        None if !tail.rest.is_empty() && !end_fragment => {
            let lines = tail.rest.iter().filter(|b| **b == b'\n').count() as u64;
            let to = last.seq + lines;
            missing(last.seq + 1, to, Head { seq: to, hash: last.hash })
        }
        None => Resumption { head: last, end_fragment, event: torn(), unvouched: last.seq },
    }
}
