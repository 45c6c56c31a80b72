//! What comes back of a job, and what makes it void, with and without an overlay.

use crate::escape::attempt;
use crate::world::{Client, Paths, World, abs, is_root};
use mesh::compiler::invocation::Family;
use mesh::sandbox::policy::{Limits, Without};
use mesh::worker::collect::CollectError;
use mesh::worker::run::{Form, OwnedOrder, Ran, RunError, run};
use mesh_proto::closure::{Entry, File, Node};
use mesh_proto::digest::Digest;
use mesh_proto::job::{Exit, Job, Refusal};
use mesh_proto::path::AbsPath;
use mesh_proto::toolchain::{Manifest, Part, PartNode};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) fn path(text: &str) -> AbsPath {
    AbsPath::new(text).unwrap()
}

/// A toolchain of one program: the attempts.
pub(crate) fn toolchain() -> Manifest {
    let mut paths = Paths::default();
    paths.add(attempt().unwrap());
    let part = |entry: Entry| match entry.node {
        Node::File(File { digest, size, executable, .. }) => {
            Part { path: entry.path, node: PartNode::File { digest, size, executable } }
        }
        Node::Symlink { target } => Part { path: entry.path, node: PartNode::Symlink { target } },
        Node::Directory => Part { path: entry.path, node: PartNode::Directory },
    };
    let parts = paths.entries().into_iter().map(part).collect();
    Manifest { driver: abs(&attempt().unwrap().canonicalize().unwrap()), facts: vec![], parts }
}

pub(crate) fn job(args: &[&str], output_dirs: &[&str]) -> Job {
    Job {
        toolchain: toolchain().fingerprint(),
        argv: std::iter::once(&"cc").chain(args).map(|arg| arg.as_bytes().to_vec()).collect(),
        env: vec![],
        cwd: b"/w/out".to_vec(),
        output_dirs: output_dirs.iter().map(|dir| path(dir)).collect(),
        umask: 0o022,
        merged_output: false,
        terminal: None,
        wall_ms_max: 20_000,
        strict: false,
    }
}

pub(crate) const PLACED: &[u8] = b"placed before";

pub(crate) fn file(at: &str, content: &[u8]) -> Entry {
    let (digest, size) = (Digest::of(content), content.len() as u64);
    let file = File { digest, size, mtime_s: 1_500_000_000, mtime_ns: 1, executable: false, inode: size };
    Entry { path: path(at), node: Node::File(file) }
}

/// An output directory with a file and a directory in it, and a file beside it.
fn entries() -> Vec<Entry> {
    let sub = Entry { path: path("/w/out/sub"), node: Node::Directory };
    vec![file("/w/out/placed", PLACED), sub, file("/w/beside", b"x")]
}

fn world() -> Option<[World; 2]> {
    attempt()?;
    let world = || {
        let world = World::new().unwrap();
        for content in [PLACED, b"x"] {
            world.blobs.put(&Digest::of(content), content).unwrap();
        }
        world
    };
    Some([world(), world().without(Without { overlay: true, ..Without::default() })])
}

/// The names of what comes back, with an `x` before those that are executable; or the error in the place of that.
fn collected(world: &World, what: &str, output_dirs: &[&str]) -> Result<Vec<String>, CollectError> {
    let run = |form| {
        // A source that the compiler would not preprocess, so that it need not say what it read.
        let job = job(&["odd", what, "none.s"], output_dirs);
        world.run_for(&world.client, form, &job, &entries(), &toolchain())
    };
    let strict = outputs(what, run(Form::Strict));
    // A job that misbehaves in a mirror runs once more without. What is another user's has its times from them alone.
    if what != "disguise" {
        assert_eq!(format!("{strict:?}"), format!("{:?}", outputs(what, run(Form::Mirror))), "{what}");
    }
    strict
}

fn outputs(what: &str, ran: Result<Ran, RunError>) -> Result<Vec<String>, CollectError> {
    match ran {
        Ok(ran) => {
            assert_eq!(ran.outcome.exit, Exit::Code(0), "{what}");
            assert_eq!(ran.outcome.outputs.len(), ran.files.len());
            let name = |output: &mesh_proto::job::Output| {
                format!("{}{:?}", if output.executable { "x " } else { "" }, output.path)
            };
            Ok(ran.outcome.outputs.iter().map(name).collect())
        }
        Err(RunError::Collect(error)) => Err(error),
        Err(error) => panic!("{what}: {error}"),
    }
}

#[test]
fn only_regular_files_of_output_directories_come_back() {
    let Some(worlds) = world() else { return };
    for world in worlds {
        let collected = |what| collected(&world, what, &["/w/out"]);
        for what in ["link", "pipe", "directory", "setuid", "setgid"] {
            assert!(matches!(collected(what), Err(CollectError::Kind(at)) if at == path("/w/out/x.o")), "{what}");
        }
        assert!(matches!(collected("many"), Err(CollectError::TooMany)));
        assert!(matches!(collected("huge"), Err(CollectError::TooLarge)));
        assert!(collected("swap").is_err());
        // The directory below the output directory is the job's under an ordinary user only, and then it is void.
        assert!(matches!(collected("program").unwrap().as_slice(), [one] if one == "x /w/out/x.o"));
        assert_eq!(collected("temporary").unwrap(), ["/w/out/x.o"]);
        // Another name of an input is a file with its bytes, and no name of anything here.
        assert_eq!(collected("hard_link").unwrap(), ["/w/out/x.o"]);
    }
}

/// Runs an attempt on outputs; its exit, and how many outputs it has.
fn ends(world: &World, form: Form, what: &str) -> (Exit, usize) {
    let ran = world.run_for(&world.client, form, &job(&["odd", what, "none.s"], &["/w/out"]), &entries(), &toolchain());
    ran.map(|ran| (ran.outcome.exit, ran.outcome.outputs.len())).unwrap()
}

#[test]
fn neither_a_device_nor_a_file_of_a_terabyte_comes_back() {
    let Some([world, _]) = world() else { return };
    for form in [Form::Strict, Form::Mirror] {
        // Stopped where they are made: what is there of it is an empty file.
        assert_eq!(ends(&world, form, "device"), (Exit::Code(255), 0), "{form:?}");
        assert_eq!(ends(&world, form, "sparse"), (Exit::Signal(25), 1), "{form:?}");
    }
    // Made where nothing stops them, they are refused by who collects them.
    let refused = |without, what: &str| {
        let world = World::new().unwrap().without(without);
        world.blobs.put(&Digest::of(PLACED), PLACED).unwrap();
        world.blobs.put(&Digest::of(b"x"), b"x").unwrap();
        [Form::Strict, Form::Mirror].map(|form| {
            let job = job(&["odd", what, "none.s"], &["/w/out"]);
            match world.run_for(&Client::default(), form, &job, &entries(), &toolchain()) {
                Err(RunError::Collect(error)) => error,
                other => panic!("{what}: {other:?}"),
            }
        })
    };
    let no_limits = Without { limits: true, ..Without::default() };
    assert!(matches!(refused(no_limits, "sparse"), [CollectError::TooLarge, CollectError::TooLarge]));
    // Only root makes devices, and no namespace makes it one.
    if is_root() {
        let open = Without { landlock: true, own_user: true, ..Without::default() };
        assert!(matches!(refused(open, "device"), [CollectError::Kind(_), CollectError::Kind(_)]));
    }
}

#[test]
fn a_nested_output_directory_gives_its_own_files() {
    let Some(worlds) = world() else { return };
    for world in worlds {
        let both = collected(&world, "below", &["/w/out", "/w/out/sub"]);
        assert_eq!(both.unwrap(), ["/w/out/sub/x.o"]);
        // Its other name: a link in its place is not followed by this machine.
        let error = collected(&world, "swap", &["/w/out", "/w/out/sub"]).unwrap_err();
        assert!(
            matches!(error, CollectError::Read { .. } | CollectError::Kind(_) | CollectError::Removed(_)),
            "{error}"
        );
    }
}

#[test]
fn a_changed_input_comes_back_an_unchanged_one_does_not_and_a_removed_one_voids_the_job() {
    let Some(worlds) = world() else { return };
    for world in worlds {
        let collected = |what| collected(&world, what, &["/w/out"]);
        for what in ["change", "touch", "disguise"] {
            assert_eq!(collected(what).unwrap(), ["/w/out/placed"], "{what}");
        }
        for what in ["open", "removed_own"] {
            assert!(collected(what).unwrap().is_empty(), "{what}");
        }
        assert!(matches!(collected("remove"), Err(CollectError::Removed(at)) if at == path("/w/out/placed")));
    }
}

#[test]
fn the_root_directory_can_be_an_output_directory() {
    let Some(worlds) = world() else { return };
    for world in worlds {
        let mut job = job(&["write", "/x.o"], &["/"]);
        let ran = world.run(&job, &entries(), &toolchain()).unwrap();
        let made: Vec<_> = ran.outcome.outputs.iter().map(|output| output.path.clone()).collect();
        assert_eq!((ran.outcome.exit, made), (Exit::Code(0), vec![path("/x.o")]), "{:?}", ran.outcome.text);
        job.output_dirs.clear();
        assert_eq!(world.run(&job, &entries(), &toolchain()).unwrap().outcome.exit, Exit::Code(1));
    }
}

#[test]
fn each_failure_is_the_refusal_that_the_client_can_act_on() {
    let Some([world, _]) = world() else { return };
    let refusal =
        |job: &Job, entries: &[Entry], toolchain: &Manifest| world.run(job, entries, toolchain).unwrap_err().refusal();
    let good = job(&["umask"], &["/w/out"]);
    assert_eq!(refusal(&good, &[file("/w/absent", b"nowhere")], &toolchain()), Refusal::Missing);
    assert_eq!(refusal(&Job { cwd: b"/absent".to_vec(), ..good.clone() }, &[], &toolchain()), Refusal::Malformed);
    assert_eq!(refusal(&Job { argv: vec![], ..good.clone() }, &[], &toolchain()), Refusal::Malformed);
    assert_eq!(refusal(&good, &[file("/w/x", b"x"), file("/w/x/y", b"x")], &toolchain()), Refusal::Malformed);
    let mut changed = toolchain();
    changed
        .parts
        .push(Part { path: path("/etc/hostname-that-is-not"), node: PartNode::Symlink { target: b"x".to_vec() } });
    assert_eq!(refusal(&good, &[], &changed), Refusal::Toolchain);
    let endless = Job { wall_ms_max: 300, ..job(&["stay", "/w/out/endless"], &["/w/out"]) };
    assert_eq!(refusal(&endless, &entries(), &toolchain()), Refusal::Limit);
    assert_eq!(refusal(&job(&["odd", "link"], &["/w/out"]), &entries(), &toolchain()), Refusal::Collect);
}

#[test]
fn inputs_that_do_not_fit_are_over_the_limit() {
    let Some([world, _]) = world() else { return };
    let large = vec![7; 1 << 20];
    world.blobs.put(&Digest::of(&large), &large).unwrap();
    let run = |world: &World| world.run(&job(&["umask"], &["/w/out"]), &[file("/w/large", &large)], &toolchain());
    assert_eq!(run(&world).unwrap().outcome.exit, Exit::Code(0));
    let World { worker, .. } = world;
    let worker = worker.with_limits(Limits { tree_bytes: 64 << 10, ..Limits::DEFAULT });
    assert_eq!(run(&World { worker, ..world }).unwrap_err().refusal(), Refusal::Limit);
}

#[test]
fn a_job_whose_future_is_dropped_is_cancelled() {
    let Some([world, _]) = world() else { return };
    let toolchain = Arc::new(toolchain());
    let order = OwnedOrder {
        job: job(&["stay", "/w/out/dropped"], &["/w/out"]),
        closure: world.client.closure(&entries()).to_vec(),
        fingerprint: toolchain.fingerprint(),
        toolchain,
        family: Family::Gcc,
        slot: crate::world::slot(),
        mirrors: None,
        is_own: false,
    };
    let (worker, blobs) = (Arc::new(world.worker), Arc::new(world.blobs));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let start = Instant::now();
    runtime.block_on(async {
        let job = run(Arc::clone(&worker), order, Arc::clone(&blobs));
        assert!(tokio::time::timeout(Duration::from_millis(300), job).await.is_err());
    });
    // Waits for the blocking thread, which ends only after the job's last process.
    drop(runtime);
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(Arc::strong_count(&worker), 1);
}
