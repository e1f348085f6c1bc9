//! Markdown to a manual page: what the chapters use of it.

use clap_mangen::roff::{Inline, Roff, bold, italic, line_break, roman};
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use super::pages::Page;

/// Columns that a table may take before it becomes a list of its rows: a terminal's 80, less the page's margins.
const WIDTH: usize = 70;

/// What stands between two columns of a table.
const GAP: usize = 3;

/// The page in roff, without what all pages end in.
pub(super) fn page(page: &Page) -> Roff {
    let mut writer = Writer::default();
    let version = concat!("ltkmd ", env!("CARGO_PKG_VERSION"));
    writer.roff.control("TH", [page.name, page.section, "\"\"", version, "ltkmd handbook"]);
    // Names and commands stay in one piece.
    writer.roff.control("nh", []).control("ad", ["l"]).control("SH", ["NAME"]);
    writer.roff.text([roman(format!("{} - {}", page.name, page.title()))]);
    writer.roff.control("SH", ["DESCRIPTION"]);
    writer.fresh = true;
    for event in Parser::new_ext(page.text, Options::ENABLE_TABLES) {
        writer.take(event);
    }
    writer.roff
}

/// A table while it is read.
#[derive(Default)]
struct Table {
    rows: Vec<Vec<Vec<Inline>>>,
}

#[derive(Default)]
struct Writer {
    roff: Roff,
    /// The paragraph, heading or cell that is being read.
    line: Vec<Inline>,
    strong: bool,
    emphasis: bool,
    /// The link's target and where its text began.
    link: Option<(String, usize)>,
    image: bool,
    /// The code block that is being read.
    code: Option<String>,
    /// The lists that are open: the next number, or none for bullets.
    lists: Vec<Option<u64>>,
    /// An item has begun, and its first paragraph has not.
    item: bool,
    /// Nothing stands yet below the last heading: a paragraph needs no space before it.
    fresh: bool,
    table: Option<Table>,
}

impl Writer {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => match &mut self.code {
                Some(code) => code.push_str(&text),
                None => self.push(&text),
            },
            Event::Code(text) => self.line.push(bold(&*text)),
            Event::SoftBreak => self.push(" "),
            Event::HardBreak => self.line.push(line_break()),
            _ => {}
        }
    }

    fn push(&mut self, text: &str) {
        self.line.push(match (self.strong, self.emphasis || self.image) {
            (true, _) => bold(text),
            (_, true) => italic(text),
            _ => roman(text),
        });
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Strong => self.strong = true,
            Tag::Emphasis => self.emphasis = true,
            Tag::Link { dest_url, .. } => self.link = Some((dest_url.into_string(), self.line.len())),
            Tag::Image { .. } => self.image = true,
            Tag::CodeBlock(kind) => {
                self.flush();
                // A block that is a file's text has its name behind the language.
                if let CodeBlockKind::Fenced(info) = kind
                    && let Some((_, name)) = info.split_once(' ')
                {
                    self.line.extend([italic(name), roman(":")]);
                    self.flush();
                }
                self.code = Some(String::new());
            }
            Tag::List(first) => {
                self.flush();
                if !self.lists.is_empty() {
                    self.roff.control("RS", []);
                }
                self.lists.push(first);
            }
            Tag::Item => self.item = true,
            Tag::Table(_) => self.table = Some(Table::default()),
            Tag::TableHead | Tag::TableRow => {
                if let Some(table) = &mut self.table {
                    table.rows.push(Vec::new());
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Strong => self.strong = false,
            TagEnd::Emphasis => self.emphasis = false,
            TagEnd::Image => self.image = false,
            TagEnd::Link => self.end_link(),
            TagEnd::Heading(level) => {
                let title = argument(&plain(&std::mem::take(&mut self.line)));
                match level as usize {
                    1 => {} // The page's name says it.
                    2 => drop(self.roff.control("SH", [title.as_str()])),
                    _ => drop(self.roff.control("SS", [title.as_str()])),
                }
                self.fresh = true;
            }
            TagEnd::Paragraph => self.flush(),
            TagEnd::CodeBlock => {
                let code = self.code.take().unwrap_or_default();
                if self.item {
                    self.begin_item();
                }
                if !self.fresh {
                    self.roff.control("PP", []);
                }
                self.roff.control("RS", ["4"]).control("nf", []);
                for line in code.lines() {
                    self.roff.text([roman(line)]);
                }
                self.roff.control("fi", []).control("RE", []);
                self.fresh = false;
            }
            TagEnd::Item => {
                self.flush();
                self.item = false;
            }
            TagEnd::List(_) => {
                self.lists.pop();
                if !self.lists.is_empty() {
                    self.roff.control("RE", []);
                }
            }
            TagEnd::TableCell => {
                let cell = std::mem::take(&mut self.line);
                if let Some(row) = self.table.as_mut().and_then(|table| table.rows.last_mut()) {
                    row.push(cell);
                }
            }
            TagEnd::Table => {
                if let Some(table) = self.table.take() {
                    self.table(table);
                }
            }
            _ => {}
        }
    }

    /// A link to a chapter names its page; one to elsewhere shows where; a file of the sources is named by its text.
    fn end_link(&mut self) {
        let Some((target, begun)) = self.link.take() else { return };
        if let Some(page) = Page::linked(&target).filter(|_| !target.starts_with('#')) {
            let own = plain(&self.line[begun..]).ends_with(".md");
            let name = [bold(page.name), roman(format!("({})", page.section))];
            if own {
                self.line.truncate(begun);
                self.line.extend(name);
            } else {
                self.line.push(roman(", "));
                self.line.extend(name);
                self.line.push(roman(","));
            }
        } else if target.contains("://") && plain(&self.line[begun..]) != target {
            self.line.push(roman(format!(" <{target}>")));
        }
    }

    /// A new item's sign stands before its first paragraph.
    fn begin_item(&mut self) {
        self.item = false;
        match self.lists.last_mut() {
            Some(Some(number)) => {
                let sign = format!("{number}.");
                *number += 1;
                self.roff.control("IP", [sign.as_str(), "4"]);
            }
            _ => drop(self.roff.control("IP", ["\\(bu", "2"])),
        }
    }

    /// Writes the paragraph that is complete.
    fn flush(&mut self) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return;
        }
        if self.item {
            self.begin_item();
        } else if !self.lists.is_empty() {
            let indent = if matches!(self.lists.last(), Some(Some(_))) { "4" } else { "2" };
            self.roff.control("IP", ["\"\"", indent]);
        } else if !std::mem::take(&mut self.fresh) {
            self.roff.control("PP", []);
        }
        self.fresh = false;
        self.roff.text(tidy(line));
    }

    /// Small tables stay tables; in others a row's first cell leads, and the others follow under their heads.
    fn table(&mut self, table: Table) {
        let mut rows = table.rows.into_iter();
        let Some(head) = rows.next() else { return };
        let rows: Vec<_> = rows.collect();
        let widest = |column: usize| {
            let cells = rows.iter().chain([&head]).filter_map(|row| row.get(column));
            cells.map(|cell| plain(cell).chars().count()).max().unwrap_or(0)
        };
        let width: usize = (0..head.len()).map(|column| widest(column) + GAP).sum();
        if width <= WIDTH && head.len() > 1 {
            self.roff.control("TS", []);
            let columns = vec!["l"; head.len()].join(" ");
            self.roff.text([roman(format!("{columns}."))]);
            for row in std::iter::once(head).filter(|head| !head.iter().all(Vec::is_empty)).chain(rows) {
                let cells = row.into_iter().enumerate();
                let line = cells.flat_map(|(i, cell)| (i > 0).then(|| roman("\t")).into_iter().chain(cell));
                self.roff.text(line.collect::<Vec<_>>());
            }
            self.roff.control("TE", []);
        } else {
            for row in rows {
                let mut cells = row.into_iter();
                self.roff.control("TP", []).text(tidy(cells.next().unwrap_or_default()));
                let named = head.len() > 2;
                for (i, (cell, name)) in cells.zip(&head[1..]).enumerate() {
                    if i > 0 {
                        self.roff.control("br", []);
                    }
                    let name = plain(name);
                    let name = Some(italic(format!("{name}: "))).filter(|_| named && !name.is_empty());
                    self.roff.text(name.into_iter().chain(tidy(cell)).collect::<Vec<_>>());
                }
            }
        }
        self.fresh = false;
    }
}

/// No comma stands before another sign, where a link's page is named at the end of a clause.
fn tidy(line: Vec<Inline>) -> Vec<Inline> {
    let mut out: Vec<Inline> = Vec::with_capacity(line.len());
    for part in line {
        let comma = out.last() == Some(&roman(","));
        match &part {
            Inline::Roman(text) if comma && text.starts_with(['.', ',', ';', ':', ')', '?']) => {
                out.pop();
            }
            _ => {}
        }
        out.push(part);
    }
    if out.last() == Some(&roman(",")) {
        out.pop();
    }
    out
}

/// The text alone.
fn plain(line: &[Inline]) -> String {
    let text = line.iter().map(|part| match part {
        Inline::Roman(text) | Inline::Italic(text) | Inline::Bold(text) => text.as_str(),
        Inline::LineBreak => " ",
    });
    text.collect()
}

/// Text as a macro's argument, which nothing else escapes.
fn argument(text: &str) -> String {
    text.replace('\\', "\\(rs").replace('"', "\\(dq").replace('-', "\\-")
}
