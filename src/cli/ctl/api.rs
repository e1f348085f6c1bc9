//! The admin API as `ctl` calls it.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Request, StatusCode};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Failure;
use crate::cli::client::{self, Body, Client, ClientError, Endpoint};
use crate::secret::Secret;

/// Where the daemon listens when nobody says otherwise: first here.
pub(super) const DEFAULT_SOCKET: &str = "/run/ltkmd/admin.sock";

/// Where the daemon listens when nobody says otherwise: then here.
pub(super) const DEFAULT_PORT: u16 = 9470;

/// Items of a page at most, as the API has it; tests turn pages sooner.
const MAX_PAGE: usize = if cfg!(test) { 10 } else { 1000 };

/// Octets of a problem document at most.
const MAX_PROBLEM: usize = 64 << 10;

/// A daemon's admin API.
pub(in crate::cli) struct Api {
    client: Client,
    authorization: Option<HeaderValue>,
}

/// An answer of success.
pub(in crate::cli) struct Reply {
    /// What the API gave, to the octet.
    pub(in crate::cli) raw: Bytes,
    /// The same, read; null when there is no body.
    pub(in crate::cli) value: Value,
}

/// Which items of a list are wanted.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct PageArgs {
    /// Show at most so many items, fetched page by page
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: u32,
    /// Go on behind this place: what `next` said, as --json and the note below a cut list tell it
    #[arg(long, value_name = "NEXT")]
    pub(super) after: Option<String>,
}

/// Finds the daemon where it usually is: the socket when somebody listens there, else TCP.
pub(super) fn default_endpoint(socket: &Path) -> Result<Endpoint, Failure> {
    match UnixStream::connect(socket) {
        Ok(_) => Ok(Endpoint::Unix(socket.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Failure::failed(format!(
            "{} may not be used by you: join its group, or name another place with --admin",
            socket.display()
        ))),
        Err(_) => Ok(Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: DEFAULT_PORT }),
    }
}

/// Percent-encodes all that is not unreserved (RFC 3986 §2.3).
pub(in crate::cli) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for octet in text.bytes() {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            encoded.push(char::from(octet));
        } else {
            encoded.push_str(&format!("%{octet:02X}"));
        }
    }
    encoded
}

impl Api {
    /// The API at this place, with the token that a file holds (one trailing newline is not part of it).
    pub(in crate::cli) fn new(endpoint: Endpoint, token_file: Option<&Path>) -> Result<Self, Failure> {
        let authorization = token_file.map(read_token).transpose()?;
        Ok(Self { client: Client::new(endpoint), authorization })
    }

    /// The API at this place, with a token at hand.
    pub(in crate::cli) fn with_token(endpoint: Endpoint, token: Option<&Secret>) -> Result<Self, Failure> {
        let value = |token: &Secret| {
            let text = Zeroizing::new([b"Bearer ", token.expose()].concat());
            let mut value = HeaderValue::from_bytes(&text)
                .map_err(|_| Failure::usage("the admin token is none that HTTP takes"))?;
            value.set_sensitive(true);
            Ok(value)
        };
        let authorization = token.map(value).transpose()?;
        Ok(Self { client: Client::new(endpoint), authorization })
    }

    /// Where it is.
    pub(in crate::cli) fn endpoint(&self) -> &Endpoint {
        self.client.endpoint()
    }

    /// A call with a JSON document or none.
    pub(in crate::cli) async fn call(
        &mut self,
        method: &str,
        path: &str,
        document: Option<&Value>,
    ) -> Result<Reply, Failure> {
        let request = self.request(method, path);
        let request = match document {
            None => request.body(client::body("")),
            Some(document) => {
                request.header(CONTENT_TYPE, "application/json").body(client::body(document.to_string()))
            }
        };
        self.send(request.map_err(|e| Failure::usage(e.to_string()))?).await
    }

    /// A GET.
    pub(in crate::cli) async fn get(&mut self, path: &str) -> Result<Reply, Failure> {
        self.call("GET", path, None).await
    }

    /// A POST of a stream of lines; takes as long as it takes.
    pub(in crate::cli) async fn upload(&mut self, path: &str, lines: Body) -> Result<Reply, Failure> {
        let request = self.request("POST", path).header(CONTENT_TYPE, "application/x-ndjson").body(lines);
        self.client.timeout = None;
        self.send(request.map_err(|e| Failure::usage(e.to_string()))?).await
    }

    /// A GET whose answer is taken piece by piece with [`Api::next_octets`]; its header field of this name is given too.
    pub(in crate::cli) async fn download(
        &mut self,
        path: &str,
        field: &str,
    ) -> Result<(Incoming, Option<u64>), Failure> {
        let request = self.request("GET", path).body(client::body(""));
        let request = request.map_err(|e| Failure::usage(e.to_string()))?;
        let answer = self.client.open_answer(request).await.map_err(no_answer)?;
        let (parts, mut body) = answer.into_parts();
        if parts.status.is_success() {
            let field = parts.headers.get(field).and_then(|v| v.to_str().ok()?.parse().ok());
            return Ok((body, field));
        }
        let mut problem = BytesMut::new();
        while let Some(octets) = self.next_octets(&mut body).await? {
            if problem.len() + octets.len() > MAX_PROBLEM {
                break;
            }
            problem.extend_from_slice(&octets);
        }
        Err(self.refused(parts.status, &problem))
    }

    /// The next octets of a download; `None` at its end.
    pub(in crate::cli) async fn next_octets(&self, answer: &mut Incoming) -> Result<Option<Bytes>, Failure> {
        self.client.next_octets(answer).await.map_err(no_answer)
    }

    /// Items of a list, page by page, in the API's own form: `{"items": […], "next": …}`. Filters without a
    /// value are left out.
    pub(super) async fn list(
        &mut self,
        path: &str,
        filters: &[(&str, Option<&str>)],
        page: &PageArgs,
    ) -> Result<Value, Failure> {
        let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let (mut items, mut next) = (Vec::new(), page.after.clone());
        loop {
            let mut query = format!("limit={}", (limit - items.len()).min(MAX_PAGE));
            let after = [("after", next.as_deref())];
            for (name, value) in filters.iter().chain(&after) {
                if let Some(value) = value {
                    query.push_str(&format!("&{name}={}", encode(value)));
                }
            }
            let mut reply = self.get(&format!("{path}?{query}")).await?;
            if let Value::Array(more) = reply.value["items"].take() {
                items.extend(more);
            }
            next = reply.value["next"].as_str().map(str::to_owned);
            if next.is_none() || items.len() >= limit {
                return Ok(json!({"items": items, "next": next}));
            }
        }
    }

    fn request(&self, method: &str, path: &str) -> hyper::http::request::Builder {
        let request = Request::builder().method(method).uri(path).header(ACCEPT, "application/json");
        match &self.authorization {
            Some(authorization) => request.header(AUTHORIZATION, authorization),
            None => request,
        }
    }

    async fn send(&mut self, request: Request<Body>) -> Result<Reply, Failure> {
        let response = self.client.send(request).await.map_err(no_answer)?;
        let status = response.status();
        if status.is_success() {
            let raw = response.into_body();
            let value = match raw.is_empty() {
                true => Value::Null,
                false => serde_json::from_slice(&raw).map_err(|_| {
                    Failure::failed(format!("what {} answered is no JSON: is it ltkmd?", self.endpoint()))
                })?,
            };
            return Ok(Reply { raw, value });
        }
        Err(self.refused(status, response.body()))
    }

    /// What a refusal says, and what to do where the daemon cannot know it.
    fn refused(&self, status: StatusCode, problem: &[u8]) -> Failure {
        let problem: Value = serde_json::from_slice(problem).unwrap_or_default();
        let detail = problem["detail"].as_str().map_or_else(
            || format!("{} answered {status}: is it ltkmd?", self.endpoint()),
            |detail| format!("the daemon answered {status}: {detail}"),
        );
        let hint = match (status, &self.authorization) {
            (StatusCode::UNAUTHORIZED, None) => ": name the file that holds it with --token-file",
            (StatusCode::UNAUTHORIZED, Some(_)) => ": the token file holds another one",
            _ => "",
        };
        Failure::failed(format!("{detail}{hint}"))
    }
}

/// What to do about an answer that does not come.
fn no_answer(error: ClientError) -> Failure {
    let hint = match error {
        ClientError::Connect { .. } => ": start the daemon, or name its admin.listen with --admin",
        _ => "",
    };
    Failure::failed(format!("{error}{hint}"))
}

fn read_token(path: &Path) -> Result<HeaderValue, Failure> {
    let unreadable =
        |e: io::Error| Failure::usage(format!("the token file {} cannot be read: {e}", path.display()));
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(unreadable)?);
    let token = text.strip_suffix('\n').unwrap_or(&text);
    let value = HeaderValue::from_str(&format!("Bearer {token}")).ok().filter(|_| !token.is_empty());
    let mut value = value.ok_or_else(|| {
        Failure::usage(format!("the token file {} has to hold one line and nothing else", path.display()))
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_encoded_so_that_it_is_one_segment_of_a_path() {
        assert_eq!(encode("q83v/+8=@bsf"), "q83v%2F%2B8%3D%40bsf");
        assert_eq!(encode("urn:a b?é"), "urn%3Aa%20b%3F%C3%A9");
        assert_eq!(encode("a-Z_0.~"), "a-Z_0.~");
    }

    #[test]
    fn the_socket_is_taken_when_somebody_listens_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("admin.sock");
        let tcp = Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: 9470 };
        assert!(default_endpoint(&path).is_ok_and(|e| e == tcp));
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        assert!(default_endpoint(&path).is_ok_and(|e| e == Endpoint::Unix(path.clone())));
        drop(listener);
        assert!(default_endpoint(&path).is_ok_and(|e| e == tcp), "left behind, and nobody listens");
    }

    #[test]
    fn a_token_file_holds_one_line() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        for (text, good) in
            [("secret\n", true), ("secret", true), ("", false), ("\n", false), ("a\nb\n", false)]
        {
            std::fs::write(&path, text).expect("a file");
            let token = read_token(&path);
            assert_eq!(token.is_ok(), good, "{text:?}");
            if let Ok(value) = token {
                assert_eq!(value.as_bytes(), b"Bearer secret");
                assert_eq!(format!("{value:?}"), "Sensitive");
            }
        }
        assert!(read_token(&directory.path().join("none")).is_err());
    }
}
