//! What the benches share: an engine over a store, and terminals in it.

#![allow(dead_code, unreachable_pub, reason = "each bench uses its own part")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ltkmd::delivery::{Rules, SmsAlone};
use ltkmd::engine::{
    CredentialKeys, CredentialSpec, Engine, Identity, ImportItem, Outbox, ServiceSpec, Settings,
};
use ltkmd::gba::GbaType;
use ltkmd::id::{BTid, KeyDomainId, Method, ServiceId, SubscriberId};
use ltkmd::keys::Validity;
use ltkmd::metrics::Metrics;
use ltkmd::secret::Secret;
use ltkmd::store::{Store, Subscriber};

/// The NAF FQDN of the benches.
pub const FQDN: &str = "bmsc.example.com";

/// Terminals' addresses: 127.1.0.0/16.
pub fn address(i: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 1, (i >> 8) as u8, i as u8))
}

/// The B-TID of a terminal.
pub fn btid(i: usize) -> BTid {
    BTid::new(&format!("{:024x}@bsf.example.com", i * 7_919)).expect("a B-TID")
}

/// The MRK and MUK of a terminal.
pub fn key(i: usize) -> Secret {
    Secret::new((0..32).map(|o| (i >> (o % 4 * 8)) as u8 ^ o as u8).collect())
}

/// An engine that sends its LTKMs to `udp` and never resends while a bench runs.
pub async fn engine(
    store: Arc<dyn Store>,
    udp: Arc<dyn Outbox>,
) -> Result<Arc<Engine>, Box<dyn std::error::Error>> {
    let rules = Rules {
        preference: vec![Method::Http, Method::Udp],
        verify: true,
        attempts: 4,
        first_timeout: Duration::from_secs(3600),
        sms_alone: SmsAlone::Accept,
        lead_time: Duration::from_secs(600),
        sms: None,
    };
    let identity = Identity { fqdn: FQDN.to_owned(), id_type: mikey::IdType::NAI };
    let (retain, nonce_lifetime) = (Duration::from_secs(86_400), Duration::from_secs(300));
    let settings = Settings { rules, identity, retain, udp_rate: None, nonce_lifetime };
    Ok(Arc::new(Engine::new(store, settings, Arc::new(Metrics::new()), udp).await?))
}

/// Puts an open service and the terminals in.
pub async fn provision(
    engine: &Arc<Engine>,
    service: &ServiceId,
    terminals: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    engine
        .put_service(ServiceSpec {
            id: service.clone(),
            key_domain: KeyDomainId([1, 2, 3]),
            key_group: 1,
            validity: Validity::Ntp,
            lifetime: Duration::from_secs(86_400),
            rotate_every: None,
            open: true,
            ext_bcast: None,
            invalidate_on_deregister: true,
            mtk_ids: (1, 65535),
            salt: false,
            srtp: None,
            lead_time: None,
        })
        .await?;
    let subscriber = |i: usize| SubscriberId::new(&format!("{i:015}@ims.example.com"));
    for first in (0..terminals).step_by(1000) {
        let range = first..(first + 1000).min(terminals);
        let mut items = Vec::with_capacity(2000);
        for i in range.clone() {
            let subscriber = Subscriber { id: subscriber(i)?, msisdn: None, services: Vec::new() };
            items.push(ImportItem::Subscriber(subscriber));
        }
        for i in range {
            items.push(ImportItem::Credential(CredentialSpec {
                btid: btid(i),
                subscriber: subscriber(i)?,
                keys: CredentialKeys::Pair { mrk: key(i), muk: key(i) },
                gba: GbaType::U,
                expires: None,
                t: None,
            }));
        }
        for outcome in engine.import(items).await {
            outcome?;
        }
    }
    Ok(())
}

/// Registers every terminal for the service, without HTTP around it; gives how long that took.
pub async fn register_all(engine: &Arc<Engine>, service: &ServiceId, terminals: usize) -> Duration {
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for lane in 0..256 {
        let (engine, service) = (Arc::clone(engine), service.clone());
        tasks.spawn(async move {
            for i in (lane..terminals).step_by(256) {
                if let Err(error) =
                    engine.register(&btid(i), address(i), vec![service.clone()], None, None).await
                {
                    eprintln!("registration {i}: {error}");
                }
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    began.elapsed()
}

/// Resident memory of this process, in octets.
pub fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}
