use super::*;
use crate::sched::history::Class;
use mesh_proto::digest::Digest;

const SECOND: u64 = 1_000_000;
const A: PeerId = PeerId([1; 32]);
const B: PeerId = PeerId([2; 32]);

fn gcc() -> Fingerprint {
    Fingerprint(Digest([7; 32]))
}

fn ask(key: u64) -> Ask {
    let work = Work { key, class: Class::default(), input_bytes: 1000 };
    Ask { toolchain: gcc(), work, force: false, prefer: None, among: None, local: None, memory_kib: 0 }
}

fn load(slots: u16) -> Load {
    Load { slots, credits: slots + slots.div_ceil(4), memory_mib: 100_000, ..Load::default() }
}

/// A machine of so many cores with these peers.
fn dispatcher(cores: u32, peers: &[(PeerId, u16)]) -> Dispatcher {
    let mut all = Dispatcher::new(Known::default(), 1);
    all.here(0, HereState { cores, memory_free_kib: None, copies: true });
    for (peer, slots) in peers {
        all.connected(0, *peer, 500);
        all.lends(0, *peer, [gcc()]);
        all.load(0, *peer, load(*slots));
        // Units that say nothing of costs have ended well there.
        for unit in 0..u64::from(*slots) + 4 {
            all.ask(0, (1 << 40) + unit, Ask { force: true, prefer: Some(*peer), ..ask(0) });
            let (_, attempt, _) = offers(&all.take())[0];
            all.ended(0, attempt, End::Done(usage(0)));
        }
    }
    all
}

#[test]
fn a_machine_that_is_new_gets_few_units_and_more_with_each_that_ends_well() {
    let mut all = Dispatcher::new(Known::default(), 1);
    all.connected(0, A, 500);
    all.lends(0, A, [gcc()]);
    all.load(0, A, load(8));
    for unit in 0..20 {
        all.ask(0, unit, Ask { force: true, ..ask(unit + 1) });
    }
    let first = offers(&all.take());
    assert_eq!(first.len(), 2);
    all.ended(SECOND, first[0].1, End::Done(usage(SECOND)));
    assert_eq!(offers(&all.take()).len(), 2, "one in its place and one more")
}

fn usage(run_us: u64) -> Usage {
    Usage { run_us, peak_kib: 1000, crowd_percent: 100, ..Usage::default() }
}

/// Units that were told to be compiled here, and why.
fn here(acts: &[Do]) -> Vec<(UnitId, Reason)> {
    let one = |act: &Do| if let Do::Here { unit, reason, .. } = act { Some((*unit, *reason)) } else { None };
    acts.iter().filter_map(one).collect()
}

/// Offers: unit, attempt, peer.
fn offers(acts: &[Do]) -> Vec<(UnitId, AttemptId, PeerId)> {
    let one = |act: &Do| match act {
        Do::Offer { unit, attempt, peer, .. } => Some((*unit, *attempt, *peer)),
        _ => None,
    };
    acts.iter().filter_map(one).collect()
}

/// A mesh in which enough units of a second have ended everywhere for second starts.
fn practised(cores: u32, peers: &[(PeerId, u16)]) -> Dispatcher {
    let mut all = dispatcher(cores, peers);
    for unit in 0..60 {
        all.ask(unit * SECOND, unit, ask(unit + 1));
        let acts = all.take();
        for (_, attempt, _) in offers(&acts) {
            all.ended((unit + 1) * SECOND, attempt, End::Done(usage(SECOND)));
        }
        for (unit, _) in here(&acts) {
            all.local_ended((unit + 1) * SECOND, unit, true);
        }
    }
    all.take();
    all
}

#[test]
fn units_fill_the_peers_and_then_this_machine_and_then_wait() {
    let mut all = dispatcher(2, &[(A, 4)]);
    for unit in 0..20 {
        all.ask(0, unit, ask(unit + 1));
    }
    let acts = all.take();
    assert_eq!((offers(&acts).len(), here(&acts).len()), (5, 2));
    assert_eq!((all.wants(), all.running_here()), (24, 2), "eighteen, said in two binary digits");
    let (_, first, _) = offers(&acts)[0];
    all.ended(SECOND, first, End::Done(usage(SECOND)));
    assert_eq!(offers(&all.take()).len(), 1);
    all.local_ended(SECOND, here(&acts)[0].0, true);
    assert_eq!(here(&all.take()).len(), 1);
}

#[test]
fn no_more_compilers_start_here_than_there_are_cores_when_all_peers_are_lost_at_once() {
    let mut all = dispatcher(2, &[(A, 20), (B, 20)]);
    for unit in 0..40 {
        all.ask(0, unit, ask(unit + 1));
    }
    all.take();
    all.lost(SECOND, A);
    all.lost(SECOND, B);
    let fell = here(&all.take());
    assert!(fell.len() <= 2 && all.running_here() == 2, "{fell:?}");
    // They are back before long, and what still waits goes out again.
    for peer in [A, B] {
        all.connected(10 * SECOND, peer, 500);
        all.lends(10 * SECOND, peer, [gcc()]);
        all.load(10 * SECOND, peer, load(20));
    }
    assert!(!offers(&all.take()).is_empty());
}

#[test]
fn a_peer_that_failed_is_left_alone_and_tried_again_with_one_unit() {
    let mut all = dispatcher(1, &[(A, 8)]);
    all.ask(0, 1, ask(1));
    let (_, attempt, _) = offers(&all.take())[0];
    all.ended(0, attempt, End::Refused(Refusal::Sandbox));
    assert_eq!(here(&all.take()), [(1, Reason::RemoteError)]);
    assert_eq!(all.belief(A).failures, 1);
    for unit in 2..6 {
        all.ask(1, unit, ask(unit));
    }
    assert!(all.take().is_empty(), "the only core is taken, and the peer is left alone");
    all.tick(2 * SECOND);
    let [(_, attempt, peer)] = offers(&all.take())[..] else { panic!("one, on probation") };
    assert_eq!(peer, A);
    all.ended(3 * SECOND, attempt, End::Done(usage(SECOND)));
    assert_eq!((offers(&all.take()).len(), all.belief(A).failures), (3, 0));
}

#[test]
fn a_unit_that_is_refused_goes_elsewhere_and_then_here() {
    let mut all = dispatcher(0, &[(A, 8), (B, 8)]);
    all.ask(0, 1, Ask { force: true, ..ask(1) });
    let (_, first, one) = offers(&all.take())[0];
    all.ended(0, first, End::Refused(Refusal::Collect));
    let (_, second, other) = offers(&all.take())[0];
    assert_ne!(one, other);
    all.ended(0, second, End::Lost);
    assert_eq!(here(&all.take()), [(1, Reason::PeerLost)]);
}

#[test]
fn for_want_of_a_slot_a_unit_waits_and_is_offered_again() {
    let mut all = dispatcher(0, &[(A, 1)]);
    all.ask(0, 1, Ask { force: true, ..ask(1) });
    let (_, attempt, _) = offers(&all.take())[0];
    all.ended(0, attempt, End::Refused(Refusal::Busy));
    assert!(all.take().is_empty());
    all.load(10, A, load(1));
    assert_eq!(offers(&all.take()).len(), 1, "it says that it has room");
}

#[test]
fn a_late_unit_is_started_again_where_somebody_is_idle_and_the_first_result_ends_both() {
    let mut all = practised(1, &[(A, 1), (B, 1)]);
    let now = 100 * SECOND;
    all.ask(now, 900, Ask { prefer: Some(A), ..ask(1) });
    let (_, first, _) = offers(&all.take())[0];
    all.tick(now + SECOND);
    assert!(all.take().is_empty(), "it is not late");
    all.tick(now + 5 * SECOND);
    let (unit, second, peer) = offers(&all.take())[0];
    assert_eq!((unit, peer), (900, B));
    all.tick(now + 6 * SECOND);
    assert!(all.take().is_empty(), "once is enough");
    all.ended(now + 7 * SECOND, second, End::Done(usage(SECOND)));
    assert_eq!(all.take(), [Do::Cancel { unit: 900, attempt: first }]);
    let counts = all.counts();
    assert_eq!((counts.hedges, counts.hedges_won), (1, 1));
    assert!(counts.wasted_us > SECOND / 2 && all.under_way().next().is_none());
    all.ended(now + 8 * SECOND, first, End::Lost);
    assert_eq!(all.belief(A).failures, 0, "what was cancelled says nothing");
}

#[test]
fn second_starts_waste_no_more_than_their_budget() {
    let mut all = practised(1, &[(A, 40), (B, 40)]);
    let now = 100 * SECOND;
    for unit in 0..30 {
        all.ask(now, 900 + unit, Ask { prefer: Some(A), ..ask(unit + 1) });
    }
    all.take();
    all.tick(now + 5 * SECOND);
    // Sixty seconds have been compiled, a second each: two may be wasted, and two more, less what each is off by.
    assert_eq!(all.take().len(), 3);
}

#[test]
fn nothing_is_started_again_while_units_wait_or_before_there_is_history() {
    let mut all = dispatcher(1, &[(A, 1), (B, 1)]);
    all.ask(0, 1, Ask { prefer: Some(A), ..ask(1) });
    all.take();
    all.tick(500 * SECOND);
    assert!(all.take().is_empty());
}

#[test]
fn a_copy_here_takes_a_slot_of_the_one_ledger() {
    let mut all = practised(1, &[(A, 1)]);
    let now = 100 * SECOND;
    all.ask(now, 900, Ask { prefer: Some(A), ..ask(1) });
    all.ask(now, 901, Ask { local: Some((Reason::Stdin, false)), ..ask(0) });
    let first = offers(&all.take())[0].1;
    all.tick(now + 5 * SECOND);
    assert!(all.take().is_empty(), "the ledger is full");
    all.local_ended(now + 6 * SECOND, 901, true);
    all.tick(now + 6 * SECOND);
    let [Do::CopyHere { unit: 900, attempt }] = all.take()[..] else { panic!("there is room now") };
    assert_eq!(all.running_here(), 1);
    all.ended(now + 7 * SECOND, attempt, End::Done(usage(SECOND)));
    assert_eq!(all.take(), [Do::Cancel { unit: 900, attempt: first }]);
    assert_eq!(all.running_here(), 0);
}

#[test]
fn a_unit_without_memory_goes_where_there_is_more_and_then_here() {
    let mut all = dispatcher(1, &[(A, 8), (B, 8)]);
    all.load(0, B, Load { memory_mib: 400, ..load(8) });
    all.ask(0, 1, Ask { prefer: Some(B), ..ask(1) });
    let (_, attempt, peer) = offers(&all.take())[0];
    assert_eq!(peer, B);
    all.ended(0, attempt, End::Refused(Refusal::Memory));
    let (_, attempt, peer) = offers(&all.take())[0];
    assert_eq!(peer, A);
    all.ended(0, attempt, End::Refused(Refusal::Memory));
    assert_eq!(here(&all.take()), [(1, Reason::RemoteOom)]);
}

#[test]
fn what_must_be_here_waits_for_a_slot_but_not_for_ever() {
    let mut all = dispatcher(1, &[]);
    for unit in 1..4 {
        all.ask(0, unit, Ask { local: Some((Reason::Stdin, false)), ..ask(0) });
    }
    assert_eq!(here(&all.take()), [(1, Reason::Stdin)]);
    all.tick(30 * SECOND);
    assert!(all.take().is_empty());
    all.tick(STALL_US);
    assert_eq!(here(&all.take()), [(2, Reason::Stdin)], "whoever has the slot may never give it back");
    assert_eq!(all.counts().overflows, 1);
    all.gone(STALL_US, 3);
    all.local_ended(STALL_US, 1, true);
    all.local_ended(STALL_US, 2, false);
    assert!(all.take().is_empty() && all.due().is_none() && all.running_here() == 0);
}

#[test]
fn the_alarm_goes_off_when_many_units_come_back() {
    let mut all = dispatcher(64, &[]);
    for unit in 0..LATEST_MAX as u64 {
        assert!(!all.is_alarming());
        all.ask(unit, unit, ask(unit + 1));
        all.local_ended(unit, unit, false);
    }
    assert!(all.is_alarming() && all.counts().fallbacks == LATEST_MAX as u64);
}

#[test]
fn a_machine_whose_wire_costs_more_than_the_work_is_said_to_be_no_help() {
    let mut all = dispatcher(2, &[]);
    all.connected(0, A, SECOND);
    all.lends(0, A, [gcc()]);
    all.load(0, A, load(8));
    for unit in 0..40 {
        assert_eq!(all.is_too_slow(A), unit >= 20, "{unit}");
        all.ask(unit, unit, ask(unit + 1));
        assert_eq!(here(&all.take()), [(unit, Reason::LocalIdle)]);
        all.local_ended(unit, unit, true);
    }
    all.ask(41, 41, Ask { prefer: Some(A), ..ask(41) });
    assert!(!all.is_too_slow(A), "it is used again");
}

#[test]
fn what_this_machine_wants_is_said_in_few_words() {
    let mut all = dispatcher(0, &[(A, 1)]);
    let mut said = Vec::new();
    // One is there and one waits with it.
    for unit in 1..=16 {
        all.ask(0, unit, Ask { force: true, ..ask(0) });
        said.push(all.wants());
    }
    assert_eq!(said, [1, 2, 3, 4, 6, 6, 8, 8, 12, 12, 12, 12, 16, 16, 16, 16]);
}
