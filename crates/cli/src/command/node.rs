//! `swarm node`: the machines that run jobs, as operators see them.

use vocabulary::api::{JoinToken, JoinTokenCreate, Node};
use vocabulary::plan::NodePlace;

use crate::app::App;
use crate::args::NodeVerb;
use crate::client::Call;
use crate::command::tenant::done;
use crate::error::CliError;
use crate::output::human_bytes;

pub(crate) async fn node(app: &App, verb: NodeVerb) -> Result<(), CliError> {
    match verb {
        NodeVerb::Invite { name, region, jurisdiction, labels, lifetime } => {
            let client = app.client()?;
            let place = NodePlace { region, jurisdiction, labels: labels.into_iter().collect() };
            let body = JoinTokenCreate { name, place, lifetime_s: lifetime };
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
        NodeVerb::Show { node } => {
            let client = app.client()?;
            show(app, &app.node(&client, &node).await?)
        }
        NodeVerb::Drain { node } => act(app, &node, "drain").await,
        NodeVerb::Resume { node } => act(app, &node, "resume").await,
        NodeVerb::Revoke { node, yes } => {
            let client = app.client()?;
            let node = app.node(&client, &node).await?;
            app.confirm_by_name("the trust in node", node.name.as_str(), yes)?;
            done(app, &client, &Call::new(reqwest::Method::POST, format!("/v1/nodes/{}/revoke", node.id))).await
        }
    }
}

async fn act(app: &App, node: &str, verb: &str) -> Result<(), CliError> {
    let client = app.client()?;
    let node = app.node(&client, node).await?;
    done(app, &client, &Call::new(reqwest::Method::POST, format!("/v1/nodes/{}/{verb}", node.id))).await
}

fn show(app: &App, node: &Node) -> Result<(), CliError> {
    let labels: Vec<String> = node.place.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut pairs = vec![
        ("node", node.id.to_string()),
        ("name", node.name.to_string()),
        ("state", node.state.clone()),
        ("last seen", node.last_seen.map_or_else(|| "never".to_owned(), |time| time.to_string())),
        ("jobs", node.jobs.to_string()),
        ("place", format!("region {}, jurisdiction {}, as its join token said", node.place.region, node.place.jurisdiction)),
        ("labels", if labels.is_empty() { "none".to_owned() } else { labels.join(", ") }),
        ("evidence", "none: trust 0; what follows is the node's own word".to_owned()),
    ];
    if let Some(facts) = &node.facts {
        pairs.push(("host", format!("{}, kernel {}, {} cgroups, swarm {}", facts.hostname, facts.kernel, facts.cgroup_layout, facts.version)));
        let (memory, scratch) = (human_bytes(facts.memory_bytes), human_bytes(facts.scratch_bytes));
        pairs.push(("capacity", format!("{} m cpu, {memory} memory, {scratch} scratch, {} gpus", facts.cpu_millis, facts.gpus)));
        pairs.extend(facts.features.iter().map(|(name, value)| ("  feature", format!("{name}: {value}"))));
    }
    app.output.one(node, &pairs)
}
