//! What the fuzz targets of the crate `mikey` do with an input. The daemon's targets have theirs beside its code.

pub mod mikey;
