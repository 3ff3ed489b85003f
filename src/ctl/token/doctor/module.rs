//! The module's file, before anything of it is run; and what the loader says when it is.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use aws_lc_rs::digest::SHA256;
use goblin::elf::Elf;
use goblin::elf::header::{EM_AARCH64, EM_X86_64, ET_DYN};
use goblin::elf::program_header::{PF_X, PT_GNU_STACK};

use super::access::User;
use super::{Patient, above};
use crate::ctl::files;
use crate::custody::admin::Failure;

/// Whether it makes sense to load it.
pub(super) fn look(patient: &mut Patient<'_>, worker: Option<&User>) -> bool {
    let Some(module) = patient.token.module.clone() else { return false };
    let metadata = match fs::metadata(&module) {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => {
            let detail = format!("{} is no file", module.display());
            patient.problem("module file", "module", detail, "write the path of the vendor's PKCS#11 module (.so)");
            return false;
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            patient.skipped(
                "module file",
                format!("{}: {error}; run this as root or as the worker's user", module.display()),
            );
            return true;
        }
        Err(error) => {
            let remedy = "install the vendor's package, or write the path where it put its PKCS#11 module";
            patient.problem("module file", "module", format!("{}: {error}", module.display()), remedy);
            return false;
        }
    };
    if let Some(worker) = worker {
        let stopped = worker.stopped_at(&module);
        if let Some(directory) = stopped.or_else(|| if worker.may(&metadata, 4) { None } else { Some(&module) }) {
            let detail = format!("user `{}` may not read {}: {}", worker.name, module.display(), directory.display());
            patient.problem("module file", "module", detail, format!("chmod o+rX {}", directory.display()));
        }
    }
    trusted(patient, &module, worker);
    elf(patient, &module) & hash(patient, &module)
}

/// Whoever may write the file or rename it away decides what runs beside the PIN.
fn trusted(patient: &mut Patient<'_>, module: &Path, worker: Option<&User>) {
    // A link leads where its target stands.
    let Ok(module) = fs::canonicalize(module) else { return };
    let own = [0, worker.map_or(0, |worker| worker.uid), nix::unistd::geteuid().as_raw()];
    for path in std::iter::once(module.as_path()).chain(above(&module)) {
        let Ok(metadata) = fs::metadata(path) else { continue };
        let sticky = metadata.is_dir() && metadata.mode() & 0o1000 != 0;
        if metadata.mode() & 0o022 != 0 && !sticky {
            let detail = format!("{} can be written by others (mode {:04o})", path.display(), metadata.mode() & 0o7777);
            return patient.problem("module owner", "module", detail, format!("chmod go-w {}", path.display()));
        }
        if !own.contains(&metadata.uid()) {
            let detail = format!("{} belongs to user {}, who could replace the module", path.display(), metadata.uid());
            return patient.problem("module owner", "module", detail, format!("chown root: {}", path.display()));
        }
    }
    patient.ok(
        "module owner",
        format!("{} and what is above it can be written by root or the worker alone", module.display()),
    );
}

fn elf(patient: &mut Patient<'_>, module: &Path) -> bool {
    let mut bytes = Vec::new();
    let read = fs::File::open(module).and_then(|file| file.take(MAX_MODULE).read_to_end(&mut bytes));
    if let Err(error) = read {
        patient.skipped("module format", format!("{}: {error}", module.display()));
        return true;
    }
    let vendor = "write the path of the vendor's PKCS#11 module for this machine";
    let Ok(elf) = Elf::parse(&bytes) else {
        let detail = format!("{} is no ELF shared library", module.display());
        patient.problem("module format", "module", detail, vendor);
        return false;
    };
    let here = if cfg!(target_arch = "aarch64") { EM_AARCH64 } else { EM_X86_64 };
    if !elf.is_64 || elf.header.e_machine != here || elf.header.e_type != ET_DYN {
        let bits = if elf.is_64 { "64-bit" } else { "32-bit" };
        let machine = goblin::elf::header::machine_to_str(elf.header.e_machine);
        let detail = format!("{} is a {bits} {machine} file, not a shared library for this machine", module.display());
        patient.problem("module format", "module", detail, vendor);
        return false;
    }
    // Without the header the loader assumes the worst (elf(5), PT_GNU_STACK).
    let stack = elf.program_headers.iter().find(|header| header.p_type == PT_GNU_STACK);
    if stack.is_none_or(|stack| stack.p_flags & PF_X != 0) {
        let detail = "it wants an executable stack, which makes every buffer overflow in the process usable";
        let remedy = format!(
            "ask the vendor for one without; or clear the mark: patchelf --clear-execstack {}",
            module.display()
        );
        patient.problem("module format", "module", detail, remedy);
        return true;
    }
    patient.ok("module format", "a shared library for this machine, without an executable stack");
    true
}

fn hash(patient: &mut Patient<'_>, module: &Path) -> bool {
    let wanted = patient.loaded.written(&["tokens", patient.name, "module_sha256"]);
    let is = match files::hash(module, &SHA256) {
        Ok(is) => is,
        Err(error) => {
            patient.skipped("module hash", error.to_string());
            return true;
        }
    };
    match wanted {
        None => patient.ok("module hash", format!("not pinned; it is module_sha256 = \"{is}\"")),
        Some(wanted) if wanted.eq_ignore_ascii_case(&is) => patient.ok("module hash", is),
        Some(wanted) => {
            let detail = format!("it is {is}, the configuration says {wanted}");
            let remedy = "find out who changed the file; after an update by its vendor, write the new hash";
            patient.problem("module hash", "module_sha256", detail, remedy);
            return false;
        }
    }
    true
}

/// What `signer-token` said instead of loading the module.
pub(super) fn refused(patient: &mut Patient<'_>, failure: &Failure) {
    let message = failure.message.as_str();
    let remedy = match failure.code.as_str() {
        "module_load" => match missing_library(message) {
            Some(library) => format!(
                "install the package that has {library} (apt-file search {library}, dnf provides '*/{library}')"
            ),
            None if message.contains("executable stack") => {
                "ask the vendor for a module without an executable stack".to_owned()
            }
            None => "write the path of the vendor's PKCS#11 module".to_owned(),
        },
        "module_initialise" => {
            "give the module its configuration: most read the path of a file from a variable, which \
                                belongs into a drop-in of the unit, as Environment="
                .to_owned()
        }
        _ => failure.remedy.clone().unwrap_or_else(|| "see what it says".to_owned()),
    };
    patient.problem("module", "module", message, remedy);
}

/// glibc: `libfoo.so.1: cannot open shared object file: No such file or directory`.
fn missing_library(message: &str) -> Option<&str> {
    let before = message.split(": cannot open shared object file").next().filter(|before| *before != message)?;
    let library = before.rsplit([' ', ':', '"', '(']).next()?;
    (!library.is_empty() && !library.starts_with('/')).then_some(library)
}

const MAX_MODULE: u64 = 256 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_that_is_missing_is_told_from_the_module_that_is() {
        let loader = |what: &str| {
            format!(
                "cannot load the PKCS#11 module /opt/x.so: {what}: cannot open shared object file: No such file or directory"
            )
        };
        assert_eq!(missing_library(&loader("libvendor.so.2")), Some("libvendor.so.2"));
        assert_eq!(missing_library(&loader("libloading error (libvendor.so.2")), Some("libvendor.so.2"));
        assert_eq!(missing_library(&loader("/opt/x.so")), None);
        assert_eq!(missing_library("cannot load the PKCS#11 module /opt/x.so: invalid ELF header"), None);
    }
}
