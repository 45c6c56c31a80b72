//! Words of the lists of compilers (DECIDE).

use super::*;
use crate::{
    reason::Reason,
    view::snapshot::{Nearest, RefusedRow},
};

fn row(id: &str, label: &str, driver: &str, real: &str) -> ToolchainRow {
    ToolchainRow {
        id: id.to_owned(),
        label: label.to_owned(),
        target: "x86_64-linux-gnu".to_owned(),
        driver: driver.into(),
        real: real.into(),
        bytes: 49 << 20,
        is_lent: true,
        proof: ProofState::Proved,
        has: vec!["tower".to_owned()],
        ..ToolchainRow::default()
    }
}

fn arriving(peer: &str, state: ArrivalState) -> ArrivalRow {
    ArrivalRow { id: "5e1c09a1b2".to_owned(), peer: peer.to_owned(), state }
}

fn machine() -> Toolchains {
    let gcc = |id: &str, driver: &str| row(id, "gcc 12.2.0", driver, "/usr/bin/x86_64-linux-gnu-gcc-12");
    let plain = ["cc", "gcc-12", "x86_64-linux-gnu-gcc", "x86_64-linux-gnu-gcc-12"];
    let mut known: Vec<_> = plain.iter().map(|name| gcc(&format!("id{name}"), &format!("/usr/bin/{name}"))).collect();
    known.push(gcc("5e1c09a1b2", "/usr/bin/gcc"));
    known.push(gcc("00000000aa", "/bin/gcc"));
    known.push(ToolchainRow {
        proof: ProofState::Unproved("with nothing but its own files, plain.c: it fails: no crt1.o".to_owned()),
        has: vec![],
        ..row("77c1d0e0f0", "clang 19.1.7", "/opt/llvm/bin/clang", "/opt/llvm/bin/clang-19")
    });
    let coming = ArrivalState::Coming { have: 20 << 20, of: 49 << 20 };
    known.push(ToolchainRow {
        arrivals: vec![
            arriving("nas", ArrivalState::Refused("it has no room for it".to_owned())),
            arriving("box", coming),
        ],
        ..row("b825bd3f1f", "g++ 12.2.0", "/usr/bin/g++", "/usr/bin/x86_64-linux-gnu-g++-12")
    });
    known.push(ToolchainRow {
        from: Some("laptop".to_owned()),
        used_ms: Some(0),
        proof: ProofState::Elsewhere,
        ..row("aa4f11c0de", "gcc 14.2.1", "/usr/bin/gcc", "/usr/bin/gcc")
    });
    Toolchains {
        known,
        refused: vec![RefusedRow {
            program: b"/usr/bin/c99".to_vec(),
            reason: Reason::Wrapper,
            why: "/usr/bin/c99 is a script".to_owned(),
        }],
        providers: vec!["tower".to_owned(), "box".to_owned()],
        ..Toolchains::default()
    }
}

#[test]
fn names_of_one_compiler_are_one_row_and_each_stands_alone_in_the_wide_form() {
    insta::assert_snapshot!(list(&machine(), false), @r"
    ID             COMPILER      TARGET            RUN AS                                            SIZE  MAY BE SENT  PEERS
    b825bd3f1f     g++ 12.2.0    x86_64-linux-gnu  /usr/bin/g++                                    49 MiB  yes          tower, not nas, box 40 %
    5e1c09a1b2 +5  gcc 12.2.0    x86_64-linux-gnu  /usr/bin/gcc, cc, gcc-12, 2 more, also in /bin  49 MiB  yes          tower
    77c1d0e0f0     clang 19.1.7  x86_64-linux-gnu  /opt/llvm/bin/clang                             49 MiB  no           -
    aa4f11c0de     gcc 14.2.1    x86_64-linux-gnu  /usr/bin/gcc, sent by laptop                    49 MiB  yes          tower
    4 compilers under 9 names, 1 of them sent here · 2 providers connected
    nas does not take g++ 12.2.0 (/usr/bin/g++): it has no room for it
    clang 19.1.7 (/opt/llvm/bin/clang) is not sent, only used where it is: with nothing but its own files, plain.c: it fails: no crt1.o

    not used as compilers, so that what they compile stays here:
      /usr/bin/c99: /usr/bin/c99 is a script
    ");
    assert_eq!(list(&machine(), true).lines().filter(|line| line.contains("gcc 12.2.0 ")).count(), 6);
}

#[test]
fn a_machine_without_compilers_is_told_how_one_becomes_known() {
    let said = list(
        &Toolchains { not_sending: Some("this machine is in no mesh".to_owned()), ..Toolchains::default() },
        false,
    );
    insta::assert_snapshot!(said, @r"
    no compiler is known here yet. Those in PATH are looked for when the agent has started; any other is known
    once it was used or looked at: mesh cc /opt/x/bin/gcc -c x.c, or mesh toolchain show /opt/x/bin/gcc
    no compiler is sent to other machines: this machine is in no mesh
    ");
}

#[test]
fn a_compiler_is_meant_by_its_path_or_name_or_label_or_id() {
    let machine = machine();
    let ids = |name: &str| chosen(&machine, name.as_bytes()).iter().map(|row| row.id.as_str()).collect::<Vec<_>>();
    assert_eq!(ids("/bin/gcc"), ["00000000aa"]);
    assert_eq!(ids("gcc-12"), ["idgcc-12"]);
    assert_eq!(ids("gcc"), ["5e1c09a1b2", "00000000aa", "aa4f11c0de"]);
    assert_eq!(ids("gcc 14.2.1"), ["aa4f11c0de"]);
    assert_eq!(ids("/opt/llvm/bin/clang-19"), ["77c1d0e0f0"]);
    assert_eq!(ids("B825"), ["b825bd3f1f"]);
    assert!(ids("b82").is_empty() && ids("icc").is_empty() && ids("").is_empty());
}

fn shown() -> ToolchainDetail {
    let part = |path: &str, kind| PartRow { path: path.into(), kind };
    ToolchainDetail {
        row: machine().known.remove(7),
        needs: "any x86-64".to_owned(),
        facts: vec![
            ("about".to_owned(), b"Target: x86_64-linux-gnu\nThread model: posix\n".to_vec()),
            ("specs".to_owned(), vec![200; 32]),
            ("target".to_owned(), b"x86_64-linux-gnu".to_vec()),
        ],
        parts: vec![
            part("/usr/bin/g++", PartKind::Symlink(b"g++-12".to_vec())),
            part(
                "/usr/lib/cc1plus",
                PartKind::File { size: 35_464_168, digest: "b9160469…".to_owned(), executable: true },
            ),
            part("/usr/lib/libz.so", PartKind::File { size: 12, digest: "00aa11bb…".to_owned(), executable: false }),
            part("/lib", PartKind::Directory),
        ],
    }
}

#[test]
fn one_compiler_is_shown_with_its_files_and_what_it_says() {
    insta::assert_snapshot!(detail(&shown(), 60_000), @r"
    g++ 12.2.0, /usr/bin/g++
      id        b825bd3f1f
      file      /usr/bin/x86_64-linux-gnu-g++-12
      target    x86_64-linux-gnu
      runs on   any x86-64
      size      49 MiB in 2 files
      lent      yes
      may go    yes: samples compiled with nothing but these files were the same
      peers     tower, not nas, box 40 %
                nas does not take it: it has no room for it
      says of itself
        about: Target: x86_64-linux-gnu (and 1 more line)
        specs: (32 bytes)
          SIZE  DIGEST     PATH
             -  -          /usr/bin/g++ -> g++-12
      35464168  b9160469…  /usr/lib/cc1plus *
            12  00aa11bb…  /usr/lib/libz.so
             -  -          /lib/
    ");
    let sent = ToolchainDetail { row: machine().known.remove(8), ..ToolchainDetail::default() };
    assert!(detail(&sent, 60_000).contains("came from laptop, last used 1 min ago\n"), "{}", detail(&sent, 60_000));
}

fn lacking() -> Why {
    let gcc = |driver: &str, nearest: Option<Nearest>| WhyRow {
        id: "5e1c09a1b2".to_owned(),
        label: "gcc 12.2.0".to_owned(),
        driver: driver.into(),
        real: b"/usr/bin/x86_64-linux-gnu-gcc-12".to_vec(),
        nearest,
        outlook: "it is sent when a unit wants it there".to_owned(),
        can_be_sent: true,
        ..WhyRow::default()
    };
    let nearest = Nearest {
        label: "gcc 12.2.0".to_owned(),
        driver: b"/usr/bin/gcc".to_vec(),
        differences: vec!["/usr/lib/gcc/x86_64-linux-gnu/12/cc1 has 30 bytes here and 31 there".to_owned()],
        count: 3,
    };
    let alone = WhyRow {
        label: "clang 19.1.7".to_owned(),
        driver: b"/opt/llvm/bin/clang".to_vec(),
        outlook: "that machine does not take it: it has no room for it".to_owned(),
        ..WhyRow::default()
    };
    let also = WhyRow {
        label: "g++ 12.2.0".to_owned(),
        also: Some(b"/usr/bin/g++".to_vec()),
        nearest: Some(nearest.clone()),
        ..gcc("/usr/bin/c++", None)
    };
    let lacking = vec![gcc("/usr/bin/cc", None), gcc("/usr/bin/gcc", Some(nearest)), alone, also];
    Why { peer: "tower".to_owned(), asked: 12, there: 9, silent: 1, lacking }
}

#[test]
fn what_another_machine_lacks_is_explained_by_file_and_with_what_to_do() {
    insta::assert_snapshot!(why(&lacking()), @r"
    of 12 compilers of this machine, tower lacks 4; it has 9 in all, of which 1 could not be compared

    gcc 12.2.0 (/usr/bin/gcc, cc)
      the most similar one there is gcc 12.2.0, /usr/bin/gcc:
        /usr/lib/gcc/x86_64-linux-gnu/12/cc1 has 30 bytes here and 31 there
        and 2 more differences
      it is sent when a unit wants it there. Now: mesh toolchain push /usr/bin/gcc --to tower

    clang 19.1.7 (/opt/llvm/bin/clang)
      there is none like it there
      that machine does not take it: it has no room for it

    g++ 12.2.0 (/usr/bin/c++)
      tower has it as /usr/bin/g++. Use that name in the build, or have this one sent, too
      it is sent when a unit wants it there. Now: mesh toolchain push /usr/bin/c++ --to tower
    ");
    let none = Why { lacking: vec![], ..lacking() };
    assert_eq!(why(&none), "tower has exactly the 12 compilers of this machine that are meant\n");
    assert_eq!(why(&Why::default()), "no compiler of this machine is known yet. See: mesh toolchain\n");
}

#[test]
fn arrivals_are_lines() {
    let states = [
        ArrivalState::Proving,
        ArrivalState::Told,
        ArrivalState::Coming { have: 20 << 20, of: 49 << 20 },
        ArrivalState::There,
        ArrivalState::Refused("it has no room for it".to_owned()),
        ArrivalState::Gone,
    ];
    let lines = states.map(|state| arrival("gcc 12.2.0 (/usr/bin/gcc)", &arriving("tower", state)));
    insta::assert_snapshot!(lines.join("\n"), @r"
    gcc 12.2.0 (/usr/bin/gcc): being tried here, before tower is sent it
    gcc 12.2.0 (/usr/bin/gcc): tower is asked to take it
    gcc 12.2.0 (/usr/bin/gcc): 20 MiB of 49 MiB at tower (40 %)
    gcc 12.2.0 (/usr/bin/gcc): tower has it
    gcc 12.2.0 (/usr/bin/gcc): not sent to tower: it has no room for it
    gcc 12.2.0 (/usr/bin/gcc): tower is not connected any more
    ");
    assert_eq!([percent(0, 0), percent(5, 5), percent(u64::MAX, 1), percent(1, u64::MAX)], [0, 99, 99, 0]);
}

#[test]
fn words_of_other_machines_move_no_cursor() {
    let evil = "a\u{1b}[2J\u{202e}\nb";
    let hostile = ToolchainRow {
        from: Some(evil.to_owned()),
        used_ms: Some(0),
        target: evil.to_owned(),
        proof: ProofState::Unproved(evil.to_owned()),
        has: vec![evil.to_owned()],
        arrivals: vec![arriving(evil, ArrivalState::Refused(evil.to_owned()))],
        ..row(evil, evil, evil, evil)
    };
    let all = Toolchains {
        known: vec![hostile.clone()],
        refused: vec![RefusedRow { program: evil.into(), reason: Reason::Compiler, why: evil.to_owned() }],
        not_sending: Some(evil.to_owned()),
        ..Toolchains::default()
    };
    let part = |kind| PartRow { path: evil.into(), kind };
    let kinds = [PartKind::Directory, PartKind::Symlink(evil.into())];
    let file = PartKind::File { size: 1, digest: evil.to_owned(), executable: true };
    let shown = ToolchainDetail {
        row: hostile,
        needs: evil.to_owned(),
        facts: vec![(evil.to_owned(), evil.into()), ("x".to_owned(), "b\u{202e}c".into())],
        parts: kinds.into_iter().chain([file]).map(part).collect(),
    };
    let nearest = Nearest { label: evil.to_owned(), driver: evil.into(), differences: vec![evil.to_owned()], count: 1 };
    let row = WhyRow {
        label: evil.to_owned(),
        driver: evil.into(),
        nearest: Some(nearest),
        outlook: evil.to_owned(),
        can_be_sent: true,
        ..WhyRow::default()
    };
    let also = WhyRow { also: Some(evil.into()), label: String::new(), ..row.clone() };
    let lacks = Why { peer: evil.to_owned(), asked: 2, lacking: vec![row, also], ..Why::default() };
    let line = arrival(evil, &arriving(evil, ArrivalState::Refused(evil.to_owned())));
    let texts = [list(&all, false), list(&all, true), detail(&shown, 0), why(&lacks), line];
    for text in texts {
        assert!(text.contains("a?[2J??b") && !text.contains(['\u{1b}', '\u{202e}']), "{text}");
    }
}

#[test]
fn words_of_other_machines_fill_no_screen() {
    let long = "x".repeat(100_000);
    let row = ToolchainRow {
        target: long.clone(),
        proof: ProofState::Unproved(long.clone()),
        ..row("1", &long, &long, &long)
    };
    let said = list(&Toolchains { known: vec![row.clone(), row], ..Toolchains::default() }, true);
    assert!(said.len() < 100 * SHOWN_CHARS_MAX, "{}", said.len());
}

#[test]
fn json_has_a_schema_and_no_full_digest() {
    let all = list_json(&machine());
    assert_eq!((&all["schema"], &all["toolchains"][4]["driver"]), (&1.into(), &"/usr/bin/gcc".into()));
    assert_eq!(all["toolchains"][7]["arrivals"][1]["have_bytes"], 20 << 20);
    assert_eq!(all["toolchains"][8]["used"], "1970-01-01T00:00:00.000Z");
    assert_eq!(all["refused"][0]["reason"], "WRAPPER");
    let details = details_json(&[shown()]);
    assert_eq!((&details["schema"], &details["toolchains"][0]["facts"]["specs"]), (&1.into(), &Value::Null));
    assert_eq!(details["toolchains"][0]["parts"][1]["digest"], "b9160469…");
    let lacks = why_json(&lacking());
    assert_eq!((&lacks["schema"], &lacks["lacking"][1]["nearest"]["count"]), (&1.into(), &3.into()));
    assert_eq!(lacks["lacking"][3]["also_as"], "/usr/bin/g++");
}
