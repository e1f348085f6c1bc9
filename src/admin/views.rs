//! The documents that answers hold. Every field is always there; their schemas are derived.

use std::collections::BTreeMap;
use std::sync::Arc;

use data_encoding::{BASE64, HEXLOWER};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, Type};

use crate::delivery::{Delivery, Kind, ReceiptState, State, Terminal};
use crate::gba::{Credential, GbaType};
use crate::id::{BTid, Method, MskId, ServiceNo, TerminalKey};
use crate::keys::{Catalogue, KeyState, Msk, ServiceKeys, Srtp, Validity};
use crate::store::{Holders, Job, JobKind, JobState, Members, Subscriber};
use crate::time::Timestamp;
use crate::units::format_duration;

fn words<T: Copy>(all: &[T], as_str: impl Fn(T) -> &'static str) -> Schema {
    let words = all.iter().map(|one| as_str(*one));
    Schema::Object(ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).build())
}

fn states() -> Schema {
    words(&State::ALL, State::as_str)
}

fn receipt_states() -> Schema {
    words(&ReceiptState::ALL, ReceiptState::as_str)
}

fn methods() -> Schema {
    words(&Method::ALL, Method::as_str)
}

fn kinds() -> Schema {
    words(&[Kind::Key, Kind::Invalidate, Kind::TriggerRegister], Kind::as_str)
}

/// Registered terminals by method.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Registered {
    /// With UDP in their set.
    udp: u64,
    /// With HTTP in their set.
    http: u64,
    /// With SMS in their set.
    sms: u64,
    /// All.
    total: u64,
}

impl From<Members> for Registered {
    fn from(m: Members) -> Self {
        Self { udp: m.udp, http: m.http, sms: m.sms, total: m.total }
    }
}

/// Terminals that hold a key, by what brought it.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct Holding {
    /// By UDP.
    udp: u64,
    /// Inside the answer to a request.
    http: u64,
    /// Inside the answer to the request that a short message asked for.
    sms: u64,
    /// All.
    total: u64,
    /// Those of them that were never asked for a proof (`delivery.verify = false`).
    assumed: u64,
}

impl From<Holders> for Holding {
    fn from(h: Holders) -> Self {
        Self { udp: h.udp, http: h.http, sms: h.sms, total: h.total(), assumed: h.assumed }
    }
}

/// A service.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Service {
    /// The MBMS User Service ID.
    id: String,
    /// Key Domain ID, 6 hexadecimal digits.
    key_domain: String,
    /// Key Group, 4 hexadecimal digits.
    key_group: String,
    /// How LTKMs write a key's validity: `ntp` or `mtk-id`.
    #[schema(value_type = String)]
    validity: Validity,
    /// How long a new key is valid.
    lifetime: String,
    /// From one key's start to the next one's; null: no schedule.
    rotate_every: Option<String>,
    /// Whether any authenticated terminal may register.
    open: bool,
    /// Management data of the OMA BCAST extension, base64; null: no extension.
    ext_bcast: Option<String>,
    /// Whether the end of a registration invalidates the keys it brought.
    invalidate_on_deregister: bool,
    /// Lower and upper MTK ID.
    #[schema(value_type = Vec<u16>)]
    mtk_ids: (u16, u16),
    /// Whether keys carry a salt.
    salt: bool,
    /// SRTP-ID map and security policies; null: the empty map.
    #[schema(value_type = Option<Object>)]
    srtp: Option<Srtp>,
    /// How long before its start a next key is distributed; null: the configuration's.
    lead_time: Option<String>,
    /// The current key's MSK ID, 8 hexadecimal digits.
    msk_id: Option<String>,
    /// Terminals registered for it.
    terminals: Registered,
    /// Those of them that hold the current key.
    holders: Holding,
}

impl Service {
    pub(super) fn new(entry: &ServiceKeys, members: Members, holders: Holders, now: Timestamp) -> Self {
        let s = &entry.service;
        Self {
            id: s.id.to_string(),
            key_domain: HEXLOWER.encode(&s.key_domain.0),
            key_group: format!("{:04x}", s.key_group),
            validity: s.validity,
            lifetime: format_duration(s.lifetime),
            rotate_every: s.rotate_every.map(format_duration),
            open: s.open,
            ext_bcast: s.ext_bcast.as_deref().map(|octets| BASE64.encode(octets)),
            invalidate_on_deregister: s.invalidate_on_deregister,
            mtk_ids: s.mtk_ids,
            salt: s.salt,
            srtp: s.srtp.clone(),
            lead_time: s.lead_time.map(format_duration),
            msk_id: entry.current(now).map(|k| s.msk_id(k.number).to_string()),
            terminals: members.into(),
            holders: holders.into(),
        }
    }
}

/// A key of a service.
#[derive(Serialize, ToSchema)]
pub(super) struct Key {
    /// MSK ID, 8 hexadecimal digits.
    msk_id: String,
    /// The first moment of its validity.
    #[schema(value_type = String, format = DateTime)]
    valid_from: Timestamp,
    /// The first moment after its validity.
    #[schema(value_type = String, format = DateTime)]
    valid_to: Timestamp,
    /// `next`, `current` or `past`.
    #[schema(value_type = String)]
    state: KeyState,
    /// The MSK, base64; only with `secrets=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    msk: Option<String>,
    /// The salt, base64; only with `secrets=true`, and of a service with salts.
    #[serde(skip_serializing_if = "Option::is_none")]
    salt: Option<String>,
}

impl Key {
    pub(super) fn new(entry: &ServiceKeys, key: &Msk, secrets: bool, now: Timestamp) -> Self {
        let salt = key.salt.as_ref().filter(|_| secrets);
        Self {
            msk_id: entry.service.msk_id(key.number).to_string(),
            valid_from: key.valid_from,
            valid_to: key.valid_to,
            state: entry.state(key, now),
            msk: secrets.then(|| BASE64.encode(&*key.msk)),
            salt: salt.map(|salt| BASE64.encode(&**salt)),
        }
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        use zeroize::Zeroize;
        self.msk.zeroize();
        self.salt.zeroize();
    }
}

/// What a rotation began.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Rotation {
    /// The job that brings the key to the registered terminals.
    pub(super) job: u64,
    /// The new key's MSK ID, 8 hexadecimal digits.
    pub(super) msk_id: String,
}

/// A fan-out job.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub(super) struct JobView {
    /// Its number.
    id: u64,
    /// `running`, `paused`, `cancelled` or `done`.
    #[schema(value_type = String)]
    state: JobState,
    /// What it does: `key` brings a key, `retire` ends the registrations of a deleted service.
    kind: &'static str,
    /// The service; null once it is purged.
    service: Option<String>,
    /// The key's MSK ID; null for `retire`.
    msk_id: Option<String>,
    /// The terminals it is about.
    terminals: u64,
    /// Those it came to; the others are queued, or cancelled once it is cancelled.
    visited: u64,
    /// Those tried at least once.
    sent: u64,
    /// Those that proved to have the key.
    verified: u64,
    /// Those that wait for the terminal's next request.
    awaiting_pull: u64,
    /// Those given up.
    failed: u64,
    /// Every delivery state with its count; they add up to `terminals`.
    states: BTreeMap<&'static str, u64>,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    started: Timestamp,
    /// When it was done or cancelled.
    #[schema(value_type = Option<String>, format = DateTime)]
    finished: Option<Timestamp>,
}

impl JobView {
    pub(super) fn new(job: &Job, catalogue: &Catalogue) -> Self {
        let states = job.progress();
        let count = |state: State| states[state as usize];
        let service = catalogue.get(job.service).map(|entry| &entry.service);
        let key_update = job.kind == JobKind::KeyUpdate;
        Self {
            id: job.id.0,
            state: job.state,
            kind: if key_update { "key" } else { "retire" },
            service: service.map(|s| s.id.to_string()),
            msk_id: service.filter(|_| key_update).map(|s| s.msk_id(job.number).to_string()),
            terminals: states.iter().sum(),
            visited: job.visited(),
            sent: job.sent,
            verified: count(State::Verified),
            awaiting_pull: count(State::AwaitingPull),
            failed: count(State::Failed),
            states: State::ALL.into_iter().map(|s| (s.as_str(), count(s))).collect(),
            started: job.started,
            finished: job.finished,
        }
    }
}

/// A subscriber.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Subscriber)]
pub(super) struct SubscriberView {
    /// Its IMPI.
    id: String,
    /// Where SMS goes, international form without the leading +.
    msisdn: Option<String>,
    /// The services it is entitled to.
    services: Vec<String>,
    /// The B-TIDs of its credentials.
    credentials: Vec<String>,
}

impl SubscriberView {
    pub(super) fn new(subscriber: &Subscriber, credentials: &[BTid]) -> Self {
        Self {
            id: subscriber.id.to_string(),
            msisdn: subscriber.msisdn.as_ref().map(ToString::to_string),
            services: subscriber.services.iter().map(ToString::to_string).collect(),
            credentials: credentials.iter().map(ToString::to_string).collect(),
        }
    }
}

/// A credential; its keys are never shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Credential)]
pub(super) struct CredentialView {
    /// The B-TID.
    btid: String,
    /// The subscriber's IMPI.
    subscriber: String,
    /// `me` or `u`: where the terminal keeps its half.
    #[schema(value_type = String)]
    gba: GbaType,
    /// When it stops to count; null: never.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires: Option<Timestamp>,
    /// The counter's highest value so far; another daemon that is given it goes on from it.
    t: u64,
}

impl CredentialView {
    pub(super) fn new(credential: &Credential, next_t: u64) -> Self {
        Self {
            btid: credential.btid.to_string(),
            subscriber: credential.subscriber.to_string(),
            gba: credential.gba,
            expires: credential.expires,
            t: next_t.saturating_sub(1),
        }
    }
}

/// A key that a terminal proved to have.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VerifiedKey {
    /// The service.
    service: String,
    /// The key's MSK ID, 8 hexadecimal digits.
    msk_id: String,
    /// When the proof arrived.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
}

/// A terminal that has registered.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Terminal)]
pub(super) struct TerminalView {
    /// Its B-TID.
    btid: String,
    /// Its subscriber's IMPI.
    subscriber: String,
    /// Where UDP goes: the address of its last authenticated request.
    address: String,
    /// The delivery methods negotiated at its last registration.
    #[schema(schema_with = method_list)]
    methods: Vec<Method>,
    /// The services it is registered for.
    services: Vec<String>,
    /// The keys it proved to have.
    verified: Vec<VerifiedKey>,
    /// Deliveries with something left to do.
    deliveries_open: usize,
    /// When it last registered.
    #[schema(value_type = String, format = DateTime)]
    registered_at: Timestamp,
    /// When it last made an authenticated request.
    #[schema(value_type = String, format = DateTime)]
    last_seen: Timestamp,
}

fn method_list() -> Schema {
    Schema::Array(ArrayBuilder::new().items(RefOr::T(methods())).build())
}

/// A service's id, of a retired service too; `None` once it is purged.
fn service_id(catalogue: &Catalogue, no: ServiceNo) -> Option<String> {
    catalogue.get(no).map(|entry| entry.service.id.to_string())
}

impl TerminalView {
    /// `None`: it has no credential any more or never registered. `preference` orders the methods.
    pub(super) fn new(terminal: &Terminal, catalogue: &Catalogue, preference: &[Method]) -> Option<Self> {
        let (credential, registration) = (terminal.credential.as_ref()?, terminal.registration.as_ref()?);
        let mut methods: Vec<Method> = registration.set.iter().collect();
        methods.sort_by_key(|m| preference.iter().position(|p| p == m).unwrap_or(usize::MAX));
        let verified = terminal.deliveries.iter().filter(|d| d.kind == Kind::Key).filter_map(|d| {
            let service = &catalogue.get(d.service)?.service;
            let (at, _) = d.verified?;
            Some(VerifiedKey {
                service: service.id.to_string(),
                msk_id: service.msk_id(d.number).to_string(),
                at,
            })
        });
        Some(Self {
            btid: credential.btid.to_string(),
            subscriber: credential.subscriber.to_string(),
            address: registration.address.to_string(),
            methods,
            services: registration.services.iter().filter_map(|no| service_id(catalogue, *no)).collect(),
            verified: verified.collect(),
            deliveries_open: terminal.deliveries.iter().filter(|d| d.state.is_open()).count(),
            registered_at: registration.registered_at,
            last_seen: registration.last_seen,
        })
    }
}

/// A key, an invalidation or a trigger on its way to a terminal.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub(super) struct DeliveryView {
    /// Its id: the same for as long as it is known.
    id: String,
    /// The terminal's B-TID.
    terminal: String,
    /// The service; null for a trigger to register.
    service: Option<String>,
    /// What its LTKM names, 8 hexadecimal digits; a trigger's Key Number is 0. Null once the service is purged.
    msk_id: Option<String>,
    /// What it does.
    #[schema(schema_with = kinds)]
    kind: &'static str,
    /// Where it stands.
    #[schema(schema_with = states)]
    state: State,
    /// What carried the latest attempt: `udp`, `http` or `sms`.
    #[schema(value_type = Option<String>)]
    method: Option<Method>,
    /// LTKMs made for it.
    attempts: u16,
    /// Why it failed.
    error: Option<&'static str>,
    /// When it is looked at again.
    #[schema(value_type = Option<String>, format = DateTime)]
    next_due: Option<Timestamp>,
    /// When it came to be.
    #[schema(value_type = String, format = DateTime)]
    queued: Timestamp,
    /// When it last changed.
    #[schema(value_type = String, format = DateTime)]
    updated: Timestamp,
    /// When the terminal proved to have it.
    #[schema(value_type = Option<String>, format = DateTime)]
    verified: Option<Timestamp>,
    /// The fan-out job it counts for.
    job: Option<u64>,
    /// What the short message centre calls the parts of the latest trigger by SMS.
    message_ids: Vec<String>,
    /// The latest delivery receipt of that trigger.
    receipt: Option<ReceiptView>,
}

/// A delivery receipt.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReceiptView {
    /// What became of the short message: `delivered`, `expired`, `undeliverable` …
    #[schema(schema_with = receipt_states)]
    state: &'static str,
    /// When the receipt came.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
}

impl DeliveryView {
    pub(super) fn new(terminal: TerminalKey, btid: &BTid, d: &Delivery, catalogue: &Catalogue) -> Self {
        let mut id = terminal.0.to_vec();
        id.extend(d.service.0.to_be_bytes());
        id.extend(d.number.to_be_bytes());
        id.push(d.kind as u8);
        let register = d.kind == Kind::TriggerRegister;
        let sent = d.sms.as_deref();
        let service = catalogue.get(d.service).filter(|_| !register).map(|entry| &entry.service);
        let msk_id = if register { Some(MskId::new(0, 0)) } else { service.map(|s| s.msk_id(d.number)) };
        Self {
            id: HEXLOWER.encode(&id),
            terminal: btid.to_string(),
            service: service.map(|s| s.id.to_string()),
            msk_id: msk_id.map(|id| id.to_string()),
            kind: d.kind.as_str(),
            state: d.state,
            method: d.method,
            attempts: d.attempts,
            error: d.error.map(crate::delivery::Reason::as_str),
            next_due: d.next_due,
            queued: d.queued,
            updated: d.updated,
            verified: d.verified.map(|(at, _)| at),
            job: d.job.map(|job| job.0),
            message_ids: sent
                .map(|leg| leg.ids.iter().map(|id| id.as_str().to_owned()).collect())
                .unwrap_or_default(),
            receipt: sent
                .and_then(|leg| leg.receipt)
                .map(|(state, at)| ReceiptView { state: state.as_str(), at }),
        }
    }
}

/// What an import came to.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct Imported {
    /// Lines that were applied.
    pub(super) counts: ImportCounts,
    /// Lines that were skipped for a fault.
    pub(super) failed: u64,
    /// The first 100 faults.
    pub(super) faults: Vec<LineFault>,
}

/// Lines that were applied, by what they bring.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct ImportCounts {
    /// Services.
    pub(super) service: u64,
    /// Subscribers.
    pub(super) subscriber: u64,
    /// Credentials.
    pub(super) credential: u64,
}

/// What is wrong with a line of an import.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LineFault {
    /// The line's number, from 1.
    pub(super) line: u64,
    /// What is wrong, and where.
    pub(super) error: String,
}

/// What works and what does not.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Status {
    /// The daemon's version.
    pub(super) version: &'static str,
    /// The daemon's clock.
    #[schema(value_type = String, format = DateTime)]
    pub(super) now: Timestamp,
    /// Whether the store and all listeners work.
    pub(super) ready: bool,
    /// Each of them: `ok`, or what is wrong.
    pub(super) checks: BTreeMap<&'static str, String>,
    /// Services.
    pub(super) services: usize,
    /// Registrations by method: a terminal counts once for each of its services.
    pub(super) registrations: Registered,
    /// Deliveries by open state.
    pub(super) deliveries_open: BTreeMap<&'static str, u64>,
    /// Fan-out jobs that run.
    pub(super) jobs_running: usize,
    /// Fan-out jobs that are paused.
    pub(super) jobs_paused: usize,
}

/// A liveness or readiness answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// Always `ok`; anything else is a problem document.
    pub(super) status: &'static str,
    /// What was looked at.
    pub(super) checks: BTreeMap<&'static str, String>,
}

/// Where the audit log stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuditHead {
    /// The file.
    pub(super) file: String,
    /// The number of its last line, from 1.
    pub(super) seq: u64,
    /// That line's SHA-256, 64 hexadecimal digits.
    pub(super) hash: String,
    /// Why it cannot be written now; nothing can be changed until it can.
    pub(super) trouble: Option<String>,
}

/// A page of a list.
#[derive(Debug, Serialize)]
pub(super) struct Page<T> {
    /// The items.
    pub(super) items: Vec<T>,
    /// What `after` has to be for the next page; null: this is the last.
    pub(super) next: Option<String>,
}

/// Names and schemas of the documents above.
pub(super) fn schemas() -> Vec<(String, RefOr<Schema>)> {
    use utoipa::PartialSchema;
    let mut all = Vec::new();
    macro_rules! add {
        ($($view:ty),*) => {$(
            all.push((<$view>::name().into_owned(), <$view>::schema()));
        )*};
    }
    add!(
        Registered,
        Holding,
        Service,
        Key,
        Rotation,
        JobView,
        SubscriberView,
        CredentialView,
        VerifiedKey,
        TerminalView,
        DeliveryView,
        ReceiptView,
        Imported,
        ImportCounts,
        LineFault,
        Status,
        AuditHead,
        Health,
        super::cluster::ClusterView,
        super::cluster::NodeView,
        super::cluster::DatabaseView,
        super::cluster::StandbyView,
        super::cluster::CitusView,
        super::cluster::WorkerView,
        super::status::Overview,
        super::status::Smsc,
        super::status::StoreHealth,
        super::status::Coverage,
        super::status::NextKey,
        super::status::Hour,
        super::status::MinuteView,
        super::freeze::FreezeView,
        super::problem::Document
    );
    all
}

/// Keeps the catalogue's entries alive while a page is made of them.
pub(super) type Entry = Arc<ServiceKeys>;
