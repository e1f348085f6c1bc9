//! Owned key material.

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// Key material that has come out of a message: zeroized when dropped, and Debug shows nothing of it.
///
/// There is no comparison on purpose: what must be compared is compared in constant time by this crate.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The octets. Whoever copies them answers for the copy.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn expose_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl From<&[u8]> for Secret {
    fn from(octets: &[u8]) -> Self {
        Self(octets.to_vec())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}
