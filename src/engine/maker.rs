//! Orders become LTKMs (LTKM profile §5): which octets, not whether or when.

use std::net::IpAddr;

use mikey::ltkm::{self, Ltkm};
use mikey::payload::{KeyData, KeyValidity, SrtpId};
use mikey::psk::PresharedKey;
use mikey::{IdType, KeyDataType, SrtpParam};
use zeroize::Zeroizing;

use super::{Engine, Recipient};
use crate::delivery::{Kind, Order};
use crate::id::{BTid, KeyDomainId, Method, MskId, TerminalKey};
use crate::keys::{Catalogue, Msk, Service, Srtp, Validity};
use crate::store::{Sealer, StoreError};

/// Who LTKMs are from, and how both ends are written.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The NAF FQDN: IDi.
    pub fqdn: String,
    /// ID type of IDi and IDr.
    pub id_type: IdType,
}

/// Makes one terminal's LTKMs.
pub(super) struct Maker<'a> {
    identity: &'a Identity,
    sealer: &'a Sealer,
    catalogue: &'a Catalogue,
    btid: &'a BTid,
    psk: PresharedKey,
}

impl Engine {
    pub(super) fn maker<'a>(
        &'a self,
        catalogue: &'a Catalogue,
        recipient: &'a Recipient,
    ) -> Result<Maker<'a>, StoreError> {
        let sealer = self.store.sealer();
        let btid = &recipient.btid;
        let muk = sealer
            .open_muk(btid, &recipient.muk)
            .map_err(|e| StoreError::Damaged(format!("MUK of {btid}: {e}")))?;
        let psk = PresharedKey::new(muk.expose());
        Ok(Maker { identity: &self.settings.identity, sealer, catalogue, btid, psk })
    }

    /// Makes one terminal's orders for UDP and sends them.
    pub(super) fn push(&self, maker: &Maker<'_>, recipient: &Recipient, orders: &[Order]) {
        let mut batch = Batch::default();
        for order in orders {
            batch.add(maker, recipient, order);
        }
        self.send(&batch, false);
    }

    /// Makes many terminals' orders and sends them in one go.
    pub(super) fn push_all(&self, work: &[(Recipient, Vec<Order>)]) {
        self.send(&self.batch(work), false);
    }

    /// The same for who looks after these terminals: one that has become another daemon's meanwhile is left to it. Its
    /// deliveries are due again at their time.
    pub(super) fn push_held(&self, work: &[(Recipient, Vec<Order>)]) {
        self.send(&self.batch(work), self.store.is_shared());
    }

    /// What of this work may still go out, for who hands it over one by one; see [`Self::push_held`].
    pub(super) fn still_held(&self, mut work: Vec<(Recipient, Vec<Order>)>) -> Vec<(Recipient, Vec<Order>)> {
        let decided = work.len();
        work.retain(|(recipient, _)| self.store.holds(recipient.key));
        if work.len() < decided {
            tracing::warn!(
                terminals = decided - work.len(),
                "not sent: their shards have moved to another daemon"
            );
        }
        work
    }

    fn batch(&self, work: &[(Recipient, Vec<Order>)]) -> Batch {
        let catalogue = self.catalogue();
        let mut batch = Batch::default();
        for (recipient, orders) in work {
            match self.maker(&catalogue, recipient) {
                Ok(maker) => orders.iter().for_each(|order| batch.add(&maker, recipient, order)),
                Err(error) => tracing::error!(%error, "an LTKM cannot be made"),
            }
        }
        batch
    }

    fn send(&self, batch: &Batch, held: bool) {
        if batch.ltkms.is_empty() {
            return;
        }
        let datagram = |ltkm: &Made| (ltkm.to, &batch.octets[ltkm.from..ltkm.end]);
        let mut moved = 0;
        let left = if held {
            let mut left = 0;
            for ltkm in &batch.ltkms {
                // Asked as late as can be: a daemon may stand still between any two of them, and what it would send
                // thereafter is older than what another has sent.
                match self.store.holds(ltkm.of) {
                    true => left += self.outbox.send(&[datagram(ltkm)]),
                    false => moved += 1,
                }
            }
            left
        } else {
            self.outbox.send(&batch.ltkms.iter().map(datagram).collect::<Vec<_>>())
        };
        if moved > 0 {
            tracing::warn!(ltkms = moved, "not sent: their shards have moved to another daemon");
        }
        self.metrics.built(batch.ltkms.len() as u64);
        self.metrics.sent(Method::Udp, left as u64);
    }
}

/// LTKMs side by side in one buffer.
#[derive(Default)]
struct Batch {
    octets: Vec<u8>,
    ltkms: Vec<Made>,
}

/// Where an LTKM of a batch is, whose it is and where it goes.
struct Made {
    to: IpAddr,
    of: TerminalKey,
    from: usize,
    end: usize,
}

impl Batch {
    fn add(&mut self, maker: &Maker<'_>, recipient: &Recipient, order: &Order) {
        let from = self.octets.len();
        if maker.write(order, &mut self.octets) {
            let (to, of) = (recipient.address, recipient.key);
            self.ltkms.push(Made { to, of, from, end: self.octets.len() });
        }
    }
}

impl Maker<'_> {
    /// Makes one LTKM; `None` when its key was purged since it was ordered.
    pub(super) fn make(&self, order: &Order) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        self.write(order, &mut out).then_some(out)
    }

    /// Appends one LTKM; `false`, and nothing appended, when its key was purged since it was ordered.
    fn write(&self, order: &Order, out: &mut Vec<u8>) -> bool {
        let entry = self.catalogue.get(order.service);
        let service = entry.map(|e| &e.service);
        let (rand, csb_id) = self.sealer.ltkm_rand(self.btid, order.t);
        let mut invalid = Zeroizing::new([0u8; 16]);
        let mut kv = [[0u8; 4]; 2];
        let key = match (order.kind, service) {
            (Kind::Key, Some(service)) => {
                let Some(msk) = entry.and_then(|e| e.key(order.number)) else { return false };
                Some(key_data(service, msk, &mut kv))
            }
            (Kind::Invalidate, Some(service)) => {
                // What an invalidation carries must differ from the key; nothing depends on it otherwise.
                if getrandom::fill(&mut *invalid).is_err() {
                    return false;
                }
                kv = [[0xFF; 4], [0; 4]];
                let width = width(service);
                let kv = KeyValidity::Interval { from: &kv[0][..width], to: &kv[1][..width] };
                Some(KeyData { key_type: KeyDataType::TGK, key: &*invalid, salt: None, kv })
            }
            (Kind::TriggerMskRequest | Kind::TriggerRegister, _) => None,
            (_, None) => return false,
        };
        let key_domain_id = service.map_or(KeyDomainId([0; 3]), |s| s.key_domain);
        let msk_id = match (order.kind, service) {
            (Kind::TriggerRegister, _) | (_, None) => MskId([0; 4]),
            (_, Some(service)) => service.msk_id(order.number),
        };
        let srtp = service.filter(|_| key.is_some()).and_then(|s| s.srtp.as_ref()).and_then(srtp);
        let ltkm = Ltkm {
            v: order.v,
            csb_id,
            counter: order.t,
            rand: &rand,
            id_type: self.identity.id_type,
            idi: self.identity.fqdn.as_bytes(),
            idr: self.btid.as_str().as_bytes(),
            key_domain_id,
            msk_id,
            ext_bcast: service.and_then(|s| s.ext_bcast.as_deref()),
            srtp: srtp.as_ref(),
            key,
        };
        let from = out.len();
        out.resize(from + ltkm.encoded_len(), 0);
        match ltkm.write(&self.psk, &mut out[from..]) {
            Ok(len) => {
                out.truncate(from + len);
                true
            }
            Err(error) => {
                tracing::error!(%error, btid = %self.btid.logged(), "an LTKM cannot be made");
                out.truncate(from);
                false
            }
        }
    }
}

/// Octets of VF and of VT.
fn width(service: &Service) -> usize {
    match service.validity {
        Validity::Ntp => 4,
        Validity::MtkId => 2,
    }
}

fn key_data<'a>(service: &Service, msk: &'a Msk, kv: &'a mut [[u8; 4]; 2]) -> KeyData<'a> {
    match service.validity {
        Validity::Ntp => {
            // An interval that would pass the end of its NTP era ends there, so that VF ≤ VT holds.
            let last = msk.valid_to.min(msk.valid_from.ntp_era_end());
            *kv = [msk.valid_from.ntp_seconds().to_be_bytes(), last.ntp_seconds().to_be_bytes()];
        }
        Validity::MtkId => {
            kv[0][..2].copy_from_slice(&msk.mtk_ids.0.to_be_bytes());
            kv[1][..2].copy_from_slice(&msk.mtk_ids.1.to_be_bytes());
        }
    }
    let width = width(service);
    let key_type = if msk.salt.is_some() { KeyDataType::TGK_SALT } else { KeyDataType::TGK };
    let salt = msk.salt.as_ref().map(|s| &s[..]);
    let kv = KeyValidity::Interval { from: &kv[0][..width], to: &kv[1][..width] };
    KeyData { key_type, key: &*msk.msk, salt, kv }
}

/// The SRTP-ID map and the SP payloads. The service was checked when it was put in.
fn srtp(srtp: &Srtp) -> Option<ltkm::Srtp> {
    let policies = srtp.policies.iter().map(|p| {
        let mut parameters = p.parameters.iter();
        parameters.try_fold(ltkm::Policy::new(p.policy), |policy, (ty, value)| {
            policy.with(SrtpParam(*ty), &[*value])
        })
    });
    let streams: Vec<_> =
        srtp.streams.iter().map(|s| SrtpId { policy_no: s.policy, ssrc: s.ssrc, roc: s.roc }).collect();
    ltkm::Srtp::new(&streams, policies.collect::<Result<_, _>>().ok()?).ok()
}
