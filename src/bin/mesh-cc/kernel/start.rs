//! The first instructions, and what the kernel left on the stack for them (DO).

use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".globl _start",
    ".type _start,@function",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {begin}",
    "ud2",
    begin = sym begin,
);
#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".globl _start",
    ".type _start,%function",
    "_start:",
    "mov x29, #0",
    "mov x30, #0",
    "mov x0, sp",
    "bl {begin}",
    "brk #1",
    begin = sym begin,
);

/// The effective user, in the auxiliary vector.
const AT_EUID: usize = 12;
/// The end of the auxiliary vector.
const AT_NULL: usize = 0;

/// The stack as the kernel left it, for the panic handler.
static STACK: AtomicPtr<usize> = AtomicPtr::new(core::ptr::null_mut());

static PANICKED: AtomicBool = AtomicBool::new(false);
/// Neither the usual way nor the way out of trouble worked.
const EXIT_PANICKED_TWICE: i32 = 126;

/// Where the first instructions lead.
extern "C" fn begin(stack: *mut usize) -> ! {
    STACK.store(stack, Ordering::Relaxed);
    // SAFETY: `stack` is where the kernel put the arguments, and this runs once.
    crate::launcher::run(unsafe { Start::of(stack) })
}

/// Whatever was not thought of: the build goes on without mesh.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    if PANICKED.swap(true, Ordering::Relaxed) {
        super::call::exit(EXIT_PANICKED_TWICE)
    }
    // SAFETY: the stack was stored before anything could panic, and whoever had the former value never runs again.
    crate::launcher::surprised(unsafe { Start::of(STACK.load(Ordering::Relaxed)) })
}

/// A string of the program's arguments or environment: it ends with a zero and lives as long as the program.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Word(*const c_char);

impl Word {
    /// With its zero.
    pub(crate) fn as_c(self) -> &'static CStr {
        // SAFETY: words are made from the kernel's arrays or from static strings only, up to their null pointer.
        unsafe { CStr::from_ptr(self.0) }
    }

    /// Without its zero.
    pub(crate) fn bytes(self) -> &'static [u8] {
        self.as_c().to_bytes()
    }
}

impl AsRef<[u8]> for Word {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

/// What the program was started with.
pub(crate) struct Start {
    argv: *mut Word,
    argc: usize,
    env: *mut Word,
    env_count: usize,
    /// The effective user.
    pub(crate) uid: u32,
}

impl Start {
    /// Reads what the kernel put on the stack: a count, so many pointers and a null, pointers up to a null, pairs of numbers.
    ///
    /// # Safety
    /// `stack` is the stack pointer at the program's entry, and no other value made of it is in use.
    unsafe fn of(stack: *mut usize) -> Self {
        // SAFETY: all that is read lies where <https://docs.kernel.org> and the processor's ABI put it.
        unsafe {
            let argc = *stack;
            let argv = stack.add(1);
            let env = argv.add(argc + 1);
            let mut env_count = 0;
            while *env.add(env_count) != 0 {
                env_count += 1;
            }
            let mut auxiliary = env.add(env_count + 1);
            let mut uid = u32::MAX;
            while *auxiliary != AT_NULL {
                if *auxiliary == AT_EUID {
                    uid = *auxiliary.add(1) as u32;
                }
                auxiliary = auxiliary.add(2);
            }
            Self { argv: argv.cast(), argc, env: env.cast(), env_count, uid }
        }
    }

    /// The arguments.
    pub(crate) fn argv(&self) -> &[Word] {
        // SAFETY: so many pointers to strings are there, and they are changed through `&mut self` only.
        unsafe { core::slice::from_raw_parts(self.argv, self.argc) }
    }

    /// The environment's strings, `NAME=VALUE`.
    pub(crate) fn env(&self) -> &[Word] {
        // SAFETY: as for the arguments.
        unsafe { core::slice::from_raw_parts(self.env, self.env_count) }
    }

    /// The first value of a variable.
    pub(crate) fn var(&self, name: &str) -> Option<&'static [u8]> {
        let value = |word: &Word| word.bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"=");
        self.env().iter().find_map(value)
    }

    /// Calls the program by another name.
    pub(crate) fn set_name(&mut self, name: &'static CStr) {
        if self.argc > 0 {
            // SAFETY: the first pointer is there, writable, and nobody else refers to it.
            unsafe { *self.argv = Word(name.as_ptr()) };
        }
    }

    /// Puts a string in the place of a variable's, or behind the last one. Once, at most, behind the last one.
    pub(crate) fn set_var(&mut self, name: &str, string: &'static CStr) {
        let is_it = |word: &Word| word.bytes().strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"="));
        let at = self.env().iter().position(is_it).unwrap_or(self.env_count);
        // SAFETY: the place is one of the environment's pointers, or the null behind them. Then the null moves on by one, to
        // where the auxiliary vector began, which was read already and which nothing else in this program looks at; as it
        // holds pairs and an end, there is room.
        unsafe {
            *self.env.add(at) = Word(string.as_ptr());
            if at == self.env_count {
                *self.env.add(at + 1) = Word(core::ptr::null());
                self.env_count += 1;
            }
        }
    }

    /// Becomes another program, with the arguments from this one on. Returns if that cannot be.
    pub(crate) fn become_program(&self, path: &CStr, from: usize) {
        if from < self.argc {
            // SAFETY: both arrays hold strings and end with a null pointer.
            unsafe { super::call::execve(path, self.argv.add(from).cast(), self.env.cast()) };
        }
    }
}
