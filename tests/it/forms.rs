//! The two forms of the launcher, `mesh cc` with a standard library and `mesh-cc` without, ask the same and obey the same.
//!
//! The agent is played by the test, so that it can say what a real one never or seldom says.

use crate::env::{Ground, MESH, MESH_CC, Ran, until};
use mesh::{
    agent::wire::{Ask, BEAT_MS, Tell},
    launch::beat::SILENCE_MS_MAX,
    reason::Reason,
};
use mesh_proto::{frame, job::Text};
use std::{
    ffi::{OsStr, OsString},
    io::{Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, PermissionsExt, symlink},
        net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    process::{Command, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// The ways to start each form.
const FORMS: [&[&str]; 2] = [&[MESH, "cc"], &[MESH_CC]];
/// A part in the play that hangs ends here.
const PART_TIME: Duration = Duration::from_secs(20);

/// What is set in a launcher's environment.
type Variables = Vec<(&'static str, OsString)>;

/// A place with a compiler that says how it was called, and a socket.
struct Stage {
    ground: Ground,
    compiler: PathBuf,
}

impl Stage {
    fn new() -> Self {
        let ground = Ground::new();
        std::fs::create_dir_all(ground.dir.join("mesh/run")).unwrap();
        std::fs::create_dir_all(ground.dir.join("bin")).unwrap();
        std::fs::create_dir_all(ground.dir.join("work")).unwrap();
        symlink(ground.dir.join("work"), ground.dir.join("alias")).unwrap();
        let compiler = ground.dir.join("bin/gcc");
        std::fs::write(&compiler, "#!/bin/sh\necho \"compiler $MESH_DEPTH $*\"\n").unwrap();
        std::fs::set_permissions(&compiler, PermissionsExt::from_mode(0o755)).unwrap();
        Self { ground, compiler }
    }

    fn socket(&self) -> PathBuf {
        self.ground.dir.join("mesh/run/agent-1.sock")
    }

    /// A launcher's command for these words, in the stage's working directory.
    fn command(&self, form: &[&str], words: &[&str]) -> Command {
        let mut command = self.ground.command(form[0]);
        command.args(&form[1..]).args(words).current_dir(self.ground.dir.join("work"));
        command.env("MESH", "on").env("MESH_DIR", self.ground.dir.join("mesh"));
        let mut path = self.ground.dir.join("bin").into_os_string();
        path.push(":");
        path.push(crate::env::path_var());
        command.env("PATH", path);
        command
    }

    /// Plays the agent for one launcher. Gives what the part gives.
    fn agent<T: Send + 'static>(&self, part: impl FnOnce(UnixStream, Vec<u8>) -> T + Send + 'static) -> JoinHandle<T> {
        let _ = std::fs::remove_file(self.socket());
        let listener = UnixListener::bind(self.socket()).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PART_TIME)).unwrap();
            stream.set_write_timeout(Some(PART_TIME)).unwrap();
            let mut header = [0; frame::HEADER_BYTES];
            stream.read_exact(&mut header).unwrap();
            let mut payload = vec![0; u32::from_le_bytes(header) as usize];
            stream.read_exact(&mut payload).unwrap();
            part(stream, payload)
        })
    }

    /// What a launcher does when the agent answers so.
    fn answered(&self, form: &[&str], answers: &[Tell]) -> Ran {
        let bytes: Vec<u8> = answers.iter().flat_map(|tell| frame::encode(tell, 80 << 20).unwrap()).collect();
        let agent = self.agent(move |mut stream, _| {
            // A launcher that gave up has closed its end.
            let _ = stream.write_all(&bytes);
        });
        let ran = Ran::of(&mut self.command(form, &["gcc", "-c", "x.c"]));
        agent.join().unwrap();
        ran
    }
}

/// The program at the other end.
fn asker(stream: &UnixStream) -> PathBuf {
    let pid = rustix::net::sockopt::socket_peercred(stream).unwrap().pid;
    std::fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero())).unwrap()
}

fn local(reason: Reason) -> Tell {
    Tell::Local { reason, fallback: true }
}

const COMPILED_HERE: &str = "compiler 1 -c x.c\n";

#[test]
fn both_forms_ask_with_the_same_bytes() {
    let stage = Stage::new();
    let dir = stage.ground.dir.clone();
    let long = "x".repeat(100_000);
    let many: Vec<String> = (0..3000).map(|at| format!("-DN{at}={at}")).collect();
    let words = |more: &[&str]| -> Vec<OsString> {
        ["gcc", "-c", "x.c"].iter().chain(more).map(|word| OsString::from(*word)).collect()
    };
    let at = |below: &str| dir.join(below).into_os_string();
    let slashes = format!("::{}/", dir.join("bin").display());
    let cases: Vec<(&str, Vec<OsString>, Variables)> = vec![
        ("plain", words(&[]), vec![]),
        ("a logical directory", words(&[]), vec![("PWD", at("alias"))]),
        ("another directory", words(&[]), vec![("PWD", "/".into())]),
        ("a relative directory", words(&[]), vec![("PWD", ".".into())]),
        ("forced", words(&[]), vec![("MESH", "force".into()), ("MESH_PREFER", "tower".into())]),
        ("preferring nobody", words(&[]), vec![("MESH_PREFER", "".into())]),
        ("preferring no text", words(&[]), vec![("MESH_PREFER", OsStr::from_bytes(b"\xff").into())]),
        (
            "variables",
            words(&[]),
            vec![("LC_ALL", "C".into()), ("CPATH", "".into()), ("TZ", "a=b".into()), ("USER", "secret".into())],
        ),
        ("no text", [words(&[]), vec![OsStr::from_bytes(b"-D\xff=\x01").into()]].concat(), vec![]),
        ("a long word", words(&[&long, ""]), vec![]),
        ("many words", words(&many.iter().map(String::as_str).collect::<Vec<_>>()), vec![]),
        ("by path", ["../bin/gcc", "-c", "x.c"].iter().map(OsString::from).collect(), vec![]),
        ("on a relative path", words(&[]), vec![("PATH", "../bin:/bin:/usr/bin".into())]),
        ("on a path with slashes", words(&[]), vec![("PATH", slashes.into())]),
    ];
    for (name, words, variables) in cases {
        let asked = FORMS.map(|form| {
            let agent = stage.agent(|mut stream, payload| {
                let asker = asker(&stream);
                stream.write_all(&frame::encode(&local(Reason::NoPeer), 100).unwrap()).unwrap();
                (asker, payload)
            });
            let mut command = stage.command(form, &[]);
            command.args(&words);
            command.envs(variables.iter().map(|(name, value)| (name, value)));
            let ran = Ran::of(&mut command);
            assert!(ran.code == Some(0) && ran.out().starts_with("compiler 1 -c x.c"), "{name}: {ran:?}");
            let (asker, payload) = agent.join().unwrap();
            // Nothing here is so unusual that the one form leaves it to the other.
            assert_eq!(asker, std::fs::canonicalize(form[0]).unwrap(), "{name}");
            payload
        });
        let read = |bytes: &[u8]| match frame::decode::<Ask>(bytes).expect("a question") {
            Ask::Compile(request) => *request,
            other => panic!("{other:?}"),
        };
        assert_eq!(read(&asked[0]), read(&asked[1]), "{name}");
        assert!(asked[0] == asked[1], "{name}");
    }
}

#[test]
fn both_forms_see_the_same_mask_and_the_same_streams() {
    let stage = Stage::new();
    let asked = FORMS.map(|form| {
        let agent = stage.agent(|mut stream, payload| {
            stream.write_all(&frame::encode(&local(Reason::NoPeer), 100).unwrap()).unwrap();
            payload
        });
        let mut command = stage.command(&["sh"], &["-c", "umask 027; exec \"$@\" 2>&1", "sh"]);
        command.args(form).args(["gcc", "-c", "x.c"]);
        assert_eq!(Ran::of(&mut command).code, Some(0));
        agent.join().unwrap()
    });
    let Ask::Compile(request) = frame::decode(&asked[1]).unwrap() else { panic!("a compile") };
    assert!(request.umask == 0o027 && request.merged_output && request.terminal.is_none(), "{request:?}");
    assert!(asked[0] == asked[1]);
}

#[test]
fn a_closed_stream_is_not_the_connection() {
    let stage = Stage::new();
    std::fs::write(&stage.compiler, "#!/bin/sh\necho words; echo words >&2 2>/dev/null\n:\n").unwrap();
    for form in FORMS {
        for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
            let agent = stage.agent(|mut stream, _| {
                stream.write_all(&frame::encode(&local(Reason::NoPeer), 100).unwrap()).unwrap();
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).unwrap();
                rest
            });
            let mut command = stage.command(&["sh"], &["-c", &format!("exec \"$@\" {closed}"), "sh"]);
            command.args(form).args(["gcc", "-c", "x.c"]);
            assert_eq!(Ran::of(&mut command).code, Some(0), "{form:?} {closed}");
            assert_eq!(agent.join().unwrap(), b"", "{form:?} {closed}");
        }
    }
}

#[test]
fn a_verdict_needs_nothing_before_it() {
    let stage = Stage::new();
    for form in FORMS {
        {
            std::fs::write(stage.ground.dir.join("work/made"), "object").unwrap();
            let text = |is_stderr, words: &str| Text { is_stderr, bytes: words.into() };
            let done = Tell::Done {
                text: vec![text(true, "warning\n"), text(false, "note\n"), text(true, "end\n")],
                renames: vec![(b"made".to_vec(), b"x.o".to_vec())],
            };
            let ran = stage.answered(form, &[done]);
            assert_eq!((ran.code, ran.out(), ran.err()), (Some(0), "note\n".into(), "warning\nend\n".into()));
            assert_eq!(std::fs::read(stage.ground.dir.join("work/x.o")).unwrap(), b"object");
            let ran = stage.answered(form, &[local(Reason::NoPeer)]);
            assert_eq!((ran.code, ran.out().as_str()), (Some(0), COMPILED_HERE));
        }
    }
}

#[test]
fn an_answer_of_any_size_in_any_pieces_is_read() {
    let stage = Stage::new();
    for form in FORMS {
        let printed = vec![b'x'; 3 << 20];
        let done = Tell::Done { text: vec![Text { is_stderr: true, bytes: printed.clone() }], renames: Vec::new() };
        let ran = stage.answered(form, &[done]);
        assert!(ran.code == Some(0) && ran.err == printed, "{form:?}");
        // Byte by byte.
        let agent = stage.agent(|mut stream, _| {
            for byte in frame::encode(&local(Reason::NoPeer), 100).unwrap() {
                stream.write_all(&[byte]).unwrap();
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let ran = Ran::of(&mut stage.command(form, &["gcc", "-c", "x.c"]));
        agent.join().unwrap();
        assert_eq!((ran.code, ran.out().as_str()), (Some(0), COMPILED_HERE));
    }
}

#[test]
fn whatever_is_odd_after_the_question_is_answered_by_the_compiler() {
    let stage = Stage::new();
    let part = |bytes: &'static [u8]| {
        move |mut stream: UnixStream, _| {
            let _ = stream.write_all(bytes);
        }
    };
    for form in FORMS {
        // Nothing, half a header, half a frame, one that is too long, an unknown kind, bytes left over, an empty frame.
        for bytes in [
            &b""[..],
            b"\x01\0",
            b"\x05\0\0\0\x02",
            b"\xff\xff\xff\xff",
            b"\x01\0\0\0\x30",
            b"\x02\0\0\0\0\0",
            b"\0\0\0\0",
        ] {
            let agent = stage.agent(part(bytes));
            let ran = Ran::of(&mut stage.command(form, &["gcc", "-c", "x.c"]));
            agent.join().unwrap();
            assert_eq!((ran.code, ran.out(), ran.err()), (Some(0), COMPILED_HERE.into(), String::new()), "{bytes:?}");
        }
        // An output that cannot be put in its place; nothing of it stays.
        for name in ["one", "two"] {
            std::fs::write(stage.ground.dir.join("work").join(name), "").unwrap();
        }
        let rename = |from: &str, to: &str| (from.as_bytes().to_vec(), to.as_bytes().to_vec());
        let renames = vec![rename("one", "absent/x.d"), rename("two", "y.o")];
        let ran = stage.answered(form, &[Tell::Done { text: Vec::new(), renames }]);
        assert_eq!((ran.code, ran.out().as_str()), (Some(0), COMPILED_HERE));
        let left: Vec<_> = std::fs::read_dir(stage.ground.dir.join("work")).unwrap().map(|e| e.unwrap()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_failure_elsewhere_is_compiled_again_and_its_end_is_told() {
    let stage = Stage::new();
    for form in FORMS {
        for (status, code, told) in [("0", Some(0), 0), ("3", Some(3), 3), ("; kill -9 $$", None, 255)] {
            let script = format!("#!/bin/sh\necho \"compiler $MESH_DEPTH $*\"\nexit {status}\n");
            let script = script.replace("exit ; ", "");
            std::fs::write(&stage.compiler, script).unwrap();
            let agent = stage.agent(|mut stream, _| {
                stream.write_all(&frame::encode(&local(Reason::CompileError), 100).unwrap()).unwrap();
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).unwrap();
                rest
            });
            let ran = Ran::of(&mut stage.command(form, &["gcc", "-c", "x.c"]));
            assert_eq!((ran.code, ran.out().as_str()), (code, COMPILED_HERE), "{form:?}");
            assert_eq!(ran.signal, code.is_none().then_some(9));
            assert_eq!(agent.join().unwrap(), [told]);
        }
    }
}

#[test]
fn a_lease_lasts_as_long_as_the_compiler() {
    let stage = Stage::new();
    std::fs::write(&stage.compiler, "#!/bin/sh\nread line\n").unwrap();
    for form in FORMS {
        let agent = stage.agent(|mut stream, _| {
            stream.write_all(&frame::encode(&local(Reason::NoPeer), 100).unwrap()).unwrap();
            stream
        });
        let mut child = stage.command(form, &["gcc", "-c", "x.c"]).stdin(Stdio::piped()).spawn().unwrap();
        let stream = agent.join().unwrap();
        let comm = PathBuf::from(format!("/proc/{}/comm", child.id()));
        until("it is the compiler", || (std::fs::read_to_string(&comm).unwrap() == "gcc\n").then_some(()));
        stream.set_nonblocking(true).unwrap();
        let waits = (&stream).read(&mut [0]).unwrap_err();
        assert_eq!(waits.kind(), std::io::ErrorKind::WouldBlock, "{form:?}");
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!((&stream).read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn a_launcher_waits_for_as_long_as_the_agent_beats_and_no_longer() {
    let stage = Stage::new();
    for form in FORMS {
        let beat = stage.socket().with_extension("beat");
        let beating = |seconds: u64| {
            let beat = beat.clone();
            move |stream: UnixStream, _| {
                // Not emptied in between: a launcher may look at any moment.
                let file = std::fs::File::options().create(true).truncate(false).write(true).open(&beat).unwrap();
                for _ in 0..seconds {
                    file.write_all_at(&mesh::host::monotonic_ms().to_le_bytes(), 0).unwrap();
                    std::thread::sleep(Duration::from_millis(BEAT_MS));
                }
                stream
            }
        };
        let answers = {
            let beats = beating(4);
            move |stream: UnixStream, request| {
                let mut stream: UnixStream = beats(stream, request);
                stream.write_all(&frame::encode(&local(Reason::NoPeer), 100).unwrap()).unwrap();
            }
        };
        let agent = stage.agent(answers);
        let begun = Instant::now();
        assert_eq!(Ran::of(&mut stage.command(form, &["gcc", "-c", "x.c"])).out(), COMPILED_HERE);
        agent.join().unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(4 * BEAT_MS), "{form:?} did not wait");
        assert!(!stage.socket().with_extension("frozen").exists(), "{form:?}");
        // One that beats for two seconds and is frozen then.
        let agent = stage.agent(beating(2));
        let begun = Instant::now();
        assert_eq!(Ran::of(&mut stage.command(form, &["gcc", "-c", "x.c"])).out(), COMPILED_HERE);
        let waited = u64::try_from(begun.elapsed().as_millis()).unwrap();
        assert!(
            (BEAT_MS + SILENCE_MS_MAX..2 * BEAT_MS + 2 * SILENCE_MS_MAX).contains(&waited),
            "{form:?}: {waited} ms"
        );
        std::fs::remove_file(stage.socket().with_extension("frozen")).expect("a marker");
        agent.join().unwrap();
    }
}

#[test]
fn silence_leaves_a_marker_and_the_next_launcher_does_not_wait() {
    let stage = Stage::new();
    for form in FORMS {
        let marker = stage.socket().with_extension("frozen");
        let agent = stage.agent(|stream, _| {
            let _ = (&stream).read(&mut [0]);
        });
        let ran = Ran::of(&mut stage.command(form, &["gcc", "-c", "x.c"]));
        agent.join().unwrap();
        assert_eq!((ran.code, ran.out().as_str()), (Some(0), COMPILED_HERE));
        assert!(marker.exists(), "{form:?}");
        let _frozen = UnixListener::bind({
            std::fs::remove_file(stage.socket()).unwrap();
            stage.socket()
        });
        let begun = Instant::now();
        assert_eq!(Ran::of(&mut stage.command(form, &["gcc", "-c", "x.c"])).out(), COMPILED_HERE);
        assert!(begun.elapsed() < Duration::from_millis(SILENCE_MS_MAX), "{form:?}");
        std::fs::remove_file(marker).unwrap();
    }
}

#[test]
fn the_freestanding_form_needs_no_other_program_and_takes_every_odd_call_to_mesh() {
    let stage = Stage::new();
    let alone = stage.ground.dir.join("alone");
    std::fs::create_dir(&alone).unwrap();
    let copy = alone.join("mesh-cc");
    std::fs::copy(MESH_CC, &copy).unwrap();
    let form = [copy.to_str().unwrap()];
    // No agent listens, and there is no mesh that could start one.
    let ran = Ran::of(&mut stage.command(&form, &["gcc", "-c", "x.c"]));
    assert_eq!((ran.code, ran.out(), ran.err()), (Some(0), COMPILED_HERE.into(), String::new()));
    // It is the same program under another name, and a mesh that is only a link to it leads to no endless loop.
    symlink(&copy, alone.join("mesh")).unwrap();
    symlink(&copy, alone.join("compile")).unwrap();
    for form in [form, [alone.join("compile").to_str().unwrap()]] {
        let ran = Ran::of(&mut stage.command(&form, &["gcc", "-c", "x.c"]));
        assert_eq!((ran.code, ran.out().as_str()), (Some(0), COMPILED_HERE));
    }
    std::fs::remove_file(alone.join("mesh")).unwrap();
    symlink(MESH, alone.join("mesh")).unwrap();
    let mut spoken = stage.command(&[alone.join("compile").to_str().unwrap()], &["gcc", "-c", "x.c"]);
    let ran = Ran::of(spoken.env("MESH", "off").env("MESH_VERBOSE", "1"));
    assert!(ran.out() == COMPILED_HERE && ran.err().contains("FORCED_LOCAL"), "{ran:?}");
    // A script without a first line is run as a shell runs it.
    std::fs::write(&stage.compiler, "echo \"compiler $MESH_DEPTH $*\"\n").unwrap();
    let ran = Ran::of(stage.command(&[MESH_CC], &["gcc", "-c", "x.c"]).env("MESH", "off"));
    assert_eq!((ran.code, ran.out().as_str()), (Some(0), COMPILED_HERE));
}
