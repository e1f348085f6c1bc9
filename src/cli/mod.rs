//! The command line: one file or folder per command.

pub mod check;
pub mod client;
pub mod completions;
pub mod ctl;
pub mod demo;
pub mod man;
pub mod migrate;
pub mod raise_t;
pub mod restore;
mod serve;
pub mod ue;

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Where the configuration is when nothing else is said.
pub(crate) const CONFIG: &str = "/etc/ltkmd/ltkmd.toml";

/// Delivers the long-term keys of mobile broadcast (MBMS, OMA BCAST smartcard profile) to terminals: LTKMs inside
/// HTTP answers and over UDP, pulled after a trigger by SMS, verified, resent, remembered.
#[derive(Debug, Parser)]
#[command(name = "ltkmd", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "The operator's handbook is in the program: ltkmd man handbook | man -l -")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon until SIGTERM or SIGINT
    Serve(ConfigArgument),
    /// Validate a configuration and everything it points to
    Check(ConfigArgument),
    /// Show the whole system at work on loopback, and check every step
    Demo(demo::DemoArgs),
    /// Be a terminal: register, take LTKMs, verify them
    Ue(Box<ue::UeArgs>),
    /// Operate a running daemon through its admin API
    Ctl(Box<ctl::Ctl>),
    /// Put a backup in the place of the store; the daemon must not run
    Restore(restore::RestoreArgs),
    /// Move every T of a PostgreSQL database forward, after an older state of it was restored; no daemon may run
    RaiseT(raise_t::RaiseTArgs),
    /// Move the store of a running daemon into a PostgreSQL database, with a short write pause
    Migrate(Box<migrate::MigrateArgs>),
    /// Print manual pages
    Man(man::ManArgs),
    /// Print what a shell needs to complete the command line
    Completions(completions::CompletionsArgs),
}

#[derive(Debug, clap::Args)]
struct ConfigArgument {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
}

/// Reads the program's arguments and runs the command. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve(argument) => serve::run(&argument.config),
        Command::Check(argument) => check::run(&argument.config),
        Command::Demo(args) => run(demo::run(args)),
        Command::Ue(args) => run(ue::run(*args)),
        Command::Ctl(args) => run(ctl::run(*args)),
        Command::Restore(args) => restore::run(&args),
        Command::RaiseT(args) => raise_t::run(&args),
        Command::Migrate(args) => run(migrate::run(*args)),
        Command::Man(args) => man::run(&args, definition()),
        Command::Completions(args) => completions::run(&args, definition()),
    }
}

/// The whole command line's definition: what manual pages and completions are made of.
pub fn definition() -> clap::Command {
    Arguments::command()
}

/// Runs a command that waits for the network.
fn run(command: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => {
            eprintln!("ltkmd: the runtime cannot be started: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_of_all_commands_are_sound() {
        definition().debug_assert();
    }
}
