//! A Fulcio of our own: honest and fast, or hostile in one way at a time.
//!
//! It speaks TLS and HTTP by hand, because no HTTP server would let it be this rude.

#![forbid(unsafe_code)]

mod answer;
mod connection;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::ct_log::LogKey;
use crate::fulcio_ca::FulcioCa;
use crate::https::{Clients, tls_config};
use crate::pki::{Identity, Leaf, Pki};
use crate::{Context, Result, runtime};

pub use answer::{AnswerFault, CertificateFault};
pub use connection::{ConnectionFault, Stage};

/// The server, on loopback until dropped.
pub struct HostileFulcio {
    /// Its CA: what is to be pinned.
    pub ca: Arc<FulcioCa>,
    /// Its CT log's key: what is to be pinned.
    pub log: Arc<LogKey>,
    addr: SocketAddr,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

/// How it behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behaviour {
    /// As Fulcio does.
    #[default]
    Honest,
    /// Its certificate is wrong.
    Certificate(CertificateFault),
    /// What is around the certificate is wrong.
    Answer(AnswerFault),
    /// It does not come to an answer.
    Connection(ConnectionFault),
}

/// A request that it got as a whole.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The identity token.
    pub token: String,
    /// The certificate signing request, PEM.
    pub csr: String,
}

/// All that connections share.
struct State {
    behaviour: Mutex<Behaviour>,
    seen: Mutex<Vec<Seen>>,
    connections: Mutex<u64>,
    ca: Arc<FulcioCa>,
    stranger_ca: FulcioCa,
    log: Arc<LogKey>,
    stranger_log: LogKey,
    tls: TlsAcceptor,
    strangers_tls: TlsAcceptor,
    misnamed_tls: TlsAcceptor,
}

impl HostileFulcio {
    /// Starts it, honest.
    ///
    /// # Errors
    /// When no port can be bound or the cryptography fails.
    pub fn start(pki: &Pki) -> Result<Self> {
        let (ca, log) = (Arc::new(FulcioCa::generate("StellaOps hostile Fulcio")?), Arc::new(LogKey::generate()));
        // A client's certificate of the right CA: it has another name, and is for clients.
        let misnamed = pki.server_ca.issue(&Leaf::client("fulcio-elsewhere"))?;
        let stranger = pki.stranger_ca.issue(&Leaf::server("fulcio-stranger"))?;
        let state = Arc::new(State {
            behaviour: Mutex::default(),
            seen: Mutex::default(),
            connections: Mutex::default(),
            ca: ca.clone(),
            stranger_ca: FulcioCa::generate("StellaOps hostile Fulcio")?,
            log: log.clone(),
            stranger_log: LogKey::generate(),
            tls: acceptor(&pki.services)?,
            strangers_tls: acceptor(&stranger)?,
            misnamed_tls: acceptor(&misnamed)?,
        });
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).context("listen on loopback")?;
        let addr = listener.local_addr()?;
        let task = runtime().spawn(accept(listener, state.clone()));
        Ok(Self { ca, log, addr, state, task })
    }

    /// `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.addr)
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.state.behaviour.lock().expect("no holder panics") = behaviour;
    }

    /// The requests that it got as a whole, oldest first.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().expect("no holder panics").clone()
    }

    /// Connections taken so far, whatever became of them.
    #[must_use]
    pub fn connections(&self) -> u64 {
        *self.state.connections.lock().expect("no holder panics")
    }
}

impl Drop for HostileFulcio {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn acceptor(identity: &Identity) -> Result<TlsAcceptor> {
    let mut config = tls_config(identity, Clients::Any)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        *state.connections.lock().expect("no holder panics") += 1;
        let behaviour = *state.behaviour.lock().expect("no holder panics");
        tokio::spawn(connection::serve(stream, behaviour, state.clone()));
    }
}
