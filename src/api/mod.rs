//! Listeners, routes, and how a request and an answer look on the wire.

#![forbid(unsafe_code)]

mod body;
mod client_chain;
pub mod contract;
mod guard;
mod keys;
mod local;
pub mod openapi;
mod operator;
pub mod problem;
mod referrers;
pub mod request;
pub(crate) mod response;
mod routes;
mod sending;
mod server;
mod tls;
mod verify;

pub(crate) use body::{BodyBudget, Held, take as take_body};
pub(crate) use local::{CustodyReadiness, KeylessReadiness, LocalListener, Readiness, TimestampReadiness};
pub(crate) use sending::Sending;
pub(crate) use server::EventLoops;
pub(crate) use tls::server_tls;
