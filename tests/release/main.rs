//! Release integrity: which images are trusted, which are not, what each answer costs a registry, and what it is called.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod api;
mod bounds;
mod cli;
mod cosign;
mod distribution;
mod go_registry;
mod hostile;
mod keyless;
mod notary;
mod notation;
mod policy;
mod real;
mod site;
mod snapshot;
mod stage;
mod zot;
