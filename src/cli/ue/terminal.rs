//! What a terminal does with LTKMs, without a socket or a clock: the replay rule, the keys it holds, the verification
//! messages it owes, and what a trigger asks of it (TS 33.246 §6.3.2, LTKM profile §5, §6).

use mikey::ltkm::{self, OpenedLtkm};
use mikey::psk::PresharedKey;
use mikey::{MakeError, OpenError};

use super::validity::Validity;
use crate::id::{BTid, KeyDomainId, Method, MskId};
use crate::secret::Secret;
use crate::time::Timestamp;

/// The most keys that a terminal holds; a new one pushes the one out that was received first.
pub const MAX_KEYS: usize = 1024;

/// HDR, T, V and the head of IDr in a verification message, in octets (RFC 3830 §6.1, §6.6, §6.7, §6.9).
const VERIFICATION_BESIDE_IDR: usize = 10 + 6 + 22 + 4;

/// A key that a terminal holds. Debug shows neither key nor salt.
#[derive(Debug, Clone)]
pub struct HeldKey {
    /// The key domain.
    pub key_domain: KeyDomainId,
    /// Key Group and Key Number.
    pub msk_id: MskId,
    /// The SEK/PEK.
    pub key: Secret,
    /// The salt, where the service has one.
    pub salt: Option<Secret>,
    /// When it may be used.
    pub validity: Validity,
    /// The T of the LTKM that brought it.
    pub counter: u32,
    /// How that LTKM came.
    pub method: Method,
    /// When that LTKM came.
    pub received: Timestamp,
}

/// What an LTKM without a key asks the terminal for (OMA BCAST §5.1.6.10.2, LTKM profile §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pull {
    /// An MSK request for the group's current key: the Key Number was 0.
    MskRequest {
        /// The key domain.
        key_domain: KeyDomainId,
        /// The group, its Key Number 0.
        msk_id: MskId,
    },
    /// A registration: the MSK ID was 0.
    Register,
}

impl Pull {
    /// What an LTKM without a key asks for under these ids; none when its Key Number is not 0.
    pub fn asked_by(key_domain: KeyDomainId, msk_id: MskId) -> Option<Self> {
        match msk_id {
            MskId([0, 0, 0, 0]) => Some(Self::Register),
            _ if msk_id.number() == 0 => Some(Self::MskRequest { key_domain, msk_id }),
            _ => None,
        }
    }
}

/// What an LTKM came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A key that the terminal did not hold.
    Stored(Validity),
    /// A key that it held already; the newer message counts.
    Refreshed(Validity),
    /// The key of this MSK ID is no longer to be used. `held`: the terminal had it.
    Invalidated {
        /// Whether there was a key to remove.
        held: bool,
    },
    /// No key, but a request to pull.
    Pull(Pull),
    /// No key, and an MSK ID that asks for nothing.
    Nothing,
}

impl Effect {
    /// Whether the LTKM brought a key that may be used.
    pub fn is_key(&self) -> bool {
        matches!(self, Self::Stored(_) | Self::Refreshed(_))
    }
}

/// An LTKM that was accepted.
#[derive(Debug)]
pub struct Processed {
    /// What it said; the key inside is the terminal's own.
    pub ltkm: OpenedLtkm,
    /// What it came to.
    pub effect: Effect,
    /// The verification message to send, when V was set. Messages leave in the order of processing.
    pub verification: Option<Vec<u8>>,
}

/// Why an LTKM was not accepted; nothing has changed and nothing is answered.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is malformed, or was not made with this terminal's MUK.
    #[error("it cannot be opened: {0}")]
    Unopened(#[from] OpenError),
    /// Its IDr is another terminal's B-TID.
    #[error("it is for {0}, not for this terminal")]
    Stranger(String),
    /// T does not rise: a replay, or overtaken by a newer one (RFC 3830 §5.4).
    #[error("its T is {counter}, and {highest} was accepted already: a replay, or overtaken")]
    Replay {
        /// The T it carries.
        counter: u32,
        /// The highest T accepted before.
        highest: u32,
    },
    /// Its answer cannot be made.
    #[error("its verification message cannot be made: {0}")]
    Answer(#[from] MakeError),
}

/// One terminal: a B-TID and its MUK, the highest T it accepted, and the keys it holds.
///
/// ```
/// use ltkmd::cli::ue::terminal::{Effect, Refusal, Terminal};
/// use ltkmd::id::{BTid, Method};
/// use ltkmd::secret::Secret;
/// use ltkmd::time::Timestamp;
/// # use mikey::{CsbId, IdType, KeyDomainId, MskId, psk::PresharedKey};
/// # use mikey::ltkm::{self, KeyData, KeyDataType, KeyValidity, Ltkm};
/// # let key = KeyData {
/// #     key_type: KeyDataType::TGK, key: &[0x11; 16], salt: None,
/// #     kv: KeyValidity::Interval { from: &[0, 1], to: &[0, 9] },
/// # };
/// # let sent = Ltkm {
/// #     v: true, csb_id: CsbId(7), counter: 1, rand: &[0x47; 16], id_type: IdType::NAI, idi: b"bmsc.example.com",
/// #     idr: b"alice@bsf.example.com", key_domain_id: KeyDomainId([0; 3]), msk_id: MskId::new(1, 1),
/// #     ext_bcast: None, srtp: None, key: Some(key),
/// # };
/// # let mut ltkm = [0; ltkm::BUFFER_LEN];
/// # let len = sent.write(&PresharedKey::new(&[0x2c; 32]), &mut ltkm)?;
/// # let ltkm = &ltkm[..len];
/// let mut terminal = Terminal::new(BTid::new("alice@bsf.example.com")?, Secret::new(vec![0x2c; 32]));
/// let accepted = terminal.process(ltkm, Method::Udp, Timestamp::now())?;
/// assert!(matches!(accepted.effect, Effect::Stored(_)) && accepted.verification.is_some());
/// assert!(matches!(terminal.process(ltkm, Method::Udp, Timestamp::now()), Err(Refusal::Replay { .. })));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Terminal {
    btid: BTid,
    muk: Secret,
    highest: Option<u32>,
    keys: Vec<HeldKey>,
}

impl Terminal {
    /// A terminal that has accepted nothing yet. `muk` is not empty.
    pub fn new(btid: BTid, muk: Secret) -> Self {
        Self { btid, muk, highest: None, keys: Vec::new() }
    }

    /// A terminal that goes on from what it had under the same MUK.
    pub fn resume(btid: BTid, muk: Secret, highest: Option<u32>, keys: Vec<HeldKey>) -> Self {
        Self { btid, muk, highest, keys }
    }

    /// Its B-TID.
    pub fn btid(&self) -> &BTid {
        &self.btid
    }

    /// The highest T accepted under this MUK.
    pub fn highest(&self) -> Option<u32> {
        self.highest
    }

    /// The keys it holds, the one received last at the end.
    pub fn keys(&self) -> &[HeldKey] {
        &self.keys
    }

    /// The key it holds under this id.
    pub fn key(&self, key_domain: KeyDomainId, msk_id: MskId) -> Option<&HeldKey> {
        self.keys.iter().find(|key| key.key_domain == key_domain && key.msk_id == msk_id)
    }

    /// Takes an LTKM: opens it, holds it to the replay rule, does what it says, and makes its answer.
    ///
    /// # Errors
    /// Why it is dropped without an answer.
    pub fn process(&mut self, octets: &[u8], method: Method, now: Timestamp) -> Result<Processed, Refusal> {
        let ltkm = ltkm::open(&PresharedKey::new(self.muk.expose()), octets)?;
        if ltkm.idr != self.btid.as_str().as_bytes() {
            return Err(Refusal::Stranger(String::from_utf8_lossy(&ltkm.idr).into_owned()));
        }
        if let Some(highest) = self.highest.filter(|highest| ltkm.counter <= *highest) {
            return Err(Refusal::Replay { counter: ltkm.counter, highest });
        }
        let verification = if ltkm.v { Some(self.verification(&ltkm)?) } else { None };
        self.highest = Some(ltkm.counter);
        let effect = self.apply(&ltkm, method, now);
        Ok(Processed { ltkm, effect, verification })
    }

    fn verification(&self, ltkm: &OpenedLtkm) -> Result<Vec<u8>, MakeError> {
        let mut answer = vec![0; VERIFICATION_BESIDE_IDR + ltkm.idr.len()];
        let len = ltkm.verification(&mut answer)?;
        answer.truncate(len);
        Ok(answer)
    }

    fn apply(&mut self, ltkm: &OpenedLtkm, method: Method, now: Timestamp) -> Effect {
        let (key_domain, msk_id) = (ltkm.key_domain_id, ltkm.msk_id);
        let Some(key) = &ltkm.key else {
            return Pull::asked_by(key_domain, msk_id).map_or(Effect::Nothing, Effect::Pull);
        };
        let held_at = self.keys.iter().position(|k| k.key_domain == key_domain && k.msk_id == msk_id);
        if let Some(at) = held_at {
            self.keys.remove(at);
        }
        let validity = Validity::from(&key.kv);
        if validity.is_invalidation() {
            return Effect::Invalidated { held: held_at.is_some() };
        }
        if self.keys.len() == MAX_KEYS {
            self.keys.remove(0);
        }
        self.keys.push(HeldKey {
            key_domain,
            msk_id,
            key: Secret::from(key.key.expose()),
            salt: key.salt.as_ref().map(|salt| Secret::from(salt.expose())),
            validity: validity.clone(),
            counter: ltkm.counter,
            method,
            received: now,
        });
        if held_at.is_some() { Effect::Refreshed(validity) } else { Effect::Stored(validity) }
    }
}

#[cfg(test)]
mod tests {
    use mikey::ltkm::{KeyData, KeyDataType, KeyValidity, Ltkm};
    use mikey::verification::Verification;
    use mikey::{CsbId, IdType};

    use super::*;

    const MUK: [u8; 32] = [0x2c; 32];
    const IDR: &str = "alice@bsf.example.com";
    const IDI: &[u8] = b"bmsc.example.com";
    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn terminal() -> Terminal {
        Terminal::new(BTid::new(IDR).unwrap(), Secret::new(MUK.to_vec()))
    }

    fn key<'a>(from: &'a [u8], to: &'a [u8]) -> Option<KeyData<'a>> {
        let kv = KeyValidity::Interval { from, to };
        Some(KeyData { key_type: KeyDataType::TGK, key: &[0x11; 16], salt: None, kv })
    }

    fn valid<'a>() -> Option<KeyData<'a>> {
        key(&[0xe8, 0, 0, 0], &[0xe9, 0, 0, 0])
    }

    fn ltkm<'a>(counter: u32, msk_id: MskId, key: Option<KeyData<'a>>) -> Ltkm<'a> {
        Ltkm {
            v: true,
            csb_id: CsbId(counter),
            counter,
            rand: &[0x47; 16],
            id_type: IdType::NAI,
            idi: IDI,
            idr: IDR.as_bytes(),
            key_domain_id: KeyDomainId([0, 0xf1, 0x10]),
            msk_id,
            ext_bcast: None,
            srtp: None,
            key,
        }
    }

    fn sealed(ltkm: &Ltkm<'_>) -> Vec<u8> {
        let mut out = vec![0; ltkm.encoded_len()];
        ltkm.write(&PresharedKey::new(&MUK), &mut out).unwrap();
        out
    }

    fn process(terminal: &mut Terminal, sent: &Ltkm<'_>) -> Result<Processed, Refusal> {
        terminal.process(&sealed(sent), Method::Udp, NOW)
    }

    #[test]
    fn an_accepted_key_is_held_with_its_validity_and_what_brought_it() {
        let mut terminal = terminal();
        let id = MskId::new(1, 1);
        let accepted = process(&mut terminal, &ltkm(1, id, valid())).unwrap();
        assert!(matches!(accepted.effect, Effect::Stored(_)));
        let held = terminal.key(KeyDomainId([0, 0xf1, 0x10]), id).unwrap();
        assert_eq!((held.key.expose(), held.counter, held.method), (&[0x11; 16][..], 1, Method::Udp));
        assert_eq!(held.validity, Validity::Ntp { from: 0xe800_0000, to: 0xe900_0000 });
    }

    #[test]
    fn a_counter_that_does_not_rise_is_refused_and_changes_nothing() {
        let mut terminal = terminal();
        process(&mut terminal, &ltkm(5, MskId::new(1, 1), valid())).unwrap();
        for counter in [5, 4, 0] {
            let refused = process(&mut terminal, &ltkm(counter, MskId::new(1, 2), valid()));
            assert!(
                matches!(refused, Err(Refusal::Replay { counter: c, highest: 5 }) if c == counter),
                "{counter}: {refused:?}"
            );
        }
        assert_eq!((terminal.highest(), terminal.keys().len()), (Some(5), 1));
        assert!(process(&mut terminal, &ltkm(6, MskId::new(1, 2), valid())).is_ok());
    }

    #[test]
    fn a_counter_of_zero_is_accepted_once() {
        let mut terminal = terminal();
        assert!(process(&mut terminal, &ltkm(0, MskId::new(1, 1), valid())).is_ok());
        assert!(process(&mut terminal, &ltkm(0, MskId::new(1, 1), valid())).is_err());
    }

    #[test]
    fn a_forged_message_does_not_move_the_counter() {
        let mut terminal = terminal();
        let mut forged = sealed(&ltkm(9, MskId::new(1, 1), valid()));
        *forged.last_mut().unwrap() ^= 1;
        assert!(matches!(terminal.process(&forged, Method::Udp, NOW), Err(Refusal::Unopened(_))));
        assert_eq!(terminal.highest(), None);
    }

    #[test]
    fn a_message_for_another_terminal_with_the_same_muk_is_refused() {
        let mut terminal = terminal();
        let sent = Ltkm { idr: b"bob@bsf.example.com", ..ltkm(1, MskId::new(1, 1), valid()) };
        assert!(
            matches!(process(&mut terminal, &sent), Err(Refusal::Stranger(idr)) if idr.starts_with("bob"))
        );
        assert_eq!(terminal.highest(), None);
    }

    #[test]
    fn an_invalidation_removes_the_key_of_its_id_alone_and_is_answered() {
        let mut terminal = terminal();
        process(&mut terminal, &ltkm(1, MskId::new(1, 1), valid())).unwrap();
        process(&mut terminal, &ltkm(2, MskId::new(1, 2), valid())).unwrap();
        let end = key(&[0xff; 4], &[0; 4]);
        let accepted = process(&mut terminal, &ltkm(3, MskId::new(1, 1), end)).unwrap();
        assert_eq!(accepted.effect, Effect::Invalidated { held: true });
        assert!(accepted.verification.is_some());
        let left: Vec<MskId> = terminal.keys().iter().map(|key| key.msk_id).collect();
        assert_eq!(left, [MskId::new(1, 2)]);
        let again = process(&mut terminal, &ltkm(4, MskId::new(1, 1), end)).unwrap();
        assert_eq!(again.effect, Effect::Invalidated { held: false });
    }

    #[test]
    fn a_key_that_comes_again_replaces_the_held_one() {
        let mut terminal = terminal();
        process(&mut terminal, &ltkm(1, MskId::new(1, 1), valid())).unwrap();
        let longer = key(&[0xe8, 0, 0, 0], &[0xea, 0, 0, 0]);
        let accepted = process(&mut terminal, &ltkm(2, MskId::new(1, 1), longer)).unwrap();
        assert_eq!(accepted.effect, Effect::Refreshed(Validity::Ntp { from: 0xe800_0000, to: 0xea00_0000 }));
        assert_eq!((terminal.keys().len(), terminal.keys()[0].counter), (1, 2));
    }

    #[test]
    fn verification_messages_come_in_the_order_of_processing_and_are_right() {
        let mut terminal = terminal();
        for counter in [3, 7, 8] {
            let sent = ltkm(counter, MskId::new(1, counter as u16), valid());
            let answer = process(&mut terminal, &sent).unwrap().verification.expect("V was set");
            let answer = Verification::parse(&answer).unwrap();
            assert_eq!((answer.counter(), answer.idr()), (counter, IDR.as_bytes()));
            answer.check(&PresharedKey::new(&MUK), sent.csb_id, sent.rand, IDI).unwrap();
        }
    }

    #[test]
    fn a_message_without_v_is_not_answered() {
        let sent = Ltkm { v: false, ..ltkm(1, MskId::new(1, 1), valid()) };
        assert!(process(&mut terminal(), &sent).unwrap().verification.is_none());
    }

    #[test]
    fn a_message_without_a_key_asks_for_a_pull_as_its_msk_id_says() {
        let mut terminal = terminal();
        let key_domain = KeyDomainId([0, 0xf1, 0x10]);
        for (counter, msk_id, effect) in [
            (1, MskId([0; 4]), Effect::Pull(Pull::Register)),
            (2, MskId::new(7, 0), Effect::Pull(Pull::MskRequest { key_domain, msk_id: MskId::new(7, 0) })),
            (3, MskId::new(7, 1), Effect::Nothing),
        ] {
            assert_eq!(process(&mut terminal, &ltkm(counter, msk_id, None)).unwrap().effect, effect);
        }
        assert!(terminal.keys().is_empty());
    }

    #[test]
    fn the_table_of_keys_is_bounded_and_the_oldest_leaves() {
        let mut terminal = terminal();
        for counter in 1..=MAX_KEYS as u32 + 1 {
            process(&mut terminal, &ltkm(counter, MskId::new(1, counter as u16), valid())).unwrap();
        }
        assert_eq!((terminal.keys().len(), terminal.keys()[0].msk_id), (MAX_KEYS, MskId::new(1, 2)));
    }

    #[test]
    fn a_held_key_shows_nothing_of_itself() {
        let mut terminal = terminal();
        process(&mut terminal, &ltkm(1, MskId::new(1, 1), valid())).unwrap();
        let shown = format!("{terminal:?}");
        assert!(!shown.contains("17, 17") && !shown.contains("44, 44") && !shown.contains("1111"), "{shown}");
    }
}
