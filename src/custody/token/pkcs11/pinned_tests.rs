#![allow(clippy::unwrap_used)]

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::super::elf::tests::elf;
use super::*;

const STACK: u64 = 0x6474_e551;

/// A folder of our own with a module in it that nobody could load, but that passes.
struct Shelf(tempfile::TempDir);

impl Shelf {
    fn new() -> Self {
        let shelf = Self(tempfile::tempdir().unwrap());
        shelf.put("module.so", &elf(&[(STACK, 6)]));
        shelf
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).unwrap();
        self.mode(name, 0o644);
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    fn open(&self, name: &str) -> Result<PinnedModule, PinError> {
        PinnedModule::open(&self.path(name), None)
    }
}

#[test]
fn a_module_that_only_we_can_change_is_taken_by_its_real_path() {
    let shelf = Shelf::new();
    symlink("module.so", shelf.path("link.so")).unwrap();
    fs::create_dir(shelf.path("versions")).unwrap();
    symlink("../link.so", shelf.path("versions/current.so")).unwrap();
    let pinned = shelf.open("versions/current.so").unwrap();
    assert_eq!(pinned.path(), fs::canonicalize(shelf.path("module.so")).unwrap());
    pinned.check_again().unwrap();
}

#[test]
fn a_module_that_others_can_write_is_refused() {
    let shelf = Shelf::new();
    for mode in [0o664, 0o646, 0o666] {
        shelf.mode("module.so", mode);
        let error = shelf.open("module.so").unwrap_err();
        assert!(matches!(&error, PinError::Writable { mode: m, .. } if *m == mode), "{error}");
    }
}

#[test]
fn a_folder_that_others_can_write_is_refused_wherever_the_way_leads_through_it() {
    let shelf = Shelf::new();
    for folder in ["open", "shut"] {
        fs::create_dir(shelf.path(folder)).unwrap();
    }
    shelf.put("open/module.so", &elf(&[(STACK, 6)]));
    symlink("../open/hop.so", shelf.path("shut/link.so")).unwrap();
    symlink("../module.so", shelf.path("open/hop.so")).unwrap();
    shelf.open("open/module.so").unwrap();
    shelf.open("shut/link.so").unwrap();
    shelf.mode("open", 0o775);
    for name in ["open/module.so", "shut/link.so"] {
        let error = shelf.open(name).unwrap_err();
        let PinError::Writable { path, mode, .. } = &error else { panic!("{error}") };
        assert_eq!((path, *mode), (&shelf.path("open"), 0o775), "{name}");
    }
    shelf.mode("open", 0o1777);
    shelf.open("open/module.so").unwrap();
}

#[test]
fn a_module_of_somebody_else_is_refused() {
    let shelf = Shelf::new();
    // Root can give files away; any other user sees the same from the other side.
    let way = if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(shelf.path("module.so"), Some(12345), None).unwrap();
        shelf.open("module.so").map(drop)
    } else {
        let other = shelf.path("module.so");
        Way { module: &other, uid: nix::unistd::geteuid().as_raw() + 1 }.walk().map(drop)
    };
    assert!(matches!(way, Err(PinError::Owner { .. })), "{way:?}");
}

#[test]
fn another_hash_is_refused_and_both_are_named() {
    let shelf = Shelf::new();
    let right = shelf.open("module.so").unwrap().sha256().to_owned();
    PinnedModule::open(&shelf.path("module.so"), Some(&right.to_uppercase())).unwrap();
    shelf.put("module.so", &elf(&[(STACK, 4)]));
    let error = PinnedModule::open(&shelf.path("module.so"), Some(&right)).unwrap_err().to_string();
    let found = shelf.open("module.so").unwrap().sha256().to_owned();
    assert!(error.contains(&right) && error.contains(&found), "{error}");
}

#[test]
fn a_module_that_wants_an_executable_stack_is_refused() {
    let shelf = Shelf::new();
    shelf.put("module.so", &elf(&[(1, 5), (STACK, 7)]));
    assert!(matches!(shelf.open("module.so"), Err(PinError::ExecutableStack(_))));
    shelf.put("module.so", &elf(&[(1, 5)]));
    assert_eq!(shelf.open("module.so").is_err(), EXECUTABLE_BY_DEFAULT);
}

#[test]
fn what_is_no_module_is_refused_with_its_path() {
    let shelf = Shelf::new();
    shelf.put("script.so", b"INPUT(libfoo.so)\n");
    assert!(matches!(shelf.open("script.so"), Err(PinError::NotAnObject(_))));
    assert!(matches!(shelf.open(""), Err(PinError::NotAnObject(_))));
    let error = shelf.open("nothing.so").unwrap_err();
    assert!(matches!(&error, PinError::Io { path, .. } if *path == shelf.path("nothing.so")), "{error}");
    assert!(matches!(PinnedModule::open(Path::new("module.so"), None), Err(PinError::NotAbsolute(_))));
    symlink("loop.so", shelf.path("loop.so")).unwrap();
    assert!(matches!(shelf.open("loop.so"), Err(PinError::Io { .. })));
}

#[test]
fn a_module_replaced_or_written_since_it_was_judged_is_noticed() {
    let shelf = Shelf::new();
    let pinned = shelf.open("module.so").unwrap();
    shelf.put("other.so", &elf(&[(STACK, 6)]));
    fs::rename(shelf.path("other.so"), shelf.path("module.so")).unwrap();
    assert!(matches!(pinned.check_again(), Err(PinError::Changed(_))));
    let pinned = shelf.open("module.so").unwrap();
    fs::write(shelf.path("module.so"), [elf(&[(STACK, 6)]), vec![0]].concat()).unwrap();
    assert!(matches!(pinned.check_again(), Err(PinError::Changed(_))));
}
