//! Closures that no honest client sends: each is refused before a byte of it is anywhere, and what the worker would let
//! through the sandbox does not place.

use crate::collect::{file, job, path, toolchain};
use crate::escape::{NONE, attempt, of_machine, result};
use crate::world::{Alone, Client, World, apart};
use mesh::sandbox::policy::{Inputs, Place, Update, What, Without};
use mesh::sandbox::{SandboxError, Step};
use mesh::worker::run::{Form, RunError};
use mesh_proto::closure::{Entry, Node};
use mesh_proto::digest::Digest;
use mesh_proto::job::Refusal;
use mesh_proto::path::AbsPath;
use mesh_proto::toolchain::{Manifest, Part, PartNode};
use std::path::Path;

fn link(at: &str, target: &Path) -> Entry {
    let target = target.to_str().unwrap().into();
    Entry { path: path(at), node: Node::Symlink { target } }
}

fn directory(at: &str) -> Entry {
    Entry { path: path(at), node: Node::Directory }
}

#[test]
fn a_path_that_leaves_the_root_has_no_name() {
    for bad in ["/w/../x", "/..", "w/x", "", "/w//x", "/w/./x", "/w/x/", "/w/\0x"] {
        assert!(AbsPath::new(bad).is_err(), "{bad:?}");
        // Nor on the wire.
        let bytes = postcard::to_stdvec(&bad.as_bytes().to_vec()).unwrap();
        assert!(postcard::from_bytes::<AbsPath>(&bytes).is_err(), "{bad:?}");
    }
    let good = postcard::to_stdvec(&b"/w/x".to_vec()).unwrap();
    assert_eq!(postcard::from_bytes::<AbsPath>(&good).unwrap(), path("/w/x"));
}

#[test]
fn a_closure_that_writes_through_a_link_or_twice_is_refused_in_every_form() {
    if attempt().is_none() {
        return;
    }
    let Some(world) = World::new() else { return };
    let target = apart();
    let out = target.path();
    for content in [&b"x"[..], b"y"] {
        world.blobs.put(&Digest::of(content), content).unwrap();
    }
    let cases: Vec<(&str, Vec<Entry>)> = vec![
        ("through a link", vec![link("/w/a", out), file("/w/a/x", b"x")]),
        ("through a link out of the root", vec![link("/w/a", Path::new("../../../../..")), file("/w/a/x", b"x")]),
        ("a directory through a link", vec![link("/w/a", out), directory("/w/a/b")]),
        ("a link through a link", vec![link("/w/a", out), link("/w/a/b", out)]),
        ("below a file", vec![file("/w/a", b"x"), file("/w/a/x", b"x")]),
        ("two contents", vec![file("/w/a", b"x"), file("/w/a", b"y")]),
        ("a file and a link", vec![file("/w/a", b"x"), link("/w/a", out)]),
        ("a device", vec![file("/dev/null", b"x")]),
        ("beside the devices", vec![file("/dev/x", b"x")]),
        ("processes", vec![file("/proc/self/comm", b"x")]),
        ("a link for the devices", vec![link("/dev", out)]),
        ("a link for the processes", vec![link("/proc", out)]),
        ("the outputs by a link", vec![link("/w/out", out)]),
        ("the outputs through a link", vec![link("/w", out)]),
    ];
    for (what, entries) in cases {
        for form in [Form::Strict, Form::Mirror] {
            let job = job(&["umask", "none.s"], &["/w/out"]);
            let ran = world.run_for(&Client::default(), form, &job, &entries, &toolchain());
            let refusal = ran.map(|ran| ran.outcome.exit).map_err(|error| error.refusal());
            assert_eq!(refusal, Err(Refusal::Malformed), "{what}, {form:?}");
        }
    }
    // Also if it comes in parts: the link in one job, what goes through it in the next.
    let client = Client::default();
    let first = job(&["umask", "none.s"], &["/w/out"]);
    world.run_for(&client, Form::Mirror, &first, &[link("/w/a", out)], &toolchain()).unwrap();
    let later = world.run_for(&client, Form::Mirror, &first, &[file("/w/a/x", b"x")], &toolchain());
    // Refused, or the link gives way to the directory that it is now said to be.
    assert!(matches!(&later, Ok(_) | Err(RunError::Closure(_))), "{later:?}");
    assert_eq!(std::fs::read_dir(out).unwrap().count(), 0);
}

/// A compiler's files are copied too: from the machine's own disk, or as a member sent them.
#[test]
fn a_compiler_whose_files_lead_elsewhere_is_refused() {
    if attempt().is_none() {
        return;
    }
    let Some(world) = World::new() else { return };
    let target = apart();
    let part = |at: &str, node| Part { path: path(at), node };
    let out = || PartNode::Symlink { target: target.path().to_str().unwrap().into() };
    let whole = toolchain();
    let program = whole.parts.iter().find(|part| part.path == whole.driver).unwrap().node.clone();
    for strange in [
        vec![part("/opt/a", out()), part("/opt/a/x", program.clone())],
        vec![part("/opt/a", program.clone()), part("/opt/a/x", program.clone())],
        vec![part("/dev/x", program.clone())],
        vec![part("/proc", out())],
    ] {
        let mut parts = [whole.parts.clone(), strange].concat();
        parts.sort_by(|a, b| a.path.cmp(&b.path));
        let manifest = Manifest { parts, ..whole.clone() };
        for form in [Form::Strict, Form::Mirror] {
            let ran = world.run_for(&Client::default(), form, &job(&["umask", "none.s"], &[]), &[], &manifest);
            assert!(ran.is_err(), "{:?}", manifest.parts);
        }
    }
    assert_eq!(std::fs::read_dir(target.path()).unwrap().count(), 0);
}

/// The worker refuses such lists. Were it to let one through, the sandbox's builder would not place it; and who places
/// by names alone, as a shell would, writes outside.
#[test]
fn the_builder_places_nothing_through_a_link_by_itself() {
    let Some(attempt) = attempt() else { return };
    let out = apart();
    std::fs::set_permissions(out.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let text = out.path().to_str().unwrap();
    let links = |target: &str| {
        let what = What::Symlink { target: target.into() };
        let through = What::File { source: "base/program".into(), size: 1, mtime_s: 0, mtime_ns: 0, executable: false };
        vec![
            Place { path: b"w/a".to_vec(), what, writable: false },
            Place { path: b"w/a/made".to_vec(), what: through, writable: false },
        ]
    };
    for target in [text.to_owned(), format!("../../../../../../..{text}")] {
        let mut alone = Alone::new(attempt, &["umask"]);
        let Inputs::Own { tree, .. } = &mut alone.policy.inputs else { panic!("of its own") };
        tree.extend(links(&target));
        assert!(matches!(alone.run(), Err(SandboxError::Setup { step: Step::Place, .. })));
        let (template, policy) = Alone::new(attempt, &["umask"]).template().unwrap();
        template.update(&Update { remove: vec![], place: links(&target) }).unwrap();
        let (reader, _writer) = std::io::pipe().unwrap();
        let ran = template.run(&policy, std::os::fd::AsFd::as_fd(&reader));
        assert!(matches!(ran, Err(SandboxError::Setup { step: Step::Place, .. })), "{ran:?}");
        assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
    }
    let shell = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(out.path(), shell.path().join("a")).unwrap();
    std::fs::write(shell.path().join("a/made"), "x").unwrap();
    assert!(out.path().join("made").exists());
}

/// Links may say what they like: they lead within the job's root.
#[test]
fn a_link_to_a_file_of_this_machine_leads_to_nothing() {
    if attempt().is_none() {
        return;
    }
    let out = apart();
    let secret = out.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let text = secret.to_str().unwrap();
    let read = |target: &str, without: Without| {
        let mut alone = Alone::new(attempt().unwrap(), &["read", "/w/a"]);
        alone.policy.without = without;
        let Inputs::Own { tree, .. } = &mut alone.policy.inputs else { panic!("of its own") };
        let what = What::Symlink { target: target.into() };
        tree.push(Place { path: b"w/a".to_vec(), what, writable: false });
        [alone.run(), alone.run_in_template()].map(|finished| result(&finished.unwrap()).0)
    };
    for target in [text.to_owned(), format!("../../../../../../../../..{text}"), format!("/proc/self/root{text}")] {
        assert_eq!(read(&target, NONE), [1, 1], "{target}");
    }
    let kept = Without { own_root: true, ..NONE };
    assert_eq!(read(&format!("/machine{text}"), kept)[0], 0);
    assert_eq!(read(&format!("/machine/machine{text}"), kept)[1], 0);
    assert_eq!(of_machine(kept, "read", text), [0, 0]);
}
