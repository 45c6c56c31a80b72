//! System calls (DO).

use core::ffi::{CStr, c_char};

#[cfg(target_arch = "x86_64")]
mod number {
    //! <https://docs.kernel.org>: `arch/x86/entry/syscalls/syscall_64.tbl`.
    pub(super) const READ: usize = 0;
    pub(super) const WRITE: usize = 1;
    pub(super) const FSTAT: usize = 5;
    pub(super) const MMAP: usize = 9;
    pub(super) const RT_SIGACTION: usize = 13;
    pub(super) const IOCTL: usize = 16;
    pub(super) const GETPID: usize = 39;
    pub(super) const SOCKET: usize = 41;
    pub(super) const CONNECT: usize = 42;
    pub(super) const SENDTO: usize = 44;
    pub(super) const CLONE: usize = 56;
    pub(super) const EXECVE: usize = 59;
    pub(super) const WAIT4: usize = 61;
    pub(super) const KILL: usize = 62;
    pub(super) const FCNTL: usize = 72;
    pub(super) const GETCWD: usize = 79;
    pub(super) const UMASK: usize = 95;
    pub(super) const CLOCK_GETTIME: usize = 228;
    pub(super) const EXIT_GROUP: usize = 231;
    pub(super) const OPENAT: usize = 257;
    pub(super) const NEWFSTATAT: usize = 262;
    pub(super) const UNLINKAT: usize = 263;
    pub(super) const READLINKAT: usize = 267;
    pub(super) const FACCESSAT: usize = 269;
    pub(super) const PPOLL: usize = 271;
    pub(super) const RENAMEAT2: usize = 316;
}

#[cfg(target_arch = "aarch64")]
mod number {
    //! <https://docs.kernel.org>: `include/uapi/asm-generic/unistd.h`.
    pub(super) const GETCWD: usize = 17;
    pub(super) const FCNTL: usize = 25;
    pub(super) const IOCTL: usize = 29;
    pub(super) const UNLINKAT: usize = 35;
    pub(super) const FACCESSAT: usize = 48;
    pub(super) const OPENAT: usize = 56;
    pub(super) const READ: usize = 63;
    pub(super) const WRITE: usize = 64;
    pub(super) const PPOLL: usize = 73;
    pub(super) const READLINKAT: usize = 78;
    pub(super) const NEWFSTATAT: usize = 79;
    pub(super) const FSTAT: usize = 80;
    pub(super) const EXIT_GROUP: usize = 94;
    pub(super) const CLOCK_GETTIME: usize = 113;
    pub(super) const KILL: usize = 129;
    pub(super) const RT_SIGACTION: usize = 134;
    pub(super) const UMASK: usize = 166;
    pub(super) const GETPID: usize = 172;
    pub(super) const SOCKET: usize = 198;
    pub(super) const CONNECT: usize = 203;
    pub(super) const SENDTO: usize = 206;
    pub(super) const CLONE: usize = 220;
    pub(super) const EXECVE: usize = 221;
    pub(super) const MMAP: usize = 222;
    pub(super) const WAIT4: usize = 260;
    pub(super) const RENAMEAT2: usize = 276;
}

/// The call was interrupted.
pub(crate) const EINTR: Error = Error(4);
/// It would wait.
pub(crate) const EAGAIN: Error = Error(11);

const AT_FDCWD: usize = -100isize as usize;
const AT_SYMLINK_NOFOLLOW: usize = 0x100;
const O_RDONLY: usize = 0;
const O_WRONLY: usize = 0o1;
const O_CREAT: usize = 0o100;
const O_TRUNC: usize = 0o1000;
const O_CLOEXEC: usize = 0o2000000;
const AF_UNIX: u16 = 1;
const SOCK_STREAM: usize = 1;
const SOCK_NONBLOCK: usize = 0o4000;
const SOCK_CLOEXEC: usize = 0o2000000;
const MSG_NOSIGNAL: usize = 0x4000;
const F_SETFD: usize = 2;
const CLOCK_MONOTONIC: usize = 1;
const TIOCGWINSZ: usize = 0x5413;
const POLLIN: i16 = 1;
const POLLOUT: i16 = 4;
const SIGPIPE: usize = 13;
const SIGCHLD: usize = 17;
const SIG_IGN: usize = 1;
const PROT_READ_WRITE: usize = 3;
const MAP_PRIVATE_ANONYMOUS: usize = 0x22;
/// A socket's path with its zero, bytes.
const SOCKET_PATH_BYTES_MAX: usize = 108;
/// The largest number that means an error, counted back from zero.
const ERRNO_MAX: isize = 4095;

/// Standard output.
pub(crate) const STDOUT: Fd = Fd(1);
/// Standard error.
pub(crate) const STDERR: Fd = Fd(2);

/// What the kernel says went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Error(i32);

/// An open file. Nothing closes one: the program ends soon, or becomes another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fd(i32);

/// A file's identity and what else of it matters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meta {
    /// Device and inode.
    pub(crate) id: (u64, u64),
    /// Kind and permissions.
    pub(crate) mode: u32,
    /// Its owner.
    pub(crate) uid: u32,
}

/// How a child ended.
pub(crate) enum Ended {
    /// With this status.
    Code(u8),
    /// By this signal.
    Signal(i32),
}

/// `struct stat`.
#[repr(C)]
struct Stat {
    device: u64,
    inode: u64,
    #[cfg(target_arch = "x86_64")]
    links: u64,
    mode: u32,
    #[cfg(target_arch = "aarch64")]
    links: u32,
    uid: u32,
    rest: [u64; 16],
}

const STAT: Stat = Stat { device: 0, inode: 0, links: 0, mode: 0, uid: 0, rest: [0; 16] };

impl Stat {
    fn meta(&self) -> Meta {
        Meta { id: (self.device, self.inode), mode: self.mode, uid: self.uid }
    }
}

/// One system call.
///
/// # Safety
/// As the call's manual page says for these arguments.
unsafe fn call(number: usize, a: [usize; 6]) -> Result<usize, Error> {
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the registers are those of the kernel's convention; it changes rcx, r11 and what the arguments point to.
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a[0], in("rsi") a[1],
            in("rdx") a[2], in("r10") a[3], in("r8") a[4], in("r9") a[5], lateout("rcx") _, lateout("r11") _,
            options(nostack));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the registers are those of the kernel's convention; it changes what the arguments point to.
    unsafe {
        core::arch::asm!("svc #0", in("x8") number, inlateout("x0") a[0] as isize => result, in("x1") a[1],
            in("x2") a[2], in("x3") a[3], in("x4") a[4], in("x5") a[5], options(nostack));
    }
    if (-ERRNO_MAX..0).contains(&result) { Err(Error(-result as i32)) } else { Ok(result as usize) }
}

fn at(path: &CStr) -> usize {
    path.as_ptr() as usize
}

/// Ends the program.
pub(crate) fn exit(status: i32) -> ! {
    loop {
        // SAFETY: takes a number and does not come back.
        let _ = unsafe { call(number::EXIT_GROUP, [status as usize, 0, 0, 0, 0, 0]) };
    }
}

/// Becomes another program; returns if that cannot be.
///
/// # Safety
/// Both arrays hold pointers to strings that end with a zero, and end with a null pointer.
pub(super) unsafe fn execve(path: &CStr, argv: *const *const c_char, env: *const *const c_char) {
    // SAFETY: the caller's promise.
    let _ = unsafe { call(number::EXECVE, [at(path), argv as usize, env as usize, 0, 0, 0]) };
}

fn stat_with(path: &CStr, flags: usize) -> Option<Meta> {
    let mut stat = STAT;
    // SAFETY: the kernel reads the path and writes one `struct stat`, which is no longer than this one.
    let done = unsafe { call(number::NEWFSTATAT, [AT_FDCWD, at(path), &raw mut stat as usize, flags, 0, 0]) };
    done.ok().map(|_| stat.meta())
}

/// What a path leads to.
pub(crate) fn stat(path: &CStr) -> Option<Meta> {
    stat_with(path, 0)
}

/// What lies at a path itself.
pub(crate) fn lstat(path: &CStr) -> Option<Meta> {
    stat_with(path, AT_SYMLINK_NOFOLLOW)
}

/// What is open.
pub(crate) fn fstat(fd: Fd) -> Option<Meta> {
    let mut stat = STAT;
    // SAFETY: the kernel writes one `struct stat`, which is no longer than this one.
    let done = unsafe { call(number::FSTAT, [fd.0 as usize, &raw mut stat as usize, 0, 0, 0, 0]) };
    done.ok().map(|_| stat.meta())
}

/// Whether something is at a path.
pub(crate) fn exists(path: &CStr) -> bool {
    // SAFETY: the kernel reads the path.
    unsafe { call(number::FACCESSAT, [AT_FDCWD, at(path), 0, 0, 0, 0]) }.is_ok()
}

/// What a symbolic link holds; `None` too if the buffer may be too small for it.
pub(crate) fn readlink<'a>(path: &CStr, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let (start, count) = (buffer.as_mut_ptr() as usize, buffer.len());
    // SAFETY: the kernel reads the path and writes at most so many bytes.
    let used = unsafe { call(number::READLINKAT, [AT_FDCWD, at(path), start, count, 0, 0]) }.ok()?;
    buffer.get(..used).filter(|_| used < count)
}

/// The working directory's path.
pub(crate) fn getcwd(buffer: &mut [u8]) -> Option<&[u8]> {
    let (start, count) = (buffer.as_mut_ptr() as usize, buffer.len());
    // SAFETY: the kernel writes at most so many bytes.
    let used = unsafe { call(number::GETCWD, [start, count, 0, 0, 0, 0]) }.ok()?;
    buffer.get(..used.checked_sub(1)?)
}

/// Renames a file.
pub(crate) fn rename(from: &CStr, to: &CStr) -> Result<(), Error> {
    // SAFETY: the kernel reads both paths.
    unsafe { call(number::RENAMEAT2, [AT_FDCWD, at(from), AT_FDCWD, at(to), 0, 0]) }.map(drop)
}

/// Removes a file; if it cannot be removed, it stays.
pub(crate) fn unlink(path: &CStr) {
    // SAFETY: the kernel reads the path.
    let _ = unsafe { call(number::UNLINKAT, [AT_FDCWD, at(path), 0, 0, 0, 0]) };
}

/// Makes an empty file, if it can be made.
pub(crate) fn make_file(path: &CStr) {
    let flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC;
    // SAFETY: the kernel reads the path.
    let _ = unsafe { call(number::OPENAT, [AT_FDCWD, at(path), flags, 0o666, 0, 0]) };
}

/// A file of exactly so many bytes. It stays open: that is for a program that ends soon.
pub(crate) fn read_small<const BYTES: usize>(path: &CStr) -> Option<[u8; BYTES]> {
    // SAFETY: the kernel reads the path.
    let fd = unsafe { call(number::OPENAT, [AT_FDCWD, at(path), O_RDONLY | O_CLOEXEC, 0, 0, 0]) }.ok()?;
    let mut bytes = [0; BYTES];
    let count = read(Fd(i32::try_from(fd).ok()?), &mut bytes).ok()?;
    (count == BYTES).then_some(bytes)
}

/// The machine's monotonic clock, milliseconds.
pub(crate) fn monotonic_ms() -> Option<u64> {
    let mut time = [0u64; 2];
    // SAFETY: the kernel writes one `struct timespec`.
    unsafe { call(number::CLOCK_GETTIME, [CLOCK_MONOTONIC, time.as_mut_ptr() as usize, 0, 0, 0, 0]) }.ok()?;
    Some(time[0] * 1000 + time[1] / 1_000_000)
}

/// The file creation mask. Reading it means setting it; this process has one thread.
pub(crate) fn umask() -> u32 {
    // SAFETY: takes a number, and never fails.
    let set = |mask: usize| unsafe { call(number::UMASK, [mask, 0, 0, 0, 0, 0]) }.unwrap_or(0);
    let mask = set(0);
    set(mask);
    mask as u32
}

/// Columns and rows of a terminal; `None` for what is none.
pub(crate) fn window(fd: Fd) -> Option<(u16, u16)> {
    // Rows, columns, and two that nobody uses.
    let mut size = [0u16; 4];
    // SAFETY: the kernel writes four numbers of 16 bits.
    unsafe { call(number::IOCTL, [fd.0 as usize, TIOCGWINSZ, &raw mut size as usize, 0, 0, 0]) }.ok()?;
    Some((size[1], size[0]))
}

/// A connection to a socket, made without waiting, not even for one whose queue is full; `None` too if it would stand for a
/// standard stream.
pub(crate) fn dial(path: &CStr) -> Option<Fd> {
    #[repr(C)]
    struct Address {
        family: u16,
        path: [u8; SOCKET_PATH_BYTES_MAX],
    }
    let mut address = Address { family: AF_UNIX, path: [0; SOCKET_PATH_BYTES_MAX] };
    let bytes = path.to_bytes_with_nul();
    address.path.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let kind = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
    // SAFETY: takes numbers.
    let fd = unsafe { call(number::SOCKET, [AF_UNIX.into(), kind, 0, 0, 0, 0]) }.ok()?;
    // Where a standard stream is closed, the connection would be taken for it, by this program and by the compiler.
    if fd <= STDERR.0 as usize {
        return None;
    }
    let (start, count) = (&raw const address as usize, size_of::<u16>() + bytes.len());
    // SAFETY: the kernel reads so many bytes of the address.
    unsafe { call(number::CONNECT, [fd, start, count, 0, 0, 0]) }.ok()?;
    Some(Fd(fd as i32))
}

/// Sends what can be sent at once; a peer that is gone is an error and no signal.
pub(crate) fn send(fd: Fd, bytes: &[u8]) -> Result<usize, Error> {
    let (start, count) = (bytes.as_ptr() as usize, bytes.len());
    // SAFETY: the kernel reads so many bytes.
    unsafe { call(number::SENDTO, [fd.0 as usize, start, count, MSG_NOSIGNAL, 0, 0]) }
}

/// Writes what can be written.
pub(crate) fn write(fd: Fd, bytes: &[u8]) -> Result<usize, Error> {
    let (start, count) = (bytes.as_ptr() as usize, bytes.len());
    // SAFETY: the kernel reads so many bytes.
    unsafe { call(number::WRITE, [fd.0 as usize, start, count, 0, 0, 0]) }
}

/// Reads what is there; 0 at the end.
pub(crate) fn read(fd: Fd, buffer: &mut [u8]) -> Result<usize, Error> {
    let (start, count) = (buffer.as_mut_ptr() as usize, buffer.len());
    // SAFETY: the kernel writes at most so many bytes.
    unsafe { call(number::READ, [fd.0 as usize, start, count, 0, 0, 0]) }
}

fn wait(fd: Fd, events: i16, limit_ms: u64) -> bool {
    #[repr(C)]
    struct Poll {
        fd: i32,
        events: i16,
        happened: i16,
    }
    loop {
        let mut poll = Poll { fd: fd.0, events, happened: 0 };
        let mut limit = [limit_ms / 1000, limit_ms % 1000 * 1_000_000];
        let (poll, limit) = (&raw mut poll as usize, &raw mut limit as usize);
        // SAFETY: the kernel reads and writes one `struct pollfd` and one `struct timespec`; there is no signal mask.
        match unsafe { call(number::PPOLL, [poll, 1, limit, 0, 0, 0]) } {
            // Stopped and continued: the agent may have been, too.
            Err(EINTR) => {}
            done => return done.is_ok_and(|count| count > 0),
        }
    }
}

/// Whether something to read, or the end, comes within the limit.
pub(crate) fn wait_to_read(fd: Fd, limit_ms: u64) -> bool {
    wait(fd, POLLIN, limit_ms)
}

/// Whether something can be written within the limit.
pub(crate) fn wait_to_write(fd: Fd, limit_ms: u64) -> bool {
    wait(fd, POLLOUT, limit_ms)
}

/// Leaves a descriptor open in the program that this one becomes.
pub(crate) fn keep_open(fd: Fd) {
    // SAFETY: takes numbers.
    let _ = unsafe { call(number::FCNTL, [fd.0 as usize, F_SETFD, 0, 0, 0, 0]) };
}

/// Fresh memory of so many bytes.
pub(crate) fn allocate(count: usize) -> Option<&'static mut [u8]> {
    let arguments = [0, count, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, usize::MAX, 0];
    // SAFETY: asks for new pages wherever there is room.
    let start = unsafe { call(number::MMAP, arguments) }.ok()?;
    // SAFETY: so many bytes are there, zero, nobody else's, and never given back.
    Some(unsafe { core::slice::from_raw_parts_mut(start as *mut u8, count) })
}

/// Lets a write to a closed pipe be an error instead of the program's end.
pub(crate) fn ignore_broken_pipes() {
    // The kernel's `struct sigaction`: handler, flags, restorer, mask.
    let action = [SIG_IGN, 0, 0, 0];
    // SAFETY: the kernel reads one such structure; its mask has 8 bytes, and nothing is to be called.
    let _ = unsafe { call(number::RT_SIGACTION, [SIGPIPE, &raw const action as usize, 0, 8, 0, 0]) };
}

/// Makes a copy of this process: `Ok(None)` in the copy, its id in the original.
pub(crate) fn fork() -> Result<Option<usize>, Error> {
    // SAFETY: the copy has memory of its own and goes on where this one does; there are no other threads.
    let id = unsafe { call(number::CLONE, [SIGCHLD, 0, 0, 0, 0, 0]) }?;
    Ok((id != 0).then_some(id))
}

/// Waits for a child to end.
pub(crate) fn wait_for(child: usize) -> Option<Ended> {
    let mut status = 0i32;
    loop {
        // SAFETY: the kernel writes one number of 32 bits.
        match unsafe { call(number::WAIT4, [child, &raw mut status as usize, 0, 0, 0, 0]) } {
            Err(EINTR) => {}
            Err(_) => return None,
            Ok(_) => break,
        }
    }
    Some(match status & 0x7f {
        0 => Ended::Code((status >> 8) as u8),
        signal => Ended::Signal(signal),
    })
}

/// Sends this process a signal.
pub(crate) fn raise(signal: i32) {
    // SAFETY: take numbers.
    let _ =
        unsafe { call(number::GETPID, [0; 6]).and_then(|own| call(number::KILL, [own, signal as usize, 0, 0, 0, 0])) };
}
