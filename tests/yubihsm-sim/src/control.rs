//! What a test can have the device do, by [`Simulator::control`](crate::Simulator::control) or `POST /control`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::device::{Device, Session};

/// One order; in JSON as in `{"do":"sign-latency","ms":100}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Control {
    /// Each signature takes this long from now on.
    SignLatency {
        /// Milliseconds.
        ms: u64,
    },
    /// All sessions are forgotten, as when the device starts anew.
    DropSessions,
    /// The next commands end in an error, without being carried out.
    FailNext {
        /// Only this command; absent: any within a session.
        command: Option<u8>,
        /// The device's error.
        code: u8,
        /// How many.
        count: u32,
    },
    /// The log is filled with entries.
    FillLog,
    /// The digest of the log's last entry is spoilt.
    TamperLog,
    /// The device is pulled out; the connector stays.
    Unplug,
    /// The device is put back. It starts, so its sessions are gone.
    Plug,
    /// Attestations are good or wrong from now on.
    Attest {
        /// How.
        how: Attest,
    },
    /// Another device sits there from now on, with the same objects.
    Serial {
        /// Its serial number.
        serial: u32,
    },
    /// Another program opens sessions and does not close them.
    OccupySessions {
        /// How many.
        count: u8,
    },
}

/// What attestations are like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attest {
    /// As Yubico's devices do.
    #[default]
    Good,
    /// Up to another root.
    OtherRoot,
    /// By a certificate with another serial number.
    OtherSerial,
    /// For another key.
    OtherKey,
    /// By a key that is itself only attested.
    ByAttestedKey,
}

impl Device {
    /// Carries out an order.
    pub fn control(&mut self, control: Control) {
        match control {
            Control::SignLatency { ms } => self.settings.sign_latency = Duration::from_millis(ms),
            Control::DropSessions => self.sessions = Default::default(),
            Control::FailNext { command, code, count } => self.failing.push((command, code, count)),
            Control::FillLog => {
                while !self.log.is_full() {
                    self.log.push(0x01, 0, [1, 0xffff, 0xffff], 0x81, self.tick());
                }
            }
            Control::TamperLog => self.log.tamper(),
            Control::Unplug => self.plugged = false,
            Control::Plug => {
                self.plugged = true;
                self.start();
            }
            Control::Attest { how } => self.attest = how,
            Control::Serial { serial } => {
                self.settings.serial = serial;
                self.attestation = None;
                self.start();
            }
            Control::OccupySessions { count } => {
                let free = self.sessions.iter_mut().filter(|session| session.is_none());
                free.take(count.into()).for_each(|session| *session = Some(Session::occupied()));
            }
        }
    }
}
