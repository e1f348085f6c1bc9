//! The process that kills and checks.

use std::io::BufReader;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use crate::Options;
use crate::child::Phase;
use crate::report::Record;
use crate::wire::{Mark, Message, receive};

/// How far a child's clock is ahead of what the child before it can have reached.
const CLOCK_STEP: u64 = 1_000_000_000;
/// No sign of life for so long is a hang.
const HANG: Duration = Duration::from_secs(60);

/// What is known of each terminal.
struct Marks {
    /// Highest acknowledged, by terminal.
    acked: Vec<(u32, u64)>,
    /// The same as it was when the child that runs now was started.
    floor: Vec<(u32, u64)>,
}

impl Marks {
    fn acknowledge(&mut self, mark: Mark) {
        let acked = &mut self.acked[mark.terminal as usize];
        *acked = (acked.0.max(mark.next_t), acked.1.max(mark.stamp));
    }

    /// What is found, by a decision or by reading, is never behind what an earlier child acknowledged: so
    /// nothing was lost, and the T that the decision takes next is new.
    fn check(&self, mark: Mark, record: &mut Record) {
        let floor = self.floor[mark.terminal as usize];
        if mark.next_t < floor.0 || mark.stamp < floor.1 {
            record.loss(format!("{mark:?} was found, {floor:?} had been acknowledged"));
        }
    }
}

/// A running child.
struct Running {
    child: Child,
    messages: Receiver<Message>,
    started: Instant,
    opened: bool,
    read_back: u32,
}

impl Running {
    fn start(options: &Options, phase: Phase, clock: u64) -> Result<Self, String> {
        let phase = match phase {
            Phase::Provision => "provision",
            Phase::Mix => "mix",
            Phase::Quiet => "quiet",
        };
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut child = Command::new(program)
            .arg("--dir")
            .arg(&options.dir)
            .args(["--terminals", &options.terminals.to_string()])
            .args(["--clock", &clock.to_string(), "--child", phase])
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let mut pipe = BufReader::with_capacity(1 << 16, child.stdout.take().ok_or("no pipe")?);
        let (sender, messages) = sync_channel(1024);
        std::thread::spawn(move || {
            while let Some(message) = receive(&mut pipe) {
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, messages, started: Instant::now(), opened: false, read_back: 0 })
    }

    /// Takes what the child says until `end`, or until it has finished. `false`: it ended by itself.
    fn follow(
        &mut self,
        end: Option<Instant>,
        marks: &mut Marks,
        record: &mut Record,
    ) -> Result<bool, String> {
        let mut heard = Instant::now();
        loop {
            let wait = end.map_or(HANG, |end| end.saturating_duration_since(Instant::now()).min(HANG));
            if end.is_some() && wait.is_zero() {
                return Ok(true);
            }
            match self.messages.recv_timeout(wait) {
                Ok(message) => {
                    if heard.elapsed() > Duration::from_secs(5) && self.opened {
                        record.silence(heard.elapsed());
                    }
                    heard = Instant::now();
                    if matches!(message, Message::Finished) {
                        return Ok(true);
                    }
                    self.take(message, marks, record);
                }
                Err(RecvTimeoutError::Timeout) if heard.elapsed() >= HANG => {
                    return Err("the child hangs".into());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(false),
            }
        }
    }

    fn take(&mut self, message: Message, marks: &mut Marks, record: &mut Record) {
        match message {
            Message::Opened(micros) => {
                self.opened = true;
                record.opened(Duration::from_micros(micros));
            }
            Message::Acked(acked) => {
                record.terminals(acked.len() as u64);
                for mark in acked {
                    marks.acknowledge(mark);
                }
            }
            Message::Found(found) => {
                for mark in found {
                    marks.check(mark, record);
                }
            }
            Message::ReadBack(read) => {
                self.read_back += read.len() as u32;
                for mark in read {
                    marks.check(mark, record);
                }
            }
            Message::ReadAll => {
                record.read_back(self.read_back);
                if self.read_back as usize != marks.acked.len() {
                    record.loss(format!(
                        "{} of {} terminals were read back",
                        self.read_back,
                        marks.acked.len()
                    ));
                }
            }
            Message::Finished => {}
            Message::Commits(times) => record.commits(&times),
            Message::Figures(figures) => record.figures(figures),
        }
    }

    /// Kills the child and takes what it had said before.
    fn kill(mut self, marks: &mut Marks, record: &mut Record) -> Result<(), String> {
        self.child.kill().map_err(|e| e.to_string())?;
        self.child.wait().map_err(|e| e.to_string())?;
        while let Ok(message) = self.messages.recv() {
            self.take(message, marks, record);
        }
        marks.floor.clone_from(&marks.acked);
        Ok(())
    }
}

/// Runs everything and writes the record.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    match std::fs::remove_dir_all(&options.dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.to_string()),
        _ => {}
    }
    let mut record = Record::new(options);
    let ended = phases(options, &mut record);
    if let Err(e) = &ended {
        record.loss(format!("broken off: {e}"));
    }
    let text = record.markdown();
    println!("{text}");
    if let Some(path) = &options.out {
        std::fs::write(path, &text).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    ended?;
    if record.losses() == 0 { Ok(()) } else { Err("something was lost".into()) }
}

fn phases(options: &Options, record: &mut Record) -> Result<(), String> {
    let n = options.terminals as usize;
    let mut marks = Marks { acked: vec![(0, 0); n], floor: vec![(0, 0); n] };
    let mut clock = 1_800_000_000_000;

    let mut child = Running::start(options, Phase::Provision, clock)?;
    if !child.follow(None, &mut marks, record)? {
        return Err("provisioning failed".into());
    }
    record.provisioned(child.started.elapsed());
    child.child.wait().map_err(|e| e.to_string())?;
    marks.floor.clone_from(&marks.acked);

    let begun = Instant::now();
    let all = Duration::from_secs(60 * u64::from(options.minutes));
    for kill in 0..options.kills {
        clock += CLOCK_STEP;
        let mut child = Running::start(options, Phase::Mix, clock)?;
        // A quarter of the kills come while the store reopens or has just reopened.
        let end = if kill % 4 == 3 {
            child.started + Duration::from_millis(u64::from(kill) * 37 % 1500)
        } else {
            begun + all * (kill + 1) / options.kills
        };
        if !child.follow(Some(end), &mut marks, record)? {
            return Err("the child ended by itself".into());
        }
        record.killed(child.opened);
        child.kill(&mut marks, record)?;
    }

    record.begin_quiet();
    clock += CLOCK_STEP;
    let mut child = Running::start(options, Phase::Quiet, clock)?;
    let end = Instant::now() + Duration::from_secs(60 * u64::from(options.quiet_minutes));
    if !child.follow(Some(end), &mut marks, record)? {
        return Err("the child of the quiet hour ended by itself".into());
    }
    child.kill(&mut marks, record)
}
