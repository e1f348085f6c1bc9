//! `ctl service` and `ctl key`.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::api::{Api, PageArgs, encode};
use super::show::{Screen, cell};
use super::{Failure, job, mtk_ids, read_document, read_text};

/// `ctl service`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Service {
    /// List services with their current keys and registered terminals
    List(PageArgs),
    /// Show a service
    Show {
        /// The service's id
        id: String,
    },
    /// Create a service with its first key, or put its whole policy anew
    Put(Box<Policy>),
    /// Delete a service
    Delete {
        /// The service's id
        id: String,
        /// End the registrations that there are, and invalidate their keys
        #[arg(long)]
        force: bool,
    },
    /// List a service's keys
    Keys {
        /// The service's id
        id: String,
        /// Show the keys themselves; needs the key reader's token
        #[arg(long)]
        secrets: bool,
        #[command(flatten)]
        page: PageArgs,
    },
}

/// A service's policy: what is not given is the default, also when the service is there already.
#[derive(Debug, clap::Args)]
pub(super) struct Policy {
    /// The service's id, a URI
    id: String,
    /// Key Domain ID: 6 hexadecimal digits, MCC and MNC in BCD
    #[arg(long, value_name = "HEX", required_unless_present = "file")]
    key_domain: Option<String>,
    /// Key Group: 4 hexadecimal digits; cannot be changed later
    #[arg(long, value_name = "HEX", required_unless_present = "file")]
    key_group: Option<String>,
    /// How LTKMs write validity: NTP seconds (BCAST) or MTK IDs (MBMS)
    #[arg(long, value_parser = ["ntp", "mtk-id"], default_value = "ntp")]
    validity: String,
    /// How long a new key is valid
    #[arg(long, value_name = "TIME", default_value = "24h")]
    lifetime: String,
    /// From one key's start to the next one's; without it there is no schedule
    #[arg(long, value_name = "TIME")]
    rotate_every: Option<String>,
    /// Let any authenticated terminal register
    #[arg(long)]
    open: bool,
    /// Management data of the OMA BCAST extension
    #[arg(long, value_name = "BASE64")]
    ext_bcast: Option<String>,
    /// Leave terminals the keys that their registration brought when it ends
    #[arg(long)]
    keep_on_deregister: bool,
    /// MTK IDs of new keys
    #[arg(long, value_name = "LOWER,UPPER", value_parser = mtk_ids)]
    mtk_ids: Option<[u16; 2]>,
    /// Give keys a salt
    #[arg(long)]
    salt: bool,
    /// How long before its start a next key is distributed; without it the configuration's keys.lead_time
    #[arg(long, value_name = "TIME")]
    lead_time: Option<String>,
    /// Take the whole document from a JSON file, `-` is stdin; the only way to give SRTP policies
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "key_domain", "key_group", "validity", "lifetime", "rotate_every", "open", "ext_bcast",
        "keep_on_deregister", "mtk_ids", "salt", "lead_time",
    ])]
    file: Option<PathBuf>,
}

impl Policy {
    fn document(&self) -> Result<Value, Failure> {
        if let Some(file) = &self.file {
            return read_document(file);
        }
        let mut document = json!({
            "key_domain": self.key_domain, "key_group": self.key_group, "validity": self.validity,
            "lifetime": self.lifetime, "rotate_every": self.rotate_every, "open": self.open,
            "ext_bcast": self.ext_bcast, "invalidate_on_deregister": !self.keep_on_deregister,
            "salt": self.salt, "lead_time": self.lead_time,
        });
        if let Some(ids) = self.mtk_ids {
            document["mtk_ids"] = json!(ids);
        }
        Ok(document)
    }
}

fn path(id: &str) -> String {
    format!("/v1/services/{}", encode(id))
}

impl Service {
    pub(super) async fn run(self, api: &mut Api, screen: &mut Screen<'_>) -> Result<(), Failure> {
        match self {
            Self::List(page) => {
                let list = api.list("/v1/services", &[], &page).await?;
                let columns = [
                    ("SERVICE", "id"),
                    ("DOMAIN", "key_domain"),
                    ("MSK ID", "msk_id"),
                    ("LIFETIME", "lifetime"),
                    ("ROTATES", "rotate_every"),
                    ("OPEN", "open"),
                    ("TERMINALS", "terminals"),
                ];
                screen.list(&list, &columns)
            }
            Self::Show { id } => screen.document(&api.get(&path(&id)).await?),
            Self::Put(policy) => {
                let reply = api.call("PUT", &path(&policy.id), Some(&policy.document()?)).await?;
                screen.document(&reply)
            }
            Self::Delete { id, force } => {
                let query = if force { "?force=true" } else { "" };
                api.call("DELETE", &format!("{}{query}", path(&id)), None).await?;
                screen.done(&format!("{id} is deleted"))
            }
            Self::Keys { id, secrets, page } => {
                let secrets = secrets.then_some("true");
                let list = api.list(&format!("{}/keys", path(&id)), &[("secrets", secrets)], &page).await?;
                let mut columns = vec![
                    ("MSK ID", "msk_id"),
                    ("VALID FROM", "valid_from"),
                    ("VALID TO", "valid_to"),
                    ("STATE", "state"),
                ];
                if secrets.is_some() {
                    columns.extend([("MSK", "msk"), ("SALT", "salt")]);
                }
                screen.list(&list, &columns)
            }
        }
    }
}

/// `ctl key`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Key {
    /// Give a service a new key and deliver it to all its terminals
    Rotate {
        /// The service's id
        service: String,
        /// A file with the key's 16 octets in base64, `-` is stdin; without it the daemon makes one
        #[arg(long, value_name = "FILE")]
        msk_file: Option<PathBuf>,
        /// The first moment of its validity, RFC 3339; now when absent
        #[arg(long, value_name = "TIME")]
        valid_from: Option<String>,
        /// The first moment after its validity, RFC 3339; the service's lifetime later when absent
        #[arg(long, value_name = "TIME")]
        valid_to: Option<String>,
        /// MTK IDs of the key; the service's when absent
        #[arg(long, value_name = "LOWER,UPPER", value_parser = mtk_ids)]
        mtk_ids: Option<[u16; 2]>,
        /// Follow the job to its end, as `job follow` does
        #[arg(long)]
        follow: bool,
    },
}

impl Key {
    pub(super) async fn run(self, api: &mut Api, screen: &mut Screen<'_>) -> Result<(), Failure> {
        let Self::Rotate { service, msk_file, valid_from, valid_to, mtk_ids, follow } = self;
        let msk = msk_file.as_deref().map(read_text).transpose()?;
        let document = json!({
            "msk": msk.as_ref().map(|msk| msk.as_str()), "valid_from": valid_from, "valid_to": valid_to,
            "mtk_ids": mtk_ids,
        });
        let reply = api.call("POST", &format!("{}/rotate", path(&service)), Some(&document)).await?;
        if follow {
            let job = reply.value["job"].as_u64();
            let job = job.ok_or_else(|| Failure::failed("the daemon's answer names no job"))?;
            return job::follow(api, screen, job).await;
        }
        if screen.json {
            return screen.raw(&reply);
        }
        let (job, msk_id) = (cell(&reply.value["job"]), cell(&reply.value["msk_id"]));
        screen.line(&format!("job {job} brings key {msk_id} to the terminals of {service}"))
    }
}
