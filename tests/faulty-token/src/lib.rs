//! A PKCS#11 module that stands in front of a real one and fails on command.
//!
//! The package is two things. As a C library it is the module: an application loads it in place of the vendor's, and
//! it hands every call on to the module named by `FAULTY_TOKEN_MODULE`, save for what it was told to spoil. As a Rust
//! library it is what a test holds: [`Controller`] speaks to the module over the Unix socket named by
//! `FAULTY_TOKEN_CONTROL`, in whatever process the module was loaded, and [`StateFile`] prepares what a module finds
//! when it is loaded.
//!
//! - [`Fault`]: what goes wrong in a call: which function, how often, with which [`Effect`].
//! - [`Condition`]: what the device is like until told otherwise: its speed, its session limit, its lies.
//! - [`Event`]: what happens to the device: the token is pulled, sessions are lost, it breaks.
//! - [`Counters`]: what the module saw, with the [`Misuse`] that it caught the application at.
//! - [`ckr`], [`attribute`], [`Function`]: the names of PKCS#11, both ways.
//! - `module`: the exported functions and the device behind them; the only part with `unsafe` code.

pub mod attribute;
pub mod ckr;
mod controller;
mod counters;
mod device;
mod fault;
mod function;
mod module;
mod protocol;
mod state_file;

pub use attribute::Attribute;
pub use ckr::Ckr;
pub use controller::{ControlError, Controller, module_path};
pub use counters::{Counters, FunctionCounters, Misuse, MisuseKind};
pub use device::{Condition, Event, IdleEnd, KeyClass, Says, Until};
pub use fault::{Chance, Corruption, Crash, Delay, Effect, Fault, Times};
pub use function::Function;
pub use module::C_GetFunctionList;
pub use protocol::{Request, Response};
pub use state_file::{Failing, Pin, Removal, State, StateFile};

/// Environment variable: path of the module that does the work.
pub const MODULE_VARIABLE: &str = "FAULTY_TOKEN_MODULE";
/// Environment variable: path of the Unix socket on which the module listens; without it the module is not steered.
pub const CONTROL_VARIABLE: &str = "FAULTY_TOKEN_CONTROL";
/// Environment variable: path of the file that carries the device's state from one process to the next.
pub const STATE_VARIABLE: &str = "FAULTY_TOKEN_STATE";
/// Environment variable: path of this module's library, where [`module_path()`] cannot guess it.
pub const LIBRARY_VARIABLE: &str = "FAULTY_TOKEN_LIBRARY";
