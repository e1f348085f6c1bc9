//! From text to values with places: the file by lines, the environment by variables, unknown names refused.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Fault, Place};
use super::recover::{document, mend, printable};
use super::schema::{self, Kind};

/// A TOML value that knows its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
    /// A variable's text as it is: a string without quotes, whatever TOML takes it for.
    pub(super) bare: Option<String>,
}

/// What a [`Node`] holds.
#[derive(Debug, Clone)]
pub(super) enum Value {
    String(String),
    /// None when it does not fit.
    Integer(Option<i64>),
    Boolean(bool),
    Array(Vec<Node>),
    Table(Vec<Entry>),
    /// What no key takes: a float or a date.
    Other,
}

/// One key of a table, by the place of its name.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    name: String,
    place: Place,
    node: Node,
}

impl Value {
    /// What it is called.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Boolean(_) => "a boolean",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
            Self::Other => "a number or a date of another kind",
        }
    }
}

/// Everything that was given, by known key.
#[derive(Debug)]
pub(super) struct Raw {
    /// Name of the file or of what stands for it.
    pub(super) origin: Arc<str>,
    /// The keys that were given.
    pub(super) keys: BTreeMap<&'static str, Node>,
    /// The tables that were given, empty ones too, by their first place.
    pub(super) tables: BTreeMap<&'static str, Place>,
    /// Faults so far.
    pub(super) faults: Vec<Fault>,
}

/// Octet offsets to line numbers.
struct Lines<'a> {
    origin: &'a Arc<str>,
    starts: Vec<usize>,
}

impl Lines<'_> {
    fn number(&self, offset: usize) -> u32 {
        u32::try_from(self.starts.partition_point(|&s| s <= offset)).unwrap_or(u32::MAX)
    }

    fn place(&self, span: Range<usize>) -> Place {
        Place::Line(Arc::clone(self.origin), self.number(span.start))
    }
}

impl Raw {
    /// Reads a file's text.
    pub(super) fn file(origin: &str, text: &str) -> Self {
        let origin: Arc<str> = Arc::from(origin);
        let (mended, slips) = mend(text);
        let starts = std::iter::once(0).chain(mended.match_indices('\n').map(|(i, _)| i + 1)).collect();
        let lines = Lines { origin: &origin, starts };
        let faults = slips.into_iter().map(|slip| Fault {
            place: Place::Line(Arc::clone(&origin), u32::try_from(slip.line).unwrap_or(u32::MAX)),
            key: slip.key,
            what: format!("is not TOML: {}; correct this line", slip.message),
        });
        let faults = faults.collect();
        let top = table(document(&mended).get_ref(), &|span| lines.place(span), None);
        let mut raw =
            Self { origin: Arc::clone(&origin), keys: BTreeMap::new(), tables: BTreeMap::new(), faults };
        raw.absorb("", top);
        raw
    }

    /// Lays the `LTKMD_…` variables over the file. `LTKMD_CTL_…` are not the daemon's.
    pub(super) fn environment(&mut self, variables: impl Iterator<Item = (OsString, OsString)>) {
        let mut variables: Vec<_> = variables
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
            .filter(|(n, _)| n.starts_with(schema::VARIABLE_PREFIX) && !n.starts_with("LTKMD_CTL_"))
            .collect();
        // A table's variable sorts before those of its keys, so that these override it.
        variables.sort();
        for (name, value) in variables {
            let place = Place::Variable(Arc::from(printable(&name)));
            let known = schema::KEYS.iter().map(|k| k.path).chain(schema::TABLES.iter().copied());
            let Some(path) = known.into_iter().find(|p| schema::variable(p) == name) else {
                self.unknown_variable(&name, place);
                continue;
            };
            let Ok(text) = value.into_string() else {
                self.fault(place, path, "is not UTF-8: give text");
                continue;
            };
            let node = variable_value(&text, &place);
            if matches!(node.value, Value::Table(_)) {
                self.keys.retain(|k, _| !k.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')));
            }
            self.give(path, place, node);
        }
    }

    fn unknown_variable(&mut self, name: &str, place: Place) {
        let path = name.trim_start_matches(schema::VARIABLE_PREFIX).to_ascii_lowercase().replace("__", ".");
        let (nearest, nearest_path) = schema::nearest_variable(name);
        let what = match inline_secret(&path, nearest_path, true) {
            Some(key) => inline_secret_text(&schema::variable(key)),
            None => format!("is an unknown variable: did you mean {nearest}?"),
        };
        self.fault(place, &printable(&path), what);
    }

    /// Takes the entries of a table that is known.
    fn absorb(&mut self, prefix: &str, entries: Vec<Entry>) {
        for Entry { name, place, node } in entries {
            // A dot inside a quoted key is no separator: such a key is unknown, whatever it spells.
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            let known = match name.contains('.') {
                true => None,
                false => schema::find(&path).map(|k| k.path).or_else(|| schema::find_table(&path)),
            };
            match known {
                Some(path) => self.give(path, place, node),
                None => self.unknown(&path, place, &node),
            }
        }
    }

    /// Takes the value of a known key or table.
    fn give(&mut self, path: &'static str, place: Place, node: Node) {
        for (dot, _) in path.match_indices('.') {
            let table = &path[..dot];
            self.tables.entry(table).or_insert_with(|| place.clone());
        }
        if schema::find_table(path).is_none() {
            self.keys.insert(path, node);
            return;
        }
        match node.value {
            Value::Table(entries) => {
                self.tables.entry(path).or_insert(place);
                self.absorb(path, entries);
            }
            Value::Array(_) => self.fault(place, path, format!("is a list: give one table, [{path}]")),
            _ => self.fault(place, path, format!("is {}: give a table, [{path}]", node.value.kind())),
        }
    }

    fn unknown(&mut self, path: &str, place: Place, node: &Node) {
        let nearest = schema::nearest(path);
        let is_text = matches!(node.value, Value::String(_));
        let kind = if matches!(node.value, Value::Table(_)) { "table" } else { "key" };
        let what = match inline_secret(path, nearest, is_text) {
            Some(key) => inline_secret_text(key),
            None => format!("is an unknown {kind}: did you mean {nearest}?"),
        };
        self.fault(place, &printable(path), what);
    }

    /// Adds a fault.
    pub(super) fn fault(&mut self, place: Place, key: &str, what: impl Into<String>) {
        self.faults.push(Fault { place, key: key.to_owned(), what: what.into() });
    }

    /// Whether a table, or a key of it, was given.
    pub(super) fn has_table(&self, table: &str) -> bool {
        self.tables.contains_key(table)
    }

    /// Where something is missing from a table: at the table, or at the file's first line.
    pub(super) fn place_of_table(&self, table: &str) -> Place {
        self.tables.get(table).cloned().unwrap_or_else(|| Place::Line(Arc::clone(&self.origin), 1))
    }

    /// Whether a key, or its table, already has a fault, so that nobody knows whether or how it was given.
    pub(super) fn is_broken(&self, path: &str) -> bool {
        let about = |key: &str| path.strip_prefix(key).is_some_and(|r| r.is_empty() || r.starts_with('.'));
        self.faults.iter().any(|f| !f.key.is_empty() && about(&f.key))
    }
}

/// The secret's file key, when an unknown key looks like the secret itself.
fn inline_secret(path: &str, nearest: &'static str, is_text: bool) -> Option<&'static str> {
    if let Some(key) = schema::secret_named(path) {
        return Some(key.path);
    }
    let sounds_secret = ["token", "secret", "password", "key", "pin"].iter().any(|w| path.ends_with(w));
    let secret = schema::find(nearest).is_some_and(|k| matches!(k.kind, Kind::Secret(_)));
    (is_text && secret && sounds_secret).then_some(nearest)
}

fn inline_secret_text(key: &str) -> String {
    format!("would be a secret in the open: put it into a file of its own and name that file in {key}")
}

/// A variable's value: TOML if it is TOML, else the text itself.
fn variable_value(text: &str, place: &Place) -> Node {
    match DeValue::parse(text) {
        Ok(value) => node(&value, &|_| place.clone(), Some(text)),
        Err(_) => {
            Node { place: place.clone(), value: Value::String(text.to_owned()), bare: Some(text.to_owned()) }
        }
    }
}

/// `bare` is handed to the outermost value alone: text inside a list or a table has its quotes.
pub(super) fn node(
    value: &Spanned<DeValue<'_>>,
    place: &dyn Fn(Range<usize>) -> Place,
    bare: Option<&str>,
) -> Node {
    let inner = match value.get_ref() {
        DeValue::String(text) => Value::String(text.clone().into_owned()),
        DeValue::Integer(i) => Value::Integer(i64::from_str_radix(i.as_str(), i.radix()).ok()),
        DeValue::Boolean(b) => Value::Boolean(*b),
        DeValue::Array(items) => Value::Array(items.iter().map(|v| node(v, place, None)).collect()),
        DeValue::Table(entries) => Value::Table(table(entries, place, None)),
        DeValue::Float(_) | DeValue::Datetime(_) => Value::Other,
    };
    Node { place: place(value.span()), value: inner, bare: bare.map(str::to_owned) }
}

fn table(entries: &DeTable<'_>, place: &dyn Fn(Range<usize>) -> Place, bare: Option<&str>) -> Vec<Entry> {
    let entry = |(name, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
        let name_text: &std::borrow::Cow<'_, str> = name.get_ref();
        Entry {
            name: name_text.clone().into_owned(),
            place: place(name.span()),
            node: node(value, place, bare),
        }
    };
    entries.iter().map(entry).collect()
}
