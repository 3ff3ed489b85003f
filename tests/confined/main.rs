//! The package on kernels that confine it: AppArmor with the profiles that the package brings, and SELinux with the
//! module. An operator's way from `init` to signatures must not meet one denial, and what is promised of the
//! confinement must hold.
//!
//! Each test boots a Debian 12 with its own kernel, emulated; one at a time, because both listen on the same port.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod apparmor;
mod selinux;
mod site;
mod steps;
