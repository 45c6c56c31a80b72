//! Tables of what a mirror decides (DECIDE).

use super::*;
use mesh_proto::toolchain::Part;

fn path(text: &str) -> AbsPath {
    AbsPath::new(text).unwrap()
}

fn file(at: &str, content: &str, inode: u64) -> Entry {
    let digest = Digest::of(content.as_bytes());
    let size = content.len() as u64;
    Entry { path: path(at), node: Node::File(File { digest, size, mtime_s: 0, mtime_ns: 0, executable: false, inode }) }
}

fn directory(at: &str) -> Entry {
    Entry { path: path(at), node: Node::Directory }
}

fn link(at: &str, target: &str) -> Entry {
    Entry { path: path(at), node: Node::Symlink { target: target.into() } }
}

fn closure(entries: &[(u32, Entry)]) -> Closure {
    Arc::new(entries.iter().map(|(number, entry)| (*number, Arc::new(entry.clone()))).collect())
}

fn job(output_dirs: &[&str]) -> Job {
    Job {
        toolchain: Fingerprint(Digest([0; 32])),
        argv: vec![b"cc".to_vec()],
        env: vec![],
        cwd: b"/w".to_vec(),
        output_dirs: output_dirs.iter().map(|dir| path(dir)).collect(),
        umask: 0,
        merged_output: false,
        terminal: None,
        wall_ms_max: 1,
        strict: false,
    }
}

fn tools(parts: &[Entry]) -> Arc<Tools> {
    let part = |entry: &Entry| {
        let node = match &entry.node {
            Node::File(file) => PartNode::File { digest: file.digest, size: file.size, executable: true },
            Node::Symlink { target } => PartNode::Symlink { target: target.clone() },
            Node::Directory => PartNode::Directory,
        };
        Part { path: entry.path.clone(), node }
    };
    let parts = parts.iter().map(part).collect();
    Arc::new(Tools::new(&Manifest { driver: path("/usr/bin/cc"), facts: vec![], parts }))
}

/// A client's side of a mirror.
struct Client {
    mirror: Mirror,
    gone: Numbers,
    tools: Arc<Tools>,
}

impl Client {
    fn new() -> Self {
        let parts = [file("/usr/lib/cc1", "cc1", 1), link("/lib", "usr/lib")];
        Self { mirror: Mirror::default(), gone: Numbers::default(), tools: tools(&parts) }
    }

    fn ask(&mut self, entries: &[(u32, Entry)]) -> Verdict {
        self.ask_for(&job(&["/w"]), entries)
    }

    fn ask_for(&mut self, job: &Job, entries: &[(u32, Entry)]) -> Verdict {
        let fingerprint = Fingerprint(Digest([7; 32]));
        self.mirror.admit(job, &closure(entries), &self.gone, (&fingerprint, &self.tools), &mut |_| true)
    }

    #[track_caller]
    fn run(&mut self, entries: &[(u32, Entry)]) -> (u64, Vec<String>) {
        match self.ask(entries) {
            Verdict::Run(run) => (run.job, changes(&run.update)),
            other => panic!("{other:?}"),
        }
    }

    fn take_back(&mut self, numbers: &[u32]) {
        numbers.iter().for_each(|number| self.gone.add(*number));
        self.mirror.gone(numbers);
    }
}

/// An update as words.
fn changes(update: &Update) -> Vec<String> {
    let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let place = |place: &Place| match &place.what {
        What::Directory => format!("+{}/", text(&place.path)),
        What::File { size, .. } => format!("+{} {size}", text(&place.path)),
        What::HardLink { to } => format!("+{} = {}", text(&place.path), text(to)),
        What::Symlink { target } => format!("+{} -> {}", text(&place.path), text(target)),
    };
    update.remove.iter().map(|path| format!("-{}", text(path))).chain(update.place.iter().map(place)).collect()
}

#[test]
fn what_is_missing_is_placed_once() {
    let mut client = Client::new();
    let all = [(0, file("/w/b.h", "bb", 1)), (1, link("/w/a", "b.h")), (2, directory("/w/d"))];
    assert_eq!(client.run(&all).1, ["+w/a -> b.h", "+w/b.h 2", "+w/d/"]);
    assert_eq!(client.run(&all).1, Vec::<String>::new());
    assert_eq!(client.run(&[(2, directory("/w/d")), (5, file("/x", "x", 5))]).1, ["+x 1"]);
}

#[test]
fn what_was_taken_back_goes_with_the_directories_that_led_to_it_alone() {
    let mut client = Client::new();
    let (job, _) = client.run(&[(0, file("/w/a/b/c.h", "c", 1)), (1, file("/w/x.h", "x", 2)), (2, directory("/w/e"))]);
    client.mirror.ended(job);
    client.take_back(&[0, 2, 2]);
    assert_eq!(client.run(&[(1, file("/w/x.h", "x", 2))]).1, ["-w/a/b/c.h", "-w/a/b", "-w/a", "-w/e"]);
    assert!(!client.mirror.is_directory(b"/w/a") && client.mirror.is_directory(b"/w"));
}

/// Whoever finds that a directory has vanished does not look into it any more.
#[test]
fn what_lies_in_a_directory_that_was_taken_back_goes_with_it() {
    let all = [(3, directory("/v")), (4, file("/v/y.h", "y", 3)), (5, link("/v/a/b", "x")), (6, file("/vy", "y", 4))];
    for gone in [&[3][..], &[3, 4], &[4, 3, 5]] {
        let mut client = Client::new();
        let (job, _) = client.run(&all);
        client.take_back(gone);
        // A job that reads something in it keeps all of it, and nobody else runs here.
        assert_eq!(client.ask(&all[3..]), Verdict::Strict(Why::Conflict, Update::default()));
        client.mirror.ended(job);
        let mut removed = client.run(&all[3..]).1;
        removed.sort_unstable();
        assert_eq!(removed, ["-v", "-v/a", "-v/a/b", "-v/y.h"]);
        // What is still true in it is placed again for who reads it.
        if gone == [3] {
            assert_eq!(client.run(&all[1..2]).1, ["+v/y.h 1"]);
        }
    }
}

#[test]
fn numbers_that_were_taken_back_do_not_run() {
    let mut client = Client::new();
    client.take_back(&[0]);
    assert_eq!(client.ask(&[(0, file("/w/a", "a", 1))]), Verdict::Strict(Why::Gone, Update::default()));
    assert!(matches!(client.ask(&[(1, file("/w/a", "a", 1))]), Verdict::Run(_)));
}

#[test]
fn what_a_running_job_reads_does_not_change() {
    let (old, new) = ([(0, file("/w/a", "a", 1)), (1, directory("/w"))], [(2, file("/w/a", "aa", 1))]);
    let mut client = Client::new();
    let (reader, _) = client.run(&old);
    for _ in 0..CONFLICTS_MAX {
        assert!(!client.mirror.is_contended());
        assert_eq!(client.ask(&new), Verdict::Strict(Why::Conflict, Update::default()));
    }
    assert!(client.mirror.is_contended());
    // Taken back, it is in everybody's way.
    client.take_back(&[0]);
    assert_eq!(client.ask(&[]), Verdict::Strict(Why::Conflict, Update::default()));
    client.mirror.ended(reader);
    assert_eq!(client.run(&new).1, ["-w/a", "+w/a 2"]);
    // New paths, and another name of the same directory, take nothing from anybody.
    let mut client = Client::new();
    client.run(&old);
    assert_eq!(client.run(&[(3, directory("/w")), (4, file("/w/b", "b", 2))]).1, ["+w/", "+w/b 1"]);
}

#[test]
fn another_file_at_a_path_replaces_the_first_even_if_that_was_not_taken_back() {
    let mut client = Client::new();
    let (job, _) = client.run(&[(0, file("/w/a", "a", 1))]);
    client.mirror.ended(job);
    let (job, changed) = client.run(&[(1, file("/w/a", "aa", 1))]);
    assert_eq!(changed, ["+w/a 2"]);
    client.mirror.ended(job);
    assert_eq!(client.run(&[(0, file("/w/a", "a", 1))]).1, ["+w/a 1"]);
}

#[test]
fn one_inode_of_the_client_is_one_inode_here() {
    let mut client = Client::new();
    let (job, changed) = client.run(&[(0, file("/w/a", "x", 7)), (1, file("/w/b", "x", 7)), (2, file("/w/c", "x", 8))]);
    assert_eq!(changed, ["+w/a 1", "+w/b = w/a", "+w/c 1"]);
    client.mirror.ended(job);
    // The first name is gone, the inode is not.
    client.take_back(&[0]);
    let (job, changed) = client.run(&[(3, file("/w/d", "x", 7))]);
    assert_eq!(changed, ["-w/a", "+w/d = w/b"]);
    client.mirror.ended(job);
    // Another file has its number now.
    assert_eq!(client.run(&[(4, file("/w/e", "other", 7)), (5, file("/w/f", "other", 7))]).1, ["+w/e 5", "+w/f = w/e"]);
}

#[test]
fn a_directory_and_a_file_at_one_path_need_a_fresh_mirror() {
    for (first, then) in [
        (file("/w/a", "a", 1), directory("/w/a")),
        (file("/w/a", "a", 1), file("/w/a/b", "b", 2)),
        (link("/w/a", "b"), file("/w/a/b", "b", 2)),
        (directory("/w/a"), file("/w/a", "a", 1)),
        (file("/w/a/b", "b", 2), link("/w/a", "b")),
    ] {
        let mut client = Client::new();
        let (job, _) = client.run(&[(0, first.clone())]);
        client.mirror.ended(job);
        assert_eq!(client.ask(&[(1, then.clone())]), Verdict::Fresh(Why::Structure), "{first:?} {then:?}");
        // Unless the first was taken back.
        let mut client = Client::new();
        let (job, _) = client.run(&[(0, first.clone())]);
        client.mirror.ended(job);
        client.take_back(&[0]);
        assert!(matches!(client.ask(&[(1, then.clone())]), Verdict::Run(_)), "{first:?} {then:?}");
    }
}

#[test]
fn nothing_hides_a_toolchain_from_its_jobs() {
    let strict = |verdict: &Verdict| matches!(verdict, Verdict::Strict(Why::Toolchain, _));
    for hiding in [
        file("/usr/lib/cc1", "cc1", 1),
        file("/usr/lib", "x", 1),
        directory("/lib"),
        file("/lib/x", "x", 1),
        link("/lib", "other"),
        link("/usr/lib/cc1", "x"),
    ] {
        let mut client = Client::new();
        assert!(strict(&client.ask(&[(0, hiding.clone())])), "{hiding:?}");
        // Also for those that do not name it.
        assert!(strict(&client.ask(&[])), "{hiding:?}");
        client.take_back(&[0]);
        assert!(matches!(client.ask(&[]), Verdict::Run(_)), "{hiding:?}");
        // And whichever comes first.
        let mut client = Client::new();
        client.run(&[]);
        assert!(strict(&client.ask(&[(0, hiding.clone())])), "{hiding:?}");
        client.take_back(&[0]);
        assert!(matches!(client.ask(&[]), Verdict::Run(_)), "{hiding:?}");
    }
    let mut client = Client::new();
    let harmless = [(0, directory("/usr")), (1, directory("/usr/lib")), (2, link("/lib", "usr/lib"))];
    client.run(&[(3, file("/usr/lib/x.h", "x", 1))]);
    client.run(&harmless);
    client.take_back(&[1]);
    client.mirror.ended(0);
    client.mirror.ended(1);
    assert!(matches!(client.ask(&[(0, directory("/usr")), (3, file("/usr/lib/x.h", "x", 1))]), Verdict::Run(_)));
}

#[test]
fn odd_missing_and_too_many_entries_run_elsewhere() {
    let mut client = Client::new();
    assert!(matches!(client.ask(&[(0, file("/proc/x", "x", 1))]), Verdict::Strict(Why::Odd, _)));
    assert!(matches!(client.ask(&[(0, link("/w/x", ""))]), Verdict::Strict(Why::Odd, _)));
    let fingerprint = Fingerprint(Digest([7; 32]));
    let absent = closure(&[(0, file("/w/x", "x", 1))]);
    let mut has = |_: &Digest| false;
    let tools = (&fingerprint, &Arc::clone(&client.tools));
    let verdict = client.mirror.admit(&job(&[]), &absent, &Numbers::default(), tools, &mut has);
    assert!(matches!(verdict, Verdict::Strict(Why::Missing, _)));
    let large = |number: u32| {
        let mut entry = file(&format!("/w/{number}"), "x", u64::from(number));
        if let Node::File(file) = &mut entry.node {
            file.size = mesh_proto::limits::BLOB_BYTES_MAX;
        }
        (number, entry)
    };
    let fit = u32::try_from(MIRROR_BYTES_MAX / mesh_proto::limits::BLOB_BYTES_MAX).unwrap();
    let all: Vec<_> = (0..=fit).map(large).collect();
    assert!(matches!(client.ask(&all), Verdict::Strict(Why::Full, _)), "a fresh one would be as full");
    client.run(&all[..1]);
    assert_eq!(client.ask(&all), Verdict::Fresh(Why::Full));
}

#[test]
fn output_directories_lead_through_directories() {
    let outputs = |verdict: Verdict| match verdict {
        Verdict::Run(run) => Ok((run.output_dirs, run.temp_dirs)),
        Verdict::Strict(why, _) | Verdict::Fresh(why) => Err(why),
    };
    let mut client = Client::new();
    let there = [(0, file("/w/file", "x", 1)), (1, link("/w/link", "file")), (2, link("/tmp", "w/tmp"))];
    let of = |texts: &[&str]| texts.iter().map(|text| path(text)).collect::<BTreeSet<_>>();
    assert_eq!(outputs(client.ask_for(&job(&["/w/out"]), &there)), Ok((of(&["/w/out"]), of(&["/w/tmp"]))));
    for bad in ["/w/file", "/w/file/x", "/w/link", "/lib/x", "/usr/lib/cc1", "/dev/x"] {
        assert_eq!(outputs(client.ask_for(&job(&[bad]), &there)), Err(Why::Outputs), "{bad}");
    }
}

#[test]
fn a_list_is_covered_by_the_closure_and_the_toolchain_through_the_links_of_either() {
    let mut client = Client::new();
    let all = [
        (0, file("/w/a.c", "a", 1)),
        (1, file("/w/inc/x.h", "x", 2)),
        (2, link("/w/l", "inc")),
        (3, link("/w/inc/y.h", "../inc/x.h")),
        (4, link("/home", "/w")),
    ];
    let others = [(5, file("/w/other.h", "o", 3)), (6, link("/w/m", "inc")), (7, link("/w/loop", "loop"))];
    client.run(&others);
    client.run(&all);
    let (closure, tools) = (closure(&all), Arc::clone(&client.tools));
    let covers = |cwd: &str, text: &str| client.mirror.covers(&closure, &tools, cwd.as_bytes(), text.as_bytes());
    for (cwd, text) in [
        ("/w", "a.c"),
        ("/w", "./inc//x.h"),
        ("/w", "l/x.h"),
        ("/w", "l/../inc/x.h"),
        ("/w", "inc/y.h"),
        ("/home", "a.c"),
        ("/home/l", "../a.c"),
        ("/w", "/home/l/y.h"),
        ("/w", "/lib/cc1"),
        ("/w", "/usr/bin/../lib/cc1"),
    ] {
        // A directory of the toolchain that nothing leads through is not there.
        assert_eq!(covers(cwd, text), text != "/usr/bin/../lib/cc1", "{cwd} {text}");
    }
    for text in ["other.h", "m/x.h", "absent.h", "inc", "loop/x", "a.c/..", "a.c/../a.c", "/lib/x", "", "/"] {
        assert!(!covers("/w", text), "{text}");
    }
}
