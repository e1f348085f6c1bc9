//! What is in a document: blocks of code, words in code, links, headings.

use std::collections::BTreeSet;
use std::path::Path;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use super::document;

/// The handbook's chapters.
pub(crate) fn chapters() -> Vec<String> {
    let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|n| n.ends_with(".md")).map(|n| format!("docs/{n}")).collect();
    names.sort();
    assert!(names.len() > 10, "the chapters are there");
    names
}

/// Every document that somebody reads.
pub(crate) fn documents() -> Vec<String> {
    let others = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(str::to_owned);
    others.into_iter().chain(chapters()).collect()
}

/// A document, read.
#[derive(Debug, Default)]
pub(crate) struct Document {
    /// Blocks of code: the words behind the fence, and the text.
    pub(crate) blocks: Vec<(String, String)>,
    /// Words in code, outside of blocks.
    pub(crate) codes: Vec<String>,
    /// Where links lead, images among them.
    pub(crate) links: Vec<String>,
    /// The anchors of its headings.
    pub(crate) anchors: BTreeSet<String>,
}

impl Document {
    /// Reads a document of the repository.
    pub(crate) fn read(name: &str) -> Self {
        let text = document(name);
        let mut found = Self::default();
        let (mut heading, mut block) = (None::<String>, None::<(String, String)>);
        for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    found.anchors.insert(anchor(&heading.take().unwrap()));
                }
                Event::Start(Tag::CodeBlock(kind)) => {
                    let CodeBlockKind::Fenced(info) = kind else { panic!("{name}: a block without a fence") };
                    block = Some((info.into_string(), String::new()));
                }
                Event::End(TagEnd::CodeBlock) => found.blocks.extend(block.take()),
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    found.links.push(dest_url.into_string());
                }
                Event::Text(text) => match (&mut block, &mut heading) {
                    (Some((_, block)), _) => block.push_str(&text),
                    (_, Some(heading)) => heading.push_str(&text),
                    _ => {}
                },
                Event::Code(code) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&code);
                    }
                    found.codes.push(code.into_string());
                }
                _ => {}
            }
        }
        found
    }
}

/// A heading's anchor, as forges make it.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || ['-', '_'].contains(c)).collect()
}
