//! Reading bodies under limits: of size, and of the time a slow caller may take.

use std::fmt;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use bytes::Bytes;
use http_body_util::BodyExt;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::problem::Problem;

/// Octets of a JSON body at most.
pub(super) const MAX_BODY: usize = 1 << 20;

/// How long a body may keep the daemon waiting, besides what [`MIN_RATE`] grants.
const PATIENCE: Duration = Duration::from_secs(30);

/// Octets a second that a long body has to bring.
const MIN_RATE: u64 = 1024;

/// A body's frames; the time spent on waiting for them is bounded.
pub(super) struct Frames {
    body: Body,
    received: u64,
    waited: Duration,
    patience: Duration,
}

impl Frames {
    /// The body's frames under the usual patience.
    pub(super) fn new(body: Body) -> Self {
        Self { body, received: 0, waited: Duration::ZERO, patience: PATIENCE }
    }

    /// The next octets; `None` at the end.
    ///
    /// # Errors
    /// 408: too slow. 400: the connection or the transfer coding broke.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            let granted = self.patience + Duration::from_secs(self.received / MIN_RATE);
            let left = granted.saturating_sub(self.waited).min(self.patience);
            let began = Instant::now();
            let frame = tokio::time::timeout(left, self.body.frame()).await.map_err(|_| {
                Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time: send it faster")
            })?;
            self.waited += began.elapsed();
            match frame {
                None => return Ok(None),
                Some(Err(_)) => return Err(Problem::unreadable("the body broke off")),
                Some(Ok(frame)) => {
                    if let Ok(octets) = frame.into_data() {
                        self.received += octets.len() as u64;
                        return Ok(Some(octets));
                    }
                }
            }
        }
    }
}

/// A JSON document, or no body at all.
pub(super) struct Json(Option<Value>);

impl Json {
    /// The document of a call that needs one.
    ///
    /// # Errors
    /// 400: there is none.
    pub(super) fn required(self) -> Result<Value, Problem> {
        self.0.ok_or_else(|| Problem::unreadable("the body is empty: send a JSON document"))
    }

    /// The document of a call that can do without.
    pub(super) fn optional(self) -> Option<Value> {
        self.0
    }
}

impl<S: Send + Sync> FromRequest<S> for Json {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let too_large = || {
            let detail = format!("the body is larger than {MAX_BODY} octets");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
        };
        let told = parts.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
        if told.is_some_and(|length| length > MAX_BODY) {
            return Err(too_large());
        }
        let mut frames = Frames::new(body);
        let mut octets = Zeroizing::new(Vec::with_capacity(told.unwrap_or(4096)));
        while let Some(more) = frames.next().await? {
            if octets.len() + more.len() > MAX_BODY {
                return Err(too_large());
            }
            octets.extend_from_slice(&more);
        }
        if octets.is_empty() {
            return Ok(Self(None));
        }
        parse(&octets).map(Some).map(Self).map_err(|e| {
            Problem::unreadable(format!("the body {} (line {}, column {})", e.why, e.line, e.column))
        })
    }
}

/// Why octets are no JSON. Repeats nothing of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoJson {
    /// The end of a sentence that the octets' name begins.
    pub(super) why: &'static str,
    /// Where, from 1.
    pub(super) line: usize,
    /// Where, in octets from 1.
    pub(super) column: usize,
}

/// Parses JSON. An object that has a member twice is refused: which of both was meant is not known.
pub(super) fn parse(octets: &[u8]) -> Result<Value, NoJson> {
    serde_json::from_slice(octets).map(|Unambiguous(value)| value).map_err(|e| {
        let why = match e.classify() {
            serde_json::error::Category::Eof => "ends too early",
            serde_json::error::Category::Data => "has a member twice in one object",
            _ => "is no JSON",
        };
        NoJson { why, line: e.line(), column: e.column() }
    })
}

/// JSON whose objects have each member once. Its only fault of the data is another one.
struct Unambiguous(Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unambiguous(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom("a member is there twice"));
            }
            let Unambiguous(value) = members.next_value()?;
            object.insert(name, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_that_stalls_is_given_up() {
        struct Stalled;
        impl hyper::body::Body for Stalled {
            type Data = Bytes;
            type Error = std::convert::Infallible;
            fn poll_frame(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
                std::task::Poll::Pending
            }
        }
        let patience = Duration::ZERO;
        let mut frames = Frames { patience, ..Frames::new(Body::new(Stalled)) };
        let problem = frames.next().await.expect_err("a timeout");
        assert_eq!(problem.status(), StatusCode::REQUEST_TIMEOUT);
    }

    #[test]
    fn a_parse_error_says_where_and_repeats_nothing_of_the_text() {
        let why = parse(b"\n{\"mrk\": \"c2VjcmV0").expect_err("broken");
        assert_eq!(why, NoJson { why: "ends too early", line: 2, column: 17 });
        let why = parse(b"{\"a\": secret}").expect_err("broken");
        assert_eq!(why, NoJson { why: "is no JSON", line: 1, column: 7 });
    }
    #[test]
    fn an_object_has_each_member_once_at_any_depth() {
        let text = br#"{"a": [1, -2, 0.5, true, null, "x", {"a": {}}], "b": 18446744073709551615}"#;
        let value: Value = serde_json::from_slice(text).expect("JSON");
        assert_eq!(parse(text), Ok(value));
        let why = parse(br#"{"a": 1, "b": [{"c": 1, "c": 1}]}"#).expect_err("twice");
        assert_eq!((why.why, why.line), ("has a member twice in one object", 1));
    }
}
