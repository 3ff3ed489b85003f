//! The journal, where the events of [`alert`] have their ids.

#![forbid(unsafe_code)]

use std::io;

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::alert;

/// Fields are prefixed with `SIGNER_`, so that none is taken for one of the journal's own.
pub(super) struct Journal {
    plain: tracing_journald::Layer,
    /// A layer has fixed fields for all that it writes, so each alert has one, in the order of [`alert::ALL`].
    alerts: Vec<tracing_journald::Layer>,
}

impl Journal {
    /// # Errors
    /// When journald cannot be reached.
    pub(super) fn open() -> io::Result<Self> {
        let layer = || Ok(tracing_journald::layer()?.with_field_prefix(Some("SIGNER".to_owned())));
        let alerts = alert::ALL.iter().map(|alert| {
            let layer: io::Result<tracing_journald::Layer> = layer();
            layer.map(|layer| layer.with_custom_fields([("MESSAGE_ID", alert.id)]))
        });
        Ok(Self { alerts: alerts.collect::<io::Result<_>>()?, plain: layer()? })
    }

    fn layer_of(&self, name: &str) -> &tracing_journald::Layer {
        let alert = alert::ALL.iter().zip(&self.alerts).find(|(alert, _)| alert.name == name);
        alert.map_or(&self.plain, |(_, layer)| layer)
    }
}

impl<S> Layer<S> for Journal
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        self.plain.on_new_span(attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.plain.on_record(id, values, context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        self.layer_of(event.metadata().name()).on_event(event, context);
    }
}
