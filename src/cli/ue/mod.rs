//! `ltkmd ue`: a terminal for operators and integrators, against any BM-SC, and a short message centre for labs.

pub mod ask;
pub mod credential;
pub mod http;
pub mod link;
mod listen;
mod load;
mod procedures;
mod report;
mod session;
pub mod smsc;
pub mod state;
pub mod target;
pub mod terminal;
mod validity;

use std::process::ExitCode;

use clap::{Args, Subcommand};

pub(super) use report::table as plain_table;
pub use validity::{Validity, ntp_near};

/// The exit code for wrong usage.
const EXIT_USAGE: u8 = 2;

/// `ltkmd ue …`
#[derive(Debug, Args)]
pub struct UeArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Register for services and take the keys that come
    Register(procedures::RegisterArgs),
    /// End the registration for services
    Deregister(procedures::DeregisterArgs),
    /// Ask for keys by their ids
    MskRequest(procedures::MskRequestArgs),
    /// Receive LTKMs by UDP, verify, print and acknowledge them, and follow triggers
    Listen(listen::ListenArgs),
    /// Many terminals at once: rates and latencies
    Load(load::LoadArgs),
    /// Be a short message centre for a lab: take messages by SMPP, show them, hand them to terminals
    Smsc(Box<smsc::SmscArgs>),
}

/// How a command ends when it did not do what it was asked for.
#[derive(Debug)]
enum Trouble {
    /// It was tried and failed: exit code 1.
    Failed(String),
    /// What was asked for cannot be tried: exit code 2.
    Usage(String),
}

impl Trouble {
    fn failed(why: impl ToString) -> Self {
        Self::Failed(why.to_string())
    }

    fn usage(why: impl ToString) -> Self {
        Self::Usage(why.to_string())
    }
}

/// Runs the command. Exit code 0 when all was done, 1 when something failed, 2 for wrong usage; why is one sentence on
/// stderr.
pub async fn run(args: UeArgs) -> ExitCode {
    let outcome = match args.command {
        Command::Register(args) => procedures::register(args).await,
        Command::Deregister(args) => procedures::deregister(args).await,
        Command::MskRequest(args) => procedures::msk_request(args).await,
        Command::Listen(args) => listen::listen(args).await,
        Command::Load(args) => load::load(args).await,
        Command::Smsc(args) => smsc::smsc(*args).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Trouble::Failed(why)) => {
            eprintln!("ltkmd ue: {why}");
            ExitCode::FAILURE
        }
        Err(Trouble::Usage(why)) => {
            eprintln!("ltkmd ue: {why}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}
