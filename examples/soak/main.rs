//! The soak of the embedded store: the daemon's own mix for half an hour under kill -9, then a quiet hour.
//!
//! ```text
//! cargo run --release --example soak -- --terminals 1000000 --minutes 30 --kills 100 \
//!     --quiet-minutes 60 --dir /var/tmp/ltkmd-soak --out docs/SOAK.md
//! ```
//!
//! The parent starts a child that runs the store ([`child`]) and kills it again and again, a quarter of the
//! times while it reopens. The child reports every acknowledged (terminal, T) over a pipe before its next
//! step; the parent ([`parent`]) keeps the highest of each terminal and has every later child read all
//! terminals back: what was acknowledged must be there, and no T may come again.

mod child;
mod load;
mod parent;
mod report;
mod wire;

use std::path::PathBuf;

use clap::Parser;

/// What to run.
#[derive(Debug, Clone, Parser)]
struct Options {
    /// Terminals in the store.
    #[arg(long, default_value_t = 1_000_000)]
    terminals: u32,
    /// How long the mix runs.
    #[arg(long, default_value_t = 30)]
    minutes: u32,
    /// Kills during the mix.
    #[arg(long, default_value_t = 100)]
    kills: u32,
    /// How long a trickle of updates runs afterwards.
    #[arg(long, default_value_t = 60)]
    quiet_minutes: u32,
    /// The store's directory; what it holds is deleted first.
    #[arg(long)]
    dir: PathBuf,
    /// Where the record goes as Markdown, besides standard output.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Said in the record: what else ran on the machine.
    #[arg(long, default_value = "nothing else")]
    beside: String,
    /// What a child does.
    #[arg(long, hide = true)]
    child: Option<child::Phase>,
    /// The child's first moment.
    #[arg(long, hide = true, default_value_t = 0)]
    clock: u64,
}

fn main() {
    let options = Options::parse();
    let result = match options.child {
        Some(phase) => child::run(&options, phase),
        None => parent::run(&options),
    };
    if let Err(e) = result {
        eprintln!("soak: {e}");
        std::process::exit(1);
    }
}
