//! The write pause in which the store is moved: who works by themselves rests, who asks is told to come again.

use std::time::Duration;

use tokio::sync::watch;

use super::{Engine, EngineError};
use crate::store::{FreezeOrder, FreezeOutcome, Frozen};

/// How often who rests looks whether the pause is over.
const LOOK: Duration = Duration::from_millis(50);

impl Engine {
    /// Why the store takes no changes now; `None`: it does.
    pub fn frozen(&self) -> Option<Frozen> {
        self.store.frozen()
    }

    /// Freezes the store, lets it go on, or notes that it has moved; whether that changed anything.
    ///
    /// # Errors
    /// The order contradicts what is; the store does not work.
    pub async fn freeze(&self, order: FreezeOrder) -> Result<bool, EngineError> {
        match self.store.freeze(order).await? {
            FreezeOutcome::Changed => Ok(true),
            FreezeOutcome::Same => Ok(false),
            FreezeOutcome::Refused(why) => Err(EngineError::Conflict(why.to_owned())),
        }
    }

    /// Rests a moment when the store is frozen; whether it was. For the loops of background work, which would be refused
    /// by the store anyway.
    pub(super) async fn rests(&self, shutdown: &mut watch::Receiver<bool>) -> bool {
        if self.store.frozen().is_none() {
            return false;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = shutdown.changed() => {}
        }
        true
    }

    /// Waits until the store takes changes, or the shutdown.
    pub async fn unfrozen(&self, shutdown: &mut watch::Receiver<bool>) {
        while !*shutdown.borrow() && self.rests(shutdown).await {}
    }
}
