//! What a launcher says of its unit's result is done, nothing is kept twice under ccache, and all of it is counted.

use crate::{
    cache::{entries, keeping},
    desk::{Desk, Unit, Where},
    env::{MESH_CC, Ran, has, until},
};
use std::ffi::OsString;

impl Desk {
    /// The numbers of `mesh stats` of the client.
    fn stats(&self) -> serde_json::Value {
        let ran = self.client.mesh(&self.ground, &["stats", "--json"]);
        serde_json::from_slice(&ran.out).unwrap()
    }
}

#[test]
fn a_compile_says_whether_its_result_is_looked_for_and_kept() {
    let Some(desk) = keeping("") else { return };
    desk.write("a.c", "int a;\n");
    let unit = desk.line("gcc -c a.c -o a.o");
    for word in ["off", "read"] {
        for _ in 0..2 {
            desk.same(&unit.clone().env("MESH_CACHE", word), Where::There);
        }
    }
    assert!(entries(&desk.client).is_empty());
    desk.same_twice(&unit);
    desk.same(&unit.clone().env("MESH_CACHE", "read"), Where::Kept);
    desk.same(&unit.clone().env("MESH_CACHE", "on"), Where::Kept);
    desk.same(&unit.clone().env("MESH_CACHE", "off"), Where::There);
    let stats = desk.stats();
    assert_eq!((&stats["uncacheable"]["ASKED"], &stats["counters"]["cache_hits"]), (&3.into(), &3.into()), "{stats}");
    assert_eq!(
        (&stats["counters"]["cache_misses"], &stats["counters"]["cache_kept"]),
        (&3.into(), &1.into()),
        "{stats}"
    );
    assert_eq!(stats["peers"], serde_json::json!({ "tower": 6 }), "{stats}");
    let files = desk.client.mesh(&desk.ground, &["stats", "--by", "file"]);
    assert!(files.out().contains("a.c\n"), "{}", files.out());
}

#[test]
fn what_was_counted_outlives_the_agent_until_it_is_set_to_zero() {
    let Some(mut desk) = keeping("") else { return };
    desk.write("a.c", "int a;\n");
    let unit = desk.line("gcc -c a.c -o a.o");
    desk.same_twice(&unit);
    // Whatever it takes to make a desk is counted too.
    let requests = |desk: &Desk| desk.stats()["counters"]["requests"].as_u64().unwrap_or(0);
    let before = requests(&desk);
    assert!(before >= 2, "{before}");
    desk.restart_client();
    desk.same(&unit, Where::Kept);
    assert!(requests(&desk) > before);
    let text = desk.client.mesh(&desk.ground, &["stats", "--since", "1h"]);
    assert!(text.out().contains("kept here"), "{}", text.out());
    assert_eq!(desk.client.mesh(&desk.ground, &["stats", "--zero"]).code, Some(0));
    assert_eq!(requests(&desk), 0);
    desk.same(&unit, Where::Kept);
    assert_eq!(requests(&desk), 1);
    desk.client.stop();
    let ran = desk.client.mesh(&desk.ground, &["stats", "--json"]);
    let stats: serde_json::Value = serde_json::from_slice(&ran.out).unwrap();
    assert_eq!((ran.code, &stats["agent"], &stats["counters"]["requests"]), (Some(3), &false.into(), &1.into()));
}

#[test]
fn what_ccache_keeps_is_kept_here_only_on_request() {
    if !has("ccache") {
        return;
    }
    let Some(desk) = keeping("") else { return };
    desk.write("a.c", "int a;\n");
    let unit = desk.line("gcc -c a.c -o a.o");
    for (turn, words, variables) in
        [("prefix", &["ccache"][..], &[("CCACHE_PREFIX", MESH_CC)][..]), ("words", &["ccache", MESH_CC], &[])]
    {
        let asked = below_ccache(&desk, &unit, turn, words, variables);
        assert_eq!(asked, (1, 0), "{turn}");
    }
    let kept = [("CCACHE_PREFIX", MESH_CC), ("MESH_CACHE", "on")];
    assert_eq!(below_ccache(&desk, &unit, "kept", &["ccache"], &kept), (0, 1));
    // Set everywhere, but ccache does not run this one.
    desk.write("b.c", "int b;\n");
    desk.same_twice(&desk.line("gcc -c b.c -o b.o").env("CCACHE_PREFIX", MESH_CC));
}

/// Compiles through an empty ccache: how many units were left to it, and how many results are new here.
fn below_ccache(desk: &Desk, unit: &Unit, turn: &str, words: &[&str], variables: &[(&str, &str)]) -> (u64, usize) {
    let left = || desk.stats()["uncacheable"]["CCACHE"].as_u64().unwrap_or(0);
    let (left_before, kept_before, served) = (left(), entries(&desk.client).len(), desk.served());
    let mut cached = unit.clone();
    cached.words = words.iter().map(OsString::from).chain(unit.words.clone()).collect();
    let mut command = desk.bare(&cached);
    command.env("MESH_DIR", &desk.client.home).env("MESH", "force").envs(variables.iter().copied());
    command.env("CCACHE_DIR", desk.ground.dir.join(format!("ccache-{turn}")));
    let ran = Ran::of(&mut command);
    assert_eq!(ran.code, Some(0), "{turn}: {}", ran.err());
    until(&format!("{turn}: served"), || (desk.served() == served + 1).then_some(()));
    let wanted = usize::from(variables.contains(&("MESH_CACHE", "on")));
    until(&format!("{turn}: kept"), || (entries(&desk.client).len() >= kept_before + wanted).then_some(()));
    (left() - left_before, entries(&desk.client).len() - kept_before)
}
