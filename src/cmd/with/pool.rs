//! A GNU jobserver whose number of tokens changes while builds take from it (DO).
//!
//! <https://www.gnu.org/software/make/manual/html_node/POSIX-Jobserver.html>: a byte in a pipe is the right to one more
//! process besides the one that each client has by itself. More tokens are written; fewer are read back as they return.

use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::{Mode, OFlags},
    io::{Errno, FdFlags},
};
use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

/// What a token is; clients give back what they took, and look at none.
const TOKEN: u8 = b'+';
/// Tokens that nobody can hold are put back after being missed so often in a row: what is on its way between two processes
/// is missed once at most.
const LOOKS_BEFORE_RESTORED: u32 = 3;

/// The tokens of one build.
#[derive(Debug)]
pub(super) struct Pool {
    /// What clients read from.
    read: OwnedFd,
    write: OwnedFd,
    /// The same pipe for this process alone: without ever waiting, and without its clients being told not to wait.
    take: OwnedFd,
    fifo: Option<PathBuf>,
    /// Tokens that are out there, in the pipe or with clients.
    issued: u32,
    /// As many as there should be.
    want: u32,
    /// How often in a row tokens were missed, and how many at least.
    missed: Option<(u32, u32)>,
}

impl Pool {
    /// In a pipe that the command inherits.
    pub(super) fn pipe() -> io::Result<Self> {
        let (read, write) = rustix::pipe::pipe()?;
        let take = reopened(&read)?;
        Ok(Self { read, write, take, fifo: None, issued: 0, want: 0, missed: None })
    }

    /// In a pipe with a name, which must be free; it is removed with this.
    pub(super) fn fifo(path: &Path) -> io::Result<Self> {
        name_pipe(path)?;
        // Open both ways it waits for nobody, and keeps what is in it while no client has it open.
        let open = || rustix::fs::open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
        let (read, write, take) = (open()?, open()?, open()?);
        Ok(Self { read, write, take, fifo: Some(path.to_owned()), issued: 0, want: 0, missed: None })
    }

    /// What `MAKEFLAGS` says of it, besides what it said before.
    pub(super) fn makeflags(&self, before: &OsStr) -> OsString {
        let own = match &self.fifo {
            Some(path) => format!(" -j --jobserver-auth=fifo:{} ", path.display()),
            None => {
                let ends = format!("{},{}", self.read.as_raw_fd(), self.write.as_raw_fd());
                // The first of them is what make said before 4.2, and what macOS's says.
                format!(" -j --jobserver-fds={ends} --jobserver-auth={ends} ")
            }
        };
        // A first word of single letters has no dash, and stays the first; what stands after a `--` are variables.
        let before = before.as_bytes();
        let word = before.iter().position(|byte| *byte == b' ').unwrap_or(before.len());
        let letters = before[..word].iter().all(u8::is_ascii_alphabetic);
        let (first, rest) = before.split_at(if letters { word } else { 0 });
        OsString::from_vec([first, own.as_bytes(), rest].concat())
    }

    /// The pipe's name, if it has one.
    pub(super) fn named(&self) -> Option<PathBuf> {
        self.fifo.clone()
    }

    /// The command has inherited the pipe: nothing that this process starts later shall.
    pub(super) fn inherited(&self) {
        for end in [&self.read, &self.write] {
            let _ = rustix::io::fcntl_setfd(end, FdFlags::CLOEXEC);
        }
    }

    /// Has as many tokens as make `total` processes with the one that the command has by itself. Those that are too many and
    /// with clients now are taken the next time, if they are back by then.
    pub(super) fn aim(&mut self, total: u32) {
        let want = total.saturating_sub(1);
        self.want = want;
        // A client that gave back more than it had made some.
        self.issued = self.issued.max(self.there());
        if self.issued < want {
            let more = vec![TOKEN; (want - self.issued) as usize];
            // What does not fit now is written the next time.
            if let Ok(written) = rustix::io::write(&self.write, &more) {
                self.issued += u32::try_from(written).unwrap_or(u32::MAX);
            }
        }
        self.collect();
    }

    /// Takes what lies there of those that are too many. Whether some are still with clients.
    pub(super) fn collect(&mut self) -> bool {
        let mut byte = [0];
        while self.issued > self.want {
            match rustix::io::read(&self.take, &mut byte) {
                Ok(1) => self.issued -= 1,
                Err(Errno::INTR) => {}
                _ => break,
            }
        }
        self.issued > self.want
    }

    /// Waits until a client gives a token back, or the time is over.
    pub(super) fn wait(&self, most: Duration) {
        let most = Timespec::try_from(most).ok();
        let _ = rustix::event::poll(&mut [PollFd::new(&self.take, PollFlags::IN)], most.as_ref());
    }

    /// Puts tokens back that died with a client: of those that are `out`, more than half are more than `holders` processes
    /// could hold, for longer than a moment. With fewer nothing stands still, and what is on its way between two processes is
    /// not taken for lost. Gives how many.
    pub(super) fn restore(&mut self, out: u32, holders: u32) -> u32 {
        let lost = out.saturating_sub(holders);
        if lost == 0 || lost * 2 <= out {
            self.missed = None;
            return 0;
        }
        let (looks, least) = self.missed.unwrap_or((0, lost));
        let (looks, least) = (looks + 1, least.min(lost));
        self.missed = Some((looks, least));
        if looks < LOOKS_BEFORE_RESTORED {
            return 0;
        }
        self.missed = None;
        let again = vec![TOKEN; least as usize];
        rustix::io::write(&self.write, &again).map_or(0, |written| u32::try_from(written).unwrap_or(u32::MAX))
    }

    /// Tokens with clients, or lost with them.
    pub(super) fn out(&self) -> u32 {
        self.issued.saturating_sub(self.there())
    }

    /// Tokens in the pipe.
    fn there(&self) -> u32 {
        rustix::io::ioctl_fionread(&self.take).map_or(0, |bytes| u32::try_from(bytes).unwrap_or(u32::MAX))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(path) = &self.fifo {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Makes a pipe with a name, for this user alone.
#[cfg(target_os = "linux")]
fn name_pipe(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::mkfifoat(rustix::fs::CWD, path, Mode::RUSR | Mode::WUSR)?)
}

/// The same by a program: not every system has the call in a form that takes no `unsafe`.
#[cfg(not(target_os = "linux"))]
fn name_pipe(path: &Path) -> io::Result<()> {
    let made = std::process::Command::new("mkfifo").args(["-m", "600"]).arg(path).status()?;
    if made.success() { Ok(()) } else { Err(io::ErrorKind::AlreadyExists.into()) }
}

/// The pipe once more, with flags of its own: `O_NONBLOCK` on the clients' end would be theirs as well, and not every client
/// expects it.
#[cfg(target_os = "linux")]
fn reopened(read: &OwnedFd) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", read.as_raw_fd());
    rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
}

/// Where a pipe cannot be opened once more its reads wait for a token that a client took first: such a read ends when the next
/// one comes back, and nothing but the number of tokens waits for it.
#[cfg(not(target_os = "linux"))]
fn reopened(read: &OwnedFd) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(read, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A client that holds so many tokens.
    struct Client<'a>(&'a Pool, u32);

    impl Client<'_> {
        fn take(&mut self, most: u32) {
            for _ in 0..most.min(self.0.there()) {
                assert_eq!(rustix::io::read(&self.0.read, &mut [0; 1]), Ok(1));
                self.1 += 1;
            }
        }

        fn give(&mut self, most: u32) {
            for _ in 0..most.min(self.1) {
                assert_eq!(rustix::io::write(&self.0.write, b"+"), Ok(1));
                self.1 -= 1;
            }
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Aim(u32),
        Take(u32),
        Give(u32),
        Die,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..200_u32).prop_map(Step::Aim),
            (0..50_u32).prop_map(Step::Take),
            (0..50_u32).prop_map(Step::Give),
            Just(Step::Die),
        ]
    }

    proptest! {
        #[test]
        fn whatever_clients_do_the_number_is_reached_and_nothing_waits(
            steps in proptest::collection::vec(any_step(), 0..40),
            total in 1..100_u32,
        ) {
            let mut pool = Pool::pipe().expect("a pipe");
            let mut held = 0;
            for step in steps {
                match step {
                    Step::Aim(total) => pool.aim(total),
                    Step::Take(most) => { let mut client = Client(&pool, held); client.take(most); held = client.1; }
                    Step::Give(most) => { let mut client = Client(&pool, held); client.give(most); held = client.1; }
                    // With all that it holds.
                    Step::Die => {
                        for _ in 0..LOOKS_BEFORE_RESTORED {
                            pool.restore(pool.out(), 0);
                        }
                        held = 0;
                    }
                }
                prop_assert!(pool.there() + held >= pool.issued);
            }
            Client(&pool, held).give(held);
            pool.aim(total);
            prop_assert_eq!((pool.there(), pool.out()), (total - 1, 0));
        }
    }

    #[test]
    fn fewer_tokens_are_taken_as_they_come_back() {
        let mut pool = Pool::pipe().expect("a pipe");
        pool.aim(8);
        let mut client = Client(&pool, 0);
        client.take(5);
        let held = client.1;
        pool.aim(3);
        assert_eq!((held, pool.there(), pool.out()), (5, 0, 5));
        Client(&pool, 4).give(4);
        pool.aim(3);
        assert_eq!((pool.there(), pool.out()), (1, 1));
    }

    #[test]
    fn tokens_that_died_with_their_client_come_back_and_others_do_not() {
        let mut pool = Pool::pipe().expect("a pipe");
        pool.aim(8);
        Client(&pool, 0).take(5);
        // Five processes may each hold one.
        assert_eq!([5; 9].map(|holders| pool.restore(5, holders)), [0; 9]);
        // Three are gone, and the two that are left may hold one each. What is missed for a moment is on its way.
        assert_eq!([2, 2, 5, 1, 2, 2].map(|holders| pool.restore(5, holders)), [0, 0, 0, 0, 0, 3]);
        assert_eq!((pool.there(), pool.out()), (5, 2));
    }

    #[test]
    fn a_real_make_gives_every_token_back_even_if_it_fails() {
        let dir = tempfile::tempdir().expect("a directory");
        let makefile =
            ".PHONY: all bad a b c d e f\nall: a b c d e f bad\na b c d e f:\n\t@sleep 0.05\nbad:\n\t@false\n";
        std::fs::write(dir.path().join("Makefile"), makefile).expect("own file");
        let mut pool = Pool::pipe().expect("a pipe");
        pool.aim(4);
        let mut make = std::process::Command::new("make");
        make.arg("-k").current_dir(dir.path()).env("MAKEFLAGS", pool.makeflags(OsStr::new(""))).env_remove("MAKELEVEL");
        let Ok(ran) = make.output() else {
            eprintln!("skipped: there is no make");
            return;
        };
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(!ran.status.success() && !said.contains("jobserver"), "{said}");
        assert_eq!((pool.there(), pool.out()), (3, 0));
    }

    #[test]
    fn a_named_pipe_is_gone_with_its_pool() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("jobs");
        let mut pool = Pool::fifo(&path).expect("free");
        pool.aim(3);
        assert_eq!(
            (pool.there(), pool.makeflags(OsStr::new("k"))),
            (2, { OsString::from(format!("k -j --jobserver-auth=fifo:{} ", path.display())) })
        );
        assert!(Pool::fifo(&path).is_err());
        drop(pool);
        assert!(!path.exists());
    }

    #[test]
    fn flags_of_a_person_stay_where_make_looks_for_them() {
        let pool = Pool::pipe().expect("a pipe");
        let flags = |before: &str| pool.makeflags(OsStr::new(before)).into_string().expect("plain words");
        assert!(flags("ks").starts_with("ks -j --jobserver"), "{}", flags("ks"));
        assert!(flags("").starts_with(" -j --jobserver"), "{}", flags(""));
        assert!(flags("-k -- CC=x").ends_with(" -k -- CC=x"), "{}", flags("-k -- CC=x"));
        assert!(flags("k --no-print-directory").ends_with(" --no-print-directory"));
    }
}
