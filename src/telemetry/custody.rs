//! Keys in their tokens, as metrics. Labels come from the configuration alone.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::metrics::registered;
use crate::custody::{GateAttribute, KeyFigures, KeyHealth};

type Labels<const N: usize> = [(&'static str, String); N];

/// What is known of each key in each token.
#[derive(Debug)]
pub struct CustodyMetrics {
    state: Family<Labels<3>, Gauge>,
    exceptions: Family<Labels<2>, Gauge>,
    canary: Family<Labels<2>, Gauge<f64, AtomicU64>>,
    canary_failures: Family<Labels<2>, Counter>,
    outstanding: Family<Labels<1>, Gauge>,
    taken_over: Family<Labels<1>, Counter>,
}

impl CustodyMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        Self {
            state: registered(
                registry,
                "custody_state",
                "1 for the state that a key is in, in a token; 0 for the others",
                Family::default(),
            ),
            exceptions: registered(
                registry,
                "custody_exceptions",
                "1 for each attribute that the configuration lets pass at the custody gate",
                Family::default(),
            ),
            canary: registered(
                registry,
                "custody_canary_seconds",
                "How long the last good test signature took, in seconds",
                Family::default(),
            ),
            canary_failures: registered(
                registry,
                "custody_canary_failures",
                "Test signatures that failed",
                Family::default(),
            ),
            outstanding: registered(
                registry,
                "token_outstanding",
                "Requests of this process under way in the token",
                Family::default(),
            ),
            taken_over: registered(
                registry,
                "custody_failovers",
                "Requests that the token signed after another one could not",
                Family::default(),
            ),
        }
    }

    /// How a key is in a token.
    pub fn key(&self, figures: &KeyFigures) {
        let (key, token) = (|| ("key", figures.key.to_string()), || ("token", figures.token.to_string()));
        for state in KeyHealth::ALL {
            let is = i64::from(state == figures.state);
            self.state.get_or_create(&[key(), token(), ("state", state.name().to_owned())]).set(is);
        }
        if let Some(took) = figures.canary {
            self.canary.get_or_create(&[key(), token()]).set(took.as_secs_f64());
        }
        let failures = self.canary_failures.get_or_create(&[key(), token()]);
        failures.inner().store(figures.canary_failures, Ordering::Relaxed);
    }

    /// What the configuration lets pass for a key.
    pub fn exception(&self, key: &str, attribute: GateAttribute) {
        let labels = [("key", key.to_owned()), ("attribute", attribute.name().to_owned())];
        self.exceptions.get_or_create(&labels).set(1);
    }

    /// How busy a token is, and how often it stood in for another.
    pub fn token(&self, token: &str, outstanding: usize, taken_over: u64) {
        let labels = [("token", token.to_owned())];
        self.outstanding.get_or_create(&labels).set(i64::try_from(outstanding).unwrap_or(i64::MAX));
        self.taken_over.get_or_create(&labels).inner().store(taken_over, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn the_state_of_a_key_is_one_of_four_series() {
        let metrics = Metrics::new();
        let figures = |state| KeyFigures {
            key: "acme".into(),
            token: "main".into(),
            state,
            canary: Some(std::time::Duration::from_millis(3)),
            canary_failures: 2,
        };
        metrics.custody.key(&figures(KeyHealth::Live));
        metrics.custody.key(&figures(KeyHealth::OutOfService));
        metrics.custody.exception("acme", GateAttribute::Local);
        metrics.custody.token("main", 4, 1);
        let text = metrics.render().unwrap();
        for line in [
            "signer_custody_state{key=\"acme\",token=\"main\",state=\"live\"} 0",
            "signer_custody_state{key=\"acme\",token=\"main\",state=\"out_of_service\"} 1",
            "signer_custody_exceptions{key=\"acme\",attribute=\"CKA_LOCAL\"} 1",
            "signer_custody_canary_seconds{key=\"acme\",token=\"main\"} 0.003",
            "signer_custody_canary_failures_total{key=\"acme\",token=\"main\"} 2",
            "signer_token_outstanding{token=\"main\"} 4",
            "signer_custody_failovers_total{token=\"main\"} 1",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
        }
    }
}
