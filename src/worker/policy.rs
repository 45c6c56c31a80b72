//! A job as the sandbox understands it (DECIDE).

use super::run::Order;
use super::strict::Root;
use crate::sandbox::policy::{Identities, Inputs, Limits, Policy, Without};
use mesh_proto::limits;
use mesh_proto::path::AbsPath;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Room for a job's own files beyond its inputs and outputs: temporary ones, and what a page rounds up, bytes.
const SPARE_BYTES: u64 = 1 << 30;
/// Files, links and directories beyond those of the closure.
const SPARE_NODES: u64 = 16 << 10;
/// How many slots share one count of processes where all jobs are one user.
const SHARED_SLOTS: u64 = 16;

/// What this machine has for a job.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    /// The toolchain's tree.
    pub base: &'a Path,
    /// The blobs.
    pub blobs: &'a Path,
    /// Who its jobs are.
    pub identities: Identities,
}

/// Translates a job into a policy: its own wishes only ever tighten this machine's limits.
#[must_use]
pub fn policy(order: Order<'_>, root: &Root, host: Host<'_>, most: Limits, without: Without) -> Policy {
    let job = order.job;
    let bytes = |path: &AbsPath| path.as_bytes().to_vec();
    let limits = Limits {
        wall_ms: most.wall_ms.min(job.wall_ms_max).min(limits::JOB_WALL_MS_MAX),
        tree_bytes: most.tree_bytes.min(root.bytes + limits::JOB_OUTPUT_BYTES_MAX + SPARE_BYTES),
        tree_nodes: most.tree_nodes.max(order.entries.len() as u64 * 2 + SPARE_NODES),
        processes: match host.identities {
            // One count for all slots cannot bound each.
            Identities::Shared => most.processes.saturating_mul(SHARED_SLOTS),
            Identities::PerSlot | Identities::Namespace => most.processes,
        },
        ..most
    };
    Policy {
        inputs: Inputs::Own { tree: root.tree.clone(), sources: host.blobs.as_os_str().as_bytes().to_vec() },
        base: host.base.as_os_str().as_bytes().to_vec(),
        program: bytes(&order.toolchain.driver),
        argv: job.argv.clone(),
        env: job.env.clone(),
        cwd: job.cwd.clone(),
        umask: job.umask,
        writable: root.output_dirs.union(&root.temp_dirs).map(bytes).collect(),
        identity: host.identities.of_slot(order.slot),
        limits,
        merged_output: job.merged_output,
        terminal: job.terminal.map(|terminal| (terminal.columns, terminal.rows)),
        without,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_proto::digest::Digest;
    use mesh_proto::job::Job;
    use mesh_proto::toolchain::{Fingerprint, Manifest};
    use std::collections::BTreeSet;

    #[test]
    fn a_job_runs_this_machines_driver_and_cannot_raise_a_limit() {
        let path = |text: &str| AbsPath::new(text).unwrap();
        let fingerprint = Fingerprint(Digest([0; 32]));
        let job = Job {
            toolchain: fingerprint,
            argv: vec![b"/bin/sh".to_vec()],
            env: vec![],
            cwd: b"/w".to_vec(),
            output_dirs: vec![path("/w/out")],
            umask: 0o022,
            merged_output: false,
            terminal: None,
            wall_ms_max: u64::MAX,
            strict: false,
        };
        let toolchain = Manifest { driver: path("/usr/bin/gcc"), facts: vec![], parts: vec![] };
        let order = Order { job: &job, entries: &[], toolchain: &toolchain, fingerprint: &fingerprint, slot: 3 };
        let dirs = |text: &str| BTreeSet::from([path(text)]);
        let root = Root { tree: vec![], output_dirs: dirs("/w/out"), temp_dirs: dirs("/tmp"), bytes: 0 };
        let host = Host { base: Path::new("/base"), blobs: Path::new("/blobs"), identities: Identities::PerSlot };
        let most = Limits { wall_ms: 1234, ..Limits::DEFAULT };
        let policy = policy(order, &root, host, most, Without::default());
        assert_eq!((policy.program.as_slice(), policy.limits.wall_ms), (b"/usr/bin/gcc".as_slice(), 1234));
        assert_eq!(policy.writable, [b"/tmp".to_vec(), b"/w/out".to_vec()]);
        assert_eq!(policy.identity, Identities::PerSlot.of_slot(3));
        assert_ne!(policy.identity, Identities::PerSlot.of_slot(4));
    }
}
