//! What happened, durably, before anyone hears of it.

#![forbid(unsafe_code)]
