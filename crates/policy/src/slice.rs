//! Facts as Cedar's entities and context, built without any text templating.

use std::collections::{BTreeSet, HashMap, HashSet};

use cedar_policy::{Context, Entities, Entity, EntityId, EntityUid, RestrictedExpression};
use vocabulary::{Jurisdiction, PrincipalId, ProjectId, ProviderId, Sensitivity};

use crate::facts::{Facts, FactsError, JobFacts, NodeFacts, Principal, Resource, SetFacts};
use crate::role::{Role, RoleBinding};
use crate::set::{ActionEntities, PolicySets};

/// Entities, request parts: what the authorizer takes.
pub(crate) struct Built {
    pub(crate) principal: EntityUid,
    pub(crate) resource: EntityUid,
    pub(crate) context: Context,
    pub(crate) entities: Entities,
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}
fn long(value: impl Into<i64>) -> RestrictedExpression {
    RestrictedExpression::new_long(value.into())
}
fn labels(places: &BTreeSet<Jurisdiction>) -> RestrictedExpression {
    RestrictedExpression::new_set(places.iter().map(|place| text(place.as_str())))
}
fn entity(uid: EntityUid) -> RestrictedExpression {
    RestrictedExpression::new_entity_uid(uid)
}

/// The entities that one decision needs. Facts that tell of a tenant, a node or the principal in two ways are refused.
struct Slice<'a> {
    sets: &'a PolicySets,
    entities: Vec<Entity>,
    tenants: Vec<SetFacts>,
    nodes: Vec<NodeFacts>,
}

impl Slice<'_> {
    fn uid(&self, kind: &str, id: impl std::fmt::Display) -> Result<EntityUid, FactsError> {
        Ok(EntityUid::from_type_name_and_id(self.sets.kind(kind)?, EntityId::new(id.to_string())))
    }

    fn add(
        &mut self,
        uid: EntityUid,
        attributes: Vec<(&str, RestrictedExpression)>,
        parents: Vec<EntityUid>,
    ) -> Result<EntityUid, FactsError> {
        if self.entities.iter().any(|known| known.uid() == uid) {
            return Ok(uid);
        }
        let attributes: HashMap<String, RestrictedExpression> = attributes.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let parents: HashSet<EntityUid> = parents.into_iter().collect();
        self.entities.push(Entity::new(uid.clone(), attributes, parents).map_err(FactsError::new)?);
        Ok(uid)
    }

    fn tenant(&mut self, tenant: SetFacts) -> Result<EntityUid, FactsError> {
        match self.tenants.iter().find(|known| known.tenant == tenant.tenant) {
            Some(known) if *known != tenant => return Err(FactsError::new("a tenant is told of in two ways")),
            Some(_) => {}
            None => self.tenants.push(tenant),
        }
        let reserved = tenant.tenant == vocabulary::SYSTEM_OWNER;
        let uid = self.uid("Tenant", tenant.tenant)?;
        self.add(
            uid,
            vec![
                ("suspended", RestrictedExpression::new_bool(tenant.suspended)),
                ("reserved", RestrictedExpression::new_bool(reserved)),
            ],
            vec![],
        )
    }

    fn project(&mut self, project: ProjectId, tenant: &EntityUid) -> Result<EntityUid, FactsError> {
        let uid = self.uid("Project", project)?;
        self.add(uid, vec![("tenant", entity(tenant.clone()))], vec![tenant.clone()])
    }

    fn member(
        &mut self,
        kind: &str,
        id: PrincipalId,
        tenant: SetFacts,
        roles: &[RoleBinding],
        clearance: Sensitivity,
    ) -> Result<EntityUid, FactsError> {
        let tenant_uid = self.tenant(tenant)?;
        let mut parents = vec![tenant_uid.clone()];
        for binding in roles.iter().filter(|binding| binding.project.is_none()) {
            let role = self.uid("Role", format!("{}/{}", tenant.tenant, binding.role.as_str()))?;
            parents.push(self.add(role, vec![("tenant", entity(tenant_uid.clone()))], vec![])?);
        }
        let mut of = |wanted: Role| -> Result<RestrictedExpression, FactsError> {
            let mut projects = Vec::new();
            for binding in roles.iter().filter(|binding| binding.role == wanted) {
                if let Some(project) = binding.project {
                    projects.push(entity(self.project(project, &tenant_uid)?));
                }
            }
            Ok(RestrictedExpression::new_set(projects))
        };
        let (admin, engineer, viewer) = (of(Role::Admin)?, of(Role::Engineer)?, of(Role::Viewer)?);
        let uid = self.uid(kind, id)?;
        self.add(
            uid,
            vec![
                ("tenant", entity(tenant_uid)),
                ("clearance", long(clearance.level())),
                ("adminIn", admin),
                ("engineerIn", engineer),
                ("viewerIn", viewer),
            ],
            parents,
        )
    }

    fn provider(&mut self, provider: ProviderId) -> Result<EntityUid, FactsError> {
        let uid = self.uid("Provider", provider)?;
        self.add(uid, vec![], vec![])
    }

    fn node(&mut self, node: &NodeFacts) -> Result<EntityUid, FactsError> {
        match self.nodes.iter().find(|known| known.id == node.id) {
            Some(known) if known != node => return Err(FactsError::new("a node is told of in two ways")),
            Some(_) => {}
            None => self.nodes.push(node.clone()),
        }
        let mut attributes = vec![
            ("region", text(node.region.as_str())),
            ("jurisdiction", text(node.jurisdiction.as_str())),
            ("trust", long(node.trust)),
        ];
        if let Some(provider) = node.provider {
            attributes.push(("provider", entity(self.provider(provider)?)));
        }
        let uid = self.uid("Node", node.id)?;
        self.add(uid, attributes, vec![])
    }

    fn job(&mut self, job: &JobFacts) -> Result<EntityUid, FactsError> {
        let tenant = self.tenant(job.tenant)?;
        let project = self.project(job.project, &tenant)?;
        let mut attributes = vec![
            ("tenant", entity(tenant.clone())),
            ("project", entity(project.clone())),
            ("sensitivity", long(job.sensitivity.level())),
            // A job is cleared for as much as it was admitted for.
            ("clearance", long(job.sensitivity.level())),
            ("purpose", text(job.purpose.as_str())),
            ("jurisdictions", labels(&job.jurisdictions)),
            ("runtime", text(job.runtime.as_str())),
            ("gpus", long(job.gpus)),
            ("grants", RestrictedExpression::new_set(job.grants.iter().map(|grant| text(grant.as_str())))),
        ];
        if let Some(region) = &job.region {
            attributes.push(("region", text(region.as_str())));
        }
        if let Some(node) = &job.node {
            attributes.push(("node", entity(self.node(node)?)));
        }
        let uid = self.uid("Job", job.id)?;
        self.add(uid, attributes, vec![project, tenant])
    }

    fn principal(&mut self, principal: &Principal) -> Result<EntityUid, FactsError> {
        match principal {
            Principal::User { id, tenant, roles, clearance } => self.member("User", *id, *tenant, roles, *clearance),
            Principal::ServiceAccount { id, tenant, roles, clearance } => {
                self.member("ServiceAccount", *id, *tenant, roles, *clearance)
            }
            Principal::Operator { id, provider } => {
                let attributes = match provider {
                    Some(provider) => vec![("provider", entity(self.provider(*provider)?))],
                    None => vec![],
                };
                let uid = self.uid("Operator", id)?;
                self.add(uid, attributes, vec![])
            }
            Principal::Node(node) => self.node(node),
            Principal::Job(job) => self.job(job),
        }
    }

    fn resource(&mut self, resource: &Resource) -> Result<EntityUid, FactsError> {
        match resource {
            Resource::Platform => {
                let uid = self.uid("Platform", "platform")?;
                self.add(uid, vec![], vec![])
            }
            Resource::Tenant(tenant) => self.tenant(*tenant),
            Resource::Volume { id, tenant, project, sensitivity, purpose, region, jurisdictions, min_trust, readers } => {
                let tenant = self.tenant(*tenant)?;
                let project = self.project(*project, &tenant)?;
                let uid = self.uid("Volume", id)?;
                // A sensitivity that the table does not know asks for the highest trust.
                let trust_default = self.sets.trust_defaults.get(sensitivity).copied().unwrap_or(2);
                let named: Result<Vec<_>, _> = readers.iter().map(|reader| self.uid("User", reader).map(entity)).collect();
                self.add(
                    uid,
                    vec![
                        ("tenant", entity(tenant.clone())),
                        ("project", entity(project.clone())),
                        ("sensitivity", long(sensitivity.level())),
                        ("purpose", text(purpose.as_str())),
                        ("region", text(region.as_str())),
                        ("jurisdictions", labels(jurisdictions)),
                        ("minTrust", long(*min_trust)),
                        ("trustDefault", long(trust_default)),
                        ("readers", RestrictedExpression::new_set(named?)),
                    ],
                    vec![project, tenant],
                )
            }
            Resource::Job(job) => self.job(job),
            Resource::Image { id, tenant } => {
                let tenant = self.tenant(*tenant)?;
                let uid = self.uid("Image", id)?;
                self.add(uid, vec![("tenant", entity(tenant.clone()))], vec![tenant])
            }
            Resource::Secret { id, tenant, project, jobs, pulls } => {
                let tenant = self.tenant(*tenant)?;
                let project = self.project(*project, &tenant)?;
                let uid = self.uid("Secret", id)?;
                self.add(
                    uid,
                    vec![
                        ("tenant", entity(tenant.clone())),
                        ("project", entity(project.clone())),
                        ("jobs", RestrictedExpression::new_bool(*jobs)),
                        ("pulls", RestrictedExpression::new_bool(*pulls)),
                    ],
                    vec![project, tenant],
                )
            }
            Resource::Key { id, tenant } => {
                let tenant = self.tenant(*tenant)?;
                let uid = self.uid("Key", id)?;
                self.add(uid, vec![("tenant", entity(tenant.clone()))], vec![tenant])
            }
            Resource::Node(node) => self.node(node),
            Resource::Principal(principal) => self.principal(principal),
        }
    }
}

/// Seconds as Cedar's number: what is unknown or does not fit is negative, and negative ages are refused.
fn age(seconds: Option<u64>) -> RestrictedExpression {
    long(seconds.and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or(-1))
}

impl Facts {
    /// Entities and context of the schema. The request made of them is checked against it.
    pub(crate) fn build(&self, sets: &PolicySets, action: &ActionEntities, approvals: u32) -> Result<Built, FactsError> {
        if let Resource::Principal(resource) = &self.resource
            && *resource != self.principal
            && self.resource.label() == self.principal.label()
        {
            return Err(FactsError::new("the principal is told of in two ways"));
        }
        let mut slice = Slice { sets, entities: Vec::with_capacity(8), tenants: Vec::new(), nodes: Vec::new() };
        let principal = slice.principal(&self.principal)?;
        let resource = slice.resource(&self.resource)?;
        let call = &self.call;
        let flag = RestrictedExpression::new_bool;
        let mut pairs: Vec<(&str, RestrictedExpression)> = vec![("production", flag(call.production))];
        if let Some(release) = &self.release {
            let node = slice.node(&release.node)?;
            pairs.extend([
                ("node", entity(node)),
                ("attested", flag(release.attested)),
                ("simulated", flag(release.simulated)),
                ("evidenceAge", age(release.evidence_age_s)),
                ("purpose", text(release.purpose.as_str())),
            ]);
        } else {
            pairs.extend([
                ("acr", long(call.acr)),
                ("mfaAge", age(call.mfa_age_s)),
                ("requestBound", flag(call.request_bound)),
                ("approvals", long(approvals)),
            ]);
            if let Some(source) = call.source {
                pairs.push(("src", RestrictedExpression::new_ip(source.to_string())));
            }
            if let Some(purpose) = &self.person_purpose {
                pairs.push(("purpose", text(purpose.as_str())));
            }
        }
        let context = Context::from_pairs(pairs.into_iter().map(|(key, value)| (key.to_owned(), value))).map_err(FactsError::new)?;
        // Each entity above has the attributes of its kind, with their types: that is checked here wherever assertions are, and
        // by a test for every kind. In between, to check it would cost as much as the decision. The request is checked always.
        if cfg!(debug_assertions) {
            Entities::from_entities(slice.entities.iter().cloned(), Some(&sets.schema)).map_err(FactsError::new)?;
        }
        // Without the schema, which would bring all of its actions: the one that is asked about and its groups are enough.
        let entities = slice.entities.into_iter().chain(action.entities.iter().cloned());
        let entities = Entities::from_entities(entities, None).map_err(FactsError::new)?;
        Ok(Built { principal, resource, context, entities })
    }
}
