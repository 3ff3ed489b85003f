//! Addresses of one host, looked up off the event loops, and a connection to the first of them that lets us in.
//!
//! The system's resolver blocks for as long as a DNS server is silent. On the blocking thread of an event loop it would
//! hold up everything else that needs that thread, so each look-up has a thread of its own, and there is at most one for
//! a host at a time. What was found is used for [`FRESH`], and after that for as long as looking up again fails.

#![forbid(unsafe_code)]

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::watch;

/// Where one host is.
#[derive(Debug)]
pub(super) struct Resolver {
    host: Arc<str>,
    port: u16,
    look_up: LookUp,
    shared: Arc<Shared>,
}

type LookUp = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Counts the look-ups that are over.
    over: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    known: Option<Known>,
    under_way: bool,
    /// Why the last look-up failed, and when; `None` when it did not.
    failed: Option<(Instant, io::ErrorKind, String)>,
}

#[derive(Debug)]
struct Known {
    addresses: Arc<[SocketAddr]>,
    since: Instant,
}

impl Resolver {
    /// A host, by name or address, without brackets. Looks nothing up.
    pub(super) fn new(host: &str, port: u16) -> Self {
        Self::with(host, port, |host, port| Ok((host, port).to_socket_addrs()?.collect()))
    }

    fn with(host: &str, port: u16, look_up: LookUp) -> Self {
        let shared = Shared { state: Mutex::default(), over: watch::Sender::new(0) };
        Self { host: host.into(), port, look_up, shared: Arc::new(shared) }
    }

    /// Host and port.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// A connection to the first address that lets us in. Each but the last has an equal share of the time that is left,
    /// so that one that drops everything leaves some for the next. The caller bounds the whole by `until` as well.
    pub(super) async fn connect(&self, until: Instant) -> io::Result<TcpStream> {
        let addresses = self.addresses().await?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for (i, address) in addresses.iter().enumerate() {
            let left = u32::try_from(addresses.len() - i).unwrap_or(u32::MAX);
            let now = Instant::now();
            let share = until.saturating_duration_since(now) / left;
            let connecting = TcpStream::connect(*address);
            let connected = if left == 1 {
                connecting.await
            } else {
                let connected = tokio::time::timeout_at((now + share).into(), connecting).await;
                connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            };
            match connected {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Looks up again in time, so that nobody waits for it. To be called about once a second.
    pub(super) fn refresh(&self) {
        if self.literal().is_some() {
            return;
        }
        let mut state = self.shared.lock();
        let due = state.known.as_ref().is_none_or(|known| known.since.elapsed() >= FRESH / 2);
        if due && state.may_try() {
            self.begin(&mut state);
        }
    }

    async fn addresses(&self) -> io::Result<Arc<[SocketAddr]>> {
        if let Some(literal) = self.literal() {
            return Ok([literal].into());
        }
        let mut over = self.shared.over.subscribe();
        {
            let mut state = self.shared.lock();
            let stale = state.known.as_ref().is_none_or(|known| known.since.elapsed() >= FRESH);
            if stale && (state.known.is_none() || state.may_try()) {
                self.begin(&mut state);
            }
            if let Some(known) = &state.known {
                return Ok(Arc::clone(&known.addresses));
            }
        }
        // The sender lives as long as this does.
        let _ = over.changed().await;
        let state = self.shared.lock();
        match (&state.known, &state.failed) {
            (Some(known), _) => Ok(Arc::clone(&known.addresses)),
            (None, Some((_, kind, why))) => Err(io::Error::new(*kind, why.clone())),
            (None, None) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn literal(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.host.parse::<IpAddr>().ok()?, self.port))
    }

    /// Starts a look-up unless one is under way.
    fn begin(&self, state: &mut State) {
        if state.under_way {
            return;
        }
        state.under_way = true;
        let (shared, host, port, look_up) = (Arc::clone(&self.shared), Arc::clone(&self.host), self.port, self.look_up);
        let thread = std::thread::Builder::new().name("keyless-dns".to_owned());
        let spawned = thread.spawn(move || {
            let found = look_up(&host, port);
            let found = found.and_then(|addresses| match addresses.is_empty() {
                false => Ok(addresses),
                true => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
            });
            shared.finish(&host, found);
        });
        if let Err(error) = spawned {
            // Whoever waits is told.
            state.note(&self.host, Err(error));
            self.shared.over.send_modify(|count| *count += 1);
        }
    }
}

impl Shared {
    fn finish(&self, host: &str, found: io::Result<Vec<SocketAddr>>) {
        self.lock().note(host, found);
        self.over.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, host: &str, found: io::Result<Vec<SocketAddr>>) {
        self.under_way = false;
        let now = Instant::now();
        match found {
            Ok(addresses) => {
                self.known = Some(Known { addresses: addresses.into(), since: now });
                self.failed = None;
            }
            Err(error) => {
                if self.failed.is_none() {
                    tracing::warn!(host, %error, known = self.known.is_some(), "a name could not be looked up");
                }
                self.failed = Some((now, error.kind(), format!("the name {host} could not be looked up: {error}")));
            }
        }
    }

    /// Whether the last failure is long enough ago.
    fn may_try(&self) -> bool {
        self.failed.as_ref().is_none_or(|(at, ..)| at.elapsed() >= PAUSE)
    }
}

/// How long addresses are used without looking whether they have changed. After half of it they are looked up again.
const FRESH: Duration = Duration::from_secs(60);
/// Between two look-ups that nobody waits for, after one failed.
const PAUSE: Duration = Duration::from_secs(5);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[tokio::test]
    async fn an_address_is_not_looked_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let resolver = Resolver::with("127.0.0.1", port, |_, _| panic!("looked up"));
        resolver.refresh();
        assert_eq!(resolver.connect(soon()).await.unwrap().peer_addr().unwrap(), listener.local_addr().unwrap());
    }

    #[tokio::test]
    async fn all_who_need_it_wait_for_one_look_up_which_is_not_on_their_threads() {
        static ASKED: AtomicU32 = AtomicU32::new(0);
        static GO: Barrier = Barrier::new(2);
        let resolver = Arc::new(Resolver::with("fulcio.example", 1, |_, port| {
            ASKED.fetch_add(1, SeqCst);
            GO.wait();
            Ok(vec![([127, 0, 0, 1], port).into()])
        }));
        let waiting: Vec<_> = (0..8)
            .map(|_| {
                let resolver = Arc::clone(&resolver);
                tokio::spawn(async move { resolver.addresses().await.unwrap().len() })
            })
            .collect();
        while ASKED.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        // This loop has one thread, and so has its pool for what blocks: neither waits for the look-up.
        tokio::task::spawn_blocking(|| {}).await.unwrap();
        GO.wait();
        for one in waiting {
            assert_eq!(one.await.unwrap(), 1);
        }
        assert_eq!(resolver.addresses().await.unwrap().len(), 1);
        assert_eq!(ASKED.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn the_last_good_addresses_are_used_while_a_look_up_fails() {
        static FAILS: AtomicU32 = AtomicU32::new(0);
        let resolver = Resolver::with("fulcio.example", 7, |_, port| match FAILS.load(SeqCst) {
            0 => Ok(vec![([127, 0, 0, 1], port).into()]),
            _ => {
                FAILS.fetch_add(1, SeqCst);
                Err(io::ErrorKind::TimedOut.into())
            }
        });
        resolver.addresses().await.unwrap();
        FAILS.store(1, SeqCst);
        // They have become old.
        resolver.shared.lock().known.as_mut().unwrap().since = Instant::now().checked_sub(FRESH).unwrap();
        assert_eq!(*resolver.addresses().await.unwrap(), [SocketAddr::from(([127, 0, 0, 1], 7))]);
        let deadline = soon();
        while resolver.shared.lock().failed.is_none() {
            assert!(Instant::now() < deadline, "it is looked up again");
            tokio::task::yield_now().await;
        }
        assert_eq!(resolver.addresses().await.unwrap().len(), 1);
        assert_eq!(FAILS.load(SeqCst), 2, "not again at once");
    }

    #[tokio::test]
    async fn a_name_that_is_none_is_an_error_that_names_it() {
        let resolver = Resolver::with("fulcio.example", 7, |_, _| Ok(vec![]));
        let error = resolver.connect(soon()).await.unwrap_err().to_string();
        assert!(error.contains("fulcio.example"), "{error}");
    }

    #[tokio::test]
    async fn an_address_that_drops_everything_leaves_time_for_the_next() {
        // A listener whose queue is full drops what comes.
        let full = tokio::net::TcpSocket::new_v4().unwrap();
        full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = full.listen(1).unwrap();
        let dead = full.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(dead)).await {
            queued.push(stream.unwrap());
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let resolver = Resolver::with("fulcio.example", 7, |_, _| unreachable!());
        let alive = listener.local_addr().unwrap();
        resolver.shared.lock().known = Some(Known { addresses: [dead, alive].into(), since: Instant::now() });
        let until = Instant::now() + Duration::from_secs(4);
        let connected = tokio::time::timeout_at(until.into(), resolver.connect(until)).await.unwrap().unwrap();
        assert_eq!(connected.peer_addr().unwrap(), alive);
    }
}
