//! `cargo xtask package`: builds the programs so that the same tree gives the same bytes anywhere, and makes a `.deb`
//! and an `.rpm` of them. What is in them is listed in `packaging/contents`.

#![forbid(unsafe_code)]

mod build;
mod contents;
mod elsewhere;
mod licences;
mod made;
mod manifest;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::time::Instant;

use clap::Args;
use xtask::ui;

use crate::peers::{CARGO_DEB, CARGO_GENERATE_RPM, Peer};
use crate::{Outcome, cargo, host};

/// `cargo xtask package`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Where the packages go. Default: `package` in the target directory.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// The cargo profile that the programs are built with; `trial` is for trying the packages out.
    #[arg(long, default_value = "release")]
    profile: String,
    /// Put behind the version, such as `~1` for a package that the one without it replaces.
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = version_suffix)]
    version_suffix: String,
    /// Make the `.deb`, or the `.rpm`, alone.
    #[arg(long, value_enum)]
    only: Option<Kind>,
}

/// The two kinds of packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Debian, Ubuntu.
    Deb,
    /// RHEL, Fedora, openSUSE.
    Rpm,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome<ExitCode> {
    let start = Instant::now();
    let target = cargo::target_dir(&cargo::metadata()?);
    let output = arguments.output.clone().unwrap_or_else(|| target.join("package"));
    fs::create_dir_all(&output).map_err(|error| format!("cannot make {}: {error}", output.display()))?;
    // The tools are run from other folders.
    let output = output.canonicalize().map_err(|error| format!("cannot use {}: {error}", output.display()))?;
    let packages = packages(&output, &target, arguments)?;
    let names: Vec<_> = packages.iter().filter_map(|package| package.file_name()).collect();
    let sums = made::run(Command::new("sha256sum").arg("--").args(names).current_dir(&output))?;
    fs::write(output.join("SHA256SUMS"), sums).map_err(|error| format!("cannot write SHA256SUMS: {error}"))?;
    for package in packages {
        let bytes = fs::metadata(&package).map_or(0, |file| file.len());
        ui::done(format!("{} ({} KiB)", package.display(), bytes.div_ceil(1024)));
    }
    ui::note(format!("{} in all", ui::spoken(start.elapsed())));
    Ok(ExitCode::SUCCESS)
}

pub(crate) use elsewhere::for_tests_elsewhere;

/// The packages that tests look at, in `now` and, of a version before, in `before` below `output`.
pub(crate) fn for_tests(output: &Path) -> Outcome {
    let _turn = ONE_AT_A_TIME.lock().map_err(|_| "another build panicked".to_owned())?;
    let target = cargo::target_dir(&cargo::metadata()?);
    for (folder, suffix) in [("now", ""), ("before", "~1")] {
        let output = output.join(folder);
        // What an earlier version of the tree left there would be taken for this one's.
        let _ = fs::remove_dir_all(&output);
        fs::create_dir_all(&output).map_err(|error| format!("cannot make {}: {error}", output.display()))?;
        let arguments =
            Arguments { output: None, profile: TEST_PROFILE.to_owned(), version_suffix: suffix.to_owned(), only: None };
        packages(&output, &target, &arguments)?;
    }
    Ok(())
}

/// Two builds at once would take twice as long each, and install the tools twice.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn packages(output: &Path, target: &Path, arguments: &Arguments) -> Outcome<Vec<PathBuf>> {
    let kinds: Vec<Kind> =
        [Kind::Deb, Kind::Rpm].into_iter().filter(|kind| arguments.only.is_none_or(|only| only == *kind)).collect();
    host::provide(&[&host::DPKG_DEV, &host::CHECKMODULE, &host::SEMODULE_PACKAGE])?;
    let date = build::source_date()?;
    let programs = build::programs(&arguments.profile, target, date)?;

    let mut made_packages = Vec::new();
    let made = output.join("made");
    made::write(&made, &programs)?;
    for kind in kinds {
        let mut files = contents::read(kind, &programs, &made)?;
        let folder = output.join(kind.name());
        contents::stage(&mut files, &folder.join("root"))?;
        manifest::write(&folder, kind, &files, &arguments.version_suffix)?;
        made_packages.push(pack(kind, &folder, output, date, arguments)?);
    }
    Ok(made_packages)
}

/// Runs the tool that makes one package from the manifest in `folder`.
fn pack(kind: Kind, folder: &Path, output: &Path, date: u64, arguments: &Arguments) -> Outcome<PathBuf> {
    let file = output.join(kind.file_name(&arguments.version_suffix)?);
    let version = format!("{}-{REVISION}", version(&arguments.version_suffix)?);
    let (tool, options): (&Peer, &[&str]) = match kind {
        // What the build folder has is looked up by nobody: the list names every file.
        Kind::Deb => (&CARGO_DEB, &["--no-build", "--no-strip", "--quiet"]),
        // Not the host's own find-requires, whose answer depends on the host.
        Kind::Rpm => (&CARGO_GENERATE_RPM, &["--auto-req", "builtin"]),
    };
    let mut command = Command::new(tool.provide()?);
    if kind == Kind::Deb {
        // No setting of the manifest has a version that cargo would not take.
        command.args(["--deb-version", &version]);
    }
    command.args(options).args(arguments.compression(kind)).arg("--output").arg(&file).current_dir(folder);
    command.env("SOURCE_DATE_EPOCH", date.to_string()).env("CARGO_TARGET_DIR", folder.join("target"));
    made::run(&mut command)?;
    Ok(file)
}

impl Arguments {
    /// What a release is compressed with takes a minute, which tests need not wait for three times.
    fn compression(&self, kind: Kind) -> &'static [&'static str] {
        match (kind, self.profile == TEST_PROFILE) {
            (Kind::Deb, true) => &["--fast"],
            (Kind::Deb, false) => &[],
            (Kind::Rpm, true) => &["--payload-compress", "gzip"],
            (Kind::Rpm, false) => &["--payload-compress", "zstd"],
        }
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Deb => "deb",
            Self::Rpm => "rpm",
        }
    }

    fn file_name(self, suffix: &str) -> Outcome<String> {
        let version = version(suffix)?;
        let architecture = match (self, std::env::consts::ARCH) {
            (Self::Deb, "x86_64") => "amd64",
            (Self::Deb, "aarch64") => "arm64",
            (_, same) => same,
        };
        Ok(match self {
            Self::Deb => format!("{NAME}_{version}-{REVISION}_{architecture}.deb"),
            Self::Rpm => format!("{NAME}-{version}-{REVISION}.{architecture}.rpm"),
        })
    }
}

/// The version of the workspace, and what was asked to follow it.
fn version(suffix: &str) -> Outcome<String> {
    let metadata = cargo::metadata()?;
    let mut packages = metadata["packages"].as_array().into_iter().flatten();
    let own = packages.find(|package| package["name"] == NAME).and_then(|package| package["version"].as_str());
    Ok(format!("{}{suffix}", own.ok_or_else(|| format!("cargo metadata has no version of {NAME}"))?))
}

/// Debian's policy (5.6.12) and rpm agree on these characters; a `-` would begin a revision.
fn version_suffix(text: &str) -> Result<String, String> {
    match text.chars().find(|c| !c.is_ascii_alphanumeric() && !"~+.".contains(*c)) {
        None => Ok(text.to_owned()),
        Some(wrong) => Err(format!("{wrong:?} is not allowed in a version; letters, digits, `~`, `+` and `.` are")),
    }
}

const NAME: &str = "stellaops-signer";
/// What tests are built with: packed as `release` is, and compiled in a fifth of the time.
const TEST_PROFILE: &str = "trial";
/// How often this version was packaged.
const REVISION: &str = "1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_that_would_change_the_meaning_of_a_version_is_refused() {
        assert_eq!(version_suffix("~1"), Ok("~1".to_owned()));
        assert!(version_suffix("-2").is_err_and(|error| error.contains("'-'")));
        assert!(version_suffix("~1 2").is_err());
    }
}
