//! How the process leaves: with nothing in its memory that was not in the file it was started from.
//!
//! What is freed is cleared by the [`Arena`]; this is for the rest: the stack, where cryptography leaves copies that no
//! destructor reaches, and the registers.

use std::arch::asm;
use std::panic;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::Arena;

/// Most bytes of stack; a limit holds the process to it, so that wiping this much wipes all.
pub(super) const STACK: usize = 512 << 10;

/// What the process ends with. The parent believes messages; this is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Exit {
    /// Everything that was asked was done.
    Done = 0,
    /// The last message says what went wrong.
    Failed = 1,
    /// The parent cannot be told: it is not there, or does not listen.
    Unheard = 2,
    /// A defect.
    Panicked = 3,
    /// The arena is used up.
    OutOfMemory = 4,
}

/// Finds out where the stack is, and makes a panic end the process without a word. Comes first.
pub(crate) fn begin(arena: &'static Arena) {
    // SAFETY: reads what the kernel told the process when it was started.
    let name = unsafe { libc::getauxval(libc::AT_EXECFN) } as usize;
    // The program's name lies in the last page of the stack, behind everything that the program itself puts there.
    TOP.store(name & !15, Relaxed);
    LOW.store((name & !(PAGE - 1)) + PAGE - STACK, Relaxed);
    let _ = ARENA.set(arena);
    // A message could hold anything, and there is nobody to read it.
    panic::set_hook(Box::new(|_| vanish(Exit::Panicked)));
}

/// Does `work`, then clears the stack that it used.
pub(crate) fn scrubbed<T>(work: impl FnOnce() -> T) -> T {
    #[inline(never)]
    fn apart<T>(work: impl FnOnce() -> T) -> T {
        work()
    }
    let result = apart(work);
    clear_stack_below();
    result
}

/// Clears heap, stack and registers and ends the process. Nothing is dropped and nothing is flushed.
#[cfg(target_arch = "x86_64")]
pub(crate) fn vanish(exit: Exit) -> ! {
    let code = exit as i32;
    let (heap, heap_length) = ARENA.get().map_or((std::ptr::null_mut(), 0), |arena| arena.extent());
    let (low, top) = (LOW.load(Relaxed), TOP.load(Relaxed));
    let xsave = u64::from(std::arch::is_x86_feature_detected!("xsave"));
    // SAFETY: it never returns, so nobody misses what it clears: the heap in use, the stack between its limit and the
    // program's name, and every register. It uses no memory but these. `xrstor` reads 576 zeros from the arena, which
    // is aligned to 64, longer, and was just cleared: with a header of zeros it loads every vector register's initial
    // state.
    unsafe {
        asm!(
            "cld",
            "xor eax, eax",
            "mov rdi, r8",
            "mov rcx, r9",
            "rep stosb",
            "mov rdi, r10",
            "mov rcx, r11",
            "sub rcx, rdi",
            "jbe 2f",
            "rep stosb",
            "2:",
            "pxor xmm0, xmm0",
            "pxor xmm1, xmm1",
            "pxor xmm2, xmm2",
            "pxor xmm3, xmm3",
            "pxor xmm4, xmm4",
            "pxor xmm5, xmm5",
            "pxor xmm6, xmm6",
            "pxor xmm7, xmm7",
            "pxor xmm8, xmm8",
            "pxor xmm9, xmm9",
            "pxor xmm10, xmm10",
            "pxor xmm11, xmm11",
            "pxor xmm12, xmm12",
            "pxor xmm13, xmm13",
            "pxor xmm14, xmm14",
            "pxor xmm15, xmm15",
            "test r8, r8",
            "jz 3f",
            "test r13, r13",
            "jz 3f",
            "mov rsi, r8",
            "mov eax, -1",
            "mov edx, -1",
            "xrstor [rsi]",
            "3:",
            "mov edi, r12d",
            "xor ebx, ebx",
            "xor ecx, ecx",
            "xor edx, edx",
            "xor esi, esi",
            "xor ebp, ebp",
            "xor r8d, r8d",
            "xor r9d, r9d",
            "xor r10d, r10d",
            "xor r11d, r11d",
            "xor r12d, r12d",
            "xor r13d, r13d",
            "xor r14d, r14d",
            "xor r15d, r15d",
            "mov eax, {exit_group}",
            "syscall",
            "ud2",
            in("r8") heap,
            in("r9") heap_length,
            in("r10") low,
            in("r11") top,
            in("r12") code,
            in("r13") xsave,
            exit_group = const libc::SYS_exit_group,
            options(noreturn)
        )
    }
}

/// Clears the stack between its limit and the caller's frame.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
fn clear_stack_below() {
    let low = LOW.load(Relaxed);
    // SAFETY: without the option `nostack` the compiler keeps nothing below the stack pointer; the limit is in the same
    // mapping, which the kernel grows when it is touched.
    unsafe {
        asm!(
            "cld",
            "mov rcx, rsp",
            "sub rcx, rdi",
            "jbe 2f",
            "rep stosb",
            "2:",
            inout("rdi") low => _,
            inout("eax") 0 => _,
            out("rcx") _,
        );
    }
}

static ARENA: OnceLock<&'static Arena> = OnceLock::new();
static LOW: AtomicUsize = AtomicUsize::new(usize::MAX);
static TOP: AtomicUsize = AtomicUsize::new(0);

const PAGE: usize = 4096;
