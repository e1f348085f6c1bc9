//! Calls that come at the same time go together: what waits while others are under way is the next batch. So a lone
//! call waits for nobody, and the more there are the less each costs.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::id::TerminalKey;
use crate::store::StoreError;
use crate::store::queues::lock;

/// Calls in one batch at most.
const MOST: usize = 128;

/// One call: which terminal it is about, what it asks for, and who waits for the answer.
#[derive(Debug)]
pub(super) struct Ask<Q, A> {
    pub(super) key: TerminalKey,
    pub(super) what: Q,
    answer: oneshot::Sender<Result<A, StoreError>>,
}

impl<Q, A> Ask<Q, A> {
    /// Ends the call.
    pub(super) fn end(self, with: Result<A, StoreError>) {
        // Who does not wait any more was told that it took too long.
        let _ = self.answer.send(with);
    }

    /// Whether somebody still waits.
    pub(super) fn is_awaited(&self) -> bool {
        !self.answer.is_closed()
    }
}

/// Calls that wait and batches that are under way.
#[derive(Debug)]
pub(super) struct Together<Q, A> {
    state: Mutex<State<Q, A>>,
    /// Batches under way at most.
    at_once: usize,
    /// How long one may take.
    within: Duration,
}

#[derive(Debug)]
struct State<Q, A> {
    waiting: VecDeque<Ask<Q, A>>,
    /// Terminals of batches under way: no two are about one terminal.
    busy: HashSet<TerminalKey>,
    running: usize,
}

impl<Q: Send + 'static, A: Send + 'static> Together<Q, A> {
    pub(super) fn new(at_once: usize, within: Duration) -> Self {
        let state = State { waiting: VecDeque::new(), busy: HashSet::new(), running: 0 };
        Self { state: Mutex::new(state), at_once, within }
    }

    /// Makes a call. `alike`: whether two terminals' calls may be in one batch; `run`: carries a batch out and ends
    /// each of its calls.
    pub(super) async fn call<F>(
        self: &Arc<Self>,
        key: TerminalKey,
        what: Q,
        alike: impl Fn(TerminalKey, TerminalKey) -> bool + Send + 'static,
        run: impl Fn(Vec<Ask<Q, A>>) -> F + Send + 'static,
    ) -> Result<A, StoreError>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        if self.put(Ask { key, what, answer }) {
            let all = Arc::clone(self);
            tokio::spawn(async move {
                let mut through = Vec::new();
                loop {
                    let batch = all.next(&through, &alike);
                    if batch.is_empty() {
                        return;
                    }
                    through = batch.iter().map(|ask| ask.key).collect();
                    // A task of its own, so that the terminals are free again whatever becomes of it. Calls of one that
                    // is given up end with it.
                    let mut under_way = tokio::spawn(run(batch));
                    if timeout(all.within, &mut under_way).await.is_err() {
                        under_way.abort();
                    }
                }
            });
        }
        let given_up = || Err(StoreError::Unavailable("the database did not answer in time".to_owned()));
        answered.await.unwrap_or_else(|_| given_up())
    }

    /// Lets a call wait for its batch. True: there may be one batch more, and the caller has to see to it.
    fn put(&self, ask: Ask<Q, A>) -> bool {
        let mut state = lock(&self.state);
        state.waiting.push_back(ask);
        let free = state.running < self.at_once;
        state.running += usize::from(free);
        free
    }

    /// The next batch, when the one about the terminals `through` is. Empty: nothing waits that could go now, and who
    /// asked is through.
    fn next(
        &self,
        through: &[TerminalKey],
        alike: &impl Fn(TerminalKey, TerminalKey) -> bool,
    ) -> Vec<Ask<Q, A>> {
        let mut state = lock(&self.state);
        for key in through {
            state.busy.remove(key);
        }
        let mut batch: Vec<Ask<Q, A>> = Vec::new();
        let mut about = HashSet::new();
        let mut passed = VecDeque::new();
        while batch.len() < MOST
            && let Some(ask) = state.waiting.pop_front()
        {
            if !ask.is_awaited() {
                continue;
            }
            let fits = batch.first().is_none_or(|first| alike(first.key, ask.key));
            if fits && (about.contains(&ask.key) || state.busy.insert(ask.key)) {
                about.insert(ask.key);
                batch.push(ask);
            } else {
                passed.push_back(ask);
            }
        }
        // What was passed over came before what was not looked at.
        passed.append(&mut state.waiting);
        state.waiting = passed;
        state.running -= usize::from(batch.is_empty());
        batch
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::{Notify, Semaphore};
    use tokio::task::JoinSet;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn key(shard: u8, n: u8) -> TerminalKey {
        let mut key = TerminalKey::MIN;
        (key.0[0], key.0[1]) = (shard, n);
        key
    }

    fn any(_: TerminalKey, _: TerminalKey) -> bool {
        true
    }

    /// What batches were made of, and leave to end.
    #[derive(Debug)]
    struct Seen {
        batches: Mutex<Vec<Vec<TerminalKey>>>,
        begun: Notify,
        leave: Semaphore,
        now: AtomicUsize,
        most: AtomicUsize,
    }

    impl Seen {
        fn new(leave: usize) -> Arc<Self> {
            Arc::new(Self {
                batches: Mutex::default(),
                begun: Notify::new(),
                leave: Semaphore::new(leave),
                now: AtomicUsize::new(0),
                most: AtomicUsize::new(0),
            })
        }

        async fn run(self: Arc<Self>, batch: Vec<Ask<u32, u32>>) {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            lock(&self.batches).push(batch.iter().map(|ask| ask.key).collect());
            self.begun.notify_one();
            self.leave.acquire().await.expect("it stays open").forget();
            self.now.fetch_sub(1, Ordering::SeqCst);
            for ask in batch {
                assert_ne!(ask.what, 99, "a batch that breaks off");
                let doubled = ask.what * 2;
                ask.end(Ok(doubled));
            }
        }
    }

    fn call(
        all: &Arc<Together<u32, u32>>,
        seen: &Arc<Seen>,
        key: TerminalKey,
        what: u32,
        alike: fn(TerminalKey, TerminalKey) -> bool,
    ) -> impl Future<Output = Result<u32, StoreError>> + 'static {
        let (all, seen) = (Arc::clone(all), Arc::clone(seen));
        async move { all.call(key, what, alike, move |batch| Arc::clone(&seen).run(batch)).await }
    }

    /// Polls a call once, so that it waits, and leaves it to itself.
    async fn begin(
        calls: &mut JoinSet<Result<u32, StoreError>>,
        call: impl Future<Output = Result<u32, StoreError>> + Send + 'static,
    ) {
        let mut call = Box::pin(call);
        let first = std::future::poll_fn(|cx| std::task::Poll::Ready(call.as_mut().poll(cx))).await;
        match first {
            std::task::Poll::Ready(ended) => drop(calls.spawn(async move { ended })),
            std::task::Poll::Pending => drop(calls.spawn(call)),
        }
    }

    #[tokio::test]
    async fn what_comes_while_a_batch_is_under_way_is_the_next_and_no_call_is_lost() {
        let (all, seen) = (Arc::new(Together::new(1, LONG)), Seen::new(0));
        let mut calls = JoinSet::new();
        begin(&mut calls, call(&all, &seen, key(0, 0), 0, any)).await;
        seen.begun.notified().await;
        for n in 1..=9 {
            begin(&mut calls, call(&all, &seen, key(n, n), u32::from(n), any)).await;
        }
        seen.leave.add_permits(2);
        let mut answers: Vec<u32> =
            calls.join_all().await.into_iter().map(|a| a.expect("answered")).collect();
        answers.sort_unstable();
        assert_eq!(answers, (0..=9).map(|n| n * 2).collect::<Vec<_>>());
        let sizes: Vec<usize> = lock(&seen.batches).iter().map(Vec::len).collect();
        assert_eq!(sizes, [1, 9]);
        assert!(lock(&all.state).busy.is_empty() && lock(&all.state).waiting.is_empty());
    }

    #[tokio::test]
    async fn no_two_batches_are_about_one_terminal_and_only_so_many_are_under_way() {
        let (all, seen) = (Arc::new(Together::new(2, LONG)), Seen::new(0));
        let mut calls = JoinSet::new();
        begin(&mut calls, call(&all, &seen, key(0, 0), 1, any)).await;
        seen.begun.notified().await;
        // The same terminal waits; another goes.
        begin(&mut calls, call(&all, &seen, key(0, 0), 2, any)).await;
        begin(&mut calls, call(&all, &seen, key(0, 1), 3, any)).await;
        seen.begun.notified().await;
        begin(&mut calls, call(&all, &seen, key(0, 2), 4, any)).await;
        assert_eq!(*lock(&seen.batches), [vec![key(0, 0)], vec![key(0, 1)]]);
        seen.leave.add_permits(10);
        assert_eq!(calls.join_all().await.len(), 4);
        assert_eq!(seen.most.load(Ordering::SeqCst), 2);
        assert_eq!(lock(&seen.batches).iter().map(Vec::len).sum::<usize>(), 4);
    }

    #[tokio::test]
    async fn a_batch_is_of_one_kind_where_that_matters_and_the_others_keep_their_order() {
        let alike = |a: TerminalKey, b: TerminalKey| a.0[0] == b.0[0];
        let (all, seen) = (Arc::new(Together::new(1, LONG)), Seen::new(0));
        let mut calls = JoinSet::new();
        begin(&mut calls, call(&all, &seen, key(0, 0), 0, alike)).await;
        seen.begun.notified().await;
        for (shard, n) in [(1, 1), (2, 1), (1, 2), (2, 2), (1, 3)] {
            begin(&mut calls, call(&all, &seen, key(shard, n), 1, alike)).await;
        }
        seen.leave.add_permits(3);
        calls.join_all().await;
        let batches = lock(&seen.batches);
        assert_eq!(batches[1], [key(1, 1), key(1, 2), key(1, 3)]);
        assert_eq!(batches[2], [key(2, 1), key(2, 2)]);
    }

    #[tokio::test]
    async fn a_batch_that_breaks_off_ends_its_calls_alone() {
        let (all, seen) = (Arc::new(Together::new(1, LONG)), Seen::new(2));
        let broken = call(&all, &seen, key(0, 0), 99, any).await;
        assert!(matches!(broken, Err(StoreError::Unavailable(_))), "{broken:?}");
        assert_eq!(call(&all, &seen, key(0, 0), 2, any).await.expect("it goes on"), 4);
    }

    #[tokio::test]
    async fn a_batch_that_takes_too_long_is_given_up_and_its_terminals_are_free() {
        let (all, seen) = (Arc::new(Together::new(1, Duration::from_millis(20))), Seen::new(0));
        let slow = call(&all, &seen, key(0, 0), 1, any).await;
        assert!(matches!(slow, Err(StoreError::Unavailable(_))), "{slow:?}");
        while lock(&all.state).running > 0 {
            tokio::task::yield_now().await;
        }
        assert!(lock(&all.state).busy.is_empty());
    }

    #[tokio::test]
    async fn who_waits_no_more_is_passed_over() {
        let (all, seen) = (Arc::new(Together::new(1, LONG)), Seen::new(0));
        let mut calls = JoinSet::new();
        begin(&mut calls, call(&all, &seen, key(0, 0), 1, any)).await;
        seen.begun.notified().await;
        let mut given_up = JoinSet::new();
        begin(&mut given_up, call(&all, &seen, key(0, 1), 2, any)).await;
        given_up.shutdown().await;
        begin(&mut calls, call(&all, &seen, key(0, 2), 3, any)).await;
        seen.leave.add_permits(2);
        calls.join_all().await;
        assert_eq!(*lock(&seen.batches), [vec![key(0, 0)], vec![key(0, 2)]]);
    }
}
