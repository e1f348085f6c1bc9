//! One server: sessions, and each way in which there is none.

use std::time::{Duration, Instant};

use ltkmd::secret::Secret;
use ltkmd::store::StoreError;
use ltkmd::store::postgres::{Connection, Pool, check_server};

use crate::server::{BY_PASSWORD, Options, Postgres, shared};

/// What every refusal is looked through for.
const PASSWORD: &str = "hunter2";

pub(crate) fn pool_with(url: &str, password: &str, max: usize) -> Pool {
    let pool = Pool::new(url.parse().unwrap(), Some(Secret::from(password.as_bytes())), max).unwrap();
    assert!(!format!("{pool:?}").contains(password), "{pool:?}");
    pool
}

pub(crate) fn pool(url: &str) -> Pool {
    pool_with(url, PASSWORD, 4)
}

pub(crate) async fn refused(url: &str) -> StoreError {
    let error = pool(url).get().await.err().unwrap_or_else(|| panic!("{url} lets the daemon in"));
    assert!(!format!("{error} {error:?}").contains(PASSWORD), "{error:?}");
    error
}

#[track_caller]
pub(crate) fn assert_waits(error: &StoreError, told: &str) {
    assert!(matches!(error, StoreError::Unavailable(_)) && error.to_string().contains(told), "{error:?}");
}

#[track_caller]
pub(crate) fn assert_open(error: &StoreError, told: &str) {
    assert!(matches!(error, StoreError::Open(_)) && error.to_string().contains(told), "{error:?}");
}

pub(crate) async fn show(client: &Connection, what: &str) -> String {
    client.query_one(&format!("SELECT ({what})::text"), &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_session_is_set_as_the_store_needs_it() {
    let server = shared();
    for url in [server.url(), server.socket_url_of("postgres", "postgres")] {
        let client = pool(&url).get().await.unwrap();
        for (name, value) in [
            ("application_name", "ltkmd"),
            ("statement_timeout", "5s"),
            ("lock_timeout", "4s"),
            ("idle_in_transaction_session_timeout", "3s"),
            ("default_transaction_isolation", "read committed"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("citus.max_adaptive_executor_pool_size", "1"),
            ("enable_nestloop", "on"),
            ("plan_cache_mode", "auto"),
            ("TimeZone", "UTC"),
        ] {
            assert_eq!(show(&client, &format!("current_setting('{name}')")).await, value, "{name}");
        }
    }
}

#[tokio::test]
async fn a_commit_is_durable_whatever_the_default_and_never_less_than_it() {
    let server = shared();
    server.sql("CREATE ROLE hasty LOGIN");
    for (given, held) in [
        ("off", "on"),
        ("local", "on"),
        ("remote_write", "on"),
        ("on", "on"),
        ("remote_apply", "remote_apply"),
    ] {
        server.sql(&format!("ALTER ROLE hasty SET synchronous_commit = {given}"));
        let client = pool(&server.url_of("hasty", "postgres")).get().await.unwrap();
        assert_eq!(show(&client, "current_setting('synchronous_commit')").await, held, "{given}");
    }
}

#[tokio::test]
async fn a_password_lets_in_and_a_wrong_or_missing_one_is_for_its_operator() {
    let server = shared();
    server.sql(&format!("CREATE ROLE keeper LOGIN PASSWORD '{PASSWORD}' IN ROLE {BY_PASSWORD}"));
    let url = server.url_of("keeper", "postgres");
    assert_eq!(show(&pool(&url).get().await.unwrap(), "current_user").await, "keeper");

    let wrong = pool_with(&url, "another", 4).get().await.err().unwrap();
    assert_open(&wrong, "refuses the password");
    assert_open(&wrong, "store.store_password_file");
    assert_open(&wrong, &format!("PostgreSQL at 127.0.0.1:{}/postgres", server.port()));
    assert!(!wrong.to_string().contains("another"), "{wrong}");
    let none = Pool::new(url.parse().unwrap(), None, 4).unwrap().get().await.err().unwrap();
    assert_open(&none, "asks for a password");
    // Who does not exist is not told apart from who has another password.
    server.sql(&format!("CREATE ROLE silent LOGIN IN ROLE {BY_PASSWORD}"));
    assert_open(&refused(&server.url_of("silent", "postgres")).await, "refuses the password");
}

#[tokio::test]
async fn who_is_not_let_in_is_told_so() {
    let server = Postgres::start_with(&Options {
        hba: "host all stranger 127.0.0.1/32 reject".to_owned(),
        ..Options::default()
    });
    server.sql("CREATE ROLE stranger LOGIN");
    assert_open(&refused(&server.url_of("stranger", "postgres")).await, "refuses the user");
    assert_open(&refused(&server.url_of("nobody_of_this_name", "postgres")).await, "refuses the user");
}

#[tokio::test]
async fn a_database_that_is_not_there_or_not_open_is_for_its_operator() {
    let server = shared();
    assert_open(&refused(&server.url_of("postgres", "nowhere")).await, "has no such database");

    let database = server.database();
    server.sql(&format!("CREATE ROLE guest LOGIN; REVOKE CONNECT ON DATABASE {database} FROM PUBLIC"));
    assert_open(&refused(&server.url_of("guest", &database)).await, "grant it the right");

    let pool = pool(&server.url_of("guest", "postgres"));
    let client = pool.get().await.unwrap();
    let error = client.batch_execute("CREATE TABLE public.keys (k int)").await.unwrap_err();
    assert_open(&pool.fault(&error), "does not let the user work");
    let error = client.batch_execute("SELECT * FROM no_such_table").await.unwrap_err();
    assert_open(&pool.fault(&error), "cannot do what this version asks for (42P01");
}

#[tokio::test]
async fn a_server_that_is_not_there_or_full_or_still_is_awaited() {
    let mut server = Postgres::start();
    server.sql("CREATE ROLE single LOGIN CONNECTION LIMIT 1");
    let first = pool(&server.url_of("single", "postgres"));
    let held = first.get().await.unwrap();
    assert_waits(&refused(&server.url_of("single", "postgres")).await, "takes no more connections");
    drop(held);

    server.freeze();
    let began = Instant::now();
    assert_waits(&refused(&server.url()).await, "has not answered for 5 s");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    server.thaw();

    server.stop_fast();
    assert_waits(&refused(&server.url()).await, "is not there");
    assert_waits(&refused(&server.socket_url_of("postgres", "postgres")).await, "is not there");
    first.forget();
    assert_waits(&first.get().await.err().unwrap(), "is not there");

    server.start_again();
    assert_eq!(show(&first.get().await.unwrap(), "1").await, "1");
}

#[tokio::test]
async fn a_connection_that_broke_is_replaced() {
    let server = shared();
    let pool = pool_with(&server.url(), PASSWORD, 1);
    let client = pool.get().await.unwrap();
    let process = show(&client, "pg_backend_pid()").await;
    let (sql, error) = (format!("SELECT pg_terminate_backend({process}, 10000)"), "SELECT 1");
    assert_eq!(server.sql(&sql), "t");
    let error = client.query_one(error, &[]).await.unwrap_err();
    assert_waits(&pool.fault(&error), "PostgreSQL at 127.0.0.1");
    drop(client);
    let other = show(&pool.get().await.unwrap(), "pg_backend_pid()").await;
    assert_ne!(other, process);
}

#[tokio::test]
async fn connections_are_shared_up_to_their_number_and_a_caller_waits_for_its_turn() {
    let pool = pool_with(&shared().url(), PASSWORD, 2);
    let (first, second) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    assert_eq!(pool.usage(), (2, 2, 0));
    assert_waits(&pool.get().await.err().unwrap(), "all 2 connections to PostgreSQL have been busy for 5 s");
    let (got, ()) = tokio::join!(pool.get(), async { drop(first) });
    drop((got.unwrap(), second));
    pool.close();
    assert!(matches!(pool.get().await, Err(StoreError::Closed)));
}

#[tokio::test]
async fn a_statement_that_takes_too_long_or_waits_for_a_lock_may_work_later() {
    let server = shared();
    let database = server.database();
    server.sql_in(&database, "CREATE TABLE t (k int PRIMARY KEY); INSERT INTO t VALUES (1), (2)");
    let pool = pool(&server.url_of("postgres", &database));
    let (mut one, other) = (pool.get().await.unwrap(), pool.get().await.unwrap());
    other.batch_execute("SET statement_timeout = '50ms'").await.unwrap();
    let error = other.batch_execute("SELECT pg_sleep(60)").await.unwrap_err();
    assert_waits(&pool.fault(&error), "took too long for a statement");
    other.batch_execute("SET statement_timeout = '5s'; SET lock_timeout = '50ms'").await.unwrap();
    let transaction = one.transaction().await.unwrap();
    transaction.batch_execute("UPDATE t SET k = 3 WHERE k = 1").await.unwrap();
    let error = other.batch_execute("UPDATE t SET k = 4 WHERE k = 1").await.unwrap_err();
    assert_waits(&pool.fault(&error), "took too long for a lock");
    // Errors without a place, for who has only the error at hand.
    assert_waits(&StoreError::from(error), "PostgreSQL took too long");
}

#[tokio::test]
async fn a_server_tells_what_it_is() {
    let server = shared();
    let pool = pool(&server.url());
    let client = pool.get().await.unwrap();
    let facts = check_server(&pool, &client).await.unwrap();
    assert!(facts.version >= 150_000, "{facts:?}");
    assert_eq!(facts.version.to_string(), server.sql("SHOW server_version_num"));
    assert!(!facts.fsync && !facts.synchronous && facts.citus.is_none(), "{facts:?}");

    client.batch_execute("SET default_transaction_read_only = on").await.unwrap();
    assert_waits(&check_server(&pool, &client).await.unwrap_err(), "takes no writes");
    let error = client.batch_execute("CREATE TABLE no_table_is_made (k int)").await.unwrap_err();
    assert_waits(&pool.fault(&error), "takes no writes");
}
