//! Who must have signed an image: the tenant's policy, the signatures that were brought along, and the check at admission.

use audit::{EncodedEntry, Event, Outcome};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use policy::action::{ImageImport, ImagePolicySet, ImagePolicyView, JobSubmit};
use policy::{Action, Resource};
use receipt::cosign::{COSIGN_PAYLOAD_MAX, ImageKey, judge};
use serde::{Deserialize, Serialize};
use store::{Expect, Kind, Put, Transaction};
use vocabulary::api::Done;
use vocabulary::signature::{ImagePolicy, ImagePolicyInForce, ImageSignature, ImageSignatures};
use vocabulary::{ErrorCode, JobId, Sha256Digest, TenantId, UnixTime};

use crate::api::call::Call;
use crate::api::problem::Failure;
use crate::limits::{IMAGE_REFERENCE_MAX, IMAGE_SIGNATURES_MAX, IMAGE_SIGNERS_MAX};
use crate::operation::{commit, done};
use crate::row::FORMAT;
use crate::state::{Control, actor};

/// The kind of [`PolicyRow`]: one for each tenant, under the tenant's id.
const POLICY: Kind = Kind::new("image_policy");
/// The kind of [`SignaturesRow`]: one for each manifest, under the first half of its digest.
const SIGNATURES: Kind = Kind::new("image_signatures");

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyRow {
    format: u32,
    policy: ImagePolicy,
    set: UnixTime,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignaturesRow {
    format: u32,
    manifest: Sha256Digest,
    signatures: Vec<ImageSignature>,
}

fn half(manifest: &Sha256Digest) -> [u8; 16] {
    let mut half = [0; 16];
    half.iter_mut().zip(manifest.as_bytes()).for_each(|(to, from)| *to = *from);
    half
}

impl Control {
    async fn image_policy(&self, tenant: TenantId) -> Result<Option<(u64, PolicyRow)>, Failure> {
        let found = self.store.get_json::<PolicyRow>(tenant, POLICY, *tenant.as_bytes()).await.map_err(Failure::internal)?;
        Ok(found.map(|(stored, row)| (stored.revision, row)))
    }

    async fn image_signatures(&self, tenant: TenantId, manifest: &Sha256Digest) -> Result<Option<(u64, SignaturesRow)>, Failure> {
        let found = self.store.get_json::<SignaturesRow>(tenant, SIGNATURES, half(manifest)).await.map_err(Failure::internal)?;
        Ok(found.map(|(stored, row)| (stored.revision, row)).filter(|(_, row)| row.manifest == *manifest))
    }
}

/// Whether a policy can be kept at all.
fn check(policy: &ImagePolicy) -> Result<(), Failure> {
    if policy.signers.len() > IMAGE_SIGNERS_MAX {
        return Err(Failure::new(ErrorCode::TooLarge, format!("`signers`: at most {IMAGE_SIGNERS_MAX}")));
    }
    let mut keys = std::collections::BTreeSet::new();
    let mut names = std::collections::BTreeSet::new();
    for signer in &policy.signers {
        let key = ImageKey::from_pem(&signer.key).map_err(|error| Failure::invalid(format!("`signers`: key of `{}`: {error}", signer.name)))?;
        if !names.insert(&signer.name) || !keys.insert(key.id()) {
            return Err(Failure::invalid(format!("`signers`: name or key of `{}` stands twice", signer.name)));
        }
        let fits = |text: &String| !text.is_empty() && text.len() <= IMAGE_REFERENCE_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
        if signer.references.len() > IMAGE_SIGNERS_MAX || !signer.references.iter().all(fits) {
            return Err(Failure::invalid(format!(
                "`signers`: `references` of `{}` are at most {IMAGE_SIGNERS_MAX}, each of 1 to {IMAGE_REFERENCE_MAX} visible ASCII characters",
                signer.name
            )));
        }
    }
    let most = u32::try_from(policy.signers.len()).unwrap_or(u32::MAX);
    let fits = if most == 0 { policy.required == 0 } else { (1..=most).contains(&policy.required) };
    if fits { Ok(()) } else { Err(Failure::invalid(format!("`required` is 1 to the number of signers, {most}; 0 without any"))) }
}

/// Sets the tenant's policy. It counts for jobs that are submitted from then on.
pub(crate) async fn set(call: Call<ImagePolicySet>, policy: ImagePolicy) -> Result<ImagePolicyInForce, Failure> {
    let tenant = call.tenant()?;
    check(&policy)?;
    call.permit(Resource::Tenant(tenant), &[(&tenant.tenant.to_string(), "image policy")]).await?.spend();
    let control = &call.control;
    let expect = control.image_policy(tenant.tenant).await?.map_or(Expect::Absent, |(revision, _)| Expect::Revision(revision));
    let row = PolicyRow { format: FORMAT, policy, set: call.now };
    let bytes = audit::canonical::to_vec(&row.policy).map_err(Failure::internal)?;
    let event = Event::ImagePolicyChanged { policy: Sha256Digest::from_bytes(audit::hash::sha256(&[&bytes])), required: row.policy.required };
    let entry = control.entry(call.now, tenant.tenant, actor(call.member()?), call.source(), Outcome::Success, Some(ImagePolicySet::NAME), event)?;
    let put = Put::json(tenant.tenant, POLICY, *tenant.tenant.as_bytes(), expect, &row).map_err(Failure::internal)?;
    let (index, _) = commit(&call, Transaction::new().with(put).entry(entry)).await?;
    Ok(ImagePolicyInForce { policy: row.policy, changed: Some(row.set), audit_index: Some(index) })
}

/// Shows the policy in force.
pub(crate) async fn show(call: Call<ImagePolicyView>) -> Result<ImagePolicyInForce, Failure> {
    let tenant = call.tenant()?;
    call.permit(Resource::Tenant(tenant), &[]).await?.spend();
    let found = call.control.image_policy(tenant.tenant).await?;
    Ok(found.map_or_else(
        || ImagePolicyInForce { policy: ImagePolicy::default(), changed: None, audit_index: None },
        |(_, row)| ImagePolicyInForce { policy: row.policy, changed: Some(row.set), audit_index: None },
    ))
}

/// Keeps signatures of an image. Whether they count is judged at admission, by the policy of that moment.
pub(crate) async fn add(call: Call<ImageImport>, request: ImageSignatures) -> Result<Done, Failure> {
    let tenant = call.tenant()?;
    call.permit(Resource::Tenant(tenant), &[]).await?.spend();
    let control = &call.control;
    let manifest: Sha256Digest = call.path("digest")?.parse().map_err(|error| Failure::invalid(format!("path: {error}")))?;
    control.image_by_manifest(tenant.tenant, &manifest).await?.ok_or_else(Failure::not_found)?;
    for one in &request.signatures {
        let decodes = |text: &str, most: usize| text.len() <= most.div_ceil(3) * 4 && STANDARD.decode(text).is_ok();
        if !decodes(&one.payload, COSIGN_PAYLOAD_MAX) || !decodes(&one.signature, 128) {
            return Err(Failure::invalid("`signatures`: payload or signature is not base64, or longer than any of cosign's"));
        }
    }
    let found = control.image_signatures(tenant.tenant, &manifest).await?;
    let expect = found.as_ref().map_or(Expect::Absent, |(revision, _)| Expect::Revision(*revision));
    let mut row = found.map_or_else(|| SignaturesRow { format: FORMAT, manifest, signatures: Vec::new() }, |(_, row)| row);
    row.signatures.extend(request.signatures);
    row.signatures.sort();
    row.signatures.dedup();
    if row.signatures.len() > IMAGE_SIGNATURES_MAX {
        return Err(Failure::new(ErrorCode::TooLarge, format!("`signatures`: an image has at most {IMAGE_SIGNATURES_MAX}")));
    }
    let count = u32::try_from(row.signatures.len()).unwrap_or(u32::MAX);
    let event = Event::ImageSignaturesAdded { image: manifest, signatures: count };
    let entry = control.entry(call.now, tenant.tenant, actor(call.member()?), call.source(), Outcome::Success, Some(ImageImport::NAME), event)?;
    let put = Put::json(tenant.tenant, SIGNATURES, half(&manifest), expect, &row).map_err(Failure::internal)?;
    let (index, _) = commit(&call, Transaction::new().with(put).entry(entry)).await?;
    Ok(done(index, &[]))
}

/// Checks the image of a job that is submitted. Gives the entries that say who signed it, for the same transaction.
pub(crate) async fn admit(call: &Call<JobSubmit>, tenant: TenantId, job: JobId, image: &Sha256Digest) -> Result<Vec<EncodedEntry>, Failure> {
    let control = &call.control;
    let Some((_, row)) = control.image_policy(tenant).await?.filter(|(_, row)| !row.policy.signers.is_empty()) else { return Ok(Vec::new()) };
    let signatures = control.image_signatures(tenant, image).await?.map_or_else(Vec::new, |(_, row)| row.signatures);
    let counted = match judge(&row.policy, image, &signatures) {
        Ok(counted) => counted,
        Err(why) => {
            let failure = Failure::new(ErrorCode::ReleaseRefused, format!("`spec.image`: the tenant's image policy refuses {image}: {why}"));
            return Err(call.refused(failure, "image", image.to_string(), "image-signatures").await);
        }
    };
    let mut entries = Vec::new();
    for one in counted {
        let (signer, signature) = (row.policy.signers.iter().find(|signer| signer.name == one.signer), signatures.get(one.number));
        let (Some(signer), Some(signature)) = (signer, signature) else { return Err(Failure::internal("a signature that counts is gone")) };
        let key = ImageKey::from_pem(&signer.key).map_err(Failure::internal)?;
        let event = Event::ImageSigned {
            job,
            image: *image,
            signer: one.signer,
            key: STANDARD.encode(key.spki()),
            payload: signature.payload.clone(),
            signature: signature.signature.clone(),
        };
        entries.push(control.entry(call.now, tenant, actor(call.member()?), call.source(), Outcome::Success, Some(JobSubmit::NAME), event)?);
    }
    Ok(entries)
}
