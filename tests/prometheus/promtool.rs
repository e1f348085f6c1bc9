//! Prometheus' own judge.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Where it is: on the path, or where `./test` has put it.
fn program() -> PathBuf {
    let on_path = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).map(|dir| dir.join("promtool")).collect::<Vec<_>>());
    let fetched = Path::new(env!("CARGO_TARGET_TMPDIR")).join("unpacked/usr/bin/promtool");
    on_path.chain([fetched]).find(|file| file.is_file()).expect(
        "promtool is missing: ./test takes it out of Debian's package `prometheus`, which also brings it when it is \
         installed",
    )
}

/// Runs it with this on its standard input.
pub(crate) fn output(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(program())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is started");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_owned();
    // A program that reads none of it may end first.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().expect("promtool ends");
    writer.join().expect("written");
    output
}

/// Runs it, has it succeed, and gives all that it said.
pub(crate) fn run_with(arguments: &[&str], input: &str) -> String {
    let output = output(arguments, input);
    let told =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "promtool {arguments:?}:\n{told}");
    told
}

/// Runs it on a file.
pub(crate) fn run_on(arguments: &[&str], file: &Path) -> String {
    let file = file.to_str().expect("UTF-8");
    run_with(&[arguments, &[file]].concat(), "")
}
