use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// A service manager in a directory, and who tells it.
fn manager(watchdog: Option<Duration>) -> (tempfile::TempDir, UnixDatagram, ServiceManager) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notify");
    let listener = UnixDatagram::bind(&path).expect("bound");
    listener.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let socket = Some(connected(&path.into_os_string()).expect("connected"));
    (directory, listener, ServiceManager { socket, watchdog, ..ServiceManager::default() })
}

fn next(listener: &UnixDatagram) -> String {
    let mut buffer = [0; 1024];
    let len = listener.recv(&mut buffer).expect("a message");
    String::from_utf8_lossy(&buffer[..len]).into_owned()
}

#[test]
fn a_name_in_the_abstract_namespace_is_understood() {
    let name = format!("ltkmd-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let listener = UnixDatagram::bind_addr(&address).expect("bound");
    let socket = Some(connected(&format!("@{name}").into()).expect("connected"));
    ServiceManager { socket, ..ServiceManager::default() }.ready();
    assert_eq!(next(&listener), "READY=1\nSTATUS=ready\n");
}

#[test]
fn without_a_service_manager_nothing_is_told_and_nothing_fails() {
    let nobody = ServiceManager::default();
    nobody.ready();
    nobody.reloading();
    nobody.stopping(Duration::MAX);
}

#[test]
fn a_time_beyond_what_the_message_has_room_for_is_the_longest() {
    let (_directory, listener, manager) = manager(None);
    manager.stopping(Duration::from_secs(1 << 40));
    assert!(next(&listener).contains("EXTEND_TIMEOUT_USEC=4294967295\n"));
}

#[tokio::test]
async fn a_beat_that_does_not_come_back_is_the_last() {
    let (_directory, listener, manager) = manager(Some(Duration::from_millis(40)));
    let beats = AtomicUsize::new(0);
    let beat = || async {
        match beats.fetch_add(1, Ordering::Relaxed) {
            0..3 => Some("well".to_owned()),
            _ => std::future::pending().await,
        }
    };
    let watchdog = manager.run_watchdog(beat);
    let over = tokio::time::timeout(Duration::from_millis(400), watchdog).await;
    assert!(over.is_err(), "it runs on to the end of the process");
    for _ in 0..3 {
        assert_eq!(next(&listener), "WATCHDOG=1\nSTATUS=well\n");
    }
    listener.set_nonblocking(true).expect("set");
    assert!(listener.recv(&mut [0; 64]).is_err(), "no ping without a beat");
}

#[tokio::test]
async fn without_a_watchdog_there_are_no_pings() {
    let (_directory, listener, manager) = manager(None);
    manager.run_watchdog(|| async { None }).await;
    listener.set_nonblocking(true).expect("set");
    assert!(listener.recv(&mut [0; 64]).is_err());
}
