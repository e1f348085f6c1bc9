//! The write pause of a store that is being moved: begun by a call, ended by a call, by the clock, or by the move.

use std::time::{Duration, Instant};

use crate::store::StoreError;
use crate::time::Timestamp;

/// How long a freeze lasts at most that is not prolonged: who asked for it may be gone.
pub const MAX_FREEZE: Duration = Duration::from_secs(3600);

/// What is asked of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FreezeOrder {
    /// It takes no changes from now on for so long, or for so long more when the same asks again.
    Freeze {
        /// Who moves it; nobody else can meanwhile.
        by: String,
        /// How long, unless it is asked again.
        span: Duration,
        /// Whether it has to be frozen already: what a pause that lapsed let in would be missed.
        prolong: bool,
    },
    /// It takes changes again.
    Thaw {
        /// Also when it has moved: for who knows that nobody works on the other store.
        back: bool,
    },
    /// It has moved: it takes no changes any more, and does not open again.
    Moved {
        /// Who froze it, and no thaw between.
        by: String,
        /// Where to, for who finds it here.
        to: String,
    },
}

/// What a [`FreezeOrder`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreezeOutcome {
    /// The store takes changes no more, or again.
    Changed,
    /// It was so already; a freeze is prolonged.
    Same,
    /// The order contradicts what is: the sentence says how. Nothing has changed.
    Refused(&'static str),
}

/// Why a store takes no changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frozen {
    /// It is being moved.
    Until {
        /// By whom.
        by: String,
        /// When it takes changes again by itself.
        end: Timestamp,
    },
    /// It has moved there.
    Moved(String),
}

impl std::fmt::Display for Frozen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Until { by, end } => {
                write!(f, "frozen by {by} until {end} at the latest: it is being moved")
            }
            Self::Moved(to) => {
                write!(f, "moved to {to}: name that place in store.url and start the daemon again")
            }
        }
    }
}

/// The state of the pause.
#[derive(Debug, Default)]
pub(super) struct Freezer {
    frozen: Option<Frozen>,
    until: Option<Instant>,
}

impl Freezer {
    /// Why nothing is changed now; `None`: changes are taken.
    pub(super) fn current(&mut self, now: Instant) -> Option<&Frozen> {
        if self.until.is_some_and(|until| until <= now) {
            self.thaw();
            tracing::warn!("the store's freeze was not prolonged: it takes changes again");
        }
        self.frozen.as_ref()
    }

    /// Refuses a change while none is taken.
    pub(super) fn check(&mut self, now: Instant) -> Result<(), StoreError> {
        match self.current(now) {
            None => Ok(()),
            Some(Frozen::Until { .. }) => Err(StoreError::Frozen("it is being moved, try again shortly")),
            Some(Frozen::Moved(_)) => Err(StoreError::Frozen("it has moved to another place")),
        }
    }

    /// Begins or prolongs a freeze.
    pub(super) fn freeze(
        &mut self,
        by: String,
        span: Duration,
        prolong: bool,
        now: Instant,
    ) -> FreezeOutcome {
        let outcome = match self.current(now) {
            Some(Frozen::Moved(_)) => return FreezeOutcome::Refused("the store has moved to another place"),
            Some(Frozen::Until { by: other, .. }) if *other != by => {
                return FreezeOutcome::Refused("somebody else has frozen the store: wait, or thaw it");
            }
            Some(_) => FreezeOutcome::Same,
            None if prolong => return FreezeOutcome::Refused("the store is not frozen any more"),
            None => FreezeOutcome::Changed,
        };
        let span = span.min(MAX_FREEZE);
        self.until = Some(now + span);
        self.frozen = Some(Frozen::Until { by, end: Timestamp::now() + span });
        outcome
    }

    /// Whether a move may be noted now.
    pub(super) fn may_move(&mut self, by: &str, now: Instant) -> Result<(), &'static str> {
        match self.current(now) {
            Some(Frozen::Until { by: holder, .. }) if holder == by => Ok(()),
            Some(Frozen::Until { .. }) => Err("somebody else has frozen the store"),
            Some(Frozen::Moved(_)) => Err("the store has moved already"),
            None => Err(
                "the store is not frozen, or was not over the whole move: what it took since is missing there",
            ),
        }
    }

    /// Nothing is taken any more.
    pub(super) fn moved(&mut self, to: String) {
        (self.frozen, self.until) = (Some(Frozen::Moved(to)), None);
    }

    /// Changes are taken again.
    pub(super) fn thaw(&mut self) {
        (self.frozen, self.until) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn a() -> String {
        "a".to_owned()
    }

    #[test]
    fn a_freeze_ends_by_itself_unless_it_is_prolonged_and_then_no_move_is_noted() {
        let (mut freezer, t) = (Freezer::default(), Instant::now());
        assert!(freezer.check(t).is_ok());
        assert_eq!(freezer.freeze(a(), MINUTE, false, t), FreezeOutcome::Changed);
        let refused = freezer.check(t + MINUTE / 2).expect_err("it is frozen");
        assert!(refused.is_retriable());
        assert_eq!(freezer.freeze(a(), MINUTE, true, t + MINUTE / 2), FreezeOutcome::Same);
        assert!(freezer.check(t + MINUTE).is_err(), "it was prolonged");
        assert_eq!(freezer.may_move("a", t + MINUTE), Ok(()));
        assert!(freezer.check(t + MINUTE * 3 / 2).is_ok(), "nobody prolonged it");
        assert!(freezer.may_move("a", t + MINUTE * 2).is_err());
        assert!(matches!(freezer.freeze(a(), MINUTE, true, t + MINUTE * 2), FreezeOutcome::Refused(_)));
        assert_eq!(freezer.freeze(a(), MINUTE, false, t + MINUTE * 2), FreezeOutcome::Changed, "another one");
    }

    #[test]
    fn one_moves_a_store_at_a_time_and_what_has_moved_stays_so() {
        let (mut freezer, t) = (Freezer::default(), Instant::now());
        assert_eq!(freezer.freeze(a(), MINUTE, false, t), FreezeOutcome::Changed);
        assert!(matches!(freezer.freeze("b".to_owned(), MINUTE, false, t), FreezeOutcome::Refused(_)));
        assert!(freezer.may_move("b", t).is_err());
        freezer.moved("there".to_owned());
        assert!(freezer.check(t + 100 * MINUTE).is_err());
        assert!(matches!(freezer.freeze(a(), MINUTE, false, t), FreezeOutcome::Refused(_)));
        assert!(freezer.may_move("a", t).is_err());
        freezer.thaw();
        assert!(freezer.check(t).is_ok());
    }
}
