//! Joining concatenated short messages (TS 23.040 §9.2.3.24.1). No socket and no clock.

use std::time::Duration;

use tokio::time::Instant;

/// Messages whose parts are awaited, at most; one more pushes the oldest out.
pub(super) const MAX_WAITING: usize = 256;

/// The most parts of a message: far more than an LTKM needs.
pub(super) const MAX_PARTS: u8 = 16;

/// How long the other parts of a message are awaited.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// How often a part may come again and still be owed a receipt of its own.
const MAX_REPEATS: usize = 4;

/// Which message a part belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Whose {
    /// Who submitted it.
    pub(super) system_id: String,
    /// The source address.
    pub(super) from: String,
    /// The destination address.
    pub(super) to: String,
    /// The reference number that all parts share.
    pub(super) reference: u16,
    /// How many parts there are, at least 1.
    pub(super) total: u8,
}

/// A message of which some parts came, or all.
#[derive(Debug)]
pub(super) struct Gathered<T> {
    /// Which message.
    pub(super) whose: Whose,
    /// What came with each submission of a part, by the part's number and then by age.
    pub(super) tickets: Vec<T>,
    /// The octets of the parts that came, in order.
    pub(super) octets: Vec<u8>,
    /// How many parts came.
    pub(super) parts: usize,
}

/// What a part has done.
#[derive(Debug)]
pub(super) struct Taken<T> {
    /// The message that it completed.
    pub(super) whole: Option<Gathered<T>>,
    /// One that had to make room.
    pub(super) pushed_out: Option<Gathered<T>>,
}

#[derive(Debug)]
struct Slot<T> {
    octets: Vec<u8>,
    tickets: Vec<T>,
}

#[derive(Debug)]
struct Waiting<T> {
    whose: Whose,
    since: Instant,
    slots: Vec<Option<Slot<T>>>,
}

impl<T> Waiting<T> {
    fn gathered(self) -> Gathered<T> {
        let mut gathered = Gathered { whose: self.whose, tickets: Vec::new(), octets: Vec::new(), parts: 0 };
        for slot in self.slots.into_iter().flatten() {
            gathered.tickets.extend(slot.tickets);
            gathered.octets.extend(slot.octets);
            gathered.parts += 1;
        }
        gathered
    }
}

/// Why a part is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum PartError {
    #[error("a message of {0} parts: at most {MAX_PARTS} are taken")]
    TooMany(u8),
    #[error("part {number} of {total}")]
    Number { number: u8, total: u8 },
    #[error("a part that came {MAX_REPEATS} times already")]
    Repeated,
}

/// The messages whose parts are awaited, the oldest first.
#[derive(Debug)]
pub(super) struct Parts<T> {
    waiting: Vec<Waiting<T>>,
}

impl<T> Default for Parts<T> {
    fn default() -> Self {
        Self { waiting: Vec::new() }
    }
}

impl<T> Parts<T> {
    /// Takes part `number`, counted from 1.
    ///
    /// # Errors
    /// The part cannot be one; nothing has changed.
    pub(super) fn take(
        &mut self,
        whose: Whose,
        number: u8,
        octets: &[u8],
        ticket: T,
        now: Instant,
    ) -> Result<Taken<T>, PartError> {
        let total = whose.total;
        if total > MAX_PARTS {
            return Err(PartError::TooMany(total));
        }
        if !(1..=total).contains(&number) {
            return Err(PartError::Number { number, total });
        }
        let known = self.waiting.iter().position(|message| message.whose == whose);
        let mut pushed_out = None;
        let at = known.unwrap_or_else(|| {
            if self.waiting.len() == MAX_WAITING {
                pushed_out = Some(self.waiting.remove(0).gathered());
            }
            let slots = (0..total).map(|_| None).collect();
            self.waiting.push(Waiting { whose, since: now, slots });
            self.waiting.len() - 1
        });
        let slots = &mut self.waiting[at].slots;
        match &mut slots[usize::from(number) - 1] {
            Some(slot) if slot.tickets.len() == MAX_REPEATS => return Err(PartError::Repeated),
            Some(slot) => {
                slot.octets = octets.to_vec();
                slot.tickets.push(ticket);
            }
            empty => *empty = Some(Slot { octets: octets.to_vec(), tickets: vec![ticket] }),
        }
        let whole = slots.iter().all(Option::is_some).then(|| self.waiting.remove(at).gathered());
        Ok(Taken { whole, pushed_out })
    }

    /// Takes out a message whose parts did not all come in [`PATIENCE`].
    pub(super) fn expired(&mut self, now: Instant) -> Option<Gathered<T>> {
        let oldest = self.waiting.first()?;
        (now.duration_since(oldest.since) >= PATIENCE).then(|| self.waiting.remove(0).gathered())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whose(reference: u16, total: u8) -> Whose {
        let text = str::to_owned;
        Whose { system_id: text("ltkmd"), from: text("12345"), to: text("4917"), reference, total }
    }

    fn octets(gathered: Option<Gathered<u8>>) -> Option<(Vec<u8>, Vec<u8>)> {
        gathered.map(|message| (message.octets, message.tickets))
    }

    #[tokio::test]
    async fn parts_in_any_order_become_one_message_in_the_right_order() {
        let now = Instant::now();
        for order in [[1, 2, 3], [3, 1, 2], [2, 3, 1]] {
            let mut parts = Parts::default();
            let mut whole = None;
            for number in order {
                assert!(whole.is_none());
                whole = parts.take(whose(1, 3), number, &[number; 2], number, now).unwrap().whole;
            }
            assert_eq!(octets(whole), Some((vec![1, 1, 2, 2, 3, 3], vec![1, 2, 3])));
            assert!(parts.waiting.is_empty());
        }
    }

    #[tokio::test]
    async fn a_message_of_one_part_is_whole_at_once() {
        let Taken { whole, .. } = Parts::default().take(whose(1, 1), 1, &[7], 0, Instant::now()).unwrap();
        assert_eq!(octets(whole), Some((vec![7], vec![0])));
    }

    #[tokio::test]
    async fn a_part_that_comes_again_is_joined_once_and_keeps_both_tickets() {
        let (mut parts, now) = (Parts::default(), Instant::now());
        assert!(parts.take(whose(1, 2), 1, &[1], 10, now).unwrap().whole.is_none());
        assert!(parts.take(whose(1, 2), 1, &[1], 11, now).unwrap().whole.is_none());
        let Taken { whole, .. } = parts.take(whose(1, 2), 2, &[2], 12, now).unwrap();
        assert_eq!(octets(whole), Some((vec![1, 2], vec![10, 11, 12])));
        for _ in 0..MAX_REPEATS {
            parts.take(whose(2, 2), 1, &[1], 0, now).unwrap();
        }
        assert_eq!(parts.take(whose(2, 2), 1, &[1], 0, now).unwrap_err(), PartError::Repeated);
    }

    #[tokio::test]
    async fn parts_of_different_messages_are_kept_apart() {
        let (mut parts, now) = (Parts::default(), Instant::now());
        let others = [
            whose(2, 2),
            whose(1, 3),
            Whose { to: "4918".to_owned(), ..whose(1, 2) },
            Whose { from: "54321".to_owned(), ..whose(1, 2) },
            Whose { system_id: "other".to_owned(), ..whose(1, 2) },
        ];
        parts.take(whose(1, 2), 1, &[1], 0, now).unwrap();
        for other in others {
            assert!(parts.take(other, 2, &[2], 0, now).unwrap().whole.is_none());
        }
        assert!(parts.take(whose(1, 2), 2, &[2], 0, now).unwrap().whole.is_some());
    }

    #[tokio::test]
    async fn what_no_part_can_be_is_refused() {
        let (mut parts, now) = (Parts::default(), Instant::now());
        for (number, total) in [(0, 2), (3, 2), (0, 0), (1, 0)] {
            let refused = parts.take(whose(1, total), number, &[], 0, now).unwrap_err();
            assert_eq!(refused, PartError::Number { number, total });
        }
        let refused = parts.take(whose(1, MAX_PARTS + 1), 1, &[], 0, now).unwrap_err();
        assert_eq!(refused, PartError::TooMany(MAX_PARTS + 1));
        assert!(parts.waiting.is_empty());
    }

    #[tokio::test]
    async fn what_waits_is_bounded_and_the_oldest_leaves() {
        let (mut parts, now) = (Parts::default(), Instant::now());
        for reference in 0..MAX_WAITING as u16 {
            assert!(parts.take(whose(reference, 2), 1, &[1], 0, now).unwrap().pushed_out.is_none());
        }
        let Taken { pushed_out, .. } = parts.take(whose(1000, 2), 1, &[1], 0, now).unwrap();
        let pushed_out = pushed_out.expect("there was no room");
        assert_eq!((pushed_out.whose.reference, pushed_out.parts), (0, 1));
        assert_eq!(parts.waiting.len(), MAX_WAITING);
    }

    #[tokio::test]
    async fn what_is_not_completed_in_time_is_given_up_and_nothing_else() {
        let (mut parts, now) = (Parts::default(), Instant::now());
        parts.take(whose(1, 2), 2, &[2], 0, now).unwrap();
        let later = now + Duration::from_secs(1);
        parts.take(whose(2, 2), 1, &[1], 0, later).unwrap();
        assert!(parts.expired(now + PATIENCE - Duration::from_millis(1)).is_none());
        let given_up = parts.expired(now + PATIENCE).expect("its time is over");
        assert_eq!((given_up.whose.reference, given_up.parts), (1, 1));
        assert!(parts.expired(now + PATIENCE).is_none());
        assert!(parts.expired(later + PATIENCE).is_some());
    }
}
