//! Key leases: the right of a person, program or attempt to hold the opened keys of one volume, until a time.
//!
//! People and attempts come here by different decisions; from there on it is the same: keys sealed to a fresh key of the
//! requester, entries on disk before the keys leave, objects and roots under the lease, and its end.
//!
//! A person's lease ends by itself. An attempt's lives as long as the attempt may: the run lease is looked at on each use, and
//! the `until` column follows it. [`run`] ends leases whose ground is gone, whatever took it away: it judges what is stored, so
//! a crash or a missed event delays an end by one sweep and never loses it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use audit::entry::{Actor, Source};
use audit::event::Evidence;
use audit::{EncodedEntry, Event, Outcome};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keys::{KeyState, Purpose};
use policy::action::{VolumeRead, VolumeWrite};
use serde::{Deserialize, Serialize};
use store::{Expect, Kind, Mutation, Page, Put, Resource, Transaction, WriterRow};
use tokio_util::sync::CancellationToken;
use vocabulary::lease::{Lease, LeaseEnd, LeaseHolder, LeaseMode, LeaseRequest, ReleasedKey, WriterEpoch, release_info};
use vocabulary::plan::Desired;
use vocabulary::volume::RootHead;
use vocabulary::{EntryId, ErrorCode, JobId, LeaseId, NodeId, PrincipalId, Purpose as Use, SYSTEM_OWNER, TenantId, UnixTime, VolumeId};

use crate::api::problem::Failure;
use crate::clock;
use crate::limits::{LEASE_SWEEP_INTERVAL, SIGNERS_MAX};
use crate::operation::volume::{key_owner, resource};
use crate::planner::JobRow;
use crate::row::{FORMAT, NodeRow, TenantRow, VolumeRow};
use crate::state::{Control, commit_failure, fresh};
use crate::vault::versions;

/// A key lease, as stored; its end and state stand in columns. `parent` is the volume, `link` the principal or the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LeaseRow {
    pub(crate) format: u32,
    pub(crate) volume: VolumeId,
    pub(crate) holder: LeaseHolder,
    /// Where an attempt runs.
    pub(crate) node: Option<NodeId>,
    pub(crate) mode: LeaseMode,
    pub(crate) writer_epoch: Option<u64>,
    /// The entry of the release.
    pub(crate) released: EntryId,
}

/// The kind of [`CommitRow`], under the first half of the root's digest; `parent` is the volume.
pub(crate) const COMMIT: Kind = Kind::new("volume_commit");

/// A root that was committed: under which lease, and which entry says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommitRow {
    pub(crate) format: u32,
    pub(crate) volume: VolumeId,
    pub(crate) head: RootHead,
    pub(crate) lease: LeaseId,
    pub(crate) entry: EntryId,
}

/// Where the row of a commit lies: roots are digests over their whole history, so no two commits share one.
pub(crate) fn commit_id(root: &vocabulary::Sha256Digest) -> [u8; 16] {
    let mut half = [0; 16];
    for (to, from) in half.iter_mut().zip(root.as_bytes()) {
        *to = *from;
    }
    half
}

/// Its live state.
pub(crate) const LIVE: &str = "live";

const fn word(end: LeaseEnd) -> &'static str {
    match end {
        LeaseEnd::Released => "released",
        LeaseEnd::Expired => "expired",
        LeaseEnd::Revoked => "revoked",
    }
}

/// Whoever was permitted to use a volume: for whom, and how its entries are written.
#[derive(Debug, Clone)]
pub(crate) struct Holder<'a> {
    pub(crate) control: &'a Control,
    pub(crate) now: UnixTime,
    pub(crate) tenant: TenantId,
    pub(crate) holder: LeaseHolder,
    pub(crate) node: Option<NodeId>,
    pub(crate) actor: Actor,
    pub(crate) source: Source,
    pub(crate) action: &'static str,
}

/// A release that was decided.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) mode: LeaseMode,
    pub(crate) recipient: [u8; 32],
    /// For `write`.
    pub(crate) signer: Option<[u8; 32]>,
    pub(crate) purpose: Use,
    pub(crate) policy_epoch: u64,
    pub(crate) expires: UnixTime,
}

pub(crate) fn public_key(text: &str, field: &str) -> Result<[u8; 32], Failure> {
    // 32 bytes are 44 characters: anything else is not decoded at all.
    let bytes = (text.len() == 44).then(|| STANDARD.decode(text).ok()).flatten().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| Failure::invalid(format!("`{field}` is not base64 of 32 bytes")))
}

/// The recipient of a request, and the signer that a write needs.
pub(crate) fn asked_keys(request: &LeaseRequest) -> Result<([u8; 32], Option<[u8; 32]>), Failure> {
    let recipient = public_key(&request.recipient, "recipient")?;
    match (request.mode, &request.signer) {
        (LeaseMode::Read, None) => Ok((recipient, None)),
        (LeaseMode::Read, Some(_)) => Err(Failure::invalid("`signer` is for `write` only: a reader signs nothing")),
        (LeaseMode::Write, Some(signer)) => Ok((recipient, Some(public_key(signer, "signer")?))),
        (LeaseMode::Write, None) => Err(Failure::invalid("`signer` is missing: a writer signs its roots")),
    }
}

impl Holder<'_> {
    pub(crate) fn entry(&self, event: Event) -> Result<EncodedEntry, Failure> {
        self.control.entry(self.now, self.tenant, self.actor, self.source.clone(), Outcome::Success, Some(self.action), event)
    }

    fn link(&self) -> [u8; 16] {
        match self.holder {
            LeaseHolder::Attempt(attempt) => *attempt.job.as_bytes(),
            LeaseHolder::Principal(principal) => *principal.as_bytes(),
        }
    }

    /// Seals all versions of a volume's key to the recipient. Nothing is recorded yet, and nothing leaves.
    async fn sealed_keys(&self, volume: VolumeId, lease: LeaseId, grant: &Grant) -> Result<Vec<ReleasedKey>, Failure> {
        let control = self.control;
        let known = versions(&control.store, self.tenant, &key_owner(volume), Purpose::Volume).await.map_err(Failure::internal)?;
        if grant.signer.is_some() && !known.iter().any(|key| key.record.state == KeyState::Active) {
            return Err(gone());
        }
        let mut keys = Vec::new();
        for key in known.iter().filter(|key| key.record.state.opens()) {
            let plain = control.vault.open_data(&control.store, &key.record).await.map_err(Failure::internal)?;
            let info = release_info(lease, volume, key.record.id, key.record.version);
            let sealed = keys::hpke::seal(&grant.recipient, &info, b"", plain.expose())
                .map_err(|error| Failure::invalid(format!("`recipient`: {error}")))?;
            keys.push(ReleasedKey {
                key: key.record.id,
                version: key.record.version,
                encapsulated: STANDARD.encode(sealed.encapsulated),
                sealed: STANDARD.encode(sealed.ciphertext),
            });
        }
        if keys.is_empty() { Err(gone()) } else { Ok(keys) }
    }

    /// Releases the keys of a volume: the entries are on disk before the keys leave.
    pub(crate) async fn release(&self, row: &VolumeRow, grant: Grant) -> Result<Lease, Failure> {
        let control = self.control;
        let id = fresh(LeaseId::new, self.now);
        let keys = self.sealed_keys(row.id, id, &grant).await?;
        let newest = keys.last().ok_or_else(gone)?.key;
        let head = control.head(self.tenant, row.id).await?;
        let mut transaction = Transaction::new();
        let mut writer_epoch = None;
        if let Some(signer) = grant.signer {
            let next = control.store.newest_writer(self.tenant, row.id).await.map_err(Failure::internal)?.saturating_add(1);
            if next > SIGNERS_MAX {
                return Err(Failure::new(ErrorCode::WrongState, format!("the volume had {SIGNERS_MAX} writers: copy its data into a new one")));
            }
            let registered = self.entry(Event::WriterRegistered {
                lease: id,
                volume: row.id,
                lineage: head.lineage,
                writer_epoch: next,
                signer: STANDARD.encode(signer),
                holder: self.holder,
            })?;
            transaction = transaction
                .with(Mutation::OpenWriterEpoch(WriterRow {
                    tenant: self.tenant,
                    volume: row.id,
                    epoch: next,
                    signer,
                    lease: id,
                    entry: registered.id,
                    opened: self.now,
                }))
                .entry(registered);
            writer_epoch = Some(next);
        }
        let released = self.entry(Event::KeyReleased {
            lease: id,
            volume: row.id,
            key: newest,
            versions: keys.iter().map(|key| key.version).collect(),
            mode: grant.mode,
            holder: self.holder,
            node: self.node,
            purpose: Some(grant.purpose),
            policy_epoch: grant.policy_epoch,
            expires: grant.expires,
            evidence: Evidence::None,
        })?;
        let body = LeaseRow {
            format: FORMAT,
            volume: row.id,
            holder: self.holder,
            node: self.node,
            mode: grant.mode,
            writer_epoch,
            released: released.id,
        };
        let put = put_live(self.tenant, id, Expect::Absent, &body, self.link(), grant.expires)?;
        let committed = control.store.commit(transaction.with(put).entry(released), self.now).await.map_err(commit_failure)?;
        let audit_index = committed.audit_indexes.last().copied().unwrap_or_default();
        let signers = control.signers(self.tenant, row.id).await?;
        Ok(Lease {
            id,
            tenant: self.tenant,
            volume: row.id,
            holder: self.holder,
            mode: grant.mode,
            keys,
            writer: writer_epoch.and_then(|epoch| signers.iter().find(|known| known.epoch == epoch).cloned()),
            signers,
            head,
            expires: grant.expires,
            audit_index,
        })
    }

    /// The lease that allows this use of a volume, and the volume.
    pub(crate) async fn leased(&self, id: LeaseId, volume: VolumeId, wanted: LeaseMode) -> Result<(LeaseRow, VolumeRow), Failure> {
        let ended = || Failure::new(ErrorCode::ReleaseRefused, "the lease is unknown, has ended or was revoked: ask for a new one");
        let found = self.control.store.get_json::<LeaseRow>(self.tenant, Kind::KEY_LEASE, id).await.map_err(Failure::internal)?;
        let (stored, lease) = found.ok_or_else(ended)?;
        let in_time = match lease.holder {
            // Its run lease was judged with the attempt itself.
            LeaseHolder::Attempt(_) => true,
            LeaseHolder::Principal(_) => stored.until.is_some_and(|until| self.now < until),
        };
        if stored.state.as_deref() != Some(LIVE) || !in_time || lease.holder != self.holder {
            return Err(ended());
        }
        if lease.volume != volume || (wanted == LeaseMode::Write && lease.mode != LeaseMode::Write) {
            return Err(Failure::new(ErrorCode::ReleaseRefused, "the lease is for another volume or mode"));
        }
        let (_, row) = self.control.volume(self.tenant, volume).await?;
        Ok((lease, row))
    }
}

fn gone() -> Failure {
    Failure::new(ErrorCode::WrongState, "the volume's keys are destroyed or deactivated")
}

fn put_live(tenant: TenantId, id: LeaseId, expect: Expect, row: &LeaseRow, link: [u8; 16], until: UnixTime) -> Result<Put, Failure> {
    let put = Put::json(tenant, Kind::KEY_LEASE, id, expect, row).map_err(Failure::internal)?;
    Ok(put.parent(row.volume).link(link).state(LIVE).until(until))
}

impl Control {
    /// The signers of all writer epochs.
    pub(crate) async fn signers(&self, tenant: TenantId, volume: VolumeId) -> Result<Vec<WriterEpoch>, Failure> {
        let mut signers: Vec<WriterEpoch> = Vec::new();
        loop {
            let after = signers.last().map_or(0, |writer| writer.epoch);
            let found = self.store.writers(tenant, volume, Page::after(after, 1000)).await.map_err(Failure::internal)?;
            let more = found.truncated && !found.items.is_empty();
            signers.extend(found.items.into_iter().map(|writer| WriterEpoch {
                epoch: writer.row.epoch,
                signer: STANDARD.encode(writer.row.signer),
                audit_index: writer.audit_index,
            }));
            if !more {
                return Ok(signers);
            }
        }
    }

    /// The leases that an attempt's job ever got, ended ones included.
    pub(crate) async fn leases_of_job(&self, tenant: TenantId, job: JobId) -> Result<Vec<(LeaseId, LeaseRow)>, Failure> {
        let mut leases = Vec::new();
        let mut page = Page::first(1000);
        loop {
            let found = self.store.list_link(tenant, Kind::KEY_LEASE, job, page).await.map_err(Failure::internal)?;
            let last = found.items.last().map(|row| row.id);
            for stored in &found.items {
                let id = LeaseId::from_bytes(stored.id);
                leases.push((id, stored.parse::<LeaseRow>().map_err(Failure::internal)?));
            }
            match last {
                Some(last) if found.truncated => page = Page::after(last, 1000),
                _ => return Ok(leases),
            }
        }
    }

    /// Ends the leases of a tenant whose ground is gone, before the answer of what took it away. What fails here is done by
    /// the next sweep.
    pub(crate) async fn end_groundless(&self, tenant: TenantId, now: UnixTime) {
        if let Err(failure) = sweep(self, Some(tenant), now).await {
            tracing::warn!(detail = failure.problem.detail, "leases will be ended by the next sweep");
        }
    }
}

/// What a lease stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ground {
    /// The volume is there and one version of its key opens.
    openable: bool,
    suspended: bool,
    /// The column: when it ends unless it is renewed.
    until: UnixTime,
    holder: HolderGround,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HolderGround {
    /// A person or program that is there and may still use the volume.
    Principal,
    Attempt { over: bool, newest: bool, node_revoked: bool, keys_revoked: bool, run_lease_until: UnixTime },
    /// The principal was removed, or lost the right to the volume; or the job is unknown.
    Gone,
}

/// What becomes of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Keep,
    Renew(UnixTime),
    End(LeaseEnd),
}

/// Judges a lease by what it stands on.
fn judge(ground: Ground, now: UnixTime) -> Verdict {
    if let HolderGround::Attempt { over: true, node_revoked: false, .. } = ground.holder {
        return Verdict::End(LeaseEnd::Released);
    }
    if ground.suspended || !ground.openable {
        return Verdict::End(LeaseEnd::Revoked);
    }
    match ground.holder {
        HolderGround::Gone => Verdict::End(LeaseEnd::Revoked),
        HolderGround::Principal if now >= ground.until => Verdict::End(LeaseEnd::Expired),
        HolderGround::Principal => Verdict::Keep,
        HolderGround::Attempt { node_revoked, keys_revoked, .. } if node_revoked || keys_revoked => Verdict::End(LeaseEnd::Revoked),
        HolderGround::Attempt { newest: false, .. } => Verdict::End(LeaseEnd::Expired),
        HolderGround::Attempt { run_lease_until, .. } if now >= run_lease_until => Verdict::End(LeaseEnd::Expired),
        HolderGround::Attempt { run_lease_until, .. } if run_lease_until != ground.until => Verdict::Renew(run_lease_until),
        HolderGround::Attempt { .. } => Verdict::Keep,
    }
}

/// Ends leases until told to stop.
pub(crate) async fn run(control: Arc<Control>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(LEASE_SWEEP_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The change up to which leases were looked at, and when the first of them ends by the clock alone.
    let mut quiet: Option<(u64, Option<UnixTime>)> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let (latest, now) = (control.store.latest_change(), clock::now());
        if quiet.is_some_and(|(seen, first)| seen == latest && first.is_none_or(|first| now < first)) {
            continue;
        }
        quiet = match sweep(&control, None, now).await {
            Ok(first) => Some((latest, first)),
            Err(failure) => {
                tracing::error!(detail = failure.problem.detail, "key leases were not looked after");
                None
            }
        };
    }
}

/// What was read in one sweep, each row once.
#[derive(Debug, Default)]
struct Seen {
    tenants: BTreeMap<TenantId, bool>,
    volumes: BTreeMap<(TenantId, VolumeId), bool>,
    jobs: BTreeMap<JobId, Option<JobRow>>,
    nodes: BTreeMap<NodeId, bool>,
    /// Whether a member may still use a volume in this way, for its purpose.
    allowed: BTreeMap<(TenantId, PrincipalId, VolumeId, bool), bool>,
}

/// Looks at all live leases, or at those of one tenant. Says when the first of them ends if nothing else changes.
async fn sweep(control: &Control, only: Option<TenantId>, now: UnixTime) -> Result<Option<UnixTime>, Failure> {
    let mut seen = Seen::default();
    let mut first: Option<UnixTime> = None;
    let mut page = Page::first(1000);
    loop {
        let found = match only {
            None => control.store.list_state_anywhere(Kind::KEY_LEASE, LIVE, page).await,
            Some(tenant) => control.store.list_state(tenant, Kind::KEY_LEASE, LIVE, page).await,
        };
        let found = found.map_err(Failure::internal)?;
        let last = found.items.last().map(|row| row.id);
        for stored in &found.items {
            let row: LeaseRow = stored.parse().map_err(Failure::internal)?;
            let ground = seen.ground(control, stored, &row).await?;
            first = Some(first.map_or(ground.until, |first| first.min(ground.until)));
            if let Err(failure) = settle(control, stored, &row, ground, now).await {
                // Somebody changed lease or job in this moment: the next sweep sees what is left.
                tracing::debug!(detail = failure.problem.detail, "a lease waits for the next sweep");
                first = Some(now);
            }
        }
        match last {
            Some(last) if found.truncated => page = Page::after(last, 1000),
            _ => return Ok(first),
        }
    }
}

/// Whether the rules of now would release the volume to a member: roles and clearance may have been taken since.
async fn may_hold(control: &Control, tenant: TenantId, principal: PrincipalId, row: &LeaseRow) -> Result<bool, Failure> {
    let Some(member) = control.member(tenant, principal).await? else { return Ok(false) };
    let found = control.store.get_json::<VolumeRow>(tenant, Kind::VOLUME, row.volume).await.map_err(Failure::internal)?;
    // A volume that is gone ends its leases by itself.
    let (Some(facts), Some((_, volume))) = (member.tenant, found) else { return Ok(true) };
    let (what, purpose) = (resource(&volume, facts), Some(volume.spec.purpose));
    Ok(match row.mode {
        LeaseMode::Read => control.may::<VolumeRead>(&member, what, purpose),
        LeaseMode::Write => control.may::<VolumeWrite>(&member, what, purpose),
    })
}

impl Seen {
    async fn ground(&mut self, control: &Control, stored: &Resource, row: &LeaseRow) -> Result<Ground, Failure> {
        let tenant = stored.tenant;
        let store = &control.store;
        let suspended = match self.tenants.get(&tenant) {
            Some(suspended) => *suspended,
            None => {
                let found = store.get_json::<TenantRow>(SYSTEM_OWNER, Kind::TENANT, tenant).await.map_err(Failure::internal)?;
                *self.tenants.entry(tenant).or_insert(found.is_none_or(|(_, row)| row.suspended))
            }
        };
        let openable = match self.volumes.get(&(tenant, row.volume)) {
            Some(openable) => *openable,
            None => {
                let there = store.get(tenant, Kind::VOLUME, row.volume).await.map_err(Failure::internal)?.is_some();
                let known = versions(store, tenant, &key_owner(row.volume), Purpose::Volume).await.map_err(Failure::internal)?;
                let openable = there && known.iter().any(|key| key.record.state.opens());
                *self.volumes.entry((tenant, row.volume)).or_insert(openable)
            }
        };
        let holder = match row.holder {
            LeaseHolder::Principal(principal) => {
                let key = (tenant, principal, row.volume, row.mode == LeaseMode::Write);
                let allowed = match self.allowed.get(&key) {
                    Some(allowed) => *allowed,
                    None => *self.allowed.entry(key).or_insert(may_hold(control, tenant, principal, row).await?),
                };
                if allowed { HolderGround::Principal } else { HolderGround::Gone }
            }
            LeaseHolder::Attempt(attempt) => {
                let job = match self.jobs.entry(attempt.job) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(place) => {
                        let found = store.get_json::<JobRow>(tenant, Kind::JOB, attempt.job).await.map_err(Failure::internal)?;
                        place.insert(found.map(|(_, job)| job))
                    }
                };
                let placed = job.as_ref().and_then(|job| {
                    let placed = job.attempts.iter().find(|row| row.number == attempt.attempt)?;
                    let ground = HolderGround::Attempt {
                        over: placed.report.state.is_final(),
                        newest: job.attempts.last().is_some_and(|newest| newest.number == placed.number),
                        node_revoked: false,
                        keys_revoked: job.desired == Desired::RevokeKeys,
                        run_lease_until: placed.run_lease_until,
                    };
                    Some((placed.node, ground))
                });
                match placed {
                    None => HolderGround::Gone,
                    Some((node, ground)) => self.with_node(control, node, ground).await?,
                }
            }
        };
        Ok(Ground { openable, suspended, until: stored.until.unwrap_or_default(), holder })
    }

    async fn with_node(&mut self, control: &Control, node: NodeId, ground: HolderGround) -> Result<HolderGround, Failure> {
        let revoked = match self.nodes.get(&node) {
            Some(revoked) => *revoked,
            None => {
                let found = control.store.get_json::<NodeRow>(SYSTEM_OWNER, Kind::NODE, node).await.map_err(Failure::internal)?;
                *self.nodes.entry(node).or_insert(found.is_none_or(|(_, row)| row.revoked))
            }
        };
        Ok(match ground {
            HolderGround::Attempt { over, newest, keys_revoked, run_lease_until, .. } => {
                HolderGround::Attempt { over, newest, node_revoked: revoked, keys_revoked, run_lease_until }
            }
            HolderGround::Principal | HolderGround::Gone => ground,
        })
    }
}

/// Whether the node of an attempt is to be told that its keys are revoked. A revoked node is told nothing any more: its
/// connections are closed, and its job runs elsewhere once the run lease is over.
fn tells_node(ground: Ground) -> bool {
    matches!(ground.holder, HolderGround::Attempt { node_revoked: false, .. })
}

/// Does what is judged. The job of a revoked attempt is told to its node with the next plan.
async fn settle(control: &Control, stored: &Resource, row: &LeaseRow, ground: Ground, now: UnixTime) -> Result<(), Failure> {
    let id = LeaseId::from_bytes(stored.id);
    let tenant = stored.tenant;
    let end = match judge(ground, now) {
        Verdict::Keep => return Ok(()),
        Verdict::Renew(until) => {
            let put = put_live(tenant, id, Expect::Revision(stored.revision), row, stored.link.unwrap_or_default(), until)?;
            control.store.commit(Transaction::new().with(put), now).await.map_err(commit_failure)?;
            return Ok(());
        }
        Verdict::End(end) => end,
    };
    let event = Event::LeaseEnded { lease: id, volume: row.volume, end };
    let step = Mutation::Step { tenant, kind: Kind::KEY_LEASE, id: stored.id, from: LIVE, to: word(end) };
    let mut transaction = Transaction::new().with(step).entry(control.system_entry(now, tenant, event)?);
    let mut told = false;
    if let (LeaseEnd::Revoked, LeaseHolder::Attempt(attempt), true) = (end, row.holder, tells_node(ground)) {
        // Read here: an earlier lease of the same sweep may have changed it.
        let found = control.store.get_json::<JobRow>(tenant, Kind::JOB, attempt.job).await.map_err(Failure::internal)?;
        let node = found.as_ref().and_then(|(_, job)| job.live()).map(|live| live.node);
        // A revoked node is told nothing any more: its attempt ends with its run lease, and the job may go on elsewhere.
        let hears = match node {
            Some(node) => control.node(node).await?.is_some_and(|(_, row)| !row.revoked),
            None => false,
        };
        if let Some((job_stored, mut job)) = found
            && hears
            && job.desired != Desired::RevokeKeys
            && job.live().is_some_and(|live| live.number == attempt.attempt)
        {
            job.desired = Desired::RevokeKeys;
            transaction = transaction.with(job.put(Expect::Revision(job_stored.revision))?);
            told = true;
        }
    }
    control.store.commit(transaction, now).await.map_err(commit_failure)?;
    if told {
        control.fleet.wake.notify_one();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_millis(1_000_000);

    fn attempt(change: impl FnOnce(&mut (bool, bool, bool, bool, UnixTime))) -> HolderGround {
        let mut parts = (false, true, false, false, NOW.plus_millis(10));
        change(&mut parts);
        let (over, newest, node_revoked, keys_revoked, run_lease_until) = parts;
        HolderGround::Attempt { over, newest, node_revoked, keys_revoked, run_lease_until }
    }

    fn on(holder: HolderGround) -> Ground {
        Ground { openable: true, suspended: false, until: NOW.plus_millis(10), holder }
    }

    #[test]
    fn each_ground_ends_a_lease_in_its_own_way() {
        use LeaseEnd::{Expired, Released, Revoked};
        let person = HolderGround::Principal;
        for (ground, verdict) in [
            (on(person), Verdict::Keep),
            (Ground { until: NOW, ..on(person) }, Verdict::End(Expired)),
            (Ground { suspended: true, ..on(person) }, Verdict::End(Revoked)),
            (Ground { openable: false, ..on(person) }, Verdict::End(Revoked)),
            (on(HolderGround::Gone), Verdict::End(Revoked)),
            (on(attempt(|_| ())), Verdict::Keep),
            // Its node reported: the run lease was renewed, and the key lease with it.
            (on(attempt(|a| a.4 = NOW.plus_millis(99))), Verdict::Renew(NOW.plus_millis(99))),
            (Ground { until: NOW, ..on(attempt(|a| a.4 = NOW.plus_millis(99))) }, Verdict::Renew(NOW.plus_millis(99))),
            // A dead agent, or a control plane that was away: nobody renewed the run lease.
            (on(attempt(|a| a.4 = NOW)), Verdict::End(Expired)),
            (on(attempt(|a| a.1 = false)), Verdict::End(Expired)),
            (on(attempt(|a| a.2 = true)), Verdict::End(Revoked)),
            (on(attempt(|a| a.3 = true)), Verdict::End(Revoked)),
            (Ground { suspended: true, ..on(attempt(|_| ())) }, Verdict::End(Revoked)),
            (Ground { openable: false, ..on(attempt(|_| ())) }, Verdict::End(Revoked)),
            (on(attempt(|a| (a.0, a.2) = (true, true))), Verdict::End(Revoked)),
            // What ended by itself was not revoked, whatever happened to its volume since.
            (Ground { openable: false, suspended: true, ..on(attempt(|a| a.0 = true)) }, Verdict::End(Released)),
        ] {
            assert_eq!(judge(ground, NOW), verdict, "{ground:?}");
        }
    }

    #[test]
    fn the_job_of_a_revoked_node_is_not_stopped_with_its_keys() {
        assert!(tells_node(on(attempt(|_| ()))));
        assert!(!tells_node(on(attempt(|a| a.2 = true))));
    }

    #[test]
    fn a_writer_brings_a_signer_and_a_reader_none() {
        let key = STANDARD.encode([7; 32]);
        let ask = |mode, signer: Option<&str>| LeaseRequest { mode, purpose: None, recipient: key.clone(), signer: signer.map(str::to_owned) };
        assert_eq!(asked_keys(&ask(LeaseMode::Read, None)).unwrap(), ([7; 32], None));
        assert_eq!(asked_keys(&ask(LeaseMode::Write, Some(&key))).unwrap(), ([7; 32], Some([7; 32])));
        for refused in [ask(LeaseMode::Write, None), ask(LeaseMode::Read, Some(&key)), ask(LeaseMode::Write, Some("AAAA"))] {
            assert_eq!(asked_keys(&refused).unwrap_err().problem.code, ErrorCode::InvalidRequest);
        }
        let long = LeaseRequest { recipient: "A".repeat(1 << 20), ..ask(LeaseMode::Read, None) };
        assert!(asked_keys(&long).is_err());
    }
}
