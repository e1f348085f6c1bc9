//! ltkmd delivers the long-term keys of mobile broadcast: one MIKEY message (LTKM) per terminal and key.

pub mod id;
pub mod secret;
pub mod time;
