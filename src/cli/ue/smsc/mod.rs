//! `ue smsc`: a small short message centre for labs. It takes binds and messages (SMPP 3.4), joins their parts, says
//! what is in them, and hands them to the UDP ports of local terminals, as a phone does with what is addressed to a port.

mod delivery;
mod event;
mod link;
mod ltkm;
mod parts;
mod receipts;
mod routes;
mod server;
mod submission;
mod throttle;
mod wire;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

pub use event::{BindMode, Happening, MessageSeen, Outcome, SmscEvent};
pub use ltkm::LtkmSeen;
pub use routes::{Place, Routes, Terminal};
pub use server::{Behaviour, Smsc};

use super::Trouble;
use super::credential::read_file;
use super::session::seconds;
use crate::id::Msisdn;
use crate::secret::Secret;

/// SMPP's port (IANA smpp).
const SMPP_PORT: u16 = 2775;

/// The longest system_id and password (SMPP 3.4 §5.2.1, §5.2.2), in octets.
const MAX_SYSTEM_ID: usize = 15;
const MAX_PASSWORD: usize = 8;

/// `ue smsc`
#[derive(Debug, Clone, Args)]
pub(super) struct SmscArgs {
    /// Take binds here
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, SMPP_PORT)))]
    listen: SocketAddr,
    /// Take binds of this system_id alone [default: of any]
    #[arg(long, value_name = "NAME", value_parser = system_id)]
    system_id: Option<String>,
    /// Take binds with the password in this file alone [default: with any]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Print JSON, an object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    terminals: TerminalArgs,
    #[command(flatten)]
    behaviour: BehaviourArgs,
}

/// Where messages go.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Terminals")]
struct TerminalArgs {
    /// Messages to this number go to this UDP port [default: the port they are addressed to]; may be given more than once
    #[arg(long, value_name = "MSISDN=HOST[:PORT]", value_parser = route)]
    deliver: Vec<(Msisdn, Place)>,
    /// Messages to all other numbers go there; without it they are undeliverable
    #[arg(long, value_name = "HOST[:PORT]")]
    deliver_all: Option<Place>,
}

/// How a centre can be difficult.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Being difficult")]
struct BehaviourArgs {
    /// Take so many messages a second, and answer ESME_RTHROTTLED to the others
    #[arg(long, value_name = "N")]
    throttle: Option<NonZeroU32>,
    /// Answer each message so many seconds late
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    delay: Option<Duration>,
    /// Refuse every bind with ESME_RBINDFAIL
    #[arg(long)]
    reject_bind: bool,
    /// Close each link in place of answering its N-th message
    #[arg(long, value_name = "N")]
    drop_after: Option<NonZeroU32>,
}

fn system_id(text: &str) -> Result<String, &'static str> {
    let fits = (1..=MAX_SYSTEM_ID).contains(&text.len()) && text.bytes().all(|o| o.is_ascii_graphic());
    if fits { Ok(text.to_owned()) } else { Err("must be 1 to 15 visible ASCII characters") }
}

fn route(text: &str) -> Result<(Msisdn, Place), String> {
    let (number, place) = text.split_once('=').ok_or("must be MSISDN=HOST[:PORT]")?;
    let number = Msisdn::new(number).map_err(|error| format!("the MSISDN {error}"))?;
    Ok((number, place.parse()?))
}

/// Runs until SIGINT or SIGTERM.
pub(super) async fn smsc(args: SmscArgs) -> Result<(), Trouble> {
    let behaviour = behaviour(&args).await?;
    // Before anybody is told that the centre is there.
    let mut terminate = signal(SignalKind::terminate()).map_err(Trouble::failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Trouble::failed)?;
    let mut smsc = Smsc::bind(args.listen, behaviour).await.map_err(|error| {
        let listen = args.listen;
        Trouble::Failed(format!("{listen} cannot be bound: {error}: give another address with --listen"))
    })?;
    let address = smsc.address();
    if args.json {
        println!("{}", serde_json::json!({ "listening": address }));
    } else {
        println!("listening on {address}");
    }
    loop {
        let happening = tokio::select! {
            happening = smsc.next() => happening,
            _ = terminate.recv() => { smsc.stop(); continue }
            _ = interrupt.recv() => { smsc.stop(); continue }
        };
        match happening {
            Some(happening) if args.json => println!("{}", serde_json::json!(happening)),
            Some(Happening { at, event }) => println!("{at}  {}", event.line()),
            None => return Ok(()),
        }
    }
}

async fn behaviour(args: &SmscArgs) -> Result<Behaviour, Trouble> {
    let mut routes = Routes::default();
    let told = |error: std::io::Error| Trouble::usage(format!("a terminal's host has no address: {error}"));
    for (number, place) in &args.terminals.deliver {
        routes.insert(number.clone(), place.resolve().await.map_err(told)?);
    }
    if let Some(place) = &args.terminals.deliver_all {
        routes.insert_all(place.resolve().await.map_err(told)?);
    }
    let BehaviourArgs { throttle, delay, reject_bind, drop_after } = args.behaviour.clone();
    Ok(Behaviour {
        system_id: args.system_id.clone(),
        password: args.password_file.as_deref().map(password).transpose()?,
        routes,
        throttle,
        delay: delay.unwrap_or_default(),
        reject_bind,
        drop_after,
    })
}

fn password(path: &std::path::Path) -> Result<Secret, Trouble> {
    let text = read_file(path).map_err(Trouble::usage)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if (1..=MAX_PASSWORD).contains(&text.len()) && text.is_ascii() {
        return Ok(Secret::from(text.as_bytes()));
    }
    Err(Trouble::Usage(format!("{}: no password of SMPP: give 1 to 8 ASCII characters", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_a_number_and_a_place() {
        let (number, place) = route("+491701234567=127.0.0.2:4359").unwrap();
        assert_eq!((number.as_str(), place), ("491701234567", "127.0.0.2:4359".parse().unwrap()));
        assert!(route("4917=127.0.0.2").is_ok());
        for wrong in ["", "4917", "=127.0.0.2", "4917=", "49x=127.0.0.2", "4917=a:b"] {
            assert!(route(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_password_is_what_smpp_can_carry() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        for (text, right) in [
            ("secret", true),
            ("secret\n", true),
            ("12345678\r\n", true),
            ("123456789", false),
            ("\n", false),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(password(&file).is_ok(), right, "{text:?}");
        }
    }
}
