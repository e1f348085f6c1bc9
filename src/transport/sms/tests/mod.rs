//! The gateway against a scripted centre over loopback sockets. Nothing sleeps: tests wait for what must come.

mod centre;
mod hostile;
mod link;
mod traffic;
