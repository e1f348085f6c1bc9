//! Counters after random histories: whatever happened, they are what a recount gives.

use std::collections::BTreeMap;

use ltkmd::delivery::{Delivery, Kind, Reason, State};
use ltkmd::id::{JobId, Method, MethodSet, ServiceNo};
use ltkmd::store::{
    CatalogueWrite, Counts, DeliveryFilter, Holders, Job, JobKind, JobState, Members, Scope, Store,
};
use proptest::prelude::*;

use super::harness::*;

/// Terminals and jobs of a history.
const TERMINALS: usize = 6;
const JOBS: u64 = 3;

/// One step.
#[derive(Debug, Clone)]
enum Step {
    Register(usize, u8, Vec<u32>),
    End(usize),
    Put(usize, u32, u16, State, u16, Option<u64>),
    Drop(usize, usize),
    Credential(usize, bool),
    Page(u64),
    Switch(u64, JobState),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let t = 0..TERMINALS;
    let state = (0u8..8).prop_map(|s| State::from_octet(s).expect("a state"));
    let job = proptest::option::of(1..=JOBS);
    prop_oneof![
        4 => (t.clone(), 1u8..8, proptest::sample::subsequence(vec![1u32, 2, 3], 0..=3))
            .prop_map(|(t, set, services)| Step::Register(t, set, services)),
        1 => t.clone().prop_map(Step::End),
        8 => (t.clone(), 1u32..3, 1u16..3, state, 0u16..3, job)
            .prop_map(|(t, no, number, state, attempts, job)| Step::Put(t, no, number, state, attempts, job)),
        2 => (t.clone(), 0usize..4).prop_map(|(t, i)| Step::Drop(t, i)),
        1 => (t, any::<bool>()).prop_map(|(t, there)| Step::Credential(t, there)),
        2 => (1..=JOBS).prop_map(Step::Page),
        2 => (1..=JOBS, proptest::sample::select(&[JobState::Running, JobState::Paused, JobState::Cancelled][..]))
            .prop_map(|(job, state)| Step::Switch(job, state)),
        1 => Just(Step::Reopen),
    ]
}

/// A job's counts as the rules of the trait give them.
type JobCounts = BTreeMap<u64, ([u64; 8], u64)>;

/// Follows a terminal's change in the jobs' counts, delivery by delivery.
fn follow(jobs: &mut JobCounts, before: &[Delivery], after: &[Delivery]) {
    let of =
        |list: &[Delivery], d: &Delivery| list.iter().find(|x| x.is(d.service, d.number, d.kind)).cloned();
    for b in before {
        let Some(JobId(job)) = b.job else { continue };
        let (states, sent) = jobs.entry(job).or_default();
        let stays = of(after, b).filter(|a| a.job == b.job);
        if let Some(a) = &stays {
            states[b.state as usize] -= 1;
            states[a.state as usize] += 1;
            *sent += u64::from(b.attempts == 0 && a.attempts > 0);
        } else if b.state.is_open() {
            states[b.state as usize] -= 1;
            states[State::Cancelled as usize] += 1;
        }
    }
    for a in after {
        let Some(JobId(job)) = a.job else { continue };
        if of(before, a).is_none_or(|b| b.job != a.job) {
            let (states, sent) = jobs.entry(job).or_default();
            states[a.state as usize] += 1;
            *sent += u64::from(a.attempts > 0);
        }
    }
}

fn put(list: &mut Vec<Delivery>, no: u32, number: u16, state: State, attempts: u16, job: Option<u64>) {
    let mut d = Delivery::new(ServiceNo(no), number, Kind::Key, job.map(JobId), NOW);
    d.attempts = attempts;
    let http = attempts > 0 && state != State::Sent;
    d.method = Some(if http { Method::Http } else { Method::Udp });
    if state == State::Verified || attempts == 2 {
        d.verified = Some((NOW, if http { Method::Http } else { Method::Udp }));
    }
    if attempts == 2 {
        let leg = d.sms.get_or_insert_default();
        leg.attempts = number as u8 - 1;
    }
    d.settle(state, (state == State::Failed).then_some(Reason::NoAnswer), NOW);
    match list.iter_mut().find(|x| x.is(d.service, d.number, d.kind)) {
        Some(known) => *known = d,
        None => list.push(d),
    }
}

/// Who holds which key.
type HolderCounts = BTreeMap<(ServiceNo, u16), Holders>;

/// All counts, made anew from the terminals themselves.
async fn recount(store: &impl Store, without_credential: &[bool]) -> (Counts, HolderCounts) {
    let (mut counts, mut holders) = (Counts::default(), HolderCounts::new());
    let keys: Vec<_> = (0..TERMINALS).map(|n| store.terminal_key(&btid(n))).collect();
    let terminals = update(store, Scope::Terminals(keys), |v| v.terminals.clone()).await.unwrap().unwrap();
    assert!(terminals.iter().filter(|t| t.credential.is_none()).count() <= without_credential.len());
    for t in &terminals {
        for d in &t.deliveries {
            counts.open[d.state as usize] += 1;
            if t.is_registered_for(d.service) && (d.verified.is_some() || d.state.is_held()) {
                let h = holders.entry((d.service, d.number)).or_default();
                match (d.verified.map(|(_, via)| via).or(d.method), &d.sms) {
                    (Some(Method::Http), Some(leg)) if leg.attempts > 0 => h.sms += 1,
                    (Some(Method::Http), _) => h.http += 1,
                    _ => h.udp += 1,
                }
                h.assumed += u64::from(d.verified.is_none() && d.state == State::Assumed);
            }
        }
        if let Some(r) = &t.registration {
            for no in &r.services {
                let m = counts.members.entry(*no).or_insert(Members::default());
                m.udp += u64::from(r.set.contains(Method::Udp));
                m.http += u64::from(r.set.contains(Method::Http));
                m.sms += u64::from(r.set.contains(Method::Sms));
                m.total += 1;
            }
        }
    }
    (counts, holders)
}

async fn change(
    store: &impl Store,
    n: usize,
    jobs: &mut JobCounts,
    mut how: impl FnMut(&mut ltkmd::delivery::Terminal) + Send + 'static,
) {
    let keys = vec![store.terminal_key(&btid(n))];
    let seen = update(store, Scope::Terminals(keys), move |view| {
        let t = view.terminals.first_mut()?;
        let before = t.deliveries.clone();
        how(t);
        Some((before, t.deliveries.clone()))
    });
    if let Some((before, after)) = seen.await.unwrap().flatten() {
        follow(jobs, &before, &after);
    }
}

async fn history<F: Factory>(place: &F, steps: &[Step]) {
    let mut store = place.open();
    let mut jobs = JobCounts::new();
    provision(&store, 0..TERMINALS, 2).await;
    let all = (1..=JOBS).map(|n| Job::new(JobId(n), JobKind::KeyUpdate, ServiceNo(n as u32), 1, 9, NOW));
    store.write_catalogue(all.map(CatalogueWrite::Job).collect()).await.unwrap();
    for step in steps {
        match step.clone() {
            Step::Register(n, set, services) => {
                change(&store, n, &mut jobs, move |t| {
                    let mut r = registration(&[]);
                    r.set = MethodSet::from_bits(set);
                    r.services = services.iter().copied().map(ServiceNo).collect();
                    t.registration = Some(r);
                })
                .await;
            }
            Step::End(n) => change(&store, n, &mut jobs, |t| t.end(NOW)).await,
            Step::Put(n, no, number, state, attempts, job) => {
                change(&store, n, &mut jobs, move |t| {
                    put(&mut t.deliveries, no, number, state, attempts, job)
                })
                .await;
            }
            Step::Drop(n, i) => {
                change(&store, n, &mut jobs, move |t| {
                    if i < t.deliveries.len() {
                        t.deliveries.remove(i);
                    }
                })
                .await;
            }
            Step::Credential(n, true) => provision(&store, n..n + 1, 2).await,
            Step::Credential(n, false) => change(&store, n, &mut jobs, |t| t.credential = None).await,
            Step::Page(job) => {
                let pages = update(&store, Scope::Page(JobId(job), 2), move |view| {
                    let before: Vec<_> = view.terminals.iter().map(|t| t.deliveries.clone()).collect();
                    let cancelled = view.job.as_ref().is_some_and(|j| j.state == JobState::Cancelled);
                    for t in &mut view.terminals {
                        match cancelled {
                            true => t.cancel_job(JobId(job), NOW),
                            false => put(&mut t.deliveries, job as u32, 1, State::Sent, 1, Some(job)),
                        }
                    }
                    let after: Vec<_> = view.terminals.iter().map(|t| t.deliveries.clone()).collect();
                    before.into_iter().zip(after).collect::<Vec<_>>()
                });
                for (before, after) in pages.await.unwrap().unwrap_or_default() {
                    follow(&mut jobs, &before, &after);
                }
            }
            Step::Switch(id, state) => {
                let job = store.job(JobId(id)).await.unwrap().unwrap();
                let finished = state.is_over().then_some(NOW);
                let written = Job { state, finished, ..job.clone() };
                store.write_catalogue(vec![CatalogueWrite::Job(written)]).await.unwrap();
                let sum = |job: &Job| job.progress().iter().sum::<u64>();
                let after = store.job(JobId(id)).await.unwrap().unwrap();
                assert_eq!(sum(&after), sum(&job), "{job:?} → {after:?}");
            }
            Step::Reopen => {
                store.close().await.unwrap();
                drop(store);
                store = place.open();
            }
        }
        store.refresh().await.unwrap();
        let counted = store.counts();
        let (recounted, holders) = recount(&store, &[false; TERMINALS]).await;
        assert_eq!(counted, recounted, "after {step:?}");
        for key in (1..4).flat_map(|no| (1..4).map(move |number| (ServiceNo(no), number))) {
            let expected = holders.get(&key).copied().unwrap_or_default();
            assert_eq!(store.holders(key.0, key.1), expected, "{key:?} after {step:?}");
        }
        let open: Vec<_> = store.open_jobs().await.unwrap();
        for job in store.jobs(9).await.unwrap() {
            assert_eq!(open.contains(&job), job.is_open(), "{job:?} after {step:?}");
            let expected = jobs.get(&job.id.0).copied().unwrap_or_default();
            assert_eq!((job.states, job.sent), expected, "job {} after {step:?}", job.id);
        }
    }
    // Deliveries by state as the list shows them, for those that still have a B-TID.
    let listed = store.list_deliveries(DeliveryFilter::default(), None, 1000).await.unwrap().len() as u64;
    assert!(listed <= store.counts().open.iter().sum());
}

pub(crate) fn counters_equal_a_recount_after_random_histories<F: Factory>() {
    let config = ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() };
    proptest!(config, |(steps in proptest::collection::vec(step(), 1..40))| {
        run(history(&F::new(), &steps));
    });
}
