//! A file that is there when it is whole, and otherwise not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::Failure;

/// Where something is written to: a file beside its place until it is whole, or stdout.
pub(super) enum Destination {
    /// A file.
    File(Partial),
    /// Stdout, which nobody can take back.
    Stdout(io::Stdout),
}

/// A file of mode 0600 under another name, removed unless it was put in its place.
pub(super) struct Partial {
    file: File,
    partial: PathBuf,
    place: PathBuf,
    force: bool,
    in_place: bool,
}

impl Destination {
    /// Opens it; `-` is stdout. Without `force` a file that is there is left alone, and that is an error.
    pub(super) fn open(place: &Path, force: bool) -> Result<Self, Failure> {
        if place.as_os_str() == "-" {
            return Ok(Self::Stdout(io::stdout()));
        }
        refuse_existing(place, force)?;
        let name = place
            .file_name()
            .ok_or_else(|| Failure::usage(format!("{} is no name of a file: name one", place.display())))?;
        let mut partial_name = std::ffi::OsString::from(".");
        partial_name.push(name);
        partial_name.push(format!(".{}.partial", std::process::id()));
        let partial = place.with_file_name(partial_name);
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial);
        let file = opened.map_err(|e| unwritable(place, &e))?;
        Ok(Self::File(Partial { file, partial, place: place.to_owned(), force, in_place: false }))
    }

    /// Writes all of it.
    pub(super) fn write(&mut self, octets: &[u8]) -> Result<(), Failure> {
        match self {
            Self::File(partial) => partial.file.write_all(octets).map_err(|e| unwritable(&partial.place, &e)),
            Self::Stdout(out) => out.write_all(octets).map_err(|e| unwritable(Path::new("stdout"), &e)),
        }
    }

    /// Makes it durable and puts it in its place.
    pub(super) fn finish(self) -> Result<(), Failure> {
        match self {
            Self::File(mut partial) => {
                refuse_existing(&partial.place, partial.force)?;
                partial.put().map_err(|e| unwritable(&partial.place, &e))
            }
            Self::Stdout(mut out) => out.flush().map_err(|e| unwritable(Path::new("stdout"), &e)),
        }
    }
}

impl Partial {
    fn put(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.partial, &self.place)?;
        self.in_place = true;
        let directory = self.place.parent().filter(|p| !p.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.in_place {
            let _ = fs::remove_file(&self.partial);
        }
    }
}

fn refuse_existing(place: &Path, force: bool) -> Result<(), Failure> {
    match fs::symlink_metadata(place) {
        Ok(found) if found.is_dir() => {
            Err(Failure::usage(format!("{} is a directory: name a file in it", place.display())))
        }
        Ok(_) if !force => {
            Err(Failure::usage(format!("{} is there already: --force replaces it", place.display())))
        }
        _ => Ok(()),
    }
}

fn unwritable(place: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("{} cannot be written: {error}", place.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .expect("a directory")
            .map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_there_when_it_is_whole_and_its_owner_alone_can_read_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path().join("a");
        let mut file = Destination::open(&place, false).expect("opened");
        file.write(b"half").expect("written");
        assert!(!place.exists());
        drop(file);
        assert_eq!(names(dir.path()), [""; 0], "nothing is left behind");
        let mut file = Destination::open(&place, false).expect("opened");
        file.write(b"whole").expect("written");
        file.finish().expect("put in its place");
        assert_eq!(names(dir.path()), ["a"]);
        assert_eq!(fs::metadata(&place).expect("there").permissions().mode() & 0o7777, 0o600);
        assert!(
            Destination::open(&place, false).is_err_and(|f| f.code == 2 && f.sentence.contains("--force"))
        );
        let mut file = Destination::open(&place, true).expect("opened");
        file.write(b"new").expect("written");
        assert_eq!(fs::read(&place).expect("there"), b"whole", "the old one stays until then");
        file.finish().expect("put in its place");
        assert_eq!(fs::read(&place).expect("there"), b"new");
        assert!(Destination::open(dir.path(), true).is_err_and(|f| f.sentence.contains("is a directory")));
    }

    #[test]
    fn what_appeared_meanwhile_is_not_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path().join("a");
        let file = Destination::open(&place, false).expect("opened");
        fs::write(&place, b"another's").expect("written");
        assert!(file.finish().is_err());
        assert_eq!(names(dir.path()), ["a"]);
        assert_eq!(fs::read(&place).expect("there"), b"another's");
    }
}
