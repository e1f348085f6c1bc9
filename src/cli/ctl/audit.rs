//! `ctl audit`: is the log whole, and what does it say.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Failure;
use super::api::Api;
use super::show::Screen;
use crate::audit::{Call, Event, Fault, Finding, Hash, Head, Names, Record, Report, Verifier};

/// Where the log is when neither the caller nor the daemon says.
const DEFAULT_FILE: &str = "/var/lib/ltkmd/audit.log";

/// How often a file is read that ends in the middle of a line, which the daemon may be writing just now.
const LOOKS: usize = 3;

/// `ctl audit`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Audit {
    /// Check that no line was changed, cut out or cut off; tell the first bad line, and exit 1
    ///
    /// The file is read here, on this machine. Its end is held against the running daemon when that can be reached.
    Verify {
        /// The log, and what it was rotated into before it, the oldest first; `-` is stdin; without it the running
        /// daemon's
        files: Vec<PathBuf>,
    },
    /// Show who did what, and what came of it
    Show {
        /// The log, as for verify
        files: Vec<PathBuf>,
        /// Show the last so many
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        last: u32,
    },
}

/// What the running daemon says of its log.
struct Running {
    file: PathBuf,
    head: Head,
}

async fn running(api: &mut Api) -> Result<Running, Failure> {
    let head = api.get("/v1/audit/head").await?.value;
    let read = || {
        let hash = Hash::from_hex(head["hash"].as_str()?.as_bytes())?;
        Some(Running { file: head["file"].as_str()?.into(), head: Head { seq: head["seq"].as_u64()?, hash } })
    };
    read().ok_or_else(|| Failure::failed("what the daemon says of its audit log cannot be read"))
}

fn open(file: &Path) -> Result<Box<dyn BufRead>, Failure> {
    if file.as_os_str() == "-" {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let opened =
        File::open(file).map_err(|e| Failure::failed(format!("{} cannot be read: {e}", file.display())))?;
    Ok(Box::new(BufReader::new(opened)))
}

fn same(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    real(a) == real(b)
}

/// What is wrong, and where.
struct Bad {
    file: PathBuf,
    /// None: behind the last line.
    line: Option<u64>,
    fault: Fault,
}

impl Bad {
    fn sentence(&self) -> String {
        let file = self.file.display();
        match self.line {
            Some(line) => format!("{file}, line {line}: {}", self.fault),
            None => format!("{file}: {}", self.fault),
        }
    }
}

/// Checks the files, one chain.
fn check(
    files: &[PathBuf],
    known: Option<Head>,
    mut see: impl FnMut(&Record),
) -> Result<Result<Report, Bad>, Failure> {
    let mut verifier = Verifier::new(known);
    for file in files {
        let read = verifier.file(&mut *open(file)?, &mut see);
        let checked = read.map_err(|e| Failure::failed(format!("{} cannot be read: {e}", file.display())))?;
        if let Err(Finding { line, fault }) = checked {
            return Ok(Err(Bad { file: file.clone(), line: Some(line), fault }));
        }
    }
    let last = files.last().cloned().unwrap_or_default();
    Ok(verifier.finish().map_err(|fault| Bad { file: last, line: None, fault }))
}

impl Audit {
    pub(super) async fn run(self, api: &mut Api, screen: &mut Screen<'_>) -> Result<(), Failure> {
        match self {
            Self::Verify { files } => verify(files, api, screen).await,
            Self::Show { files, last } => {
                let files = match files.is_empty() {
                    true => {
                        vec![running(api).await.map_or_else(|_| DEFAULT_FILE.into(), |daemon| daemon.file)]
                    }
                    false => files,
                };
                show(&files, last as usize, screen)
            }
        }
    }
}

async fn verify(mut files: Vec<PathBuf>, api: &mut Api, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let mut looks = 1;
    let (outcome, compared) = loop {
        // Asked before the file is read: what the daemon has told by then is in it.
        let daemon = running(api).await;
        if files.is_empty() {
            files.push(daemon.as_ref().map_or_else(|_| DEFAULT_FILE.into(), |daemon| daemon.file.clone()));
        }
        let compared = match &daemon {
            Ok(daemon) if files.last().is_some_and(|last| same(last, &daemon.file)) => Ok(daemon.head),
            Ok(daemon) => Err(format!("the running daemon writes {}", daemon.file.display())),
            Err(failure) => Err(failure.to_string()),
        };
        let outcome = check(&files, compared.as_ref().ok().copied(), |_| {})?;
        match &outcome {
            Err(Bad { fault: Fault::Unfinished, .. }) if compared.is_ok() && looks < LOOKS => looks += 1,
            _ => break (outcome, compared),
        }
    };
    if screen.json {
        let daemon = match &compared {
            Ok(_) => json!({"compared": true}),
            Err(why) => json!({"compared": false, "why": why}),
        };
        let told = match &outcome {
            Ok(report) => json!({
                "whole": true, "lines": report.lines, "first": report.first, "before": report.before,
                "seq": report.head.seq, "hash": report.head.hash, "torn": report.torn, "daemon": daemon,
            }),
            Err(bad) => json!({
                "whole": false, "file": bad.file, "line": bad.line, "fault": bad.fault.to_string(), "daemon": daemon,
            }),
        };
        screen.line(&told.to_string())?;
        return outcome.map(|_| ()).map_err(|_| Failure::shown());
    }
    let report = outcome.map_err(|bad| Failure::failed(bad.sentence()))?;
    let Report { lines, first, before, head, torn } = report;
    if lines == 0 {
        screen.line("the log is empty")?;
    } else {
        screen.line(&format!(
            "whole: {lines} lines, numbers {first} to {}, the last hash {}",
            head.seq, head.hash
        ))?;
    }
    if first > 1 {
        screen.line(&format!(
            "it continues an earlier file, which ended at number {} with the hash {before}",
            first - 1
        ))?;
    }
    if torn > 0 {
        screen.line(&format!("the daemon broke off {torn} times in the middle of a line, and told it"))?;
    }
    match compared {
        Ok(_) => screen.line("its end is what the running daemon says"),
        Err(why) => {
            screen.note(&format!("a cut at its end would not show: not compared with the daemon ({why})"))
        }
    }
}

/// A row: a call with what came of it, or what the log says about itself.
struct Row {
    record: Record,
    outcome: String,
    names: Names,
}

fn show(files: &[PathBuf], last: usize, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let mut rows: VecDeque<Row> = VecDeque::new();
    let mut places: BTreeMap<u64, u64> = BTreeMap::new();
    let mut dropped = 0;
    let outcome = check(files, None, |record| {
        let (of, told, named) = match &record.event {
            Event::Answer { of, status, names, .. } => (Some(*of), Some(status.to_string()), names.clone()),
            Event::Import { of, names } => (Some(*of), None, names.clone()),
            Event::Read { status, names, .. } => (None, Some(status.to_string()), names.clone()),
            Event::Refused { status, .. } => (None, Some(status.to_string()), Names::new()),
            Event::Request(_) => (None, Some("no answer".to_owned()), Names::new()),
            _ => (None, None, Names::new()),
        };
        if let Some(of) = of {
            let place = places.get(&of).and_then(|place| place.checked_sub(dropped));
            let row = place.and_then(|place| rows.get_mut(usize::try_from(place).ok()?));
            if let Some(row) = row {
                row.outcome = told.unwrap_or_else(|| row.outcome.clone());
                row.names.extend(named);
            }
            return;
        }
        places.insert(record.seq, dropped + rows.len() as u64);
        let outcome = told.unwrap_or_default();
        rows.push_back(Row { record: record.clone(), outcome, names: named });
        if rows.len() > last
            && let Some(row) = rows.pop_front()
        {
            places.remove(&row.record.seq);
            dropped += 1;
        }
    })?;
    if screen.json {
        let item = |row: &Row| json!({"record": row.record, "outcome": row.outcome, "names": row.names});
        screen.line(&json!({"items": rows.iter().map(item).collect::<Vec<Value>>()}).to_string())?;
    } else {
        let header = ["SEQ", "AT", "WHO", "WHAT", "CAME TO", "ABOUT"];
        screen.table(&header, rows.iter().map(cells).collect())?;
    }
    outcome.map(|_| ()).map_err(|bad| Failure::failed(format!("the log is not whole: {}", bad.sentence())))
}

/// Names of a cell at most; the others are counted.
const SHOWN_NAMES: usize = 4;

fn cells(row: &Row) -> Vec<String> {
    let Record { seq, at, event, .. } = &row.record;
    let call = |call: &Call| {
        let query: Vec<_> = call.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        (call.who.to_string(), format!("{} {}{query}", call.method, call.path))
    };
    let daemon = |what: String| ("the daemon".to_owned(), what);
    let (who, what) = match event {
        Event::Request(of) | Event::Read { call: of, .. } | Event::Refused { call: of, .. } => call(of),
        Event::Started { version, unvouched: 0 } => daemon(format!("began, version {version}")),
        Event::Started { version, unvouched } => daemon(format!(
            "began, version {version}; nobody vouches for the {unvouched} lines before this one"
        )),
        Event::Ended => daemon("ended".to_owned()),
        Event::Continued => daemon("went on in a new file".to_owned()),
        Event::Torn { octets, .. } => daemon(format!("had broken off in a line: {octets} octets")),
        Event::Missing { from, to } => daemon(format!("missed numbers {from} to {to}")),
        Event::Import { .. } | Event::Answer { .. } => daemon("went on".to_owned()),
    };
    let about = row.names.iter().map(|(kind, names)| {
        let shown = names.iter().take(SHOWN_NAMES).cloned().collect::<Vec<_>>().join(" ");
        match names.len().checked_sub(SHOWN_NAMES).filter(|more| *more > 0) {
            Some(more) => format!("{kind}: {shown} and {more} more"),
            None => format!("{kind}: {shown}"),
        }
    });
    let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let about = about.collect::<Vec<_>>().join("; ");
    vec![seq.to_string(), at.to_string(), who, what, dash(row.outcome.clone()), dash(about)]
}
