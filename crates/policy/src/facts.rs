//! What a decision is made from: typed facts, built into Cedar entities without any text templating.

use std::collections::{BTreeSet, HashMap, HashSet};

use cedar_policy::{Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression, Schema};
use vocabulary::{ImageId, JobId, Jurisdiction, KeyId, NodeId, PrincipalId, ProjectId, ProviderId, Purpose, Region, Sensitivity, TenantId, VolumeId};

use crate::role::{Role, RoleBinding};

/// A tenant, as far as rules ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetFacts {
    /// The tenant.
    pub tenant: TenantId,
    /// Whether it is suspended.
    pub suspended: bool,
}

/// Who wants something.
#[derive(Debug, Clone)]
pub enum Principal {
    /// A person in one tenant.
    User {
        /// The principal.
        id: PrincipalId,
        /// Its tenant.
        tenant: SetFacts,
        /// Its roles.
        roles: Vec<RoleBinding>,
        /// Its clearance.
        clearance: Sensitivity,
    },
    /// A program in one tenant.
    ServiceAccount {
        /// The principal.
        id: PrincipalId,
        /// Its tenant.
        tenant: SetFacts,
        /// Its roles.
        roles: Vec<RoleBinding>,
        /// Its clearance.
        clearance: Sensitivity,
    },
    /// Platform staff.
    Operator {
        /// The principal.
        id: PrincipalId,
        /// Set for a provider's staff.
        provider: Option<ProviderId>,
    },
    /// A node.
    Node(NodeFacts),
    /// A job that asks for a key.
    Job(JobFacts),
}

/// A node, as far as rules ask.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    /// The node.
    pub id: NodeId,
    /// Who owns it.
    pub provider: Option<ProviderId>,
    /// Its region.
    pub region: Region,
    /// Its jurisdiction.
    pub jurisdiction: Jurisdiction,
    /// What its evidence earned it.
    pub trust: u8,
}

/// A job, as far as rules ask.
#[derive(Debug, Clone)]
pub struct JobFacts {
    /// The job.
    pub id: JobId,
    /// Its tenant.
    pub tenant: SetFacts,
    /// Its project.
    pub project: ProjectId,
    /// How sensitive what it works on is.
    pub sensitivity: Sensitivity,
    /// The node on which its newest attempt is placed.
    pub node: Option<NodeFacts>,
}

/// What it is wanted of.
#[derive(Debug, Clone)]
pub enum Resource {
    /// The deployment.
    Platform,
    /// A tenant.
    Tenant(SetFacts),
    /// A volume.
    Volume {
        /// The volume.
        id: VolumeId,
        /// Its tenant.
        tenant: SetFacts,
        /// Its project.
        project: ProjectId,
        /// How sensitive it is.
        sensitivity: Sensitivity,
        /// What it may be used for.
        purpose: Purpose,
        /// Where it may be opened; empty means anywhere.
        jurisdictions: BTreeSet<Jurisdiction>,
        /// The least trust of a node that may open it.
        min_trust: u8,
    },
    /// A job.
    Job(JobFacts),
    /// An image.
    Image {
        /// The image.
        id: ImageId,
        /// Its tenant.
        tenant: SetFacts,
    },
    /// A key.
    Key {
        /// The key.
        id: KeyId,
        /// Its tenant.
        tenant: SetFacts,
    },
    /// A node.
    Node(NodeFacts),
    /// A principal: oneself, or one that is administered.
    Principal(Principal),
}

/// What is known of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallFacts {
    /// 0 machine, 1 password and TOTP, 2 passkey.
    pub acr: u8,
    /// Seconds since a factor was shown; `None` where none was, or where the clock went back.
    pub mfa_age_s: Option<u64>,
    /// Whether the factor was bound to this very request.
    pub request_bound: bool,
    /// Approvals by other persons.
    pub approvals: u32,
    /// Whether the deployment's profile is `production`.
    pub production: bool,
}

/// What is known of a release to a job.
#[derive(Debug, Clone)]
pub struct ReleaseFacts {
    /// Where the job is placed.
    pub node: NodeFacts,
    /// Set by the enclave room alone; it does not exist yet, so this is `false`.
    pub attested: bool,
    /// Seconds since the evidence.
    pub evidence_age_s: Option<u64>,
    /// The job's purpose, from its stored spec.
    pub purpose: Purpose,
}

/// Everything a decision is made from.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Who.
    pub principal: Principal,
    /// Of what.
    pub resource: Resource,
    /// The request.
    pub call: CallFacts,
    /// For `keyRelease`.
    pub release: Option<ReleaseFacts>,
    /// For the release of a volume's keys to a person: the purpose that the person named.
    pub person_purpose: Option<Purpose>,
}

/// The facts do not make entities of the schema; always a defect of the caller, and always a refusal.
#[derive(Debug, thiserror::Error)]
#[error("the facts do not fit the schema: {0}")]
pub struct FactsError(String);

impl FactsError {
    pub(crate) fn new(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// Entities, request parts: what the authorizer takes.
pub(crate) struct Built {
    pub(crate) principal: EntityUid,
    pub(crate) resource: EntityUid,
    pub(crate) context: Context,
    pub(crate) entities: Entities,
}

pub(crate) fn uid(kind: &str, id: impl std::fmt::Display) -> Result<EntityUid, FactsError> {
    let kind: EntityTypeName = format!("Swarm::{kind}").parse().map_err(FactsError::new)?;
    Ok(EntityUid::from_type_name_and_id(kind, EntityId::new(id.to_string())))
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}
fn long(value: impl Into<i64>) -> RestrictedExpression {
    RestrictedExpression::new_long(value.into())
}
fn entity(uid: EntityUid) -> RestrictedExpression {
    RestrictedExpression::new_entity_uid(uid)
}

struct Slice(Vec<Entity>);

impl Slice {
    fn add(
        &mut self,
        uid: EntityUid,
        attributes: Vec<(&str, RestrictedExpression)>,
        parents: Vec<EntityUid>,
    ) -> Result<EntityUid, FactsError> {
        if self.0.iter().any(|known| known.uid() == uid) {
            return Ok(uid);
        }
        let attributes: HashMap<String, RestrictedExpression> = attributes.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let parents: HashSet<EntityUid> = parents.into_iter().collect();
        self.0.push(Entity::new(uid.clone(), attributes, parents).map_err(FactsError::new)?);
        Ok(uid)
    }

    fn tenant(&mut self, tenant: SetFacts) -> Result<EntityUid, FactsError> {
        let reserved = tenant.tenant == vocabulary::SYSTEM_OWNER;
        self.add(
            uid("Tenant", tenant.tenant)?,
            vec![
                ("suspended", RestrictedExpression::new_bool(tenant.suspended)),
                ("reserved", RestrictedExpression::new_bool(reserved)),
            ],
            vec![],
        )
    }

    fn project(&mut self, project: ProjectId, tenant: &EntityUid) -> Result<EntityUid, FactsError> {
        self.add(uid("Project", project)?, vec![("tenant", entity(tenant.clone()))], vec![tenant.clone()])
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
            let role = uid("Role", format!("{}/{}", tenant.tenant, binding.role.as_str()))?;
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
        self.add(
            uid(kind, id)?,
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
        self.add(uid("Provider", provider)?, vec![], vec![])
    }

    fn node(&mut self, node: &NodeFacts) -> Result<EntityUid, FactsError> {
        let mut attributes = vec![
            ("region", text(node.region.as_str())),
            ("jurisdiction", text(node.jurisdiction.as_str())),
            ("trust", long(node.trust)),
        ];
        if let Some(provider) = node.provider {
            attributes.push(("provider", entity(self.provider(provider)?)));
        }
        self.add(uid("Node", node.id)?, attributes, vec![])
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
        ];
        if let Some(node) = &job.node {
            attributes.push(("node", entity(self.node(node)?)));
        }
        self.add(uid("Job", job.id)?, attributes, vec![project, tenant])
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
                self.add(uid("Operator", id)?, attributes, vec![])
            }
            Principal::Node(node) => self.node(node),
            Principal::Job(job) => self.job(job),
        }
    }

    fn resource(&mut self, resource: &Resource) -> Result<EntityUid, FactsError> {
        match resource {
            Resource::Platform => self.add(uid("Platform", "platform")?, vec![], vec![]),
            Resource::Tenant(tenant) => self.tenant(*tenant),
            Resource::Volume { id, tenant, project, sensitivity, purpose, jurisdictions, min_trust } => {
                let tenant = self.tenant(*tenant)?;
                let project = self.project(*project, &tenant)?;
                let places = RestrictedExpression::new_set(jurisdictions.iter().map(|place| text(place.as_str())));
                self.add(
                    uid("Volume", id)?,
                    vec![
                        ("tenant", entity(tenant.clone())),
                        ("project", entity(project.clone())),
                        ("sensitivity", long(sensitivity.level())),
                        ("purpose", text(purpose.as_str())),
                        ("jurisdictions", places),
                        ("minTrust", long(*min_trust)),
                        ("readers", RestrictedExpression::new_set([])),
                    ],
                    vec![project, tenant],
                )
            }
            Resource::Job(job) => self.job(job),
            Resource::Image { id, tenant } => {
                let tenant = self.tenant(*tenant)?;
                self.add(uid("Image", id)?, vec![("tenant", entity(tenant.clone()))], vec![tenant])
            }
            Resource::Key { id, tenant } => {
                let tenant = self.tenant(*tenant)?;
                self.add(uid("Key", id)?, vec![("tenant", entity(tenant.clone()))], vec![tenant])
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
    pub(crate) fn build(&self, schema: &Schema, action: &EntityUid) -> Result<Built, FactsError> {
        let mut slice = Slice(Vec::with_capacity(8));
        let principal = slice.principal(&self.principal)?;
        let resource = slice.resource(&self.resource)?;
        let pairs: Vec<(String, RestrictedExpression)> = if let Some(release) = &self.release {
            let node = slice.node(&release.node)?;
            vec![
                ("node".into(), entity(node)),
                ("attested".into(), RestrictedExpression::new_bool(release.attested)),
                ("evidenceAge".into(), age(release.evidence_age_s)),
                ("purpose".into(), text(release.purpose.as_str())),
            ]
        } else {
            let call = &self.call;
            let mut pairs: Vec<(String, RestrictedExpression)> = vec![
                ("acr".into(), long(call.acr)),
                ("mfaAge".into(), age(call.mfa_age_s)),
                ("requestBound".into(), RestrictedExpression::new_bool(call.request_bound)),
                ("approvals".into(), long(call.approvals)),
                ("production".into(), RestrictedExpression::new_bool(call.production)),
            ];
            if let Some(purpose) = &self.person_purpose {
                pairs.push(("purpose".into(), text(purpose.as_str())));
            }
            pairs
        };
        let context = Context::from_pairs(pairs).map_err(FactsError::new)?;
        context.validate(schema, action).map_err(FactsError::new)?;
        let entities = Entities::from_entities(slice.0, Some(schema)).map_err(FactsError::new)?;
        Ok(Built { principal, resource, context, entities })
    }
}
