//! Reading JSON documents: every fault names its field, no value is repeated, and secrets leave no copy.

use serde_json::{Map, Value};
use zeroize::{Zeroize, Zeroizing};

use super::problem::Fault;
use crate::secret::Secret;
use crate::time::Timestamp;
use crate::units;

/// What a reader of one value gives.
pub(super) type Read<T> = Result<T, Fault>;

/// The field name of a fault of the document as a whole.
pub(super) const DOCUMENT: &str = "(document)";

/// A JSON object whose members are taken out one by one; what is left at the end was not known.
pub(super) struct Object {
    path: String,
    members: Map<String, Value>,
    known: Vec<&'static str>,
}

impl Object {
    /// The object at this path; the path of the document itself is empty.
    pub(super) fn new(value: Value, path: &str) -> Read<Self> {
        match value {
            Value::Object(members) => Ok(Self { path: path.to_owned(), members, known: Vec::new() }),
            other => {
                let field = if path.is_empty() { DOCUMENT } else { path };
                Err(wrong_type(field, "an object", other))
            }
        }
    }

    /// A member's path.
    fn place(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.members.remove(name)
    }

    /// Whether there is such a member that is not null.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.get(name).is_some_and(|v| !v.is_null())
    }

    /// A member that has to be there.
    pub(super) fn required<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(Value, &str) -> Read<T>,
    ) -> Read<T> {
        let place = self.place(name);
        match self.take(name) {
            Some(value) => read(value, &place),
            None => Err(Fault::new(place, "is missing")),
        }
    }

    /// A member that may be absent or null.
    pub(super) fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(Value, &str) -> Read<T>,
    ) -> Read<Option<T>> {
        let place = self.place(name);
        self.take(name).filter(|value| !value.is_null()).map(|value| read(value, &place)).transpose()
    }

    /// A member that has a value of its own when it is absent; null is no value for it.
    pub(super) fn or<T>(
        &mut self,
        name: &'static str,
        default: T,
        read: impl FnOnce(Value, &str) -> Read<T>,
    ) -> Read<T> {
        let place = self.place(name);
        self.take(name).map_or(Ok(default), |value| read(value, &place))
    }

    /// Ends the reading: a member that nobody took is a fault.
    pub(super) fn finish(self) -> Read<()> {
        let Some(unknown) = self.members.keys().next() else { return Ok(()) };
        // A name from outside is cut, so that an answer or a log line stays short.
        let shown: String = unknown.chars().take(64).collect();
        let nearest = self.known.iter().min_by_key(|k| strsim::damerau_levenshtein(k, &shown));
        let why = match nearest.filter(|k| strsim::damerau_levenshtein(k, &shown) <= 3) {
            Some(nearest) => format!("is not known: did you mean {nearest}?"),
            None if self.known.is_empty() => "is not known: nothing may be given here".to_owned(),
            None => format!("is not known: the fields are {}", self.known.join(", ")),
        };
        Err(Fault::new(self.place(&shown), why))
    }
}

/// A fault that says what came instead; the value itself is wiped.
fn wrong_type(field: &str, wanted: &str, value: Value) -> Fault {
    let came = match &value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    if let Value::String(mut text) = value {
        text.zeroize();
    }
    Fault::new(field, format!("has to be {wanted}, not {came}"))
}

/// A string.
pub(super) fn text(value: Value, field: &str) -> Read<String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(wrong_type(field, "a string", other)),
    }
}

/// A string that a type of its own checks; the type's error ends the sentence that the field begins.
pub(super) fn parsed<T>(value: Value, field: &str) -> Read<T>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text(value, field)?.parse().map_err(|e: T::Err| Fault::new(field, e.to_string()))
}

/// `true` or `false`.
pub(super) fn boolean(value: Value, field: &str) -> Read<bool> {
    match value {
        Value::Bool(flag) => Ok(flag),
        other => Err(wrong_type(field, "true or false", other)),
    }
}

/// A whole number from 0 to `max`.
fn whole(value: Value, field: &str, max: u64) -> Read<u64> {
    match value {
        Value::Number(number) => match number.as_u64().filter(|n| *n <= max) {
            Some(number) => Ok(number),
            None => Err(Fault::new(field, format!("has to be a whole number from 0 to {max}"))),
        },
        other => Err(wrong_type(field, &format!("a whole number from 0 to {max}"), other)),
    }
}

/// An octet's value.
pub(super) fn octet(value: Value, field: &str) -> Read<u8> {
    let number = whole(value, field, u8::MAX.into())?;
    Ok(u8::try_from(number).expect("whole checked the bound"))
}

/// A number of 16 bits.
pub(super) fn short(value: Value, field: &str) -> Read<u16> {
    let number = whole(value, field, u16::MAX.into())?;
    Ok(u16::try_from(number).expect("whole checked the bound"))
}

/// A number of 32 bits.
pub(super) fn long(value: Value, field: &str) -> Read<u32> {
    let number = whole(value, field, u32::MAX.into())?;
    Ok(u32::try_from(number).expect("whole checked the bound"))
}

/// A duration such as `24h`.
pub(super) fn duration(value: Value, field: &str) -> Read<std::time::Duration> {
    units::parse_duration(&text(value, field)?).map_err(|e| Fault::new(field, e.to_string()))
}

/// An RFC 3339 time.
pub(super) fn time(value: Value, field: &str) -> Read<Timestamp> {
    let why = "is no RFC 3339 time from 1970 on, such as 2026-11-22T09:30:00Z";
    text(value, field)?.parse().map_err(|_| Fault::new(field, why))
}

/// Octets in base64 (RFC 4648 §4).
pub(super) fn octets(value: Value, field: &str) -> Read<Vec<u8>> {
    secret(value, field).map(|s| s.expose().to_vec())
}

/// Octets in base64 that must leave no trace.
pub(super) fn secret(value: Value, field: &str) -> Read<Secret> {
    let text = Zeroizing::new(text(value, field)?);
    // The library also takes pieces that were padded one by one.
    let pieces = text.trim_end_matches('=').contains('=');
    let decoded = data_encoding::BASE64.decode(text.as_bytes()).ok().filter(|_| !pieces);
    decoded
        .map(Secret::new)
        .ok_or_else(|| Fault::new(field, "is no base64 (RFC 4648 §4, with padding at its end alone)"))
}

/// So many octets in hexadecimal digits of either case.
pub(super) fn hex<const N: usize>(value: Value, field: &str) -> Read<[u8; N]> {
    let text = text(value, field)?;
    let decoded = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
    decoded
        .and_then(|octets| octets.try_into().ok())
        .ok_or_else(|| Fault::new(field, format!("has to be {} hexadecimal digits", 2 * N)))
}

/// An array, each element with its place: `services[2]`.
pub(super) fn list<T>(value: Value, field: &str, read: impl Fn(Value, &str) -> Read<T>) -> Read<Vec<T>> {
    match value {
        Value::Array(items) => {
            items.into_iter().enumerate().map(|(i, item)| read(item, &format!("{field}[{i}]"))).collect()
        }
        other => Err(wrong_type(field, "an array", other)),
    }
}

/// An object whose member names are numbers of one octet and whose values are octets.
pub(super) fn octet_map(value: Value, field: &str) -> Read<std::collections::BTreeMap<u8, u8>> {
    let Object { members, .. } = Object::new(value, field)?;
    let mut map = std::collections::BTreeMap::new();
    for (name, value) in members {
        let place = format!("{field}.{}", name.chars().take(64).collect::<String>());
        let number = name.parse::<u8>().ok().filter(|n| n.to_string() == name);
        let number = number.ok_or_else(|| Fault::new(&place, "is no number from 0 to 255"))?;
        map.insert(number, octet(value, &place)?);
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        Object::new(value, "").expect("an object")
    }

    #[test]
    fn what_nobody_took_is_unknown_and_the_nearest_name_is_told() {
        let mut o = object(json!({"id": "a", "key_grup": 1}));
        assert_eq!(o.required("id", text).as_deref(), Ok("a"));
        assert_eq!(o.optional("key_group", short), Ok(None));
        let fault = o.finish().expect_err("key_grup");
        assert_eq!(
            (fault.field.as_str(), fault.why.as_str()),
            ("key_grup", "is not known: did you mean key_group?")
        );
    }

    #[test]
    fn null_is_absent_where_a_field_may_be_absent_and_wrong_where_it_has_a_default() {
        let mut o = object(json!({"a": null, "b": null, "c": null}));
        assert_eq!(o.optional("a", boolean), Ok(None));
        assert_eq!(o.or("b", true, boolean).map_err(|f| f.field), Err("b".to_owned()));
        assert_eq!(o.required("c", boolean).map_err(|f| f.field), Err("c".to_owned()));
        assert_eq!(o.required("d", boolean), Err(Fault::new("d", "is missing")));
        assert_eq!(o.or("e", true, boolean), Ok(true));
    }

    #[test]
    fn a_fault_names_the_place_inside_arrays_and_objects() {
        let fault = list(json!(["a", "b", 3]), "services", text).expect_err("a number");
        assert_eq!(fault.to_string(), "services[2] has to be a string, not a number");
        let fault = octet_map(json!({"1": 256}), "srtp.policies[0].parameters").expect_err("256");
        assert_eq!(fault.field, "srtp.policies[0].parameters.1");
        assert!(octet_map(json!({"01": 2}), "p").is_err());
    }

    #[test]
    fn numbers_have_their_bounds() {
        assert_eq!(short(json!(65535), "n"), Ok(65535));
        for wrong in [json!(65536), json!(-1), json!(1.5), json!("1"), json!(null)] {
            assert!(short(wrong.clone(), "n").is_err(), "{wrong}");
        }
        assert_eq!(long(json!(4_294_967_295_u64), "n"), Ok(u32::MAX));
        assert!(octet(json!(256), "n").is_err());
    }

    #[test]
    fn octets_are_base64_with_padding_or_hex_of_their_length() {
        assert_eq!(octets(json!("AQI="), "o"), Ok(vec![1, 2]));
        for wrong in ["AQI", "A-I=", "AQI=\n", "AQI=AQI=", "é"] {
            assert!(octets(json!(wrong), "o").is_err(), "{wrong}");
        }
        assert_eq!(hex::<2>(json!("68C9"), "h"), Ok([0x68, 0xc9]));
        for wrong in ["68c", "68c900", "68 c", "zzzz", ""] {
            assert!(hex::<2>(json!(wrong), "h").is_err(), "{wrong}");
        }
    }
}
