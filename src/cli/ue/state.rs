//! What a terminal keeps between runs: the highest T per MUK, and the keys it holds. One JSON file, mode 0600.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::credential::{Base64Secret, Credential};
use super::terminal::{HeldKey, MAX_KEYS, Terminal};
use super::validity::Validity;
use crate::id::{BTid, Method};
use crate::secret::Secret;
use crate::time::Timestamp;

/// The longest state file: room for [`MAX_KEYS`] keys of any kind, in octets.
const MAX_FILE: u64 = 4 << 20;

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file cannot be read or written.
    #[error(
        "{path}: the state cannot be {verb} ({error}): name a file in a directory that you may write to with --state"
    )]
    File {
        /// The file.
        path: String,
        /// Read or written.
        verb: &'static str,
        /// Why.
        error: io::Error,
    },
    /// The file is no state.
    #[error("{path}: is no state of a terminal ({why}): name another file with --state, or remove this one")]
    Content {
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
    /// It is another terminal's.
    #[error("{path}: is the state of {found}: use one file for each terminal")]
    Stranger {
        /// The file.
        path: String,
        /// Whose it is.
        found: BTid,
    },
}

#[derive(Serialize, Deserialize)]
struct Document {
    btid: BTid,
    /// Tells one MUK from another: T begins anew with each.
    muk: String,
    highest_t: Option<u32>,
    keys: Vec<KeyDocument>,
}

#[derive(Serialize, Deserialize)]
struct KeyDocument {
    key_domain: String,
    msk_id: String,
    key: Base64Secret,
    salt: Option<Base64Secret>,
    validity: ValidityDocument,
    t: u32,
    method: Method,
    received: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ValidityDocument {
    Always,
    Ntp(u32, u32),
    MtkIds(u16, u16),
    Spi(String),
    Octets(String, String),
}

/// Where a terminal is kept; nowhere when no file was named.
#[derive(Debug, Clone)]
pub struct StateFile(Option<PathBuf>);

impl StateFile {
    /// The file, if any.
    pub fn new(path: Option<PathBuf>) -> Self {
        Self(path)
    }

    /// The terminal as it was kept; a new one when nothing was, or when its MUK is another by now.
    ///
    /// # Errors
    /// The file cannot be read, is something else, or another terminal's.
    pub fn load(&self, credential: &Credential) -> Result<Terminal, StateError> {
        let (btid, muk) = (credential.btid.clone(), credential.muk.clone());
        let fresh = Terminal::new(btid.clone(), muk.clone());
        let Some(path) = &self.0 else { return Ok(fresh) };
        let Some(text) = read(path)? else { return Ok(fresh) };
        let content = |why: String| StateError::Content { path: path.display().to_string(), why };
        let document: Document = serde_json::from_str(&text).map_err(|e| content(e.to_string()))?;
        if document.btid != btid {
            return Err(StateError::Stranger { path: path.display().to_string(), found: document.btid });
        }
        if document.muk != fingerprint(&muk) {
            return Ok(fresh);
        }
        let keys = document.keys.iter().take(MAX_KEYS).map(KeyDocument::held).collect::<Option<Vec<_>>>();
        let keys = keys.ok_or_else(|| content("a key cannot be read".to_owned()))?;
        Ok(Terminal::resume(btid, muk, document.highest_t, keys))
    }

    /// Keeps the terminal: before an LTKM is acknowledged, so that no acknowledged key is lost and no T is accepted
    /// twice.
    ///
    /// # Errors
    /// The file cannot be written; what was there before is still there.
    pub fn save(&self, terminal: &Terminal, credential: &Credential) -> Result<(), StateError> {
        let Some(path) = &self.0 else { return Ok(()) };
        let document = Document {
            btid: terminal.btid().clone(),
            muk: fingerprint(&credential.muk),
            highest_t: terminal.highest(),
            keys: terminal.keys().iter().map(KeyDocument::of).collect(),
        };
        let failed = |error| StateError::File { path: path.display().to_string(), verb: "written", error };
        let text = serde_json::to_vec(&document).map_err(|e| failed(e.into()))?;
        write(path, &Zeroizing::new(text)).map_err(failed)
    }
}

fn read(path: &Path) -> Result<Option<Zeroizing<String>>, StateError> {
    let failed = |error| StateError::File { path: path.display().to_string(), verb: "read", error };
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
        Ok(found) if found.len() > MAX_FILE => return Err(failed(io::Error::other("it is too long"))),
        Ok(_) => {}
    }
    fs::read_to_string(path).map(|text| Some(Zeroizing::new(text))).map_err(failed)
}

/// Writes beside the file and takes its place, so that a crash leaves the old or the new one.
fn write(path: &Path, octets: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(octets)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

fn fingerprint(muk: &Secret) -> String {
    let hash = Sha256::new().chain_update(b"ltkmd ue state").chain_update(muk.expose()).finalize();
    HEXLOWER.encode(&hash[..8])
}

impl KeyDocument {
    fn of(held: &HeldKey) -> Self {
        let base64 = |secret: &Secret| Base64Secret(secret.clone());
        Self {
            key_domain: held.key_domain.to_string(),
            msk_id: held.msk_id.to_string(),
            key: base64(&held.key),
            salt: held.salt.as_ref().map(base64),
            validity: ValidityDocument::of(&held.validity),
            t: held.counter,
            method: held.method,
            received: held.received,
        }
    }

    fn held(&self) -> Option<HeldKey> {
        Some(HeldKey {
            key_domain: self.key_domain.parse().ok()?,
            msk_id: self.msk_id.parse().ok()?,
            key: self.key.0.clone(),
            salt: self.salt.as_ref().map(|salt| salt.0.clone()),
            validity: self.validity.validity()?,
            counter: self.t,
            method: self.method,
            received: self.received,
        })
    }
}

impl ValidityDocument {
    fn of(validity: &Validity) -> Self {
        let hex = |octets: &[u8]| HEXLOWER.encode(octets);
        match validity {
            Validity::Always => Self::Always,
            Validity::Ntp { from, to } => Self::Ntp(*from, *to),
            Validity::MtkIds { lower, upper } => Self::MtkIds(*lower, *upper),
            Validity::Spi(spi) => Self::Spi(hex(spi)),
            Validity::Octets { from, to } => Self::Octets(hex(from), hex(to)),
        }
    }

    fn validity(&self) -> Option<Validity> {
        let octets = |text: &str| HEXLOWER.decode(text.as_bytes()).ok();
        Some(match self {
            Self::Always => Validity::Always,
            Self::Ntp(from, to) => Validity::Ntp { from: *from, to: *to },
            Self::MtkIds(lower, upper) => Validity::MtkIds { lower: *lower, upper: *upper },
            Self::Spi(spi) => Validity::Spi(octets(spi)?),
            Self::Octets(from, to) => Validity::Octets { from: octets(from)?, to: octets(to)? },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::id::{KeyDomainId, MskId};

    fn credential(btid: &str, muk: u8) -> Credential {
        let key = |octet| Secret::new(vec![octet; 32]);
        Credential { btid: BTid::new(btid).unwrap(), mrk: key(1), muk: key(muk) }
    }

    fn held(validity: Validity, salt: Option<Secret>) -> HeldKey {
        HeldKey {
            key_domain: KeyDomainId([1, 2, 3]),
            msk_id: MskId::new(4, 5),
            key: Secret::new(vec![6; 16]),
            salt,
            validity,
            counter: 7,
            method: Method::Http,
            received: Timestamp(8000),
        }
    }

    #[test]
    fn a_terminal_goes_on_from_what_was_kept_and_only_its_owner_can_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let (file, credential) = (StateFile::new(Some(path.clone())), credential("a@b", 2));
        assert_eq!(file.load(&credential).unwrap().highest(), None);
        let validities = [
            Validity::Always,
            Validity::Ntp { from: 1, to: u32::MAX },
            Validity::MtkIds { lower: 1, upper: 2 },
            Validity::Spi(vec![1]),
            Validity::Octets { from: vec![1], to: vec![2, 3] },
        ];
        let salted = Some(Secret::new(vec![9; 14]));
        let keys: Vec<_> = validities.iter().map(|v| held(v.clone(), salted.clone())).collect();
        let kept = Terminal::resume(credential.btid.clone(), credential.muk.clone(), Some(41), keys);
        file.save(&kept, &credential).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let loaded = file.load(&credential).unwrap();
        assert_eq!(loaded.highest(), Some(41));
        let found: Vec<_> = loaded.keys().iter().map(|key| key.validity.clone()).collect();
        assert_eq!(found, validities);
        let first = &loaded.keys()[0];
        assert_eq!((first.key.expose(), first.salt.as_ref()), (&[6; 16][..], salted.as_ref()));
        assert_eq!((first.counter, first.method, first.received), (7, Method::Http, Timestamp(8000)));
    }

    #[test]
    fn another_muk_begins_anew_and_another_terminal_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::new(Some(directory.path().join("state")));
        let first = credential("a@b", 2);
        let kept = Terminal::resume(first.btid.clone(), first.muk.clone(), Some(41), Vec::new());
        file.save(&kept, &first).unwrap();
        assert_eq!(file.load(&credential("a@b", 3)).unwrap().highest(), None);
        assert!(matches!(file.load(&credential("c@d", 2)), Err(StateError::Stranger { .. })));
    }

    #[test]
    fn what_is_no_state_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        fs::write(&path, "hello").unwrap();
        let refused = StateFile::new(Some(path)).load(&credential("a@b", 2));
        assert!(matches!(refused, Err(StateError::Content { .. })));
    }

    #[test]
    fn without_a_file_nothing_is_kept() {
        let (file, credential) = (StateFile::new(None), credential("a@b", 2));
        let terminal = Terminal::resume(credential.btid.clone(), credential.muk.clone(), Some(1), Vec::new());
        file.save(&terminal, &credential).unwrap();
        assert_eq!(file.load(&credential).unwrap().highest(), None);
    }
}
