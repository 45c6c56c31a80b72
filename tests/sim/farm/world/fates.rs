//! What befalls the machines of the farm, and what they knew before.

use super::*;

/// What befalls a machine.
#[derive(Debug, Clone)]
pub(crate) enum Fate {
    /// Power is lost.
    Dies { machine: usize },
    /// It is back.
    Returns { machine: usize },
    /// From now on it is so fast.
    Speed { machine: usize, speed: f64 },
    /// Its owner lends so much of it.
    Lends { machine: usize, slots: u32, closed: Option<Closed> },
    /// Nothing gets through between a client and a provider.
    Cut { client: usize, provider: usize },
    /// It does again.
    Heal { client: usize, provider: usize },
    /// It has so much memory for jobs.
    Memory { machine: usize, kib: u64 },
    /// It runs short of memory, and gives a job up.
    Short { machine: usize },
    /// Its lid is closed: nothing runs, and nobody hears of it.
    Sleeps { machine: usize },
    /// It goes on where it was.
    Wakes { machine: usize },
    /// A build begins.
    Build { machine: usize },
}

impl Farm {
    pub(super) fn terms(&mut self, at: usize) {
        let now = self.now;
        let machine = &mut self.machines[at];
        let slots = if machine.closed.is_some() { 0 } else { machine.slots };
        let free = machine.memory_kib.saturating_sub(machine.jobs.values().map(|job| job.taken_kib(now)).sum());
        let terms = Terms { slots, closed: machine.closed, memory_free_kib: Some(free), gives_up_one: false };
        machine.intake.terms(now, terms);
        self.checkers.see(now, Seen::Slots { provider: at, slots });
        self.serve(at);
    }

    pub(super) fn befalls(&mut self, fate: Fate) {
        match fate {
            Fate::Dies { machine } => self.die(machine),
            Fate::Returns { machine } => {
                self.machines[machine].up = true;
                self.note("returns", [machine as u64, 0, 0]);
                self.terms(machine);
            }
            Fate::Speed { machine, speed } => {
                self.advance(machine);
                self.machines[machine].cpu.speed = speed;
                self.machines[machine].slowest = speed.min(self.machines[machine].slowest);
                self.next_end(machine);
            }
            Fate::Lends { machine, slots, closed } => {
                (self.machines[machine].slots, self.machines[machine].closed) = (slots, closed);
                self.terms(machine);
            }
            Fate::Sleeps { machine } => {
                self.advance(machine);
                (self.machines[machine].cpu.sleeps, self.machines[machine].slowest) = (true, 0.0);
                self.next_end(machine);
                for client in (0..self.machines.len()).filter(|client| *client != machine) {
                    self.befalls(Fate::Cut { client, provider: machine });
                }
            }
            Fate::Wakes { machine } => {
                self.advance(machine);
                self.machines[machine].cpu.sleeps = false;
                self.next_end(machine);
                for client in (0..self.machines.len()).filter(|client| *client != machine) {
                    let knows = self.machines[client].met.contains(&machine);
                    self.cut.remove(&(client, machine));
                    if knows {
                        self.schedule(SECOND, Event::Meet { client, provider: machine });
                    }
                }
            }
            Fate::Cut { client, provider } => {
                self.cut.insert((client, provider));
                if let Some(epoch) = self.epoch(client, provider) {
                    let wait = self.random.between(IDLE * 7 / 10, IDLE);
                    self.schedule(wait, Event::Missed { client, provider, epoch });
                }
            }
            Fate::Heal { client, provider } => {
                self.cut.remove(&(client, provider));
                self.schedule(SECOND, Event::Meet { client, provider });
            }
            Fate::Memory { machine, kib } => {
                self.machines[machine].memory_kib = kib;
                self.terms(machine);
            }
            Fate::Short { machine } => {
                let now = self.now;
                let (slots, kib) = (self.machines[machine].slots, self.machines[machine].memory_kib);
                let terms = Terms { slots, closed: None, memory_free_kib: Some(kib), gives_up_one: true };
                self.machines[machine].intake.terms(now, terms);
                self.serve(machine);
            }
            Fate::Build { machine } => {
                self.machines[machine].build.began_us = self.now;
                self.feed(machine);
            }
        }
    }

    /// From the beginning it has no more memory than this for jobs, of which its clients know what they need.
    pub(crate) fn has_little_memory(&mut self, at: usize, kib: u64) {
        self.machines[at].memory_kib = kib;
        self.checkers.see(self.now, Seen::Memory { provider: at, kib });
        self.schedule(0, Event::Look { at });
    }

    /// What the dispatcher of a machine has counted.
    pub(crate) fn counts(&self, at: usize) -> mesh::sched::dispatch::Counts {
        self.machines[at].dispatcher.counts()
    }

    /// Power is lost. Whoever built here is not looked at any more; others miss it after a while.
    pub(super) fn die(&mut self, at: usize) {
        self.note("dies", [at as u64, 0, 0]);
        self.advance(at);
        let now = self.now;
        let machine = &mut self.machines[at];
        (machine.up, machine.life) = (false, machine.life + 1);
        machine.cpu.clear();
        machine.intake = Intake::default();
        machine.told.clear();
        machine.warm.clear();
        for job in std::mem::take(&mut machine.jobs).into_keys() {
            self.checkers.see(now, Seen::Stopped { provider: at, job });
        }
        self.next_end(at);
        let clients: Vec<(usize, u32)> =
            self.links.iter().filter(|((_, p), _)| *p == at).map(|((c, _), epoch)| (*c, *epoch)).collect();
        for (client, epoch) in clients {
            let wait = self.random.between(IDLE * 7 / 10, IDLE);
            self.schedule(wait, Event::Missed { client, provider: at, epoch });
        }
        for (client, _) in self
            .machines
            .iter()
            .enumerate()
            .filter(|(_, m)| !m.build.units.is_empty())
            .map(|(c, m)| (c, m.life))
            .collect::<Vec<_>>()
        {
            // It is looked for until it is back.
            for seconds in [20, 40, 80, 160, 320] {
                self.schedule(seconds * SECOND, Event::Meet { client, provider: at });
            }
        }
    }

    /// A client has built its project before, on machines like these.
    pub(crate) fn knows_its_project(&mut self, at: usize) {
        let mut history = History::default();
        for unit in &self.machines[at].build.units {
            let class = Class { cxx: true, optimised: true, debug: true, lto: false };
            let work = Work { key: unit.key, class, input_bytes: unit.input_bytes };
            history.learned(&work, unit.cost_us, unit.peak_kib);
        }
        let mean_us = history.mean_us();
        let units = self.machines[at].build.units.len() as u64;
        self.checkers.see(self.now, Seen::Knows { client: at, units });
        let speed = |speed: f64| {
            let mut known = Speed::usual(speed as f32, mean_us);
            for _ in 0..8 {
                known.observe(mean_us, micros(mean_us as f64 / speed), true, mean_us);
            }
            known
        };
        let of = |(number, machine): (usize, &Machine)| {
            ((number != at).then_some(machine.id), toolchain(), speed(machine.cpu.speed))
        };
        let speeds = self.machines.iter().enumerate().map(of).collect();
        let (seed, here) = (self.random.next(), self.machines[at].cpu.cores);
        let mut dispatcher = Dispatcher::new(Known { history, speeds }, seed);
        dispatcher.here(0, HereState { cores: here, memory_free_kib: Some(64 << 20), copies: true });
        self.machines[at].dispatcher = dispatcher;
    }
}
