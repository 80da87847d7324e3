//! The heartbeat: everything a node has to say, every five seconds and at once when something changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vocabulary::channel::{HEARTBEAT_MS, REPORT};
use vocabulary::job::AttemptId;
use vocabulary::plan::{AttemptReport, NodeReport, ReportAnswer};

use crate::agent::Shared;
use crate::attempt::Slot;
use crate::channel::Backoff;
use crate::clock;
use crate::plan::CheckedPlan;

/// Sends heartbeats until `stop`.
pub(crate) async fn beat(shared: Arc<Shared>, plan: watch::Receiver<Option<Arc<CheckedPlan>>>, stop: CancellationToken) {
    let mut sequence = 0_u64;
    let mut backoff = Backoff::default();
    let mut told = BTreeSet::new();
    stop.run_until_cancelled(async {
        loop {
            sequence = sequence.saturating_add(1);
            let revision = plan.borrow().as_ref().map_or(0, |plan| plan.plan().revision);
            let mut attempts: Vec<AttemptReport> = shared.with_slots(|slots| slots.values().map(Slot::report).collect());
            let telling = once(&mut attempts, &mut told);
            let mut facts = vocabulary::plan::NodeFacts { gpus: shared.gpus.count(), ..shared.facts.clone() };
            facts.features.extend(shared.gpus.complaint().map(|told| ("gpus".to_owned(), told)));
            let body = NodeReport { sequence, plan_revision: revision, facts, attempts };
            // The lease counts from before the request left: the control plane counts from when it came.
            let sent = clock::boottime_ms();
            match shared.channel.post::<_, ReportAnswer>(REPORT, &body).await {
                Ok(answer) => {
                    shared.answered();
                    backoff = Backoff::default();
                    told.extend(telling);
                    if answer.plan_revision > revision {
                        shared.stale.notify_one();
                    }
                    shared.with_slots(|slots| apply(slots, &answer, sent));
                    let pause = tokio::time::sleep(Duration::from_millis(HEARTBEAT_MS));
                    tokio::select! {
                        () = pause => {}
                        () = shared.wanted() => {}
                    }
                }
                Err(error) => shared.failed("heartbeat", &error, &mut backoff).await,
            }
        }
    })
    .await;
}

/// What was read back of a sandbox never changes and is by far the longest part: it is told until it was heard once, so
/// that a node with many jobs stays below the limit of a body. Gives the attempts for which it is told now.
fn once(attempts: &mut [AttemptReport], told: &mut BTreeSet<AttemptId>) -> Vec<AttemptId> {
    let present: BTreeSet<AttemptId> = attempts.iter().map(|report| report.attempt).collect();
    told.retain(|attempt| present.contains(attempt));
    let mut telling = Vec::new();
    for report in attempts {
        if told.contains(&report.attempt) {
            report.isolation = None;
        } else if report.isolation.is_some() {
            telling.push(report.attempt);
        }
    }
    telling
}

fn apply(slots: &BTreeMap<AttemptId, Slot>, answer: &ReportAnswer, sent: u64) {
    for renewed in &answer.renewed {
        let Some(slot) = slots.get(&renewed.attempt) else { continue };
        if renewed.lease != slot.run_lease {
            tracing::error!(attempt = %renewed.attempt, "a run lease of another name was renewed: refused");
            continue;
        }
        // Never longer than the tenant chose, whatever the answer says.
        let deadline = sent.saturating_add(renewed.length_ms.min(slot.run_lease_ms));
        slot.wish.send_if_modified(|wish| {
            let later = wish.deadline_boottime_ms.is_none_or(|before| before < deadline);
            if later {
                wish.deadline_boottime_ms = Some(deadline);
            }
            later
        });
    }
    for attempt in &answer.acknowledged {
        if let Some(slot) = slots.get(attempt) {
            slot.wish.send_if_modified(|wish| !std::mem::replace(&mut wish.end_known, true));
        }
    }
}

#[cfg(test)]
mod tests {
    use vocabulary::LeaseId;
    use vocabulary::isolation::IsolationReport;
    use vocabulary::plan::RenewedRun;

    use super::*;
    use crate::attempt::{Record, Wish};
    use crate::testing::planned_job;

    fn slots() -> (BTreeMap<AttemptId, Slot>, AttemptId) {
        let record = Record::new(planned_job(1), clock::wall());
        let attempt = record.attempt();
        (BTreeMap::from([(attempt, Slot::of(&record, Wish::default()))]), attempt)
    }

    fn wish(slots: &BTreeMap<AttemptId, Slot>) -> Wish {
        *slots.values().next().unwrap().wish.borrow()
    }

    fn answer(attempt: AttemptId, lease: LeaseId, length_ms: u64) -> ReportAnswer {
        ReportAnswer { plan_revision: 1, renewed: vec![RenewedRun { attempt, lease, length_ms }], acknowledged: Vec::new() }
    }

    #[test]
    fn a_lease_is_renewed_from_when_the_report_was_sent() {
        let (slots, attempt) = slots();
        let lease = planned_job(1).run_lease;
        apply(&slots, &answer(attempt, lease, 1000), 50);
        assert_eq!(wish(&slots).deadline_boottime_ms, Some(1050));
        // Never shorter, never longer than the tenant chose, and never by another lease's name.
        apply(&slots, &answer(attempt, lease, 10), 60);
        assert_eq!(wish(&slots).deadline_boottime_ms, Some(1050));
        apply(&slots, &answer(attempt, LeaseId::from_bytes([9; 16]), 5000), 60);
        assert_eq!(wish(&slots).deadline_boottime_ms, Some(1050));
        apply(&slots, &answer(attempt, lease, u64::MAX), 60);
        assert_eq!(wish(&slots).deadline_boottime_ms, Some(60 + planned_job(1).spec.run_lease_ms));
        let stranger = AttemptId { attempt: 2, ..attempt };
        apply(&slots, &answer(stranger, lease, 1), 1);
        assert!(!wish(&slots).end_known);
        apply(&slots, &ReportAnswer { plan_revision: 1, renewed: Vec::new(), acknowledged: vec![attempt, stranger] }, 1);
        assert!(wish(&slots).end_known);
    }

    #[test]
    fn isolation_is_told_until_it_was_heard() {
        let mut record = Record::new(planned_job(1), clock::wall());
        record.isolation = Some(IsolationReport { backend: "b".to_owned(), cgroup_layout: "c".to_owned(), kernel: "k".to_owned(), runtime: None, layers: Vec::new() });
        let attempt = record.attempt();
        let mut told = BTreeSet::new();
        for _ in 0..2 {
            let mut reports = [record.report(None)];
            assert_eq!(once(&mut reports, &mut told), [attempt]);
            assert!(reports[0].isolation.is_some());
        }
        told.insert(attempt);
        let mut reports = [record.report(None)];
        assert!(once(&mut reports, &mut told).is_empty() && reports[0].isolation.is_none());
        assert!(once(&mut [], &mut told).is_empty() && told.is_empty(), "what is gone is forgotten");
    }
}
