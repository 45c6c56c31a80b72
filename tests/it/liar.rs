//! A member that lends its compilers and lies: an answer with anything that was not asked for changes no file here.

use crate::{
    desk::{Desk, Streams, desk, run},
    env::{leftovers, until},
    share::Member,
};
use mesh::{
    net::{
        channel::{Receiver, Sender},
        stream::{self, StreamError, pack_blob},
    },
    reason::Reason,
    store::layout,
};
use mesh_proto::{
    digest::Digest,
    exchange::toolchain::{Arriving, Given, NotTaken, Wanted},
    frame,
    job::{Exit, Outcome, Output, Usage},
    limits,
    message::{Answer, Control, Load, StreamHead},
    naming::NumberSet,
    path::AbsPath,
    toolchain::{Manifest, NEEDS_FACT, Part, PartNode},
};
use std::{os::unix::fs::PermissionsExt, path::Path, time::Duration};

const SOON: Duration = Duration::from_secs(5);

/// What the liar makes, by the project's folder; the first is always the object.
type Lie = fn(&Path) -> Vec<(Output, Vec<u8>)>;

const OBJECT: &[u8] = b"a liar's object";

fn output(path: &Path, bytes: &[u8]) -> (Output, Vec<u8>) {
    let path = AbsPath::new(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())).unwrap();
    (Output { path, digest: Digest::of(bytes), size: bytes.len() as u64, executable: false }, bytes.to_vec())
}

fn object(project: &Path) -> (Output, Vec<u8>) {
    output(&project.join("x.o"), OBJECT)
}

fn with(project: &Path, name: &str) -> Vec<(Output, Vec<u8>)> {
    let mut both = vec![object(project), output(&project.join(name), b"all: ; rm -rf /\n")];
    both.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
    both
}

/// Each lie, the reason that its unit is compiled here, and what would be gained by it.
const LIES: &[(&str, Lie, Reason)] = &[
    ("a new file beside the object", |p| with(p, "new.mk"), Reason::Discrepancy),
    ("a file that is there", |p| with(p, "Makefile"), Reason::Discrepancy),
    ("the source itself", |p| with(p, "x.c"), Reason::Discrepancy),
    ("a header", |p| with(p, "x.h"), Reason::Discrepancy),
    ("a dependency list that was not asked for", |p| with(p, "x.d"), Reason::Discrepancy),
    ("a file in another directory", |p| with(p, "sub/y.o"), Reason::Discrepancy),
    ("a file above", |p| with(p.parent().unwrap(), "y.o"), Reason::Discrepancy),
    ("no object", |_| vec![], Reason::Discrepancy),
    (
        "bytes that are not those of the digest",
        |p| vec![(object(p).0, OBJECT.to_ascii_uppercase())],
        Reason::Discrepancy,
    ),
    ("the object twice", |p| vec![object(p), object(p)], Reason::Discrepancy),
];

async fn serve(out: &mut Sender, inp: &mut Receiver, project: &Path, lie: Lie) -> Result<(), StreamError> {
    let StreamHead::Job(_offer) = inp.receive(limits::FRAME_BYTES_MAX, SOON).await? else {
        return Err(StreamError::Finished);
    };
    let mut made = lie(project);
    // Whatever was asked for, it may be executed.
    made.iter_mut().for_each(|(output, _)| output.executable = true);
    let outputs = made.iter().map(|(output, _)| output.clone()).collect();
    let done = Outcome { exit: Exit::Code(0), text: vec![], outputs, usage: Usage::default() };
    let mut wire = frame::encode(&Answer::Done(Box::new(done)), limits::FRAME_BYTES_MAX)?;
    for (_, bytes) in made {
        pack_blob(&bytes, &mut wire)?;
    }
    out.send_bytes(&wire).await
}

/// Compiles a unit by the liar's hand.
fn answered(desk: &Desk, member: &Member, runtime: &tokio::runtime::Runtime, lie: Lie) -> crate::env::Ran {
    let unit = desk.line("gcc -c x.c -o x.o").env("MESH_PREFER", "liar");
    let launcher = desk.launcher(&unit);
    let project = desk.project.canonicalize().unwrap();
    runtime.block_on(async {
        let compile = tokio::task::spawn_blocking(move || run(launcher, Streams::Apart));
        let (mut out, mut inp) = member.link.accept_bi().await.unwrap();
        serve(&mut out, &mut inp, &project, lie).await.unwrap();
        out.finish();
        compile.await.unwrap()
    })
}

/// A compiler of one small file and one that is said to be there.
fn compiler(more: Vec<Part>) -> Manifest {
    let path = |text: &str| AbsPath::new(text).unwrap();
    let node = PartNode::File { digest: Digest::of(OBJECT), size: OBJECT.len() as u64, executable: true };
    let parts = [vec![Part { path: path("/usr/bin/cc"), node }], more].concat();
    let needs = mesh::host::processor().fact();
    Manifest { driver: path("/usr/bin/cc"), facts: vec![(NEEDS_FACT.to_owned(), needs)], parts }
}

/// Has the provider ask for a compiler, gives it this manifest and bytes, and hears what becomes of it.
async fn lends(member: &mut Member, said: u64, manifest: &Manifest, bytes: &[u8]) -> Arriving {
    let fingerprint = manifest.fingerprint();
    let wanted = Control::Wanted(Wanted { fingerprint, needs: mesh::host::processor(), bytes: said });
    stream::send(&mut member.control, &wanted, limits::WELCOME_BYTES_MAX).await.unwrap();
    let (mut out, mut inp) = member.link.accept_bi().await.unwrap();
    let StreamHead::Toolchain(_) = inp.receive(limits::FRAME_BYTES_MAX, SOON).await.unwrap() else { panic!("a job") };
    let given = Given::Manifest(Box::new(manifest.clone()));
    out.send(&given, limits::TOOLCHAIN_MANIFEST_BYTES_MAX).await.unwrap();
    if inp.receive::<NumberSet>(limits::FRAME_BYTES_MAX, SOON).await.is_ok() {
        let mut wire = Vec::new();
        pack_blob(bytes, &mut wire).unwrap();
        // It may have heard enough.
        let _ = out.send_bytes(&wire).await;
    }
    out.finish();
    loop {
        match member.hears().await {
            Control::Arrival(arrival) if arrival.fingerprint == fingerprint => match arrival.state {
                Arriving::Coming { .. } => {}
                state => return state,
            },
            Control::Toolchains(all) if all.contains(&fingerprint) => panic!("it is lent"),
            _ => {}
        }
    }
}

#[test]
fn a_compiler_that_is_not_what_was_said_is_not_taken_in() {
    let Some(mut desk) = desk() else { return };
    desk.spoilt = true;
    let identity = Member::admitted(&desk, "liar");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut member = runtime.block_on(Member::connect(&desk.provider, "liar", &identity));
    let cache = desk.provider.home.join("cache");
    let kept = || {
        [layout::TOOLCHAIN_FILES, layout::TOOLCHAINS, layout::TOOLCHAINS_SENT].map(|folder| {
            let entries = std::fs::read_dir(cache.join(folder)).unwrap().flatten();
            entries.map(|entry| entry.file_name()).collect::<std::collections::BTreeSet<_>>()
        })
    };
    let part = |at: &str, node| Part { path: AbsPath::new(at).unwrap(), node };
    let file = |text: &[u8], size| PartNode::File { digest: Digest::of(text), size, executable: true };
    let out = || PartNode::Symlink { target: b"/var/tmp".to_vec() };
    let small = OBJECT.len() as u64;
    let before = kept();
    let lies = [
        ("more than was said", small, compiler(vec![part("/usr/lib/cc1", file(b"x", 1 << 24))]), OBJECT),
        ("through a link", small * 2, compiler(vec![part("/a", out()), part("/a/b", file(OBJECT, small))]), OBJECT),
        ("a device", small * 2, compiler(vec![part("/dev/null", file(OBJECT, small))]), OBJECT),
        ("twice", small * 2, compiler(vec![part("/usr/bin/cc", out())]), OBJECT),
        ("other bytes", small, compiler(vec![]), b"not what it said"),
    ];
    for (what, said, manifest, bytes) in lies {
        let became = runtime.block_on(lends(&mut member, said, &manifest, bytes));
        assert_eq!(became, Arriving::Refused(NotTaken::Failed), "{what}");
        // Whoever was writing may hear of it a moment later.
        until(what, || (kept() == before).then_some(()));
    }
}

#[test]
fn an_answer_with_what_nobody_asked_for_is_dropped_whole() {
    let Some(mut desk) = desk() else { return };
    desk.spoilt = true;
    let identity = Member::admitted(&desk, "liar");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut member = runtime.block_on(Member::connect(&desk.client, "liar", &identity));
    runtime.block_on(async {
        let load = Load { slots: 8, credits: 16, memory_mib: 8192, ..Load::default() };
        for said in [Control::Toolchains(member.compilers.clone()), Control::Load(load)] {
            stream::send(&mut member.control, &said, limits::WELCOME_BYTES_MAX).await.unwrap();
        }
    });
    until("the client knows the liar's compilers", || {
        let peers = desk.client.snapshot().peers;
        peers.iter().any(|p| p.name == "liar" && p.connected && !p.compilers.is_empty()).then_some(())
    });
    for (name, text) in [("x.c", "#include \"x.h\"\nint x = X;\n"), ("x.h", "#define X 1\n"), ("Makefile", "all:\n")] {
        desk.write(name, text);
    }
    desk.write("sub/keep", "");
    let plain = run(desk.bare(&desk.line("gcc -c x.c -o x.o")), Streams::Apart);
    plain.good();
    let honest = desk.files();
    let above = |desk: &Desk| std::fs::read_dir(desk.project.parent().unwrap()).unwrap().count();
    let count = above(&desk);
    for (said, lie, reason) in LIES {
        std::fs::remove_file(desk.project.join("x.o")).unwrap();
        let before = desk.client.snapshot().counters.discrepancies;
        answered(&desk, &member, &runtime, *lie).good();
        crate::desk::assert_same_files(&honest, &desk.files(), said);
        assert_eq!(desk.last().reason, Some(*reason), "{said}");
        assert_eq!(desk.client.snapshot().counters.discrepancies, before + 1, "{said}");
        assert_eq!((above(&desk), leftovers(&desk.project).len()), (count, 0), "{said}");
    }
    // What was asked for is taken: the tests above would not notice if nothing ever was. It is no program.
    answered(&desk, &member, &runtime, |project| vec![object(project)]).good();
    assert_eq!(desk.read("x.o"), OBJECT);
    let mode = std::fs::metadata(desk.project.join("x.o")).unwrap().permissions().mode();
    assert_eq!((mode & 0o777, desk.last().ran_on.as_deref()), (0o644, Some("liar")));
}
