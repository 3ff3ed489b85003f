//! Metrics and operational logs.

#![forbid(unsafe_code)]

pub mod alert;
mod custody;
mod journal;
mod keyless;
mod laps;
pub mod log;
pub mod manager;
mod metrics;
mod release;

pub use custody::CustodyMetrics;
pub use keyless::{KeylessMetrics, TimestampMetrics};
pub use laps::{Laps, Stage};
pub use metrics::{AuditMetrics, CONTENT_TYPE, Metrics, PlanLabels, TokenFigures};
pub use release::ReleaseMetrics;
