//! The Debian package: what is in it, what Debian's own checker says, and its life on a machine with systemd.

mod harness;

#[path = "package/contents.rs"]
mod contents;
#[path = "package/image.rs"]
mod image;
#[path = "package/lifecycle.rs"]
mod lifecycle;
#[path = "package/made.rs"]
mod made;

#[path = "systemd/machine.rs"]
mod machine;
