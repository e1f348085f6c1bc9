//! Secrets from files: the key that names a file first, then the systemd credential of the secret's name.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use data_encoding::HEXLOWER_PERMISSIVE;
use zeroize::Zeroizing;

use super::fault::Place;
use super::reader::Reader;
use super::value;
use crate::secret::Secret;

/// The longest file that a secret may be in, in octets.
const MAX_SECRET: u64 = 4096;

/// What a secret's file must hold besides one trailing newline.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// 64 hex digits: a key of 32 octets.
    HexKey,
    /// Visible ASCII, as an `Authorization` header takes it.
    Token,
    /// Printable text of at most that many octets.
    Password(usize),
}

impl Shape {
    fn read(self, text: &[u8]) -> Result<Secret, String> {
        if text.is_empty() {
            return Err("is empty: put the secret into the file".to_owned());
        }
        match self {
            Self::HexKey => {
                let mut key = Zeroizing::new([0; 32]);
                if text.len() == 64 && HEXLOWER_PERMISSIVE.decode_mut(text, key.as_mut()).is_ok() {
                    Ok(Secret::from(&key[..]))
                } else {
                    Err("is not 64 hex digits: make one with `openssl rand -hex 32`".to_owned())
                }
            }
            Self::Token if text.iter().all(u8::is_ascii_graphic) => Ok(Secret::from(text)),
            Self::Token => Err("has characters besides visible ASCII: make one with \
                 `openssl rand -hex 32`, in one line"
                .to_owned()),
            Self::Password(max) if text.len() > max => {
                Err(format!("is longer than {max} octets: give a shorter password"))
            }
            Self::Password(_) => match std::str::from_utf8(text) {
                Ok(t) if !t.chars().any(char::is_control) => Ok(Secret::from(text)),
                _ => Err("is not one line of text: give the password and nothing else".to_owned()),
            },
        }
    }
}

/// Opens a regular file and reads it to its end, which `max` bounds; tells its mode too. A directory or a pipe is
/// refused before it can block.
pub(super) fn read_bounded(path: &Path, max: u64) -> io::Result<(Zeroizing<Vec<u8>>, u32)> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let file = File::open(path)?;
    let mode = file.metadata()?.mode();
    // One allocation that holds everything: growing would leave copies behind that nobody zeroes.
    let mut octets = Zeroizing::new(Vec::with_capacity(max as usize + 1));
    file.take(max + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > max {
        return Err(io::Error::other(format!("longer than {max} octets")));
    }
    Ok((octets, mode))
}

/// What to say of a private file's mode, if anything.
pub(super) fn mode_warning(mode: u32) -> Option<&'static str> {
    (mode & 0o004 != 0).then_some("every user of this machine can read the file: chmod o-rwx it")
}

/// Reads the secret of a `…_file` key. `None` when a fault was noted, `Some(None)` when there is no such secret.
pub(super) fn secret(reader: &mut Reader, path: &'static str, shape: Shape) -> Option<Option<Secret>> {
    let given = reader.optional(path, value::path)?;
    let (place, file, is_credential) = match given {
        Some(file) => (reader.place(path), file, false),
        None => {
            let name = path.rsplit('.').next().and_then(|n| n.strip_suffix("_file"));
            let name = name.expect("the keys of secrets end in _file");
            let Some(directory) = &reader.credentials else { return Some(None) };
            let file = directory.join(name);
            (Place::Credential(file.clone()), file, true)
        }
    };
    // The path is not repeated: it may be a secret that was given in place of one.
    let (octets, mode) = match read_bounded(&file, MAX_SECRET) {
        Ok(read) => read,
        Err(e) if is_credential && e.kind() == io::ErrorKind::NotFound => return Some(None),
        Err(e) => {
            reader.fault_at(place, path, format!("the file cannot be read ({e}): name a readable file"));
            return None;
        }
    };
    if let Some(warning) = mode_warning(mode) {
        reader.warn_at(place.clone(), path, warning);
    }
    let text = octets.strip_suffix(b"\n").unwrap_or(&octets);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    match shape.read(text) {
        Ok(secret) => Some(Some(secret)),
        Err(what) => {
            reader.fault_at(place, path, format!("what the file holds {what}"));
            None
        }
    }
}
