//! `ltkmd check`: whether `serve` would take the configuration, and if not, everything that is wrong with it.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::config;

/// The exit code for wrong usage or configuration.
pub const EXIT_CONFIGURATION: u8 = 2;

/// Checks the file, the process's environment and everything that both point to. Faults and warnings go to stderr,
/// one a line; `ok` goes to stdout when there are no faults. Exit code 0, or 2 with faults, or 1 when the outcome
/// cannot be written.
pub fn run(config: &Path) -> ExitCode {
    match check(config, std::env::vars_os(), &mut io::stdout().lock(), &mut io::stderr().lock()) {
        Ok(code) => ExitCode::from(code),
        Err(_) => ExitCode::FAILURE,
    }
}

fn check(
    config: &Path,
    env: impl Iterator<Item = (OsString, OsString)>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<u8> {
    match config::load(config, env) {
        Ok(settings) => {
            for warning in &settings.warnings {
                writeln!(err, "{warning}")?;
            }
            writeln!(out, "ok")?;
            out.flush()?;
            Ok(0)
        }
        Err(faults) => {
            writeln!(err, "{faults}")?;
            Ok(EXIT_CONFIGURATION)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> (u8, String, String) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.toml");
        std::fs::write(&file, text.replace("DIR", &directory.path().display().to_string())).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = check(&file, std::iter::empty(), &mut out, &mut err).unwrap();
        let err = String::from_utf8(err).unwrap().replace(&file.display().to_string(), "a.toml");
        (code, String::from_utf8(out).unwrap(), err)
    }

    #[test]
    fn a_good_file_is_ok_on_stdout_alone() {
        let text = "node.fqdn = \"a.example\"\nstore.url = \"file:DIR/x\"\nadmin.listen = \"unix:DIR/s\"\n";
        assert_eq!(checked(text), (0, "ok\n".to_owned(), String::new()));
    }

    #[test]
    fn every_fault_is_a_line_on_stderr_and_nothing_is_ok() {
        let text = "[node]\nfqdn = \"a.example\"\n[http]\nmax_items = 0\n[store]\nurl = \"file:DIR/x\"\n[admin]\nlisten = \"unix:DIR/s\"\nx = 1\n";
        let (code, out, err) = checked(text);
        assert_eq!((code, out.as_str()), (EXIT_CONFIGURATION, ""));
        let lines: Vec<&str> = err.lines().collect();
        assert!(lines[0].starts_with("a.toml:4: http.max_items: 0 is out of bounds: "), "{err}");
        assert!(lines[1].starts_with("a.toml:9: admin.x: is an unknown key: "), "{err}");
        assert_eq!(lines.len(), 2, "{err}");
    }

    #[test]
    fn a_file_that_is_not_there_is_a_fault_of_configuration() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = check(Path::new("/nonexistent/a.toml"), std::iter::empty(), &mut out, &mut err).unwrap();
        assert_eq!((code, out.len()), (EXIT_CONFIGURATION, 0));
        assert!(String::from_utf8(err).unwrap().starts_with("/nonexistent/a.toml: cannot be read"));
    }
}
