//! What closures of a real project cost, when somebody wants to know: `MESH_CORPUS` names a directory of C++ sources that
//! are compiled with `-I` of that directory.

use super::disk::Counted;
use super::truth::system_dirs;
use super::{bytes, plan};
use crate::compiler::invocation::Family;
use crate::inputs::{Graph, Want};
use mesh_proto::{digest::Digest, job::Job, key::ActionKey, toolchain::Fingerprint};
use std::path::{Path, PathBuf};

/// Sources taken.
const SOURCES_MAX: usize = 400;

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() && !path.is_symlink() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "cc" || end == "cpp") && found.len() < SOURCES_MAX {
            found.push(path);
        }
    }
}

fn cpu_us() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e6 + now.tv_nsec as f64 / 1e3
}

/// Something to compile, of no great size.
fn job(cwd: &[u8]) -> Job {
    Job {
        toolchain: Fingerprint(Digest::of(b"gcc")),
        argv: vec![b"g++".to_vec(), b"-O2".to_vec(), b"-c".to_vec(), b"a.cc".to_vec()],
        env: vec![(b"LANG".to_vec(), b"C.UTF-8".to_vec()), (b"PATH".to_vec(), b"/usr/bin:/bin".to_vec())],
        cwd: cwd.to_vec(),
        output_dirs: Vec::new(),
        umask: 0,
        merged_output: false,
        terminal: None,
        wall_ms_max: 1,
        strict: false,
    }
}

/// One unit after the other, and what that cost each, on average.
fn measure(what: &str, graph: &mut Graph, world: &Counted, root: &Path, found: &[PathBuf], dirs: &[Vec<u8>]) {
    let (arrivals, cwd) = (graph.arrivals(), bytes(root));
    let (mut planned, mut proven, mut keyed, mut entries, mut units) = (0.0, 0.0, 0.0, 0, 0_u32);
    world.costs();
    for source in found {
        let plan = plan(source.strip_prefix(root).unwrap().to_str().unwrap(), &["."]);
        let mut want = Want {
            plan: &plan,
            cwd: &cwd,
            env: &[(b"LANG".to_vec(), b"C.UTF-8".to_vec())],
            system_dirs: dirs,
            locale_dirs: &[],
            family: Family::Gcc,
            requested_at: arrivals.arrive(),
        };
        let began = cpu_us();
        let closure = graph.closure(&want);
        planned += cpu_us() - began;
        let Ok(closure) = closure else { continue };
        want.requested_at = arrivals.arrive();
        let began = cpu_us();
        assert!(graph.still_fresh(&want, &closure));
        proven += cpu_us() - began;
        let job = job(&cwd);
        let began = cpu_us();
        std::hint::black_box(ActionKey::of(&job, closure.keyed(), |_| true));
        keyed += cpu_us() - began;
        entries += closure.entries.len();
        units += 1;
    }
    let (stats, lists, reads) = world.costs();
    let each = |sum: f64| sum / f64::from(units);
    eprintln!(
        "{what}: {units} of {} units, {} entries each; closure {:.1} µs, still_fresh {:.1} µs, key {:.1} µs of CPU each; \
        {stats} stats, {lists} listings, {reads} reads",
        found.len(),
        entries / units as usize,
        each(planned),
        each(proven),
        each(keyed),
    );
}

#[test]
fn what_the_closures_of_a_project_cost() {
    let Some(root) = std::env::var_os("MESH_CORPUS").map(PathBuf::from) else {
        eprintln!("skipped: MESH_CORPUS names no directory of sources");
        return;
    };
    let root = root.canonicalize().unwrap();
    let dirs = system_dirs("g++", "c++").expect("g++ is here");
    let mut found = Vec::new();
    sources(&root, &mut found);
    let mut world = Counted::new(0, |_| false);
    for is_deaf in [true, false] {
        world.is_deaf = is_deaf;
        let mut graph = Graph::with_world(Box::new(world.clone()));
        for round in 0..4 {
            let what = format!("round {round}{}", if is_deaf { ", without watches" } else { "" });
            measure(&what, &mut graph, &world, &root, &found, &dirs);
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("inputs");
        let began = cpu_us();
        graph.save_to(&file).unwrap();
        eprintln!("saved: {} bytes, {:.0} µs of CPU", file.metadata().unwrap().len(), cpu_us() - began);
        let mut graph = Graph::with_world(Box::new(world.clone()));
        graph.load_from(&file);
        measure("after a restart", &mut graph, &world, &root, &found, &dirs);
    }
}
