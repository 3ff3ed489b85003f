//! Metrics and operational logs.

#![forbid(unsafe_code)]
