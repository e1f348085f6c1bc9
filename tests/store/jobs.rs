//! The promises of the trait about jobs whose operators hold and end them, as tests over any engine.

use std::collections::BTreeSet;

use ltkmd::delivery::{Delivery, Kind, SmsLimits, State};
use ltkmd::id::{JobId, ServiceNo, TerminalKey};
use ltkmd::store::{CatalogueWrite, Job, JobKind, JobState, Scope, Store};

use super::conformance::{fan_out, page};
use super::harness::*;

/// Gives a job another state, as an operator does.
async fn switch(store: &impl Store, id: JobId, state: JobState) -> Job {
    let job = job(store, id).await;
    let finished = state.is_over().then_some(NOW);
    store.write_catalogue(vec![CatalogueWrite::Job(Job { state, finished, ..job })]).await.expect("written");
    self::job(store, id).await
}

async fn job(store: &impl Store, id: JobId) -> Job {
    store.job(id).await.expect("readable").expect("known")
}

async fn open(store: &impl Store) -> Vec<JobId> {
    store.open_jobs().await.expect("readable").iter().map(|job| job.id).collect()
}

fn sum(job: &Job) -> u64 {
    job.progress().iter().sum()
}

/// Visits so many members upwards, in as many pages as the engine takes for it: each member gets a delivery of the job that waits for its turn. Whom it visited.
async fn queue(store: &impl Store, id: JobId, limit: usize) -> Vec<TerminalKey> {
    let mut visited = Vec::new();
    while visited.len() < limit
        && let Some(page) = queue_page(store, id, limit - visited.len()).await
    {
        visited.extend(page);
    }
    visited
}

async fn queue_page(store: &impl Store, id: JobId, limit: usize) -> Option<Vec<TerminalKey>> {
    let visited = update(store, Scope::Page(id, limit), move |view| {
        for t in &mut view.terminals {
            let mut d = Delivery::new(ServiceNo(1), 1, Kind::Key, Some(id), NOW);
            d.await_turn(NOW, &SmsLimits::default(), NOW);
            t.deliveries.push(d);
        }
        view.terminals.iter().map(|t| t.key).collect()
    });
    visited.await.expect("a page")
}

/// Walks back over so many and cancels what is queued. Whom it came to, in its order; `None`: no page.
async fn walk_back(store: &impl Store, id: JobId, limit: usize) -> Option<Vec<TerminalKey>> {
    let mut visited = back_page(store, id, limit).await?;
    while visited.len() < limit
        && let Some(page) = back_page(store, id, limit - visited.len()).await
    {
        visited.extend(page);
    }
    Some(visited)
}

async fn back_page(store: &impl Store, id: JobId, limit: usize) -> Option<Vec<TerminalKey>> {
    let visited = update(store, Scope::Page(id, limit), move |view| {
        assert_eq!(view.job.as_ref().map(|job| job.state), Some(JobState::Cancelled));
        view.terminals.iter_mut().for_each(|t| t.cancel_job(id, NOW));
        view.terminals.iter().map(|t| t.key).collect()
    });
    visited.await.expect("a page")
}

pub(crate) fn a_paused_job_survives_reopening_and_goes_on_where_it_was<F: Factory>() {
    let place = F::new();
    run(async {
        let id = {
            let store = place.open();
            let id = fan_out(&store, 20, |_| true).await;
            assert_eq!(page(&store, id, 7).await, Some(7));
            assert_eq!(switch(&store, id, JobState::Paused).await.state, JobState::Paused);
            assert_eq!(page(&store, id, 7).await, None);
            store.close().await.unwrap();
            id
        };
        let store = place.open();
        let paused = job(&store, id).await;
        assert_eq!((paused.state, paused.visited(), sum(&paused)), (JobState::Paused, 7, 20));
        assert_eq!(page(&store, id, 7).await, None);
        assert_eq!(open(&store).await, [id]);
        assert_eq!(switch(&store, id, JobState::Running).await.state, JobState::Running);
        while page(&store, id, 7).await.is_some() {}
        for n in 0..20 {
            assert_eq!(terminal(&store, n).await.next_t, 2, "terminal {n} is visited once");
        }
    });
}

pub(crate) fn a_paused_job_that_visited_everybody_is_done_with_the_last_answer<F: Factory>() {
    let place = F::new();
    let store = place.open();
    run(async {
        let id = fan_out(&store, 2, |_| true).await;
        while page(&store, id, 7).await.is_some() {}
        switch(&store, id, JobState::Paused).await;
        for n in 0..2 {
            assert_eq!(job(&store, id).await.state, JobState::Paused);
            let answer = move |view: &mut ltkmd::store::View| view.terminals[0].answered(1, NOW);
            assert!(update(&store, Scope::Terminal(btid(n)), answer).await.unwrap().flatten().is_some());
        }
        let job = job(&store, id).await;
        assert_eq!((job.state, job.states[State::Verified as usize]), (JobState::Done, 2));
        assert!(open(&store).await.is_empty());
    });
}

async fn cancel_and_walk_back<F: Factory>(place: &F, members: fn(usize) -> bool) {
    let expected = (0..60).filter(|n| members(*n)).count() as u64;
    let mut store = place.open();
    let id = fan_out(&store, 60, members).await;
    // The others are there too, for another service.
    for n in (0..60).filter(|n| !members(*n)) {
        register(&store, n, &[2]).await;
    }
    let mut visited = Vec::new();
    for _ in 0..3 {
        visited.extend(queue(&store, id, 2).await);
    }
    assert_eq!((visited.len(), visited.is_sorted()), (6, true));
    // One of them was sent by now, one proved to have the key: neither is called back.
    let first = store.terminals(vec![visited[0], visited[1]]).await.unwrap();
    for (i, btid) in first.into_iter().map(|t| t.credential.unwrap().btid).enumerate() {
        update(&store, Scope::Terminal(btid), move |view| {
            let d = &mut view.terminals[0].deliveries[0];
            *d = sent(1, 1, 1, Some(id.0));
            if i == 1 {
                d.settle(State::Verified, None, NOW);
            }
        })
        .await
        .unwrap();
    }
    let cancelled = switch(&store, id, JobState::Cancelled).await;
    let unvisited = expected - 6;
    let counts = |queued, cancelled| [queued, 1, 1, 0, 0, 0, 0, cancelled];
    assert_eq!((cancelled.progress(), cancelled.visited()), (counts(4, unvisited), 6));
    let mut back = walk_back(&store, id, 2).await.expect("a page");
    assert_eq!(job(&store, id).await.progress(), counts(2, unvisited + 2));
    store.close().await.unwrap();
    drop(store);
    store = place.open();
    assert_eq!(open(&store).await, [id], "it is cancelled and has not come to its end");
    while let Some(page) = walk_back(&store, id, 2).await {
        back.extend(page);
        assert_eq!(sum(&job(&store, id).await), expected);
    }
    let over = job(&store, id).await;
    assert_eq!(
        (over.progress(), over.cursor, over.state),
        (counts(0, unvisited + 4), None, JobState::Cancelled)
    );
    // Back from where it was, and no further than to the last that waited.
    visited.reverse();
    assert_eq!(back, visited[..4]);
    assert!(open(&store).await.is_empty());
    // Whoever answers now still counts.
    update(&store, Scope::Terminals(vec![visited[5]]), |view| view.terminals[0].answered(1, NOW))
        .await
        .unwrap();
    let over = job(&store, id).await;
    assert_eq!((over.states[State::Verified as usize], sum(&over)), (2, expected));
}

pub(crate) fn a_cancelled_job_walks_back_and_its_states_add_up<F: Factory>() {
    run(cancel_and_walk_back(&F::new(), |n| n % 3 != 0));
}

pub(crate) fn a_cancelled_job_of_a_sparse_service_walks_back_too<F: Factory>() {
    run(cancel_and_walk_back(&F::new(), |n| n % 7 == 0));
}

pub(crate) fn a_job_that_visited_everybody_can_be_cancelled<F: Factory>() {
    let place = F::new();
    let store = place.open();
    run(async {
        let id = fan_out(&store, 9, |_| true).await;
        // One left before it was visited: nobody is to be made up for it.
        update(&store, Scope::Terminal(btid(0)), |v| v.terminals[0].registration = None).await.unwrap();
        while !queue(&store, id, 4).await.is_empty() {}
        let cancelled = switch(&store, id, JobState::Cancelled).await;
        assert_eq!((cancelled.cursor, sum(&cancelled)), (Some(TerminalKey::MAX), 8));
        let mut back = BTreeSet::new();
        while let Some(page) = walk_back(&store, id, 3).await {
            back.extend(page);
        }
        let over = job(&store, id).await;
        assert_eq!((over.progress(), back.len()), ([0, 0, 0, 0, 0, 0, 0, 8], 8));
    });
}

pub(crate) fn a_job_that_is_over_stays_so<F: Factory>() {
    let place = F::new();
    let store = place.open();
    run(async {
        let id = fan_out(&store, 0, |_| true).await;
        assert_eq!(page(&store, id, 7).await, Some(0));
        let done = job(&store, id).await;
        assert_eq!(done.state, JobState::Done);
        for state in [JobState::Running, JobState::Paused, JobState::Cancelled] {
            assert_eq!(switch(&store, id, state).await, done, "{state:?}");
        }
    });
}

pub(crate) fn open_jobs_are_found_behind_any_number_of_newer_ones<F: Factory>() {
    let place = F::new();
    let expected = {
        let store = place.open();
        run(async {
            let mut writes = Vec::new();
            let old = [JobState::Running, JobState::Paused, JobState::Cancelled];
            for state in old.into_iter().chain(std::iter::repeat_n(JobState::Cancelled, 1500)) {
                let id = store.new_job_id().await.unwrap();
                let job = Job::new(id, JobKind::KeyUpdate, ServiceNo(1), 1, 1, NOW);
                writes.push(CatalogueWrite::Job(Job { state, ..job }));
            }
            let expected = [JobId(1), JobId(2)];
            store.write_catalogue(writes).await.unwrap();
            assert_eq!(open(&store).await, expected);
            expected
        })
    };
    let store = place.open();
    assert_eq!(run(open(&store)), expected, "after reopening too");
}
