//! `mesh stats`: what the file holds, with an agent and without one.

use super::{Place, desk};
use mesh::{
    agent::{
        history::History,
        wire::{Ask, Tell},
    },
    view::{
        history::{MINUTE_MS, Sums},
        snapshot::{FileRow, Files},
    },
};
use std::time::{SystemTime, UNIX_EPOCH};

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Counts of two hours ago and of now.
fn counted(place: &Place) {
    let state = place.dir.path().join("state");
    std::fs::create_dir_all(&state).unwrap();
    let history = History::new(&state);
    let sums = |requests, remote| -> Sums {
        [("requests".to_owned(), requests), ("remote".to_owned(), remote), ("peer.tower".to_owned(), remote)].into()
    };
    history.add(sums(4, 3), now_ms() - 120 * MINUTE_MS).unwrap();
    history.add(sums(6, 5), now_ms()).unwrap();
}

fn agent(ask: &Ask) -> Vec<Tell> {
    match ask {
        Ask::Count { .. } => vec![Tell::Finished("counted".to_owned())],
        Ask::Files { .. } => {
            let row = FileRow { source: b"/src/a.c".to_vec(), units: 2, ms: 12, ..FileRow::default() };
            vec![Tell::Files(Files { rows: vec![row], count: 1, ..Files::default() })]
        }
        Ask::Snapshot => vec![Tell::Snapshot(Box::new(desk()))],
        other => panic!("not in the script: {other:?}"),
    }
}

#[test]
fn without_an_agent_what_earlier_ones_counted_is_told_and_that_none_runs() {
    let place = Place::empty();
    counted(&place);
    let ran = place.mesh(&["stats"]);
    assert_eq!((ran.code, ran.err.as_str()), (3, "mesh: the agent is not running. Start it with: mesh up\n"));
    assert!(ran.out.contains("requests   6\ncompiled   5 units: 5 elsewhere (100 %), 0 here\n"), "{}", ran.out);
    let json = place.json(&["stats", "--since", "1h", "--json"]);
    assert_eq!(
        (&json["agent"], &json["counters"]["requests"], &json["peers"]["tower"]),
        (&false.into(), &2.into(), &2.into())
    );
    assert_eq!(place.json(&["stats", "--since", "3h", "--json"])["counters"]["requests"], 6);
    assert_eq!(place.json(&["stats", "--since", "build", "--json"])["counters"]["requests"], 2);
    let zero = place.mesh(&["stats", "--zero"]);
    assert_eq!((zero.code, zero.out.as_str()), (0, "mesh: all counts begin at zero\n"));
    assert!(place.mesh(&["stats"]).out.contains("requests   0\n"));
    let wrong = place.mesh(&["stats", "--since", "yesterday"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("a time such as 30m, 2h or 2d (8 days at most), build or boot"), "{}", wrong.err);
}

#[test]
fn an_agent_is_asked_to_write_first_and_for_what_it_remembers_of_files() {
    let place = Place::with_agent(agent);
    counted(&place);
    assert_eq!(place.mesh(&["stats"]).code, 0);
    assert!(place.mesh(&["stats", "--by", "file"]).out.contains("/src/a.c\n"));
    let peers = place.mesh(&["stats", "--by", "peer"]).out;
    assert!(peers.contains("tower             5\n"), "{peers}");
    assert_eq!(place.json(&["stats", "--by", "file", "--json"])["files"][0]["ms"], 12);
    assert_eq!(place.mesh(&["stats", "--zero"]).code, 0);
    let asked = place.asked();
    assert_eq!((&asked[0], asked.last()), (&Ask::Count { zero: false }, Some(&Ask::Count { zero: true })));
    assert_eq!(asked.iter().filter(|ask| matches!(ask, Ask::Files { .. })).count(), 2);
}
