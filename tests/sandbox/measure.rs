//! What a strict root costs. Prints figures; run it by name, with `--ignored --nocapture`.

use crate::escape::attempt;
use crate::world::World;
use mesh::sandbox::policy::Without;
use mesh_proto::closure::{Entry, File, Node};
use mesh_proto::digest::Digest;
use mesh_proto::job::Job;
use mesh_proto::path::AbsPath;
use mesh_proto::toolchain::{Manifest, Part, PartNode};
use std::time::Instant;

/// As many files as a C++ unit has, and as large: bytes.
const FILES: usize = 500;
const FILE_BYTES: usize = 18_000;
const RUNS: usize = 20;

/// User and system time of this process and of its children that have ended, microseconds.
fn cpu_us() -> [u64; 2] {
    let ticks = |text: &str| text.parse::<u64>().unwrap() * 10_000;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    [ticks(fields[11]) + ticks(fields[12]), ticks(fields[13]) + ticks(fields[14])]
}

fn job(toolchain: &Manifest) -> Job {
    Job {
        toolchain: toolchain.fingerprint(),
        argv: vec![b"cc".to_vec(), b"umask".to_vec()],
        env: vec![],
        cwd: b"/w".to_vec(),
        output_dirs: vec![AbsPath::new("/w/out").unwrap()],
        umask: 0o022,
        merged_output: false,
        terminal: None,
        wall_ms_max: 20_000,
    }
}

#[test]
#[ignore = "prints figures"]
fn a_strict_root_of_500_files() {
    let Some(program) = attempt() else { return };
    for (name, without) in [("overlay", false), ("binds", true)] {
        let world = World::new().unwrap().without(Without { overlay: without, ..Without::default() });
        let program = AbsPath::new(program.canonicalize().unwrap().into_os_string().into_encoded_bytes()).unwrap();
        let bytes = std::fs::read(std::ffi::OsStr::new(std::str::from_utf8(program.as_bytes()).unwrap())).unwrap();
        let node = PartNode::File { digest: Digest::of(&bytes), size: bytes.len() as u64, executable: true };
        let parts = vec![Part { path: program.clone(), node }];
        let toolchain = Manifest { driver: program, facts: vec![], parts };
        for files in [0, FILES] {
            let entry = |at: usize| {
                let content = format!("{at}\n{}", "x".repeat(FILE_BYTES)).into_bytes();
                let digest = Digest::of(&content);
                world.blobs.put(&digest, &content).unwrap();
                let size = content.len() as u64;
                let file = File { digest, size, mtime_s: 1, mtime_ns: 1, executable: false, inode: at as u64 };
                let path = AbsPath::new(format!("/usr/include/c++/{}/header_{at}.h", at % 40)).unwrap();
                Entry { path, node: Node::File(file) }
            };
            let entries: Vec<Entry> = (0..files).map(entry).collect();
            let mut stage: Vec<u64> = Vec::new();
            let (before, start) = (cpu_us(), Instant::now());
            for _ in 0..RUNS {
                let ran = world.run(&job(&toolchain), &entries, &toolchain).unwrap();
                stage.push(ran.outcome.usage.stage_us);
            }
            let (after, wall) = (cpu_us(), start.elapsed().as_micros() as usize / RUNS);
            stage.sort_unstable();
            let per_run = |at: usize| (after[at] - before[at]) / RUNS as u64;
            let (agent, children, stage) = (per_run(0), per_run(1), stage[RUNS / 2]);
            eprintln!("{name}, {files} files, us: agent {agent} CPU, job {children} CPU, stage {stage}, all {wall}");
        }
    }
}

#[test]
#[ignore = "prints figures"]
fn a_toolchains_tree() {
    let Some(world) = World::new() else { return };
    for driver in ["gcc", "clang"] {
        let Some(toolchain) = crate::world::toolchain(driver) else { return };
        let size = |part: &Part| if let PartNode::File { size, .. } = part.node { size } else { 0 };
        let bytes: u64 = toolchain.parts.iter().map(size).sum();
        let (before, start) = (cpu_us(), Instant::now());
        world.worker.prepare(&toolchain, &toolchain.fingerprint()).unwrap();
        let (wall, after) = (start.elapsed(), cpu_us());
        eprintln!(
            "{driver}: {} parts, {} MB: {} us CPU, {wall:?}",
            toolchain.parts.len(),
            bytes / 1_000_000,
            after[0] - before[0]
        );
    }
}
