//! Messages to and from a YubiHSM 2: one byte of code, a big-endian `u16` length, the body. An answer carries the
//! command's code with its top bit set, or 0x7f and one byte that says what is wrong.
//!
//! Source: Yubico, YubiHSM 2 User Guide, "Command Reference" and "Error and Status Codes".

#![forbid(unsafe_code)]

/// The commands used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Command {
    CreateSession = 0x03,
    AuthenticateSession = 0x04,
    SessionMessage = 0x05,
    DeviceInfo = 0x06,
    CloseSession = 0x40,
    PutOpaque = 0x42,
    GetOpaque = 0x43,
    PutAuthenticationKey = 0x44,
    GenerateAsymmetricKey = 0x46,
    ListObjects = 0x48,
    GetLogEntries = 0x4d,
    GetObjectInfo = 0x4e,
    SetOption = 0x4f,
    GetOption = 0x50,
    GetPublicKey = 0x54,
    SignEcdsa = 0x56,
    DeleteObject = 0x58,
    SignAttestationCertificate = 0x64,
    SetLogIndex = 0x67,
}

impl Command {
    /// As Yubico's manual spells it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::CreateSession => "Create Session",
            Self::AuthenticateSession => "Authenticate Session",
            Self::SessionMessage => "Session Message",
            Self::DeviceInfo => "Device Info",
            Self::CloseSession => "Close Session",
            Self::PutOpaque => "Put Opaque",
            Self::GetOpaque => "Get Opaque",
            Self::PutAuthenticationKey => "Put Authentication Key",
            Self::GenerateAsymmetricKey => "Generate Asymmetric Key",
            Self::ListObjects => "List Objects",
            Self::GetLogEntries => "Get Log Entries",
            Self::GetObjectInfo => "Get Object Info",
            Self::SetOption => "Set Option",
            Self::GetOption => "Get Option",
            Self::GetPublicKey => "Get Public Key",
            Self::SignEcdsa => "Sign ECDSA",
            Self::DeleteObject => "Delete Object",
            Self::SignAttestationCertificate => "Sign Attestation Certificate",
            Self::SetLogIndex => "Set Log Index",
        }
    }
}

/// What a device answers instead of a result. The numbers are Yubico's; those of the crate `yubihsm` 0.42 differ from
/// 0x0d on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DeviceError {
    #[error("invalid command (0x01)")]
    InvalidCommand,
    #[error("invalid data (0x02)")]
    InvalidData,
    #[error("invalid session (0x03): it expired or was closed")]
    InvalidSession,
    #[error("authentication failed (0x04)")]
    AuthenticationFailed,
    #[error("all 16 sessions of the device are in use (0x05); close those of other programs, or wait 30 s")]
    SessionsFull,
    #[error("session failed (0x06)")]
    SessionFailed,
    #[error("storage failed (0x07)")]
    StorageFailed,
    #[error("wrong length (0x08)")]
    WrongLength,
    #[error("insufficient permissions (0x09): the auth key or the object lacks a capability")]
    InsufficientPermissions,
    #[error("the device's log is full and force-audit is on (0x0a)")]
    LogFull,
    #[error("object not found (0x0b)")]
    ObjectNotFound,
    #[error("invalid id (0x0c)")]
    InvalidId,
    #[error("SSH CA constraint violation (0x0e)")]
    SshCaConstraint,
    #[error("invalid OTP (0x0f)")]
    InvalidOtp,
    #[error("a demonstration device that must be power-cycled (0x10)")]
    DemoMode,
    #[error("object exists (0x11)")]
    ObjectExists,
    #[error("the algorithm is disabled on this device (0x12)")]
    AlgorithmDisabled,
    #[error("command unexecuted (0xff)")]
    CommandUnexecuted,
    #[error("error {0:#04x}, which this program does not know")]
    Unknown(u8),
}

impl From<u8> for DeviceError {
    fn from(code: u8) -> Self {
        match code {
            0x01 => Self::InvalidCommand,
            0x02 => Self::InvalidData,
            0x03 => Self::InvalidSession,
            0x04 => Self::AuthenticationFailed,
            0x05 => Self::SessionsFull,
            0x06 => Self::SessionFailed,
            0x07 => Self::StorageFailed,
            0x08 => Self::WrongLength,
            0x09 => Self::InsufficientPermissions,
            0x0a => Self::LogFull,
            0x0b => Self::ObjectNotFound,
            0x0c => Self::InvalidId,
            0x0e => Self::SshCaConstraint,
            0x0f => Self::InvalidOtp,
            0x10 => Self::DemoMode,
            0x11 => Self::ObjectExists,
            0x12 => Self::AlgorithmDisabled,
            0xff => Self::CommandUnexecuted,
            other => Self::Unknown(other),
        }
    }
}

/// Why an answer is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadAnswer {
    /// The device said so.
    Refused(DeviceError),
    /// Not of the form of an answer to this command.
    Malformed,
}

/// A message: code, length, body in parts.
pub(super) fn encode(code: Command, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut message = Vec::with_capacity(3 + length);
    message.push(code as u8);
    // The most that a device takes is 3,136 bytes, and it says so where a certificate is longer.
    message.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    parts.iter().for_each(|part| message.extend_from_slice(part));
    message
}

/// The body of the answer to `code`.
pub(super) fn decode(code: Command, answer: &[u8]) -> Result<&[u8], BadAnswer> {
    let Some((&[kind, high, low], body)) = answer.split_first_chunk() else { return Err(BadAnswer::Malformed) };
    if usize::from(u16::from_be_bytes([high, low])) != body.len() {
        return Err(BadAnswer::Malformed);
    }
    match (kind, body) {
        (ERROR, &[error]) => Err(BadAnswer::Refused(DeviceError::from(error))),
        _ if kind == code as u8 | RESPONSE => Ok(body),
        _ => Err(BadAnswer::Malformed),
    }
}

const ERROR: u8 = 0x7f;
pub(super) const RESPONSE: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_code_its_length_and_its_body() {
        assert_eq!(encode(Command::SignEcdsa, &[&[1, 2], &[3]]), [0x56, 0, 3, 1, 2, 3]);
        assert_eq!(decode(Command::SignEcdsa, &[0xd6, 0, 2, 8, 9]), Ok(&[8, 9][..]));
    }

    #[test]
    fn an_answer_of_another_form_is_none() {
        for wrong in [&[][..], &[0xd6], &[0xd6, 0], &[0xd6, 0, 1], &[0xd6, 0, 0, 1], &[0xd7, 0, 0], &[0x7f, 0, 2, 1, 1]]
        {
            assert_eq!(decode(Command::SignEcdsa, wrong), Err(BadAnswer::Malformed), "{wrong:?}");
        }
        let refused = decode(Command::SignEcdsa, &[0x7f, 0, 1, 0x0a]);
        assert_eq!(refused, Err(BadAnswer::Refused(DeviceError::LogFull)));
    }
}
