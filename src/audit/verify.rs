//! Checking a log: line by line, over as many files as it was rotated into.

use std::fmt;
use std::io::{self, BufRead};

use sha2::{Digest, Sha256};

use super::chain::{self, Hash, Head, LineError, MAX_LINE, Record};
use super::event::Event;

/// What is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Octets that are no line, or not the line that was written.
    #[error("the line {0}")]
    Line(LineError),
    /// Longer than a line can be.
    #[error("the line is longer than {MAX_LINE} octets")]
    TooLong,
    /// Numbers are left out.
    #[error("{}", gone(*from, *to))]
    Gone {
        /// The first that is missing.
        from: u64,
        /// The last.
        to: u64,
    },
    /// The first line of the first file is not how a file begins.
    #[error("no file begins with this line, number {seq}: what was before it in this file was cut out")]
    Headless {
        /// Its number.
        seq: u64,
    },
    /// A number comes again, or an earlier one.
    #[error("this is line number {seq} of the log, after number {after}: lines were moved or written twice")]
    Backwards {
        /// Its number.
        seq: u64,
        /// The number before.
        after: u64,
    },
    /// The number follows, the hash does not.
    #[error("it does not follow number {after}: that line was changed and hashed anew, or replaced")]
    Replaced {
        /// The number before.
        after: u64,
    },
    /// The file ends without a line end.
    #[error("the file ends in the middle of a line")]
    Unfinished,
    /// The line that is known to be the last one is not there.
    #[error("the log ends at number {last}, and the daemon has written up to number {head}: {}", gone(last + 1, *head))]
    CutOff {
        /// The last number found.
        last: u64,
        /// The daemon's.
        head: u64,
    },
    /// The line is there and is another one.
    #[error(
        "number {seq} is not the line that the daemon wrote: the log was hashed anew, or is another daemon's"
    )]
    Forged {
        /// Its number.
        seq: u64,
    },
}

fn gone(from: u64, to: u64) -> String {
    match from == to {
        true => format!("number {from} of the log is missing: it was cut out"),
        false => format!("numbers {from} to {to} of the log are missing: they were cut out"),
    }
}

/// A fault and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The line in its file, from 1.
    pub line: u64,
    /// What is wrong there.
    pub fault: Fault,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.fault)
    }
}

/// What a log without fault has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Lines of the chain.
    pub lines: u64,
    /// The first line's number; 0: there is none.
    pub first: u64,
    /// The hash of the line before the first; all zero when the log is there from its beginning.
    pub before: Hash,
    /// The last line.
    pub head: Head,
    /// How often the daemon broke off in the middle of a line, and told it at its next start.
    pub torn: u64,
}

/// Octets between two lines that are none. The daemon may have broken off there: then the next line says so.
struct Stray {
    line: u64,
    fault: Fault,
    octets: u64,
    digest: Sha256,
}

/// Checks a chain over any number of files, the oldest first.
#[derive(Default)]
pub struct Verifier {
    report: Report,
    /// A line that has to be there.
    known: Option<Head>,
    /// The hash that the log has at the known number.
    at_known: Option<Hash>,
}

impl Verifier {
    /// A check that also expects this line, which was told by a running daemon.
    pub fn new(known: Option<Head>) -> Self {
        Self { known: known.filter(|head| head.seq > 0), ..Self::default() }
    }

    /// Checks the next file, and shows each line of the chain as it is read.
    ///
    /// # Errors
    /// The file cannot be read. The inner error: the first fault, and its place.
    pub fn file(
        &mut self,
        file: &mut dyn BufRead,
        mut see: impl FnMut(&Record),
    ) -> io::Result<Result<(), Finding>> {
        let (mut buffer, mut number) = (Vec::new(), 0);
        let mut stray: Option<Stray> = None;
        loop {
            buffer.clear();
            let limit = MAX_LINE as u64 + 1;
            if io::Read::take(&mut *file, limit).read_until(b'\n', &mut buffer)? == 0 {
                break;
            }
            number += 1;
            let at = |fault| Finding { line: number, fault };
            let whole = buffer.last() == Some(&b'\n');
            let read = match whole {
                true => chain::read(&buffer[..buffer.len() - 1]).map_err(Fault::Line),
                false if buffer.len() > MAX_LINE => return Ok(Err(at(Fault::TooLong))),
                false => Err(Fault::Unfinished),
            };
            match read {
                Ok((record, head)) => {
                    if let Err(finding) = self.follow(&record, head, stray.take(), number) {
                        return Ok(Err(finding));
                    }
                    see(&record);
                }
                Err(fault) => {
                    let stray = stray.get_or_insert_with(|| Stray {
                        line: number,
                        fault,
                        octets: 0,
                        digest: Sha256::new(),
                    });
                    stray.octets += buffer.len() as u64;
                    stray.digest.update(&buffer);
                }
            }
        }
        Ok(match stray {
            Some(Stray { line, fault, .. }) => Err(Finding { line, fault }),
            None => Ok(()),
        })
    }

    fn follow(
        &mut self,
        record: &Record,
        head: Head,
        stray: Option<Stray>,
        line: u64,
    ) -> Result<(), Finding> {
        let last = self.report.head;
        if let Some(stray) = stray {
            let sha256 = Hash(stray.digest.finalize().into());
            if record.event != (Event::Torn { octets: stray.octets, sha256 }) {
                return Err(Finding { line: stray.line, fault: stray.fault });
            }
            self.report.torn += 1;
        }
        let at = |fault| Err(Finding { line, fault });
        if last.seq == 0 {
            let begins =
                matches!(record.event, Event::Continued | Event::Torn { .. } | Event::Missing { .. });
            if record.seq != 1 && !begins {
                return at(Fault::Headless { seq: record.seq });
            }
            self.report.first = record.seq;
            self.report.before = record.prev;
        } else if record.seq <= last.seq {
            return at(Fault::Backwards { seq: record.seq, after: last.seq });
        } else if record.seq > last.seq + 1 {
            return at(Fault::Gone { from: last.seq + 1, to: record.seq - 1 });
        } else if record.prev != last.hash {
            return at(Fault::Replaced { after: last.seq });
        }
        // The daemon saw it at its start; the chain goes on from where it was before.
        if let Event::Missing { from, to } = record.event {
            return at(Fault::Gone { from, to });
        }
        if record.seq == 1 && record.prev != Hash::default() {
            return at(Fault::Replaced { after: 0 });
        }
        if self.known.is_some_and(|known| known.seq == record.seq) {
            self.at_known = Some(head.hash);
        }
        self.report.lines += 1;
        self.report.head = head;
        Ok(())
    }

    /// Ends the check: whether the known line was among them. The line of a fault is the one behind the last.
    ///
    /// # Errors
    /// It was not, or another one was in its place.
    pub fn finish(self) -> Result<Report, Fault> {
        match self.known {
            Some(known) if self.report.head.seq < known.seq => {
                Err(Fault::CutOff { last: self.report.head.seq, head: known.seq })
            }
            Some(known) if self.at_known != Some(known.hash) => Err(Fault::Forged { seq: known.seq }),
            _ => Ok(self.report),
        }
    }
}
