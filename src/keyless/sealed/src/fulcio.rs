//! The request for a certificate, and what Fulcio's answer says.

#![forbid(unsafe_code)]

use std::io::{Read, Write};

use base64ct::{Base64, Encoding as _};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::http::{Answer, HttpError, read_answer};
use crate::tls;
use crate::wire::{Failed, FailureKind, Job, MAX_CERTIFICATE, MAX_CERTIFICATES, MAX_SCT, Step};

/// What Fulcio issued.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Issued {
    /// DER, leaf first.
    pub(crate) certificates: Vec<Vec<u8>>,
    /// Where it is not embedded in the leaf.
    pub(crate) sct: Option<Vec<u8>>,
}

/// Sends the request (`CreateSigningCertificate` of Fulcio's v2 API).
///
/// # Errors
/// When it cannot be sent.
pub(crate) fn ask(stream: &mut impl Write, job: &Job<'_>, request: &str) -> Result<(), Failed> {
    let message = message(job, request);
    stream.write_all(&message).and_then(|()| stream.flush()).map_err(|error| tls::failed(Step::Request, &error))
}

/// Reads the answer.
///
/// # Errors
/// What Fulcio says, or why it cannot be understood.
pub(crate) fn answer(stream: &mut impl Read, bound: u32) -> Result<Issued, Failed> {
    let bound = usize::try_from(bound).unwrap_or(usize::MAX);
    let answer = read_answer(stream, bound).map_err(|error| match error {
        HttpError::Malformed(what) => bad(what),
        HttpError::TooLarge => Failed::new(Step::Answer, FailureKind::TooLarge, ""),
        HttpError::Closed => Failed::new(Step::Answer, FailureKind::Closed, "before the answer was complete"),
        HttpError::Io(error) => tls::failed(Step::Answer, &error),
    })?;
    match answer.status {
        200 | 201 => issued(&answer.body).map_err(|failed| failed.answered(Some(answer.status), None)),
        429 | 500..=599 => Err(refusal(&answer, FailureKind::Busy)),
        _ => Err(refusal(&answer, FailureKind::Refused)),
    }
}

/// The whole request, in a buffer that is made once, because it holds the token, and is wiped.
fn message(job: &Job<'_>, request: &str) -> Zeroizing<Vec<u8>> {
    let request = Base64::encode_string(request.as_bytes());
    // Neither a token nor base64 has a character that JSON would escape.
    let body = [r#"{"credentials":{"oidcIdentityToken":""#, job.token.expose(), MIDDLE, &request, r#""}"#];
    let length = body.iter().map(|part| part.len()).sum::<usize>().to_string();
    let head = ["POST ", job.path, " HTTP/1.1\r\nHost: ", job.authority, HEADERS, &length, "\r\n\r\n"];
    let parts = || head.iter().chain(&body);
    let mut message = Zeroizing::new(Vec::with_capacity(parts().map(|part| part.len()).sum()));
    for part in parts() {
        message.extend_from_slice(part.as_bytes());
    }
    message
}

fn refusal(answer: &Answer, kind: FailureKind) -> Failed {
    #[derive(Deserialize)]
    struct Status {
        message: String,
    }
    let message = serde_json::from_slice(&answer.body).map_or_else(|_| String::new(), |status: Status| status.message);
    Failed::new(Step::Answer, kind, &message).answered(Some(answer.status), answer.retry_after)
}

fn issued(body: &[u8]) -> Result<Issued, Failed> {
    let answer: SigningCertificate =
        serde_json::from_slice(body).map_err(|_| bad("the answer is not the JSON of a certificate"))?;
    let (chain, sct) = match (answer.signed_certificate_embedded_sct, answer.signed_certificate_detached_sct) {
        (Some(embedded), None) => (embedded.chain, None),
        // Without a CT log it is there and empty.
        (None, Some(detached)) => (detached.chain, detached.signed_certificate_timestamp.filter(|sct| !sct.is_empty())),
        _ => return Err(bad("the answer holds no certificate, or two")),
    };
    if !(1..=MAX_CERTIFICATES).contains(&chain.certificates.len()) {
        return Err(bad("an unlikely number of certificates"));
    }
    let certificates = chain.certificates.iter().map(|pem| certificate(pem)).collect::<Result<_, _>>()?;
    let decode = |sct: String| Base64::decode_vec(&sct).ok().filter(|sct| sct.len() <= MAX_SCT);
    let sct = sct.map(|sct| decode(sct).ok_or_else(|| bad("the SCT is not base64, or too long"))).transpose()?;
    Ok(Issued { certificates, sct })
}

fn certificate(pem: &str) -> Result<Vec<u8>, Failed> {
    let base64 = pem.trim_ascii().strip_prefix("-----BEGIN CERTIFICATE-----");
    let base64 = base64.and_then(|rest| rest.strip_suffix("-----END CERTIFICATE-----"));
    let base64: String = base64.unwrap_or_default().split_ascii_whitespace().collect();
    let der = Base64::decode_vec(&base64).map_err(|_| bad("a certificate that is no PEM"))?;
    if der.is_empty() || der.len() > MAX_CERTIFICATE {
        return Err(bad("a certificate that is empty or too long"));
    }
    Ok(der)
}

fn bad(detail: &str) -> Failed {
    Failed::new(Step::Answer, FailureKind::BadAnswer, detail)
}

/// `SigningCertificate` of `fulcio.proto`, as JSON.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SigningCertificate {
    signed_certificate_embedded_sct: Option<EmbeddedSct>,
    signed_certificate_detached_sct: Option<DetachedSct>,
}

#[derive(Deserialize)]
struct EmbeddedSct {
    chain: Chain,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DetachedSct {
    chain: Chain,
    signed_certificate_timestamp: Option<String>,
}

#[derive(Deserialize)]
struct Chain {
    certificates: Vec<String>,
}

const MIDDLE: &str = r#""},"certificateSigningRequest":""#;
const HEADERS: &str = "\r\nContent-Type: application/json\r\nAccept: application/json\r\n\
    Connection: close\r\nContent-Length: ";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::wire::{Bounds, Token, Transport};

    #[test]
    fn the_request_is_one_message_in_a_buffer_that_never_grew() {
        let job = Job {
            transport: Transport::PlainLoopback,
            authority: "fulcio.example:5555",
            path: "/api/v2/signingCert",
            token: Token::new("eyJh.eyJi.c2ln").unwrap(),
            digest: [0; 32],
            bounds: Bounds { answer: 1, signatures: 1 },
        };
        let message = message(&job, "-----BEGIN CERTIFICATE REQUEST-----\n");
        assert_eq!(message.len(), message.capacity());
        let text = std::str::from_utf8(&message).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /api/v2/signingCert HTTP/1.1\r\nHost: fulcio.example:5555\r\n"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["credentials"]["oidcIdentityToken"], "eyJh.eyJi.c2ln");
        let request = Base64::decode_vec(body["certificateSigningRequest"].as_str().unwrap()).unwrap();
        assert_eq!(request, b"-----BEGIN CERTIFICATE REQUEST-----\n");
    }

    fn pem(der: &[u8]) -> String {
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", Base64::encode_string(der))
    }

    fn read(body: &Value) -> Result<Issued, Failed> {
        issued(body.to_string().as_bytes())
    }

    #[test]
    fn the_sct_is_embedded_detached_or_absent() {
        let chain = json!({ "certificates": [pem(&[1, 2, 3]), pem(&[4, 5])] });
        let certificates = vec![vec![1, 2, 3], vec![4, 5]];
        let embedded = json!({ "signedCertificateEmbeddedSct": { "chain": chain } });
        assert_eq!(read(&embedded), Ok(Issued { certificates: certificates.clone(), sct: None }));
        let sct =
            |sct| json!({ "signedCertificateDetachedSct": { "chain": chain, "signedCertificateTimestamp": sct } });
        assert_eq!(read(&sct("")), Ok(Issued { certificates: certificates.clone(), sct: None }));
        assert_eq!(read(&sct("e30=")), Ok(Issued { certificates, sct: Some(b"{}".to_vec()) }));
        assert_eq!(read(&sct("e3")).unwrap_err().kind, FailureKind::BadAnswer);
    }

    #[test]
    fn what_no_fulcio_answers_is_refused() {
        let chain = |certificates: &[String]| json!({ "signedCertificateEmbeddedSct": { "chain": { "certificates": certificates } } });
        let one = pem(&[1]);
        let both = json!({
            "signedCertificateEmbeddedSct": { "chain": { "certificates": [one] } },
            "signedCertificateDetachedSct": { "chain": { "certificates": [one] } },
        });
        for body in [
            json!({}),
            json!([]),
            json!({ "signedCertificateEmbeddedSct": {} }),
            both,
            chain(&[]),
            chain(&vec![one.clone(); MAX_CERTIFICATES + 1]),
            chain(&[pem(&vec![0; MAX_CERTIFICATE + 1])]),
            chain(&[pem(&[])]),
            chain(&[one.replace("CERTIFICATE", "PRIVATE KEY")]),
            chain(&[format!("{one}{one}")]),
            chain(&["AQID".to_owned()]),
        ] {
            assert_eq!(read(&body).unwrap_err().kind, FailureKind::BadAnswer, "{body:.80}");
        }
    }

    #[test]
    fn what_fulcio_says_reaches_the_parent_without_what_it_was_told() {
        let say = |status: &str, body: &str| {
            let text = format!("HTTP/1.1 {status}\r\nRetry-After: 9\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            answer(&mut text.as_bytes(), 1000).unwrap_err()
        };
        let failed = say("400 Bad Request", r#"{"code":3,"message":"bad token eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9"}"#);
        assert_eq!((failed.kind, failed.status), (FailureKind::Refused, Some(400)));
        assert_eq!(failed.detail(), "bad token […]");
        assert_eq!(say("401 Unauthorized", "<html>").kind, FailureKind::Refused);
        assert_eq!(say("302 Found", "").kind, FailureKind::Refused);
        let failed = say("503 Service Unavailable", "");
        assert_eq!((failed.kind, failed.status, failed.retry_after), (FailureKind::Busy, Some(503), Some(9)));
        assert_eq!(say("429 Too Many Requests", "{}").kind, FailureKind::Busy);
        assert_eq!(say("200 OK", "{}").status, Some(200));
    }
}
