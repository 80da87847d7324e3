//! Which plan is believed. Pure: bytes, keys and the present revision in, a plan or a refusal out.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use identity::StatementPublic;
use vocabulary::plan::{NodePlan, PLAN_CONTEXT, SignedPlan};
use vocabulary::{DeploymentId, NodeId};

use crate::limits::PLAN_BYTES_MAX;

/// The format that this version reads.
const FORMAT: u32 = 1;

/// A plan is refused; each named after what the sender did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanRefusal {
    /// Longer than the limit.
    #[error("the plan has more than {PLAN_BYTES_MAX} bytes")]
    TooLong,
    /// Not a signed plan, or with fields that this version does not know.
    #[error("not a signed plan: {0}")]
    Malformed(String),
    /// No receipt key of the deployment signed it.
    #[error("the plan is not signed by a receipt key of the deployment")]
    Signature,
    /// A format that this version does not read.
    #[error("the plan has format {0}, this version reads {FORMAT}")]
    Format(u32),
    /// For another deployment.
    #[error("the plan is of deployment {0}, which is not this node's")]
    OtherDeployment(DeploymentId),
    /// For another node.
    #[error("the plan is for node {0}, not for this one")]
    OtherNode(NodeId),
    /// Older than the one that the node works on.
    #[error("the plan has revision {offered}, this node works on {current} already")]
    Older {
        /// What was offered.
        offered: u64,
        /// What is worked on.
        current: u64,
    },
    /// Two attempts with one id.
    #[error("the plan names attempt {0} twice")]
    Twice(vocabulary::job::AttemptId),
    /// Its revocations are malformed or older than those in force.
    #[error("the plan's revocations are refused: {0}")]
    Revocations(#[from] identity::certificate::RevocationError),
}

/// Whom a node believes about plans.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) deployment: DeploymentId,
    pub(crate) node: NodeId,
    /// The receipt keys that are valid.
    pub(crate) keys: Vec<StatementPublic>,
}

/// A plan that was checked; only [`Rules::check`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckedPlan {
    plan: NodePlan,
    revocations: identity::RevocationSet,
}

impl CheckedPlan {
    pub(crate) const fn plan(&self) -> &NodePlan {
        &self.plan
    }
    pub(crate) const fn revocations(&self) -> &identity::RevocationSet {
        &self.revocations
    }
}

impl Rules {
    /// Checks a plan as it travels or lies on the disk. `current` is the revision that the node works on.
    pub(crate) fn check(&self, bytes: &[u8], current: Option<u64>) -> Result<CheckedPlan, PlanRefusal> {
        if bytes.len() > PLAN_BYTES_MAX {
            return Err(PlanRefusal::TooLong);
        }
        let malformed = |error: serde_json::Error| PlanRefusal::Malformed(error.to_string());
        let signed: SignedPlan = serde_json::from_slice(bytes).map_err(malformed)?;
        let base64 = |text: &str| STANDARD.decode(text).map_err(|error| PlanRefusal::Malformed(error.to_string()));
        let (payload, signature) = (base64(&signed.payload)?, base64(&signed.signature)?);
        if !self.keys.iter().any(|key| key.verify(PLAN_CONTEXT, &payload, &signature).is_ok()) {
            return Err(PlanRefusal::Signature);
        }
        let plan: NodePlan = serde_json::from_slice(&payload).map_err(malformed)?;
        if plan.format != FORMAT {
            return Err(PlanRefusal::Format(plan.format));
        }
        if plan.deployment != self.deployment {
            return Err(PlanRefusal::OtherDeployment(plan.deployment));
        }
        if plan.node != self.node {
            return Err(PlanRefusal::OtherNode(plan.node));
        }
        if let Some(current) = current.filter(|current| plan.revision <= *current) {
            return Err(PlanRefusal::Older { offered: plan.revision, current });
        }
        let mut seen = BTreeSet::new();
        for job in &plan.jobs {
            if !seen.insert(job.attempt) {
                return Err(PlanRefusal::Twice(job.attempt));
            }
        }
        let revocations = identity::RevocationSet::from_wire(&plan.revocations)?;
        Ok(CheckedPlan { plan, revocations })
    }
}

#[cfg(test)]
mod tests {
    use identity::StatementKey;
    use vocabulary::plan::Revocations;

    use super::*;

    const DEPLOYMENT: DeploymentId = DeploymentId::from_bytes([1; 16]);
    const NODE: NodeId = NodeId::from_bytes([2; 16]);

    fn key(seed: u8) -> StatementKey {
        StatementKey::open(&[seed; 32]).unwrap()
    }

    fn rules() -> Rules {
        Rules { deployment: DEPLOYMENT, node: NODE, keys: vec![key(1).public().unwrap(), key(2).public().unwrap()] }
    }

    fn plan() -> NodePlan {
        NodePlan { format: 1, deployment: DEPLOYMENT, node: NODE, revision: 7, jobs: Vec::new(), revocations: Revocations::default() }
    }

    fn signed(plan: &NodePlan, key: &StatementKey, context: &[u8]) -> Vec<u8> {
        let payload = serde_json::to_vec(plan).unwrap();
        let signature = STANDARD.encode(key.sign(context, &payload));
        serde_json::to_vec(&SignedPlan { payload: STANDARD.encode(payload), signature }).unwrap()
    }

    #[test]
    fn a_newer_plan_of_any_valid_key_is_taken() {
        for seed in [1, 2] {
            let bytes = signed(&plan(), &key(seed), PLAN_CONTEXT);
            assert_eq!(rules().check(&bytes, Some(6)).unwrap().plan(), &plan());
            assert!(rules().check(&bytes, None).is_ok());
        }
    }

    #[test]
    fn every_other_plan_is_refused_by_name() {
        let check = |change: &dyn Fn(&mut NodePlan), current| {
            let mut changed = plan();
            change(&mut changed);
            rules().check(&signed(&changed, &key(1), PLAN_CONTEXT), current).unwrap_err()
        };
        let other = DeploymentId::from_bytes([9; 16]);
        assert_eq!(check(&|plan| plan.deployment = other, None), PlanRefusal::OtherDeployment(other));
        let stranger = NodeId::from_bytes([9; 16]);
        assert_eq!(check(&|plan| plan.node = stranger, None), PlanRefusal::OtherNode(stranger));
        assert_eq!(check(&|plan| plan.format = 2, None), PlanRefusal::Format(2));
        assert_eq!(check(&|_| (), Some(7)), PlanRefusal::Older { offered: 7, current: 7 });
        assert_eq!(check(&|_| (), Some(8)), PlanRefusal::Older { offered: 7, current: 8 });
        assert!(matches!(check(&|plan| plan.revocations.serials = vec!["x".to_owned()], None), PlanRefusal::Revocations(_)));
        let job = || crate::testing::planned_job(1);
        assert!(matches!(check(&|plan| plan.jobs = vec![job(), job()], None), PlanRefusal::Twice(_)));
        assert_eq!(rules().check(&signed(&plan(), &key(3), PLAN_CONTEXT), None), Err(PlanRefusal::Signature));
        assert_eq!(rules().check(&signed(&plan(), &key(1), b"swarm/other/v1"), None), Err(PlanRefusal::Signature));
        assert!(matches!(rules().check(b"{}", None), Err(PlanRefusal::Malformed(_))));
        assert!(matches!(rules().check(&vec![b' '; PLAN_BYTES_MAX + 1], None), Err(PlanRefusal::TooLong)));
    }

    #[test]
    fn no_changed_byte_passes() {
        let bytes = signed(&plan(), &key(1), PLAN_CONTEXT);
        let good = rules().check(&bytes, None).unwrap();
        for position in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[position] ^= 1;
            // A change outside the two texts may read the same; what is read is never another plan.
            assert!(rules().check(&changed, None).map_or(true, |read| read == good), "byte {position}");
        }
    }
}
