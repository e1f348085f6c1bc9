//! Records set aside on disk, written in an order and read in the same: a file without a name, gone with its reader.

use std::fs::{File, OpenOptions, remove_file};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;

/// A spool that is written.
pub(super) struct Writer(BufWriter<File>);

impl Writer {
    /// An empty one, in the directory for temporary files (`TMPDIR`), for its owner alone.
    pub(super) fn new() -> io::Result<Self> {
        let dir = std::env::temp_dir();
        loop {
            let path = dir.join(format!("ltkmd-migrate-{:016x}", getrandom::u64().unwrap_or_default()));
            let mut options = OpenOptions::new();
            match options.create_new(true).read(true).write(true).mode(0o600).open(&path) {
                Ok(file) => {
                    remove_file(&path)?;
                    return Ok(Self(BufWriter::with_capacity(1 << 18, file)));
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Appends a record: a key and a value.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        for octets in [key, value] {
            let length = u32::try_from(octets.len()).map_err(|_| io::ErrorKind::InvalidData)?;
            self.0.write_all(&length.to_be_bytes())?;
            self.0.write_all(octets)?;
        }
        Ok(())
    }

    /// From its begin, for who reads.
    pub(super) fn read(self) -> io::Result<Reader> {
        let mut file = self.0.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        Reader { file: Some(BufReader::with_capacity(1 << 18, file)), next: None }.ahead()
    }
}

/// A spool that is read, one record ahead.
#[derive(Default)]
pub(super) struct Reader {
    file: Option<BufReader<File>>,
    next: Option<(Vec<u8>, Vec<u8>)>,
}

impl Reader {
    fn ahead(mut self) -> io::Result<Self> {
        self.advance()?;
        Ok(self)
    }

    fn advance(&mut self) -> io::Result<()> {
        self.next = None;
        let Some(file) = &mut self.file else { return Ok(()) };
        if io::BufRead::fill_buf(file)?.is_empty() {
            self.file = None;
            return Ok(());
        }
        let mut octets = || {
            let mut length = [0; 4];
            file.read_exact(&mut length)?;
            let mut octets = vec![0; u32::from_be_bytes(length) as usize];
            file.read_exact(&mut octets)?;
            io::Result::Ok(octets)
        };
        self.next = Some((octets()?, octets()?));
        Ok(())
    }

    /// The next record's key.
    pub(super) fn key(&self) -> Option<&[u8]> {
        self.next.as_ref().map(|(key, _)| &key[..])
    }

    /// Takes the next record.
    pub(super) fn take(&mut self) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        let taken = self.next.take();
        if taken.is_some() {
            self.advance()?;
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_in_their_order_and_leave_no_file() {
        let mut writer = Writer::new().expect("a file");
        let long = vec![7u8; 1 << 19];
        for (key, value) in [(&b"a"[..], &b""[..]), (b"b", &long), (b"", b"c")] {
            writer.put(key, value).expect("written");
        }
        let mut reader = writer.read().expect("read");
        assert_eq!(reader.key(), Some(&b"a"[..]));
        assert_eq!(reader.take().expect("read"), Some((b"a".to_vec(), Vec::new())));
        assert_eq!(reader.take().expect("read"), Some((b"b".to_vec(), long)));
        assert_eq!(reader.take().expect("read"), Some((Vec::new(), b"c".to_vec())));
        assert_eq!(reader.key(), None);
        assert_eq!(reader.take().expect("read"), None);
    }
}
