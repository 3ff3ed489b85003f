//! An authenticated session with the device: opened, renewed, and closed on every path.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use yubihsm::authentication;
use zeroize::Zeroizing;

use super::bus::Bus;
use super::channel::Channel;
use super::fault::Fault;
use super::frame::{self, Command, DeviceError};

/// Places for sessions on the device: it has 16, and other programs may want some.
#[derive(Debug)]
pub(super) struct Places {
    taken: AtomicU32,
    most: u32,
}

/// One of them, given back on drop.
pub(super) struct Place(Arc<Places>);

impl Places {
    pub(super) fn new(most: u32) -> Arc<Self> {
        Arc::new(Self { taken: AtomicU32::new(0), most })
    }

    pub(super) fn take(self: &Arc<Self>) -> Result<Place, Fault> {
        let more = |taken| (taken < self.most).then_some(taken + 1);
        match self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more) {
            Ok(_) => Ok(Place(Arc::clone(self))),
            Err(taken) => Err(Fault::TooManySessions(taken)),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What it takes to open a session.
pub(super) struct Opener<'a> {
    pub(super) bus: &'a Arc<Bus>,
    pub(super) places: &'a Arc<Places>,
    pub(super) auth_key: u16,
}

/// A session. It is closed on the device when it is dropped.
pub(super) struct AuthSession {
    bus: Arc<Bus>,
    auth_key: u16,
    key: authentication::Key,
    /// `None` when the device has dropped it, or nobody knows in which state it is.
    channel: Option<Channel>,
    /// The device said within this session which one it is.
    identified: bool,
    used: Instant,
    // Given back after `Drop` has closed the session.
    _place: Place,
}

impl Opener<'_> {
    /// One attempt with this key. A device whose log is full says nothing about itself: then the session is there, only
    /// its log can be taken in it, and it is [identified](AuthSession::identify) after that.
    pub(super) fn open(&self, key: authentication::Key) -> Result<AuthSession, Fault> {
        let place = self.places.take()?;
        let channel = shake_hands(self.bus, self.auth_key, &key)?;
        let (bus, auth_key) = (Arc::clone(self.bus), self.auth_key);
        let mut session = AuthSession {
            bus,
            auth_key,
            key,
            channel: Some(channel),
            identified: false,
            used: Instant::now(),
            _place: place,
        };
        match session.identify() {
            Ok(()) | Err(Fault::Device(DeviceError::LogFull)) => Ok(session),
            Err(fault) => Err(fault),
        }
    }
}

impl AuthSession {
    /// Has the device carry out a command. The session is renewed when the device is about to drop it, or has.
    pub(super) fn command(&mut self, command: Command, parts: &[&[u8]]) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let spent = self.channel.as_ref().ok_or(Fault::Over)?.spent();
        if spent || self.used.elapsed() >= RENEW_AFTER {
            self.renew()?;
        }
        let mut outcome = self.in_order(command, parts);
        for _ in 0..RENEWALS {
            // A device that does not know the session has not carried out the command. When it started anew, one of our
            // other sessions may have got the same number meanwhile: then the MAC was wrong to it.
            if !matches!(outcome, Err(Fault::Device(DeviceError::InvalidSession | DeviceError::SessionFailed)))
                || self.channel.is_some()
            {
                break;
            }
            self.renew()?;
            outcome = self.in_order(command, parts);
        }
        outcome
    }

    /// Asks for the serial number within the session, where nobody between can answer: two devices may well have the
    /// same password, and even the same keys. Done once a session.
    ///
    /// # Errors
    /// [`DeviceError::LogFull`] while nothing but its log can be had of the device; the session goes on.
    pub(super) fn identify(&mut self) -> Result<(), Fault> {
        if self.identified {
            return Ok(());
        }
        let known = self.once(Command::DeviceInfo, &[]).and_then(|body| self.bus.same_device(&body));
        match known {
            Ok(_) => self.identified = true,
            Err(Fault::Device(DeviceError::LogFull)) => return Err(DeviceError::LogFull.into()),
            Err(fault) => {
                self.close();
                return Err(fault);
            }
        }
        Ok(())
    }

    fn renew(&mut self) -> Result<(), Fault> {
        self.close();
        self.identified = false;
        self.channel = Some(shake_hands(&self.bus, self.auth_key, &self.key)?);
        self.used = Instant::now();
        Ok(())
    }

    /// Nothing is asked of a device that nobody knows, but for what a full log leaves possible: to take the log.
    fn in_order(&mut self, command: Command, parts: &[&[u8]]) -> Result<Zeroizing<Vec<u8>>, Fault> {
        match self.identify() {
            Err(Fault::Device(DeviceError::LogFull))
                if matches!(command, Command::GetLogEntries | Command::SetLogIndex) => {}
            identified => identified?,
        }
        self.once(command, parts)
    }

    fn once(&mut self, command: Command, parts: &[&[u8]]) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let channel = self.channel.as_mut().ok_or(Fault::Over)?;
        let message = channel.encrypt(command, parts);
        self.used = Instant::now();
        let answer = match self.bus.exchange(message) {
            Ok(answer) => answer,
            Err(fault) => {
                // The command may have been carried out. If it was, the session can still be closed.
                channel.skip_answer();
                self.close();
                return Err(fault);
            }
        };
        let plain = channel.decrypt(&answer).map_err(|error| {
            // The device speaks outside the channel when it has no such session.
            self.channel = None;
            Fault::from(error)
        })?;
        frame::decode(command, &plain).map(|body| Zeroizing::new(body.to_vec())).map_err(Fault::from)
    }

    /// Tells the device, which drops the session by itself where this does not reach it.
    fn close(&mut self) {
        if let Some(mut channel) = self.channel.take()
            && self.used.elapsed() < EXPIRES_AFTER
            && let Err(fault) = self.bus.exchange(channel.encrypt(Command::CloseSession, &[]))
        {
            tracing::debug!("a session was left to expire on the device: {fault}");
        }
    }
}

#[cfg(test)]
impl AuthSession {
    /// As if it had not been used for this long.
    pub(super) fn age(&mut self, idle: Duration) {
        self.used = self.used.checked_sub(idle).unwrap_or(self.used);
    }
}

impl Drop for AuthSession {
    fn drop(&mut self) {
        self.close();
    }
}

/// CREATE SESSION and AUTHENTICATE SESSION.
fn shake_hands(bus: &Bus, auth_key: u16, key: &authentication::Key) -> Result<Channel, Fault> {
    let mut host = [0; 8];
    aws_lc_rs::rand::fill(&mut host).map_err(|_| Fault::Malformed("no random numbers"))?;
    let created = bus.exchange(frame::encode(Command::CreateSession, &[&auth_key.to_be_bytes(), &host]))?;
    let body = frame::decode(Command::CreateSession, &created).map_err(|answer| match Fault::from(answer) {
        Fault::Device(DeviceError::ObjectNotFound) => Fault::NoAuthKey(auth_key),
        fault => fault,
    })?;
    let (&[id], rest) = body.split_first_chunk().ok_or(SHORT)?;
    let (&card, cryptogram) = rest.split_first_chunk().ok_or(SHORT)?;
    let cryptogram = <[u8; 8]>::try_from(cryptogram).map_err(|_| SHORT)?;
    let (mut channel, proven) = Channel::derive(key, id, host, card, cryptogram);
    // Sent with a wrong password as well: the device refuses it and gives the session free at once.
    let answer = bus.exchange(channel.authenticate());
    if !proven {
        return Err(Fault::WrongPassword);
    }
    match frame::decode(Command::AuthenticateSession, &answer?).map_err(Fault::from) {
        Ok([]) => Ok(channel),
        Ok(_) => Err(Fault::Malformed("an answer to Authenticate Session that is not empty")),
        Err(Fault::Device(DeviceError::AuthenticationFailed)) => Err(Fault::WrongPassword),
        Err(fault) => Err(fault),
    }
}

const SHORT: Fault = Fault::Malformed("an answer to Create Session of a wrong length");

/// The device drops a session that was idle for this long: Yubico, Core Concepts, "Session".
const EXPIRES_AFTER: Duration = Duration::from_secs(30);

/// How often a session that the device does not know is opened again for one command.
const RENEWALS: u32 = 3;

/// Early enough for a command that is under way to arrive in time.
const RENEW_AFTER: Duration = Duration::from_secs(25);
