//! What an operator does to tokens and keys, through the real programs on SoftHSM2: the life of a key from an empty
//! token to its end, the refusals on the way, and what `token doctor` says of set-ups that are broken.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod desk;
mod doctor;
mod doctor_device;
mod guards;
mod life;
mod terminal;
mod yubihsm;
