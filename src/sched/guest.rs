//! What this machine lends now: its owner's wish and its own state (DECIDE).

use mesh_proto::message::Closed;

/// What the owner wishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Mode {
    /// Nothing is lent.
    Off,
    /// All but a core, while nobody uses the machine.
    Idle,
    /// What its owner leaves, all the time.
    Share,
    /// Everything.
    Full,
}

impl Mode {
    /// As people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Idle => "idle",
            Self::Share => "share",
            Self::Full => "full",
        }
    }

    /// The mode that people write so.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Off, Self::Idle, Self::Share, Self::Full].into_iter().find(|mode| mode.name() == name)
    }
}

/// On what terms this machine compiles for others now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Compilers that run for others at once; 0 if it is closed.
    pub slots: u32,
    /// Why nothing is lent, if `slots` is 0.
    pub closed: Option<Closed>,
    /// Memory that further jobs may take, beyond what those that run have already, KiB; what is kept free for the owner is
    /// not in it. `None` if the system does not tell.
    pub memory_free_kib: Option<u64>,
    /// So short of memory that the youngest job is to be given up.
    pub gives_up_one: bool,
}

/// How much memory stays the owner's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// So much of all there is.
    Percent(u8),
    /// So much.
    Mib(u32),
}

/// What the owner has settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// What is lent in general.
    pub mode: Mode,
    /// Memory that stays free; the mode's if `None`.
    pub keep_free: Option<Kept>,
    /// Whether [`Mode::Share`] lends a quarter while on a battery that is half full at least.
    pub on_battery: bool,
}

/// What the machine runs on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Power {
    /// A cable, or nobody knows.
    #[default]
    Mains,
    /// A battery, so full in percent.
    Battery(u8),
}

/// What is known of the machine now. What a system does not tell is as if it were well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signals {
    /// Cores that this process may use, quotas counted.
    pub cores: u32,
    /// The most that the settings let be lent.
    pub most: u32,
    /// What others than this agent's jobs use of them, thousandths of a core.
    pub foreign_millicores: u32,
    /// Compilers of the machine's own builds that run now; they are in `foreign_millicores` too.
    pub own_builds: u32,
    /// For how long nobody has typed, seconds.
    pub untouched_s: Option<u64>,
    /// The network is paid by the byte.
    pub metered: bool,
    /// Mains or battery.
    pub power: Power,
    /// The processor is throttled, or about to be.
    pub hot: bool,
    /// No room is left where jobs are staged.
    pub disk_full: bool,
    /// All memory, KiB.
    pub memory_total_kib: Option<u64>,
    /// What programs could still take of it, KiB.
    pub memory_free_kib: Option<u64>,
    /// Share of the last ten seconds in which something waited for memory, hundredths of a percent.
    pub memory_some: u32,
    /// The same, in which everything waited.
    pub memory_full: u32,
    /// Share of the last ten seconds in which something waited for a core, hundredths of a percent.
    pub cpu_some: u32,
}

/// By what the owner is seen to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Active {
    /// A key was pressed lately.
    Typing,
    /// Programs are busy that are no jobs of others.
    Load,
}

/// Nobody has typed for so long: the owner is away.
const AWAY_AFTER_S: u64 = 180;
/// Programs of the owner's that use more than this share of the cores show that the owner is there, percent.
const FOREIGN_PERCENT_MAX: u32 = 20;
/// A machine grows by a slot in this time, milliseconds; it shrinks at once.
const GROW_EVERY_MS: u64 = 2000;
/// Above these nothing more is let in, and above the last the youngest job is given up; hundredths of a percent.
const MEMORY_SOME_MAX: u32 = 1000;
const CPU_SOME_MAX: u32 = 4000;
const MEMORY_FULL_MAX: u32 = 500;
/// Between two jobs that are given up: the kernel's average needs as long to show what came of it, milliseconds.
const GIVE_UP_EVERY_MS: u64 = 5000;
/// A battery less full is not shared, percent.
const BATTERY_PERCENT_MIN: u8 = 50;
/// Automatic pauses are counted for so long, milliseconds.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// What is lent when only this moment counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// Slots.
    pub slots: u32,
    /// Why there are none.
    pub closed: Option<Closed>,
    /// Whether, and by what, the owner is seen to be there.
    pub active: Option<Active>,
}

/// Whether the owner is there.
fn active(signals: &Signals) -> Option<Active> {
    let foreign = signals.foreign_millicores.saturating_sub(signals.own_builds.saturating_mul(1000));
    if signals.untouched_s.is_some_and(|s| s < AWAY_AFTER_S) {
        Some(Active::Typing)
    } else if u64::from(foreign) * 100 > u64::from(signals.cores) * 1000 * u64::from(FOREIGN_PERCENT_MAX) {
        Some(Active::Load)
    } else {
        None
    }
}

/// What is lent at this moment, nothing of what was before counted.
#[must_use]
pub fn wish(policy: &Policy, signals: &Signals) -> Wish {
    let active = active(signals);
    let Signals { cores, own_builds, foreign_millicores, .. } = *signals;
    // What runs here of the machine's own comes first; a compiler that waits for its disk still has its core.
    let taken = foreign_millicores.div_ceil(1000).max(own_builds);
    let left = cores.saturating_sub(taken);
    let all_but_one = cores.saturating_sub(1).max(1);
    let (slots, why) = match (policy.mode, active) {
        (Mode::Off, _) => (0, Closed::Off),
        (Mode::Idle, Some(_)) => (0, Closed::InUse),
        (Mode::Idle, None) if own_builds > 0 => (0, Closed::Busy),
        (Mode::Idle, None) => (left.min(all_but_one), Closed::Busy),
        (Mode::Share, _) if own_builds > 0 => (left, Closed::Busy),
        (Mode::Share, Some(_)) if signals.cpu_some > CPU_SOME_MAX => (0, Closed::Busy),
        (Mode::Share, Some(_)) => ((left / 2).max(1), Closed::InUse),
        (Mode::Share, None) => (left.min(all_but_one).max(1), Closed::Busy),
        (Mode::Full, _) => (signals.most, Closed::Busy),
    };
    let (slots, why) = match (signals.power, policy.mode) {
        (Power::Mains, _) | (_, Mode::Off) => (slots, why),
        (Power::Battery(_), Mode::Full) => ((slots / 2).max(1), why),
        (Power::Battery(percent), Mode::Share) if policy.on_battery && percent >= BATTERY_PERCENT_MIN => {
            (slots.min((cores / 4).max(1)), why)
        }
        (Power::Battery(_), _) => (0, Closed::Battery),
    };
    let (slots, why) = match slots {
        0 => (0, why),
        _ if signals.metered && policy.mode != Mode::Full => (0, Closed::Metered),
        _ if signals.disk_full => (0, Closed::Disk),
        _ if signals.memory_some > MEMORY_SOME_MAX => (0, Closed::Memory),
        some if signals.hot => (some / 2, Closed::Hot),
        some => (some, why),
    };
    let slots = slots.min(signals.most);
    Wish { slots, closed: (slots == 0).then_some(why), active }
}

/// Memory that further jobs may take, KiB. A machine that is smaller than the least that a mode keeps lends half.
fn memory_free(policy: &Policy, signals: &Signals) -> Option<u64> {
    const GIB: u64 = 1 << 20;
    let (free, total) = (signals.memory_free_kib?, signals.memory_total_kib?);
    let percent = |percent: u8| total / 100 * u64::from(percent.min(100));
    let kept = match (policy.keep_free, policy.mode) {
        (Some(Kept::Percent(share)), _) => percent(share),
        (Some(Kept::Mib(mib)), _) => u64::from(mib) << 10,
        (None, Mode::Idle | Mode::Off) => percent(25).max(4 * GIB).min(total / 2),
        (None, Mode::Share) => percent(15).max(2 * GIB).min(total / 2),
        (None, Mode::Full) => percent(5).max(GIB).min(total / 2),
    };
    Some(free.saturating_sub(kept))
}

/// What is remembered from one moment to the next.
#[derive(Debug, Clone, Default)]
pub struct Guest {
    /// Slots lent, and since when so many; nothing before the first look.
    slots: Option<(u32, u64)>,
    gave_up_ms: Option<u64>,
    /// Until when it is paused; `u64::MAX` for good.
    paused_until_ms: Option<u64>,
    /// What it last wished.
    last: Option<Wish>,
    /// Automatic pauses since this moment.
    day_ms: u64,
    pauses: u32,
    why: Option<Closed>,
}

impl Guest {
    /// The owner pauses it until then; by the same clock as [`Guest::look`].
    pub fn pause(&mut self, until_ms: u64) {
        self.paused_until_ms = Some(until_ms);
    }

    /// The owner ends the pause, or has chosen another mode: what is lent need not grow slowly.
    pub fn renew(&mut self) {
        self.paused_until_ms = None;
        self.slots = None;
    }

    /// Until when it is paused.
    #[must_use]
    pub fn paused_until_ms(&self) -> Option<u64> {
        self.paused_until_ms
    }

    /// What it last wished for itself; nothing before the first look.
    #[must_use]
    pub fn last(&self) -> Option<Wish> {
        self.last
    }

    /// How often it closed by itself today, and why the last time.
    #[must_use]
    pub fn pauses(&self) -> Option<(u32, Closed)> {
        self.why.filter(|_| self.pauses > 0).map(|why| (self.pauses, why))
    }

    /// What is lent from now on.
    pub fn look(&mut self, now_ms: u64, policy: &Policy, signals: &Signals) -> Terms {
        if self.paused_until_ms.is_some_and(|until| until <= now_ms) {
            self.renew();
        }
        let mut wish = wish(policy, signals);
        if self.paused_until_ms.is_some() {
            wish = Wish { slots: 0, closed: Some(Closed::Paused), ..wish };
        }
        self.count(now_ms, &wish);
        let (slots, since) = match self.slots {
            None => (wish.slots, now_ms),
            Some((had, _)) if wish.slots <= had => (wish.slots, now_ms),
            Some((had, since)) => {
                let steps = now_ms.saturating_sub(since) / GROW_EVERY_MS;
                // Looked at late, it has not earned more than one: what there was in between is not known.
                (had + u32::from(steps > 0), if steps > 0 { now_ms } else { since })
            }
        };
        self.slots = Some((slots, since));
        self.last = Some(wish);
        let due = self.gave_up_ms.is_none_or(|at| now_ms.saturating_sub(at) >= GIVE_UP_EVERY_MS);
        let gives_up_one = signals.memory_full > MEMORY_FULL_MAX && due;
        if gives_up_one {
            self.gave_up_ms = Some(now_ms);
        }
        let closed = (slots == 0).then_some(wish.closed.or(self.why).unwrap_or(Closed::Busy));
        Terms { slots, closed, memory_free_kib: memory_free(policy, signals), gives_up_one }
    }

    /// Counts the times that it closed without being told to.
    fn count(&mut self, now_ms: u64, wish: &Wish) {
        if now_ms.saturating_sub(self.day_ms) >= DAY_MS {
            (self.day_ms, self.pauses) = (now_ms, 0);
        }
        let told = |closed| matches!(closed, Closed::Off | Closed::Paused);
        let was_open = self.last.is_some_and(|last| last.closed.is_none());
        if let Some(why) = wish.closed.filter(|why| was_open && !told(*why)) {
            self.pauses = self.pauses.saturating_add(1);
            self.why = Some(why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Eight cores on mains, nobody there.
    fn calm() -> Signals {
        let (total, free) = (Some(32 << 20), Some(24 << 20));
        Signals { cores: 8, most: 8, memory_total_kib: total, memory_free_kib: free, ..Signals::default() }
    }

    fn policy(mode: Mode) -> Policy {
        Policy { mode, keep_free: None, on_battery: false }
    }

    fn lent(mode: Mode, signals: Signals) -> (u32, Option<Closed>) {
        let wish = wish(&policy(mode), &signals);
        (wish.slots, wish.closed)
    }

    #[test]
    fn each_mode_lends_in_each_state_what_its_preset_says() {
        let typing = Signals { untouched_s: Some(5), ..calm() };
        let loaded = Signals { foreign_millicores: 3000, ..calm() };
        let building = Signals { own_builds: 3, foreign_millicores: 2900, ..calm() };
        let battery = Signals { power: Power::Battery(80), ..calm() };
        let hot = Signals { hot: true, ..calm() };
        let full_disk = Signals { disk_full: true, ..calm() };
        let starved = Signals { memory_some: 1001, ..calm() };
        let metered = Signals { metered: true, ..calm() };
        let states = [calm(), typing, loaded, building, battery, hot, full_disk, starved, metered];
        let of = |mode| states.map(|signals| lent(mode, signals));
        let (open, shut) = (|slots| (slots, None), |why| (0, Some(why)));
        use Closed::{Battery, Busy, Disk, InUse, Memory, Metered, Off};
        assert_eq!(of(Mode::Off), [shut(Off); 9]);
        let (disk, memory, metered) = (shut(Disk), shut(Memory), shut(Metered));
        assert_eq!(
            of(Mode::Idle),
            [open(7), shut(InUse), shut(InUse), shut(Busy), shut(Battery), open(3), disk, memory, metered]
        );
        assert_eq!(
            of(Mode::Share),
            [open(7), open(4), open(2), open(5), shut(Battery), open(3), disk, memory, metered]
        );
        assert_eq!(of(Mode::Full), [open(8), open(8), open(8), open(8), open(4), open(4), disk, memory, open(8)]);
    }

    #[test]
    fn a_battery_is_shared_only_if_its_owner_said_so_and_it_is_half_full() {
        let on = |percent, on_battery| {
            let signals = Signals { power: Power::Battery(percent), ..calm() };
            wish(&Policy { on_battery, ..policy(Mode::Share) }, &signals).slots
        };
        assert_eq!([on(90, false), on(90, true), on(50, true), on(49, true)], [0, 2, 2, 0]);
    }

    #[test]
    fn a_key_pressed_three_minutes_ago_or_a_fifth_of_the_cores_in_use_is_nobody() {
        let after = |s| lent(Mode::Idle, Signals { untouched_s: Some(s), ..calm() }).0;
        assert_eq!([after(179), after(180)], [0, 7]);
        let used = |m| lent(Mode::Idle, Signals { foreign_millicores: m, ..calm() }).0;
        assert_eq!([used(1600), used(1601)], [6, 0]);
    }

    #[test]
    fn what_is_kept_free_is_the_modes_unless_the_owner_said_how_much() {
        let free = |mode, keep_free, total: u64, free: u64| {
            let signals = Signals { memory_total_kib: Some(total << 20), memory_free_kib: Some(free << 20), ..calm() };
            memory_free(&Policy { keep_free, ..policy(mode) }, &signals).map(|kib| kib >> 20)
        };
        assert_eq!(free(Mode::Idle, None, 32, 24), Some(16));
        assert_eq!(free(Mode::Share, None, 8, 7), Some(5));
        assert_eq!(free(Mode::Full, None, 8, 7), Some(6));
        assert_eq!(free(Mode::Share, None, 2, 2), Some(1), "a machine of two lends one");
        assert_eq!(free(Mode::Share, Some(Kept::Percent(50)), 32, 24), Some(8));
        assert_eq!(free(Mode::Share, Some(Kept::Mib(4096)), 32, 24), Some(20));
        assert_eq!(free(Mode::Share, None, 32, 1), Some(0));
    }

    #[test]
    fn a_pause_ends_by_itself_or_when_it_is_told_to() {
        let (mut guest, policy, calm) = (Guest::default(), policy(Mode::Share), calm());
        let at = |guest: &mut Guest, now| {
            let terms = guest.look(now, &policy, &calm);
            (terms.slots, terms.closed)
        };
        assert_eq!(at(&mut guest, 0), (7, None));
        guest.pause(1000);
        assert_eq!(at(&mut guest, 10), (0, Some(Closed::Paused)));
        assert_eq!(at(&mut guest, 999), (0, Some(Closed::Paused)));
        assert_eq!(at(&mut guest, 1000), (7, None), "at once: nobody came back who was away");
        guest.pause(u64::MAX);
        assert_eq!(at(&mut guest, 1_000_000), (0, Some(Closed::Paused)));
        guest.renew();
        assert_eq!(at(&mut guest, 1_000_001), (7, None));
        assert_eq!(guest.pauses(), None, "what the owner does is no automatic pause");
    }

    #[test]
    fn pauses_of_its_own_are_counted_with_their_reason_for_a_day() {
        let (mut guest, policy) = (Guest::default(), policy(Mode::Idle));
        let typing = Signals { untouched_s: Some(1), ..calm() };
        for now in [0, 10_000, 20_000] {
            guest.look(now, &policy, &calm());
            guest.look(now + 1, &policy, &typing);
            guest.look(now + 2, &policy, &typing);
        }
        assert_eq!(guest.pauses(), Some((3, Closed::InUse)));
        guest.look(DAY_MS, &policy, &typing);
        assert_eq!(guest.pauses(), None);
    }

    #[test]
    fn one_job_is_given_up_and_then_the_kernel_has_time_to_show_what_it_helped() {
        let (mut guest, policy) = (Guest::default(), policy(Mode::Full));
        let starved = Signals { memory_full: 501, ..calm() };
        let gave_up = [0, 250, 4999, 5000, 5001].map(|now| guest.look(now, &policy, &starved).gives_up_one);
        assert_eq!(gave_up, [true, false, false, true, false]);
        assert!(!guest.look(20_000, &policy, &calm()).gives_up_one);
    }

    fn any_signals() -> impl Strategy<Value = Signals> {
        let load = (1u32..65, 0u32..80, 0u32..70_000, 0u32..70, prop::option::of(0u64..400));
        let health = (prop::option::of(0u8..=100), any::<bool>(), any::<bool>(), 0u32..2000, 0u32..1000, 0u32..9000);
        (load, health).prop_map(
            |((cores, most, foreign, own_builds, untouched_s), (battery, hot, disk, some, full, cpu))| Signals {
                cores,
                most,
                foreign_millicores: foreign.min(cores * 1000),
                own_builds,
                untouched_s,
                power: battery.map_or(Power::Mains, Power::Battery),
                hot,
                disk_full: disk,
                memory_some: some,
                memory_full: full,
                cpu_some: cpu,
                ..calm()
            },
        )
    }

    fn any_mode() -> impl Strategy<Value = Mode> {
        prop::sample::select(vec![Mode::Off, Mode::Idle, Mode::Share, Mode::Full])
    }

    proptest! {
        #[test]
        fn never_more_than_allowed_shrinks_at_once_and_grows_no_faster_than_said(
            mode in any_mode(),
            on_battery in any::<bool>(),
            looks in prop::collection::vec((any_signals(), 0u64..3000), 1..40),
        ) {
            let policy = Policy { on_battery, ..policy(mode) };
            let (mut guest, mut now) = (Guest::default(), 0);
            let (mut had, mut grew) = (None, 0);
            for (signals, wait) in looks {
                now += wait;
                let terms = guest.look(now, &policy, &signals);
                let wish = wish(&policy, &signals);
                prop_assert!(terms.slots <= signals.most && terms.slots <= wish.slots);
                prop_assert!(mode == Mode::Full || terms.slots <= signals.cores);
                prop_assert!(mode != Mode::Off || terms.slots == 0);
                prop_assert_eq!(terms.closed.is_some(), terms.slots == 0);
                if let Some(had) = had.filter(|had| terms.slots > *had) {
                    prop_assert!(terms.slots == had + 1 && now - grew >= GROW_EVERY_MS);
                }
                if had != Some(terms.slots) {
                    grew = now;
                }
                had = Some(terms.slots);
            }
        }
    }
}
