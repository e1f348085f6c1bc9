//! `ctl job`, and following a job to its end.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressState, ProgressStyle};
use serde_json::Value;

use super::Failure;
use super::api::{Api, PageArgs, Reply};
use super::show::{Screen, cell};

/// How often a job that is followed is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// How often a line tells how far it is where no bar can be drawn.
const LINE: Duration = Duration::from_secs(5);

/// Looks whose pace a bar tells: ten seconds.
const SAMPLES: usize = 50;

/// How long a daemon that answered before may be silent, restarting for instance.
const PATIENCE: Duration = Duration::from_secs(60);

/// Exit code after Ctrl-C, as of any program that SIGINT ends.
const INTERRUPTED: u8 = 130;

/// `ctl job`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Job {
    /// List fan-out jobs, the newest first
    List {
        /// Those in this state
        #[arg(long, value_parser = ["running", "paused", "cancelled", "done"])]
        state: Option<String>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show a job
    Show {
        /// The job's number
        id: u64,
        /// Follow it, as `job follow` does
        #[arg(long)]
        follow: bool,
    },
    /// Follow a job to its end: a progress bar, lines where there is no terminal, with --json a document for each
    /// change; exit 0 when it is done and no terminal was given up, 1 when one was or the job was cancelled, 130
    /// after Ctrl-C, which leaves the job as it is
    Follow {
        /// The job's number
        id: u64,
    },
    /// Hold a job: nobody more is visited until it is resumed; what is under way goes on to its end
    Pause {
        /// The job's number
        id: u64,
    },
    /// Let a paused job go on where it was
    Resume {
        /// The job's number
        id: u64,
    },
    /// End a job: nobody more is visited, and what waits for its turn does not go out
    Cancel {
        /// The job's number
        id: u64,
    },
}

impl Job {
    pub(super) async fn run(self, api: &mut Api, screen: &mut Screen<'_>) -> Result<(), Failure> {
        match self {
            Self::List { state, page } => {
                let list = api.list("/v1/jobs", &[("state", state.as_deref())], &page).await?;
                let columns = [
                    ("JOB", "id"),
                    ("KIND", "kind"),
                    ("STATE", "state"),
                    ("SERVICE", "service"),
                    ("MSK ID", "msk_id"),
                    ("TERMINALS", "terminals"),
                    ("VISITED", "visited"),
                    ("VERIFIED", "verified"),
                    ("AWAITING PULL", "awaiting_pull"),
                    ("FAILED", "failed"),
                    ("STARTED", "started"),
                ];
                screen.list(&list, &columns)
            }
            Self::Show { id, follow: false } => {
                let reply = api.get(&path(id)).await?;
                show(screen, &reply)
            }
            Self::Show { id, follow: true } | Self::Follow { id } => follow(api, screen, id).await,
            Self::Pause { id } => act(api, screen, id, "pause").await,
            Self::Resume { id } => act(api, screen, id, "resume").await,
            Self::Cancel { id } => act(api, screen, id, "cancel").await,
        }
    }
}

fn path(id: u64) -> String {
    format!("/v1/jobs/{id}")
}

async fn act(api: &mut Api, screen: &mut Screen<'_>, id: u64, action: &str) -> Result<(), Failure> {
    let reply = api.call("POST", &format!("{}/{action}", path(id)), None).await?;
    if screen.json {
        return screen.raw(&reply);
    }
    let job = &reply.value;
    let number = |field: &str| HumanCount(job[field].as_u64().unwrap_or(0));
    let (visited, terminals, state) = (number("visited"), number("terminals"), cell(&job["state"]));
    screen.line(&format!("job {id} is {state}: {visited} of {terminals} terminals were visited"))
}

fn show(screen: &mut Screen<'_>, reply: &Reply) -> Result<(), Failure> {
    if screen.json {
        return screen.raw(reply);
    }
    let job = &reply.value;
    let fields =
        ["id", "kind", "state", "service", "msk_id", "terminals", "visited", "sent", "started", "finished"];
    let mut rows: Vec<_> = fields.iter().map(|name| (*name, cell(&job[name]))).collect();
    rows.push(("states", counts(job)));
    screen.card(rows)
}

/// States that are not empty, with their counts, in the order of a delivery's life.
fn counts(job: &Value) -> String {
    const LIFE: [&str; 8] =
        ["queued", "sent", "verified", "assumed", "awaiting_pull", "failed", "superseded", "cancelled"];
    let count = |state: &&str| job["states"][state].as_u64().filter(|n| *n > 0);
    let some = LIFE.iter().filter_map(|state| Some(format!("{state} {}", count(state)?)));
    let some: Vec<_> = some.collect();
    if some.is_empty() { "-".to_owned() } else { some.join(", ") }
}

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Progress {
    state: String,
    /// The terminals it is about.
    total: u64,
    /// Those with whom it has nothing more to do.
    settled: u64,
    failed: u64,
    /// What each of them has come to.
    counts: String,
}

impl Progress {
    fn of(job: &Value) -> Self {
        let count = |name: &str| job["states"][name].as_u64().unwrap_or(0);
        let total = job["terminals"].as_u64().unwrap_or(0);
        Self {
            state: cell(&job["state"]),
            total,
            settled: total.saturating_sub(count("queued") + count("sent")),
            failed: count("failed"),
            counts: counts(job),
        }
    }

    fn is_over(&self) -> bool {
        self.state != "running" && self.state != "paused"
    }

    /// A line for where no bar can be drawn.
    fn line(&self, elapsed: Duration) -> String {
        let percent = self.settled * 100 / self.total.max(1);
        let Self { state, settled, total, counts, .. } = self;
        format!("{:>5}s  {state}  {percent:>3}%  {settled} of {total}  {counts}", elapsed.as_secs())
    }
}

/// How the progress is shown meanwhile.
enum Display {
    /// On a terminal.
    Bar(Bar),
    /// Lines for people who read them later: the latest, and when it was written.
    Lines(Progress, Instant),
    /// The API's documents for programs, one a line.
    Documents,
}

impl Display {
    fn new(screen: &Screen<'_>, job: &Value) -> Self {
        match (screen.json, screen.bars) {
            (true, _) => Self::Documents,
            (false, true) => Self::Bar(Bar::new(job)),
            // Nobody has to be told that it runs; that it is paused is told at once.
            (false, false) => {
                Self::Lines(Progress { state: "running".to_owned(), ..Progress::of(job) }, Instant::now())
            }
        }
    }

    /// Shows one more look at the job.
    fn show(&mut self, screen: &mut Screen<'_>, reply: &Reply, began: Instant) -> Result<(), Failure> {
        let progress = Progress::of(&reply.value);
        match self {
            Self::Bar(bar) => bar.show(progress, Instant::now()),
            Self::Lines(told, at) => {
                let turned = told.state != progress.state && !progress.is_over();
                if turned || (*told != progress && at.elapsed() >= LINE) {
                    screen.line(&progress.line(began.elapsed()))?;
                    screen.flush()?;
                    (*told, *at) = (progress, Instant::now());
                }
            }
            Self::Documents => {
                screen.raw(reply)?;
                screen.flush()?;
            }
        }
        Ok(())
    }

    /// Leaves what was shown as it is.
    fn leave(&self) {
        if let Self::Bar(bar) = self {
            bar.bar.abandon();
        }
    }
}

/// A progress bar, and how fast it goes.
struct Bar {
    bar: ProgressBar,
    /// What the bar says of the pace.
    pace: Arc<Mutex<String>>,
    /// How many were settled when, the latest last.
    seen: VecDeque<(Instant, u64)>,
}

impl Bar {
    /// A bar of this job.
    fn new(job: &Value) -> Self {
        let (id, service) = (cell(&job["id"]), cell(&job["service"]));
        let what = match job["msk_id"].as_str() {
            Some(msk_id) => format!("job {id}: key {msk_id} to the terminals of {service}"),
            None => format!("job {id}: the registrations for {service} end"),
        };
        let pace = Arc::<Mutex<String>>::default();
        let bar = ProgressBar::new(0).with_style(style(&pace)).with_prefix(what);
        bar.enable_steady_tick(LOOK);
        Self { bar, pace, seen: VecDeque::new() }
    }

    /// Shows how far the job is now.
    fn show(&mut self, progress: Progress, now: Instant) {
        if self.seen.len() == SAMPLES {
            self.seen.pop_front();
        }
        self.seen.push_back((now, progress.settled));
        *self.pace.lock().expect("no holder of this lock panics") = pace(&progress, &self.seen);
        self.bar.set_length(progress.total);
        self.bar.set_position(progress.settled);
        self.bar.set_message(progress.counts);
    }
}

/// What a bar looks like.
fn style(pace: &Arc<Mutex<String>>) -> ProgressStyle {
    let template =
        "{prefix}\n[{wide_bar}] {percent:>3}%  {human_pos} of {human_len}  {pace}\n{elapsed}  {msg}";
    let style = ProgressStyle::with_template(template).expect("the template is a constant");
    let pace = Arc::clone(pace);
    let pace = move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
        // A line that cannot be written is a line that is not shown.
        let _ = out.write_str(&pace.lock().expect("no holder of this lock panics"));
    };
    style.with_key("pace", pace).progress_chars("=> ")
}

/// How fast it went of late, and for how long it would go on like that.
fn pace(progress: &Progress, seen: &VecDeque<(Instant, u64)>) -> String {
    if progress.state == "paused" {
        return "paused".to_owned();
    }
    let (Some(first), Some(last)) = (seen.front(), seen.back()) else { return String::new() };
    let span = last.0.duration_since(first.0).as_secs_f64();
    let settled = last.1.saturating_sub(first.1);
    if settled == 0 || span == 0.0 {
        return "waiting".to_owned();
    }
    let per_second = settled as f64 / span;
    // Beyond a century it is no estimate.
    let to_go = (progress.total.saturating_sub(last.1) as f64 / per_second).min(3e9);
    let per_second = HumanCount(per_second.round() as u64);
    format!("{per_second}/s, {} to go", HumanDuration(Duration::from_secs_f64(to_go)))
}

/// Follows a job to its end.
pub(super) async fn follow(api: &mut Api, screen: &mut Screen<'_>, id: u64) -> Result<(), Failure> {
    let began = Instant::now();
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    let mut latest = api.get(&path(id)).await?;
    let mut display = Display::new(screen, &latest.value);
    display.show(screen, &latest, began)?;
    let mut heard = Instant::now();
    while !Progress::of(&latest.value).is_over() {
        let look = async {
            tokio::time::sleep(LOOK).await;
            api.get(&path(id)).await
        };
        let reply = tokio::select! {
            reply = look => reply,
            _ = &mut interrupt => {
                display.leave();
                return Err(interrupted(id, &latest.value));
            }
        };
        match reply {
            Ok(reply) => {
                heard = Instant::now();
                let changed = reply.raw != latest.raw;
                latest = reply;
                // People are told of the time that passes, too.
                if changed || !matches!(display, Display::Documents) {
                    display.show(screen, &latest, began)?;
                }
            }
            // A daemon that restarts goes on with its jobs.
            Err(_) if heard.elapsed() < PATIENCE => {}
            Err(failure) => {
                display.leave();
                return Err(failure);
            }
        }
    }
    if let Display::Bar(bar) = &display {
        bar.bar.finish_and_clear();
    }
    if !screen.json {
        show(screen, &latest)?;
    }
    verdict(id, &latest.value)
}

fn interrupted(id: u64, job: &Value) -> Failure {
    let goes_on = match job["state"].as_str() {
        Some("paused") => "stays paused",
        _ => "goes on",
    };
    let sentence = format!("job {id} {goes_on} without you: `ltkmd ctl job follow {id}` shows it again");
    Failure { code: INTERRUPTED, sentence }
}

/// What a job that is over is worth.
fn verdict(id: u64, job: &Value) -> Result<(), Failure> {
    let Progress { state, failed, total, .. } = Progress::of(job);
    match (state.as_str(), failed) {
        ("done", 0) => Ok(()),
        ("done", failed) => Err(Failure::failed(format!(
            "{failed} of {total} terminals were given up until they are heard of: `ltkmd ctl delivery list --state \
             failed` lists them"
        ))),
        (state, _) => {
            let visited = job["visited"].as_u64().unwrap_or(0);
            Err(Failure::failed(format!("job {id} is {state}: {visited} of {total} terminals were visited")))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(state: &str, states: Value) -> Value {
        let total: u64 = states.as_object().into_iter().flatten().filter_map(|(_, n)| n.as_u64()).sum();
        json!({
            "id": 7, "state": state, "service": "urn:s", "msk_id": "00010002", "terminals": total, "visited": 5,
            "states": states,
        })
    }

    #[test]
    fn a_line_tells_how_far_a_job_is_and_what_became_of_the_terminals() {
        let job = job("running", json!({"verified": 5, "queued": 2, "failed": 1, "sent": 0}));
        let progress = Progress::of(&job);
        assert_eq!((progress.total, progress.settled), (8, 6));
        let line = progress.line(Duration::from_secs(12));
        assert_eq!(line, "   12s  running   75%  6 of 8  queued 2, verified 5, failed 1");
        assert_eq!(
            Progress::of(&self::job("running", json!({}))).line(Duration::ZERO),
            "    0s  running    0%  0 of 0  -"
        );
    }

    #[test]
    fn only_a_job_that_is_done_and_gave_nobody_up_is_a_success() {
        let verdict = |state, states| verdict(7, &job(state, states)).map_err(|f| (f.code, f.sentence));
        assert_eq!(verdict("done", json!({"verified": 3, "awaiting_pull": 1})), Ok(()));
        let (code, sentence) = verdict("done", json!({"verified": 3, "failed": 2})).expect_err("a failure");
        assert!(code == 1 && sentence.starts_with("2 of 5 terminals were given up"), "{sentence}");
        let cancelled = verdict("cancelled", json!({"verified": 5, "cancelled": 3}));
        assert_eq!(cancelled, Err((1, "job 7 is cancelled: 5 of 8 terminals were visited".to_owned())));
    }

    #[test]
    fn who_stops_following_is_told_that_the_job_goes_on() {
        let running = interrupted(7, &job("running", json!({})));
        assert_eq!(
            (running.code, running.sentence.split(':').next()),
            (130, Some("job 7 goes on without you"))
        );
        assert!(interrupted(7, &job("paused", json!({}))).sentence.starts_with("job 7 stays paused"));
    }

    #[test]
    fn a_bar_tells_the_pace_of_late() {
        let began = Instant::now();
        let seen = |ends: [u64; 2]| VecDeque::from([(began, ends[0]), (began + 2 * LINE, ends[1])]);
        let progress = Progress::of(&job("running", json!({"queued": 234_000, "verified": 39_500})));
        assert_eq!(pace(&progress, &seen([20_000, 39_500])), "1,950/s, 2 minutes to go");
        assert_eq!(pace(&progress, &seen([39_500, 39_500])), "waiting");
        assert_eq!(pace(&progress, &VecDeque::from([(began, 39_500)])), "waiting");
        let paused = Progress { state: "paused".to_owned(), ..progress };
        assert_eq!(pace(&paused, &seen([20_000, 39_500])), "paused");
        style(&Arc::default());
    }
}
