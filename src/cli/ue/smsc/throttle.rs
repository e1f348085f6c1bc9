//! A centre that takes so many messages a second and no more.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

/// Counts messages by the second.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    limit: Option<NonZeroU32>,
    second: Option<(Instant, u32)>,
}

impl Throttle {
    /// At most `limit` messages a second; none: any number.
    pub(super) fn new(limit: Option<NonZeroU32>) -> Self {
        Self { limit, second: None }
    }

    /// Whether one more message is taken now.
    pub(super) fn admits(&mut self, now: Instant) -> bool {
        let Some(limit) = self.limit else { return true };
        let fresh = |began: Instant| now.duration_since(began) >= Duration::from_secs(1);
        let (_, count) = match &mut self.second {
            Some(second) if !fresh(second.0) => second,
            second => second.insert((now, 0)),
        };
        let admits = *count < limit.get();
        *count += u32::from(admits);
        admits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn beyond_the_limit_messages_are_refused_until_the_second_is_over() {
        let now = Instant::now();
        let mut throttle = Throttle::new(NonZeroU32::new(2));
        let half = now + Duration::from_millis(500);
        assert!(throttle.admits(now) && throttle.admits(half));
        assert!(!throttle.admits(half) && !throttle.admits(now + Duration::from_millis(999)));
        assert!(throttle.admits(now + Duration::from_secs(1)));
        assert!((0..100).all(|_| Throttle::new(None).admits(now)));
    }
}
