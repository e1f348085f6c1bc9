//! The engine on a database that is spread over workers: a coordinator and two, where Citus is installed.

use std::sync::OnceLock;

use ltkmd::store::postgres::HOT_STATEMENTS;
use ltkmd::store::{PgStore, Store};

use super::harness::{Factory, provision, register, run, services};
use super::server::citus::Citus;
use super::{conformance, engine, jobs};

/// The cluster that all tests share; `None`: there is no Citus, which was said.
fn cluster() -> Option<&'static Citus> {
    static CLUSTER: OnceLock<Option<Citus>> = OnceLock::new();
    CLUSTER.get_or_init(Citus::start).as_ref()
}

/// A database of its own on the cluster.
struct Spread(String);

impl Factory for Spread {
    type Store = PgStore;

    fn new() -> Self {
        let cluster = cluster().expect("who asks has looked");
        Self(cluster.coordinator.url_of("postgres", &cluster.database()))
    }

    fn open(&self) -> PgStore {
        engine::open(&self.0)
    }
}

/// Every statement of the hot paths is one task for one worker, which a plan says before anything is done.
#[test]
fn every_hot_statement_goes_to_one_place() {
    let Some(cluster) = cluster() else { return };
    let name = cluster.database();
    let store = engine::open(&cluster.coordinator.url_of("postgres", &name));
    run(async {
        services(&store, 1).await;
        provision(&store, 0..20, 1).await;
        register(&store, 0, &[1]).await;
    });
    assert!(HOT_STATEMENTS.len() > 10);
    for (what, text, arguments) in HOT_STATEMENTS {
        let call = if arguments.is_empty() { String::new() } else { format!("({arguments})") };
        let plan = format!("PREPARE hot AS {text}; EXPLAIN (COSTS OFF) EXECUTE hot{call}");
        let plan = cluster.coordinator.sql_in(&name, &plan);
        assert!(plan.contains("Task Count: 1"), "{what}: {plan}");
        assert!(!plan.contains("Distributed Subplan"), "{what}: {plan}");
    }
    run(store.close()).expect("closed");
}

/// Tables that grow are spread by their shards and lie side by side; the small ones are whole on every worker.
#[test]
fn terminals_tables_are_spread_by_shard_and_lie_side_by_side() {
    let Some(cluster) = cluster() else { return };
    let name = cluster.database();
    let store = engine::open(&cluster.coordinator.url_of("postgres", &name));
    let text = "SELECT string_agg(table_name::text || ' ' || citus_table_type || ' ' || distribution_column, ', ' ORDER \
                BY table_name::text) FROM citus_tables";
    let expected = "ltkmd.job reference <none>, ltkmd.job_shard distributed shard, ltkmd.lease reference <none>, \
                    ltkmd.member distributed shard, ltkmd.message distributed shard, ltkmd.meta reference <none>, \
                    ltkmd.msk reference <none>, ltkmd.node reference <none>, ltkmd.service reference <none>, \
                    ltkmd.subscriber distributed shard, ltkmd.tally distributed shard, ltkmd.terminal distributed shard";
    assert_eq!(cluster.coordinator.sql_in(&name, text), expected);
    let text =
        "SELECT count(DISTINCT colocation_id) FROM citus_tables WHERE citus_table_type = 'distributed'";
    assert_eq!(cluster.coordinator.sql_in(&name, text), "1");
    run(store.close()).expect("closed");
}

macro_rules! conformance {
    ($($room:ident :: $name:ident),+ $(,)?) => {
        mod citus_conformance {
            use super::*;
            $(#[test] fn $name() {
                if cluster().is_some() {
                    $room::$name::<Spread>();
                }
            })+
        }
    };
}

// What an engine could do otherwise when its rows are in many places; the rest is the same code as on one server.
conformance!(
    conformance::what_was_written_survives_reopening,
    conformance::a_terminal_comes_with_its_siblings_that_are_registered_or_have_something_open,
    conformance::a_subscriber_lists_the_b_tids_of_its_credentials,
    conformance::pages_visit_every_member_once_and_resume_where_they_were,
    conformance::a_job_counts_its_deliveries_and_is_done_when_none_is_open,
    conformance::what_is_due_comes_at_its_time_and_once,
    conformance::lists_of_terminals_page_completely,
    conformance::services_and_keys_are_written_together_and_survive_reopening,
    conformance::members_are_counted_by_method_and_service,
    conformance::short_messages_are_their_terminals_for_as_long_as_a_delivery_names_them,
    jobs::a_cancelled_job_walks_back_and_its_states_add_up,
);
