//! Files in and out: bounded reads, and writes that never replace what is there unless told.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Write};
use std::path::Path;

use aws_lc_rs::digest;
use zeroize::Zeroizing;

use super::error::CtlError;

/// Reads a file, or standard input for `-`, of at most `max_bytes`.
pub(crate) fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>, CtlError> {
    let read = if is_dash(path) {
        read_to_end(io::stdin().lock(), 0, max_bytes)
    } else {
        File::open(path).and_then(|file| {
            let length = file.metadata()?.len();
            read_to_end(file, length, max_bytes)
        })
    };
    match read {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(CtlError::content(path, format!("is larger than {max_bytes} bytes"))),
        Err(error) => Err(CtlError::read(path, error)),
    }
}

/// Reads a UTF-8 file.
pub(crate) fn read_text(path: &Path, max_bytes: u64) -> Result<String, CtlError> {
    String::from_utf8(read(path, max_bytes)?).map_err(|_| CtlError::content(path, "is not UTF-8 text"))
}

/// Reads a secret of one line: the bytes are wiped after use, one trailing line break is not part of it.
pub(crate) fn read_secret_line(path: &Path, what: &str) -> Result<Zeroizing<String>, CtlError> {
    let bytes = Zeroizing::new(read(path, MAX_SECRET_BYTES)?);
    let text =
        std::str::from_utf8(&bytes).map_err(|_| CtlError::content(path, format!("holds no {what}: not text")))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(CtlError::content(path, format!("holds no {what}; it must be one line without blanks")));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

/// Hashes a file of any size without holding it.
pub(crate) fn hash(path: &Path, algorithm: &'static digest::Algorithm) -> Result<String, CtlError> {
    let failed = |error| CtlError::read(path, error);
    let mut file = File::open(path).map_err(failed)?;
    let mut context = digest::Context::new(algorithm);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(crate::hex::hex(context.finish().as_ref())),
            Ok(n) => context.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Whether [`write_new`] would refuse `path` because it exists: worth knowing before a signature is made.
pub(crate) fn refuse_existing(path: &Path, force: bool) -> Result<(), CtlError> {
    if !force && fs::symlink_metadata(path).is_ok() {
        return Err(CtlError::write(
            path,
            io::Error::new(
                io::ErrorKind::AlreadyExists,
                "it exists; choose another --output, or --force to replace it",
            ),
        ));
    }
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) if !parent.is_dir() => Err(CtlError::write(
            path,
            io::Error::new(io::ErrorKind::NotFound, format!("{} is no directory", parent.display())),
        )),
        _ => Ok(()),
    }
}

/// Writes a file that a reader sees whole or not at all; an existing one is replaced only with `force`.
pub(crate) fn write_new(
    path: &Path,
    force: bool,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), CtlError> {
    let failed = |error| CtlError::write(path, error);
    refuse_existing(path, force)?;
    let mut name = path.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?.to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let written = (|| {
        let mut file = BufWriter::new(OpenOptions::new().write(true).create_new(true).open(&part)?);
        content(&mut file)?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        if force { fs::rename(&part, path) } else { link_then_unlink(&part, path) }
    })();
    if written.is_err() {
        // The error that counts is the first one.
        let _ = fs::remove_file(&part);
    }
    written.map_err(failed)
}

/// Replaces a file whole or not at all, durably; it gets the owner and mode of `model`, so that who reads that can read
/// it as well.
pub(crate) fn replace(path: &Path, content: &[u8], model: &Path) -> Result<(), CtlError> {
    let failed = |error| CtlError::write(path, error);
    let mut name = path.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?.to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&part)?;
        like(&part, model)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&part, path)?;
        File::open(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))?.sync_all()
    })();
    if written.is_err() {
        // The error that counts is the first one.
        let _ = fs::remove_file(&part);
    }
    written.map_err(failed)
}

/// Gives a file or directory the mode of another, and its owner where this process may.
pub(crate) fn like(path: &Path, model: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let model = fs::metadata(model)?;
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(path, Some(model.uid()), Some(model.gid()))?;
    }
    fs::set_permissions(path, model.permissions())
}

/// Whether `path` stands for standard input or output.
pub(crate) fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// `link` refuses an existing name where `rename` would replace it. File systems without hard links get a rename
/// after the check that [`refuse_existing`] already made.
fn link_then_unlink(part: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(part, path) {
        Ok(()) => fs::remove_file(part),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        Err(_) => fs::rename(part, path),
    }
}

fn read_to_end(mut source: impl io::Read, expected: u64, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::with_capacity(usize::try_from(expected.min(max_bytes)).unwrap_or(0) + 1);
    source.by_ref().take(max_bytes).read_to_end(&mut bytes)?;
    let more = source.read(&mut [0])?;
    Ok((more == 0).then_some(bytes))
}

const MAX_SECRET_BYTES: u64 = 64 * 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_existing_file_is_replaced_only_when_told_and_no_part_file_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.json");
        write_new(&path, false, |file| file.write_all(b"first")).unwrap();
        let refused = write_new(&path, false, |file| file.write_all(b"second")).unwrap_err();
        assert!(refused.to_string().contains("--force"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), b"first");
        write_new(&path, true, |file| file.write_all(b"third")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_secret_loses_its_line_break_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        for (content, secret) in [
            ("abc\n", Some("abc")),
            ("abc\r\n", Some("abc")),
            ("abc", Some("abc")),
            ("a b", None),
            ("", None),
            ("a\nb", None),
        ] {
            fs::write(&path, content).unwrap();
            assert_eq!(read_secret_line(&path, "OpTok").ok().as_deref().map(String::as_str), secret, "{content:?}");
        }
    }

    #[test]
    fn a_file_one_byte_too_long_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, b"12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert!(matches!(read(&path, 4), Err(CtlError::Content { .. })));
    }
}
