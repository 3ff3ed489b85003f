//! What needs a real Fulcio and a real timestamp authority.

mod control;
