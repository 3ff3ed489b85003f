//! How fast the token signs by itself: what the rest of the appliance is measured against.

use std::fmt;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use serde::Serialize;

use super::Plan;
use super::device::Device;
use super::pins::PinMemory;
use crate::custody::token::{Token, TokenError, explain};
use crate::custody::uri::KeyUri;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Measured {
    /// Sessions that signed at the same time.
    sessions: u32,
    /// Wall-clock seconds.
    seconds: f64,
    /// Signatures made by all sessions together.
    signatures: u64,
    /// Signatures per second of all sessions together.
    per_second: f64,
    /// User and system CPU of the process, microseconds per signature.
    cpu_us_per_signature: f64,
}

/// Signs in a bare loop on every configured session for `time`.
pub(super) fn run(plan: Plan, token: Box<dyn Token>, uri: &KeyUri, time: Duration) -> Result<Measured, String> {
    let pins = PinMemory::open(&plan.state_dir, &plan.name, plan.pin_warns).map_err(|error| explain(&error))?;
    let device = Device::new(token, plan.pin_file, pins);
    let threads = usize::try_from(plan.sessions).unwrap_or(1);
    let start = Barrier::new(threads + 1);
    let (signatures, wall, cpu) = std::thread::scope(|scope| {
        let sessions: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let opened = device.session().map_err(|none| none.detail);
                    let ready = opened.and_then(|opened| {
                        let key = opened.session.find_key(uri).map_err(|error| explain(&error))?;
                        Ok((opened.session, key))
                    });
                    start.wait();
                    let (session, key) = ready?;
                    let deadline = Instant::now() + time;
                    let mut digest = [0x5a; 32];
                    let mut made = 0u64;
                    while Instant::now() < deadline {
                        digest[..8].copy_from_slice(&made.to_be_bytes());
                        session.sign(key.slot, &digest).map_err(|error: TokenError| explain(&error))?;
                        made += 1;
                    }
                    Ok::<u64, String>(made)
                })
            })
            .collect();
        start.wait();
        let (began, cpu) = (Instant::now(), cpu_time());
        let mut signatures = 0;
        for session in sessions {
            signatures += session.join().map_err(|_| "a session thread panicked".to_owned())??;
        }
        Ok::<_, String>((signatures, began.elapsed(), cpu_time().saturating_sub(cpu)))
    })?;
    #[allow(clippy::cast_precision_loss, reason = "a rate, not an account")]
    let count = signatures as f64;
    Ok(Measured {
        sessions: plan.sessions,
        seconds: wall.as_secs_f64(),
        signatures,
        per_second: count / wall.as_secs_f64(),
        cpu_us_per_signature: cpu.as_secs_f64() * 1e6 / count.max(1.0),
    })
}

fn cpu_time() -> Duration {
    let micros = |time: nix::sys::time::TimeVal| {
        Duration::from_secs(u64::try_from(time.tv_sec()).unwrap_or(0))
            + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap_or(0))
    };
    getrusage(UsageWho::RUSAGE_SELF)
        .map(|usage| micros(usage.user_time()) + micros(usage.system_time()))
        .unwrap_or_default()
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sessions, seconds, signatures, per_second, cpu_us_per_signature } = self;
        write!(
            f,
            "{per_second:.0} signatures/s on {sessions} sessions ({signatures} in {seconds:.2} s, \
             {cpu_us_per_signature:.1} µs CPU each)"
        )
    }
}
