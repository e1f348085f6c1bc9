//! ltkmd
