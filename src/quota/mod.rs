//! Whether a request may run now: rate, concurrency and size, per licence and tenant.

#![forbid(unsafe_code)]
