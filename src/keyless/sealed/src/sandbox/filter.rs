//! The list of system calls, compiled from `filter.json` when this was built.

use std::io;

use super::process::check;

/// From here on, whatever is not on the list kills the process.
pub(super) fn install() -> io::Result<()> {
    let length = u16::try_from(PROGRAM.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: PROGRAM.as_ptr().cast_mut() };
    let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
    // SAFETY: the kernel copies the program, and does not write to it.
    check(unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program, 0, 0) }.into())
}

include!(concat!(env!("OUT_DIR"), "/filter.rs"));

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::Value;

    #[test]
    fn every_rule_has_its_reason_and_the_default_kills() {
        let policy: Value = serde_json::from_str(include_str!("filter.json")).unwrap();
        let filter = &policy["sealed"];
        assert_eq!(filter["mismatch_action"], "kill_process");
        assert_eq!(filter["match_action"], "allow");
        for rule in filter["filter"].as_array().unwrap() {
            assert!(rule["comment"].as_str().is_some_and(|reason| reason.len() > 5), "{rule}");
        }
    }
}
