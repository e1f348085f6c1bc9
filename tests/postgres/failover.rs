//! Several servers: the one that takes writes is found, and found again.

use std::time::Instant;

use ltkmd::store::StoreError;
use ltkmd::store::postgres::{Pool, check_server};

use crate::connect::{assert_open, assert_waits, pool, refused, show};
use crate::server::{PATIENCE, Postgres, shared};

/// The servers in one URL.
fn all(servers: &[&Postgres]) -> String {
    let hosts: Vec<String> = servers.iter().map(|s| format!("127.0.0.1:{}", s.port())).collect();
    format!("postgres://postgres@{}/postgres?sslmode=disable", hosts.join(","))
}

/// The port of the server that a new call leads to, or why there is none. A connection that waited in the pool may have
/// broken meanwhile: its first call says so, and the next call gets another.
async fn asked(pool: &Pool) -> Result<String, StoreError> {
    let until = Instant::now() + PATIENCE;
    loop {
        let client = pool.get().await?;
        match client.query_one("SHOW port", &[]).await {
            Ok(row) => return Ok(row.get(0)),
            Err(error) => assert!(Instant::now() < until, "{}", pool.fault(&error)),
        }
        tokio::task::yield_now().await;
    }
}

/// The port of the server that a connection leads to, once there is one.
async fn port(pool: &Pool) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        match asked(pool).await {
            Ok(port) => return port,
            Err(error) => assert!(error.is_retriable() && Instant::now() < until, "{error}"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_primary_is_followed_to_where_it_is() {
    let mut primary = Postgres::start();
    let standby = primary.standby();

    // A standby alone takes no writes, which may change.
    assert_waits(&refused(&standby.url()).await, "takes no writes");
    let both = pool(&all(&[&standby, &primary]));
    assert_eq!(port(&both).await, primary.port().to_string());
    assert!(both.at().contains(&format!("127.0.0.1:{}/postgres", primary.port())), "{}", both.at());
    let facts = check_server(&both, &both.get().await.unwrap()).await.unwrap();
    assert!(facts.synchronous, "{facts:?}");

    let client = both.get().await.unwrap();
    client.batch_execute("CREATE TABLE kept (k int); INSERT INTO kept VALUES (7)").await.unwrap();
    primary.kill_9();
    assert!(client.query_one("SELECT 1", &[]).await.is_err());
    drop(client);
    let none = asked(&both).await.unwrap_err();
    assert_waits(&none, "none of 2 servers can be used");
    assert_waits(&none, "is not there");
    assert_waits(&none, "takes no writes");

    standby.promote();
    assert_eq!(port(&both).await, standby.port().to_string());
    assert_eq!(show(&both.get().await.unwrap(), "SELECT k FROM kept").await, "7");
}

#[tokio::test]
async fn a_server_that_crashed_is_used_again() {
    let mut server = Postgres::start();
    let pool = pool(&server.url());
    pool.get()
        .await
        .unwrap()
        .batch_execute("CREATE TABLE kept (k int); INSERT INTO kept VALUES (7)")
        .await
        .unwrap();
    server.kill_9();
    server.start_again();
    assert_eq!(port(&pool).await, server.port().to_string());
    assert_eq!(show(&pool.get().await.unwrap(), "SELECT k FROM kept").await, "7");
}

#[tokio::test]
async fn what_each_server_lacks_is_told_and_waited_for_when_one_of_them_may_come_back() {
    let server = shared();
    let mut other = Postgres::start();
    let nowhere = all(&[server, &other]).replace("/postgres?", "/nowhere?");
    assert_open(&refused(&nowhere).await, "none of 2 servers can be used");
    other.stop_fast();
    let one_is_gone = refused(&nowhere).await;
    assert_waits(&one_is_gone, "has no such database");
    assert_waits(&one_is_gone, &format!("127.0.0.1:{}/nowhere is not there", other.port()));
}
