//! Whether what somebody else learned from files still holds, without a `stat` where a watch vouches (DO).
//!
//! A compiler is known by its files, and by those that it would use if they were there. Looking at them all takes a
//! hundred calls a unit; this asks the graph, which has watches.

use super::node::{NodeId, ROOT};
use super::world::{Kind, Stat};
use super::{Graph, Tick};

/// Paths that one basis looks at, with all on their way.
const PATHS_MAX: usize = 4096;

/// Paths as they were.
#[derive(Debug)]
pub struct Basis {
    epoch: u32,
    seen: Box<[Seen]>,
}

/// One path as it was.
#[derive(Debug)]
struct Seen {
    id: NodeId,
    kind: Option<Kind>,
    stat: Stat,
    /// A directory on the way to another path: only that it is the same one matters.
    is_way: bool,
}

impl Graph {
    /// Looks at these absolute paths, whether they are there or not, and at all on their way. Of a directory that is itself
    /// asked for, names that come and go matter too. `None` if that cannot be told.
    ///
    /// What is learned from the files counts only if it was learned after this.
    pub fn basis<'a>(&mut self, paths: impl Iterator<Item = &'a [u8]>, requested_at: Tick) -> Option<Basis> {
        self.begin_call(requested_at);
        let (mut trail, mut leaves) = (Vec::new(), Vec::new());
        for path in paths {
            if leaves.len() >= PATHS_MAX || path.first() != Some(&b'/') {
                return None;
            }
            let found = self.resolve(ROOT, path, &mut trail).ok()?;
            leaves.extend(found.into_iter().flat_map(|found| [found.leaf, found.end]));
        }
        leaves.sort_unstable();
        trail.sort_unstable();
        trail.dedup();
        let seen = trail.into_iter().map(|id| {
            let is_leaf = leaves.binary_search(&id).is_ok();
            let node = self.node_mut(id);
            node.is_basis |= is_leaf && node.kind == Some(Kind::Dir);
            if node.is_basis {
                // Trusted before somebody cared for its names.
                node.vouched.trusted = 0;
            }
            Seen { id, kind: node.kind, stat: node.stat, is_way: !is_leaf && node.kind == Some(Kind::Dir) }
        });
        let seen: Box<[Seen]> = seen.collect();
        Some(Basis { epoch: self.epoch, seen })
    }

    /// Whether everything is as it was, by what is seen after the request arrived.
    pub fn stands(&mut self, basis: &Basis, requested_at: Tick) -> bool {
        self.begin_call(requested_at);
        basis.epoch == self.epoch
            && basis.seen.iter().all(|seen| {
                self.check(seen.id).is_ok() && {
                    let node = self.node(seen.id);
                    let is_same_place = (node.stat.dev, node.stat.ino) == (seen.stat.dev, seen.stat.ino);
                    node.kind == seen.kind && is_same_place && (seen.is_way || node.stat == seen.stat)
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::{ffi::OsStrExt, fs::symlink};

    /// What is done to the files.
    type Change = fn(&std::path::Path);

    #[test]
    fn whatever_happens_to_a_path_that_was_looked_at_is_noticed_and_nothing_else_is() {
        let changes: [(&str, bool, Change); 9] = [
            ("nothing", true, |_| {}),
            ("another file", true, |dir| std::fs::write(dir.join("beside"), "x").expect("room")),
            ("the file is written", false, |dir| std::fs::write(dir.join("bin/cc1"), "new").expect("room")),
            ("the file goes", false, |dir| std::fs::remove_file(dir.join("bin/cc1")).expect("there")),
            ("what was not there appears", false, |dir| std::fs::write(dir.join("local/as"), "x").expect("room")),
            ("a name appears in a directory that counts", false, |dir| {
                std::fs::create_dir(dir.join("versions/13")).expect("fresh");
            }),
            ("the link leads elsewhere", false, |dir| {
                std::fs::remove_file(dir.join("gcc")).expect("there");
                symlink("bin", dir.join("gcc")).expect("fresh");
            }),
            ("what is behind the link is replaced", false, |dir| {
                std::fs::write(dir.join("new"), "gcc").expect("room");
                std::fs::rename(dir.join("new"), dir.join("bin/gcc-12")).expect("there");
            }),
            ("a directory on the way is another one", false, |dir| {
                std::fs::rename(dir.join("bin"), dir.join("old")).expect("there");
                std::fs::create_dir(dir.join("bin")).expect("fresh");
                std::fs::hard_link(dir.join("old/cc1"), dir.join("bin/cc1")).expect("fresh");
                std::fs::hard_link(dir.join("old/gcc-12"), dir.join("bin/gcc-12")).expect("fresh");
            }),
        ];
        for (what, stands, change) in changes {
            let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
            let dir = dir.path();
            for made in ["bin", "local", "versions", "versions/12"] {
                std::fs::create_dir(dir.join(made)).expect("fresh");
            }
            std::fs::write(dir.join("bin/cc1"), "cc1").expect("room");
            std::fs::write(dir.join("bin/gcc-12"), "gcc").expect("room");
            symlink("bin/gcc-12", dir.join("gcc")).expect("fresh");
            let mut graph = Graph::new();
            let arrivals = graph.arrivals();
            let paths = ["gcc", "bin/cc1", "local/as", "versions"].map(|path| dir.join(path).into_os_string());
            let paths = || paths.iter().map(|path| path.as_bytes());
            let basis = graph.basis(paths(), arrivals.arrive()).expect("all can be looked at");
            for _ in 0..3 {
                assert!(graph.stands(&basis, arrivals.arrive()), "{what}: nothing happened yet");
            }
            change(dir);
            assert_eq!(graph.stands(&basis, arrivals.arrive()), stands, "{what}");
        }
    }
}
