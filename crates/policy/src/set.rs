//! Policy sets: one per tenant, and one for the platform. Parsed and validated strictly when they are made.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use cedar_policy::{Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use serde_json::json;
use vocabulary::{Sensitivity, TenantId};

use crate::role::Role;

const SCHEMA: &str = include_str!("../../../policies/schema.cedarschema");
const GUARDRAILS: &str = include_str!("../../../policies/guardrails.cedar");
const COMMON: &str = include_str!("../../../policies/common.cedar");
const MIN_TRUST: &str = include_str!("../../../policies/min_trust.json");

/// The built-in rules do not fit together; the program refuses to start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// The schema or a policy does not parse.
    #[error("a built-in rule does not parse: {0}")]
    Parse(String),
    /// A policy does not fit the schema. Warnings count.
    #[error("a built-in rule does not fit the schema: {0}")]
    Validate(String),
}

/// One prepared set.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) set: PolicySet,
    pub(crate) epoch: u64,
}

/// All sets of the deployment, made when they are first asked for.
#[derive(Debug)]
pub struct PolicySets {
    pub(crate) schema: Schema,
    base: PolicySet,
    tenants: RwLock<BTreeMap<Option<TenantId>, Arc<Prepared>>>,
}

/// The version of the built-in rules. Raise it with every change of a file in `policies/`: it is the epoch in entries and receipts.
pub const BUILT_IN_EPOCH: u64 = 1;

impl PolicySets {
    /// Parses and validates the built-in rules.
    pub fn new() -> Result<Self, SetError> {
        let parse = |error: &dyn std::fmt::Display| SetError::Parse(error.to_string());
        let (schema, warnings) = Schema::from_cedarschema_str(SCHEMA).map_err(|error| parse(&error))?;
        if let Some(warning) = warnings.into_iter().next() {
            return Err(SetError::Validate(warning.to_string()));
        }
        let mut base = PolicySet::new();
        for text in [GUARDRAILS, COMMON] {
            let parsed: PolicySet = text.parse().map_err(|error| parse(&error))?;
            for policy in parsed.policies() {
                let id = policy.annotation("id").ok_or_else(|| SetError::Parse("a rule without @id".to_owned()))?;
                base.add(policy.new_id(PolicyId::new(id))).map_err(|error| parse(&error))?;
            }
        }
        let sets = Self { schema, base, tenants: RwLock::new(BTreeMap::new()) };
        // A tenant that nobody has shows that every role's rule fits the schema.
        sets.prepare(Some(TenantId::from_bytes([0xff; 16])))?;
        Ok(sets)
    }

    /// The set under which a principal of this tenant is judged; `None` for operators and nodes.
    pub(crate) fn of(&self, tenant: Option<TenantId>) -> Result<Arc<Prepared>, SetError> {
        if let Some(found) = self.tenants.read().ok().and_then(|sets| sets.get(&tenant).map(Arc::clone)) {
            return Ok(found);
        }
        let made = Arc::new(self.prepare(tenant)?);
        if let Ok(mut sets) = self.tenants.write() {
            sets.insert(tenant, Arc::clone(&made));
        }
        Ok(made)
    }

    /// The policy epoch of a tenant's set.
    pub fn epoch(&self, tenant: Option<TenantId>) -> Result<u64, SetError> {
        Ok(self.of(tenant)?.epoch)
    }

    fn prepare(&self, tenant: Option<TenantId>) -> Result<Prepared, SetError> {
        let mut set = self.base.clone();
        if let Some(tenant) = tenant {
            for role in Role::ALL {
                let id = format!("role-{}", role.as_str());
                let actions: Vec<_> = role
                    .groups()
                    .iter()
                    .chain(role.actions())
                    .map(|name| json!({"type": "Swarm::Action", "id": name}))
                    .collect();
                // From typed ids through Cedar's JSON form, never by text: a name cannot become a rule.
                let rule = json!({
                    "effect": "permit",
                    "annotations": {"id": id},
                    "principal": {"op": "in", "entity": {"type": "Swarm::Role", "id": format!("{tenant}/{}", role.as_str())}},
                    "action": {"op": "in", "entities": actions},
                    "resource": {"op": "in", "entity": {"type": "Swarm::Tenant", "id": tenant.to_string()}},
                    "conditions": [],
                });
                let policy = Policy::from_json(Some(PolicyId::new(id)), rule).map_err(|error| SetError::Parse(error.to_string()))?;
                set.add(policy).map_err(|error| SetError::Parse(error.to_string()))?;
            }
        }
        let result = Validator::new(self.schema.clone()).validate(&set, ValidationMode::Strict);
        if let Some(error) = result.validation_errors().next() {
            return Err(SetError::Validate(error.to_string()));
        }
        if let Some(warning) = result.validation_warnings().next() {
            return Err(SetError::Validate(warning.to_string()));
        }
        Ok(Prepared { set, epoch: BUILT_IN_EPOCH })
    }
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
