//! What an error of PostgreSQL or of the way there means for the store: whether waiting mends it, and one sentence.

use std::error::Error as _;
use std::io;

use tokio_postgres::Error;
use tokio_postgres::error::DbError;

use super::tls::TlsFault;
use crate::store::StoreError;

/// The subject of sentences about a server whose place is not known.
const SOMEWHERE: &str = "PostgreSQL";

/// An error of a call over a connection, or of making one.
///
/// `at` is the sentence's subject: the server with its place.
pub(super) fn fault(at: &str, error: &Error) -> StoreError {
    if let Some(db) = error.as_db_error() {
        return told(at, db);
    }
    let source = error.source();
    if let Some(tls) = source.and_then(|s| s.downcast_ref::<TlsFault>()) {
        return match tls {
            TlsFault::BrokenOff(e) => gone(at, e),
            TlsFault::Refused(why) => open(format!(
                "{at} cannot be spoken to over TLS ({}): give its certificate, sslrootcert and the host name in \
                 store.url that fit each other",
                one_line(why)
            )),
        };
    }
    if let Some(io) = source.and_then(|s| s.downcast_ref::<io::Error>()) {
        return match io.kind() {
            // How the driver says that a server takes no writes; the operating system's refusal has a number.
            io::ErrorKind::PermissionDenied if io.raw_os_error().is_none() => read_only(at),
            io::ErrorKind::PermissionDenied => {
                open(format!("{at} cannot be reached ({io}): let the daemon's user open its socket"))
            }
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => StoreError::Unavailable(format!(
                "{at} is not there ({io}): start it, or name the place where it is in store.url"
            )),
            _ => gone(at, io),
        };
    }
    let cause = source.map(ToString::to_string).unwrap_or_default();
    match cause.as_str() {
        "password missing" => open(format!(
            "{at} asks for a password, and there is none: name the file that holds it in \
             store.store_password_file"
        )),
        "server does not support TLS" => open(format!(
            "{at} has no TLS, which store.url asks for: turn it on there (ssl = on), or give sslmode=disable"
        )),
        _ if error.is_closed() => StoreError::Unavailable(format!("{at} has ended the connection")),
        "" => StoreError::Unavailable(format!("{at} is not understood ({error})")),
        // SCRAM's own failures, and ways to authenticate that the driver does not know.
        cause if error.to_string() == "authentication error" => open(format!(
            "{at} and the daemon do not agree on a way to authenticate ({}): give the user a password there with \
             scram-sha-256",
            one_line(cause)
        )),
        cause => StoreError::Unavailable(format!("{at} is not understood ({error}: {})", one_line(cause))),
    }
}

impl From<Error> for StoreError {
    /// For calls whose place in the sentence does not matter; [`super::Pool::fault`] names the server.
    fn from(error: Error) -> Self {
        fault(SOMEWHERE, &error)
    }
}

/// What a server says, by its SQLSTATE (PostgreSQL's manual, appendix A). What is not named here may be over the
/// next time.
fn told(at: &str, error: &DbError) -> StoreError {
    // The message alone: details may repeat values of rows.
    let message = one_line(error.message());
    let code = error.code().code();
    match code {
        "28P01" => open(format!(
            "{at} refuses the password ({message}): mend the user in store.url or what the file of \
             store.store_password_file holds"
        )),
        _ if code.starts_with("28") => open(format!(
            "{at} refuses the user ({message}): mend the user in store.url, or let it in there (pg_hba.conf)"
        )),
        "3D000" => open(format!(
            "{at} has no such database ({message}): create it there, or name another in store.url"
        )),
        "42501" => open(format!("{at} does not let the user work ({message}): grant it the right there")),
        "25006" => read_only(at),
        "57P03" => {
            StoreError::Unavailable(format!("{at} is starting or stopping ({message}): it is awaited"))
        }
        "53300" => StoreError::Unavailable(format!(
            "{at} takes no more connections ({message}): raise max_connections there, or lower store.connections"
        )),
        "57014" => StoreError::Unavailable(format!(
            "{at} took too long for a statement ({message}): look at its load"
        )),
        "55P03" => StoreError::Unavailable(format!("{at} took too long for a lock ({message})")),
        "XX001" | "XX002" => StoreError::Damaged(format!("{at} says {message} ({code})")),
        // The schema's and the statement's own faults.
        _ if ["0A", "3F", "42"].iter().any(|class| code.starts_with(class)) => {
            open(format!("{at} cannot do what this version asks for ({code}: {message})"))
        }
        _ => StoreError::Unavailable(format!("{at} failed ({code}: {message})")),
    }
}

/// A standby, or a primary that was told not to write.
pub(super) fn read_only(at: &str) -> StoreError {
    StoreError::Unavailable(format!(
        "{at} takes no writes, as a standby does not: the primary is awaited; name all servers of the cluster in \
         store.url"
    ))
}

fn gone(at: &str, error: &io::Error) -> StoreError {
    StoreError::Unavailable(format!(
        "{at} cannot be reached ({}): look whether it runs, and at the network",
        one_line(&error.to_string())
    ))
}

fn open(sentence: String) -> StoreError {
    StoreError::Open(sentence)
}

/// What others wrote, in one line and not without end.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}
