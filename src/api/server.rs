//! Accepts connections and hands them out: one acceptor, and an event loop per core.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::connection::{Accepted, Front};
use super::peers::Peers;
use super::stage::Stage;
use crate::pipeline::{Appliance, Live};

/// Starts the event loops; the acceptor hands each connection to the one that has the fewest.
pub(crate) struct EventLoops {
    loops: Vec<EventLoop>,
    live: Arc<Live>,
}

struct EventLoop {
    connections: mpsc::UnboundedSender<Accepted>,
    open: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

/// Counts the turns of the event loops, so that one that hangs is noticed.
pub(crate) struct Clock {
    turns: Vec<Arc<AtomicU64>>,
    /// As they were when all had turned last, and when that was.
    seen: Vec<u64>,
    since: Instant,
}

impl Clock {
    /// Whether every event loop has turned since this was last true.
    pub(crate) fn all_turned(&mut self) -> bool {
        let now: Vec<u64> = self.turns.iter().map(|turns| turns.load(Ordering::Relaxed)).collect();
        let all = now.iter().zip(&self.seen).all(|(now, seen)| now != seen);
        if all {
            (self.seen, self.since) = (now, Instant::now());
        }
        all
    }

    /// The event loops that have not turned since, by their threads' names, and for how long.
    pub(crate) fn hanging(&self) -> (String, Duration) {
        let still = self.turns.iter().zip(&self.seen).enumerate();
        let still = still.filter(|(_, (turns, seen))| turns.load(Ordering::Relaxed) == **seen);
        (still.map(|(index, _)| format!("api-{index}")).collect::<Vec<_>>().join(", "), self.since.elapsed())
    }
}

impl EventLoops {
    /// Starts `count` event loops on threads of their own, each of which counts a turn every `tick`. They stop, in good
    /// order, after the acceptor.
    ///
    /// # Errors
    /// When a thread or its event loop cannot be made.
    pub(crate) fn start(
        count: usize,
        live: &Arc<Live>,
        stage: &watch::Receiver<Stage>,
        tick: Duration,
    ) -> io::Result<(Self, Clock)> {
        let peers = Arc::new(Peers::default());
        let mut loops = Vec::with_capacity(count);
        let mut turns = Vec::with_capacity(count);
        for index in 0..count {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(1)
                .thread_keep_alive(Duration::from_secs(10))
                .build()?;
            let (sender, receiver) = mpsc::unbounded_channel();
            let open = Arc::new(AtomicUsize::new(0));
            let counted = Arc::<AtomicU64>::default();
            turns.push(Arc::clone(&counted));
            let front = Front {
                live: Arc::clone(live),
                open: Arc::clone(&open),
                peers: Arc::clone(&peers),
                stage: stage.clone(),
            };
            let run = async move {
                let turning = tokio::spawn(async move {
                    let mut ticks = tokio::time::interval(tick);
                    loop {
                        ticks.tick().await;
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                });
                run(front, receiver).await;
                turning.abort();
            };
            let thread =
                std::thread::Builder::new().name(format!("api-{index}")).spawn(move || runtime.block_on(run))?;
            loops.push(EventLoop { connections: sender, open, thread });
        }
        let seen = vec![0; turns.len()];
        Ok((Self { loops, live: Arc::clone(live) }, Clock { turns, seen, since: Instant::now() }))
    }

    /// Accepts until the front leaves, then waits for the event loops to finish what they have.
    ///
    /// While the front drains, who connects is served: the connections from before may take as long as a request may, and
    /// nobody should wait for that. When the last of them has ended, this moves the stage on to [`Stage::Leaving`].
    pub(crate) async fn accept(self, listener: TcpListener, stage: &watch::Sender<Stage>) {
        // Held by every connection that was accepted while it was the era's; it counts them.
        let mut era = Arc::new(());
        let mut before: Option<(Arc<()>, Instant)> = None;
        let mut stages = stage.subscribe();
        loop {
            let at = *stages.borrow_and_update();
            if at == Stage::Draining && before.is_none() {
                before = Some((std::mem::replace(&mut era, Arc::new(())), Instant::now()));
            }
            if let Some((era, since)) = &before {
                let patience = self.live.now().config.server.limits.request_timeout.get();
                if Arc::strong_count(era) == 1 || since.elapsed() > patience {
                    stage.send_replace(Stage::Leaving);
                }
            }
            if *stage.borrow() == Stage::Leaving {
                break;
            }
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stages.changed() => continue,
                () = tokio::time::sleep(LOOK), if before.is_some() => continue,
            };
            match accepted {
                Ok((stream, address)) => {
                    // On a socket for both, IPv4 looks like IPv6.
                    let remote = SocketAddr::new(address.ip().to_canonical(), address.port());
                    let ends = if at == Stage::Serving { Stage::Draining } else { Stage::Leaving };
                    self.hand_on(Accepted { stream, remote, ends, _era: Arc::clone(&era) });
                }
                Err(error) => {
                    // Out of descriptors, usually. The pending connection stays in the backlog, so accepting again
                    // at once would spin.
                    tracing::error!(%error, "a connection could not be accepted; trying again in 100 ms");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(listener);
        let threads: Vec<_> = self.loops.into_iter().map(|event_loop| event_loop.thread).collect();
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("an event loop ended by a panic");
                }
            }
        });
        if joined.await.is_err() {
            tracing::error!("the event loops could not be waited for");
        }
    }

    fn hand_on(&self, accepted: Accepted) {
        let appliance = self.live.now();
        let open: usize = self.loops.iter().map(|event_loop| event_loop.open.load(Ordering::Relaxed)).sum();
        if open >= appliance.config.server.limits.max_connections.get() as usize {
            return refuse(&appliance, accepted.remote);
        }
        let Some(calmest) = self.loops.iter().min_by_key(|event_loop| event_loop.open.load(Ordering::Relaxed)) else {
            return;
        };
        // The stream is bound to the acceptor's reactor; it is taken off here and registered where it is served.
        calmest.open.fetch_add(1, Ordering::Relaxed);
        if calmest.connections.send(accepted).is_err() {
            calmest.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn refuse(appliance: &Appliance, remote: SocketAddr) {
    let detail = "the limit of open connections is reached";
    appliance.refused_connection(remote, None, "too_many_connections", detail);
}

/// One event loop: serves what it is handed, until the acceptor stops and everything is finished.
async fn run(front: Front, mut connections: mpsc::UnboundedReceiver<Accepted>) {
    // Each connection's task holds a clone of `alive`; when the last is dropped, everything is finished.
    let (alive, mut finished) = mpsc::channel::<()>(1);
    // The acceptor drops its end when it stops; what it accepted before is still served.
    while let Some(mut accepted) = connections.recv().await {
        match accepted.stream.into_std().and_then(TcpStream::from_std) {
            Ok(stream) => {
                accepted.stream = stream;
                let (front, alive) = (front.clone(), alive.clone());
                tokio::spawn(async move {
                    let open = Open(Arc::clone(&front.open));
                    front.serve(accepted).await;
                    drop((open, alive));
                });
            }
            Err(error) => {
                front.open.fetch_sub(1, Ordering::Relaxed);
                tracing::warn!(%error, address = %accepted.remote, "a connection could not be taken over");
            }
        }
    }
    drop(alive);
    let patience = front.live.now().config.server.limits.request_timeout.get();
    if timeout(patience, finished.recv()).await.is_err() {
        tracing::warn!("connections were still open when the time to finish was up");
    }
}

/// Gives a connection's place back, however its task ends.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Between two looks whether the connections from before have ended.
const LOOK: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_fed_only_when_every_event_loop_has_turned() {
        let turns = vec![Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default()];
        let mut clock = Clock { turns: turns.clone(), seen: vec![0; 2], since: Instant::now() };
        assert!(!clock.all_turned());
        turns[0].fetch_add(1, Ordering::Relaxed);
        assert!(!clock.all_turned());
        turns[1].fetch_add(1, Ordering::Relaxed);
        assert!(clock.all_turned() && !clock.all_turned());
        turns[0].fetch_add(5, Ordering::Relaxed);
        assert!(!clock.all_turned());
        assert_eq!(clock.hanging().0, "api-1");
    }
}
