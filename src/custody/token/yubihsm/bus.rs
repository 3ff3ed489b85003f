//! The way to the device: the crate `yubihsm` carries messages over HTTP to Yubico's connector, or over USB.
//!
//! Only its transport and its key derivation are used. Its `Client` never closes a session on the device, tells no
//! reason when a session is refused, and cannot read what firmware 2.3 and later say about themselves; the commands and
//! sessions here are therefore our own.

#![forbid(unsafe_code)]

use std::sync::{Mutex, PoisonError};

use yubihsm::connector::{Connector, HttpConfig};

use super::fault::Fault;
use super::frame::{self, Command};
use crate::config::YubiHsmConnector;

/// One connection to one device. It carries one command at a time, as the device does.
pub(super) struct Bus {
    connector: Connector,
    name: String,
    /// Of the device it must be: the configured one, or the first one seen.
    serial: Mutex<Option<u32>>,
}

/// What a device says about itself without a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeviceInfo {
    pub(super) version: [u8; 3],
    pub(super) serial: u32,
}

impl Bus {
    /// Connects at the first message.
    pub(super) fn new(connector: &YubiHsmConnector, serial: Option<u32>) -> Result<Self, String> {
        let name = connector.to_string();
        let connector = match connector {
            YubiHsmConnector::Http { host, port } => {
                Connector::http(&HttpConfig { addr: host.clone(), port: *port, ..HttpConfig::default() })
            }
            YubiHsmConnector::Usb => usb(serial)?,
        };
        Ok(Self { connector, name, serial: Mutex::new(serial) })
    }

    /// Sends a message and waits for its answer, for at most 20 s.
    pub(super) fn exchange(&self, message: Vec<u8>) -> Result<Vec<u8>, Fault> {
        let answer = self.connector.send_message(yubihsm::Uuid::new_v4(), message.into());
        answer.map(Into::into).map_err(|source| Fault::Unreachable { connector: self.name.clone(), source })
    }

    /// Asks without a session, so that whoever is between could have answered.
    pub(super) fn device_info(&self) -> Result<DeviceInfo, Fault> {
        let answer = self.exchange(frame::encode(Command::DeviceInfo, &[]))?;
        self.same_device(frame::decode(Command::DeviceInfo, &answer)?)
    }

    /// Reads the answer to DEVICE INFO; it must be from the device that was there before.
    pub(super) fn same_device(&self, body: &[u8]) -> Result<DeviceInfo, Fault> {
        let info = DeviceInfo::read(body)?;
        let mut serial = self.serial.lock().unwrap_or_else(PoisonError::into_inner);
        match *serial.get_or_insert(info.serial) {
            expected if expected == info.serial => Ok(info),
            expected => Err(Fault::OtherDevice { found: info.serial, expected }),
        }
    }

    /// The device's serial number.
    pub(super) fn serial(&self) -> Result<u32, Fault> {
        let known = *self.serial.lock().unwrap_or_else(PoisonError::into_inner);
        known.map_or_else(|| self.device_info().map(|info| info.serial), Ok)
    }
}

impl DeviceInfo {
    fn read(body: &[u8]) -> Result<Self, Fault> {
        // After these come the size of the log and the algorithms, of which newer firmware has more than this program
        // knows.
        let Some((&[major, minor, build, a, b, c, d], _)) = body.split_first_chunk() else {
            return Err(Fault::Malformed("a device info that ends too early"));
        };
        let serial = u32::from_be_bytes([a, b, c, d]);
        Ok(Self { version: [major, minor, build], serial })
    }
}

#[cfg(feature = "usb")]
fn usb(serial: Option<u32>) -> Result<Connector, String> {
    use yubihsm::connector::UsbConfig;
    // Serial numbers have ten digits on the bus.
    let serial = serial.map(|serial| format!("{serial:010}").parse()).transpose().map_err(|_| "no serial number")?;
    Ok(Connector::usb(&UsbConfig { serial, ..UsbConfig::default() }))
}

#[cfg(not(feature = "usb"))]
fn usb(_: Option<u32>) -> Result<Connector, String> {
    Err("this build has no USB support; build with `--features usb`, or run yubihsm-connector and write \
         `connector = \"http://127.0.0.1:12345\"`"
        .to_owned())
}
