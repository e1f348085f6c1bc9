//! How far the cluster scales: a simulation of a key update over daemons and database servers, and the model that
//! `docs/SCALING.md` reasons with. `cargo run --release --example scaling` prints the tables.

mod inputs;
mod model;

use std::io::{self, Write};

use inputs::{INPUTS, Inputs, SERVER};
use model::{Cluster, Outcome, model, simulate};

/// Terminals that are looked at.
const TERMINALS: [f64; 3] = [1e6, 1e7, 1e8];

/// Daemons and servers with shards.
const CLUSTERS: [(usize, usize); 7] = [(1, 1), (2, 1), (3, 1), (3, 2), (4, 4), (8, 8), (16, 16)];

/// How long a key update may take in the table of what it takes.
const WITHIN: [f64; 3] = [60.0, 300.0, 600.0];

/// Cores that a coordinator may have in the table of what it takes.
const COORDINATORS: [usize; 6] = [2, 4, 8, 16, 32, 64];

/// A cluster of machines like the measured one.
fn cluster(daemons: usize, workers: usize) -> Cluster {
    Cluster { daemons, workers, daemon: SERVER, server: SERVER, coordinator: SERVER.cores }
}

/// The least that brings a key to so many terminals within a time, by the model: first the smallest coordinator, then
/// the fewest machines.
fn least(terminals: f64, within: f64, i: &Inputs) -> Option<(Cluster, Outcome)> {
    let all = COORDINATORS.into_iter().flat_map(|coordinator| {
        (1..=128).flat_map(move |total| {
            (1..=total).map(move |daemons| (coordinator, daemons, total + 1 - daemons))
        })
    });
    let outcomes = all.map(|(coordinator, daemons, workers)| {
        let c = Cluster { coordinator, ..cluster(daemons, workers) };
        (c, model(terminals, i, &c))
    });
    outcomes.into_iter().find(|(_, outcome)| outcome.seconds <= within)
}

/// What clusters of machines like the measured one take.
fn rates(i: &Inputs) -> String {
    let mut out = String::from(
        "| terminals | daemons | servers with shards | simulated | model | a second | first |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for terminals in TERMINALS {
        for (daemons, workers) in CLUSTERS {
            let c = cluster(daemons, workers);
            let (simulated, modelled) = (simulate(terminals, i, &c), model(terminals, i, &c));
            let (millions, rate) = (terminals / 1e6, terminals / simulated.seconds / 1e3);
            let first = simulated.first.as_str();
            let (simulated, modelled) = (simulated.seconds, modelled.seconds);
            out += &format!(
                "| {millions:.0} M | {daemons} | {workers} | {simulated:.0} s | {modelled:.0} s | {rate:.0} k | {first} |\n"
            );
        }
    }
    out
}

/// What it takes to be done in time.
fn needs(i: &Inputs) -> String {
    let gib = |octets: f64| octets / f64::from(1u32 << 30);
    let mut out = String::from(
        "| terminals | within | daemons | servers with shards | coordinator's cores | disk of each | WAL of all | \
         first |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for terminals in TERMINALS {
        for within in WITHIN {
            let (millions, wal) = (terminals / 1e6, gib(terminals * i.wal_octets));
            let machines = match least(terminals, within, i) {
                Some((c, outcome)) => {
                    let cores = if c.workers > 1 { c.coordinator.to_string() } else { "none".to_owned() };
                    let disk = gib(terminals * i.disk_octets / c.workers as f64);
                    let (daemons, workers, first) = (c.daemons, c.workers, outcome.first.as_str());
                    format!("{daemons} | {workers} | {cores} | {disk:.1} GiB | {wal:.1} GiB | {first}")
                }
                None => format!("– | – | – | – | {wal:.1} GiB | too much for 128 such machines"),
            };
            out += &format!("| {millions:.0} M | {within:.0} s | {machines} |\n");
        }
    }
    out
}

fn main() -> io::Result<()> {
    writeln!(io::stdout(), "{}\n{}", rates(&INPUTS), needs(&INPUTS))
}

#[cfg(test)]
mod tests {
    use super::inputs::Machine;
    use super::model::Resource;
    use super::*;

    /// By how much the simulation and the model may differ: the model knows no queue in front of a station that is
    /// free now and then, so that it is too fast where two bounds are close.
    const TOLERANCE: f64 = 0.05;

    fn assert_agree(terminals: f64, i: &Inputs, c: &Cluster) -> Resource {
        let (simulated, modelled) = (simulate(terminals, i, c), model(terminals, i, c));
        let ratio = simulated.seconds / modelled.seconds;
        assert!((ratio - 1.0).abs() < TOLERANCE, "{ratio:.3}: {simulated:?} {modelled:?} for {c:?}");
        modelled.first
    }

    #[test]
    fn simulation_and_model_agree_on_every_cluster_of_the_table() {
        for (daemons, workers) in CLUSTERS {
            for terminals in [1e6, 1e7] {
                assert_agree(terminals, &INPUTS, &cluster(daemons, workers));
            }
        }
    }

    #[test]
    fn they_agree_on_what_saturates_whichever_it_is() {
        let slow = |change: fn(&mut Inputs)| {
            let mut i = INPUTS;
            change(&mut i);
            i
        };
        let c = cluster(4, 4);
        let mut thin = c;
        thin.daemon = Machine { network: 1e6, ..SERVER };
        let cases = [
            (Resource::Daemons, slow(|i| i.daemon_us *= 50.0), c),
            (Resource::Coordinator, slow(|i| i.coordinator_us = 1_000.0), c),
            (Resource::Workers, slow(|i| i.database_us *= 50.0), c),
            (Resource::Wal, slow(|i| i.wal_octets *= 500.0), c),
            (Resource::Network, INPUTS, thin),
            (Resource::Latency, slow(|i| i.round_trip_us = 200_000.0), c),
        ];
        for (resource, i, c) in cases {
            assert_eq!(assert_agree(3e6, &i, &c), resource);
            assert_eq!(simulate(3e6, &i, &c).first, resource);
        }
    }

    #[test]
    fn the_tables_of_the_document_are_these() {
        let document = include_str!("../../docs/SCALING.md");
        for table in [rates(&INPUTS), needs(&INPUTS)] {
            assert!(document.contains(&table), "docs/SCALING.md has other numbers than:\n{table}");
        }
    }

    #[test]
    fn a_cluster_that_is_large_enough_is_the_least_one() {
        let (c, outcome) = least(1e7, 600.0, &INPUTS).expect("ten million within ten minutes");
        assert!(outcome.seconds <= 600.0);
        let fewer = [(c.daemons.saturating_sub(1), c.workers), (c.daemons, c.workers.saturating_sub(1))];
        for (daemons, workers) in fewer.into_iter().filter(|(d, w)| *d > 0 && *w > 0) {
            assert!(model(1e7, &INPUTS, &cluster(daemons, workers)).seconds > 600.0);
        }
    }
}
