//! What a machine of the farm does for others, and its processor.

use super::*;

impl Job {
    /// The memory that its compiler has by now: all of it after five seconds.
    pub(super) fn taken_kib(&self, now: Micros) -> u64 {
        const GROWS: Micros = 5 * SECOND;
        let age = self.started_us.map_or(0, |began| now - began).min(GROWS);
        self.spec.peak_kib * age / GROWS
    }
}

impl Farm {
    pub(super) fn offered(
        &mut self,
        from: usize,
        to: usize,
        epoch: u32,
        attempt: AttemptId,
        unit: usize,
        memory_kib: u64,
    ) {
        let spec = self.machines[from].build.units[unit];
        let client = self.machines[from].id;
        let wait = self.latency(from, to);
        let nature = self.machines[to].nature;
        let machine = &mut self.machines[to];
        let id = machine.next_job;
        machine.next_job += 1;
        if nature == Nature::Silent {
            return;
        }
        if matches!(nature, Nature::Refuses | Nature::Full) {
            let end = End::Refused(if nature == Nature::Full { Refusal::Disk } else { Refusal::Sandbox });
            return self.schedule(wait + 20 * MS, Event::Answer { to: from, from: to, epoch, attempt, end });
        }
        if let Err(refusal) = machine.intake.offer(id, client, Some(Role::Peer), memory_kib) {
            self.note("refused", [from as u64, to as u64, refusal as u64]);
            return self
                .schedule(wait, Event::Answer { to: from, from: to, epoch, attempt, end: End::Refused(refusal) });
        }
        let job = Job { client: from, epoch, attempt, spec, ready_us: None, started_us: None, crowd_percent: 100 };
        machine.jobs.insert(id, job);
        let shared = if machine.warm.insert(from) { spec.input_bytes } else { 0 };
        let bytes = shared + spec.input_bytes * (100 - SHARED_PERCENT) / 100;
        let life = machine.life;
        let fetch = STAGE + 2 * wait + self.wire(from, to, bytes);
        self.schedule(fetch, Event::Fetched { at: to, life, job: id });
        self.changed(to);
    }

    pub(super) fn fetched(&mut self, at: usize, id: JobId) {
        let now = self.now;
        let machine = &mut self.machines[at];
        let Some(job) = machine.jobs.get_mut(&id) else { return };
        job.ready_us = Some(now);
        machine.intake.ready(now, id);
        self.serve(at);
    }

    /// Does what the intake of a machine says.
    pub(super) fn serve(&mut self, at: usize) {
        for act in self.machines[at].intake.take() {
            match act {
                Act::Start(id) => self.start(at, id),
                Act::GiveUp(id, refusal) => {
                    let Some(job) = self.machines[at].jobs.get(&id).copied() else { continue };
                    self.drop_job(at, id);
                    self.answer(at, &job, End::Refused(refusal), 0);
                }
            }
        }
        self.changed(at);
    }

    pub(super) fn start(&mut self, at: usize, id: JobId) {
        let now = self.now;
        let (own, guests) = self.machines[at].cpu.running();
        let cores = self.machines[at].cpu.cores;
        let Some(job) = self.machines[at].jobs.get_mut(&id) else { return };
        job.started_us = Some(now);
        let crowd = ((own + guests + 1) * 100 / cores).max(100);
        job.crowd_percent = u16::try_from(crowd).unwrap_or(u16::MAX);
        let (spec, client) = (job.spec, job.client);
        let waited_us = now - job.ready_us.unwrap_or(now);
        self.note("starts", [at as u64, id, client as u64]);
        let machine = &self.machines[at];
        // Who builds himself, or lends less than he did, makes others wait for longer.
        let promises = machine.nature == Nature::Honest && machine.build.units.is_empty() && machine.slots >= cores;
        let second_us = promises.then(|| micros(SECOND as f64 / machine.slowest));
        let peak_kib = spec.peak_kib;
        self.checkers.see(now, Seen::Started { provider: at, client, job: id, peak_kib, waited_us, second_us });
        self.begin(at, id, spec.cost_us, true);
    }

    pub(super) fn begin(&mut self, at: usize, number: u64, cost_us: u64, gives_way: bool) {
        self.advance(at);
        self.machines[at].cpu.begin(number, cost_us, gives_way);
        self.next_end(at);
    }

    pub(super) fn advance(&mut self, at: usize) {
        let now = self.now;
        self.machines[at].cpu.advance(now);
    }

    pub(super) fn next_end(&mut self, at: usize) {
        self.machines[at].version += 1;
        let version = self.machines[at].version;
        if let Some(next) = self.machines[at].cpu.next_us() {
            self.schedule(next.saturating_sub(self.now), Event::Compiled { at, version });
        }
    }

    pub(super) fn compiled(&mut self, at: usize) {
        self.advance(at);
        let over = self.machines[at].cpu.ended();
        for number in over {
            if number >= COPIES {
                self.copy_ended(at, number - COPIES);
            } else if number >= OWN {
                self.unit_ended(at, number - OWN, true);
            } else {
                self.job_ended(at, number);
            }
        }
        self.next_end(at);
    }

    pub(super) fn job_ended(&mut self, at: usize, id: JobId) {
        let now = self.now;
        let Some(job) = self.machines[at].jobs.remove(&id) else { return };
        self.checkers.see(now, Seen::Stopped { provider: at, job: id });
        self.machines[at].intake.ended(now, id);
        let started = job.started_us.unwrap_or(now);
        let usage = Usage {
            run_us: now - started,
            wait_us: started - job.ready_us.unwrap_or(started),
            peak_kib: job.spec.peak_kib,
            crowd_percent: job.crowd_percent,
            ..Usage::default()
        };
        self.answer(at, &job, End::Done(usage), job.spec.output_bytes);
        self.serve(at);
    }

    pub(super) fn answer(&mut self, at: usize, job: &Job, end: End, bytes: u64) {
        let wait = self.latency(at, job.client) + self.wire(at, job.client, bytes);
        let (to, from, epoch, attempt) = (job.client, at, job.epoch, job.attempt);
        self.schedule(wait, Event::Answer { to, from, epoch, attempt, end });
    }

    pub(super) fn copy_ended(&mut self, at: usize, attempt: AttemptId) {
        let Some((number, began)) = self.machines[at].copies.remove(&attempt) else { return };
        let spec = self.machines[at].build.units[number];
        let usage = Usage { run_us: self.now - began, crowd_percent: 100, peak_kib: spec.peak_kib, ..Usage::default() };
        self.over(at, attempt, number, End::Done(usage));
    }

    /// Takes a job away, however far it is.
    pub(super) fn drop_job(&mut self, at: usize, id: JobId) {
        let now = self.now;
        let Some(job) = self.machines[at].jobs.remove(&id) else { return };
        self.advance(at);
        if let Some(left) = self.machines[at].cpu.stop(id) {
            let cpu_us = job.spec.cost_us.saturating_sub(left);
            self.checkers.see(now, Seen::Wasted { client: job.client, cpu_us });
            self.checkers.see(now, Seen::Stopped { provider: at, job: id });
        }
        self.next_end(at);
        self.machines[at].intake.ended(now, id);
        self.serve(at);
    }

    pub(super) fn cancelled(&mut self, from: usize, to: usize, attempt: AttemptId) {
        let is = |job: &Job| job.client == from && job.attempt == attempt;
        if let Some(id) = self.machines[to].jobs.iter().find(|(_, job)| is(job)).map(|(id, _)| *id) {
            self.drop_job(to, id);
        }
    }
}
