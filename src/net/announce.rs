//! When to announce anew, which interfaces to use, and what is worth remembering of what is heard (DECIDE).

use mesh_proto::advert::Advert;
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

/// Least time between two announcements. Each costs every station of a Wi-Fi network airtime.
const UPDATE_GAP: Duration = Duration::from_secs(10);
/// The same for what a person waits for; the standard allows one a second (RFC 6762, 6).
const URGENT_GAP: Duration = Duration::from_secs(1);
/// Instances of other meshes, or of none, that are remembered.
pub(super) const STRANGERS_MAX: usize = 64;
/// Instances of the own mesh that are remembered.
const KIN_MAX: usize = 1024;
/// Addresses of one instance that are remembered.
pub(super) const INSTANCE_ADDRESSES_MAX: usize = 16;

/// Interfaces that lead to no other machine on the desk: an address on a container's bridge, announced on the LAN,
/// sends peers nowhere, and each of many virtual interfaces would repeat every packet. Names' beginnings.
const VIRTUAL: &[&str] = &[
    "docker",
    "br-",
    "veth",
    "virbr",
    "vmnet",
    "vmenet",
    "bridge1",
    "cni",
    "flannel",
    "lxc",
    "tun",
    "utun",
    "wg",
    "tailscale",
    "zt",
];

/// Whether an interface of this name is left out of discovery.
pub(super) fn is_virtual(interface: &str) -> bool {
    VIRTUAL.iter().any(|prefix| interface.starts_with(prefix))
}

/// A number of free slots as it is announced: 0, or the power of two below it.
fn coarse(free: u16) -> u16 {
    if free == 0 { 0 } else { 1 << free.ilog2() }
}

/// The free slots to announce, when `announced` was last: no change for a slot more or less at a boundary.
fn steady(announced: u16, free: u16) -> u16 {
    let rough = coarse(free);
    let barely_less = rough < announced && u32::from(free) * 4 >= u32::from(announced) * 3;
    if barely_less { announced } else { rough }
}

/// The advert as it would be announced now, and how long to wait with it. None: nothing new.
pub(super) fn update(announced: Option<&Advert>, wanted: &Advert, since: Duration) -> Option<(Advert, Duration)> {
    let Some(last) = announced else {
        return Some((Advert { free: coarse(wanted.free), ..wanted.clone() }, Duration::ZERO));
    };
    let next = Advert { free: steady(last.free, wanted.free), ..wanted.clone() };
    if next == *last {
        return None;
    }
    let urgent = next.pairing != last.pairing || next.mesh != last.mesh;
    let gap = if urgent { URGENT_GAP } else { UPDATE_GAP };
    Some((next, gap.saturating_sub(since)))
}

/// What was heard of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Its name: random, new at each start.
    pub instance: String,
    /// Where it says to be, IPv4 first, with the scope that link-local addresses need.
    pub addrs: Vec<SocketAddr>,
    /// What it says.
    pub advert: Advert,
}

/// The instances that are remembered, bounded: anybody may announce any number.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// By instance; with whether it showed the own mesh's tag.
    known: BTreeMap<String, (Sighting, bool)>,
    dropped: u64,
}

impl Heard {
    /// Takes a sighting. True if it says something new and is to be passed on.
    pub(super) fn see(&mut self, mut sighting: Sighting, kin: bool) -> bool {
        sighting.addrs.sort_by_key(rank);
        sighting.addrs.dedup();
        sighting.addrs.truncate(INSTANCE_ADDRESSES_MAX);
        match self.known.get_mut(&sighting.instance) {
            Some((known, was_kin)) if *known == sighting => {
                *was_kin = kin;
                return false;
            }
            Some(_) => {}
            None => {
                let of_kind = self.known.values().filter(|(_, k)| *k == kin).count();
                if of_kind >= if kin { KIN_MAX } else { STRANGERS_MAX } {
                    self.dropped += 1;
                    return false;
                }
            }
        }
        self.known.insert(sighting.instance.clone(), (sighting, kin));
        true
    }

    /// The sighting of an instance as it is remembered.
    pub(super) fn get(&self, instance: &str) -> Option<&Sighting> {
        self.known.get(instance).map(|(sighting, _)| sighting)
    }

    /// Forgets an instance. True if it was known.
    pub(super) fn forget(&mut self, instance: &str) -> bool {
        self.known.remove(instance).is_some()
    }

    /// How many sightings there was no room for.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// The order in which addresses are tried: IPv4, then IPv6 that needs no scope.
fn rank(addr: &SocketAddr) -> (u8, SocketAddr) {
    let kind = match addr {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(v6) if !v6.ip().is_unicast_link_local() => 1,
        SocketAddr::V6(_) => 2,
    };
    (kind, *addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advert(free: u16, pairing: Option<u16>) -> Advert {
        Advert { slots: 24, free, pairing, ..Advert::default() }
    }

    #[test]
    fn free_cores_are_announced_roughly_and_at_most_every_ten_seconds() {
        let check = |announced: u16, free: u16, since_s: u64, expect: Option<(u16, u64)>| {
            let last = advert(announced, None);
            let got = update(Some(&last), &advert(free, None), Duration::from_secs(since_s));
            let got = got.map(|(next, wait)| (next.free, wait.as_secs()));
            assert_eq!(got, expect, "{announced} announced, {free} free, {since_s} s");
        };
        check(8, 8, 60, None);
        check(8, 15, 60, None);
        check(8, 7, 60, None);
        check(8, 6, 60, None);
        check(8, 5, 60, Some((4, 0)));
        check(8, 5, 3, Some((4, 7)));
        check(4, 7, 60, None);
        check(4, 8, 60, Some((8, 0)));
        check(1, 0, 60, Some((0, 0)));
        check(0, 1, 60, Some((1, 0)));
        check(0, u16::MAX, 60, Some((1 << 15, 0)));
    }

    #[test]
    fn the_first_announcement_is_at_once_and_a_code_is_not_kept_waiting() {
        let first = update(None, &advert(23, None), Duration::ZERO);
        assert_eq!(first, Some((advert(16, None), Duration::ZERO)));
        let shown = update(Some(&advert(16, None)), &advert(16, Some(417)), Duration::from_millis(200));
        assert_eq!(shown, Some((advert(16, Some(417)), Duration::from_millis(800))));
        let more = Advert { slots: 25, ..advert(16, None) };
        let later = update(Some(&advert(16, None)), &more, Duration::from_secs(4));
        assert_eq!(later, Some((more, Duration::from_secs(6))));
    }

    #[test]
    fn interfaces_of_containers_and_tunnels_are_left_out() {
        for name in ["docker0", "br-4f2a", "veth12ab", "virbr0", "utun3", "tailscale0", "cni0", "wg0"] {
            assert!(is_virtual(name), "{name}");
        }
        for name in ["eth0", "enp0s31f6", "wlp2s0", "en0", "br0", "bridge0", "lo"] {
            assert!(!is_virtual(name), "{name}");
        }
    }

    fn sighting(instance: &str, ports: std::ops::Range<u16>) -> Sighting {
        let addrs = ports.map(|port| SocketAddr::from(([10, 0, 0, 1], port))).collect();
        Sighting { instance: instance.into(), addrs, advert: Advert::default() }
    }

    #[test]
    fn a_flood_of_instances_and_addresses_takes_bounded_memory_and_hides_no_member() {
        let mut heard = Heard::default();
        let new = (0..500).filter(|n| heard.see(sighting(&n.to_string(), 0..1), false)).count();
        assert_eq!((new, heard.dropped()), (STRANGERS_MAX, 500 - STRANGERS_MAX as u64));
        assert!(heard.see(sighting("friend", 0..500), true));
        assert_eq!(heard.get("friend").map(|s| s.addrs.len()), Some(INSTANCE_ADDRESSES_MAX));
        assert!(heard.forget("0") && !heard.forget("0"));
        assert!(heard.see(sighting("late", 0..1), false), "one that left makes room");
    }

    #[test]
    fn only_news_is_passed_on() {
        let mut heard = Heard::default();
        assert!(heard.see(sighting("a", 0..2), false));
        assert!(!heard.see(sighting("a", 0..2), false));
        assert!(heard.see(sighting("a", 0..3), false));
    }

    #[test]
    fn addresses_that_work_without_a_scope_come_first() {
        let mut heard = Heard::default();
        let addrs: Vec<SocketAddr> =
            ["[fe80::1%2]:1", "[2001:db8::1]:1", "10.0.0.1:1"].iter().map(|a| a.parse().expect("an address")).collect();
        heard.see(Sighting { addrs: addrs.clone(), ..sighting("a", 0..0) }, false);
        let sorted = heard.get("a").expect("seen").addrs.clone();
        assert_eq!(sorted, addrs.into_iter().rev().collect::<Vec<_>>());
    }
}
