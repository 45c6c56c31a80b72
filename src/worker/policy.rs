//! A job as the sandbox understands it (DECIDE).

use super::run::Order;
use crate::sandbox::policy::{Identities, Inputs, Limits, Policy, Priority, Without};
use mesh_proto::limits;
use mesh_proto::path::AbsPath;
use std::collections::BTreeSet;

/// Room for a job's own files beyond its inputs and outputs: temporary ones, and what a page rounds up, bytes.
const SPARE_BYTES: u64 = 1 << 30;
/// Files, links and directories beyond those of the closure.
const SPARE_NODES: u64 = 16 << 10;
/// How many slots share one count of processes where all jobs are one user.
const SHARED_SLOTS: u64 = 16;

/// Where a job runs.
#[derive(Debug)]
pub struct Stage<'a> {
    /// Its inputs.
    pub inputs: Inputs,
    /// The toolchain's tree, as [`Policy::base`].
    pub base: Vec<u8>,
    /// Where it may write and what it writes comes back.
    pub output_dirs: &'a BTreeSet<AbsPath>,
    /// Where it may write, and what it writes is dropped.
    pub temp_dirs: &'a BTreeSet<AbsPath>,
    /// What its own inputs take, bytes.
    pub bytes: u64,
    /// How many they are.
    pub nodes: u64,
}

/// Translates a job into a policy: its own wishes only ever tighten this machine's limits.
#[must_use]
pub fn policy(order: Order<'_>, stage: Stage<'_>, identities: Identities, most: Limits, without: Without) -> Policy {
    let job = order.job;
    let bytes = |path: &AbsPath| path.as_bytes().to_vec();
    let processes = match (identities, &stage.inputs) {
        // One count for several jobs cannot bound each.
        (Identities::Shared, _) | (Identities::Namespace, Inputs::Mirror) => {
            most.processes.saturating_mul(SHARED_SLOTS)
        }
        (Identities::PerSlot | Identities::Chroot { .. }, _) | (Identities::Namespace, Inputs::Own { .. }) => {
            most.processes
        }
    };
    let limits = Limits {
        wall_ms: most.wall_ms.min(job.wall_ms_max).min(limits::JOB_WALL_MS_MAX),
        tree_bytes: most.tree_bytes.min(stage.bytes + limits::JOB_OUTPUT_BYTES_MAX + SPARE_BYTES),
        tree_nodes: most.tree_nodes.max(stage.nodes * 2 + SPARE_NODES),
        processes,
        ..most
    };
    Policy {
        inputs: stage.inputs,
        base: stage.base,
        program: bytes(&order.toolchain.driver),
        argv: job.argv.clone(),
        env: job.env.clone(),
        cwd: job.cwd.clone(),
        umask: job.umask,
        writable: stage.output_dirs.union(stage.temp_dirs).map(bytes).collect(),
        identity: identities.of_slot(order.slot),
        limits,
        // The worker's to say, for all of its jobs at once.
        priority: Priority::default(),
        merged_output: job.merged_output,
        terminal: job.terminal.map(|terminal| (terminal.columns, terminal.rows)),
        without,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compiler::invocation::Family;
    use mesh_proto::digest::Digest;
    use mesh_proto::job::Job;
    use mesh_proto::toolchain::{Fingerprint, Manifest};
    use std::sync::Arc;

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
        let closure = Arc::new(vec![]);
        let order = Order {
            job: &job,
            closure: &closure,
            toolchain: &toolchain,
            fingerprint: &fingerprint,
            family: Family::Gcc,
            slot: 3,
            mirrors: None,
            is_own: false,
        };
        let dirs = |text: &str| BTreeSet::from([path(text)]);
        let (output_dirs, temp_dirs) = (dirs("/w/out"), dirs("/tmp"));
        let stage = |inputs| Stage {
            inputs,
            base: b"/base".to_vec(),
            output_dirs: &output_dirs,
            temp_dirs: &temp_dirs,
            bytes: 0,
            nodes: 0,
        };
        let most = Limits { wall_ms: 1234, ..Limits::DEFAULT };
        let of = |inputs, identities| policy(order, stage(inputs), identities, most, Without::default());
        let own = Inputs::Own { tree: vec![], sources: vec![] };
        let policy = of(own.clone(), Identities::PerSlot);
        // In a user namespace that jobs share their processes are counted together.
        assert_eq!(of(own, Identities::Namespace).limits.processes, most.processes);
        assert!(of(Inputs::Mirror, Identities::Namespace).limits.processes > most.processes);
        assert_eq!(of(Inputs::Mirror, Identities::PerSlot).limits.processes, most.processes);
        assert_eq!((policy.program.as_slice(), policy.limits.wall_ms), (b"/usr/bin/gcc".as_slice(), 1234));
        assert_eq!(policy.writable, [b"/tmp".to_vec(), b"/w/out".to_vec()]);
        assert_eq!(policy.identity, Identities::PerSlot.of_slot(3));
        assert_ne!(policy.identity, Identities::PerSlot.of_slot(4));
    }
}
