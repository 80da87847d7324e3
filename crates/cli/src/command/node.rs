//! `swarm node`: what operators do; joining and running live in `local`.

use vocabulary::api::{JoinToken, JoinTokenCreate, Node};
use vocabulary::plan::NodePlace;

use crate::app::App;
use crate::args::NodeVerb;
use crate::client::Call;
use crate::command::pair;
use crate::command::tenant::done;
use crate::error::CliError;
use crate::output::human_bytes;

pub(crate) async fn node(app: &App, verb: NodeVerb) -> Result<(), CliError> {
    let post = |path: String| Call::new(reqwest::Method::POST, path);
    match verb {
        NodeVerb::Invite { name, region, jurisdiction, labels, lifetime } => {
            let client = app.client()?;
            let labels = labels.iter().map(|text| pair(text)).collect::<Result<_, _>>()?;
            let body = JoinTokenCreate { name, place: NodePlace { region, jurisdiction, labels }, lifetime_s: lifetime };
            let token: JoinToken = app.send(&client, &Call::post("/v1/join-tokens", &body)?).await?;
            app.output.one(
                &token,
                &[
                    ("token (once)", token.token.clone()),
                    ("ends", token.expires.to_string()),
                    ("on the machine", format!("swarm node join {} --ca-pin {}", client.url(), token.ca_pin)),
                    ("audit index", token.audit_index.to_string()),
                ],
            )
        }
        NodeVerb::Join(join) => super::local::join(app, join).await,
        NodeVerb::Run(run) => super::local::run_node(app, &run.place.node_dir).await,
        NodeVerb::List => {
            let nodes: Vec<Node> = app.all(&app.client()?, "/v1/nodes").await?;
            app.output.list(&nodes, &["id", "name", "state", "region", "jurisdiction", "jobs", "last seen"], |node| {
                vec![
                    node.id.to_string(),
                    node.name.to_string(),
                    node.state.clone(),
                    node.place.region.to_string(),
                    node.place.jurisdiction.to_string(),
                    node.jobs.to_string(),
                    node.last_seen.map_or_else(|| "never".to_owned(), |time| time.to_string()),
                ]
            })
        }
        NodeVerb::Show { id } => {
            let node: Node = app.client()?.send(&Call::get(format!("/v1/nodes/{id}")), None).await?;
            let mut pairs = vec![
                ("node", node.id.to_string()),
                ("name", node.name.to_string()),
                ("state", node.state.clone()),
                ("region", format!("{} ({}), as its join token said", node.place.region, node.place.jurisdiction)),
                ("evidence", "none: trust 0".to_owned()),
            ];
            if let Some(facts) = &node.facts {
                pairs.push(("host", format!("{}, kernel {}, {} cgroups", facts.hostname, facts.kernel, facts.cgroup_layout)));
                pairs.push((
                    "capacity",
                    format!("{} m cpu, {} memory, {} scratch, {} gpus", facts.cpu_millis, human_bytes(facts.memory_bytes), human_bytes(facts.scratch_bytes), facts.gpus),
                ));
                pairs.extend(facts.features.iter().map(|(name, value)| ("  feature", format!("{name}: {value}"))));
            }
            app.output.one(&node, &pairs)
        }
        NodeVerb::Drain { id } => done(app, &app.client()?, &post(format!("/v1/nodes/{id}/drain"))).await,
        NodeVerb::Resume { id } => done(app, &app.client()?, &post(format!("/v1/nodes/{id}/resume"))).await,
        NodeVerb::Revoke { id } => done(app, &app.client()?, &post(format!("/v1/nodes/{id}/revoke"))).await,
    }
}
