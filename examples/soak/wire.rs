//! What a child tells its parent: tag (1 octet), count (4), count items of the tag's own size.

use std::io::{self, Read, Write};
use std::sync::Mutex;

/// What a terminal was acknowledged with, or is read back with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The terminal.
    pub(crate) terminal: u32,
    /// Its next T.
    pub(crate) next_t: u32,
    /// The clock of its latest change.
    pub(crate) stamp: u64,
}

/// One message.
#[derive(Debug)]
pub(crate) enum Message {
    /// The store is open, after so many microseconds.
    Opened(u64),
    /// Commits that are durable.
    Acked(Vec<Mark>),
    /// Terminals as decisions found them.
    Found(Vec<Mark>),
    /// Terminals as they are on disk.
    ReadBack(Vec<Mark>),
    /// All terminals were read back.
    ReadAll,
    /// What the phase was for is done.
    Finished,
    /// Durations of commits, in microseconds.
    Commits(Vec<u64>),
    /// Longest time an update waited (µs), resident octets, journal octets, octets on disk.
    Figures([u64; 4]),
}

/// The child's end.
pub(crate) struct Pipe(Mutex<io::Stdout>);

impl Pipe {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(io::stdout()))
    }

    /// Sends a message as a whole. The parent gone is the child's end.
    pub(crate) fn send(&self, message: &Message) {
        let mut octets = Vec::new();
        let mut begin = |tag: u8, count: usize| {
            octets.push(tag);
            octets.extend_from_slice(&(count as u32).to_le_bytes());
        };
        match message {
            Message::Opened(_) => begin(0, 1),
            Message::Acked(marks) => begin(1, marks.len()),
            Message::ReadBack(marks) => begin(2, marks.len()),
            Message::ReadAll => begin(3, 0),
            Message::Finished => begin(4, 0),
            Message::Commits(times) => begin(5, times.len()),
            Message::Figures(_) => begin(6, 4),
            Message::Found(marks) => begin(7, marks.len()),
        }
        let mut put = |n: u64| octets.extend_from_slice(&n.to_le_bytes());
        match message {
            Message::Opened(micros) => put(*micros),
            Message::Acked(marks) | Message::ReadBack(marks) | Message::Found(marks) => {
                for m in marks {
                    put(u64::from(m.terminal) | u64::from(m.next_t) << 32);
                    put(m.stamp);
                }
            }
            Message::Commits(times) => times.iter().copied().for_each(put),
            Message::Figures(figures) => figures.iter().copied().for_each(put),
            Message::ReadAll | Message::Finished => {}
        }
        let mut out = self.0.lock().expect("no writer breaks off");
        if out.write_all(&octets).and_then(|()| out.flush()).is_err() {
            std::process::exit(2);
        }
    }
}

/// Reads the next message; `None` at the end, which a kill may have put inside a message.
pub(crate) fn receive(from: &mut impl Read) -> Option<Message> {
    let mut head = [0; 5];
    from.read_exact(&mut head).ok()?;
    let count = u32::from_le_bytes(head[1..].try_into().expect("4 octets")) as usize;
    let mut number = || {
        let mut octets = [0; 8];
        from.read_exact(&mut octets).ok()?;
        Some(u64::from_le_bytes(octets))
    };
    Some(match head[0] {
        0 => Message::Opened(number()?),
        tag @ (1 | 2 | 7) => {
            let mut mark = || {
                let n = number()?;
                Some(Mark { terminal: n as u32, next_t: (n >> 32) as u32, stamp: number()? })
            };
            let marks = (0..count).map(|_| mark()).collect::<Option<_>>()?;
            match tag {
                1 => Message::Acked(marks),
                2 => Message::ReadBack(marks),
                _ => Message::Found(marks),
            }
        }
        3 => Message::ReadAll,
        4 => Message::Finished,
        5 => Message::Commits((0..count).map(|_| number()).collect::<Option<_>>()?),
        _ => Message::Figures([number()?, number()?, number()?, number()?]),
    })
}
