//! `swarm node`: the machines that run jobs: joining, running, and what operators do with them.

use std::path::PathBuf;
use std::time::Duration;

use ::node::{JoinError, NodeOptions};
use tokio_util::sync::CancellationToken;
use vocabulary::api::{JoinToken, JoinTokenCreate, Node, NodeDedicate, NodeDrain};
use vocabulary::plan::NodePlace;

use crate::app::App;
use crate::settings::{self, NodeSettings};
use crate::args::{NodeJoin, NodeRun, NodeVerb};
use crate::client::Call;
use crate::command::server::{asked_to_end, end_with_parent};
use crate::command::tenant::done;
use crate::error::{CliError, chain};
use crate::host;
use crate::output::{human_bytes, visible};
use crate::prompt;

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
        NodeVerb::Join(join) => self::join(app, join).await,
        NodeVerb::Run(args) => run(app, args).await,
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
        NodeVerb::Drain { node, deadline, wait } => drain(app, &node, deadline, wait).await,
        NodeVerb::Undrain { node } => act(app, &node, "resume").await,
        NodeVerb::Dedicate { node, tenant, .. } => {
            let client = app.client()?;
            let node = app.node(&client, &node).await?;
            let tenant = match tenant {
                Some(tenant) => Some(app.tenant(&client, &tenant).await?),
                None => None,
            };
            let call = Call::new(
                reqwest::Method::PUT,
                format!("/v1/nodes/{}/tenant", node.id),
            )
            .json(&NodeDedicate { tenant })?;
            done(app, &client, &call).await
        }
        NodeVerb::Revoke { node, yes } => {
            let client = app.client()?;
            let node = app.node(&client, &node).await?;
            app.confirm_by_name("the trust in node", node.name.as_str(), yes)?;
            done(app, &client, &Call::new(reqwest::Method::POST, format!("/v1/nodes/{}/revoke", node.id))).await
        }
    }
}

/// Joins this machine, and runs its agent unless only the first was asked for.
async fn join(app: &App, args: NodeJoin) -> Result<(), CliError> {
    if !args.enrol_only {
        needs_root()?;
    }
    let token = match &args.token_file {
        Some(path) => prompt::secret_file(path)?,
        None => prompt::secret("Join token: ", app.no_input)?,
    };
    let options = ::node::JoinOptions { url: args.url, ca_pin: args.ca_pin, token, dir: args.run.node_dir.clone() };
    let joined = ::node::join(options).await.map_err(|error| refused(&error))?;
    app.output.say(format!(
        "joined as node {} ({}), region {}, jurisdiction {}; audit index {}",
        joined.name, joined.node, joined.place.region, joined.place.jurisdiction, joined.audit_index
    ));
    if args.enrol_only {
        app.output.say(format!("run its agent as root: swarm node run --node-dir {}", args.run.node_dir.display()));
        return Ok(());
    }
    run(app, args.run).await
}

fn refused(error: &JoinError) -> CliError {
    let exit = match error {
        JoinError::Url(_) => 2,
        JoinError::Joined(_) | JoinError::NotEmpty(_) => 5,
        JoinError::Answer(_) => 6,
        JoinError::Refused { code, .. } => code.map_or(1, vocabulary::ErrorCode::exit_code),
        JoinError::Unreachable(_) | JoinError::Key(_) | JoinError::File { .. } | JoinError::Store(_) => 1,
    };
    let failed = CliError::new(exit, chain(error));
    match error {
        JoinError::Refused { .. } => failed.hint("a join token works once, for its lifetime: swarm node invite makes another"),
        JoinError::Joined(_) => failed.hint("swarm node run runs the agent of the node that is there"),
        JoinError::Url(_)
        | JoinError::NotEmpty(_)
        | JoinError::Answer(_)
        | JoinError::Unreachable(_)
        | JoinError::Key(_)
        | JoinError::File { .. }
        | JoinError::Store(_) => failed,
    }
}

fn needs_root() -> Result<(), CliError> {
    if host::is_root() {
        return Ok(());
    }
    Err(CliError::new(4, "a node's agent needs root: it makes namespaces, control groups, mounts and encrypted scratch for jobs").hint("run it with sudo"))
}

/// Runs the agent until it is asked to end. If its supervisor dies, jobs go on under their shims.
async fn run(app: &App, args: NodeRun) -> Result<(), CliError> {
    needs_root()?;
    crate::logs::start()?;
    let (stop, orphaned) = (CancellationToken::new(), CancellationToken::new());
    if args.supervised {
        end_with_parent(orphaned.clone());
    }
    if args.node_dir.join("node.json").is_file() {
        settings::leave(&args.node_dir, &NodeSettings::of(&args, app.otlp.is_some()))?;
    }
    let options = NodeOptions {
        dir: args.node_dir,
        shim_exe: PathBuf::from("/proc/self/exe"),
        cgroup_parent: args.cgroup_parent,
        runtimes: args.runtimes,
        gpus: ::node::GpuOptions { cdi: args.gpus.cdi_dirs, scrub: args.gpus.gpu_scrub },
        id_base: args.ids.id_base,
        id_blocks: args.ids.id_blocks,
        drain_on_stop: args.stop_jobs,
        tracer: app.tracer.clone(),
    };
    let agent = ::node::run(options, stop.clone());
    tokio::pin!(agent);
    host::notify("READY=1");
    tokio::select! {
        ended = &mut agent => return ended.map_err(|error| CliError::new(1, chain(&error))),
        // Nothing is told to the jobs: whoever comes next finds them.
        () = orphaned.cancelled() => return Err(CliError::new(1, "the supervisor is gone; the jobs go on under their shims")),
        asked = asked_to_end() => asked?,
    }
    host::notify("STOPPING=1");
    app.output.say(if args.stop_jobs { "stopping: jobs are told to end" } else { "stopping: jobs go on under their shims" });
    stop.cancel();
    agent.await.map_err(|error| CliError::new(1, chain(&error)))
}

/// Between two looks at a node that empties.
const LOOK: Duration = Duration::from_secs(2);

/// Drains, and with `wait` stays until the node is empty.
async fn drain(app: &App, node: &str, deadline_s: Option<u64>, wait: bool) -> Result<(), CliError> {
    let client = app.client()?;
    let node = app.node(&client, node).await?;
    done(app, &client, &Call::post(format!("/v1/nodes/{}/drain", node.id), &NodeDrain { deadline_s })?).await?;
    if !wait {
        return Ok(());
    }
    let mut said = None;
    loop {
        let now: Node = client.send(&Call::get(format!("/v1/nodes/{}", node.id)), None).await?;
        // Somebody may have ended the drain meanwhile: then it never empties.
        if now.state == "alive" || now.state == "revoked" {
            return Err(CliError::new(5, format!("node {} is {} again and not drained", now.name, now.state)));
        }
        if said.replace((now.jobs, now.leaving)) != Some((now.jobs, now.leaving)) {
            app.output.say(drain_progress(&now));
        }
        if now.jobs == 0 {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                return Err(CliError::new(130, format!("interrupted: node {} goes on draining", now.name)));
            }
        }
    }
}

/// One line about a node that empties.
fn drain_progress(node: &Node) -> String {
    match (node.jobs, node.leaving, node.drain_until) {
        (0, ..) => format!("node {} is empty", node.name),
        (jobs, 0, Some(until)) => format!("node {}: {jobs} jobs, which may go on until {until}", node.name),
        (jobs, 0, None) => format!("node {}: {jobs} jobs, which end by themselves", node.name),
        (jobs, leaving, _) => format!("node {}: {jobs} jobs, {leaving} of them told to go", node.name),
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
        ("drain", if node.state == "draining" { drain_progress(node) } else { "none".to_owned() }),
        ("set apart", node.dedicated.map_or_else(|| "for nobody".to_owned(), |tenant| format!("for tenant {tenant}"))),
        ("place", format!("region {}, jurisdiction {}, as its join token said", node.place.region, node.place.jurisdiction)),
        ("labels", if labels.is_empty() { "none".to_owned() } else { labels.join(", ") }),
        ("evidence", "none: trust 0; what follows is the node's own word".to_owned()),
    ];
    if let Some(facts) = &node.facts {
        pairs.push(("host", format!("{}, kernel {}, {} cgroups, swarm {}", facts.hostname, facts.kernel, facts.cgroup_layout, facts.version)));
        let (memory, scratch) = (human_bytes(facts.memory_bytes), human_bytes(facts.scratch_bytes));
        pairs.push(("capacity", format!("{} m cpu, {memory} memory, {scratch} scratch, {} gpus", facts.cpu_millis, facts.gpus)));
        pairs.extend(facts.runtimes.iter().map(|offer| ("  runtime", runtime(offer))));
        pairs.extend(facts.features.iter().map(|(name, value)| ("  feature", format!("{name}: {value}"))));
    }
    app.output.one(node, &pairs)
}

/// A runtime with its version and the digest of its program.
pub(crate) fn runtime(offer: &vocabulary::runtime::RuntimeOffer) -> String {
    let digest = offer.digest.map_or_else(|| "a part of swarm".to_owned(), |digest| digest.to_string());
    format!("{} {}, {digest}{}", offer.runtime, visible(&offer.version), if offer.untested { ", untested" } else { "" })
}
