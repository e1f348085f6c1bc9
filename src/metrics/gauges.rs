//! What gauges are set to together.

use crate::time::Timestamp;

/// A service as the metrics show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServiceGauges {
    /// Terminals registered for it.
    pub terminals: u64,
    /// Those of them that hold its current key.
    pub holders: u64,
    /// When its current key ends.
    pub key_expires: Option<Timestamp>,
    /// When the last of its keys ends.
    pub keys_end: Option<Timestamp>,
    /// When the schedule makes its next key.
    pub rotation_due: Option<Timestamp>,
}

/// What a lane of due times holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LaneGauges {
    /// Entries, stale ones included.
    pub entries: usize,
    /// The earliest one's moment.
    pub next: Option<Timestamp>,
}

/// The fan-out jobs that are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JobGauges {
    /// Jobs that run.
    pub running: usize,
    /// Jobs that have terminals ahead of them and are not paused.
    pub visiting: usize,
    /// When the oldest of these began.
    pub oldest: Option<Timestamp>,
}

/// The daemons that share a store, as one of them knows.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ClusterGauges {
    /// Daemons whose leases are good.
    pub alive: u32,
    /// Daemons that stopped without a word.
    pub gone: u32,
    /// Shard ranges that this one holds.
    pub held: u32,
    /// Shard ranges that nobody holds.
    pub unheld: u32,
    /// Seconds until its leases end unless they are renewed.
    pub lease_left: f64,
    /// Seconds by which its earliest look at a delivery is late.
    pub overdue: f64,
    /// Seconds by which the clock that counts is ahead of its machine's.
    pub clock_offset: f64,
}

/// The store's disk, in octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskGauges {
    /// What the store takes, its journals included.
    pub taken: u64,
    /// What its journals take.
    pub journals: u64,
    /// What is free; `None`: nobody can tell.
    pub free: Option<u64>,
}
