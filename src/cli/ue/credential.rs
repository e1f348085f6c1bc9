//! A terminal's B-TID, MRK and MUK, from files or the environment: never from the command line, where others see them.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

use crate::id::BTid;
use crate::secret::Secret;

/// Octets of an MRK or MUK, at least and at most (as the admin API takes them).
const KEY_LEN: std::ops::RangeInclusive<usize> = 16..=64;

/// The longest credential or key file, in octets.
const MAX_FILE: u64 = 64 << 10;

/// Who the terminal is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The terminal's credential")]
pub struct CredentialArgs {
    /// JSON with btid, mrk and muk in base64, as PUT /v1/credentials takes them (the B-TID beside them)
    #[arg(long, value_name = "FILE", env = "LTKM_UE_CREDENTIAL")]
    pub credential: Option<PathBuf>,
    /// The B-TID, when the credential file has none
    #[arg(long, value_name = "NAI")]
    pub btid: Option<BTid>,
    /// A file with the MRK in base64 or hex; without it and a credential file, LTKM_UE_MRK holds it
    #[arg(long, value_name = "FILE", conflicts_with = "credential")]
    pub mrk_file: Option<PathBuf>,
    /// A file with the MUK in base64 or hex; without it and a credential file, LTKM_UE_MUK holds it
    #[arg(long, value_name = "FILE", conflicts_with = "credential")]
    pub muk_file: Option<PathBuf>,
}

/// Why there is no credential. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file cannot be read.
    #[error("{path}: cannot be read ({error}): name a readable file")]
    File {
        /// The file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// A file is no credential.
    #[error("{path}: is no credential ({error}): give JSON such as {{\"btid\": …, \"mrk\": …, \"muk\": …}}")]
    Json {
        /// The file.
        path: String,
        /// Why.
        error: serde_json::Error,
    },
    /// A key has the wrong form or length.
    #[error("{place}: is no key: give 16 to 64 octets in base64{or_hex}")]
    Key {
        /// The file or variable.
        place: String,
        /// The other form that is taken here.
        or_hex: &'static str,
    },
    /// Something is not there.
    #[error("{0}")]
    Missing(&'static str),
}

/// A terminal's credential. Debug shows no keys.
#[derive(Debug, Clone)]
pub struct Credential {
    /// The digest user name and MIKEY IDr.
    pub btid: BTid,
    /// The digest secret.
    pub mrk: Secret,
    /// The MIKEY pre-shared key.
    pub muk: Secret,
}

/// A secret that stands in JSON as base64.
pub(super) struct Base64Secret(pub(super) Secret);

impl Serialize for Base64Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(BASE64.encode(self.0.expose())))
    }
}

impl<'de> Deserialize<'de> for Base64Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let octets = BASE64.decode(text.as_bytes());
        octets.map(|octets| Self(Secret::new(octets))).map_err(|_| de::Error::custom("a key is no base64"))
    }
}

/// What is taken of a credential document; the rest of it is the daemon's.
#[derive(Deserialize)]
pub(super) struct Document {
    #[serde(alias = "id")]
    btid: Option<BTid>,
    mrk: Base64Secret,
    muk: Base64Secret,
}

impl Document {
    /// The credential, whose B-TID is `btid` when the document has none.
    pub(super) fn credential(self, btid: Option<BTid>, place: &str) -> Result<Credential, CredentialError> {
        let no_btid = "the credential has no B-TID: put \"btid\" into the file or give --btid";
        let btid = btid.or(self.btid).ok_or(CredentialError::Missing(no_btid))?;
        let key = |name: &str, Base64Secret(key): Base64Secret| {
            let place = || format!("{place}: {name}");
            let right = Some(key).filter(|key| KEY_LEN.contains(&key.len()));
            right.ok_or_else(|| CredentialError::Key { place: place(), or_hex: "" })
        };
        Ok(Credential { btid, mrk: key("mrk", self.mrk)?, muk: key("muk", self.muk)? })
    }
}

impl CredentialArgs {
    /// Reads what the arguments and the environment point to.
    ///
    /// # Errors
    /// What is missing or wrong, and what to do.
    pub fn read(&self) -> Result<Credential, CredentialError> {
        self.read_with(|name| std::env::var(name).ok().map(Zeroizing::new))
    }

    fn read_with(
        &self,
        variable: impl Fn(&str) -> Option<Zeroizing<String>>,
    ) -> Result<Credential, CredentialError> {
        if let Some(path) = &self.credential {
            let text = read_file(path)?;
            let place = path.display().to_string();
            let document: Document = serde_json::from_str(&text)
                .map_err(|error| CredentialError::Json { path: place.clone(), error })?;
            return document.credential(self.btid.clone(), &place);
        }
        let missing = CredentialError::Missing;
        let btid = self.btid.clone().ok_or(missing("no terminal is named: give --credential or --btid"))?;
        let key = |file: &Option<PathBuf>, name: &str, none| match file {
            Some(path) => key(&read_file(path)?, path.display().to_string()),
            None => key(&variable(name).ok_or(missing(none))?, name.to_owned()),
        };
        let no_mrk = "no MRK is given: give --credential or --mrk-file, or set LTKM_UE_MRK";
        let no_muk = "no MUK is given: give --credential or --muk-file, or set LTKM_UE_MUK";
        let mrk = key(&self.mrk_file, "LTKM_UE_MRK", no_mrk)?;
        let muk = key(&self.muk_file, "LTKM_UE_MUK", no_muk)?;
        Ok(Credential { btid, mrk, muk })
    }
}

/// Reads a small text file that holds a secret.
pub(super) fn read_file(path: &Path) -> Result<Zeroizing<String>, CredentialError> {
    let failed = |error| CredentialError::File { path: path.display().to_string(), error };
    if fs::metadata(path).map_err(failed)?.len() > MAX_FILE {
        return Err(failed(std::io::Error::other("it is longer than 64 KiB")));
    }
    fs::read_to_string(path).map(Zeroizing::new).map_err(failed)
}

/// A key in hex or base64. Text of hex digits alone is hex: no base64 of a random key looks like that.
fn key(text: &str, place: String) -> Result<Secret, CredentialError> {
    let text = text.trim().as_bytes();
    let octets = HEXLOWER_PERMISSIVE.decode(text).or_else(|_| BASE64.decode(text)).ok().map(Secret::new);
    let right = octets.filter(|key| KEY_LEN.contains(&key.len()));
    right.ok_or(CredentialError::Key { place, or_hex: " or hex" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> CredentialArgs {
        CredentialArgs { credential: None, btid: None, mrk_file: None, muk_file: None }
    }

    fn none(_: &str) -> Option<Zeroizing<String>> {
        None
    }

    #[test]
    fn a_credential_file_is_what_the_admin_api_takes_with_its_b_tid() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("c.json");
        let key = BASE64.encode(&[7; 32]);
        let body = |btid: &str| {
            format!(r#"{{{btid}"subscriber":"s","mrk":"{key}","muk":"{key}","gba":"me","expires":null}}"#)
        };
        for btid in [r#""btid":"a@b","#, r#""id":"a@b","#] {
            fs::write(&file, body(btid)).unwrap();
            let read = CredentialArgs { credential: Some(file.clone()), ..args() }.read_with(none).unwrap();
            assert_eq!((read.btid.as_str(), read.mrk.expose()), ("a@b", &[7; 32][..]));
        }
        fs::write(&file, body("")).unwrap();
        let without = CredentialArgs { credential: Some(file.clone()), ..args() };
        assert!(without.read_with(none).unwrap_err().to_string().contains("--btid"));
        let named = CredentialArgs { btid: Some(BTid::new("c@d").unwrap()), ..without };
        assert_eq!(named.read_with(none).unwrap().btid.as_str(), "c@d");
    }

    #[test]
    fn keys_come_from_files_or_the_environment_in_hex_or_base64() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("mrk");
        fs::write(&file, format!("{}\n", BASE64.encode(&[1; 32]))).unwrap();
        let args = CredentialArgs { btid: Some(BTid::new("a@b").unwrap()), mrk_file: Some(file), ..args() };
        let hex = |name: &str| (name == "LTKM_UE_MUK").then(|| Zeroizing::new("02".repeat(16)));
        let read = args.read_with(hex).unwrap();
        assert_eq!((read.mrk.expose(), read.muk.expose()), (&[1; 32][..], &[2; 16][..]));
    }

    #[test]
    fn what_is_missing_or_no_key_is_named_without_being_repeated() {
        let named = CredentialArgs { btid: Some(BTid::new("a@b").unwrap()), ..args() };
        let error = named.read_with(none).unwrap_err().to_string();
        assert!(error.contains("--mrk-file") && error.contains("LTKM_UE_MRK"), "{error}");
        assert!(args().read_with(none).unwrap_err().to_string().contains("--credential"));
        let short = |_: &str| Some(Zeroizing::new("secret!".to_owned()));
        let error = named.read_with(short).unwrap_err().to_string();
        assert!(error.contains("LTKM_UE_MRK") && !error.contains("secret!"), "{error}");
    }
}
