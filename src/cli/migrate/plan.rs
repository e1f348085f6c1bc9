//! What is moved where, out of the command line and the daemon's configuration.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Fault, MigrateArgs};
use crate::cli::client::Endpoint;
use crate::cli::ctl::api::Api;
use crate::config::{self, AdminListen, Settings};
use crate::secret::Secret;
use crate::store::{PgUrl, own_key};

/// Octets of a password at most, as the configuration has it.
const MAX_PASSWORD: u64 = 1024;

/// A migration before it begins.
pub(super) struct Plan {
    /// The embedded store.
    pub(super) dir: PathBuf,
    /// The database.
    pub(super) url: PgUrl,
    pub(super) password: Option<Secret>,
    /// What the daemon knows this run by.
    pub(super) by: String,
    password_file: Option<PathBuf>,
    key: Zeroizing<[u8; 32]>,
    /// Where the store's own key is, when none was configured.
    own_key: Option<PathBuf>,
    /// The audit log, and the directory where its kept head is now.
    audit: Option<(PathBuf, PathBuf)>,
    has_cluster_secret: bool,
    endpoint: Endpoint,
    token_file: Option<PathBuf>,
    token: Option<Secret>,
}

/// Where the admin API of a configuration is called.
fn endpoint(listen: &AdminListen) -> Endpoint {
    match listen {
        AdminListen::Unix(path) => Endpoint::Unix(path.clone()),
        AdminListen::Tcp(address) => {
            let mut address = *address;
            if address.ip().is_unspecified() {
                address.set_ip(match address.ip() {
                    IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
                });
            }
            address.into()
        }
    }
}

/// The password that a file holds; one trailing newline is not part of it.
fn password(path: &Path) -> Result<Secret, Fault> {
    let unusable = |why: &str| Fault::Usage(format!("the password file {} {why}", path.display()));
    let mut octets = Zeroizing::new(Vec::with_capacity(MAX_PASSWORD as usize + 3));
    let read = File::open(path).and_then(|file| file.take(MAX_PASSWORD + 2).read_to_end(&mut octets));
    read.map_err(|e| unusable(&format!("cannot be read: {e}")))?;
    let text = octets.strip_suffix(b"\n").unwrap_or(&octets);
    let sound = std::str::from_utf8(text).is_ok_and(|text| !text.chars().any(char::is_control));
    if text.is_empty() || text.len() as u64 > MAX_PASSWORD || !sound {
        return Err(unusable("has to hold one line, the password and nothing else"));
    }
    Ok(Secret::from(text))
}

/// The store key that a configuration names, or the store's own with its path.
fn store_key(settings: &Settings, dir: &Path) -> Result<(Zeroizing<[u8; 32]>, Option<PathBuf>), Fault> {
    if let Some(key) = &settings.store.store_key {
        let key = key.expose().try_into().expect("the configuration takes keys of 32 octets alone");
        return Ok((Zeroizing::new(key), None));
    }
    match own_key(dir)? {
        Some(key) => Ok((key, Some(dir.join("store.key")))),
        None => Err(Fault::Usage(format!(
            "{} has no store.key, and the configuration names no store.store_key_file: give the configuration of the daemon \
             that runs",
            dir.display()
        ))),
    }
}

impl Plan {
    pub(super) fn new(args: &MigrateArgs) -> Result<Self, Fault> {
        let url = args.to.parse::<PgUrl>().map_err(|fault| Fault::Usage(format!("--to {fault}")))?;
        let settings = config::load(&args.config, std::env::vars_os())
            .map_err(|faults| Fault::Usage(faults.to_string().trim_end().to_owned()))?;
        let Some(dir) = settings.store.url.directory().map(Path::to_owned) else {
            return Err(Fault::Usage(format!(
                "{}: store.url is a database already: give the configuration of a daemon with an embedded store",
                args.config.display()
            )));
        };
        let (key, own_key) = store_key(&settings, &dir)?;
        let password = args.store_password_file.as_deref().map(password).transpose()?;
        let audit = settings.audit.file.clone().zip(settings.audit_head_directory().map(Path::to_owned));
        Ok(Self {
            dir,
            url,
            password,
            by: format!("ltkmd migrate {:016x}", getrandom::u64().unwrap_or_default()),
            password_file: args.store_password_file.clone(),
            key,
            own_key,
            audit,
            has_cluster_secret: settings.node.cluster_secret.is_some(),
            endpoint: args.admin.clone().unwrap_or_else(|| endpoint(&settings.admin.listen)),
            token_file: args.token_file.clone(),
            token: settings.admin.admin_token,
        })
    }

    /// The store key.
    pub(super) fn key(&self) -> Zeroizing<[u8; 32]> {
        self.key.clone()
    }

    /// A connection to the daemon of its own.
    pub(super) fn api(&self) -> Result<Api, Fault> {
        Ok(match &self.token_file {
            Some(file) => Api::new(self.endpoint.clone(), Some(file))?,
            None => Api::with_token(self.endpoint.clone(), self.token.as_ref())?,
        })
    }

    /// What the daemon's configuration needs to run on the database.
    pub(super) fn next(&self) -> String {
        let mut text = format!("  [store]\n  url = \"{}\"", self.url);
        let key = match &self.own_key {
            Some(path) => format!(
                "\n  store_key_file = \"{}\"   # or a copy; the same for every daemon there",
                path.display()
            ),
            None => "\n  # store_key_file stays; every daemon on the database needs the same key".to_owned(),
        };
        text.push_str(&key);
        if let Some(path) = &self.password_file {
            let _ = write!(text, "\n  store_password_file = \"{}\"", path.display());
        }
        if !self.has_cluster_secret {
            text.push_str(
                "\n  [node]\n  cluster_secret_file = \"…\"   # made by openssl rand -hex 32; the same for every daemon there",
            );
        }
        if let Some((file, head)) = &self.audit {
            let parent = file.parent().unwrap_or(Path::new("/"));
            if parent == head {
                let _ = write!(
                    text,
                    "\n  [audit]\n  file = \"{}\"   # the log goes on where it is",
                    file.display()
                );
            } else {
                let (from, to) = (head.join("audit.head"), parent.join("audit.head"));
                let _ = write!(
                    text,
                    "\n  # and before the start, so that the audit log goes on: cp -p {} {}",
                    from.display(),
                    to.display()
                );
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_api_is_called_where_the_configuration_has_it_and_on_loopback_when_that_is_everywhere() {
        let at = |text: &str| endpoint(&AdminListen::Tcp(text.parse().expect("an address"))).to_string();
        assert_eq!(at("0.0.0.0:9470"), "http://127.0.0.1:9470");
        assert_eq!(at("[::]:9470"), "http://[::1]:9470");
        assert_eq!(at("192.0.2.1:9470"), "http://192.0.2.1:9470");
        assert_eq!(endpoint(&AdminListen::Unix("/run/a".into())).to_string(), "unix:/run/a");
    }

    #[test]
    fn a_password_is_one_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("password");
        for (text, good) in [("a b\n", true), ("a", true), ("", false), ("\n", false), ("a\nb", false)] {
            std::fs::write(&path, text).expect("written");
            assert_eq!(password(&path).is_ok(), good, "{text:?}");
        }
        std::fs::write(&path, "a".repeat(1025)).expect("written");
        assert!(password(&path).is_err());
        assert!(password(&dir.path().join("none")).is_err());
    }
}
