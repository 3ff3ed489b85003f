//! The test suites, in the order they run. One row a suite; a new file in `tests/` needs a row here.

#![forbid(unsafe_code)]

use crate::Outcome;
use crate::host::{
    APPARMOR, BZIP2, CHECKMODULE, CURL, DPKG, IP, LINTIAN, NSPAWN, Need, OPENSC, OPENSSL, PERL, PYTHON, QEMU, RPM,
    RPMLINT, SEMODULE_PACKAGE, SHELLCHECK, SOFTHSM, SYSTEMD, UNSHARE,
};
use crate::peers::{
    COSIGN, COSIGN_V2, DEBIAN_12, DEBIAN_13, DEBIAN_SID, DISTRIBUTION, FULCIO, GUEST, KRYOPTIC, NOTATION,
    OIDC_PROVIDER, PACKAGES, PACKAGES_ELSEWHERE, PACKAGES_TO_INSTALL, PROMTOOL, Peer, RACK, REGISTRY, ROOT, SEALED,
    SECURESYSTEMSLIB, SELINUX_POLICY, SIGSTORE_GO, SIGSTORE_JS, SIGSTORE_RS, TIMESTAMP_SERVER, TPM2_PKCS11, ZOT,
    may_boot,
};

/// A suite of tests.
pub(crate) struct Suite {
    /// What `cargo xtask test NAME` calls it.
    pub(crate) name: &'static str,
    /// What is known when it passes.
    pub(crate) proves: &'static str,
    /// Arguments of `cargo test`, one run each. All of the workspace is selected wherever that does no harm: another
    /// selection unites the features of the dependencies in another way, and compiles them once more.
    pub(crate) runs: &'static [&'static [&'static str]],
    /// What the machine must have.
    pub(crate) needs: &'static [&'static Need],
    /// Programs that are not ours; without one, the tests in the module of its name are skipped.
    pub(crate) peers: &'static [&'static Peer],
}

pub(crate) const SUITES: &[Suite] = &[
    Suite {
        name: "unit",
        proves: "each module keeps its contract; published vectors hold",
        runs: &[&["--workspace", "--lib", "--bins"], &["--workspace", "--doc"]],
        needs: &[&SOFTHSM, &OPENSC],
        peers: &[],
    },
    Suite {
        name: "testkit",
        proves: "the test peers themselves do what the protocols say",
        runs: &[&["--workspace", "--test", "itself"]],
        needs: &[&SOFTHSM, &OPENSC, &OPENSSL],
        peers: &[],
    },
    Suite {
        name: "faulty-token",
        proves: "the fault-injecting PKCS#11 module does to an application what each fault says, and stops",
        runs: &[&["--workspace", "--test", "module"]],
        needs: &[&SOFTHSM],
        peers: &[],
    },
    Suite {
        name: "api",
        proves: "the Signer API over mTLS, as the README shows it, and certificates and lists replaced meanwhile",
        runs: &[&["--workspace", "--test", "api"], &["--workspace", "--test", "live_tls"]],
        needs: &[&SOFTHSM, &OPENSC, &OPENSSL, &CURL],
        peers: &[],
    },
    Suite {
        name: "crash",
        proves: "SIGKILL at any point: no answer without its durable record, and nobody is needed to go on",
        runs: &[&["--workspace", "--test", "crash"]],
        needs: &[&SOFTHSM, &OPENSC, &OPENSSL],
        peers: &[],
    },
    Suite {
        name: "custody",
        proves: "the token worker on a real PKCS#11 module, and what becomes of it in every fault (with a table)",
        runs: &[&["--workspace", "--test", "custody_worker"], &["--workspace", "--test", "faults"]],
        needs: &[&SOFTHSM, &OPENSC, &OPENSSL],
        peers: &[],
    },
    Suite {
        name: "custody-front",
        proves: "one key in two tokens: failover, draining, the custody gate and its exceptions, custody reports",
        runs: &[&["--workspace", "--test", "custody_front"]],
        needs: &[&SOFTHSM, &OPENSC, &OPENSSL],
        peers: &[],
    },
    Suite {
        name: "sealed",
        proves: "the keyless helper: its flow, no way out of its release build (with a table), nothing left in memory",
        runs: &[&["--package", "signer-keyless", "--test", "sealed"]],
        needs: &[&OPENSSL],
        peers: &[&SEALED],
    },
    Suite {
        name: "yubihsm",
        proves: "the whole appliance on a YubiHSM 2: sessions, its limits, attestation, its log joined to ours",
        runs: &[&["--workspace", "--test", "client"], &["--workspace", "--test", "yubihsm"]],
        needs: &[],
        peers: &[],
    },
    Suite {
        name: "operator",
        proves: "tokens and keys from their making to their end, and a doctor that names the line that mends it",
        runs: &[&["--workspace", "--test", "operator"]],
        needs: &[&SOFTHSM, &OPENSC, &OPENSSL],
        peers: &[],
    },
    Suite {
        name: "units",
        proves: "the systemd units verify and are as closed as is promised, with each drop-in",
        runs: &[&["--workspace", "--test", "units"]],
        needs: &[&SYSTEMD, &UNSHARE],
        peers: &[],
    },
    Suite {
        name: "handover",
        proves: "restarts and reloads under load refuse nobody; a bad configuration changes nothing; what systemd is told",
        runs: &[&["--workspace", "--test", "handover"]],
        needs: &[&SOFTHSM, &OPENSC, &OPENSSL],
        peers: &[],
    },
    Suite {
        name: "package",
        proves: "the packages: every file, script and profile, what the checkers say, and the same bytes from anywhere",
        runs: &[&["--workspace", "--test", "package"]],
        needs: &[
            &APPARMOR,
            &BZIP2,
            &CHECKMODULE,
            &LINTIAN,
            &PYTHON,
            &RPM,
            &RPMLINT,
            &SEMODULE_PACKAGE,
            &SHELLCHECK,
            &SYSTEMD,
        ],
        peers: &[&PACKAGES, &PACKAGES_ELSEWHERE, &PROMTOOL, &SELINUX_POLICY],
    },
    Suite {
        name: "matrix",
        proves: "one end-to-end suite passes unchanged on every device that can be had here",
        runs: &[&["--workspace", "--test", "matrix"]],
        needs: &[&SOFTHSM, &OPENSC, &OPENSSL],
        peers: &[&KRYOPTIC, &TPM2_PKCS11, &RACK],
    },
    Suite {
        name: "cli",
        proves: "signerctl: its options, exit codes, man pages, and what it does with hostile files and answers",
        runs: &[&["--workspace", "--test", "cli"]],
        needs: &[&OPENSSL],
        peers: &[],
    },
    Suite {
        name: "hostile",
        proves: "bad input gets its documented answer and its record, and never a signature",
        runs: &[&["--workspace", "--test", "hostile"]],
        needs: &[&SOFTHSM, &OPENSC, &OPENSSL],
        peers: &[],
    },
    Suite {
        name: "release",
        proves: "only a scanner that a trusted identity has signed: real registries, real clients, and a registry that lies",
        runs: &[&["--workspace", "--test", "release"]],
        needs: &[&SOFTHSM, &OPENSC, &OPENSSL, &PERL, &CURL],
        peers: &[&ZOT, &REGISTRY, &DISTRIBUTION, &NOTATION, &COSIGN, &COSIGN_V2, &FULCIO, &TIMESTAMP_SERVER],
    },
    Suite {
        name: "authority",
        proves: "tokens of a real OpenID provider, bound both ways, keys rotating",
        runs: &[&["--workspace", "--test", "authority"]],
        needs: &[&SOFTHSM, &OPENSC],
        peers: &[&OIDC_PROVIDER],
    },
    Suite {
        name: "envelopes",
        proves: "verifiers that are not ours accept what we sign, and nothing else",
        runs: &[&["--workspace", "--test", "envelopes"]],
        needs: &[&SOFTHSM, &OPENSC, &OPENSSL],
        peers: &[&SECURESYSTEMSLIB, &COSIGN],
    },
    Suite {
        name: "keyless",
        proves: "bundles with a real Fulcio's certificates, before five verifiers, and no bundle of a hostile Fulcio",
        runs: &[&["--workspace", "--test", "keyless_front"], &["--workspace", "--test", "keyless"]],
        needs: &[&SOFTHSM, &OPENSC, &OPENSSL, &UNSHARE],
        peers: &[
            &FULCIO,
            &TIMESTAMP_SERVER,
            &OIDC_PROVIDER,
            &COSIGN,
            &COSIGN_V2,
            &SIGSTORE_GO,
            &SIGSTORE_JS,
            &SIGSTORE_RS,
            &ROOT,
        ],
    },
    Suite {
        name: "appliance",
        proves: "the package on a booted Debian 12 and 13: init, the unit sandboxes, and no failed request in any of it",
        runs: &[&["--workspace", "--test", "appliance"]],
        needs: &[&SOFTHSM, &OPENSC, &OPENSSL, &DPKG, &IP, &NSPAWN],
        peers: &[&PACKAGES_TO_INSTALL, &DEBIAN_12, &DEBIAN_13, &DEBIAN_SID],
    },
    Suite {
        name: "confined",
        proves: "on kernels that enforce AppArmor and SELinux: init, signing and the PIN prompt, with nothing denied",
        runs: &[&["--workspace", "--test", "confined"]],
        needs: &[&OPENSSL, &IP, &QEMU],
        peers: &[&PACKAGES_TO_INSTALL, &GUEST],
    },
];

/// What says whether this is a place where a suite can run, for those that cannot run everywhere and miss nothing that could
/// be installed. Elsewhere they are named as skipped, and no run fails for that.
pub(crate) const PLACES: &[Place] =
    &[Place { suite: "appliance", look: may_boot }, Place { suite: "confined", look: may_boot }];

/// Where a suite can run.
pub(crate) struct Place {
    /// Its name.
    pub(crate) suite: &'static str,
    /// Says what is in the way here.
    pub(crate) look: fn() -> Outcome,
}

/// Suites that a run of all leaves out, and why; its summary names them. `cargo xtask test NAME` runs them.
pub(crate) const BY_NAME: &[(&str, &str)] = &[("confined", "it emulates two machines, which takes some ten minutes")];
