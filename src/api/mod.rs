//! Listeners, routes, and how a request and an answer look on the wire.

#![forbid(unsafe_code)]

mod body;
mod client_chain;
mod connection;
pub mod contract;
mod guard;
mod keys;
mod live_tls;
mod local;
pub mod openapi;
mod operator;
pub mod problem;
mod referrers;
pub mod request;
mod resets;
pub(crate) mod response;
mod routes;
mod sending;
mod server;
mod stage;
mod tls;
mod verify;

pub(crate) use body::{BodyBudget, Held, take as take_body};
pub(crate) use live_tls::LiveTls;
pub(crate) use local::{CustodyReadiness, KeylessReadiness, LocalListener, Readiness, TimestampReadiness};
pub(crate) use sending::Sending;
pub(crate) use server::{Clock, EventLoops};
pub(crate) use stage::Stage;
