//! Files, directories, mounts.

use signer_keyless::wire::Layer;

use super::Argument::{Bytes, Number};
use super::{Attempt, Behind, FILES, LANDLOCK, NONE, POWERLESS, Scene, number, one};

pub(super) fn files(scene: &Scene) -> Vec<Attempt> {
    let cwd = number(libc::AT_FDCWD);
    let path = |path: &str| Bytes([path.as_bytes(), b"\0"].concat());
    let how = || Bytes([0_u64.to_ne_bytes(), 0_u64.to_ne_bytes(), 0_u64.to_ne_bytes()].concat());
    let inside = |name: &str| path(scene.directory.join(name).to_str().unwrap());
    let new = || inside(&format!("new-{:x}", scene.scratch));
    vec![
        one("open a file", FILES, libc::SYS_open, vec![path("/etc/passwd"), number(libc::O_RDONLY), Number(0)]),
        one("openat a file", FILES, libc::SYS_openat, vec![cwd, path("/etc/hostname"), number(libc::O_RDONLY)]),
        one(
            "openat2 a file",
            FILES,
            libc::SYS_openat2,
            vec![number(libc::AT_FDCWD), path("/etc/passwd"), how(), Number(24)],
        ),
        one("creat a file", FILES, libc::SYS_creat, vec![new(), Number(0o600)]),
        one("open /proc/self/mem to write", FILES, libc::SYS_open, vec![path("/proc/self/mem"), number(libc::O_RDWR)]),
        one("open a directory", FILES, libc::SYS_open, vec![path("/"), number(libc::O_DIRECTORY)]),
        one("make a directory", LANDLOCK, libc::SYS_mkdir, vec![new(), Number(0o700)]),
        one("remove a file", LANDLOCK, libc::SYS_unlink, vec![inside("file")]),
        one("make a symbolic link", LANDLOCK, libc::SYS_symlink, vec![path("/etc/shadow"), new()]),
        one("truncate a file", LANDLOCK, libc::SYS_truncate, vec![inside("file"), Number(0)]),
        one("look at a file", NONE, libc::SYS_stat, vec![path("/etc/shadow"), Bytes(vec![0; 256])]),
        one(
            "mount",
            Behind::Each(&[Layer::Landlock, Layer::Capabilities]),
            libc::SYS_mount,
            vec![path("none"), path("/proc"), path("nosuchfs"), Number(0), Number(0)],
        ),
        one("chroot", POWERLESS, libc::SYS_chroot, vec![path("/")]),
    ]
}
