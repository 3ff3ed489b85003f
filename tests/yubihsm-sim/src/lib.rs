//! A simulated YubiHSM 2 behind Yubico's HTTP connector protocol.
//!
//! | module | what it is |
//! |---|---|
//! | `http` | the connector: `POST /connector/api`, `GET /connector/status`; and `POST /control`, which is ours |
//! | [`device`] | the device: plain commands, its 16 sessions |
//! | `channel` | SCP03, the device's half |
//! | `commands` | what is carried out within a session |
//! | [`object`] | keys and other objects, their capabilities |
//! | `log` | the log of 62 entries, chained |
//! | `attestation` | certificates for keys, up to a root made for this run |
//! | [`control`] | what a test can have it do |
//!
//! Written from Yubico's manual; the crate `yubihsm`, which is not ours, is its other side in `tests/`. That crate's own
//! mock device was looked at first: it has neither the limit of sessions nor their expiry, its log is always empty, and
//! it panics when asked for an attestation.
//!
//! Nothing here is protected: keys are in memory, and whoever reaches the port may have it do anything.

#![forbid(unsafe_code)]

mod attestation;
mod channel;
mod commands;
pub mod control;
pub mod device;
mod http;
mod log;
pub mod object;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

pub use control::Control;
pub use device::{Device, Settings};

/// A device and its connector at work, until dropped.
pub struct Simulator {
    addr: SocketAddr,
    device: Arc<Mutex<Device>>,
    stopping: Arc<AtomicBool>,
    accept: Option<JoinHandle<()>>,
}

impl Simulator {
    /// On a free port of the loopback.
    ///
    /// # Errors
    /// When nothing can be listened on.
    pub fn start(settings: Settings) -> io::Result<Self> {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0)), settings)
    }

    /// On this address.
    ///
    /// # Errors
    /// When it cannot be listened on.
    pub fn start_on(addr: SocketAddr, settings: Settings) -> io::Result<Self> {
        let listener = TcpListener::bind(addr)?;
        let addr = listener.local_addr()?;
        let device = Arc::new(Mutex::new(Device::new(settings)));
        let stopping = Arc::new(AtomicBool::new(false));
        let (shared, flag) = (Arc::clone(&device), Arc::clone(&stopping));
        let accept = std::thread::spawn(move || http::accept(&listener, &shared, &flag));
        Ok(Self { addr, device, stopping, accept: Some(accept) })
    }

    /// The connector, as in `http://127.0.0.1:12345`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Where the connector listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Has it do something, as `POST /control` does.
    pub fn control(&self, control: Control) {
        self.with(|device| device.control(control));
    }

    /// Looks at the device, or changes it, between two commands.
    pub fn with<T>(&self, act: impl FnOnce(&mut Device) -> T) -> T {
        act(&mut self.device.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Accepting cannot be interrupted; a connection from ourselves wakes the thread.
        let woken = TcpStream::connect(self.addr).is_ok();
        if let Some(accept) = self.accept.take().filter(|_| woken) {
            let _ = accept.join();
        }
    }
}
