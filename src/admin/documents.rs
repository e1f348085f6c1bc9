//! The documents that callers send, each reader beside the schema that describes it.

use std::time::Duration;

use serde_json::{Value, json};

use super::problem::Fault;
use super::read::{self, Object, Read};
use crate::engine::{CredentialKeys, CredentialSpec, RotateSpec, ServiceSpec, Trigger};
use crate::gba::GbaType;
use crate::id::{BTid, KeyDomainId, ServiceId, SubscriberId};
use crate::keys::{Srtp, SrtpPolicy, SrtpStream, Validity};
use crate::store::{MAX_FREEZE, Subscriber};

/// How long a key is valid when the service does not say.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Lower and upper MTK ID when the service does not say: all but 0.
const DEFAULT_MTK_IDS: (u16, u16) = (1, u16::MAX);

/// A document may repeat the id that it is put under, so that what was read can be put again.
fn repeats<T>(object: &mut Object, name: &'static str, id: &T) -> Read<()>
where
    T: std::str::FromStr + PartialEq,
    T::Err: std::fmt::Display,
{
    match object.optional(name, read::parsed::<T>)? {
        Some(other) if other != *id => Err(Fault::new(name, "is not the id in the path")),
        _ => Ok(()),
    }
}

fn mtk_ids(value: Value, field: &str) -> Read<(u16, u16)> {
    match read::list(value, field, read::short)?.as_slice() {
        [lower, upper] => Ok((*lower, *upper)),
        other => Err(Fault::new(field, format!("has {} numbers: give the lower and the upper", other.len()))),
    }
}

fn validity(value: Value, field: &str) -> Read<Validity> {
    match read::text(value, field)?.as_str() {
        "ntp" => Ok(Validity::Ntp),
        "mtk-id" => Ok(Validity::MtkId),
        _ => Err(Fault::new(field, "has to be \"ntp\" or \"mtk-id\"")),
    }
}

fn gba(value: Value, field: &str) -> Read<GbaType> {
    match read::text(value, field)?.as_str() {
        "me" => Ok(GbaType::Me),
        "u" => Ok(GbaType::U),
        _ => Err(Fault::new(field, "has to be \"me\" or \"u\"")),
    }
}

fn srtp(value: Value, field: &str) -> Read<Srtp> {
    let mut object = Object::new(value, field)?;
    let streams = object.required("streams", |value, place| {
        read::list(value, place, |value, place| {
            let mut stream = Object::new(value, place)?;
            let policy = stream.required("policy", read::octet)?;
            let ssrc = stream.required("ssrc", read::long)?;
            let roc = stream.or("roc", 0, read::long)?;
            stream.finish().map(|()| SrtpStream { policy, ssrc, roc })
        })
    })?;
    let policies = object.required("policies", |value, place| {
        read::list(value, place, |value, place| {
            let mut one = Object::new(value, place)?;
            let policy = one.required("policy", read::octet)?;
            let parameters = one.required("parameters", read::octet_map)?;
            one.finish().map(|()| SrtpPolicy { policy, parameters })
        })
    })?;
    object.finish().map(|()| Srtp { streams, policies })
}

/// `PUT /v1/services/{service_id}`.
pub(super) fn service(value: Value, id: ServiceId) -> Read<ServiceSpec> {
    let mut object = Object::new(value, "")?;
    repeats(&mut object, "id", &id)?;
    service_members(object, id)
}

fn service_members(mut object: Object, id: ServiceId) -> Read<ServiceSpec> {
    let spec = ServiceSpec {
        id,
        key_domain: KeyDomainId(object.required("key_domain", read::hex::<3>)?),
        key_group: u16::from_be_bytes(object.required("key_group", read::hex::<2>)?),
        validity: object.required("validity", validity)?,
        lifetime: object.or("lifetime", DEFAULT_LIFETIME, read::duration)?,
        rotate_every: object.optional("rotate_every", read::duration)?,
        open: object.or("open", false, read::boolean)?,
        ext_bcast: object.optional("ext_bcast", read::octets)?,
        invalidate_on_deregister: object.or("invalidate_on_deregister", true, read::boolean)?,
        mtk_ids: object.or("mtk_ids", DEFAULT_MTK_IDS, mtk_ids)?,
        salt: object.or("salt", false, read::boolean)?,
        srtp: object.optional("srtp", srtp)?,
        lead_time: object.optional("lead_time", read::duration)?,
    };
    object.finish().map(|()| spec)
}

/// `PUT /v1/subscribers/{id}`.
pub(super) fn subscriber(value: Value, id: SubscriberId) -> Read<Subscriber> {
    let mut object = Object::new(value, "")?;
    repeats(&mut object, "id", &id)?;
    subscriber_members(object, id)
}

fn subscriber_members(mut object: Object, id: SubscriberId) -> Read<Subscriber> {
    let msisdn = object.optional("msisdn", read::parsed)?;
    let services = object
        .or("services", Vec::new(), |value, place| read::list(value, place, read::parsed::<ServiceId>))?;
    object.finish().map(|()| Subscriber { id, msisdn, services })
}

/// `PUT /v1/credentials/{btid}`.
pub(super) fn credential(value: Value, btid: BTid) -> Read<CredentialSpec> {
    let mut object = Object::new(value, "")?;
    repeats(&mut object, "id", &btid)?;
    credential_members(object, btid)
}

fn credential_members(mut object: Object, btid: BTid) -> Read<CredentialSpec> {
    let subscriber: SubscriberId = object.required("subscriber", read::parsed)?;
    let keys = if object.has("ks") {
        CredentialKeys::Ks {
            ks: object.required("ks", read::secret)?,
            rand: object.required("rand", read::octets)?,
            impi: object.or("impi", subscriber.as_str().to_owned(), read::text)?,
        }
    } else {
        CredentialKeys::Pair {
            mrk: object.required("mrk", read::secret)?,
            muk: object.required("muk", read::secret)?,
        }
    };
    let spec = CredentialSpec {
        btid,
        subscriber,
        keys,
        gba: object.or("gba", GbaType::Me, gba)?,
        expires: object.optional("expires", read::time)?,
        t: object.optional("t", read::long)?,
    };
    object.finish().map(|()| spec)
}

/// `POST /v1/services/{service_id}/rotate`; no body at all is an empty document.
pub(super) fn rotate(value: Option<Value>) -> Read<RotateSpec> {
    let Some(value) = value else { return Ok(RotateSpec::default()) };
    let mut object = Object::new(value, "")?;
    let spec = RotateSpec {
        msk: object.optional("msk", read::secret)?,
        valid_from: object.optional("valid_from", read::time)?,
        valid_to: object.optional("valid_to", read::time)?,
        mtk_ids: object.optional("mtk_ids", mtk_ids)?,
    };
    object.finish().map(|()| spec)
}

/// A line of text without control characters, of 1 to 256 octets.
fn line(value: Value, field: &str) -> Read<String> {
    let text = read::text(value, field)?;
    let sound = (1..=256).contains(&text.len()) && !text.chars().any(char::is_control);
    sound.then_some(text).ok_or_else(|| Fault::new(field, "has to be one line of 1 to 256 octets"))
}

/// `POST /v1/freeze`: who, how long, and whether it has to be frozen already.
pub(super) fn freeze(value: Value) -> Read<(String, Duration, bool)> {
    let mut object = Object::new(value, "")?;
    let by = object.required("by", line)?;
    let span = object.required("for", |value, field| {
        let span = read::duration(value, field)?;
        let sound = (Duration::from_secs(1)..=MAX_FREEZE).contains(&span);
        sound.then_some(span).ok_or_else(|| Fault::new(field, "has to be 1s to 1h"))
    })?;
    let prolong = object.or("prolong", false, read::boolean)?;
    object.finish().map(|()| (by, span, prolong))
}

/// `POST /v1/moved`: who, and where to.
pub(super) fn moved(value: Value) -> Read<(String, String)> {
    let mut object = Object::new(value, "")?;
    let moved = (object.required("by", line)?, object.required("to", line)?);
    object.finish().map(|()| moved)
}

/// `POST /v1/terminals/{btid}/trigger`.
pub(super) fn trigger(value: Value) -> Read<Trigger> {
    let mut object = Object::new(value, "")?;
    let trigger = match object.required("procedure", read::text)?.as_str() {
        "register" => Trigger::Register,
        "msk-request" => Trigger::MskRequest(object.required("service", read::parsed)?),
        _ => return Err(Fault::new("procedure", "has to be \"register\" or \"msk-request\"")),
    };
    object.finish().map(|()| trigger)
}

/// One line of an import.
pub(super) fn import_line(value: Value) -> Read<crate::engine::ImportItem> {
    use crate::engine::ImportItem;
    let mut line = Object::new(value, "")?;
    if ["service", "subscriber", "credential"].iter().filter(|name| line.has(name)).count() != 1 {
        let why = "has to be an object with one of service, subscriber and credential";
        return Err(Fault::new(read::DOCUMENT, why));
    }
    let item = if line.has("service") {
        line.required("service", |value, place| {
            let mut object = Object::new(value, place)?;
            let id = object.required("id", read::parsed)?;
            service_members(object, id).map(ImportItem::Service)
        })?
    } else if line.has("subscriber") {
        line.required("subscriber", |value, place| {
            let mut object = Object::new(value, place)?;
            let id = object.required("id", read::parsed)?;
            subscriber_members(object, id).map(ImportItem::Subscriber)
        })?
    } else {
        line.required("credential", |value, place| {
            let mut object = Object::new(value, place)?;
            let btid = object.required("id", read::parsed)?;
            credential_members(object, btid).map(ImportItem::Credential)
        })?
    };
    line.finish().map(|()| item)
}

/// JSON Schemas of the documents above, by name. That they are true is tested against the readers.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let duration = json!({
        "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$", "examples": ["24h"],
        "description": "A whole number and its unit: ms, s, m, h or d."
    });
    let nullable = |schema: &Value, description: &str| {
        let mut schema = schema.clone();
        schema["type"] = json!([schema["type"], "null"]);
        schema["description"] = json!(description);
        schema
    };
    let octets = json!({"type": "string", "contentEncoding": "base64"});
    let time = json!({"type": "string", "format": "date-time"});
    let short = json!({"type": "integer", "minimum": 0, "maximum": 65535});
    let octet = json!({"type": "integer", "minimum": 0, "maximum": 255});
    let long = json!({"type": "integer", "minimum": 0, "maximum": 4_294_967_295_u32});
    let mtk_ids = json!({
        "type": "array", "items": short, "minItems": 2, "maxItems": 2, "default": [1, 65535],
        "description": "Lower and upper MTK ID of a new key, for validity mtk-id."
    });
    let id = |of: &str| json!({"type": "string", "description": format!("May repeat {of} of the path.")});
    let srtp = json!({
        "type": "object", "required": ["streams", "policies"], "additionalProperties": false,
        "properties": {
            "streams": {"type": "array", "minItems": 1, "maxItems": 255, "items": {
                "type": "object", "required": ["policy", "ssrc"], "additionalProperties": false,
                "properties": {"policy": octet, "ssrc": long, "roc": long}
            }},
            "policies": {"type": "array", "items": {
                "type": "object", "required": ["policy", "parameters"], "additionalProperties": false,
                "properties": {
                    "policy": octet,
                    "parameters": {"type": "object", "additionalProperties": octet,
                        "description": "Parameter type (RFC 3830 §6.10.1) to its value of one octet."}
                }
            }}
        }
    });
    let service = json!({
        "type": "object", "required": ["key_domain", "key_group", "validity"], "additionalProperties": false,
        "properties": {
            "id": id("the service id"),
            "key_domain": {"type": "string", "pattern": "^[0-9A-Fa-f]{6}$",
                "description": "Key Domain ID, MCC and MNC in BCD."},
            "key_group": {"type": "string", "pattern": "^[0-9A-Fa-f]{4}$",
                "description": "Key Group part of the MSK IDs; with the domain it belongs to this service alone."},
            "validity": {"type": "string", "enum": ["ntp", "mtk-id"],
                "description": "How LTKMs write a key's validity: NTP seconds, or the range of MTK IDs."},
            "lifetime": duration,
            "rotate_every": nullable(&duration, "From one key's start to the next one's; null: no schedule."),
            "open": {"type": "boolean", "default": false,
                "description": "Whether any authenticated terminal may register."},
            "ext_bcast": nullable(&octets, "Management data of the OMA BCAST extension; null: no extension."),
            "invalidate_on_deregister": {"type": "boolean", "default": true,
                "description": "Whether the end of a registration invalidates the keys it brought."},
            "mtk_ids": mtk_ids,
            "salt": {"type": "boolean", "default": false, "description": "Whether keys carry a salt."},
            "srtp": nullable(&srtp, "SRTP-ID map and security policies; null: the empty map."),
            "lead_time": nullable(&duration,
                "How long before its start a next key is distributed; null: the configuration's.")
        }
    });
    let subscriber = json!({
        "type": "object", "additionalProperties": false,
        "properties": {
            "id": id("the IMPI"),
            "msisdn": {"type": ["string", "null"], "pattern": "^\\+?[0-9]{1,15}$",
                "description": "International form, without the leading +."},
            "services": {"type": "array", "items": {"type": "string"}, "default": [],
                "description": "The services it is entitled to; each has to exist."}
        }
    });
    let credential = json!({
        "type": "object", "required": ["subscriber"], "additionalProperties": false,
        "oneOf": [{"required": ["mrk", "muk"]}, {"required": ["ks", "rand"]}],
        "properties": {
            "id": id("the B-TID"),
            "subscriber": {"type": "string", "description": "The IMPI it belongs to, which has to exist."},
            "mrk": octets, "muk": octets,
            "ks": {"type": "string", "contentEncoding": "base64",
                "description": "Ks of the bootstrapping, from which MRK and MUK are derived."},
            "rand": octets,
            "impi": {"type": "string", "description": "For the derivation; the subscriber when absent."},
            "gba": {"type": "string", "enum": ["me", "u"], "default": "me"},
            "expires": nullable(&time, "When it stops to count; null: never."),
            "t": nullable(&long, "The counter to go on from.")
        }
    });
    let rotate = json!({
        "type": "object", "additionalProperties": false,
        "properties": {
            "msk": nullable(&octets, "The key's 16 octets; null: the daemon makes one."),
            "valid_from": nullable(&time, "null: now."),
            "valid_to": nullable(&time, "null: the service's lifetime later."),
            "mtk_ids": nullable(&mtk_ids, "null: the service's.")
        }
    });
    let trigger = json!({
        "type": "object", "required": ["procedure"], "additionalProperties": false,
        "properties": {
            "procedure": {"type": "string", "enum": ["register", "msk-request"]},
            "service": {"type": "string", "description": "The service whose keys to ask for, for msk-request."}
        }
    });
    let with_id = |schema: &Value| {
        let mut schema = schema.clone();
        let mut required = vec![json!("id")];
        required.extend(schema["required"].as_array().into_iter().flatten().cloned());
        schema["required"] = Value::Array(required);
        schema["properties"]["id"] = json!({"type": "string"});
        schema
    };
    let line = json!({
        "type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false,
        "description": "One line of an import.",
        "properties": {
            "service": with_id(&service), "subscriber": with_id(&subscriber), "credential": with_id(&credential)
        }
    });
    // What an export writes is what an import takes, but for the keys of credentials, which may be left out.
    let by = json!({"type": "string", "minLength": 1, "maxLength": 256,
        "description": "Who moves the store, in words of its own: the pause is nobody else's."});
    let freeze = json!({
        "type": "object", "additionalProperties": false, "required": ["by", "for"],
        "properties": {
            "by": by, "for": duration,
            "prolong": {"type": "boolean", "default": false,
                "description": "Whether the pause has to be there already: 409 when it is over."}
        }
    });
    let moved = json!({
        "type": "object", "additionalProperties": false, "required": ["by", "to"],
        "properties": {
            "by": by,
            "to": {"type": "string", "minLength": 1, "maxLength": 256,
                "description": "Where the store is now, without a password: who starts the daemon here is told."}
        }
    });
    let mut exported = line.clone();
    exported["description"] = json!("One line of an export.");
    let written = &mut exported["properties"]["credential"];
    written["required"] = json!(["id", "subscriber", "gba", "expires", "t"]);
    for (of, never) in
        [("", "oneOf"), ("/properties", "ks"), ("/properties", "rand"), ("/properties", "impi")]
    {
        written.pointer_mut(of).and_then(Value::as_object_mut).map(|members| members.remove(never));
    }
    vec![
        ("ServiceDocument", service),
        ("SubscriberDocument", subscriber),
        ("CredentialDocument", credential),
        ("RotateDocument", rotate),
        ("TriggerDocument", trigger),
        ("FreezeDocument", freeze),
        ("MovedDocument", moved),
        ("ImportLine", line),
        ("ExportLine", exported),
    ]
}
