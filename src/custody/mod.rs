//! Which key, in which token: the registry and resolver, the wire protocol, the front's client, the worker.

#![deny(unsafe_code)]
