//! What the process gives up before it reads anything, the memory it lives in, and how it leaves.
//!
//! The only place of this package with `unsafe`. Everything it offers is safe to call from the one thread that there
//! is; the process never has a second one.

mod arena;
mod capabilities;
mod filter;
mod landlock;
mod limits;
mod process;
mod sockets;
mod wipe;

use std::io;

pub use arena::Arena;
pub(crate) use sockets::{Fulcio, Parent};
pub(crate) use wipe::{Exit, begin, scrubbed, vanish};

use crate::wire::{Layer, Layers, Sealed};

/// A layer that cannot be had.
#[derive(Debug)]
pub(crate) struct Missing {
    pub(crate) layer: Layer,
    pub(crate) error: io::Error,
}

/// Closes the sandbox: every layer but the exceptions, or none of the flow.
///
/// The order matters: the bounding set is emptied while there is a right to, a change of user makes a process dumpable
/// again, Landlock needs a descriptor before limits and filter forbid it, and the filter comes last.
///
/// # Errors
/// The first layer that cannot be had.
pub(crate) fn seal(exceptions: Layers) -> Result<Sealed, Missing> {
    let mut closed = Layers::default();
    let mut landlock_abi = 0;
    let mut layer = |layer, close: &mut dyn FnMut() -> io::Result<()>| {
        if !exceptions.contains(layer) {
            close().map_err(|error| Missing { layer, error })?;
            closed.insert(layer);
        }
        Ok(())
    };
    layer(Layer::Descriptors, &mut process::close_descriptors)?;
    layer(Layer::Capabilities, &mut capabilities::empty_bounding_set)?;
    layer(Layer::Unprivileged, &mut process::become_nobody)?;
    layer(Layer::Capabilities, &mut capabilities::drop_all)?;
    layer(Layer::NotDumpable, &mut process::hide)?;
    // No layer of its own: it takes nothing away, and can always be had.
    process::end_with_parent().map_err(|error| Missing { layer: Layer::Limits, error })?;
    layer(Layer::NoNewPrivileges, &mut process::no_new_privileges)?;
    layer(Layer::Landlock, &mut || {
        landlock_abi = landlock::restrict()?;
        Ok(())
    })?;
    process::warm_up();
    let uid = process::uid();
    layer(Layer::Limits, &mut limits::lower)?;
    layer(Layer::Seccomp, &mut filter::install)?;
    Ok(Sealed { layers: closed, landlock_abi, uid })
}
