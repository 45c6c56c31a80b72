//! What a hostile compiler would try, each refused in the sandbox and each seen to succeed without what refuses it.
//!
//! `Alone` runs `attempts/attempt.c` in an otherwise empty root; [`at_home`] runs the same program outside.

use crate::world::{Alone, World, apart, is_root, skip};
use mesh::sandbox::policy::{Inputs, Limits, Place, What, Without};
use mesh::sandbox::{Exit, Finished, Landlock, SandboxError};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// All barriers stand.
pub(crate) const NONE: Without = Without {
    seccomp: false,
    landlock: false,
    read_only: false,
    limits: false,
    overlay: false,
    own_root: false,
    own_user: false,
    no_new_privs: false,
    mount_flags: false,
    process_namespace: false,
    network_namespace: false,
    ipc_namespace: false,
    uts_namespace: false,
    hidden_init: false,
    proc_subset: false,
};
const NO_SECCOMP: Without = Without { seccomp: true, ..NONE };
const NO_LANDLOCK: Without = Without { landlock: true, ..NONE };
const NO_READ_ONLY: Without = Without { read_only: true, ..NONE };
const NO_LIMITS: Without = Without { limits: true, ..NONE };

/// The program of all attempts; `None`, said aloud, where it cannot be built or run.
pub(crate) fn attempt() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<(tempfile::TempDir, PathBuf)>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        // Only to see that there is a sandbox at all.
        World::new()?;
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let (source, program) = (dir.path().join("attempt.c"), dir.path().join("attempt"));
        std::fs::write(&source, include_str!("attempts/attempt.c")).unwrap();
        let gcc = Command::new("gcc").args(["-static", "-O1", "-o"]).arg(&program).arg(&source).status();
        if !gcc.is_ok_and(|status| status.success()) {
            return None;
        }
        // Whatever the mask of who runs the suite.
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        Some((dir, program))
    });
    if built.is_none() {
        skip("there is no sandbox, or gcc cannot link statically");
    }
    built.as_ref().map(|(_, program)| program.as_path())
}

/// Exit status and output of an attempt in the sandbox: in a root of its own, and in a template.
pub(crate) fn in_both_forms(without: Without, args: &[&str]) -> [(u8, String); 2] {
    let mut alone = Alone::new(attempt().unwrap(), args);
    alone.policy.without = without;
    [alone.run(), alone.run_in_template()].map(|finished| result(&finished.unwrap()))
}

/// The same, where both must be equal but for the order of lines.
pub(crate) fn inside(without: Without, args: &[&str]) -> (u8, String) {
    let [strict, template] = in_both_forms(without, args);
    let sorted = |(code, text): &(u8, String)| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        (*code, lines)
    };
    assert_eq!(sorted(&strict), sorted(&template), "in a template: {args:?}");
    strict
}

pub(crate) fn result(finished: &Finished) -> (u8, String) {
    let Exit::Code(code) = finished.exit else { panic!("{:?}", finished.exit) };
    let text: Vec<u8> = finished.text.iter().flat_map(|chunk| chunk.bytes.clone()).collect();
    (code, String::from_utf8_lossy(&text).into_owned())
}

/// The same attempt outside of any sandbox.
pub(crate) fn at_home(args: &[&str]) -> bool {
    Command::new(attempt().unwrap()).args(args).output().unwrap().status.success()
}

macro_rules! needs_sandbox {
    () => {
        if attempt().is_none() {
            return;
        }
    };
}

#[test]
fn it_has_no_user_no_group_no_capability_and_both_filters() {
    needs_sandbox!();
    // A template holds itself to most of the filter.
    for ((code, status), filters) in in_both_forms(NONE, &["read", "/proc/self/status"]).into_iter().zip(["2", "3"]) {
        assert_eq!(code, 0);
        let field = |name: &str| {
            let line = status.lines().find(|line| line.split(':').next() == Some(name));
            let line = line.unwrap_or_else(|| panic!("no {name}"));
            line.split(':').nth(1).unwrap().split_whitespace().collect::<Vec<_>>()
        };
        for ids in ["Uid", "Gid"] {
            assert!(field(ids).iter().all(|id| id.parse::<u32>().unwrap() >= 65_534), "{ids} {:?}", field(ids));
        }
        assert!(field("Groups").is_empty(), "{:?}", field("Groups"));
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(u64::from_str_radix(field(set)[0], 16), Ok(0), "{set}");
        }
        let held = (field("NoNewPrivs"), field("Seccomp"), field("Seccomp_filters"));
        assert_eq!(held, (vec!["1"], vec!["2"], vec![filters]));
        assert_eq!(field("NSpid").last(), Some(&"2"));
    }
}

#[test]
fn landlock_is_enforced_as_far_as_the_kernel_knows_it() {
    needs_sandbox!();
    let finished = Alone::new(attempt().unwrap(), &["environment"]).run().unwrap();
    assert!(finished.enforced.seccomp && finished.enforced.overlay);
    assert_ne!(finished.enforced.landlock, Landlock::Absent);
    assert_eq!(finished.enforced.user_namespace, !is_root());
}

#[test]
fn it_cannot_read_a_file_of_this_machine() {
    needs_sandbox!();
    let dir = apart();
    let mine = dir.path().join("secret");
    std::fs::write(&mine, "secret").unwrap();
    let mine = mine.to_str().unwrap();
    for path in ["/etc/shadow", "/etc/passwd", "/proc/1/environ", "/proc/kallsyms", "/sys/kernel/notes", mine] {
        assert_eq!(inside(NONE, &["read", path]).0, 1, "{path}");
        assert_eq!(inside(Without { seccomp: true, landlock: true, read_only: true, ..NONE }, &["read", path]).0, 1);
    }
    assert!(at_home(&["read", mine]) && at_home(&["read", "/etc/passwd"]));
    // The names `machine` that these need are not there otherwise.
    for path in ["/etc/passwd", mine] {
        assert_eq!(of_machine(NONE, "read", path), [1, 1], "{path}");
        assert_eq!(of_machine(Without { own_root: true, ..NONE }, "read", path), [0, 0], "{path}");
    }
    // Its own root holds what it should, and nothing else.
    let (_, listed) = inside(NONE, &["list", "/"]);
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, ["dev", "out", "proc", "program", "tmp"]);
    let (_, devices) = inside(NONE, &["list", "/dev"]);
    assert_eq!(devices.lines().count(), 5, "{devices}");
}

/// Exit statuses of an attempt on a path of this machine, where a root that is not left has it: both forms.
pub(crate) fn of_machine(without: Without, what: &str, path: &str) -> [u8; 2] {
    let [own, template] = ["/machine", "/machine/machine"].map(|at| format!("{at}{path}"));
    let [(own, _), _] = in_both_forms(without, &[what, &own]);
    let [_, (template, _)] = in_both_forms(without, &[what, &template]);
    [own, template]
}

#[test]
fn it_is_nobody_to_the_files_of_this_machine_even_if_it_could_name_them() {
    needs_sandbox!();
    let named = Without { own_root: true, ..NONE };
    let dir = apart();
    let private = dir.path().join("private");
    std::fs::write(&private, "secret").unwrap();
    std::fs::set_permissions(&private, PermissionsExt::from_mode(0o600)).unwrap();
    // Under an ordinary user it is that user outside: only names keep it from that user's files.
    let private = private.to_str().unwrap();
    assert_eq!(of_machine(named, "read", private), [u8::from(is_root()); 2]);
    if is_root() {
        assert_eq!(of_machine(named, "read", "/etc/shadow"), [1, 1]);
        let is_agent = Without { own_user: true, ..named };
        for path in ["/etc/shadow", private] {
            assert_eq!(of_machine(is_agent, "read", path), [0, 0], "{path}");
        }
    }
    // Landlock holds writing there by itself, as does the read-only mount where the files are its own root's.
    let open = dir.path().join("open");
    std::fs::write(&open, "").unwrap();
    std::fs::set_permissions(&open, PermissionsExt::from_mode(0o666)).unwrap();
    let path = open.to_str().unwrap();
    let is_agent = Without { own_user: true, ..named };
    assert_eq!(of_machine(is_agent, "write", path), [1, 1]);
    assert_eq!(std::fs::read(&open).unwrap(), b"");
    assert_eq!(of_machine(Without { landlock: true, ..named }, "write", path), [0, 0]);
    assert_eq!(std::fs::read(&open).unwrap(), b"x");
}

#[test]
fn it_cannot_write_outside_of_its_output_directories() {
    needs_sandbox!();
    for path in ["/made", "/program", "/dev/made", "/proc/self/comm"] {
        assert_eq!(inside(NONE, &["write", path]).0, 1, "{path}");
    }
    // Either barrier holds by itself.
    assert_eq!(inside(NO_LANDLOCK, &["write", "/made"]).0, 1);
    assert_eq!(inside(NO_READ_ONLY, &["write", "/made"]).0, 1);
    // Without both, only the owner's rights are left, and an ordinary user's job has its owner's.
    let neither = Without { landlock: true, read_only: true, ..NONE };
    assert_eq!(inside(neither, &["write", "/made"]).0, u8::from(is_root()));
    assert_eq!(inside(Without { own_user: true, ..neither }, &["write", "/made"]).0, 0);
    for path in ["/out/made", "/tmp/made"] {
        assert_eq!(inside(NONE, &["write", path]).0, 0, "{path}");
    }
}

#[test]
fn it_reaches_no_network() {
    needs_sandbox!();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    assert_eq!(inside(NONE, &["tcp", &port]), (1, "socket: Operation not permitted\n".into()));
    let (code, text) = inside(NO_SECCOMP, &["tcp", &port]);
    assert!(code == 1 && text.starts_with("connect"), "{text}");
    assert!(at_home(&["tcp", &port]));
    // The filter, the namespace and Landlock: each holds by itself.
    let open = Without { seccomp: true, network_namespace: true, landlock: true, ..NONE };
    for one in [
        Without { seccomp: false, ..open },
        Without { network_namespace: false, ..open },
        Without { landlock: false, ..open },
    ] {
        assert_eq!(inside(one, &["tcp", &port]).0, 1, "{one:?}");
    }
    assert_eq!(inside(open, &["tcp", &port]).0, 0);
}

#[test]
fn it_reaches_no_abstract_socket() {
    needs_sandbox!();
    let name = format!("mesh-test-{}-{}", std::process::id(), crate::world::slot());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    assert_eq!(inside(NONE, &["abstract", &name]).0, 1);
    let (code, text) = inside(NO_SECCOMP, &["abstract", &name]);
    assert!(code == 1 && text.starts_with("connect"), "{text}");
    assert!(at_home(&["abstract", &name]));
    let open = Without { seccomp: true, network_namespace: true, landlock: true, ..NONE };
    for one in [
        Without { seccomp: false, ..open },
        Without { network_namespace: false, ..open },
        Without { landlock: false, ..open },
    ] {
        assert_eq!(inside(one, &["abstract", &name]).0, 1, "{one:?}");
    }
    assert_eq!(inside(open, &["abstract", &name]).0, 0);
}

#[test]
fn it_traces_nobody() {
    needs_sandbox!();
    assert_eq!(inside(NONE, &["ptrace"]), (1, "ptrace: Operation not permitted\n".into()));
    assert_eq!(inside(NO_SECCOMP, &["ptrace"]).0, 0);
}

#[test]
fn it_cannot_look_into_or_end_its_first_process() {
    needs_sandbox!();
    for without in [NONE, Without { seccomp: true, landlock: true, ..NONE }] {
        let (code, text) = inside(without, &["init"]);
        assert!(code == 1 && text.lines().count() == 3, "{text}");
    }
    assert_eq!(inside(Without { hidden_init: true, ..NONE }, &["init"]).0, 0);
}

#[test]
fn it_sees_and_kills_nobody() {
    needs_sandbox!();
    let mut victim = Command::new("sleep").arg("60").spawn().unwrap();
    let pid = victim.id().to_string();
    let open = Without { seccomp: true, landlock: true, read_only: true, limits: true, ..NONE };
    for without in [NONE, open] {
        assert_eq!(inside(without, &["kill", &pid]), (1, "kill: No such process\n".into()));
    }
    // Among this machine's processes Landlock and, under root, its user each hold by themselves.
    let among = Without { process_namespace: true, ..NONE };
    assert_eq!(inside(among, &["kill", &pid]).0, 1);
    assert_eq!(inside(Without { own_user: true, ..among }, &["kill", &pid]).0, 1);
    if is_root() {
        assert_eq!(inside(Without { landlock: true, ..among }, &["kill", &pid]).0, 1);
    }
    assert!(victim.try_wait().unwrap().is_none());
    let mut other = Command::new("sleep").arg("60").spawn().unwrap();
    let open = Without { own_user: true, landlock: true, ..among };
    for run in [Alone::run, Alone::run_in_template] {
        let mut alone = Alone::new(attempt().unwrap(), &["kill", &other.id().to_string()]);
        alone.policy.without = open;
        assert_eq!(result(&run(&alone).unwrap()).0, 0);
        other.wait().unwrap();
        other = Command::new("sleep").arg("60").spawn().unwrap();
    }
    other.kill().unwrap();
    other.wait().unwrap();
    let (_, listed) = inside(NONE, &["list", "/proc"]);
    let pids: Vec<&str> = listed.lines().filter(|name| name.parse::<u32>().is_ok()).collect();
    assert_eq!(pids, ["1", "2"]);
    assert!(!listed.contains("meminfo"), "{listed}");
    assert!(victim.try_wait().unwrap().is_none());
    assert!(at_home(&["kill", &pid]));
    victim.wait().unwrap();
}

#[test]
fn it_mounts_nothing_and_enters_no_namespace() {
    needs_sandbox!();
    assert_eq!(inside(NONE, &["mount"]), (1, "unshare: Operation not permitted\n".into()));
    assert_eq!(inside(NONE, &["clone"]), (1, "clone: Operation not permitted\n".into()));
    assert_eq!(inside(NO_SECCOMP, &["mount_directly"]).0, 1);
    let neither = Without { seccomp: true, landlock: true, ..NONE };
    assert_eq!((inside(neither, &["mount"]).0, inside(neither, &["clone"]).0), (0, 0));
    // Without any namespace of its own making: capabilities, Landlock and the filter each hold by themselves.
    let open = Without { own_user: true, ..neither };
    for one in
        [Without { own_user: false, ..open }, Without { landlock: false, ..open }, Without { seccomp: false, ..open }]
    {
        assert_eq!(inside(one, &["mount_directly"]).0, 1, "{one:?}");
    }
    assert_eq!(inside(open, &["mount_directly"]).0, 0);
    assert_eq!(inside(NONE, &["chroot"]).0, 1);
    assert_eq!(inside(Without { own_user: false, ..open }, &["chroot"]).0, 1);
    assert_eq!(inside(Without { seccomp: false, ..open }, &["chroot"]).0, 1);
    assert_eq!(inside(open, &["chroot"]).0, 0);
}

#[test]
fn it_makes_no_device() {
    needs_sandbox!();
    let device = |without| in_both_forms(without, &["device", "/out/null"]).map(|(code, text)| (code, text));
    let refused_at = |without, at: &str| {
        for (code, text) in device(without) {
            assert!(code == 1 && text.starts_with(at), "{without:?}: {text}");
        }
    };
    let open = Without { landlock: true, own_user: true, mount_flags: true, ..NONE };
    refused_at(NONE, "mknod");
    refused_at(Without { own_user: false, ..open }, "mknod");
    refused_at(Without { landlock: false, ..open }, "mknod");
    if !is_root() {
        // No capability that a namespace gives is enough.
        return refused_at(open, "mknod");
    }
    refused_at(Without { mount_flags: false, ..open }, "open");
    assert_eq!(device(open).map(|(code, _)| code), [0, 0]);
}

#[test]
fn it_gains_nothing_from_set_user_id() {
    needs_sandbox!();
    // A program that is root's and set-user-id can only be made by root.
    if !is_root() {
        return;
    }
    let gains = |without| {
        let mut alone = Alone::new(attempt().unwrap(), &["setuid", "/setuid"]);
        let inner = alone.dir.path().join("base/setuid");
        std::fs::copy(attempt().unwrap(), &inner).unwrap();
        std::fs::set_permissions(&inner, PermissionsExt::from_mode(0o4755)).unwrap();
        alone.policy.without = without;
        [alone.run(), alone.run_in_template()].map(|finished| result(&finished.unwrap()).0 == 0)
    };
    assert_eq!(gains(NONE), [false; 2]);
    // What is executed may give more only where neither filter stands; the mounts and the process each hold by themselves.
    let open = Without { seccomp: true, landlock: true, no_new_privs: true, mount_flags: true, ..NONE };
    assert_eq!(gains(Without { no_new_privs: false, ..open }), [false; 2]);
    assert_eq!(gains(Without { mount_flags: false, ..open }), [false; 2]);
    assert_eq!(gains(open), [true; 2]);
}

#[test]
fn system_calls_that_no_compiler_needs_are_refused_and_unknown_ones_do_not_exist() {
    needs_sandbox!();
    let refused = [
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_process_vm_readv,
        libc::SYS_setns,
        libc::SYS_open_by_handle_at,
        libc::SYS_memfd_create,
        libc::SYS_mq_open,
    ]
    .map(|call| call.to_string());
    let errors = |without, calls: &[String]| {
        let args: Vec<&str> = std::iter::once("calls").chain(calls.iter().map(String::as_str)).collect();
        let (_, text) = inside(without, &args);
        text.lines().map(|line| line.split(' ').nth(1).unwrap().parse::<i32>().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(errors(NONE, &refused), [libc::EPERM; 11]);
    let without = errors(NO_SECCOMP, &refused);
    assert!(without.iter().filter(|error| **error != libc::EPERM).count() >= 7, "{without:?}");
    // clone3, the first call that is not known, and x32's getpid.
    let unknown = [libc::SYS_clone3, 470, 0x4000_0027].map(|call| call.to_string());
    assert_eq!(errors(NONE, &unknown), [libc::ENOSYS; 3]);
    assert_ne!(errors(NO_SECCOMP, &unknown)[0], libc::ENOSYS);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn another_architectures_system_calls_end_it() {
    needs_sandbox!();
    let alone = Alone::new(attempt().unwrap(), &["int80"]);
    for finished in [alone.run(), alone.run_in_template()] {
        let exit = finished.unwrap().exit;
        assert!(
            matches!(exit, Exit::Signal(signal) if [libc::SIGSYS, libc::SIGSEGV].contains(&i32::from(signal))),
            "{exit:?}"
        );
    }
}

#[test]
fn a_fork_bomb_is_bounded() {
    needs_sandbox!();
    let count = |without| inside_signalled(without, &["forks", "300"]);
    // Its first process and the program itself are counted; under an ordinary user the template too.
    assert!(count(NONE).iter().all(|count| (64..=128).contains(count)), "{:?}", count(NONE));
    assert_eq!(count(NO_LIMITS), [300, 300]);
}

/// The number that an attempt printed before it ended, however it did, in both forms.
fn inside_signalled(without: Without, args: &[&str]) -> [u64; 2] {
    let mut alone = Alone::new(attempt().unwrap(), args);
    alone.policy.without = without;
    [alone.run(), alone.run_in_template()].map(|finished| {
        let text = String::from_utf8_lossy(&finished.unwrap().text[0].bytes).into_owned();
        text.trim().parse().unwrap()
    })
}

#[test]
fn it_cannot_fill_memory_through_files() {
    needs_sandbox!();
    let filled = |mebibytes: u64| {
        let mut alone = Alone::new(attempt().unwrap(), &["fill", "/tmp", "48"]);
        alone.policy.limits.tree_bytes = mebibytes << 20;
        [alone.run(), alone.run_in_template()].map(|it| result(&it.unwrap()).1.trim().parse::<u64>().unwrap())
    };
    assert!(filled(16).iter().all(|filled| (1..=16).contains(filled)));
    assert_eq!(filled(64), [48, 48]);
}

#[test]
fn it_cannot_have_more_memory_than_its_limit() {
    needs_sandbox!();
    let eaten = |without| {
        let mut alone = Alone::new(attempt().unwrap(), &["eat", "256"]);
        alone.policy.limits.memory_bytes = 128 << 20;
        alone.policy.without = without;
        result(&alone.run().unwrap()).1.trim().parse::<u64>().unwrap()
    };
    assert!((1..=128).contains(&eaten(NONE)));
    assert_eq!(eaten(NO_LIMITS), 256);
}

#[test]
fn it_inherits_no_descriptor_no_variable_and_no_mask() {
    needs_sandbox!();
    // One that a careless part of the agent might have left open for its children.
    let leak = std::fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let (_, fds) = inside(NONE, &["list", "/proc/self/fd"]);
    // The three of every program, and the directory that is being listed.
    assert_eq!(fds.lines().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    let home = Command::new(attempt().unwrap()).args(["list", "/proc/self/fd"]).output().unwrap().stdout;
    let leaked = std::os::fd::AsRawFd::as_raw_fd(&leak).to_string();
    assert!(String::from_utf8_lossy(&home).lines().any(|fd| fd == leaked));
    assert_eq!(inside(NONE, &["environment"]).1, "none\n");
    let mut alone = Alone::new(attempt().unwrap(), &["umask"]);
    alone.policy.umask = 0o027;
    assert_eq!(result(&alone.run().unwrap()).1, "27\n");
}

#[test]
fn it_prints_no_more_than_its_limit() {
    needs_sandbox!();
    let print = |text_bytes| {
        let mut alone = Alone::new(attempt().unwrap(), &["print", "3"]);
        alone.policy.limits.text_bytes = text_bytes;
        alone.run()
    };
    assert!(matches!(print(2 << 20), Err(SandboxError::Text)));
    let text = print(Limits::DEFAULT.text_bytes).unwrap().text;
    assert_eq!(text.iter().map(|chunk| chunk.bytes.len()).sum::<usize>(), 3 << 20);
}

#[test]
fn a_terminal_is_a_terminal_of_that_width_and_passes_bytes_on() {
    needs_sandbox!();
    let run = |terminal, merged_output| {
        let mut alone = Alone::new(attempt().unwrap(), &["terminal"]);
        (alone.policy.terminal, alone.policy.merged_output) = (terminal, merged_output);
        result(&alone.run().unwrap())
    };
    assert_eq!(run(None, false).1, "0 0 0 -1\na\nb\n");
    let (_, text) = run(Some((93, 20)), false);
    let (mut lines, mut expected): (Vec<&str>, Vec<&str>) = (text.lines().collect(), vec!["0 0 1 93", "a", "b"]);
    lines.sort_unstable();
    expected.sort_unstable();
    assert_eq!(lines, expected);
    // One terminal for both.
    assert_eq!(run(Some((93, 20)), true).1, "0 1 1 93\na\nb\n");
}

#[test]
fn one_pipe_for_both_outputs_keeps_their_order() {
    needs_sandbox!();
    let mut alone = Alone::new(attempt().unwrap(), &["alternate"]);
    alone.policy.merged_output = true;
    assert_eq!(result(&alone.run().unwrap()), (0, "oeoeoe".into()));
}

#[test]
fn the_output_layer_can_be_read_after_the_last_process_is_gone() {
    needs_sandbox!();
    let alone = Alone::new(attempt().unwrap(), &["write", "/out/made"]);
    for finished in [alone.run(), alone.run_in_template()] {
        let flags = rustix::fs::OFlags::RDONLY;
        let layer = finished.unwrap().layer;
        let made = rustix::fs::openat(layer.as_fd(), "out/made", flags, rustix::fs::Mode::empty()).unwrap();
        let mut bytes = Vec::new();
        std::fs::File::from(made).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"x");
    }
}

#[test]
fn a_failed_step_says_which_and_on_what() {
    needs_sandbox!();
    let fails = |change: fn(&mut mesh::sandbox::policy::Policy)| {
        let mut alone = Alone::new(attempt().unwrap(), &[]);
        change(&mut alone.policy);
        alone.run().unwrap_err().to_string()
    };
    assert!(
        fails(|policy| policy.program = b"/absent".to_vec()).starts_with("could not execute the program (/absent): No")
    );
    assert!(
        fails(|policy| policy.cwd = b"/absent".to_vec()).starts_with("could not enter the working directory (/absent)")
    );
    assert!(
        fails(|policy| policy.base = b"/absent".to_vec()).starts_with("could not open what the root is built from")
    );
    let missing = |policy: &mut mesh::sandbox::policy::Policy| {
        let what = What::File { source: "absent".into(), size: 1, mtime_s: 0, mtime_ns: 0, executable: false };
        let Inputs::Own { tree, .. } = &mut policy.inputs else { return };
        tree.push(Place { path: b"w/x".to_vec(), what, writable: false });
    };
    assert!(fails(missing).starts_with("could not read an input (w/x)"));
    let mut alone = Alone::new(attempt().unwrap(), &[]);
    alone.policy.limits.tree_nodes = 3;
    assert!(alone.run().is_err());
}
