//! `ltkmd restore`: a backup in the place of the store.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use zeroize::Zeroizing;

use super::check::EXIT_CONFIGURATION;
use crate::config;
use crate::store::backup::Kind;
use crate::store::{Phase, RestoreError, RestoreOptions, Restored, restore};

/// By how much T moves when nothing else is said.
pub(super) const MARGIN: u64 = 1_000_000;

/// By how much T can be moved: a fortieth of its range.
pub(super) const MAX_MARGIN: u64 = 100_000_000;

/// `ltkmd restore …`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The whole backup is verified before anything is written, and the store takes its place when it is \
complete. It needs the store key of the store that the backup was made from.\n\nEvery T moves forward by the margin, so \
that no terminal takes what comes for a replay: the margin has to be at least the number of LTKMs that one terminal got \
between the backup and now, attempts included. 1,000,000 is a terminal with 100 services whose keys change every five \
minutes, four attempts each, for eight days. A T has room for 4,294 such restores; a terminal whose T comes near its end \
has to bootstrap anew.\n\nWhat the store learned after the backup is gone: terminals that registered since have to \
register again, keys made since are unknown. Give every service a new key afterwards: ltkmd ctl key rotate. Jobs and \
deliveries go on where they were."
)]
pub struct RestoreArgs {
    /// The backup
    file: PathBuf,
    /// The configuration file, which says where the store is and what its key is
    #[arg(long, value_name = "FILE", default_value = super::CONFIG)]
    config: PathBuf,
    /// By how much every T moves forward
    #[arg(long, value_name = "N", default_value_t = MARGIN, value_parser = clap::value_parser!(u64).range(1..=MAX_MARGIN))]
    margin: u64,
    /// Move a store that is there aside, to db.before-…, in place of refusing
    #[arg(long)]
    force: bool,
    /// Verify the backup and its key, and write nothing; the daemon may run
    #[arg(long)]
    dry_run: bool,
}

/// Restores. Exit code 0 done, 1 failed (the store is as it was), 2 with a faulty configuration.
pub fn run(args: &RestoreArgs) -> ExitCode {
    let settings = match config::load(&args.config, std::env::vars_os()) {
        Ok(settings) => settings,
        Err(faults) => {
            eprintln!("{faults}");
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    let key = settings.store.store_key.as_ref().map(|key| {
        Zeroizing::new(
            <[u8; 32]>::try_from(key.expose()).expect("the configuration takes keys of 32 octets alone"),
        )
    });
    let Some(dir) = settings.store.url.directory() else {
        eprintln!(
            "ltkmd restore: {}: store.url is a PostgreSQL database, and backups are restored into a directory: give \
             one, such as \"file:/var/lib/ltkmd\"",
            args.file.display()
        );
        return ExitCode::from(EXIT_CONFIGURATION);
    };
    match restore_file(args, dir, key.map(|k| *k)) {
        Ok(restored) => match tell(args, dir, &restored) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            eprintln!("ltkmd restore: {}: {error}", args.file.display());
            ExitCode::FAILURE
        }
    }
}

fn restore_file(args: &RestoreArgs, dir: &Path, key: Option<[u8; 32]>) -> Result<Restored, RestoreError> {
    let mut file = File::open(&args.file).map_err(RestoreError::Read)?;
    let found = file.metadata().map_err(RestoreError::Read)?;
    if !found.is_file() {
        return Err(RestoreError::Read(io::Error::other(
            "it is no file: name one, not a directory or a pipe",
        )));
    }
    let bar = progress(found.len());
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_ctrl_c(Arc::clone(&stop));
    let mut begun = None;
    let mut show = |phase: Phase, at: u64| {
        if begun != Some(phase) {
            bar.set_message(match phase {
                Phase::Verify => "verifying",
                Phase::Write => "writing",
            });
            begun = Some(phase);
        }
        bar.set_position(at);
        !stop.load(Ordering::Relaxed)
    };
    let (margin, force, dry_run) = (args.margin, args.force, args.dry_run);
    let outcome = restore(&mut file, dir, key, RestoreOptions { margin, force, dry_run }, &mut show);
    bar.finish_and_clear();
    outcome
}

/// Lets Ctrl-C end the work in order. Without the thread it ends the process, which the next start copes with.
pub(super) fn stop_on_ctrl_c(stop: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if let Ok(runtime) = runtime
            && runtime.block_on(tokio::signal::ctrl_c()).is_ok()
        {
            stop.store(true, Ordering::Relaxed);
        }
    });
}

/// A bar by octets on stderr; nothing is drawn when that is no terminal.
fn progress(size: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{elapsed_precise} {msg:9} [{bar:32}] {binary_bytes}/{binary_total_bytes}",
    )
    .expect("the template is a constant");
    let bar = if io::stderr().is_terminal() { ProgressBar::new(size) } else { ProgressBar::hidden() };
    bar.with_style(style.progress_chars("=> "))
}

fn tell(args: &RestoreArgs, dir: &Path, restored: &Restored) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let of = |kind| restored.counts.of(kind);
    let taken = serde_json::to_string(&restored.taken).unwrap_or_default();
    writeln!(
        out,
        "{}: taken {}, {} services, {} keys, {} subscribers, {} credentials, {} terminals",
        args.file.display(),
        taken.trim_matches('"'),
        of(Kind::Service),
        of(Kind::Key),
        of(Kind::Subscriber),
        of(Kind::Credential),
        of(Kind::State)
    )?;
    if args.dry_run {
        return writeln!(out, "whole, undamaged, and made under this store key; nothing was written");
    }
    writeln!(out, "restored to {}; every T is {} higher than in the backup", dir.display(), args.margin)?;
    if restored.spent > 0 {
        writeln!(out, "{} terminals came near the end of T and have to bootstrap anew", restored.spent)?;
    }
    if let Some(aside) = &restored.aside {
        writeln!(out, "the store that was there is {}: remove it when it is not needed", aside.display())?;
    }
    writeln!(
        out,
        "next: start the daemon, and give every service a new key (ltkmd ctl key rotate): keys made after the backup \
         are unknown to it"
    )?;
    out.flush()
}
