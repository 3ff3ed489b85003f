//! The way of a request, top to bottom.

#![forbid(unsafe_code)]
