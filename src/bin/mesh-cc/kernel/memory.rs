//! The program's memory: buffers that exist once, and the functions that compiled code calls by name (DO).

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// A request, bytes: a longer one is left to the launcher that can allocate.
const REQUEST_BYTES_MAX: usize = 2 << 20;
/// An answer that needs no memory of its own, bytes.
const ANSWER_BYTES: usize = 64 << 10;

/// The longest path, its zero included, bytes.
const PATH_BYTES_MAX: usize = 4096;

/// The program's large buffers. Pages that are not touched cost nothing.
pub(crate) struct Buffers {
    /// The request.
    pub(crate) request: &'static mut [u8],
    /// The answer.
    pub(crate) answer: &'static mut [u8],
    /// The compiler's path.
    pub(crate) compiler: &'static mut [u8],
}

struct Memory {
    request: [u8; REQUEST_BYTES_MAX],
    answer: [u8; ANSWER_BYTES],
    compiler: [u8; PATH_BYTES_MAX],
}

struct Once(UnsafeCell<Memory>);

// SAFETY: the cell's content is given out once, by `buffers`.
unsafe impl Sync for Once {}

static MEMORY: Once = Once(UnsafeCell::new(Memory {
    request: [0; REQUEST_BYTES_MAX],
    answer: [0; ANSWER_BYTES],
    compiler: [0; PATH_BYTES_MAX],
}));
/// The compiler's path, or null.
static COMPILER: AtomicPtr<c_char> = AtomicPtr::new(core::ptr::null_mut());
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The buffers, once.
pub(crate) fn buffers() -> Option<Buffers> {
    if TAKEN.swap(true, Ordering::Relaxed) {
        return None;
    }
    // SAFETY: the flag lets nobody come here a second time, so there is no other reference.
    let memory = unsafe { &mut *MEMORY.0.get() };
    Some(Buffers { request: &mut memory.request, answer: &mut memory.answer, compiler: &mut memory.compiler })
}

/// Keeps the compiler's path where everybody finds it, the panic handler too; `None` if it is too long.
pub(crate) fn remember(buffer: &'static mut [u8], path: &CStr) -> Option<&'static CStr> {
    let bytes = path.to_bytes_with_nul();
    let (place, _) = buffer.split_at_mut_checked(bytes.len())?;
    place.copy_from_slice(bytes);
    let path = CStr::from_bytes_with_nul(place).ok()?;
    COMPILER.store(path.as_ptr().cast_mut(), Ordering::Relaxed);
    Some(path)
}

/// The compiler's path, if there is one yet.
pub(crate) fn remembered() -> Option<&'static CStr> {
    let path = COMPILER.load(Ordering::Relaxed);
    // SAFETY: if it is not null, it was made of such a reference, to a string that lives as long as the program.
    (!path.is_null()).then(|| unsafe { CStr::from_ptr(path) })
}

/// `memcpy` of C.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller's promise is that of `forward`.
    unsafe { forward(to, from, count) };
    to
}

/// `memmove` of C.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= count {
        // SAFETY: the target does not begin inside the source, so going forward overwrites nothing that is still to be read.
        unsafe { forward(to, from, count) };
        return to;
    }
    let mut at = count;
    while at > 0 {
        at -= 1;
        // SAFETY: `at` is below `count`, for which the caller vouches. Volatile, so that this loop does not become a call of
        // this function.
        unsafe { to.add(at).write_volatile(from.add(at).read_volatile()) };
    }
    to
}

/// `memset` of C.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: writes `count` bytes at `to`, for which the caller vouches; the direction flag is clear by convention.
    unsafe {
        core::arch::asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") byte as u8,
            options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "x86_64"))]
    for at in 0..count {
        // SAFETY: `at` is below `count`, for which the caller vouches.
        unsafe { to.add(at).write_volatile(byte as u8) };
    }
    to
}

/// `memcmp` of C.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
    for at in 0..count {
        // SAFETY: `at` is below `count`, for which the caller vouches.
        let (a, b) = unsafe { (a.add(at).read_volatile(), b.add(at).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

/// `bcmp` of POSIX.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
    // SAFETY: the same promise.
    unsafe { memcmp(a, b, count) }
}

/// `strlen` of C.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(string: *const u8) -> usize {
    let mut count = 0;
    // SAFETY: the caller vouches for every byte up to and with the terminating zero.
    while unsafe { string.add(count).read_volatile() } != 0 {
        count += 1;
    }
    count
}

/// The name to which the unwind tables of the precompiled `core` refer. Nothing unwinds: the program is built to abort.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// Copies from the front.
///
/// # Safety
/// `count` bytes are readable at `from` and writable at `to`, and `to` does not begin inside the source after its first byte.
unsafe fn forward(to: *mut u8, from: *const u8, count: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: copies `count` bytes upward, for which the caller vouches; the direction flag is clear by convention.
    unsafe {
        core::arch::asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "x86_64"))]
    for at in 0..count {
        // SAFETY: `at` is below `count`, for which the caller vouches. Volatile, so that this does not become a `memcpy`.
        unsafe { to.add(at).write_volatile(from.add(at).read_volatile()) };
    }
}
