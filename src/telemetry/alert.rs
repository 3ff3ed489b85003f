//! The events that are worth an alert, each with a stable id.
//!
//! Where one is logged, it is with its name here, as in `tracing::error!(name: alert::BAD_SIGNATURE, …)`. In the journal it has
//! the id as `MESSAGE_ID` (systemd.journal-fields(7)), which monitoring can go by when words change. An id means the same
//! for ever: one that is no longer used is not used again. The table is also in `docs/operations.md` and, for
//! `journalctl --catalog`, in `systemd/catalog/`; tests hold them together.

#![forbid(unsafe_code)]

/// An event worth an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert {
    /// What the code calls it.
    pub name: &'static str,
    /// `MESSAGE_ID`: 128 bits in lowercase hexadecimal.
    pub id: &'static str,
    /// What has happened.
    pub what: &'static str,
    /// What an operator does.
    pub remedy: &'static str,
}

/// Signerd serves the Signer API.
pub const SERVING: &str = "signer.serving";
/// Signerd ends with an error and is started again.
pub const CANNOT_GO_ON: &str = "signer.cannot_go_on";
/// A configuration that was read anew is in force.
pub const CONFIGURATION_RELOADED: &str = "signer.configuration_reloaded";
/// A configuration was read anew and not taken.
pub const CONFIGURATION_REFUSED: &str = "signer.configuration_refused";
/// An event loop does not turn; systemd ends signerd soon.
pub const EVENT_LOOP_HANGS: &str = "signer.event_loop_hangs";
/// The audit log cannot be written: nothing is signed.
pub const AUDIT_FAILED: &str = "signer.audit_failed";
/// The audit log takes records again.
pub const AUDIT_RESUMED: &str = "signer.audit_resumed";
/// The end of the audit log was torn and was set aside.
pub const AUDIT_TORN: &str = "signer.audit_torn";
/// A token returned a signature that does not verify; it was not released.
pub const BAD_SIGNATURE: &str = "signer.bad_signature";
/// A key is not used in a token any more.
pub const KEY_OUT_OF_SERVICE: &str = "signer.key_out_of_service";
/// A device describes a key otherwise than before.
pub const KEY_ATTRIBUTES_CHANGED: &str = "signer.key_attributes_changed";
/// The configuration lets pass what the custody gate would refuse.
pub const CUSTODY_EXCEPTION: &str = "signer.custody_exception";
/// Signerd sees a token in another state than before.
pub const TOKEN_STATE: &str = "signer.token_state";
/// Somebody else than the worker serves its socket.
pub const WORKER_UNTRUSTED: &str = "signer.worker_untrusted";
/// A worker can sign.
pub const TOKEN_READY: &str = "signer.token_ready";
/// A worker has no session with its token and goes on trying.
pub const TOKEN_LOST: &str = "signer.token_lost";
/// The token refused the PIN, or must not be tried; it is not presented again.
pub const PIN_REFUSED: &str = "signer.pin_refused";
/// A call into the module does not return; the worker is killed and started again.
pub const CALL_HANGS: &str = "signer.call_hangs";
/// Only a new worker process can bring the module back.
pub const NEW_PROCESS: &str = "signer.new_process";
/// The files of [server.tls] changed and were not taken.
pub const TLS_FILES_REFUSED: &str = "signer.tls_files_refused";
/// Other client CAs or revocation lists are in force.
pub const CLIENT_TRUST_REPLACED: &str = "signer.client_trust_replaced";
/// The licensing revocation list is too old: every PoE is refused.
pub const REVOCATIONS_STALE: &str = "signer.revocations_stale";
/// Fulcio does not answer and is left alone for a while.
pub const FULCIO_UNANSWERED: &str = "signer.fulcio_unanswered";
/// A keyless helper that was tried at the start did not work.
pub const KEYLESS_UNSEALED: &str = "signer.keyless_unsealed";

/// Every one.
pub const ALL: &[Alert] = &[
    Alert {
        name: SERVING,
        id: "b4fe8c752ba74a7283db6815d568a420",
        what: "signerd serves the Signer API",
        remedy: "nothing; without it after a restart, see what follows",
    },
    Alert {
        name: CANNOT_GO_ON,
        id: "9c3cac69601741bda2a8eee7af7dff54",
        what: "signerd ends with an error and is started again",
        remedy: "mend what the message names",
    },
    Alert {
        name: CONFIGURATION_RELOADED,
        id: "e4270b40190b45e9ad1e4b59b66bfa4e",
        what: "a configuration that was read anew is in force",
        remedy: "nothing; the digest is in the audit log, too",
    },
    Alert {
        name: CONFIGURATION_REFUSED,
        id: "f00cc898f52b4d2c9f8a5c01c2277494",
        what: "a configuration was read anew and not taken",
        remedy: "mend the line that the message names; until then the old one is in force, and a restart would fail",
    },
    Alert {
        name: EVENT_LOOP_HANGS,
        id: "a39fc70f0dc643ce98ca4b7244b6089f",
        what: "an event loop does not turn; systemd ends signerd soon",
        remedy: "report it, with the journal before it",
    },
    Alert {
        name: AUDIT_FAILED,
        id: "60a67d393a2e4b10b210dc771dbf9269",
        what: "the audit log cannot be written: nothing is signed",
        remedy: "look at the disk of the audit log: full, read-only, failing",
    },
    Alert {
        name: AUDIT_RESUMED,
        id: "318b683a4eb948ae8b0036e8dc7e2ed8",
        what: "the audit log takes records again",
        remedy: "nothing",
    },
    Alert {
        name: AUDIT_TORN,
        id: "94f590a355244baf8c1ba7aa08d628de",
        what: "the end of the audit log was torn and was set aside",
        remedy: "find out why the machine or the process ended; see audit.md",
    },
    Alert {
        name: BAD_SIGNATURE,
        id: "cdc28bf6f99448879afdc8195dd1fa2f",
        what: "a token returned a signature that does not verify; it was not released",
        remedy: "take the token out and examine it; the key stays out of service there",
    },
    Alert {
        name: KEY_OUT_OF_SERVICE,
        id: "053ccd14aef949f88ac19563b8d7528a",
        what: "a key is not used in a token any more",
        remedy: "see the reason in the message; custody.md",
    },
    Alert {
        name: KEY_ATTRIBUTES_CHANGED,
        id: "20e6fd26da5544d4acc15e9699f8fadf",
        what: "a device describes a key otherwise than before",
        remedy: "find out who changed it",
    },
    Alert {
        name: CUSTODY_EXCEPTION,
        id: "84ba4edc99e543e29831e049cfc7f4af",
        what: "the configuration lets pass what the custody gate would refuse",
        remedy: "nothing, if it is meant",
    },
    Alert {
        name: TOKEN_STATE,
        id: "34833ee7c41943569ddcf9cc5d20eedf",
        what: "signerd sees a token in another state than before",
        remedy: "for another state than ready: look at its worker",
    },
    Alert {
        name: WORKER_UNTRUSTED,
        id: "eb81b34d659946f49f636fb16e7f77be",
        what: "somebody else than the worker serves its socket",
        remedy: "find out who; nothing was sent to it",
    },
    Alert { name: TOKEN_READY, id: "084a2ef5c61c48218e9206e6a953e3d0", what: "a worker can sign", remedy: "nothing" },
    Alert {
        name: TOKEN_LOST,
        id: "bb0ae88a4bdd49fc880d617cf77e96e5",
        what: "a worker has no session with its token and goes on trying",
        remedy: "look at the device and the way to it",
    },
    Alert {
        name: PIN_REFUSED,
        id: "e4d17f1d2d6b4dd5a0d44ea0f7c901ea",
        what: "the token refused the PIN, or must not be tried; it is not presented again",
        remedy: "write the right PIN; token-worker.md",
    },
    Alert {
        name: CALL_HANGS,
        id: "5012224a1eab4976ac5d8bf6f7231ac9",
        what: "a call into the module does not return; the worker is killed and started again",
        remedy: "look at the device and the way to it; call_timeout",
    },
    Alert {
        name: NEW_PROCESS,
        id: "b48fcff10bc842e2a7173b8f46887025",
        what: "only a new worker process can bring the module back",
        remedy: "nothing, if it comes back; else the device",
    },
    Alert {
        name: TLS_FILES_REFUSED,
        id: "346dc5a891fd46e6bc76a03ee9604f3a",
        what: "the files of [server.tls] changed and were not taken",
        remedy: "mend the file that the message names",
    },
    Alert {
        name: CLIENT_TRUST_REPLACED,
        id: "6454aeabc3714a0a9b7f0e0e79a70c8a",
        what: "other client CAs or revocation lists are in force",
        remedy: "nothing, if it was you",
    },
    Alert {
        name: REVOCATIONS_STALE,
        id: "1cc764a08734423fb91e9b78180b82fa",
        what: "the licensing revocation list is too old: every PoE is refused",
        remedy: "bring a new list",
    },
    Alert {
        name: FULCIO_UNANSWERED,
        id: "b4cfcb2b337f4e6792bf9e2144246506",
        what: "Fulcio does not answer and is left alone for a while",
        remedy: "look at Fulcio and the way to it",
    },
    Alert {
        name: KEYLESS_UNSEALED,
        id: "34a9e4cf246144c2a9f2c2d3f9f26897",
        what: "a keyless helper that was tried at the start did not work",
        remedy: "see the message; keyless.md",
    },
];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    fn sources(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn every_id_is_one_and_its_own() {
        let ids: HashSet<&str> = ALL.iter().map(|alert| alert.id).collect();
        let names: HashSet<&str> = ALL.iter().map(|alert| alert.name).collect();
        assert_eq!((ids.len(), names.len()), (ALL.len(), ALL.len()));
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        assert!(ALL.iter().all(|alert| alert.id.len() == 32 && alert.id.bytes().all(hex)));
    }

    #[test]
    fn every_alert_is_raised_somewhere() {
        let own = Path::new("telemetry").join("alert.rs");
        let code: String = sources(&root().join("src"))
            .iter()
            .filter(|path| path.extension().is_some_and(|is| is == "rs") && !path.ends_with(&own))
            .map(|path| fs::read_to_string(path).unwrap())
            .collect();
        for alert in ALL {
            let constant = alert.name.trim_start_matches("signer.").to_uppercase();
            assert!(code.contains(&format!("name: alert::{constant},")), "nobody raises {constant}");
        }
    }

    #[test]
    fn the_page_for_operators_and_the_catalog_of_the_journal_say_the_same() {
        let page = fs::read_to_string(root().join("docs/operations.md")).unwrap();
        let catalog = fs::read_to_string(root().join("systemd/catalog/stellaops-signer.catalog")).unwrap();
        for Alert { name, id, what, remedy } in ALL {
            let name = name.trim_start_matches("signer.");
            let row = format!("| `{name}` | `{id}` | {what} | {remedy} |");
            assert!(page.lines().any(|line| line == row), "docs/operations.md lacks: {row}");
            let entry = format!("-- {id}\nSubject: StellaOps Signer: {what}\nDefined-By: stellaops-signer\n");
            assert!(catalog.contains(&entry), "the catalog lacks: {entry}");
            assert!(catalog.contains(&format!("\n{remedy}\n")), "the catalog lacks: {remedy}");
        }
        assert_eq!(catalog.matches("\n-- ").count() + 1, ALL.len(), "the catalog has as many entries");
    }
}
