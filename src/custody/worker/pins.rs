//! What became of every PIN that was presented, kept over restarts: a PIN that a token refused is never presented to it
//! again.
//!
//! An attempt is written down, durably, before it is made, so that one that a crash interrupts is not forgotten either.
//! No PIN is written, nor what it could be found by at once: only a mark of it, PBKDF2 (RFC 8018, section 5.2) over a
//! random key that is this installation's own, and the token's serial number.
//!
//! The worker and an operator's commands share the memory: whoever presents a PIN holds its lock from before the attempt
//! until its end is written down.

#![forbid(unsafe_code)]

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::num::NonZeroU32;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA256};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::custody::token::{Pin, PinState};

/// The PINs of one token, in two files of the worker's state directory.
pub(in crate::custody) struct PinMemory {
    file: PathBuf,
    key: Zeroizing<[u8; KEY_BYTES]>,
    /// The last mark, by a quick code over what it was made of: making one costs time on purpose.
    last: Option<(hmac::Tag, Mark)>,
    /// Refused, and not written down yet: whatever becomes of the file, this process does not present them again.
    unwritten: Vec<Mark>,
    /// Most attempts of unclear end in a row with a PIN that the token took before.
    most_unclear: u32,
    /// The PIN whose last attempt had no clear end, and when it may be tried again.
    not_before: Option<(Mark, Instant)>,
    /// While an attempt is under way: no other process makes one.
    held: Option<Flock<File>>,
}

/// Stands for a PIN and a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(in crate::custody) struct Mark(String);

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::custody) enum Outcome {
    /// The token took it.
    Accepted,
    /// The token took it for wrong, or takes none.
    Refused,
    /// Nobody knows whether the token counted it.
    Unclear,
    /// The token did not come to look at it.
    NotTried,
}

/// Why a PIN is not presented.
#[derive(Debug, thiserror::Error)]
pub(in crate::custody) enum PinMemoryError {
    #[error("cannot keep the memory of PINs: {step} {path}; without it a refused PIN could be presented again")]
    Io { step: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "the directory for the memory of PINs, {path}, has mode {mode:04o} and belongs to user {owner}: others could \
         make the worker forget which PINs were refused; make it the worker's own and `chmod 0700` it"
    )]
    Open { path: PathBuf, mode: u32, owner: u32 },
    #[error("the memory of PINs {0} cannot be read; look whether the token counts wrong PINs, then remove the file")]
    Damaged(PathBuf),
    #[error(
        "the token has refused the PIN in `pin_file`; it is not tried again. Correct the file, and it is tried at \
         once; or, if the token was set to this very PIN since, remove {0}"
    )]
    Refused(PathBuf),
    #[error(
        "earlier attempts with the PIN in `pin_file` ended in a way that leaves open whether the token counted them; \
         it is not tried again. Look at the token's count of wrong PINs, then remove {0}"
    )]
    Unclear(PathBuf),
    #[error("the last attempt with the PIN in `pin_file` had no clear end; the next one is made in {0:.1?}")]
    Later(Duration),
    #[error("another process presents a PIN to this token just now ({0} is locked); try again when it is done")]
    Busy(PathBuf),
    #[error("{count} different PINs were refused; correct `pin_file`, then remove {path}")]
    Full { count: usize, path: PathBuf },
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Book {
    version: u32,
    pins: Vec<Record>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    mark: Mark,
    state: State,
    /// Attempts of which nobody knows whether they were counted, since the token took it last.
    unclear: u32,
    /// The token took it once.
    known: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// Not over, or interrupted.
    Attempting,
    Accepted,
    Refused,
    Unclear,
}

impl PinMemory {
    /// The memory of the token of this name in the configuration. The directory is made if it is not there. `warns`:
    /// the token's flags say that wrong PINs were counted before it locks, as far as anybody knows.
    ///
    /// # Errors
    /// When it cannot be used.
    pub(in crate::custody) fn open(directory: &Path, token: &str, warns: bool) -> Result<Self, PinMemoryError> {
        let io = |step, path: &Path| {
            let path = path.to_owned();
            move |source| PinMemoryError::Io { step, path, source }
        };
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(io("make", directory)(error))?,
            _ => {}
        }
        let metadata = fs::metadata(directory).map_err(io("look at", directory))?;
        let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
        // Root acts for the worker, whose directory it is: see `replace`.
        let ours = [0, nix::unistd::geteuid().as_raw()].contains(&owner) || nix::unistd::geteuid().is_root();
        if mode & 0o022 != 0 || !ours {
            return Err(PinMemoryError::Open { path: directory.to_owned(), mode, owner });
        }
        let key_file = directory.join(format!("{token}.pins.key"));
        let key = key(&key_file).map_err(io("make or read", &key_file))?;
        Ok(Self {
            file: directory.join(format!("{token}.pins.json")),
            key,
            last: None,
            unwritten: Vec::new(),
            most_unclear: if warns { MAX_UNCLEAR_WARNED } else { MAX_UNCLEAR },
            not_before: None,
            held: None,
        })
    }

    /// Writes down that the PIN is about to be presented to the token of this serial number, if it may be.
    ///
    /// # Errors
    /// When it may not, or nothing can be written.
    pub(in crate::custody) fn attempt(
        &mut self,
        pin: &Pin,
        serial: &str,
        flags: PinState,
    ) -> Result<Mark, PinMemoryError> {
        let held = self.lock()?;
        let mark = self.begin(pin, serial, flags)?;
        self.held = Some(held);
        Ok(mark)
    }

    fn begin(&mut self, pin: &Pin, serial: &str, flags: PinState) -> Result<Mark, PinMemoryError> {
        let mut book = self.read()?;
        let mark = self.mark(pin, serial);
        if self.unwritten.contains(&mark) {
            // It may be possible to write it down by now; it stays refused either way.
            let _ = self.resolve(&mark, Outcome::Refused);
            return Err(PinMemoryError::Refused(self.file.clone()));
        }
        let count = book.pins.len();
        match book.pins.iter_mut().find(|record| record.mark == mark) {
            None if count >= MOST_PINS => return Err(PinMemoryError::Full { count, path: self.file.clone() }),
            None => book.pins.push(Record { mark: mark.clone(), state: State::Attempting, unclear: 0, known: false }),
            Some(record) => {
                if record.state == State::Attempting {
                    record.unclear += 1;
                }
                // The token's own word counts most. A PIN that it took before is wrong only if somebody changed it
                // on the token; one that it never took may be wrong, and tokens exist that lock after three. Even a
                // known one has its bound: that nothing was counted is only as true as the flags are.
                let doubtful = record.unclear > 0 && flags != PinState::Good;
                if record.state == State::Refused {
                    return Err(PinMemoryError::Refused(self.file.clone()));
                }
                let most = if record.known { self.most_unclear } else { MAX_UNCLEAR };
                if doubtful || record.unclear >= most {
                    return Err(PinMemoryError::Unclear(self.file.clone()));
                }
                if let Some((_, when)) = self.not_before.as_ref().filter(|(waits, _)| record.known && *waits == mark) {
                    let left = when.saturating_duration_since(Instant::now());
                    if !left.is_zero() {
                        return Err(PinMemoryError::Later(left));
                    }
                }
                record.state = State::Attempting;
            }
        }
        self.write(&book)?;
        Ok(mark)
    }

    /// Writes down how it ended.
    ///
    /// # Errors
    /// When nothing can be written: the attempt then counts as one of unclear end.
    pub(in crate::custody) fn resolve(&mut self, mark: &Mark, outcome: Outcome) -> Result<(), PinMemoryError> {
        // Given free when the end is written down, or cannot be.
        let _held = self.held.take();
        if outcome == Outcome::Refused && !self.unwritten.contains(mark) {
            self.unwritten.push(mark.clone());
        }
        self.not_before = None;
        let mut book = self.read()?;
        if let Some(at) = book.pins.iter().position(|record| record.mark == *mark) {
            let record = &mut book.pins[at];
            match outcome {
                Outcome::Accepted => {
                    (record.state, record.unclear, record.known) = (State::Accepted, 0, true);
                }
                Outcome::Refused => (record.state, record.known) = (State::Refused, false),
                Outcome::Unclear => {
                    (record.state, record.unclear) = (State::Unclear, record.unclear.saturating_add(1));
                    let pause = FIRST_PAUSE.saturating_mul(1 << (record.unclear - 1).min(6)).min(LONGEST_PAUSE);
                    self.not_before = Some((mark.clone(), Instant::now() + pause));
                }
                Outcome::NotTried if record.unclear > 0 => record.state = State::Unclear,
                Outcome::NotTried if record.known => record.state = State::Accepted,
                Outcome::NotTried => drop(book.pins.remove(at)),
            }
        } else if outcome == Outcome::Refused {
            book.pins.push(Record { mark: mark.clone(), state: State::Refused, unclear: 0, known: false });
        }
        self.write(&book)?;
        self.unwritten.retain(|unwritten| unwritten != mark);
        Ok(())
    }

    /// A PIN that was set to this value just now is right, whatever became of it before.
    ///
    /// # Errors
    /// When nothing can be written.
    pub(in crate::custody) fn set(&mut self, pin: &Pin, serial: &str) -> Result<(), PinMemoryError> {
        let _held = self.lock()?;
        let mark = self.mark(pin, serial);
        self.unwritten.retain(|unwritten| *unwritten != mark);
        let mut book = self.read()?;
        if book.pins.iter().any(|record| record.mark == mark) {
            book.pins.retain(|record| record.mark != mark);
            self.write(&book)?;
        }
        Ok(())
    }

    fn lock(&self) -> Result<Flock<File>, PinMemoryError> {
        let path = self.file.with_extension("lock");
        let failed = |source| PinMemoryError::Io { step: "lock", path: path.clone(), source };
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(&path).map_err(failed)?;
        given_to_owner(&file, &path).map_err(failed)?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            nix::errno::Errno::EWOULDBLOCK => PinMemoryError::Busy(path.clone()),
            errno => failed(errno.into()),
        })
    }

    fn mark(&mut self, pin: &Pin, serial: &str) -> Mark {
        let mut quick = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.key[..]));
        quick.update(&u64::try_from(serial.len()).unwrap_or(0).to_be_bytes());
        quick.update(serial.as_bytes());
        quick.update(pin.expose());
        let quick = quick.sign();
        if let Some((_, mark)) = self.last.as_ref().filter(|(last, _)| last.as_ref() == quick.as_ref()) {
            return mark.clone();
        }
        let salt = Zeroizing::new([&self.key[..], serial.as_bytes()].concat());
        let mut out = [0; 32];
        pbkdf2::derive(PBKDF2_HMAC_SHA256, ITERATIONS, &salt, pin.expose(), &mut out);
        let mark = Mark(crate::hex::hex(&out));
        self.last = Some((quick, mark.clone()));
        mark
    }

    fn read(&self) -> Result<Book, PinMemoryError> {
        let failed = |source| PinMemoryError::Io { step: "read", path: self.file.clone(), source };
        let text = match fs::read(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Book::default()),
            read => read.map_err(failed)?,
        };
        match serde_json::from_slice::<Book>(&text) {
            Ok(book) if book.version == VERSION => Ok(book),
            _ => Err(PinMemoryError::Damaged(self.file.clone())),
        }
    }

    /// Replaces the file; when this returns, a power cut does not undo it.
    fn write(&self, book: &Book) -> Result<(), PinMemoryError> {
        let failed = |source| PinMemoryError::Io { step: "write", path: self.file.clone(), source };
        let text = serde_json::to_vec(&Book { version: VERSION, pins: book.pins.clone() })
            .map_err(|error| failed(error.into()))?;
        replace(&self.file, &text).map_err(failed)
    }
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    // Never through what somebody put in its place: the directory may be another user's.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&fresh)?;
    given_to_owner(&file, path)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// What root writes belongs to whom the directory belongs to, or the worker could not read it.
fn given_to_owner(file: &File, path: &Path) -> io::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let directory = fs::metadata(path.parent().unwrap_or(Path::new("/")))?;
    std::os::unix::fs::fchown(file, Some(directory.uid()), Some(directory.gid()))
}

/// The key in the file, which is made at the first start. It appears there whole or not at all.
fn key(path: &Path) -> io::Result<Zeroizing<[u8; KEY_BYTES]>> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    match File::open(path) {
        Ok(mut file) => {
            file.read_exact(&mut key[..])?;
            return Ok(key);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    SystemRandom::new().fill(&mut key[..]).map_err(|_| io::Error::other("the system gives no random numbers"))?;
    replace(path, &key[..])?;
    Ok(key)
}

const VERSION: u32 = 1;
const KEY_BYTES: usize = 32;

/// Some 50 ms: once at a login, and much to whoever would try all PINs of six digits.
#[allow(clippy::unwrap_used, reason = "a constant that is not zero, found out when this is compiled")]
const ITERATIONS: NonZeroU32 = NonZeroU32::new(200_000).unwrap();

/// Fewer than any token allows before it locks.
const MAX_UNCLEAR: u32 = 2;

/// Of a PIN that the token took before, where the token's flags would tell that one was counted.
const MAX_UNCLEAR_WARNED: u32 = 5;

/// After an attempt of unclear end with a PIN that the token took before; doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

const MOST_PINS: usize = 100;

#[cfg(test)]
#[path = "pins_tests.rs"]
mod tests;
