//! A strict, bounded reader of `auth-param` lists (RFC 9110 §11.2, RFC 7616 §3) and what it makes of an
//! `Authorization`.

use std::borrow::Cow;

use super::algorithm::{Algorithm, Qop};
use super::failure::{Failure, Reason};

/// The longest header value that is read, in octets.
const MAX_LEN: usize = 8 * 1024;
/// The most parameters of one header value.
const MAX_PARAMS: usize = 32;

/// A header value that breaks the grammar or a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// The parameters of one challenge or of credentials, names as sent.
#[derive(Debug, Default)]
pub(super) struct Params<'a>(Vec<(&'a str, Cow<'a, str>)>);

impl<'a> Params<'a> {
    /// Takes a parameter out; names are compared without case.
    pub(super) fn take(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let at = self.0.iter().position(|(n, _)| n.eq_ignore_ascii_case(name))?;
        Some(self.0.swap_remove(at).1)
    }

    fn push(&mut self, name: &'a str, value: Cow<'a, str>) -> Result<(), Malformed> {
        if self.0.len() == MAX_PARAMS {
            return Err(Malformed("too many parameters"));
        }
        if self.0.iter().any(|(n, _)| n.eq_ignore_ascii_case(name)) {
            return Err(Malformed("a parameter twice"));
        }
        self.0.push((name, value));
        Ok(())
    }
}

/// What is left of a header value.
pub(super) struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    /// Begins with a header value: printable ASCII and tabs only.
    pub(super) fn new(value: &'a [u8]) -> Result<Self, Malformed> {
        if value.len() > MAX_LEN {
            return Err(Malformed("too long"));
        }
        std::str::from_utf8(value)
            .ok()
            .filter(|text| text.bytes().all(|b| b == b'\t' || (0x20..0x7F).contains(&b)))
            .map(|text| Self(text.trim_matches(is_ows)))
            .ok_or(Malformed("not printable ASCII"))
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn skip_spaces(&mut self) {
        self.0 = self.0.trim_start_matches(is_ows);
    }

    /// Skips the separators of a list, empty elements included; whether there was a comma.
    pub(super) fn skip_commas(&mut self) -> bool {
        let rest = self.0.trim_start_matches(|c| is_ows(c) || c == ',');
        let skipped = &self.0[..self.0.len() - rest.len()];
        self.0 = rest;
        skipped.contains(',')
    }

    /// A token (RFC 9110 §5.6.2), which may be empty.
    pub(super) fn token(&mut self) -> &'a str {
        let len = self.0.find(|c| !is_token_char(c)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(len);
        self.0 = rest;
        token
    }

    /// Passes over a token68 (RFC 9110 §11.2), which may be empty.
    pub(super) fn skip_token68(&mut self) {
        self.0 = self
            .0
            .trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "-._~+/".contains(c))
            .trim_start_matches('=');
    }

    /// `=` and the value of a parameter whose name has been read; none when no `=` follows.
    pub(super) fn value(&mut self) -> Result<Option<Cow<'a, str>>, Malformed> {
        let Some(rest) = self.0.trim_start_matches(is_ows).strip_prefix('=') else {
            return Ok(None);
        };
        let rest = rest.trim_start_matches(is_ows);
        let Some(quoted) = rest.strip_prefix('"') else {
            self.0 = rest;
            return match self.token() {
                "" => Err(Malformed("a parameter without a value")),
                token => Ok(Some(Cow::Borrowed(token))),
            };
        };
        let end = quoted.find(['"', '\\']).ok_or(Malformed("a quoted string that is not closed"))?;
        let (plain, rest) = quoted.split_at(end);
        if let Some(rest) = rest.strip_prefix('"') {
            self.0 = rest;
            return Ok(Some(Cow::Borrowed(plain)));
        }
        let mut value = plain.to_owned();
        let mut chars = rest.char_indices();
        loop {
            match chars.next() {
                Some((at, '"')) => {
                    self.0 = &rest[at + 1..];
                    return Ok(Some(Cow::Owned(value)));
                }
                Some((_, '\\')) => match chars.next() {
                    Some((_, c)) => value.push(c),
                    None => return Err(Malformed("a quoted string that is not closed")),
                },
                Some((_, c)) => value.push(c),
                None => return Err(Malformed("a quoted string that is not closed")),
            }
        }
    }

    /// A list of parameters up to the end.
    pub(super) fn params(mut self) -> Result<Params<'a>, Malformed> {
        let mut params = Params::default();
        self.skip_commas();
        while !self.is_empty() {
            self.param_into(&mut params)?;
            if !self.skip_commas() && !self.is_empty() {
                return Err(Malformed("no comma between parameters"));
            }
        }
        Ok(params)
    }

    fn param_into(&mut self, params: &mut Params<'a>) -> Result<(), Malformed> {
        let name = self.token();
        if name.is_empty() {
            return Err(Malformed("no parameter name"));
        }
        let value = self.value()?.ok_or(Malformed("a parameter without a value"))?;
        params.push(name, value)
    }
}

/// Splits a `WWW-Authenticate` value into its challenges: several may share a line (RFC 9110 §11.6.1).
pub(super) fn challenges(value: &[u8]) -> Result<Vec<(&str, Params<'_>)>, Malformed> {
    let mut cursor = Cursor::new(value)?;
    let mut found: Vec<(&str, Params<'_>)> = Vec::new();
    cursor.skip_commas();
    while !cursor.is_empty() {
        let token = cursor.token();
        if token.is_empty() {
            return Err(Malformed("no scheme or parameter name"));
        }
        match (cursor.value()?, found.last_mut()) {
            (Some(value), Some((_, params))) => params.push(token, value)?,
            (Some(_), None) => return Err(Malformed("a parameter without a scheme")),
            (None, _) => {
                found.push((token, Params::default()));
                cursor.skip_spaces();
                // A scheme may be followed by a token68 instead of parameters; Digest never is.
                if !token.eq_ignore_ascii_case("Digest") {
                    let before = Cursor(cursor.0);
                    cursor.skip_token68();
                    if !(cursor.is_empty() || cursor.0.starts_with([',', ' '])) {
                        cursor = before;
                    }
                }
                if !cursor.is_empty() && !cursor.0.starts_with(',') {
                    continue;
                }
            }
        }
        if !cursor.skip_commas() && !cursor.is_empty() {
            return Err(Malformed("no comma between parameters"));
        }
    }
    Ok(found)
}

/// The credentials of a request (RFC 7616 §3.4), grammatically right; nothing in it has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization<'a> {
    pub(super) username: Cow<'a, str>,
    pub(super) realm: Cow<'a, str>,
    pub(super) nonce: Cow<'a, str>,
    pub(super) uri: Cow<'a, str>,
    pub(super) response: Cow<'a, str>,
    pub(super) cnonce: Cow<'a, str>,
    pub(super) nc_text: Cow<'a, str>,
    pub(super) nc: u32,
    pub(super) qop: Qop,
    /// None for one that is not known here.
    pub(super) algorithm: Option<Algorithm>,
}

impl<'a> Authorization<'a> {
    /// Reads the values of a request's `Authorization` header lines, of which there may be one.
    ///
    /// # Errors
    /// Missing or of another scheme: 401. Malformed, more than one line, a parameter missing, twice or improper, no
    /// `qop`, an `nc` that is not 8 hexadecimal digits, a hashed user name: 400.
    pub fn from_lines(lines: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, Failure> {
        let mut lines = lines.into_iter();
        let line = lines.next().ok_or(Failure::new(Reason::Missing, "no Authorization"))?;
        if lines.next().is_some() {
            return Err(Failure::malformed("several Authorization headers"));
        }
        Self::parse(line)
    }

    /// Reads the value of one `Authorization` header line.
    ///
    /// # Errors
    /// As [`Authorization::from_lines`].
    pub fn parse(value: &'a [u8]) -> Result<Self, Failure> {
        let malformed = |Malformed(what)| Failure::malformed(what);
        let mut cursor = Cursor::new(value).map_err(malformed)?;
        let scheme = cursor.token();
        if !scheme.eq_ignore_ascii_case("Digest") {
            return Err(Failure::new(Reason::Scheme, "the scheme is not Digest"));
        }
        if !cursor.is_empty() && !cursor.0.starts_with(is_ows) {
            return Err(Failure::malformed("no space after the scheme"));
        }
        Self::from_params(cursor.params().map_err(malformed)?)
    }

    fn from_params(mut params: Params<'a>) -> Result<Self, Failure> {
        // RFC 7616 §3.4: `userhash=false` is the default and says nothing.
        if params.take("userhash").is_some_and(|value| !value.eq_ignore_ascii_case("false")) {
            return Err(Failure::new(Reason::UserHash, "the user name is hashed"));
        }
        let username = match (params.take("username"), params.take("username*")) {
            (Some(_), Some(_)) => return Err(Failure::malformed("both username and username*")),
            (Some(name), None) => name,
            (None, Some(extended)) => {
                Cow::Owned(decode_extended(&extended).ok_or(Failure::malformed("a broken username*"))?)
            }
            (None, None) => return Err(Failure::malformed("no username")),
        };
        let mut take = |name, what| params.take(name).ok_or(Failure::malformed(what));
        let qop = take("qop", "no qop")?;
        let qop = Qop::from_wire(&qop).ok_or(Failure::malformed("a qop that is not offered"))?;
        let nc_text = take("nc", "no nc")?;
        if nc_text.len() != 8 || !nc_text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Failure::malformed("an nc that is not 8 hexadecimal digits"));
        }
        let nc = u32::from_str_radix(&nc_text, 16).map_err(|_| Failure::malformed("an nc out of range"))?;
        let (realm, nonce) = (take("realm", "no realm")?, take("nonce", "no nonce")?);
        let (uri, response) = (take("uri", "no uri")?, take("response", "no response")?);
        let cnonce = take("cnonce", "no cnonce")?;
        let algorithm = match params.take("algorithm") {
            None => Some(Algorithm::Md5),
            Some(name) => name.parse().ok(),
        };
        Ok(Self { username, realm, nonce, uri, response, cnonce, nc_text, nc, qop, algorithm })
    }

    /// The user name: the B-TID.
    pub fn username(&self) -> &str {
        &self.username
    }
}

/// RFC 8187 §3.2 (RFC 5987): `UTF-8'language'percent-encoded`.
fn decode_extended(text: &str) -> Option<String> {
    let (charset, rest) = text.split_once('\'')?;
    let (_, encoded) = rest.split_once('\'')?;
    if !charset.eq_ignore_ascii_case("UTF-8") {
        return None;
    }
    let mut octets = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.bytes();
    while let Some(b) = bytes.next() {
        octets.push(match b {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let value = digit()? * 16 + digit()?;
                u8::try_from(value).ok()?
            }
            b'\'' | b'*' => return None,
            b => b,
        });
    }
    String::from_utf8(octets).ok()
}

/// Writes `name="value"` with the value quoted (RFC 9110 §5.6.4).
pub(super) fn push_quoted(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    out.push_str("=\"");
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

fn is_ows(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RFC_7616: &str = r#"Digest username="Mufasa",
       realm="http-auth@example.org",
       uri="/dir/index.html",
       algorithm=MD5,
       nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
       nc=00000001,
       cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
       qop=auth,
       response="8ca523f5e9506fed4657c9700eebdbec",
       opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS""#;

    fn rfc_7616() -> String {
        RFC_7616.replace("\n      ", "")
    }

    fn reason(value: &str) -> (Reason, u16) {
        let failure = Authorization::parse(value.as_bytes()).expect_err(value);
        (failure.reason(), failure.status())
    }

    #[test]
    fn the_published_credentials_are_read() {
        let text = rfc_7616();
        let auth = Authorization::parse(text.as_bytes()).expect("credentials");
        assert_eq!(
            (auth.username(), &*auth.realm, &*auth.uri),
            ("Mufasa", "http-auth@example.org", "/dir/index.html")
        );
        assert_eq!((auth.nc, auth.qop, auth.algorithm), (1, Qop::Auth, Some(Algorithm::Md5)));
        assert_eq!(auth.response, "8ca523f5e9506fed4657c9700eebdbec");
    }

    #[test]
    fn spelling_that_means_the_same_is_read_the_same() {
        let text = rfc_7616();
        let expected = Authorization::parse(text.as_bytes()).expect("credentials");
        for other in [
            text.replace("Digest ", "dIGEST \t "),
            text.replace("username=", "UserName ="),
            text.replace("qop=auth", "qop=\"auth\""),
            text.replace("nc=00000001", "nc= \"00000001\""),
            text.replace("algorithm=MD5, ", ""),
            text.replace("algorithm=MD5", "algorithm=\"md5\""),
            text.replace(", nc", ",,, , nc"),
            text.replace("Mufasa", "Mu\\fasa"),
            text.replace("username=\"Mufasa\"", "username*=UTF-8''M%75fasa, userhash=false"),
            format!("{text}, extension=1,"),
        ] {
            assert_eq!(Authorization::parse(other.as_bytes()), Ok(expected.clone()), "{other}");
        }
    }

    #[test]
    fn what_is_missing_or_improper_is_a_400() {
        let text = rfc_7616();
        for (from, to) in [
            ("username=\"Mufasa\",", ""),
            ("realm=", "x="),
            ("nonce=\"7", "x=\"7"),
            ("uri=", "x="),
            ("response=", "x="),
            ("cnonce=", "x="),
            ("qop=auth,", ""),
            ("qop=auth", "qop=auth-conf"),
            ("qop=auth", "qop="),
            ("nc=00000001,", ""),
            ("nc=00000001", "nc=1"),
            ("nc=00000001", "nc=000000001"),
            ("nc=00000001", "nc=0000000g"),
            ("nc=00000001", "nc=+0000001"),
            ("username=\"Mufasa\"", "username=\"Mufasa"),
            ("username=\"Mufasa\"", "username=\"Mufasa\" x"),
            ("username=\"Mufasa\",", "username=\"Mufasa\""),
            ("username=\"Mufasa\"", "username=\"Mufasa\", username=\"Scar\""),
            ("username=\"Mufasa\"", "username=\"Mufasa\", username*=UTF-8''Scar"),
            ("username=\"Mufasa\"", "username*=UTF-8''%zz"),
            ("username=\"Mufasa\"", "username*=UTF-8''%ff"),
            ("username=\"Mufasa\"", "username*=latin1''a"),
            ("Mufasa", "Müfasa"),
            ("Mufasa", "Mu\u{7}fasa"),
            ("Digest ", "Digest=\"x\" "),
            ("Digest ", "Digest abc== "),
        ] {
            let broken = text.replacen(from, to, 1);
            assert_ne!(broken, text, "{from} is there to be replaced");
            assert_eq!(reason(&broken), (Reason::Malformed, 400), "{from} -> {to}");
        }
        assert_eq!(reason(&format!("{text}, userhash=true")), (Reason::UserHash, 400));
        let many: String = (0..40).map(|n| format!(", x{n}=1")).collect();
        assert_eq!(reason(&format!("{text}{many}")), (Reason::Malformed, 400));
        assert_eq!(reason(&format!("{text}, x=\"{}\"", "y".repeat(9000))), (Reason::Malformed, 400));
    }

    #[test]
    fn no_header_or_another_scheme_is_a_401_and_several_headers_are_a_400() {
        assert_eq!(reason("Basic dXNlcjpwYXNz"), (Reason::Scheme, 401));
        assert_eq!(reason("DigestX username=\"a\""), (Reason::Scheme, 401));
        assert_eq!(reason(""), (Reason::Scheme, 401));
        let text = rfc_7616();
        let from = |lines: &[&str]| {
            Authorization::from_lines(lines.iter().map(|l| l.as_bytes()))
                .map(drop)
                .map_err(|f| (f.reason(), f.status()))
        };
        assert_eq!(from(&[]), Err((Reason::Missing, 401)));
        assert_eq!(from(&[&text, &text]), Err((Reason::Malformed, 400)));
        assert_eq!(from(&[&text]), Ok(()));
    }

    #[test]
    fn an_algorithm_that_is_not_known_is_no_syntax_error() {
        for name in ["SHA-512-256", "MD5-sess", "SHA-256-sess"] {
            let text = rfc_7616().replace("=MD5", &format!("={name}"));
            assert_eq!(Authorization::parse(text.as_bytes()).expect("credentials").algorithm, None);
        }
    }

    #[test]
    fn challenges_that_share_a_line_are_told_apart() {
        let line = br#"Basic realm="a, b", Negotiate abc==, Digest realm="x", nonce="1", NTLM, Digest realm = y ,, nonce="2""#;
        let found = challenges(line).expect("challenges");
        let schemes: Vec<_> = found.iter().map(|(scheme, _)| *scheme).collect();
        assert_eq!(schemes, ["Basic", "Negotiate", "Digest", "NTLM", "Digest"]);
        let nonces: Vec<_> = found.into_iter().filter_map(|(_, mut p)| p.take("nonce")).collect();
        assert_eq!(nonces, ["1", "2"]);
        assert!(challenges(b"realm=\"a\"").is_err());
        assert!(challenges(b"Digest realm=\"a\" nonce=\"b\"").is_err());
    }
}
