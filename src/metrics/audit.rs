//! What the audit log's writer tells.

use super::Metrics;

impl Metrics {
    /// There is an audit log.
    pub fn audit_enabled(&self) {
        self.audit_enabled.set(1);
    }

    /// Whether the audit log could be written just now.
    pub fn audit_up(&self, up: bool) {
        self.audit_up.set(up.into());
    }

    /// Lines are durable.
    pub fn audit_written(&self, lines: u64) {
        self.audit_lines.inc_by(lines);
    }

    /// Lines could not be written.
    pub fn audit_failed(&self, lines: u64) {
        self.audit_errors.inc_by(lines);
    }

    /// The file has so many octets.
    pub fn audit_file(&self, octets: u64) {
        self.audit_file.set(octets as f64);
    }
}
