//! The table of keys for readers.

use std::fmt::Write;

use super::schema::{KEYS, Kind, TABLES, Without};

fn type_of(kind: Kind) -> String {
    let quoted = |names: &[&str]| names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(" or ");
    match kind {
        Kind::Text(form) => format!("string: {form}"),
        Kind::List(form, min, max) => format!("list of {min} to {max}: {form}"),
        Kind::Integer(min, max) => format!("integer, {min} to {max}"),
        Kind::Duration(min, max) => format!("duration, {min} to {max}"),
        Kind::Size(min, max) => format!("size, {min} to {max}"),
        Kind::OneOf(names) => quoted(names),
        Kind::Flag => quoted(&["true", "false"]),
        Kind::Secret(form) => format!("file of a secret: {form}"),
    }
}

fn default_of(without: Without) -> String {
    match without {
        Without::Required(_) => "**required**".to_owned(),
        Without::Toml(text) => format!("`{text}`"),
        Without::Absent(meaning) => format!("– ({meaning})"),
    }
}

/// All keys as Markdown, a table for each table of the file: what `docs/configuration.md` holds.
pub fn reference() -> String {
    let mut text = String::new();
    for table in TABLES.iter() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "## `[{table}]`\n\n| key | type | default | meaning | live |");
        text.push_str("| --- | --- | --- | --- | --- |\n");
        for key in KEYS.iter().filter(|k| k.path.rsplit_once('.').is_some_and(|(t, _)| t == *table)) {
            let live = if key.live { "yes" } else { "no" };
            let (kind, default) = (type_of(key.kind), default_of(key.default));
            let _ = writeln!(text, "| `{}` | {kind} | {default} | {} | {live} |", key.path, key.meaning);
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}
