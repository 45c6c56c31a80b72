//! What the rung without namespaces needs of the container it runs in (DECIDE).
//!
//! One list: the rung checks it before it does anything, `mesh setup container` prints it, and the tests give a process
//! exactly what it says.

/// One of the powers into which Linux divides root's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    /// Its name, without `CAP_`, as container engines take it.
    pub name: &'static str,
    /// Its number in the kernel.
    pub number: u32,
    /// What for.
    pub why: &'static str,
    /// Without it the rung does not stand; else it stands with less in it.
    pub must: bool,
}

const fn must(name: &'static str, number: u32, why: &'static str) -> Capability {
    Capability { name, number, why, must: true }
}

/// What root needs in a container. Engines give all of them by default, but for `MKNOD` where they run without root.
pub const CAPABILITIES: &[Capability] = &[
    must("CHOWN", 0, "gives a job the directories that it may write to"),
    must("DAC_OVERRIDE", 1, "collects and removes what a job made, whatever modes it gave it"),
    must("FOWNER", 3, "places files with their times, and removes a job's files where only their owners may"),
    must("SETGID", 6, "takes a job out of all groups"),
    must("SETUID", 7, "makes each job a user of its own, and ends all processes of that user"),
    must("SETPCAP", 8, "empties what a job's programs could ever get back"),
    must("SYS_CHROOT", 18, "gives a job a root of its own"),
    Capability {
        name: "MKNOD",
        number: 27,
        why: "gives a job /dev/null and its like; without it, what names one is compiled at home",
        must: false,
    },
];

/// The first of the necessary ones that is not among these, one bit for each number.
#[must_use]
pub fn first_missing(have: u64) -> Option<&'static Capability> {
    CAPABILITIES.iter().find(|capability| capability.must && have & (1 << capability.number) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_necessary_can_be_missing() {
        let all = CAPABILITIES.iter().fold(0, |all, capability| all | 1_u64 << capability.number);
        assert_eq!(first_missing(all), None);
        for capability in CAPABILITIES {
            let missing = first_missing(all & !(1 << capability.number));
            assert_eq!(missing.is_some(), capability.must, "{}", capability.name);
        }
    }
}
