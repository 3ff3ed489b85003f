//! Does a shared object want an executable stack? Read from its program headers (ELF gABI 4.1, chapter 5).
//!
//! The loader grants that wish to the whole process, and with it takes away a defence against the very module.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// What a shared object says about the stack of the process that loads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stack {
    /// `PT_GNU_STACK` without `PF_X`.
    Plain,
    /// `PT_GNU_STACK` with `PF_X`.
    Executable,
    /// No `PT_GNU_STACK`: the loader takes the platform's default, which on x86 is executable.
    Unstated,
}

/// Reads the program headers; `None` when this is no ELF file.
///
/// # Errors
/// When the file cannot be read, or its headers lie outside of it.
pub(super) fn stack(file: &File) -> io::Result<Option<Stack>> {
    let mut header = [0; 64];
    let count = file.read_at(&mut header, 0)?;
    if count < 52 || header[..4] != *b"\x7fELF" {
        return Ok(None);
    }
    let (wide, little) = (header[4] == 2, header[5] == 1);
    let number = |bytes: &[u8]| {
        let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        if little { bytes.iter().rev().fold(0, fold) } else { bytes.iter().fold(0, fold) }
    };
    // Where both classes keep e_phoff, e_phentsize, e_phnum, and p_flags within a program header.
    let (offset, size, entries, flags_at) = if wide {
        (number(&header[32..40]), number(&header[54..56]), number(&header[56..58]), 4)
    } else {
        (number(&header[28..32]), number(&header[42..44]), number(&header[44..46]), 24)
    };
    let (mut entry, mut found) = ([0; 32], Stack::Unstated);
    for index in 0..entries {
        let at = size.checked_mul(index).and_then(|at| at.checked_add(offset)).ok_or(io::ErrorKind::InvalidData)?;
        file.read_exact_at(&mut entry, at)?;
        if number(&entry[..4]) == PT_GNU_STACK {
            if number(&entry[flags_at..flags_at + 4]) & PF_X != 0 {
                return Ok(Some(Stack::Executable));
            }
            // There should be no second one; where there is, the loader may obey either.
            found = Stack::Plain;
        }
    }
    Ok(Some(found))
}

const PT_GNU_STACK: u64 = 0x6474_e551;
const PF_X: u64 = 1;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use std::io::Write as _;

    use super::*;

    /// A 64-bit little-endian ELF header with these program headers, as (type, flags); nothing that could be loaded.
    pub(in super::super) fn elf(headers: &[(u64, u32)]) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[32] = 64;
        file[54] = 56;
        file[56] = u8::try_from(headers.len()).unwrap();
        for (kind, flags) in headers {
            file.extend(u32::try_from(*kind).unwrap().to_le_bytes());
            file.extend(flags.to_le_bytes());
            file.extend([0; 48]);
        }
        file
    }

    fn judged(bytes: &[u8]) -> io::Result<Option<Stack>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        stack(&file)
    }

    #[test]
    fn the_stack_flag_is_found_among_the_headers() {
        assert_eq!(judged(&elf(&[(1, 5), (PT_GNU_STACK, 6)])).unwrap(), Some(Stack::Plain));
        assert_eq!(judged(&elf(&[(1, 5), (PT_GNU_STACK, 7)])).unwrap(), Some(Stack::Executable));
        assert_eq!(judged(&elf(&[(1, 5)])).unwrap(), Some(Stack::Unstated));
        let twice = judged(&elf(&[(PT_GNU_STACK, 6), (PT_GNU_STACK, 7)])).unwrap();
        assert_eq!(twice, Some(Stack::Executable), "whichever the loader obeys");
    }

    #[test]
    fn this_very_program_has_a_plain_stack() {
        let own = File::open(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(stack(&own).unwrap(), Some(Stack::Plain));
    }

    #[test]
    fn what_is_no_elf_file_or_cut_off_is_told_apart() {
        assert_eq!(judged(b"INPUT(libfoo.so)").unwrap(), None);
        assert_eq!(judged(b"").unwrap(), None);
        let mut cut = elf(&[(1, 5), (PT_GNU_STACK, 6)]);
        cut.truncate(100);
        assert!(judged(&cut).is_err());
    }
}
