//! Policy sets: one per tenant, and one for the platform. Parsed and validated strictly when they are made.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use cedar_policy::{Entity, EntityTypeName, EntityUid, Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use serde_json::json;
use vocabulary::{SYSTEM_OWNER, Sensitivity, TenantId};

use crate::action::{ALL_ACTIONS, EntityKind};
use crate::explain::{Rule, quoted};
use crate::facts::FactsError;
use crate::own::{self, OwnPolicies, OwnPolicyError};
use crate::role::Role;
use crate::scope::{self, Scope, Scoped};

const SCHEMA: &str = include_str!("../../../policies/schema.cedarschema");
const GUARDRAILS: &str = include_str!("../../../policies/guardrails.cedar");
const COMMON: &str = include_str!("../../../policies/common.cedar");
const PLATFORM: &str = include_str!("../../../policies/platform.cedar");
const MEMBERS: &str = include_str!("../../../policies/members.cedar");
const MIN_TRUST: &str = include_str!("../../../policies/min_trust.json");

/// The kinds of entity that facts become.
const KINDS: [&str; 14] = [
    "Platform", "Provider", "Tenant", "Project", "Role", "User", "ServiceAccount", "Operator", "Node", "Image", "Volume", "Job", "Secret", "Key",
];

/// The version of the built-in rules. Raise it with every change of a file in `policies/`: it is the epoch in entries and receipts.
pub const BUILT_IN_EPOCH: u64 = 1;

/// A tenant that nobody has.
const NOBODY: TenantId = TenantId::from_bytes([0xff; 16]);

/// Rules do not fit together; for the built-in ones the program refuses to start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// The schema or a policy does not parse.
    #[error("a built-in rule does not parse: {0}")]
    Parse(String),
    /// A policy does not fit the schema. Warnings count.
    #[error("a built-in rule does not fit the schema: {0}")]
    Validate(String),
    /// The owner of the deployment's own keys has no policies.
    #[error("the reserved owner `system` has no policies")]
    System,
    /// A revision that is not newer: an older set would come back.
    #[error("policy epoch {asked} is not above {known}")]
    Stale {
        /// The epoch that was asked for.
        asked: u64,
        /// The epoch that is active.
        known: u64,
    },
}

/// An action, the principal's kind and the resource's.
type ScopeKey = (&'static str, EntityKind, EntityKind);

/// The prepared set of one tenant, or of the platform.
#[derive(Debug)]
pub struct TenantPolicies {
    pub(crate) all: PolicySet,
    pub(crate) epoch: u64,
    /// What of it can speak about a request of this scope, made when one is first asked about. As many as there are actions,
    /// kinds of principals and kinds of resources that fit together.
    scoped: RwLock<BTreeMap<ScopeKey, Arc<Scoped>>>,
}

impl TenantPolicies {
    /// Its epoch.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }
    /// The rules whose scope has room for this action, by this kind of principal, on this kind of resource.
    pub(crate) fn scoped(
        &self,
        sets: &PolicySets,
        action: &'static str,
        principal: EntityKind,
        resource: EntityKind,
    ) -> Result<Arc<Scoped>, FactsError> {
        let key = (action, principal, resource);
        if let Some(found) = self.scoped.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Arc::clone(found));
        }
        let scope = Scope {
            action: sets.action(action)?,
            principal: &sets.kind(principal.as_str())?,
            resource: &sets.kind(resource.as_str())?,
        };
        let made = Arc::new(scope::cut(&self.all, &scope)?);
        Ok(Arc::clone(self.scoped.write().unwrap_or_else(PoisonError::into_inner).entry(key).or_insert(made)))
    }
    /// Its rules, by id.
    #[must_use]
    pub fn rules(&self) -> Vec<Rule> {
        let mut rules: Vec<Rule> = self.all.policies().map(|policy| Rule { id: policy.id().to_string(), text: policy.to_string() }).collect();
        rules.sort_by(|a, b| a.id.cmp(&b.id));
        rules
    }
}

/// An action as the schema has it.
#[derive(Debug)]
pub(crate) struct ActionEntities {
    pub(crate) uid: EntityUid,
    /// Itself and the groups that it is in.
    pub(crate) entities: Vec<Entity>,
}

/// All sets of the deployment, made when they are first asked for. A principal is always judged under its own tenant's.
#[derive(Debug)]
pub struct PolicySets {
    pub(crate) schema: Schema,
    validator: Validator,
    pub(crate) trust_defaults: BTreeMap<Sensitivity, u8>,
    kinds: BTreeMap<&'static str, EntityTypeName>,
    actions: BTreeMap<&'static str, ActionEntities>,
    guardrails: PolicySet,
    platform: Vec<Policy>,
    members: Vec<Policy>,
    tenants: RwLock<BTreeMap<Option<TenantId>, Arc<TenantPolicies>>>,
}

impl PolicySets {
    /// Parses and validates the built-in rules.
    pub fn new() -> Result<Self, SetError> {
        let (schema, mut warnings) = Schema::from_cedarschema_str(SCHEMA).map_err(|error| SetError::Parse(error.to_string()))?;
        if let Some(warning) = warnings.next() {
            return Err(SetError::Validate(warning.to_string()));
        }
        drop(warnings);
        let parse = |error: &dyn std::fmt::Display| SetError::Parse(error.to_string());
        let mut kinds = BTreeMap::new();
        for kind in KINDS {
            kinds.insert(kind, format!("Swarm::{kind}").parse().map_err(|error| parse(&error))?);
        }
        let known = schema.action_entities().map_err(|error| parse(&error))?;
        let mut actions = BTreeMap::new();
        for info in ALL_ACTIONS {
            let uid: EntityUid = format!("Swarm::Action::\"{}\"", info.name).parse().map_err(|error| parse(&error))?;
            let groups = known.ancestors(&uid).into_iter().flatten().filter_map(|group| known.get(group));
            let entities: Vec<Entity> = known.get(&uid).into_iter().chain(groups).cloned().collect();
            if entities.is_empty() {
                return Err(SetError::Validate(format!("the schema has no action `{}`", info.name)));
            }
            actions.insert(info.name, ActionEntities { uid, entities });
        }
        let mut guardrails = PolicySet::new();
        for policy in named(GUARDRAILS)?.into_iter().chain(named(COMMON)?) {
            guardrails.add(policy).map_err(|error| parse(&error))?;
        }
        let levels = [Sensitivity::Public, Sensitivity::Internal, Sensitivity::Confidential, Sensitivity::Regulated];
        let sets = Self {
            validator: Validator::new(schema.clone()),
            schema,
            trust_defaults: levels.into_iter().map(|level| (level, default_min_trust(level))).collect(),
            kinds,
            actions,
            guardrails,
            platform: named(PLATFORM)?,
            members: named(MEMBERS)?,
            tenants: RwLock::new(BTreeMap::new()),
        };
        // Everything that is built in, once; validation looks at each rule alone. A tenant's roles and its own rules follow
        // when its set is made.
        sets.valid(&sets.guardrails)?;
        sets.valid(&PolicySet::from_policies(sets.platform.iter().chain(&sets.members).cloned()).map_err(|error| parse(&error))?)?;
        sets.prepare(Some(NOBODY), None, BUILT_IN_EPOCH)?;
        Ok(sets)
    }

    /// The set under which principals of this tenant are judged; `None` is that of operators and nodes.
    pub fn of(&self, tenant: Option<TenantId>) -> Result<Arc<TenantPolicies>, SetError> {
        if let Some(found) = self.tenants.read().unwrap_or_else(PoisonError::into_inner).get(&tenant) {
            return Ok(Arc::clone(found));
        }
        let made = Arc::new(self.prepare(tenant, None, BUILT_IN_EPOCH)?);
        let mut sets = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have installed the tenant's own rules meanwhile: theirs stay.
        Ok(Arc::clone(sets.entry(tenant).or_insert(made)))
    }

    /// The policy epoch of a tenant's set.
    pub fn epoch(&self, tenant: Option<TenantId>) -> Result<u64, SetError> {
        Ok(self.of(tenant)?.epoch)
    }

    /// Reads a tenant's own policies: bounded, parsed and validated strictly. Changes nothing.
    pub fn check_own(&self, text: &str) -> Result<OwnPolicies, OwnPolicyError> {
        let reserved = self.of(Some(NOBODY)).map_err(|error| OwnPolicyError::Parse(error.to_string()))?;
        let own = own::parse(text, &reserved.all)?;
        let alone = PolicySet::from_policies(own.policies.iter().cloned()).map_err(|error| OwnPolicyError::Parse(quoted(&error.to_string())))?;
        let id = |id: &PolicyId| quoted(id.to_string().trim_start_matches("own/"));
        let result = self.validator.validate(&alone, ValidationMode::Strict);
        if let Some(error) = result.validation_errors().next() {
            return Err(OwnPolicyError::Validate { id: id(error.policy_id()), rule: quoted(&error.to_string()) });
        }
        if let Some(warning) = result.validation_warnings().next() {
            return Err(OwnPolicyError::Validate { id: id(warning.policy_id()), rule: quoted(&warning.to_string()) });
        }
        Ok(own)
    }

    /// Makes a tenant's own policies active beside the guardrails and the roles, under a new policy epoch, which is returned.
    /// `revision` counts the tenant's changes from 1 and only rises. After a start this comes before the first decision.
    pub fn install(&self, tenant: TenantId, own: &OwnPolicies, revision: u64) -> Result<u64, SetError> {
        if tenant == SYSTEM_OWNER {
            return Err(SetError::System);
        }
        // Both terms only rise, so no two sets of a tenant share an epoch.
        let epoch = BUILT_IN_EPOCH.saturating_add(revision);
        let made = Arc::new(self.prepare(Some(tenant), Some(own), epoch)?);
        let mut sets = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        let known = sets.get(&Some(tenant)).map_or(BUILT_IN_EPOCH, |set| set.epoch);
        if epoch <= known {
            return Err(SetError::Stale { asked: epoch, known });
        }
        sets.insert(Some(tenant), made);
        Ok(epoch)
    }

    /// An action's id in the schema.
    pub(crate) fn action(&self, name: &str) -> Result<&ActionEntities, FactsError> {
        self.actions.get(name).ok_or_else(|| FactsError::new("unknown action"))
    }
    /// A kind of entity in the schema.
    pub(crate) fn kind(&self, name: &str) -> Result<EntityTypeName, FactsError> {
        self.kinds.get(name).cloned().ok_or_else(|| FactsError::new("unknown kind"))
    }

    /// Refuses what does not fit the schema; a warning is a refusal.
    fn valid(&self, set: &PolicySet) -> Result<(), SetError> {
        let result = self.validator.validate(set, ValidationMode::Strict);
        if let Some(error) = result.validation_errors().next() {
            return Err(SetError::Validate(error.to_string()));
        }
        result.validation_warnings().next().map_or(Ok(()), |warning| Err(SetError::Validate(warning.to_string())))
    }

    fn prepare(&self, tenant: Option<TenantId>, own: Option<&OwnPolicies>, epoch: u64) -> Result<TenantPolicies, SetError> {
        let parse = |error: &dyn std::fmt::Display| SetError::Parse(error.to_string());
        let mut special: Vec<Policy> = own.map_or_else(Vec::new, |own| own.policies.clone());
        if let Some(tenant) = tenant {
            for role in Role::ALL {
                special.push(written_out(tenant, role)?);
            }
        }
        self.valid(&PolicySet::from_policies(special.iter().cloned()).map_err(|error| parse(&error))?)?;
        let mut all = self.guardrails.clone();
        for policy in if tenant.is_some() { &self.members } else { &self.platform }.iter().cloned().chain(special) {
            all.add(policy).map_err(|error| parse(&error))?;
        }
        Ok(TenantPolicies { all, epoch, scoped: RwLock::new(BTreeMap::new()) })
    }
}

/// The policies of a built-in file, each under its `@id`.
fn named(text: &str) -> Result<Vec<Policy>, SetError> {
    let parsed: PolicySet = text.parse().map_err(|error: cedar_policy::ParseErrors| SetError::Parse(error.to_string()))?;
    parsed
        .policies()
        .map(|policy| {
            let id = policy.annotation("id").ok_or_else(|| SetError::Parse("a rule without @id".to_owned()))?;
            Ok(policy.new_id(PolicyId::new(id)))
        })
        .collect()
}

/// A role of a tenant as a static policy: from typed ids through Cedar's JSON form, never by text, so no name becomes a rule.
fn written_out(tenant: TenantId, role: Role) -> Result<Policy, SetError> {
    let id = format!("role-{}", role.as_str());
    let actions: Vec<_> = role.groups().iter().chain(role.actions()).map(|name| json!({"type": "Swarm::Action", "id": name})).collect();
    let rule = json!({
        "effect": "permit",
        "annotations": {"id": id},
        "principal": {"op": "in", "entity": {"type": "Swarm::Role", "id": format!("{tenant}/{}", role.as_str())}},
        "action": {"op": "in", "entities": actions},
        "resource": {"op": "in", "entity": {"type": "Swarm::Tenant", "id": tenant.to_string()}},
        "conditions": [],
    });
    Policy::from_json(Some(PolicyId::new(id)), rule).map_err(|error| SetError::Parse(error.to_string()))
}

/// The least trust that data of this sensitivity asks of a node, unless its owner says otherwise (`policies/min_trust.json`).
#[must_use]
pub fn default_min_trust(sensitivity: Sensitivity) -> u8 {
    let table: serde_json::Value = serde_json::from_str(MIN_TRUST).unwrap_or_default();
    table
        .get("default_min_trust")
        .and_then(|levels| levels.get(sensitivity.as_str()))
        .and_then(serde_json::Value::as_u64)
        .and_then(|level| u8::try_from(level).ok())
        // What the table does not say is refused to everybody without the highest trust.
        .unwrap_or(2)
}
