//! How logs name terminals: one rule for the whole process, applied here and nowhere else.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::BTid;

/// The rule.
static FORM: AtomicU8 = AtomicU8::new(BTidForm::Short as u8);

/// Characters of the short form.
const SHORT: usize = 8;

/// How a log line names a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum BTidForm {
    /// By its whole B-TID.
    Full,
    /// By the B-TID's first 8 characters and an ellipsis.
    Short,
    /// By the first 16 hexadecimal digits of the B-TID's SHA-256.
    Hash,
    /// Not at all: `-`.
    None,
}

impl BTidForm {
    /// All forms.
    pub const ALL: [Self; 4] = [Self::Full, Self::Short, Self::Hash, Self::None];
    /// The names of [`Self::ALL`], as configuration spells them.
    pub const NAMES: &[&str] = &["full", "short", "hash", "none"];

    /// The name that configuration uses.
    pub fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    fn show(self, btid: &str) -> Cow<'_, str> {
        match self {
            Self::Full => btid.into(),
            Self::Short if btid.len() <= SHORT => btid.into(),
            // A B-TID is ASCII, so that any place is between two characters.
            Self::Short => format!("{}…", &btid[..SHORT]).into(),
            Self::Hash => HEXLOWER.encode(&Sha256::digest(btid)[..8]).into(),
            Self::None => "-".into(),
        }
    }
}

/// Sets the rule for all log lines from now on; it is [`BTidForm::Short`] until then.
pub fn log_btids(form: BTidForm) {
    FORM.store(form as u8, Ordering::Relaxed);
}

/// A B-TID in the form of the rule.
pub(super) fn shown(btid: &str) -> Cow<'_, str> {
    BTidForm::ALL[usize::from(FORM.load(Ordering::Relaxed))].show(btid)
}

/// A B-TID on its way to a log.
#[derive(Clone, Copy)]
pub struct LoggedBTid<'a>(&'a BTid);

impl BTid {
    /// The form in which logs name this terminal.
    pub fn logged(&self) -> LoggedBTid<'_> {
        LoggedBTid(self)
    }
}

impl fmt::Display for LoggedBTid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(self.0.as_str()))
    }
}

impl fmt::Debug for LoggedBTid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn each_form_shows_what_it_says() {
        let btid = "q83v/+8=@bsf.example.com";
        let shown = BTidForm::ALL.map(|form| form.show(btid));
        // printf %s 'q83v/+8=@bsf.example.com' | sha256sum
        assert_eq!(shown, [btid, "q83v/+8=…", "9f76c60e8c597c59", "-"]);
        assert_eq!(BTidForm::Short.show("a@b"), "a@b");
    }

    #[test]
    fn until_the_rule_is_set_logs_and_debug_have_the_short_form() {
        let btid = BTid::new("q83v/+8=@bsf.example.com").expect("a B-TID");
        assert_eq!(btid.logged().to_string(), "q83v/+8=…");
        assert_eq!(format!("{btid:?}"), "BTid(\"q83v/+8=…\")");
        assert_eq!(btid.to_string(), "q83v/+8=@bsf.example.com", "the API has it in full");
    }

    fn sources(directory: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(std::fs::read_to_string(&path).expect("a source"));
            }
        }
    }

    #[test]
    fn no_log_line_names_a_terminal_past_the_rule() {
        let mut all = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
        let mut seen = 0;
        for source in &all {
            for (at, _) in source.match_indices("tracing::") {
                let call = &source[at..];
                let call = &call[..call.find(");").unwrap_or(call.len())];
                for (at, _) in call.match_indices("btid = %") {
                    let value = call[at..].split([',', ')']).next().unwrap_or_default();
                    assert!(value.ends_with(".logged("), "{value} in {call}");
                    seen += 1;
                }
                assert!(!call.contains(concat!("%", "btid,")), "{call}");
            }
        }
        assert!(seen >= 2, "the lines that name terminals are found");
    }
}
