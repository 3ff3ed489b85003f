//! What is left in the helper's memory when it is about to end: nothing.
//!
//! The private key is known here, because the observer sees the random bytes that the kernel gave the helper; that it
//! is the right one is checked against the certificate's key, and its nonces against the signatures.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use goblin::elf::Elf;
use nix::sys::signal::Signal;
use p256::ecdsa::DerSignature;
use signer_keyless::wire::{FromHelper, ToHelper};
use x509_parser::prelude::*;

use super::observer::{Observed, Stop};
use super::program;
use super::secrets::{Key, Secrets};
use crate::fulcio::{Fulcio, Manner};
use crate::helper::{DIGEST, Helper};

#[test]
#[ignore = "needs root and a release build: cargo xtask test sealed"]
fn nothing_of_key_nonce_or_token_is_left_when_it_ends() {
    let mut table = String::new();
    let mut left = Vec::new();
    let mut largest = 0;
    for (what, manner, signatures, runs) in [
        ("a signature", Manner::Issue, 1, 100),
        ("three signatures", Manner::Issue, 3, 20),
        ("Fulcio says 400", Manner::Status(400), 1, 20),
        ("Fulcio says 500", Manner::Status(500), 1, 20),
        ("Fulcio hangs up in the middle", Manner::HangUp, 1, 20),
        ("Fulcio answers without end", Manner::Huge, 1, 20),
        ("Fulcio answers something else", Manner::Noise, 1, 20),
        ("TLS under another root", Manner::OtherRoot, 1, 20),
    ] {
        let fulcio = Fulcio::start(manner);
        let mut clean = 0;
        for _ in 0..runs {
            let mut flow = Flow::start(&fulcio, signatures);
            flow.run(|_, _| ());
            let hits = flow.search_at_exit();
            largest = largest.max(flow.resident_kib);
            clean += usize::from(hits.is_empty());
            left.extend(hits.into_iter().map(|hit| format!("{what}: {hit}")));
            flow.end();
        }
        writeln!(table, "{what:<32} {clean} of {runs} clean").unwrap();
    }
    println!("{table}largest resident memory: {largest} KiB");
    assert!(left.is_empty(), "{}", left.join("\n"));
    assert!(largest <= 4096, "the helper's memory grew to {largest} KiB");
}

#[test]
#[ignore = "needs root and a release build: cargo xtask test sealed"]
fn the_search_finds_what_is_there_before_it_is_wiped() {
    let fulcio = Fulcio::start(Manner::Issue);
    let mut flow = Flow::start(&fulcio, 1);
    // Where the helper clears its stack, right after it signed; and where it sends to Fulcio.
    let snapshots = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&snapshots);
    flow.break_where_the_stack_is_cleared();
    flow.run(move |observed, _| taken.lock().unwrap().push(memory_of(observed)));
    let secrets = flow.secrets();
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for memory in snapshots.lock().unwrap().iter() {
        for (_, name) in secrets.search(memory) {
            *found.entry(name).or_default() += 1;
        }
    }
    println!("found before wiping: {found:?}");
    for name in ["d", "k", "token"] {
        assert!(found.contains_key(name), "{name} was not found even while it was in use: {found:?}");
    }
    assert_eq!(flow.search_at_exit(), Vec::<String>::new());
    flow.end();
}

/// One flow under observation, from the first instruction of the program.
struct Flow<'a> {
    fulcio: &'a Fulcio,
    observed: Observed,
    helper: Option<Helper>,
    signatures: u32,
    /// What `getrandom` gave it, 32 bytes at a time.
    random: Vec<[u8; 32]>,
    /// What it said at last.
    said: Vec<FromHelper>,
    breakpoint: Option<u64>,
    resident_kib: u64,
    asked_before: usize,
}

impl<'a> Flow<'a> {
    fn start(fulcio: &'a Fulcio, signatures: u32) -> Self {
        // A shell that waits for a line, so that the observer is there before the program is.
        let program = fs::canonicalize(program()).unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", r#"read go; exec /usr/bin/env -i "$0""#]).arg(&program);
        let mut helper = Helper::from(&mut command);
        let observed = Observed::seize(helper.child.id());
        observed.interrupt();
        helper.control.write_all(b"\n").unwrap();
        let is_program = || fs::read_link(format!("/proc/{}/exe", observed.pid)).unwrap() == program;
        while observed.next(None) != Stop::Exec || !is_program() {}
        let asked_before = fulcio.requests().len();
        Self {
            fulcio,
            observed,
            helper: Some(helper),
            signatures,
            random: Vec::new(),
            said: Vec::new(),
            breakpoint: None,
            resident_kib: 0,
            asked_before,
        }
    }

    /// Runs it up to the last system call; `look` sees it at the breakpoint and wherever it writes to Fulcio.
    fn run(&mut self, mut look: impl FnMut(&Observed, Stop)) {
        let mut helper = self.helper.take().unwrap();
        let (fulcio, signatures) = (self.fulcio, self.signatures);
        thread::scope(|scope| {
            let parent = scope.spawn(move || {
                helper.sealed();
                helper.work(fulcio, |job| job.bounds.signatures = signatures);
                let mut said = vec![helper.hear().unwrap()];
                for _ in 1..signatures {
                    helper.say(&ToHelper::Digest(DIGEST));
                    said.push(helper.hear().unwrap());
                }
                (helper, said)
            });
            self.follow(&mut look);
            let (helper, said) = parent.join().unwrap();
            self.helper = Some(helper);
            self.said = said;
        });
    }

    fn follow(&mut self, look: &mut impl FnMut(&Observed, Stop)) {
        loop {
            match self.observed.next(None) {
                Stop::Syscall => {
                    let registers = self.observed.registers();
                    let entry = registers.rax.cast_signed() == -i64::from(libc::ENOSYS);
                    let number = registers.orig_rax.cast_signed();
                    if entry && number == libc::SYS_exit_group {
                        let status = fs::read_to_string(format!("/proc/{}/status", self.observed.pid)).unwrap();
                        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
                        self.resident_kib = peak.trim().trim_end_matches(" kB").parse().unwrap();
                        return;
                    }
                    if entry && number == libc::SYS_write && registers.rdi == 3 {
                        look(&self.observed, Stop::Syscall);
                    }
                    if !entry && number == libc::SYS_getrandom && registers.rax == 32 {
                        self.random.push(self.observed.read(registers.rdi, 32).try_into().unwrap());
                    }
                }
                Stop::Signal(Signal::SIGTRAP) if self.breakpoint.is_some() => {
                    look(&self.observed, Stop::Signal(Signal::SIGTRAP));
                    self.step_over();
                }
                other => panic!("not the end that it should come to: {other:?}"),
            }
        }
    }

    /// An `int3` at the function that clears the stack.
    fn break_where_the_stack_is_cleared(&mut self) {
        let image = fs::read(program()).unwrap();
        let elf = Elf::parse(&image).unwrap();
        let name = |symbol: &goblin::elf::Sym| elf.strtab.get_at(symbol.st_name).unwrap_or_default().to_owned();
        let symbol = elf.syms.iter().find(|symbol| name(symbol).contains("clear_stack_below"));
        let symbol = symbol.expect("the release build has its symbols");
        self.breakpoint = Some(self.observed.base() + symbol.st_value);
        self.set_breakpoint();
    }

    fn set_breakpoint(&self) {
        self.observed.write(self.breakpoint.unwrap(), &[0xcc]);
    }

    fn step_over(&self) {
        let at = self.breakpoint.unwrap();
        let mut registers = self.observed.registers();
        assert_eq!(registers.rip, at + 1);
        registers.rip = at;
        self.observed.set_registers(registers);
        let image = fs::read(program()).unwrap();
        let offset = usize::try_from(at - self.observed.base()).unwrap();
        let elf = Elf::parse(&image).unwrap();
        let segment = elf.program_headers.iter().find(|header| header.vm_range().contains(&offset)).unwrap();
        let in_file = offset - usize::try_from(segment.p_vaddr - segment.p_offset).unwrap();
        self.observed.write(at, &image[in_file..=in_file]);
        assert_eq!(self.observed.step(), Stop::Signal(Signal::SIGTRAP));
        self.set_breakpoint();
    }

    /// Everything that must not be there. Each random number is taken for the key, and one must be it.
    fn secrets(&self) -> Secrets {
        let mut secrets = Secrets::of_token();
        let keys: Vec<Key> = self.random.iter().filter_map(|bytes| Key::from_random(*bytes)).collect();
        assert!(!keys.is_empty(), "the helper took random bytes");
        let requests = self.fulcio.requests();
        if let Some(pem) = requests.get(self.asked_before) {
            let (_, block) = parse_x509_pem(pem.as_bytes()).unwrap();
            let (_, request) = X509CertificationRequest::from_der(&block.contents).unwrap();
            let public = request.certification_request_info.subject_pki.subject_public_key.data.to_vec();
            let key = keys.iter().find(|key| key.public_key() == public);
            let key = key.expect("one of the random numbers is the private key of the request");
            if let Some(FromHelper::Signed(signed)) = self.said.first() {
                let signature = DerSignature::from_bytes(&signed.signature).unwrap();
                let signature = p256::ecdsa::Signature::try_from(signature).unwrap();
                assert_eq!(signature.r().to_bytes().to_vec(), key.r(&DIGEST), "the nonce is known as well");
            }
        }
        for key in &keys {
            secrets.add_key(key, &[DIGEST]);
        }
        secrets
    }

    /// What is left, now that the next thing it does is to end.
    fn search_at_exit(&self) -> Vec<String> {
        let secrets = self.secrets();
        let mut hits = Vec::new();
        for (start, name, memory) in self.observed.mappings() {
            for (offset, what) in secrets.search(&memory) {
                hits.push(format!("{what} at {:#x}, {offset:#x} bytes into {name}", start + offset as u64));
            }
        }
        let vectors = self.observed.vectors();
        let registers = [registers(&self.observed), vectors].concat();
        hits.extend(
            secrets.search(&registers).into_iter().map(|(offset, what)| format!("{what} in a register, {offset}")),
        );
        hits
    }

    fn end(self) {
        assert!(matches!(self.observed.next(None), Stop::Exited(0 | 1)));
    }
}

fn memory_of(observed: &Observed) -> Vec<u8> {
    let parts = observed.mappings().into_iter().map(|(_, _, memory)| memory);
    parts.collect::<Vec<_>>().concat()
}

fn registers(observed: &Observed) -> Vec<u8> {
    let r = observed.registers();
    [r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15]
        .map(u64::to_le_bytes)
        .concat()
}
