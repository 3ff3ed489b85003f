//! TLS in front of a server that speaks plain HTTP.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::pki::Identity;
use crate::{Context, Result, https, runtime};

/// Takes TLS connections and passes what they hold on, until dropped.
pub struct TlsFront {
    addr: SocketAddr,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct State {
    down: AtomicBool,
    connections: AtomicU64,
}

impl TlsFront {
    /// Listens on a free loopback port; each connection is passed on to `behind`.
    ///
    /// # Errors
    /// When no port can be bound or the certificate is unusable.
    pub fn start(identity: &Identity, behind: SocketAddr) -> Result<Self> {
        let mut config = https::tls_config(identity, https::Clients::Any)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).context("listen on loopback")?;
        let (addr, state) = (listener.local_addr()?, Arc::new(State::default()));
        let task = runtime().spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), behind, state.clone()));
        Ok(Self { addr, state, task })
    }

    /// `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.addr)
    }

    /// Closes every new connection before TLS, or no longer.
    pub fn set_down(&self, down: bool) {
        self.state.down.store(down, Ordering::Relaxed);
    }

    /// Connections taken so far, whatever became of them.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, behind: SocketAddr, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        state.connections.fetch_add(1, Ordering::Relaxed);
        if !state.down.load(Ordering::Relaxed) {
            tokio::spawn(pass_on(stream, acceptor.clone(), behind));
        }
    }
}

async fn pass_on(stream: TcpStream, acceptor: TlsAcceptor, behind: SocketAddr) {
    // Small messages go to and fro; waiting for more of them would cost 40 ms each.
    let _ = stream.set_nodelay(true);
    let Ok(mut outside) = acceptor.accept(stream).await else { return };
    let Ok(mut inside) = TcpStream::connect(behind).await else { return };
    let _ = inside.set_nodelay(true);
    // A client or a server that goes away is its own affair.
    let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
}
