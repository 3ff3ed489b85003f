//! What it answers, rightly or not.

#![forbid(unsafe_code)]

use rcgen::{CertificateSigningRequestParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};

use super::{Behaviour, Seen, State};
use crate::fulcio_ca::{Profile, San, Vouching};
use crate::{Context, Result, base64, from_base64, jwt, pem};

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateFault {
    /// For a key of Fulcio's own.
    OtherKey,
    /// For somebody else.
    OtherSan,
    /// The right name, written as a DNS name's neighbour: a mail address instead of a URI.
    OtherKindOfSan,
    /// For two.
    SecondSan,
    /// For nobody.
    NoSan,
    /// The identity was vouched for by somebody else.
    OtherIssuer,
    /// Nobody vouched for the identity.
    NoIssuer,
    /// A chain that is sound and leads to a root of the same name that nobody pinned.
    OtherRoot,
    /// It ended an hour ago.
    Expired,
    /// It begins in an hour.
    NotYetValid,
    /// It lives for a day.
    LongLived,
    /// Nobody saw it: as a Fulcio without a CT log answers.
    NoSct,
    /// The SCT is over something else.
    FalseSct,
    /// The SCT is of a log that nobody pinned.
    SctOfAnotherLog,
    /// It is for TLS servers.
    ServerUsage,
    /// It is for anything.
    NoUsage,
    /// Its key may sign certificates and nothing else.
    OtherKeyUsage,
    /// It is a CA.
    CaLeaf,
}

/// What is wrong with an answer that has a good certificate in it, or would have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerFault {
    /// An error of Fulcio's.
    Status(u16),
    /// Somewhere else, as a redirect with this status.
    Redirect(u16),
    /// 200 and a page.
    NotJson,
    /// JSON without a certificate.
    NoCertificate,
    /// A chain of none.
    EmptyChain,
    /// Certificates that are no PEM.
    NotPem,
    /// PEM that is no certificate.
    NotACertificate,
    /// More JSON than anybody should read, as its length says.
    Huge,
    /// As many chunks as anybody cares to read.
    Endless,
    /// One without a length, which ends when the connection does.
    Unbounded,
    /// A header of a megabyte.
    HugeHeader,
    /// Ten thousand certificates.
    LongChain,
    /// Ten thousand brackets.
    DeepJson,
}

/// An answer about to be sent.
pub(super) struct Answer {
    status: u16,
    headers: String,
    pub(super) body: Vec<u8>,
    pub(super) endless: bool,
    unbounded: bool,
}

/// The answer to a request's body.
pub(super) fn to(body: &[u8], behaviour: Behaviour, state: &State) -> Answer {
    match certificates(body, behaviour, state) {
        Ok(certificates) => spoiled(&certificates, behaviour),
        Err(error) => Answer::json(400, &json!({"code": 3, "message": error.0, "details": []})),
    }
}

impl Answer {
    fn json(status: u16, body: &Value) -> Self {
        let headers = "Content-Type: application/json\r\n".to_owned();
        Self { status, headers, body: body.to_string().into_bytes(), endless: false, unbounded: false }
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    pub(super) fn head(&self) -> String {
        let length = match (self.endless, self.unbounded) {
            (true, _) => "Transfer-Encoding: chunked\r\n".to_owned(),
            (false, true) => String::new(),
            (false, false) => format!("Content-Length: {}\r\n", self.body.len()),
        };
        format!("HTTP/1.1 {} Whatever\r\n{}{length}Connection: close\r\n\r\n", self.status, self.headers)
    }
}

/// The chain, leaf first, DER.
fn certificates(body: &[u8], behaviour: Behaviour, state: &State) -> Result<Vec<Vec<u8>>> {
    let asked: Value = serde_json::from_slice(body).context("read the request")?;
    let token = asked["credentials"]["oidcIdentityToken"].as_str().context("find the identity token")?;
    let csr = from_base64(asked["certificateSigningRequest"].as_str().context("find the request's CSR")?)?;
    let csr = String::from_utf8(csr).context("read the CSR as PEM")?;
    let (_, claims) = jwt::decode(token)?;
    state.seen.lock().expect("no holder panics").push(Seen { token: token.to_owned(), csr: csr.clone() });
    let claim = |name: &str| claims[name].as_str().context(format!("find `{name}` in the identity token"));
    let request = CertificateSigningRequestParams::from_pem(&csr).context("read the CSR")?;
    let mut profile = Profile::fulcio(claim("sub")?, claim("iss")?);
    let Behaviour::Certificate(fault) = behaviour else {
        return chain(state, &state.ca.issue(&request.public_key, &profile, Some(truly(state)))?, false);
    };
    let mut vouching = Some(truly(state));
    match fault {
        CertificateFault::OtherSan => profile.sans = vec![San::Uri("spiffe://stella-ops.test/signer/other".into())],
        CertificateFault::OtherKindOfSan => profile.sans = vec![San::Email("signer@stella-ops.test".into())],
        CertificateFault::SecondSan => profile.sans.push(San::Dns("stella-ops.test".into())),
        CertificateFault::NoSan => profile.sans.clear(),
        CertificateFault::OtherIssuer => profile.issuer = Some("https://elsewhere.test".into()),
        CertificateFault::NoIssuer => profile.issuer = None,
        CertificateFault::Expired => profile.valid = (-4200, -3600),
        CertificateFault::NotYetValid => profile.valid = (3600, 4200),
        CertificateFault::LongLived => profile.valid = (0, 86_400),
        CertificateFault::NoSct => vouching = None,
        CertificateFault::FalseSct => vouching = Some(Vouching { log: &state.log, falsely: true }),
        CertificateFault::SctOfAnotherLog => vouching = Some(Vouching { log: &state.stranger_log, falsely: false }),
        CertificateFault::ServerUsage => profile.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
        CertificateFault::NoUsage => profile.extended_key_usages.clear(),
        CertificateFault::OtherKeyUsage => profile.key_usages = vec![KeyUsagePurpose::KeyCertSign],
        CertificateFault::CaLeaf => profile.is_ca = true,
        CertificateFault::OtherKey | CertificateFault::OtherRoot => {}
    }
    let stranger = fault == CertificateFault::OtherRoot;
    let ca = if stranger { &state.stranger_ca } else { &*state.ca };
    let leaf = if fault == CertificateFault::OtherKey {
        ca.issue(&KeyPair::generate().context("make a key")?, &profile, vouching)?
    } else {
        ca.issue(&request.public_key, &profile, vouching)?
    };
    chain(state, &leaf, stranger)
}

fn truly(state: &State) -> Vouching<'_> {
    Vouching { log: &state.log, falsely: false }
}

fn chain(state: &State, leaf: &[u8], stranger: bool) -> Result<Vec<Vec<u8>>> {
    let above = if stranger { state.stranger_ca.chain() } else { state.ca.chain() };
    Ok(std::iter::once(leaf.to_vec()).chain(above.iter().map(|link| link.to_vec())).collect())
}

fn spoiled(certificates: &[Vec<u8>], behaviour: Behaviour) -> Answer {
    let pems: Vec<String> = certificates.iter().map(|der| pem("CERTIFICATE", der)).collect();
    let good = |pems: &[String]| {
        let key = match behaviour {
            Behaviour::Certificate(CertificateFault::NoSct) => "signedCertificateDetachedSct",
            _ => "signedCertificateEmbeddedSct",
        };
        Answer::json(200, &json!({key: {"chain": {"certificates": pems}}}))
    };
    let Behaviour::Answer(fault) = behaviour else { return good(&pems) };
    match fault {
        AnswerFault::Status(status) => Answer::json(status, &json!({"code": 2, "message": "no", "details": []})),
        AnswerFault::Redirect(status) => {
            Answer { status, ..good(&pems) }.header("Location", "https://127.0.0.1:1/api/v2/signingCert")
        }
        AnswerFault::NotJson => Answer { body: b"<html>welcome</html>".to_vec(), ..good(&pems) },
        AnswerFault::NoCertificate => Answer::json(200, &json!({"signedCertificateEmbeddedSct": {}})),
        AnswerFault::EmptyChain => good(&[]),
        AnswerFault::NotPem => good(&certificates.iter().map(base64).collect::<Vec<_>>()),
        AnswerFault::NotACertificate => good(&[pem("CERTIFICATE", b"not a certificate")]),
        AnswerFault::Huge => {
            Answer::json(200, &json!({"padding": " ".repeat(4 << 20), "signedCertificateEmbeddedSct": {}}))
        }
        AnswerFault::Endless => Answer { endless: true, body: Vec::new(), ..good(&pems) },
        AnswerFault::Unbounded => Answer { unbounded: true, ..good(&pems) },
        AnswerFault::HugeHeader => good(&pems).header("X-Padding", &"x".repeat(1 << 20)),
        AnswerFault::LongChain => {
            let links = std::iter::repeat_n(pems[1].clone(), 10_000);
            good(&std::iter::once(pems[0].clone()).chain(links).collect::<Vec<_>>())
        }
        AnswerFault::DeepJson => Answer { body: vec![b'['; 10_000], ..good(&pems) },
    }
}
