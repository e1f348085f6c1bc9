//! The lines of an export: what the import takes, written from what the store has.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use data_encoding::BASE64;
use serde_json::{Value, json};
use zeroize::{Zeroize, Zeroizing};

use super::views;
use crate::engine::Engine;
use crate::gba::Credential;
use crate::keys::Catalogue;
use crate::store::backup::{Provisioned, ProvisionedStream};
use crate::store::{StoreError, Subscriber};

/// Octets of records that are made into lines at a time.
const PAGE: usize = 64 << 10;

/// An export under way.
pub(super) struct Export {
    engine: Arc<Engine>,
    catalogue: Arc<Catalogue>,
    /// Lines of services, until they are given.
    services: Option<Vec<Value>>,
    rest: ProvisionedStream,
    secrets: bool,
}

impl Export {
    pub(super) fn new(
        engine: Arc<Engine>,
        catalogue: Arc<Catalogue>,
        rest: ProvisionedStream,
        secrets: bool,
    ) -> Self {
        let services = catalogue.services().into_iter().map(|entry| {
            let service = views::Service::new(entry, Default::default(), Default::default(), engine.now());
            let mut service = serde_json::to_value(service).expect("texts and numbers can be written");
            // What the daemon tells of a service and nobody puts.
            for told in ["msk_id", "terminals", "holders"] {
                service.as_object_mut().map(|members| members.remove(told));
            }
            json!({"service": service})
        });
        let services = Some(services.collect::<Vec<_>>());
        Self { engine, catalogue, services, rest, secrets }
    }

    /// About how many lines there are.
    pub(super) fn expected(&self) -> u64 {
        self.rest.expected() + self.services.as_ref().map_or(0, |lines| lines.len() as u64)
    }

    /// The next lines; `None` behind the last one.
    ///
    /// # Errors
    /// The store does not work; a key that does not open.
    pub(super) fn lines(&mut self) -> Result<Option<Bytes>, StoreError> {
        let mut out = Vec::with_capacity(2 * PAGE);
        match self.services.take() {
            Some(lines) if !lines.is_empty() => lines.iter().for_each(|line| put(&mut out, line)),
            _ => {
                let Some(page) = self.rest.page(PAGE)? else { return Ok(None) };
                for item in page {
                    let mut line = match item {
                        Provisioned::Subscriber(subscriber) => self.subscriber_line(&subscriber),
                        Provisioned::Credential(credential, t) => self.credential_line(&credential, t)?,
                    };
                    put(&mut out, &line);
                    if let Some(members) = line["credential"].as_object_mut() {
                        members.values_mut().for_each(wipe);
                    }
                }
            }
        }
        Ok(Some(out.into()))
    }

    /// Entitlements to services that are gone are left out: the import would refuse the whole line.
    fn subscriber_line(&self, s: &Subscriber) -> Value {
        let services: Vec<_> = s.services.iter().filter(|id| self.catalogue.by_id(id).is_some()).collect();
        json!({"subscriber": {"id": s.id, "msisdn": s.msisdn, "services": services}})
    }

    fn credential_line(&self, c: &Credential, t: u64) -> Result<Value, StoreError> {
        let mut credential = json!({
            "id": c.btid, "subscriber": c.subscriber, "gba": c.gba, "expires": c.expires,
            // A counter that is used up stays so.
            "t": u32::try_from(t).unwrap_or(u32::MAX),
        });
        if self.secrets {
            let sealer = self.engine.store().sealer();
            let damaged = |_| StoreError::Damaged(format!("a key of {} does not open", c.btid));
            for (name, key) in [
                ("mrk", sealer.open_mrk(&c.btid, &c.mrk).map_err(damaged)?),
                ("muk", sealer.open_muk(&c.btid, &c.muk).map_err(damaged)?),
            ] {
                credential[name] = Value::String(BASE64.encode(key.expose()));
            }
        }
        Ok(json!({"credential": credential}))
    }
}

/// Appends a line. What the buffer leaves behind when it grows is wiped.
fn put(out: &mut Vec<u8>, line: &Value) {
    let text = Zeroizing::new(serde_json::to_vec(line).expect("texts and numbers can be written"));
    if out.capacity() - out.len() < text.len() + 1 {
        let mut larger = Vec::with_capacity((out.capacity() * 2).max(out.len() + text.len() + 1));
        larger.extend_from_slice(out);
        out.zeroize();
        *out = larger;
    }
    out.write_all(&text).and_then(|()| out.write_all(b"\n")).expect("memory takes what is written");
}

fn wipe(value: &mut Value) {
    if let Value::String(text) = value {
        text.zeroize();
    }
}
