//! A compiler that changes between two units and during one: what comes out is the old one's or the new one's.

use crate::{
    desk::{Begun, Desk, Streams, Unit, Where, run, slow},
    env::{Ground, skip},
};
use mesh::reason::Reason;
use std::{
    ffi::OsString,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// After so long a file's times show every later change.
pub(crate) const SETTLED: Duration = Duration::from_millis(3100);

/// A g++ in a directory of its own: the machine's driver, with links to the machine's parts.
pub(crate) struct Gxx {
    dir: tempfile::TempDir,
    pub(crate) parts: PathBuf,
}

impl Gxx {
    /// `None`, said aloud, if the machine's does not say where its parts are.
    pub(crate) fn new() -> Option<Self> {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let answer = Command::new("/usr/bin/g++").arg("-print-prog-name=cc1plus").output().ok();
        let cc1plus = answer.map(|out| PathBuf::from(String::from_utf8_lossy(&out.stdout).trim().to_owned()));
        let Some(home) = cc1plus.as_deref().and_then(Path::parent).filter(|home| home.starts_with("/usr/lib")) else {
            skip("there is no g++ with its parts in /usr/lib");
            return None;
        };
        let parts = dir.path().join(home.strip_prefix("/usr").unwrap());
        std::fs::create_dir_all(&parts).unwrap();
        std::fs::create_dir_all(dir.path().join("bin")).unwrap();
        for name in ["cc1", "cc1plus", "lto-wrapper", "liblto_plugin.so", "include"] {
            symlink(home.join(name), parts.join(name)).unwrap();
        }
        std::fs::copy("/usr/bin/g++", dir.path().join("bin/g++")).unwrap();
        Some(Self { dir, parts })
    }

    /// A ground on which it is the first in the path.
    pub(crate) fn ground(&self) -> Ground {
        let mut ground = Ground::new();
        let front = [self.dir.path().join("bin")];
        ground.path = std::env::join_paths(front.into_iter().chain(std::env::split_paths(&ground.path))).unwrap();
        ground
    }

    /// Its path.
    pub(crate) fn driver(&self) -> PathBuf {
        self.dir.path().join("bin/g++")
    }

    /// From now on every unit is compiled with one more option.
    pub(crate) fn upgrade(&self, option: &str) {
        let beside = self.parts.join("specs.new");
        std::fs::write(&beside, format!("*cc1:\n+ {option}\n\n")).unwrap();
        std::fs::rename(beside, self.parts.join("specs")).unwrap();
    }
}

const SOURCE: &str = "#define WORD(x) #x\n#define TEXT(x) WORD(x)\n\
    #ifdef RELEASE\nconst char *release = TEXT(RELEASE);\n#else\nconst char *release = \"old\";\n#endif\n";

/// What the compiler itself makes of a unit now.
fn plain(desk: &Desk, unit: &Unit, object: &str) -> Vec<u8> {
    run(desk.bare(unit), Streams::Apart).good();
    desk.read(object)
}

#[test]
fn an_upgrade_between_two_units_and_one_during_a_unit_leave_no_object_of_neither() {
    let Some(gxx) = Gxx::new() else { return };
    std::thread::sleep(SETTLED);
    let ground = gxx.ground();
    let path: OsString = ground.path.clone();
    let Some(desk) = Desk::on(ground) else { return };
    desk.write("x.cc", SOURCE);
    let unit = desk.line("g++ -c x.cc -o x.o").env("PATH", path.clone());
    desk.same(&unit, Where::There);

    // Between two units. At once: its times do not show yet whether it will change again.
    gxx.upgrade("-DRELEASE=first");
    desk.same(&unit, Where::Here(Reason::Changing));
    assert!(desk.read("x.o").windows(5).any(|w| w == b"first"), "this upgrade does something");
    std::thread::sleep(SETTLED);
    // The other machine has it when it looks again; until then the unit is made here, and by the new one in any case.
    let launched = |unit: &Unit| run(desk.launcher(unit), Streams::Apart).good();
    let new = plain(&desk, &unit, "x.o");
    launched(&unit);
    assert_eq!(desk.read("x.o"), new);
    assert_ne!(desk.last().reason, Some(Reason::Changing), "nothing changes any more");

    // During one, with the machine's own, which both have.
    let during = slow(&desk, "during").env("PATH", path);
    let text = [&desk.read("during.cc")[..], SOURCE.as_bytes()].concat();
    desk.write("during.cc", text);
    let old = plain(&desk, &during, "during.o");
    let mut begun: Option<Begun> = None;
    crate::env::until("the other machine has the new one", || {
        run(desk.launcher(&unit), Streams::Apart).good();
        (desk.last().reason.is_none()).then_some(())
    });
    begun.replace(desk.begin(&during, "during.cc"));
    gxx.upgrade("-DRELEASE=second");
    begun.take().unwrap().ends().good();
    let made = desk.read("during.o");
    // What the old one made there is not taken: its headers may be the new one's already.
    assert_eq!(desk.last().reason, Some(Reason::Changing));
    let new = plain(&desk, &during, "during.o");
    assert_ne!(old, new);
    assert!(made == new, "the old one's object");
    // And so is the next one.
    launched(&during);
    assert_eq!(desk.read("during.o"), new);
}
