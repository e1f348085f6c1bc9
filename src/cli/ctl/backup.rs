//! `ctl backup` and `ctl export`: what the store holds, into a file.

use std::path::PathBuf;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use super::api::Api;
use super::file::Destination;
use super::show::{Screen, cell};
use crate::store::backup::{Counts, Head, Kind, Parser, Piece};

/// `ctl backup`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The backup is of one moment. Each piece is checked as it comes; the file is synced, readable by \
its owner alone, and there when it is whole. MRK, MUK and MSK in it are sealed under the store key, which is not in it: \
keep a copy of that key, and keep it somewhere else.\n\nThe file is put in the place of a store by `ltkmd restore`, and \
verified by `ltkmd restore --dry-run`."
)]
pub(super) struct Backup {
    /// The file, `-` is stdout
    file: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
}

/// `ctl export`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The lines are of one moment: services, subscribers, credentials with their counters. `ctl import` \
takes them, also on another daemon, and again: it changes nothing that is there already, and no counter goes back. Keys \
of services (MSKs) and registrations are not in it: a service that is imported gets a new key. That the counter goes on \
is true as of the export: a terminal that got LTKMs since refuses what comes with a lower one."
)]
pub(super) struct Export {
    /// The file, `-` is stdout
    file: PathBuf,
    /// Export the keys of credentials too; takes the key reader's token
    #[arg(long)]
    secrets: bool,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
}

impl Backup {
    pub(super) async fn run(self, api: &mut Api, screen: &mut Screen<'_>) -> Result<(), Failure> {
        let mut file = Destination::open(&self.file, self.force)?;
        let bar = progress(screen.bars);
        let taken = unless_stopped(take(api, &mut file, &bar)).await;
        bar.finish_and_clear();
        let (head, counts, octets) = taken?;
        file.finish()?;
        self.tell(&head, counts, octets, screen)
    }

    fn tell(&self, head: &Head, counts: Counts, octets: u64, screen: &mut Screen<'_>) -> Result<(), Failure> {
        let to_stdout = self.file.as_os_str() == "-";
        let key = match &head.own_key {
            Some(path) => format!(
                "not in it: back up {path} of the daemon's machine as well, once and somewhere else (a copy of the \
                 file is all). Without it nothing can be restored"
            ),
            None => {
                "not in it: the one of store.store_key_file. Without it nothing can be restored".to_owned()
            }
        };
        if to_stdout {
            // The backup itself is the answer.
            return screen.note(&format!("store key: {key}"));
        }
        if screen.json {
            return screen.line(
                &json!({
                    "file": self.file, "octets": octets, "taken": head.taken, "own_key": head.own_key,
                    "services": counts.of(Kind::Service), "keys": counts.of(Kind::Key),
                    "jobs": counts.of(Kind::Job), "subscribers": counts.of(Kind::Subscriber),
                    "credentials": counts.of(Kind::Credential), "terminals": counts.of(Kind::State),
                })
                .to_string(),
            );
        }
        let of = |kind| counts.of(kind).to_string();
        screen.card(vec![
            ("backup", self.file.display().to_string()),
            ("size", HumanBytes(octets).to_string()),
            ("taken", cell(&json!(head.taken))),
            ("services", of(Kind::Service)),
            ("keys", of(Kind::Key)),
            ("subscribers", of(Kind::Subscriber)),
            ("credentials", of(Kind::Credential)),
            ("terminals", of(Kind::State)),
            ("store key", key),
        ])
    }
}

/// Takes a backup to its end, checks each piece, and writes what passed.
async fn take(
    api: &mut Api,
    file: &mut Destination,
    bar: &ProgressBar,
) -> Result<(Head, Counts, u64), Failure> {
    let (mut answer, _) = api.download("/v1/backup", "").await?;
    let (mut parser, mut head, mut counts, mut octets) = (Parser::new(), None, None, 0);
    let wrong = |e| Failure::failed(format!("what came is no backup ({e}): nothing was kept"));
    while let Some(piece) = api.next_octets(&mut answer).await? {
        octets += piece.len() as u64;
        parser.feed(&piece);
        while let Some(piece) = parser.piece().map_err(wrong)? {
            match piece {
                Piece::Head(found) => {
                    bar.set_length(found.expected);
                    head = Some(found);
                }
                Piece::Records(..) => advance(bar, parser.counts().all()),
                Piece::End(end) => counts = Some(end.counts),
            }
        }
        file.write(&piece)?;
    }
    parser.finish().map_err(wrong)?;
    let head = head.expect("a whole backup has a head");
    Ok((head, counts.expect("a whole backup has an end"), octets))
}

impl Export {
    pub(super) async fn run(self, api: &mut Api, screen: &mut Screen<'_>) -> Result<(), Failure> {
        let mut file = Destination::open(&self.file, self.force)?;
        let bar = progress(screen.bars);
        let lines = unless_stopped(self.take(api, &mut file, &bar)).await;
        bar.finish_and_clear();
        let lines = lines?;
        file.finish()?;
        if self.file.as_os_str() != "-" {
            if screen.json {
                screen
                    .line(&json!({"file": self.file, "lines": lines, "secrets": self.secrets}).to_string())?;
            } else {
                screen.line(&format!("{lines} lines are in {}", self.file.display()))?;
            }
        }
        if self.secrets {
            return Ok(());
        }
        screen
            .note("the keys of credentials were left out: the import takes no credential without (--secrets)")
    }

    async fn take(&self, api: &mut Api, file: &mut Destination, bar: &ProgressBar) -> Result<u64, Failure> {
        let path = format!("/v1/export?secrets={}", self.secrets);
        let (mut answer, expected) = api.download(&path, "ltkmd-lines").await?;
        bar.set_length(expected.unwrap_or(0));
        let mut lines = 0;
        while let Some(piece) = api.next_octets(&mut answer).await? {
            lines += piece.iter().filter(|octet| **octet == b'\n').count() as u64;
            file.write(&piece)?;
            advance(bar, lines);
        }
        Ok(lines)
    }
}

/// A bar by counts on stderr.
fn progress(draws: bool) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{elapsed_precise} [{bar:32}] {human_pos} of about {human_len} records")
            .expect("the template is a constant");
    let bar = if draws { ProgressBar::new(0) } else { ProgressBar::hidden() };
    bar.with_style(style.progress_chars("=> "))
}

/// The length is an estimate: a bar that passes it has none left to tell.
fn advance(bar: &ProgressBar, at: u64) {
    if bar.length().is_some_and(|length| at > length) {
        bar.set_length(at);
    }
    bar.set_position(at);
}

/// Ctrl-C and SIGTERM end the work in order, so that nothing half written stays.
async fn unless_stopped<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => terminate.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        done = work => done,
        Ok(()) = tokio::signal::ctrl_c() => Err(Failure::failed("stopped: nothing was kept")),
        _ = terminated => Err(Failure::failed("stopped: nothing was kept")),
    }
}
