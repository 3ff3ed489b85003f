//! Many clients that sign all the time, and none of whom may ever be refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use testkit::client::Client;
use testkit::sample;

/// Clients at work; [`Crowd::go_home`] ends it.
pub(crate) struct Crowd {
    stop: Arc<AtomicBool>,
    signed: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Met>>,
}

/// What they met.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) signed: u64,
    pub(crate) failures: Vec<String>,
    /// The longest that anyone waited for an answer.
    pub(crate) longest: Duration,
}

impl Crowd {
    /// Half of them keep their connection, the other half opens one for each request.
    pub(crate) fn come(client: &Client, count: usize) -> Self {
        let (stop, signed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let clients = (0..count)
            .map(|number| {
                let (stop, signed, own) = (stop.clone(), signed.clone(), client.fork());
                thread::spawn(move || work(&own, number % 2 == 0, &stop, &signed))
            })
            .collect();
        let crowd = Self { stop, signed, clients };
        crowd.wait_for_more(count as u64);
        crowd
    }

    /// Waits until so many more signatures were made, whoever made them.
    pub(crate) fn wait_for_more(&self, signatures: u64) {
        let (until, deadline) = (self.signed.load(Ordering::Relaxed) + signatures, Instant::now() + PATIENCE);
        while self.signed.load(Ordering::Relaxed) < until {
            if Instant::now() > deadline || self.clients.iter().any(JoinHandle::is_finished) {
                // The tally says why.
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The sum of it all.
    pub(crate) fn go_home(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut tally = Tally { signed: 0, failures: Vec::new(), longest: Duration::ZERO };
        for client in self.clients {
            let (failures, longest) = client.join().unwrap();
            tally.failures.extend(failures);
            tally.longest = tally.longest.max(longest);
        }
        tally.signed = self.signed.load(Ordering::Relaxed);
        tally
    }
}

impl Tally {
    /// Nobody met a failure, and there was somebody to meet one.
    #[track_caller]
    pub(crate) fn is_clean(&self, at_least: u64) -> &Self {
        println!("{} signatures, the longest took {:?}", self.signed, self.longest);
        assert!(
            self.failures.is_empty(),
            "{} of {} failed, such as {:#?}",
            self.failures.len(),
            self.signed,
            &self.failures[..self.failures.len().min(5)]
        );
        assert!(self.signed >= at_least, "only {} signatures", self.signed);
        self
    }
}

/// What one of them met, and the longest that it waited.
type Met = (Vec<String>, Duration);

fn work(client: &Client, keeps: bool, stop: &AtomicBool, signed: &AtomicU64) -> Met {
    let (mut failures, mut longest) = (Vec::new(), Duration::ZERO);
    while !stop.load(Ordering::Relaxed) && failures.len() < ENOUGH {
        let caller = if keeps { client.clone() } else { client.fork() };
        let start = Instant::now();
        match caller.sign(&sample::request()).try_send() {
            Ok(answer) if answer.status == 200 => drop(signed.fetch_add(1, Ordering::Relaxed)),
            Ok(answer) => failures.push(format!("{}: {}", answer.status, answer.text())),
            Err(error) => failures.push(format!("{}: {}", if keeps { "kept" } else { "new" }, error.0)),
        }
        longest = longest.max(start.elapsed());
    }
    (failures, longest)
}

/// Nobody learns more from further failures of one client.
const ENOUGH: usize = 20;
const PATIENCE: Duration = Duration::from_secs(60);
