use std::time::{Duration, Instant};

use policy::action::VolumeView;
use policy::{BareCall, CallFacts, Facts, PolicySets, Principal, Resource, SetFacts, decide};
use vocabulary::{PrincipalId, ProjectId, Sensitivity, TenantId, VolumeId};

const ROUNDS: usize = 41;
const CALLS: u32 = 200;
/// What a decision may cost, in bare calls.
const TARGET: f64 = 1.3;

/// Facts that no decision was made on before.
fn facts(number: u64) -> anyhow::Result<Facts> {
    let tenant = SetFacts { tenant: TenantId::from_bytes([1; 16]), suspended: false };
    let project = ProjectId::from_bytes([3; 16]);
    Ok(Facts {
        principal: Principal::User {
            id: PrincipalId::from_bytes([2; 16]),
            tenant,
            roles: vec!["engineer".parse()?, format!("viewer@{project}").parse()?],
            clearance: Sensitivity::Confidential,
        },
        resource: Resource::Volume {
            id: VolumeId::from_bytes(u128::from(number).to_be_bytes()),
            tenant,
            project,
            sensitivity: Sensitivity::Internal,
            purpose: "research".parse()?,
            region: "eu-central".parse()?,
            jurisdictions: ["EU".parse()?].into(),
            min_trust: 0,
            readers: std::collections::BTreeSet::new(),
        },
        call: CallFacts { acr: 1, mfa_age_s: Some(number), request_bound: false, approvals: 0, production: false, source: Some([10, 0, 0, 1].into()) },
        release: None,
        person_purpose: None,
    })
}

pub(crate) fn run() -> anyhow::Result<()> {
    let sets = PolicySets::new()?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let mut number = 0;
    for _ in 0..ROUNDS {
        let asked = (0..CALLS).map(|_| { number += 1; facts(number) }).collect::<anyhow::Result<Vec<_>>>()?;
        let begun = Instant::now();
        for facts in &asked {
            decide::<VolumeView>(&sets, facts).map_err(|refusal| anyhow::anyhow!("refused: {:?}", refusal.rules))?.spend();
        }
        ours.push(begun.elapsed());
        let calls = asked.iter().map(|facts| BareCall::of::<VolumeView>(&sets, facts)).collect::<Result<Vec<_>, _>>()?;
        let begun = Instant::now();
        for call in &calls {
            anyhow::ensure!(call.ask(), "refused");
        }
        bare.push(begun.elapsed());
    }
    let one = |times: Vec<Duration>| crate::median(times) * 1e6 / f64::from(CALLS);
    let (ours, bare) = (one(ours), one(bare));
    println!("   a decision {ours:.1} µs, Cedar's bare call on the same request, slice and set {bare:.1} µs: {:.2} times (target {TARGET})", ours / bare);
    println!("   (facts in, permit out: entities and request made, the request checked against the schema, the rules that can speak about it asked and named; {CALLS} different facts a round, medians of {ROUNDS} rounds, interleaved)");
    Ok(())
}
