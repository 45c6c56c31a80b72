//! The harness does what the scenarios rely on.

use crate::build::{self, Compilers, Family, Made, Unit, Way};
use crate::corpora::{self, Corpus};
use crate::machine::{Account, Spec, eventually};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

fn two() -> Option<crate::Turn> {
    crate::lab(vec![Spec::new("anton", Account::Root), Spec::new("berta", Account::Ordinary)], &[])
}

#[test]
fn machines_hear_each_others_multicast_and_nothing_else_does() {
    let Some(turn) = two() else { return };
    let [anton, berta] = turn.lab.machines.as_slice() else { panic!("two machines") };
    let group = Ipv4Addr::new(224, 0, 0, 251);
    let listen = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5353)).unwrap();
        socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket
    };
    let ear = berta.on_its_network(listen);
    anton.on_its_network(|| {
        let mouth = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        mouth.send_to(b"hello", (group, 5353)).unwrap();
    });
    let mut bytes = [0; 16];
    let (count, from) = ear.recv_from(&mut bytes).expect("the other machine's multicast arrives");
    assert_eq!((&bytes[..count], from.ip().to_string()), (&b"hello"[..], anton.address.clone()));
    // The computer's own network is not theirs: nothing there has a machine's address.
    assert!(UdpSocket::bind((anton.address.as_str(), 0)).is_err());
}

#[test]
fn machines_reach_each_other_by_address() {
    let Some(turn) = two() else { return };
    let [anton, berta] = turn.lab.machines.as_slice() else { panic!("two machines") };
    let door = anton.on_its_network(|| std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 6374)).unwrap());
    let address = format!("{}:6374", anton.address);
    let caller = berta.on_its_network(|| std::net::TcpStream::connect(&address).unwrap());
    let (_, seen) = door.accept().unwrap();
    assert_eq!(seen, caller.local_addr().unwrap());
    assert_eq!(seen.ip().to_string(), berta.address);
}

#[test]
fn a_machine_has_its_own_user_name_home_and_temporary_folder() {
    let Some(turn) = two() else { return };
    let [anton, berta] = turn.lab.machines.as_slice() else { panic!("two machines") };
    assert_eq!(anton.sh("hostname; id -u; id -G; echo $HOME; pwd"), "anton\n0\n0\n/home/dev\n/home/dev\n");
    assert_eq!(
        berta.sh("hostname; id -u; id -G; grep CapEff /proc/self/status"),
        "berta\n1000\n1000\nCapEff:\t0000000000000000\n"
    );
    anton.sh("echo a >/tmp/mine; echo b >/home/dev/mine; echo c >$XDG_RUNTIME_DIR/mine");
    assert!(!std::path::Path::new("/tmp/mine").exists());
    assert_eq!(std::fs::read(anton.outside("/tmp/mine")).unwrap(), b"a\n");
    let other = berta.sh("ls /tmp /home/dev $XDG_RUNTIME_DIR; echo d >$XDG_RUNTIME_DIR/x; stat -c %a $XDG_RUNTIME_DIR");
    assert!(!other.contains("mine") && other.ends_with("700\n"), "{other}");
    let (one, two) = (anton.sh("cat /etc/machine-id || true"), berta.sh("cat /etc/machine-id || true"));
    assert!(one != two || one.is_empty(), "{one}");
}

#[test]
fn a_machine_sees_of_what_is_hidden_only_what_it_is_shown() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // One that a machine's own /tmp would cover as well.
    let covered = tempfile::tempdir_in("/tmp").unwrap();
    let folders = [folder.path().to_owned(), covered.path().to_owned()];
    for folder in &folders {
        std::fs::write(folder.join("source.c"), "x").unwrap();
    }
    let sighted = Spec::new("anton", Account::Root).sees(&folders[0]).sees(&folders[1]);
    let Some(turn) = crate::lab(vec![sighted, Spec::new("berta", Account::Root)], &folders) else { return };
    let [anton, berta] = turn.lab.machines.as_slice() else { panic!("two machines") };
    for folder in &folders {
        let list = format!("ls {} 2>/dev/null || true", folder.display());
        assert_eq!(anton.sh(&list), "source.c\n");
        assert_eq!(berta.sh(&list), "");
    }
    let others = turn.lab.machines[0].files.parent().unwrap().parent().unwrap();
    assert_eq!(anton.sh(&format!("ls {}", others.display())), "", "a machine sees no other machine's files");
}

#[test]
fn background_programs_can_be_stopped_continued_and_killed_and_end_with_their_machine() {
    let Some(turn) = two() else { return };
    let berta = &turn.lab.machines[1];
    let mut running = berta.command(&["sh", "-c", "while :; do echo tick; sleep 0.02; done"]).start("ticks.log");
    let ticks = |running: &crate::machine::Running| running.said().matches("tick\n").count();
    let soon = Duration::from_secs(5);
    eventually(soon, || (ticks(&running) > 3).then_some(())).expect("it runs");
    running.signal(rustix::process::Signal::STOP);
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", running.pid().unwrap())).unwrap();
        stat.rsplit(')').next().unwrap().trim().chars().next().unwrap()
    };
    eventually(soon, || (state() == 'T').then_some(())).expect("it is stopped");
    let frozen = ticks(&running);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(ticks(&running), frozen);
    running.signal(rustix::process::Signal::CONT);
    eventually(soon, || (ticks(&running) > frozen).then_some(())).expect("it goes on");
    running.signal(rustix::process::Signal::KILL);
    assert!(running.wait(soon).is_some_and(|status| !status.success()));

    let left = berta.command(&["sleep", "86399"]).start("sleep.log");
    let pid = eventually(soon, || berta.processes("sleep 86399").first().copied()).expect("it is found by its words");
    assert_eq!(eventually(soon, || left.pid()), Some(pid));
    let files = berta.files.clone();
    drop(turn);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "it outlived its machine");
    assert!(!files.exists());
}

#[test]
fn a_command_ends_at_its_deadline() {
    let Some(turn) = two() else { return };
    let ran = turn.lab.machines[1].command(&["sleep", "60"]).seconds_max(1).run();
    assert_eq!(ran.status.code(), Some(124));
}

#[test]
fn a_quota_slows_a_machine_down_where_control_groups_are_ours() {
    let slow = Spec::new("anton", Account::Root).cores(0.2);
    let Some(turn) = crate::lab(vec![slow], &[]) else { return };
    let machine = &turn.lab.machines[0];
    if !machine.limited() {
        eprintln!("no control group of ours limits the processor here; nothing relies on one");
        return;
    }
    let begun = std::time::Instant::now();
    let ran = machine.command(&["bash", "-c", "time -p (for ((i = 0; i < 200000; i++)); do :; done)"]).run();
    let wall = begun.elapsed().as_secs_f64();
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    let user: f64 = said.lines().find_map(|line| line.strip_prefix("user ")?.trim().parse().ok()).expect(&said);
    assert!(wall > user * 2.5, "{user} s of work took {wall} s with a fifth of a core");
}

/// The two ways that matter most: what is optimised, and what has debug information.
fn ways() -> [Way; 2] {
    [Way::new(Compilers::Gcc, "-O2 -MD").jobs(2), Way::new(Compilers::Clang, "-O0 -g -MMD").env("LANG", "C")]
}

#[test]
fn corpora_compile_the_same_twice_on_a_machine() {
    let Some(turn) =
        crate::lab(vec![Spec::new("anton", Account::Ordinary).sees(&corpora::folder())], &[corpora::folder()])
    else {
        return;
    };
    let machine = &turn.lab.machines[0];
    // Only fetched and checked: one compile of it takes longer than all others here.
    match Corpus::Sqlite.units() {
        Ok(units) => assert_eq!(units.len(), 1),
        Err(why) => return crate::skip(&why).unwrap_or_default(),
    }
    for (corpus, units, compiled) in [(Corpus::Lua, 33, 4), (Corpus::Curl, 150, 3), (Corpus::Abseil, 100, 2)] {
        let all = match corpus.units() {
            Ok(all) => all,
            Err(why) => return crate::skip(&why).unwrap_or_default(),
        };
        assert!(all.len() >= units, "{corpus:?} has only {} units", all.len());
        let few = build::spread(all, compiled);
        for way in ways() {
            let once = build::build(machine, &few, &way, &[]);
            assert_eq!((once.objects(), once.succeeded()), (compiled, compiled), "{corpus:?}: {once:?}");
            assert_eq!(once.0.len(), 5 * compiled, ".o, .d, .out, .err and .exit of each");
            build::build(machine, &few, &way, &["env"]).assert_same(&once, &format!("{corpus:?} {way:?}"));
        }
    }
}

#[test]
fn a_difference_is_found_wherever_it_is() {
    let made =
        |files: &[(&str, &[u8])]| Made(files.iter().map(|(path, bytes)| ((*path).into(), bytes.to_vec())).collect());
    let reference = made(&[("a.o", b"abc"), ("a.exit", b"0\n")]);
    assert_eq!(reference.differences(&reference), "");
    for (other, said) in [
        (made(&[("a.o", b"abd"), ("a.exit", b"0\n")]), "a.o differs from byte 2"),
        (made(&[("a.o", b"abcd"), ("a.exit", b"0\n")]), "a.o differs from byte 3"),
        (made(&[("a.o", b"abc"), ("a.exit", b"1\n")]), "a.exit differs"),
        (made(&[("a.exit", b"0\n")]), "a.o is missing"),
        (made(&[("a.o", b"abc"), ("a.exit", b"0\n"), ("b.o", b"")]), "b.o is too many"),
    ] {
        assert!(other.differences(&reference).contains(said), "{}", other.differences(&reference));
    }
}

#[test]
fn a_unit_s_words_survive_the_shell() {
    let Some(turn) = two() else { return };
    let berta = &turn.lab.machines[1];
    let folder = std::path::Path::new("/home/dev").join(std::ffi::OsStr::from_bytes(b"od'd \xff"));
    berta.make_dir(&folder);
    std::fs::write(berta.outside(&folder).join("a.c"), "const char *a = A;\n").unwrap();
    let unit = Unit {
        folder,
        family: Family::C,
        flags: vec![std::ffi::OsStr::from_bytes(b"-DA=\"$x `y` \\\\ 'z' \xfe\"").to_owned()],
        source: "a.c".into(),
    };
    let made = build::build(berta, &[unit], &Way::new(Compilers::Gcc, "-O0"), &[]);
    assert_eq!(made.succeeded(), 1, "{made:?}");
    let object = &made.0[std::path::Path::new("0000-a.o")];
    let wanted = b"$x `y` \\ 'z' \xfe\0";
    assert!(object.windows(wanted.len()).any(|bytes| bytes == wanted));
}
