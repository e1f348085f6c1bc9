//! `ltkmd migrate`: the store of a running daemon into a database.

mod plan;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use self::plan::Plan;
use super::check::EXIT_CONFIGURATION;
use super::client::Endpoint;
use super::ctl::Failure;
use super::ctl::api::Api;
use crate::store::{Found, Migration, PassReport, StoreError};
use crate::units::parse_duration;

/// How long the daemon stays frozen that hears nothing of us any more.
const FREEZE: Duration = Duration::from_secs(60);

/// How often the freeze is prolonged.
const PROLONG: Duration = Duration::from_secs(10);

/// How long a backup of somebody else's may be in the way of the second pass.
const BUSY: Duration = Duration::from_secs(10);

/// How long the database is asked what became of the last commit.
const SETTLE: Duration = Duration::from_secs(30);

/// `ltkmd migrate …`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Two passes: the first copies the whole store while the daemon serves. Then the daemon is frozen: terminals \
get 503 with Retry-After, and nothing is sent or recorded. The second pass copies what has changed since, everything is \
compared, and the store is marked as moved. The daemon stays frozen until it is started with the new store.url; the lines \
for its configuration are printed at the begin and at the end.\n\nWhen anything fails before the mark, or this program \
ends, the daemon goes on as before (by itself after a minute at the latest), and no daemon opens the unfinished database; \
the next run begins it anew.\n\nT, RAND, CSB ID and sealed keys stay valid: the data key moves along, wrapped by the same \
store key, which every daemon on the database needs. Run it as a user who may read that key, on the daemon's machine, with \
room for a backup in TMPDIR."
)]
pub struct MigrateArgs {
    /// The configuration file of the running daemon
    #[arg(long, value_name = "FILE", default_value = super::CONFIG)]
    config: PathBuf,
    /// The database, as store.url will name it; its user has to own it or be allowed to make a schema
    #[arg(long, value_name = "URL")]
    to: String,
    /// The file that holds the password of the database's user
    #[arg(long, value_name = "FILE")]
    store_password_file: Option<PathBuf>,
    /// The daemon's admin API, http://HOST:PORT or unix:PATH; without it, where the configuration has it
    #[arg(long, value_name = "URL")]
    admin: Option<Endpoint>,
    /// The file that holds the admin token; without it, the configuration's
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Give up, and let the daemon go on, when the pause would last longer
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration)]
    max_pause: Duration,
    /// Look at the daemon and the database, say what would be done, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// Why the store has not moved.
#[derive(Debug)]
enum Fault {
    /// It cannot be meant so.
    Usage(String),
    /// It could not be done.
    Failed(String),
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure.to_string())
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Failed(match error {
            StoreError::Open(text) | StoreError::Unavailable(text) => text,
            error => error.to_string(),
        })
    }
}

/// Moves the store. Exit code 0: done, 1: failed (what became of the daemon is told), 2: wrong usage or configuration.
pub async fn run(args: MigrateArgs) -> ExitCode {
    match migrate(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(Fault::Usage(why)) => {
            eprintln!("ltkmd migrate: {why}");
            ExitCode::from(EXIT_CONFIGURATION)
        }
        Err(Fault::Failed(why)) => {
            eprintln!("ltkmd migrate: {why}");
            ExitCode::FAILURE
        }
    }
}

/// A line for the operator. Who has closed the pipe does not stop the work.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

async fn migrate(args: &MigrateArgs) -> Result<(), Fault> {
    let mut plan = Plan::new(args)?;
    let (mut api, mut control) = (plan.api()?, plan.api()?);
    let status = control.get("/v1/status").await?.value;
    if status["ready"] != true {
        return Err(Fault::Failed(format!(
            "the daemon is not ready ({}): mend that first",
            status["checks"]
        )));
    }
    let (mut migration, found) = Migration::begin(plan.url.clone(), plan.password.take(), plan.key()).await?;
    say(&format!("from: {}, of the daemon at {}", plan.dir.display(), api.endpoint()));
    say(&format!("to:   {}", migration.at()));
    if found == Found::Unfinished {
        say("an earlier migration to there did not come to its end: it is begun anew");
    }
    if args.dry_run {
        say("nothing was written; what the daemon's configuration will need:");
        say(&plan.next());
        return Ok(());
    }
    say("prepare this for the daemon's configuration, and do not start it with it yet:");
    say(&plan.next());
    let mut frozen = None;
    let copied = stoppable(async {
        let first = pass(&mut api, &mut migration, "copying").await?;
        say(&format!(
            "first pass: {} terminals and {} subscribers in {:.1} s, while the daemon served",
            first.0.terminals,
            first.0.subscribers,
            first.1.as_secs_f64()
        ));
        // It may have been carried out though its answer does not come.
        frozen = Some(Instant::now());
        freeze(&mut control, &plan.by, false).await?;
        say("the daemon is frozen: terminals get 503, nothing is sent or recorded");
        let rest = async {
            let (last, _) = pass(&mut api, &mut migration, "catching up").await?;
            migration.complete(&last).await?;
            Ok(last)
        };
        let rest = tokio::time::timeout(args.max_pause, rest);
        tokio::select! {
            done = rest => done.unwrap_or_else(|_| {
                let secs = args.max_pause.as_secs();
                Err(Fault::Failed(format!("the pause lasted {secs} s: raise --max-pause")))
            }),
            fault = keep_frozen(&plan) => Err(fault),
        }
    })
    .await;
    let last = match (copied, frozen) {
        (Ok(last), Some(_)) => last,
        (Err(fault), None) => return Err(undone(fault, "the daemon was not touched")),
        (Err(fault), Some(_)) => return Err(undone(fault, &thaw(&mut control, false).await)),
        (Ok(_), None) => unreachable!("the second pass begins with the freeze"),
    };
    let document = json!({"by": plan.by, "to": plan.url.to_string()});
    if let Err(failure) = control.call("POST", "/v1/moved", Some(&document)).await {
        // Whether it heard it or not: nobody can have started on the database, which is closed.
        let then = thaw(&mut control, true).await;
        return Err(undone(failure.into(), &then));
    }
    if let Err(error) = migration.open().await {
        match migration.is_open(SETTLE).await {
            Ok(true) => {}
            Ok(false) => {
                let then = thaw(&mut control, true).await;
                return Err(undone(error.into(), &then));
            }
            Err(_) => return Err(Fault::Failed(in_doubt(&error))),
        }
    }
    let paused = frozen.map_or(Duration::ZERO, |at| at.elapsed());
    tell(&plan, &last, paused);
    Ok(())
}

/// One whole backup of the daemon into the database.
async fn pass(
    api: &mut Api,
    migration: &mut Migration,
    what: &'static str,
) -> Result<(PassReport, Duration), Fault> {
    let begun = Instant::now();
    let mut answer = loop {
        match api.download("/v1/backup", "").await {
            Ok((answer, _)) => break answer,
            Err(failure) if begun.elapsed() > BUSY => return Err(failure.into()),
            // Another backup has the place; its end is not told.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    let bar = progress(what);
    let mut pass = migration.pass()?;
    let copied = async {
        while let Some(octets) = api.next_octets(&mut answer).await? {
            pass.feed(&octets).await?;
            let (expected, at) = pass.progress();
            bar.set_length(expected.max(at));
            bar.set_position(at);
        }
        Ok::<_, Fault>(pass.finish().await?)
    };
    let copied = copied.await;
    bar.finish_and_clear();
    Ok((copied?, begun.elapsed()))
}

/// A bar by records on stderr; nothing is drawn when that is no terminal.
fn progress(what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{elapsed_precise} {msg:11} [{bar:32}] {human_pos} of about {human_len} records",
    )
    .expect("the template is a constant");
    let bar = if io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    bar.set_message(what);
    bar.with_style(style.progress_chars("=> "))
}

async fn freeze(api: &mut Api, by: &str, prolong: bool) -> Result<(), Fault> {
    let document = json!({"by": by, "for": format!("{}s", FREEZE.as_secs()), "prolong": prolong});
    api.call("POST", "/v1/freeze", Some(&document)).await?;
    Ok(())
}

/// Prolongs the freeze, until it cannot be prolonged.
async fn keep_frozen(plan: &Plan) -> Fault {
    let mut api = match plan.api() {
        Ok(api) => api,
        Err(fault) => return fault,
    };
    loop {
        tokio::time::sleep(PROLONG).await;
        if let Err(fault) = freeze(&mut api, &plan.by, true).await {
            return fault;
        }
    }
}

/// Lets the daemon go on; says what became of it.
async fn thaw(api: &mut Api, back: bool) -> String {
    let path = if back { "/v1/thaw?back=true" } else { "/v1/thaw" };
    match api.call("POST", path, None).await {
        Ok(_) => "the daemon goes on as before".to_owned(),
        Err(failure) if back => format!(
            "the daemon could not be told to go on ({failure}): let it, by ltkmd ctl thaw --back, or, if it does not run, \
             by removing the file moved in its store's directory"
        ),
        Err(failure) => format!(
            "the daemon could not be told to go on ({failure}): it does so by itself within {} s, or by ltkmd ctl thaw",
            FREEZE.as_secs()
        ),
    }
}

fn undone(fault: Fault, then: &str) -> Fault {
    match fault {
        Fault::Failed(why) => Fault::Failed(format!(
            "{why}. {then}. What is in the database is unfinished: no daemon opens it, and the next run begins it anew"
        )),
        fault => fault,
    }
}

fn in_doubt(error: &StoreError) -> String {
    format!(
        "{error}. All of the store is in the database, but whether that is open to daemons could not be learned, and the \
         daemon stays frozen. Ask it by SELECT accepts FROM ltkmd.meta: 1 is open, start the daemon there; {} is not, let \
         the old one go on by ltkmd ctl thaw --back and run this again",
        i32::MAX
    )
}

/// Ctrl-C and SIGTERM end the work in order, so that the daemon goes on at once.
async fn stoppable<T>(work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => terminate.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    let stopped = || Err(Fault::Failed("stopped".to_owned()));
    tokio::select! {
        done = work => done,
        Ok(()) = tokio::signal::ctrl_c() => stopped(),
        _ = terminated => stopped(),
    }
}

fn tell(plan: &Plan, last: &PassReport, paused: Duration) {
    say(&format!(
        "second pass: {} records written anew, {} removed; {} terminals and {} subscribers are there, compared with the \
         store",
        last.written, last.removed, last.terminals, last.subscribers
    ));
    say(&format!(
        "moved. The daemon takes no changes since {:.1} s, and will not until it runs on the database",
        paused.as_secs_f64()
    ));
    say("now: give its configuration these lines and start it again (systemctl restart ltkmd):");
    say(&plan.next());
    say(&format!(
        "{} is not opened again; keep it until the daemon has served from the database for a while",
        plan.dir.display()
    ));
}
