//! The speed of the device.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_timerslack;

use super::armed::Random;
use super::lock;
use crate::Delay;

/// The lanes of the device, each of which makes one signature at a time.
///
/// A lane is booked ahead: a call that comes while all are taken is given the time at which the first will be free, so
/// that a device with a queue loses nothing between two signatures, however late a thread is woken. Where a call comes
/// only after the one before it was answered, it starts earlier by the time by which the operating system woke that
/// one late, which a real device would not have lost either; the caller's own time between the two is never given back.
#[derive(Default)]
pub(super) struct Lanes {
    inner: Mutex<Inner>,
    late_us: AtomicU64,
}

impl Lanes {
    /// Sets the device's speed; `None` for that of the real module.
    pub(super) fn set(&self, speed: Option<Speed>) {
        let mut inner = lock(&self.inner);
        if inner.speed == speed {
            return;
        }
        let lanes = speed.map_or(0, |speed| speed.lanes.max(1));
        inner.lanes = (0..lanes).map(|_| Lane { free: Instant::now(), owed: Duration::ZERO }).collect();
        inner.speed = speed;
    }

    /// Books the next signature, `None` where the device has no speed of its own.
    pub(super) fn book(&self) -> Option<Booking> {
        let mut guard = lock(&self.inner);
        let Inner { speed, lanes, random } = &mut *guard;
        let taken = random.delay((*speed)?.latency);
        let (number, lane) = lanes.iter_mut().enumerate().min_by_key(|(_, lane)| lane.free)?;
        let now = Instant::now();
        // What is owed belongs to the caller that was woken late and comes back at once, not to one that comes later.
        let credit = if now < lane.free + lane.owed + taken { lane.owed } else { Duration::ZERO };
        lane.owed = Duration::ZERO;
        lane.free = lane.free.max(now.checked_sub(credit).unwrap_or(now)) + taken;
        Some(Booking { lane: number, done: lane.free })
    }

    /// Waits until the booked signature is done.
    pub(super) fn wait(&self, booking: Booking) {
        sleep_until(booking.done);
        let late = booking.done.elapsed();
        self.late_us.fetch_add(u64::try_from(late.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if let Some(lane) = lock(&self.inner).lanes.get_mut(booking.lane)
            && lane.free == booking.done
        {
            lane.owed = late;
        }
    }

    pub(super) fn late_us(&self) -> u64 {
        self.late_us.load(Ordering::Relaxed)
    }

    pub(super) fn reset(&self) {
        self.late_us.store(0, Ordering::Relaxed);
    }
}

/// How fast the device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Speed {
    pub(super) lanes: u32,
    pub(super) latency: Delay,
}

/// A place in a lane.
#[derive(Clone, Copy)]
pub(super) struct Booking {
    lane: usize,
    done: Instant,
}

/// Waits, as exactly as the operating system allows.
pub(super) fn sleep_until(done: Instant) {
    if !SHARP.replace(true) {
        // Else the kernel gathers wake-ups within 50 microseconds. Where it refuses, they come so much later.
        let _ = set_timerslack(1);
    }
    thread::sleep(done.saturating_duration_since(Instant::now()));
}

#[derive(Default)]
struct Inner {
    speed: Option<Speed>,
    lanes: Vec<Lane>,
    random: Random,
}

struct Lane {
    free: Instant,
    owed: Duration,
}

thread_local! {
    static SHARP: Cell<bool> = const { Cell::new(false) };
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn lanes(count: u32, latency_us: u64) -> Lanes {
        let lanes = Lanes::default();
        lanes.set(Some(Speed { lanes: count, latency: Delay { fixed_us: latency_us, jitter_us: 0 } }));
        lanes
    }

    #[test]
    fn a_queue_is_booked_without_a_gap_and_lanes_are_taken_in_turn() {
        let lanes = lanes(2, 100_000);
        let before = Instant::now();
        let done: Vec<_> = (0..6).map(|_| lanes.book().unwrap().done).collect();
        let taken = before.elapsed();
        for (number, done) in done.iter().enumerate() {
            let expected = Duration::from_micros(100_000 * (number as u64 / 2 + 1));
            let actual = *done - before;
            assert!(actual >= expected && actual <= expected + taken, "booking {number} is done after {actual:?}");
        }
    }

    #[test]
    fn a_late_wake_up_is_given_back_once_and_the_callers_own_time_never() {
        let lanes = lanes(1, 50_000);
        let first = lanes.book().unwrap();
        thread::sleep(first.done.saturating_duration_since(Instant::now()) + Duration::from_millis(5));
        let finished = first.done;
        lanes.wait(first);
        let owed = lock(&lanes.inner).lanes[0].owed;
        assert!(owed >= Duration::from_millis(5));
        thread::sleep(Duration::from_millis(3));
        let second = lanes.book().unwrap();
        assert!(second.done >= finished + Duration::from_millis(53), "the caller's three milliseconds were given back");
        assert!(
            second.done + owed <= Instant::now() + Duration::from_millis(50),
            "the late wake-up was not given back"
        );
    }

    #[test]
    fn without_a_speed_nothing_is_booked() {
        assert!(Lanes::default().book().is_none());
    }
}
