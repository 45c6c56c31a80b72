//! Control groups of the kernel's own, as far as this machine lets root make any.

use crate::escape::{attempt, result};
use crate::kill::processes_with;
use crate::world::{Alone, is_root, mesh, skip};
use mesh::sandbox::{self, Group, Groups, SandboxError};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

/// A group of this test's own, removed at its end.
struct Own(PathBuf);

impl Drop for Own {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Below the top of the tree that the kernel shows; `None`, said aloud, where there is none.
fn own_group(name: &str) -> Option<Own> {
    if !is_root() {
        // Run once more as an ordinary user, it is no gap.
        if std::env::var_os("MESH_TEST_BIN").is_none() {
            skip("not root: no control group can be made");
        }
        return None;
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mut words = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let Some(at) = words.find(|words| words[2] == "cgroup2").map(|words| words[1].to_owned()) else {
        skip("there is no cgroup version 2 here");
        return None;
    };
    let dir = PathBuf::from(at).join(format!("mesh-test-{name}-{}", std::process::id()));
    if let Err(error) = std::fs::create_dir(&dir) {
        skip(&format!("no control group can be made: {error}"));
        return None;
    }
    Some(Own(dir))
}

#[test]
fn a_job_is_in_its_group_with_all_that_it_starts_and_ends_with_it() {
    let (Some(program), Some(own)) = (attempt(), own_group("whole")) else { return };
    for in_template in [false, true] {
        let marker = format!("/out/grouped-{in_template}");
        let alone = Alone::new(program, &["stay", &marker]);
        let dir = own.0.join("job");
        let group = Arc::new(Group::uncounted(dir.clone()).unwrap());
        let (_open, cancelled) = rustix::pipe::pipe().unwrap();
        let ended = std::thread::scope(|scope| {
            let running = scope.spawn(|| {
                if !in_template {
                    return sandbox::run_in(mesh(), &alone.policy, Some(&group), cancelled.as_fd());
                }
                let (template, policy) = alone.template()?;
                template.begin(&policy, Some(Arc::clone(&group)))?.finish(cancelled.as_fd())
            });
            let inside = || std::fs::read_to_string(dir.join("cgroup.procs")).unwrap().lines().count();
            // Warden, init, the program, and two that it has left alone.
            for _ in 0..1000 {
                if processes_with(&marker).len() >= 3 && inside() >= 5 {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            assert!(inside() >= 5, "{}", inside());
            std::fs::write(dir.join("cgroup.kill"), "1").unwrap();
            running.join().unwrap()
        });
        assert!(matches!(ended, Err(SandboxError::Lost)), "{ended:?}");
        assert_eq!(processes_with(&marker), []);
        drop(group);
        assert!(!dir.exists(), "the group was left");
    }
}

#[test]
fn want_of_memory_is_told_from_an_error_of_the_compiler() {
    let (Some(program), Some(own)) = (attempt(), own_group("memory")) else { return };
    if let Err(error) = std::fs::write(own.0.join("cgroup.subtree_control"), "+memory +pids") {
        // How a machine boots is nothing that the one who runs the suite can change: said aloud, and no failure.
        eprintln!("skipped: this machine counts memory in no cgroup version 2: {error}");
        return;
    }
    let groups = Groups::below(own.0.clone());
    let fill = |mebibytes: u64, in_template: bool| {
        let mut alone = Alone::new(program, &["fill", "/tmp", "64"]);
        alone.policy.limits.tree_bytes = 128 << 20;
        let mut counted = alone.policy.limits;
        (counted.memory_bytes, counted.tree_bytes) = (0, mebibytes << 20);
        let group = Arc::new(groups.job(&counted).unwrap());
        let (_open, cancelled) = rustix::pipe::pipe().unwrap();
        let ended = if in_template {
            let (template, policy) = alone.template().unwrap();
            template.begin(&policy, Some(group)).unwrap().finish(cancelled.as_fd())
        } else {
            sandbox::run_in(mesh(), &alone.policy, Some(&group), cancelled.as_fd())
        };
        ended.map(|finished| result(&finished))
    };
    for in_template in [false, true] {
        assert!(matches!(fill(32, in_template), Err(SandboxError::Memory)));
        assert_eq!(fill(512, in_template).unwrap(), (0, "64\n".into()));
    }
}
