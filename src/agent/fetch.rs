//! Brings the content that a job lacks, each blob once over all jobs (DO).

use super::serve::Server;
use crate::{
    net::{
        channel::{Receiver, Sender},
        stream::StreamError,
    },
    store::blobs::BlobError,
};
use mesh_proto::{
    closure::{Entry, Node},
    digest::Digest,
    exchange::provider::Provider,
    job::Refusal,
    limits,
    message::Answer,
};
use std::{collections::HashMap, sync::Mutex, time::Duration};
use tokio::sync::watch;

/// One blob must arrive within this time.
const BLOB_TIME: Duration = Duration::from_secs(30);
/// A job waits this long for another's fetch of the same blob before it asks itself.
const FETCH_WAIT_MAX: Duration = Duration::from_secs(5);

/// Blobs that some job is being sent now.
#[derive(Debug, Default)]
pub(super) struct Incoming(Mutex<HashMap<Digest, watch::Receiver<()>>>);

/// Gets the content that is not here, each blob once over all jobs.
pub(super) async fn fetch(
    server: &Server,
    provider: &mut Provider,
    out: &mut Sender,
    inp: &mut Receiver,
) -> Result<Result<(), Refusal>, StreamError> {
    wait_for_others(server, provider).await;
    let blobs = &server.blobs;
    let missing = provider.missing(|digest| blobs.has(digest));
    if provider.awaited().is_none() {
        return Ok(Ok(()));
    }
    let (done, waiting) = watch::channel(());
    let mine = Mine { server, digests: provider.all_awaited(), _done: done };
    for digest in &mine.digests {
        server.incoming.0.lock().expect("no panic while held").insert(*digest, waiting.clone());
    }
    out.send(&Answer::Missing(missing), limits::FRAME_BYTES_MAX).await?;
    while let Some((digest, size)) = provider.awaited() {
        let bytes = tokio::time::timeout(BLOB_TIME, inp.receive_blob(size, digest)).await;
        let bytes = bytes.map_err(|_| StreamError::Late)??;
        provider.received(&bytes).map_err(|_| StreamError::Blob)?;
        let blobs = server.blobs.clone();
        let put = tokio::task::spawn_blocking(move || blobs.put(&digest, &bytes)).await;
        match put {
            Ok(Ok(())) => {}
            Ok(Err(BlobError::DiskFull)) => return Ok(Err(Refusal::Disk)),
            _ => return Ok(Err(Refusal::Missing)),
        }
    }
    Ok(Ok(()))
}

/// Blobs on their way to this job.
struct Mine<'a> {
    server: &'a Server,
    digests: Vec<Digest>,
    /// Dropped with it: who waits sees the end.
    _done: watch::Sender<()>,
}

impl Drop for Mine<'_> {
    fn drop(&mut self) {
        let mut fetches = self.server.incoming.0.lock().expect("no panic while held");
        for digest in &self.digests {
            fetches.remove(digest);
        }
    }
}

/// If another job is being sent something that this one needs too, waits for that, within bounds.
async fn wait_for_others(server: &Server, provider: &Provider) {
    let others: Vec<watch::Receiver<()>> = {
        let fetches = server.incoming.0.lock().expect("no panic while held");
        if fetches.is_empty() {
            return;
        }
        let digest = |e: &Entry| if let Node::File(file) = &e.node { Some(file.digest) } else { None };
        provider.entries().filter_map(|e| fetches.get(&digest(e)?).cloned()).collect()
    };
    let all = async {
        for mut other in others {
            // An error is the end of the other's fetch.
            while other.changed().await.is_ok() {}
        }
    };
    let _ = tokio::time::timeout(FETCH_WAIT_MAX, all).await;
}
