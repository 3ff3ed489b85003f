//! The device: plain commands, its sessions, and what everything else works on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::attestation::Attestation;
use crate::channel::Channel;
use crate::control::Attest;
use crate::log::Log;
use crate::object::{self, Object, Params, Secret, kind, random};

/// What a device is from the start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its serial number.
    pub serial: u32,
    /// Its firmware.
    pub version: [u8; 3],
    /// The device drops a session that was idle for this long; a real one after 30 s.
    pub session_expiry: Duration,
    /// Each signature takes this long.
    pub sign_latency: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            serial: 7_550_140,
            version: [2, 4, 0],
            session_expiry: Duration::from_secs(30),
            sign_latency: Duration::ZERO,
        }
    }
}

/// A device.
pub struct Device {
    pub(crate) settings: Settings,
    pub(crate) objects: BTreeMap<(u8, u16), Object>,
    pub(crate) sessions: [Option<Session>; SESSIONS],
    pub(crate) log: Log,
    pub(crate) force_audit: u8,
    pub(crate) command_audit: BTreeMap<u8, u8>,
    pub(crate) attestation: Option<Attestation>,
    pub(crate) attest: Attest,
    signatures: u64,
    failed_authentications: u64,
    started: Instant,
    pub(crate) plugged: bool,
    pub(crate) failing: Vec<(Option<u8>, u8, u32)>,
}

pub(crate) struct Session {
    channel: Channel,
    auth_key: u16,
    authenticated: bool,
    used: Instant,
}

impl Session {
    /// Of another program, whose keys nobody here knows.
    pub(crate) fn occupied() -> Self {
        Self {
            channel: Channel::new(&random(), random(), random()),
            auth_key: 1,
            authenticated: true,
            used: Instant::now(),
        }
    }
}

impl Device {
    /// Fresh from the factory: authentication key 1 with the password `password` may do everything.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let mut device = Self {
            settings,
            objects: BTreeMap::new(),
            sessions: Default::default(),
            log: Log::new(random()),
            force_audit: 0,
            command_audit: BTreeMap::new(),
            attestation: None,
            attest: Attest::Good,
            signatures: 0,
            failed_authentications: 0,
            started: Instant::now(),
            plugged: true,
            failing: Vec::new(),
        };
        device.reset();
        device
    }

    /// Makes or replaces an object.
    pub fn put(&mut self, kind: u8, id: u16, object: Object) {
        self.objects.insert((kind, id), object);
    }

    /// Makes or replaces an authentication key with this password.
    pub fn put_authentication_key(&mut self, id: u16, password: &[u8], domains: u16, capabilities: u64) {
        let secret = Secret::Authentication(object::key_of_password(password));
        let label = object::label("simulated");
        let key = Object { capabilities, domains, algorithm: 38, sequence: 0, origin: 2, label, delegated: 0, secret };
        self.put(kind::AUTHENTICATION_KEY, id, key);
    }

    /// Makes a P-256 key in the device.
    pub fn generate_p256(&mut self, id: u16, label: &str, domains: u16, capabilities: u64) {
        self.generate(12, id, label, domains, capabilities);
    }

    /// Makes a P-384 key in the device.
    pub fn generate_p384(&mut self, id: u16, label: &str, domains: u16, capabilities: u64) {
        self.generate(13, id, label, domains, capabilities);
    }

    /// Imports a P-256 key.
    ///
    /// # Panics
    /// When `scalar` is no private key of P-256.
    pub fn import_p256(&mut self, id: u16, label: &str, domains: u16, capabilities: u64, scalar: &[u8]) {
        let params = Params { id, label: object::label(label), domains, capabilities, algorithm: 12 };
        let secret = Secret::import(12, scalar).expect("a private key of P-256");
        self.put(kind::ASYMMETRIC_KEY, id, params.object(2, secret));
    }

    /// The public point of a key without its first byte.
    #[must_use]
    pub fn public_point(&self, id: u16) -> Option<Vec<u8>> {
        let key = self.objects.get(&(kind::ASYMMETRIC_KEY, id))?;
        key.secret.public_point().map(<[u8]>::to_vec)
    }

    /// Has these commands logged; with `force`, the device stops when its log is full.
    pub fn audit_commands(&mut self, commands: &[u8], force: bool) {
        self.command_audit.extend(commands.iter().map(|&command| (command, 1)));
        self.force_audit = force.into();
    }

    fn generate(&mut self, algorithm: u8, id: u16, label: &str, domains: u16, capabilities: u64) {
        let params = Params { id, label: object::label(label), domains, capabilities, algorithm };
        let secret = Secret::generate(algorithm).expect("a key of a known algorithm");
        self.put(kind::ASYMMETRIC_KEY, id, params.object(1, secret));
    }

    /// Sessions that are open now.
    #[must_use]
    pub fn open_sessions(&mut self) -> usize {
        self.expire();
        self.sessions.iter().flatten().count()
    }

    /// Signatures made since the start.
    #[must_use]
    pub fn signatures(&self) -> u64 {
        self.signatures
    }

    /// Wrong passwords presented since the start.
    #[must_use]
    pub fn failed_authentications(&self) -> u64 {
        self.failed_authentications
    }

    /// Entries of the log that were not taken.
    #[must_use]
    pub fn log_used(&self) -> usize {
        self.log.used().into()
    }

    /// PEM of the certificates that vouch for the device: the intermediate and the root.
    #[must_use]
    pub fn attestation_roots(&mut self) -> String {
        self.attestation().roots()
    }

    pub(crate) fn is_plugged(&self) -> bool {
        self.plugged
    }

    /// A message from the connector; `None` when there is no device.
    pub(crate) fn receive(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        self.plugged.then(|| self.answer(message).unwrap_or_else(failure))
    }

    pub(crate) fn attestation(&mut self) -> &mut Attestation {
        let serial = self.settings.serial;
        self.attestation.get_or_insert_with(|| Attestation::new(serial))
    }

    /// A factory reset.
    pub(crate) fn reset(&mut self) {
        self.objects.clear();
        self.log = Log::new(random());
        self.force_audit = 0;
        self.command_audit.clear();
        self.put_authentication_key(1, b"password", 0xffff, u64::MAX);
        if let Some(factory) = self.objects.get_mut(&(kind::AUTHENTICATION_KEY, 1)) {
            factory.delegated = u64::MAX;
        }
        self.start();
    }

    pub(crate) fn count_signature(&mut self) {
        self.signatures += 1;
    }

    /// Power comes on.
    pub(crate) fn start(&mut self) {
        self.sessions = Default::default();
        self.started = Instant::now();
        if self.force_audit != 0 && self.log.is_full() {
            self.log.unlogged[0] += 1;
        } else {
            self.log.push(0x00, 0, [0xffff, 0, 0], 0x00, 0);
        }
    }

    /// How many objects of this type it has, and the ids of those.
    #[must_use]
    pub fn ids(&self, kind: u8) -> Vec<u16> {
        self.objects.keys().filter(|(of, _)| *of == kind).map(|(_, id)| *id).collect()
    }

    fn answer(&mut self, frame: &[u8]) -> Result<Vec<u8>, u8> {
        let (&[code, high, low], body) = frame.split_first_chunk().ok_or(error::WRONG_LENGTH)?;
        if usize::from(u16::from_be_bytes([high, low])) != body.len() {
            return Err(error::WRONG_LENGTH);
        }
        self.expire();
        match code {
            0x01 => Ok(message(0x81, body)),
            0x03 => self.create_session(body),
            0x04 => self.authenticate_session(body),
            0x05 => self.session_message(body),
            0x06 => Ok(message(0x86, &self.info())),
            _ => Err(error::INVALID_COMMAND),
        }
    }

    pub(crate) fn info(&self) -> Vec<u8> {
        let mut info = self.settings.version.to_vec();
        info.extend_from_slice(&self.settings.serial.to_be_bytes());
        info.extend_from_slice(&[u8::try_from(crate::log::CAPACITY).unwrap_or(u8::MAX), self.log.used()]);
        info.extend(1..=ALGORITHMS);
        info
    }

    fn create_session(&mut self, body: &[u8]) -> Result<Vec<u8>, u8> {
        let (&key_id, host) = body.split_first_chunk().ok_or(error::WRONG_LENGTH)?;
        let host = <[u8; 8]>::try_from(host).map_err(|_| error::WRONG_LENGTH)?;
        let key_id = u16::from_be_bytes(key_id);
        let found = self.objects.get(&(kind::AUTHENTICATION_KEY, key_id));
        let Some(Secret::Authentication(key)) = found.map(|object| &object.secret) else {
            return Err(error::OBJECT_NOT_FOUND);
        };
        let card = random();
        let channel = Channel::new(key, host, card);
        let free = self.sessions.iter().position(Option::is_none).ok_or(error::SESSIONS_FULL)?;
        let cryptogram = channel.card_cryptogram();
        let session = Session { channel, auth_key: key_id, authenticated: false, used: Instant::now() };
        self.sessions[free] = Some(session);
        self.note_authentication(0x03, body.len(), key_id, 0x83);
        let id = u8::try_from(free).unwrap_or(u8::MAX);
        Ok(message(0x83, &[&[id], &card[..], &cryptogram].concat()))
    }

    fn authenticate_session(&mut self, body: &[u8]) -> Result<Vec<u8>, u8> {
        let (id, data, tag) = split(body)?;
        let slot = self.sessions.get_mut(usize::from(id)).ok_or(error::INVALID_SESSION)?;
        let session = slot.as_mut().filter(|session| !session.authenticated).ok_or(error::INVALID_SESSION)?;
        let key_id = session.auth_key;
        if session.channel.authenticate(id, data, tag) {
            session.authenticated = true;
            session.used = Instant::now();
            self.note_authentication(0x04, body.len(), key_id, 0x84);
            Ok(message(0x84, &[]))
        } else {
            *slot = None;
            self.failed_authentications += 1;
            self.note_authentication(0x04, body.len(), key_id, 0x7f);
            Err(error::AUTHENTICATION_FAILED)
        }
    }

    fn session_message(&mut self, body: &[u8]) -> Result<Vec<u8>, u8> {
        let (id, data, tag) = split(body)?;
        let index = usize::from(id);
        let slot = self.sessions.get_mut(index).ok_or(error::INVALID_SESSION)?;
        let session = slot.as_mut().filter(|session| session.authenticated).ok_or(error::INVALID_SESSION)?;
        let auth_key = session.auth_key;
        let Some(command) = session.channel.decrypt(id, data, tag) else {
            *slot = None;
            return Err(error::SESSION_FAILED);
        };
        let answer = self.within_session(auth_key, &command);
        let closing = command.first() == Some(&0x40);
        let Some(session) = self.sessions[index].as_mut() else { return Err(error::INVALID_SESSION) };
        session.used = Instant::now();
        let encrypted = session.channel.encrypt(id, &answer.unwrap_or_else(failure));
        if closing {
            self.sessions[index] = None;
        }
        Ok(encrypted)
    }

    fn within_session(&mut self, auth_key: u16, command: &[u8]) -> Result<Vec<u8>, u8> {
        let (&[code, high, low], data) = command.split_first_chunk().ok_or(error::WRONG_LENGTH)?;
        if usize::from(u16::from_be_bytes([high, low])) != data.len() {
            return Err(error::WRONG_LENGTH);
        }
        if let Some(error) = self.planned_failure(code) {
            return Err(error);
        }
        let exempt = matches!(code, 0x40 | 0x4d | 0x67);
        if self.force_audit != 0 && self.log.is_full() && !exempt {
            return Err(error::LOG_FULL);
        }
        let done = self.execute(auth_key, code, data);
        let result = if done.is_ok() { code | 0x80 } else { 0x7f };
        if self.command_audit.get(&code).is_some_and(|&option| option != 0) {
            let target = target_of(code, data);
            let length = u16::try_from(data.len()).unwrap_or(u16::MAX);
            self.log.push(code, length, [auth_key, target, 0xffff], result, self.tick());
        }
        done.map(|answer| message(code | 0x80, &answer))
    }

    fn planned_failure(&mut self, code: u8) -> Option<u8> {
        let plan = self.failing.iter().position(|(command, ..)| command.is_none_or(|command| command == code))?;
        let (_, error, count) = &mut self.failing[plan];
        let error = *error;
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.failing.remove(plan);
        }
        Some(error)
    }

    /// Always allowed; where the log is full and must not be overwritten, only counted.
    fn note_authentication(&mut self, command: u8, length: usize, key: u16, result: u8) {
        if self.command_audit.get(&command).is_none_or(|&option| option == 0) {
            return;
        }
        if self.force_audit != 0 && self.log.is_full() {
            self.log.unlogged[1] += 1;
            return;
        }
        let length = u16::try_from(length).unwrap_or(u16::MAX);
        self.log.push(command, length, [0xffff, key, 0xffff], result, self.tick());
    }

    fn expire(&mut self) {
        let expiry = self.settings.session_expiry;
        for slot in &mut self.sessions {
            if slot.as_ref().is_some_and(|session| session.used.elapsed() >= expiry) {
                *slot = None;
            }
        }
    }

    pub(crate) fn tick(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_millis()).unwrap_or(u32::MAX)
    }
}

/// The object that a command is about, where it names one first.
fn target_of(code: u8, data: &[u8]) -> u16 {
    match (code, data) {
        (0x42..=0x46 | 0x4e | 0x54 | 0x56 | 0x58 | 0x64, [high, low, ..]) => u16::from_be_bytes([*high, *low]),
        _ => 0xffff,
    }
}

/// Session id, data and MAC of a message with a MAC.
fn split(body: &[u8]) -> Result<(u8, &[u8], &[u8]), u8> {
    let (&id, rest) = body.split_first().ok_or(error::WRONG_LENGTH)?;
    let (data, tag) = rest.split_at_checked(rest.len().saturating_sub(8)).ok_or(error::WRONG_LENGTH)?;
    if tag.len() == 8 { Ok((id, data, tag)) } else { Err(error::WRONG_LENGTH) }
}

pub(crate) fn message(code: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    [&[code], &length.to_be_bytes()[..], body].concat()
}

fn failure(code: u8) -> Vec<u8> {
    message(0x7f, &[code])
}

/// What the device answers instead of a result: Yubico's manual, "Error and Status Codes".
pub mod error {
    #![allow(missing_docs, reason = "the names are Yubico's")]
    pub const INVALID_COMMAND: u8 = 0x01;
    pub const INVALID_DATA: u8 = 0x02;
    pub const INVALID_SESSION: u8 = 0x03;
    pub const AUTHENTICATION_FAILED: u8 = 0x04;
    pub const SESSIONS_FULL: u8 = 0x05;
    pub const SESSION_FAILED: u8 = 0x06;
    pub const STORAGE_FAILED: u8 = 0x07;
    pub const WRONG_LENGTH: u8 = 0x08;
    pub const INSUFFICIENT_PERMISSIONS: u8 = 0x09;
    pub const LOG_FULL: u8 = 0x0a;
    pub const OBJECT_NOT_FOUND: u8 = 0x0b;
    pub const OBJECT_EXISTS: u8 = 0x11;
}

const SESSIONS: usize = 16;

/// Algorithms that the crate `yubihsm` knows, too; a device of this firmware has a few more.
const ALGORITHMS: u8 = 0x2f;
