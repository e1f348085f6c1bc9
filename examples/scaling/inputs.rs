//! What a terminal costs, as it was measured: each number with the command that gives it.

/// What one terminal of a fan-out costs, and what its answer costs, in microseconds and octets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inputs {
    /// Terminals of a page, which is one commit.
    pub(crate) page: f64,
    /// Pages of one daemon that are under way at the same time.
    pub(crate) pages_at_once: usize,
    /// Processor time of the daemon to decide and commit, to make the LTKM and to send it.
    pub(crate) daemon_us: f64,
    /// Processor time of the daemon for a verification message.
    pub(crate) daemon_answer_us: f64,
    /// Processor time of the server that has the terminal, to read and write it.
    pub(crate) database_us: f64,
    /// The same for its answer.
    pub(crate) database_answer_us: f64,
    /// Processor time of the coordinator of a distributed database, for both.
    pub(crate) coordinator_us: f64,
    /// Octets of WAL for both commits.
    pub(crate) wal_octets: f64,
    /// Octets of the terminal on disk, with indexes and room for its next version.
    pub(crate) disk_octets: f64,
    /// An LTKM on the wire, with UDP, IP and Ethernet.
    pub(crate) ltkm_octets: f64,
    /// A verification message on the wire.
    pub(crate) answer_octets: f64,
    /// Between a daemon and the database, and between coordinator and worker.
    pub(crate) round_trip_us: f64,
    /// What a commit waits for the disk.
    pub(crate) sync_us: f64,
}

/// What a machine of each kind has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    /// Cores.
    pub(crate) cores: usize,
    /// Octets a second that its disk takes in order.
    pub(crate) disk: f64,
    /// Octets a second of its network, in one direction.
    pub(crate) network: f64,
}

/// Measured on two virtual cores on which nothing else ran, PostgreSQL 15.20 and Citus 13.2 on the same machine.
pub(crate) const INPUTS: Inputs = Inputs {
    // As src/engine has it.
    page: 1000.0,
    // As src/store/postgres has it.
    pages_at_once: 4,
    // docs/PERFORMANCE.md, `cargo bench --bench shared -- 30_000`: a fan-out of one daemon on PostgreSQL.
    daemon_us: 16.0,
    // The same without an LTKM (1 to make, `cargo bench -p mikey`; 4.9 for a bare datagram, `cargo bench --bench fanout`:
    // 411,436 a second from two threads) and with 0.6 for the check of the message (`cargo bench -p mikey`).
    daemon_answer_us: 10.7,
    // `cargo bench --bench shared -- 30_000`: all processes of the server, its WAL writer and checkpointer too; the answers
    // of a page are such a commit.
    database_us: 23.3,
    database_answer_us: 23.3,
    // `examples/scaling/measure URL 256` on a coordinator with two workers, twice.
    coordinator_us: 9.0,
    // `examples/scaling/measure URL 256`, twice: behind a checkpoint, so with whole pages. Long after one it is 0.6 of that.
    wal_octets: 2_032.0,
    // The same.
    disk_octets: 611.0,
    // An LTKM of 168 octets, a verification message of 82 (docs/PERFORMANCE.md), and 46 for UDP, IPv4 and Ethernet.
    ltkm_octets: 214.0,
    answer_octets: 128.0,
    // `examples/scaling/measure`, over loopback: between machines it is longer.
    round_trip_us: 88.0,
    // `dd if=/dev/zero of=FILE bs=8k count=1000 oflag=dsync`.
    sync_us: 181.0,
};

/// The machine of the measurements, on a network of a gigabit.
pub(crate) const SERVER: Machine = Machine {
    cores: 2,
    // `dd if=/dev/zero of=FILE bs=1M count=1500 conv=fdatasync`.
    disk: 1.1e9,
    network: 125e6,
};
