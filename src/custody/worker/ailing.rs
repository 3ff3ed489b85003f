//! Keys over whose opening sessions are lost again and again, while the token signs with others.
//!
//! A device that fails as a whole is what the ladder is for. A key that fails alone must not cost its neighbours a
//! session each time that the front asks for it: it is opened less and less often, and answered from memory meanwhile.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::state::locked;
use crate::custody::uri::KeyUri;

#[derive(Debug, Default)]
pub(super) struct Ailing {
    keys: Mutex<HashMap<KeyUri, Ailment>>,
    /// How many there are, to be read without the lock.
    count: AtomicUsize,
}

#[derive(Debug)]
struct Ailment {
    times: u32,
    until: Instant,
    why: String,
}

impl Ailing {
    /// A session was lost over this key alone.
    pub(super) fn failed(&self, uri: &KeyUri, why: &str, now: Instant) {
        let mut keys = locked(&self.keys);
        if keys.len() >= MOST && !keys.contains_key(uri) {
            keys.clear();
        }
        let ailment = keys.entry(uri.clone()).or_insert(Ailment { times: 0, until: now, why: String::new() });
        ailment.times = ailment.times.saturating_add(1);
        ailment.until = now + pause(ailment.times);
        why.clone_into(&mut ailment.why);
        self.count.store(keys.len(), Relaxed);
    }

    /// How often sessions were lost over this key since it last opened well.
    pub(super) fn times(&self, uri: &KeyUri) -> u32 {
        if self.count.load(Relaxed) == 0 { 0 } else { locked(&self.keys).get(uri).map_or(0, |ailment| ailment.times) }
    }

    /// Why this key is not to be tried yet; `None` when it may be.
    pub(super) fn barred(&self, uri: &KeyUri, now: Instant) -> Option<String> {
        if self.count.load(Relaxed) == 0 {
            return None;
        }
        let keys = locked(&self.keys);
        let ailment = keys.get(uri).filter(|ailment| now < ailment.until)?;
        // The same words each time, so that whoever hears them knows that it is no news.
        Some(format!(
            "sessions are lost over it, while the token signs with other keys, so it is tried less and less often: {}",
            ailment.why
        ))
    }

    /// This key opened well.
    pub(super) fn opened(&self, uri: &KeyUri) {
        if self.count.load(Relaxed) > 0 {
            let mut keys = locked(&self.keys);
            keys.remove(uri);
            self.count.store(keys.len(), Relaxed);
        }
    }

    /// It is not single keys that ail: each may be tried at once.
    pub(super) fn forget(&self) {
        if self.count.load(Relaxed) > 0 {
            locked(&self.keys).clear();
            self.count.store(0, Relaxed);
        }
    }
}

/// None after the first time, which may be chance; then a quarter of a second, doubling up to half a minute.
fn pause(times: u32) -> Duration {
    match times {
        0 | 1 => Duration::ZERO,
        more => (FIRST * (1 << (more - 2).min(10))).min(LONGEST),
    }
}

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);

/// Remembered at once; a token where more keys ail is not one where single keys do.
const MOST: usize = 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_tried_less_and_less_often_until_it_opens() {
        let (ailing, bad, other) = (Ailing::default(), uri("bad"), uri("other"));
        let mut now = Instant::now();
        ailing.failed(&bad, "CKR_X", now);
        assert_eq!((ailing.times(&bad), ailing.barred(&bad, now)), (1, None), "once may be chance");
        let mut pauses = Vec::new();
        for _ in 0..10 {
            ailing.failed(&bad, "CKR_X", now);
            let began = now;
            while ailing.barred(&bad, now).is_some() {
                now += Duration::from_millis(250);
            }
            pauses.push((now - began).as_millis());
        }
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
        ailing.failed(&bad, "CKR_X", now);
        assert!(ailing.barred(&bad, now).unwrap().contains("CKR_X"));
        assert_eq!((ailing.barred(&other, now), ailing.times(&other)), (None, 0), "its neighbours are not barred");
        ailing.opened(&bad);
        assert_eq!((ailing.barred(&bad, now), ailing.times(&bad)), (None, 0));
        ailing.failed(&bad, "CKR_X", now);
        ailing.failed(&bad, "CKR_X", now);
        ailing.forget();
        assert_eq!(ailing.barred(&bad, now), None, "the token as a whole is back");
    }

    fn uri(object: &str) -> KeyUri {
        format!("pkcs11:object={object}").parse().unwrap()
    }
}
