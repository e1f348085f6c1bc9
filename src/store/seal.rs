//! Sealing: AES-256-GCM under data keys that the master key wraps; and what derives from them.
//!
//! Each secret is bound to its record by associated data. Sealed form: generation (1 octet) ‖ nonce (12) ‖
//! ciphertext ‖ tag (16).

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::id::{BTid, CsbId, TerminalKey};
use crate::secret::{Sealed, Secret};

/// Length of the nonce of one sealing.
const NONCE: usize = 12;

/// A sealed value that does not open: another master key, or a damaged record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sealed value does not open: wrong store key, or a damaged record")]
pub struct SealError;

/// Seals and opens secrets under the store's data key, and holds the store's derived secrets.
pub struct Sealer {
    generation: u8,
    cipher: Aes256Gcm,
    place: Hmac<Sha256>,
    ltkm: Hmac<Sha256>,
    backup: Hmac<Sha256>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Sealer {
    /// Makes a data key (32 octets from the system) and wraps it for the store's metadata.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn create(master: &[u8; 32]) -> Result<(Self, Sealed), getrandom::Error> {
        let mut data_key = Zeroizing::new([0u8; 32]);
        getrandom::fill(&mut *data_key)?;
        let wrapped = seal_with(&Aes256Gcm::new(master.into()), 1, b"data key", &*data_key)?;
        Ok((Self::with_data_key(1, &data_key), wrapped))
    }

    /// Opens the data key that [`Sealer::create`] wrapped.
    ///
    /// # Errors
    /// It was wrapped by another master key.
    pub fn unwrap(master: &[u8; 32], wrapped: &Sealed) -> Result<Self, SealError> {
        let plain = open_with(&Aes256Gcm::new(master.into()), b"data key", wrapped)?;
        let data_key: Zeroizing<[u8; 32]> = Zeroizing::new(plain.expose().try_into().map_err(|_| SealError)?);
        let generation = *wrapped.octets().first().ok_or(SealError)?;
        Ok(Self::with_data_key(generation, &data_key))
    }

    fn with_data_key(generation: u8, data_key: &[u8; 32]) -> Self {
        let derived = |label: &[u8]| {
            let mut mac =
                <Hmac<Sha256> as KeyInit>::new_from_slice(data_key).expect("HMAC takes any key length");
            mac.update(label);
            let key = Zeroizing::new(<[u8; 32]>::from(mac.finalize().into_bytes()));
            <Hmac<Sha256> as KeyInit>::new_from_slice(&*key).expect("HMAC takes any key length")
        };
        Self {
            generation,
            cipher: Aes256Gcm::new(data_key.into()),
            place: derived(b"terminal key"),
            ltkm: derived(b"ltkm rand"),
            backup: derived(b"backup"),
        }
    }

    /// Seals a secret for the record that `context` names.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Sealed, getrandom::Error> {
        seal_with(&self.cipher, self.generation, context, plain)
    }

    /// Opens what [`Sealer::seal`] sealed for the same record.
    ///
    /// # Errors
    /// Sealed for another record, under another key, or damaged.
    pub fn open(&self, context: &[u8], sealed: &Sealed) -> Result<Secret, SealError> {
        open_with(&self.cipher, context, sealed)
    }

    /// Seals a terminal's MRK.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn seal_mrk(&self, btid: &BTid, mrk: &[u8]) -> Result<Sealed, getrandom::Error> {
        self.seal(&context(b"mrk", btid), mrk)
    }

    /// Seals a terminal's MUK.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub fn seal_muk(&self, btid: &BTid, muk: &[u8]) -> Result<Sealed, getrandom::Error> {
        self.seal(&context(b"muk", btid), muk)
    }

    /// Opens a terminal's MRK.
    ///
    /// # Errors
    /// See [`Sealer::open`].
    pub fn open_mrk(&self, btid: &BTid, sealed: &Sealed) -> Result<Secret, SealError> {
        self.open(&context(b"mrk", btid), sealed)
    }

    /// Opens a terminal's MUK.
    ///
    /// # Errors
    /// See [`Sealer::open`].
    pub fn open_muk(&self, btid: &BTid, sealed: &Sealed) -> Result<Secret, SealError> {
        self.open(&context(b"muk", btid), sealed)
    }

    /// The keyed hash that places a B-TID: 128 bits of HMAC-SHA-256.
    pub fn terminal_key(&self, btid: &BTid) -> TerminalKey {
        let mut mac = self.place.clone();
        mac.update(btid.as_str().as_bytes());
        let digest = mac.finalize().into_bytes();
        TerminalKey(digest[..16].try_into().expect("SHA-256 gives 32 octets"))
    }

    /// HMAC-SHA-256 over a backup's hash: its writer had this store's data key.
    pub(crate) fn backup_mac(&self, digest: &[u8; 32]) -> [u8; 32] {
        let mut mac = self.backup.clone();
        mac.update(digest);
        mac.finalize().into_bytes().into()
    }

    /// RAND (16 octets) and CSB ID of the LTKM with this T: pseudo-random, fresh with each T, and known again
    /// from (B-TID, T) alone when its answer arrives.
    pub fn ltkm_rand(&self, btid: &BTid, t: u32) -> ([u8; 16], CsbId) {
        let mut mac = self.ltkm.clone();
        mac.update(&t.to_be_bytes());
        mac.update(btid.as_str().as_bytes());
        let digest = mac.finalize().into_bytes();
        let rand = digest[..16].try_into().expect("SHA-256 gives 32 octets");
        let csb_id = u32::from_be_bytes(digest[16..20].try_into().expect("SHA-256 gives 32 octets"));
        (rand, CsbId(csb_id))
    }
}

fn context(what: &[u8], btid: &BTid) -> Vec<u8> {
    [what, b" ", btid.as_str().as_bytes()].concat()
}

fn seal_with(
    cipher: &Aes256Gcm,
    generation: u8,
    context: &[u8],
    plain: &[u8],
) -> Result<Sealed, getrandom::Error> {
    let mut nonce = [0u8; NONCE];
    getrandom::fill(&mut nonce)?;
    let ciphertext = cipher
        .encrypt(&Nonce::from(nonce), Payload { msg: plain, aad: context })
        .expect("AES-GCM takes messages of up to 64 GiB");
    Ok(Sealed::from_octets(&[&[generation], &nonce[..], &ciphertext].concat()))
}

fn open_with(cipher: &Aes256Gcm, context: &[u8], sealed: &Sealed) -> Result<Secret, SealError> {
    let (_generation, rest) = sealed.octets().split_first().ok_or(SealError)?;
    let (nonce, ciphertext) = rest.split_first_chunk::<NONCE>().ok_or(SealError)?;
    cipher
        .decrypt(&Nonce::from(*nonce), Payload { msg: ciphertext, aad: context })
        .map(Secret::new)
        .map_err(|_| SealError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_only_for_its_own_record_and_under_its_own_key() {
        let (sealer, wrapped) = Sealer::create(&[7; 32]).expect("randomness");
        let a = BTid::new("a@bsf").expect("a B-TID");
        let b = BTid::new("b@bsf").expect("a B-TID");
        let sealed = sealer.seal_mrk(&a, &[1; 32]).expect("randomness");
        assert_eq!(sealer.open_mrk(&a, &sealed).expect("opens").expose(), [1; 32]);
        assert_eq!(sealer.open_mrk(&b, &sealed), Err(SealError));
        assert_eq!(sealer.open_muk(&a, &sealed), Err(SealError));
        let again = Sealer::unwrap(&[7; 32], &wrapped).expect("the right master key");
        assert_eq!(again.open_mrk(&a, &sealed).expect("opens").expose(), [1; 32]);
        assert_eq!(again.terminal_key(&a), sealer.terminal_key(&a));
        assert_eq!(again.ltkm_rand(&a, 5), sealer.ltkm_rand(&a, 5));
        assert!(Sealer::unwrap(&[8; 32], &wrapped).is_err());
    }

    #[test]
    fn rand_and_csb_id_change_with_every_t_and_every_terminal() {
        let (sealer, _) = Sealer::create(&[7; 32]).expect("randomness");
        let (a, b) = (BTid::new("a@bsf").expect("a B-TID"), BTid::new("b@bsf").expect("a B-TID"));
        assert_ne!(sealer.ltkm_rand(&a, 1), sealer.ltkm_rand(&a, 2));
        assert_ne!(sealer.ltkm_rand(&a, 1), sealer.ltkm_rand(&b, 1));
    }

    #[test]
    fn a_changed_octet_does_not_open() {
        let (sealer, _) = Sealer::create(&[7; 32]).expect("randomness");
        let sealed = sealer.seal(b"x", b"secret").expect("randomness");
        for i in 1..sealed.octets().len() {
            let mut octets = sealed.octets().to_vec();
            octets[i] ^= 1;
            assert_eq!(sealer.open(b"x", &Sealed::from_octets(&octets)), Err(SealError));
        }
    }
}
