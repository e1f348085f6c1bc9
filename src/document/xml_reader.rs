//! A strict pull reader: quick-xml finds the markup, and this adds what makes the result a well-formed,
//! namespace-well-formed document within limits. What it hands out is elements and text, nothing else.

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::errors::{Error, IllFormedError, SyntaxError};
use quick_xml::events::{BytesDecl, Event};
use quick_xml::name::{Namespace, NamespaceResolver, PrefixDeclaration, QName, ResolveResult};

use super::error::{DocumentError, Excerpt, Fault};
use super::namespace::Space;
use super::value::is_space;
use super::xml_name;
use super::xml_tag::{self, Attribute};

/// The most elements inside each other (LTKM profile §2.1).
pub(super) const MAX_DEPTH: usize = 32;
/// The most namespace declarations in scope at once.
const MAX_BINDINGS: usize = 64;

/// A start tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element<'a> {
    pub(super) local: &'a str,
    pub(super) space: Space,
    /// Where the tag begins, in octets of the text.
    pub(super) at: usize,
}

enum Step<'a> {
    Open(Element<'a>),
    Close,
    Text(Cow<'a, str>),
    End,
}

#[derive(PartialEq, Eq)]
enum Place {
    Start,
    Prolog,
    Root,
    Epilog,
}

/// The reader. Its methods are called in the order of the document.
pub(super) struct XmlReader<'a> {
    text: &'a str,
    skipped: usize,
    reader: Reader<&'a [u8]>,
    scope: NamespaceResolver,
    root_default: String,
    place: Place,
    depth: usize,
    /// The element just opened was written `<a/>`: its end has no markup of its own.
    empty: bool,
    /// Where the markup that was read last begins.
    at: usize,
}

impl<'a> XmlReader<'a> {
    /// Begins a document; `skipped` octets (a byte order mark) stood before the text.
    pub(super) fn new(text: &'a str, skipped: usize) -> Result<Self, DocumentError> {
        let mut reader = Reader::from_str(text);
        reader.config_mut().enable_all_checks(true);
        let mut scope = NamespaceResolver::default();
        scope.set_max_namespace_bindings(MAX_BINDINGS);
        let new = Self {
            text,
            skipped,
            reader,
            scope,
            root_default: String::new(),
            place: Place::Start,
            depth: 0,
            empty: false,
            at: 0,
        };
        match xml_name::first_bad_char(text) {
            Some(at) => Err(new.error_at(at, Fault::IllFormed("a character that XML does not allow"))),
            None => Ok(new),
        }
    }

    /// The root element, which must be in an MBMS namespace and be called one of `names`.
    pub(super) fn root(&mut self, names: &[&'static str]) -> Result<(), DocumentError> {
        let root = match self.step()? {
            Step::Open(root) => root,
            // `step` lets nothing else through before the root.
            Step::Close | Step::Text(_) | Step::End => {
                return Err(self.error(Fault::IllFormed("there is no root element")));
            }
        };
        if !names.contains(&root.local) {
            let expected = names.first().copied().unwrap_or_default();
            return Err(self.error_at(root.at, Fault::Root { found: Excerpt::new(root.local), expected }));
        }
        if root.space != Space::Mbms {
            let name = self.qualified_name(root.at);
            let found = match self.scope.resolve_element(QName(name)).0 {
                ResolveResult::Bound(Namespace(name)) => Excerpt::new(name),
                _ => Excerpt::new(""),
            };
            return Err(self.error_at(root.at, Fault::RootNamespace(found)));
        }
        Ok(())
    }

    /// The next child of the element that is open, or none at its end. Text between children is refused.
    pub(super) fn child(&mut self) -> Result<Option<Element<'a>>, DocumentError> {
        loop {
            match self.step()? {
                Step::Open(element) => return Ok(Some(element)),
                Step::Close | Step::End => return Ok(None),
                Step::Text(text) if text.chars().all(is_space) => {}
                Step::Text(text) => {
                    let excerpt = Excerpt::new(text.trim_matches(is_space));
                    return Err(self.error(Fault::Text(excerpt)));
                }
            }
        }
    }

    /// The text of the element that was just opened, to its end. Elements inside are refused.
    pub(super) fn text(&mut self) -> Result<Cow<'a, str>, DocumentError> {
        let mut all = Cow::Borrowed("");
        loop {
            match self.step()? {
                Step::Text(piece) if all.is_empty() => all = piece,
                Step::Text(piece) => all.to_mut().push_str(&piece),
                Step::Open(element) => return Err(self.misplaced(element)),
                Step::Close | Step::End => return Ok(all),
            }
        }
    }

    /// Passes over the element that was just opened, with all that is in it.
    pub(super) fn skip(&mut self) -> Result<(), DocumentError> {
        let outside = self.depth - 1;
        while self.depth > outside {
            self.step()?;
        }
        Ok(())
    }

    /// Passes over a foreign element; one of the document's own or of no namespace does not belong there.
    pub(super) fn skip_foreign(&mut self, element: Element<'a>) -> Result<(), DocumentError> {
        match element.space {
            Space::Foreign | Space::Bcast | Space::RootDefault => self.skip(),
            Space::Mbms | Space::None => Err(self.misplaced(element)),
        }
    }

    /// Reads what may follow the root element.
    pub(super) fn finish(&mut self) -> Result<(), DocumentError> {
        self.step().map(drop)
    }

    /// The error of an element that does not belong where it stands.
    pub(super) fn misplaced(&self, element: Element<'_>) -> DocumentError {
        self.error_at(element.at, Fault::Element(Excerpt::new(element.local)))
    }

    /// An error at the markup that was read last.
    pub(super) fn error(&self, fault: Fault) -> DocumentError {
        self.error_at(self.at, fault)
    }

    /// An error at an octet of the text.
    pub(super) fn error_at(&self, at: usize, fault: Fault) -> DocumentError {
        let before = self.text.as_bytes().get(..at).unwrap_or(self.text.as_bytes());
        let line = 1 + before.iter().filter(|b| **b == b'\n').count();
        DocumentError { fault, octet: self.skipped + at, line }
    }

    fn position(&self) -> usize {
        usize::try_from(self.reader.buffer_position()).unwrap_or(self.text.len()).min(self.text.len())
    }

    fn step(&mut self) -> Result<Step<'a>, DocumentError> {
        if self.empty {
            self.empty = false;
            self.leave();
            return Ok(Step::Close);
        }
        loop {
            self.at = self.position();
            let event = self.reader.read_event().map_err(|e| self.translate(&e))?;
            let text = self.text;
            // The library's events borrow from themselves; the same octets of the text live as long as the text.
            let raw = text.get(self.at..self.position()).unwrap_or_default();
            match event {
                Event::Start(_) => return self.open(raw.strip_suffix('>')),
                Event::Empty(_) => {
                    let element = self.open(raw.strip_suffix("/>"))?;
                    self.empty = true;
                    return Ok(element);
                }
                Event::End(_) => {
                    self.leave();
                    return Ok(Step::Close);
                }
                Event::Text(_) => {
                    if raw.contains("]]>") {
                        return Err(self.error(Fault::IllFormed("']]>' in text")));
                    }
                    if self.place == Place::Root {
                        return Ok(Step::Text(Cow::Borrowed(raw)));
                    }
                    if !raw.chars().all(is_space) {
                        return Err(self.error(Fault::Text(Excerpt::new(raw.trim_matches(is_space)))));
                    }
                    if self.place == Place::Start && !raw.is_empty() {
                        self.place = Place::Prolog;
                    }
                }
                Event::CData(_) => {
                    self.inside_root()?;
                    let content = raw.strip_prefix("<![CDATA[").and_then(|rest| rest.strip_suffix("]]>"));
                    return Ok(Step::Text(Cow::Borrowed(content.unwrap_or_default())));
                }
                Event::GeneralRef(name) => {
                    self.inside_root()?;
                    let c = xml_tag::resolve(&name).map_err(|fault| self.error(fault))?;
                    return Ok(Step::Text(Cow::Owned(c.to_string())));
                }
                Event::Decl(declaration) => {
                    if self.place != Place::Start {
                        return Err(
                            self.error(Fault::IllFormed("an XML declaration that is not at the start"))
                        );
                    }
                    self.place = Place::Prolog;
                    check_declaration(&declaration).map_err(|fault| self.error(fault))?;
                }
                Event::PI(instruction) => {
                    let target = instruction.target();
                    if !xml_name::is_nc_name(target) || target.eq_ignore_ascii_case("xml") {
                        return Err(
                            self.error(Fault::IllFormed("a processing instruction without a proper name"))
                        );
                    }
                    self.leave_start();
                }
                Event::Comment(_) => self.leave_start(),
                Event::DocType(_) => return Err(self.error(Fault::Dtd)),
                Event::Eof => {
                    return match self.place {
                        Place::Epilog => Ok(Step::End),
                        Place::Root => {
                            Err(self.error(Fault::IllFormed("the document ends inside an element")))
                        }
                        Place::Start | Place::Prolog => {
                            Err(self.error(Fault::IllFormed("there is no root element")))
                        }
                    };
                }
            }
        }
    }

    fn leave_start(&mut self) {
        if self.place == Place::Start {
            self.place = Place::Prolog;
        }
    }

    fn inside_root(&self) -> Result<(), DocumentError> {
        match self.place {
            Place::Root => Ok(()),
            _ => Err(self.error(Fault::IllFormed("text outside the root element"))),
        }
    }

    fn leave(&mut self) {
        self.depth -= 1;
        self.scope.set_level(level(self.depth));
        if self.depth == 0 {
            self.place = Place::Epilog;
        }
    }

    /// The qualified name of the tag that begins at `at`.
    fn qualified_name(&self, at: usize) -> &'a str {
        let text: &'a str = self.text;
        let tag = text.get(at + 1..).unwrap_or_default();
        &tag[..tag.find(|c| is_space(c) || matches!(c, '/' | '>')).unwrap_or(tag.len())]
    }

    fn open(&mut self, without_end: Option<&'a str>) -> Result<Step<'a>, DocumentError> {
        if self.place == Place::Epilog {
            return Err(self.error(Fault::IllFormed("a second root element")));
        }
        if self.depth == MAX_DEPTH {
            return Err(self.error(Fault::TooDeep(MAX_DEPTH)));
        }
        let inner = without_end
            .and_then(|tag| tag.strip_prefix('<'))
            .ok_or_else(|| self.error(Fault::IllFormed("a broken start tag")))?;
        let name = &inner[..inner.find(is_space).unwrap_or(inner.len())];
        self.depth += 1;
        self.place = Place::Root;
        self.scope.set_level(level(self.depth));
        let is_root = self.depth == 1;
        let space = self.enter(name, &inner[name.len()..], is_root).map_err(|fault| self.error(fault))?;
        let local = name.rsplit(':').next().unwrap_or(name);
        Ok(Step::Open(Element { local, space, at: self.at }))
    }

    fn enter(&mut self, name: &'a str, attributes: &'a str, is_root: bool) -> Result<Space, Fault> {
        if name.len() > xml_name::MAX_NAME {
            return Err(Fault::LongName(xml_name::MAX_NAME));
        }
        let (prefix, _) =
            xml_name::split(name).ok_or(Fault::Namespace("an element's name is no qualified name"))?;
        if prefix == Some("xmlns") {
            return Err(Fault::Namespace("the prefix xmlns on an element"));
        }
        let attributes = xml_tag::attributes(attributes)?;
        let mut prefixed = Vec::new();
        for attribute in &attributes {
            match xml_name::split(attribute.name) {
                None => return Err(Fault::Namespace("an attribute's name is no qualified name")),
                Some((None, "xmlns")) => self.declare(PrefixDeclaration::Default, attribute)?,
                Some((Some("xmlns"), prefix)) => self.declare(PrefixDeclaration::Named(prefix), attribute)?,
                Some((None, _)) => {}
                Some((Some(_), local)) => prefixed.push((attribute.name, local)),
            }
        }
        if is_root && let ResolveResult::Bound(Namespace(name)) = self.scope.resolve_prefix(None, true) {
            name.clone_into(&mut self.root_default);
        }
        self.check_expanded_names(&prefixed)?;
        match self.scope.resolve_element(QName(name)).0 {
            ResolveResult::Unbound => Ok(Space::None),
            ResolveResult::Bound(Namespace(name)) => Ok(Space::of(name, &self.root_default)),
            ResolveResult::Unknown(_) => Err(Fault::Namespace("a prefix that is not declared")),
        }
    }

    fn declare(&mut self, prefix: PrefixDeclaration<'_>, attribute: &Attribute<'_>) -> Result<(), Fault> {
        const RESERVED: [&str; 2] = ["http://www.w3.org/XML/1998/namespace", "http://www.w3.org/2000/xmlns/"];
        match prefix {
            PrefixDeclaration::Default if RESERVED.contains(&&*attribute.value) => {
                return Err(Fault::Namespace("a reserved namespace as the default"));
            }
            PrefixDeclaration::Named(_) if attribute.value.is_empty() => {
                return Err(Fault::Namespace("a prefix declared for no namespace"));
            }
            _ => {}
        }
        self.scope.add(prefix, Namespace(&attribute.value)).map_err(|e| match e {
            quick_xml::name::NamespaceError::TooManyBindings(most) => Fault::TooManyAttributes(most),
            _ => Fault::Namespace("a reserved prefix or namespace"),
        })
    }

    /// Namespaces in XML §6.3: every prefix is declared, and no two attributes have the same expanded name.
    fn check_expanded_names(&self, prefixed: &[(&str, &str)]) -> Result<(), Fault> {
        let mut expanded: Vec<(&str, &str)> = Vec::with_capacity(prefixed.len());
        for (name, local) in prefixed {
            let ResolveResult::Bound(Namespace(namespace)) = self.scope.resolve_attribute(QName(name)).0
            else {
                return Err(Fault::Namespace("a prefix that is not declared"));
            };
            if expanded.contains(&(namespace, *local)) {
                return Err(Fault::Namespace("an attribute twice under two prefixes"));
            }
            expanded.push((namespace, *local));
        }
        Ok(())
    }

    /// The library's errors may repeat the document; ours say what they mean and where.
    fn translate(&self, error: &Error) -> DocumentError {
        let fault = match error {
            Error::Syntax(SyntaxError::UnclosedDoctype) => Fault::Dtd,
            Error::IllFormed(IllFormedError::MissingDoctypeName) => Fault::Dtd,
            Error::IllFormed(IllFormedError::MismatchedEndTag { .. }) => {
                Fault::IllFormed("an end tag that does not match its start tag")
            }
            Error::IllFormed(IllFormedError::UnmatchedEndTag(_)) => {
                Fault::IllFormed("an end tag without a start tag")
            }
            Error::IllFormed(IllFormedError::DoubleHyphenInComment) => Fault::IllFormed("'--' in a comment"),
            Error::IllFormed(IllFormedError::UnclosedReference) => {
                Fault::IllFormed("a reference that is not closed")
            }
            _ => Fault::IllFormed("broken markup"),
        };
        self.error_at(usize::try_from(self.reader.error_position()).unwrap_or(self.at), fault)
    }
}

fn level(depth: usize) -> u16 {
    // Depth is at most MAX_DEPTH.
    u16::try_from(depth).unwrap_or(u16::MAX)
}

/// XML 1.0 §2.8: version, then encoding, then standalone, and nothing else.
fn check_declaration(declaration: &BytesDecl<'_>) -> Result<(), Fault> {
    let content = declaration.strip_prefix("xml").unwrap_or_default();
    let mut attributes = xml_tag::attributes(content)?.into_iter().peekable();
    let version = attributes.next_if(|a| a.name == "version").is_some_and(|a| {
        a.value
            .strip_prefix("1.")
            .is_some_and(|minor| !minor.is_empty() && minor.bytes().all(|b| b.is_ascii_digit()))
    });
    if !version {
        return Err(Fault::IllFormed("an XML declaration without version 1"));
    }
    if let Some(encoding) = attributes.next_if(|a| a.name == "encoding")
        && !encoding.value.eq_ignore_ascii_case("UTF-8")
    {
        return Err(Fault::Encoding(Excerpt::new(&encoding.value)));
    }
    let standalone = attributes.next_if(|a| a.name == "standalone");
    if standalone.is_some_and(|a| !matches!(&*a.value, "yes" | "no")) || attributes.next().is_some() {
        return Err(Fault::IllFormed("a broken XML declaration"));
    }
    Ok(())
}
