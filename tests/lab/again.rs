//! What one machine had compiled, another one has, and what that costs it.

use crate::agents::{LAUNCHER, joined_as, served, warm_up};
use crate::build::{self, Compilers, Way};
use crate::builds::full;
use crate::corpora::{self, Corpus};
use crate::machine::{Account, Spec};

/// Units, where `MESH_LAB_FULL=1` does not ask for more.
const UNITS: usize = 12;
const UNITS_FULL: usize = 120;
/// Of a hundred units, how many the other machine must not compile.
const HITS_PERCENT_MIN: u64 = 95;

#[test]
fn a_project_that_one_machine_has_built_is_not_compiled_on_the_next() {
    let units = match Corpus::Abseil.units() {
        Ok(units) => build::spread(units, if full() { UNITS_FULL } else { UNITS }),
        Err(why) => return crate::skip(&why).unwrap_or_default(),
    };
    // All that this computer has, and counted.
    let spec = |name| Spec::new(name, Account::Ordinary).cores(2.0);
    let specs = vec![spec("client").sees(&corpora::folder()), spec("tower"), spec("other").sees(&corpora::folder())];
    let Some(turn) = crate::lab(specs, &[corpora::folder()]) else { return };
    let nodes = joined_as(&turn.lab, true);
    warm_up(&nodes);
    let [first, _, other] = nodes.as_slice() else { panic!("three machines") };
    for flags in ["-O2 -MD", "-O0 -g -MD"] {
        let way = Way::new(Compilers::Gcc, flags).env("MESH", "force");
        let (before, cpu_before) = (served(&nodes), first.machine.cpu_seconds());
        let made = build::build(first.machine, &units, &way, LAUNCHER);
        let compiled = served(&nodes) - before;
        assert!(compiled * 100 >= units.len() as u64 * HITS_PERCENT_MIN, "{compiled}\n{}", first.log());
        let cost = |cpu: Option<f64>, before: Option<f64>| {
            cpu.zip(before).map(|(cpu, before)| (cpu - before) * 1000.0 / units.len() as f64)
        };
        let cold = cost(first.machine.cpu_seconds(), cpu_before);

        // What it has compiled for the first one, it keeps itself; the rest it has from the two.
        let (hits, cpu_before) = (other.counted("cache_hits"), other.machine.cpu_seconds());
        let had = build::build(other.machine, &units, &way, LAUNCHER);
        let warm = cost(other.machine.cpu_seconds(), cpu_before);
        had.assert_same(&made, "the other machine's");
        assert_eq!(served(&nodes) - before, compiled, "nothing was compiled again: {}", other.log());
        let hits = other.counted("cache_hits") - hits;
        assert!(hits * 100 >= units.len() as u64 * HITS_PERCENT_MIN, "{hits} of {}\n{}", units.len(), other.log());
        assert_eq!(other.discrepancies(), 0);
        println!(
            "{flags}: {hits} of {} units; CPU ms a unit on the first machine {cold:?}, on the other {warm:?}",
            units.len()
        );

        let cpu_before = other.machine.cpu_seconds();
        build::build(other.machine, &units, &way, LAUNCHER).assert_same(&made, "the other machine's own");
        println!("{flags}: once more, from its own disk {:?}", cost(other.machine.cpu_seconds(), cpu_before));
    }
}
