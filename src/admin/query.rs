//! Query parameters and pages.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::Uri;
use axum::http::request::Parts;

use super::problem::{Fault, Problem};

/// Items of a page when the caller does not say.
pub(super) const DEFAULT_LIMIT: usize = 100;

/// Items of a page at most.
pub(super) const MAX_LIMIT: usize = 1000;

/// The query's parameters; each is taken once, what is left is not known.
#[derive(Debug)]
pub(super) struct Query {
    pairs: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl Query {
    /// Reads a URI's query (`application/x-www-form-urlencoded`).
    ///
    /// # Errors
    /// 400: percent-encoding of what is not UTF-8.
    pub(super) fn of(uri: &Uri) -> Result<Self, Problem> {
        let query = uri.query().unwrap_or_default();
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?))
        });
        let pairs = pairs.collect::<Option<Vec<_>>>();
        let pairs = pairs.ok_or_else(|| Problem::unreadable("the query is not percent-encoded UTF-8"))?;
        Ok(Self { pairs, known: Vec::new() })
    }

    /// A parameter's text.
    ///
    /// # Errors
    /// 422: it is there twice.
    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>, Fault> {
        self.known.push(name);
        let place = self.pairs.iter().position(|(n, _)| n == name);
        let value = place.map(|i| self.pairs.remove(i).1);
        if self.pairs.iter().any(|(n, _)| n == name) {
            return Err(Fault::new(name, "is there twice"));
        }
        Ok(value)
    }

    /// A parameter that a type of its own checks.
    ///
    /// # Errors
    /// 422: it is there twice, or the type refuses it.
    pub(super) fn parsed<T>(&mut self, name: &'static str) -> Result<Option<T>, Fault>
    where
        T: FromStr,
        T::Err: Display,
    {
        self.text(name)?
            .map(|text| text.parse().map_err(|e: T::Err| Fault::new(name, e.to_string())))
            .transpose()
    }

    /// A flag: `true` or `false`, absent is `false`.
    ///
    /// # Errors
    /// 422: anything else.
    pub(super) fn flag(&mut self, name: &'static str) -> Result<bool, Fault> {
        match self.text(name)?.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Fault::new(name, "has to be true or false")),
        }
    }

    /// The page's size.
    ///
    /// # Errors
    /// 422: no number from 1 to [`MAX_LIMIT`].
    pub(super) fn limit(&mut self) -> Result<usize, Fault> {
        let Some(text) = self.text("limit")? else { return Ok(DEFAULT_LIMIT) };
        let limit = text.parse().ok().filter(|n| (1..=MAX_LIMIT).contains(n));
        limit.ok_or_else(|| Fault::new("limit", format!("has to be a number from 1 to {MAX_LIMIT}")))
    }

    /// Ends the reading: a parameter that nobody took is a fault.
    ///
    /// # Errors
    /// 422 that names it.
    pub(super) fn finish(self) -> Result<(), Fault> {
        let Some((unknown, _)) = self.pairs.into_iter().next() else { return Ok(()) };
        let shown: String = unknown.chars().take(64).collect();
        let why = match self.known.as_slice() {
            [] => "is not known: this call has no query parameters".to_owned(),
            known => format!("is not known: the query parameters are {}", known.join(", ")),
        };
        Err(Fault::new(shown, why))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::of(&parts.uri)
    }
}

/// Percent-decoding with `+` for a space. `None`: not UTF-8, or a `%` without two digits.
fn decode(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'+' => b' ',
            b'%' => {
                let digit = |b: Option<u8>| char::from(b?).to_digit(16);
                u8::try_from(digit(rest.next())? << 4 | digit(rest.next())?).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(octets).ok()
}

/// The path's one id, percent-decoded: `%2F` is part of it, `/` ends it.
#[derive(Debug)]
pub(super) struct PathId {
    name: String,
    text: String,
}

impl PathId {
    /// The id that a PUT brings.
    ///
    /// # Errors
    /// 422: it cannot be one.
    pub(super) fn given<T>(&self) -> Result<T, Fault>
    where
        T: FromStr,
        T::Err: Display,
    {
        self.text.parse().map_err(|e: T::Err| Fault::new(&self.name, e.to_string()))
    }

    /// The id of something that exists.
    ///
    /// # Errors
    /// 404: nothing can have it.
    pub(super) fn existing<T: FromStr>(&self) -> Result<T, Problem> {
        let why = || Problem::not_found(format!("the path's {} is no id that anything can have", self.name));
        self.text.parse().map_err(|_| why())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let unreadable = || Problem::unreadable("the path is not percent-encoded UTF-8");
        // What decodes the captures takes a `%` without two digits for itself.
        if decode(parts.uri.path()).is_none() {
            return Err(unreadable());
        }
        let params = RawPathParams::from_request_parts(parts, state).await.map_err(|_| unreadable())?;
        let (name, text) = params.iter().next().expect("a route with an id has a capture");
        Ok(Self { name: name.to_owned(), text: text.to_owned() })
    }
}

/// What a query parameter of a few known words is.
///
/// # Errors
/// 422 that lists the words.
pub(super) fn word<T: Copy>(
    query: &mut Query,
    name: &'static str,
    all: &[T],
    as_str: impl Fn(T) -> &'static str,
) -> Result<Option<T>, Fault> {
    let Some(text) = query.text(name)? else { return Ok(None) };
    let known = all.iter().copied().find(|one| as_str(*one) == text);
    known.map(Some).ok_or_else(|| {
        let words: Vec<_> = all.iter().map(|one| as_str(*one)).collect();
        Fault::new(name, format!("has to be one of {}", words.join(", ")))
    })
}

/// An opaque place in a list, in hexadecimal digits.
///
/// # Errors
/// 422 for anything that no answer's `next` said.
pub(super) fn place<const N: usize>(query: &mut Query) -> Result<Option<[u8; N]>, Fault> {
    let Some(text) = query.text("after")? else { return Ok(None) };
    let octets = data_encoding::HEXLOWER.decode(text.as_bytes()).ok().and_then(|o| o.try_into().ok());
    octets.map(Some).ok_or_else(|| Fault::new("after", "is not what an answer's next said"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::of(&format!("/x?{text}").parse().expect("a URI")).expect("UTF-8")
    }

    #[test]
    fn parameters_are_decoded_and_taken_once() {
        let mut q = query("service=urn%3Aa%2Fb%26c&after=x+y%2B");
        assert_eq!(q.text("service"), Ok(Some("urn:a/b&c".to_owned())));
        assert_eq!(q.text("after"), Ok(Some("x y+".to_owned())));
        assert_eq!(q.text("state"), Ok(None));
        assert_eq!(q.finish(), Ok(()));
    }

    #[test]
    fn a_repeated_or_unknown_parameter_is_a_fault() {
        assert_eq!(query("limit=1&limit=2").limit().map_err(|f| f.field), Err("limit".to_owned()));
        assert_eq!(query("bogus=1").finish().map_err(|f| f.field), Err("bogus".to_owned()));
    }

    #[test]
    fn a_page_has_1_to_1000_items() {
        assert_eq!(query("").limit(), Ok(DEFAULT_LIMIT));
        assert_eq!(query("limit=1000").limit(), Ok(1000));
        for wrong in ["limit=0", "limit=1001", "limit=-1", "limit=", "limit=x", "limit"] {
            assert!(query(wrong).limit().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_percent_encoded_utf_8_is_unreadable() {
        for wrong in ["/x?a=%zz", "/x?a=%f", "/x?%ff=1"] {
            assert!(Query::of(&wrong.parse().expect("a URI")).is_err(), "{wrong}");
        }
    }
}
