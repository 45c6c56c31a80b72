//! What a job costs beside its program: in a root of its own by the number of its files, in a template by none.

use crate::escape::attempt;
use crate::world::Alone;
use mesh::sandbox::policy::{Inputs, Place, What};
use std::os::fd::AsFd;

/// How many jobs a median is taken of.
const JOBS: usize = 40;

/// A job that does nothing, with this many files.
fn idle(files: usize) -> Alone {
    let mut alone = Alone::new(attempt().unwrap(), &["umask"]);
    std::fs::write(alone.dir.path().join("blob"), vec![b'x'; 8 << 10]).unwrap();
    let Inputs::Own { tree, .. } = &mut alone.policy.inputs else { panic!("it has one already") };
    tree.extend((0..files).map(|n| Place {
        path: format!("w/dir{:02}/header{n:04}.h", n / 20).into_bytes(),
        what: What::File { source: "blob".into(), size: 8 << 10, mtime_s: 0, mtime_ns: 0, executable: false },
        writable: false,
    }));
    alone
}

fn median(mut costs: Vec<u64>) -> u64 {
    costs.sort_unstable();
    costs[costs.len() / 2]
}

/// Processor time of building the root, microseconds.
fn in_a_root_of_its_own(files: usize) -> u64 {
    let alone = idle(files);
    median((0..JOBS).map(|_| alone.run().unwrap().cost.setup_cpu_us).collect())
}

/// The same in a template.
fn in_a_template(files: usize) -> u64 {
    let alone = idle(files);
    let (template, policy) = alone.template().unwrap();
    let (_open, cancelled) = rustix::pipe::pipe().unwrap();
    let run = || template.run(&policy, cancelled.as_fd()).unwrap();
    // The first waits for the tree.
    run();
    median((0..JOBS).map(|_| run().cost.setup_cpu_us).collect())
}

#[test]
fn a_job_in_a_template_costs_the_same_whatever_the_number_of_its_files() {
    if attempt().is_none() {
        return;
    }
    let own = [in_a_root_of_its_own(0), in_a_root_of_its_own(500)];
    let template = [in_a_template(0), in_a_template(500)];
    eprintln!("root of its own: {own:?} µs, template: {template:?} µs, for no files and 500");
    assert!(template[1] < template[0] * 2, "{template:?}");
    assert!(template[1] * 4 < own[1], "{template:?} {own:?}");
}
