//! A file that is not TOML in places: what is wrong there, and the rest of it as if that were mended.
//!
//! The parser's own recovery loses its way after an open bracket or quote and then finds fault with what is right.
//! Here each error is mended in turn, by the change that leaves the fewest others: the line made empty, or the
//! whole statement, or the one before it, which may not have ended.

use toml::Spanned;
use toml::de::{DeTable, Error};

/// Errors that are mended one by one; any further ones are told as the parser has them.
const MAX_MENDED: usize = 32;

/// One place that is not TOML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slip {
    /// Counted from 1.
    pub(super) line: usize,
    /// The path of the key or table that the line is about, as far as the line tells.
    pub(super) key: String,
    /// What is wrong, without a capital or a full stop.
    pub(super) message: String,
}

/// Mends the text until it is TOML but for names given twice, which the parser takes once. The text answered has
/// the same lines as the one given.
pub(super) fn mend(text: &str) -> (String, Vec<Slip>) {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut slips = Vec::new();
    let mut mended = text.to_owned();
    for _ in 0..MAX_MENDED {
        let Some((line, message)) = errors(&mended).0.into_iter().next() else { break };
        let (candidate, culprit) = best_mending(&lines, line);
        let message = match culprit < line {
            true => "its value does not end before the next key begins".to_owned(),
            false => message,
        };
        slips.push(Slip { line: culprit, key: key_at_line(text, culprit), message });
        lines = candidate;
        mended = lines.join("\n");
    }
    let (broken, twice) = errors(&mended);
    for (line, message) in broken.into_iter().chain(twice) {
        slips.push(Slip { line, key: key_at_line(text, line), message });
    }
    slips.sort_by_key(|s| s.line);
    slips.dedup_by_key(|s| s.line);
    (mended, slips)
}

/// The text's TOML, as far as it is.
pub(super) fn document(mended: &str) -> Spanned<DeTable<'_>> {
    DeTable::parse_recoverable(mended).0
}

/// An error's line and message.
type Located = (usize, String);

/// Errors by line: those of the grammar, and names given twice.
fn errors(text: &str) -> (Vec<Located>, Vec<Located>) {
    // An error at the end of a line belongs to it, not to the next; so does one at the text's end.
    let last = text.trim_end().len().saturating_sub(1);
    let ends: Vec<usize> = text.match_indices('\n').map(|(i, _)| i).collect();
    let located = |e: &Error| {
        let offset = e.span().map_or(0, |s| s.start).min(last);
        (1 + ends.partition_point(|end| *end < offset), e.message().to_owned())
    };
    let (_, found) = DeTable::parse_recoverable(text);
    let (mut twice, mut broken): (Vec<_>, Vec<_>) =
        found.iter().map(located).partition(|(_, message)| message == "duplicate key");
    broken.sort();
    twice.sort();
    (broken, twice)
}

/// The change that mends an error of this line and leaves the fewest others, with the line it is about.
fn best_mending(lines: &[String], line: usize) -> (Vec<String>, usize) {
    let at = (line - 1).min(lines.len().saturating_sub(1));
    let start = (0..=at).rev().find(|i| is_start(&lines[*i])).unwrap_or(at);
    let end = (at + 1..lines.len()).find(|i| is_start(&lines[*i])).unwrap_or(lines.len());
    let before = (0..start).rev().find(|i| is_start(&lines[*i]));

    let emptied = |range: std::ops::Range<usize>| {
        let mut changed = lines.to_vec();
        changed[range].iter_mut().for_each(String::clear);
        changed
    };
    let mut candidates = Vec::new();
    if let Some(header) = header_name(&lines[at]) {
        // The keys below keep their table.
        let mut changed = lines.to_vec();
        changed[at] = format!("[{header}]");
        candidates.push((changed, line));
    }
    candidates.push((emptied(at..at + 1), line));
    candidates.push((emptied(start..end), line));
    if let Some(before) = before.filter(|_| start == at) {
        candidates.push((emptied(before..at), before + 1));
    }
    candidates
        .into_iter()
        .min_by_key(|(changed, _)| errors(&changed.join("\n")).0.len())
        .expect("the line itself is a candidate")
}

fn is_name(text: &str) -> bool {
    let text = text.trim();
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '"' | '\'' | ' '))
}

/// The name in a line that is, or was meant to be, a table's header.
fn header_name(line: &str) -> Option<&str> {
    let rest = line.trim().strip_prefix('[')?;
    let name = rest.trim_start_matches('[').split([']', '#']).next()?.trim();
    (is_name(name) && name.starts_with(|c: char| c.is_ascii_alphabetic())).then_some(name)
}

/// Whether a table or a key begins on this line.
fn is_start(line: &str) -> bool {
    header_name(line).is_some() || line.split_once('=').is_some_and(|(left, _)| is_name(left))
}

/// A name as it may be printed: escapes in place of what would disturb a terminal, and not without end.
pub(super) fn printable(name: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().collect() } else { vec![c] };
    name.chars().take(120).flat_map(shown).collect()
}

/// The path of the key that a line is about, as far as a line that is not TOML tells.
fn key_at_line(text: &str, number: usize) -> String {
    let name = |text: &str| printable(&text.replace(['"', '\'', ' ', '\t'], ""));
    let (mut header, mut key) = (String::new(), String::new());
    for line in text.lines().take(number).map(str::trim) {
        if let Some(found) = header_name(line) {
            header = name(found);
            key = String::new();
        } else if let Some((left, _)) = line.split_once('=').filter(|(left, _)| is_name(left)) {
            key = name(left);
        } else if line.starts_with(|c: char| c.is_ascii_alphabetic()) {
            key = name(line.split(['#', ',', ':', ' ', '=']).next().unwrap_or_default());
        }
    }
    match (header.is_empty(), key.is_empty()) {
        (true, _) => key,
        (false, true) => header,
        (false, false) => format!("{header}.{key}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slips(text: &str) -> Vec<(usize, String)> {
        let (mended, slips) = mend(text);
        assert_eq!(errors(&mended).0, [], "{mended}");
        slips.into_iter().map(|s| (s.line, s.key)).collect()
    }

    #[track_caller]
    fn assert_slips(text: &str, wanted: &[(usize, &str)]) {
        let wanted: Vec<_> = wanted.iter().map(|(line, key)| (*line, (*key).to_owned())).collect();
        assert_eq!(slips(text), wanted, "{text}");
    }

    #[test]
    fn one_slip_is_one_slip_whatever_follows() {
        let rest = "\n[b]\nx = 1\ny = [\n  1,\n  2,\n]\nz = { p = 1, q = 2 }\n";
        assert_slips(&format!("[a]\nk = 1{rest}"), &[]);
        assert_slips(&format!("[a]\nk = word{rest}"), &[(2, "a.k")]);
        assert_slips(&format!("[a]\nk ={rest}"), &[(2, "a.k")]);
        assert_slips(&format!("[a]\nk = \"open{rest}"), &[(2, "a.k")]);
        assert_slips(&format!("[a]\nk = [\"open\"{rest}"), &[(2, "a.k")]);
        assert_slips(&format!("[a]\nk = [\n1,\n2{rest}"), &[(2, "a.k")]);
        assert_slips(&format!("[a]\nk = {{ p = 1{rest}"), &[(2, "a.k")]);
        assert_slips(&format!("[a]\nk = 1\njunk{rest}"), &[(3, "a.junk")]);
        assert_slips(&format!("[a]\nk: 1{rest}"), &[(2, "a.k")]);
        assert_slips(&format!("[a\nk = 1{rest}"), &[(1, "a")]);
        assert_slips(&format!("[a]\nk = 1 l = 2{rest}"), &[(2, "a.k")]);
        assert_slips(&format!("[a]\nk = [\n1\n2,\n3\n]{rest}"), &[(4, "a.k")]);
        assert_slips(&format!("[a]\nk = 1\nk = 2{rest}"), &[(3, "a.k")]);
        assert_slips(&format!("[a]\nk = 1\n[a]\nl = 2{rest}"), &[(3, "a")]);
    }

    #[test]
    fn several_slips_are_all_told() {
        assert_slips(
            "[a]\nk = word\nl = 1\nm = [1\n[b\nx = \"1\ny = 1\ny = 2\n",
            &[(2, "a.k"), (4, "a.m"), (5, "b"), (6, "b.x"), (8, "b.y")],
        );
    }

    #[test]
    fn what_is_right_is_kept_with_its_lines() {
        let (mended, _) = mend("[a]\nk = [1\nl = 2\n[b\nx = 3\n");
        assert_eq!(mended, "[a]\n\nl = 2\n[b]\nx = 3");
    }

    #[test]
    fn any_text_can_be_mended() {
        for text in [
            "",
            "\n",
            "=",
            "[",
            "]",
            "\"",
            "'''",
            "{",
            "a",
            "= = =",
            "[[[[",
            "\u{0}",
            "é = é",
            "a.b.c.d\n\n[]",
        ] {
            let (mended, _) = mend(text);
            assert!(mended.lines().count() <= text.lines().count(), "{text:?}");
            assert_eq!(errors(&mended).0, [], "{text:?}");
        }
        let (_, many) = mend(&"[\n\"\n".repeat(100));
        assert!(!many.is_empty());
    }

    #[test]
    fn a_name_is_printed_without_control_characters_and_cut() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(printable(&"x".repeat(1000)).len(), 120);
    }
}
