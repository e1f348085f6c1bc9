//! The only way to and from the octets: a bounds-checked reader and writer.

use core::fmt;

use crate::error::{DecodeError, DecodeErrorKind, MakeError};

/// Reads fields from octets, and knows at which octet of the whole message it is.
#[derive(Clone)]
pub(crate) struct Reader<'a> {
    octets: &'a [u8],
    at: usize,
    base: usize,
}

impl fmt::Debug for Reader<'_> {
    /// Where it is, but not the octets: they may be keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("at", &self.at()).field("left", &self.left()).finish_non_exhaustive()
    }
}

impl<'a> Reader<'a> {
    pub(crate) fn new(octets: &'a [u8]) -> Self {
        Self::at_base(octets, 0)
    }

    /// A reader over a part of a message that begins at octet `base` of it.
    pub(crate) fn at_base(octets: &'a [u8], base: usize) -> Self {
        Self { octets, at: 0, base }
    }

    /// Offset of the next octet in the whole message.
    pub(crate) fn at(&self) -> usize {
        self.base + self.at
    }

    pub(crate) fn left(&self) -> usize {
        self.octets.len() - self.at
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.left() == 0
    }

    pub(crate) fn fail<T>(&self, kind: DecodeErrorKind) -> Result<T, DecodeError> {
        Err(DecodeError { at: self.at(), kind })
    }

    pub(crate) fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        match self.octets[self.at..].get(..len) {
            Some(taken) => {
                self.at += len;
                Ok(taken)
            }
            None => self.fail(DecodeErrorKind::Truncated { field, needed: len, left: self.left() }),
        }
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let taken = self.take(N, field)?;
        Ok(taken.try_into().expect("take gives exactly as many octets as asked for"))
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        Ok(u8::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        let rest = &self.octets[self.at..];
        self.at = self.octets.len();
        rest
    }

    /// A field whose length `len` follows from registry number `number`. With an unknown number the field can
    /// only be delimited when nothing follows it: then it is the rest.
    pub(crate) fn implicit(
        &mut self,
        len: Option<usize>,
        number: u8,
        is_last: bool,
        field: &'static str,
    ) -> Result<&'a [u8], DecodeError> {
        match len {
            Some(len) => self.take(len, field),
            None if is_last => Ok(self.rest()),
            None => self.fail(DecodeErrorKind::UnknownLength { field, number }),
        }
    }
}

/// Writes fields into a caller's buffer.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(out: &'a mut [u8]) -> Self {
        Self { out, at: 0 }
    }

    pub(crate) fn written(&self) -> usize {
        self.at
    }

    /// What has been written so far.
    pub(crate) fn so_far(&self) -> &[u8] {
        &self.out[..self.at]
    }

    /// Room for `octets` octets, which the caller fills.
    pub(crate) fn place(&mut self, octets: usize) -> Result<&mut [u8], MakeError> {
        let needed = self.at + octets;
        let len = self.out.len();
        let place = self.out.get_mut(self.at..needed).ok_or(MakeError::BufferTooSmall { needed, len })?;
        self.at = needed;
        Ok(place)
    }

    pub(crate) fn put(&mut self, octets: &[u8]) -> Result<(), MakeError> {
        self.place(octets.len())?.copy_from_slice(octets);
        Ok(())
    }

    pub(crate) fn u8(&mut self, value: u8) -> Result<(), MakeError> {
        self.put(&[value])
    }

    pub(crate) fn u16(&mut self, value: u16) -> Result<(), MakeError> {
        self.put(&value.to_be_bytes())
    }

    pub(crate) fn u32(&mut self, value: u32) -> Result<(), MakeError> {
        self.put(&value.to_be_bytes())
    }

    /// An 8-bit length and the octets it counts.
    pub(crate) fn vec8(&mut self, octets: &[u8], field: &'static str) -> Result<(), MakeError> {
        self.u8(bounded(octets.len(), u8::MAX.into(), field)? as u8)?;
        self.put(octets)
    }

    /// A 16-bit length and the octets it counts.
    pub(crate) fn vec16(&mut self, octets: &[u8], field: &'static str) -> Result<(), MakeError> {
        self.u16(bounded(octets.len(), u16::MAX.into(), field)? as u16)?;
        self.put(octets)
    }
}

/// `found` if it is at most `max`: what is cast to a narrower field afterwards has passed here.
pub(crate) fn bounded(found: usize, max: usize, field: &'static str) -> Result<usize, MakeError> {
    if found <= max { Ok(found) } else { Err(MakeError::TooLong { field, found, max }) }
}

/// Checks a field whose length follows from a registry number; a number of unknown length passes.
pub(crate) fn exactly(found: usize, wanted: Option<usize>, field: &'static str) -> Result<(), MakeError> {
    match wanted {
        Some(wanted) if wanted != found => Err(MakeError::WrongLength { field, found, wanted }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_over_a_part_tells_offsets_in_the_whole() {
        let mut reader = Reader::at_base(&[1, 2, 3], 40);
        assert_eq!(reader.u8("a"), Ok(1));
        let error = reader.u32("b").unwrap_err();
        assert_eq!(error.at, 41);
        assert_eq!(error.to_string(), "octet 41: b: 4 octets needed, 2 left");
        assert_eq!(reader.left(), 2, "a failed read takes nothing");
    }

    #[test]
    fn a_writer_never_writes_past_its_buffer() {
        let mut out = [0; 3];
        let mut writer = Writer::new(&mut out);
        writer.u16(0x0102).unwrap();
        assert_eq!(writer.u16(0x0304), Err(MakeError::BufferTooSmall { needed: 4, len: 3 }));
        assert_eq!(writer.written(), 2);
        assert_eq!(out, [1, 2, 0]);
    }
}
