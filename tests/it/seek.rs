//! What one machine of a mesh had compiled, the others do not compile again; and who may say what a result is.

use crate::{
    desk::{Desk, Streams, Unit, Where, brief, run, slow},
    env::{Agent, Ground, until},
};
use mesh::{
    net::identity::Identity,
    store::results::{Kept, Results},
};
use mesh_proto::{digest::Digest, exchange::results::Receipt, key::ActionKey};
use std::{
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

/// The room that a store of a test may take, bytes.
const ROOM: u64 = 1 << 30;

/// A desk of three machines that keep results, each connected with the two others: the second desk is another machine's,
/// with the same project.
fn three() -> Option<(Desk, Desk)> {
    let mut desk = Desk::on(Ground::new())?;
    desk.spoilt = true;
    desk.provider.keeps = true;
    desk.restart_provider();
    desk.client.keeps = true;
    // Only the provider compiles for others.
    desk.client.configure("slots = 0\n");
    desk.restart_client();
    let mut other = desk.second_client("notebook")?;
    joins(&desk, &mut other);
    let all_connected = |agent: &Agent| agent.snapshot().peers.iter().filter(|peer| peer.connected).count() == 2;
    until("each machine is connected with the two others", || {
        [&desk.client, &desk.provider, &other.client].into_iter().all(all_connected).then_some(())
    });
    Some((desk, other))
}

/// Another client keeps results too, knows where the first one is, and works on the same project.
pub(crate) fn joins(desk: &Desk, other: &mut Desk) {
    other.client.configure(&format!("peers = [{:?}]\n", desk.client.address().to_string()));
    other.client.stop();
    other.client.keeps = true;
    other.client.start(&other.ground);
    other.client.answers();
    other.meet();
    other.project.clone_from(&desk.project);
}

fn cache(agent: &Agent) -> Results {
    Results::open(&agent.home.join("cache"), ROOM)
}

pub(crate) fn keys(agent: &Agent) -> Vec<ActionKey> {
    cache(agent).keys(1000)
}

/// Waits until a machine keeps so many results, and has told the others.
fn kept(agent: &Agent, count: usize) {
    until("the results are kept", || (keys(agent).len() >= count).then_some(()));
    std::thread::sleep(Duration::from_millis(800));
}

#[test]
fn what_one_machine_had_compiled_another_has_without_a_compiler() {
    let Some((desk, other)) = three() else { return };
    // What takes a moment is worth asking for, whatever else runs on these machines.
    let units: Vec<Unit> = (0..4)
        .map(|n| {
            let mut unit = brief(&desk, &format!("u{n}"));
            unit.words.splice(1..1, ["-g", "-O2", "-Wall", "-MD"].map(Into::into));
            unit
        })
        .collect();
    desk.write("slow.h", "static int unused;\n#define HEADER 1\n");
    for unit in &units {
        desk.same(unit, Where::There);
    }
    kept(&desk.client, units.len());
    assert_eq!(keys(&desk.provider).len(), units.len(), "who made them keeps them too");
    for unit in &units {
        other.same(unit, Where::Kept);
        let last = other.last();
        assert_eq!((last.ran_on, last.made_by.as_str()), (None, "tower"));
        assert!(last.note.starts_with("had from "), "{}", last.note);
    }
    let counters = other.client.snapshot().counters;
    assert_eq!((counters.cache_hits, counters.cache_hits_mesh, counters.cache_misses), (4, 4, 0));
    // From now on it asks nobody.
    kept(&other.client, units.len());
    other.same(&units[0], Where::Kept);
    assert_eq!(other.last().note, "");
    // Another flag, another header: nobody has these.
    let mut unit = brief(&desk, "u0");
    unit.words.insert(1, "-O1".into());
    other.same(&unit, Where::There);
    desk.write("slow.h", "static int unused = 1;\n#define HEADER 1\n");
    other.same(&units[1], Where::There);
}

#[test]
fn a_machine_that_comes_later_is_told_what_was_made_before() {
    let Some(mut desk) = Desk::on(Ground::new()) else { return };
    desk.spoilt = true;
    desk.client.keeps = true;
    desk.restart_client();
    let unit = brief(&desk, "a");
    desk.same(&unit, Where::There);
    kept(&desk.client, 1);
    // The provider kept nothing: what there is, the client has.
    desk.provider.keeps = true;
    desk.restart_provider();
    desk.restart_client();
    let mut other = desk.second_client("notebook").unwrap();
    joins(&desk, &mut other);
    until("the two clients are connected", || {
        (other.client.snapshot().peers.iter().filter(|peer| peer.connected).count() == 2).then_some(())
    });
    // A second until nobody comes any more, and a moment until it has been told.
    std::thread::sleep(Duration::from_millis(2500));
    other.same(&unit, Where::Kept);
    assert_eq!(other.last().note, "had from laptop");
}

/// Starts a compile whose standard output and error are two pipes, as [`Streams::Apart`] has them: another arrangement is
/// another action.
fn begun(desk: &Desk, unit: &Unit) -> Child {
    desk.launcher(unit).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_unit_that_two_want_at_once_is_compiled_once() {
    let Some((desk, other)) = three() else { return };
    // What takes long has to be known before: units of a second that nobody else has.
    for n in 0..3 {
        run(desk.launcher(&slow(&desk, &format!("before{n}"))), Streams::Apart).good();
        run(other.launcher(&slow(&other, &format!("other{n}"))), Streams::Apart).good();
    }
    let unit = slow(&desk, "wanted");
    let made = {
        run(desk.bare(&unit), Streams::Apart).good();
        desk.read("wanted.o")
    };
    std::fs::remove_file(desk.project.join("wanted.o")).unwrap();
    let served = desk.served();
    let first = begun(&desk, &unit);
    until("it is being compiled", || (desk.provider.snapshot().this.free < 2).then_some(()));
    let ran = run(other.launcher(&unit), Streams::Apart);
    assert_eq!(ran.code, Some(0), "{}", ran.err());
    assert!(first.wait_with_output().unwrap().status.success());
    assert_eq!(desk.served() - served, 1, "{}", other.last().note);
    assert!(other.last().cached && desk.read("wanted.o") == made);
    assert_eq!(other.client.snapshot().counters.cache_hits_joined, 1);
    // And two at once of one machine.
    let unit = slow(&desk, "twins");
    let served = desk.served();
    let children: Vec<Child> = (0..2).map(|_| begun(&desk, &unit)).collect();
    for child in children {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    assert_eq!(desk.served() - served, 1);
    assert_eq!(desk.client.snapshot().counters.cache_hits_joined, 1);
}

/// Changes an entry of a machine's store.
fn change(agent: &Agent, key: &ActionKey, change: impl FnOnce(&mut Kept)) {
    let store = cache(agent);
    let mut kept = store.get(key).unwrap();
    change(&mut kept);
    store.put(&kept);
}

/// Makes an entry's object another one, and all digests fit.
fn forge(kept: &mut Kept, object: &[u8]) {
    let at = kept.outcome.outputs.iter().position(|output| output.path.as_bytes().ends_with(b".o")).unwrap();
    let output = &mut kept.outcome.outputs[at];
    (output.digest, output.size) = (Digest::of(object), object.len() as u64);
    let mut packed = Vec::new();
    mesh::net::stream::pack_blob(object, &mut packed).unwrap();
    kept.packed[at] = packed;
}

fn identity(agent: &Agent) -> Identity {
    Identity::open(&state(&agent.home)).unwrap()
}

fn state(home: &Path) -> PathBuf {
    home.join("state")
}

#[test]
fn a_result_that_its_maker_has_not_signed_is_believed_by_nobody() {
    let Some((desk, other)) = three() else { return };
    let unit = |name: &str| brief(&desk, name);
    for name in ["a", "b", "c"] {
        desk.same(&unit(name), Where::There);
    }
    kept(&desk.client, 3);
    let of = |name: &str| {
        let path = format!("{name}.o");
        let made = |key: &ActionKey| {
            let outputs = cache(&desk.client).get(key).unwrap().outcome.outputs;
            outputs.iter().any(|output| output.path.as_bytes().ends_with(path.as_bytes()))
        };
        keys(&desk.client).into_iter().find(made).unwrap()
    };
    let holders = [&desk.client, &desk.provider];
    // Each was given and looked at, and not merely never asked for.
    let refused = |count: u64| {
        let counted = other.client.snapshot().counters.discrepancies;
        assert!(counted >= count, "{counted} of {count}");
    };
    // Another object than the maker's.
    for holder in holders {
        change(holder, &of("a"), |kept| forge(kept, b"forged"));
    }
    other.same(&unit("a"), Where::There);
    refused(1);
    // By a machine that nobody has admitted.
    let stranger = Identity::ephemeral().unwrap();
    for holder in holders {
        change(holder, &of("b"), |kept| {
            forge(kept, b"forged");
            let receipt = Receipt::sign(&kept.key, &kept.outcome, kept.made_ms, &stranger);
            (kept.executor, kept.signature) = (receipt.executor, Some(receipt.signature));
        });
    }
    other.same(&unit("b"), Where::There);
    refused(2);
    // What a member signs is believed: that is the barrier that held the other two, and the member answers for it.
    let maker = identity(&desk.provider);
    for holder in holders {
        change(holder, &of("c"), |kept| {
            forge(kept, b"forged");
            let receipt = Receipt::sign(&kept.key, &kept.outcome, kept.made_ms, &maker);
            assert_eq!(receipt.executor, kept.executor);
            kept.signature = Some(receipt.signature);
        });
    }
    run(other.launcher(&unit("c")), Streams::Apart).good();
    assert_eq!((desk.read("c.o").as_slice(), other.last().made_by.as_str()), (&b"forged"[..], "tower"));
}
