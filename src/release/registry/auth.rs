//! How the appliance proves to a registry that it may read: Basic (RFC 7617), or a token of the registry's token service
//! (distribution, "Token Authentication Specification").
//!
//! A challenge says where the token service is, and whoever wrote it would like the password sent there. So it is only
//! asked where the operator said so: on the registry's own host, or at the configured `token_service`.

use std::fmt;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderMap, HeaderValue, Request, Uri};
use serde::Deserialize;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::error::RegistryError;
use super::origin::Origin;
use crate::outbound::Outbound;

/// What proves it, and what was learnt about how.
pub(super) struct Auth {
    basic: Option<HeaderValue>,
    token_service: Option<Uri>,
    registry: Origin,
    repository: String,
    /// Whoever holds the lock is asking for a token: one asks, the others wait for it.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Of the last Bearer challenge: the realm and its service.
    learnt: Option<(Uri, Option<String>)>,
    token: Option<Token>,
}

struct Token {
    header: HeaderValue,
    usable_until: Instant,
}

impl Auth {
    /// With user and password, or with nothing.
    pub(super) fn new(
        credentials: Option<&Credentials>,
        token_service: Option<Uri>,
        registry: Origin,
        repository: &str,
    ) -> Self {
        let basic = credentials.map(Credentials::header);
        Self { basic, token_service, registry, repository: repository.to_owned(), state: Mutex::default() }
    }

    /// What goes with the next request: a token once the registry has asked for one, before that user and password.
    pub(super) async fn header(&self, outbound: &Outbound) -> Result<Option<HeaderValue>, RegistryError> {
        let mut state = self.state.lock().await;
        match &state.learnt {
            None => Ok(self.basic.clone()),
            Some(_) => self.token(&mut state, outbound).await.map(Some),
        }
    }

    /// After a 401: what to try instead of `tried`, if anything.
    pub(super) async fn challenged(
        &self,
        headers: &HeaderMap,
        tried: Option<&HeaderValue>,
        outbound: &Outbound,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let Some(challenge) = Challenge::bearer(headers) else { return Ok(None) };
        let mut state = self.state.lock().await;
        let realm = self.admitted(&challenge.realm)?;
        state.learnt = Some((realm, challenge.service));
        // Somebody else may have fetched another one meanwhile.
        if state.token.as_ref().is_some_and(|token| Some(&token.header) == tried) {
            state.token = None;
        }
        self.token(&mut state, outbound).await.map(Some)
    }

    fn admitted(&self, realm: &str) -> Result<Uri, RegistryError> {
        let foreign = || RegistryError::TokenService { realm: shown(realm) };
        let uri: Uri = realm.parse().map_err(|_| foreign())?;
        let same_place = |other: &Uri| {
            Origin::of(other) == Origin::of(&uri) && Origin::of(&uri).is_some() && other.path() == uri.path()
        };
        match &self.token_service {
            Some(service) if same_place(service) => Ok(uri),
            None if Origin::of(&uri).as_ref() == Some(&self.registry) => Ok(uri),
            _ => Err(foreign()),
        }
    }

    async fn token(&self, state: &mut State, outbound: &Outbound) -> Result<HeaderValue, RegistryError> {
        if let Some(token) = state.token.as_ref().filter(|token| Instant::now() < token.usable_until) {
            return Ok(token.header.clone());
        }
        let (realm, service) = state.learnt.as_ref().expect("a token is asked for after a challenge only");
        let asked = Instant::now();
        let token = self.fetch(realm, service.as_deref(), outbound).await?;
        let lives = token.expires_in.map_or(SHORTEST, Duration::from_secs).clamp(SHORTEST, LONGEST);
        let mut header = HeaderValue::try_from(format!("Bearer {}", &*token.value))
            .map_err(|_| RegistryError::Token { place: shown(&realm.to_string()), why: UNUSABLE.to_owned() })?;
        header.set_sensitive(true);
        state.token = Some(Token { header: header.clone(), usable_until: asked + lives.saturating_sub(EARLY) });
        Ok(header)
    }

    async fn fetch(&self, realm: &Uri, service: Option<&str>, outbound: &Outbound) -> Result<ReadToken, RegistryError> {
        let place =
            format!("{}{}", Origin::of(realm).map_or_else(String::new, |origin| origin.to_string()), realm.path());
        // The scope is ours to say, whatever the challenge says.
        let mut query = format!("scope={}", percent(&format!("repository:{}:pull", self.repository)));
        if let Some(service) = service {
            query.push_str(&format!("&service={}", percent(service)));
        }
        let mut request = Request::get(format!("{place}?{query}")).header(ACCEPT, "application/json");
        if let Some(basic) = &self.basic {
            request = request.header(AUTHORIZATION, basic.clone());
        }
        let failed = |why: String| RegistryError::Token { place: place.clone(), why };
        let request = request.body(bytes::Bytes::new()).map_err(|error| failed(error.to_string()))?;
        let answer = outbound.request(request).await.map_err(|error| failed(super::error::chain(&error)))?;
        if answer.status != http::StatusCode::OK {
            return Err(failed(format!("answered {}", answer.status)));
        }
        let read: Answer = serde_json::from_slice(&answer.body).map_err(|_| failed(UNUSABLE.to_owned()))?;
        let value = read.token.or(read.access_token).filter(|token| !token.is_empty());
        let value = value.ok_or_else(|| failed(UNUSABLE.to_owned()))?;
        Ok(ReadToken { value: Zeroizing::new(value), expires_in: read.expires_in })
    }
}

// Neither password nor token is ever printed.
impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("basic", &self.basic.is_some()).finish_non_exhaustive()
    }
}

/// User and password of a credentials file.
pub struct Credentials {
    text: Zeroizing<String>,
}

impl Credentials {
    /// Reads `user:password`, one line.
    ///
    /// # Errors
    /// What is wrong with the text, which is not repeated.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let line = text.strip_suffix('\n').unwrap_or(text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        match line.split_once(':') {
            Some((user, password))
                if !user.is_empty() && !password.is_empty() && !line.chars().any(char::is_control) =>
            {
                Ok(Self { text: Zeroizing::new(line.to_owned()) })
            }
            _ => Err("must hold one line: the user, a colon, the password"),
        }
    }

    fn header(&self) -> HeaderValue {
        let mut text = Zeroizing::new("Basic ".to_owned());
        BASE64_STANDARD.encode_string(self.text.as_bytes(), &mut text);
        let mut header = HeaderValue::from_str(&text).expect("base64 is header text");
        header.set_sensitive(true);
        header
    }
}

struct ReadToken {
    value: Zeroizing<String>,
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// `WWW-Authenticate: Bearer realm="…",service="…"`.
struct Challenge {
    realm: String,
    service: Option<String>,
}

impl Challenge {
    fn bearer(headers: &HeaderMap) -> Option<Self> {
        headers.get_all(http::header::WWW_AUTHENTICATE).iter().find_map(|value| {
            let text = value.to_str().ok()?;
            let (scheme, parameters) = text.split_once(' ')?;
            if !scheme.eq_ignore_ascii_case("bearer") {
                return None;
            }
            let parameters = parameters_of(parameters)?;
            let find = |name: &str| parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            let realm = find("realm")?.1.clone();
            Some(Self { realm, service: find("service").map(|(_, value)| value.clone()) })
        })
    }
}

/// `auth-param`s (RFC 9110, section 11.2); `None` when they are not well-formed.
fn parameters_of(text: &str) -> Option<Vec<(String, String)>> {
    let mut parameters = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => {
                let mut value = String::new();
                let mut chars = quoted.char_indices();
                let end = loop {
                    match chars.next()? {
                        (at, '"') => break at + 1,
                        (_, '\\') => value.push(chars.next()?.1),
                        (_, c) => value.push(c),
                    }
                };
                (value, &quoted[end..])
            }
            None => {
                let end = after.find(',').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        parameters.push((name.trim().to_owned(), value));
        if parameters.len() > MAX_PARAMETERS {
            return None;
        }
        rest = after.trim_start();
        rest = match rest.strip_prefix(',') {
            Some(rest) => rest.trim_start(),
            None if rest.is_empty() => rest,
            None => return None,
        };
    }
    Some(parameters)
}

/// What others wrote, without a query and not too long.
fn shown(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(200).collect()
}

fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

const UNUSABLE: &str = "answered something that is no token";
const MAX_PARAMETERS: usize = 16;

/// What a token lives that does not say how long (distribution's token specification).
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);

/// It must still be good when it arrives.
const EARLY: Duration = Duration::from_secs(10);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::header::WWW_AUTHENTICATE, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_bearer_challenge_is_read_and_others_are_none() {
        let challenge =
            Challenge::bearer(&headers(r#"Bearer realm="https://a.example/token",service="reg \"x\"", scope=pull"#));
        let challenge = challenge.unwrap();
        assert_eq!(challenge.realm, "https://a.example/token");
        assert_eq!(challenge.service.as_deref(), Some("reg \"x\""));
        for other in ["Basic realm=\"x\"", "Bearer", "Bearer realm=\"x", "Bearer service=\"x\"", "Bearer realm=\"a\" x"]
        {
            assert!(Challenge::bearer(&headers(other)).is_none(), "{other}");
        }
    }

    #[test]
    fn a_token_is_asked_where_the_operator_said_and_nowhere_else() {
        let registry: Uri = "https://registry.example/v2/".parse().unwrap();
        let auth = |service: Option<&str>| {
            let service = service.map(|service| service.parse().unwrap());
            Auth::new(None, service, Origin::of(&registry).unwrap(), "a/b")
        };
        let own = auth(None);
        assert!(own.admitted("https://registry.example/token").is_ok());
        assert!(own.admitted("https://REGISTRY.example:443/token").is_ok());
        for foreign in [
            "https://evil.example/token",
            "https://registry.example:8443/token",
            "http://registry.example/token",
            "https://registry.example@evil.example/token",
            "//registry.example/token",
            "/token",
            "",
        ] {
            assert!(own.admitted(foreign).is_err(), "{foreign}");
        }
        let named = auth(Some("https://auth.example/token"));
        assert!(named.admitted("https://auth.example/token").is_ok());
        for foreign in ["https://auth.example/other", "https://registry.example/token"] {
            assert!(named.admitted(foreign).is_err(), "{foreign}");
        }
    }

    #[test]
    fn credentials_are_one_line_with_a_colon_and_never_printed() {
        let read = |text: &str| Credentials::parse(text);
        let header = read("robot$pull:s3:cret\n").ok().unwrap().header();
        assert_eq!(header.to_str().unwrap(), "Basic cm9ib3QkcHVsbDpzMzpjcmV0");
        assert!(header.is_sensitive());
        for wrong in ["", "user", ":x", "user:", "a:b\nc:d", "\n"] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
