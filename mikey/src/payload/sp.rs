//! SP, the security policy payload, and its parameters (RFC 3830 §6.10).

use core::fmt;

use crate::{
    error::{DecodeError, MakeError},
    hex::Hex,
    octets::{Reader, Writer},
    registry::{ProtType, SrtpParam},
};

/// SP payload: the policy of one security protocol (RFC 3830 §6.10).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sp<'a> {
    /// Policy no: distinct for each SP payload of a message.
    pub policy_no: u8,
    /// Prot type.
    pub prot_type: ProtType,
    params: &'a [u8],
}

impl<'a> Sp<'a> {
    /// A policy from its parameters as they stand on the wire: Type, Length, Value after each other.
    ///
    /// # Errors
    /// A [`DecodeError`], counted from the first octet of `params`, when they are no such sequence.
    pub fn new(policy_no: u8, prot_type: ProtType, params: &'a [u8]) -> Result<Self, DecodeError> {
        Self::checked(policy_no, prot_type, Reader::new(params))
    }

    fn checked(policy_no: u8, prot_type: ProtType, mut reader: Reader<'a>) -> Result<Self, DecodeError> {
        let params = reader.clone().rest();
        while !reader.is_empty() {
            SpParam::decode(&mut reader)?;
        }
        Ok(Self { policy_no, prot_type, params })
    }

    /// The parameters, in order.
    #[must_use]
    pub fn params(&self) -> SpParams<'a> {
        SpParams(Reader::new(self.params))
    }

    /// The parameters as they stand on the wire.
    #[must_use]
    pub const fn param_octets(&self) -> &'a [u8] {
        self.params
    }

    pub(crate) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let policy_no = reader.u8("Policy no")?;
        let prot_type = ProtType(reader.u8("Prot type")?);
        let len = reader.u16("Policy param length")?;
        let at = reader.at();
        let params = reader.take(len.into(), "Policy param")?;
        Self::checked(policy_no, prot_type, Reader::at_base(params, at))
    }

    pub(crate) fn encode(&self, writer: &mut Writer<'_>) -> Result<(), MakeError> {
        writer.put(&[self.policy_no, self.prot_type.0])?;
        writer.vec16(self.params, "Policy param")
    }
}

impl fmt::Display for Sp<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SP: policy {}, {}", self.policy_no, self.prot_type)?;
        self.params().try_for_each(|param| {
            if self.prot_type == ProtType::SRTP {
                write!(f, ", {} = {}", SrtpParam(param.param_type), Hex(param.value))
            } else {
                write!(f, ", {} = {}", param.param_type, Hex(param.value))
            }
        })
    }
}

impl fmt::Debug for Sp<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sp")
            .field("policy_no", &self.policy_no)
            .field("prot_type", &self.prot_type)
            .field("params", &Hex(self.params))
            .finish()
    }
}

/// One parameter of a policy: Type, Length, Value (RFC 3830 §6.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpParam<'a> {
    /// Type: an [`SrtpParam`] in an SRTP policy.
    pub param_type: u8,
    /// Value, at most 255 octets.
    pub value: &'a [u8],
}

impl<'a> SpParam<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let param_type = reader.u8("policy parameter Type")?;
        let len = reader.u8("policy parameter Length")?;
        Ok(Self { param_type, value: reader.take(len.into(), "policy parameter Value")? })
    }
}

/// The parameters of an [`Sp`], in order.
#[derive(Debug, Clone)]
pub struct SpParams<'a>(Reader<'a>);

impl<'a> Iterator for SpParams<'a> {
    type Item = SpParam<'a>;

    fn next(&mut self) -> Option<SpParam<'a>> {
        // An Sp is only made from parameters that decode, so an error is as good as the end.
        if self.0.is_empty() { None } else { SpParam::decode(&mut self.0).ok() }
    }
}
