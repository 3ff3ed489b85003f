//! `signerd`: starts the front and stops it in good order.

#![forbid(unsafe_code)]
