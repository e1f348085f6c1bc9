//! `ue listen`: receive, verify, print, acknowledge, and follow triggers, until told to stop.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use super::Trouble;
use super::credential::CredentialArgs;
use super::link::{LTKM_PORT, http_source};
use super::procedures::{DeclareArgs, DialectArgs, KeepArgs, open_link, print_reply};
use super::report::{self, LtkmRecord};
use super::session::{Session, seconds};
use super::state::StateFile;
use super::target::Url;
use crate::id::ServiceId;

/// `ue listen`
#[derive(Debug, Clone, Args)]
pub(super) struct ListenArgs {
    /// Receive LTKMs here
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = SocketAddr::from(([0, 0, 0, 0], LTKM_PORT)))]
    listen: SocketAddr,
    /// Where verification messages go [default: the URL's host, port 4359; without a URL, where the LTKM came from]
    #[arg(long, value_name = "HOST:PORT")]
    bsm: Option<String>,
    /// End after so many accepted LTKMs
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
    /// End after so many seconds; with --count, too few LTKMs by then are a failure
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    wait: Option<Duration>,
    /// Make the requests that triggers ask for at this key management URL
    #[arg(long, value_name = "URL")]
    url: Option<Url>,
    /// What to register for when a trigger asks for it; may be given more than once
    #[arg(long = "service", value_name = "ID", requires = "url")]
    services: Vec<ServiceId>,
    #[command(flatten)]
    declare: DeclareArgs,
    #[command(flatten)]
    dialect: DialectArgs,
    #[command(flatten)]
    credential: CredentialArgs,
    #[command(flatten)]
    keep: KeepArgs,
}

pub(super) async fn listen(args: ListenArgs) -> Result<(), Trouble> {
    let credential = args.credential.read().map_err(Trouble::usage)?;
    let source = http_source(Some(args.listen));
    let client = args.url.as_ref().map(|url| args.dialect.client(url, source)).transpose()?;
    let link = open_link(Some(args.listen), args.bsm.as_deref(), args.url.as_ref()).await?;
    let bound = link.local_address().map_err(Trouble::failed)?;
    let state = StateFile::new(args.keep.state.clone());
    let mut session = Session::new(credential, state, client, link).map_err(Trouble::failed)?;
    session.style = args.dialect.style();
    session.show_keys = args.keep.show_keys;
    session.types = args.declare.declared();
    session.services = args.services;
    if args.keep.json {
        println!("{}", serde_json::json!({ "listening": bound, "btid": session.credential.btid }));
    } else {
        println!("listening on {bound} as {}", session.credential.btid);
    }

    let deadline = args.wait.map(|wait| Instant::now() + wait);
    let (mut accepted, mut refused) = (0u64, 0u64);
    let stopped = tokio::signal::ctrl_c();
    tokio::pin!(stopped);
    while args.count.is_none_or(|count| accepted < count.get()) {
        let record = tokio::select! {
            received = session.receive(deadline) => received.map_err(Trouble::failed)?,
            _ = &mut stopped => None,
        };
        let Some((record, effect)) = record else { break };
        show(&record, args.keep.json);
        match effect {
            Some(_) => accepted += 1,
            None => refused += 1,
        }
        accepted += follow(&mut session, args.keep.json).await?;
    }
    if !args.keep.json {
        println!("{accepted} LTKMs accepted, {refused} refused; {} keys held", session.terminal.keys().len());
    }
    match args.count {
        Some(count) if accepted < count.get() => {
            Err(Trouble::Failed(format!("{accepted} of {count} LTKMs were accepted before the end")))
        }
        _ => Ok(()),
    }
}

fn show(record: &LtkmRecord, json: bool) {
    if json {
        println!("{}", serde_json::json!(record));
    } else {
        println!("{}", record.line());
    }
}

/// Makes the requests that triggers asked for; gives how many LTKMs they brought. A request that fails is told and
/// does not end the listening.
async fn follow(session: &mut Session, json: bool) -> Result<u64, Trouble> {
    let mut accepted = 0;
    while let Some(pull) = session.next_pull() {
        let ask = match pull {
            Ok(ask) => ask,
            Err(why) => {
                eprintln!("ltkmd ue: {why}");
                continue;
            }
        };
        let procedure = ask.procedure();
        match session.ask(&ask).await {
            Ok((exchange, records)) => {
                if json {
                    let (reply, answer) = (&exchange.reply, exchange.answer.as_ref());
                    println!("{}", report::reply_json(procedure, reply, answer));
                } else {
                    print_reply(procedure, &exchange.reply, exchange.answer.as_ref());
                }
                for record in records {
                    show(&record, json);
                    accepted += u64::from(record.is_accepted());
                }
            }
            Err(error) => eprintln!("ltkmd ue: {}: {error}", procedure.request_type()),
        }
    }
    Ok(accepted)
}
