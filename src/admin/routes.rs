//! Every call of the API, once: the router and the OpenAPI document are both made of this table.

mod moving;
mod shown;

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{self, MethodRouter};
use axum::{Extension, Router, middleware};

use super::auth::{self, Auth, Gate};
use super::events::Viewers;
use super::problem::Problem;
use super::trail::Recorder;
use super::{backup, cluster, handlers, import, jobs, openapi, page, services, trail};
use crate::audit::AuditLog;
use crate::engine::Engine;

/// The keys of a service.
const KEYS: &str = "/v1/services/{service_id}/keys";

/// All that operators put in.
const EXPORT: &str = "/v1/export";

/// The paths that the key reader's token opens, with `secrets=true`.
pub(super) const SECRETS: [&str; 2] = [KEYS, EXPORT];

/// A query parameter.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) kind: Kind,
}

/// What a query parameter may be.
pub(super) enum Kind {
    Text,
    Flag,
    Limit,
    Words(&'static [&'static str]),
}

/// A body or an answer's content.
pub(super) enum Content {
    /// Nothing.
    None,
    /// `application/json` of this schema.
    Json(&'static str),
    /// `application/json`: a page of items of this schema.
    Page(&'static str),
    /// `application/x-ndjson`, each line of this schema.
    Lines(&'static str),
    /// `application/octet-stream`.
    Octets,
    /// Any JSON object.
    Object,
    /// Prometheus text.
    Metrics,
    /// Text of this media type.
    Text(&'static str),
}

/// Whether a call that changes nothing is recorded, because its answer has secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reveals {
    /// No secret.
    Nothing,
    /// Secrets, when this parameter is `true`.
    With(&'static str),
    /// Secrets, be it sealed ones.
    Always,
}

/// One call.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    /// Whether it needs no token.
    pub(super) open: bool,
    pub(super) query: &'static [Parameter],
    pub(super) body: Content,
    /// Whether the body may be left out.
    pub(super) body_optional: bool,
    /// Statuses of success, with what comes.
    pub(super) answers: &'static [(u16, &'static str, Content)],
    /// Statuses of problem documents besides those that every call under the token has.
    pub(super) errors: &'static [u16],
    /// Whether it reads secrets.
    pub(super) reveals: Reveals,
    handler: fn() -> MethodRouter<Arc<Engine>>,
}

const LIMIT: Parameter =
    Parameter { name: "limit", about: "Items of a page, 100 when absent.", kind: Kind::Limit };
const AFTER: Parameter =
    Parameter { name: "after", about: "What the `next` of the page before said.", kind: Kind::Text };
const STATE: Parameter = Parameter {
    name: "state",
    about: "Deliveries in this state.",
    kind: Kind::Words(&[
        "queued",
        "sent",
        "verified",
        "assumed",
        "awaiting_pull",
        "failed",
        "superseded",
        "cancelled",
    ]),
};
const METHOD: Parameter = Parameter {
    name: "method",
    about: "Terminals with this method in their set.",
    kind: Kind::Words(&["udp", "sms", "http"]),
};

const fn by_service(about: &'static str) -> Parameter {
    Parameter { name: "service", about, kind: Kind::Text }
}

/// A call that reads, under the token.
const READ: Operation = Operation {
    method: "get",
    path: "",
    id: "",
    tag: "",
    summary: "",
    open: false,
    query: &[],
    body: Content::None,
    body_optional: false,
    answers: &[],
    errors: &[],
    reveals: Reveals::Nothing,
    handler: MethodRouter::new,
};

/// A call that puts a document.
const PUT: Operation = Operation { method: "put", errors: &[408, 413, 500, 503], ..READ };

/// A call that deletes.
const DELETE: Operation = Operation {
    method: "delete",
    answers: &[(204, "It is gone.", Content::None)],
    errors: &[404, 500, 503],
    ..READ
};

/// A call that acts.
const ACT: Operation = Operation { method: "post", errors: &[404, 408, 409, 413, 500, 503], ..READ };

/// A call that acts on a job.
const ACT_ON_JOB: Operation = Operation {
    tag: "jobs",
    answers: &[(202, "It is durable; the job as it is now.", Content::Json("Job"))],
    errors: &[404, 409, 500, 503],
    ..ACT
};

/// A call that anybody may make.
const OPEN: Operation = Operation { open: true, tag: "daemon", ..READ };

/// Every call but those of the page.
static CALLS: &[Operation] = &[
    Operation {
        path: "/v1/services",
        id: "listServices",
        tag: "services",
        summary: "Services by id.",
        query: &[LIMIT, AFTER],
        answers: &[(200, "A page of services.", Content::Page("Service"))],
        handler: || routing::get(services::list),
        ..READ
    },
    Operation {
        path: "/v1/services/{service_id}",
        id: "putService",
        tag: "services",
        summary: "Creates a service with its first key, or changes its policy. Repeating it is harmless. \
                  409: the key group would change, or the (domain, group) belongs to another service.",
        body: Content::Json("ServiceDocument"),
        answers: &[
            (200, "It was there, and is as put now.", Content::Json("Service")),
            (201, "It is new.", Content::Json("Service")),
        ],
        errors: &[408, 409, 413, 500, 503],
        handler: || routing::put(services::put),
        ..PUT
    },
    Operation {
        path: "/v1/services/{service_id}",
        id: "getService",
        tag: "services",
        summary: "A service with its current key's id and its registered terminals.",
        answers: &[(200, "The service.", Content::Json("Service"))],
        errors: &[404],
        handler: || routing::get(services::show),
        ..READ
    },
    Operation {
        path: "/v1/services/{service_id}",
        id: "deleteService",
        tag: "services",
        summary: "Deletes a service. 409 while terminals are registered, unless forced.",
        query: &[Parameter {
            name: "force",
            about: "Ends the registrations and invalidates the keys.",
            kind: Kind::Flag,
        }],
        errors: &[404, 409, 500, 503],
        handler: || routing::delete(services::delete),
        ..DELETE
    },
    Operation {
        path: "/v1/services/{service_id}/rotate",
        id: "rotateKey",
        tag: "services",
        summary: "Makes a new key, or takes one from outside, and delivers it to every registered terminal.",
        body: Content::Json("RotateDocument"),
        body_optional: true,
        answers: &[(202, "The job runs.", Content::Json("Rotation"))],
        handler: || routing::post(services::rotate),
        ..ACT
    },
    Operation {
        path: KEYS,
        id: "listKeys",
        tag: "services",
        summary: "The service's keys in the order they were made. With `secrets=true` also the keys themselves, \
                  for the bearer of the key_reader_token alone.",
        query: &[
            Parameter {
                name: "secrets",
                about: "Shows the keys themselves; takes the key_reader_token.",
                kind: Kind::Flag,
            },
            LIMIT,
            AFTER,
        ],
        answers: &[(200, "A page of keys.", Content::Page("Key"))],
        errors: &[404, 503],
        reveals: Reveals::With("secrets"),
        handler: || routing::get(services::keys),
        ..READ
    },
    Operation {
        path: "/v1/jobs",
        id: "listJobs",
        tag: "jobs",
        summary: "Fan-out jobs, the newest first.",
        query: &[
            Parameter {
                name: "state",
                about: "Jobs in this state.",
                kind: Kind::Words(&["running", "paused", "cancelled", "done"]),
            },
            LIMIT,
            AFTER,
        ],
        answers: &[(200, "A page of jobs.", Content::Page("Job"))],
        errors: &[500, 503],
        handler: || routing::get(jobs::list),
        ..READ
    },
    Operation {
        path: "/v1/jobs/{id}",
        id: "getJob",
        tag: "jobs",
        summary: "A fan-out job and how far it is.",
        answers: &[(200, "The job.", Content::Json("Job"))],
        errors: &[404, 500, 503],
        handler: || routing::get(jobs::show),
        ..READ
    },
    Operation {
        path: "/v1/jobs/{id}/pause",
        id: "pauseJob",
        summary: "Holds a job, also over restarts: nobody more is visited until it is resumed. What is under way goes \
                  on to its end, resends included. Pausing a paused job is harmless. 409: it is over.",
        handler: || routing::post(jobs::pause),
        ..ACT_ON_JOB
    },
    Operation {
        path: "/v1/jobs/{id}/resume",
        id: "resumeJob",
        summary: "Lets a paused job go on where it was. Resuming a running job is harmless. 409: it is over.",
        handler: || routing::post(jobs::resume),
        ..ACT_ON_JOB
    },
    Operation {
        path: "/v1/jobs/{id}/cancel",
        id: "cancelJob",
        summary: "Ends a job: nobody more is visited, and what waits for its turn does not go out; both count as \
                  cancelled. What went out goes on to its end, and who asks for the key gets it. 409: it is over, or \
                  ends the registrations of a deleted service.",
        handler: || routing::post(jobs::cancel),
        ..ACT_ON_JOB
    },
    Operation {
        path: "/v1/subscribers/{id}",
        id: "putSubscriber",
        tag: "subscribers",
        summary: "Puts a subscriber in place. Lost entitlements end registrations.",
        body: Content::Json("SubscriberDocument"),
        answers: &[
            (200, "It was there, and is as put now.", Content::Json("Subscriber")),
            (201, "It is new.", Content::Json("Subscriber")),
        ],
        handler: || routing::put(handlers::put_subscriber),
        ..PUT
    },
    Operation {
        path: "/v1/subscribers/{id}",
        id: "getSubscriber",
        tag: "subscribers",
        summary: "A subscriber.",
        answers: &[(200, "The subscriber.", Content::Json("Subscriber"))],
        errors: &[404, 500, 503],
        handler: || routing::get(handlers::show_subscriber),
        ..READ
    },
    Operation {
        path: "/v1/subscribers/{id}",
        id: "deleteSubscriber",
        tag: "subscribers",
        summary: "Deletes a subscriber; registrations and deliveries end.",
        handler: || routing::delete(handlers::delete_subscriber),
        ..DELETE
    },
    Operation {
        path: "/v1/credentials/{btid}",
        id: "putCredential",
        tag: "credentials",
        summary: "Puts a terminal's credential in place: MRK and MUK, or Ks to derive them from.",
        body: Content::Json("CredentialDocument"),
        answers: &[
            (200, "It was there, and is as put now.", Content::Json("Credential")),
            (201, "It is new.", Content::Json("Credential")),
        ],
        handler: || routing::put(handlers::put_credential),
        ..PUT
    },
    Operation {
        path: "/v1/credentials/{btid}",
        id: "getCredential",
        tag: "credentials",
        summary: "A credential without its keys.",
        answers: &[(200, "The credential.", Content::Json("Credential"))],
        errors: &[404, 500, 503],
        handler: || routing::get(handlers::show_credential),
        ..READ
    },
    Operation {
        path: "/v1/credentials/{btid}",
        id: "deleteCredential",
        tag: "credentials",
        summary: "Deletes a credential; its registration and deliveries end.",
        handler: || routing::delete(handlers::delete_credential),
        ..DELETE
    },
    Operation {
        path: "/v1/import",
        id: "import",
        tag: "credentials",
        summary: "Takes many services, subscribers and credentials, one JSON object a line, each with its id. \
                  Every 1,000 lines are committed as one. Right lines apply, faulty ones are skipped and told; \
                  a line has at most 64 KiB. An error document says how far it came.",
        body: Content::Lines("ImportLine"),
        answers: &[(200, "All lines were read.", Content::Json("Imported"))],
        errors: &[408, 500, 503],
        handler: || routing::post(import::import),
        ..ACT
    },
    Operation {
        path: EXPORT,
        id: "export",
        tag: "credentials",
        summary: "All services, subscribers and credentials of one moment, in the form that the import takes, with the \
                  counters of credentials. Keys of credentials are in it with `secrets=true` alone, for the bearer of \
                  the key_reader_token; without them the import takes no credential. The header `ltkmd-lines` says \
                  about how many lines come. 503: another backup or export is under way, or the store does not work.",
        query: &[Parameter {
            name: "secrets",
            about: "Shows the keys of credentials; takes the key_reader_token.",
            kind: Kind::Flag,
        }],
        answers: &[(200, "One object a line.", Content::Lines("ExportLine"))],
        errors: &[500, 503],
        reveals: Reveals::With("secrets"),
        handler: || routing::get(backup::export),
        ..READ
    },
    Operation {
        path: "/v1/backup",
        id: "backup",
        tag: "daemon",
        summary: "The whole store at one moment, for `ltkmd restore`. Secrets in it stay sealed under the store key, \
                  which is not in it. One that was cut off is told by its reader: its end is missing. 503: another \
                  backup or export is under way, or the store does not work.",
        answers: &[(200, "Frames with checks.", Content::Octets)],
        errors: &[500, 503],
        reveals: Reveals::Always,
        handler: || routing::get(backup::backup),
        ..READ
    },
    Operation {
        path: "/v1/terminals",
        id: "listTerminals",
        tag: "terminals",
        summary: "Terminals registered for at least one service, in no telling order.",
        query: &[by_service("Terminals registered for this service."), METHOD, LIMIT, AFTER],
        answers: &[(200, "A page of terminals.", Content::Page("Terminal"))],
        errors: &[500, 503],
        handler: || routing::get(handlers::list_terminals),
        ..READ
    },
    Operation {
        path: "/v1/terminals/{btid}",
        id: "getTerminal",
        tag: "terminals",
        summary: "A terminal that has registered; it may have left all its services since.",
        answers: &[(200, "The terminal.", Content::Json("Terminal"))],
        errors: &[404, 500, 503],
        handler: || routing::get(handlers::show_terminal),
        ..READ
    },
    Operation {
        path: "/v1/terminals/{btid}/trigger",
        id: "triggerTerminal",
        tag: "terminals",
        summary: "Asks a terminal to register again or to request a service's keys (solicited pull). \
                  409: no method of its set can carry it.",
        body: Content::Json("TriggerDocument"),
        answers: &[(202, "The trigger is on its way.", Content::None)],
        handler: || routing::post(handlers::trigger),
        ..ACT
    },
    Operation {
        path: "/v1/deliveries",
        id: "listDeliveries",
        tag: "terminals",
        summary: "Deliveries, open and recent.",
        query: &[
            STATE,
            by_service("Deliveries of this service."),
            Parameter { name: "terminal", about: "Deliveries to this B-TID.", kind: Kind::Text },
            LIMIT,
            AFTER,
        ],
        answers: &[(200, "A page of deliveries.", Content::Page("Delivery"))],
        errors: &[500, 503],
        handler: || routing::get(handlers::list_deliveries),
        ..READ
    },
    Operation {
        path: "/v1/audit/head",
        id: "getAuditHead",
        tag: "daemon",
        summary: "The last line of the audit log, which a check of the file is held against. 404: there is none.",
        answers: &[(200, "Its number and its hash.", Content::Json("AuditHead"))],
        errors: &[404],
        handler: || routing::get(trail::head),
        ..READ
    },
    Operation {
        path: "/v1/status",
        id: "getStatus",
        tag: "daemon",
        summary: "How the daemon is, in one answer.",
        answers: &[(200, "Its state.", Content::Json("Status"))],
        errors: &[500, 503],
        handler: || routing::get(handlers::status),
        ..READ
    },
    Operation {
        path: "/v1/cluster",
        id: "getCluster",
        tag: "daemon",
        summary: "The daemons on this store, the shard ranges that each holds, and the database behind them. One daemon \
                  where the store is a directory.",
        answers: &[(200, "All of them.", Content::Json("Cluster"))],
        errors: &[500, 503],
        handler: || routing::get(cluster::show),
        ..READ
    },
    Operation {
        path: "/metrics",
        id: "metrics",
        summary: "Metrics for Prometheus.",
        answers: &[(200, "All series.", Content::Metrics)],
        handler: || routing::get(handlers::metrics),
        ..OPEN
    },
    Operation {
        path: "/healthz",
        id: "healthz",
        summary: "Whether the process lives.",
        answers: &[(200, "It does.", Content::Json("Health"))],
        handler: || routing::get(handlers::health),
        ..OPEN
    },
    Operation {
        path: "/readyz",
        id: "readyz",
        summary: "Whether the store and the listeners work.",
        answers: &[(200, "They do.", Content::Json("Health"))],
        errors: &[503],
        handler: || routing::get(handlers::ready),
        ..OPEN
    },
    Operation {
        path: "/openapi.json",
        id: "openapi",
        summary: "This document.",
        answers: &[(200, "OpenAPI 3.1.", Content::Object)],
        handler: || routing::get(openapi::serve),
        ..OPEN
    },
];

/// Every call.
pub(super) fn operations() -> impl Iterator<Item = &'static Operation> {
    CALLS.iter().chain(moving::CALLS).chain(shown::CALLS)
}

/// Whether a route needs no token.
pub(super) fn is_open(path: &str) -> bool {
    operations().any(|o| o.open && o.path == path)
}

/// The call behind a matched path and a method; HEAD is answered as GET is.
pub(super) fn operation(path: &str, method: &Method) -> Option<&'static Operation> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    operations().find(|o| o.path == path && method.as_str().eq_ignore_ascii_case(o.method))
}

/// The whole API over an engine.
pub(super) fn router(
    engine: Arc<Engine>,
    auth: Auth,
    audit: Option<Arc<AuditLog>>,
    viewers: Viewers,
) -> Router {
    let gate = Gate { auth, recorder: Recorder::new(audit) };
    let mut router = Router::new();
    for operation in operations() {
        router = router.route(operation.path, (operation.handler)());
    }
    router
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(Arc::clone(&engine), refreshed))
        .layer(Extension(backup::Place::default()))
        .layer(Extension(Arc::new(viewers)))
        .layer(middleware::from_fn_with_state(Arc::new(gate), auth::gate))
        .with_state(engine)
}

/// Brings in what other daemons on the same store have changed, so that a call sees every call that was answered before
/// it, whichever daemon answered.
async fn refreshed(State(engine): State<Arc<Engine>>, request: Request, next: Next) -> Response {
    if request.uri().path().starts_with("/v1/")
        && let Err(error) = engine.refresh().await
    {
        return Problem::from(error).into_response();
    }
    next.run(request).await
}

/// What is served while there is no store: the process lives, the page says why it shows nothing, and nothing else
/// works yet.
pub(super) fn unready() -> Router {
    let unready = || async { Problem::unavailable("not ready: the store cannot be opened now") };
    Router::new()
        .route("/healthz", routing::get(handlers::health))
        .route("/", routing::get(page::index))
        .route("/page/style.css", routing::get(page::style))
        .route("/page/main.js", routing::get(page::main))
        .route("/page/parts.js", routing::get(page::parts))
        .route("/page/plots.js", routing::get(page::plots))
        .route("/page/terminal.js", routing::get(page::terminal))
        .fallback(unready)
}

async fn not_found(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(256).collect();
    Problem::not_found(format!("there is nothing at {path}; /openapi.json lists every call"))
}

async fn method_not_allowed(matched: Option<Extension<MatchedPath>>) -> Problem {
    let path = matched.as_ref().map_or("", |Extension(m)| m.as_str());
    let methods = operations().filter(|o| o.path == path);
    let methods: Vec<_> = methods
        .flat_map(|o| match o.method {
            "get" => vec!["GET".to_owned(), "HEAD".to_owned()],
            other => vec![other.to_ascii_uppercase()],
        })
        .collect();
    Problem::method_not_allowed(&methods.join(", "))
}
