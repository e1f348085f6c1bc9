//! Records as octets: compact, each with a version octet, equal octets for equal values.

mod holders;
mod nonces;

pub(crate) use holders::{put_holders, read_holders};

use std::net::IpAddr;
use std::time::Duration;

use super::codec::{Damaged, Reader, put_near, put_octets, put_option, put_varint, unzigzag, zigzag};
use super::{Job, JobKind, JobState, Members, Subscriber};
use crate::delivery::{
    Delivery, Kind, MessageId, Reason, ReceiptState, Registration, SmsLedger, SmsLeg, State, Terminal,
};
use crate::digest::NonceLedger;
use crate::gba::{Credential, GbaType};
use crate::id::{
    BTid, JobId, KeyDomainId, Method, MethodSet, Msisdn, ServiceId, ServiceNo, SubscriberId, TerminalKey,
};
use crate::keys::{Service, Validity};
use crate::secret::Sealed;
use crate::time::Timestamp;

/// Version octet of every record this code writes.
const VERSION: u8 = 1;

type Read<T> = Result<T, Damaged>;

fn put_time(out: &mut Vec<u8>, t: Timestamp) {
    put_varint(out, t.0);
}

fn method(octet: u8) -> Read<Method> {
    Method::from_type(octet).ok_or(Damaged)
}

/// Flags that are added to the version octet of a terminal's state. It was sent short messages: its ledger follows. Most
/// never are.
const WITH_LEDGER: u8 = 1;
/// It has nonces in use: they follow. Only where several daemons share a store.
const WITH_NONCES: u8 = 2;

/// What changes with every request and every fan-out: counter, registration, deliveries. It outlives the
/// credential.
pub(crate) fn put_state(out: &mut Vec<u8>, t: &Terminal) {
    let flag = |present: bool, flag: u8| if present { flag } else { 0 };
    let (ledger, nonces) = (t.ledger != SmsLedger::default(), !t.nonces.is_empty());
    out.push(VERSION + flag(ledger, WITH_LEDGER) + flag(nonces, WITH_NONCES));
    put_varint(out, t.next_t);
    put_option(out, t.registration.as_ref(), put_registration);
    put_varint(out, t.deliveries.len() as u64);
    for d in &t.deliveries {
        put_delivery(out, d);
    }
    if ledger {
        put_time(out, t.ledger.since);
        put_near(out, t.ledger.since.0, t.ledger.last.0);
        put_varint(out, u64::from(t.ledger.count));
    }
    if nonces {
        nonces::put_nonces(out, &t.nonces);
    }
}

/// Reads [`put_state`] into a terminal without a credential.
pub(crate) fn read_state(key: TerminalKey, octets: &[u8]) -> Read<Terminal> {
    let version = octets.first().copied().ok_or(Damaged)?;
    let flags = version.checked_sub(VERSION).ok_or(Damaged)?;
    if flags & !(WITH_LEDGER | WITH_NONCES) != 0 {
        return Err(Damaged);
    }
    let mut r = Reader::new(octets, version)?;
    let next_t = r.varint()?;
    let registration = r.option(read_registration)?;
    let n = r.count(8)?;
    // Collecting results would reserve four times what most terminals need.
    let mut deliveries = Vec::with_capacity(n);
    for _ in 0..n {
        deliveries.push(read_delivery(&mut r)?);
    }
    let mut ledger = SmsLedger::default();
    if flags & WITH_LEDGER != 0 {
        ledger.since = Timestamp(r.varint()?);
        ledger.last = Timestamp(r.near(ledger.since.0)?);
        ledger.count = r.number()?;
        if ledger == SmsLedger::default() {
            return Err(Damaged);
        }
    }
    let nonces = if flags & WITH_NONCES != 0 { nonces::read_nonces(&mut r)? } else { NonceLedger::default() };
    r.end()?;
    Ok(Terminal { key, credential: None, registration, next_t, deliveries, ledger, nonces })
}

fn put_registration(out: &mut Vec<u8>, r: &Registration) {
    out.push(r.set.bits());
    match r.address {
        IpAddr::V4(a) => put_octets(out, &a.octets()),
        IpAddr::V6(a) => put_octets(out, &a.octets()),
    }
    put_time(out, r.registered_at);
    put_near(out, r.registered_at.0, r.last_seen.0);
    put_varint(out, r.services.len() as u64);
    for s in &r.services {
        put_varint(out, u64::from(s.0));
    }
}

fn read_registration(r: &mut Reader<'_>) -> Read<Registration> {
    let bits = r.octet()?;
    let set = MethodSet::from_bits(bits);
    if set.bits() != bits {
        return Err(Damaged);
    }
    let address = r.octets()?;
    let address = if let Ok(v4) = <[u8; 4]>::try_from(address) {
        IpAddr::from(v4)
    } else {
        IpAddr::from(<[u8; 16]>::try_from(address).map_err(|_| Damaged)?)
    };
    let registered_at = Timestamp(r.varint()?);
    let last_seen = Timestamp(r.near(registered_at.0)?);
    let n = r.count(1)?;
    let mut services = Vec::with_capacity(n);
    for _ in 0..n {
        services.push(ServiceNo(r.number()?));
    }
    Ok(Registration { set, address, services, registered_at, last_seen })
}

/// Flags in a delivery's first octet, above 2 bits of kind and 3 bits of state: it has a way by SMS; the
/// fourth bit of its error.
const HAS_SMS: u8 = 1 << 5;
const ERROR_8: u8 = 1 << 6;

/// Flags in a delivery's second octet, above 2 bits of method and the lower 3 bits of error.
const HAS_DUE: u8 = 1 << 5;
const HAS_VERIFIED: u8 = 1 << 6;
const HAS_JOB: u8 = 1 << 7;

fn put_delivery(out: &mut Vec<u8>, d: &Delivery) {
    let flag = |present: bool, bit: u8| if present { bit } else { 0 };
    let error = d.error.map_or(0, |e| e as u8);
    out.push(
        d.kind as u8
            | (d.state as u8) << 2
            | flag(d.sms.is_some(), HAS_SMS)
            | flag(error & 0b1000 != 0, ERROR_8),
    );
    out.push(
        d.method.map_or(0, |m| m as u8 + 1)
            | (error & 0b111) << 2
            | flag(d.next_due.is_some(), HAS_DUE)
            | flag(d.verified.is_some(), HAS_VERIFIED)
            | flag(d.job.is_some(), HAS_JOB),
    );
    put_varint(out, u64::from(d.service.0));
    put_varint(out, u64::from(d.number));
    put_varint(out, u64::from(d.attempts));
    out.push(d.udp_attempts);
    put_time(out, d.updated);
    put_near(out, d.updated.0, d.queued.0);
    if let Some(due) = d.next_due {
        put_near(out, d.updated.0, due.0);
    }
    if let Some((when, via)) = d.verified {
        put_near(out, d.updated.0, when.0);
        out.push(via as u8);
    }
    if let Some(job) = d.job {
        put_varint(out, job.0);
    }
    put_varint(out, d.out.len() as u64);
    let mut last = 0u64;
    for &(t, via) in &d.out {
        let t = u64::from(t);
        put_varint(out, zigzag(t.wrapping_sub(last)) << 2 | via as u64);
        last = t;
    }
    if let Some(leg) = &d.sms {
        put_leg(out, leg, d.updated);
    }
}

fn put_leg(out: &mut Vec<u8>, leg: &SmsLeg, near: Timestamp) {
    put_varint(out, u64::from(leg.t));
    out.push(leg.attempts);
    out.push(leg.barred.map_or(0, |reason| reason as u8));
    put_option(out, leg.turn, |out, turn| put_near(out, near.0, turn.0));
    put_option(out, leg.receipt, |out, (state, at)| {
        out.push(state as u8);
        put_near(out, near.0, at.0);
    });
    put_varint(out, leg.ids.len() as u64);
    for id in &leg.ids {
        put_octets(out, id.as_str().as_bytes());
    }
}

fn read_leg(r: &mut Reader<'_>, near: Timestamp) -> Read<SmsLeg> {
    let t = r.number()?;
    let attempts = r.octet()?;
    let barred = match r.octet()? {
        0 => None,
        n => Some(Reason::from_octet(n).ok_or(Damaged)?),
    };
    let turn = r.option(|r| r.near(near.0).map(Timestamp))?;
    let receipt = r.option(|r| {
        let state = ReceiptState::from_octet(r.octet()?).ok_or(Damaged)?;
        Ok((state, Timestamp(r.near(near.0)?)))
    })?;
    let n = r.count(2)?;
    let mut ids = Vec::with_capacity(n);
    for _ in 0..n {
        ids.push(r.text(MessageId::new)?);
    }
    Ok(SmsLeg { t, attempts, turn, ids, receipt, barred })
}

fn read_delivery(r: &mut Reader<'_>) -> Read<Delivery> {
    let first = r.octet()?;
    let second = r.octet()?;
    let kind = Kind::from_octet(first & 0b11).ok_or(Damaged)?;
    let state = State::from_octet(first >> 2 & 0b111).ok_or(Damaged)?;
    if first & 1 << 7 != 0 {
        return Err(Damaged);
    }
    let carried = match second & 0b11 {
        0 => None,
        n => Some(method(n - 1)?),
    };
    let error = match second >> 2 & 0b111 | (first & ERROR_8) >> 3 {
        0 => None,
        n => Some(Reason::from_octet(n).ok_or(Damaged)?),
    };
    let service = ServiceNo(r.number()?);
    let number = r.number()?;
    let attempts = r.number()?;
    let udp_attempts = r.octet()?;
    let updated = Timestamp(r.varint()?);
    let queued = Timestamp(r.near(updated.0)?);
    let next_due = if second & HAS_DUE != 0 { Some(Timestamp(r.near(updated.0)?)) } else { None };
    let verified = if second & HAS_VERIFIED != 0 {
        let when = Timestamp(r.near(updated.0)?);
        Some((when, method(r.octet()?)?))
    } else {
        None
    };
    let job = if second & HAS_JOB != 0 { Some(JobId(r.varint()?)) } else { None };
    let n = r.count(1)?;
    let mut out = Vec::with_capacity(n);
    let mut last = 0u64;
    for _ in 0..n {
        let coded = r.varint()?;
        last = last.wrapping_add(unzigzag(coded >> 2));
        out.push((u32::try_from(last).map_err(|_| Damaged)?, method((coded & 0b11) as u8)?));
    }
    let sms = if first & HAS_SMS != 0 { Some(Box::new(read_leg(r, updated)?)) } else { None };
    Ok(Delivery {
        service,
        number,
        kind,
        state,
        method: carried,
        error,
        attempts,
        udp_attempts,
        next_due,
        queued,
        updated,
        verified,
        job,
        out,
        sms,
    })
}

/// The terminal that its records describe; a new one when there are none, whose T begins at `first_t`.
pub(crate) fn read_terminal(
    key: TerminalKey,
    credential: Option<&[u8]>,
    state: Option<&[u8]>,
    first_t: u64,
) -> Read<Terminal> {
    let mut terminal = match state {
        Some(octets) => read_state(key, octets)?,
        None => Terminal { next_t: first_t, ..Terminal::new(key) },
    };
    terminal.credential = credential.map(read_credential).transpose()?;
    Ok(terminal)
}

/// A credential with its sealed keys.
pub(crate) fn put_credential(out: &mut Vec<u8>, c: &Credential) {
    out.push(VERSION);
    out.push(match c.gba {
        GbaType::Me => 0,
        GbaType::U => 1,
    });
    put_option(out, c.expires, put_time);
    put_octets(out, c.btid.as_str().as_bytes());
    put_octets(out, c.subscriber.as_str().as_bytes());
    put_octets(out, c.mrk.octets());
    put_octets(out, c.muk.octets());
}

/// Reads [`put_credential`].
pub(crate) fn read_credential(octets: &[u8]) -> Read<Credential> {
    let mut r = Reader::new(octets, VERSION)?;
    let gba = if r.flag()? { GbaType::U } else { GbaType::Me };
    let expires = r.option(|r| r.varint().map(Timestamp))?;
    let btid = r.text(|s| BTid::new(s).ok())?;
    let subscriber = r.text(|s| SubscriberId::new(s).ok())?;
    let mrk = Sealed::from_octets(r.octets()?);
    let muk = Sealed::from_octets(r.octets()?);
    r.end()?;
    Ok(Credential { btid, subscriber, mrk, muk, gba, expires })
}

/// A subscriber's record: itself, while it exists, and where its credentials are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubscriberRecord {
    /// MSISDN and services; `None`: only credentials speak of it.
    pub(crate) subscriber: Option<Subscriber>,
    /// Terminals whose credential names it.
    pub(crate) terminals: Vec<TerminalKey>,
}

/// A subscriber's record under its IMPI.
pub(crate) fn put_subscriber(s: &SubscriberRecord) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_option(&mut out, s.subscriber.as_ref(), |out, s| {
        put_option(out, s.msisdn.as_ref(), |out, m| put_octets(out, m.as_str().as_bytes()));
        put_varint(out, s.services.len() as u64);
        for id in &s.services {
            put_octets(out, id.as_str().as_bytes());
        }
    });
    put_varint(&mut out, s.terminals.len() as u64);
    for key in &s.terminals {
        out.extend_from_slice(&key.0);
    }
    out
}

/// Reads [`put_subscriber`].
pub(crate) fn read_subscriber(id: &SubscriberId, octets: &[u8]) -> Read<SubscriberRecord> {
    let mut r = Reader::new(octets, VERSION)?;
    let subscriber = r.option(|r| {
        let msisdn = r.option(|r| r.text(|s| Msisdn::new(s).ok()))?;
        let n = r.count(2)?;
        let services = (0..n).map(|_| r.text(|s| ServiceId::new(s).ok())).collect::<Read<_>>()?;
        Ok(Subscriber { id: id.clone(), msisdn, services })
    })?;
    let n = r.count(16)?;
    let terminals = (0..n).map(|_| r.array().map(TerminalKey)).collect::<Read<_>>()?;
    r.end()?;
    Ok(SubscriberRecord { subscriber, terminals })
}

/// A job without its number, which is its key.
pub(crate) fn put_job(j: &Job) -> Vec<u8> {
    let mut out = vec![VERSION, j.kind as u8, j.state as u8];
    put_varint(&mut out, u64::from(j.service.0));
    put_varint(&mut out, u64::from(j.number));
    put_varint(&mut out, j.expected);
    put_option(&mut out, j.cursor, |out, key| out.extend_from_slice(&key.0));
    for n in j.states {
        put_varint(&mut out, n);
    }
    put_varint(&mut out, j.sent);
    put_time(&mut out, j.started);
    put_option(&mut out, j.finished, put_time);
    out
}

/// Reads [`put_job`].
pub(crate) fn read_job(id: JobId, octets: &[u8]) -> Read<Job> {
    let mut r = Reader::new(octets, VERSION)?;
    let kind = if r.flag()? { JobKind::Retire } else { JobKind::KeyUpdate };
    let state = match r.octet()? {
        0 => JobState::Running,
        1 => JobState::Paused,
        2 => JobState::Cancelled,
        3 => JobState::Done,
        _ => return Err(Damaged),
    };
    let service = ServiceNo(r.number()?);
    let number = r.number()?;
    let expected = r.varint()?;
    let cursor = r.option(|r| r.array().map(TerminalKey))?;
    let mut states = [0; State::ALL.len()];
    for n in &mut states {
        *n = r.varint()?;
    }
    let sent = r.varint()?;
    let started = Timestamp(r.varint()?);
    let finished = r.option(|r| r.varint().map(Timestamp))?;
    r.end()?;
    Ok(Job { id, kind, service, number, state, expected, cursor, states, sent, started, finished })
}

fn put_span(out: &mut Vec<u8>, span: Duration) {
    put_varint(out, span.as_secs());
    put_varint(out, u64::from(span.subsec_nanos()));
}

fn read_span(r: &mut Reader<'_>) -> Read<Duration> {
    let secs = r.varint()?;
    let nanos: u32 = r.number()?;
    if nanos < 1_000_000_000 { Ok(Duration::new(secs, nanos)) } else { Err(Damaged) }
}

/// A service without its number, which is its key.
pub(crate) fn put_service(s: &Service) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_octets(&mut out, s.id.as_str().as_bytes());
    out.extend_from_slice(&s.key_domain.0);
    out.extend_from_slice(&s.key_group.to_be_bytes());
    out.push(u8::from(s.validity == Validity::MtkId));
    put_span(&mut out, s.lifetime);
    put_option(&mut out, s.rotate_every, put_span);
    out.push(u8::from(s.open));
    put_option(&mut out, s.ext_bcast.as_deref(), put_octets);
    out.push(u8::from(s.invalidate_on_deregister));
    put_mtk_ids(&mut out, s.mtk_ids);
    out.push(u8::from(s.salt));
    put_option(&mut out, s.srtp.as_ref(), |out, srtp| {
        let json = serde_json::to_vec(srtp).expect("numbers and maps by number are JSON");
        put_octets(out, &json);
    });
    put_option(&mut out, s.lead_time, put_span);
    put_option(&mut out, s.retired, put_time);
    out
}

/// Reads [`put_service`].
pub(crate) fn read_service(no: ServiceNo, octets: &[u8]) -> Read<Service> {
    let mut r = Reader::new(octets, VERSION)?;
    let service = Service {
        no,
        id: r.text(|s| ServiceId::new(s).ok())?,
        key_domain: KeyDomainId(r.array()?),
        key_group: u16::from_be_bytes(r.array()?),
        validity: if r.flag()? { Validity::MtkId } else { Validity::Ntp },
        lifetime: read_span(&mut r)?,
        rotate_every: r.option(read_span)?,
        open: r.flag()?,
        ext_bcast: r.option(|r| r.octets().map(<[u8]>::to_vec))?,
        invalidate_on_deregister: r.flag()?,
        mtk_ids: read_mtk_ids(&mut r)?,
        salt: r.flag()?,
        srtp: r.option(|r| serde_json::from_slice(r.octets()?).map_err(|_| Damaged))?,
        lead_time: r.option(read_span)?,
        retired: r.option(|r| r.varint().map(Timestamp))?,
    };
    r.end()?;
    Ok(service)
}

fn put_mtk_ids(out: &mut Vec<u8>, (lower, upper): (u16, u16)) {
    out.extend_from_slice(&lower.to_be_bytes());
    out.extend_from_slice(&upper.to_be_bytes());
}

fn read_mtk_ids(r: &mut Reader<'_>) -> Read<(u16, u16)> {
    Ok((u16::from_be_bytes(r.array()?), u16::from_be_bytes(r.array()?)))
}

/// An MSK's record. Its service and number are its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyRecord {
    /// The place in the order in which all keys were made.
    pub(crate) ordinal: u64,
    /// MSK (16 octets) and, where there is one, salt (14).
    pub(crate) sealed: Sealed,
    pub(crate) valid_from: Timestamp,
    pub(crate) valid_to: Timestamp,
    pub(crate) mtk_ids: (u16, u16),
}

/// An MSK's record as octets.
pub(crate) fn put_key(k: &KeyRecord) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_varint(&mut out, k.ordinal);
    put_octets(&mut out, k.sealed.octets());
    put_time(&mut out, k.valid_from);
    put_time(&mut out, k.valid_to);
    put_mtk_ids(&mut out, k.mtk_ids);
    out
}

/// Reads [`put_key`].
pub(crate) fn read_key(octets: &[u8]) -> Read<KeyRecord> {
    let mut r = Reader::new(octets, VERSION)?;
    let key = KeyRecord {
        ordinal: r.varint()?,
        sealed: Sealed::from_octets(r.octets()?),
        valid_from: Timestamp(r.varint()?),
        valid_to: Timestamp(r.varint()?),
        mtk_ids: read_mtk_ids(&mut r)?,
    };
    r.end()?;
    Ok(key)
}

/// What the store counts, in one record that every commit rewrites when it changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Registered terminals by service; none with a total of 0.
    pub(crate) members: std::collections::BTreeMap<ServiceNo, Members>,
    /// Deliveries by state.
    pub(crate) deliveries: [u64; State::ALL.len()],
    /// State records.
    pub(crate) terminals: u64,
    /// Above every service number ever given out; 0 before the first.
    pub(crate) next_service: u32,
    /// The ordinal of the next key.
    pub(crate) next_ordinal: u64,
}

/// The counters as octets.
pub(crate) fn put_totals(t: &Totals) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_varint(&mut out, t.members.len() as u64);
    for (no, m) in &t.members {
        put_varint(&mut out, u64::from(no.0));
        for n in [m.udp, m.http, m.sms, m.total] {
            put_varint(&mut out, n);
        }
    }
    for n in t.deliveries {
        put_varint(&mut out, n);
    }
    put_varint(&mut out, t.terminals);
    put_varint(&mut out, u64::from(t.next_service));
    put_varint(&mut out, t.next_ordinal);
    out
}

/// Reads [`put_totals`].
pub(crate) fn read_totals(octets: &[u8]) -> Read<Totals> {
    let mut r = Reader::new(octets, VERSION)?;
    let mut totals = Totals::default();
    for _ in 0..r.count(5)? {
        let no = ServiceNo(r.number()?);
        let members = Members { udp: r.varint()?, http: r.varint()?, sms: r.varint()?, total: r.varint()? };
        totals.members.insert(no, members);
    }
    for n in &mut totals.deliveries {
        *n = r.varint()?;
    }
    totals.terminals = r.varint()?;
    totals.next_service = r.number()?;
    totals.next_ordinal = r.varint()?;
    r.end()?;
    Ok(totals)
}

#[cfg(test)]
mod tests;
