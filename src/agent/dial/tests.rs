//! The order of dialling, its pauses and bounds, and which of two connections is kept (DECIDE).

use super::*;

fn id(n: u8) -> PeerId {
    PeerId([n; 32])
}

fn addr(n: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], n))
}

#[test]
fn an_address_is_dialled_once_at_a_time_and_failures_pause_it() {
    let mut d = Dialer::new(id(1));
    d.heard(addr(1), None, false, 0);
    assert_eq!(d.due(0), vec![(addr(1), None)]);
    assert_eq!(d.due(0), vec![]);
    d.failed(addr(1), 0);
    assert_eq!(d.due(PAUSE_MS_MIN * 3 / 4 - 1), vec![]);
    assert!(d.next_due_ms().is_some_and(|at| (PAUSE_MS_MIN * 3 / 4..=PAUSE_MS_MIN).contains(&at)));
    assert_eq!(d.due(PAUSE_MS_MIN).len(), 1);
    for _ in 0..100 {
        d.failed(addr(1), 0);
    }
    assert!(d.next_due_ms().is_some_and(|at| (PAUSE_MS_MAX * 3 / 4..=PAUSE_MS_MAX).contains(&at)));
    d.heard(addr(1), None, false, 7);
    assert_eq!(d.due(7).len(), 1, "hearing of it again ends the pause");
}

#[test]
fn both_sides_keep_the_same_of_two_connections() {
    // 1 and 2 dial each other at once; each sees both connections, in either order.
    for first_is_mine in [true, false] {
        let (mut one, mut two) = (Dialer::new(id(1)), Dialer::new(id(2)));
        one.heard(addr(2), None, false, 0);
        two.heard(addr(1), None, false, 0);
        let survivor = |d: &mut Dialer, me: u8, peer: u8| {
            let mut alive = std::collections::BTreeSet::new();
            // Link n was opened by machine n.
            let order = if first_is_mine { [me, peer] } else { [peer, me] };
            for opener in order {
                let dialled = (opener == me).then(|| addr(u16::from(peer)));
                match d.connected(id(peer), u64::from(opener), dialled, 0) {
                    Keep::New => drop(alive.insert(opener)),
                    Keep::Replaces(old) => {
                        alive.retain(|l| u64::from(*l) != old);
                        alive.insert(opener);
                    }
                    Keep::Old => {}
                }
            }
            alive
        };
        let kept = survivor(&mut one, 1, 2);
        assert_eq!(kept, survivor(&mut two, 2, 1));
        assert_eq!(kept.into_iter().collect::<Vec<_>>(), vec![1]);
    }
}

#[test]
fn a_connected_peers_addresses_rest_until_it_is_lost() {
    let mut d = Dialer::new(id(1));
    d.heard(addr(2), Some(id(2)), false, 0);
    d.heard(addr(3), Some(id(2)), false, 0);
    assert_eq!(d.due(0).len(), 1);
    assert_eq!(d.next_due_ms(), Some(STAGGER_MS));
    assert_eq!(d.due(STAGGER_MS).len(), 1);
    assert_eq!(d.connected(id(2), 9, Some(addr(2)), 0), Keep::New);
    d.failed(addr(3), 0);
    assert_eq!(d.due(1_000_000), vec![]);
    assert_eq!(d.next_due_ms(), None);
    d.lost(id(2), 8, STEADY_MS);
    assert_eq!(d.due(1_000_000), vec![], "another link of it was lost");
    d.lost(id(2), 9, STEADY_MS);
    let again = STEADY_MS + PAUSE_MS_MIN / 5;
    assert_eq!((d.due(again).len(), d.due(again + STAGGER_MS).len()), (1, 1));
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// The order in which the addresses of one machine are dialled if none answers.
fn order(d: &mut Dialer) -> Vec<SocketAddr> {
    let mut out = Vec::new();
    for step in 0..40 {
        for (addr, _) in d.due(step * STAGGER_MS) {
            out.push(addr);
            // Never due again within this test.
            d.failed(addr, 1_000_000);
        }
    }
    out
}

#[test]
fn the_order_of_dialling_is_where_it_was_last_then_what_is_near() {
    let all = ["203.0.113.9:6374", "100.64.0.9:6374", "[fe80::9%3]:6374", "192.168.1.9:6374", "[fd00::9]:6374"];
    let fresh = ["192.168.1.9:6374", "[fd00::9]:6374", "[fe80::9%3]:6374", "100.64.0.9:6374", "203.0.113.9:6374"];
    // What an earlier run wrote, the best first, and the order that follows.
    let table: &[(&[&str], &[&str])] = &[
        (&[], &fresh),
        (&["100.64.0.9:6374"], &["100.64.0.9:6374", fresh[0], fresh[1], fresh[2], fresh[4]]),
        (&["203.0.113.9:6374", "[fe80::9%3]:6374"], &[fresh[4], fresh[2], fresh[0], fresh[1], fresh[3]]),
    ];
    for (book, want) in table {
        let mut d = Dialer::new(id(1));
        d.remembered(book.iter().map(|a| (at(a), Some(id(2)))));
        all.iter().for_each(|a| d.heard(at(a), Some(id(2)), false, 0));
        assert_eq!(order(&mut d), want.iter().map(|a| at(a)).collect::<Vec<_>>(), "{book:?}");
    }
}

#[test]
fn link_local_addresses_differ_by_their_scopes_and_keep_them_in_the_book() {
    let mut d = Dialer::new(id(1));
    d.observed(at("[fe80::9%3]:6374"), id(2), 0);
    d.observed(at("[fe80::9%4]:6374"), id(3), 0);
    let kept: Vec<_> = d.book().map(|(a, p, _)| (a, p)).collect();
    assert_eq!(kept, [(at("[fe80::9%4]:6374"), Some(id(3))), (at("[fe80::9%3]:6374"), Some(id(2)))]);
    let SocketAddr::V6(first) = kept[0].0 else { panic!("an address of the sixth version") };
    assert_eq!(first.scope_id(), 4);
}

#[test]
fn the_book_of_one_run_is_the_order_of_the_next() {
    let mut d = Dialer::new(id(1));
    for n in [5, 3, 4] {
        d.observed(addr(n), id(2), 0);
    }
    let book: Vec<_> = d.book().map(|(a, p, _)| (a, p)).collect();
    let mut next = Dialer::new(id(1));
    next.remembered(book.clone().into_iter());
    assert_eq!(order(&mut next), [addr(4), addr(3), addr(5)]);
    assert_eq!(next.book().map(|(a, p, _)| (a, p)).collect::<Vec<_>>(), book);
}

#[test]
fn members_are_told_where_others_were_proved_to_be_and_nothing_else() {
    let mut d = Dialer::new(id(1));
    let near = at("192.168.1.4:6374");
    d.heard(at("192.168.1.3:6374"), Some(id(3)), false, 0);
    for told in ["192.168.1.4:6374", "127.0.0.1:7", "[fe80::9%3]:6374", "169.254.1.1:6374", "203.0.113.9:6374"] {
        d.observed(at(told), id(4), 0);
    }
    let tell = |d: &Dialer, peer, to: &str| d.tell(id(peer), at(to), 32);
    assert_eq!(tell(&d, 2, "192.168.1.2:6374"), [near], "heard of is not proved; the others mean nothing there");
    assert_eq!(tell(&d, 2, "127.0.0.1:8"), [at("127.0.0.1:7"), near]);
    assert_eq!(tell(&d, 4, "192.168.1.2:6374"), [], "its own");
    d.heard(at("203.0.113.9:6374"), None, true, 0);
    assert_eq!(tell(&d, 2, "192.168.1.2:6374").len(), 2, "the user named it");
    assert_eq!(d.tell(id(2), at("192.168.1.2:6374"), 1).len(), 1);
    d.failed(near, 0);
    assert!(!tell(&d, 2, "192.168.1.2:6374").contains(&near), "nobody is there any more");
}

#[test]
fn what_a_member_says_ends_no_pause_and_names_nobody() {
    let mut d = Dialer::new(id(1));
    d.told(addr(2), 0);
    assert_eq!(d.due(0), [(addr(2), None)]);
    d.failed(addr(2), 0);
    d.told(addr(2), 1);
    assert_eq!(d.due(1), []);
    for nonsense in ["0.0.0.0:1", "224.0.0.251:5353", "255.255.255.255:9", "[ff02::fb]:5353", "10.0.0.1:0"] {
        d.told(at(nonsense), 1);
    }
    assert_eq!(d.book().count(), 1);
}

#[test]
fn an_address_where_another_one_answered_is_penalised_and_still_the_users() {
    let mut d = Dialer::new(id(1));
    d.heard(addr(2), Some(id(2)), true, 0);
    d.heard(addr(3), Some(id(2)), false, 0);
    assert_eq!(d.due(0), [(addr(2), Some(id(2)))]);
    d.answered_by_another(addr(2), 0);
    assert_eq!(d.due(STAGGER_MS), [(addr(3), Some(id(2)))], "the other address is tried");
    assert_eq!(d.due(PAUSE_MS_MIN), [(addr(2), None)], "and this one later, for anybody");
    assert!(d.book().any(|(a, _, fixed)| a == addr(2) && fixed));
}

#[test]
fn one_machine_cannot_fill_the_book() {
    let mut d = Dialer::new(id(1));
    d.observed(addr(1), id(2), 0);
    d.heard(addr(9999), Some(id(3)), false, 0);
    (2..500).for_each(|n| d.heard(addr(n), Some(id(2)), false, 0));
    assert_eq!(d.addresses(id(2)).count(), TARGETS_OF_ONE_MAX);
    assert!(d.addresses(id(2)).any(|a| a == addr(1)), "where it was proved to be stays");
    assert_eq!(d.addresses(id(3)).count(), 1);
}

#[test]
fn machines_that_fail_together_do_not_return_together() {
    let again: std::collections::BTreeSet<_> = (0..32)
        .map(|n| {
            let mut d = Dialer::new(id(n));
            d.heard(addr(1), None, false, 0);
            (0..8).for_each(|_| d.failed(addr(1), 0));
            d.next_due_ms()
        })
        .collect();
    assert!(again.len() > 24, "{again:?}");
}

proptest::proptest! {
    #[test]
    fn whatever_happens_the_bounds_hold_and_time_alone_brings_the_next_dial(
        steps in proptest::collection::vec((0_u8..7, 1_u16..80, 1_u8..6, 0_u64..2_000), 1..200),
    ) {
        let mut d = Dialer::new(id(1));
        let mut now = 0;
        for (what, port, peer, pause) in steps {
            now += pause;
            match what {
                0 => d.heard(addr(port), Some(id(peer)), port % 7 == 0, now),
                1 => d.told(addr(port), now),
                2 => d.observed(addr(port), id(peer), now),
                3 => drop(d.connected(id(peer), u64::from(port), Some(addr(port)), now)),
                4 => d.lost(id(peer), u64::from(port), now),
                5 => d.answered_by_another(addr(port), now),
                _ => d.failed(addr(port), now),
            }
            let next = d.next_due_ms();
            let due = d.due(now);
            proptest::prop_assert_eq!(next.is_some_and(|at| at <= now), !due.is_empty());
            proptest::prop_assert!(d.targets.values().filter(|t| t.dialling).count() <= DIALS_MAX);
            for (addr, peer) in due {
                let Some(peer) = peer else { continue };
                proptest::prop_assert!(!d.live.contains_key(&peer) && peer != id(1), "{} is connected", addr);
            }
        }
    }
}

#[test]
fn the_addresses_of_one_machine_are_dialled_one_after_the_other() {
    let mut d = Dialer::new(id(1));
    d.heard_together(&[addr(2), addr(3)], 7, 0);
    assert_eq!(d.due(0).len(), 1);
    assert_eq!(d.due(0), vec![]);
    d.failed(addr(2), 0);
    assert_eq!(d.due(0), vec![(addr(3), None)]);
    assert!(d.proved(addr(3), id(2)));
    d.connected(id(2), 1, Some(addr(3)), 0);
    assert_eq!(d.due(1_000_000), vec![], "the other address leads to the same machine");
}

#[test]
fn an_address_of_a_machine_that_is_connected_otherwise_is_dialled_no_more() {
    let mut d = Dialer::new(id(1));
    d.connected(id(2), 1, None, 0);
    d.heard(addr(2), None, false, 0);
    assert_eq!(d.due(0).len(), 1);
    assert!(!d.proved(addr(2), id(2)));
    d.ended_early(addr(2), 0);
    assert_eq!(d.due(1_000_000), vec![]);
}

#[test]
fn of_two_dials_to_one_machine_only_the_first_greets() {
    let mut d = Dialer::new(id(1));
    d.heard(addr(2), None, false, 0);
    d.heard(addr(3), None, false, 0);
    assert_eq!(d.due(0).len(), 2);
    assert!(d.proved(addr(3), id(2)));
    assert!(!d.proved(addr(2), id(2)), "one greeting is under way");
    d.ended_early(addr(2), 0);
    d.ended_early(addr(3), 0);
    assert_eq!((d.due(PAUSE_MS_MIN).len(), d.due(PAUSE_MS_MIN + STAGGER_MS).len()), (1, 1));
    assert!(d.proved(addr(2), id(2)), "that greeting came to nothing");
}

#[test]
fn a_machine_that_was_restarted_replaces_its_old_connection_at_once() {
    let (mut at_once, mut later) = (Dialer::new(id(1)), Dialer::new(id(1)));
    for d in [&mut at_once, &mut later] {
        d.heard(addr(2), None, false, 0);
        assert_eq!(d.connected(id(2), 7, Some(addr(2)), 0), Keep::New);
    }
    assert_eq!(at_once.connected(id(2), 8, None, AT_ONCE_MS - 1), Keep::Old);
    assert_eq!(later.connected(id(2), 8, None, AT_ONCE_MS), Keep::Replaces(7));
}

#[test]
fn a_connection_that_is_closed_again_and_again_is_not_dialled_in_a_storm() {
    let mut d = Dialer::new(id(2));
    d.heard(addr(1), None, false, 0);
    let (mut now, mut dials) = (0, 0);
    while now < 10_000 {
        for (addr, _) in d.due(now) {
            dials += 1;
            assert!(d.proved(addr, id(1)));
            d.connected(id(1), dials, Some(addr), now);
            d.lost(id(1), dials, now);
        }
        now += 10;
    }
    assert!((2..=6).contains(&dials), "{dials} dials in ten seconds");
}

#[test]
fn this_machines_own_address_is_not_dialled_again() {
    let mut d = Dialer::new(id(1));
    d.heard(addr(2), Some(id(1)), false, 0);
    assert_eq!(d.due(0), vec![]);
}
