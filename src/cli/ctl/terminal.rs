//! `ctl terminal` and `ctl delivery`.

use serde_json::json;

use super::Failure;
use super::api::{Api, PageArgs, encode};
use super::show::Screen;
use super::story;
use crate::time::Timestamp;

/// Deliveries of a terminal that its story tells, at most.
const STORY: u32 = 1000;

/// `ctl terminal`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Terminal {
    /// List registered terminals
    List {
        /// Those registered for this service
        #[arg(long, value_name = "ID")]
        service: Option<String>,
        /// Those with this method in their set
        #[arg(long, value_parser = ["udp", "http", "sms"])]
        method: Option<String>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Tell a terminal's story: registration, keys, attempts, verifications, with their times
    Show {
        /// Its B-TID
        btid: String,
    },
    /// Ask a terminal to register again, or to request a service's keys
    Trigger {
        /// Its B-TID
        btid: String,
        /// Ask for this service's keys to be requested
        #[arg(long, value_name = "SERVICE")]
        msk_request: Option<String>,
    },
}

impl Terminal {
    pub(super) async fn run(self, api: &mut Api, screen: &mut Screen<'_>) -> Result<(), Failure> {
        match self {
            Self::List { service, method, page } => {
                let filters = [("service", service.as_deref()), ("method", method.as_deref())];
                let list = api.list("/v1/terminals", &filters, &page).await?;
                let columns = [
                    ("B-TID", "btid"),
                    ("SUBSCRIBER", "subscriber"),
                    ("ADDRESS", "address"),
                    ("METHODS", "methods"),
                    ("SERVICES", "services"),
                    ("OPEN", "deliveries_open"),
                    ("LAST SEEN", "last_seen"),
                ];
                screen.list(&list, &columns)
            }
            Self::Show { btid } => {
                let terminal = api.get(&format!("/v1/terminals/{}", encode(&btid))).await?;
                if screen.json {
                    return screen.raw(&terminal);
                }
                let page = PageArgs { limit: STORY, after: None };
                let deliveries =
                    api.list("/v1/deliveries", &[("terminal", Some(btid.as_str()))], &page).await?;
                story::tell(&terminal.value, &deliveries, Timestamp::now(), screen)
            }
            Self::Trigger { btid, msk_request } => {
                let document = match &msk_request {
                    None => json!({"procedure": "register"}),
                    Some(service) => json!({"procedure": "msk-request", "service": service}),
                };
                let path = format!("/v1/terminals/{}/trigger", encode(&btid));
                api.call("POST", &path, Some(&document)).await?;
                screen.done(&format!("a trigger is on its way to {btid}"))
            }
        }
    }
}

/// `ctl delivery`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Delivery {
    /// List deliveries, open and recent
    List {
        /// Those in this state
        #[arg(long, value_parser = [
            "queued", "sent", "verified", "assumed", "awaiting_pull", "failed", "superseded", "cancelled",
        ])]
        state: Option<String>,
        /// Those of this service
        #[arg(long, value_name = "ID")]
        service: Option<String>,
        /// Those to this terminal
        #[arg(long, value_name = "B-TID")]
        terminal: Option<String>,
        #[command(flatten)]
        page: PageArgs,
    },
}

impl Delivery {
    pub(super) async fn run(self, api: &mut Api, screen: &mut Screen<'_>) -> Result<(), Failure> {
        let Self::List { state, service, terminal, page } = self;
        let filters =
            [("state", state.as_deref()), ("service", service.as_deref()), ("terminal", terminal.as_deref())];
        let list = api.list("/v1/deliveries", &filters, &page).await?;
        let columns = [
            ("TERMINAL", "terminal"),
            ("SERVICE", "service"),
            ("MSK ID", "msk_id"),
            ("KIND", "kind"),
            ("STATE", "state"),
            ("METHOD", "method"),
            ("ATTEMPTS", "attempts"),
            ("ERROR", "error"),
            ("NEXT DUE", "next_due"),
            ("UPDATED", "updated"),
        ];
        screen.list(&list, &columns)
    }
}
