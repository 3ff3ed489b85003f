//! TLS 1.3 over the socket that was passed in, to a server that the job's roots vouch for.

#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::sandbox::Fulcio;
use crate::wire::{Failed, FailureKind, Step};

/// A connection whose handshake is done.
pub(crate) type Session = StreamOwned<ClientConnection, Fulcio>;

/// Does the handshake. Nothing of the job has been sent when it returns.
///
/// # Errors
/// When the roots or the name are none, or the server is not the one they vouch for.
pub(crate) fn connect(socket: Fulcio, server_name: &str, roots: &[&[u8]]) -> Result<Session, Failed> {
    let bad = |detail: &str| Failed::new(Step::Handshake, FailureKind::BadJob, detail);
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(CertificateDer::from(*root)).map_err(|error| bad(&format!("a TLS root of the job: {error}")))?;
    }
    let name = ServerName::try_from(server_name).map_err(|_| bad("the server's name is none"))?.to_owned();
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| bad(&error.to_string()))?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();

    let connection = ClientConnection::new(Arc::new(config), name).map_err(|error| bad(&error.to_string()))?;
    let mut session = StreamOwned::new(connection, socket);
    while session.conn.is_handshaking() {
        session.conn.complete_io(&mut session.sock).map_err(|error| failed(Step::Handshake, &error))?;
    }
    Ok(session)
}

/// Says that nothing more will come, in either direction. Whether the server hears it is its own affair.
pub(crate) fn close(session: &mut Session) {
    session.conn.send_close_notify();
    let _ = session.conn.write_tls(&mut session.sock);
}

/// What a failure of reading or writing means at this step.
pub(crate) fn failed(step: Step, error: &io::Error) -> Failed {
    let kind = match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => FailureKind::TimedOut,
        io::ErrorKind::InvalidData => FailureKind::TlsRefused,
        _ => FailureKind::Closed,
    };
    Failed::new(step, kind, &error.to_string())
}
