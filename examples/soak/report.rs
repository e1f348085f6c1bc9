//! What came of it, as it goes and as Markdown.

use std::fmt::Write;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::Options;

/// Seconds that one row of the tables over time sums up.
const ROW: u64 = 60;

/// One row of the tables over time.
#[derive(Debug, Clone, Default)]
struct Row {
    terminals: u64,
    longest_commit: u64,
    slowest_update: u64,
    slowest_sync: u64,
    resident: u64,
    journal: u64,
    disk: u64,
    kills: u32,
}

/// The record of a soak.
pub(crate) struct Record {
    options: Options,
    begun: Instant,
    quiet: bool,
    provisioned: Duration,
    commits: Histogram<u64>,
    syncs: Arc<Mutex<Vec<u64>>>,
    all_syncs: Histogram<u64>,
    opens: Histogram<u64>,
    rows: Vec<(bool, Row)>,
    row: Row,
    row_begun: Instant,
    kills: [u32; 2],
    checks: u32,
    checked: u64,
    acked: u64,
    losses: u64,
    first_losses: Vec<String>,
    longest_silence: Duration,
}

fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("3 digits are allowed")
}

/// Writes and syncs 4 KiB ten times a second beside the store, in a file of its own on the same disk: what
/// the disk itself takes, so that its stalls can be told from the store's.
fn probe(options: &Options) -> Arc<Mutex<Vec<u64>>> {
    let times = Arc::new(Mutex::new(Vec::new()));
    let (to, path) = (Arc::clone(&times), options.dir.with_extension("probe"));
    std::thread::spawn(move || {
        let Ok(file) = File::create(&path) else { return };
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let begun = Instant::now();
            if file.write_all_at(&[7; 4096], 0).and_then(|()| file.sync_all()).is_err() {
                return;
            }
            to.lock().expect("no reader breaks off").push(begun.elapsed().as_micros() as u64);
        }
    });
    times
}

fn mib(octets: u64) -> u64 {
    octets >> 20
}

fn ms(micros: u64) -> f64 {
    micros as f64 / 1e3
}

impl Record {
    pub(crate) fn new(options: &Options) -> Self {
        let now = Instant::now();
        Self {
            options: options.clone(),
            begun: now,
            quiet: false,
            provisioned: Duration::ZERO,
            commits: histogram(),
            syncs: probe(options),
            all_syncs: histogram(),
            opens: histogram(),
            rows: Vec::new(),
            row: Row::default(),
            row_begun: now,
            kills: [0; 2],
            checks: 0,
            checked: 0,
            acked: 0,
            losses: 0,
            first_losses: Vec::new(),
            longest_silence: Duration::ZERO,
        }
    }

    pub(crate) fn loss(&mut self, what: String) {
        self.losses += 1;
        if self.first_losses.len() < 20 {
            println!("LOST: {what}");
            self.first_losses.push(what);
        }
    }

    pub(crate) fn losses(&self) -> u64 {
        self.losses
    }

    pub(crate) fn silence(&mut self, span: Duration) {
        println!("SILENT for {span:?}");
        self.longest_silence = self.longest_silence.max(span);
    }

    pub(crate) fn opened(&mut self, took: Duration) {
        let _ = self.opens.record(took.as_micros() as u64);
    }

    pub(crate) fn provisioned(&mut self, took: Duration) {
        println!("provisioned in {took:?}");
        self.provisioned = took;
        self.commits.reset();
        self.opens.reset();
        self.acked = 0;
        self.rows.clear();
        self.row = Row::default();
        (self.begun, self.row_begun) = (Instant::now(), Instant::now());
    }

    pub(crate) fn terminals(&mut self, n: u64) {
        self.acked += n;
        self.row.terminals += n;
    }

    pub(crate) fn read_back(&mut self, n: u32) {
        self.checks += 1;
        self.checked += u64::from(n);
    }

    pub(crate) fn commits(&mut self, times: &[u64]) {
        for t in times {
            if !self.quiet {
                let _ = self.commits.record(*t);
            }
            self.row.longest_commit = self.row.longest_commit.max(*t);
        }
    }

    pub(crate) fn figures(&mut self, [slowest, resident, journal, disk]: [u64; 4]) {
        let row = &mut self.row;
        row.slowest_update = row.slowest_update.max(slowest);
        row.resident = row.resident.max(resident);
        row.journal = row.journal.max(journal);
        row.disk = row.disk.max(disk);
        if self.row_begun.elapsed().as_secs() >= ROW {
            self.end_row();
        }
    }

    fn end_row(&mut self) {
        for t in std::mem::take(&mut *self.syncs.lock().expect("the probe does not break off")) {
            let _ = self.all_syncs.record(t);
            self.row.slowest_sync = self.row.slowest_sync.max(t);
        }
        let row = std::mem::take(&mut self.row);
        let took = self.row_begun.elapsed().as_secs_f64().max(1.0);
        self.row_begun = Instant::now();
        println!(
            "{:>5} s{} {:>7.0} terminals/s, commit {:>6.1} ms, update {:>6.1} ms, plain sync {:>6.1} ms, RSS {} MiB, journal {} MiB, disk {} MiB, kills {}, losses {}",
            self.begun.elapsed().as_secs(),
            if self.quiet { " quiet" } else { "" },
            row.terminals as f64 / took,
            ms(row.longest_commit),
            ms(row.slowest_update),
            ms(row.slowest_sync),
            mib(row.resident),
            mib(row.journal),
            mib(row.disk),
            self.kills.iter().sum::<u32>(),
            self.losses,
        );
        let terminals = (row.terminals as f64 / took) as u64;
        self.rows.push((self.quiet, Row { terminals, ..row }));
    }

    pub(crate) fn killed(&mut self, open: bool) {
        self.kills[usize::from(open)] += 1;
        self.row.kills += 1;
    }

    pub(crate) fn begin_quiet(&mut self) {
        self.end_row();
        self.quiet = true;
    }

    pub(crate) fn markdown(&mut self) -> String {
        self.end_row();
        let mut out = String::new();
        let mix: Vec<&Row> = self.rows.iter().filter(|(quiet, _)| !quiet).map(|(_, r)| r).collect();
        let quiet: Vec<&Row> = self.rows.iter().filter(|(quiet, _)| *quiet).map(|(_, r)| r).collect();
        let most = |rows: &[&Row], of: fn(&Row) -> u64| rows.iter().map(|r| of(r)).max().unwrap_or(0);
        let o = &self.options;
        let mean = mix.iter().map(|r| r.terminals).sum::<u64>() / (mix.len() as u64).max(1);
        let mut line = |what: &str, value: String| {
            let _ = writeln!(out, "| {what} | {value} |");
        };
        line("terminals", o.terminals.to_string());
        line(
            "mix",
            format!("{} minutes: 60 % registrations, 20 % fan-out pages, 20 % verifications", o.minutes),
        );
        line("beside it on the machine", o.beside.clone());
        line("provisioned and registered in", format!("{:.1} s", self.provisioned.as_secs_f64()));
        line(
            "kills",
            format!("{}, of them {} before the store was open", self.kills[0] + self.kills[1], self.kills[0]),
        );
        line("**losses, T gone back**", format!("**{}**", self.losses));
        line("terminals acknowledged", self.acked.to_string());
        line("readings of all terminals", format!("{}, {} terminals compared", self.checks, self.checked));
        line("terminals/s, mean of the minutes", mean.to_string());
        let q = |q: f64| format!("{:.1} ms", ms(self.commits.value_at_quantile(q)));
        line("commits measured", self.commits.len().to_string());
        line("commit, median / p99 / longest", format!("{} / {} / {}", q(0.5), q(0.99), q(1.0)));
        let s = |q: f64| format!("{:.1} ms", ms(self.all_syncs.value_at_quantile(q)));
        line(
            "a plain 4 KiB write and sync beside it, median / p99 / longest",
            format!("{} / {} / {}", s(0.5), s(0.99), s(1.0)),
        );
        line("longest wait of an update", format!("{:.1} ms", ms(most(&mix, |r| r.slowest_update))));
        let open = |q: f64| format!("{:.2} s", ms(self.opens.value_at_quantile(q)) / 1e3);
        line("reopening, median / longest", format!("{} / {}", open(0.5), open(1.0)));
        line("resident, most", format!("{} MiB", mib(most(&mix, |r| r.resident))));
        line("journals, most", format!("{} MiB", mib(most(&mix, |r| r.journal))));
        line("disk, most", format!("{} MiB", mib(most(&mix, |r| r.disk))));
        line("longest silence above 5 s", format!("{:.1} s", self.longest_silence.as_secs_f64()));
        let first = quiet.first().map_or(0, |r| r.journal);
        let last = quiet.last().map_or(0, |r| r.journal);
        line(
            "quiet time",
            format!(
                "{} minutes; journals {} MiB at the begin, {} MiB at most, {} MiB at the end",
                o.quiet_minutes,
                mib(first),
                mib(most(&quiet, |r| r.journal)),
                mib(last)
            ),
        );
        let head = "| what | value |\n| --- | --- |\n";
        let mut text = format!("{head}{out}\n");
        for (name, rows) in [("The mix", mix), ("The quiet time", quiet)] {
            let _ = writeln!(text, "{name}, minute by minute:\n");
            text += "| minute | terminals/s | longest commit ms | longest wait ms | longest plain sync ms | RSS MiB | journals MiB | disk MiB | kills |\n";
            text += "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
            for (i, r) in rows.iter().enumerate() {
                let (commit, wait) = (ms(r.longest_commit), ms(r.slowest_update));
                let sync = ms(r.slowest_sync);
                let (rss, journal, disk) = (mib(r.resident), mib(r.journal), mib(r.disk));
                let _ = writeln!(
                    text,
                    "| {} | {} | {commit:.1} | {wait:.1} | {sync:.1} | {rss} | {journal} | {disk} | {} |",
                    i + 1,
                    r.terminals,
                    r.kills
                );
            }
            text.push('\n');
        }
        for loss in &self.first_losses {
            let _ = writeln!(text, "- lost: {loss}");
        }
        text
    }
}
