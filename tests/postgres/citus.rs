//! Citus: that the daemon sees it, and that the cluster of the tests is one.

use ltkmd::store::postgres::check_server;

use crate::connect::pool;
use crate::server::citus::Citus;

#[tokio::test]
async fn a_database_of_citus_is_known_as_one_and_spreads_its_tables() {
    let Some(cluster) = Citus::start() else { return };
    for _ in 0..2 {
        let database = cluster.database();
        let pool = pool(&cluster.coordinator.url_of("postgres", &database));
        let client = pool.get().await.unwrap();
        let facts = check_server(&pool, &client).await.unwrap();
        assert!(facts.citus.is_some(), "{facts:?}");
        client.batch_execute("CREATE TABLE t (k int PRIMARY KEY, v text)").await.unwrap();
        client.query_one("SELECT create_distributed_table('t', 'k')::text", &[]).await.unwrap();
        client.batch_execute("INSERT INTO t SELECT k, 'v' FROM generate_series(1, 100) k").await.unwrap();
        let on =
            "SELECT count(DISTINCT nodename || nodeport) FROM citus_shards WHERE table_name = 't'::regclass";
        let nodes: i64 = client.query_one(on, &[]).await.unwrap().get(0);
        assert_eq!(nodes, 2);
    }
}
