//! What a result is the result of (AGREE).
//!
//! Two actions with the same key give the same bytes, on whatever machine: whoever has the result of one may give it for the
//! other. Both ends of a job compute the key, each from what it knows itself; the provider signs what it has made under the
//! key that it has computed.

use crate::{
    closure::{Entry, File, Node},
    digest::Digest,
    job::{Job, Terminal},
    toolchain::Fingerprint,
};
use serde::{Deserialize, Serialize};
use std::{borrow::Borrow, ops::Deref};

/// The key of an action: BLAKE3, under a context of its own, over everything that decides its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ActionKey(pub Digest);

/// What an entry of a closure adds to a key: path, kind and content. When it was written and which inode it has count only
/// where two files hold the same ([`ActionKey::of`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EntryKey(pub [u8; 32]);

/// An entry and what it adds to a key: worked out once, however many closures it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyed {
    entry: Entry,
    key: EntryKey,
}

impl Keyed {
    /// Of this entry.
    #[must_use]
    pub fn new(entry: Entry) -> Self {
        Self { key: EntryKey::of(&entry), entry }
    }

    /// What it adds to a key.
    #[must_use]
    pub fn key(&self) -> EntryKey {
        self.key
    }
}

impl Deref for Keyed {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

impl Borrow<Entry> for Keyed {
    fn borrow(&self) -> &Entry {
        &self.entry
    }
}

/// Variables that only a terminal makes a difference of.
const OF_A_TERMINAL: &[&[u8]] =
    &[b"COLORTERM", b"COLUMNS", b"GREP_COLORS", b"TERM", b"TERMINFO", b"TERMINFO_DIRS", b"TERM_URLS"];
/// Variables that name places where nothing of a job's root is: what lies there is in no closure.
const OF_NOTHING: &[&[u8]] = &[b"HOME", b"TEMP", b"TMP", b"TMPDIR"];
/// Names of precompiled headers end so: a compiler compares them with the times of the files they were made of.
const PRECOMPILED: &[&[u8]] = &[b".gch", b".pch", b".pcm"];

impl EntryKey {
    /// Of one entry.
    #[must_use]
    pub fn of(entry: &Entry) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("mesh 2026 closure entry v1");
        hasher.update(&(entry.path.as_bytes().len() as u64).to_le_bytes());
        hasher.update(entry.path.as_bytes());
        match &entry.node {
            Node::File(file) => {
                hasher.update(&[0, file.executable.into()]);
                hasher.update(&file.digest.0);
            }
            Node::Symlink { target } => {
                hasher.update(&[1]);
                hasher.update(target);
            }
            Node::Directory => {
                hasher.update(&[2]);
            }
        }
        Self(*hasher.finalize().as_bytes())
    }
}

/// All of a job that decides its result, but the closure.
#[derive(Serialize)]
struct Decides<'a> {
    toolchain: &'a Fingerprint,
    argv: &'a [Vec<u8>],
    env: Vec<(&'a [u8], Vec<&'a [u8]>)>,
    cwd: &'a [u8],
    merged_output: bool,
    terminal: Option<Terminal>,
}

impl ActionKey {
    /// The key of a job. `closure` comes in the order of its paths, each entry with its key. `program_dirs`: the directories
    /// that hold files of the toolchain, the only ones of `PATH` that exist where the job runs.
    ///
    /// Not part of it: how long the job may take and in what kind of root it runs; the file creation mask and the output
    /// directories, which whoever places the outputs knows; which inode a file has and when it was written, unless
    /// another file of the closure holds the same (compilers tell files apart by that, for `#pragma once` and
    /// `#import`), or the closure has a precompiled header.
    #[must_use]
    pub fn of<'a>(
        job: &Job,
        closure: impl Iterator<Item = (&'a Entry, EntryKey)>,
        program_dirs: impl Fn(&[u8]) -> bool,
    ) -> Self {
        let counts =
            |name: &[u8]| !OF_NOTHING.contains(&name) && (job.terminal.is_some() || !OF_A_TERMINAL.contains(&name));
        let env = job.env.iter().filter(|(name, _)| counts(name));
        let env = env.map(|(name, text)| {
            let parts: Vec<&[u8]> = match name.as_slice() {
                b"PATH" => text.split(|b| *b == b':').filter(|dir| program_dirs(dir)).collect(),
                _ => vec![text.as_slice()],
            };
            (name.as_slice(), parts)
        });
        let decides = Decides {
            toolchain: &job.toolchain,
            argv: &job.argv,
            env: env.collect(),
            cwd: &job.cwd,
            merged_output: job.merged_output,
            terminal: job.terminal,
        };
        let bytes = postcard::to_stdvec(&decides).expect("a job has no type that postcard cannot write");
        let mut hasher = blake3::Hasher::new_derive_key("mesh 2026 action key v1");
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(&bytes);
        let mut alike = Alike::default();
        let mut keys = Vec::with_capacity(closure.size_hint().0 * size_of::<EntryKey>());
        for (entry, key) in closure {
            keys.extend_from_slice(&key.0);
            alike.see(entry);
        }
        // In one piece: the hash takes many blocks at once.
        hasher.update(&keys);
        alike.add(&mut hasher);
        Self(Digest(*hasher.finalize().as_bytes()))
    }
}

/// The files of a closure, for what compilers see of them besides path and content.
#[derive(Default)]
struct Alike<'a> {
    /// The beginning of a file's digest, its place in the closure, and the file.
    files: Vec<(u64, u32, &'a File)>,
    precompiled: bool,
}

impl<'a> Alike<'a> {
    fn see(&mut self, entry: &'a Entry) {
        if let Node::File(file) = &entry.node {
            let begin = u64::from_le_bytes(*file.digest.0.first_chunk().expect("a digest is longer"));
            let place = u32::try_from(self.files.len()).unwrap_or(u32::MAX);
            self.files.push((begin, place, file));
            self.precompiled |= PRECOMPILED.iter().any(|end| entry.path.as_bytes().ends_with(end));
        }
    }

    /// Adds, of files that hold the same, when they were written and which of them are one.
    fn add(mut self, hasher: &mut blake3::Hasher) {
        self.files.sort_unstable_by_key(|(begin, place, _)| (*begin, *place));
        for run in self.files.chunk_by(|one, other| one.0 == other.0) {
            if run.len() == 1 && !self.precompiled {
                continue;
            }
            for (_, place, file) in run {
                let first =
                    run.iter().find(|(_, _, other)| other.inode == file.inode).map_or(0, |(_, first, _)| *first);
                hasher.update(&place.to_le_bytes());
                hasher.update(&first.to_le_bytes());
                hasher.update(&file.mtime_s.to_le_bytes());
                hasher.update(&file.mtime_ns.to_le_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{path::AbsPath, toolchain::Fingerprint};

    fn job() -> Job {
        let pair = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        Job {
            toolchain: Fingerprint(Digest::of(b"gcc")),
            argv: vec![b"gcc".to_vec(), b"-c".to_vec(), b"a.c".to_vec()],
            env: vec![
                pair("HOME", "/home/a"),
                pair("LANG", "C"),
                pair("PATH", "/usr/bin:/home/a/bin"),
                pair("TERM", "x"),
            ],
            cwd: b"/w".to_vec(),
            output_dirs: vec![AbsPath::new("/w").expect("normal")],
            umask: 0o22,
            merged_output: false,
            terminal: None,
            wall_ms_max: 1000,
            strict: false,
        }
    }

    fn file(name: &str, content: &[u8], mtime_s: i64, inode: u64) -> Entry {
        let size = content.len() as u64;
        let file = File { digest: Digest::of(content), size, mtime_s, mtime_ns: 2, executable: false, inode };
        Entry { path: AbsPath::new(format!("/w/{name}")).expect("normal"), node: Node::File(file) }
    }

    fn key(job: &Job, entries: &[Entry]) -> ActionKey {
        let keyed = entries.iter().map(|entry| (entry, EntryKey::of(entry)));
        ActionKey::of(job, keyed, |dir| dir == b"/usr/bin")
    }

    #[test]
    fn what_decides_a_result_changes_its_key() {
        let all = [file("a.c", b"1", 1, 1), file("b.h", b"2", 1, 2)];
        let base = key(&job(), &all);
        let mut others = vec![key(&job(), &all[..1]), key(&job(), &[all[0].clone(), file("b.h", b"3", 1, 2)])];
        others.push(key(&job(), &[all[0].clone(), file("c.h", b"2", 1, 2)]));
        let mut swapped = job();
        swapped.argv.swap(1, 2);
        others.push(key(&swapped, &all));
        others.push(key(&Job { toolchain: Fingerprint(Digest::of(b"clang")), ..job() }, &all));
        others.push(key(&Job { cwd: b"/x".to_vec(), ..job() }, &all));
        others.push(key(&Job { merged_output: true, ..job() }, &all));
        others.push(key(&Job { terminal: Some(Terminal { columns: 80, rows: 24 }), ..job() }, &all));
        let env = |name: &str, value: &str| {
            let mut job = job();
            job.env.retain(|(known, _)| known != name.as_bytes());
            job.env.push((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
            job.env.sort();
            key(&job, &all)
        };
        others.extend([env("LANG", "de_DE"), env("CPATH", "/x"), env("PATH", "/home/a/bin")]);
        let count = others.len();
        others.push(base);
        others.sort();
        others.dedup();
        assert_eq!(others.len(), count + 1);
        let link = |target: &str| Entry {
            path: AbsPath::new("/w/l").expect("normal"),
            node: Node::Symlink { target: target.into() },
        };
        assert_ne!(key(&job(), &[link("a")]), key(&job(), &[link("b")]));
    }

    #[test]
    fn what_no_compiler_sees_does_not() {
        let all = [file("a.c", b"1", 1, 1), file("b.h", b"2", 1, 2)];
        let base = key(&job(), &all);
        let mut other = Job { umask: 0o77, wall_ms_max: 1, strict: true, output_dirs: vec![], ..job() };
        assert_eq!(key(&other, &[file("a.c", b"1", 9, 8), file("b.h", b"2", 7, 6)]), base);
        for (name, value) in &mut other.env {
            match name.as_slice() {
                b"HOME" => *value = b"/home/b".to_vec(),
                b"PATH" => *value = b"/home/b/bin:/usr/bin:/nowhere".to_vec(),
                b"TERM" => *value = b"y".to_vec(),
                _ => {}
            }
        }
        assert_eq!(key(&other, &all), base);
        let seen = |term: &str| {
            let mut job = Job { terminal: Some(Terminal { columns: 80, rows: 24 }), ..job() };
            job.env.retain(|(name, _)| name != b"TERM");
            job.env.push((b"TERM".to_vec(), term.into()));
            key(&job, &all)
        };
        assert_ne!(seen("x"), seen("y"), "what only a terminal makes a difference of");
    }

    #[test]
    fn of_files_that_hold_the_same_it_counts_when_they_were_written_and_which_are_one() {
        let twins = |times: [i64; 2], inodes: [u64; 2]| {
            key(&job(), &[file("a.h", b"1", times[0], inodes[0]), file("b.h", b"1", times[1], inodes[1])])
        };
        assert_ne!(twins([1, 1], [1, 2]), twins([1, 2], [1, 2]));
        assert_ne!(twins([1, 1], [1, 2]), twins([1, 1], [1, 1]));
        assert_eq!(twins([1, 1], [1, 2]), twins([1, 1], [5, 6]));
        let one = |time| key(&job(), &[file("a.h", b"1", time, 1), file("a.h.gch", b"2", 1, 2)]);
        assert_ne!(one(1), one(2), "a precompiled header remembers when what it was made of was written");
    }
}
