//! What a terminal tells its user: tables for people, JSON for programs. Keys only when asked for.

use std::net::SocketAddr;

use comfy_table::{ContentArrangement, Table, presets};
use data_encoding::{BASE64, HEXLOWER};
use serde::Serialize;
use serde_json::{Value, json};

use super::ask::{Answer, Item, Subject};
use super::http::{Proof, Reply};
use super::terminal::{Effect, Processed, Pull, Refusal};
use crate::id::Method;
use crate::procedure::Procedure;
use crate::time::Timestamp;

/// What became of one LTKM, as it is told.
#[derive(Debug, Clone, Serialize)]
pub(super) struct LtkmRecord {
    at: Timestamp,
    method: Method,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<SocketAddr>,
    #[serde(flatten)]
    told: Told,
}

#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
enum Told {
    Accepted(Box<Accepted>),
    Refused { refused: String },
}

#[derive(Debug, Clone, Serialize)]
struct Accepted {
    key_domain: String,
    msk_id: String,
    what: &'static str,
    valid_from: Option<String>,
    valid_to: Option<String>,
    t: u32,
    v: bool,
    acknowledged: bool,
    csb_id: String,
    idi: String,
    salt: bool,
    srtp_streams: usize,
    ext_bcast: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(rename = "salt_octets", skip_serializing_if = "Option::is_none")]
    salt_octets: Option<String>,
}

impl LtkmRecord {
    /// What an accepted LTKM is told as.
    pub(super) fn accepted(
        processed: &Processed,
        (method, from): (Method, Option<SocketAddr>),
        acknowledged: bool,
        show_keys: bool,
        now: Timestamp,
    ) -> Self {
        let ltkm = &processed.ltkm;
        let validity = match &processed.effect {
            Effect::Stored(validity) | Effect::Refreshed(validity) => Some(validity.words(now)),
            _ => None,
        };
        let (valid_from, valid_to) = validity.unzip();
        let shown = ltkm.key.as_ref().filter(|_| show_keys && processed.effect.is_key());
        let accepted = Accepted {
            key_domain: ltkm.key_domain_id.to_string(),
            msk_id: ltkm.msk_id.to_string(),
            what: what(&processed.effect),
            valid_from,
            valid_to,
            t: ltkm.counter,
            v: ltkm.v,
            acknowledged,
            csb_id: ltkm.csb_id.to_string(),
            idi: String::from_utf8_lossy(&ltkm.idi).into_owned(),
            salt: ltkm.key.as_ref().is_some_and(|key| key.salt.is_some()),
            srtp_streams: ltkm.srtp.as_ref().map_or(0, |srtp| srtp.streams().len()),
            ext_bcast: ltkm.ext_bcast.as_ref().map(|octets| BASE64.encode(octets)),
            key: shown.map(|key| HEXLOWER.encode(key.key.expose())),
            salt_octets: shown.and_then(|key| key.salt.as_ref()).map(|salt| HEXLOWER.encode(salt.expose())),
        };
        Self { at: now, method, from, told: Told::Accepted(Box::new(accepted)) }
    }

    /// What a refused LTKM is told as.
    pub(super) fn refused(
        refusal: &Refusal,
        (method, from): (Method, Option<SocketAddr>),
        now: Timestamp,
    ) -> Self {
        Self { at: now, method, from, told: Told::Refused { refused: refusal.to_string() } }
    }

    /// Whether the LTKM was accepted.
    pub(super) fn is_accepted(&self) -> bool {
        matches!(self.told, Told::Accepted(_))
    }

    /// One line, for those who watch.
    pub(super) fn line(&self) -> String {
        let from = self.from.map(|from| format!(" from {from}")).unwrap_or_default();
        let head = format!("{}  {}{from}", self.at, self.method);
        match &self.told {
            Told::Refused { refused } => format!("{head}  refused: {refused}"),
            Told::Accepted(ltkm) => {
                let validity = match (&ltkm.valid_from, &ltkm.valid_to) {
                    (Some(from), Some(to)) => format!(", valid {from} to {to}"),
                    _ => String::new(),
                };
                let answer = match (ltkm.v, ltkm.acknowledged) {
                    (false, _) => "no answer wanted",
                    (true, true) => "acknowledged",
                    (true, false) => "could not be acknowledged",
                };
                let key = ltkm.key.as_ref().map(|key| format!(", key {key}")).unwrap_or_default();
                let salt = ltkm.salt_octets.as_ref().map(|salt| format!(", salt {salt}")).unwrap_or_default();
                format!(
                    "{head}  key domain {} MSK ID {}  T {}  {}{validity}{key}{salt}, {answer}",
                    ltkm.key_domain, ltkm.msk_id, ltkm.t, ltkm.what
                )
            }
        }
    }
}

/// What an LTKM did, in one or two words.
pub(super) fn what(effect: &Effect) -> &'static str {
    match effect {
        Effect::Stored(_) => "new key",
        Effect::Refreshed(_) => "known key",
        Effect::Invalidated { held: true } => "key ended",
        Effect::Invalidated { held: false } => "ended, not held",
        Effect::Pull(Pull::Register) => "asks to register",
        Effect::Pull(Pull::MskRequest { .. }) => "asks for a pull",
        Effect::Nothing => "no key",
    }
}

/// A bare table with a head.
pub(in crate::cli) fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head.iter().copied());
    table
}

/// The LTKMs of a run, as a table.
pub(super) fn ltkm_table(records: &[LtkmRecord], show_keys: bool) -> Table {
    let mut head =
        vec!["METHOD", "KEY DOMAIN", "MSK ID", "VALID FROM", "VALID TO", "T", "V", "WHAT", "ANSWERED"];
    if show_keys {
        head.extend(["KEY", "SALT"]);
    }
    let mut table = table(&head);
    for record in records {
        let Told::Accepted(ltkm) = &record.told else { continue };
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        let mut row = vec![
            record.method.to_string(),
            ltkm.key_domain.clone(),
            ltkm.msk_id.clone(),
            or_dash(&ltkm.valid_from),
            or_dash(&ltkm.valid_to),
            ltkm.t.to_string(),
            u8::from(ltkm.v).to_string(),
            ltkm.what.to_owned(),
            if ltkm.v { yes(ltkm.acknowledged) } else { "-".to_owned() },
        ];
        if show_keys {
            row.extend([or_dash(&ltkm.key), or_dash(&ltkm.salt_octets)]);
        }
        table.add_row(row);
    }
    table
}

/// Lines about the LTKMs that were refused.
pub(super) fn refusals(records: &[LtkmRecord]) -> impl Iterator<Item = String> + '_ {
    records.iter().filter(|record| matches!(record.told, Told::Refused { .. })).map(LtkmRecord::line)
}

/// The items of an answer, as a table.
pub(super) fn item_table(procedure: Procedure, items: &[Item]) -> Table {
    let subject = if procedure == Procedure::MskRequest { "KEY" } else { "SERVICE" };
    let mut table = table(&[subject, "CODE", "LTKMS"]);
    for item in items {
        table.add_row([item.subject.to_string(), item.code.to_string(), item.ltkms.len().to_string()]);
    }
    table
}

/// The status line of a reply, in words.
pub(super) fn status_line(reply: &Reply) -> String {
    let mut line = format!("{}", reply.status);
    if let Some((algorithm, qop)) = reply.protection {
        line.push_str(&format!("  ({algorithm}, {}", qop.as_str()));
        line.push_str(match reply.proof {
            Proof::Given => "; the server proved that it knows the MRK)",
            Proof::Missing => "; the server did not prove that it knows the MRK)",
            Proof::Wrong(_) => "; the server's proof is wrong)",
            Proof::NotAsked => ")",
        });
    }
    if let Some(after) = &reply.retry_after {
        line.push_str(&format!("  retry after {after} s"));
    }
    line
}

/// A reply for programs.
pub(super) fn reply_json(procedure: Procedure, reply: &Reply, answer: Option<&Answer>) -> Value {
    let proof = match reply.proof {
        Proof::Given => "given",
        Proof::Missing => "missing",
        Proof::Wrong(_) => "wrong",
        Proof::NotAsked => "not-asked",
    };
    let items = |answer: &Answer| answer.items.iter().map(item_json).collect::<Vec<_>>();
    json!({
        "procedure": procedure.request_type(),
        "status": reply.status.as_u16(),
        "algorithm": reply.protection.map(|(algorithm, _)| algorithm.as_str()),
        "qop": reply.protection.map(|(_, qop)| qop.as_str()),
        "proof": proof,
        "exchanges": reply.exchanges,
        "retry_after": reply.retry_after,
        "delivery": answer.and_then(|answer| answer.delivery.clone()),
        "items": answer.map(items),
    })
}

fn item_json(item: &Item) -> Value {
    let mut value = match &item.subject {
        Subject::Service(id) => json!({ "service": id }),
        Subject::Msk(msk) => {
            json!({ "key_domain": msk.key_domain.to_string(), "msk_id": msk.msk_id.to_string() })
        }
    };
    value["code"] = json!(item.code.number());
    value["ltkms"] = json!(item.ltkms.len());
    value
}
