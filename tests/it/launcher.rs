//! The ways to call the launcher, what its variables do, and bad input.

use crate::{
    desk::{By, Desk, Streams, Unit, Where, desk, run},
    env::{Ground, MESH, MESH_CC, Ran, has, processes},
};
use mesh::reason::Reason;
use std::{
    ffi::OsString,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

fn unit(desk: &Desk) -> Unit {
    desk.write("x.h", "int h;\n");
    desk.write("x.c", "#include \"x.h\"\nint f(void) { int unused; return h; }\n");
    desk.line("gcc -Wall -MD -c x.c -o x.o")
}

#[test]
fn every_way_to_call_it_is_the_same_compile() {
    let Some(desk) = desk() else { return };
    let unit = unit(&desk);
    for by in [By::Cc, By::Mesh, By::MeshCc, By::Link] {
        desk.same(&unit.clone().by(by), Where::There);
    }
    let mut absolute = unit.clone();
    absolute.words[0] = "/usr/bin/gcc".into();
    if Path::new("/usr/bin/gcc").exists() {
        for by in [By::Cc, By::Mesh, By::MeshCc] {
            desk.same(&absolute.clone().by(by), Where::There);
        }
    }
}

#[test]
fn links_in_front_of_the_path_and_a_launcher_together_compile_once() {
    let Some(desk) = desk() else { return };
    let unit = unit(&desk);
    let links = desk.path_with_links();
    for by in [By::Cc, By::Mesh, By::MeshCc] {
        desk.same(&unit.clone().by(by).env("PATH", links.clone()), Where::There);
    }
    // The link named by its path, as a build system stores it.
    for by in [By::Cc, By::Mesh, By::MeshCc] {
        let mut stored = unit.clone().by(by).env("PATH", links.clone());
        stored.words[0] = desk.ground.dir.join("links/gcc").into();
        desk.same(&stored, Where::There);
    }
    // The compiler itself is no worse for it.
    desk.same(&unit, Where::There);
}

#[test]
fn a_launcher_below_a_launcher_asks_nobody() {
    let Some(desk) = desk() else { return };
    let unit = unit(&desk);
    for by in [By::Cc, By::Mesh, By::MeshCc, By::Link] {
        desk.same(&unit.clone().by(by).env("MESH_DEPTH", "1"), Where::Unasked);
    }
    // A compiler that is a script which calls a compiler by name, with links in front: local, once, and not for ever.
    let script = desk.write("bin/my-gcc", "#!/bin/sh\nexec gcc \"$@\"\n");
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let mut scripted = unit.clone().by(By::MeshCc).env("PATH", desk.path_with_links());
    scripted.words[0] = script.into();
    desk.same(&scripted, Where::Here(Reason::Wrapper));
}

#[test]
fn behind_ccache_a_miss_goes_out_and_a_hit_does_not() {
    if !has("ccache") {
        return;
    }
    let Some(desk) = desk() else { return };
    let unit = unit(&desk);
    for (name, words, variables) in
        [("prefix", &["ccache"][..], &[("CCACHE_PREFIX", MESH_CC)][..]), ("words", &["ccache", MESH_CC], &[])]
    {
        let before = desk.files();
        run(desk.bare(&unit), Streams::Apart);
        let made = desk.files();
        let mut cached = unit.clone();
        cached.words = words.iter().map(OsString::from).chain(unit.words.clone()).collect();
        for turn in ["miss", "hit"] {
            desk.restore(&before);
            let served = desk.served();
            let mut command = desk.bare(&cached);
            command.env("MESH_DIR", &desk.client.home).env("MESH", "force").envs(variables.iter().copied());
            command.env("CCACHE_DIR", desk.ground.dir.join(format!("ccache-{name}")));
            command.env("CCACHE_SLOPPINESS", "include_file_mtime,include_file_ctime");
            let ran = Ran::of(&mut command);
            assert!(ran.code == Some(0) && ran.err().contains("unused"), "{name} {turn}: {}", ran.err());
            crate::desk::assert_same_files(&made, &desk.files(), &format!("{name} {turn}"));
            let wanted = served + u64::from(turn == "miss");
            crate::env::until(&format!("{name} {turn}: served"), || (desk.served() == wanted).then_some(()));
        }
        desk.restore(&before);
    }
}

#[test]
fn the_switch_turns_it_off_and_without_force_it_is_still_right() {
    let Some(desk) = desk() else { return };
    let unit = unit(&desk);
    for off in ["off", "local", "0"] {
        desk.same(&unit.clone().env("MESH", off), Where::Unasked);
    }
    desk.same(&unit.clone().env("MESH", "force"), Where::There);
    desk.same(&unit.clone().env("MESH", "on").env("MESH_PREFER", "tower"), Where::There);
    // A name that nobody has is no wish.
    desk.same(&unit.clone().env("MESH_PREFER", "nobody"), Where::There);
    // Free to choose: here or there, the same.
    let plain = run(desk.bare(&unit), Streams::Apart);
    let made = desk.files();
    assert_eq!(run(desk.launcher(&unit.clone().env("MESH", "on")), Streams::Apart), plain);
    crate::desk::assert_same_files(&made, &desk.files(), "MESH=on");
}

#[test]
fn where_no_fallback_is_allowed_it_ends_with_111_and_says_why() {
    let Some(desk) = desk() else { return };
    let unit = unit(&desk).env("MESH_FALLBACK", "0");
    desk.same(&unit, Where::There);
    std::fs::remove_file(desk.project.join("x.o")).unwrap();
    // No agent, and none is started where the runtime directory cannot be made.
    let nowhere = desk.write("file", "");
    let ran = run(desk.launcher(&unit.clone().env("MESH_DIR", nowhere.join("below"))), Streams::Apart);
    assert_eq!(ran.code, Some(111));
    assert!(ran.err().contains("MESH_FALLBACK=0") && ran.err().contains("NO_AGENT"), "{}", ran.err());
    assert!(!desk.project.join("x.o").exists());
    // What is never distributed is no fallback.
    let ran = run(desk.launcher(&desk.line("gcc -E x.c").env("MESH_FALLBACK", "0")), Streams::Apart);
    assert_eq!(ran.code, Some(0), "{}", ran.err());
}

#[test]
fn it_speaks_only_if_it_is_asked_to() {
    let Some(desk) = desk() else { return };
    desk.write("x.c", "int x;\n");
    let ran = run(desk.launcher(&desk.line("gcc -c x.c").env("MESH", "off").env("MESH_VERBOSE", "1")), Streams::Apart);
    assert!(ran.code == Some(0) && ran.err().contains("FORCED_LOCAL"), "{}", ran.err());
    run(desk.launcher(&desk.line("gcc -c x.c").env("MESH", "off")), Streams::Apart).good();
}

#[test]
fn a_compiler_that_is_not_there_is_127_and_one_sentence() {
    let ground = Ground::new();
    for words in
        [&[MESH, "cc", "no-such-gcc"][..], &[MESH_CC, "no-such-gcc"], &[MESH, "/no/such/gcc"], &[MESH_CC, "./gcc"]]
    {
        let ran = Ran::of(ground.command(words[0]).args(&words[1..]).args(["-c", "x.c"]).current_dir(&ground.dir));
        assert_eq!((ran.code, ran.out()), (Some(127), String::new()), "{words:?}");
        let err = ran.err();
        assert!(err.starts_with("mesh: ") && err.lines().count() == 1 && err.ends_with(".\n"), "{err}");
    }
    // A link to mesh with no compiler behind it.
    symlink(MESH_CC, ground.dir.join("gcc")).unwrap();
    let ran = Ran::of(ground.command(ground.dir.join("gcc")).args(["-c", "x.c"]).env("PATH", &ground.dir));
    assert_eq!((ran.code, ran.err().lines().count()), (Some(127), 1), "{}", ran.err());
}

#[test]
fn a_compiler_that_cannot_be_executed_is_126_and_one_sentence() {
    let ground = Ground::new();
    let compiler = ground.dir.join("gcc");
    std::fs::write(&compiler, "text").unwrap();
    for (mode, by_path) in [(0o644, true), (0o644, false)] {
        std::fs::set_permissions(&compiler, PermissionsExt::from_mode(mode)).unwrap();
        let name = if by_path { compiler.clone().into_os_string() } else { "gcc".into() };
        let ran = Ran::of(ground.command(MESH_CC).arg(name).args(["-c", "x.c"]).env("PATH", &ground.dir));
        assert_eq!((ran.code, ran.err().lines().count()), (Some(126), 1), "{}", ran.err());
    }
}

#[test]
fn a_compiler_that_dies_by_a_signal_dies_so_through_the_launcher() {
    let Some(desk) = desk() else { return };
    for signal in ["SEGV", "KILL", "TERM"] {
        let script = desk.write(format!("{signal}/gcc"), format!("#!/bin/sh\nkill -{signal} $$\n"));
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        desk.write("x.c", "int x;\n");
        let mut unit = desk.line("gcc -c x.c");
        unit.words[0] = script.into();
        let ran = desk.same(&unit, Where::Here(Reason::Wrapper));
        assert!(ran.signal.is_some() && ran.code.is_none(), "{ran:?}");
    }
    if has("clang") {
        // A compiler that crashes on the other machine crashes here too.
        desk.write("crash.c", "#pragma clang __debug crash\n");
        let unit = desk.line("clang -fno-crash-diagnostics -c crash.c");
        let (plain, ran) = (run(desk.bare(&unit), Streams::Apart), run(desk.launcher(&unit), Streams::Apart));
        assert_eq!((plain.code, plain.signal), (ran.code, ran.signal));
        assert_eq!(desk.last().reason, Some(Reason::CompileError));
        assert!(!desk.project.join("crash.o").exists());
    }
}

#[test]
fn bad_input_is_answered_by_the_compiler_itself() {
    let Some(desk) = desk() else { return };
    desk.write("x.c", "int x;\n");
    desk.write("directory.c/y", "");
    desk.write("directory.o/y", "");
    symlink("nowhere", desk.project.join("dangling.c")).unwrap();
    symlink("loop.c", desk.project.join("loop.c")).unwrap();
    for line in [
        "gcc -c x.c -o missing/x.o",
        "gcc -c absent.c",
        "gcc -c directory.c",
        "gcc -c directory.c/ -o x.o",
        "gcc -c x.c -o directory.o",
        "gcc -c x.c -o x.c/x.o",
        "gcc -c dangling.c",
        "gcc -c loop.c",
        "gcc -include absent.h -c x.c",
        "gcc -MD -MF missing/x.d -c x.c",
        "gcc @absent.rsp -c x.c",
        "gcc -c x.c -o",
        "gcc -c x.c -I",
    ] {
        let before = desk.files();
        let plain = run(desk.bare(&desk.line(line)), Streams::Apart);
        let made = desk.files();
        desk.restore(&before);
        let ran = run(desk.launcher(&desk.line(line)), Streams::Apart);
        assert_eq!((plain.code, plain.out(), plain.err()), (ran.code, ran.out(), ran.err()), "{line}");
        crate::desk::assert_same_files(&made, &desk.files(), line);
        desk.restore(&before);
    }
}

#[test]
fn what_may_not_be_read_or_written_fails_as_it_does_here() {
    let Some(desk) = desk() else { return };
    if rustix::process::geteuid().is_root() {
        // Nothing is forbidden to root, but what is immutable by its kind.
        desk.write("x.c", "int x;\n");
        desk.same(&desk.line("gcc -c x.c -o /proc/x.o"), Where::Here(Reason::SpecialOutput));
        desk.same(&desk.line("gcc -x c -c /proc/self/mem -o x.o"), Where::Here(Reason::Unreadable));
    } else {
        let source = desk.write("x.c", "int x;\n");
        std::fs::set_permissions(&source, PermissionsExt::from_mode(0o000)).unwrap();
        desk.same(&desk.line("gcc -c x.c"), Where::Here(Reason::Unreadable));
        std::fs::set_permissions(&source, PermissionsExt::from_mode(0o644)).unwrap();
        let object = desk.write("x.o", "old");
        std::fs::set_permissions(&object, PermissionsExt::from_mode(0o444)).unwrap();
        let ran = run(desk.launcher(&desk.line("gcc -c x.c")), Streams::Apart);
        assert_eq!(ran, run(desk.bare(&desk.line("gcc -c x.c")), Streams::Apart));
    }
}

#[test]
fn without_a_home_or_an_agent_it_is_the_compiler() {
    let Some(desk) = desk() else { return };
    let unit = unit(&desk);
    let plain = run(desk.bare(&unit), Streams::Apart);
    let mut bare: Vec<OsString> = vec![MESH_CC.into()];
    bare.extend(unit.words.clone());
    let mut homeless = desk.ground.command(&bare[0]);
    homeless.args(&bare[1..]).env("MESH", "on").env_remove("HOME").env_remove("MESH_DIR").current_dir(&desk.project);
    assert_eq!(Ran::of(&mut homeless), plain);
    assert_eq!(processes(desk.project.as_os_str().as_encoded_bytes()), Vec::<u32>::new());
}
