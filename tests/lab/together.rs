//! What machines of different speed do together, beside one of them alone.

use crate::agents::{LAUNCHER, Node, joined, served, warm_up};
use crate::build::{self, Compilers, Made, Unit, Way};
use crate::builds::full;
use crate::corpora::{self, Corpus};
use crate::machine::{Account, Spec};
use std::time::Instant;

/// How large a build is, on cores of the client, of one like it and of one that is twice as fast: a laptop, a desktop and a
/// better one.
struct Size {
    /// Enough that the last ones do not matter much.
    units: usize,
    cores: [f64; 3],
    /// The share of what all these cores could do that must be reached, of a hundred.
    percent_min: f64,
    /// How many builds must reach it, of how many at most.
    builds: usize,
    builds_max: usize,
}

/// Where `MESH_LAB_FULL=1` asks for it; it takes a quarter of an hour on a computer that does nothing else.
const WHOLE: Size = Size { units: 120, cores: [0.25, 0.25, 0.5], percent_min: 90.0, builds: 2, builds_max: 2 };
/// What two cores do in a minute, whose last units are a good part of it. Quotas that add up to all that a computer of two
/// cores has leave nothing for whatever else runs on it: the best of a few builds says what mesh can do, the worst what the
/// computer could at that moment. Half is what two of the three could do together.
const SHORT: Size = Size { units: 16, cores: [0.5, 0.5, 1.0], percent_min: 60.0, builds: 1, builds_max: 5 };

/// What one build took.
#[derive(Debug, Clone, Copy)]
struct Took {
    wall: f64,
    /// CPU time of everything on the client.
    client: f64,
    elsewhere: u64,
}

fn took(nodes: &[Node<'_>], units: &[Unit], way: &Way, prefix: &[&str]) -> (Took, Made) {
    let client = nodes[0].machine;
    let cpu = || client.cpu_seconds().expect("its time is counted");
    let (began, cpu_before, served_before) = (Instant::now(), cpu(), served(nodes));
    let made = build::build(client, units, way, prefix);
    let (wall, used) = (began.elapsed().as_secs_f64(), cpu() - cpu_before);
    (Took { wall, client: used, elsewhere: served(nodes) - served_before }, made)
}

#[test]
fn three_machines_do_nine_tenths_of_what_their_cores_can() {
    let size = if full() { WHOLE } else { SHORT };
    let names = ["client", "like", "twice"];
    let specs = names.iter().zip(size.cores).map(|(name, cores)| Spec::new(name, Account::Root).cores(cores));
    let mut specs: Vec<Spec> = specs.collect();
    specs[0] = specs[0].clone().sees(&corpora::folder());
    let units = match Corpus::Abseil.units() {
        Ok(units) => build::spread(units, size.units),
        Err(why) => return crate::skip(&why).unwrap_or_default(),
    };
    let Some(turn) = crate::lab(specs, &[corpora::folder()]) else { return };
    if turn.lab.machines.iter().any(|machine| !machine.limited()) {
        return crate::skip("no control group with a quota can be made").unwrap_or_default();
    }
    let nodes = joined(&turn.lab);
    warm_up(&nodes);
    let way = Way::new(Compilers::Gcc, "-O2");
    let whole = size.cores.iter().sum::<f64>() / size.cores[0];
    let together = || took(&nodes, &units, &way.clone().jobs(8), LAUNCHER);
    // What one can alone lies between the two, in case that the computer becomes faster or slower meanwhile.
    let first = together();
    let (alone, wanted) = took(&nodes, &units, &way.clone().jobs(1), &[]);
    let mut reached = 0;
    let mut builds = std::iter::once(first).chain(std::iter::repeat_with(together));
    for number in 1..=size.builds_max {
        let Some((together, made)) = builds.next() else { break };
        made.assert_same(&wanted, &format!("build {number}"));
        let (faster, less) = (alone.wall / together.wall, alone.client / together.client);
        let percent = 100.0 * faster / whole;
        let elsewhere = together.elsewhere;
        println!(
            "build {number}: {faster:.2} times as fast as alone, {percent:.1} % of what the cores can; client CPU"
        );
        println!("{less:.2} times less; {elsewhere} of {} units elsewhere; {alone:.1?}, {together:.1?}", size.units);
        assert!(elsewhere * 2 > size.units as u64, "most units ran elsewhere");
        reached += usize::from(percent >= size.percent_min);
        if reached == size.builds {
            return;
        }
    }
    let Size { percent_min, builds, builds_max, .. } = size;
    panic!("{reached} builds of {builds_max} reached {percent_min} % of what the cores can, not {builds}");
}
