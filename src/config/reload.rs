//! What SIGHUP can change and what it cannot.

use super::settings::Settings;

impl Settings {
    /// The keys whose new values need a restart, in the schema's order; empty when `new` can take over at once.
    ///
    /// Live are `log.filter`, `log.btid`, the limits and timeouts of `[http]` (`max_body`, `request_timeout`,
    /// `max_connections`, `max_items`, `drain`), what `[http.tls]` names, and how centres are spoken to by `[sms]`.
    /// Turning TLS on or off is told as `http.tls`, turning SMS on or off as `sms`. A secret counts by its octets,
    /// wherever they came from.
    pub fn restart_needed(&self, new: &Self) -> Vec<&'static str> {
        let old_sms = self.sms.as_ref();
        let new_sms = new.sms.as_ref();
        // A table that comes or goes is one change, not one for each of its keys.
        let sms_turned = old_sms.is_some() != new_sms.is_some();
        macro_rules! sms {
            ($field:ident) => {
                !sms_turned && old_sms.map(|s| s.limits.$field) != new_sms.map(|s| s.limits.$field)
            };
        }
        [
            ("node.name", self.node.name != new.node.name),
            ("node.fqdn", self.node.fqdn != new.node.fqdn),
            ("node.cluster_secret_file", self.node.cluster_secret != new.node.cluster_secret),
            ("http.listen", self.http.listen != new.http.listen),
            ("http.path", self.http.path != new.http.path),
            ("http.trusted_proxies", self.http.trusted_proxies != new.http.trusted_proxies),
            ("http.tls", self.http.tls.is_some() != new.http.tls.is_some()),
            ("digest.algorithms", self.digest.algorithms != new.digest.algorithms),
            ("digest.nonce_lifetime", self.digest.nonce_lifetime != new.digest.nonce_lifetime),
            ("xml.children", self.xml != new.xml),
            ("mikey.id_type", self.mikey != new.mikey),
            ("udp.listen", self.udp.listen != new.udp.listen),
            ("udp.port", self.udp.port != new.udp.port),
            ("udp.attempts", self.udp.attempts != new.udp.attempts),
            ("udp.first_timeout", self.udp.first_timeout != new.udp.first_timeout),
            ("udp.rate", self.udp.rate != new.udp.rate),
            ("sms", sms_turned),
            ("sms.attempts", sms!(attempts)),
            ("sms.pull_timeout", sms!(pull_timeout)),
            ("sms.terminal_interval", sms!(interval)),
            ("sms.terminal_daily", sms!(daily)),
            ("sms.patience", sms!(patience)),
            ("delivery.methods", self.delivery.methods != new.delivery.methods),
            ("delivery.verify", self.delivery.verify != new.delivery.verify),
            ("delivery.sms_alone", self.delivery.sms_alone != new.delivery.sms_alone),
            ("keys.retain", self.keys.retain != new.keys.retain),
            ("keys.lead_time", self.keys.lead_time != new.keys.lead_time),
            ("store.url", self.store.url != new.store.url),
            ("store.store_key_file", self.store.store_key != new.store.store_key),
            ("store.store_password_file", self.store.password != new.store.password),
            ("store.connections", self.store.connections != new.store.connections),
            ("admin.listen", self.admin.listen != new.admin.listen),
            ("admin.admin_token_file", self.admin.admin_token != new.admin.admin_token),
            ("admin.key_reader_token_file", self.admin.key_reader_token != new.admin.key_reader_token),
            ("audit.enabled", self.audit.file.is_some() != new.audit.file.is_some()),
            (
                "audit.file",
                // Without the key it moves with the store, which is told already.
                self.audit.file.is_some()
                    && new.audit.file.is_some()
                    && self.audit != new.audit
                    && self.store.url == new.store.url,
            ),
            ("log.format", self.log.format != new.log.format),
        ]
        .into_iter()
        .filter_map(|(key, changed)| changed.then_some(key))
        .collect()
    }
}
