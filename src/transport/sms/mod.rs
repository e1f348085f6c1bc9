//! Short messages by SMPP 3.4.

pub mod udh;
