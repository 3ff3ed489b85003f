//! What went wrong with a YubiHSM, and what it means for the session it came from.

#![forbid(unsafe_code)]

use super::super::{Remedy, TokenError};
use super::channel::ChannelError;
use super::frame::{BadAnswer, Command, DeviceError};

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The connector, or the device behind it, cannot be reached. Whether the command was carried out is open.
    #[error("the device cannot be reached through `{connector}`; are it and its connector there?")]
    Unreachable { connector: String, source: yubihsm::connector::Error },
    /// The device answered with an error. The command was not carried out.
    #[error("the device says: {0}")]
    Device(#[from] DeviceError),
    /// An answer that makes no sense.
    #[error("the answer is malformed: {0}")]
    Malformed(&'static str),
    /// An answer that did not come from the device that this session is with.
    #[error("the answer is forged or out of step: its MAC is wrong")]
    Forged,
    /// The device does not know the authentication key that comes out of the password.
    #[error("the device does not know this password")]
    WrongPassword,
    /// There is no such authentication key.
    #[error("the device has no authentication key {0:#06x}; correct `auth_key`, or create it")]
    NoAuthKey(u16),
    /// The session ended, and was not used again.
    #[error("the session is over")]
    Over,
    /// More sessions than the configuration allows.
    #[error("{0} sessions are open already, as many as are configured")]
    TooManySessions(u32),
    /// Another device than before.
    #[error("this is YubiHSM {found}, not {expected}; correct `serial`, or plug in the right device")]
    OtherDevice { found: u32, expected: u32 },
}

impl Fault {
    /// What it takes to go on. Exhaustive on purpose: an error that Yubico adds must be thought about.
    pub(super) fn remedy(&self) -> Remedy {
        match self {
            // Whoever comes back may be another device, or one that forgot us.
            Self::Unreachable { .. } | Self::OtherDevice { .. } => Remedy::NewLogin,
            // The password that worked was changed.
            Self::WrongPassword => Remedy::NewLogin,
            // What the device's counters are now nobody knows.
            Self::Malformed(_) | Self::Forged | Self::NoAuthKey(_) | Self::Over | Self::TooManySessions(_) => {
                Remedy::NewSession
            }
            Self::Device(error) => match error {
                // About the request: the session goes on.
                DeviceError::InvalidCommand
                | DeviceError::InvalidData
                | DeviceError::WrongLength
                | DeviceError::InsufficientPermissions
                | DeviceError::LogFull
                | DeviceError::InvalidId
                | DeviceError::SshCaConstraint
                | DeviceError::InvalidOtp
                | DeviceError::DemoMode
                | DeviceError::ObjectExists
                | DeviceError::AlgorithmDisabled => Remedy::None,
                // About the session, or the objects that it remembers.
                DeviceError::InvalidSession
                | DeviceError::SessionsFull
                | DeviceError::SessionFailed
                | DeviceError::StorageFailed
                | DeviceError::ObjectNotFound
                | DeviceError::CommandUnexecuted
                | DeviceError::Unknown(_) => Remedy::NewSession,
                // The authentication key was replaced or deleted.
                DeviceError::AuthenticationFailed => Remedy::NewLogin,
            },
        }
    }

    /// For the worker.
    pub(super) fn during(self, command: Command) -> TokenError {
        TokenError::Device { operation: command.name(), remedy: self.remedy(), source: Box::new(self) }
    }
}

/// Did the device refuse because its log is full? Nothing was carried out then.
pub(super) fn is_log_full(error: &TokenError) -> bool {
    let TokenError::Device { source, .. } = error else { return false };
    matches!(source.downcast_ref(), Some(Fault::Device(DeviceError::LogFull)))
}

impl From<BadAnswer> for Fault {
    fn from(answer: BadAnswer) -> Self {
        match answer {
            BadAnswer::Refused(error) => Self::Device(error),
            BadAnswer::Malformed => Self::Malformed("not an answer to this command"),
        }
    }
}

impl From<ChannelError> for Fault {
    fn from(error: ChannelError) -> Self {
        match error {
            ChannelError::Answer(answer) => answer.into(),
            ChannelError::Forged => Self::Forged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_kept_only_after_errors_about_the_request() {
        for (code, expected) in [
            (0x02, Remedy::None),
            (0x03, Remedy::NewSession),
            (0x04, Remedy::NewLogin),
            (0x05, Remedy::NewSession),
            (0x09, Remedy::None),
            (0x0a, Remedy::None),
            (0x0b, Remedy::NewSession),
            (0x77, Remedy::NewSession),
        ] {
            assert_eq!(Fault::Device(DeviceError::from(code)).remedy(), expected, "{code:#04x}");
        }
        assert_eq!(Fault::Forged.remedy(), Remedy::NewSession);
    }
}
