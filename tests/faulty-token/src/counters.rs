//! What the module saw.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Function, Pin};

/// What the module saw since it was loaded or its counters were reset, in the process that answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// The process.
    pub pid: u32,
    /// How many processes have loaded the module with this state file, this one included; 1 without one.
    pub loads: u64,
    /// Functions that were called.
    pub functions: BTreeMap<Function, FunctionCounters>,
    /// Good signatures given out.
    pub signatures: u64,
    /// Signatures given out spoilt.
    pub corrupted: u64,
    /// Of the good ones, those that were remembered instead of made.
    pub remembered: u64,
    /// Sessions open now.
    pub sessions: u64,
    /// Sessions open at most.
    pub most_sessions: u64,
    /// Calls that hang now.
    pub hanging: u64,
    /// Microseconds by which the operating system woke signing calls after their time, all together. A lane gives each
    /// back to the call that follows closely.
    pub late_us: u64,
    /// The device's own account of PINs, over all processes with this state file.
    pub pin: Pin,
    /// What the application did that PKCS#11 forbids or that no good application does.
    pub misuse: Vec<Misuse>,
}

impl Counters {
    /// The counters of one function.
    #[must_use]
    pub fn of(&self, function: Function) -> FunctionCounters {
        self.functions.get(&function).copied().unwrap_or_default()
    }

    /// How often the application did it.
    #[must_use]
    pub fn misused(&self, kind: MisuseKind) -> u64 {
        self.misuse.iter().filter(|misuse| misuse.kind == kind).map(|misuse| misuse.count).sum()
    }
}

/// Counters of one function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionCounters {
    /// Calls, those that ask for a length only excepted.
    pub calls: u64,
    /// Calls of `C_Sign` that ask for the length only. Faults pass them by.
    pub length_queries: u64,
    /// Calls on which a fault fell.
    pub injected: u64,
    /// Calls under way now.
    pub in_flight: u64,
    /// Calls under way at most.
    pub most_in_flight: u64,
}

/// A thing that the application should not have done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Misuse {
    /// What.
    pub kind: MisuseKind,
    /// In which function.
    pub function: Function,
    /// How often.
    pub count: u64,
}

/// Things that an application should not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MisuseKind {
    /// A call before the first `C_Initialize` that succeeded.
    BeforeInitialize,
    /// `C_Initialize` of an initialised module.
    InitializedTwice,
    /// A call after `C_Finalize`.
    AfterFinalize,
    /// `C_Finalize` while another thread is in a call.
    FinalizeDuringCall,
    /// Calls at the same time after a `C_Initialize` that promised there would be none.
    ThreadsWithoutLocking,
    /// A session handle that was never given out.
    UnknownSession,
    /// A call on a session that the application closed.
    UsedAfterClose,
    /// `C_CloseSession` of a session that the application closed.
    ClosedTwice,
    /// A call other than `C_CloseSession` and `C_FindObjectsFinal` on a session that gave a code which means it is gone.
    ReusedAfterLoss,
    /// Two threads in calls on one session.
    SessionShared,
    /// An operation begun on a session that has one.
    OperationActive,
    /// An operation continued that was not begun.
    OperationNotInitialized,
    /// A login attempt although the PIN is locked.
    LoginWhileLocked,
    /// A login attempt with the PIN that the device refused last.
    RefusedPinAgain,
}
