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
    fn is_awaited(&self) -> bool {
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
