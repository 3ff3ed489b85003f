//! One request, built with defaults that succeed and overrides that need not.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};

use super::{Answer, BoundBy, Client};
use crate::jwt::Jwt;
use crate::{Context, Error, Result, runtime};

/// A request about to be sent.
#[derive(Clone)]
#[must_use = "a call does nothing before it is sent"]
pub struct Call {
    client: Client,
    method: String,
    path: String,
    scheme: String,
    token: Part,
    proof: Proof,
    poe: Part,
    poe_format: String,
    poe_place: PoePlace,
    body: Body,
    headers: Vec<(HeaderName, HeaderValue)>,
    nonce_retry: bool,
    patience: Duration,
}

#[derive(Clone)]
enum Part {
    Absent,
    Jwt(Box<Jwt>),
    Text(String),
}

#[derive(Clone)]
enum Proof {
    Absent,
    /// Made when it is sent, because it names the token and the nonce; then changed by these.
    Made(Vec<ProofEdit>),
    Texts(Vec<String>),
}

type ProofEdit = Arc<dyn Fn(Jwt) -> Jwt + Send + Sync>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum PoePlace {
    Body,
    Header,
    Both,
}

#[derive(Clone)]
enum Body {
    Json(Value),
    Bytes(Bytes),
}

impl Call {
    /// With a fresh token, and a proof when the client's tokens need one.
    pub fn authorized(client: &Client, method: &str, path: &str) -> Self {
        let mut call = Self::bare(client, method, path);
        call.token = Part::Jwt(Box::new(client.token()));
        match client.parts.bound_by {
            BoundBy::Dpop => call.proof = Proof::Made(Vec::new()),
            BoundBy::Certificate => "Bearer".clone_into(&mut call.scheme),
        }
        call
    }

    /// With nothing but method and path.
    pub fn bare(client: &Client, method: &str, path: &str) -> Self {
        Self {
            client: client.clone(),
            method: method.to_owned(),
            path: path.to_owned(),
            scheme: "DPoP".to_owned(),
            token: Part::Absent,
            proof: Proof::Absent,
            poe: Part::Absent,
            poe_format: "jwt".to_owned(),
            poe_place: PoePlace::Body,
            body: Body::Bytes(Bytes::new()),
            headers: Vec::new(),
            nonce_retry: true,
            patience: Duration::from_secs(30),
        }
    }

    /// Another method. The proof follows; to keep it, set `htm` there.
    pub fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    /// Another path, with or without a query. The proof follows.
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// Changes the token before it is encoded.
    ///
    /// # Panics
    /// When the call has none, or one given as text.
    pub fn token(mut self, change: impl FnOnce(Jwt) -> Jwt) -> Self {
        let Part::Jwt(token) = self.token else { panic!("the call has no token to change") };
        self.token = Part::Jwt(Box::new(change(*token)));
        self
    }

    /// Sends this as the token, whatever it is.
    pub fn token_text(mut self, token: impl Into<String>) -> Self {
        self.token = Part::Text(token.into());
        self
    }

    /// Sends neither token nor `Authorization`.
    pub fn without_token(mut self) -> Self {
        self.token = Part::Absent;
        self
    }

    /// Another scheme in `Authorization`.
    pub fn scheme(mut self, scheme: &str) -> Self {
        scheme.clone_into(&mut self.scheme);
        self
    }

    /// Changes the proof before it is encoded; may be called again. A call without a proof gets one.
    pub fn proof(mut self, change: impl Fn(Jwt) -> Jwt + Send + Sync + 'static) -> Self {
        let mut edits = if let Proof::Made(edits) = self.proof { edits } else { Vec::new() };
        edits.push(Arc::new(change));
        self.proof = Proof::Made(edits);
        self
    }

    /// Sends these as `DPoP` headers, whatever they are.
    pub fn proof_texts<T: Into<String>>(mut self, proofs: impl IntoIterator<Item = T>) -> Self {
        self.proof = Proof::Texts(proofs.into_iter().map(Into::into).collect());
        self
    }

    /// Sends no proof.
    pub fn without_proof(mut self) -> Self {
        self.proof = Proof::Absent;
        self
    }

    /// Gives up at the first demand for a nonce instead of answering it.
    pub fn without_nonce_retry(mut self) -> Self {
        self.nonce_retry = false;
        self
    }

    /// With a fresh offline PoE in the body.
    pub fn with_poe(mut self) -> Self {
        self.poe = Part::Jwt(Box::new(self.client.poe()));
        self
    }

    /// Changes the PoE before it is encoded.
    ///
    /// # Panics
    /// When the call has none, or one given as text.
    pub fn poe(mut self, change: impl FnOnce(Jwt) -> Jwt) -> Self {
        let Part::Jwt(poe) = self.poe else { panic!("the call has no PoE to change") };
        self.poe = Part::Jwt(Box::new(change(*poe)));
        self
    }

    /// Sends this as the PoE, whatever it is, under this `format`.
    pub fn poe_text(mut self, format: &str, poe: impl Into<String>) -> Self {
        self.poe = Part::Text(poe.into());
        format.clone_into(&mut self.poe_format);
        self
    }

    /// Sends no PoE.
    pub fn without_poe(mut self) -> Self {
        self.poe = Part::Absent;
        self
    }

    /// Sends the PoE as `X-PoE` and not in the body.
    pub fn poe_in_header(mut self) -> Self {
        self.poe_place = PoePlace::Header;
        self
    }

    /// Sends the PoE in both places, which is wrong.
    pub fn poe_in_both(mut self) -> Self {
        self.poe_place = PoePlace::Both;
        self
    }

    /// Sends this JSON.
    pub fn json(mut self, body: &Value) -> Self {
        self.body = Body::Json(body.clone());
        self
    }

    /// Changes the JSON before the PoE is put into it.
    ///
    /// # Panics
    /// When the call has raw bytes.
    pub fn body(mut self, change: impl FnOnce(&mut Value)) -> Self {
        let Body::Json(body) = &mut self.body else { panic!("the call has no JSON to change") };
        change(body);
        self
    }

    /// The whole JSON text with the PoE in it, changed as text: duplicate members, odd numbers, odd bytes.
    pub fn body_text(mut self, change: impl FnOnce(String) -> String) -> Self {
        let text = String::from_utf8_lossy(&self.body_bytes()).into_owned();
        self.body = Body::Bytes(Bytes::from(change(text)));
        self
    }

    /// Sends exactly these bytes.
    pub fn raw_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Body::Bytes(body.into());
        self
    }

    /// The bytes the body will have.
    #[must_use]
    pub fn body_bytes(&self) -> Bytes {
        match &self.body {
            Body::Bytes(bytes) => bytes.clone(),
            Body::Json(json) => {
                let mut json = json.clone();
                if let (Some(poe), true) = (text(&self.poe), self.poe_place != PoePlace::Header) {
                    json["poe"] = json!({"format": self.poe_format, "value": poe});
                }
                Bytes::from(json.to_string())
            }
        }
    }

    /// Adds a header, beside any of the same name.
    ///
    /// # Panics
    /// When it cannot be one; use [`raw`](crate::raw) for such.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::try_from(name).expect("a header's name");
        self.headers.push((name, HeaderValue::from_bytes(value.as_bytes()).expect("a header's value")));
        self
    }

    /// How long to wait for the answer (30 s unless said).
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sends it and waits.
    ///
    /// # Panics
    /// When no answer comes.
    #[must_use]
    #[track_caller]
    pub fn send(self) -> Answer {
        let what = format!("{} {}", self.method, self.path);
        match self.try_send() {
            Ok(answer) => answer,
            Err(error) => panic!("{what}: {error}"),
        }
    }

    /// Sends it and waits.
    ///
    /// # Errors
    /// When no answer comes: the connection is refused, the handshake fails, the time is up.
    pub fn try_send(self) -> Result<Answer> {
        runtime().block_on(self.send_async())
    }

    /// Sends it.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn send_async(self) -> Result<Answer> {
        let answer = self.send_once().await?;
        let wants_nonce = answer.status == 401 && answer.text_header("www-authenticate").contains("use_dpop_nonce");
        if wants_nonce && self.nonce_retry && matches!(self.proof, Proof::Made(_)) {
            return self.send_once().await;
        }
        Ok(answer)
    }

    async fn send_once(&self) -> Result<Answer> {
        let request = self.build()?;
        let answer = tokio::time::timeout(self.patience, self.client.connection.send(request))
            .await
            .map_err(|_| Error(format!("no answer within {:?}", self.patience)))??;
        if let Some(nonce) = answer.header("dpop-nonce") {
            self.client.remember_nonce(nonce);
        }
        Ok(answer)
    }

    fn build(&self) -> Result<Request<Full<Bytes>>> {
        let body = self.body_bytes();
        let mut request = Request::builder()
            .method(Method::from_bytes(self.method.as_bytes()).context("use this method")?)
            .uri(self.path.as_str())
            .body(Full::new(body.clone()))
            .context("build the request")?;
        let headers = request.headers_mut();
        let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).context("send this as a header");
        if !body.is_empty() && !self.headers.iter().any(|(name, _)| name == "content-type") {
            headers.insert("content-type", HeaderValue::from_static("application/json"));
        }
        let token = text(&self.token);
        if let Some(token) = &token {
            headers.insert("authorization", value(&format!("{} {token}", self.scheme))?);
        }
        match &self.proof {
            Proof::Absent => {}
            Proof::Texts(proofs) => {
                for proof in proofs {
                    headers.append("dpop", value(proof)?);
                }
            }
            Proof::Made(edits) => {
                let proof = self.client.proof(&self.method, &self.path, token.as_deref().unwrap_or_default());
                let proof = edits.iter().fold(proof, |proof, edit| edit(proof));
                headers.insert("dpop", value(&proof.encode())?);
            }
        }
        if let (Some(poe), true) = (text(&self.poe), self.poe_place != PoePlace::Body) {
            headers.insert("x-poe", value(&poe)?);
        }
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        Ok(request)
    }
}

impl Answer {
    fn text_header(&self, name: &str) -> String {
        let values = self.headers.get_all(name).iter();
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect::<Vec<_>>().join(", ")
    }
}

fn text(part: &Part) -> Option<String> {
    match part {
        Part::Absent => None,
        Part::Jwt(jwt) => Some(jwt.encode()),
        Part::Text(text) => Some(text.clone()),
    }
}
