//! What the system tells of changes by itself: Linux's inotify, and nothing elsewhere (DO).
//!
//! A watch is on an inode, not on a path. On a directory it tells which names come and go; on a file, that it is written
//! to or that its attributes change, under whatever name that is done: a watch on its directory alone would tell neither
//! of a write through another hard link nor of such a link being made.

use super::world::Kind;
use rustix::io::Errno;

/// A watch, by its number.
pub type WatchId = i32;

/// What happened since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A name came or went in a watched directory.
    Name {
        /// The directory's watch.
        watch: WatchId,
        /// The name.
        name: &'a [u8],
    },
    /// The watched inode itself changed: content or attributes.
    Changed(WatchId),
    /// The watched inode has another path now.
    Moved(WatchId),
    /// The watched inode is gone, and its watch with it.
    Ended(WatchId),
    /// Something happened that is not known: nothing that was believed may be believed any more.
    Lost,
}

/// A source of such events. A change that was complete before [`Watcher::drain`] begins must be told by it.
pub trait Watcher: Send + std::fmt::Debug {
    /// Watches what is at a path, which must be of this kind; never what is behind a link.
    ///
    /// # Errors
    /// As the system says; `NOSPC` if it allows no more of them.
    fn watch(&mut self, path: &[u8], kind: Kind) -> Result<WatchId, Errno>;
    /// Whether every change of what is at a path is made by this machine, so that it knows of each.
    fn is_local(&self, path: &[u8]) -> bool;
    /// Tells what happened, in order.
    fn drain(&mut self, sink: &mut dyn FnMut(Event<'_>));
    /// How many watches may be used.
    fn watches_max(&self) -> usize;
}

#[cfg(target_os = "linux")]
pub use linux::Inotify;

#[cfg(target_os = "linux")]
mod linux {
    use super::{Event, Kind, WatchId, Watcher};
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
    use rustix::fs::{Mode, OFlags};
    use rustix::io::Errno;
    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;

    /// What one read may bring, bytes.
    const BUFFER_BYTES: usize = 16 << 10;
    /// Events taken in one look; who makes more than this while they are read is believed nothing.
    const EVENTS_MAX: usize = 1 << 20;
    /// What the system allows one user, of which the half is taken at most: editors watch too.
    const WATCHES_ALLOWED: &str = "/proc/sys/fs/inotify/max_user_watches";

    /// File systems, by the kernel's numbers, that nobody but this kernel writes to: ext2 to ext4, xfs, btrfs, f2fs, tmpfs.
    const LOCAL: [u32; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x0102_1994];

    /// The names in a directory, and its own attributes. Not what is written into its files: those have their own watches,
    /// and objects are written here all the time.
    const DIR_EVENTS: WatchFlags = WatchFlags::CREATE
        .union(WatchFlags::DELETE)
        .union(WatchFlags::MOVED_FROM)
        .union(WatchFlags::MOVED_TO)
        .union(WatchFlags::ATTRIB)
        .union(WatchFlags::DELETE_SELF)
        .union(WatchFlags::MOVE_SELF)
        .union(WatchFlags::ONLYDIR)
        .union(WatchFlags::DONT_FOLLOW);
    const FILE_EVENTS: WatchFlags = WatchFlags::MODIFY
        .union(WatchFlags::CLOSE_WRITE)
        .union(WatchFlags::ATTRIB)
        .union(WatchFlags::DELETE_SELF)
        .union(WatchFlags::MOVE_SELF)
        .union(WatchFlags::DONT_FOLLOW);

    /// The kernel's queue of events, and its table of mounts: a mount over a path makes no event.
    #[derive(Debug)]
    pub struct Inotify {
        queue: OwnedFd,
        mounts: OwnedFd,
        watches_max: usize,
    }

    impl Inotify {
        /// A queue without watches; `None` if the system gives none.
        #[must_use]
        pub fn new() -> Option<Self> {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let mounts = rustix::fs::open("/proc/self/mountinfo", flags, Mode::empty()).ok()?;
            let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
            let allowed = std::fs::read_to_string(WATCHES_ALLOWED).ok()?.trim().parse::<usize>().ok()?;
            Some(Self { queue, mounts, watches_max: allowed / 2 })
        }
    }

    impl Watcher for Inotify {
        fn watch(&mut self, path: &[u8], kind: Kind) -> Result<WatchId, Errno> {
            let flags = if kind == Kind::Dir { DIR_EVENTS } else { FILE_EVENTS };
            inotify::add_watch(&self.queue, path, flags)
        }

        #[allow(clippy::unnecessary_cast, reason = "the field's type differs between architectures")]
        fn is_local(&self, path: &[u8]) -> bool {
            rustix::fs::statfs(path).is_ok_and(|fs| LOCAL.contains(&(fs.f_type as u32)))
        }

        fn drain(&mut self, sink: &mut dyn FnMut(Event<'_>)) {
            let mut fds = [PollFd::new(&self.queue, PollFlags::IN), PollFd::new(&self.mounts, PollFlags::PRI)];
            let polled = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
            let (queue, mounts) = (fds[0].revents(), fds[1].revents());
            if polled.is_err() || mounts.intersects(PollFlags::PRI | PollFlags::ERR) {
                sink(Event::Lost);
            }
            if polled.is_ok() && queue.is_empty() {
                return;
            }
            let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
            let mut reader = Reader::new(&self.queue, &mut buffer);
            for _ in 0..EVENTS_MAX {
                match reader.next() {
                    Ok(event) => tell(&event, sink),
                    Err(Errno::AGAIN) => return,
                    Err(Errno::INTR) => {}
                    Err(_) => return sink(Event::Lost),
                }
            }
            sink(Event::Lost);
        }

        fn watches_max(&self) -> usize {
            self.watches_max
        }
    }

    fn tell(event: &inotify::Event<'_>, sink: &mut dyn FnMut(Event<'_>)) {
        let (watch, flags) = (event.wd(), event.events());
        let names = ReadFlags::CREATE | ReadFlags::DELETE | ReadFlags::MOVED_FROM | ReadFlags::MOVED_TO;
        if flags.intersects(ReadFlags::QUEUE_OVERFLOW | ReadFlags::UNMOUNT) {
            sink(Event::Lost);
        }
        if let Some(name) = event.file_name().map(std::ffi::CStr::to_bytes).filter(|name| !name.is_empty()) {
            // Attributes of a name are told by the watch on what has it.
            if flags.intersects(names) {
                sink(Event::Name { watch, name });
            }
            return;
        }
        if flags.intersects(ReadFlags::MODIFY | ReadFlags::CLOSE_WRITE | ReadFlags::ATTRIB) {
            sink(Event::Changed(watch));
        }
        if flags.contains(ReadFlags::MOVE_SELF) {
            sink(Event::Moved(watch));
        }
        if flags.intersects(ReadFlags::DELETE_SELF | ReadFlags::IGNORED) {
            sink(Event::Ended(watch));
        }
    }
}
