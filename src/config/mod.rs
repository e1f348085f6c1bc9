//! The configuration: a TOML file, `LTKMD_…` variables over it, and the files that both point to, read once into
//! [`Settings`] that cannot be wrong. All faults are told in one go, each with its place, its key and what to do;
//! with a single fault there are no settings at all.
//!
//! ```
//! use ltkmd::config::Settings;
//!
//! let faults = Settings::from_toml_str("[node]\nfqdn = \"bmsc.example.com\"\n[http]\nprot = 1\n", "a.toml")
//!     .expect_err("the key is not known, and the admin API has no token");
//! assert!(faults.to_string().contains("a.toml:4: http.prot: is an unknown key"));
//! ```

mod assemble;
mod certificate;
mod fault;
mod raw;
mod reader;
mod recover;
mod reference;
mod reload;
mod schema;
mod secrets;
mod settings;
#[cfg(test)]
mod tests;
mod tls;
mod value;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use fault::{Fault, Faults, Place};
pub use reference::reference;
pub use settings::{
    Admin, Audit, BindMode, Delivery, Digest, Http, Keys, Log, LogFormat, Mikey, Node, Settings, Sms, Store,
    Udp, Xml,
};
pub use tls::{Authorities, Tls};
pub use value::{
    AdminListen, HostName, LogFilter, NodeName, Refused, SmsSource, Smsc, StoreDirectory, StoreUrl, SystemId,
    UrlPath,
};

use raw::Raw;
use reader::Reader;

/// The longest configuration file, in octets.
const MAX_FILE: u64 = 256 << 10;

/// Reads the file at `path`, lays the `LTKMD_…` variables of `env` over it, and checks all of it and everything it
/// points to. systemd's `CREDENTIALS_DIRECTORY` is taken from `env` too.
///
/// # Errors
/// Every fault there is, by place.
pub fn load(path: &Path, env: impl Iterator<Item = (OsString, OsString)>) -> Result<Settings, Faults> {
    let origin: Arc<str> = Arc::from(path.display().to_string());
    let whole = |what| Fault { place: Place::File(Arc::clone(&origin)), key: String::new(), what };
    let octets = match secrets::read_bounded(path, MAX_FILE) {
        Ok((octets, _)) => octets,
        Err(e) => {
            return Err(whole(format!("cannot be read ({e}): name a readable file with --config")).into());
        }
    };
    let text = match std::str::from_utf8(&octets) {
        Ok(text) => text,
        Err(e) => {
            let before = octets.iter().take(e.valid_up_to()).filter(|o| **o == b'\n').count();
            let line = u32::try_from(before + 1).unwrap_or(u32::MAX);
            let what = "is not UTF-8: write the file in UTF-8".to_owned();
            return Err(Fault { place: Place::Line(origin, line), key: String::new(), what }.into());
        }
    };
    read(text, &origin, env)
}

fn read(
    text: &str,
    origin: &str,
    env: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Settings, Faults> {
    let variables: Vec<_> = env.collect();
    let credentials = variables
        .iter()
        .find(|(name, value)| name == "CREDENTIALS_DIRECTORY" && !value.is_empty())
        .map(|(_, value)| PathBuf::from(value));
    let mut raw = Raw::file(origin, text);
    raw.environment(variables.into_iter());
    let mut reader = Reader::new(raw, credentials);
    let settings = assemble::settings(&mut reader);
    let (faults, warnings) = reader.finish();
    match (Faults::collect(faults), settings) {
        (Some(faults), _) => Err(faults),
        (None, Some(settings)) => Ok(Settings { warnings, ..settings }),
        (None, None) => unreachable!("whoever answers nothing has noted a fault"),
    }
}

impl Settings {
    /// Reads a configuration that is no file; `origin` stands for the file's name in faults. No variable and no
    /// credential is looked at.
    ///
    /// # Errors
    /// As for [`load`].
    pub fn from_toml_str(text: &str, origin: &str) -> Result<Self, Faults> {
        read(text, origin, std::iter::empty())
    }
}
