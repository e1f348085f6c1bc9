//! A key update of all terminals as a closed queueing network: each daemon has so many pages under way, and a page goes
//! from station to station. The simulation follows every page; the model looks at the stations alone.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::inputs::{Inputs, Machine};

/// What is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cluster {
    /// Daemons, each on a machine of its own.
    pub(crate) daemons: usize,
    /// Servers that have the shards; one: the database is not distributed.
    pub(crate) workers: usize,
    /// A daemon's machine.
    pub(crate) daemon: Machine,
    /// The machine of a server with shards.
    pub(crate) server: Machine,
    /// Cores of the coordinator, where there are several such servers.
    pub(crate) coordinator: usize,
}

/// What may be saturated first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Resource {
    /// The daemons' processors.
    Daemons,
    /// The coordinator's processor.
    Coordinator,
    /// The processors of the servers that have the shards.
    Workers,
    /// Their disks, by the WAL.
    Wal,
    /// The daemons' network.
    Network,
    /// Nothing: pages under way wait for round trips and syncs.
    Latency,
}

impl Resource {
    /// In words.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Daemons => "daemons",
            Self::Coordinator => "coordinator",
            Self::Workers => "workers",
            Self::Wal => "WAL disks",
            Self::Network => "network",
            Self::Latency => "round trips",
        }
    }
}

/// What a key update comes to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    /// Seconds from the first page to the last verification.
    pub(crate) seconds: f64,
    /// What holds it up.
    pub(crate) first: Resource,
}

/// Seconds a page spends on a processor or a disk of each kind, its answers included.
struct Demand {
    daemon: f64,
    answers: f64,
    coordinator: f64,
    coordinator_answers: f64,
    worker: f64,
    worker_answers: f64,
    wal: f64,
    wal_answers: f64,
    network: f64,
    /// Waits between the stations.
    delay: f64,
}

impl Demand {
    fn of(i: &Inputs, c: &Cluster) -> Self {
        let us = |us: f64| us * i.page / 1e6;
        let hops = if c.workers > 1 { 2.0 } else { 1.0 };
        let coordinator = if c.workers > 1 { us(i.coordinator_us) / 2.0 } else { 0.0 };
        let wal = i.wal_octets * i.page / c.server.disk / 2.0;
        Self {
            daemon: us(i.daemon_us),
            answers: us(i.daemon_answer_us),
            coordinator,
            coordinator_answers: coordinator,
            worker: us(i.database_us),
            worker_answers: us(i.database_answer_us),
            wal,
            wal_answers: wal,
            network: i.ltkm_octets.max(i.answer_octets) * i.page / c.daemon.network,
            // It is read, and written: two ways to the database and back.
            delay: (2.0 * hops * i.round_trip_us + i.sync_us) / 1e6,
        }
    }
}

/// The model: no station does more than it can, and no daemon has more than its pages under way. The slowest of these
/// says how long it takes; the first page and the last answer are added.
pub(crate) fn model(terminals: f64, i: &Inputs, c: &Cluster) -> Outcome {
    let d = Demand::of(i, c);
    let (daemons, workers) = (c.daemons as f64, c.workers as f64);
    // Seconds between two pages of the whole cluster, by what bounds them.
    let way = d.daemon + d.coordinator + d.worker + d.wal + d.network + d.delay;
    let bounds = [
        (Resource::Daemons, (d.daemon + d.answers) / (daemons * c.daemon.cores as f64)),
        (Resource::Coordinator, (d.coordinator + d.coordinator_answers) / c.coordinator as f64),
        (Resource::Workers, (d.worker + d.worker_answers) / (workers * c.server.cores as f64)),
        (Resource::Wal, (d.wal + d.wal_answers) / workers),
        (Resource::Network, d.network / daemons),
        (Resource::Latency, way / (daemons * i.pages_at_once as f64)),
    ];
    let (first, each) = bounds.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).expect("there are bounds");
    let answers = d.answers + d.coordinator_answers + d.worker_answers + d.wal_answers + d.delay;
    Outcome { seconds: terminals / i.page * each + way + answers, first }
}

/// Servers of one kind with one queue: who comes first is served first.
struct Station {
    free: BinaryHeap<Reverse<u64>>,
    busy: u64,
}

impl Station {
    fn new(servers: usize) -> Self {
        Self { free: (0..servers).map(|_| Reverse(0)).collect(), busy: 0 }
    }

    /// When what comes now and takes so many nanoseconds is done.
    fn serve(&mut self, now: u64, takes: u64) -> u64 {
        let Reverse(free) = self.free.pop().expect("a station has servers");
        let done = free.max(now) + takes;
        self.free.push(Reverse(done));
        self.busy += takes;
        done
    }

    fn used(&self, until: u64) -> f64 {
        self.busy as f64 / (until.max(1) as f64 * self.free.len() as f64)
    }
}

/// Where a page, or its answers, goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Decide,
    Coordinate,
    Work,
    Log,
    Send,
    Answered,
}

/// When, a number that keeps the order, which step, of answers or not, at which daemon and worker.
type Event = (u64, u64, Step, bool, usize, usize);

/// Nanoseconds.
fn ns(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}

/// The simulation: every page of every daemon, and every page's answers, from station to station.
pub(crate) fn simulate(terminals: f64, i: &Inputs, c: &Cluster) -> Outcome {
    let d = Demand::of(i, c);
    let stations = |n: usize, servers: usize| (0..n).map(|_| Station::new(servers)).collect::<Vec<_>>();
    let mut daemons = stations(c.daemons, c.daemon.cores);
    let mut coordinator = Station::new(c.coordinator);
    let mut workers = stations(c.workers, c.server.cores);
    let mut disks = stations(c.workers, 1);
    let mut wires = stations(c.daemons, 1);
    let pages = (terminals / i.page).ceil() as u64;
    let mut left: Vec<u64> = (0..c.daemons as u64)
        .map(|n| pages / c.daemons as u64 + u64::from(n < pages % c.daemons as u64))
        .collect();
    let mut events: BinaryHeap<Reverse<Event>> = BinaryHeap::new();
    // A daemon goes from shard to shard, and shards lie in turns on the servers.
    let worker_of = |daemon: usize, left: u64| (daemon + left as usize) % c.workers;
    let (mut number, mut last) = (0u64, 0u64);
    for (daemon, left) in left.iter_mut().enumerate() {
        for _ in 0..i.pages_at_once {
            if *left > 0 {
                *left -= 1;
                number += 1;
                events.push(Reverse((0, number, Step::Decide, false, daemon, worker_of(daemon, *left))));
            }
        }
    }
    let half = ns(d.delay / 2.0);
    let mut visited = 0u64;
    while let Some(Reverse((now, _, step, answers, daemon, worker))) = events.pop() {
        let of = |page: f64, answer: f64| ns(if answers { answer } else { page });
        let (next, at) = match step {
            Step::Decide => (Step::Coordinate, daemons[daemon].serve(now, of(d.daemon, d.answers)) + half),
            Step::Coordinate => {
                (Step::Work, coordinator.serve(now, of(d.coordinator, d.coordinator_answers)))
            }
            Step::Work => (Step::Log, workers[worker].serve(now, of(d.worker, d.worker_answers))),
            Step::Log => (Step::Send, disks[worker].serve(now, of(d.wal, d.wal_answers)) + half),
            Step::Send if answers => (Step::Answered, now),
            Step::Send => {
                number += 1;
                let sent = wires[daemon].serve(now, ns(d.network));
                // Its answers come back, and the page's place is free for the next.
                events.push(Reverse((sent, number, Step::Decide, true, daemon, worker)));
                if left[daemon] > 0 {
                    left[daemon] -= 1;
                    number += 1;
                    let page = (sent, number, Step::Decide, false, daemon, worker_of(daemon, left[daemon]));
                    events.push(Reverse(page));
                }
                visited += 1;
                continue;
            }
            Step::Answered => {
                last = last.max(now);
                continue;
            }
        };
        number += 1;
        events.push(Reverse((at, number, next, answers, daemon, worker)));
    }
    assert_eq!(visited, pages, "every page was sent");
    let most = |stations: &[Station]| stations.iter().map(|s| s.used(last)).fold(0.0, f64::max);
    let used = [
        (Resource::Daemons, most(&daemons)),
        (Resource::Coordinator, coordinator.used(last)),
        (Resource::Workers, most(&workers)),
        (Resource::Wal, most(&disks)),
        (Resource::Network, most(&wires)),
    ];
    let (first, used) = used.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).expect("there are stations");
    let first = if used < IDLE { Resource::Latency } else { first };
    Outcome { seconds: last as f64 / 1e9, first }
}

/// A station that is used less than this holds nothing up.
const IDLE: f64 = 0.85;
