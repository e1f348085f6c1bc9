//! The store's format: its number, and the steps from each to the next.
//!
//! A store of an older format is taken forward when it is opened, one step after another, each durable before the next.
//! One of a newer format is refused: an older program would take its records for damage, or lose what it does not know.

use std::path::Path;

use fjall::PersistMode;

use super::open::{engine, refuse};
use super::spaces::{Spaces, small};
use crate::store::StoreError;

/// A step from a format to the next one. Its work may be done twice, when the program ends before the number is written.
struct Upgrade {
    /// What the newer format has, for the log.
    brings: &'static str,
    work: fn(&Spaces) -> Result<(), fjall::Error>,
}

/// Where the records stay as they are: the newer program reads them, the older one cannot read what comes.
fn nothing(_: &Spaces) -> Result<(), fjall::Error> {
    Ok(())
}

/// All steps; the first leads from format 1 to 2.
const UPGRADES: &[Upgrade] = &[
    Upgrade {
        brings: "delivery by SMS in the records of terminals, and the T that new terminals begin with",
        work: nothing,
    },
    // Counters that are missing are made whenever a store is opened: a restored one has none either.
    Upgrade { brings: "counters of which terminals hold which key", work: nothing },
];

/// The format that this version writes.
pub(in crate::store) const FORMAT: u32 = UPGRADES.len() as u32 + 1;

/// Takes a store forward to [`FORMAT`].
///
/// # Errors
/// It is of a newer format, or of none; writing fails.
pub(super) fn upgrade(dir: &Path, spaces: &Spaces) -> Result<(), StoreError> {
    let octets = spaces.small.get(small::FORMAT).map_err(|e| engine(dir, e))?;
    let format = octets.and_then(|o| <[u8; 4]>::try_from(&*o).ok()).map(u32::from_be_bytes);
    let Some(format) = format.filter(|format| *format > 0) else {
        return Err(refuse(dir, "its format record is missing: it is no store, or damaged"));
    };
    if format > FORMAT {
        return Err(refuse(
            dir,
            format_args!(
                "a newer ltkmd has written this store (its format is {format}, this program knows up to {FORMAT}), \
                 and there is no way back: use the newer ltkmd, or restore a backup that was taken before"
            ),
        ));
    }
    for (number, step) in (2..).zip(UPGRADES).filter(|(number, _)| *number > format) {
        (step.work)(spaces).map_err(|e| engine(dir, e))?;
        let mut batch = spaces.db.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&spaces.small, small::FORMAT, u32::to_be_bytes(number));
        batch.commit().map_err(|e| engine(dir, e))?;
        tracing::info!(format = number, brings = step.brings, "the store was upgraded");
    }
    Ok(())
}
