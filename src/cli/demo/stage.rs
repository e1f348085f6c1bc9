//! What the demo happens on: a directory of its own, the real daemon in this process, and its admin API.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cli::client::Endpoint;
use crate::cli::ctl::api::{Api, encode};
use crate::cli::ue::credential::Credential;
use crate::config::{AdminListen, Settings};
use crate::daemon::Daemon;

/// The daemon's name.
pub(super) const FQDN: &str = "bmsc.example.com";

/// What it calls itself to the short message centre.
pub(super) const SYSTEM_ID: &str = "ltkmd";

/// How long anything that is waited for may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// How often what is waited for is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A directory that ends with the demo.
#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("ltkmd-demo-{}", HEXLOWER.encode(&random::<8>()?)));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("ltkmd demo: {} cannot be removed: {error}: remove it yourself", self.0.display());
        }
    }
}

/// Octets that nobody can guess.
pub(super) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut octets = [0; N];
    getrandom::fill(&mut octets).map_err(io::Error::other)?;
    Ok(octets)
}

/// The daemon at work.
pub(super) struct Running {
    daemon: Daemon,
    pub(super) api: Api,
    /// Where terminals register.
    pub(super) http: SocketAddr,
    /// Where verification messages go.
    pub(super) udp: SocketAddr,
    /// Where operators call.
    pub(super) admin: SocketAddr,
}

/// The stage: settings and a directory that outlive a daemon.
pub(super) struct Stage {
    pub(super) scratch: Scratch,
    settings: Settings,
    token_file: PathBuf,
}

impl Stage {
    /// Makes the directory, an admin token, and settings in which terminals listen on `ltkm_port` and the short message
    /// centre at `smsc`.
    pub(super) fn set(ltkm_port: u16, smsc: SocketAddr) -> Result<Self, String> {
        let failed = |e: io::Error| format!("the demo's directory cannot be made: {e}");
        let scratch = Scratch::new().map_err(failed)?;
        let token_file = scratch.path().join("admin_token");
        let token = HEXLOWER.encode(&random::<16>().map_err(failed)?);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&token_file);
        let written = file.as_mut().map(|file| writeln!(file, "{token}"));
        written.map_err(|e| failed(io::Error::new(e.kind(), e.to_string())))?.map_err(failed)?;
        // A JSON string is a TOML string too.
        let store = json!(format!("file:{}", scratch.path().join("store").display()));
        let token = json!(token_file.display().to_string());
        let text = format!(
            r#"
            node.name = "demo"
            node.fqdn = "{FQDN}"
            http.listen = ["127.0.0.1:0"]
            http.drain = "1s"
            udp.listen = ["127.0.0.1:0"]
            udp.port = {ltkm_port}
            udp.first_timeout = "500ms"
            sms.smsc = "smpp://{smsc}"
            sms.system_id = "{SYSTEM_ID}"
            sms.source = "12345"
            delivery.methods = ["http", "udp", "sms"]
            delivery.sms_alone = "refuse"
            store.url = {store}
            admin.listen = "127.0.0.1:0"
            admin.admin_token_file = {token}
            "#
        );
        let settings = Settings::from_toml_str(&text, "demo.toml");
        let settings = settings.map_err(|faults| format!("the demo's configuration is faulty: {faults}"))?;
        Ok(Self { scratch, settings, token_file })
    }

    /// Starts the daemon.
    pub(super) async fn start(&self) -> Result<Running, String> {
        let daemon = Daemon::start(&self.settings).await.map_err(|e| e.to_string())?;
        let nowhere = || "the daemon does not say where it listens".to_owned();
        let http = *daemon.http_addresses().first().ok_or_else(nowhere)?;
        let udp = *daemon.udp_addresses().first().ok_or_else(nowhere)?;
        let AdminListen::Tcp(admin) = *daemon.admin_address() else { return Err(nowhere()) };
        let api = Api::new(Endpoint::from(admin), Some(&self.token_file)).map_err(|e| e.to_string())?;
        Ok(Running { daemon, api, http, udp, admin })
    }
}

impl Running {
    /// Ends the daemon as SIGTERM does.
    pub(super) async fn stop(self) {
        self.daemon.shutdown().await;
    }

    /// An admin call that has to succeed.
    pub(super) async fn call(
        &mut self,
        method: &str,
        path: &str,
        document: Option<Value>,
    ) -> Result<Value, String> {
        let reply = self.api.call(method, path, document.as_ref()).await;
        reply.map(|reply| reply.value).map_err(|failure| format!("{method} {path}: {failure}"))
    }

    /// What the admin API knows of a terminal.
    pub(super) async fn terminal(&mut self, btid: &str) -> Result<Value, String> {
        self.call("GET", &format!("/v1/terminals/{}", encode(btid)), None).await
    }

    /// A subscriber with a credential.
    pub(super) async fn provision(
        &mut self,
        subscriber: &str,
        msisdn: Option<&str>,
        services: &[&str],
        credential: &Credential,
    ) -> Result<(), String> {
        let document = json!({ "msisdn": msisdn, "services": services });
        self.call("PUT", &format!("/v1/subscribers/{}", encode(subscriber)), Some(document)).await?;
        let document = json!({
            "subscriber": subscriber,
            "mrk": BASE64.encode(credential.mrk.expose()),
            "muk": BASE64.encode(credential.muk.expose()),
            "gba": "u",
            "expires": null,
        });
        let path = format!("/v1/credentials/{}", encode(credential.btid.as_str()));
        self.call("PUT", &path, Some(document)).await.map(drop)
    }

    /// Looks at an admin document until it is as it should be.
    pub(super) async fn until(
        &mut self,
        path: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value, String> {
        let ends = Instant::now() + PATIENCE;
        loop {
            let seen = self.call("GET", path, None).await?;
            if wanted(&seen) {
                return Ok(seen);
            }
            if Instant::now() >= ends {
                return Err(format!(
                    "it did not come within {} s; the daemon says {seen}",
                    PATIENCE.as_secs()
                ));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
