//! MIKEY
