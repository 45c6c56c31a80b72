//! The rung without namespaces, in a process that has what a container engine gives root by default and no more.
//!
//! Capabilities and the system call filter belong to threads, and what a thread starts inherits them: so a thread of the
//! test becomes the container's root, and the agent's side, the warden and the job are all below it.

use crate::compile::{check, sources, words};
use crate::escape::{attempt, result};
use crate::kill::processes_with;
use crate::world::{Alone, World, closure, is_root, job, mesh, skip, slot, toolchain};
use mesh::sandbox::needs::CAPABILITIES;
use mesh::sandbox::policy::{FIRST_LOW_USER, FIRST_USER, Identities, Inputs, Place, What, Without};
use mesh::sandbox::{self, Finished, Landlock, Rung, SandboxError, Step};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// What Docker gives root in a container by default: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap,
/// net_bind_service, net_raw, sys_chroot, mknod, audit_write, setfcap.
const DOCKER: &[u32] = &[0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31];

/// What the rung says that it needs.
fn needed() -> Vec<u32> {
    CAPABILITIES.iter().map(|capability| capability.number).collect()
}

/// Does something as root of a container with these capabilities.
fn in_container<T: Send>(capabilities: &[u32], work: impl FnOnce() -> T + Send) -> T {
    let restricted = || {
        restrict(capabilities);
        work()
    };
    let ended = std::thread::scope(|scope| scope.spawn(restricted).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn restrict(capabilities: &[u32]) {
    let set = capabilities.iter().fold(0_u64, |set, number| set | 1 << number);
    for bit in (0..64).filter(|bit| set & (1 << bit) == 0) {
        let removed = CapabilitySet::from_bits_retain(1 << bit);
        if rustix::thread::remove_capability_from_bounding_set(removed).is_err() {
            break;
        }
    }
    let set = CapabilitySet::from_bits_retain(set);
    let sets = CapabilitySets { effective: set, permitted: set, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).unwrap();
    seccompiler::apply_filter(&filter(&[(libc::SYS_clone3, vec![])], libc::ENOSYS)).unwrap();
    let mounts = [libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_fsopen, libc::SYS_open_tree];
    let mut refused: Vec<_> = mounts.map(|call| (call, vec![])).to_vec();
    refused.extend([libc::SYS_unshare, libc::SYS_setns].map(|call| (call, vec![])));
    let namespaces = [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];
    let has = |flag| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(flag), flag).unwrap();
    let flags = namespaces.map(|flag| SeccompRule::new(vec![has(flag)]).unwrap()).to_vec();
    refused.push((libc::SYS_clone, flags));
    seccompiler::apply_filter(&filter(&refused, libc::EPERM)).unwrap();
}

fn filter(calls: &[(i64, Vec<SeccompRule>)], errno: i32) -> seccompiler::BpfProgram {
    let rules: BTreeMap<i64, Vec<SeccompRule>> = calls.iter().cloned().collect();
    let refuse = SeccompAction::Errno(errno.cast_unsigned());
    let arch = std::env::consts::ARCH.try_into().unwrap();
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).unwrap().try_into().unwrap()
}

/// The program of this file's own attempts.
fn own_attempt() -> &'static Path {
    static BUILT: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, program) = BUILT.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let (source, program) = (dir.path().join("container.c"), dir.path().join("container"));
        std::fs::write(&source, include_str!("attempts/container.c")).unwrap();
        let gcc = Command::new("gcc").args(["-static", "-O1", "-o"]).arg(&program).arg(&source).status();
        assert!(gcc.unwrap().success());
        for path in [dir.path(), &program] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        (dir, program)
    });
    program
}

/// A job of this rung.
fn alone(program: &Path, args: &[&str]) -> Alone {
    let mut alone = Alone::new(program, args);
    alone.policy.identity = Identities::Chroot { first: FIRST_USER }.of_slot(slot());
    alone
}

/// Runs an attempt as a job of this rung; its status and words.
fn attempted(without: Without, program: &Path, args: &[&str]) -> (u8, String) {
    let mut alone = alone(program, args);
    alone.policy.without = without;
    let finished = alone.run().unwrap();
    assert_eq!(finished.enforced.rung, Rung::Container);
    result(&finished)
}

/// Whether root has run this suite, and it runs as an ordinary user now.
fn is_once_more() -> bool {
    std::env::var_os("MESH_TEST_BIN").is_some()
}

macro_rules! needs_root {
    () => {
        if !is_root() {
            // As an ordinary user the suite runs once more: there it is no gap.
            return if !is_once_more() {
                skip("not root: this rung is root's in a container")
            };
        }
        if attempt().is_none() {
            return;
        }
    };
}

#[test]
fn where_nothing_else_stands_the_last_rung_does_and_gives_the_same_bytes() {
    needs_root!();
    in_container(DOCKER, || {
        for higher in [Identities::PerSlot, Identities::Shared, Identities::Namespace] {
            let mut alone = Alone::new(attempt().unwrap(), &["umask"]);
            alone.policy.identity = higher.of_slot(slot());
            let refused = alone.run().unwrap_err();
            assert!(matches!(refused, SandboxError::Setup { step: Step::Namespaces, .. }), "{higher:?}: {refused}");
        }
        same_bytes(true);
    });
}

/// Real compilers as jobs of a worker that found this rung by itself.
fn same_bytes(devices: bool) {
    let Some(mut world) = World::new() else { return };
    let capable = world.worker.capable();
    assert_eq!(capable.identities, Identities::Chroot { first: FIRST_USER });
    assert_eq!((capable.enforced.rung, capable.enforced.devices), (Rung::Container, devices));
    assert!(capable.enforced.seccomp && capable.enforced.landlock != Landlock::Absent);
    world.is_without_overlay = true;
    let cwd = world.dir.path().join("w");
    std::fs::create_dir(&cwd).unwrap();
    sources(&cwd);
    for (cc, cxx) in [("gcc", "g++"), ("clang", "clang++")] {
        check(&world, &format!("{cc} -O2 -g -Wall -MD -c unit.c -o unit.o"), &cwd, &["unit.o", "unit.d"]);
        // The outputs of the first build lie there now.
        check(&world, &format!("{cc} -O2 -g -Wall -MD -c unit.c -o unit.o"), &cwd, &["unit.o", "unit.d"]);
        check(&world, &format!("{cxx} -O0 -g -MMD -MF deps -c unit.cpp -o unit.o"), &cwd, &["unit.o", "deps"]);
    }
    // That it was this rung, by what ran it.
    let Some(toolchain) = toolchain("gcc") else { return };
    let argv = words("gcc -g -c unit.c -o unit.o");
    let entries = closure(&argv, &cwd, &[]);
    world.stock(&entries);
    let ran = world.run(&job(&toolchain, &argv, &cwd, &[&cwd]), &entries, &toolchain).unwrap();
    assert_eq!(ran.enforced.rung, Rung::Container);
    assert_eq!(ran.outcome.outputs.len(), 1);
    eprintln!("container rung: a job of {} files took {:?}", entries.len(), ran.outcome.usage);
    let roots = world.dir.path().join("cache").join(mesh::store::layout::TOOLCHAINS).join("roots");
    drop(ran);
    assert_eq!(std::fs::read_dir(roots).unwrap().count(), 0, "a job's root was left");
}

#[test]
fn what_the_list_names_is_what_the_rung_needs() {
    needs_root!();
    in_container(&needed(), || same_bytes(true));
    for capability in CAPABILITIES {
        let others: Vec<u32> = needed().into_iter().filter(|number| *number != capability.number).collect();
        if !capability.must {
            in_container(&others, || same_bytes(false));
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let refused = in_container(&others, || sandbox::probe(mesh(), dir.path())).unwrap_err();
        let tried: Vec<Rung> = refused.tried.iter().map(|tried| tried.rung).collect();
        assert_eq!(tried, [Rung::Namespaces, Rung::Container]);
        assert_eq!(refused.tried[1].step, Some(Step::Privileges));
        assert!(refused.to_string().contains(&format!("CAP_{}", capability.name)), "{refused}");
    }
}

/// A root whose container knows the lowest users only has jobs of those.
#[test]
fn the_lowest_users_do_as_well() {
    needs_root!();
    let mut alone = alone(own_attempt(), &["who"]);
    let identity = Identities::Chroot { first: FIRST_LOW_USER }.of_slot(4095);
    assert!(identity.id() < 65_533);
    alone.policy.identity = identity;
    let id = identity.id();
    assert_eq!(in_container(DOCKER, || result(&alone.run().unwrap())), (0, format!("{id} {id} {id} 0\n")));
}

#[test]
fn it_is_a_user_of_its_own_with_nothing_open_and_cannot_go_back() {
    needs_root!();
    in_container(DOCKER, || {
        assert_eq!(attempted(Without::default(), own_attempt(), &["descriptors"]).1, "0 1 2 \n");
        let (_, who) = attempted(Without::default(), own_attempt(), &["who"]);
        let ids: Vec<u32> = who.split_whitespace().map(|word| word.parse().unwrap()).collect();
        assert!(ids[..3].iter().all(|id| *id >= FIRST_USER && *id == ids[0]) && ids[3] == 0, "{who}");
        let open = Without { seccomp: true, landlock: true, read_only: true, limits: true, ..Without::default() };
        for without in [Without::default(), open] {
            for back in ["root", "leave", "parent"] {
                let (code, text) = attempted(without, own_attempt(), &[back]);
                assert!(code == 1 && text.contains("Operation not permitted"), "{back}: {text}");
            }
        }
        // The user it is that keeps it there.
        assert_eq!(attempted(Without { own_user: true, ..open }, own_attempt(), &["leave"]).0, 0);
        assert_eq!(attempted(Without::default(), attempt().unwrap(), &["environment"]).1, "none\n");
    });
}

#[test]
fn it_sees_its_own_root_and_writes_its_outputs_alone() {
    needs_root!();
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let secret = secret.to_str().unwrap();
    in_container(DOCKER, || {
        let program = attempt().unwrap();
        let open = Without { seccomp: true, landlock: true, ..Without::default() };
        for without in [Without::default(), open] {
            for path in [secret, "/etc/shadow", "/proc/self/status", "/proc/1/environ", "/sys/kernel/notes"] {
                assert_eq!(
                    attempted(without, program, &["read", path]),
                    (1, "open: No such file or directory\n".into())
                );
            }
            // Landlock or not: what it did not make is root's.
            for path in ["/made", "/program", "/dev/made", "/proc/made"] {
                assert_eq!(attempted(without, program, &["write", path]).0, 1, "{path}");
            }
            for path in ["/out/made", "/tmp/made"] {
                assert_eq!(attempted(without, program, &["write", path]).0, 0, "{path}");
            }
        }
        let listed = |path| {
            let (_, text) = attempted(Without::default(), program, &["list", path]);
            let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
            names.sort_unstable();
            names.join(" ")
        };
        assert_eq!(listed("/"), "dev out proc program tmp");
        assert_eq!((listed("/proc"), listed("/dev")), (String::new(), "full null random urandom zero".into()));
        assert_eq!(attempted(Without::default(), own_attempt(), &["null"]).0, 0);
        assert_eq!(attempted(open, program, &["device", "/out/null"]).0, 1);
    });
    assert!(Command::new(attempt().unwrap()).args(["read", secret]).output().unwrap().status.success());
}

#[test]
fn it_reaches_no_network_and_no_namespace() {
    needs_root!();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let name = format!("mesh-container-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    let neither = Without { seccomp: true, landlock: true, ..Without::default() };
    in_container(DOCKER, || {
        let program = attempt().unwrap();
        for (attempt, with) in [("tcp", &port), ("abstract", &name)] {
            let (code, text) = attempted(Without::default(), program, &[attempt, with]);
            assert_eq!((code, text.as_str()), (1, "socket: Operation not permitted\n"));
            // No namespace is behind it: the filter it is that holds here.
            assert_eq!(attempted(neither, program, &[attempt, with]).0, 0, "{attempt}");
        }
        for attempt in ["ptrace", "mount", "mount_directly", "clone"] {
            assert_eq!(attempted(Without::default(), program, &[attempt]).0, 1, "{attempt}");
        }
        let calls = [
            libc::SYS_shmget,
            libc::SYS_msgget,
            libc::SYS_semget,
            libc::SYS_mq_open,
            libc::SYS_keyctl,
            // The toolchain's files are the same inodes for all jobs.
            libc::SYS_inotify_init1,
        ];
        let calls = calls.map(|call| call.to_string());
        let args: Vec<&str> = std::iter::once("calls").chain(calls.iter().map(String::as_str)).collect();
        let (_, text) = attempted(Without::default(), program, &args);
        assert!(text.lines().all(|line| line.ends_with(" 1")), "{text}");
        let (_, text) = attempted(Without { seccomp: true, ..Without::default() }, program, &args);
        assert!(text.lines().filter(|line| !line.ends_with(" 1")).count() >= 4, "{text}");
    });
}

#[test]
fn it_touches_no_process_of_another_job_or_of_this_machine() {
    needs_root!();
    let mut victim = Command::new("sleep").arg("60").spawn().unwrap();
    in_container(DOCKER, || {
        let marker = format!("another-{}", slot());
        let other = alone(attempt().unwrap(), &["stay", &format!("/out/{marker}")]);
        let (cancel, cancelled) = cancelling();
        std::thread::scope(|scope| {
            // A thread of this one, so it is in the container too.
            let running = scope.spawn(|| sandbox::run(mesh(), &other.policy, cancelled.as_fd()));
            let theirs = eventually(|| {
                let found = processes_with(&format!("/out/{marker}"));
                // It and two that it has left alone; those between them end at once.
                std::thread::sleep(Duration::from_millis(100));
                (found.len() == 3 && found == processes_with(&format!("/out/{marker}"))).then_some(found)
            });
            let open = Without { seccomp: true, landlock: true, read_only: true, limits: true, ..Without::default() };
            for pid in theirs.iter().map(|pid| pid.as_raw_nonzero().get()).chain([victim.id().cast_signed()]) {
                let pid = pid.to_string();
                for attempt in ["signal", "slow"] {
                    let (code, text) = attempted(open, own_attempt(), &[attempt, &pid]);
                    assert!(code == 1 && text.contains("Operation not permitted"), "{attempt}: {text}");
                }
                // With Landlock it is not told apart from one that does not exist, or is refused all the same.
                assert_eq!(attempted(Without::default(), own_attempt(), &["signal", &pid]).0, 1);
            }
            // All that it may signal is itself, and the end of its own job ends no other.
            assert_eq!(attempted(open, own_attempt(), &["everybody"]), (0, "still\n".into()));
            assert_eq!(processes_with(&format!("/out/{marker}")).len(), theirs.len());
            drop(cancel);
            assert!(matches!(running.join().unwrap(), Err(SandboxError::Cancelled)));
        });
        assert_eq!(processes_with(&format!("/out/{marker}")), []);
    });
    assert!(victim.try_wait().unwrap().is_none());
    victim.kill().unwrap();
    victim.wait().unwrap();
}

#[test]
fn all_of_it_dies_with_the_job_however_it_ends() {
    needs_root!();
    in_container(DOCKER, || {
        let left = alone(attempt().unwrap(), &["daemonise", "left-in-container"]);
        assert_eq!(result(&left.run().unwrap()).0, 0);
        assert_eq!(processes_with("left-in-container"), []);
        let mut late = alone(attempt().unwrap(), &["stay", "/out/late-in-container"]);
        late.policy.limits.wall_ms = 400;
        assert!(matches!(late.run(), Err(SandboxError::Wall)));
        assert_eq!(processes_with("/out/late-in-container"), []);
        let mut storm = alone(own_attempt(), &["storm", "600"]);
        storm.policy.limits.wall_ms = 700;
        assert!(matches!(storm.run(), Err(SandboxError::Wall)));
        let user = storm.policy.identity.id();
        assert_eq!(processes_of(user), 0, "a storm was left");
    });
}

/// Two agents in one container count their users from the same one on.
#[test]
fn a_user_that_another_agents_job_has_is_left_to_it() {
    needs_root!();
    in_container(DOCKER, || {
        let marker = format!("first-{}", slot());
        let first = alone(attempt().unwrap(), &["stay", &format!("/out/{marker}")]);
        let (cancel, cancelled) = cancelling();
        std::thread::scope(|scope| {
            let running = scope.spawn(|| sandbox::run(mesh(), &first.policy, cancelled.as_fd()));
            eventually(|| (processes_with(&format!("/out/{marker}")).len() >= 3).then_some(()));
            let mut second = alone(own_attempt(), &["who"]);
            second.policy.identity = first.policy.identity;
            let finished = second.run().unwrap();
            let (owner, (code, who)) = (finished.remains.as_ref().unwrap().owner(), result(&finished));
            assert!(owner != first.policy.identity.id() && code == 0, "{who}");
            assert!(who.starts_with(&format!("{owner} {owner} ")), "{who}");
            assert!(processes_with(&format!("/out/{marker}")).len() >= 3);
            drop(cancel);
            assert!(running.join().unwrap().is_err());
        });
    });
}

/// A warden that is killed can end nobody: the next job of the same slot begins by that.
#[test]
fn what_a_killed_warden_left_is_gone_before_the_slot_is_used_again() {
    needs_root!();
    in_container(DOCKER, || {
        let marker = format!("orphan-{}", slot());
        let first = alone(attempt().unwrap(), &["stay", &format!("/out/{marker}")]);
        let (cancel, cancelled) = cancelling();
        std::thread::scope(|scope| {
            let running = scope.spawn(|| sandbox::run(mesh(), &first.policy, cancelled.as_fd()));
            let program = eventually(|| processes_with(&format!("/out/{marker}")).first().copied());
            eventually(|| (processes_of(first.policy.identity.id()) >= 3).then_some(()));
            let warden = parent_of(program);
            rustix::process::kill_process(warden, rustix::process::Signal::KILL).unwrap();
            // Those that stay hold its output open: it is its wall time that ends such a job for the agent.
            eventually(|| (processes_with(&format!("/out/{marker}")).len() >= 2).then_some(()));
            drop(cancel);
            assert!(running.join().unwrap().is_err());
        });
        let user = first.policy.identity.id();
        assert!(processes_of(user) > 0, "the control: nobody was left");
        let mut next = alone(own_attempt(), &["who"]);
        next.policy.identity = first.policy.identity;
        assert_eq!(result(&next.run().unwrap()).0, 0);
        assert_eq!(processes_of(user), 0);
    });
}

#[test]
fn whatever_it_made_is_removed_and_what_it_may_use_is_bounded() {
    needs_root!();
    in_container(DOCKER, || {
        let deep = alone(own_attempt(), &["deep", "3000"]);
        let finished: Finished = deep.run().unwrap();
        assert_eq!(result(&finished).0, 0);
        let roots = deep.dir.path().join("roots");
        assert_eq!(std::fs::read_dir(&roots).unwrap().count(), 1);
        drop(finished);
        assert_eq!(std::fs::read_dir(&roots).unwrap().count(), 0);
        let forks = |without| {
            let mut alone = alone(attempt().unwrap(), &["forks", "300"]);
            alone.policy.without = without;
            let finished = alone.run().unwrap();
            String::from_utf8_lossy(&finished.text[0].bytes).trim().parse::<u64>().unwrap()
        };
        assert!((64..=128).contains(&forks(Without::default())));
        assert_eq!(forks(Without { limits: true, ..Without::default() }), 300);
        let eaten = |without| {
            let mut alone = alone(attempt().unwrap(), &["eat", "256"]);
            alone.policy.limits.memory_bytes = 128 << 20;
            alone.policy.without = without;
            result(&alone.run().unwrap()).1.trim().parse::<u64>().unwrap()
        };
        assert!((1..=128).contains(&eaten(Without::default())));
        assert_eq!(eaten(Without { limits: true, ..Without::default() }), 256);
    });
}

#[test]
fn a_job_that_fills_the_disk_is_ended() {
    needs_root!();
    // Memory that nobody else uses now: on a disk that others write to at the same time, theirs would count.
    let Ok(dir) = tempfile::Builder::new().tempdir_in("/dev/shm") else { return skip("there is no /dev/shm") };
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::create_dir(dir.path().join("base")).unwrap();
    std::fs::copy(attempt().unwrap(), dir.path().join("base/program")).unwrap();
    in_container(DOCKER, || {
        let fill = |without| {
            let mut alone = alone(attempt().unwrap(), &["fill", "/out", "64"]);
            alone.policy.base = dir.path().join("base").into_os_string().into_encoded_bytes();
            alone.policy.limits.tree_bytes = 16 << 20;
            alone.policy.without = without;
            alone.run().map(|finished| result(&finished))
        };
        let ended = fill(Without::default()).unwrap_err();
        assert!(matches!(ended, SandboxError::Setup { step: Step::Place, .. }), "{ended}");
        assert_eq!(fill(Without { limits: true, ..Without::default() }).unwrap(), (0, "64\n".into()));
    });
}

/// Processor time of building the root and wall time of the whole job, microseconds: the median of some jobs that do
/// nothing, with this many files, whose roots are built in memory or on disk.
fn cost(identities: Identities, in_memory: bool, files: usize) -> (u64, u64) {
    let mut alone = Alone::new(attempt().unwrap(), &["umask"]);
    let memory = in_memory.then(|| tempfile::Builder::new().tempdir_in("/dev/shm").unwrap());
    if let Some(dir) = &memory {
        std::fs::create_dir(dir.path().join("base")).unwrap();
        std::fs::copy(attempt().unwrap(), dir.path().join("base/program")).unwrap();
        alone.policy.base = dir.path().join("base").into_os_string().into_encoded_bytes();
    }
    alone.policy.identity = identities.of_slot(slot());
    std::fs::write(alone.dir.path().join("blob"), vec![b'x'; 8 << 10]).unwrap();
    let Inputs::Own { tree, .. } = &mut alone.policy.inputs else { panic!("it has one already") };
    tree.extend((0..files).map(|n| Place {
        path: format!("w/dir{:02}/header{n:04}.h", n / 20).into_bytes(),
        what: What::File { source: "blob".into(), size: 8 << 10, mtime_s: 0, mtime_ns: 0, executable: false },
        writable: false,
    }));
    let mut costs: Vec<(u64, u64)> = (0..21)
        .map(|_| {
            let start = std::time::Instant::now();
            let setup_cpu_us = alone.run().unwrap().cost.setup_cpu_us;
            (setup_cpu_us, u64::try_from(start.elapsed().as_micros()).unwrap())
        })
        .collect();
    costs.sort_unstable();
    costs[costs.len() / 2]
}

#[test]
fn where_its_cache_is_in_memory_a_job_costs_about_what_it_costs_elsewhere() {
    needs_root!();
    if !Path::new("/dev/shm").is_dir() {
        return skip("there is no /dev/shm");
    }
    let own = Identities::Chroot { first: FIRST_USER };
    let namespaces = [0, 500].map(|files| cost(Identities::PerSlot, false, files));
    let (memory, disk) = in_container(DOCKER, || {
        ([0, 500].map(|files| cost(own, true, files)), [0, 500].map(|files| cost(own, false, files)))
    });
    eprintln!(
        "(processor µs, wall µs) for no files and 500: namespaces {namespaces:?}, container in memory {memory:?}, on disk {disk:?}"
    );
    assert!(memory[1].0 < namespaces[1].0 * 3, "{namespaces:?} {memory:?}");
}

fn processes_of(user: u32) -> usize {
    let is_users = |status: String| {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("").to_owned();
        field("Uid:").split_whitespace().next() == Some(&user.to_string()) && !field("State:").contains('Z')
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter(|entry| std::fs::read_to_string(entry.path().join("status")).is_ok_and(is_users)).count()
}

fn parent_of(pid: rustix::process::Pid) -> rustix::process::Pid {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    rustix::process::Pid::from_raw(parent.trim().parse().unwrap()).unwrap()
}

/// The ends of a pipe: a job is cancelled when the first is dropped.
fn cancelling() -> (std::io::PipeWriter, std::io::PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    (writer, reader)
}

fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..2000 {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("it never came");
}

/// `mesh doctor` as who `prepare` makes it, in a container with these capabilities: its exit code and its checks.
fn doctor(capabilities: &[u32], prepare: impl Fn(&mut Command) + Send + Sync) -> (Option<i32>, serde_json::Value) {
    let dir = tempfile::tempdir().unwrap();
    // The program may lie where other users cannot go.
    let program = dir.path().join("mesh");
    std::fs::copy(mesh(), &program).unwrap();
    let own = dir.path().join("own");
    std::fs::create_dir(&own).unwrap();
    std::os::unix::fs::chown(&own, Some(1000), Some(1000)).unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let output = in_container(capabilities, || {
        let mut command = Command::new(&program);
        command.args(["doctor", "--json"]).env("MESH_DIR", &own).current_dir("/");
        prepare(&mut command);
        command.output().unwrap()
    });
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn the_doctor_names_the_rung_or_what_is_in_its_way_and_the_remedy() {
    use std::os::unix::process::CommandExt;
    needs_root!();
    let of = |said: &serde_json::Value, id: &str| {
        let checks = said["checks"].as_array().unwrap();
        let found = checks.iter().find(|check| check["id"] == id).unwrap_or_else(|| panic!("no {id} in {said}"));
        ["level", "text", "hint"].map(|key| found[key].as_str().unwrap().to_owned())
    };
    let (code, said) = doctor(DOCKER, |_| {});
    let [level, text, _] = of(&said, "sandbox");
    assert!(code == Some(0) && level == "ok" && text.starts_with("a changed root"), "{said}");
    let (code, said) = doctor(&[0, 1, 3, 6, 7, 8], |_| {});
    let [level, text, hint] = of(&said, "sandbox");
    assert!(code == Some(5) && level == "fail" && text.contains("CAP_SYS_CHROOT"), "{said}");
    assert!(hint.ends_with("mesh setup container"), "{hint}");
    let (code, said) = doctor(DOCKER, |command| {
        command.uid(1000).gid(1000);
    });
    let [level, text, hint] = of(&said, "sandbox");
    assert!(code == Some(5) && level == "fail" && text.contains("namespaces"), "{said}");
    assert!(hint.ends_with("mesh setup container"), "{hint}");
}
