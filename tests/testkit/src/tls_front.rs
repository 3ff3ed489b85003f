//! TLS in front of a server that speaks plain HTTP.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::pki::Identity;
use crate::{Context, Result, https, runtime};

/// Takes TLS connections and passes what they hold on, until dropped.
pub struct TlsFront {
    addr: SocketAddr,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

/// What is behind it.
#[derive(Clone, Debug)]
pub enum Behind {
    /// A server on a port.
    Tcp(SocketAddr),
    /// A server on a Unix socket.
    Unix(PathBuf),
}

struct State {
    down: watch::Sender<bool>,
    connections: AtomicU64,
}

impl TlsFront {
    /// Listens on a free loopback port; each connection is passed on to `behind`.
    ///
    /// # Errors
    /// When no port can be bound or the certificate is unusable.
    pub fn start(identity: &Identity, behind: Behind) -> Result<Self> {
        let mut config = https::tls_config(identity, https::Clients::Any)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).context("listen on loopback")?;
        let state = Arc::new(State { down: watch::Sender::new(false), connections: AtomicU64::new(0) });
        let addr = listener.local_addr()?;
        let task = runtime().spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), behind, state.clone()));
        Ok(Self { addr, state, task })
    }

    /// `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.addr)
    }

    /// Closes every connection, new ones before TLS; or no longer.
    pub fn set_down(&self, down: bool) {
        self.state.down.send_replace(down);
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

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, behind: Behind, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        state.connections.fetch_add(1, Ordering::Relaxed);
        let mut down = state.down.subscribe();
        let (acceptor, behind) = (acceptor.clone(), behind.clone());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = down.wait_for(|down| *down) => {}
                () = pass_on(stream, acceptor, behind) => {}
            }
        });
    }
}

async fn pass_on(stream: TcpStream, acceptor: TlsAcceptor, behind: Behind) {
    // Small messages go to and fro; waiting for more of them would cost 40 ms each.
    let _ = stream.set_nodelay(true);
    let Ok(outside) = acceptor.accept(stream).await else { return };
    match behind {
        Behind::Tcp(addr) => {
            let Ok(inside) = TcpStream::connect(addr).await else { return };
            let _ = inside.set_nodelay(true);
            copy(outside, inside).await;
        }
        Behind::Unix(path) => {
            let Ok(inside) = UnixStream::connect(path).await else { return };
            copy(outside, inside).await;
        }
    }
}

async fn copy(mut outside: impl AsyncRead + AsyncWrite + Unpin, mut inside: impl AsyncRead + AsyncWrite + Unpin) {
    // A client or a server that goes away is its own affair.
    let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
}
