//! `ltkmd raise-t`: every T of a database moves forward, after it forgot what terminals know.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use zeroize::Zeroizing;

use super::check::EXIT_CONFIGURATION;
use super::restore::{MARGIN, MAX_MARGIN, stop_on_ctrl_c};
use crate::config::{self, StoreUrl};
use crate::store::{PgSettings, Raised, StoreError, raise_t};

/// Shards of a database, by which the progress is told.
const SHARDS: u64 = 256;

/// `ltkmd raise-t …`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "For a store in PostgreSQL whose database forgot commits: an older backup of it was restored, or a \
standby took over that was behind. Terminals have seen LTKMs of it with T above what it knows, and would take the next \
ones for replays. Stop every daemon of the cluster before; none starts until this has come to its end. What breaks off \
goes on where it was when the same command is given again.\n\nThe margin has to be at least the number of LTKMs that one \
terminal got since the state that the database has, attempts included: see ltkmd restore --help. T cannot be moved back, \
and has room for 4,294 times 1,000,000."
)]
pub struct RaiseTArgs {
    /// The configuration file of any daemon of the cluster, which says where the database is and what its key is
    #[arg(long, value_name = "FILE", default_value = super::CONFIG)]
    config: PathBuf,
    /// By how much every T moves forward
    #[arg(long, value_name = "N", default_value_t = MARGIN, value_parser = clap::value_parser!(u64).range(1..=MAX_MARGIN))]
    by: u64,
    /// Do not ask whether it is meant
    #[arg(long)]
    yes: bool,
}

/// Raises every T. Exit code 0 done, 1 failed or stopped, 2 with a faulty configuration or wrong usage.
pub fn run(args: &RaiseTArgs) -> ExitCode {
    let settings = match config::load(&args.config, std::env::vars_os()) {
        Ok(settings) => settings,
        Err(faults) => {
            eprintln!("{faults}");
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    let StoreUrl::Postgres(url) = &settings.store.url else {
        eprintln!(
            "ltkmd raise-t: store.url is a directory, whose T is raised when a backup is restored: ltkmd restore"
        );
        return ExitCode::from(EXIT_CONFIGURATION);
    };
    let master = settings.store.store_key.as_ref().and_then(|key| <[u8; 32]>::try_from(key.expose()).ok());
    let Some(master) = master.map(Zeroizing::new) else {
        eprintln!("ltkmd raise-t: a shared store needs store.store_key_file");
        return ExitCode::from(EXIT_CONFIGURATION);
    };
    if !args.yes && !confirmed(url.database(), args.by) {
        eprintln!("ltkmd raise-t: nothing was changed: answer yes, or give --yes");
        return ExitCode::from(EXIT_CONFIGURATION);
    }
    let settings = PgSettings {
        url: url.clone(),
        password: settings.store.password.clone(),
        master,
        node: settings.node.name.as_str().to_owned(),
        http: String::new(),
        connections: 1,
    };
    match raise(&settings, args.by) {
        Ok(raised) if raised.finished => match tell(args.by, raised) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Ok(raised) => {
            eprintln!(
                "ltkmd raise-t: stopped after {} terminals; no daemon starts until the same command has come to its end",
                raised.terminals
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            let why = match error {
                StoreError::Open(why) => why,
                other => other.to_string(),
            };
            eprintln!("ltkmd raise-t: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Asks on a terminal; without one nobody can answer.
fn confirmed(database: &str, by: u64) -> bool {
    if !io::stdin().is_terminal() {
        return false;
    }
    eprint!("every T in the database {database} moves forward by {by}, and cannot be moved back. Type yes: ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).is_ok() && answer.trim() == "yes"
}

fn raise(settings: &PgSettings, by: u64) -> Result<Raised, StoreError> {
    let style = ProgressStyle::with_template("{elapsed_precise} [{bar:32}] {percent:>3} % {msg}")
        .expect("the template is a constant");
    let bar = if io::stderr().is_terminal() { ProgressBar::new(SHARDS) } else { ProgressBar::hidden() };
    let bar = bar.with_style(style.progress_chars("=> "));
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_ctrl_c(Arc::clone(&stop));
    let raised = raise_t(settings, by, &mut |shards, terminals| {
        bar.set_position(shards.into());
        bar.set_message(format!("{terminals} terminals"));
        !stop.load(Ordering::Relaxed)
    });
    bar.finish_and_clear();
    raised
}

fn tell(by: u64, raised: Raised) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let again = if raised.resumed { ", where an earlier try had broken off" } else { "" };
    writeln!(out, "every T is {by} higher: {} terminals{again}", raised.terminals)?;
    if raised.spent > 0 {
        writeln!(out, "{} terminals came near the end of T and have to bootstrap anew", raised.spent)?;
    }
    writeln!(
        out,
        "next: start the daemons, and give every service a new key (ltkmd ctl key rotate): keys made since are unknown to \
         the database"
    )?;
    out.flush()
}
