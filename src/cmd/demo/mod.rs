//! `mesh demo`: a real build through two agents on this machine, every byte compared (DO).
//!
//! The two know nothing of each other but a code and an address: each has a key, a store and a socket of its own, and they
//! meet over QUIC on the loopback interface. What the agent that serves has counted is believed, not what the one that
//! asked says.

mod jobs;
mod stage;
pub mod units;

use super::{
    client::{explain, snapshot},
    failure::{Failure, out},
    find, start,
};
use crate::{
    env,
    places::Places,
    view::{rows::count, time},
};
use jobs::{Built, COMPILERS, Job, OUT, compared, differences, jobs, shown, sources};
use stage::{Interrupt, Stage, without_mesh};
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use units::{UNITS, Unit};

/// The first unit of each compiler may need this long, until both agents know the compiler.
const WARM_TIME: Duration = Duration::from_secs(20);
/// Between two tries.
const LOOK: Duration = Duration::from_millis(200);
/// The launcher's status if a unit would have been compiled here.
const EXIT_NO_FALLBACK: i32 = 111;

pub(super) fn run() -> Result<u8, Failure> {
    let path = std::env::var_os("PATH");
    let is_there = |name: &str| find::find(OsStr::new(name), Path::new("/"), path.as_deref()).is_ok();
    let (there, absent): (Vec<&str>, Vec<&str>) = COMPILERS.iter().map(|(name, _)| *name).partition(|n| is_there(n));
    let jobs = jobs(UNITS, &there);
    if jobs.is_empty() {
        return Err(Failure::new("there is no gcc or clang on PATH, so nothing can be compiled. Install one of them"));
    }
    line("compilers", &listed(&there, &absent));
    line(
        "build",
        &format!(
            "{} and their headers, {}",
            count(sources(UNITS) as u64, "source"),
            count(jobs.len() as u64, "compile")
        ),
    );
    let interrupt = Interrupt::watch()?;
    let mut stage = Stage::new(interrupt.clone())?;
    let good = show(&mut stage, &jobs, &interrupt)?;
    drop(stage);
    line("cleaned up", "both agents have ended, their files are gone");
    Ok(u8::from(!good))
}

fn line(label: &str, text: &str) {
    out(&format!("{label:<11}{text}"));
}

fn listed(there: &[&str], absent: &[&str]) -> String {
    let skipped =
        if absent.is_empty() { String::new() } else { format!(" (not there, skipped: {})", absent.join(", ")) };
    there.join(", ") + &skipped
}

/// The whole demonstration; whether everything ran remotely and is equal.
fn show(stage: &mut Stage, jobs: &[Job], interrupt: &Interrupt) -> Result<bool, Failure> {
    let top = stage.dir.join("project");
    lay_out(&top, UNITS)?;
    let begun = Instant::now();
    let reference = build(&top, jobs, interrupt, &|job| plain(&top, job))?;
    let took = time::seconds(micros(begun));
    line("reference", &format!("compiled by your own compilers, with no agent running, in {took}"));
    if let Some(at) = reference.said.iter().position(|(code, ..)| *code != Some(0)) {
        let said = String::from_utf8_lossy(&reference.said[at].2).lines().next().unwrap_or_default().to_owned();
        let text = format!("your own compiler does not compile this: {}: {said}", jobs[at].line());
        return Err(Failure::new(crate::view::rows::sanitised(&text)));
    }
    let provider = stage.start("provider")?;
    if let Some(why) = snapshot(&provider)?.not_serving {
        return Err(Failure::new(format!(
            "this machine cannot compile for others, so there is nothing to show: {}. It can still send its own units out",
            crate::view::rows::sanitised(why.trim_end_matches('.'))
        )));
    }
    let client = stage.start("client")?;
    let (code, address) = stage.join(&provider, &client)?;
    line("joined", &format!("two agents, each with its own key and store: mesh join {code}@{address}"));
    line("meeting", "each looks at its compilers and tries them in a sandbox; this takes a moment …");
    stage.met(&client)?;
    warm_up(&top, jobs, &client, interrupt)?;
    let before = snapshot(&provider)?.counters.served;
    let begun = Instant::now();
    let mesh = build(&top, jobs, interrupt, &|job| through_mesh(&top, job, &client))?;
    let took = time::seconds(micros(begun));
    line("built", &format!("through mesh cc with MESH=force, in {took}"));
    let served = snapshot(&provider)?.counters.served.saturating_sub(before);
    let remote = told_where(&top, jobs, served, &client);
    let differ = differences(jobs, &reference, &mesh);
    if differ.is_empty() {
        line("bytes", &format!("all equal: {}", compared(&mesh)));
    } else {
        line("bytes", &format!("{} among {}", count(differ.len() as u64, "difference"), compared(&reference)));
        shown(&differ).iter().for_each(|l| out(l));
    }
    Ok(remote && differ.is_empty())
}

/// Says where the units ran, by the provider's counter; whether all ran there.
fn told_where(top: &Path, jobs: &[Job], served: u64, client: &Places) -> bool {
    let all = jobs.len() as u64;
    line("where", &format!("the other agent compiled {served} of {all}, by its own count"));
    let mut here = Vec::new();
    if served != all {
        for job in jobs {
            let path = top.join(&job.object).as_os_str().as_bytes().to_vec();
            let unit = explain(client, Some(path)).ok().and_then(|mut units| units.pop());
            match unit.map(|u| (u.reason, u.note)) {
                Some((None, _)) => {}
                Some((Some(reason), note)) => here.push(format!("{}: {reason} {note}", job.line())),
                None => here.push(format!("{}: the agent was not asked", job.line())),
            }
        }
    }
    shown(&here).iter().for_each(|l| out(l));
    served == all
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn lay_out(top: &Path, units: &[Unit]) -> Result<(), Failure> {
    for unit in units {
        let path = top.join(unit.path);
        let made =
            std::fs::create_dir_all(path.parent().unwrap_or(top)).and_then(|()| std::fs::write(&path, unit.text));
        made.map_err(|e| Failure::new(format!("{} cannot be written: {e}", path.display())))?;
    }
    Ok(())
}

/// Runs all jobs, as many at once as there are cores, and takes what they made away.
fn build(
    top: &Path,
    jobs: &[Job],
    interrupt: &Interrupt,
    command: &(dyn Fn(&Job) -> Command + Sync),
) -> Result<Built, Failure> {
    let out = top.join(OUT);
    for (name, _) in COMPILERS {
        std::fs::create_dir_all(out.join(name)).map_err(|e| Failure::new(format!("{}: {e}", out.display())))?;
    }
    let next = AtomicUsize::new(0);
    let said = Mutex::new(vec![None; jobs.len()]);
    let work = || {
        while let Some((at, job)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, jobs.get(at)?)))
        {
            if interrupt.is_set() {
                return;
            }
            let ran = command(job).output().map(|o| (o.status.code(), o.stdout, o.stderr));
            said.lock().expect("no panic while held")[at] = Some(ran.map_err(|e| e.to_string()));
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(jobs.len());
    std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
    interrupt.check()?;
    let mut built = Built::default();
    for (job, ran) in jobs.iter().zip(said.into_inner().expect("no panic while held")) {
        let ran = ran.ok_or_else(|| Failure::new("a compile was left out"))?;
        built.said.push(ran.map_err(|e| Failure::new(format!("{} could not be run: {e}", job.compiler)))?);
    }
    take(&out, OUT, &mut built.files).map_err(|e| Failure::new(format!("{}: {e}", out.display())))?;
    std::fs::remove_dir_all(&out).map_err(|e| Failure::new(format!("{}: {e}", out.display())))?;
    Ok(built)
}

/// Reads every file below a directory.
fn take(dir: &Path, name: &str, files: &mut BTreeMap<String, Vec<u8>>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            take(&entry.path(), &name, files)?;
        } else {
            files.insert(name, std::fs::read(entry.path())?);
        }
    }
    Ok(())
}

/// The compile by the compiler itself.
fn plain(top: &Path, job: &Job) -> Command {
    let path = std::env::var_os("PATH");
    let found = find::find(OsStr::new(job.compiler), Path::new("/"), path.as_deref());
    let mut command = Command::new(found.map_or_else(|_| job.compiler.into(), |f| f.path));
    std::os::unix::process::CommandExt::arg0(&mut command, job.compiler);
    command.args(&job.args);
    surroundings(&mut command, top);
    command
}

/// The compile through the launcher, as a build system would do it.
fn through_mesh(top: &Path, job: &Job, client: &Places) -> Command {
    let mut command = Command::new(start::mesh_program().unwrap_or_else(|| "mesh".into()));
    command.arg("cc").arg(job.compiler).args(&job.args);
    surroundings(&mut command, top);
    command
        .env(env::SOCKET, &client.socket)
        .env(env::DIR, client.config.parent().unwrap_or(top))
        .env(env::MESH, "force");
    command
}

/// The same for both: directory, environment, no terminal.
fn surroundings(command: &mut Command, top: &Path) {
    without_mesh(command);
    command.current_dir(top).env("PWD", top).stdin(Stdio::null());
}

/// Compiles one unit with each compiler until it goes out: an agent looks at a compiler when it first meets it.
fn warm_up(top: &Path, jobs: &[Job], client: &Places, interrupt: &Interrupt) -> Result<(), Failure> {
    for (name, _) in COMPILERS {
        let Some(job) = jobs.iter().find(|j| j.compiler == *name) else { continue };
        let until = Instant::now() + WARM_TIME;
        loop {
            let one = |job: &Job| {
                let mut command = through_mesh(top, job, client);
                command.env(env::FALLBACK, "0");
                command
            };
            let built = build(top, std::slice::from_ref(job), interrupt, &one)?;
            // If it does not go out for good, the build itself tells why.
            if built.said[0].0 != Some(EXIT_NO_FALLBACK) || Instant::now() >= until {
                break;
            }
            std::thread::sleep(LOOK);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_by_the_compiler_itself_is_equal_to_its_repetition_and_leaves_nothing() {
        let path = std::env::var_os("PATH");
        if find::find(OsStr::new("gcc"), Path::new("/"), path.as_deref()).is_err() {
            eprintln!("skipped: there is no gcc here");
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        lay_out(dir.path(), UNITS).expect("writable");
        let jobs = jobs(UNITS, &["gcc"]);
        let once = || build(dir.path(), &jobs, &Interrupt::default(), &|job| plain(dir.path(), job)).expect("it runs");
        let (first, second) = (once(), once());
        assert_eq!(differences(&jobs, &first, &second), Vec::<String>::new());
        assert!(first.said.iter().all(|(code, ..)| *code == Some(0)), "{:?}", first.said);
        assert_eq!(first.files.len(), 2 * jobs.len(), "an object and a dependency list each");
        assert!(!dir.path().join(OUT).exists());
    }

    #[test]
    fn what_is_absent_is_said() {
        assert_eq!(listed(&["gcc"], &["clang", "g++"]), "gcc (not there, skipped: clang, g++)");
        assert_eq!(listed(&["gcc", "g++"], &[]), "gcc, g++");
    }
}
