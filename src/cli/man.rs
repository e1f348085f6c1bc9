//! `ltkmd man`: manual pages from the definitions of the command line, one page a command.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// The exit code for wrong usage.
const EXIT_USAGE: u8 = 2;

/// `ltkmd man …`
#[derive(Debug, Args)]
#[command(after_help = "Read one with `ltkmd man ctl | man -l -`.")]
pub struct ManArgs {
    /// The command whose page is printed, such as `ctl key rotate`; without, the page of ltkmd itself
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,

    /// Write the pages of all commands into this directory instead of printing one
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    directory: Option<PathBuf>,
}

/// Prints a page or writes all pages. `program` is the whole command line's definition. Exit code 0, 1 when it cannot
/// be written, 2 when there is no such command; why is one sentence on stderr.
pub fn run(args: &ManArgs, program: Command) -> ExitCode {
    let program = prepared(program);
    let outcome = match &args.directory {
        Some(directory) => write_all(&program, directory),
        None => {
            let Some(command) = find(&program, &args.command) else {
                eprintln!("ltkmd man: there is no command `{}`: see ltkmd --help", args.command.join(" "));
                return ExitCode::from(EXIT_USAGE);
            };
            print(command, &mut io::stdout().lock())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ltkmd man: the page cannot be written: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The definitions with every command's full name, and without `help`, which needs no page.
fn prepared(program: Command) -> Command {
    let mut program = program.disable_help_subcommand(true);
    program.build();
    program
}

fn find<'a>(program: &'a Command, names: &[String]) -> Option<&'a Command> {
    names.iter().try_fold(program, |command, name| command.find_subcommand(name))
}

fn print(command: &Command, out: &mut impl Write) -> io::Result<()> {
    // Rendered first, so that a reader that goes away cannot leave half a sentence of ours in the error.
    let mut page = Vec::new();
    Man::new(command.clone()).manual("ltkmd").render(&mut page)?;
    statuses().to_writer(&mut page)?;
    out.write_all(&page)?;
    out.flush()
}

/// What all commands have in common.
fn statuses() -> Roff {
    let mut roff = Roff::default();
    roff.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in [("0", "Done."), ("1", "Failed."), ("2", "Wrong usage or configuration.")] {
        roff.control("TP", []);
        roff.text([bold(code)]);
        roff.text([roman(meaning)]);
    }
    roff
}

fn write_all(command: &Command, directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    for command in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        write_all(command, directory)?;
    }
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let mut file = std::fs::File::create(directory.join(format!("{name}.1")))?;
    print(command, &mut file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> Command {
        let rotate = Command::new("rotate").about("Makes a new key");
        let hidden = Command::new("inner").hide(true);
        Command::new("ltkmd")
            .version("1")
            .about("Delivers keys")
            .subcommand(Command::new("key").about("Keys").subcommand(rotate))
            .subcommand(hidden)
    }

    fn page(names: &[&str]) -> Option<String> {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let program = prepared(program());
        let command = find(&program, &names)?;
        let mut out = Vec::new();
        print(command, &mut out).unwrap();
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn each_command_has_a_page_under_its_full_name() {
        let top = page(&[]).unwrap();
        assert!(top.contains(".TH ltkmd 1"), "{top}");
        assert!(top.contains("EXIT STATUS"), "{top}");
        let rotate = page(&["key", "rotate"]).unwrap();
        assert!(rotate.contains(".TH ltkmd-key-rotate 1"), "{rotate}");
        assert!(rotate.contains("Makes a new key"), "{rotate}");
        assert!(page(&["key", "turn"]).is_none());
    }

    #[test]
    fn a_directory_gets_the_pages_of_all_commands_that_are_not_hidden() {
        let directory = tempfile::tempdir().unwrap();
        write_all(&prepared(program()), &directory.path().join("man1")).unwrap();
        let entries = std::fs::read_dir(directory.path().join("man1")).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["ltkmd-key-rotate.1", "ltkmd-key.1", "ltkmd.1"]);
    }
}
