//! The cache key of a job (AGREE).

use crate::{closure::Entry, digest::Digest, job::Job};

/// BLAKE3, under a context of its own, over everything that decides the result: toolchain, arguments, environment,
/// working directory, mask, terminal, and the closure with every file's content and identity. Times of modification
/// count too, because compilers look at them.
#[must_use]
pub fn key<'a>(job: &Job, closure: impl Iterator<Item = &'a Entry>) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("mesh 2026 job key v1");
    let mut feed = |bytes: Vec<u8>| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(&bytes);
    };
    // Neither how long it may take nor what kind of root it runs in changes the result.
    let job = Job { wall_ms_max: 0, strict: false, ..job.clone() };
    feed(postcard::to_stdvec(&job).expect("a job has no type that postcard cannot write"));
    let mut entries: Vec<&Entry> = closure.collect();
    entries.sort();
    for entry in entries {
        feed(postcard::to_stdvec(entry).expect("an entry has no type that postcard cannot write"));
    }
    Digest(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        closure::{File, Node},
        path::AbsPath,
        toolchain::Fingerprint,
    };

    fn job() -> Job {
        Job {
            toolchain: Fingerprint(Digest::of(b"gcc")),
            argv: vec![b"gcc".to_vec(), b"-c".to_vec(), b"a.c".to_vec()],
            env: vec![(b"LANG".to_vec(), b"C".to_vec())],
            cwd: b"/w".to_vec(),
            output_dirs: vec![AbsPath::new("/w").expect("normal")],
            umask: 0o22,
            merged_output: false,
            terminal: None,
            wall_ms_max: 1000,
            strict: false,
        }
    }

    fn file(name: &str, content: &[u8]) -> Entry {
        let file = File {
            digest: Digest::of(content),
            size: content.len() as u64,
            mtime_s: 1,
            mtime_ns: 2,
            executable: false,
            inode: 3,
        };
        Entry { path: AbsPath::new(format!("/w/{name}")).expect("normal"), node: Node::File(file) }
    }

    #[test]
    fn the_order_of_the_closure_does_not_matter_and_everything_else_does() {
        let (a, b) = (file("a.c", b"1"), file("b.h", b"2"));
        let base = key(&job(), [&a, &b].into_iter());
        assert_eq!(base, key(&job(), [&b, &a].into_iter()));
        assert_ne!(base, key(&job(), [&a].into_iter()));
        assert_ne!(base, key(&job(), [&a, &file("b.h", b"3")].into_iter()));
        let mut other = job();
        other.argv.swap(1, 2);
        assert_ne!(base, key(&other, [&a, &b].into_iter()));
        assert_ne!(base, key(&Job { cwd: b"/x".to_vec(), ..job() }, [&a, &b].into_iter()));
        assert_ne!(base, key(&Job { env: vec![], ..job() }, [&a, &b].into_iter()));
    }
}
