//! Messages to frames and back.

use zeroize::Zeroizing;

use super::bytes::{Reader, Writer};
use super::{
    Bounds, Failed, FailureKind, FromHelper, HEADER, Job, Layers, MAX_ANSWER, MAX_CERTIFICATE, MAX_CERTIFICATES,
    MAX_DETAIL, MAX_FROM_HELPER, MAX_NAME, MAX_ROOTS, MAX_SCT, MAX_SIGNATURE, MAX_TO_HELPER, MAX_TOKEN, Sealed, Signed,
    Step, ToHelper, Token, Transport, VERSION, WireError,
};

/// A whole frame. It is made in one piece and wiped when it is dropped, because a job holds the identity token.
///
/// # Errors
/// When a field is beyond its bound.
pub fn encode_to_helper(message: &ToHelper<'_>) -> Result<Zeroizing<Vec<u8>>, WireError> {
    let body = match message {
        ToHelper::Job(job) => job_length(job),
        ToHelper::Digest(_) => 1 + 32,
    };
    let mut frame = Zeroizing::new(Vec::with_capacity(HEADER + body));
    let mut w = Writer(&mut frame);
    w.u32(u32::try_from(body).ok().filter(|_| body <= MAX_TO_HELPER).ok_or(WireError::Length(body))?);
    match message {
        ToHelper::Job(job) => {
            w.u8(JOB);
            write_job(&mut w, job)?;
        }
        ToHelper::Digest(digest) => {
            w.u8(DIGEST);
            w.raw(digest);
        }
    }
    debug_assert_eq!(frame.len(), HEADER + body);
    Ok(frame)
}

/// Reads a message of the parent from the body of its frame.
///
/// # Errors
/// Whatever is not exactly one message.
pub fn decode_to_helper(body: &[u8]) -> Result<ToHelper<'_>, WireError> {
    let mut r = Reader(body);
    let message = match r.u8()? {
        JOB => ToHelper::Job(read_job(&mut r)?),
        DIGEST => ToHelper::Digest(r.array()?),
        other => return Err(WireError::UnknownKind(other)),
    };
    r.end()?;
    Ok(message)
}

/// A whole frame.
///
/// # Errors
/// When a field is beyond its bound.
pub fn encode_from_helper(message: &FromHelper) -> Result<Vec<u8>, WireError> {
    let mut frame = vec![0; HEADER];
    let mut w = Writer(&mut frame);
    match message {
        FromHelper::Sealed(sealed) => {
            w.u8(SEALED);
            w.u16(VERSION);
            w.u16(sealed.layers.bits());
            w.u8(sealed.landlock_abi);
            w.u32(sealed.uid);
        }
        FromHelper::Signed(signed) => {
            w.u8(SIGNED);
            w.field(&signed.signature, MAX_SIGNATURE, "signature")?;
            let certificates = signed.certificates.iter().map(Vec::as_slice);
            w.list(certificates, MAX_CERTIFICATES, MAX_CERTIFICATE, "certificates")?;
            w.u8(signed.sct.is_some().into());
            if let Some(sct) = &signed.sct {
                w.field(sct, MAX_SCT, "SCT")?;
            }
            w.raw(&signed.public_key);
        }
        FromHelper::Signature(signature) => {
            w.u8(SIGNATURE);
            w.field(signature, MAX_SIGNATURE, "signature")?;
        }
        FromHelper::Failed(failed) => {
            w.u8(FAILED);
            w.u8(failed.step as u8);
            w.u8(failed.kind as u8);
            w.u16(failed.status.unwrap_or(0));
            w.u8(failed.retry_after.is_some().into());
            w.u32(failed.retry_after.unwrap_or(0));
            w.field(failed.detail().as_bytes(), MAX_DETAIL, "detail")?;
        }
    }
    let body = frame.len() - HEADER;
    let length = u32::try_from(body).ok().filter(|_| body <= MAX_FROM_HELPER).ok_or(WireError::Length(body))?;
    frame[..HEADER].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

/// Reads a message of the helper from the body of its frame.
///
/// # Errors
/// Whatever is not exactly one message.
pub fn decode_from_helper(body: &[u8]) -> Result<FromHelper, WireError> {
    let mut r = Reader(body);
    let message = match r.u8()? {
        SEALED => {
            let version = r.u16()?;
            if version != VERSION {
                return Err(WireError::Version(version));
            }
            FromHelper::Sealed(Sealed {
                layers: Layers::from_bits(r.u16()?).ok_or(WireError::Value("layers"))?,
                landlock_abi: r.u8()?,
                uid: r.u32()?,
            })
        }
        SIGNED => FromHelper::Signed(Signed {
            signature: r.field(MAX_SIGNATURE, "signature")?.to_vec(),
            certificates: r
                .list(MAX_CERTIFICATES, MAX_CERTIFICATE, "certificates")?
                .into_iter()
                .map(<[u8]>::to_vec)
                .collect(),
            sct: if r.flag("SCT")? { Some(r.field(MAX_SCT, "SCT")?.to_vec()) } else { None },
            public_key: r.array()?,
        }),
        SIGNATURE => FromHelper::Signature(r.field(MAX_SIGNATURE, "signature")?.to_vec()),
        FAILED => FromHelper::Failed(read_failed(&mut r)?),
        other => return Err(WireError::UnknownKind(other)),
    };
    r.end()?;
    Ok(message)
}

/// What goes into the head of an HTTP request: visible ASCII, and something at all.
pub(super) fn visible<'a>(text: &'a str, name: &'static str) -> Result<&'a str, WireError> {
    let fits = !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(text) } else { Err(WireError::Value(name)) }
}

/// Bytes of a job's body, its kind included.
fn job_length(job: &Job<'_>) -> usize {
    let transport = match &job.transport {
        Transport::Tls { server_name, roots } => {
            1 + 2 + server_name.len() + 2 + roots.iter().map(|root| 2 + root.len()).sum::<usize>()
        }
        Transport::PlainLoopback => 1,
    };
    1 + 2 + transport + 2 + job.authority.len() + 2 + job.path.len() + 2 + job.token.expose().len() + 32 + 4 + 4
}

fn write_job(w: &mut Writer<'_>, job: &Job<'_>) -> Result<(), WireError> {
    w.u16(VERSION);
    match &job.transport {
        Transport::Tls { server_name, roots } => {
            w.u8(TLS);
            w.field(visible(server_name, "server name")?.as_bytes(), MAX_NAME, "server name")?;
            w.list(roots.iter().copied(), MAX_ROOTS, MAX_CERTIFICATE, "roots")?;
        }
        Transport::PlainLoopback => w.u8(PLAIN_LOOPBACK),
    }
    w.field(visible(job.authority, "authority")?.as_bytes(), MAX_NAME, "authority")?;
    w.field(path(job.path)?.as_bytes(), MAX_NAME, "path")?;
    w.field(job.token.expose().as_bytes(), MAX_TOKEN, "identity token")?;
    w.raw(&job.digest);
    let bounds = checked(job.bounds)?;
    w.u32(bounds.answer);
    w.u32(bounds.signatures);
    Ok(())
}

fn read_job<'a>(r: &mut Reader<'a>) -> Result<Job<'a>, WireError> {
    let version = r.u16()?;
    if version != VERSION {
        return Err(WireError::Version(version));
    }
    let transport = match r.u8()? {
        TLS => Transport::Tls {
            server_name: r.visible(MAX_NAME, "server name")?,
            roots: r.list(MAX_ROOTS, MAX_CERTIFICATE, "roots")?,
        },
        PLAIN_LOOPBACK => Transport::PlainLoopback,
        _ => return Err(WireError::Value("transport")),
    };
    Ok(Job {
        transport,
        authority: r.visible(MAX_NAME, "authority")?,
        path: path(r.visible(MAX_NAME, "path")?)?,
        token: std::str::from_utf8(r.field(MAX_TOKEN, "identity token")?)
            .map_err(|_| WireError::Value("identity token"))
            .and_then(Token::new)?,
        digest: r.array()?,
        bounds: checked(Bounds { answer: r.u32()?, signatures: r.u32()? })?,
    })
}

fn path(path: &str) -> Result<&str, WireError> {
    visible(path, "path").and_then(|path| if path.starts_with('/') { Ok(path) } else { Err(WireError::Value("path")) })
}

fn checked(bounds: Bounds) -> Result<Bounds, WireError> {
    let fits = (1..=MAX_ANSWER).contains(&bounds.answer) && bounds.signatures >= 1;
    if fits { Ok(bounds) } else { Err(WireError::Value("bounds")) }
}

fn read_failed(r: &mut Reader<'_>) -> Result<Failed, WireError> {
    let step = Step::from_byte(r.u8()?).ok_or(WireError::Value("step"))?;
    let kind = FailureKind::from_byte(r.u8()?).ok_or(WireError::Value("kind of failure"))?;
    let status = Some(r.u16()?).filter(|status| *status != 0);
    let retry_after = r.flag("Retry-After")?;
    let seconds = r.u32()?;
    let detail = r.field(MAX_DETAIL, "detail")?;
    let detail = std::str::from_utf8(detail).map_err(|_| WireError::Value("detail"))?;
    // Cleaned again: the helper may be somebody else by now.
    Ok(Failed::new(step, kind, detail).answered(status, retry_after.then_some(seconds)))
}

const JOB: u8 = 0x01;
const DIGEST: u8 = 0x02;
const SEALED: u8 = 0x81;
const SIGNED: u8 = 0x82;
const SIGNATURE: u8 = 0x83;
const FAILED: u8 = 0xff;

const TLS: u8 = 1;
const PLAIN_LOOPBACK: u8 = 2;
