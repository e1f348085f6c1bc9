//! Answers: what goes back and how it is labelled.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

/// `Authentication-Info` (RFC 7615 §3).
const AUTHENTICATION_INFO: HeaderName = HeaderName::from_static("authentication-info");

/// Seconds after which a terminal may try again when the daemon cannot serve now.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// An answer before its authentication header is known.
pub(super) struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: Vec<u8>,
}

impl Answer {
    /// One line of plain text.
    pub(super) fn text(status: StatusCode, line: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: format!("{line}\n").into_bytes() }
    }

    /// A document.
    pub(super) fn document(content_type: &'static str, body: Vec<u8>) -> Self {
        Self { status: StatusCode::OK, content_type, body }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// The response as hyper sends it.
    pub(super) fn response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.body)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self.status {
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, RETRY_AFTER);
            }
            // What is left of the request is not read (RFC 9110 §15.5.9, §15.5.14).
            StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }

    /// The response with the server's proof that it knows the MRK too.
    pub(super) fn authenticated(self, info: &str) -> Response<Full<Bytes>> {
        let mut response = self.response();
        if let Ok(value) = HeaderValue::from_str(info) {
            response.headers_mut().insert(AUTHENTICATION_INFO, value);
        }
        response
    }

    /// The response that asks for credentials.
    pub(super) fn challenging(self, challenges: &[String]) -> Response<Full<Bytes>> {
        let mut response = self.response();
        for challenge in challenges {
            if let Ok(value) = HeaderValue::from_str(challenge) {
                response.headers_mut().append(header::WWW_AUTHENTICATE, value);
            }
        }
        response
    }
}
