//! The programs in the packages: hardened, runnable where we say that they run, and without a trace of who built them.

use std::fs;

use super::unpacked;
use crate::{output, program};

const PROGRAMS: [&str; 4] =
    ["usr/bin/signerctl", "usr/sbin/signerd", "usr/sbin/signer-token", "usr/libexec/stellaops-signer/signer-keyless"];

#[test]
#[ignore = "needs the packages: cargo xtask test package"]
fn they_are_hardened_and_stripped() {
    for name in PROGRAMS {
        let headers = output(program("readelf", ["--wide", "--all"]).arg(unpacked().join(name)));
        assert!(headers.contains("DYN (Position-Independent Executable file)"), "{name} is not position-independent");
        assert!(headers.contains("GNU_RELRO") && headers.contains("BIND_NOW"), "{name}: relocations stay writable");
        let stack = headers.lines().find(|line| line.trim_start().starts_with("GNU_STACK")).unwrap();
        assert!(stack.contains(" RW ") && !stack.contains("RWE"), "{name}: {stack}");
        assert!(!headers.contains(" .symtab "), "{name} has symbols");
        assert!(!headers.contains("RUNPATH") && !headers.contains("RPATH"), "{name} looks for libraries elsewhere");
    }
}

#[test]
#[ignore = "needs the packages: cargo xtask test package"]
fn they_ask_for_no_newer_c_library_than_rhel_9_has() {
    for name in PROGRAMS {
        let symbols = output(program("objdump", ["--dynamic-syms"]).arg(unpacked().join(name)));
        let versions = symbols.split("GLIBC_").skip(1).filter_map(|rest| {
            let version = rest.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
            let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
            Some((parts.next()?, parts.next().unwrap_or(0)))
        });
        let newest = versions.max().unwrap();
        assert!(newest <= (2, 34), "{name} needs glibc {}.{}", newest.0, newest.1);
    }
}

#[test]
#[ignore = "needs the packages: cargo xtask test package"]
fn no_file_names_a_folder_of_the_builder() {
    let home =
        std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo"))).unwrap();
    let folders = [env!("CARGO_MANIFEST_DIR"), &home, env!("CARGO_TARGET_TMPDIR").trim_end_matches("/tmp")];
    let mut open = vec![unpacked().to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                open.push(entry);
                continue;
            }
            let content = fs::read(&entry).unwrap();
            for folder in folders {
                let found = memchr::memmem::find(&content, folder.as_bytes());
                let around =
                    found.map(|at| String::from_utf8_lossy(&content[at..content.len().min(at + 120)]).into_owned());
                assert_eq!(around, None, "{}", entry.display());
            }
        }
    }
}

#[test]
#[ignore = "needs the packages: cargo xtask test package"]
fn they_say_their_version_and_the_helper_is_where_the_front_looks_for_it() {
    for name in ["usr/bin/signerctl", "usr/sbin/signerd", "usr/sbin/signer-token"] {
        let said = output(program(unpacked().join(name).to_str().unwrap(), ["--version"]).env_clear());
        assert!(said.contains(env!("CARGO_PKG_VERSION")), "{name}: {said}");
    }
}

#[test]
#[ignore = "needs the packages: cargo xtask test package"]
fn systemd_finds_nothing_wrong_with_the_units() {
    let units = [
        "stellaops-signer.target",
        "signerd.service",
        "signerd.socket",
        "signer-token@.service",
        "signer-token@.socket",
    ];
    let root = unpacked().display();
    let mut verify = program("systemd-analyze", ["verify", "--man=no", "--generators=no", "--recursive-errors=no"]);
    verify.arg(format!("--root={root}")).args(units);
    let said = verify.output().unwrap();
    let said = [said.stdout, said.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert_eq!(said, "", "{verify:?}");
}
