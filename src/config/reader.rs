//! Typed reading of known keys. A fault is noted and reading goes on, so that all are told at once.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::de::DeValue;

use super::fault::{Fault, Place};
use super::raw::{Node, Raw, Value};
use super::schema::{self, Key, Kind, Without};
use super::value::{self, Refused};

/// Reads keys as the schema has them. Every method answers `None` when a fault was noted.
pub(super) struct Reader {
    raw: Raw,
    /// What should be looked at but is no fault.
    pub(super) warnings: Vec<Fault>,
    /// Where systemd puts credentials, when it does.
    pub(super) credentials: Option<PathBuf>,
}

/// What is known of a key: given, or its default, or absent; `Fault` when it is required and missing.
enum Given {
    Value(Node),
    Absent,
    Fault,
}

fn schema_key(path: &str) -> &'static Key {
    schema::find(path).expect("only keys of the schema are read")
}

/// A value as faults repeat it: text in quotes, not without end.
fn shown(text: &str) -> String {
    let mut cut: String = text.chars().take(80).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    format!("{cut:?}")
}

impl Reader {
    pub(super) fn new(raw: Raw, credentials: Option<PathBuf>) -> Self {
        Self { raw, warnings: Vec::new(), credentials }
    }

    /// All faults, and the warnings.
    pub(super) fn finish(self) -> (Vec<Fault>, Vec<Fault>) {
        (self.raw.faults, self.warnings)
    }

    /// Notes a fault of a key, at the place of its value or, without one, of its table.
    pub(super) fn fault(&mut self, path: &str, what: impl Into<String>) {
        let place = self.place(path);
        self.raw.fault(place, path, what);
    }

    /// Notes a fault at a place.
    pub(super) fn fault_at(&mut self, place: Place, path: &str, what: impl Into<String>) {
        self.raw.fault(place, path, what);
    }

    /// Notes a warning of a key.
    pub(super) fn warn_at(&mut self, place: Place, path: &str, what: impl Display) {
        self.warnings.push(Fault { place, key: path.to_owned(), what: format!("warning: {what}") });
    }

    /// Where a key was given; its table's place when it was not.
    pub(super) fn place(&self, path: &str) -> Place {
        match self.raw.keys.get(path) {
            Some(node) => node.place.clone(),
            None => self.raw.place_of_table(path.rsplit_once('.').map_or("", |(table, _)| table)),
        }
    }

    /// Whether a table, or a key of it, was given.
    pub(super) fn has_table(&self, table: &str) -> bool {
        self.raw.has_table(table)
    }

    /// Whether a key was given.
    pub(super) fn has(&self, path: &str) -> bool {
        self.raw.keys.contains_key(path)
    }

    fn given(&mut self, path: &'static str) -> Given {
        if let Some(node) = self.raw.keys.get(path) {
            return Given::Value(node.clone());
        }
        // Its line is there but nobody can read it: no default stands in for what was meant.
        if self.raw.is_broken(path) {
            return Given::Fault;
        }
        match schema_key(path).default {
            Without::Absent(_) => Given::Absent,
            Without::Toml(text) => {
                let value = DeValue::parse(text).expect("the schema's defaults are TOML");
                let place = self.place(path);
                Given::Value(super::raw::node(&value, &|_| place.clone(), None))
            }
            Without::Required(example) => {
                self.missing(path, &format!("add a line such as {example}"));
                Given::Fault
            }
        }
    }

    /// Notes that a key is missing, unless its line is there but broken.
    pub(super) fn missing(&mut self, path: &str, what_to_do: &str) {
        if !self.raw.is_broken(path) {
            self.fault(path, format!("is missing: {what_to_do}"));
        }
    }

    fn wrong_kind(&mut self, node: &Node, path: &str, wanted: &str) {
        // A secret given as a number would be shown by its value: only the kind is told.
        let what = match &node.bare {
            Some(_) => format!("must be {wanted}"),
            None => format!("is {}: give {wanted}", node.value.kind()),
        };
        self.raw.fault(node.place.clone(), path, what);
    }

    /// Reads one string's value, with its place in faults.
    fn parse<T, E: Display>(
        &mut self,
        node: &Node,
        path: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = match (&node.value, &node.bare) {
            (Value::String(text), _) | (_, Some(text)) => text,
            _ => {
                let wanted = match schema_key(path).kind {
                    Kind::Duration(min, max) => format!("a duration in quotes, \"{min}\" to \"{max}\""),
                    Kind::Size(min, max) => format!("a size in quotes, \"{min}\" to \"{max}\""),
                    _ => "a string, in quotes".to_owned(),
                };
                self.wrong_kind(node, path, &wanted);
                return None;
            }
        };
        match parse(text) {
            Ok(value) => Some(value),
            Err(refused) => {
                // A URL may hold a password, and whoever gives a secret where its file is due gives it as a path.
                let url = text.contains('@') || value::is_database(text);
                let secret = url || matches!(schema_key(path).kind, Kind::Secret(_));
                let shown = if secret { "the value".to_owned() } else { shown(text) };
                self.raw.fault(node.place.clone(), path, format!("{shown} {refused}"));
                None
            }
        }
    }

    /// A key that has a value, given or by default.
    pub(super) fn value<T, E: Display>(
        &mut self,
        path: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.optional(path, parse)?
    }

    /// A key that may be absent.
    pub(super) fn optional<T, E: Display>(
        &mut self,
        path: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<Option<T>> {
        match self.given(path) {
            Given::Value(node) => self.parse(&node, path, parse).map(Some),
            Given::Absent => Some(None),
            Given::Fault => None,
        }
    }

    /// A text of a type that checks itself.
    pub(super) fn text<T: FromStr<Err = Refused>>(&mut self, path: &'static str) -> Option<T> {
        self.value(path, str::parse)
    }

    /// A list without repetitions, its length as the schema has it; one string is a list of one.
    pub(super) fn list<T: PartialEq>(
        &mut self,
        path: &'static str,
        mut parse: impl FnMut(&str) -> Result<T, Refused>,
    ) -> Option<Vec<T>> {
        let Kind::List(_, min, max) = schema_key(path).kind else {
            unreachable!("{path} is a list in the schema");
        };
        let Given::Value(node) = self.given(path) else { return None };
        let items = match &node.value {
            Value::Array(items) => items.clone(),
            Value::String(_) => vec![node.clone()],
            _ if node.bare.is_some() => vec![node.clone()],
            _ => {
                self.wrong_kind(&node, path, "a list of strings, such as [\"…\", \"…\"]");
                return None;
            }
        };
        if items.len() < min || items.len() > max {
            let what = format!("has {} entries: give {min} to {max}", items.len());
            self.raw.fault(node.place, path, what);
            return None;
        }
        let mut values: Vec<T> = Vec::with_capacity(items.len());
        let mut whole = true;
        for item in &items {
            match self.parse(item, path, &mut parse) {
                Some(value) if values.contains(&value) => {
                    self.raw.fault(item.place.clone(), path, "names the same twice: give each once");
                    whole = false;
                }
                Some(value) => values.push(value),
                None => whole = false,
            }
        }
        whole.then_some(values)
    }

    /// An integer within the schema's bounds, which `T` can hold; `None` inside when absent.
    pub(super) fn optional_integer<T: TryFrom<i64>>(&mut self, path: &'static str) -> Option<Option<T>> {
        let Kind::Integer(min, max) = schema_key(path).kind else {
            unreachable!("{path} is an integer in the schema");
        };
        let node = match self.given(path) {
            Given::Value(node) => node,
            Given::Absent => return Some(None),
            Given::Fault => return None,
        };
        let wanted = format!("an integer from {min} to {max}");
        match node.value {
            Value::Integer(i) => {
                let value = i.filter(|i| (min..=max).contains(i)).and_then(|i| T::try_from(i).ok());
                if value.is_none() {
                    let shown = i.map_or("a number that long".to_owned(), |i| i.to_string());
                    self.raw.fault(node.place, path, format!("{shown} is out of bounds: give {wanted}"));
                }
                value.map(Some)
            }
            _ => {
                self.wrong_kind(&node, path, &wanted);
                None
            }
        }
    }

    /// An integer within the schema's bounds, which `T` can hold.
    pub(super) fn integer<T: TryFrom<i64>>(&mut self, path: &'static str) -> Option<T> {
        self.optional_integer(path)?
    }

    /// A duration within the schema's bounds.
    pub(super) fn duration(&mut self, path: &'static str) -> Option<Duration> {
        let Kind::Duration(min, max) = schema_key(path).kind else {
            unreachable!("{path} is a duration in the schema");
        };
        self.within(path, min, max, value::duration)
    }

    /// A size in octets within the schema's bounds.
    pub(super) fn size(&mut self, path: &'static str) -> Option<usize> {
        let Kind::Size(min, max) = schema_key(path).kind else {
            unreachable!("{path} is a size in the schema");
        };
        self.within(path, min, max, value::size)
    }

    fn within<T: PartialOrd>(
        &mut self,
        path: &'static str,
        min: &str,
        max: &str,
        read: impl Fn(&str) -> Result<T, Refused>,
    ) -> Option<T> {
        let bound = |text| read(text).expect("the schema's bounds are of their key's type");
        let bounds = bound(min)..=bound(max);
        self.value(path, |text| {
            let value = read(text)?;
            match bounds.contains(&value) {
                true => Ok(value),
                false => Err(Refused(format!("is out of bounds: give \"{min}\" to \"{max}\"").into())),
            }
        })
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, path: &'static str) -> Option<bool> {
        let Given::Value(node) = self.given(path) else { return None };
        match node.value {
            Value::Boolean(value) => Some(value),
            _ => {
                self.wrong_kind(&node, path, "true or false, without quotes");
                None
            }
        }
    }

    /// One of some named values.
    pub(super) fn choice<T: Copy>(
        &mut self,
        path: &'static str,
        values: &[T],
        name: impl Fn(T) -> &'static str,
    ) -> Option<T> {
        self.value(path, |text| named(text, values, name))
    }
}

/// The value of that name, or which names there are.
pub(super) fn named<T: Copy>(
    text: &str,
    values: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<T, Refused> {
    values.iter().copied().find(|v| name(*v) == text).ok_or_else(|| {
        let names: Vec<String> = values.iter().map(|v| format!("{:?}", name(*v))).collect();
        Refused(format!("is not known: give {}", names.join(" or ")).into())
    })
}
