//! What tests of any engine share: terminals, services, and driving futures.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ltkmd::delivery::{
    Delivery, Entropy, Kind, MessageId, Registration, Rules, SmsAlone, SmsLimits, Terminal,
};
use ltkmd::digest::NonceUse;
use ltkmd::gba::{Credential, GbaType};
use ltkmd::id::{
    BTid, JobId, KeyDomainId, Method, MethodSet, Msisdn, ServiceId, ServiceNo, SubscriberId, TerminalKey,
};
use ltkmd::keys::{Msk, Service, Validity};
use ltkmd::store::{CatalogueWrite, Decide, Scope, Store, StoreError, Subscriber, View};
use ltkmd::time::Timestamp;
use zeroize::Zeroizing;

/// Opens and reopens one store.
pub(crate) trait Factory {
    type Store: Store;

    /// A place for an empty store.
    fn new() -> Self;

    /// Opens the store in this place.
    fn open(&self) -> Self::Store;
}

/// The moment of all tests.
pub(crate) const NOW: Timestamp = Timestamp(1_790_000_000_000);

/// Runs a future to its end.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

pub(crate) fn btid(n: usize) -> BTid {
    BTid::new(&format!("terminal-{n}@bsf.example")).expect("a B-TID")
}

pub(crate) fn impi(n: usize) -> SubscriberId {
    SubscriberId::new(&format!("subscriber-{n}@ims.example")).expect("an IMPI")
}

pub(crate) fn subscriber(n: usize) -> Subscriber {
    Subscriber {
        id: impi(n),
        msisdn: Some(Msisdn::new("4917012345678").expect("an MSISDN")),
        services: vec![ServiceId::new("urn:service:1").expect("a service id")],
    }
}

pub(crate) fn service(no: u32) -> Service {
    Service {
        no: ServiceNo(no),
        id: ServiceId::new(&format!("urn:service:{no}")).expect("a service id"),
        key_domain: KeyDomainId([0x26, 0xF2, 0x01]),
        key_group: no as u16,
        validity: Validity::Ntp,
        lifetime: Duration::from_secs(86_400),
        rotate_every: Some(Duration::from_secs(43_200)),
        open: false,
        ext_bcast: Some(vec![1, 2, 3]),
        invalidate_on_deregister: true,
        mtk_ids: (1, 2),
        salt: true,
        srtp: None,
        lead_time: Some(Duration::from_millis(1500)),
        retired: None,
    }
}

pub(crate) fn msk(no: u32, number: u16) -> Msk {
    Msk {
        service: ServiceNo(no),
        number,
        msk: Zeroizing::new([number as u8; 16]),
        salt: Some(Zeroizing::new([no as u8; 14])),
        valid_from: NOW,
        valid_to: NOW + Duration::from_secs(86_400),
        mtk_ids: (1, 2),
    }
}

pub(crate) fn rules() -> Rules {
    Rules {
        preference: vec![Method::Udp, Method::Http],
        verify: true,
        attempts: 4,
        first_timeout: Duration::from_secs(2),
        sms_alone: SmsAlone::Accept,
        lead_time: Duration::from_secs(600),
        sms: None,
    }
}

pub(crate) fn entropy() -> Entropy {
    Entropy::new(1)
}

pub(crate) fn address() -> IpAddr {
    IpAddr::from([127, 0, 0, 1])
}

pub(crate) fn registration(services: &[u32]) -> Registration {
    Registration {
        set: MethodSet::UDP.with(Method::Http),
        address: address(),
        services: services.iter().copied().map(ServiceNo).collect(),
        registered_at: NOW,
        last_seen: NOW,
    }
}

/// A delivery of a key that was sent once with V.
pub(crate) fn sent(no: u32, number: u16, t: u32, job: Option<u64>) -> Delivery {
    let mut d = Delivery::new(ServiceNo(no), number, Kind::Key, job.map(JobId), NOW);
    d.attempt(Method::Udp, t, true, NOW, &rules(), &mut entropy());
    d
}

/// A message's id.
pub(crate) fn id(text: &str) -> MessageId {
    MessageId::new(text).expect("an id")
}

/// A delivery whose trigger a centre has accepted under these names.
pub(crate) fn accepted(number: u16, t: u32, ids: &[&str]) -> Delivery {
    let mut d = Delivery::new(ServiceNo(1), number, Kind::Key, None, NOW);
    d.triggered(t, &SmsLimits::default(), NOW);
    d.accepted(t, &ids.iter().copied().map(id).collect::<Vec<_>>());
    d
}

/// The terminals of messages.
pub(crate) async fn whose(store: &impl Store, ids: &[&str]) -> Vec<Option<TerminalKey>> {
    store.terminals_of_messages(ids.iter().copied().map(id).collect()).await.expect("readable")
}

/// Runs an update whose decision returns something.
pub(crate) async fn update<T: Send + 'static>(
    store: &impl Store,
    scope: Scope,
    mut decide: impl FnMut(&mut View) -> T + Send + 'static,
) -> Result<Option<T>, StoreError> {
    let out = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&out);
    let decide: Decide = Box::new(move |view| *slot.lock().unwrap() = Some(decide(view)));
    store.update(scope, decide).await?;
    Ok(out.lock().unwrap().take())
}

/// Puts terminals in: number `n` belongs to subscriber `n / per_subscriber`.
pub(crate) async fn provision(store: &impl Store, numbers: std::ops::Range<usize>, per_subscriber: usize) {
    let subscribers: std::collections::BTreeSet<usize> =
        numbers.clone().map(|n| n / per_subscriber).collect();
    let credentials: Vec<Credential> = numbers
        .map(|n| Credential {
            btid: btid(n),
            subscriber: impi(n / per_subscriber),
            mrk: store.sealer().seal_mrk(&btid(n), &[0xA1; 32]).expect("randomness"),
            muk: store.sealer().seal_muk(&btid(n), &[0xB2; 32]).expect("randomness"),
            gba: GbaType::Me,
            expires: None,
        })
        .collect();
    let btids = credentials.iter().map(|c| c.btid.clone()).collect();
    let scope = Scope::Credentials(btids, subscribers.iter().map(|s| impi(*s)).collect());
    update(store, scope, move |view| {
        for (slot, credential) in view.terminals.iter_mut().zip(&credentials) {
            slot.credential = Some(credential.clone());
        }
        for s in &subscribers {
            view.subscribers.insert(impi(*s), Some(subscriber(*s)));
        }
    })
    .await
    .expect("provisioned");
}

/// Registers one terminal for services without a delivery.
pub(crate) async fn register(store: &impl Store, n: usize, services: &'static [u32]) {
    update(store, Scope::Terminal(btid(n)), move |view| {
        view.terminals[0].registration = Some(registration(services));
    })
    .await
    .expect("registered");
}

/// Notes two nonces in a terminal's record, as several daemons over one store do.
pub(crate) fn use_nonces(terminal: &mut Terminal) {
    for (id, nc) in [(1, 1), (2, 7), (1, 3)] {
        let used = NonceUse { id, nc, issued: NOW };
        assert_eq!(terminal.nonces.use_up(used, Duration::from_secs(300), NOW), Ok(()));
    }
}

/// One terminal as it is.
pub(crate) async fn terminal(store: &impl Store, n: usize) -> Terminal {
    store.terminal(&btid(n)).await.expect("readable").expect("known")
}

/// Every terminal of `0..n` as it is.
pub(crate) async fn all(store: &impl Store, n: usize) -> Vec<Terminal> {
    let keys: Vec<TerminalKey> = (0..n).map(|n| store.terminal_key(&btid(n))).collect();
    store.terminals(keys).await.expect("readable")
}

/// Puts services 1 to `n` in, each with its first key.
pub(crate) async fn services(store: &impl Store, n: u32) {
    let writes =
        (1..=n).flat_map(|no| [CatalogueWrite::Service(service(no)), CatalogueWrite::Key(msk(no, 1))]);
    store.write_catalogue(writes.collect()).await.expect("written");
}
