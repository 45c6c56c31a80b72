//! What a hostile job looks for on this machine: the agent's key, another client's files, another job's outputs, what
//! processes share. Each secret is hunted through all that the job can name, and is found where its barrier is left out.

use crate::collect::{file, job, path, toolchain};
use crate::escape::{NONE, at_home, attempt, in_both_forms, inside};
use crate::world::{Alone, Client, World, apart, skip};
use mesh::sandbox::policy::{Priority, Without};
use mesh::worker::run::{Form, Ran, cancellation};
use mesh_proto::closure::Entry;
use mesh_proto::digest::Digest;
use mesh_proto::job::Exit;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

/// Found nowhere but where a test puts it: the program that hunts for it is given its digits.
const SECRET: &str = "what only its owner may know: 7c41";

fn digits() -> String {
    SECRET.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// Exit status of a job that hunts below a directory of its root, and what it printed.
fn hunt(world: &World, client: &Client, form: Form, entries: &[Entry], below: &str) -> (Exit, String) {
    let job = job(&["hunt", &digits(), below, "none.s"], &["/w/out"]);
    let ran = world.run_for(client, form, &job, entries, &toolchain()).unwrap();
    assert_eq!(ran.form, form);
    (ran.outcome.exit, text(&ran))
}

fn text(ran: &Ran) -> String {
    ran.outcome.text.iter().map(|text| String::from_utf8_lossy(&text.bytes).into_owned()).collect()
}

const NOTHING: (Exit, &str) = (Exit::Code(1), "nothing\n");

#[test]
fn the_agents_key_and_what_else_lies_beside_it_is_not_found() {
    if attempt().is_none() {
        return;
    }
    let Some(world) = World::new() else { return };
    // The agent's home, as an agent makes it: nobody else may even look.
    let home = apart();
    let key = home.path().join("identity/key");
    std::fs::create_dir(key.parent().unwrap()).unwrap();
    std::fs::write(&key, SECRET).unwrap();
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o700)).unwrap();
    // And in the folder of what peers have sent, which jobs' inputs are copied from.
    world.blobs.put(&Digest::of(SECRET.as_bytes()), SECRET.as_bytes()).unwrap();
    assert!(at_home(&["hunt", &digits(), home.path().to_str().unwrap()]));
    for form in [Form::Strict, Form::Mirror] {
        let (exit, said) = hunt(&world, &world.client, form, &[], "/");
        assert_eq!((exit, said.as_str()), NOTHING, "{form:?}");
    }
    let open = world.without(Without { own_root: true, own_user: true, ..NONE });
    let fresh = Client::default();
    for (form, machine) in [(Form::Strict, "/machine"), (Form::Mirror, "/machine/machine")] {
        let below = format!("{machine}{}", home.path().display());
        assert_eq!(hunt(&open, &fresh, form, &[], &below), (Exit::Code(0), "key\nidentity\n".into()), "{form:?}");
    }
}

#[test]
fn another_clients_files_are_not_found_in_a_mirror_nor_beside_it() {
    if attempt().is_none() {
        return;
    }
    let Some(world) = World::new() else { return };
    let [owner, thief] = [Client::default(), Client::default()];
    let secret = [file("/w/secret.h", SECRET.as_bytes())];
    world.blobs.put(&Digest::of(SECRET.as_bytes()), SECRET.as_bytes()).unwrap();
    // Its own client finds it, in a job that names it and in the next that does not: that is what a mirror is.
    assert_eq!(hunt(&world, &owner, Form::Mirror, &secret, "/").0, Exit::Code(0));
    assert_eq!(hunt(&world, &owner, Form::Mirror, &[], "/").0, Exit::Code(0));
    for form in [Form::Mirror, Form::Strict] {
        let (exit, said) = hunt(&world, &thief, form, &[], "/");
        assert_eq!((exit, said.as_str()), NOTHING, "{form:?}");
    }
    // In a root of its own not even its client's other jobs see it.
    let (exit, said) = hunt(&world, &owner, Form::Strict, &[], "/");
    assert_eq!((exit, said.as_str()), NOTHING);
}

#[test]
fn another_jobs_outputs_are_not_found() {
    if attempt().is_none() {
        return;
    }
    let Some(world) = World::new() else { return };
    let among = Without { process_namespace: true, own_user: true, landlock: true, ..NONE };
    for (form, marker) in [(Form::Strict, "held-strict"), (Form::Mirror, "held-mirror")] {
        hold_and_look(&world, form, marker, NONE, false);
    }
    // Where jobs are this machine's processes and one user, the other's root leads to them. (In roots of their own an
    // ordinary user's jobs have user namespaces of their own, which hold as well.)
    let world = world.without(among);
    hold_and_look(&world, Form::Mirror, "held-among", among, true);
}

/// One job writes a secret and stays; another one looks for it, and finds it or not.
fn hold_and_look(world: &World, form: Form, marker: &str, without: Without, finds: bool) {
    let client = Client::default();
    let marker = format!("/w/out/{marker}");
    let (cancel, cancelled) = cancellation().unwrap();
    std::thread::scope(|scope| {
        let held = scope.spawn(|| {
            let job = job(&["hold", &digits(), &marker, "none.s"], &["/w/out"]);
            world.run_until(&cancelled, &client, form, &job, &[], &toolchain())
        });
        let start = Instant::now();
        while crate::kill::processes_with(&marker).len() < 3 {
            assert!(start.elapsed() < Duration::from_secs(10) && !held.is_finished(), "it does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        let (exit, said) = hunt(world, &client, form, &[], "/w");
        assert_eq!((exit, said.as_str()), NOTHING, "{without:?}");
        let look = job(&["others", "/w/out/held", "none.s"], &["/w/out"]);
        let ran = world.run_for(&client, form, &look, &[], &toolchain()).unwrap();
        assert_eq!(ran.outcome.exit, Exit::Code(u8::from(!finds)), "{without:?}: {}", text(&ran));
        assert_eq!(text(&ran).contains(SECRET), finds);
        drop(cancel);
        // With no namespace of processes what it has started outlives it: it is the test's to end.
        for process in crate::kill::processes_with(&marker).into_iter().filter(|_| finds) {
            let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
        }
        let ended = held.join().unwrap();
        // What the test has killed may have ended before the job was cancelled.
        assert!(finds || ended.is_err());
    });
}

#[test]
fn memory_that_programs_of_this_machine_share_is_not_shared_with_it() {
    if attempt().is_none() {
        return;
    }
    let number =
        0x6d65_0000 | i32::from(crate::world::slot()) | (i32::try_from(std::process::id()).unwrap() & 0xff) << 8;
    let Some(_memory) = SharedMemory::new(number) else { return skip("this machine shares no memory") };
    let read = ["shared_memory", &number.to_string()];
    assert!(at_home(&read));
    // The filter and the namespace: each holds by itself.
    let open = Without { seccomp: true, ipc_namespace: true, ..NONE };
    for one in [NONE, Without { seccomp: false, ..open }, Without { ipc_namespace: false, ..open }] {
        let (code, said) = inside(one, &read);
        assert!(code == 1 && said.starts_with("shmget"), "{one:?}: {said}");
    }
    assert_eq!(inside(open, &read), (0, format!("{SECRET}\n")));
}

/// A piece of memory that all programs of this machine may read, made by `ipcmk`'s own means: no safe form exists, so a
/// program makes it.
struct SharedMemory(i32);

impl SharedMemory {
    fn new(number: i32) -> Option<Self> {
        let digits = digits();
        let made = std::process::Command::new(attempt()?).args(["share", &number.to_string(), &digits]).status();
        made.ok()?.success().then_some(Self(number))
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        let _ = std::process::Command::new(attempt().unwrap()).args(["unshare_memory", &self.0.to_string()]).status();
    }
}

#[test]
fn a_key_of_the_session_that_the_agent_was_started_in_is_not_read() {
    if attempt().is_none() {
        return;
    }
    // A session of its own, which holds a key, and in it this test once more, as the agent would be.
    let inner = std::env::var_os("MESH_TEST_KEY").is_some();
    if !inner {
        let mut again = std::process::Command::new(attempt().unwrap());
        again.args(["with_key", "mesh-test", SECRET]).arg(std::env::current_exe().unwrap());
        again.args(["--exact", "secrets::a_key_of_the_session_that_the_agent_was_started_in_is_not_read"]);
        let output = again.env("MESH_TEST_KEY", "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        if said.starts_with("add_key: Function not implemented") || said.starts_with("session: Function not") {
            return skip("this kernel keeps no keys");
        }
        assert!(output.status.success(), "{said}");
        return;
    }
    let read = ["key", "mesh-test"];
    assert!(at_home(&read));
    assert_eq!(inside(NONE, &read), (1, "search: Operation not permitted\n".into()));
    assert_eq!(inside(Without { seccomp: true, ..NONE }, &read), (0, format!("{SECRET}\n")));
}

#[test]
fn it_does_not_learn_this_machines_name() {
    if attempt().is_none() {
        return;
    }
    let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
    assert_eq!(inside(NONE, &["name"]), (0, "mesh\n".into()));
    assert_eq!(inside(Without { uts_namespace: true, ..NONE }, &["name"]), (0, format!("{own}\n")));
}

#[test]
fn what_proc_tells_of_this_machine_is_not_there() {
    if attempt().is_none() {
        return;
    }
    for name in ["cmdline", "version", "meminfo", "sys/kernel/hostname", "sysvipc/shm", "kallsyms"] {
        let path = format!("/proc/{name}");
        assert_eq!(inside(NONE, &["read", &path]).0, 1, "{name}");
        let mut without = Alone::new(attempt().unwrap(), &["read", &path]);
        without.policy.without = Without { proc_subset: true, ..NONE };
        // A computer that is itself a container may not have the whole of it to give.
        match without.run() {
            Ok(finished) => assert_eq!(crate::escape::result(&finished).0, 0, "{name}"),
            Err(error) => skip(&format!("/proc is not whole here: {error}")),
        }
    }
    // And none of it can be changed.
    for path in ["/proc/self/oom_score_adj", "/proc/self/comm", "/proc/self/setgroups"] {
        assert_eq!(inside(NONE, &["write", path]).0, 1, "{path}");
    }
    assert_eq!(inside(Without { landlock: true, ..NONE }, &["write", "/proc/self/comm"]).0, 0);
}

#[test]
fn a_job_has_the_cores_while_nobody_else_wants_them() {
    if attempt().is_none() {
        return;
    }
    // proc(5): nice is the nineteenth field, the scheduling policy the forty-first; the second may hold anything.
    let stat = |priority| {
        let mut alone = Alone::new(attempt().unwrap(), &["read", "/proc/self/stat"]);
        alone.policy.priority = priority;
        [alone.run(), alone.run_in_template()].map(|it| {
            let text = crate::escape::result(&it.unwrap()).1;
            let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
            (fields[19 - 3].to_owned(), fields[41 - 3].to_owned())
        })
    };
    assert_eq!(stat(Priority::Nice), [(); 2].map(|()| ("5".to_owned(), "0".to_owned())));
    assert_eq!(stat(Priority::Usual), [(); 2].map(|()| ("0".to_owned(), "0".to_owned())));
    const SCHED_IDLE: &str = "5";
    assert_eq!(stat(Priority::Idle), [(); 2].map(|()| ("0".to_owned(), SCHED_IDLE.to_owned())));
}

#[test]
fn limits_hold_open_files_long_files_and_many_files() {
    if attempt().is_none() {
        return;
    }
    let count = |without: Without, args: &[&str]| {
        in_both_forms(without, args).map(|(_, text)| text.trim().parse::<u64>().unwrap())
    };
    let no_limits = Without { limits: true, ..NONE };
    // As many as its limit, less the three that it was given.
    assert_eq!(count(NONE, &["open_many", "1100"]), [1021; 2]);
    let home = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    if home >= 1200 {
        assert_eq!(count(no_limits, &["open_many", "1100"]), [1100; 2]);
    }
    // A file of no bytes that says it is long: 100 GB are asked for, and 2 are the limit.
    assert_eq!(count(NONE, &["lengthen", "100000"]), [2048; 2]);
    assert_eq!(count(no_limits, &["lengthen", "100000"]), [100_000; 2]);
    let many = |tree_nodes| {
        let mut alone = Alone::new(attempt().unwrap(), &["make_many", "3000"]);
        alone.policy.limits.tree_nodes = tree_nodes;
        let finished = [alone.run(), alone.run_in_template()];
        finished.map(|it| crate::escape::result(&it.unwrap()).1.trim().parse::<u64>().unwrap())
    };
    assert!(many(1000).iter().all(|count| (500..1000).contains(count)), "{:?}", many(1000));
    assert_eq!(many(8000), [3000; 2]);
}

/// Without the checks of what comes back, the paths of a job's outputs would lead into this machine.
#[test]
fn a_link_among_outputs_leads_out_only_for_those_who_follow_it() {
    if attempt().is_none() {
        return;
    }
    let alone = Alone::new(attempt().unwrap(), &["odd", "link"]);
    for finished in [alone.run(), alone.run_in_template()] {
        let layer = finished.unwrap().layer;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&layer);
        let naive = std::fs::read(format!("/proc/self/fd/{fd}/out/x.o")).unwrap();
        assert_eq!(naive, std::fs::read("/etc/passwd").unwrap());
        let checked = mesh::worker::collect::read_beneath(std::os::fd::AsFd::as_fd(&layer), &path("/out/x.o"), 1 << 20);
        assert_eq!(checked, None);
    }
}
