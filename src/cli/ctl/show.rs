//! How answers are shown: tables for people, the API's own JSON for programs.

use std::io::{self, Write};

use comfy_table::presets::{NOTHING, UTF8_FULL_CONDENSED};
use comfy_table::{ContentArrangement, Table};
use serde_json::Value;

use super::Failure;
use super::api::Reply;

/// The narrowest terminal that tables are folded for, in columns.
const NARROWEST: u16 = 40;

/// Where answers go, and in which form.
pub(super) struct Screen<'a> {
    /// Answers.
    pub(super) out: &'a mut dyn Write,
    /// Notes and faults.
    pub(super) err: &'a mut dyn Write,
    /// Whether the API's JSON is wanted.
    pub(super) json: bool,
    /// Whether `out` is a terminal, whose width tables keep to and frames look good on.
    pub(super) terminal: bool,
    /// Whether stderr is a terminal, on which bars can be drawn.
    pub(super) bars: bool,
}

/// A value as a cell: null and nothing are a dash.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(" "),
        Value::Object(members) if members.is_empty() => "-".to_owned(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| format!("{name}={}", cell(value)))
            .collect::<Vec<_>>()
            .join(" "),
        other => other.to_string(),
    }
}

impl Screen<'_> {
    /// A line of text.
    pub(super) fn line(&mut self, text: &str) -> Result<(), Failure> {
        finish(writeln!(self.out, "{text}"))
    }

    /// A line on stderr, for what is no answer.
    pub(super) fn note(&mut self, text: &str) -> Result<(), Failure> {
        finish(writeln!(self.err, "{text}"))
    }

    /// Rows under a header.
    pub(super) fn table(&mut self, header: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
        let mut table = self.empty();
        table.set_header(header.iter().copied());
        table.add_rows(rows);
        self.print(&table)
    }

    /// One thing: a row for each of its fields.
    pub(super) fn card(&mut self, rows: Vec<(&str, String)>) -> Result<(), Failure> {
        let mut table = self.empty();
        table.add_rows(rows.into_iter().map(|(name, value)| [name.to_owned(), value]));
        self.print(&table)
    }

    /// An answer that is one document: its fields, or the API's octets.
    pub(super) fn document(&mut self, reply: &Reply) -> Result<(), Failure> {
        if self.json {
            return self.raw(reply);
        }
        let mut members: Vec<_> = reply.value.as_object().into_iter().flatten().collect();
        members.sort_by_key(|(name, _)| !matches!(name.as_str(), "id" | "btid"));
        self.card(members.into_iter().map(|(name, value)| (name.as_str(), cell(value))).collect())
    }

    /// A list in the API's form: these columns of its items, or its JSON.
    pub(super) fn list(&mut self, list: &Value, columns: &[(&str, &str)]) -> Result<(), Failure> {
        if self.json {
            return self.line(&list.to_string());
        }
        let header: Vec<_> = columns.iter().map(|(title, _)| *title).collect();
        let items = list["items"].as_array().into_iter().flatten();
        let row = |item: &Value| columns.iter().map(|(_, place)| cell(&item[place])).collect();
        self.table(&header, items.map(row).collect())?;
        match list["next"].as_str() {
            Some(next) => self.note(&format!("there are more: go on with --after '{next}'")),
            None => Ok(()),
        }
    }

    /// The API's octets.
    pub(super) fn raw(&mut self, reply: &Reply) -> Result<(), Failure> {
        if reply.raw.is_empty() {
            return Ok(());
        }
        finish(self.out.write_all(&reply.raw).and_then(|()| writeln!(self.out)))
    }

    /// Lets a reader at the other end of a pipe see what was written so far.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        finish(self.out.flush())
    }

    /// An answer without a document: a sentence for people, nothing for programs.
    pub(super) fn done(&mut self, sentence: &str) -> Result<(), Failure> {
        if self.json { Ok(()) } else { self.line(sentence) }
    }

    fn empty(&self) -> Table {
        let mut table = Table::new();
        if self.terminal {
            table.load_style(UTF8_FULL_CONDENSED);
            // A terminal that does not know its width says 0; columns of one letter help nobody.
            if table.width().is_some_and(|width| width >= NARROWEST) {
                table.set_content_arrangement(ContentArrangement::Dynamic);
            }
        } else {
            table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        }
        table
    }

    fn print(&mut self, table: &Table) -> Result<(), Failure> {
        let text = table.trim_fmt();
        self.line(&text)
    }
}

/// A reader that went away (`ctl … | head`) is content with what it got.
fn finish(written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("the output cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cells_are_plain_text() {
        for (value, text) in [
            (json!(null), "-"),
            (json!([]), "-"),
            (json!(["a", "b"]), "a b"),
            (json!({"udp": 1, "http": 0}), "udp=1 http=0"),
            (json!(true), "true"),
            (json!(3), "3"),
        ] {
            let mut cells: Vec<_> = cell(&value).split(' ').map(str::to_owned).collect();
            let mut texts: Vec<_> = text.split(' ').map(str::to_owned).collect();
            cells.sort();
            texts.sort();
            assert_eq!(cells, texts);
        }
    }

    #[test]
    fn off_a_terminal_each_item_is_one_line_whatever_its_length() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let long = "x".repeat(500);
        let list = json!({"items": [{"id": long}, {"id": "b"}], "next": "b"});
        let mut screen = Screen { out: &mut out, err: &mut err, json: false, terminal: false, bars: false };
        screen.list(&list, &[("SERVICE", "id")]).unwrap();
        let out = String::from_utf8(out).unwrap();
        let lines: Vec<_> = out.lines().map(str::trim).collect();
        assert_eq!(lines, ["SERVICE", &long, "b"]);
        assert_eq!(String::from_utf8(err).unwrap(), "there are more: go on with --after 'b'\n");
    }
}
