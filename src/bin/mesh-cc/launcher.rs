//! The launcher's usual path: a compile that the agent decides about (DO).
//!
//! The same steps as `cmd::cc` in the library, which is what everything unusual is handed over to, by becoming the `mesh`
//! beside this program, as long as nothing has been asked: no agent, a link named like a compiler, a compiler that is not
//! there, words to be said, more than fits here. Once the agent has been asked, doubt means the compiler itself.

use crate::{
    compiler::surely_local,
    env,
    find::{self, Found},
    kernel::{self, Ended, Fd, Start},
    launch::{
        beat::{self, SILENCE_MS_MAX},
        names, socket,
        wire::{self, Request, Tell},
    },
    reason::Reason,
    words::Path,
};
use core::ffi::CStr;

/// Neither the compiler nor mesh can be run.
const EXIT_NOT_EXECUTABLE: i32 = 126;
/// A shell's status for a program that was ended by a signal, to which the signal's number is added.
const EXIT_SIGNAL: i32 = 128;
/// Variables that travel with a request, at most; with more of them, the launcher in mesh asks.
const VARIABLES_MAX: usize = 256;

/// The agent does not answer any more.
enum Gone {
    /// It said nothing for too long.
    Silent,
    /// It closed the connection, or said what no agent says.
    Away,
}

/// Runs the program.
pub(crate) fn run(start: Start) -> ! {
    if masquerades(&start) || start.argv().len() < 2 {
        hand_over(start)
    }
    let Some(buffers) = kernel::buffers() else { hand_over(start) };
    let Some(found) = find::compiler(&start) else { hand_over(start) };
    let Some(compiler) = kernel::remember(buffers.compiler, found.path.as_c()) else { hand_over(start) };
    let mode = start.var(env::MESH);
    let speaks = start.var(env::VERBOSE) == Some(b"1") || start.var(env::FALLBACK) == Some(b"0");
    if speaks {
        hand_over(start)
    }
    let off = matches!(mode, Some(b"off" | b"local" | b"0")) || start.var(env::DEPTH).is_some();
    let argv = start.argv().get(1..).unwrap_or_default();
    if off || surely_local(argv).is_some() {
        become_compiler(start, compiler, None)
    }
    let Some(place) = find::socket(&start) else { hand_over(start) };
    let Some(agent) = kernel::dial(place.as_c()) else { hand_over(start) };
    let place = place.bytes();
    let marker = Path::of(&[&place[..socket::stem_len(place)], b".", socket::FROZEN.as_bytes()]);
    let Some(marker) = marker else { hand_over(start) };
    // The socket's directory is this user's alone, but a socket named by hand may lie anywhere.
    let owner = Path::of(&[place]).and_then(|path| kernel::lstat(path.as_c())).map(|meta| meta.uid);
    if owner != Some(start.uid) || kernel::exists(marker.as_c()) {
        become_compiler(start, compiler, None)
    }
    let Some(used) = request(&start, &found, buffers.request) else { hand_over(start) };
    let asked = send(agent, buffers.request.get(..used).unwrap_or_default());
    let verdict = asked.and_then(|()| verdict(agent, place, buffers.answer));
    match verdict {
        Ok(Verdict::Made) => kernel::exit(0),
        Ok(Verdict::Here { again: true }) => run_again(start, compiler, agent),
        Ok(Verdict::Here { again: false }) => become_compiler(start, compiler, Some(agent)),
        Ok(Verdict::NotRenamed) | Err(Gone::Away) => become_compiler(start, compiler, None),
        Err(Gone::Silent) => {
            // Later launchers do not wait for it.
            kernel::make_file(marker.as_c());
            become_compiler(start, compiler, None)
        }
    }
}

/// What the agent said in the end.
enum Verdict {
    /// It was compiled, everything is in its place and printed.
    Made,
    /// It was compiled, but something could not be put in its place.
    NotRenamed,
    /// Compile it here; `again` because it failed elsewhere.
    Here { again: bool },
}

/// Writes the request and says how long it is; `None` if it does not fit, or something that it says cannot be found out.
fn request(start: &Start, found: &Found, buffer: &mut [u8]) -> Option<usize> {
    let cwd = find::working_directory(start)?;
    let mut variables = [(&b""[..], &b""[..]); VARIABLES_MAX];
    let mut count = 0;
    for word in start.env() {
        let word = word.bytes();
        // As the standard library has it: a name may begin with the sign.
        let Some(at) = word.iter().skip(1).position(|byte| *byte == b'=').map(|at| at + 1) else { continue };
        let (name, value) = (&word[..at], &word[at + 1..]);
        if env::travels(name) {
            *variables.get_mut(count)? = (name, value);
            count += 1;
        }
    }
    let variables = variables.get_mut(..count)?;
    variables.sort_unstable();
    let merged = match (kernel::fstat(kernel::STDOUT), kernel::fstat(kernel::STDERR)) {
        (Some(out), Some(err)) => out.id == err.id,
        _ => false,
    };
    let prefer = start.var(env::PREFER).and_then(|name| core::str::from_utf8(name).ok());
    let request = Request {
        program: found.path.bytes(),
        argv: start.argv().get(1..)?,
        cwd: cwd.path.bytes(),
        env: variables,
        umask: kernel::umask(),
        merged_output: merged,
        terminal: kernel::window(kernel::STDERR),
        seen: [kernel::stat(c"/")?.id, cwd.id, found.id],
        force: start.var(env::MESH) == Some(b"force"),
        prefer: prefer.filter(|name| !name.is_empty()),
        session: start.var(env::SESSION).map_or(0, env::session),
        keeping: env::keeping(|name| start.var(name)) as u8,
    };
    request.write(buffer)
}

fn send(agent: Fd, mut bytes: &[u8]) -> Result<(), Gone> {
    while !bytes.is_empty() {
        match kernel::send(agent, bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(kernel::EINTR) => {}
            Err(kernel::EAGAIN) => {
                if !kernel::wait_to_write(agent, SILENCE_MS_MAX) {
                    return Err(Gone::Silent);
                }
            }
            Err(_) => return Err(Gone::Away),
        }
    }
    Ok(())
}

/// What comes from the agent, frame by frame.
struct Answers<'a> {
    agent: Fd,
    socket: &'a [u8],
    buffer: &'static mut [u8],
    /// Where the bytes that were not looked at begin and end.
    begin: usize,
    end: usize,
}

impl Answers<'_> {
    fn next(&mut self) -> Result<Tell<'_>, Gone> {
        self.need(wire::HEADER_BYTES)?;
        let header = self.buffer.get(self.begin..).and_then(|bytes| bytes.first_chunk()).ok_or(Gone::Away)?;
        let whole = wire::HEADER_BYTES + wire::payload_len(*header).ok_or(Gone::Away)?;
        self.need(whole)?;
        let payload = self.begin + wire::HEADER_BYTES..self.begin + whole;
        self.begin += whole;
        self.buffer.get(payload).and_then(Tell::read).ok_or(Gone::Away)
    }

    /// Waits until so many bytes are there.
    fn need(&mut self, count: usize) -> Result<(), Gone> {
        if self.begin + count > self.buffer.len() {
            if count > self.buffer.len() {
                let more = kernel::allocate(count).ok_or(Gone::Away)?;
                more[..self.end - self.begin].copy_from_slice(&self.buffer[self.begin..self.end]);
                self.buffer = more;
            } else {
                self.buffer.copy_within(self.begin..self.end, 0);
            }
            (self.begin, self.end) = (0, self.end - self.begin);
        }
        while self.end - self.begin < count {
            let mut patience_ms = SILENCE_MS_MAX;
            while !kernel::wait_to_read(self.agent, patience_ms) {
                patience_ms = patience(self.socket).ok_or(Gone::Silent)?;
            }
            match kernel::read(self.agent, &mut self.buffer[self.end..]) {
                Ok(0) => return Err(Gone::Away),
                Ok(read) => self.end += read,
                Err(kernel::EINTR | kernel::EAGAIN) => {}
                Err(_) => return Err(Gone::Away),
            }
        }
        Ok(())
    }
}

/// How much longer an agent may be silent that has said nothing on its connection, milliseconds.
fn patience(socket: &[u8]) -> Option<u64> {
    let path = Path::of(&[&socket[..socket::stem_len(socket)], b".", beat::BEAT.as_bytes()])?;
    beat::patience_ms(kernel::read_small(path.as_c())?, kernel::monotonic_ms()?)
}

/// Waits for the agent's verdict, and does what it says.
fn verdict(agent: Fd, socket: &[u8], buffer: &'static mut [u8]) -> Result<Verdict, Gone> {
    match (Answers { agent, socket, buffer, begin: 0, end: 0 }).next()? {
        Tell::Local { reason, .. } => Ok(Verdict::Here { again: reason == Reason::CompileError }),
        Tell::Done(done) => {
            if !rename_all(done.renames()) {
                return Ok(Verdict::NotRenamed);
            }
            print(done.texts());
            Ok(Verdict::Made)
        }
    }
}

/// Puts every output in its place. The object comes last in the list: when it is there, all is.
fn rename_all<'a>(renames: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> bool {
    let mut ok = true;
    for (from, to) in renames {
        let (from, to) = (Path::of(&[from]), Path::of(&[to]));
        ok = ok && from.as_ref().zip(to.as_ref()).is_some_and(|(a, b)| kernel::rename(a.as_c(), b.as_c()).is_ok());
        if let Some(from) = from.filter(|_| !ok) {
            kernel::unlink(from.as_c());
        }
    }
    ok
}

/// Prints what the compiler printed. The outputs are there: that nobody reads it changes nothing.
fn print<'a>(texts: impl Iterator<Item = (bool, &'a [u8])>) {
    for (at, (is_stderr, bytes)) in texts.enumerate() {
        if at == 0 {
            kernel::ignore_broken_pipes();
        }
        write_all(if is_stderr { kernel::STDERR } else { kernel::STDOUT }, bytes);
    }
}

fn write_all(fd: Fd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match kernel::write(fd, bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(kernel::EINTR) => {}
            Err(kernel::EAGAIN) if kernel::wait_to_write(fd, SILENCE_MS_MAX) => {}
            Err(_) => return,
        }
    }
}

/// The unit failed remotely: it is compiled here, what the user sees is this compiler's, and the agent is told how it ended,
/// so that a failure that was not one is counted.
fn run_again(start: Start, compiler: &CStr, lease: Fd) -> ! {
    let ended = match kernel::fork() {
        Ok(None) => become_compiler(start, compiler, None),
        Ok(Some(child)) => kernel::wait_for(child),
        Err(_) => None,
    };
    let code = match ended {
        Some(Ended::Code(code)) => code,
        Some(Ended::Signal(_)) => u8::MAX,
        None => become_compiler(start, compiler, Some(lease)),
    };
    let _ = kernel::send(lease, &[code]);
    match ended {
        Some(Ended::Signal(signal)) => {
            kernel::raise(signal);
            kernel::exit(EXIT_SIGNAL + signal)
        }
        _ => kernel::exit(code.into()),
    }
}

/// What every compiler that mesh starts finds in its environment.
const DEPTH: &CStr = c"MESH_DEPTH=1";

/// Replaces this process by the compiler. A lease stays open in it, so that the agent sees when it ends.
fn become_compiler(mut start: Start, compiler: &CStr, lease: Option<Fd>) -> ! {
    if let Some(lease) = lease {
        kernel::keep_open(lease);
    }
    start.set_var(env::DEPTH, DEPTH);
    start.become_program(compiler, 1);
    // A script without a first line, or nothing that can be executed: the launcher in mesh, seeing the variable, asks nobody,
    // does what a shell does, and knows the words.
    hand_over(start)
}

/// Becomes the launcher in mesh, which can do everything; where it is missing, the compiler.
fn hand_over(mut start: Start) -> ! {
    if let Some(mesh) = find::mesh() {
        if !masquerades(&start) {
            // Under any other name it is still the launcher.
            start.set_name(c"mesh-cc");
        }
        start.become_program(mesh.as_c(), 0);
    }
    if let Some(compiler) = kernel::remembered() {
        start.set_var(env::DEPTH, DEPTH);
        start.become_program(compiler, 1);
    }
    write_all(kernel::STDERR, b"mesh-cc: neither the compiler nor mesh could be run. Install mesh beside mesh-cc.\n");
    kernel::exit(EXIT_NOT_EXECUTABLE)
}

/// Whether the program was called by a link that is named like a compiler.
fn masquerades(start: &Start) -> bool {
    let own = start.argv().first().map_or(&b""[..], |own| names::basename(own.bytes()));
    own != names::MESH_CC.as_bytes() && names::is_compiler_name(own)
}

/// Goes on without mesh, after what should not have happened.
pub(crate) fn surprised(mut start: Start) -> ! {
    if let Some(compiler) = kernel::remembered() {
        start.set_var(env::DEPTH, DEPTH);
        start.become_program(compiler, 1);
    }
    hand_over(start)
}
