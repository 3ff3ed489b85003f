//! How the kernel shares the cores between the worker's threads.

#![allow(unsafe_code)]

use std::io;

/// Has this thread, and those that it will start, scheduled as a batch (sched(7), SCHED_BATCH), unless the service manager
/// has chosen a policy.
///
/// Else a thread that has an answer to write or a request to read takes the core from one that signs, often in the middle
/// of a lock of the module that the others then wait for in turn: measured with SoftHSM2, a fifth of the signatures. As a
/// batch it waits until a core is free or the kernel's tick comes, and finds several to write or read.
///
/// # Errors
/// When the kernel refuses. The worker is slower then, and right.
pub(in crate::custody) fn as_a_batch() -> io::Result<()> {
    // SAFETY: takes numbers alone.
    match unsafe { libc::sched_getscheduler(0) } {
        -1 => return Err(io::Error::last_os_error()),
        libc::SCHED_OTHER => {}
        _ => return Ok(()),
    }
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters outlive the call, which only reads them.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn threads_started_afterwards_are_scheduled_as_a_batch_and_others_are_not() {
        // SAFETY: takes a number alone.
        let policy = || unsafe { libc::sched_getscheduler(0) };
        let inner = std::thread::spawn(move || {
            as_a_batch().unwrap();
            as_a_batch().unwrap();
            std::thread::spawn(policy).join().unwrap()
        });
        assert_eq!((inner.join().unwrap(), policy()), (libc::SCHED_BATCH, libc::SCHED_OTHER));
    }
}
