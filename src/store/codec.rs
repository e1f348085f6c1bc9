//! Octets of records: a bounds-checked reader and the writers beside it.
//!
//! Numbers are LEB128 varints; differences are zigzag-coded. Whatever is read from disk is taken for
//! possibly damaged: every read can fail, none can panic, and nothing is allocated beyond what the octets
//! at hand can fill.

/// A record whose octets no version of this codec writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damaged;

/// Puts a varint, 1 to 10 octets.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Puts `value` as its difference from `base`, short when they are close.
pub(crate) fn put_near(out: &mut Vec<u8>, base: u64, value: u64) {
    put_varint(out, zigzag(value.wrapping_sub(base)));
}

/// Puts octets behind their length.
pub(crate) fn put_octets(out: &mut Vec<u8>, octets: &[u8]) {
    put_varint(out, octets.len() as u64);
    out.extend_from_slice(octets);
}

/// Puts a presence octet and, when there is one, the value.
pub(crate) fn put_option<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

/// A signed difference as a number that is small when the difference is.
pub(crate) fn zigzag(difference: u64) -> u64 {
    let signed = difference as i64;
    ((signed << 1) ^ (signed >> 63)) as u64
}

/// The difference that [`zigzag`] coded.
pub(crate) fn unzigzag(coded: u64) -> u64 {
    (coded >> 1) ^ (coded & 1).wrapping_neg()
}

/// The only way to a record's octets.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Begins a record and checks its version octet.
    pub(crate) fn new(octets: &'a [u8], version: u8) -> Result<Self, Damaged> {
        let mut reader = Self(octets);
        if reader.octet()? == version { Ok(reader) } else { Err(Damaged) }
    }

    /// Begins octets that have no version octet of their own.
    pub(crate) fn whole(octets: &'a [u8]) -> Self {
        Self(octets)
    }

    /// Octets that are left.
    pub(crate) fn left(&self) -> usize {
        self.0.len()
    }

    /// The next `n` octets.
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], Damaged> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(Damaged)?;
        self.0 = rest;
        Ok(head)
    }

    /// The next `N` octets.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        self.take(N)?.try_into().map_err(|_| Damaged)
    }

    /// One octet.
    pub(crate) fn octet(&mut self) -> Result<u8, Damaged> {
        Ok(self.take(1)?[0])
    }

    /// An octet that is 0 or 1.
    pub(crate) fn flag(&mut self) -> Result<bool, Damaged> {
        match self.octet()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Damaged),
        }
    }

    /// A varint.
    pub(crate) fn varint(&mut self) -> Result<u64, Damaged> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let octet = self.octet()?;
            let bits = u64::from(octet & 0x7F);
            if shift == 63 && bits > 1 {
                return Err(Damaged);
            }
            value |= bits << shift;
            if octet & 0x80 == 0 {
                return if octet == 0 && shift > 0 { Err(Damaged) } else { Ok(value) };
            }
        }
        Err(Damaged)
    }

    /// A varint that fits a smaller number.
    pub(crate) fn number<T: TryFrom<u64>>(&mut self) -> Result<T, Damaged> {
        T::try_from(self.varint()?).map_err(|_| Damaged)
    }

    /// A value that [`put_near`] put.
    pub(crate) fn near(&mut self, base: u64) -> Result<u64, Damaged> {
        Ok(base.wrapping_add(unzigzag(self.varint()?)))
    }

    /// How many items follow, each of which takes at least `least` octets.
    pub(crate) fn count(&mut self, least: usize) -> Result<usize, Damaged> {
        let n: usize = self.number()?;
        if n > self.left() / least { Err(Damaged) } else { Ok(n) }
    }

    /// Octets behind their length.
    pub(crate) fn octets(&mut self) -> Result<&'a [u8], Damaged> {
        let n = self.number()?;
        self.take(n)
    }

    /// Text behind its length, made into what it stands for.
    pub(crate) fn text<T>(&mut self, make: impl FnOnce(&str) -> Option<T>) -> Result<T, Damaged> {
        let text = std::str::from_utf8(self.octets()?).map_err(|_| Damaged)?;
        make(text).ok_or(Damaged)
    }

    /// What [`put_option`] put.
    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Damaged>,
    ) -> Result<Option<T>, Damaged> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    /// Refuses what is left over.
    pub(crate) fn end(self) -> Result<(), Damaged> {
        if self.0.is_empty() { Ok(()) } else { Err(Damaged) }
    }
}
