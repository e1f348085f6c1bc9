//! The daemon under a service manager: sockets that outlive it, what it tells about itself, and the units that are
//! shipped. The service manager is the test, which speaks systemd's protocols over real sockets.

mod harness;

#[path = "systemd/booted.rs"]
mod booted;
#[path = "systemd/machine.rs"]
mod machine;
#[path = "systemd/manager.rs"]
mod manager;
#[path = "systemd/notify.rs"]
mod notify;
#[path = "systemd/sockets.rs"]
mod sockets;
#[path = "systemd/units.rs"]
mod units;
