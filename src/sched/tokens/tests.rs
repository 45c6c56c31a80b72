//! Tools, versions and numbers (DECIDE).

use super::*;
use proptest::prelude::*;

fn words(line: &str) -> Vec<&[u8]> {
    line.split(' ').map(str::as_bytes).collect()
}

fn tell(line: &str, found: &Found) -> Told {
    let words = words(line);
    told(Tool::of(&words), &words, found)
}

fn makes(versions: &[(u32, u32)]) -> Found {
    Found { makes: versions.iter().map(|(a, b)| Make::Gnu(Version(*a, *b))).collect(), ..Found::default() }
}

#[test]
fn versions_are_read_from_what_tools_answer() {
    for (answer, want) in [
        ("GNU Make 4.3\nBuilt for x86_64-pc-linux-gnu", Some(Version(4, 3))),
        ("GNU Make 4.4.1", Some(Version(4, 4))),
        ("1.11.1\n", Some(Version(1, 11))),
        ("1.13.0.git.kitware.jobserver-pipe-1", Some(Version(1, 13))),
        ("cmake version 3.25.1\n", Some(Version(3, 25))),
        ("no number", None),
        ("", None),
    ] {
        assert_eq!(Version::read(answer), want, "{answer}");
    }
}

#[test]
fn a_make_before_4_4_never_sees_a_named_pipe() {
    for line in ["make", "/usr/bin/gmake -k all", "./build.sh", "cargo build", "cmake --build build"] {
        assert_eq!(tell(line, &makes(&[(4, 3)])), Told::Pipe, "{line}");
        assert_eq!(tell(line, &makes(&[(4, 4), (3, 81)])), Told::Pipe, "{line}");
        assert_eq!(tell(line, &Found { makes: vec![Make::Silent], ..Found::default() }), Told::Pipe, "{line}");
        assert_eq!(tell(line, &makes(&[(4, 4), (4, 10)])), Told::Fifo, "{line}");
    }
    let new = Found { ninja: Some(Version(1, 13)), ..makes(&[(4, 3)]) };
    assert_eq!(tell("ninja", &new), Told::Words { flag: "-j", apart: false, at: 1 });
}

#[test]
fn a_make_that_is_not_gnus_is_given_no_jobserver_nor_is_what_may_run_one() {
    assert_eq!(Make::read("GNU Make 4.3\nBuilt for x86_64-pc-linux-gnu"), Make::Gnu(Version(4, 3)));
    assert_eq!(["", "usage: make [-BeikNnqrSstWwX]", "bmake 4.4"].map(Make::read), [Make::Foreign; 3]);
    let both = |own| Found { own, makes: vec![Make::Gnu(Version(4, 4)), Make::Foreign], ..Found::default() };
    for line in ["bmake", "make all"] {
        assert_eq!(tell(line, &both(Some(Make::Foreign))), Told::Not, "{line}");
    }
    assert_eq!(tell("make", &both(Some(Make::Gnu(Version(4, 4))))), Told::Fifo);
    assert_eq!(tell("make", &both(Some(Make::Gnu(Version(4, 3))))), Told::Pipe);
    for line in ["./build.sh", "cargo build"] {
        assert_eq!(tell(line, &both(None)), Told::Not, "{line}");
    }
    let ninja = Found { ninja: Some(Version(1, 13)), ..both(None) };
    assert_eq!(tell("ninja", &ninja), Told::Words { flag: "-j", apart: false, at: 1 });
}

#[test]
fn ninja_is_told_by_a_number_until_it_is_a_client() {
    let ninja = |minor, makes_of: &[(u32, u32)]| Found { ninja: Some(Version(1, minor)), ..makes(makes_of) };
    let number = Told::Words { flag: "-j", apart: false, at: 1 };
    assert_eq!(tell("ninja -C build", &ninja(11, &[(4, 4)])), number);
    assert_eq!(tell("ninja -C build", &ninja(13, &[(4, 4)])), Told::Fifo);
    assert_eq!(tell("ninja -C build", &ninja(13, &[])), Told::Fifo);
    assert_eq!(tell("ninja", &Found::default()), number);
    let tree = Found { tree_is_ninja: true, ..ninja(11, &[(4, 3)]) };
    assert_eq!(tell("cmake --build b", &tree), Told::Level);
    assert_eq!(tell("meson compile -C b", &tree), Told::Words { flag: "-j", apart: true, at: 2 });
    assert_eq!(tell("xcodebuild -scheme x", &Found::default()), Told::Words { flag: "-jobs", apart: true, at: 1 });
}

#[test]
fn what_a_person_says_is_respected() {
    for line in [
        "make -j4",
        "make -j",
        "make -kj8 all",
        "make --jobs=4",
        "ninja -j 3",
        "ninja -C b -vj3",
        "cmake --build b -j8",
        "cmake --build b --parallel 8",
        "cmake --build b -- -j8",
        "cargo build --jobs 2",
        "cargo test -j2",
        "meson compile -j 2",
        "xcodebuild -jobs 4",
    ] {
        assert_eq!(tell(line, &makes(&[(4, 3)])), Told::Not, "{line}");
    }
    for line in ["make -C subj4", "make --just-print", "make -f j4", "make x=-j", "make -fj4", "cargo run -- -j4"] {
        assert_ne!(tell(line, &makes(&[(4, 3)])), Told::Not, "{line}");
    }
    assert_eq!(tell("cmake -B build", &Found::default()), Told::Not);
    assert_eq!(tell("make", &Found { flags_tell: true, ..makes(&[(4, 3)]) }), Told::Not);
}

#[test]
fn makeflags_may_tell_already() {
    for flags in ["-j8", "kj8", "w -j4 --jobserver-auth=3,4", " --jobserver-fds=3,4 -j", "--jobs=3"] {
        assert!(flags_tell(flags.as_bytes()), "{flags}");
    }
    for flags in ["", "k", "w", "-k", "--no-print-directory", "CC=gcc-j4"] {
        assert!(!flags_tell(flags.as_bytes()), "{flags}");
    }
}

proptest! {
    #[test]
    fn there_is_always_one_and_never_more_than_fit(local: u32, remote: u32, most: Option<u32>, stays: bool) {
        let wanted = Wanted { is_local: stays, most: most.unwrap_or(u32::MAX) };
        let total = total(Parallelism { local, remote, remote_free: 0 }, wanted);
        prop_assert!((1..=TOKENS_MAX).contains(&total));
        prop_assert!(total <= wanted.most.max(1));
        prop_assert!(!stays || total <= local.max(1));
    }

    #[test]
    fn more_room_is_never_fewer_tokens(local in 0..100_u32, remote in 0..5000_u32, more in 0..100_u32) {
        let at = |local, remote| total(Parallelism { local, remote, remote_free: 0 }, Wanted::MESH);
        prop_assert!(at(local, remote + more) >= at(local, remote));
        prop_assert!(at(local + more, remote) >= at(local, remote));
    }
}

#[test]
fn a_tenth_more_than_the_others_can_run_is_started() {
    let at = |local, remote| total(Parallelism { local, remote, remote_free: 0 }, Wanted::MESH);
    assert_eq!([at(8, 0), at(8, 1), at(8, 10), at(0, 0), at(2, 22)], [8, 10, 19, 1, 27]);
}
