//! `ltkmd demo`: the real daemon and real terminals on loopback sockets, from the first registration to the last
//! invalidation. Every step is checked: with the terminal that took part in it, and with the admin API.

mod actor;
mod acts;
mod stage;
mod story;

use std::process::ExitCode;

use story::Story;

/// `ltkmd demo`
#[derive(Debug, clap::Args)]
pub struct DemoArgs {}

/// The step that did not hold, and why.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {why}")]
struct Broken {
    step: String,
    why: String,
}

/// Plays the demo. Exit code 0 when every step held, else 1 with the step on stderr.
pub async fn run(_args: DemoArgs) -> ExitCode {
    let mut story = Story::on_stdout();
    match acts::play(&mut story).await {
        Ok(()) => {
            let seconds = story.seconds();
            story.print(&format!("\nEvery step held. It took {seconds:.1} seconds."));
            ExitCode::SUCCESS
        }
        Err(broken) => {
            eprintln!("ltkmd demo: this step did not hold: {broken}");
            ExitCode::FAILURE
        }
    }
}
