//! The sealed helper of one Fulcio flow, and what it says to its parent.
//!
//! [`wire`] is all that the parent links: messages, their bounds, and how they become bytes.

#![deny(unsafe_code)]

pub mod wire;
