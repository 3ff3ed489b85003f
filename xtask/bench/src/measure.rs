//! What the bench reads of processes and of the machine.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// CPU time that a process has used so far, all threads together.
pub(crate) fn process_cpu(pid: u32) -> io::Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed()))?;
    Ok(clock_gettime(clock)?.into())
}

/// Resident memory of a process, in bytes.
pub(crate) fn resident(pid: u32) -> io::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("no VmRSS in /proc"))
}

/// CPU time of the primitives that no implementation can do without, on one of `threads` threads that do the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Primitives {
    /// One ES256 verification.
    pub(crate) verify: Duration,
    /// SHA-256 over one byte, from hashing a megabyte.
    pub(crate) sha256_per_byte: f64,
}

/// Times the primitives with every core busy, as they are under load: a core that shares its execution units and its
/// power with another one is slower than a core alone.
pub(crate) fn primitives(threads: usize, time: Duration) -> Primitives {
    let workers: Vec<_> = (0..threads).map(|_| std::thread::spawn(move || primitives_here(time))).collect();
    let all: Vec<Primitives> =
        workers.into_iter().map(|worker| worker.join().expect("no panic in arithmetic")).collect();
    let count = u32::try_from(all.len()).expect("a few threads");
    Primitives {
        verify: all.iter().map(|one| one.verify).sum::<Duration>() / count,
        sha256_per_byte: all.iter().map(|one| one.sha256_per_byte).sum::<f64>() / f64::from(count),
    }
}

/// What the disk alone takes: appends of `bytes` bytes, each made durable, two in turn as a request needs them, due at a
/// constant rate of so many syncs a second.
#[derive(Clone, Debug, Default)]
pub(crate) struct BareSyncs {
    /// Of each append with its sync, in ascending order.
    pub(crate) one: Vec<Duration>,
    /// From when a pair was due to when it was durable, in ascending order.
    pub(crate) two_in_turn: Vec<Duration>,
}

/// Times syncs on a new file in `directory`, whose disk is the one in question.
pub(crate) fn bare_syncs(directory: &Path, bytes: usize, per_second: f64, time: Duration) -> io::Result<BareSyncs> {
    let path = directory.join("bare-syncs");
    let file = File::options().write(true).create_new(true).open(&path)?;
    let line = vec![b'x'; bytes];
    let pace = Duration::from_secs_f64(2.0 / per_second);
    let pairs = (time.as_secs_f64() / pace.as_secs_f64()) as u32;
    let mut seen = BareSyncs::default();
    let (started, mut end) = (Instant::now(), 0);
    for pair in 0..pairs {
        let due = started + pace * pair;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        for _ in 0..2 {
            let began = Instant::now();
            file.write_all_at(&line, end)?;
            file.sync_data()?;
            end += line.len() as u64;
            seen.one.push(began.elapsed());
        }
        seen.two_in_turn.push(due.elapsed());
    }
    drop(file);
    std::fs::remove_file(path)?;
    seen.one.sort_unstable();
    seen.two_in_turn.sort_unstable();
    Ok(seen)
}

/// The time that `share` of these, in ascending order, stayed within.
pub(crate) fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
}

fn primitives_here(time: Duration) -> Primitives {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("P-256 keys can be made");
    let message = [7_u8; 256];
    let signature = key.sign(&random, &message).expect("a fresh key signs");
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public_key().as_ref());
    let verify = per_run(time / 2, || public.verify(&message, signature.as_ref()).expect("its own signature"));

    let megabyte = vec![7_u8; 1 << 20];
    let hash = per_run(time / 2, || {
        std::hint::black_box(digest::digest(&digest::SHA256, &megabyte));
    });
    Primitives { verify, sha256_per_byte: hash.as_secs_f64() / megabyte.len() as f64 }
}

fn per_run(time: Duration, mut work: impl FnMut()) -> Duration {
    let until = Instant::now() + time;
    let before = thread_cpu();
    let mut runs = 0_u32;
    while Instant::now() < until {
        for _ in 0..8 {
            work();
        }
        runs += 8;
    }
    (thread_cpu() - before) / runs
}

fn thread_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has this clock").into()
}
