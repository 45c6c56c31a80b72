//! What a job's root holds in the strict form: exactly its closure and its toolchain (DECIDE).
//!
//! Everything here comes from another machine, so it is checked before anything is written: no path twice, no path
//! below a file or a link, no path where the sandbox puts its own, nothing over a limit. The text of a symbolic link is
//! never followed here; inside the root it may lead wherever the root goes.

use crate::sandbox::policy::{Place, What};
use crate::store::layout;
use mesh_proto::closure::{Entry, File, Node};
use mesh_proto::digest::Digest;
use mesh_proto::job::Job;
use mesh_proto::limits;
use mesh_proto::path::AbsPath;
use mesh_proto::toolchain::{Manifest, Part, PartNode};
use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap, HashSet};

/// The directories of a root that the sandbox fills.
pub const PROVIDED: [&[u8]; 2] = [b"/proc", b"/dev"];

/// Why a root cannot be built from what the offer says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StrictError {
    /// Too many entries or bytes, or an impossible time, size or link.
    #[error("an entry or their sum passes a limit: {0:?}")]
    Limit(AbsPath),
    /// The same path twice, or two different things at one path.
    #[error("two things at one path: {0:?}")]
    Conflict(AbsPath),
    /// A path leads through something that is not a directory.
    #[error("a path leads through a file or a link: {0:?}")]
    Parent(AbsPath),
    /// A path where the sandbox puts its own.
    #[error("a path that no job may bring: {0:?}")]
    Reserved(AbsPath),
    /// Two different files are said to be one inode.
    #[error("two different files with one inode: {0:?}")]
    Inode(AbsPath),
}

/// What the root of one job holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The inputs, sorted.
    pub tree: Vec<Place>,
    /// Where the job may write and what it writes comes back.
    pub output_dirs: BTreeSet<AbsPath>,
    /// Where the job may write, and what it writes is dropped.
    pub temp_dirs: BTreeSet<AbsPath>,
    /// All inputs, bytes.
    pub bytes: u64,
}

/// What is at a path, as far as it matters for other paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    Other,
}

/// Which paths there are, to see that each leads through directories.
#[derive(Debug, Default)]
struct Shape<'a> {
    kinds: HashMap<&'a [u8], Kind>,
    /// Directories that have been seen to lead through directories.
    sound: HashSet<&'a [u8]>,
}

impl<'a> Shape<'a> {
    /// Notes a path; what it was before, if it was known.
    fn add(&mut self, path: &'a AbsPath, kind: Kind) -> Option<Kind> {
        self.kinds.insert(path.as_bytes(), kind)
    }

    /// Whether all that lies before the path's last component is, or may become, a directory.
    fn leads_through_directories(&mut self, path: &'a AbsPath) -> bool {
        let bytes = path.as_bytes();
        let mut checked = Vec::new();
        let cuts = bytes.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for cut in cuts.collect::<Vec<_>>().into_iter().rev() {
            let parent = &bytes[..cut];
            if self.sound.contains(parent) {
                break;
            }
            if self.kinds.get(parent) == Some(&Kind::Other) {
                return false;
            }
            checked.push(parent);
        }
        self.sound.extend(checked);
        true
    }
}

/// Checks that a toolchain's parts can be placed: no path twice, and each leads through directories.
///
/// # Errors
/// The first part that cannot.
pub fn check_toolchain(manifest: &Manifest) -> Result<(), StrictError> {
    let mut shape = Shape::default();
    for part in &manifest.parts {
        check_reserved(&part.path, part.node == PartNode::Directory)?;
        if shape.add(&part.path, kind_of_part(&part.node)).is_some() {
            return Err(StrictError::Conflict(part.path.clone()));
        }
    }
    for part in &manifest.parts {
        if !shape.leads_through_directories(&part.path) {
            return Err(StrictError::Parent(part.path.clone()));
        }
    }
    Ok(())
}

/// Decides what the root of a job holds.
///
/// # Errors
/// What the offer breaks.
pub fn root<E: Borrow<Entry>>(job: &Job, entries: &[E], toolchain: &Manifest) -> Result<Root, StrictError> {
    if entries.len() > limits::CLOSURE_ENTRIES_MAX {
        return Err(StrictError::Limit(AbsPath::root()));
    }
    let parts: HashMap<&[u8], &Part> = toolchain.parts.iter().map(|part| (part.path.as_bytes(), part)).collect();
    let mut shape = Shape::default();
    for part in &toolchain.parts {
        shape.add(&part.path, kind_of_part(&part.node));
    }
    let mut sorted: Vec<&Entry> = entries.iter().map(Borrow::borrow).collect();
    sorted.sort_unstable_by_key(|entry| entry.path.as_bytes());
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0].path == pair[1].path) {
        return Err(StrictError::Conflict(twice[0].path.clone()));
    }
    let mut bytes = 0;
    for entry in &sorted {
        bytes += check_entry(entry, parts.get(entry.path.as_bytes()).copied())?;
        shape.add(&entry.path, if entry.node == Node::Directory { Kind::Directory } else { Kind::Other });
    }
    if bytes > limits::JOB_INPUT_BYTES_MAX {
        return Err(StrictError::Limit(AbsPath::root()));
    }
    // After all are known: a path may come before the one that it leads through.
    for path in sorted.iter().map(|entry| &entry.path).chain(toolchain.parts.iter().map(|part| &part.path)) {
        if !shape.leads_through_directories(path) {
            return Err(StrictError::Parent(path.clone()));
        }
    }
    for dir in &job.output_dirs {
        check_writable(dir)?;
        if shape.kinds.get(dir.as_bytes()) == Some(&Kind::Other) || !shape.leads_through_directories(dir) {
            return Err(StrictError::Parent(dir.clone()));
        }
    }
    let output_dirs: BTreeSet<AbsPath> = job.output_dirs.iter().cloned().collect();
    let usual = sorted.iter().find(|entry| entry.path.as_bytes() == b"/tmp");
    let link =
        usual.and_then(|entry| if let Node::Symlink { target } = &entry.node { Some(&target[..]) } else { None });
    let temp_dirs = temp_dirs(job, link, |path| shape.kinds.get(path) == Some(&Kind::Other));
    let tree = places(&sorted, &parts, |dir| output_dirs.contains(dir) || temp_dirs.contains(dir))?;
    Ok(Root { tree, output_dirs, temp_dirs, bytes })
}

/// Checks one entry by itself and against the toolchain's part at its path; yields its bytes.
pub(super) fn check_entry(entry: &Entry, part: Option<&Part>) -> Result<u64, StrictError> {
    let limit = || StrictError::Limit(entry.path.clone());
    check_reserved(&entry.path, entry.node == Node::Directory)?;
    let same = match (&entry.node, part.map(|part| &part.node)) {
        (_, None) | (Node::Directory, Some(PartNode::Directory)) => true,
        (Node::File(file), Some(PartNode::File { digest, .. })) => file.digest == *digest,
        (Node::Symlink { target }, Some(PartNode::Symlink { target: other })) => target == other,
        _ => false,
    };
    if !same {
        return Err(StrictError::Conflict(entry.path.clone()));
    }
    match &entry.node {
        Node::File(file) if file.size > limits::BLOB_BYTES_MAX || file.mtime_ns >= 1_000_000_000 => Err(limit()),
        Node::File(file) => Ok(file.size),
        Node::Symlink { target } => {
            let fits = !target.is_empty() && target.len() < limits::PATH_BYTES_MAX && !target.contains(&0);
            if fits { Ok(0) } else { Err(limit()) }
        }
        Node::Directory => Ok(0),
    }
}

/// Refuses what the sandbox provides itself. The directories themselves may be named, as directories.
fn check_reserved(path: &AbsPath, is_directory: bool) -> Result<(), StrictError> {
    let is_provided = PROVIDED.iter().any(|dir| path.as_bytes() == *dir);
    let is_below =
        PROVIDED.iter().any(|dir| path.as_bytes().strip_prefix(*dir).is_some_and(|rest| rest.starts_with(b"/")));
    if is_below || (!is_directory && (is_provided || *path == AbsPath::root())) {
        return Err(StrictError::Reserved(path.clone()));
    }
    Ok(())
}

/// Refuses to make writable what the sandbox provides itself.
pub(super) fn check_writable(path: &AbsPath) -> Result<(), StrictError> {
    check_reserved(path, *path == AbsPath::root())
}

/// Where compilers put temporary files: `/tmp`, or where it leads, and what the environment names. A directory that
/// cannot be had is left out: the compiler then looks on, or fails, and the unit is compiled at home. `link` is the text
/// of `/tmp`, if that is a link; `is_other` says where something lies that is no directory.
pub(super) fn temp_dirs(job: &Job, link: Option<&[u8]>, is_other: impl Fn(&[u8]) -> bool) -> BTreeSet<AbsPath> {
    let mut dirs = BTreeSet::new();
    let usual = AbsPath::new("/tmp").expect("it is in normal form");
    let link = link.and_then(|target| AbsPath::lexical(&AbsPath::root(), target).ok());
    let named = job.env.iter().filter(|(name, _)| matches!(name.as_slice(), b"TMPDIR" | b"TMP" | b"TEMP"));
    let named = named.filter_map(|(_, value)| AbsPath::new(value.as_slice()).ok());
    for dir in named.chain([link.unwrap_or(usual)]) {
        let mut ancestors = std::iter::successors(Some(dir.clone()), AbsPath::parent);
        let is_directory = ancestors.all(|dir| !is_other(dir.as_bytes()));
        if is_directory && dir != AbsPath::root() && check_writable(&dir).is_ok() {
            dirs.insert(dir);
        }
    }
    dirs
}

/// The entries as what is to be placed, one inode for each of the client's.
fn places(
    sorted: &[&Entry],
    parts: &HashMap<&[u8], &Part>,
    is_writable: impl Fn(&AbsPath) -> bool,
) -> Result<Vec<Place>, StrictError> {
    let mut inodes: HashMap<u64, (&Entry, &File)> = HashMap::new();
    let mut tree = Vec::with_capacity(sorted.len());
    for entry in sorted {
        let what = match &entry.node {
            Node::Directory => What::Directory,
            Node::Symlink { target } => What::Symlink { target: target.clone() },
            Node::File(file) => match inodes.get(&file.inode) {
                Some((first, other)) if *other == file => What::HardLink { to: first.path.below_root().to_vec() },
                Some(_) => return Err(StrictError::Inode(entry.path.clone())),
                None => {
                    inodes.insert(file.inode, (entry, file));
                    let part = parts.get(entry.path.as_bytes()).map(|part| &part.node);
                    let is_tool = matches!(part, Some(PartNode::File { executable: true, .. }));
                    What::File {
                        source: layout::blob(&file.digest),
                        size: file.size,
                        mtime_s: file.mtime_s,
                        mtime_ns: file.mtime_ns,
                        executable: file.executable || is_tool,
                    }
                }
            },
        };
        let writable = match what {
            What::Directory => is_writable(&entry.path),
            _ => entry.path.parent().is_some_and(|parent| is_writable(&parent)),
        };
        tree.push(Place { path: entry.path.below_root().to_vec(), what, writable });
    }
    Ok(tree)
}

fn kind_of_part(node: &PartNode) -> Kind {
    if *node == PartNode::Directory { Kind::Directory } else { Kind::Other }
}

/// The digests of all files of a closure, each once.
#[must_use]
pub fn digests<E: Borrow<Entry>>(entries: &[E]) -> HashSet<Digest> {
    let file = |entry: &Entry| if let Node::File(file) = &entry.node { Some(file.digest) } else { None };
    entries.iter().map(Borrow::borrow).filter_map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_proto::toolchain::Fingerprint;

    fn path(text: &str) -> AbsPath {
        AbsPath::new(text).unwrap()
    }

    fn file(at: &str, content: &str, inode: u64) -> Entry {
        let digest = Digest::of(content.as_bytes());
        let size = content.len() as u64;
        let file = File { digest, size, mtime_s: 1, mtime_ns: 2, executable: false, inode };
        Entry { path: path(at), node: Node::File(file) }
    }

    fn link(at: &str, target: &str) -> Entry {
        Entry { path: path(at), node: Node::Symlink { target: target.into() } }
    }

    fn directory(at: &str) -> Entry {
        Entry { path: path(at), node: Node::Directory }
    }

    fn toolchain() -> Manifest {
        let node = PartNode::File { digest: Digest::of(b"cc1"), size: 3, executable: true };
        let parts = vec![
            Part { path: path("/lib"), node: PartNode::Symlink { target: b"usr/lib".to_vec() } },
            Part { path: path("/usr/lib/cc1"), node },
        ];
        Manifest { driver: path("/usr/bin/gcc"), facts: vec![], parts }
    }

    fn job(output_dirs: &[&str]) -> Job {
        Job {
            toolchain: Fingerprint(Digest([0; 32])),
            argv: vec![b"gcc".to_vec()],
            env: vec![],
            cwd: b"/w".to_vec(),
            output_dirs: output_dirs.iter().map(|dir| path(dir)).collect(),
            umask: 0o022,
            merged_output: false,
            terminal: None,
            wall_ms_max: 1000,
            strict: false,
        }
    }

    fn check(entries: &[Entry]) -> Result<Root, StrictError> {
        root(&job(&["/w/out"]), entries, &toolchain())
    }

    #[test]
    fn refuses_what_leads_through_a_link_or_a_file() {
        for (entries, bad) in [
            (vec![link("/w/a", "/etc"), file("/w/a/passwd", "x", 1)], "/w/a/passwd"),
            (vec![file("/w/a/b/c", "x", 1), file("/w/a", "y", 2)], "/w/a/b/c"),
            // A toolchain's link counts, and so does a link that a toolchain's path would lead through.
            (vec![file("/lib/x", "x", 1)], "/lib/x"),
            (vec![link("/usr", "/w")], "/usr/lib/cc1"),
            // The output directory.
            (vec![link("/w/out", "/w")], "/w/out"),
            (vec![file("/w", "x", 1)], "/w/out"),
        ] {
            assert_eq!(check(&entries), Err(StrictError::Parent(path(bad))), "{entries:?}");
        }
    }

    #[test]
    fn refuses_two_things_at_one_path() {
        for entries in [
            vec![file("/w/a", "x", 1), file("/w/a", "x", 1)],
            vec![file("/w/a", "x", 1), directory("/w/a")],
            vec![file("/usr/lib/cc1", "other", 1)],
            vec![link("/lib", "elsewhere")],
            vec![directory("/lib")],
        ] {
            assert!(matches!(check(&entries), Err(StrictError::Conflict(_))), "{entries:?}");
        }
        assert!(check(&[file("/usr/lib/cc1", "cc1", 1), link("/lib", "usr/lib")]).is_ok());
    }

    #[test]
    fn refuses_what_the_sandbox_provides() {
        for at in ["/proc/self/x", "/dev/null", "/proc", "/dev", "/"] {
            assert!(matches!(check(&[file(at, "x", 1)]), Err(StrictError::Reserved(_))), "{at}");
        }
        assert!(matches!(root::<Entry>(&job(&["/dev"]), &[], &toolchain()), Err(StrictError::Reserved(_))));
        assert!(root::<Entry>(&job(&["/"]), &[], &toolchain()).is_ok());
        assert!(check(&[directory("/proc"), directory("/dev"), directory("/")]).is_ok());
    }

    #[test]
    fn refuses_impossible_times_sizes_and_links() {
        let with = |change: fn(&mut File)| {
            let mut entry = file("/w/a", "x", 1);
            if let Node::File(file) = &mut entry.node {
                change(file);
            }
            check(&[entry])
        };
        assert!(matches!(with(|file| file.mtime_ns = 1_000_000_000), Err(StrictError::Limit(_))));
        assert!(matches!(with(|file| file.size = u64::MAX), Err(StrictError::Limit(_))));
        for target in ["", "a\0b", &"x".repeat(limits::PATH_BYTES_MAX)] {
            assert!(matches!(check(&[link("/w/a", target)]), Err(StrictError::Limit(_))));
        }
    }

    #[test]
    fn one_inode_of_the_client_is_one_inode_here() {
        let root = check(&[file("/w/b", "x", 7), file("/w/a", "x", 7), file("/w/c", "x", 8)]).unwrap();
        assert!(matches!(&root.tree[1].what, What::HardLink { to } if to == b"w/a"));
        assert!(matches!(&root.tree[2].what, What::File { .. }));
        assert!(matches!(check(&[file("/w/a", "x", 7), file("/w/b", "y", 7)]), Err(StrictError::Inode(_))));
    }

    #[test]
    fn what_lies_in_an_output_directory_belongs_to_the_job() {
        let root = check(&[file("/w/out/a.o", "x", 1), file("/w/a.c", "y", 2), directory("/w/out")]).unwrap();
        let writable: Vec<_> = root.tree.iter().map(|place| (place.path.as_slice(), place.writable)).collect();
        assert_eq!(writable, [(&b"w/a.c"[..], false), (b"w/out", true), (b"w/out/a.o", true)]);
    }

    #[test]
    fn temporary_files_have_a_place_where_the_environment_says_and_where_tmp_leads() {
        let mut asked = job(&[]);
        for (name, value) in [("TMPDIR", "/scratch/x"), ("TMP", "relative"), ("TEMP", "/proc/1"), ("HOME", "/h")] {
            asked.env.push((name.into(), value.into()));
        }
        let dirs = |entries: &[Entry]| root(&asked, entries, &toolchain()).unwrap().temp_dirs;
        assert_eq!(dirs(&[]), BTreeSet::from([path("/scratch/x"), path("/tmp")]));
        assert_eq!(dirs(&[link("/tmp", "private/tmp")]), BTreeSet::from([path("/scratch/x"), path("/private/tmp")]));
        assert_eq!(dirs(&[file("/tmp", "x", 1), link("/scratch", "w")]), BTreeSet::new());
    }

    #[test]
    fn a_toolchain_with_a_path_through_a_link_is_refused() {
        assert_eq!(check_toolchain(&toolchain()), Ok(()));
        let mut bad = toolchain();
        bad.parts.push(Part { path: path("/lib/x"), node: PartNode::Directory });
        assert_eq!(check_toolchain(&bad), Err(StrictError::Parent(path("/lib/x"))));
        let mut twice = toolchain();
        twice.parts.push(Part { path: path("/lib"), node: PartNode::Directory });
        assert!(matches!(check_toolchain(&twice), Err(StrictError::Conflict(_))));
    }
}
