//! What the doctor says of what it found, and what to do about it (DECIDE).

use crate::host::kernel::Kernel;
use crate::sandbox::{Enforced, Landlock, NoSandbox, Rung, Step};

/// Below this much room for its cache a machine serves badly, bytes.
const ROOM_LOW: u64 = 4 << 30;
/// And below this not at all, bytes.
const ROOM_NONE: u64 = 256 << 20;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// As it should be.
    Good,
    /// It works, but not as well as it could.
    Warning,
    /// It does not work.
    Failure,
}

impl Level {
    /// As it is printed.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warning => "warn",
            Self::Failure => "FAIL",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    /// Its name, which stays the same.
    pub(super) id: &'static str,
    /// How it ended.
    pub(super) level: Level,
    /// What was found.
    pub(super) text: String,
    /// What to do about it; empty where nothing needs to be done.
    pub(super) hint: String,
}

pub(super) fn check(id: &'static str, level: Level, text: impl Into<String>, hint: impl Into<String>) -> Check {
    Check { id, level, text: text.into(), hint: hint.into() }
}

pub(super) fn good(id: &'static str, text: impl Into<String>) -> Check {
    check(id, Level::Good, text, "")
}

/// What is known of the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Running {
    /// Its version.
    pub(super) version: String,
    /// How long it has been running, in words.
    pub(super) since: String,
    /// Why it does not serve; `None` if it does.
    pub(super) not_serving: Option<String>,
    /// Whether its jobs have control groups, or why not.
    pub(super) groups: Result<(), String>,
}

/// All that was found.
#[derive(Debug)]
pub(super) struct Facts {
    /// The agent, or why there is none to ask.
    pub(super) agent: Result<Running, String>,
    /// What the kernel says of itself.
    pub(super) kernel: Kernel,
    /// What stood when a job was tried, or what did not.
    pub(super) sandbox: Result<Enforced, NoSandbox>,
    /// Where the cache is, and how much room is there, bytes.
    pub(super) cache: (String, Option<u64>),
    /// This program, for a profile that names it.
    pub(super) program: String,
    /// Whether this system is one that mesh has a sandbox for.
    pub(super) has_sandbox: bool,
}

/// What is to be said, in this order.
pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let mut said = vec![agent(facts)];
    said.extend(sandbox(facts));
    if facts.has_sandbox {
        said.push(groups(facts));
        said.push(proc(facts));
    }
    said.push(cache(facts));
    said
}

fn agent(facts: &Facts) -> Check {
    match &facts.agent {
        Ok(running) => good("agent", format!("running for {}, version {}", running.since, running.version)),
        Err(why) => check("agent", Level::Warning, why.clone(), "until it runs, everything is compiled here"),
    }
}

/// The rung that stands with its barriers, or why none does.
fn sandbox(facts: &Facts) -> Vec<Check> {
    let enforced = match &facts.sandbox {
        Ok(enforced) => enforced,
        Err(why) => return vec![refused(facts, why)],
    };
    let rung = match enforced.rung {
        Rung::UserNamespace => "user namespaces: each job is nobody in namespaces of its own",
        Rung::Namespaces => "namespaces that root makes: each job is a user of its own in them",
        Rung::Container => "a changed root: each job is a user of its own, as this container allows no namespaces",
    };
    let mut said = vec![match facts.agent.as_ref().ok().and_then(|running| running.not_serving.as_ref()) {
        None => good("sandbox", rung),
        Some(why) => check(
            "sandbox",
            Level::Warning,
            format!("{rung}; but the agent does not serve: {why}"),
            "if that has been put right since it started: mesh down, then mesh up",
        ),
    }];
    said.push(match (enforced.rung, enforced.overlay) {
        (Rung::Container, _) => check(
            "overlay",
            Level::Warning,
            "no layers can be mounted here: each job gets copies of its inputs",
            "that costs least where the cache is in memory, as in what this prints: mesh setup container",
        ),
        (_, true) => good("overlay", "a job's files are a layer over those that are kept"),
        (_, false) => check(
            "overlay",
            Level::Warning,
            "the kernel mounts no overlay for jobs: each gets copies, and its compiler file by file",
            "Linux 5.11 or newer does, with the module overlay: sudo modprobe overlay",
        ),
    });
    let abi = facts.kernel.landlock_abi.map_or_else(String::new, |abi| format!(" (abi {abi})"));
    said.push(match enforced.landlock {
        Landlock::Full => good("landlock", format!("all rules are enforced{abi}")),
        Landlock::Partial => check(
            "landlock",
            Level::Warning,
            format!("the kernel enforces a part of the rules{abi}; the other barriers hold without them"),
            "Linux 6.12 or newer enforces all",
        ),
        Landlock::Absent => check(
            "landlock",
            Level::Warning,
            "the kernel has no Landlock, or does not enable it; the other barriers hold without it",
            "add landlock to the kernel's parameter lsm= (what is enabled now: cat /sys/kernel/security/lsm)",
        ),
    });
    said.push(good("seccomp", "system calls are filtered"));
    if !enforced.devices {
        let hint = "let the container make them (--cap-add MKNOD, and the cache not on a file system mounted nodev)";
        let text = "jobs have no /dev/null: what names it is compiled at home";
        said.push(check("devices", Level::Warning, text, hint));
    }
    said
}

fn refused(facts: &Facts, why: &NoSandbox) -> Check {
    check("sandbox", Level::Failure, format!("this machine does not serve: {}", why.why), remedy(facts, why))
}

/// What to do where no rung stands: the first thing that is in the way.
fn remedy(facts: &Facts, why: &NoSandbox) -> String {
    let kernel = &facts.kernel;
    let at = |rung| why.tried.iter().find(|tried| tried.rung == rung).and_then(|tried| tried.step);
    let permanently = |setting: &str| {
        format!("sudo sysctl -w {setting}; to keep it: echo {setting} | sudo tee /etc/sysctl.d/60-mesh.conf")
    };
    if !facts.has_sandbox {
        return "it compiles here and on others; for others, run mesh in a Linux container: mesh setup container"
            .into();
    }
    if why.tried.is_empty() {
        return "its folder is named above; see that the agent's user can write there".into();
    }
    if kernel.is_root {
        return if at(Rung::Container) == Some(Step::Privileges) || kernel.is_container || kernel.is_filtered {
            "give the container what the sandbox needs; the whole command is printed by: mesh setup container".into()
        } else {
            "root may make no namespaces here: look for what takes CAP_SYS_ADMIN from the agent (a unit's \
             CapabilityBoundingSet= or RestrictNamespaces=)"
                .into()
        };
    }
    if kernel.user_namespaces_allowed == Some(0) {
        return permanently("kernel.unprivileged_userns_clone=1");
    }
    if kernel.user_namespaces_max == Some(0) {
        return permanently("user.max_user_namespaces=15000");
    }
    if kernel.apparmor_restricts == Some(1) {
        let program = &facts.program;
        return format!(
            "AppArmor keeps user namespaces from programs without a profile. Give mesh one: printf '%s\\n' 'abi \
             <abi/4.0>,' 'include <tunables/global>' 'profile mesh \"{program}\" flags=(unconfined) {{ userns, }}' | sudo \
             tee /etc/apparmor.d/mesh && sudo apparmor_parser -r /etc/apparmor.d/mesh"
        );
    }
    if kernel.is_container || kernel.is_filtered {
        return "an ordinary user can isolate nothing in this container: run the agent as its root, as this prints: mesh \
                setup container"
            .into();
    }
    if at(Rung::UserNamespace) == Some(Step::Namespaces) {
        return "something forbids user namespaces to this user; as root the agent needs none: run it as a service of the \
                system"
            .into();
    }
    "the step that is named above is the one that the kernel refuses".into()
}

fn groups(facts: &Facts) -> Check {
    match &facts.agent {
        Err(_) => check("cgroup", Level::Warning, "not known while the agent does not run", "mesh up"),
        Ok(Running { groups: Ok(()), .. }) => good("cgroup", "each job's memory and processes are counted together"),
        Ok(Running { groups: Err(why), .. }) => check(
            "cgroup",
            Level::Warning,
            format!("limits hold for each process of a job alone: {why}"),
            "as a service the agent has a group of its own (mesh install); in its unit: Delegate=cpu io memory pids",
        ),
    }
}

fn proc(facts: &Facts) -> Check {
    if facts.kernel.has_proc {
        return good("proc", "/proc is there");
    }
    check(
        "proc",
        Level::Failure,
        "there is no /proc: the agent cannot start its jobs' processes",
        "mount -t proc proc /proc",
    )
}

fn cache(facts: &Facts) -> Check {
    let (path, room) = &facts.cache;
    let Some(room) = *room else {
        let hint = "see that the folder can be made, or name another by MESH_DIR";
        return check("cache", Level::Failure, format!("{path} cannot be looked at"), hint);
    };
    let left = format!("{:.1} GiB are free at {path}", room as f64 / f64::from(1 << 30));
    let hint = "make room there, or name another folder by MESH_DIR; the cache may be deleted while no agent runs";
    match room {
        ..ROOM_NONE => check("cache", Level::Failure, left, hint),
        ROOM_NONE..ROOM_LOW => check("cache", Level::Warning, left, hint),
        _ => good("cache", left),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Tried;

    fn well() -> Facts {
        let enforced = Enforced {
            rung: Rung::UserNamespace,
            user_namespace: true,
            overlay: true,
            devices: true,
            landlock: Landlock::Full,
            seccomp: true,
        };
        let running = Running { version: "0.1.0".into(), since: "3 days".into(), not_serving: None, groups: Ok(()) };
        Facts {
            agent: Ok(running),
            kernel: Kernel { has_proc: true, landlock_abi: Some(6), ..Kernel::default() },
            sandbox: Ok(enforced),
            cache: ("/home/a/.cache/mesh".into(), Some(80 << 30)),
            program: "/usr/bin/mesh".into(),
            has_sandbox: true,
        }
    }

    fn lines(facts: &Facts) -> String {
        let line = |check: &Check| format!("{:4} {:9} {} | {}", check.level.word(), check.id, check.text, check.hint);
        checks(facts)
            .iter()
            .map(|check| line(check).trim_end_matches([' ', '|']).to_owned())
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn a_machine_that_is_well_needs_nothing() {
        insta::assert_snapshot!(lines(&well()), @r"
        ok   agent     running for 3 days, version 0.1.0
        ok   sandbox   user namespaces: each job is nobody in namespaces of its own
        ok   overlay   a job's files are a layer over those that are kept
        ok   landlock  all rules are enforced (abi 6)
        ok   seccomp   system calls are filtered
        ok   cgroup    each job's memory and processes are counted together
        ok   proc      /proc is there
        ok   cache     80.0 GiB are free at /home/a/.cache/mesh
        ");
    }

    #[test]
    fn what_is_weaker_is_said_with_what_would_make_it_stronger() {
        let mut facts = well();
        facts.agent = Err("the agent is not running".into());
        facts.cache.1 = Some(1 << 30);
        facts.sandbox = facts.sandbox.map(|enforced| Enforced {
            rung: Rung::Container,
            overlay: false,
            devices: false,
            landlock: Landlock::Absent,
            ..enforced
        });
        insta::assert_snapshot!(lines(&facts), @r"
        warn agent     the agent is not running | until it runs, everything is compiled here
        ok   sandbox   a changed root: each job is a user of its own, as this container allows no namespaces
        warn overlay   no layers can be mounted here: each job gets copies of its inputs | that costs least where the cache is in memory, as in what this prints: mesh setup container
        warn landlock  the kernel has no Landlock, or does not enable it; the other barriers hold without it | add landlock to the kernel's parameter lsm= (what is enabled now: cat /sys/kernel/security/lsm)
        ok   seccomp   system calls are filtered
        warn devices   jobs have no /dev/null: what names it is compiled at home | let the container make them (--cap-add MKNOD, and the cache not on a file system mounted nodev)
        warn cgroup    not known while the agent does not run | mesh up
        ok   proc      /proc is there
        warn cache     1.0 GiB are free at /home/a/.cache/mesh | make room there, or name another folder by MESH_DIR; the cache may be deleted while no agent runs
        ");
    }

    #[test]
    fn each_reason_that_a_machine_does_not_serve_has_its_own_remedy() {
        let refused = |rung, step, kernel: Kernel| {
            let why = "could not enter namespaces of its own: Operation not permitted".to_owned();
            let tried = vec![Tried { rung, step: Some(step), why: why.clone() }];
            let facts = Facts { sandbox: Err(NoSandbox { why, tried }), kernel, ..well() };
            let said = checks(&facts);
            let sandbox = said.iter().find(|check| check.id == "sandbox").unwrap();
            assert_eq!(sandbox.level, Level::Failure);
            sandbox.hint.clone()
        };
        let kernel = Kernel { has_proc: true, ..Kernel::default() };
        let user = |kernel| refused(Rung::UserNamespace, Step::Namespaces, kernel);
        let root = Kernel { is_root: true, ..kernel.clone() };
        let said = [
            user(Kernel { user_namespaces_allowed: Some(0), ..kernel.clone() }),
            user(Kernel { user_namespaces_max: Some(0), ..kernel.clone() }),
            user(Kernel { apparmor_restricts: Some(1), ..kernel.clone() }),
            user(Kernel { is_filtered: true, ..kernel.clone() }),
            user(kernel.clone()),
            refused(Rung::UserNamespace, Step::Proc, kernel),
            refused(Rung::Container, Step::Privileges, root.clone()),
            refused(Rung::Namespaces, Step::Namespaces, root),
        ];
        insta::assert_snapshot!(said.join("\n"), @r#"
        sudo sysctl -w kernel.unprivileged_userns_clone=1; to keep it: echo kernel.unprivileged_userns_clone=1 | sudo tee /etc/sysctl.d/60-mesh.conf
        sudo sysctl -w user.max_user_namespaces=15000; to keep it: echo user.max_user_namespaces=15000 | sudo tee /etc/sysctl.d/60-mesh.conf
        AppArmor keeps user namespaces from programs without a profile. Give mesh one: printf '%s\n' 'abi <abi/4.0>,' 'include <tunables/global>' 'profile mesh "/usr/bin/mesh" flags=(unconfined) { userns, }' | sudo tee /etc/apparmor.d/mesh && sudo apparmor_parser -r /etc/apparmor.d/mesh
        an ordinary user can isolate nothing in this container: run the agent as its root, as this prints: mesh setup container
        something forbids user namespaces to this user; as root the agent needs none: run it as a service of the system
        the step that is named above is the one that the kernel refuses
        give the container what the sandbox needs; the whole command is printed by: mesh setup container
        root may make no namespaces here: look for what takes CAP_SYS_ADMIN from the agent (a unit's CapabilityBoundingSet= or RestrictNamespaces=)
        "#);
    }
}
