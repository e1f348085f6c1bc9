//! `POST /v1/import`: many objects, one a line, committed every thousand lines.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use zeroize::Zeroize;

use super::body::{self, Frames};
use super::documents;
use super::handlers::carry_out;
use super::problem::Problem;
use super::query::Query;
use super::trail::Trail;
use super::views::{Imported, LineFault};
use crate::audit::Names;
use crate::engine::{Engine, EngineError, ImportItem};

/// Octets of a line at most, its end not counted.
const MAX_LINE: usize = 64 << 10;

/// Lines that are committed as one.
const BATCH: usize = 1000;

/// Faults that are told.
const MAX_FAULTS: usize = 100;

/// `POST /v1/import`
pub(super) async fn import(
    State(engine): State<Arc<Engine>>,
    query: Query,
    request: Request,
) -> Result<Answer<Imported>, Problem> {
    query.finish()?;
    let trail = request.extensions().get::<Trail>().cloned();
    let mut frames = Frames::new(request.into_body());
    let mut import = Import::default();
    let mut lines = Lines::default();
    loop {
        let frame = frames.next().await.map_err(|problem| import.stopped(problem))?;
        let ended = frame.is_none();
        let mut rest: &[u8] = frame.as_deref().unwrap_or_default();
        while let Some(line) = lines.next(&mut rest, ended) {
            import.take(line);
            if import.items.len() + import.skipped >= BATCH {
                import.commit(&engine, trail.as_ref()).await?;
            }
        }
        if ended {
            import.commit(&engine, trail.as_ref()).await?;
            return Ok(Answer(import.result()));
        }
    }
}

/// Cuts frames into lines.
#[derive(Default)]
struct Lines {
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
    /// Whether that line has grown too long: it is dropped up to its end.
    overlong: bool,
    /// The number of the line before.
    number: u64,
}

/// One line with its number, from 1; `None` in place of the octets of one that is too long.
type Line = (u64, Option<Vec<u8>>);

impl Lines {
    /// The next whole line, taken off the front of `rest`. `ended`: nothing follows, so that the rest is a line.
    fn next(&mut self, rest: &mut &[u8], ended: bool) -> Option<Line> {
        let end = rest.iter().position(|b| *b == b'\n');
        let part = &rest[..end.unwrap_or(rest.len())];
        if self.overlong || self.begun.len() + part.len() > MAX_LINE {
            self.overlong = true;
            self.begun.zeroize();
        } else {
            self.begun.extend_from_slice(part);
        }
        *rest = end.map_or(&[], |end| &rest[end + 1..]);
        let last = ended && (self.overlong || !self.begun.is_empty());
        if end.is_none() && !last {
            return None;
        }
        self.number += 1;
        let line = std::mem::take(&mut self.begun);
        let overlong = std::mem::take(&mut self.overlong);
        Some((self.number, (!overlong).then_some(line)))
    }
}

/// An import under way.
#[derive(Default)]
struct Import {
    told: Imported,
    /// What the next commit brings, with the line it came from.
    items: Vec<(u64, ImportItem)>,
    /// Faulty lines since the last commit.
    skipped: usize,
    /// The last line read, and the last one that a commit covers.
    read: u64,
    committed: u64,
    /// Faults, as they were found; in the order of the lines at the end.
    faults: Vec<LineFault>,
}

impl Import {
    fn take(&mut self, (number, line): Line) {
        self.read = number;
        let Some(mut line) = line else {
            self.skipped += 1;
            return self.fault(number, format!("the line is longer than {MAX_LINE} octets"));
        };
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let item = body::parse(&line)
            .map_err(|e| format!("the line {} (column {})", e.why, e.column))
            .and_then(|value| documents::import_line(value).map_err(|fault| fault.to_string()));
        line.zeroize();
        match item {
            Ok(item) => self.items.push((number, item)),
            Err(error) => {
                self.skipped += 1;
                self.fault(number, error);
            }
        }
    }

    fn fault(&mut self, line: u64, error: String) {
        self.told.failed += 1;
        // Between two commits faults of reading come before those of the commit, whatever their lines.
        if self.faults.len() < MAX_FAULTS + BATCH {
            self.faults.push(LineFault { line, error });
        }
    }

    /// Commits what was read, once it is recorded what is changed.
    async fn commit(&mut self, engine: &Arc<Engine>, trail: Option<&Trail>) -> Result<(), Problem> {
        self.skipped = 0;
        // By kind, each in the order of its lines: what others name comes first, and the engine commits what
        // is of one kind at once, where pairs of subscriber and credential would be as many commits as lines.
        self.items.sort_by_key(|(_, item)| rank(item));
        let (numbers, items): (Vec<_>, Vec<_>) = std::mem::take(&mut self.items).into_iter().unzip();
        if !items.is_empty() {
            let kinds: Vec<_> = items.iter().map(kind).collect();
            if let Some(trail) = trail {
                trail.importing(named(&items)).await.map_err(|problem| self.stopped(problem))?;
            }
            let outcome = carry_out(engine, |engine| async move { Ok(engine.import(items).await) }).await;
            let results = outcome.map_err(|problem| self.stopped(problem))?;
            for ((number, kind), result) in numbers.into_iter().zip(kinds).zip(results) {
                match result {
                    Ok(()) => *kind(&mut self.told.counts) += 1,
                    Err(EngineError::Store(error)) => return Err(self.stopped(error.into())),
                    Err(error) => self.fault(number, Problem::from(error).detail().to_owned()),
                }
            }
        }
        self.committed = self.read;
        self.faults.sort_by_key(|fault| fault.line);
        self.faults.truncate(MAX_FAULTS);
        Ok(())
    }

    /// What ends an import early says how far it came.
    fn stopped(&self, problem: Problem) -> Problem {
        let how_far = match self.committed {
            0 => "hardly a line was applied: send all again, repeating does no harm".to_owned(),
            line => format!("all right lines up to {line} were applied: send the rest again"),
        };
        let (status, detail) = (problem.status(), problem.detail());
        if status == StatusCode::SERVICE_UNAVAILABLE {
            return Problem::unavailable(format!("{detail}; {how_far}"));
        }
        Problem::new(status, format!("{detail}; {how_far}"))
    }

    fn result(mut self) -> Imported {
        self.told.faults = self.faults;
        self.told
    }
}

/// The ids of what is about to be put in place.
fn named(items: &[ImportItem]) -> Names {
    let mut names = Names::new();
    for item in items {
        let (kind, id) = match item {
            ImportItem::Service(spec) => ("services", spec.id.to_string()),
            ImportItem::Subscriber(subscriber) => ("subscribers", subscriber.id.to_string()),
            ImportItem::Credential(spec) => ("credentials", spec.btid.to_string()),
        };
        names.entry(kind.to_owned()).or_default().push(id);
    }
    names
}

/// What names nothing comes first, then what names it.
fn rank(item: &ImportItem) -> u8 {
    match item {
        ImportItem::Service(_) => 0,
        ImportItem::Subscriber(_) => 1,
        ImportItem::Credential(_) => 2,
    }
}

/// Where an item is counted.
fn kind(item: &ImportItem) -> fn(&mut super::views::ImportCounts) -> &mut u64 {
    match item {
        ImportItem::Service(_) => |counts| &mut counts.service,
        ImportItem::Subscriber(_) => |counts| &mut counts.subscriber,
        ImportItem::Credential(_) => |counts| &mut counts.credential,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(frames: &[&[u8]]) -> Vec<(u64, Option<Vec<u8>>)> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for (i, frame) in frames.iter().enumerate() {
            let mut rest = *frame;
            while let Some(line) = lines.next(&mut rest, i + 1 == frames.len()) {
                found.push(line);
            }
        }
        found
    }

    #[test]
    fn lines_are_cut_wherever_the_frames_end() {
        let text = b"one\n\ntwo\r\nthree";
        let whole = cut(&[text, b""]);
        assert_eq!(whole.len(), 4);
        assert_eq!(whole[3], (4, Some(b"three".to_vec())));
        for at in 0..=text.len() {
            assert_eq!(cut(&[&text[..at], &text[at..], b""]), whole, "{at}");
        }
        assert_eq!(cut(&[b"one\n", b""]), [(1, Some(b"one".to_vec()))]);
    }

    #[test]
    fn an_overlong_line_is_dropped_up_to_its_end_and_the_next_one_is_read() {
        let long = vec![b'x'; MAX_LINE + 1];
        let found = cut(&[b"a\n", &long[..40_000], &long[40_000..], b"\nb\n", b""]);
        assert_eq!(found, [(1, Some(b"a".to_vec())), (2, None), (3, Some(b"b".to_vec()))]);
        assert_eq!(cut(&[&long[1..], b""])[0].1.as_ref().map(Vec::len), Some(MAX_LINE));
    }

    #[test]
    fn the_first_hundred_faults_are_told_in_the_order_of_their_lines_and_all_are_counted() {
        let mut import = Import::default();
        for number in 1..=250 {
            import.take((number, Some(b"{}".to_vec())));
        }
        assert_eq!(import.told.failed, 250);
        assert_eq!(import.faults[0].line, 1);
        assert!(import.faults[0].error.contains("one of service, subscriber and credential"));
    }
}
