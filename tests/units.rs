//! The systemd units as systemd sees them: they are sound, and as closed as is promised, with every drop-in.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// Exposures in tenths, as `systemd-analyze security --threshold` takes them. What is promised is 1.0 for the front, 1.3 for
/// a worker and 1.6 for one with a device; where the units are better, so is the gate.
const FRONT: u32 = 10;
const WORKER: u32 = 5;
/// With a device of the machine, or with the network of a network HSM.
const WORKER_OPENED: u32 = 13;
/// It is root, because only root may ask.
const PROMPT: u32 = 10;

#[test]
fn the_front_is_exposed_by_no_more_than_1_0() {
    let units = Units::new();
    units.expose_at_most("signerd.service", FRONT);
}

#[test]
fn who_asks_for_a_pin_is_root_and_can_do_nothing_with_it() {
    Units::new().expose_at_most("signer-token-pin@main.service", PROMPT);
}

#[test]
fn a_worker_is_exposed_by_no_more_than_0_5_and_with_any_drop_in_for_a_device_by_1_3() {
    Units::new().expose_at_most("signer-token@main.service", WORKER);
    let mut profiles = 0;
    for file in drop_ins_of_profiles() {
        let units = Units::new();
        let text = fs::read_to_string(&file).unwrap();
        units.drop_in("signer-token@.service", &file);
        let opens = ["PrivateDevices=no", "PrivateNetwork=no"].iter().any(|line| text.contains(line));
        units.expose_at_most("signer-token@main.service", if opens { WORKER_OPENED } else { WORKER });
        profiles += 1;
    }
    assert!(profiles >= 12, "only {profiles} drop-ins were found");
}

#[test]
fn a_gate_that_lets_everything_pass_is_none() {
    let units = Units::new();
    let open = units.dir.path().join("open.conf");
    fs::write(&open, "[Service]\nPrivateUsers=no\nPrivateDevices=no\nProtectKernelTunables=no\n").unwrap();
    units.drop_in("signerd.service", &open);
    assert!(!units.security("signerd.service", FRONT).status.success());
}

#[test]
fn the_units_and_what_is_beside_them_verify_on_this_systemd() {
    let units = Units::new();
    let checked = units.verify(&UNITS);
    assert!(checked.status.success() && said(&checked).is_empty(), "{}", said(&checked));
    // What verifies everything verifies nothing.
    let wrong = units.dir.path().join("wrong.conf");
    fs::write(&wrong, "[Service]\nProtectSytem=strict\n").unwrap();
    units.drop_in("signerd.service", &wrong);
    assert!(said(&units.verify(&UNITS)).contains("ProtectSytem"));
}

#[test]
fn every_drop_in_verifies_with_its_unit() {
    let version = systemd_version();
    let mut of_units: Vec<(PathBuf, &str)> =
        drop_ins_of_profiles().map(|file| (file, "signer-token@.service")).collect();
    for file in files(&root().join("systemd/drop-ins"), "conf") {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let needs = name.strip_prefix("systemd-").and_then(|rest| rest.strip_suffix(".conf")?.parse::<u32>().ok());
        if needs.is_some_and(|needs| version < needs) {
            println!("{name} is for a newer systemd than {version}, which is here");
            continue;
        }
        for unit in ["signerd.service", "signer-token@.service"] {
            let program = unit.split(['.', '@']).next().unwrap();
            if name.starts_with(&format!("{program}-")) || needs.is_some() {
                of_units.push((file.clone(), unit));
            }
        }
    }
    assert!(of_units.len() > 14, "{of_units:?}");
    for (file, unit) in of_units {
        let units = Units::new();
        units.drop_in(unit, &file);
        let checked = units.verify(&UNITS);
        assert!(checked.status.success() && said(&checked).is_empty(), "{}: {}", file.display(), said(&checked));
    }
}

#[test]
fn users_and_directories_are_made_as_the_units_need_them() {
    let image = TempDir::new().unwrap();
    fs::create_dir_all(image.path().join("etc")).unwrap();
    let at_root = |program: &str, arguments: &[&str], kind: &str| {
        let folder = image.path().join("usr/lib").join(kind);
        fs::create_dir_all(&folder).unwrap();
        let file = Path::new(kind).join("stellaops-signer.conf");
        fs::copy(root().join("systemd").join(&file), image.path().join("usr/lib").join(&file)).unwrap();
        // Whoever is not root is root of a namespace for it.
        let mut command = Command::new("unshare");
        if !is_root() {
            command.arg("--map-root-user");
        }
        let output =
            command.arg(program).arg(format!("--root={}", image.path().display())).args(arguments).output().unwrap();
        // Root of a namespace has nobody to give a directory to.
        let given = is_root() || program != "systemd-tmpfiles";
        assert!(output.status.success() || !given, "{program}: {}", said(&output));
    };
    at_root("systemd-sysusers", &[], "sysusers.d");
    let passwd = fs::read_to_string(image.path().join("etc/passwd")).unwrap();
    for user in ["stellaops-signer", "stellaops-signer-token"] {
        let line = passwd.lines().find(|line| line.starts_with(&format!("{user}:"))).unwrap();
        assert!(line.ends_with("/nologin"), "{line}");
    }
    at_root("systemd-tmpfiles", &["--create"], "tmpfiles.d");
    for (dir, mode) in [
        ("run/stellaops-signer", 0o755),
        ("var/lib/stellaops-signer", 0o750),
        ("var/lib/stellaops-signer-token", 0o711),
        ("etc/stellaops-signer/signer.toml.d", 0o755),
        ("etc/credstore.encrypted", 0o700),
    ] {
        let made = fs::metadata(image.path().join(dir)).unwrap();
        assert_eq!(made.permissions().mode() & 0o7777, mode, "{dir}");
    }
}

#[test]
fn a_drop_in_says_why_above_each_directive() {
    for file in files(&root().join("systemd/drop-ins"), "conf") {
        let text = fs::read_to_string(&file).unwrap();
        let mut before = "";
        for line in text.lines().filter(|line| !line.starts_with('[')) {
            let name = |line: &'_ str| line.split_once('=').map(|(name, _)| name.to_owned());
            let same = name(line).is_some() && name(line) == name(before);
            let said = line.is_empty() || line.starts_with('#') || before.starts_with('#') || same;
            assert!(said, "{}: nothing says why `{line}`", file.display());
            before = line;
        }
    }
}

const UNITS: [&str; 8] = [
    "stellaops-signer.target",
    "signerd.socket",
    "signerd-local.socket",
    "signerd.service",
    "signer-token@main.socket",
    "signer-token@main.service",
    "signer-token-pin@main.socket",
    "signer-token-pin@main.service",
];

/// A root with our units, the system's own and stand-ins for our programs.
struct Units {
    dir: TempDir,
}

impl Units {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let units = Self { dir };
        fs::create_dir_all(units.path("usr/lib")).unwrap();
        let system = units.path("usr/lib/systemd");
        fs::create_dir_all(&system).unwrap();
        let copied = Command::new("cp").args(["-r", "/usr/lib/systemd/system"]).arg(&system).status().unwrap();
        assert!(copied.success());
        symlink("usr/lib", units.path("lib")).unwrap();
        for file in ["target", "socket", "service"].into_iter().flat_map(|kind| files(&root().join("systemd"), kind)) {
            fs::copy(&file, units.path("usr/lib/systemd/system").join(file.file_name().unwrap())).unwrap();
        }
        // What a drop-in asks for and this machine may not have.
        fs::write(units.path("usr/lib/systemd/system/pcscd.socket"), "[Socket]\nListenStream=/run/pcscd\nAccept=yes\n")
            .unwrap();
        fs::write(units.path("usr/lib/systemd/system/pcscd@.service"), "[Service]\nExecStart=/usr/sbin/signerd\n")
            .unwrap();
        // Verified is that a unit names a program; whether ours runs is another suite's question.
        for program in ["usr/sbin/signerd", "usr/sbin/signer-token", "usr/bin/signerctl"] {
            let program = units.path(program);
            fs::create_dir_all(program.parent().unwrap()).unwrap();
            fs::write(&program, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        }
        units
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn drop_in(&self, unit: &str, file: &Path) {
        let folder = self.path("usr/lib/systemd/system").join(format!("{unit}.d"));
        fs::create_dir_all(&folder).unwrap();
        fs::copy(file, folder.join(file.file_name().unwrap())).unwrap();
    }

    fn security(&self, unit: &str, threshold: u32) -> Output {
        self.analyze(&["security", "--offline=true", &format!("--threshold={threshold}"), unit])
    }

    fn expose_at_most(&self, unit: &str, tenths: u32) {
        let judged = self.security(unit, tenths);
        assert!(judged.status.success(), "{unit} is over {}.{}: {}", tenths / 10, tenths % 10, said(&judged));
        assert!(said(&judged).contains("Overall exposure level"), "{}", said(&judged));
    }

    fn verify(&self, units: &[&str]) -> Output {
        self.analyze(&[&["verify", "--man=no", "--generators=no"], units].concat())
    }

    fn analyze(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("systemd-analyze");
        command.arg(format!("--root={}", self.dir.path().display())).arg("--no-pager").args(arguments);
        command.env("LC_ALL", "C.UTF-8").output().unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn systemd_version() -> u32 {
    let output = Command::new("systemd-analyze").arg("--version").output().unwrap();
    said(&output).split_whitespace().nth(1).and_then(|version| version.split(['.', '~']).next()?.parse().ok()).unwrap()
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn drop_ins_of_profiles() -> impl Iterator<Item = PathBuf> {
    let folders = fs::read_dir(root().join("hsm-profiles")).unwrap().map(|folder| folder.unwrap().path());
    folders.filter(|folder| folder.is_dir()).flat_map(|folder| files(&folder, "conf"))
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<PathBuf> = all.filter(|file| file.extension().is_some_and(|is| is == extension)).collect();
    files.sort();
    files
}
