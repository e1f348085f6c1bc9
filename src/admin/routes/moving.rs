//! The calls by which a store is moved while its daemon runs.

use axum::routing;

use super::{ACT, Content, Kind, Operation, Parameter};
use crate::admin::freeze;

/// Freeze, thaw, and the mark of a store that has moved.
pub(super) static CALLS: &[Operation] = &[
    Operation {
        path: "/v1/freeze",
        id: "freeze",
        tag: "daemon",
        summary: "Begins a write pause, or prolongs the caller's own: the store takes no changes, terminals and operators \
                  who want some get 503, and what the daemon does by itself rests. It ends by itself when it is not \
                  prolonged. What was answered before is in a backup that is begun after. 409: another caller's pause, a \
                  store that has moved, or one that daemons share.",
        body: Content::Json("FreezeDocument"),
        answers: &[(202, "Nothing is changed until then.", Content::Json("Freeze"))],
        errors: &[408, 409, 413, 500, 503],
        handler: || routing::post(freeze::freeze),
        ..ACT
    },
    Operation {
        path: "/v1/thaw",
        id: "thaw",
        tag: "daemon",
        summary: "Ends a write pause, whoever began it; harmless without one. 409: the store has moved.",
        query: &[Parameter {
            name: "back",
            about: "Also when the store has moved: no daemon may have worked on the other one.",
            kind: Kind::Flag,
        }],
        answers: &[(204, "Changes are taken.", Content::None)],
        errors: &[409, 500, 503],
        handler: || routing::post(freeze::thaw),
        ..ACT
    },
    Operation {
        path: "/v1/moved",
        id: "moved",
        tag: "daemon",
        summary: "Ends the caller's write pause with the store somewhere else: the daemon changes nothing any more, and its \
                  store does not open again until the file `moved` in its directory is removed. 409: the pause is not the \
                  caller's, or is over.",
        body: Content::Json("MovedDocument"),
        answers: &[(204, "It is marked.", Content::None)],
        errors: &[408, 409, 413, 500, 503],
        handler: || routing::post(freeze::moved),
        ..ACT
    },
];
