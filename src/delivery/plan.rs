//! Which method: the negotiated set, the operator's preference, and what they allow (LTKM profile §4).

use std::time::Duration;

use super::life::Kind;
use super::sms::SmsLimits;
use crate::id::{Method, MethodSet};

/// What to do with a registration that declares SMS alone (`delivery.sms_alone`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmsAlone {
    /// Accept it, with a warning.
    Accept,
    /// Answer 403 on the status line.
    Refuse,
}

/// The operator's part of every decision.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Enabled methods in order of preference; UDP is among them.
    pub preference: Vec<Method>,
    /// Whether LTKMs with a key ask for a verification message.
    pub verify: bool,
    /// LTKMs by UDP before another method or none is tried, at least 1.
    pub attempts: u8,
    /// How long the first answer is awaited.
    pub first_timeout: Duration,
    /// What a set of SMS alone is worth.
    pub sms_alone: SmsAlone,
    /// How long before its start a next key is distributed, where the service does not say.
    pub lead_time: Duration,
    /// How SMS may be used; `None`: it is switched off.
    pub sms: Option<SmsLimits>,
}

impl Rules {
    /// The enabled methods as a set.
    pub fn enabled(&self) -> MethodSet {
        self.preference.iter().copied().collect()
    }

    /// The set that a registration negotiates; `None`: the 403 of the status line.
    ///
    /// `declared` holds the `Type` values as sent; `None`: the terminal declared nothing, which means UDP.
    pub fn negotiate(&self, declared: Option<&[u8]>) -> Option<MethodSet> {
        let Some(types) = declared else { return Some(MethodSet::UDP) };
        let supported: MethodSet = types.iter().filter_map(|t| Method::from_type(*t)).collect();
        let set = supported.intersection(self.enabled());
        let sms_alone = set == MethodSet::EMPTY.with(Method::Sms);
        let refused = set.is_empty() || (sms_alone && self.sms_alone == SmsAlone::Refuse);
        (!refused).then_some(set)
    }

    /// What an unsolicited LTKM may go by, the first choice first: UDP or SMS as the operator prefers, for a
    /// trigger SMS before UDP. SMS brings only triggers: a key needs HTTP or UDP for what the pull asks for,
    /// and a key that ends is not pulled.
    pub fn push_methods(&self, set: MethodSet, kind: Kind) -> impl Iterator<Item = Method> {
        const TRIGGER: [Method; 2] = [Method::Sms, Method::Udp];
        let sms = set.contains(Method::Sms) && self.sms.is_some();
        let sms = match kind {
            Kind::Key => sms && (set.contains(Method::Http) || set.contains(Method::Udp)),
            Kind::Invalidate => false,
            Kind::TriggerMskRequest | Kind::TriggerRegister => sms,
        };
        let order = if kind.is_trigger() { &TRIGGER[..] } else { &self.preference[..] };
        let able = move |m: &Method| match *m {
            Method::Udp => set.contains(Method::Udp),
            Method::Sms => sms,
            Method::Http => false,
        };
        order.iter().copied().filter(able)
    }
}

/// Randomness as a value: a seed from the driver, stretched by SplitMix64. Spreads timers, protects nothing.
#[derive(Debug, Clone)]
pub struct Entropy(u64);

impl Entropy {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The span ±10 %.
    pub fn spread(&mut self, span: Duration) -> Duration {
        let tenth = span.as_millis() as u64 / 10;
        let drift = if tenth == 0 { 0 } else { self.draw() % (2 * tenth + 1) };
        Duration::from_millis(span.as_millis() as u64 - tenth + drift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(preference: &[Method]) -> Rules {
        Rules {
            preference: preference.to_vec(),
            verify: true,
            attempts: 4,
            first_timeout: Duration::from_secs(2),
            sms_alone: SmsAlone::Accept,
            lead_time: Duration::from_secs(600),
            sms: Some(SmsLimits::default()),
        }
    }

    #[test]
    fn a_terminal_that_declares_nothing_has_udp() {
        assert_eq!(rules(&Method::ALL).negotiate(None), Some(MethodSet::UDP));
    }

    #[test]
    fn the_set_is_the_intersection_and_unknown_types_do_not_count() {
        let rules = rules(&[Method::Http, Method::Udp]);
        let http = MethodSet::EMPTY.with(Method::Http);
        assert_eq!(rules.negotiate(Some(&[2, 1, 77, 200])), Some(http));
        assert_eq!(rules.negotiate(Some(&[0, 2])), Some(http.with(Method::Udp)));
        assert_eq!(rules.negotiate(Some(&[1])), None);
        assert_eq!(rules.negotiate(Some(&[128])), None);
    }

    #[test]
    fn sms_alone_is_accepted_or_refused_as_configured() {
        let mut rules = rules(&Method::ALL);
        assert_eq!(rules.negotiate(Some(&[1])), Some(MethodSet::EMPTY.with(Method::Sms)));
        rules.sms_alone = SmsAlone::Refuse;
        assert_eq!(rules.negotiate(Some(&[1])), None);
        assert!(rules.negotiate(Some(&[1, 2])).is_some());
    }

    #[test]
    fn a_key_is_pushed_by_what_comes_first_and_sms_needs_a_way_for_the_pull() {
        let set = |methods: &[Method]| methods.iter().copied().collect::<MethodSet>();
        let push = |rules: &Rules, of: &[Method], kind| rules.push_methods(set(of), kind).collect::<Vec<_>>();
        use Method::{Http, Sms, Udp};
        let udp_first = rules(&[Http, Udp, Sms]);
        let sms_first = rules(&[Http, Sms, Udp]);
        assert_eq!(push(&udp_first, &[Http, Udp, Sms], Kind::Key), [Udp, Sms]);
        assert_eq!(push(&sms_first, &[Udp, Sms], Kind::Key), [Sms, Udp]);
        assert_eq!(push(&udp_first, &[Http, Sms], Kind::Key), [Sms]);
        assert_eq!(push(&udp_first, &[Sms], Kind::Key), []);
        assert_eq!(push(&udp_first, &[Http, Sms], Kind::Invalidate), []);
        assert_eq!(push(&udp_first, &[Http, Udp, Sms], Kind::TriggerRegister), [Sms, Udp]);
        assert_eq!(push(&udp_first, &[Sms], Kind::TriggerRegister), [Sms]);
        let off = Rules { sms: None, ..udp_first };
        assert_eq!(push(&off, &[Udp, Sms], Kind::Key), [Udp]);
    }

    #[test]
    fn timers_spread_by_a_tenth_to_either_side() {
        let mut entropy = Entropy::new(7);
        let spread: Vec<u64> =
            (0..1000).map(|_| entropy.spread(Duration::from_secs(2)).as_millis() as u64).collect();
        assert!(spread.iter().all(|ms| (1800..=2200).contains(ms)));
        assert!(spread.iter().any(|ms| *ms < 1850) && spread.iter().any(|ms| *ms > 2150));
    }
}
