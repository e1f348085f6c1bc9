//! The page for people: one document with its style and scripts, from this daemon alone.
//!
//! It shows what `/status/…` says, which is open like `/metrics`: aggregates and nothing about one subscriber. For a
//! terminal it needs the admin token, which is typed in and stays in the page's memory.

use axum::http::header::{
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::response::{IntoResponse, Response};

/// Nothing but this daemon's own files and calls; no inline script or style, no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The media types of the page's files.
pub(super) const HTML: &str = "text/html";
pub(super) const CSS: &str = "text/css";
pub(super) const JAVASCRIPT: &str = "text/javascript";

const HEADERS: [(HeaderName, &str); 4] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (X_FRAME_OPTIONS, "DENY"),
];

fn file(media: &str, text: &'static str) -> Response {
    (HEADERS, [(CONTENT_TYPE, format!("{media}; charset=utf-8"))], text).into_response()
}

/// `GET /`
pub(super) async fn index() -> Response {
    file(HTML, include_str!("page/index.html"))
}

/// `GET /page/style.css`
pub(super) async fn style() -> Response {
    file(CSS, include_str!("page/style.css"))
}

/// `GET /page/main.js`
pub(super) async fn main() -> Response {
    file(JAVASCRIPT, include_str!("page/main.js"))
}

/// `GET /page/parts.js`
pub(super) async fn parts() -> Response {
    file(JAVASCRIPT, include_str!("page/parts.js"))
}

/// `GET /page/plots.js`
pub(super) async fn plots() -> Response {
    file(JAVASCRIPT, include_str!("page/plots.js"))
}

/// `GET /page/terminal.js`
pub(super) async fn terminal() -> Response {
    file(JAVASCRIPT, include_str!("page/terminal.js"))
}
