//! The counts of one nonce that have been used: a sliding window.

/// Counts that may be missing behind the highest one and still arrive.
const WIDTH: u32 = 64;

/// Why a (nonce, count) pair is not taken. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Used before, or too far behind the highest count.
    Replayed,
    /// The nonce is so old that its uses may have been forgotten.
    Forgotten,
}

/// Bit n of `seen` is the count `highest - n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    seen: u64,
    highest: u32,
}

impl Window {
    /// The window of a nonce whose first use this is. Counts begin at 1.
    pub(super) fn first(count: u32) -> Result<Self, Refused> {
        if count == 0 { Err(Refused::Replayed) } else { Ok(Self { seen: 1, highest: count }) }
    }

    /// What [`Self::parts`] gave; none when no sequence of uses leaves such a window.
    pub(super) fn from_parts(highest: u32, seen: u64) -> Option<Self> {
        let counts = if highest < WIDTH { (1 << highest) - 1 } else { u64::MAX };
        (seen & 1 == 1 && seen & !counts == 0).then_some(Self { seen, highest })
    }

    /// The highest count, and which were used: bit n is the count so far behind it.
    pub(super) fn parts(&self) -> (u32, u64) {
        (self.highest, self.seen)
    }

    /// Uses a count.
    pub(super) fn take(&mut self, count: u32) -> Result<(), Refused> {
        if count > self.highest {
            let ahead = count - self.highest;
            self.seen = if ahead < WIDTH { self.seen << ahead | 1 } else { 1 };
            self.highest = count;
            return Ok(());
        }
        let behind = self.highest - count;
        if count == 0 || behind >= WIDTH || self.seen >> behind & 1 == 1 {
            return Err(Refused::Replayed);
        }
        self.seen |= 1 << behind;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn count_zero_is_never_taken() {
        assert_eq!(Window::first(0), Err(Refused::Replayed));
        assert_eq!(Window::first(1).expect("a count").take(0), Err(Refused::Replayed));
        assert_eq!(Window::first(2).expect("a count").take(0), Err(Refused::Replayed));
    }

    #[test]
    fn parts_that_no_uses_leave_are_no_window() {
        for (highest, seen) in [(0, 0), (0, 1), (1, 0), (1, 0b11), (1, 0b10), (63, u64::MAX), (64, 2)] {
            assert_eq!(Window::from_parts(highest, seen), None, "{highest} {seen:b}");
        }
        for (highest, seen) in [(1, 1), (2, 0b11), (63, u64::MAX >> 1), (64, u64::MAX), (u32::MAX, 1)] {
            assert!(Window::from_parts(highest, seen).is_some(), "{highest} {seen:b}");
        }
    }

    proptest! {
        #[test]
        fn a_window_survives_its_parts(first in 1u32..100, uses in prop::collection::vec(0u32..200, 0..50)) {
            let mut window = Window::first(first).expect("a count");
            for count in uses {
                let _ = window.take(count);
                let (highest, seen) = window.parts();
                prop_assert_eq!(Window::from_parts(highest, seen), Some(window));
            }
        }
    }
}
