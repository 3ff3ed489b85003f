//! The token and the proof, as the headers carry them.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{AuthError, Reason};

/// How the token was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// RFC 9449, section 7.1.
    Dpop,
    /// RFC 6750, section 2.1.
    Bearer,
}

/// The one token of a request. The token in the header is the only way: never in the query or the body.
pub(super) fn token(headers: &HeaderMap) -> Result<(Scheme, &str), AuthError> {
    let value = only(headers, &AUTHORIZATION, Reason::AUTHORIZATION_MISSING, Reason::AUTHORIZATION_REPEATED)?;
    let malformed = || AuthError::new(Reason::AUTHORIZATION_MALFORMED);
    let value = value.to_str().map_err(|_| malformed())?;
    let (name, rest) = value.split_once(' ').unwrap_or((value, ""));
    let scheme = if name.eq_ignore_ascii_case("DPoP") {
        Scheme::Dpop
    } else if name.eq_ignore_ascii_case("Bearer") {
        Scheme::Bearer
    } else {
        return Err(AuthError::new(Reason::AUTHORIZATION_SCHEME));
    };
    let token = rest.trim_start_matches(' ');
    if token.is_empty() || !token.bytes().all(is_token68) {
        return Err(malformed().under(scheme));
    }
    Ok((scheme, token))
}

/// The one DPoP proof of a request (RFC 9449, section 4.3, check 1).
pub(super) fn proof(headers: &HeaderMap) -> Result<&str, AuthError> {
    only(headers, &DPOP, Reason::DPOP_MISSING, Reason::DPOP_REPEATED)?
        .to_str()
        .map_err(|_| AuthError::new(Reason::DPOP_MALFORMED))
}

fn only<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    missing: Reason,
    repeated: Reason,
) -> Result<&'a HeaderValue, AuthError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        (None, _) => Err(AuthError::new(missing)),
        (Some(_), Some(_)) => Err(AuthError::new(repeated)),
    }
}

/// RFC 9110, section 11.2, without padding: a compact JWS has none.
fn is_token68(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/')
}

const DPOP: HeaderName = HeaderName::from_static("dpop");
