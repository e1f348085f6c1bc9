//! A page of a fan-out that somebody else has done meanwhile.

use std::sync::{Arc, Mutex};

use ltkmd::id::ServiceNo;
use ltkmd::store::{CatalogueWrite, Job, JobKind, PgSettings, PgStore, Scope, Store};
use ltkmd::time::Timestamp;
use serde_json::json;
use zeroize::Zeroizing;

use crate::harness::terminal::Terminal;
use crate::nodes::{Cluster, SERVICE, alone};
use crate::server::shared;

#[test]
fn a_decision_about_a_page_that_is_not_committed_is_not_the_last_one() {
    const MEMBERS: usize = 3;
    let _alone = alone();
    let database = shared().database();
    let url = shared().url_of("postgres", &database);
    let cluster = Cluster::new(&url, "");
    let [mut daemon] = cluster.start(["a"]);
    daemon.put_service(SERVICE, 1, json!({}));
    for _ in 0..MEMBERS {
        Terminal::provision(&daemon, &[]).registered(&[SERVICE], Some(&[2]));
    }
    assert!(daemon.terminate().success());

    let settings = PgSettings {
        url: url.parse().expect("a URL"),
        password: None,
        master: Zeroizing::new([7; 32]),
        node: "b".to_owned(),
        http: String::new(),
        connections: 4,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let store = PgStore::open(&settings).expect("it opens");
    let runs = Arc::<Mutex<Vec<usize>>>::default();
    runtime.block_on(async {
        let id = store.new_job_id().await.expect("a number");
        let job = Job::new(id, JobKind::KeyUpdate, ServiceNo(1), 1, MEMBERS as u64, Timestamp::now());
        store.write_catalogue(vec![CatalogueWrite::Job(job)]).await.expect("written");
        let told = Arc::clone(&runs);
        let decide = move |view: &mut ltkmd::store::View| {
            let mut runs = told.lock().expect("no holder panics");
            runs.push(view.terminals.len());
            if runs.len() == 1 {
                // A commit that hung comes through: the page is done, and this decision about it will be refused.
                let through = "UPDATE ltkmd.job_shard SET cursor = NULL, step = step + 1";
                shared().sql_in(&database, &format!("{through} WHERE job = {id}"));
            }
        };
        store.update(Scope::Page(id, 1000), Box::new(decide)).await.expect("nothing is left to do");
        store.close().await.expect("closed");
    });
    // Whoever acts upon what was decided last sends nothing.
    assert_eq!(*runs.lock().expect("no holder panics"), [MEMBERS, 0]);
}
