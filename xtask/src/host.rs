//! Programs of the system that a command needs: installed where that is possible, named where it is not.

#![forbid(unsafe_code)]

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use xtask::ui;

use crate::Outcome;

/// A program or library, and the Debian package it comes in.
pub(crate) struct Need {
    /// What people call it.
    pub(crate) name: &'static str,
    /// A program in `PATH`, or any of these files.
    pub(crate) found_as: &'static [&'static str],
    /// The Debian package.
    pub(crate) package: &'static str,
}

pub(crate) const SOFTHSM: Need = Need {
    name: "SoftHSM2",
    found_as: &[
        "/usr/lib/softhsm/libsofthsm2.so",
        "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
        "/usr/lib64/pkcs11/libsofthsm2.so",
        "/usr/lib64/softhsm/libsofthsm.so",
        "/usr/lib/pkcs11/libsofthsm2.so",
        "/usr/local/lib/softhsm/libsofthsm2.so",
    ],
    package: "softhsm2",
};
pub(crate) const OPENSC: Need = Need { name: "pkcs11-tool", found_as: &["pkcs11-tool"], package: "opensc" };
pub(crate) const OPENSSL: Need = Need { name: "openssl", found_as: &["openssl"], package: "openssl" };
pub(crate) const CURL: Need = Need { name: "curl", found_as: &["curl"], package: "curl" };
pub(crate) const UNSHARE: Need = Need { name: "unshare", found_as: &["unshare"], package: "util-linux" };
pub(crate) const NSPAWN: Need =
    Need { name: "systemd-nspawn", found_as: &["systemd-nspawn"], package: "systemd-container" };
pub(crate) const DEBOOTSTRAP: Need =
    Need { name: "debootstrap", found_as: &["debootstrap", "/usr/sbin/debootstrap"], package: "debootstrap" };
pub(crate) const QEMU: Need =
    Need { name: "QEMU for x86-64", found_as: &["qemu-system-x86_64"], package: "qemu-system-x86" };
pub(crate) const MKE2FS: Need = Need { name: "mke2fs", found_as: &["mke2fs", "/sbin/mke2fs"], package: "e2fsprogs" };
pub(crate) const IP: Need = Need { name: "ip", found_as: &["ip", "/sbin/ip", "/usr/sbin/ip"], package: "iproute2" };
pub(crate) const SYSTEMD: Need = Need { name: "systemd-analyze", found_as: &["systemd-analyze"], package: "systemd" };
pub(crate) const NODE: Need = Need { name: "Node.js", found_as: &["node"], package: "nodejs" };
pub(crate) const NPM: Need = Need { name: "npm", found_as: &["npm"], package: "npm" };
pub(crate) const PYTHON: Need = Need { name: "Python 3", found_as: &["python3"], package: "python3-venv" };
pub(crate) const GO: Need = Need { name: "Go", found_as: &["go", "/usr/local/go/bin/go"], package: "golang-go" };

pub(crate) const APT_GET: Need = Need { name: "apt-get", found_as: &["apt-get"], package: "apt" };
pub(crate) const DPKG: Need = Need { name: "dpkg", found_as: &["dpkg"], package: "dpkg" };
pub(crate) const PERL: Need = Need { name: "Perl", found_as: &["perl"], package: "perl-base" };
pub(crate) const SWTPM: Need = Need { name: "swtpm", found_as: &["swtpm"], package: "swtpm" };
pub(crate) const TPM2_TOOLS: Need =
    Need { name: "tpm2-tools", found_as: &["tpm2_flushcontext"], package: "tpm2-tools" };
pub(crate) const TPM2_PKCS11: Need = Need {
    name: "tpm2-pkcs11",
    found_as: &[
        "/usr/lib/x86_64-linux-gnu/pkcs11/libtpm2_pkcs11.so",
        "/usr/lib/aarch64-linux-gnu/pkcs11/libtpm2_pkcs11.so",
        "/usr/lib64/pkcs11/libtpm2_pkcs11.so",
        "/usr/lib/pkcs11/libtpm2_pkcs11.so",
    ],
    package: "libtpm2-pkcs11-1",
};
pub(crate) const TCTI_SWTPM: Need = Need {
    name: "the TCTI for swtpm",
    found_as: &[
        "/usr/lib/x86_64-linux-gnu/libtss2-tcti-swtpm.so.0",
        "/usr/lib/aarch64-linux-gnu/libtss2-tcti-swtpm.so.0",
        "/usr/lib64/libtss2-tcti-swtpm.so.0",
        "/usr/lib/libtss2-tcti-swtpm.so.0",
    ],
    package: "libtss2-tcti-swtpm0",
};
pub(crate) const OPENSSL_DEV: Need =
    Need { name: "OpenSSL's headers", found_as: &["/usr/include/openssl/evp.h"], package: "libssl-dev" };
pub(crate) const SQLITE_DEV: Need =
    Need { name: "SQLite's headers", found_as: &["/usr/include/sqlite3.h"], package: "libsqlite3-dev" };
pub(crate) const PKG_CONFIG: Need = Need { name: "pkg-config", found_as: &["pkg-config"], package: "pkg-config" };
pub(crate) const LIBCLANG: Need = Need {
    name: "libclang",
    found_as: &[
        "/usr/lib/x86_64-linux-gnu/libclang.so",
        "/usr/lib/x86_64-linux-gnu/libclang-14.so.1",
        "/usr/lib/aarch64-linux-gnu/libclang-14.so.1",
        "/usr/lib/llvm-14/lib/libclang.so.1",
        "/usr/lib/llvm-19/lib/libclang.so.1",
        "/usr/lib64/libclang.so",
    ],
    package: "libclang-dev",
};

pub(crate) const DPKG_DEV: Need = Need { name: "dpkg-shlibdeps", found_as: &["dpkg-shlibdeps"], package: "dpkg-dev" };
pub(crate) const CHECKMODULE: Need = Need { name: "checkmodule", found_as: &["checkmodule"], package: "checkpolicy" };
pub(crate) const SEMODULE_PACKAGE: Need =
    Need { name: "semodule_package", found_as: &["semodule_package"], package: "semodule-utils" };
pub(crate) const LINTIAN: Need = Need { name: "lintian", found_as: &["lintian"], package: "lintian" };
pub(crate) const RPM: Need = Need { name: "rpm", found_as: &["rpm"], package: "rpm" };
pub(crate) const RPMLINT: Need = Need { name: "rpmlint", found_as: &["rpmlint"], package: "rpmlint" };
pub(crate) const SHELLCHECK: Need = Need { name: "shellcheck", found_as: &["shellcheck"], package: "shellcheck" };
pub(crate) const APPARMOR: Need =
    Need { name: "apparmor_parser", found_as: &["apparmor_parser", "/usr/sbin/apparmor_parser"], package: "apparmor" };
pub(crate) const BZIP2: Need = Need { name: "bzip2", found_as: &["bzip2"], package: "bzip2" };

impl Need {
    /// Where it is.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        if self.name == SOFTHSM.name
            && let Some(module) = env::var_os("SOFTHSM2_MODULE").map(PathBuf::from).filter(|path| path.is_file())
        {
            return Some(module);
        }
        self.found_as.iter().find_map(|name| find(name))
    }
}

/// Installs what is missing when this is root on a Debian, else says what is missing and how to get it.
pub(crate) fn provide(needs: &[&Need]) -> Outcome {
    let missing = |needs: &[&Need]| -> Vec<(&'static str, &'static str)> {
        needs.iter().filter(|need| need.path().is_none()).map(|need| (need.name, need.package)).collect()
    };
    let before = missing(needs);
    if before.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = before.iter().map(|(_, package)| *package).collect();
    if !is_root() || find("apt-get").is_none() {
        let names: Vec<&str> = before.iter().map(|(name, _)| *name).collect();
        return Err(format!(
            "{} is missing and only root can install it; on Debian: sudo apt-get install {}",
            names.join(", "),
            packages.join(" ")
        ));
    }
    // Peers are built side by side, and what two of them need is installed once.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let packages: Vec<&str> = missing(needs).into_iter().map(|(_, package)| package).collect();
    if packages.is_empty() {
        return Ok(());
    }
    ui::note(format!("apt-get install {}", packages.join(" ")));
    // Package lists may be absent in a fresh container; they are fetched only when the installation needs them.
    if !apt_get(&[&["install", "--yes", "--no-install-recommends"], &packages[..]].concat()) {
        apt_get(&["update"]);
        apt_get(&[&["install", "--yes", "--no-install-recommends"], &packages[..]].concat());
    }
    match missing(needs).first() {
        None => Ok(()),
        Some((name, package)) => Err(format!("{name} is missing and `apt-get install {package}` did not bring it")),
    }
}

/// Whether this process may install packages.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn apt_get(arguments: &[&str]) -> bool {
    let status = Command::new("apt-get")
        // Another process may be at it, too: that of the peers, which is started beside the tests.
        .args(["-qq", "-o=Dpkg::Use-Pty=0", "-o=DPkg::Lock::Timeout=300"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

fn find(name: &str) -> Option<PathBuf> {
    if name.starts_with('/') {
        return Some(PathBuf::from(name)).filter(|path| path.is_file());
    }
    let path = env::var_os("PATH").unwrap_or_else(|| OsStr::new("/usr/bin:/bin").to_owned());
    env::split_paths(&path).map(|dir| Path::new(&dir).join(name)).find(|path| path.is_file())
}
