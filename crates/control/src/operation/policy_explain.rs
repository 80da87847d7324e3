//! `swarm policy explain`: what would be decided, and why.

use policy::action::PolicyExplain as Explain;
use audit::Event;
use policy::{CallFacts, Facts, Resource, SetFacts};
use store::EntryRow;
use vocabulary::api::{PolicyExplain, PolicyExplained, RuleText};
use vocabulary::{PrincipalId, SecretId, VolumeId};

use crate::api::call::Call;
use crate::api::problem::Failure;
use crate::operation::attempt::own_rule;
use crate::operation::volume::resource;
use crate::state::Control;

impl Control {
    /// A recorded refusal as it was recorded: its rules, with their text in the set of today. `None` for entries of other kinds.
    fn recorded(&self, tenant: SetFacts, entry: &EntryRow) -> Result<Option<PolicyExplained>, Failure> {
        let body: serde_json::Value = serde_json::from_slice(&entry.body).map_err(Failure::internal)?;
        let event = body.pointer("/unmapped/swarm/event").cloned().unwrap_or_default();
        let Ok(Event::Refused { code, rules, .. }) = serde_json::from_value(event) else { return Ok(None) };
        let set = self.sets.of(Some(tenant.tenant)).map_err(Failure::internal)?;
        let known = set.rules();
        let text = |id: &str| match known.iter().find(|rule| rule.id == id) {
            Some(rule) => rule.text.clone(),
            None => own_rule(id).map_or_else(|| "this rule is no longer in the set".to_owned(), str::to_owned),
        };
        Ok(Some(PolicyExplained {
            decision: "refused".to_owned(),
            rules: rules.into_iter().map(|id| RuleText { text: text(&id), id }).collect(),
            next: vec![code.hint().to_owned()],
            policy_epoch: set.epoch(),
        }))
    }
}

/// Explains a recorded refusal, or what would be decided for a principal of the tenant.
pub(crate) async fn explain(call: Call<Explain>, question: PolicyExplain) -> Result<PolicyExplained, Failure> {
    let tenant = call.tenant()?;
    call.permit(Resource::Tenant(tenant), &[]).await?.spend();
    let control = &call.control;
    let member = call.member()?;
    let (principal, action, target): (PrincipalId, String, String) = match question.audit_index {
        Some(index) => {
            let entry = control.store.entry(tenant.tenant, index).await.map_err(Failure::internal)?.ok_or_else(Failure::not_found)?;
            if let Some(recorded) = control.recorded(tenant, &entry)? {
                return Ok(recorded);
            }
            let actor = entry.actor.ok_or_else(|| Failure::invalid("`audit_index`: that entry has no principal"))?;
            (actor, entry.action, format!("{}/{}", entry.resource_kind, entry.resource))
        }
        None => (
            question.principal.unwrap_or(member.principal),
            question.action.ok_or_else(|| Failure::invalid("`action` is missing"))?,
            question.resource.ok_or_else(|| Failure::invalid("`resource` is missing"))?,
        ),
    };
    let who = control.member(tenant.tenant, principal).await?.ok_or_else(Failure::not_found)?;
    let (kind, id) = target.split_once('/').unwrap_or((target.as_str(), ""));
    let mut person_purpose = None;
    let what = match kind {
        "tenant" if id.parse().is_ok_and(|id: vocabulary::TenantId| id == tenant.tenant) => Resource::Tenant(tenant),
        "tenant" => return Err(Failure::not_found()),
        "job" => {
            let (_, job) = control.job(tenant.tenant, id.parse().map_err(|_| Failure::not_found())?).await?;
            Resource::Job(job.facts(tenant, None))
        }
        "volume" => {
            let id: VolumeId = id.parse().map_err(|_| Failure::not_found())?;
            let (_, row) = control.volume(tenant.tenant, id).await?;
            if matches!(action.as_str(), "volumeRead" | "volumeVerify" | "volumeWrite") {
                person_purpose = Some(row.spec.purpose.clone());
            }
            resource(&row, tenant)
        }
        "user" | "serviceaccount" | "principal" => {
            let id: PrincipalId = id.parse().map_err(|_| Failure::not_found())?;
            Resource::Principal(control.member(tenant.tenant, id).await?.ok_or_else(Failure::not_found)?.facts())
        }
        "secret" => {
            let id: SecretId = id.parse().map_err(|_| Failure::not_found())?;
            crate::operation::secret::resource(&control.secret(tenant.tenant, id).await?.1, tenant)
        }
        "key" => Resource::Key { id: id.parse().map_err(|_| Failure::not_found())?, tenant },
        _ => return Err(Failure::invalid("`resource` is tenant/ID, volume/ID, job/ID, principal/ID, secret/ID or key/ID")),
    };
    let facts = Facts {
        principal: who.facts(),
        resource: what,
        call: CallFacts { acr: who.acr, mfa_age_s: None, request_bound: false, approvals: 0, production: control.profile == vocabulary::Profile::Production, source: None },
        release: None,
        person_purpose,
    };
    let explained = policy::explain(&control.sets, &facts, &action).map_err(|error| Failure::invalid(error.to_string()))?;
    Ok(PolicyExplained {
        decision: if explained.allowed { "allowed" } else { "refused" }.to_owned(),
        rules: explained.rules.into_iter().map(|rule| RuleText { id: rule.id, text: rule.text }).collect(),
        next: explained.next,
        policy_epoch: explained.epoch,
    })
}
