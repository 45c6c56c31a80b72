//! What a unit costs: on the client, on the provider, in time. `cargo bench`, or `cargo bench -- --help`.
//!
//! Two agents on this machine are one mesh; every unit goes to the other one, and must come back byte for byte as the
//! plain compiler makes it, by the provider's own counter. Processor time is what to read: wall time on one machine, on
//! which client and provider share the cores, says little. The first build of a project is *cold*, one after it *warm*.

mod cost;
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the tests of the launcher and the agent")]
#[path = "../it/env.rs"]
mod env;

use cost::{Cpu, Group, children_us, family_us, median, micros};
use env::{Agent, Ground, MESH_CC, until};
use mesh::agent::wire::{Ask, Tell};
use std::{
    collections::BTreeMap,
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

const HELP: &str = "\
cargo bench -- [--count N] [--jobs N] [--with distcc]

  --count N      tiny units; of the larger ones there are a fifth (default 200)
  --jobs N       launchers at once (default 8)
  --with distcc  the same units through distcc too, if distcc and distccd are installed";

/// Units that are compiled one by one for the latency.
const ALONE: usize = 40;
/// Headers of the larger project, each of which includes the one before.
const HEADERS: usize = 150;

struct Options {
    count: usize,
    jobs: usize,
    distcc: bool,
}

fn options() -> Result<Option<Options>, String> {
    let mut options = Options { count: 200, jobs: 8, distcc: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0).ok_or("a number is missing");
        match word.as_str() {
            // What cargo adds.
            "--bench" => {}
            "--count" => options.count = number()?,
            "--jobs" => options.jobs = number()?,
            "--with" if words.next().as_deref() == Some("distcc") => options.distcc = true,
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("{other} is not an option")),
        }
    }
    Ok(Some(options))
}

fn main() -> ExitCode {
    match options() {
        Ok(Some(options)) => bench(&options),
        Ok(None) => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

/// One project: its compiler, its units, and what the plain compiler makes of them.
struct Project {
    name: &'static str,
    compiler: &'static str,
    dir: PathBuf,
    units: Vec<String>,
    expected: BTreeMap<String, Vec<u8>>,
    local: Cpu,
}

impl Project {
    /// Units of one line each.
    fn tiny(ground: &Ground, count: usize) -> Self {
        let dir = ground.dir.join("tiny");
        std::fs::create_dir(&dir).expect("fresh");
        let units: Vec<String> = (0..count).map(|n| format!("main{n}.c")).collect();
        for unit in &units {
            std::fs::write(dir.join(unit), "int main(void) { return 0; }\n").expect("room");
        }
        Self::compiled(ground, "int main, C", "gcc", dir, units)
    }

    /// C++ with the standard library and many headers of its own.
    fn large(ground: &Ground, count: usize) -> Self {
        let dir = ground.dir.join("large");
        std::fs::create_dir_all(dir.join("include")).expect("fresh");
        for n in 0..HEADERS {
            let before = n.checked_sub(1).map(|n| format!("#include <h{n}.h>\n")).unwrap_or_default();
            let body = format!("struct S{n} {{ int a[{}]; int f(int x) const {{ return x + a[0]; }} }};\n", n + 1);
            std::fs::write(dir.join(format!("include/h{n}.h")), format!("#pragma once\n{before}{body}")).expect("room");
        }
        let units: Vec<String> = (0..count).map(|n| format!("unit{n}.cc")).collect();
        for (n, unit) in units.iter().enumerate() {
            let text = format!(
                "#include <map>\n#include <string>\n#include <vector>\n#include <h{}.h>\n\
                 std::map<std::string, std::vector<int>> m{n}; int f{n}() {{ return m{n}[\"x\"].size(); }}\n",
                HEADERS - 1
            );
            std::fs::write(dir.join(unit), text).expect("room");
        }
        Self::compiled(ground, "150 headers, C++", "g++", dir, units)
    }

    fn compiled(ground: &Ground, name: &'static str, compiler: &'static str, dir: PathBuf, units: Vec<String>) -> Self {
        let mut project = Self { name, compiler, dir, units, expected: BTreeMap::new(), local: Cpu::default() };
        let runner = Runner { ground, prefix: &[], env: &[], jobs: 2 };
        project.local = project.build(&runner, &project.units).0;
        for unit in &project.units {
            project.expected.insert(unit.clone(), std::fs::read(project.object(unit)).expect("the compiler works"));
        }
        project
    }

    fn object(&self, unit: &str) -> PathBuf {
        self.dir.join(unit).with_extension("o")
    }

    /// Compiles units; what the processes that were started cost, and how long it took in all.
    fn build(&self, runner: &Runner<'_>, units: &[String]) -> (Cpu, Duration) {
        units.iter().for_each(|unit| drop(std::fs::remove_file(self.object(unit))));
        let (before, began, next) = (children_us(), Instant::now(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..runner.jobs {
                scope.spawn(|| {
                    while let Some(unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let status = runner.command(self, unit).status();
                        assert!(status.is_ok_and(|s| s.success()), "{unit} does not compile");
                    }
                });
            }
        });
        (Cpu { us: children_us() - before, units: units.len() }, began.elapsed())
    }

    /// Panics unless every object is the plain compiler's.
    fn check(&self) {
        for (unit, expected) in &self.expected {
            let object = std::fs::read(self.object(unit)).expect("an object");
            assert!(
                object == *expected,
                "{}: the object differs from the plain compiler's",
                self.object(unit).display()
            );
        }
    }
}

/// How units are compiled.
struct Runner<'a> {
    ground: &'a Ground,
    prefix: &'a [&'a str],
    env: &'a [(&'a str, String)],
    jobs: usize,
}

impl Runner<'_> {
    fn command(&self, project: &Project, unit: &str) -> Command {
        let mut words = self.prefix.iter().copied().chain([project.compiler]);
        let mut command = self.ground.command(words.next().expect("the compiler at least"));
        command.args(words).args(["-O0", "-g", "-Iinclude", "-c", unit, "-o"]).arg(project.object(unit));
        command.current_dir(&project.dir).envs(self.env.iter().map(|(k, v)| (k, v))).stdout(Stdio::null());
        command
    }
}

fn bench(options: &Options) -> ExitCode {
    let ground = Ground::new();
    let mut group = None;
    let provider = Agent::running(&ground, "provider");
    let group = group.insert(Group::of(provider.pid()));
    let client = Agent::running(&ground, "client");
    if let Some(why) = provider.snapshot().not_serving {
        eprintln!("this machine cannot compile for others, so there is nothing to measure: {why}");
        return ExitCode::FAILURE;
    }
    assert!(matches!(provider.ask(&Ask::Found { name: "bench".to_owned() }), Tell::Finished(_)));
    provider.pair_with(&client);
    println!("# microseconds of processor time for each unit; {} launchers at once", options.jobs);
    let projects = [Project::tiny(&ground, options.count), Project::large(&ground, options.count.div_ceil(5))];
    let env = [("MESH", "force".to_owned()), ("MESH_DIR", client.home.display().to_string())];
    let runner = Runner { ground: &ground, prefix: &[MESH_CC], env: &env, jobs: options.jobs };
    // The first unit waits until the machines have found that their compilers are the same.
    until("a unit goes to the provider", || {
        let unit = &projects[1].units[0];
        runner.command(&projects[1], unit).stderr(Stdio::null()).status().is_ok_and(|s| s.success()).then_some(())
    });
    for project in &projects {
        println!("\n== {}: {} units", project.name, project.units.len());
        println!("   the plain compiler alone                 {:>8}", project.local.each());
        for pass in ["cold", "warm"] {
            measure(project, &runner, pass, [&client, &provider], group);
        }
    }
    latency(&projects[0], &runner);
    if options.distcc {
        distcc(&ground, &projects, options.jobs);
    }
    ExitCode::SUCCESS
}

/// One build of a project through the mesh.
fn measure(project: &Project, runner: &Runner<'_>, pass: &str, [client, provider]: [&Agent; 2], group: &Group) {
    let served = || provider.snapshot().counters.served;
    let (client_before, provider_before, served_before) = (family_us(client.pid()), group.us(), served());
    let (launchers, _) = project.build(runner, &project.units);
    project.check();
    let units = project.units.len();
    until("the provider has counted every unit", || (served() == served_before + units as u64).then_some(()));
    let agent = Cpu { us: family_us(client.pid()) - client_before, units };
    let there = group.us().zip(provider_before).map(|(after, before)| Cpu { us: after - before, units });
    let mut compilers = Cpu { us: 0, units };
    let mut phases: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for unit in &project.units {
        let path = Some(project.dir.join(unit).as_os_str().as_bytes().to_vec());
        let Tell::Explained(records) = client.ask(&Ask::Explain { path }) else { panic!("no record of {unit}") };
        let record = records.last().expect("a record of every unit");
        compilers.us += record.cpu_us;
        for phase in &record.phases {
            phases.entry(format!("{} (wall)", phase.name)).or_default().push(phase.us);
            phase.cpu_us.into_iter().for_each(|us| phases.entry(format!("{} (cpu)", phase.name)).or_default().push(us));
        }
        for phase in &record.phases_there {
            phases.entry(format!("there: {} (wall)", phase.name)).or_default().push(phase.us);
        }
    }
    println!("   {pass}: client                             {:>8}", launchers.each() + agent.each());
    println!("           of it the launcher               {:>8}", launchers.each());
    println!("           of it the agent                  {:>8}", agent.each());
    match there.map(|there| Cpu { us: there.us.saturating_sub(compilers.us), units }) {
        Some(beyond) => {
            let share = beyond.share_of(&compilers);
            println!("         provider, beyond the compiler's own {:>7}   {share:.1} %", beyond.each());
        }
        None => println!("         provider: not measured, for want of a control group of its own (root)"),
    }
    let phases = phases.iter().map(|(name, all)| format!("{name} {}", median(all.clone())));
    println!("         medians: {}", phases.collect::<Vec<_>>().join(" · "));
}

/// One unit after another, the plain compiler and the mesh in turn.
fn latency(project: &Project, runner: &Runner<'_>) {
    let plain = Runner { prefix: &[], env: &[], ..*runner };
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for unit in project.units.iter().cycle().take(ALONE) {
        for (runner, times) in [(&plain, &mut here), (runner, &mut there)] {
            let began = Instant::now();
            assert!(runner.command(project, unit).status().is_ok_and(|s| s.success()));
            times.push(micros(began.elapsed()));
        }
    }
    let (here, there) = (median(here), median(there));
    println!("\n== {}: alone, wall time", project.name);
    println!(
        "   the plain compiler {here} µs, through the mesh {there} µs: {:+} µs",
        there.cast_signed() - here.cast_signed()
    );
}

/// A distcc server of this machine.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn distcc(ground: &Ground, projects: &[Project], jobs: usize) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
    let mut server = ground.command("distccd");
    server.args(["--daemon", "--no-detach", "--allow", "127.0.0.1", "--listen", "127.0.0.1", "--log-file"]);
    server.arg(ground.dir.join("distccd.log")).args(["--jobs", "8", "--port", &port.to_string()]);
    let Ok(server) = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
        println!("\ndistccd is not installed");
        return;
    };
    let server = Server(server);
    until("distccd answers", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    let env = [
        ("DISTCC_HOSTS", format!("127.0.0.1:{port}/{jobs},lzo")),
        ("DISTCC_FALLBACK", "0".to_owned()),
        ("DISTCC_DIR", ground.dir.join("distcc").display().to_string()),
    ];
    let runner = Runner { ground, prefix: &["distcc"], env: &env, jobs };
    for project in projects {
        let (client, _) = project.build(&runner, &project.units);
        let same = |unit: &&String| std::fs::read(project.object(unit)).ok().as_ref() == project.expected.get(*unit);
        let differ = project.units.len() - project.units.iter().filter(same).count();
        println!(
            "\n== {}: distcc:lzo: client {}; {differ} of {} objects differ",
            project.name,
            client.each(),
            project.units.len()
        );
    }
    drop(server);
}
