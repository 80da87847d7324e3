//! What goes wrong, and what people do meanwhile.

use vocabulary::job::{AttemptId, ExitReason, Placement};
use vocabulary::plan::{AttemptReport, Desired, NodeFacts};
use vocabulary::{EntryId, JobId, NodeId, PrincipalId, ProjectId};

use super::super::{JobRow, tests};
use super::machine::{Malice, lie};
use super::world::{Event, OFFSET_MS, Violation, World, tenant};

const LEASES_MS: [u64; 4] = [30_000, 45_000, 60_000, 120_000];

impl World<'_> {
    /// Somebody submits a job.
    pub(super) fn submit(&mut self) {
        let number = u8::try_from(self.control.jobs.len() + 1).unwrap_or(u8::MAX);
        let random = &mut self.random;
        let mut spec = tests::spec();
        spec.limits.cpu_millis = random.between(1, 5) * 500;
        spec.limits.memory_bytes = random.between(1, 4) << 29;
        spec.run_lease_ms = random.pick(&LEASES_MS).copied().unwrap_or(30_000);
        spec.restarts = u32::try_from(random.below(4)).unwrap_or(0);
        if random.one_in(5) {
            spec.placement = Placement::OwnNode;
        }
        if random.one_in(4) {
            spec.region = "eu-west".parse().ok();
        }
        let job = JobRow {
            format: 1,
            id: JobId::from_bytes([number; 16]),
            tenant: tenant(random.below(2)),
            project: ProjectId::from_bytes([2; 16]),
            owner: PrincipalId::from_bytes([3; 16]),
            created: self.control.now(self.now),
            spec,
            policy_epoch: 1,
            submitted_entry: EntryId::from_bytes([5; 16]),
            desired: Desired::Run,
            attempts: Vec::new(),
            exit: None,
            receipt: None,
        };
        self.tally.jobs += 1;
        self.control.jobs.insert(job.id, job);
        self.control.changed();
    }

    /// Something goes wrong, or somebody does something; later, something else.
    pub(super) fn trouble(&mut self) {
        if self.quiet() {
            return self.calm();
        }
        let next = self.random.between(1_500, 12_000).min(self.quiet_from.saturating_sub(self.now).max(1));
        self.after(next, Event::Trouble);
        let nodes: Vec<NodeId> = self.machines.values().filter(|machine| !machine.gone).map(|machine| machine.id).collect();
        let Some(node) = self.random.pick(&nodes).copied() else { return };
        let now = self.control.now(self.now);
        match self.random.below(16) {
            0 | 1 => self.agent_dies(node, 60_000),
            2 => self.reboots(node),
            3 => {
                let until = self.now.saturating_add(self.random.between(5_000, 180_000));
                self.machines.entry(node).and_modify(|machine| machine.cut_until = until);
            }
            4 => {
                let until = self.now.saturating_add(self.random.between(1_000, 90_000));
                self.machines.entry(node).and_modify(|machine| machine.frozen_until = until);
            }
            5 | 6 => self.control_dies(),
            7 | 13 | 14 => {
                let deadline = self.random.one_in(2).then(|| now.plus_millis(self.random.below(60_000)));
                self.control.change_node(node, |row| (row.draining, row.drain_until) = (true, deadline));
            }
            8 | 9 => self.control.change_node(node, |row| (row.draining, row.drain_until) = (false, None)),
            10 => {
                let dedicated = self.random.one_in(2).then(|| tenant(self.random.below(2)));
                self.control.change_node(node, |row| row.dedicated = dedicated);
            }
            11 => self.is_lost_for_good(node),
            12 => {
                let jobs: Vec<JobId> = self.control.jobs.keys().copied().collect();
                if let Some(job) = self.random.pick(&jobs)
                    && let Some(row) = self.control.jobs.get_mut(job)
                {
                    row.cancel(now);
                    self.control.changed();
                }
            }
            _ => {
                if let Some(plan) = self.random.pick(&self.old_plans).cloned() {
                    self.send(plan.node, |node| Event::Plan { node, plan: plan.clone() });
                }
            }
        }
    }

    fn agent_dies(&mut self, node: NodeId, longest: u64) {
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.forget();
        }
        let span = self.random.between(500, longest);
        self.after(span, Event::AgentStarts { node });
    }

    /// Everything on the machine dies.
    fn reboots(&mut self, node: NodeId) {
        for one in self.sandboxes.iter_mut().filter(|one| one.node == node) {
            one.over.get_or_insert(ExitReason::Reboot);
        }
        self.agent_dies(node, 120_000);
    }

    /// The machine's disk is gone, and with it the node; sometimes its programs run on until their deadline, with nobody to
    /// speak for them. The machine joins anew, as another node.
    fn is_lost_for_good(&mut self, node: NodeId) {
        let left = self.machines.values().filter(|machine| !machine.gone).count();
        if left < 3 || self.machines.len() > 9 {
            return;
        }
        if self.random.one_in(2) {
            self.reboots(node);
        }
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.forget();
            machine.gone = true;
            machine.attempts.clear();
        }
        self.join();
    }

    fn control_dies(&mut self) {
        self.tally.control_deaths += 1;
        self.control.die();
        let span = self.random.between(200, 40_000);
        self.after(span, Event::ControlStarts);
    }

    pub(super) fn lies(&mut self, node: NodeId, malice: Malice, facts: &mut NodeFacts, attempts: &mut Vec<AttemptReport>) {
        self.tally.lies += 1;
        let random = &mut self.random;
        let all: Vec<AttemptId> = self.control.jobs.values().flat_map(|job| job.attempts.iter().map(|attempt| attempt.report.attempt)).collect();
        if malice.past
            && let Some(said) = self.machines.get(&node).and_then(|machine| random.pick(&machine.said))
        {
            attempts.clone_from(said);
        }
        if malice.premature {
            for said in attempts.iter_mut() {
                if random.one_in(4) {
                    *said = lie(said.attempt, random);
                }
            }
        }
        if malice.foreign
            && let Some(other) = random.pick(&all)
        {
            attempts.push(lie(*other, random));
        }
        if malice.phantom {
            let job = self.control.jobs.keys().next().copied().filter(|_| random.one_in(2)).unwrap_or(JobId::from_bytes([0xee; 16]));
            attempts.push(lie(AttemptId { job, attempt: u32::try_from(random.below(9)).unwrap_or(0) }, random));
        }
        if malice.boaster {
            facts.cpu_millis = random.below(9) * 1_000;
            facts.memory_bytes = random.below(9) << 30;
        }
        if malice.thief
            && let Some(wanted) = random.pick(&all).copied()
        {
            self.send(node, |node| Event::Key { node, attempt: wanted });
        }
    }

    pub(super) fn agent_starts(&mut self, node: NodeId) -> Result<(), Violation> {
        let sandboxes = self.sandboxes.clone();
        let Some(machine) = self.machines.get_mut(&node).filter(|machine| machine.agent.is_none() && !machine.gone) else { return Ok(()) };
        let deeds = machine.recover(&sandboxes);
        let run = machine.runs;
        self.after(10, Event::Beat { node, run, again: true });
        self.done(node, deeds)
    }

    /// From here on nothing goes wrong: liars are revoked, machines that can come back do.
    fn calm(&mut self) {
        if !self.control.up {
            let offset = self.random.below(OFFSET_MS);
            self.control.start(offset);
            self.after(0, Event::ControlStarts);
        }
        let nodes: Vec<NodeId> = self.machines.keys().copied().collect();
        for node in nodes {
            let coin = self.random.one_in(2);
            let Some(machine) = self.machines.get_mut(&node) else { continue };
            (machine.cut_until, machine.frozen_until) = (0, 0);
            if machine.malice.is_some() {
                machine.gone = true;
            }
            let revoked = machine.malice.is_some() || (machine.gone && coin);
            if machine.agent.is_none() && !machine.gone {
                self.after(10, Event::AgentStarts { node });
            }
            if revoked {
                self.control.change_node(node, |row| row.revoked = true);
            }
        }
    }
}
