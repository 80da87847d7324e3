//! The heartbeat: everything a node has to say, every five seconds and at once when something changes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vocabulary::channel::{HEARTBEAT_MS, REPORT};
use vocabulary::plan::{NodeReport, ReportAnswer};

use crate::agent::Shared;
use crate::channel::Backoff;
use crate::clock;
use crate::plan::CheckedPlan;

/// Sends heartbeats until `stop`.
pub(crate) async fn beat(shared: Arc<Shared>, plan: watch::Receiver<Option<Arc<CheckedPlan>>>, stop: CancellationToken) {
    let mut sequence = 0_u64;
    let mut backoff = Backoff::default();
    stop.run_until_cancelled(async {
        loop {
            sequence = sequence.saturating_add(1);
            let revision = plan.borrow().as_ref().map_or(0, |plan| plan.plan().revision);
            let attempts = shared.with_slots(|slots| slots.values().map(crate::attempt::Slot::report).collect());
            let body = NodeReport { sequence, plan_revision: revision, facts: shared.facts.clone(), attempts };
            // The lease counts from before the request left: the control plane counts from when it came.
            let sent = clock::boottime_ms();
            match shared.channel.post::<_, ReportAnswer>(REPORT, &body).await {
                Ok(answer) => {
                    backoff = Backoff::default();
                    apply(&shared, &answer, revision, sent);
                    let pause = tokio::time::sleep(Duration::from_millis(HEARTBEAT_MS));
                    tokio::select! {
                        () = pause => {}
                        () = shared.wanted() => {}
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "heartbeat");
                    backoff.wait().await;
                }
            }
        }
    })
    .await;
}

fn apply(shared: &Shared, answer: &ReportAnswer, revision: u64, sent: u64) {
    if answer.plan_revision > revision {
        shared.stale.notify_one();
    }
    shared.with_slots(|slots| {
        for renewed in &answer.renewed {
            let Some(slot) = slots.get(&renewed.attempt) else { continue };
            if renewed.lease != slot.run_lease {
                tracing::error!(attempt = %renewed.attempt, "a run lease of another name was renewed: refused");
                continue;
            }
            // Never longer than the tenant chose, whatever the answer says.
            let length = renewed.length_ms.min(slot.run_lease_ms);
            let deadline = sent.saturating_add(length);
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
    });
}
