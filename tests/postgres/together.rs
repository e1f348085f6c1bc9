//! Requests that come at the same time: one commit for many, and each as if it had come alone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ltkmd::store::{CatalogueWrite, Scope, Store, View};
use tokio::task::JoinSet;

use super::engine::open_as;
use super::harness::{btid, impi, provision, registration, run, service, subscriber, terminal, update};
use super::server::shared;

/// Requests at a time: many more than batches may be under way.
const MANY: usize = 64;

/// Terminals of one subscriber: more than batches may be under way.
const SIBLINGS: usize = 8;

fn url() -> String {
    let server = shared();
    server.url_of("postgres", &server.database())
}

#[test]
fn a_request_that_was_decided_before_a_change_of_services_is_decided_again_whatever_it_goes_with() {
    let url = url();
    let store = Arc::new(open_as(&url, "a"));
    let other = Arc::new(open_as(&url, "b"));
    run(async {
        provision(&*store, 0..MANY, 1).await;
        for round in 0..4 {
            let revision = store.catalogue().await.unwrap().revision();
            store.decides_with(revision);
            let current = Arc::new(AtomicU64::new(revision));
            let changed = Arc::new(AtomicBool::new(false));
            let begun = Arc::new(AtomicU64::new(0));
            let mut requests = JoinSet::new();
            for n in 0..MANY {
                let (store, other) = (Arc::clone(&store), Arc::clone(&other));
                let (current, changed, begun) =
                    (Arc::clone(&current), Arc::clone(&changed), Arc::clone(&begun));
                requests.spawn(async move {
                    let under = Arc::new(Mutex::new(Vec::new()));
                    let noted = Arc::clone(&under);
                    let teller = Arc::clone(&store);
                    let decide = move |view: &mut View| {
                        let revision = current.load(Ordering::SeqCst);
                        view.revision = Some(revision);
                        view.terminals[0].next_t += 1;
                        noted.lock().unwrap().push(revision);
                        // In the middle of all of them, between its own decision and its commit.
                        if begun.fetch_add(1, Ordering::SeqCst) == MANY as u64 / 2 {
                            let (other, write) = (Arc::clone(&other), service(10 + round));
                            let written = std::thread::spawn(move || {
                                run(other.write_catalogue_at(revision, vec![CatalogueWrite::Service(write)]))
                            });
                            let newer = written.join().unwrap().unwrap();
                            teller.decides_with(newer);
                            current.store(newer, Ordering::SeqCst);
                            changed.store(true, Ordering::SeqCst);
                            noted.lock().unwrap().push(0);
                        }
                    };
                    store.update(Scope::Terminal(btid(n)), Box::new(decide)).await.unwrap();
                    under.lock().unwrap().clone()
                });
            }
            let all = requests.join_all().await;
            assert!(changed.load(Ordering::SeqCst));
            let newer = current.load(Ordering::SeqCst);
            let changer = all.iter().find(|under| under.contains(&0)).expect("one of them changed it");
            assert_eq!(changer.last(), Some(&newer), "{changer:?}");
        }
        for n in 0..MANY {
            assert_eq!(terminal(&*store, n).await.next_t, 5, "each was written once a round");
        }
        store.close().await.unwrap();
        other.close().await.unwrap();
    });
}

#[test]
fn requests_of_one_terminal_and_of_its_siblings_follow_one_another() {
    let url = url();
    let stores = [Arc::new(open_as(&url, "a")), Arc::new(open_as(&url, "b"))];
    run(async {
        // Each of the terminals of one subscriber sees the others.
        let store = &stores[0];
        provision(&**store, 0..SIBLINGS, 1).await;
        let ids = (0..SIBLINGS).map(btid).collect();
        update(&**store, Scope::Credentials(ids, vec![impi(0)]), |view| {
            view.subscribers.insert(impi(0), Some(subscriber(0)));
            for t in &mut view.terminals {
                t.credential.as_mut().unwrap().subscriber = impi(0);
                t.registration = Some(registration(&[1]));
            }
        })
        .await
        .unwrap();
        let mut requests = JoinSet::new();
        for i in 0..MANY {
            let store = Arc::clone(&stores[i % 2]);
            requests.spawn(async move {
                let decide = |view: &mut View| {
                    let highest = view.terminals.iter().map(|t| t.next_t).max().unwrap();
                    view.terminals[0].next_t = highest + 1;
                };
                store.update(Scope::Terminal(btid(i % SIBLINGS)), Box::new(decide)).await.unwrap();
            });
        }
        requests.join_all().await;
        // A request that did not see what the one before had decided would have taken the same number.
        let mut highest = 0;
        for n in 0..SIBLINGS {
            highest = highest.max(terminal(&**store, n).await.next_t);
        }
        assert_eq!(highest, MANY as u64 + 1);
        for store in &stores {
            store.close().await.unwrap();
        }
    });
}
