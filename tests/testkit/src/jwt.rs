//! JWTs, well-formed or precisely not: OpToks, DPoP proofs, PoEs and revocation lists are all made here.

#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::base64url;
use crate::key::Key;

/// A JWT about to be signed. Every part can be changed before [`Jwt::encode`].
#[derive(Clone)]
pub struct Jwt {
    /// The JOSE header; `alg` and `kid` come from the key unless they are set here.
    pub header: Map<String, Value>,
    /// The claims.
    pub claims: Map<String, Value>,
    key: Key,
    kid: bool,
    header_text: Option<String>,
    claims_text: Option<String>,
    signature: Option<Vec<u8>>,
    edits: Vec<Edit>,
}

type Edit = Arc<dyn Fn(String) -> String + Send + Sync>;

impl Jwt {
    /// Signed by `key`, `typ` as given, with these claims (a JSON object).
    #[must_use]
    pub fn new(typ: &str, claims: Value, key: &Key) -> Self {
        let Value::Object(claims) = claims else { panic!("claims are an object") };
        let header = Map::from_iter([("typ".to_owned(), json!(typ))]);
        Self {
            header,
            claims,
            key: key.clone(),
            kid: true,
            header_text: None,
            claims_text: None,
            signature: None,
            edits: Vec::new(),
        }
    }

    /// Sets a claim; a dotted name reaches into an object, as in `cnf.jkt`.
    #[must_use]
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        set(&mut self.claims, name, value.into());
        self
    }

    /// Adds to a claim that is a number (a missing one counts as 0): `.shift("exp", -600)`.
    #[must_use]
    pub fn shift(mut self, name: &str, by: i64) -> Self {
        let shifted = self.claims.get(name).and_then(Value::as_i64).unwrap_or(0) + by;
        self.claims.insert(name.to_owned(), json!(shifted));
        self
    }

    /// Leaves a claim out.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// Sets a header parameter.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        set(&mut self.header, name, value.into());
        self
    }

    /// Leaves a header parameter out, `kid` included.
    #[must_use]
    pub fn without_header(mut self, name: &str) -> Self {
        self.header.remove(name);
        self.kid &= name != "kid";
        self
    }

    /// Signs with another key.
    #[must_use]
    pub fn signed_by(mut self, key: &Key) -> Self {
        self.key = key.clone();
        self
    }

    /// Puts this text where the header's JSON would be (duplicate members, no JSON at all, …).
    #[must_use]
    pub fn header_text(mut self, text: impl Into<String>) -> Self {
        self.header_text = Some(text.into());
        self
    }

    /// Puts this text where the claims' JSON would be.
    #[must_use]
    pub fn claims_text(mut self, text: impl Into<String>) -> Self {
        self.claims_text = Some(text.into());
        self
    }

    /// Puts these bytes where the signature would be; none at all for an unsecured JWT.
    #[must_use]
    pub fn signature(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.signature = Some(bytes.into());
        self
    }

    /// Edits the compact form after it was signed.
    #[must_use]
    pub fn edit(mut self, edit: impl Fn(String) -> String + Send + Sync + 'static) -> Self {
        self.edits.push(Arc::new(edit));
        self
    }

    /// Flips one bit of the signature.
    #[must_use]
    pub fn with_broken_signature(self) -> Self {
        self.edit(|compact| {
            let (head, signature) = compact.rsplit_once('.').expect("a compact JWS has dots");
            let mut bytes = crate::from_base64url(signature).expect("we encoded it");
            bytes[0] ^= 1;
            format!("{head}.{}", base64url(bytes))
        })
    }

    /// The compact serialization (RFC 7515, section 7.1).
    #[must_use]
    pub fn encode(&self) -> String {
        let header = self.header_text.clone().unwrap_or_else(|| {
            let mut header = self.header.clone();
            header.entry("alg").or_insert_with(|| json!(self.key.algorithm()));
            if self.kid && !header.contains_key("jwk") {
                header.entry("kid").or_insert_with(|| json!(self.key.kid));
            }
            Value::Object(header).to_string()
        });
        let claims = self.claims_text.clone().unwrap_or_else(|| Value::Object(self.claims.clone()).to_string());
        let input = format!("{}.{}", base64url(header), base64url(claims));
        let signature = self.signature.clone().unwrap_or_else(|| self.key.sign(input.as_bytes()));
        let compact = format!("{input}.{}", base64url(signature));
        self.edits.iter().fold(compact, |compact, edit| edit(compact))
    }
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Jwt({} {})", Value::Object(self.header.clone()), Value::Object(self.claims.clone()))
    }
}

/// The header and the claims of a compact JWS, unverified.
///
/// # Errors
/// When it is none.
pub fn decode(compact: &str) -> crate::Result<(Value, Value)> {
    use crate::Context as _;
    let mut parts = compact.split('.');
    let mut part = || -> crate::Result<Value> {
        let text = parts.next().context("find the JWT's parts")?;
        serde_json::from_slice(&crate::from_base64url(text)?).context("read the JWT's JSON")
    };
    Ok((part()?, part()?))
}

fn set(object: &mut Map<String, Value>, name: &str, value: Value) {
    match name.split_once('.') {
        None => {
            object.insert(name.to_owned(), value);
        }
        Some((outer, inner)) => {
            let entry = object.entry(outer).or_insert_with(|| json!({}));
            if !entry.is_object() {
                *entry = json!({});
            }
            set(entry.as_object_mut().expect("it was just made one"), inner, value);
        }
    }
}
