//! The page, and what it shows: open like the metrics, aggregates alone.

use axum::routing;

use super::{AFTER, Content, LIMIT, OPEN, Operation};
use crate::admin::{events, page, status};

/// What the page shows.
const SHOWN: Operation = Operation { tag: "page", ..OPEN };

/// A script of the page.
const SCRIPT: Operation =
    Operation { answers: &[(200, "A module.", Content::Text(page::JAVASCRIPT))], ..SHOWN };

/// The calls of the page.
pub(super) static CALLS: &[Operation] = &[
    Operation {
        path: "/status/overview",
        id: "getOverview",
        summary: "How the daemon is, with its open jobs: what the page shows.",
        answers: &[(200, "Its state.", Content::Json("Overview"))],
        handler: || routing::get(status::overview),
        ..SHOWN
    },
    Operation {
        path: "/status/services",
        id: "listCoverage",
        summary: "Services by id, with their current keys and how many terminals hold them.",
        query: &[LIMIT, AFTER],
        answers: &[(200, "A page of services.", Content::Page("Coverage"))],
        errors: &[400, 422],
        handler: || routing::get(status::coverage),
        ..SHOWN
    },
    Operation {
        path: "/status/hour",
        id: "getHour",
        summary: "What became of deliveries in the last hour, by minute. In memory alone: a restart begins anew.",
        answers: &[(200, "The minutes in which something happened.", Content::Json("Hour"))],
        handler: || routing::get(status::hour),
        ..SHOWN
    },
    Operation {
        path: "/status/events",
        id: "streamOverview",
        summary: "The overview once a second, as server-sent events called `overview`; 15 minutes at most. 503: 32 \
                  streams are open already.",
        answers: &[(200, "Events until one side ends.", Content::Text("text/event-stream"))],
        errors: &[503],
        handler: || routing::get(events::events),
        ..SHOWN
    },
    Operation {
        path: "/",
        id: "page",
        summary: "A page to look at in a browser.",
        answers: &[(200, "The page.", Content::Text(page::HTML))],
        handler: || routing::get(page::index),
        ..SHOWN
    },
    Operation {
        path: "/page/style.css",
        id: "pageStyle",
        summary: "The page's style.",
        answers: &[(200, "The style.", Content::Text(page::CSS))],
        handler: || routing::get(page::style),
        ..SHOWN
    },
    Operation {
        path: "/page/main.js",
        id: "pageMain",
        summary: "The page's script: what comes when.",
        handler: || routing::get(page::main),
        ..SCRIPT
    },
    Operation {
        path: "/page/parts.js",
        id: "pageParts",
        summary: "The page's script: tables and bars.",
        handler: || routing::get(page::parts),
        ..SCRIPT
    },
    Operation {
        path: "/page/plots.js",
        id: "pagePlots",
        summary: "The page's script: plots.",
        handler: || routing::get(page::plots),
        ..SCRIPT
    },
    Operation {
        path: "/page/terminal.js",
        id: "pageTerminal",
        summary: "The page's script: the search for a terminal.",
        handler: || routing::get(page::terminal),
        ..SCRIPT
    },
];
