//! Whether the evidence was made by a scanner that somebody released.

#![forbid(unsafe_code)]
