//! What a hostile client can have a real compiler do: it bypasses its own plan, so that any command line comes here.
//!
//! Each command line names something of this machine. In the sandbox it reads, writes and runs nothing of it; where the
//! root that was left is kept and the line names it there, it does.

use crate::collect::file;
use crate::compile::words;
use crate::escape::{NONE, attempt};
use crate::world::{Client, World, apart, closure, job, output, toolchain};
use mesh::sandbox::policy::Without;
use mesh::worker::run::{Form, Ran};
use mesh_proto::closure::{Entry, Node};
use mesh_proto::digest::Digest;
use mesh_proto::toolchain::Manifest;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const SECRET: &str = "only_this_machine_may_know_5e1d";

/// Where the root that was left is, in each form.
const LEFT: [(Form, &str); 2] = [(Form::Strict, "/machine"), (Form::Mirror, "/machine/machine")];

/// What a line has done if it worked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    /// The secret is in what comes back.
    Reads,
    /// A file of this machine has been written.
    Writes,
}

use Does::{Reads, Writes};

/// Lines after `gcc -c unit.c` or `clang -c unit.c`: `@` is the directory of this machine that is attacked.
const BOTH: &[(&str, Does)] = &[
    ("-include @/secret.h", Reads),
    ("-imacros @/macros.h -DUSE_MACROS", Reads),
    ("-I@ -DUSE_INCLUDE", Reads),
    ("-isystem @ -DUSE_INCLUDE", Reads),
    ("-idirafter @ -DUSE_INCLUDE", Reads),
    ("-iquote @ -DUSE_NAME=\"secret.h\"", Reads),
    ("-DUSE_NAME=<@/secret.h>", Reads),
    ("-DUSE_INCBIN=\"@/secret.h\"", Reads),
    ("-x c @/secret.h", Reads),
    ("-E @/secret.h", Reads),
    ("-x assembler-with-cpp @/secret.h -E", Reads),
    ("@@/arguments", Reads),
    ("--sysroot=@ -I=/sub -DUSE_INCLUDE", Reads),
    ("-o @/open", Writes),
    ("-MD -MF @/open", Writes),
    ("-E -o @/open", Writes),
];

const GCC: &[(&str, Does)] = &[
    ("-fplugin=@/plugin.so", Writes),
    ("-B@/bin", Writes),
    ("-specs=@/specs", Reads),
    ("-wrapper @/attempt,write,@/open", Writes),
    ("-dumpdir @/dumps/ -fstack-usage -save-temps", Writes),
    ("-fdump-tree-original=@/open", Writes),
    ("-aux-info @/open", Writes),
    ("-Wa,-a=@/open", Writes),
];

const CLANG: &[(&str, Does)] = &[
    ("-fplugin=@/plugin.so", Writes),
    ("-Xclang -load -Xclang @/plugin.so", Writes),
    ("-B@/bin -fno-integrated-as", Writes),
    ("--config @/config", Reads),
    ("-serialize-diagnostics @/open", Writes),
    ("-Xclang -dependency-file -Xclang @/open -Xclang -MT -Xclang x", Writes),
];

/// Variables, with a plain line.
const VARIABLES: &[(&str, &str, &str, Does)] = &[
    ("gcc", "LD_PRELOAD", "@/plugin.so", Writes),
    ("gcc", "LD_AUDIT", "@/plugin.so", Writes),
    ("gcc", "COMPILER_PATH", "@/bin", Writes),
    ("gcc", "GCC_EXEC_PREFIX", "@/prefix/", Writes),
    ("gcc", "DEPENDENCIES_OUTPUT", "@/open", Writes),
    ("gcc", "SUNPRO_DEPENDENCIES", "@/open", Writes),
    ("clang", "LD_PRELOAD", "@/plugin.so", Writes),
    ("clang", "CCC_OVERRIDE_OPTIONS", "+-include +@/secret.h", Reads),
];

const UNIT: &str = "#ifdef USE_INCLUDE\n#include <secret.h>\n#endif\n#ifdef USE_NAME\n#include USE_NAME\n#endif\n\
    #ifdef USE_MACROS\nint MACRO;\n#endif\n\
    #ifdef USE_INCBIN\n#define TEXT(a) TEXT2(a)\n#define TEXT2(a) #a\n\
    __asm__(\".incbin \\\"\" USE_INCBIN \"\\\"\");\n#endif\n\
    #ifdef USE_EMBED\nconst char embedded[] = {\n#embed USE_EMBED\n};\n#endif\n\
    int unit;\nint function(void) { return 0; }\n";

/// A library that writes to a file of the machine as soon as anything loads it.
const PLUGIN: &str = "#include <fcntl.h>\n#include <unistd.h>\nint plugin_is_GPL_compatible;\n\
    __attribute__((constructor)) static void loaded(void) {\n\
    const char *at[] = {OPEN, \"/machine\" OPEN, \"/machine/machine\" OPEN};\n\
    for (int n = 0; n < 3; n++) { int fd = open(at[n], O_WRONLY); if (fd >= 0) (void)!write(fd, \"x\", 1); }\n}\n";

/// A directory of this machine with a secret to be read, a file to be written and programs to be run, all of which
/// anybody may: only its names are kept from the job.
struct Ground {
    dir: tempfile::TempDir,
}

impl Ground {
    fn new() -> Option<Self> {
        let dir = apart();
        let at = dir.path();
        let write = |name: &str, text: &str, mode| {
            let path = at.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        };
        write("secret.h", &format!("int {SECRET};\n"), 0o644);
        write("macros.h", &format!("#define MACRO {SECRET}\n"), 0o644);
        write("arguments", &format!("-D{SECRET} -DINT=int -D unit={SECRET}"), 0o644);
        write("sub/secret.h", &format!("int {SECRET};\n"), 0o644);
        write("config", &format!("-D unit={SECRET}\n"), 0o644);
        write("specs", &format!("*cc1:\n-D unit={SECRET}\n"), 0o644);
        write("open", "", 0o666);
        write("plugin.c", PLUGIN, 0o644);
        std::fs::create_dir(at.join("dumps")).unwrap();
        std::fs::set_permissions(at.join("dumps"), PermissionsExt::from_mode(0o777)).unwrap();
        std::fs::copy(attempt()?, at.join("attempt")).unwrap();
        let open = format!("-DOPEN=\"{}\"", at.join("open").display());
        let mut gcc = Command::new("gcc");
        gcc.args(["-shared", "-fPIC", &open, "-o"]).arg(at.join("plugin.so")).arg(at.join("plugin.c"));
        assert!(gcc.status().unwrap().success(), "{}", output(&mut gcc));
        // An assembler of the machine's, found by its directory: it only shows that it ran.
        let source = "extern int open(const char *, int); extern long write(int, const void *, unsigned long);\n\
            int main(void) { const char *at[] = {OPEN, \"/machine\" OPEN, \"/machine/machine\" OPEN};\n\
            for (int n = 0; n < 3; n++) { int fd = open(at[n], 1); if (fd >= 0) write(fd, \"x\", 1); } return 1; }\n";
        write("as.c", source, 0o644);
        for name in ["bin/as", "bin/cc1", "prefix/cc1"] {
            std::fs::create_dir_all(at.join(name).parent().unwrap()).unwrap();
            let built =
                Command::new("gcc").args(["-static", &open, "-o"]).arg(at.join(name)).arg(at.join("as.c")).status();
            assert!(built.unwrap().success());
        }
        for name in ["bin", "prefix", "sub", "."] {
            std::fs::set_permissions(at.join(name), PermissionsExt::from_mode(0o755)).unwrap();
        }
        Some(Self { dir })
    }

    /// Whether an attack has written here since the last time that was asked.
    fn was_written(&self) -> bool {
        let open = self.dir.path().join("open");
        let written = std::fs::metadata(&open).unwrap().len() > 0 || !self.is_empty("dumps");
        std::fs::File::options().write(true).truncate(true).open(&open).unwrap();
        for made in std::fs::read_dir(self.dir.path().join("dumps")).unwrap() {
            std::fs::remove_file(made.unwrap().path()).unwrap();
        }
        written
    }

    fn is_empty(&self, name: &str) -> bool {
        std::fs::read_dir(self.dir.path().join(name)).unwrap().next().is_none()
    }
}

/// A world in which a unit can be compiled, and what a line needs there.
struct Bench {
    world: World,
    cwd: PathBuf,
    toolchain: Manifest,
    entries: Vec<Entry>,
}

impl Bench {
    fn new(compiler: &str, without: Without) -> Option<Self> {
        let world = World::new()?.without(without);
        let cwd = world.dir.path().canonicalize().unwrap().join("w");
        std::fs::create_dir(&cwd).unwrap();
        std::fs::write(cwd.join("unit.c"), UNIT).unwrap();
        let toolchain = toolchain(compiler)?;
        let entries = closure(&words(&format!("{compiler} -c unit.c")), &cwd, &[]);
        world.stock(&entries);
        Some(Self { world, cwd, toolchain, entries })
    }

    fn run(&self, form: Form, line: &str, env: Option<(&str, &str)>) -> Result<Ran, String> {
        let mut job = job(&self.toolchain, &words(line), &self.cwd, &[&self.cwd]);
        job.env.extend(env.map(|(name, value)| (name.into(), value.into())));
        let ran = self.world.run_for(&Client::default(), form, &job, &self.entries, &self.toolchain);
        ran.map_err(|error| error.to_string())
    }
}

/// Whether what came back holds the secret: in an output or in words.
fn tells(ran: &Result<Ran, String>) -> bool {
    let holds = |bytes: &[u8]| bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
    let Ok(ran) = ran else { return false };
    let text: Vec<u8> = ran.outcome.text.iter().flat_map(|text| text.bytes.clone()).collect();
    let read = |file: &std::fs::File| {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, 0).unwrap();
        bytes
    };
    holds(&text) || ran.files.iter().any(|file| holds(&read(file)))
}

/// The line of an attack on a directory, and whether it worked in this form.
fn attack(
    bench: &Bench,
    ground: &Ground,
    form: Form,
    at: &str,
    (line, env, does): (&str, Option<(&str, &str)>, Does),
) -> bool {
    // `@@` is an argument file.
    let put = |text: &str| text.replace("@@", "\u{1}@").replace('@', at).replace('\u{1}', "@");
    let env = env.map(|(name, value)| (name, put(value)));
    let line = put(line);
    let ran = bench.run(form, &line, env.as_ref().map(|(name, value)| (*name, value.as_str())));
    let (told, wrote) = (tells(&ran), ground.was_written());
    match does {
        Reads => assert!(!wrote, "{line}"),
        Writes => assert!(!told, "{line}"),
    }
    told || wrote
}

fn everything(compiler: &str, lines: &[&[(&str, Does)]]) {
    if attempt().is_none() {
        return;
    }
    let Some(ground) = Ground::new() else { return };
    let Some(closed) = Bench::new(compiler, NONE) else { return };
    let opened = Without { own_root: true, landlock: true, ..NONE };
    let Some(open) = Bench::new(compiler, opened) else { return };
    let place = ground.dir.path().display().to_string();
    let plain = format!("{compiler} -c unit.c");
    let lines = lines.iter().copied().flatten().map(|(line, does)| (format!("{plain} {line}"), None, *does));
    let variables = VARIABLES.iter().filter(|(whose, ..)| *whose == compiler);
    let variables = variables.map(|(_, name, value, does)| (plain.clone(), Some((*name, *value)), *does));
    let mut broken = Vec::new();
    for (line, env, does) in lines.chain(variables) {
        let attempt = (line.as_str(), env, does);
        for (form, machine) in LEFT {
            assert!(!attack(&closed, &ground, form, &place, attempt), "{form:?}: {line} {env:?}");
            // Nor by the name that it has where the root is kept.
            assert!(!attack(&closed, &ground, form, &format!("{machine}{place}"), attempt), "{form:?}: {line} {env:?}");
        }
        let (form, machine) = LEFT[0];
        if !attack(&open, &ground, form, &format!("{machine}{place}"), attempt) {
            broken.push((line, env));
        }
    }
    assert!(broken.is_empty(), "these test nothing: they do not work even without the barrier: {broken:#?}");
}

#[test]
fn no_line_of_gccs_reads_writes_or_runs_anything_of_this_machine() {
    everything("gcc", &[BOTH, GCC]);
}

#[test]
fn no_line_of_clangs_reads_writes_or_runs_anything_of_this_machine() {
    everything("clang", &[BOTH, CLANG]);
}

#[test]
fn no_embedded_file_is_one_of_this_machine() {
    everything("clang-19", &[&[("-std=c23 -Wno-c23-extensions -DUSE_EMBED=<@/secret.h>", Reads)]]);
}

/// `-wrapper` may run what the client itself has sent: then that is the job, and the sandbox holds it.
#[test]
fn a_program_that_the_client_sends_along_runs_and_finds_nothing() {
    let Some(attempt) = attempt() else { return };
    let Some(mut bench) = Bench::new("gcc", NONE) else { return };
    let Some(ground) = Ground::new() else { return };
    let bytes = std::fs::read(attempt).unwrap();
    bench.world.blobs.put(&Digest::of(&bytes), &bytes).unwrap();
    let sent = bench.cwd.join("sent");
    let mut entry = file(sent.to_str().unwrap(), &bytes);
    if let Node::File(file) = &mut entry.node {
        file.executable = true;
    }
    bench.entries.push(entry);
    let digits: String = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect();
    for (what, said) in [("name".to_owned(), "mesh"), (format!("hunt,{digits},/"), "nothing")] {
        let line = format!("gcc -c unit.c -wrapper {},{what}", sent.display());
        for (form, _) in LEFT {
            let ran = bench.run(form, &line, None).unwrap();
            let text: Vec<u8> = ran.outcome.text.iter().flat_map(|text| text.bytes.clone()).collect();
            let text = String::from_utf8_lossy(&text);
            assert!(text.contains(said) && !text.contains("secret.h"), "{line}: {text}");
        }
    }
    // It would find it, were it there.
    let home = Command::new(attempt).args(["hunt", &digits]).arg(ground.dir.path()).output().unwrap();
    assert!(home.status.success(), "{home:?}");
    assert!(Path::new(ground.dir.path()).exists());
}
