//! When nothing goes wrong any more, everything comes to rest: every job is over or says why it waits, and no machine keeps
//! what is over.

use super::super::{JobRow, Placing, next_attempt};
use super::world::{Violation, World};

/// Between two looks.
const LOOK_MS: u64 = 5_000;
/// Longer than the longest chain of leases, runs and restarts of all jobs one after the other.
const PATIENCE_MS: u64 = 4 * 3_600_000;
/// After that machines have heard everything.
const AFTERWARDS_MS: u64 = 60_000;
/// A drain whose deadline has passed is acted on within this time.
const EVICTION_MS: u64 = 10_000;

impl World<'_> {
    /// Whether the run is over.
    pub(super) fn at_rest(&mut self) -> Result<bool, Violation> {
        if !self.quiet() || self.now.saturating_sub(self.looked) < LOOK_MS {
            return Ok(false);
        }
        self.looked = self.now;
        self.drains()?;
        let waits = self.unsettled()?;
        match (waits, self.settled) {
            (None, Some(since)) if self.now.saturating_sub(since) >= AFTERWARDS_MS => {
                self.nothing_left()?;
                Ok(true)
            }
            (None, Some(_)) => Ok(false),
            (None, None) => {
                self.settled = Some(self.now);
                Ok(false)
            }
            (Some(why), _) => {
                self.settled = None;
                if self.now.saturating_sub(self.quiet_from) > PATIENCE_MS { Err(Violation::NoRest(why)) } else { Ok(false) }
            }
        }
    }

    /// Nothing may stay on a drained node beyond its deadline without being told to go.
    fn drains(&self) -> Result<(), Violation> {
        if self.now.saturating_sub(self.quiet_from) < EVICTION_MS {
            return Ok(());
        }
        let now = self.control.now(self.now);
        for job in self.control.jobs.values() {
            let Some(attempt) = job.live() else { continue };
            let Some(row) = self.control.nodes.get(&attempt.node).filter(|row| row.draining && !row.revoked) else { continue };
            let late = row.drain_until.and_then(|until| now.since(until)).is_some_and(|late| late > EVICTION_MS);
            if late && attempt.evicted.is_none() && attempt.ended.is_none() {
                return Err(Violation::StaysOnDrained(job.id, attempt.node));
            }
        }
        Ok(())
    }

    /// What has not come to rest yet. A job that waits must have a reason on every node.
    fn unsettled(&self) -> Result<Option<String>, Violation> {
        let now = self.control.now(self.now);
        let jobs: Vec<&JobRow> = self.control.jobs.values().collect();
        if let Some(job) = jobs.iter().find(|job| job.live().is_some()) {
            return Ok(Some(format!("job {} is {:?}", job.id, job.state())));
        }
        let views = self.control.views(&self.control.nodes, self.brain);
        let placing = Placing::new(&views, &self.control.limits, jobs.iter().copied());
        // Who is held back by a quota has its reason.
        for job in jobs.iter().filter(|job| next_attempt(job).is_some() && placing.held_back(job).is_none()) {
            match (self.brain.choose)(&placing, job, now) {
                Ok(node) => return Ok(Some(format!("job {} fits on node {node}", job.id))),
                Err(misfits) => {
                    let said = misfits.len() == views.len() && misfits.iter().all(|misfit| !misfit.constraint.is_empty());
                    if !said {
                        return Err(Violation::NoReason(job.id));
                    }
                }
            }
        }
        match jobs.iter().find(|job| job.exit.is_none() && next_attempt(job).is_none()) {
            Some(job) => Ok(Some(format!("job {} is neither over nor waiting", job.id))),
            None => Ok(None),
        }
    }

    fn nothing_left(&self) -> Result<(), Violation> {
        for machine in self.machines.values().filter(|machine| !machine.gone) {
            let revoked = self.control.nodes.get(&machine.id).is_none_or(|row| row.revoked);
            let planned = self.control.plans.get(&machine.id).is_some_and(|plan| !plan.jobs.is_empty());
            let alive = self.sandboxes.iter().any(|one| one.node == machine.id && one.over.is_none());
            if !revoked && (planned || alive || !machine.attempts.is_empty()) {
                return Err(Violation::NotForgotten(machine.id));
            }
        }
        // Also what ran on with nobody to speak for it.
        match self.sandboxes.iter().find(|one| one.honest && one.over.is_none()) {
            Some(one) => Err(Violation::NotForgotten(one.node)),
            None => Ok(()),
        }
    }
}
