//! What only root may look at: the memory of a process that does not let itself be looked at.

mod memory;
mod scan;
