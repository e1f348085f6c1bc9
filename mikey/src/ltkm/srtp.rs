//! The SRTP part of an LTKM: SRTP-ID map and policies (RFC 3830 §6.1.1, §6.10).

use crate::{
    error::MakeError,
    octets::bounded,
    payload::{SRTP_ID_LEN, Sp, SrtpId},
    registry::{ProtType, SrtpParam},
};

/// The security policy of SRTP streams: one SP payload (RFC 3830 §6.10, §6.10.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    policy_no: u8,
    prot_type: ProtType,
    params: Vec<u8>,
}

impl Policy {
    /// An SRTP policy with its number and no parameters: what is not set takes SRTP's own defaults.
    #[must_use]
    pub const fn new(policy_no: u8) -> Self {
        Self { policy_no, prot_type: ProtType::SRTP, params: Vec::new() }
    }

    /// The same policy with one parameter more.
    ///
    /// # Errors
    /// [`MakeError::TooLong`] for a value of more than 255 octets, or more than 65,535 octets of parameters in all.
    pub fn with(mut self, param: SrtpParam, value: &[u8]) -> Result<Self, MakeError> {
        let len = bounded(value.len(), u8::MAX.into(), "policy parameter Value")?;
        bounded(self.params.len() + 2 + len, u16::MAX.into(), "Policy param")?;
        self.params.extend_from_slice(&[param.0, len as u8]);
        self.params.extend_from_slice(value);
        Ok(self)
    }

    /// The policy as an SP payload.
    #[must_use]
    pub fn sp(&self) -> Sp<'_> {
        Sp::new(self.policy_no, self.prot_type, &self.params).expect("with adds whole parameters")
    }

    pub(super) fn from_sp(sp: &Sp<'_>) -> Self {
        Self { policy_no: sp.policy_no, prot_type: sp.prot_type, params: sp.param_octets().to_vec() }
    }

    pub(super) fn encoded_len(&self) -> usize {
        5 + self.params.len()
    }
}

/// The crypto sessions and policies that an LTKM carries for SRTP streams, prepared once per service.
///
/// ```
/// use mikey::{SrtpParam, ltkm::{Policy, Srtp}, payload::SrtpId};
///
/// let policy = Policy::new(0).with(SrtpParam::ENCR_ALG, &[1])?.with(SrtpParam::AUTH_TAG_LEN, &[10])?;
/// let stream = SrtpId { policy_no: 0, ssrc: 0x1234_5678, roc: 0 };
/// let srtp = Srtp::new(&[stream], vec![policy])?;
/// assert!(srtp.streams().eq([stream]));
/// # Ok::<_, mikey::MakeError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srtp {
    map: Vec<u8>,
    policies: Vec<Policy>,
}

impl Srtp {
    /// At most 255 streams, each with a policy out of `policies`, whose numbers are distinct.
    ///
    /// # Errors
    /// [`MakeError::TooLong`] for more streams, [`MakeError::Policy`] for a number that is missing or there twice.
    pub fn new(streams: &[SrtpId], policies: Vec<Policy>) -> Result<Self, MakeError> {
        bounded(streams.len(), u8::MAX.into(), "#CS")?;
        let mut known = [false; 256];
        for policy in &policies {
            if std::mem::replace(&mut known[usize::from(policy.policy_no)], true) {
                return Err(MakeError::Policy(policy.policy_no));
            }
        }
        if let Some(stream) = streams.iter().find(|stream| !known[usize::from(stream.policy_no)]) {
            return Err(MakeError::Policy(stream.policy_no));
        }
        Ok(Self::from_parts(streams.iter().copied(), policies))
    }

    /// What a received message says, whether its numbers fit or not.
    pub(super) fn from_parts(streams: impl Iterator<Item = SrtpId>, policies: Vec<Policy>) -> Self {
        Self { map: streams.flat_map(SrtpId::to_octets).collect(), policies }
    }

    /// The streams, in the order of their crypto session IDs.
    pub fn streams(&self) -> impl ExactSizeIterator<Item = SrtpId> + '_ {
        self.map.as_chunks().0.iter().map(|octets| SrtpId::from_octets(*octets))
    }

    /// The policies.
    #[must_use]
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// #CS and CS ID map info.
    pub(super) fn map(&self) -> (u8, &[u8]) {
        ((self.map.len() / SRTP_ID_LEN) as u8, &self.map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_needs_its_policy_and_a_policy_number_is_given_once() {
        let stream = SrtpId { policy_no: 3, ssrc: 1, roc: 0 };
        assert_eq!(Srtp::new(&[stream], vec![Policy::new(2)]), Err(MakeError::Policy(3)));
        assert_eq!(Srtp::new(&[], vec![Policy::new(2), Policy::new(2)]), Err(MakeError::Policy(2)));
        assert!(Srtp::new(&[stream], vec![Policy::new(2), Policy::new(3)]).is_ok());
    }

    #[test]
    fn more_than_255_streams_do_not_fit_into_the_count() {
        let stream = SrtpId { policy_no: 0, ssrc: 1, roc: 0 };
        assert!(Srtp::new(&[stream; 255], vec![Policy::new(0)]).is_ok());
        let error = MakeError::TooLong { field: "#CS", found: 256, max: 255 };
        assert_eq!(Srtp::new(&[stream; 256], vec![Policy::new(0)]), Err(error));
    }
}
