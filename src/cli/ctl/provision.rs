//! `ctl subscriber`, `ctl credential` and `ctl import`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::api::{Api, encode};
use super::show::{Screen, cell};
use super::{Failure, read_document, read_text};
use crate::cli::client;

/// Octets read from an import's file at a time.
const CHUNK: usize = 64 << 10;

/// Chunks that wait to be sent.
const CHUNKS_AHEAD: usize = 4;

/// `ctl subscriber`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Subscriber {
    /// Put a subscriber in, or put its whole entry anew
    Put {
        /// Its IMPI
        id: String,
        /// Where SMS goes, in international form
        #[arg(long, value_name = "DIGITS")]
        msisdn: Option<String>,
        /// A service that it is entitled to; may be given several times
        #[arg(long = "service", value_name = "ID")]
        services: Vec<String>,
    },
    /// Show a subscriber
    Show {
        /// Its IMPI
        id: String,
    },
    /// Delete a subscriber; its registrations and deliveries end
    Delete {
        /// Its IMPI
        id: String,
    },
}

impl Subscriber {
    pub(super) async fn run(self, api: &mut Api, screen: &mut Screen<'_>) -> Result<(), Failure> {
        let path = |id: &str| format!("/v1/subscribers/{}", encode(id));
        match self {
            Self::Put { id, msisdn, services } => {
                let document = json!({"msisdn": msisdn, "services": services});
                screen.document(&api.call("PUT", &path(&id), Some(&document)).await?)
            }
            Self::Show { id } => screen.document(&api.get(&path(&id)).await?),
            Self::Delete { id } => {
                api.call("DELETE", &path(&id), None).await?;
                screen.done(&format!("{id} is deleted"))
            }
        }
    }
}

/// `ctl credential`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Credential {
    /// Put a terminal's credential in; keys come from files, for a command line is no secret
    Put(Box<CredentialPut>),
    /// Show a credential, without its keys
    Show {
        /// Its B-TID
        btid: String,
    },
    /// Delete a credential; its registration and deliveries end
    Delete {
        /// Its B-TID
        btid: String,
    },
}

/// A credential: MRK and MUK, or Ks and RAND.
#[derive(Debug, clap::Args)]
pub(super) struct CredentialPut {
    /// Its B-TID
    btid: String,
    /// The IMPI of the subscriber it belongs to
    #[arg(long, value_name = "IMPI", required_unless_present = "file")]
    subscriber: Option<String>,
    /// A file with the MRK in base64
    #[arg(long, value_name = "FILE", required_unless_present_any = ["ks_file", "file"], requires = "muk_file")]
    mrk_file: Option<PathBuf>,
    /// A file with the MUK in base64
    #[arg(long, value_name = "FILE", requires = "mrk_file")]
    muk_file: Option<PathBuf>,
    /// A file with the Ks in base64, from which MRK and MUK are derived
    #[arg(long, value_name = "FILE", requires = "rand", conflicts_with_all = ["mrk_file", "muk_file"])]
    ks_file: Option<PathBuf>,
    /// The RAND of the bootstrapping run
    #[arg(long, value_name = "BASE64", requires = "ks_file")]
    rand: Option<String>,
    /// The IMPI for the derivation; the subscriber's when absent
    #[arg(long, requires = "ks_file")]
    impi: Option<String>,
    /// Where the terminal keeps its half: GBA_ME or GBA_U
    #[arg(long, value_parser = ["me", "u"], default_value = "me")]
    gba: String,
    /// When it stops to count, RFC 3339; never when absent
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    /// The counter to go on from, when the terminal comes from another BM-SC
    #[arg(long, value_name = "T")]
    t: Option<u32>,
    /// Take the whole document from a JSON file, `-` is stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "subscriber", "mrk_file", "muk_file", "ks_file", "rand", "impi", "gba", "expires", "t",
    ])]
    file: Option<PathBuf>,
}

impl CredentialPut {
    fn document(&self) -> Result<Value, Failure> {
        if let Some(file) = &self.file {
            return read_document(file);
        }
        let mut document = json!({
            "subscriber": self.subscriber, "gba": self.gba, "expires": self.expires, "t": self.t,
        });
        let keys = [("mrk", &self.mrk_file), ("muk", &self.muk_file), ("ks", &self.ks_file)];
        for (name, file) in keys {
            if let Some(file) = file {
                document[name] = json!(read_text(file)?.as_str());
            }
        }
        for (name, text) in [("rand", &self.rand), ("impi", &self.impi)] {
            if let Some(text) = text {
                document[name] = json!(text);
            }
        }
        Ok(document)
    }
}

impl Credential {
    pub(super) async fn run(self, api: &mut Api, screen: &mut Screen<'_>) -> Result<(), Failure> {
        let path = |btid: &str| format!("/v1/credentials/{}", encode(btid));
        match self {
            Self::Put(put) => {
                screen.document(&api.call("PUT", &path(&put.btid), Some(&put.document()?)).await?)
            }
            Self::Show { btid } => screen.document(&api.get(&path(&btid)).await?),
            Self::Delete { btid } => {
                api.call("DELETE", &path(&btid), None).await?;
                screen.done(&format!("{btid} is deleted"))
            }
        }
    }
}

/// `ctl import`.
#[derive(Debug, clap::Args)]
pub(super) struct Import {
    /// The file, `-` is stdin
    file: PathBuf,
}

impl Import {
    pub(super) async fn run(self, api: &mut Api, screen: &mut Screen<'_>) -> Result<(), Failure> {
        // A wrong token or a daemon that is not there is told before the first octet is sent.
        api.get("/v1/status").await?;
        let (source, size) = open(&self.file)?;
        let bar = progress(size);
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let (told, mut unread) = oneshot::channel();
        let moving = bar.clone();
        // A thread of its own: nobody waits for one that hangs on a terminal or a pipe when the daemon has
        // answered already.
        std::thread::spawn(move || {
            feed(source, &sender, told, &moving);
        });
        let outcome = api.upload("/v1/import", client::stream(receiver)).await;
        bar.finish_and_clear();
        if let Ok(error) = unread.try_recv() {
            return Err(Failure::failed(format!("{} cannot be read: {error}", self.file.display())));
        }
        let reply = outcome?;
        let told = &reply.value;
        if screen.json {
            screen.raw(&reply)?;
        } else {
            let counts = &told["counts"];
            screen.card(vec![
                ("services", cell(&counts["service"])),
                ("subscribers", cell(&counts["subscriber"])),
                ("credentials", cell(&counts["credential"])),
                ("faulty lines", cell(&told["failed"])),
            ])?;
        }
        let faults = told["faults"].as_array().map(Vec::as_slice).unwrap_or_default();
        for fault in faults {
            screen.note(&format!("line {}: {}", cell(&fault["line"]), cell(&fault["error"])))?;
        }
        match told["failed"].as_u64().unwrap_or(0) {
            0 => Ok(()),
            failed if failed > faults.len() as u64 => Err(Failure::failed(format!(
                "{failed} lines were skipped, the first {} are told",
                faults.len()
            ))),
            _ => Err(Failure::shown()),
        }
    }
}

/// The file and its size, where it has one.
fn open(path: &Path) -> Result<(Box<dyn Read + Send>, Option<u64>), Failure> {
    if path.as_os_str() == "-" {
        return Ok((Box::new(io::stdin()), None));
    }
    let unreadable = |e: io::Error| Failure::usage(format!("{} cannot be read: {e}", path.display()));
    let file = File::open(path).map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    if found.is_dir() {
        return Err(Failure::usage(format!("{} is a directory: name a file", path.display())));
    }
    Ok((Box::new(file), found.is_file().then_some(found.len())))
}

/// A bar by octets on stderr; nothing is drawn when that is no terminal.
fn progress(size: Option<u64>) -> ProgressBar {
    let template = match size {
        Some(_) => "{elapsed_precise} [{bar:32}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}",
        None => "{elapsed_precise} {binary_bytes} {binary_bytes_per_sec}",
    };
    let style = ProgressStyle::with_template(template).expect("the templates are constants");
    let bar = size.map_or_else(ProgressBar::no_length, ProgressBar::new);
    bar.with_style(style.progress_chars("=> "))
}

/// Reads the source to its end, or until nobody takes it any more. An error also breaks the request off, so
/// that the daemon does not take half a line for a whole one.
fn feed(
    mut source: Box<dyn Read + Send>,
    sender: &mpsc::Sender<io::Result<Bytes>>,
    told: oneshot::Sender<io::Error>,
    bar: &ProgressBar,
) {
    loop {
        let mut chunk = vec![0; CHUNK];
        let read = match source.read(&mut chunk) {
            Ok(0) => return,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let kind = error.kind();
                // The reason first: the broken request ends the wait for it.
                let _ = told.send(error);
                let _ = sender.blocking_send(Err(kind.into()));
                return;
            }
        };
        chunk.truncate(read);
        if sender.blocking_send(Ok(Bytes::from(chunk))).is_err() {
            return;
        }
        bar.inc(read as u64);
    }
}
