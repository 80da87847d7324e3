//! Which policy set is in force for a tenant is itself recorded: receipts name its epoch and digest, and the entry proves them.

use std::collections::BTreeMap;

use audit::Event;
use serde::{Deserialize, Serialize};
use store::{Expect, Kind, Page, Put, Transaction};
use vocabulary::{SYSTEM_OWNER, Sha256Digest, TenantId, UnixTime};

use crate::api::problem::Failure;
use crate::row::{FORMAT, TenantRow};
use crate::state::{Control, commit_failure};

/// The set that was recorded last for a tenant, under the tenant's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyRow {
    format: u32,
    epoch: u64,
    digest: Sha256Digest,
}

impl Control {
    /// Epoch and digest of the set under which a tenant's principals and jobs are judged. The digest is that of its rules by
    /// id, as canonical JSON.
    pub(crate) fn policy_of(&self, tenant: TenantId) -> Result<(u64, Sha256Digest), Failure> {
        let set = self.sets.of(Some(tenant)).map_err(Failure::internal)?;
        let rules: BTreeMap<String, String> = set.rules().into_iter().map(|rule| (rule.id, rule.text)).collect();
        let bytes = audit::canonical::to_vec(&rules).map_err(Failure::internal)?;
        Ok((set.epoch(), receipt::envelope::sha256(&bytes)))
    }

    /// Records a tenant's set, if it is not what is recorded already: before its first job, and after a change.
    pub(crate) async fn record_policy(&self, tenant: TenantId, now: UnixTime) -> Result<(), Failure> {
        let (epoch, digest) = self.policy_of(tenant)?;
        let row = PolicyRow { format: FORMAT, epoch, digest };
        let expect = match self.store.get_json::<PolicyRow>(tenant, Kind::POLICY, tenant).await.map_err(Failure::internal)? {
            Some((_, known)) if known == row => return Ok(()),
            Some((stored, _)) => Expect::Revision(stored.revision),
            None => Expect::Absent,
        };
        let put = Put::json(tenant, Kind::POLICY, tenant, expect, &row).map_err(Failure::internal)?;
        let entry = self.system_entry(now, tenant, Event::PolicyChanged { epoch, policy: digest })?;
        match self.store.commit(Transaction::new().with(put).entry(entry), now).await {
            Ok(_) => Ok(()),
            // Another request recorded it in this moment.
            Err(error) if error.conflict().is_some() => Ok(()),
            Err(error) => Err(commit_failure(error)),
        }
    }

    /// Records the sets of all tenants at the start: a new version of the program may bring other built-in rules.
    pub(crate) async fn record_policies(&self, now: UnixTime) -> Result<(), Failure> {
        let mut page = Page::first(1000);
        loop {
            let found = self.store.list(SYSTEM_OWNER, Kind::TENANT, page).await.map_err(Failure::internal)?;
            let last = found.items.last().map(|row| row.id);
            for stored in &found.items {
                let tenant: TenantRow = stored.parse().map_err(Failure::internal)?;
                self.record_policy(tenant.id, now).await?;
            }
            match last {
                Some(last) if found.truncated => page = Page::after(last, 1000),
                _ => return Ok(()),
            }
        }
    }
}
