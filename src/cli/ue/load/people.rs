//! The terminals of a load run: made up or read from a file, and made known to the daemon.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::cli::ue::credential::{Credential, Document};
use crate::cli::ue::http::User;
use crate::cli::ue::terminal::Terminal;
use crate::id::{BTid, ServiceId};
use crate::secret::Secret;

/// The longest line of a credentials file, in octets.
const MAX_LINE: usize = 64 << 10;

/// One terminal of the run.
#[derive(Debug)]
pub(super) struct Person {
    pub(super) user: User,
    terminal: Mutex<Terminal>,
}

impl Person {
    fn new(credential: Credential) -> Self {
        let user = User::from(&credential);
        Self { user, terminal: Mutex::new(Terminal::new(credential.btid, credential.muk)) }
    }

    /// The terminal, for one LTKM after the other.
    pub(super) fn terminal(&self) -> MutexGuard<'_, Terminal> {
        self.terminal.lock().expect("no holder of this lock panics")
    }
}

/// All terminals of the run, found by number and by B-TID.
#[derive(Debug)]
pub(super) struct People {
    pub(super) all: Vec<Person>,
    by_btid: HashMap<Box<[u8]>, usize>,
}

impl People {
    pub(super) fn new(credentials: Vec<Credential>) -> Self {
        let by_btid = credentials
            .iter()
            .enumerate()
            .map(|(n, credential)| (credential.btid.as_str().as_bytes().into(), n))
            .collect();
        Self { all: credentials.into_iter().map(Person::new).collect(), by_btid }
    }

    /// The terminal with this IDr.
    pub(super) fn by_idr(&self, idr: &[u8]) -> Option<&Person> {
        self.by_btid.get(idr).map(|n| &self.all[*n])
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}

/// Makes credentials up: B-TIDs by number, keys that nobody can guess.
pub(super) fn made_up(count: usize, prefix: &str) -> Result<Vec<Credential>, String> {
    let mut seed = Zeroizing::new([0u8; 32]);
    getrandom::fill(&mut *seed).map_err(|e| format!("the system gives no randomness: {e}"))?;
    let key = |n: usize, label: &[u8]| {
        let hash = Sha256::new().chain_update(*seed).chain_update(n.to_be_bytes()).chain_update(label);
        Secret::new(hash.finalize().to_vec())
    };
    let make = |n: usize| {
        let btid = BTid::new(&format!("{prefix}-{n:07}@bsf.load.invalid"));
        let btid = btid.map_err(|e| format!("--prefix {prefix}: the B-TID {e}"))?;
        Ok(Credential { btid, mrk: key(n, b"mrk"), muk: key(n, b"muk") })
    };
    (0..count).map(make).collect()
}

/// The line of an import that makes a subscriber of these services.
fn subscriber_line(credential: &Credential, services: &[ServiceId]) -> String {
    format!("{}\n", json!({ "subscriber": { "id": impi(credential), "services": services } }))
}

fn credential_line(credential: &Credential) -> Zeroizing<String> {
    let base64 = |key: &Secret| Zeroizing::new(BASE64.encode(key.expose()));
    let (mrk, muk) = (base64(&credential.mrk), base64(&credential.muk));
    // Written by hand, so that no copy of the keys stays behind; a B-TID may hold quotes.
    let id = json!(credential.btid);
    let subscriber = json!(impi(credential));
    Zeroizing::new(format!(
        "{{\"credential\":{{\"id\":{id},\"subscriber\":{subscriber},\"mrk\":\"{}\",\"muk\":\"{}\",\"gba\":\"me\",\"expires\":null}}}}\n",
        *mrk, *muk
    ))
}

/// A made-up private identity for a made-up B-TID.
fn impi(credential: &Credential) -> &str {
    credential.btid.as_str()
}

/// The lines of an import that makes these terminals known, in pieces of about `size` octets.
pub(super) fn import<'a>(
    credentials: &'a [Credential],
    services: &'a [ServiceId],
    size: usize,
) -> impl Iterator<Item = Vec<u8>> + Send + 'a {
    let mut left = credentials.iter();
    std::iter::from_fn(move || {
        let mut piece = Vec::with_capacity(size + 4096);
        for credential in left.by_ref() {
            piece.extend_from_slice(subscriber_line(credential, services).as_bytes());
            piece.extend_from_slice(credential_line(credential).as_bytes());
            if piece.len() >= size {
                break;
            }
        }
        (!piece.is_empty()).then_some(piece)
    })
}

/// Writes the same lines into a file that only its owner can read.
pub(super) fn save(path: &Path, credentials: &[Credential], services: &[ServiceId]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut file = BufWriter::new(file);
    for piece in import(credentials, services, 1 << 16) {
        file.write_all(&piece)?;
    }
    file.flush()
}

/// Reads the credentials of an NDJSON file, `limit` at most; other lines are passed over.
pub(super) fn read(path: &Path, limit: Option<usize>) -> Result<Vec<Credential>, String> {
    #[derive(Deserialize)]
    struct Line {
        credential: Option<Document>,
    }
    let place = path.display().to_string();
    let told = |n: usize, why: &dyn std::fmt::Display| {
        format!(
            "{place}:{n}: {why}: give lines such as {{\"credential\": {{\"id\": …, \"mrk\": …, \"muk\": …}}}}"
        )
    };
    let file =
        File::open(path).map_err(|e| format!("{place}: cannot be read ({e}): name a readable file"))?;
    let (mut file, mut line, mut credentials) =
        (BufReader::new(file), Zeroizing::new(Vec::new()), Vec::new());
    for n in 1.. {
        line.clear();
        let taken = io::Read::take(&mut file, MAX_LINE as u64).read_until(b'\n', &mut line);
        match taken.map_err(|e| told(n, &e))? {
            0 => break,
            MAX_LINE => return Err(told(n, &"is longer than 64 KiB")),
            _ if line.iter().all(u8::is_ascii_whitespace) => continue,
            _ => {}
        }
        let read: Line = serde_json::from_slice(&line).map_err(|e| told(n, &e))?;
        if let Some(document) = read.credential {
            let credential = document.credential(None, &format!("{place}:{n}"));
            credentials.push(credential.map_err(|e| e.to_string())?);
        }
        if limit.is_some_and(|limit| credentials.len() == limit) {
            break;
        }
    }
    if credentials.is_empty() { Err(told(1, &"there is no credential in it")) } else { Ok(credentials) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services() -> Vec<ServiceId> {
        vec![ServiceId::new("urn:a").unwrap()]
    }

    #[test]
    fn made_up_terminals_survive_being_saved_and_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("terminals.ndjson");
        let made = made_up(3, "load").unwrap();
        save(&path, &made, &services()).unwrap();
        let found = |limit| read(&path, limit).unwrap();
        for (made, read) in made.iter().zip(found(None)) {
            assert_eq!((&made.btid, &made.mrk, &made.muk), (&read.btid, &read.mrk, &read.muk));
        }
        assert_eq!((found(None).len(), found(Some(2)).len()), (3, 2));
        assert_ne!(made[0].mrk, made[0].muk);
        assert_ne!(made[0].mrk, made[1].mrk);
    }

    #[test]
    fn an_import_comes_in_pieces_of_whole_lines() {
        let made = made_up(100, "load").unwrap();
        let pieces: Vec<_> = import(&made, &services(), 1000).collect();
        assert!(pieces.len() > 10 && pieces.iter().all(|piece| piece.ends_with(b"\n")));
        let all = pieces.concat();
        let lines: Vec<serde_json::Value> =
            all.split(|octet| *octet == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
        assert_eq!(lines.len(), 200);
        assert_eq!(lines[0]["subscriber"]["services"][0], "urn:a");
        assert_eq!(lines[1]["credential"]["id"], "load-0000000@bsf.load.invalid");
        assert_eq!(lines[1]["credential"]["subscriber"], lines[0]["subscriber"]["id"]);
    }

    #[test]
    fn a_faulty_line_is_named_by_its_number() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("terminals.ndjson");
        std::fs::write(&path, "{\"subscriber\":{}}\n\n{\"credential\":{\"id\":\"a@b\"}}\n").unwrap();
        let error = read(&path, None).unwrap_err();
        assert!(error.contains("terminals.ndjson:3:"), "{error}");
        std::fs::write(&path, "{\"subscriber\":{}}\n").unwrap();
        assert!(read(&path, None).unwrap_err().contains("no credential"));
    }

    #[test]
    fn a_terminal_is_found_by_its_idr() {
        let people = People::new(made_up(2, "x").unwrap());
        let found = people.by_idr(b"x-0000001@bsf.load.invalid").unwrap();
        assert_eq!(found.terminal().btid().as_str(), "x-0000001@bsf.load.invalid");
        assert!(people.by_idr(b"y").is_none());
    }
}
