//! Gives compilers to members that fetch them, no faster than its owner lets it (DO).

use super::{
    Agent,
    link::Link,
    pack::{self, Pace, PackError},
    proofs::Proof,
};
use crate::{
    net::{
        channel::{Receiver, Sender},
        stream::StreamError,
    },
    store::layout,
};
use mesh_proto::{
    exchange::toolchain::{self, Get, Given},
    limits,
    naming::NumberSet,
    toolchain::{Fingerprint, Manifest},
};
use std::{ffi::OsStr, fs::File, os::unix::ffi::OsStrExt, path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// Machines that are given compilers at once; the others wait.
const GIVES_MAX: usize = 4;
/// How long a machine may take to say what it wants next: it writes what came before to its disk meanwhile.
const TURN_TIME: Duration = Duration::from_secs(120);

/// What this machine gives at once, and how fast.
#[derive(Debug)]
pub(super) struct Giving {
    room: Semaphore,
    pace: Pace,
}

impl Giving {
    /// With a rate in MB a second, all machines together; 0 gives nothing.
    pub(super) fn new(rate: u16) -> Self {
        Self { room: Semaphore::new(GIVES_MAX), pace: Pace::new(u64::from(rate) * 1_000_000) }
    }
}

/// A compiler that is given: its manifest, and the directory that its files' paths are below.
struct Lent {
    manifest: Arc<Manifest>,
    below: PathBuf,
}

/// Gives a member the files of one compiler that it asks for.
pub(super) async fn give(
    agent: &Arc<Agent>,
    link: &Link,
    get: Get,
    mut out: Sender,
    mut inp: Receiver,
) -> Result<(), StreamError> {
    // What waits behind a compiler on the same connection is a job.
    out.give_way();
    let serves = agent.mesh.role_of(&link.peer).is_some_and(mesh_proto::membership::Role::serves);
    let lent = if serves && agent.config.toolchain_rate > 0 { lent(agent, get.fingerprint).await } else { None };
    let Some(lent) = lent else {
        out.send(&Given::Not, limits::FRAME_BYTES_MAX).await?;
        out.finish();
        return Ok(());
    };
    let Ok(_room) = agent.giving.room.acquire().await else { return Ok(()) };
    let given = Given::Manifest(Box::new(Manifest::clone(&lent.manifest)));
    out.send(&given, limits::TOOLCHAIN_MANIFEST_BYTES_MAX).await?;
    loop {
        let numbers: NumberSet = match inp.receive(limits::FRAME_BYTES_MAX, TURN_TIME).await {
            Ok(numbers) => numbers,
            Err(StreamError::Finished) => break,
            Err(error) => return Err(error),
        };
        let Ok(files) = toolchain::asked(&lent.manifest, &numbers) else { return Err(StreamError::Blob) };
        let (manifest, below) = (lent.manifest.clone(), lent.below.clone());
        let sent = pack::send_paced(&mut out, &agent.giving.pace, move |packer| {
            files.iter().try_for_each(|file| {
                let path = &manifest.parts[file.part as usize].path;
                let file_at = below.join(OsStr::from_bytes(path.below_root()));
                packer.file(File::open(file_at).map_err(StreamError::Content)?, file.size)
            })
        });
        sent.await.map_err(|error| match error {
            PackError::Stream(error) => error,
            PackError::Content => StreamError::Finished,
        })?;
    }
    out.finish();
    Ok(())
}

/// The compiler of this fingerprint, if this machine gives it: one that it lends, or one of its own that was proved or
/// that another machine is to try.
async fn lent(agent: &Arc<Agent>, fingerprint: Fingerprint) -> Option<Lent> {
    let tree = || layout::toolchain(&agent.places.cache, &fingerprint);
    if let Some(sent) = agent.server.as_ref().and_then(|server| server.sent.get(&fingerprint)) {
        return Some(Lent { manifest: sent.manifest, below: tree() });
    }
    let lends = agent.served().iter().any(|toolchain| toolchain.fingerprint == fingerprint);
    let is_given = || agent.proof(&fingerprint) == Proof::Proved || agent.proofs.is_on_trial(&fingerprint);
    if !lends && !is_given() {
        return None;
    }
    let registry = agent.registry.clone();
    let found = tokio::task::spawn_blocking(move || registry.by_fingerprint(fingerprint, std::time::Instant::now()));
    let manifest = found.await.ok()??.manifest.clone();
    Some(Lent { manifest, below: PathBuf::from("/") })
}
