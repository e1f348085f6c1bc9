//! `ltkmd man`: manual pages from the definitions of the command line, one page a command, and from the handbook, one
//! page a chapter.

mod markdown;
mod pages;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use self::pages::{PAGES, Page};

/// The exit code for wrong usage.
const EXIT_USAGE: u8 = 2;

/// The section of the pages of commands.
const COMMANDS: &str = "1";

/// `ltkmd man …`
#[derive(Debug, Args)]
#[command(
    after_help = "Read one with `ltkmd man ctl | man -l -`; `ltkmd man handbook | man -l -` lists the chapters."
)]
pub struct ManArgs {
    /// The command whose page is printed, such as `ctl key rotate`, or the handbook's chapter, such as `troubleshoot`;
    /// without, the page of ltkmd itself
    #[arg(value_name = "NAME")]
    name: Vec<String>,

    /// Write all pages below this directory, into man1, man5 and man7, instead of printing one
    #[arg(long, value_name = "DIR", conflicts_with = "name")]
    directory: Option<PathBuf>,
}

/// Prints a page or writes all pages. `program` is the whole command line's definition. Exit code 0, 1 when it cannot
/// be written, 2 when there is no such command or chapter; why is one sentence on stderr.
pub fn run(args: &ManArgs, program: Command) -> ExitCode {
    let program = prepared(program);
    let outcome = match &args.directory {
        Some(directory) => write_all(&program, directory),
        None => {
            let Some(page) = find(&program, &args.name) else {
                let name = args.name.join(" ");
                eprintln!(
                    "ltkmd man: there is no page `{name}`: see `ltkmd --help` for commands, `ltkmd man handbook` for \
                     chapters"
                );
                return ExitCode::from(EXIT_USAGE);
            };
            let mut out = io::stdout().lock();
            // Rendered first, so that a reader that goes away cannot leave half a sentence of ours in the error.
            page.and_then(|page| out.write_all(page.as_bytes()).and_then(|()| out.flush()))
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

/// The page of a command, else that of a chapter.
fn find(program: &Command, names: &[String]) -> Option<io::Result<String>> {
    let command = names.iter().try_fold(program, |command, name| command.find_subcommand(name));
    if let Some(command) = command {
        return Some(of_command(command));
    }
    let [name] = names else { return None };
    Page::named(name).map(|page| Ok(of_chapter(page)))
}

fn of_command(command: &Command) -> io::Result<String> {
    let mut page = Vec::new();
    // Without a word for the date, the version would stand in its place.
    Man::new(command.clone()).date("\"\"").manual("ltkmd").render(&mut page)?;
    statuses().to_writer(&mut page)?;
    let page = String::from_utf8(page).map_err(io::Error::other)?;
    Ok(literal(&page))
}

fn of_chapter(page: &Page) -> String {
    let mut roff = markdown::page(page);
    roff.control("SH", ["SEE ALSO"]);
    let other = if page.name == "ltkmd-handbook" { "" } else { "ltkmd-handbook" };
    match other {
        "" => roff.text([bold("ltkmd"), roman("(1)")]),
        other => roff.text([bold("ltkmd"), roman("(1), "), bold(other), roman("(7)")]),
    };
    // For man: it has tables.
    format!("'\\\" t\n{}", literal(&roff.render()))
}

/// Signs that roff would print as others.
fn literal(page: &str) -> String {
    page.replace("\\\\", "\\(rs").replace('`', "\\(ga").replace('~', "\\(ti").replace('^', "\\(ha")
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
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("ltkmd.toml"), roman("(5), "), bold("ltkmd-handbook"), roman("(7)")]);
    roff
}

fn write_all(program: &Command, directory: &Path) -> io::Result<()> {
    write_commands(program, directory)?;
    PAGES.iter().try_for_each(|page| write_page(directory, page.name, page.section, &of_chapter(page)))
}

fn write_commands(command: &Command, directory: &Path) -> io::Result<()> {
    for command in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        write_commands(command, directory)?;
    }
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    write_page(directory, name, COMMANDS, &of_command(command)?)
}

fn write_page(directory: &Path, name: &str, section: &str, page: &str) -> io::Result<()> {
    let directory = directory.join(format!("man{section}"));
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join(format!("{name}.{section}")), page)
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
        find(&program, &names).map(Result::unwrap)
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
    fn a_chapter_has_a_page_under_its_name_and_under_its_file() {
        let chapter = page(&["troubleshoot"]).unwrap();
        assert!(chapter.contains(".TH ltkmd-troubleshoot 7 "), "{chapter}");
        assert_eq!(page(&["ltkmd-troubleshoot"]).as_ref(), Some(&chapter));
        assert!(page(&["ltkmd.toml"]).unwrap().contains("http.max_items"));
        assert!(page(&["troubleshoot", "more"]).is_none());
    }

    #[test]
    fn a_directory_gets_the_pages_of_all_commands_that_are_not_hidden_and_of_all_chapters() {
        let directory = tempfile::tempdir().unwrap();
        write_all(&prepared(program()), &directory.path().join("man")).unwrap();
        let names = |section: &str| {
            let entries = std::fs::read_dir(directory.path().join("man").join(section)).unwrap();
            let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(names("man1"), ["ltkmd-key-rotate.1", "ltkmd-key.1", "ltkmd.1"]);
        assert_eq!(names("man5"), ["ltkmd.toml.5"]);
        assert_eq!(names("man7").len(), PAGES.len() - 1);
        assert!(names("man7").contains(&"ltkmd-first-service.7".to_owned()));
    }
}
