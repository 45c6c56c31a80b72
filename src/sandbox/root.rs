//! The job's root: what is in it, how it is mounted, and the way into it (DO).
//!
//! Three layers in one overlay: the toolchain's tree (read-only, shared by all jobs), the inputs (copies in memory) and
//! on top an empty layer in memory that takes what the job writes. All memory is one tmpfs that vanishes with the last
//! process or descriptor, so nothing is ever left on disk and nothing must be cleaned up. Rejected: a tree on disk (the
//! journal makes removing it dearer than building it) and a bind mount for each input (no times of its own).

use super::{
    Step,
    linux::{Fault, fault},
    policy::{Identity, Policy},
    tree::Builder,
};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Where the memory is mounted until the root changes; any directory will do, but for those the recipe still needs.
const STAGES: [&str; 4] = ["/tmp", "/run", "/var", "/usr"];
/// The devices of the job. None of them leads anywhere.
pub(super) const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
/// How deep the base is walked where its files are bound one by one.
const BASE_DEPTH_MAX: usize = 64;

/// Descriptors on all that the root is built from, opened while this machine's files can still be named.
#[derive(Debug)]
pub(super) struct Kept {
    sources: OwnedFd,
    base: OwnedFd,
    devices: Vec<(&'static str, OwnedFd)>,
}

impl Kept {
    pub(super) fn open(policy: &Policy) -> Result<Self, Fault> {
        let open = |path: &[u8], flags: OFlags| {
            rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC | flags, Mode::empty())
                .map_err(|errno| fault(Step::Keep, path, errno))
        };
        let mut devices = Vec::new();
        for name in DEVICES {
            devices.push((name, open(format!("/dev/{name}").as_bytes(), OFlags::empty())?));
        }
        let sources = open(&policy.sources, OFlags::DIRECTORY)?;
        Ok(Self { sources, base: open(&policy.base, OFlags::DIRECTORY)?, devices })
    }
}

/// What has been mounted.
#[derive(Debug)]
pub(super) struct Layers {
    /// The directory that holds what the job writes.
    pub(super) written: OwnedFd,
    /// It is an overlay's upper layer, and not the inputs' own tree.
    pub(super) overlay: bool,
}

/// Builds the root under the current mount namespace and leaves the process in it, unmounted from all else.
pub(super) fn build(policy: &Policy, kept: &Kept) -> Result<Layers, Fault> {
    // Private first: nothing that follows may appear in this machine's own mount table.
    let flags = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    rustix::mount::mount_change("/", flags).map_err(|errno| fault(Step::Private, b"/", errno))?;
    memory(policy)?;
    inputs(policy, kept)?;
    let layers = join(policy, kept)?;
    furnish(kept)?;
    read_only(policy)?;
    pivot()?;
    Ok(layers)
}

/// Mounts the memory and goes there.
fn memory(policy: &Policy) -> Result<(), Fault> {
    let limits = &policy.limits;
    let options = format!("mode=0755,size={},nr_inodes={}", limits.tree_bytes, limits.tree_nodes);
    let options = CString::new(options).expect("digits and letters hold no zero byte");
    let failed = |errno| fault(Step::Memory, b"", errno);
    let stage = STAGES.into_iter().find(|stage| std::path::Path::new(stage).is_dir()).ok_or(failed(Errno::NOENT))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("tmpfs", stage, "tmpfs", flags, options.as_c_str()).map_err(failed)?;
    rustix::process::chdir(stage).map_err(failed)?;
    for name in ["in", "up", "work", "base", "root"] {
        rustix::fs::mkdir(name, Mode::from_raw_mode(0o755)).map_err(failed)?;
    }
    Ok(())
}

/// Copies the inputs into the middle layer.
fn inputs(policy: &Policy, kept: &Kept) -> Result<(), Fault> {
    let failed = |path: &[u8]| {
        let path = path.to_vec();
        move |errno| fault(Step::Place, &path, errno)
    };
    let owner = match policy.identity {
        Identity::User { id } => Some(id),
        Identity::Namespace { .. } => None,
    };
    let top = open_directory("in").map_err(failed(b""))?;
    let mut builder = Builder::new(top.as_fd(), kept.sources.as_fd(), owner);
    policy.tree.iter().try_for_each(|place| builder.place(place))?;
    for writable in &policy.writable {
        builder.directory(writable, true).map_err(failed(writable))?;
        // The top of an overlay shows the upper layer's owner.
        if let Some(id) = owner.filter(|_| writable == b"/") {
            let (uid, gid) = (rustix::fs::Uid::from_raw(id), rustix::fs::Gid::from_raw(id));
            rustix::fs::chown("up", Some(uid), Some(gid)).map_err(failed(b"/"))?;
        }
    }
    builder.directory(b"proc", false).map_err(failed(b"proc"))?;
    for (name, _) in &kept.devices {
        let dev = builder.open(b"dev").map_err(failed(b"dev"))?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let failed = |errno| fault(Step::Device, name.as_bytes(), errno);
        rustix::fs::openat(dev, *name, flags, Mode::from_raw_mode(0o666)).map_err(failed)?;
    }
    Ok(())
}

/// Puts base, inputs and output layer together as `root`.
fn join(policy: &Policy, kept: &Kept) -> Result<Layers, Fault> {
    let written = |name| open_directory(name).map_err(|errno| fault(Step::Layers, b"", errno));
    if !policy.without.overlay {
        // The base is named through its descriptor: its path may hold what separates an overlay's options.
        let in_namespace = matches!(policy.identity, Identity::Namespace { .. });
        let user = if in_namespace { ",userxattr" } else { "" };
        let base = kept.base.as_raw_fd();
        let options = format!("lowerdir=in:/proc/self/fd/{base},upperdir=up,workdir=work{user}");
        let options = CString::new(options).expect("letters and digits hold no zero byte");
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        match rustix::mount::mount("overlay", "root", "overlay", flags, options.as_c_str()) {
            Ok(()) => return Ok(Layers { written: written("up")?, overlay: true }),
            // No overlayfs, or not for user namespaces (before 5.11).
            Err(Errno::NODEV | Errno::PERM | Errno::INVAL | Errno::NOSYS) => {}
            Err(errno) => return Err(fault(Step::Layers, b"", errno)),
        }
    }
    bind_base(kept)?;
    Ok(Layers { written: written("in")?, overlay: false })
}

/// Without an overlay: the inputs' tree is the root, and each file of the base that it lacks is bound into it.
fn bind_base(kept: &Kept) -> Result<(), Fault> {
    let failed = |errno| fault(Step::Layers, b"", errno);
    bind_fd(kept.base.as_fd(), "base").map_err(failed)?;
    // Read-only here, and so in every bind that is made from here.
    remount_read_only("base").map_err(failed)?;
    rustix::mount::mount_bind("in", "root").map_err(failed)?;
    let top = open_directory("base").map_err(failed)?;
    bind_directory(top.as_fd(), &mut Vec::new(), 0)
}

/// Binds what a directory of the base holds; `below` is its path.
fn bind_directory(dir: BorrowedFd<'_>, below: &mut Vec<u8>, depth: usize) -> Result<(), Fault> {
    let failed = |path: &[u8], errno| fault(Step::Layers, path, errno);
    if depth > BASE_DEPTH_MAX {
        return Err(failed(below, Errno::LOOP));
    }
    let listed = rustix::fs::openat(dir, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let listed = listed.map_err(|errno| failed(below, errno))?;
    for entry in rustix::fs::Dir::read_from(&listed).map_err(|errno| failed(below, errno))? {
        let entry = entry.map_err(|errno| failed(below, errno))?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let length = below.len();
        below.push(b'/');
        below.extend_from_slice(name.to_bytes());
        let bound = bind_entry(listed.as_fd(), name, entry.file_type(), below, depth);
        bound.map_err(|inner| inner.unwrap_or_else(|errno| failed(below, errno)))?;
        below.truncate(length);
    }
    Ok(())
}

/// Binds one entry; an inner fault is passed on as it is.
fn bind_entry(
    dir: BorrowedFd<'_>,
    name: &std::ffi::CStr,
    kind: FileType,
    path: &mut Vec<u8>,
    depth: usize,
) -> Result<(), Result<Fault, Errno>> {
    let target = [b"root", path.as_slice()].concat();
    let exists = |errno| if errno == Errno::EXIST { Ok(()) } else { Err(Err(errno)) };
    match kind {
        FileType::Directory => {
            rustix::fs::mkdir(&target, Mode::from_raw_mode(0o755)).or_else(exists)?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let inner = rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(Err)?;
            bind_directory(inner.as_fd(), path, depth + 1).map_err(Ok)
        }
        FileType::Symlink => {
            let text = rustix::fs::readlinkat(dir, name, Vec::new()).map_err(Err)?;
            rustix::fs::symlink(&text, &target).or_else(exists)
        }
        FileType::RegularFile => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            match rustix::fs::open(&target, flags, Mode::from_raw_mode(0o644)) {
                // The input of this path is equal: `worker` saw to that.
                Err(Errno::EXIST) => Ok(()),
                Err(errno) => Err(Err(errno)),
                Ok(_) => rustix::mount::mount_bind([b"base", path.as_slice()].concat(), &target).map_err(Err),
            }
        }
        _ => Err(Err(Errno::INVAL)),
    }
}

/// `/proc` and the devices.
fn furnish(kept: &Kept) -> Result<(), Fault> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // Only processes, of which there are only the job's own: nothing of this machine. Before Linux 5.8 all of /proc.
    let mount = |options| rustix::mount::mount("proc", "root/proc", "proc", flags, Some(options));
    let mounted = mount(c"subset=pid").or_else(|errno| if errno == Errno::INVAL { mount(c"") } else { Err(errno) });
    mounted.map_err(|errno| fault(Step::Proc, b"", errno))?;
    for (name, device) in &kept.devices {
        let target = format!("root/dev/{name}");
        bind_fd(device.as_fd(), &target).map_err(|errno| fault(Step::Device, name.as_bytes(), errno))?;
    }
    Ok(())
}

/// Makes everything read-only but the writable directories: each becomes a mount of its own first.
fn read_only(policy: &Policy) -> Result<(), Fault> {
    if policy.without.read_only || policy.writable.iter().any(|path| path == b"/") {
        return Ok(());
    }
    for path in outermost(&policy.writable) {
        let path = [b"root", path].concat();
        let failed = |errno| fault(Step::ReadOnly, &path, errno);
        // With what is bound below it: where there is no overlay, that may be a part of the base.
        rustix::mount::mount_bind_recursive(&path, &path).map_err(failed)?;
    }
    remount_read_only("root").map_err(|errno| fault(Step::ReadOnly, b"/", errno))
}

/// The directories that are in no other one of the list: a rename between two mounts would fail.
fn outermost(paths: &[Vec<u8>]) -> impl Iterator<Item = &[u8]> {
    let within = |path: &[u8], other: &[u8]| path.strip_prefix(other).is_some_and(|rest| rest.first() == Some(&b'/'));
    let mut sorted: Vec<&[u8]> = paths.iter().map(Vec::as_slice).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let all = sorted.clone();
    sorted.into_iter().filter(move |path| !all.iter().any(|other| within(path, other)))
}

/// Makes `root` the root, and takes the old one away.
fn pivot() -> Result<(), Fault> {
    let failed = |errno| fault(Step::Pivot, b"", errno);
    rustix::process::chdir("root").map_err(failed)?;
    // Onto itself: the old root lies over the new one for a moment, so no place for it is needed.
    rustix::process::pivot_root(".", ".").map_err(failed)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(failed)?;
    rustix::process::chdir("/").map_err(failed)
}

fn open_directory(path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

fn bind_fd(from: BorrowedFd<'_>, to: &str) -> Result<(), Errno> {
    rustix::mount::mount_bind(format!("/proc/self/fd/{}", from.as_raw_fd()), to)
}

fn remount_read_only(path: &str) -> Result<(), Errno> {
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount_remount(path, flags, c"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_outermost_writable_directories_become_mounts() {
        let paths: Vec<Vec<u8>> = ["/w/b/x", "/w/b", "/w/bc", "/tmp", "/w/b"].map(Vec::from).to_vec();
        let got: Vec<&[u8]> = outermost(&paths).collect();
        assert_eq!(got, [b"/tmp".as_slice(), b"/w/b", b"/w/bc"]);
    }
}
