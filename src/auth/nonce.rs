//! Nonces for DPoP proofs (RFC 9449, section 8).
//!
//! A nonce is the second it was made in, and a MAC over it under a key that lives as long as the process. Nothing is
//! stored. A nonce from before a restart is worth nothing after it, which is what closes the replay window of the
//! forgotten proofs. Seconds are those of the steady clock: setting the wall clock back revives no nonce.

use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use subtle::ConstantTimeEq as _;

use crate::jose::base64url;

pub(super) struct Nonces {
    key: hmac::Key,
    started: Instant,
    lifetime: Duration,
}

/// What a presented nonce is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Given out so long ago.
    Valid(Duration),
    /// Valid, and past half of its life: time to hand out another.
    Ageing(Duration),
    Invalid,
}

impl Nonces {
    /// `None` when the system has no randomness to give.
    pub(super) fn new(lifetime: Duration, started: Instant) -> Option<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok()?;
        Some(Self { key, started, lifetime })
    }

    pub(super) fn issue(&self, now: Instant) -> HeaderValue {
        let second = self.second(now).to_be_bytes();
        let mut nonce = [0; NONCE_BYTES];
        nonce[..4].copy_from_slice(&second);
        nonce[4..].copy_from_slice(&self.mac(second));
        HeaderValue::from_str(&base64url(&nonce)).expect("base64url is valid in a header")
    }

    pub(super) fn standing(&self, nonce: &str, now: Instant) -> Standing {
        let mut bytes = [0; NONCE_BYTES];
        if nonce.len() != NONCE_CHARS || URL_SAFE_NO_PAD.decode_slice(nonce, &mut bytes) != Ok(NONCE_BYTES) {
            return Standing::Invalid;
        }
        let [a, b, c, d, mac @ ..] = bytes;
        let second = [a, b, c, d];
        let genuine = bool::from(self.mac(second).ct_eq(&mac));
        let age = self.second(now).checked_sub(u32::from_be_bytes(second)).map(|age| Duration::from_secs(age.into()));
        match age {
            Some(age) if genuine && age <= self.lifetime / 2 => Standing::Valid(age),
            Some(age) if genuine && age <= self.lifetime => Standing::Ageing(age),
            _ => Standing::Invalid,
        }
    }

    fn second(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.started).as_secs()).unwrap_or(u32::MAX)
    }

    fn mac(&self, second: [u8; 4]) -> [u8; MAC_BYTES] {
        let tag = hmac::sign(&self.key, &second);
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(&tag.as_ref()[..MAC_BYTES]);
        mac
    }
}

const MAC_BYTES: usize = 16;
const NONCE_BYTES: usize = 4 + MAC_BYTES;
const NONCE_CHARS: usize = 27;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_lives_its_time_in_its_process_and_nowhere_else() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let nonces = Nonces::new(Duration::from_secs(300), start).unwrap();
        let issued = nonces.issue(at(1000));
        let nonce = issued.to_str().unwrap();
        for (second, standing) in [
            (999, Standing::Invalid),
            (1000, Standing::Valid(Duration::ZERO)),
            (1150, Standing::Valid(Duration::from_secs(150))),
            (1151, Standing::Ageing(Duration::from_secs(151))),
            (1300, Standing::Ageing(Duration::from_secs(300))),
            (1301, Standing::Invalid),
        ] {
            assert_eq!(nonces.standing(nonce, at(second)), standing, "{second}");
        }
        let restarted = Nonces::new(Duration::from_secs(300), start).unwrap();
        assert_eq!(restarted.standing(nonce, at(1000)), Standing::Invalid);
    }

    #[test]
    fn a_forged_nonce_is_invalid() {
        let start = Instant::now();
        let nonces = Nonces::new(Duration::from_secs(300), start).unwrap();
        let nonce = nonces.issue(start).to_str().unwrap().to_owned();
        for at in 0..nonce.len() {
            let mut forged = nonce.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(nonces.standing(std::str::from_utf8(&forged).unwrap(), start), Standing::Invalid, "{at}");
        }
        for forged in ["", "x", &nonce[1..], &format!("{nonce}A"), &format!("{nonce}="), "ééééééééééééé1"]
        {
            assert_eq!(nonces.standing(forged, start), Standing::Invalid, "{forged}");
        }
    }
}
