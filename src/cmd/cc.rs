//! `mesh cc COMPILER ARGS…`: the launcher (DO).
//!
//! It asks the agent and renames what the agent wrote; whatever goes wrong, it becomes the compiler itself. There is no
//! runtime, no configuration file and no log here, one blocking socket, and never a word on standard error unless
//! `MESH_VERBOSE=1`. **The launcher renames**: a launcher that gave up has closed its socket and is the compiler, so a late
//! agent can never put stale bytes over a newer object.

use super::{
    client,
    find::{self, Found, NotFound},
    start,
};
use crate::{
    agent::wire::{ASK_BYTES_MAX, Ask, Request, TELL_BYTES_MAX, Tell},
    env,
    launch::{
        beat::{self, SILENCE_MS_MAX},
        names::is_compiler_name,
    },
    places::Places,
    reason::Reason,
};
use mesh_proto::{
    frame,
    job::{Terminal, Text},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
};
use std::{
    ffi::{OsStr, OsString},
    io::{Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{
            ffi::{OsStrExt, OsStringExt},
            fs::MetadataExt,
            net::UnixStream,
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// The compiler is not there (POSIX shells' status for it).
const EXIT_NOT_FOUND: i32 = 127;
/// The compiler cannot be executed.
const EXIT_NOT_EXECUTABLE: i32 = 126;
/// A shell's status for a program that was ended by a signal, to which the signal's number is added; only where the signal
/// itself does not end this process.
const EXIT_SIGNAL: i32 = 128;
/// `MESH_FALLBACK=0` and the unit would have been compiled here.
const EXIT_NO_FALLBACK: i32 = 111;

/// How a program of mesh was called.
#[derive(Debug, PartialEq, Eq)]
pub enum Called {
    /// As a launcher: the words from the compiler on, and whether the first is mesh's own link, named like a compiler.
    Launcher {
        /// The compiler as typed, and its arguments.
        words: Vec<OsString>,
        /// The name comes from a link to mesh: the real compiler is another file of that name.
        masquerade: bool,
    },
    /// As `mesh` with a command of its own.
    Mesh,
}

/// Tells by the words alone, before anything else is initialised: `mesh cc gcc …`, `mesh gcc …`, `mesh-cc gcc …`, a link
/// named `gcc`.
#[must_use]
pub fn called(words: Vec<OsString>) -> Called {
    let name = |word: &OsString| Path::new(word).file_name().map(|n| n.as_bytes().to_vec()).unwrap_or_default();
    let own = words.first().map(name).unwrap_or_default();
    match own.as_slice() {
        b"mesh-cc" => Called::Launcher { words: words.into_iter().skip(1).collect(), masquerade: false },
        b"mesh" | b"" => match words.get(1) {
            Some(word) if word == "cc" && words.len() > 2 => {
                Called::Launcher { words: words.into_iter().skip(2).collect(), masquerade: false }
            }
            Some(word) if word != "cc" && is_compiler_name(&name(word)) => {
                Called::Launcher { words: words.into_iter().skip(1).collect(), masquerade: false }
            }
            _ => Called::Mesh,
        },
        name if is_compiler_name(name) => Called::Launcher { words, masquerade: true },
        _ => Called::Mesh,
    }
}

/// Runs a compile and never returns: it ends with the compiler's status, or becomes the compiler.
pub fn run(words: Vec<OsString>, masquerade: bool) -> ! {
    let Some(program) = words.first() else {
        say("mesh-cc: no compiler was named. It stands before a compile command: mesh-cc gcc -c x.c -o x.o");
        std::process::exit(2);
    };
    let cwd = working_directory();
    let path_var = std::env::var_os("PATH");
    let program = match std::env::var_os(env::CC) {
        Some(real) if masquerade => real,
        _ if masquerade => Path::new(program).file_name().unwrap_or(program).to_owned(),
        _ => program.clone(),
    };
    let mut found = find::find(&program, &cwd, path_var.as_deref());
    let mut masquerade = masquerade;
    if found.is_err() && find::is_own(&cwd.join(&program)) {
        // A build system that looked for its compiler with such links in front of PATH has kept the link's path.
        masquerade = true;
        found = find::find(Path::new(&program).file_name().unwrap_or(&program), &cwd, path_var.as_deref());
    }
    let found = match found {
        Ok(found) => found,
        Err(why) => not_found(&program, &why),
    };
    let mut argv = words;
    if masquerade {
        // The driver looks for its parts from argv[0]; by the link's name it would look beside mesh.
        argv[0] = found.path.clone().into_os_string();
    }
    let launch = Launch { found, argv, cwd, force: false };
    launch.go()
}

struct Launch {
    found: Found,
    argv: Vec<OsString>,
    cwd: PathBuf,
    force: bool,
}

/// What came of asking the agent.
enum Answer {
    Done(Vec<Text>),
    Local(Reason, bool, Option<UnixStream>),
}

impl Launch {
    fn go(mut self) -> ! {
        let mode = std::env::var_os(env::MESH);
        self.force = mode.as_deref() == Some(OsStr::new("force"));
        let off = matches!(mode.as_deref().map(OsStr::as_bytes), Some(b"off" | b"local" | b"0"));
        if off || std::env::var_os(env::DEPTH).is_some() {
            self.become_compiler(None, Reason::ForcedLocal)
        }
        let argv: Vec<&[u8]> = self.argv.iter().map(|a| a.as_bytes()).collect();
        if let Some(reason) = crate::compiler::surely_local(&argv) {
            self.become_compiler(None, reason)
        }
        match self.ask() {
            Answer::Done(text) => {
                print(&text);
                std::process::exit(0)
            }
            Answer::Local(reason, fallback, lease) => {
                if fallback && std::env::var_os(env::FALLBACK).as_deref() == Some(OsStr::new("0")) {
                    say(&format!("mesh: not compiled remotely and MESH_FALLBACK=0. {} ({reason})", reason.text()));
                    std::process::exit(EXIT_NO_FALLBACK);
                }
                match lease {
                    Some(lease) if reason == Reason::CompileError => self.run_again(lease),
                    lease => self.become_compiler(lease, reason),
                }
            }
        }
    }

    /// The unit failed remotely: it is compiled here, what the user sees is this compiler's, and the agent is told how it
    /// ended, so that a failure that was not one is counted.
    fn run_again(&self, mut lease: UnixStream) -> ! {
        let Ok(status) = self.command().status() else { self.become_compiler(Some(lease), Reason::CompileError) };
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        let _ = lease.write_all(&[code.unwrap_or(u8::MAX)]);
        drop(lease);
        match (code, status.signal().and_then(rustix::process::Signal::from_named_raw)) {
            (Some(code), _) => std::process::exit(code.into()),
            (None, Some(signal)) => {
                let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
                std::process::exit(EXIT_SIGNAL + signal.as_raw())
            }
            (None, None) => std::process::exit(EXIT_SIGNAL),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.found.path);
        command.arg0(&self.argv[0]).args(&self.argv[1..]).env(env::DEPTH, "1");
        command
    }

    /// Asks the agent. Every trouble is an answer: local.
    fn ask(&self) -> Answer {
        let gone = |reason| Answer::Local(reason, true, None);
        let uid = rustix::process::geteuid().as_raw();
        let Some(places) = Places::find(|name| std::env::var_os(name), uid, Path::exists) else {
            return gone(Reason::NoAgent);
        };
        let Some(mut stream) = connect(&places) else { return gone(Reason::NoAgent) };
        let Some(request) = self.request() else { return gone(Reason::OtherRoot) };
        let silence = Some(Duration::from_millis(SILENCE_MS_MAX));
        let asked = stream
            .set_read_timeout(silence)
            .and_then(|()| stream.set_write_timeout(silence))
            .map_err(|_| ())
            .and_then(|()| frame::encode(&Ask::Compile(Box::new(request)), ASK_BYTES_MAX).map_err(|_| ()));
        let Ok(bytes) = asked else { return gone(Reason::TooLarge) };
        if let Err(e) = stream.write_all(&bytes) {
            return gone(self.gave_up(&places, &e));
        }
        match wait_for_word(&places, &stream).and_then(|()| read_tell(&mut stream)) {
            Ok(Tell::Local { reason, fallback }) => Answer::Local(reason, fallback, Some(stream)),
            Ok(Tell::Done { text, renames }) => match rename_all(&renames) {
                Ok(()) => Answer::Done(text),
                Err(()) => gone(Reason::DiskFull),
            },
            Ok(_) => gone(Reason::NoAgent),
            Err(e) => gone(self.gave_up(&places, &e)),
        }
    }

    /// The agent was silent for too long, or went away. Silence leaves a marker, so that later launchers do not wait.
    fn gave_up(&self, places: &Places, error: &std::io::Error) -> Reason {
        if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) {
            let _ = std::fs::write(places.frozen_marker(), b"");
        }
        Reason::NoAgent
    }

    fn request(&self) -> Option<Request> {
        let id = |path: &Path| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
        let mut env: Vec<(Vec<u8>, Vec<u8>)> = std::env::vars_os()
            .filter(|(name, _)| env::travels(name.as_bytes()))
            .map(|(name, value)| (name.into_vec(), value.into_vec()))
            .collect();
        env.sort();
        // Reading the mask means setting it; this process has one thread.
        let umask = rustix::process::umask(rustix::fs::Mode::empty());
        rustix::process::umask(umask);
        let (out, err) = (std::io::stdout(), std::io::stderr());
        let same = |a: BorrowedFd<'_>, b: BorrowedFd<'_>| match (rustix::fs::fstat(a), rustix::fs::fstat(b)) {
            (Ok(a), Ok(b)) => a.st_dev == b.st_dev && a.st_ino == b.st_ino,
            _ => false,
        };
        let terminal = rustix::termios::isatty(err.as_fd()).then(|| {
            let size = rustix::termios::tcgetwinsize(err.as_fd()).ok();
            Terminal { columns: size.map_or(0, |s| s.ws_col), rows: size.map_or(0, |s| s.ws_row) }
        });
        Some(Request {
            program: self.found.path.as_os_str().as_bytes().to_vec(),
            argv: self.argv.iter().map(|a| a.as_bytes().to_vec()).collect(),
            cwd: self.cwd.as_os_str().as_bytes().to_vec(),
            env,
            umask: umask.bits() as u32,
            merged_output: same(out.as_fd(), err.as_fd()),
            terminal,
            seen: [id(Path::new("/"))?, id(&self.cwd)?, self.found.id],
            force: self.force,
            prefer: std::env::var(env::PREFER).ok().filter(|name| !name.is_empty()),
            session: std::env::var_os(env::SESSION).map_or(0, |value| env::session(value.as_bytes())),
            keeping: env::keeping(|name| std::env::var_os(name).map(OsString::into_vec)),
        })
    }

    /// Replaces this process by the compiler. A lease stays open in it, so that the agent sees when it ends.
    fn become_compiler(&self, lease: Option<UnixStream>, reason: Reason) -> ! {
        if std::env::var_os(env::VERBOSE).as_deref() == Some(OsStr::new("1")) {
            say(&format!("mesh: here, {reason}: {}", reason.text()));
        }
        if let Some(lease) = &lease {
            let _ = rustix::io::fcntl_setfd(lease, rustix::io::FdFlags::empty());
        }
        let error = self.command().exec();
        say(&format!("mesh: {} could not be run: {error}.", self.found.path.display()));
        std::process::exit(EXIT_NOT_EXECUTABLE)
    }
}

/// A connection to the agent, or nothing: then an agent is being started if there was none. Never waits, not even for a
/// frozen agent whose queue is full; where a launcher before has found it frozen, it is not asked.
fn connect(places: &Places) -> Option<UnixStream> {
    let stream = match client::dial(&places.socket) {
        Ok(stream) => stream,
        Err(Errno::AGAIN | Errno::NAMETOOLONG | Errno::MFILE | Errno::NFILE) => return None,
        Err(_) => {
            start::agent_in_background(places);
            return None;
        }
    };
    // The socket's directory is this user's alone, but a socket named by hand may lie anywhere.
    let owner = std::fs::symlink_metadata(&places.socket).ok()?.uid();
    (owner == rustix::process::geteuid().as_raw() && !places.frozen_marker().exists()).then_some(stream)
}

/// Waits until the agent says something, for as long as it is seen to live.
pub(super) fn wait_for_word(places: &Places, stream: &UnixStream) -> std::io::Result<()> {
    let mut patience_ms = SILENCE_MS_MAX;
    loop {
        let limit = Timespec::try_from(Duration::from_millis(patience_ms)).ok();
        match rustix::event::poll(&mut [PollFd::new(stream, PollFlags::IN)], limit.as_ref()) {
            Ok(0) => {
                let beat = std::fs::read(places.beat()).ok().and_then(|beat| beat.try_into().ok());
                let patience = beat.and_then(|beat| beat::patience_ms(beat, crate::host::monotonic_ms()));
                patience_ms = patience.ok_or(std::io::ErrorKind::TimedOut)?;
            }
            Ok(_) => return Ok(()),
            // Stopped and continued: the agent may have been, too.
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn read_tell(stream: &mut UnixStream) -> std::io::Result<Tell> {
    let malformed = |_| std::io::Error::from(std::io::ErrorKind::InvalidData);
    let mut header = [0; frame::HEADER_BYTES];
    stream.read_exact(&mut header)?;
    let length = frame::length(header, TELL_BYTES_MAX).map_err(malformed)?;
    let mut payload = Vec::with_capacity(length);
    if stream.take(length as u64).read_to_end(&mut payload)? != length {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    frame::decode(&payload).map_err(malformed)
}

/// Puts every output in its place. The object comes last in the list: when it is there, all is.
fn rename_all(renames: &[(Vec<u8>, Vec<u8>)]) -> Result<(), ()> {
    let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    let mut ok = true;
    for (from, to) in renames {
        ok = ok && std::fs::rename(path(from), path(to)).is_ok();
        if !ok {
            let _ = std::fs::remove_file(path(from));
        }
    }
    if ok { Ok(()) } else { Err(()) }
}

fn print(text: &[Text]) {
    for piece in text {
        let _ = if piece.is_stderr {
            std::io::stderr().write_all(&piece.bytes)
        } else {
            let mut out = std::io::stdout();
            out.write_all(&piece.bytes).and_then(|()| out.flush())
        };
    }
}

/// `PWD` if it is this directory, else the real path: as compilers do it.
pub(super) fn working_directory() -> PathBuf {
    let here = std::fs::metadata(".").ok().map(|m| (m.dev(), m.ino()));
    let said = std::env::var_os("PWD").map(PathBuf::from).filter(|p| p.is_absolute());
    let fits = |p: &PathBuf| std::fs::metadata(p).ok().map(|m| (m.dev(), m.ino())) == here;
    said.filter(fits).or_else(|| std::env::current_dir().ok()).unwrap_or_else(|| PathBuf::from("/"))
}

fn not_found(program: &OsStr, why: &NotFound) -> ! {
    let name = program.display();
    match why {
        NotFound::Absent if program.as_bytes().contains(&b'/') => {
            say(&format!("mesh: there is no compiler {name}. Check the path in your build's settings."));
            std::process::exit(EXIT_NOT_FOUND)
        }
        NotFound::Absent => {
            say(&format!("mesh: {name} was not found on PATH. Install it, or name the compiler by its path."));
            std::process::exit(EXIT_NOT_FOUND)
        }
        NotFound::NotExecutable => {
            say(&format!("mesh: {name} cannot be executed. Check its permissions."));
            std::process::exit(EXIT_NOT_EXECUTABLE)
        }
    }
}

/// A line on standard error: only for mesh's own impossibilities, and where it was asked to speak.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_words_tell_a_launcher_from_a_command() {
        let launcher = |line: &str, masquerade| Called::Launcher { words: words(line), masquerade };
        for (line, want) in [
            ("mesh cc gcc -c x.c", launcher("gcc -c x.c", false)),
            ("/usr/bin/mesh gcc -c x.c", launcher("gcc -c x.c", false)),
            ("mesh /opt/x/arm-none-eabi-g++ -v", launcher("/opt/x/arm-none-eabi-g++ -v", false)),
            ("mesh-cc ccache gcc", launcher("ccache gcc", false)),
            ("gcc -c x.c", launcher("gcc -c x.c", true)),
            ("/links/clang++-14 x", launcher("/links/clang++-14 x", true)),
            ("mesh cc", Called::Mesh),
            ("mesh peers", Called::Mesh),
            ("mesh", Called::Mesh),
            ("mesh cache", Called::Mesh),
        ] {
            assert_eq!(called(words(line)), want, "{line}");
        }
    }
}
