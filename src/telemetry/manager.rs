//! What the service manager is told (`sd_notify(3)`). Without a service manager these do nothing.

#![forbid(unsafe_code)]

use std::time::Duration;

use sd_notify::NotifyState;

/// Everything works, as far as `status` says. Ends a start or a reload.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// One line for `systemctl status`.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(&one_line(status))]);
}

/// The configuration is being read anew; [`ready`] ends that. The time is for `Type=notify-reload` (systemd 253), which
/// believes no `READY=1` from before it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now, NotifyState::Status("reading the configuration anew")]),
        Err(error) => tracing::debug!(%error, "the time of the reload cannot be told"),
    }
}

/// The process ends when what it has is finished, which may take so long.
pub fn stopping(status: &str, longest: Duration) {
    let micros = u32::try_from(longest.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros), NotifyState::Status(&one_line(status))]);
}

/// The process is alive, and nothing in it hangs.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often [`alive`] must be called at least; `None` where nobody waits for it.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be notified");
    }
}

/// A line feed would begin another assignment of the protocol.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect()
}

/// What a terminal shows of it.
const LONGEST: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_line_and_no_other_assignment() {
        assert_eq!(one_line("a\nWATCHDOG=trigger"), "a WATCHDOG=trigger");
        assert_eq!(one_line(&"ä".repeat(1000)).chars().count(), LONGEST);
    }
}
