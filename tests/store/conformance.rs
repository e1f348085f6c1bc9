//! The promises of the trait, as tests over any engine.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ltkmd::delivery::{SmsLimits, State};
use ltkmd::id::{JobId, Method, MethodSet, ServiceNo};
use ltkmd::store::{
    CatalogueWrite, Counts, DeliveryFilter, Job, JobKind, JobState, Lane, Members, Scope, Store,
    TerminalFilter,
};
use ltkmd::time::Timestamp;

use super::harness::*;

/// Makes one test of each promise for an engine.
#[macro_export]
macro_rules! conformance_tests {
    ($engine:ident: $factory:ty) => {
        $crate::conformance_tests!(@ $engine $factory,
            what_was_written_survives_reopening,
            an_unknown_b_tid_gives_an_empty_view_and_no_terminal,
            a_terminal_that_is_named_twice_comes_once,
            a_thousand_parallel_updates_of_one_terminal_take_a_thousand_values_of_t,
            a_terminal_comes_with_its_siblings_that_are_registered_or_have_something_open,
            a_deleted_credential_leaves_its_counter_behind,
            a_subscriber_lists_the_b_tids_of_its_credentials,
            pages_visit_every_member_once_and_resume_where_they_were,
            a_sparse_service_is_paged_like_a_dense_one,
            a_job_counts_its_deliveries_and_is_done_when_none_is_open,
            a_job_that_does_not_run_gives_no_page,
            writing_a_known_job_keeps_what_the_store_counts,
            what_is_due_comes_at_its_time_and_once,
            what_is_due_comes_again_after_reopening,
            lists_of_terminals_page_completely,
            lists_of_deliveries_page_completely,
            services_and_keys_are_written_together_and_survive_reopening,
            a_purged_service_number_is_not_given_out_again,
            members_are_counted_by_method_and_service,
            short_messages_are_their_terminals_for_as_long_as_a_delivery_names_them,
            an_unchanged_view_changes_nothing;
            a_paused_job_survives_reopening_and_goes_on_where_it_was,
            a_paused_job_that_visited_everybody_is_done_with_the_last_answer,
            a_cancelled_job_walks_back_and_its_states_add_up,
            a_cancelled_job_of_a_sparse_service_walks_back_too,
            a_job_that_visited_everybody_can_be_cancelled,
            a_job_that_is_over_stays_so,
            open_jobs_are_found_behind_any_number_of_newer_ones
        );
    };
    (@ $engine:ident $factory:ty, $($name:ident),+; $($job:ident),+) => {
        mod $engine {
            $(#[test] fn $name() { $crate::conformance::$name::<$factory>() })+
            $(#[test] fn $job() { $crate::jobs::$job::<$factory>() })+
            #[test]
            fn counters_equal_a_recount_after_random_histories() {
                $crate::histories::counters_equal_a_recount_after_random_histories::<$factory>()
            }
        }
    };
}

pub(crate) fn what_was_written_survives_reopening<F: Factory>() {
    let place = F::new();
    let before = run(async {
        let store = place.open();
        services(&store, 2).await;
        provision(&store, 0..5, 2).await;
        register(&store, 3, &[1, 2]).await;
        update(&store, Scope::Terminal(btid(3)), |view| {
            let t = &mut view.terminals[0];
            t.next_t = 7;
            t.deliveries.push(sent(1, 1, 6, None));
            use_nonces(t);
        })
        .await
        .unwrap();
        // Nothing else is known of this one.
        update(&store, Scope::Terminal(btid(1)), |view| use_nonces(&mut view.terminals[0])).await.unwrap();
        let before = all(&store, 5).await;
        store.close().await.unwrap();
        before
    });
    let store = place.open();
    assert_eq!(before.len(), 5);
    assert_eq!((before[3].next_t, before[3].nonces.len(), before[1].nonces.len()), (7, 2, 2));
    assert_eq!(run(all(&store, 5)), before);
}

pub(crate) fn an_unknown_b_tid_gives_an_empty_view_and_no_terminal<F: Factory>() {
    let place = F::new();
    let store = place.open();
    run(async {
        let seen = update(&store, Scope::Terminal(btid(1)), |view| view.terminals.len()).await.unwrap();
        assert_eq!(seen, Some(0));
        assert!(store.terminal(&btid(1)).await.unwrap().is_none());
        let slots = update(&store, Scope::Credentials(vec![btid(1), btid(2)], vec![impi(1)]), |view| {
            (
                view.terminals.iter().map(|t| t.next_t).collect::<Vec<_>>(),
                view.subscribers.get(&impi(1)).cloned(),
            )
        });
        assert_eq!(slots.await.unwrap(), Some((vec![1, 1], Some(None))));
        let keys = vec![store.terminal_key(&btid(1))];
        assert_eq!(update(&store, Scope::Terminals(keys), |v| v.terminals.len()).await.unwrap(), Some(0));
    });
}

pub(crate) fn a_terminal_that_is_named_twice_comes_once<F: Factory>() {
    let place = F::new();
    let store = place.open();
    run(async {
        provision(&store, 0..2, 1).await;
        let (a, b) = (store.terminal_key(&btid(0)), store.terminal_key(&btid(1)));
        let seen = update(&store, Scope::Terminals(vec![b, a, b]), |view| {
            view.terminals.iter_mut().for_each(|t| t.next_t += 1);
            view.terminals.iter().map(|t| t.key).collect::<Vec<_>>()
        });
        assert_eq!(seen.await.unwrap().unwrap(), [b, a]);
        assert_eq!(terminal(&store, 1).await.next_t, 2);
    });
}

pub(crate) fn a_thousand_parallel_updates_of_one_terminal_take_a_thousand_values_of_t<F: Factory>() {
    let place = F::new();
    let store = Arc::new(place.open());
    run(async {
        provision(&*store, 0..1, 1).await;
        let tasks: Vec<_> = (0..1000)
            .map(|_| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    let take = |view: &mut ltkmd::store::View| {
                        view.terminals[0].next_t += 1;
                        view.terminals[0].next_t - 1
                    };
                    update(&*store, Scope::Terminal(btid(0)), take).await.unwrap().unwrap()
                })
            })
            .collect();
        let mut values = BTreeSet::new();
        for task in tasks {
            values.insert(task.await.unwrap());
        }
        assert_eq!(values, (1..=1000).collect());
        assert_eq!(terminal(&*store, 0).await.next_t, 1001);
    });
}

pub(crate) fn a_terminal_comes_with_its_siblings_that_are_registered_or_have_something_open<F: Factory>() {
    let place = F::new();
    let store = place.open();
    run(async {
        provision(&store, 0..5, 5).await;
        register(&store, 1, &[1]).await;
        let keys = vec![store.terminal_key(&btid(2)), store.terminal_key(&btid(3))];
        update(&store, Scope::Terminals(keys), |view| {
            view.terminals[0].deliveries.push(sent(1, 1, 1, None));
            let mut over = sent(1, 1, 1, None);
            over.settle(State::Verified, None, NOW);
            view.terminals[1].deliveries.push(over);
        })
        .await
        .unwrap();
        let (first, others, subscribers) = update(&store, Scope::Terminal(btid(0)), |view| {
            let names = |t: &ltkmd::delivery::Terminal| t.credential.as_ref().unwrap().btid.clone();
            let others: BTreeSet<_> = view.terminals[1..].iter().map(names).collect();
            (names(&view.terminals[0]), others, view.subscribers.clone())
        })
        .await
        .unwrap()
        .unwrap();
        assert_eq!(first, btid(0));
        assert_eq!(others, BTreeSet::from([btid(1), btid(2)]));
        assert_eq!(subscribers.get(&impi(0)), Some(&Some(subscriber(0))));
    });
}

pub(crate) fn a_deleted_credential_leaves_its_counter_behind<F: Factory>() {
    let place = F::new();
    {
        let store = place.open();
        run(async {
            provision(&store, 0..2, 2).await;
            update(&store, Scope::Credentials(vec![btid(0)], vec![]), |v| v.terminals[0].next_t = 99)
                .await
                .unwrap();
            update(&store, Scope::Credentials(vec![btid(0)], vec![]), |v| v.terminals[0].credential = None)
                .await
                .unwrap();
            assert!(store.terminal(&btid(0)).await.unwrap().is_none());
            assert_eq!(store.subscriber(&impi(0)).await.unwrap().unwrap().1, [btid(1)]);
        });
    }
    let store = place.open();
    run(async {
        provision(&store, 0..1, 2).await;
        assert_eq!(terminal(&store, 0).await.next_t, 99);
    });
}

pub(crate) fn a_subscriber_lists_the_b_tids_of_its_credentials<F: Factory>() {
    let place = F::new();
    let store = place.open();
    run(async {
        provision(&store, 0..4, 2).await;
        let (found, btids) = store.subscriber(&impi(1)).await.unwrap().unwrap();
        assert_eq!(found, subscriber(1));
        assert_eq!(BTreeSet::from_iter(btids), BTreeSet::from([btid(2), btid(3)]));
        let seen = update(&store, Scope::Subscribers(vec![impi(0), impi(9)]), |view| {
            let none = view.subscribers.get(&impi(9)).cloned();
            for t in &mut view.terminals {
                t.credential = None;
            }
            view.subscribers.insert(impi(0), None);
            (view.terminals.len(), none)
        });
        assert_eq!(seen.await.unwrap(), Some((2, Some(None))));
        assert!(store.subscriber(&impi(0)).await.unwrap().is_none());
        assert!(store.subscriber(&impi(9)).await.unwrap().is_none());
        assert!(store.terminal(&btid(0)).await.unwrap().is_none());
    });
}

/// Registers `members` of `n` terminals for service 1 and puts job 1 in.
pub(crate) async fn fan_out(store: &impl Store, n: usize, members: impl Fn(usize) -> bool) -> JobId {
    services(store, 1).await;
    provision(store, 0..n, 1).await;
    let mut expected = 0;
    for i in (0..n).filter(|i| members(*i)) {
        register(store, i, &[1]).await;
        expected += 1;
    }
    let id = store.new_job_id().await.expect("a number");
    let job = Job::new(id, JobKind::KeyUpdate, ServiceNo(1), 1, expected, NOW);
    store.write_catalogue(vec![CatalogueWrite::Job(job)]).await.expect("written");
    id
}

/// Visits so many members, in as many pages as the engine takes for it: each takes a T and a delivery of the job. How
/// many there were; `None`: no page.
pub(crate) async fn page(store: &impl Store, id: JobId, limit: usize) -> Option<usize> {
    let mut visited = one_page(store, id, limit).await?;
    while visited < limit
        && let Some(n) = one_page(store, id, limit - visited).await
    {
        visited += n;
    }
    Some(visited)
}

async fn one_page(store: &impl Store, id: JobId, limit: usize) -> Option<usize> {
    update(store, Scope::Page(id, limit), move |view| {
        assert!(view.job.is_some());
        for t in &mut view.terminals {
            assert!(t.credential.is_some());
            let d = sent(1, 1, t.next_t as u32, Some(id.0));
            t.next_t += 1;
            t.deliveries.push(d);
        }
        view.terminals.len()
    })
    .await
    .expect("a page")
}

async fn visit_all<F: Factory>(place: &F, members: fn(usize) -> bool) {
    let store = place.open();
    let id = fan_out(&store, 60, members).await;
    assert_eq!(page(&store, id, 7).await, Some(7));
    let job = store.job(id).await.unwrap().unwrap();
    assert_eq!(job.states[State::Sent as usize], 7);
    store.close().await.unwrap();
    drop(store);
    let store = place.open();
    let mut visited = 7;
    while let Some(n) = page(&store, id, 7).await {
        visited += n;
    }
    let expected = (0..60).filter(|n| members(*n)).count();
    assert_eq!(visited, expected);
    for n in 0..60 {
        assert_eq!(terminal(&store, n).await.next_t, if members(n) { 2 } else { 1 }, "terminal {n}");
    }
    let job = store.job(id).await.unwrap().unwrap();
    assert_eq!(job.cursor, None);
    assert_eq!(job.state, JobState::Running);
    assert_eq!((job.states[State::Sent as usize], job.sent), (expected as u64, expected as u64));
}

pub(crate) fn pages_visit_every_member_once_and_resume_where_they_were<F: Factory>() {
    run(visit_all(&F::new(), |n| n % 3 != 0));
}

pub(crate) fn a_sparse_service_is_paged_like_a_dense_one<F: Factory>() {
    run(visit_all(&F::new(), |n| n % 7 == 0));
}

pub(crate) fn a_job_counts_its_deliveries_and_is_done_when_none_is_open<F: Factory>() {
    let place = F::new();
    let store = place.open();
    run(async {
        let id = fan_out(&store, 10, |_| true).await;
        while page(&store, id, 100).await.is_some() {}
        // One is verified, one vanishes while it is open, one goes over to no job, the others fail.
        for n in 0..10 {
            update(&store, Scope::Terminal(btid(n)), move |view| {
                let t = &mut view.terminals[0];
                match n {
                    0 => assert!(t.answered(1, NOW).is_some_and(|a| a.first)),
                    1 => t.deliveries.clear(),
                    2 => t.deliveries[0].job = None,
                    _ => t.deliveries[0].settle(State::Failed, None, NOW),
                }
            })
            .await
            .unwrap();
        }
        let job = store.job(id).await.unwrap().unwrap();
        assert_eq!(job.states, [0, 0, 1, 0, 0, 7, 0, 2]);
        assert_eq!((job.sent, job.state), (10, JobState::Done));
        assert!(job.finished.is_some());
        // What vanishes closed goes on to count.
        update(&store, Scope::Terminal(btid(0)), |view| view.terminals[0].deliveries.clear()).await.unwrap();
        assert_eq!(store.job(id).await.unwrap().unwrap().states, [0, 0, 1, 0, 0, 7, 0, 2]);
        assert_eq!(store.jobs(10).await.unwrap().len(), 1);
    });
}

pub(crate) fn a_job_that_does_not_run_gives_no_page<F: Factory>() {
    let place = F::new();
    let store = place.open();
    run(async {
        let id = fan_out(&store, 5, |_| true).await;
        let mut job = store.job(id).await.unwrap().unwrap();
        job.state = JobState::Paused;
        store.write_catalogue(vec![CatalogueWrite::Job(job.clone())]).await.unwrap();
        assert_eq!(page(&store, id, 3).await, None);
        job.state = JobState::Running;
        store.write_catalogue(vec![CatalogueWrite::Job(job)]).await.unwrap();
        assert_eq!(page(&store, id, 3).await, Some(3));
        assert_eq!(page(&store, JobId(77), 3).await, None);
    });
}

pub(crate) fn writing_a_known_job_keeps_what_the_store_counts<F: Factory>() {
    let place = F::new();
    let store = place.open();
    run(async {
        let id = fan_out(&store, 5, |_| true).await;
        let mut stale = store.job(id).await.unwrap().unwrap();
        page(&store, id, 3).await;
        let counted = store.job(id).await.unwrap().unwrap();
        (stale.state, stale.finished) = (JobState::Cancelled, Some(NOW));
        stale.expected = 1234;
        store.write_catalogue(vec![CatalogueWrite::Job(stale.clone())]).await.unwrap();
        let job = store.job(id).await.unwrap().unwrap();
        // Nothing is queued: it has no way back to go.
        let cancelled = JobState::Cancelled;
        assert_eq!(job, Job { state: cancelled, finished: Some(NOW), cursor: None, ..counted });
        assert_eq!(job.progress(), [0, 3, 0, 0, 0, 0, 0, 2]);
        stale.state = JobState::Running;
        store.write_catalogue(vec![CatalogueWrite::Job(stale)]).await.unwrap();
        assert_eq!(store.job(id).await.unwrap().unwrap(), job, "a cancelled job stays cancelled");
    });
}

pub(crate) fn what_is_due_comes_at_its_time_and_once<F: Factory>() {
    let place = F::new();
    let store = place.open();
    run(async {
        provision(&store, 0..1, 1).await;
        update(&store, Scope::Terminal(btid(0)), |v| v.terminals[0].deliveries.push(sent(1, 1, 1, None)))
            .await
            .unwrap();
        let due = terminal(&store, 0).await.next_due().unwrap();
        let late = due + Duration::from_secs(1);
        assert!(store.take_due(Lane::Look, due - Duration::from_millis(1), 9).is_empty());
        assert!(store.next_due(Lane::Look).is_some_and(|at| at >= due && at <= late));
        let key = store.terminal_key(&btid(0));
        assert_eq!(store.take_due(Lane::Look, late, 9), [key]);
        assert!(store.take_due(Lane::Look, late, 9).is_empty());
        // Looked at too early and left as it is: it comes again at its time.
        update(&store, Scope::Terminals(vec![key]), |_| ()).await.unwrap();
        assert_eq!(store.take_due(Lane::Look, late, 9), [key]);
        update(&store, Scope::Terminals(vec![key]), move |v| v.terminals[0].deliveries[0].next_due = None)
            .await
            .unwrap();
        assert!(store.take_due(Lane::Look, Timestamp::MAX, 9).is_empty());
    });
}

pub(crate) fn what_is_due_comes_again_after_reopening<F: Factory>() {
    let place = F::new();
    let key = {
        let store = place.open();
        run(async {
            provision(&store, 0..3, 1).await;
            update(&store, Scope::Terminal(btid(1)), |v| v.terminals[0].deliveries.push(sent(1, 1, 1, None)))
                .await
                .unwrap();
        });
        let key = store.terminal_key(&btid(1));
        assert_eq!(store.take_due(Lane::Look, Timestamp::MAX, 9), [key]);
        key
    };
    let store = place.open();
    let begun = std::time::Instant::now();
    let mut taken = Vec::new();
    while taken.is_empty() && begun.elapsed() < Duration::from_secs(30) {
        taken = store.take_due(Lane::Look, Timestamp::MAX, 9);
        std::thread::yield_now();
    }
    assert_eq!(taken, [key]);
}

pub(crate) fn lists_of_terminals_page_completely<F: Factory>() {
    let place = F::new();
    let store = place.open();
    run(async {
        provision(&store, 0..40, 1).await;
        for n in 0..40 {
            register(&store, n, if n % 2 == 0 { &[1] } else { &[2] }).await;
        }
        update(&store, Scope::Terminal(btid(0)), |v| {
            v.terminals[0].registration.as_mut().unwrap().set = MethodSet::UDP
        })
        .await
        .unwrap();
        update(&store, Scope::Terminal(btid(1)), |v| v.terminals[0].registration = None).await.unwrap();
        let http = MethodSet::EMPTY.with(Method::Http);
        let cases = [
            (None, MethodSet::EMPTY, 39),
            (Some(ServiceNo(1)), MethodSet::EMPTY, 20),
            (Some(ServiceNo(1)), http, 19),
            (Some(ServiceNo(3)), MethodSet::EMPTY, 0),
            (None, http, 38),
        ];
        for (service, methods, expected) in cases {
            let filter = TerminalFilter { service, methods };
            let mut keys = Vec::new();
            loop {
                let page = store.list_terminals(filter.clone(), keys.last().copied(), 7).await.unwrap();
                assert!(page.iter().all(|t| t.credential.is_some() && t.is_registered()));
                keys.extend(page.iter().map(|t| t.key));
                if page.len() < 7 {
                    break;
                }
            }
            assert!(keys.is_sorted());
            assert_eq!(BTreeSet::from_iter(&keys).len(), expected, "{filter:?}");
            assert_eq!(keys.len(), expected, "{filter:?}");
        }
    });
}

pub(crate) fn lists_of_deliveries_page_completely<F: Factory>() {
    let place = F::new();
    let store = place.open();
    run(async {
        provision(&store, 0..10, 1).await;
        for n in 0..10 {
            update(&store, Scope::Terminal(btid(n)), |view| {
                let mut over = sent(2, 1, 2, None);
                over.settle(State::Verified, None, NOW);
                view.terminals[0].deliveries = vec![sent(1, 1, 1, None), over, sent(1, 2, 3, None)];
            })
            .await
            .unwrap();
        }
        let none = DeliveryFilter::default();
        let cases = [
            (none.clone(), 30),
            (DeliveryFilter { state: Some(State::Verified), ..none.clone() }, 10),
            (DeliveryFilter { service: Some(ServiceNo(1)), ..none.clone() }, 20),
            (DeliveryFilter { terminal: Some(btid(4)), ..none.clone() }, 3),
            (DeliveryFilter { terminal: Some(btid(44)), ..none }, 0),
        ];
        for (filter, expected) in cases {
            let mut seen = BTreeSet::new();
            let mut after = None;
            loop {
                let page = store.list_deliveries(filter.clone(), after, 4).await.unwrap();
                for (name, d, cursor) in &page {
                    assert!(seen.insert((name.clone(), d.service, d.number, d.kind)), "twice: {d:?}");
                    assert!(Some(*cursor) > after);
                    after = Some(*cursor);
                }
                if page.len() < 4 {
                    break;
                }
            }
            assert_eq!(seen.len(), expected, "{filter:?}");
        }
    });
}

pub(crate) fn services_and_keys_are_written_together_and_survive_reopening<F: Factory>() {
    let place = F::new();
    {
        let store = place.open();
        run(async {
            services(&store, 2).await;
            // Numbers wrap: the order is the order in which they were made.
            let keys = [3, 2].map(|n| CatalogueWrite::Key(msk(1, n)));
            store.write_catalogue(keys.to_vec()).await.unwrap();
            let mut changed = service(2);
            changed.retired = Some(NOW);
            let writes = vec![CatalogueWrite::Service(changed), CatalogueWrite::RemoveKey(ServiceNo(1), 3)];
            store.write_catalogue(writes).await.unwrap();
            // A key that is written again keeps its place.
            store.write_catalogue(vec![CatalogueWrite::Key(msk(1, 1))]).await.unwrap();
        });
    }
    let store = place.open();
    run(async {
        let catalogue = store.catalogue().await.unwrap();
        let first = catalogue.get(ServiceNo(1)).unwrap();
        assert_eq!(first.service, service(1));
        let keys: Vec<_> = first.keys.iter().map(|k| (**k).clone()).collect();
        assert_eq!(keys, [msk(1, 1), msk(1, 2)]);
        assert_eq!(catalogue.get(ServiceNo(2)).unwrap().service.retired, Some(NOW));
        store.write_catalogue(vec![CatalogueWrite::RemoveService(ServiceNo(1))]).await.unwrap();
        let catalogue = store.catalogue().await.unwrap();
        assert!(catalogue.get(ServiceNo(1)).is_none());
        store.write_catalogue(vec![CatalogueWrite::Service(service(1))]).await.unwrap();
        let again = store.catalogue().await.unwrap();
        assert!(again.get(ServiceNo(1)).unwrap().keys.is_empty(), "its keys were purged with it");
    });
}

pub(crate) fn a_purged_service_number_is_not_given_out_again<F: Factory>() {
    let place = F::new();
    {
        let store = place.open();
        run(async {
            services(&store, 5).await;
            store.write_catalogue(vec![CatalogueWrite::RemoveService(ServiceNo(5))]).await.unwrap();
        });
    }
    let store = place.open();
    assert_eq!(run(store.catalogue()).unwrap().free_no(), ServiceNo(6));
}

pub(crate) fn members_are_counted_by_method_and_service<F: Factory>() {
    let place = F::new();
    let expected = {
        let store = place.open();
        run(async {
            provision(&store, 0..4, 1).await;
            register(&store, 0, &[1, 2]).await;
            register(&store, 1, &[1]).await;
            register(&store, 2, &[2]).await;
            update(&store, Scope::Terminal(btid(1)), |v| {
                v.terminals[0].registration.as_mut().unwrap().set = MethodSet::UDP;
            })
            .await
            .unwrap();
            update(&store, Scope::Terminal(btid(2)), |v| v.terminals[0].registration = None).await.unwrap();
        });
        run(store.refresh()).unwrap();
        let counts = store.counts();
        let both = Members { udp: 2, http: 1, sms: 0, total: 2 };
        let one = Members { udp: 1, http: 1, sms: 0, total: 1 };
        assert_eq!(counts.members, [(ServiceNo(1), both), (ServiceNo(2), one)].into());
        counts
    };
    let counts: Counts = place.open().counts();
    assert_eq!(counts, expected);
}

pub(crate) fn an_unchanged_view_changes_nothing<F: Factory>() {
    let place = F::new();
    let store = place.open();
    run(async {
        provision(&store, 0..3, 1).await;
        register(&store, 0, &[1]).await;
        store.refresh().await.unwrap();
        let before = (all(&store, 3).await, store.counts());
        update(&store, Scope::Credentials(vec![btid(0), btid(1), btid(0)], vec![impi(0)]), |_| ())
            .await
            .unwrap();
        update(&store, Scope::Subscribers(vec![impi(2)]), |_| ()).await.unwrap();
        store.refresh().await.unwrap();
        assert_eq!((all(&store, 3).await, store.counts()), before);
        // Two slots of one terminal: the one that is changed counts, the other does not undo it.
        update(&store, Scope::Credentials(vec![btid(0), btid(0)], vec![]), |v| v.terminals[0].next_t = 5)
            .await
            .unwrap();
        assert_eq!(terminal(&store, 0).await.next_t, 5);
    });
}

pub(crate) fn short_messages_are_their_terminals_for_as_long_as_a_delivery_names_them<F: Factory>() {
    const TERMINALS: usize = 12;
    let place = F::new();
    let store = place.open();
    let all: Vec<String> = (0..TERMINALS).flat_map(|n| [format!("a-{n}"), format!("b-{n}")]).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let keys: Vec<_> = (0..TERMINALS).map(|n| store.terminal_key(&btid(n))).collect();
    run(async {
        provision(&store, 0..TERMINALS, 2).await;
        assert_eq!(whose(&store, &all).await, [None; 2 * TERMINALS]);
        // One message in two parts for each; what it is about are two deliveries.
        let scope = Scope::Terminals(keys.clone());
        update(&store, scope, |view| {
            for (n, t) in view.terminals.iter_mut().enumerate() {
                let (a, b) = (format!("a-{n}"), format!("b-{n}"));
                t.deliveries = vec![accepted(1, 1, &[&a, &b]), accepted(2, 1, &[&a, &b])];
            }
        })
        .await
        .unwrap();
        let each_twice: Vec<_> = keys.iter().flat_map(|key| [Some(*key); 2]).collect();
        assert_eq!(whose(&store, &all).await, each_twice);
        assert_eq!(
            whose(&store, &["b-3", "x", "a-1", "b-3"]).await,
            [3, 9, 1, 3].map(|n| match n {
                9 => None,
                n => Some(keys[n]),
            })
        );
        assert!(whose(&store, &[]).await.is_empty());
        // Half of them lose both deliveries. The others lose one, or have another message.
        update(&store, Scope::Terminals(keys.clone()), |view| {
            for (n, t) in view.terminals.iter_mut().enumerate() {
                match n % 4 {
                    0 | 1 => t.deliveries.clear(),
                    2 => drop(t.deliveries.pop()),
                    _ => t.deliveries.iter_mut().for_each(|d| {
                        d.triggered(2, &SmsLimits::default(), NOW);
                        d.accepted(2, &[id(&format!("b-{n}")), id(&format!("c-{n}"))]);
                    }),
                }
            }
        })
        .await
        .unwrap();
        assert_eq!(whose(&store, &["c-3", "c-7"]).await, [Some(keys[3]), Some(keys[7])]);
        store.close().await.unwrap();
    });
    drop(store);
    let store = place.open();
    let named = |n: usize, part: &str| match (n % 4, part) {
        (2, "a" | "b") | (3, "b" | "c") => Some(keys[n]),
        _ => None,
    };
    let asked: Vec<(String, _)> = (0..TERMINALS)
        .flat_map(|n| ["a", "b", "c"].map(|part| (format!("{part}-{n}"), named(n, part))))
        .collect();
    let (ids, expected): (Vec<&str>, Vec<_>) = asked.iter().map(|(id, named)| (id.as_str(), *named)).unzip();
    // An engine may read on what it knows when it is open already.
    let begun = std::time::Instant::now();
    let mut found = run(whose(&store, &ids));
    while found != expected && begun.elapsed() < Duration::from_secs(30) {
        std::thread::yield_now();
        found = run(whose(&store, &ids));
    }
    assert_eq!(found, expected);
}
