//! What a conformance run needs of a device beyond signing.

#![forbid(unsafe_code)]

use super::{Token, TokenError};

/// A device that a conformance run may make a key in and log out of. The worker never needs any of it.
pub trait Lab: Token {
    /// Ends the login of all sessions of this process (`C_Logout`; PKCS#11 3.1, section 5.6.9).
    ///
    /// # Errors
    /// When nobody is logged in, or the device fails.
    fn log_out(&self) -> Result<(), TokenError>;

    /// A P-256 key pair with the safe template: token object, private, sensitive, not extractable, signs and nothing
    /// else. Somebody must be logged in.
    ///
    /// # Errors
    /// When the device does not make it.
    fn generate(&self, label: &str, id: &[u8]) -> Result<(), TokenError>;

    /// Removes the objects with this label and id, and says how many they were. Somebody must be logged in.
    ///
    /// # Errors
    /// When one of them stays.
    fn destroy(&self, label: &str, id: &[u8]) -> Result<usize, TokenError>;
}
