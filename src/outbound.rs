//! HTTP to the services the appliance depends on: bounded, verified, never redirected.

#![forbid(unsafe_code)]
