//! What is known about where a key lives: read from the device, kept with its times, and shown to auditors.

#![forbid(unsafe_code)]

pub mod attestation;
pub mod report;

use std::time::Instant;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::KeyAttributes;
use super::health::KeyHealth;
use super::wire::StatusReport;

/// What a device said about a key, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Of the private key.
    pub attributes: KeyAttributes,
    /// DER certificates by which the device vouches for the key, leaf first; empty where it cannot.
    pub attestation: Vec<Vec<u8>>,
    /// The device.
    pub device: Device,
    /// When this process first saw the key there.
    pub first_seen: Timestamp,
    /// When all this was last read from the device.
    pub checked: Timestamp,
    /// The same moment, by a clock that nobody sets.
    pub(super) read: Instant,
}

/// A device as it describes itself (PKCS#11 3.1, section 3.2, `CK_TOKEN_INFO`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Given at initialisation.
    pub label: String,
    /// Serial number.
    pub serial: String,
    /// Who made it.
    pub manufacturer: String,
    /// What it is.
    pub model: String,
    /// Version of its firmware.
    pub firmware: String,
}

/// One token's custody of a key: a member of `GET /keys` and of the custody report.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyCustody {
    /// The token's name in the appliance.
    pub token: String,
    /// How the key is there now.
    pub state: KeyHealth,
    /// The device; absent until the key was seen there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// Attributes of the private key as the device reports them (PKCS#11 3.1, sections 4.4 and 4.9).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attributes: Option<KeyAttributes>,
    /// Attestation of the key by its device: DER certificates in base64, leaf first. Absent where the device has none.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub attestation: Vec<String>,
    /// When the appliance first saw the key there, since its start.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub first_seen_at: Option<Timestamp>,
    /// When attributes and attestation were last read from the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub checked_at: Option<Timestamp>,
    /// When the key last made a test signature there that verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub tested_at: Option<Timestamp>,
}

impl From<&StatusReport> for Device {
    fn from(report: &StatusReport) -> Self {
        Self {
            label: report.label.clone(),
            serial: report.serial.clone(),
            manufacturer: report.manufacturer.clone(),
            model: report.model.clone(),
            firmware: report.firmware.clone(),
        }
    }
}
