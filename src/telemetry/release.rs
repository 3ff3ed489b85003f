//! Look-ups of scanner images, as metrics.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::metrics::registered;

type Labels = [(&'static str, &'static str); 1];

/// How often verdicts were at hand, and what it took where they were not.
#[derive(Clone, Debug)]
pub struct ReleaseMetrics {
    at_hand: Counter,
    refreshed: Counter,
    look_ups: Family<Labels, Counter>,
    seconds: Histogram,
}

impl ReleaseMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let help = "Verdicts on scanner images that were at hand";
        Self {
            at_hand: registered(registry, "release_verdicts_at_hand", help, Counter::default()),
            refreshed: registered(
                registry,
                "release_refreshes",
                "Look-ups of scanner images begun before their verdict ran out",
                Counter::default(),
            ),
            look_ups: registered(
                registry,
                "release_look_ups",
                "Look-ups of scanner images, by what came of them",
                Family::default(),
            ),
            seconds: registered(
                registry,
                "release_look_up_seconds",
                "Time of a look-up of a scanner image, in seconds",
                Histogram::new(BUCKETS.iter().copied()),
            ),
        }
    }

    /// For a program that shows no metrics.
    #[must_use]
    pub fn unseen() -> Self {
        Self::new(&mut Registry::default())
    }

    /// A verdict was at hand.
    pub fn at_hand(&self) {
        self.at_hand.inc();
    }

    /// A look-up was begun before the verdict ran out.
    pub fn refreshed(&self) {
        self.refreshed.inc();
    }

    /// A look-up ended: `trusted`, `untrusted` or `unavailable`.
    pub fn looked_up(&self, result: &'static str, took: Duration) {
        self.look_ups.get_or_create(&[("result", result)]).inc();
        self.seconds.observe(took.as_secs_f64());
    }
}

const BUCKETS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0];
