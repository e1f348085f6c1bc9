//! `ltkmd completions`: what a shell needs to complete the command line, from its definitions.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::{Shell, generate};

/// `ltkmd completions …`
#[derive(Debug, Args)]
#[command(after_help = "For bash: ltkmd completions bash > /etc/bash_completion.d/ltkmd")]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Prints the script for a shell. `program` is the whole command line's definition. Exit code 0, or 1 when it cannot be
/// written.
pub fn run(args: &CompletionsArgs, program: Command) -> ExitCode {
    let script = script(args.shell, program);
    let mut out = io::stdout().lock();
    match out.write_all(&script).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ltkmd completions: the script cannot be written: {error}");
            ExitCode::FAILURE
        }
    }
}

fn script(shell: Shell, mut program: Command) -> Vec<u8> {
    let name = program.get_name().to_owned();
    let mut script = Vec::new();
    generate(shell, &mut program, name, &mut script);
    script
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_learns_every_command() {
        for shell in Shell::value_variants() {
            let program = Command::new("ltkmd").subcommand(Command::new("rotate-now"));
            let script = String::from_utf8(script(*shell, program)).unwrap();
            assert!(script.contains("rotate-now"), "{shell}: {script}");
        }
    }
}
