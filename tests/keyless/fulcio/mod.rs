//! What needs a real Fulcio and a real timestamp authority.

mod bundles;
mod control;
mod oidc_provider;
mod outages;
