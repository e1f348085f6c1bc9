//! General Extension (RFC 3830 §6.15), with the Key ID information of RFC 4563 and OMA BCAST of RFC 5410.

use core::fmt;

use crate::{
    error::{DecodeError, MakeError},
    hex::Hex,
    octets::{Reader, Writer},
    registry::{BcastSubtype, ExtType, KeyIdType},
};

/// General Extension payload (RFC 3830 §6.15). Types 3 and 5 are checked when they are decoded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct GeneralExt<'a> {
    ext_type: ExtType,
    data: &'a [u8],
}

impl<'a> GeneralExt<'a> {
    /// An extension of any type from its Data field.
    ///
    /// # Errors
    /// A [`DecodeError`], counted from the first octet of `data`, when a Key ID or OMA BCAST extension does not
    /// hold what its RFC says.
    pub fn new(ext_type: ExtType, data: &'a [u8]) -> Result<Self, DecodeError> {
        Self::checked(ext_type, data, 0)
    }

    /// An extension whose Data field this crate has put together itself.
    pub(crate) const fn unchecked(ext_type: ExtType, data: &'a [u8]) -> Self {
        Self { ext_type, data }
    }

    fn checked(ext_type: ExtType, data: &'a [u8], base: usize) -> Result<Self, DecodeError> {
        let mut reader = Reader::at_base(data, base);
        match ext_type {
            ExtType::KEY_ID => {
                while !reader.is_empty() {
                    KeyId::decode(&mut reader)?;
                }
            }
            ExtType::OMA_BCAST => {
                reader.u8("OMA BCAST Subtype")?;
            }
            _ => {}
        }
        Ok(Self { ext_type, data })
    }

    /// Type.
    #[must_use]
    pub const fn ext_type(&self) -> ExtType {
        self.ext_type
    }

    /// The whole Data field.
    #[must_use]
    pub const fn data(&self) -> &'a [u8] {
        self.data
    }

    /// The Key ID Type sub-payloads, if this is a Key ID extension (RFC 4563 §4).
    #[must_use]
    pub fn key_ids(&self) -> Option<KeyIds<'a>> {
        (self.ext_type == ExtType::KEY_ID).then(|| KeyIds(Reader::new(self.data)))
    }

    /// Subtype and data, if this is an OMA BCAST extension (RFC 5410 §3).
    #[must_use]
    pub fn bcast(&self) -> Option<Bcast<'a>> {
        let (&subtype, data) = self.data.split_first()?;
        (self.ext_type == ExtType::OMA_BCAST).then_some(Bcast { subtype: BcastSubtype(subtype), data })
    }

    pub(crate) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let ext_type = ExtType(reader.u8("General Ext. Type")?);
        let len = reader.u16("General Ext. Length")?;
        let at = reader.at();
        Self::checked(ext_type, reader.take(len.into(), "General Ext. Data")?, at)
    }

    pub(crate) fn encode(&self, writer: &mut Writer<'_>) -> Result<(), MakeError> {
        writer.u8(self.ext_type.0)?;
        writer.vec16(self.data, "General Ext. Data")
    }
}

impl fmt::Display for GeneralExt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EXT: {}", self.ext_type)?;
        match (self.key_ids(), self.bcast()) {
            (Some(mut key_ids), _) => key_ids.try_for_each(|key_id| write!(f, ", {key_id}")),
            (None, Some(bcast)) => write!(f, ", {bcast}"),
            (None, None) => write!(f, ", {}", Hex(self.data)),
        }
    }
}

impl fmt::Debug for GeneralExt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GeneralExt").field("ext_type", &self.ext_type).field("data", &Hex(self.data)).finish()
    }
}

/// One Key ID Type sub-payload (RFC 4563 §4, Figure 2).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyId<'a> {
    /// Key ID Type.
    pub key_id_type: KeyIdType,
    /// Key ID, at most 255 octets.
    pub id: &'a [u8],
}

impl<'a> KeyId<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let key_id_type = KeyIdType(reader.u8("Key ID Type")?);
        let len = reader.u8("Key ID Length")?;
        Ok(Self { key_id_type, id: reader.take(len.into(), "Key ID")? })
    }
}

impl fmt::Display for KeyId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key_id_type, Hex(self.id))
    }
}

impl fmt::Debug for KeyId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyId").field("key_id_type", &self.key_id_type).field("id", &Hex(self.id)).finish()
    }
}

/// The Key ID Type sub-payloads of a [`GeneralExt`], in order.
#[derive(Debug, Clone)]
pub struct KeyIds<'a>(Reader<'a>);

impl<'a> Iterator for KeyIds<'a> {
    type Item = KeyId<'a>;

    fn next(&mut self) -> Option<KeyId<'a>> {
        // A Key ID extension is only made from sub-payloads that decode, so an error is as good as the end.
        if self.0.is_empty() { None } else { KeyId::decode(&mut self.0).ok() }
    }
}

/// The content of an OMA BCAST extension (RFC 5410 §3, Figure 3).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bcast<'a> {
    /// Subtype.
    pub subtype: BcastSubtype,
    /// Subtype specific data: in an LTKM, the management data of OMA BCAST service and content protection.
    pub data: &'a [u8],
}

impl fmt::Display for Bcast<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.subtype, Hex(self.data))
    }
}

impl fmt::Debug for Bcast<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bcast").field("subtype", &self.subtype).field("data", &Hex(self.data)).finish()
    }
}
