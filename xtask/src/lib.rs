//! What a person types in this repository, and the little that `demo` shares with it.

#![forbid(unsafe_code)]

pub mod ui;
