//! Writes documents: the declaration, one root with its namespaces, elements and escaped text.

use super::namespace;
use super::xml_name;
use super::{ContainerChildren, Style, body};

/// A document under construction. Elements are closed by the value that `open` gives back.
pub(super) struct XmlWriter {
    out: String,
    root: &'static str,
    style: Style,
}

/// The name of an element that is open.
#[must_use]
pub(super) struct Opened(&'static str, &'static str);

impl XmlWriter {
    /// Begins a document with its root element.
    pub(super) fn new(root: &'static str, default_namespace: &str, with_bcast: bool, style: Style) -> Self {
        let mut new = Self { out: String::with_capacity(1024), root, style };
        new.out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<");
        new.out.push_str(root);
        new.attribute("xmlns", default_namespace);
        if with_bcast {
            new.attribute("xmlns:bcast", namespace::BCAST);
        }
        new.out.push('>');
        new
    }

    fn attribute(&mut self, name: &str, value: &str) {
        self.out.push(' ');
        self.out.push_str(name);
        self.out.push_str("=\"");
        self.escaped(value);
        self.out.push('"');
    }

    fn open_as(&mut self, prefix: &'static str, name: &'static str, version: Option<&str>) -> Opened {
        self.out.push('<');
        self.out.push_str(prefix);
        self.out.push_str(name);
        if let Some(version) = version {
            self.attribute("version", version);
        }
        self.out.push('>');
        Opened(prefix, name)
    }

    /// Opens an element of the document's own namespace.
    pub(super) fn open(&mut self, name: &'static str) -> Opened {
        self.open_as("", name, None)
    }

    /// Opens a BCAST container.
    pub(super) fn open_container(&mut self, name: &'static str, version: Option<&str>) -> Opened {
        self.open_as("bcast:", name, version)
    }

    /// Opens an element inside a BCAST container, as `xml.children` says.
    pub(super) fn open_child(&mut self, name: &'static str) -> Opened {
        let prefix = match self.style.children {
            ContainerChildren::Qualified => "bcast:",
            ContainerChildren::DefaultNamespace => "",
        };
        self.open_as(prefix, name, None)
    }

    /// Closes an element.
    pub(super) fn close(&mut self, Opened(prefix, name): Opened) {
        self.out.push_str("</");
        self.out.push_str(prefix);
        self.out.push_str(name);
        self.out.push('>');
    }

    /// Writes an element of the document's own namespace that holds text alone.
    pub(super) fn leaf(&mut self, name: &'static str, text: &str) {
        let opened = self.open(name);
        self.escaped(text);
        self.close(opened);
    }

    /// Writes an element inside a container that holds text alone.
    pub(super) fn child_leaf(&mut self, name: &'static str, text: &str) {
        let opened = self.open_child(name);
        self.escaped(text);
        self.close(opened);
    }

    /// Writes an element inside a container that holds base64.
    pub(super) fn child_base64(&mut self, name: &'static str, octets: &[u8]) {
        let opened = self.open_child(name);
        data_encoding::BASE64.encode_append(octets, &mut self.out);
        self.close(opened);
    }

    /// Text for element content and double-quoted attribute values. What XML cannot carry becomes U+FFFD.
    fn escaped(&mut self, text: &str) {
        if !text.contains(['&', '<', '>', '"', '\t', '\r', '\n']) && xml_name::first_bad_char(text).is_none()
        {
            self.out.push_str(text);
            return;
        }
        for c in text.chars() {
            match c {
                '&' => self.out.push_str("&amp;"),
                '<' => self.out.push_str("&lt;"),
                '>' => self.out.push_str("&gt;"),
                '"' => self.out.push_str("&quot;"),
                '\t' => self.out.push_str("&#9;"),
                '\n' => self.out.push_str("&#10;"),
                '\r' => self.out.push_str("&#13;"),
                c if xml_name::is_char(c) => self.out.push(c),
                _ => self.out.push('\u{FFFD}'),
            }
        }
    }

    /// Ends the document and brings it into its form.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let root = Opened("", self.root);
        self.close(root);
        self.out.push('\n');
        body::close(self.out, self.style.form)
    }
}
