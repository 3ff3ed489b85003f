//! What the device is like, and what happens to it.

use std::time::Duration;

use cryptoki_sys::{CK_RV, CK_SLOT_ID, CKR_OK, CKR_SLOT_ID_INVALID, CKR_TOKEN_NOT_PRESENT, CKR_USER_NOT_LOGGED_IN};

use super::lanes::Speed;
use super::sessions::Fate;
use super::{Module, call, lock};
use crate::{Ckr, Condition, Delay, Event, Failing, Function, IdleEnd, Removal, State, StateFile, Until, ckr};

/// The state of the device.
pub(super) struct Device {
    pub(super) removed: Option<Removal>,
    pub(super) failing: Option<Failing>,
    pub(super) conditions: Vec<Condition>,
    /// Whether a login was lost and not made anew.
    pub(super) login_lost: bool,
    /// Changes with every login and loss of it, because object handles do not outlive either.
    pub(super) epoch: u64,
}

impl Device {
    pub(super) fn remembering(state: &State) -> Self {
        Self {
            removed: state.removed,
            failing: state.failing,
            conditions: state.conditions.clone(),
            login_lost: false,
            epoch: 0,
        }
    }

    /// How many wrong PINs lock it.
    pub(super) fn pin_attempts(&self) -> Option<u32> {
        self.last(|condition| match condition {
            Condition::PinAttempts { limit } => Some(*limit),
            _ => None,
        })
        .unwrap_or(Some(DEFAULT_PIN_ATTEMPTS))
    }

    pub(super) fn session_limit(&self) -> Option<u64> {
        self.last(|condition| match condition {
            Condition::SessionLimit { sessions } => Some(*sessions),
            _ => None,
        })
    }

    pub(super) fn idle_limit(&self) -> Option<(Duration, IdleEnd)> {
        self.last(|condition| match condition {
            Condition::IdleLimit { idle_ms, then } => Some((Duration::from_millis(*idle_ms), *then)),
            _ => None,
        })
    }

    /// Whether signatures are remembered.
    pub(super) fn memo(&self) -> bool {
        self.last(|condition| match condition {
            Condition::Lanes { memo, .. } => Some(*memo),
            _ => None,
        })
        .unwrap_or(false)
    }

    /// Whether the device's time is its own, so that the real module's work belongs into `C_Sign`.
    pub(super) fn has_speed(&self) -> bool {
        self.speed().is_some()
    }

    pub(super) fn virtual_keys(&self) -> Option<(u32, String)> {
        self.last(|condition| match condition {
            Condition::VirtualKeys { count, like } => Some((*count, like.clone())),
            _ => None,
        })
    }

    fn speed(&self) -> Option<Speed> {
        self.last(|condition| match condition {
            Condition::Lanes { lanes, latency_us, jitter_us, .. } => {
                Some(Speed { lanes: *lanes, latency: Delay { fixed_us: *latency_us, jitter_us: *jitter_us } })
            }
            _ => None,
        })
    }

    fn last<T>(&self, pick: impl Fn(&Condition) -> Option<T>) -> Option<T> {
        self.conditions.iter().rev().find_map(pick)
    }

    /// What a call gives that needs a token in a slot.
    pub(super) fn slot_trouble(&self) -> Option<CK_RV> {
        match (self.removed, self.failing) {
            (Some(removal), _) if removal.with_slot => Some(CKR_SLOT_ID_INVALID),
            (Some(_), _) => Some(CKR_TOKEN_NOT_PRESENT),
            (None, Some(failing)) => Some(failing.code.0),
            (None, None) => None,
        }
    }

    /// What a call gives on a session that met this fate.
    pub(super) fn session_trouble(&self, function: Function, fate: Fate) -> Option<CK_RV> {
        match (fate, self.removed, self.failing) {
            (Fate::Closed, ..) => Some(ckr::CKR_SESSION_HANDLE_INVALID.0),
            (_, Some(removal), _) => Some(removal.code.0),
            (Fate::Lost(code), ..) => Some(code.0),
            (Fate::Open, None, Some(failing)) => Some(failing.code.0),
            (Fate::Open, None, None) if self.login_lost && function.needs_login() => Some(CKR_USER_NOT_LOGGED_IN),
            (Fate::Open, None, None) => None,
        }
    }

    /// The module is initialised, or was finalised: what waited for it, is over.
    pub(super) fn reinitialized(&mut self) {
        self.removed = self.removed.filter(|removal| removal.seen != Some(Until::Reinitialize));
        self.failing = self.failing.filter(|failing| failing.until != Until::Reinitialize);
        self.login_lost = false;
        self.epoch += 1;
    }
}

impl State {
    /// Counts a process, which finds the device as the last one left it. What waited for it, is over.
    pub(super) fn next_process(&mut self) -> Self {
        self.loads += 1;
        self.removed = self.removed.filter(|removal| removal.seen.is_none());
        self.failing = self.failing.filter(|failing| failing.until == Until::Now);
        self.clone()
    }
}

impl Module {
    /// Lets something happen to the device.
    pub(super) fn strike(&self, event: Event) {
        match event {
            Event::RemoveToken { code, with_slot } => {
                self.device().removed = Some(Removal { code, with_slot, seen: None });
                self.lose_sessions(ckr::CKR_SESSION_HANDLE_INVALID);
                self.announce_slots();
            }
            Event::ReturnToken { seen } => {
                let mut device = self.device();
                device.removed = match seen {
                    Until::Now => None,
                    later => device.removed.map(|removal| Removal { seen: Some(later), ..removal }),
                };
                drop(device);
                self.announce_slots();
            }
            Event::LoseSessions { code } => self.lose_sessions(code),
            Event::LoseLogin => self.lose_login(),
            Event::Fail { code, until } => self.device().failing = Some(Failing { code, until }),
            Event::Mend => self.device().failing = None,
        }
        self.remember_device();
    }

    /// Gives the device a property.
    pub(super) fn impose(&self, condition: Condition) {
        let mut device = self.device();
        if !matches!(condition, Condition::Lie { .. }) {
            let kind = std::mem::discriminant(&condition);
            device.conditions.retain(|other| std::mem::discriminant(other) != kind);
        }
        device.conditions.push(condition);
        drop(device);
        self.apply_lanes();
        self.remember_device();
    }

    /// Undoes all faults, conditions and events.
    pub(super) fn clear(&self) {
        self.faults.clear();
        let mut device = self.device();
        device.conditions.clear();
        device.failing = None;
        device.removed = None;
        device.login_lost = false;
        drop(device);
        self.apply_lanes();
        lock(&self.memo).forget();
        self.remember_device();
        self.remember_faults();
        self.hold.release();
    }

    pub(super) fn apply_lanes(&self) {
        let speed = self.device().speed();
        self.lanes.set(speed);
    }

    /// Takes from the file what another process may have changed.
    pub(super) fn recall_device(&self) {
        if let Ok(state) = self.state.read() {
            let mut device = self.device();
            device.removed = state.removed;
            device.failing = state.failing;
            device.conditions = state.conditions;
            device.reinitialized();
        }
        self.apply_lanes();
        self.remember_device();
    }

    pub(super) fn remember_device(&self) {
        let device = self.device();
        let (removed, failing, conditions) = (device.removed, device.failing, device.conditions.clone());
        drop(device);
        self.remember(|state| {
            state.removed = removed;
            state.failing = failing;
            state.conditions = conditions;
        });
    }

    fn lose_sessions(&self, code: Ckr) {
        let _nobody_in_it = self.gate.write();
        for session in self.sessions.having(|session| session.fate() == Fate::Open) {
            if session.meets(Fate::Lost(code)) {
                // SAFETY: takes no pointer. The session is the real module's own and, as just found, open; nobody is
                // in a call on it.
                unsafe { call!(self.real, C_CloseSession(session.real)) };
            }
        }
        self.device().epoch += 1;
    }

    fn lose_login(&self) {
        let _nobody_in_it = self.gate.write();
        let mut slots: Vec<CK_SLOT_ID> = Vec::new();
        let mut logged_in = false;
        for session in self.sessions.having(|session| session.fate() == Fate::Open) {
            if !slots.contains(&session.slot) {
                slots.push(session.slot);
                // SAFETY: takes no pointer, on an open session of the real module.
                logged_in |= unsafe { call!(self.real, C_Logout(session.real)) } == CKR_OK;
            }
        }
        let mut device = self.device();
        device.login_lost |= logged_in;
        device.epoch += 1;
    }
}

impl StateFile {
    /// Undoes all faults, conditions and events of a device whose process is not there.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn clear(&self) -> std::io::Result<()> {
        self.update(|state| *state = State { loads: state.loads, pin: state.pin, ..State::default() })
    }
}

const DEFAULT_PIN_ATTEMPTS: u32 = 3;
