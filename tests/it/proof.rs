//! A compiler that makes something else with nothing but its own files: seen by its samples, and kept at home from then on.

use crate::{
    desk::{Desk, Streams, Where, run},
    env::{Ground, MESH, skip},
    ship::{BARE, compile_until, compile_until_there},
    upgrade::{Gxx, SETTLED},
};
use mesh::{agent::prove_alone, places::Places, reason::Reason};
use std::{path::Path, process::Command};

/// An assembler that says whether a file is there which no question about the compiler tells of.
fn assembler(gxx: &Gxx, flag: &Path) {
    let text = format!(
        "#include <stdio.h>\n#include <string.h>\n#include <unistd.h>\nint main(int n, char **v) {{\n\
         for (int i = 1; i + 1 < n; i++) if (!strcmp(v[i], \"-o\")) {{ FILE *f = fopen(v[i + 1], \"w\");\n\
         if (!f) return 1; fputs(access(\"{}\", R_OK) ? \"without\" : \"with\", f); return fclose(f); }} return 2; }}\n",
        flag.display()
    );
    let source = gxx.parts.join("as.c");
    std::fs::write(&source, text).unwrap();
    let made = Command::new("/usr/bin/gcc").arg("-w").arg(&source).arg("-o").arg(gxx.parts.join("as")).status();
    assert!(made.unwrap().success());
}

#[test]
fn a_compiler_that_reads_what_nobody_knows_of_is_found_out_and_stays_here() {
    let Some(gxx) = Gxx::new() else { return };
    let flag = gxx.parts.join("flag");
    std::fs::write(&flag, "").unwrap();
    assembler(&gxx, &flag);
    std::thread::sleep(SETTLED);
    let ground = gxx.ground();
    let path = ground.path.clone();
    let Some(mut desk) = Desk::on(ground) else { return };
    desk.write("x.cc", "int x;\n");
    let unit = desk.line("g++ -c x.cc -o x.o").env("PATH", path);
    // Nobody knows: the object is another one. (This is what the samples are for.)
    run(desk.bare(&unit), Streams::Apart).good();
    assert_eq!(desk.read("x.o"), b"with");
    run(desk.launcher(&unit), Streams::Apart).good();
    assert_eq!((desk.last().reason, desk.read("x.o")), (None, b"without".to_vec()));

    desk.client.stop();
    let home = desk.client.home.clone();
    let places = Places::find(|name| (name == "MESH_DIR").then(|| home.clone().into()), 0, |_| true).unwrap();
    let why = prove_alone(&places, Path::new(MESH), &gxx.driver(), |_| {}).expect_err("it is not whole");
    assert_eq!(why, "with nothing but its own files, plain.cc with -O2 -Wall: sample.o differs");
    desk.restart_client();
    desk.same(&unit, Where::Here(Reason::Unproved));
    assert_eq!(desk.read("x.o"), b"with");
}

#[test]
fn a_machine_that_lends_nothing_proves_its_compilers_itself() {
    let Some(desk) = Desk::configured(Ground::new(), BARE, "slots = 0\n") else { return };
    desk.write("a.c", "int a;\n");
    compile_until_there(&desk, "gcc -c a.c -o a.o");
    desk.same_there("gcc -O2 -g -c a.c -o a.o");
    // All that the other machine did was that unit and those before it: no samples.
    assert!(!desk.provider.log().contains("toolchain-samples"));
}

#[test]
fn a_machine_that_cannot_isolate_has_another_one_prove_its_compilers() {
    let Some(mut desk) = Desk::configured(Ground::new(), BARE, "") else { return };
    desk.client.stop();
    desk.client.is_powerless = true;
    desk.client.start(&desk.ground);
    if desk.client.answers().not_serving.is_none() {
        return skip("an agent can isolate jobs here whatever is taken from it");
    }
    desk.linked();
    desk.write("a.c", "#include <stdio.h>\nint main(void) { return puts(__FILE__); }\n");
    let line = "gcc -c a.c -o a.o";
    // It is sent there before it is proved, and no unit goes there before its samples have.
    let samples = || desk.provider.snapshot().counters.served;
    compile_until(&desk, line, "nothing is tried there", || samples() > 0);
    assert_eq!(desk.client.snapshot().counters.remote, 0);
    compile_until(&desk, line, "no unit was compiled there", || desk.client.snapshot().counters.remote > 0);
    assert!(samples() > 10, "{}", samples());
    desk.same_there("gcc -O2 -g -c a.c -o a.o");
}
