//! The job's root: what is in it, how it is mounted, and the way into it (DO).
//!
//! Three layers in one overlay: the toolchain's tree (read-only, shared by all jobs), the inputs (copies in memory) and
//! on top an empty layer in memory that takes what the job writes. All memory is one tmpfs that vanishes with the last
//! process or descriptor, so nothing is ever left on disk and nothing must be cleaned up. A job of a template finds the
//! first two in the template's tree and brings only memory for the third; the steps are the same. Rejected: a tree on disk (the
//! journal makes removing it dearer than building it) and a bind mount for each input (no times of its own).

use super::{
    Step,
    linux::{Fault, fault},
    policy::{Identity, Inputs, Place, Policy, Without},
    template_child,
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
/// Where the root that was left stays, for a test that must see what leaving it is good for.
pub(super) const MACHINE: &str = "machine";
/// How deep the base is walked where its files are bound one by one.
const BASE_DEPTH_MAX: usize = 64;

/// What the root is built from.
#[derive(Debug)]
pub(super) enum Kept<'p> {
    /// This machine's files, by descriptors that were opened while they could still be named.
    Machine { tree: &'p [Place], sources: OwnedFd, base: OwnedFd, devices: Vec<(&'static str, OwnedFd)> },
    /// The template's tree, which is this process's root: the base's name in it.
    Template { base: &'p str },
}

impl<'p> Kept<'p> {
    pub(super) fn open(policy: &'p Policy) -> Result<Self, Fault> {
        match &policy.inputs {
            Inputs::Own { tree, sources } => Ok(Self::Machine {
                tree,
                sources: open_kept(sources, OFlags::DIRECTORY)?,
                base: open_kept(&policy.base, OFlags::DIRECTORY)?,
                devices: devices()?,
            }),
            Inputs::Mirror => {
                let base = std::str::from_utf8(&policy.base).ok();
                // It becomes a part of an option, and must not lead elsewhere.
                let base =
                    base.filter(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric()));
                base.map(|base| Self::Template { base }).ok_or_else(|| fault(Step::Keep, &policy.base, Errno::INVAL))
            }
        }
    }

    /// The overlay's lower layers, as its option names them.
    fn lower(&self) -> String {
        match self {
            // The base is named through its descriptor: its path may hold what separates an overlay's options.
            Self::Machine { base, .. } => format!("in:/proc/self/fd/{}", base.as_raw_fd()),
            Self::Template { base } => format!("/{}:/{}/{base}", template_child::TREE, template_child::BASES),
        }
    }

    /// Where a device can be bound from.
    fn device(&self, name: &str) -> String {
        match self {
            Self::Machine { devices, .. } => {
                let device = devices.iter().find(|(have, _)| *have == name);
                device.map_or_else(String::new, |(_, fd)| format!("/proc/self/fd/{}", fd.as_raw_fd()))
            }
            Self::Template { .. } => format!("/dev/{name}"),
        }
    }
}

/// Opens something of this machine as a place.
pub(super) fn open_kept(path: &[u8], flags: OFlags) -> Result<OwnedFd, Fault> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC | flags, Mode::empty())
        .map_err(|errno| fault(Step::Keep, path, errno))
}

/// This machine's devices that jobs get.
pub(super) fn devices() -> Result<Vec<(&'static str, OwnedFd)>, Fault> {
    DEVICES.iter().map(|name| Ok((*name, open_kept(format!("/dev/{name}").as_bytes(), OFlags::empty())?))).collect()
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
pub(super) fn build(policy: &Policy, kept: &Kept<'_>) -> Result<Layers, Fault> {
    let size = (policy.limits.tree_bytes, policy.limits.tree_nodes);
    match kept {
        Kept::Machine { tree, sources, .. } => {
            make_private()?;
            memory(stage()?, size, &["in", "up", "work", "base", "root"])?;
            inputs(policy, tree, sources.as_fd())?;
        }
        Kept::Template { .. } => {
            memory(template_child::STAGE, size, &["up", "work", "root"])?;
            let up = open_directory("up").map_err(|errno| fault(Step::Place, b"", errno))?;
            writable(policy, &mut Builder::new(up.as_fd(), up.as_fd(), owner(policy)))?;
        }
    }
    let layers = join(policy, kept)?;
    furnish(kept, policy.without)?;
    read_only(policy)?;
    pivot_to("root", policy.without)?;
    Ok(layers)
}

/// Nothing that follows may appear in this machine's own mount table, nor the other way round.
pub(super) fn make_private() -> Result<(), Fault> {
    let flags = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    rustix::mount::mount_change("/", flags).map_err(|errno| fault(Step::Private, b"/", errno))
}

/// A directory of this machine for the memory.
pub(super) fn stage() -> Result<&'static str, Fault> {
    let found = STAGES.into_iter().find(|stage| std::path::Path::new(stage).is_dir());
    found.ok_or_else(|| fault(Step::Memory, b"", Errno::NOENT))
}

/// Mounts memory of so many bytes and nodes, goes there, and makes directories.
pub(super) fn memory(stage: &str, (bytes, nodes): (u64, u64), names: &[&str]) -> Result<(), Fault> {
    let options = format!("mode=0755,size={bytes},nr_inodes={nodes}");
    let options = CString::new(options).expect("digits and letters hold no zero byte");
    let failed = |errno| fault(Step::Memory, b"", errno);
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("tmpfs", stage, "tmpfs", flags, options.as_c_str()).map_err(failed)?;
    rustix::process::chdir(stage).map_err(failed)?;
    for name in names {
        rustix::fs::mkdir(*name, Mode::from_raw_mode(0o755)).map_err(failed)?;
    }
    Ok(())
}

/// Who owns what the job may change, if that is another user than the one who builds.
fn owner(policy: &Policy) -> Option<u32> {
    match policy.identity {
        Identity::User { id } | Identity::Chroot { id } => Some(id),
        Identity::Namespace { .. } => None,
    }
}

/// Copies the inputs into the middle layer.
fn inputs(policy: &Policy, tree: &[Place], sources: BorrowedFd<'_>) -> Result<(), Fault> {
    let top = open_directory("in").map_err(|errno| fault(Step::Place, b"", errno))?;
    let mut builder = Builder::new(top.as_fd(), sources, owner(policy));
    tree.iter().try_for_each(|place| builder.place(place))?;
    writable(policy, &mut builder)?;
    mount_points(&mut builder, policy.without)
}

/// Makes the directories in which the job may write, and gives them to it.
fn writable(policy: &Policy, builder: &mut Builder<'_>) -> Result<(), Fault> {
    for writable in &policy.writable {
        let failed = |errno| fault(Step::Place, writable, errno);
        builder.directory(writable, true).map_err(failed)?;
        // The top of an overlay shows the upper layer's owner.
        if let Some(id) = owner(policy).filter(|_| writable == b"/") {
            let (uid, gid) = (rustix::fs::Uid::from_raw(id), rustix::fs::Gid::from_raw(id));
            rustix::fs::chown("up", Some(uid), Some(gid)).map_err(failed)?;
        }
    }
    Ok(())
}

/// Makes what `/proc` and the devices are mounted on.
pub(super) fn mount_points(builder: &mut Builder<'_>, without: Without) -> Result<(), Fault> {
    if without.own_root {
        builder.directory(MACHINE.as_bytes(), false).map_err(|errno| fault(Step::Place, MACHINE.as_bytes(), errno))?;
    }
    builder.directory(b"proc", false).map_err(|errno| fault(Step::Place, b"proc", errno))?;
    for name in DEVICES {
        let failed = |errno| fault(Step::Place, b"dev", errno);
        let dev = builder.open(b"dev").map_err(failed)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let failed = |errno| fault(Step::Device, name.as_bytes(), errno);
        rustix::fs::openat(dev, name, flags, Mode::from_raw_mode(0o666)).map_err(failed)?;
    }
    Ok(())
}

/// Puts base, inputs and output layer together as `root`.
fn join(policy: &Policy, kept: &Kept<'_>) -> Result<Layers, Fault> {
    let written = |name| open_directory(name).map_err(|errno| fault(Step::Layers, b"", errno));
    if !policy.without.overlay {
        let in_namespace = matches!(policy.identity, Identity::Namespace { .. });
        let user = if in_namespace { ",userxattr" } else { "" };
        let lower = kept.lower();
        let options = format!("lowerdir={lower},upperdir=up,workdir=work{user}");
        let options = CString::new(options).expect("letters and digits hold no zero byte");
        let flags = bits_ignored(policy.without);
        match rustix::mount::mount("overlay", "root", "overlay", flags, options.as_c_str()) {
            Ok(()) => return Ok(Layers { written: written("up")?, overlay: true }),
            // No overlayfs, or not for user namespaces (before 5.11).
            Err(Errno::NODEV | Errno::PERM | Errno::INVAL | Errno::NOSYS) => {}
            Err(errno) => return Err(fault(Step::Layers, b"", errno)),
        }
    }
    match kept {
        Kept::Machine { base, .. } => bind_base(base.as_fd())?,
        // The template's tree belongs to all jobs: only an overlay keeps it as it is.
        Kept::Template { .. } => return Err(fault(Step::Layers, b"", Errno::NODEV)),
    }
    Ok(Layers { written: written("in")?, overlay: false })
}

/// Without an overlay: the inputs' tree is the root, and each file of the base that it lacks is bound into it.
fn bind_base(base: BorrowedFd<'_>) -> Result<(), Fault> {
    let failed = |errno| fault(Step::Layers, b"", errno);
    bind_fd(base, "base").map_err(failed)?;
    // Read-only here, and so in every bind that is made from here.
    remount_read_only("base", Without::default()).map_err(failed)?;
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
fn furnish(kept: &Kept<'_>, without: Without) -> Result<(), Fault> {
    proc(without).map_err(|errno| fault(Step::Proc, b"", errno))?;
    for name in DEVICES {
        let bound = rustix::mount::mount_bind(kept.device(name), format!("root/dev/{name}"));
        bound.map_err(|errno| fault(Step::Device, name.as_bytes(), errno))?;
    }
    Ok(())
}

/// `/proc`.
fn proc(without: Without) -> Result<(), Errno> {
    if without.process_namespace {
        // Where processes are this machine's, only its own may be seen.
        return rustix::mount::mount_bind_recursive("/proc", "root/proc");
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // Only processes, of which there are only the job's own: nothing of this machine. Before Linux 5.8 all of /proc.
    let mount = |options| rustix::mount::mount("proc", "root/proc", "proc", flags, Some(options));
    let wanted = if without.proc_subset { c"" } else { c"subset=pid" };
    mount(wanted).or_else(|errno| if errno == Errno::INVAL { mount(c"") } else { Err(errno) })
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
    remount_read_only("root", policy.without).map_err(|errno| fault(Step::ReadOnly, b"/", errno))
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

/// Makes a directory, on which something is mounted, the root, and takes the old one away.
pub(super) fn pivot_to(root: &str, without: Without) -> Result<(), Fault> {
    let failed = |errno| fault(Step::Pivot, b"", errno);
    rustix::process::chdir(root).map_err(failed)?;
    if without.own_root {
        rustix::process::pivot_root(".", MACHINE).map_err(failed)?;
        return rustix::process::chdir("/").map_err(failed);
    }
    // Onto itself: the old root lies over the new one for a moment, so no place for it is needed.
    rustix::process::pivot_root(".", ".").map_err(failed)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(failed)?;
    rustix::process::chdir("/").map_err(failed)
}

pub(super) fn open_directory(path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

pub(super) fn bind_fd(from: BorrowedFd<'_>, to: &str) -> Result<(), Errno> {
    rustix::mount::mount_bind(format!("/proc/self/fd/{}", from.as_raw_fd()), to)
}

fn remount_read_only(path: &str, without: Without) -> Result<(), Errno> {
    let flags = MountFlags::BIND | MountFlags::RDONLY | bits_ignored(without);
    rustix::mount::mount_remount(path, flags, c"")
}

/// No file of a mount is a device, and none gives another user's rights.
fn bits_ignored(without: Without) -> MountFlags {
    if without.mount_flags { MountFlags::empty() } else { MountFlags::NOSUID | MountFlags::NODEV }
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
