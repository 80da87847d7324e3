//! What every command needs: the login, the client, the printer, and the person at the terminal.

use serde::de::DeserializeOwned;
use vocabulary::api::{Image, Node, Page, Project, Tenant, Volume};
use vocabulary::{NodeId, ProjectId, Sha256Digest, TenantId, VolumeId};

use crate::args::Global;
use crate::client::{Call, Client};
use crate::context::{Context, Contexts};
use crate::error::CliError;
use crate::output::Output;
use crate::prompt;

/// The command line at work.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) contexts: Contexts,
    pub(crate) context_name: String,
    pub(crate) output: Output,
    pub(crate) no_input: bool,
    /// The collector of traces, if there is one.
    pub(crate) otlp: Option<String>,
    /// Makes spans, or none.
    pub(crate) tracer: telemetry::Tracer,
}

impl App {
    pub(crate) fn new(global: &Global) -> Self {
        Self {
            contexts: Contexts::new(global.config_dir.clone()),
            context_name: global.context.clone(),
            output: Output { format: global.output, quiet: global.quiet },
            no_input: global.no_input,
            otlp: global.otlp_endpoint.clone(),
            tracer: telemetry::Tracer::off(),
        }
    }

    /// The current login.
    pub(crate) fn context(&self) -> Result<Context, CliError> {
        self.contexts.load(&self.context_name)
    }

    /// A client with the current login's token.
    pub(crate) fn client(&self) -> Result<Client, CliError> {
        let context = self.context()?;
        let token = context.token.clone().ok_or_else(|| {
            CliError::new(4, "you are logged out").hint("log in: swarm login")
        })?;
        crate::trust::client(&context.url, &context.deployment_file, Some(token))
    }

    /// Sends a call; a step-up is confirmed at the terminal.
    pub(crate) async fn send<T: DeserializeOwned>(&self, client: &Client, call: &Call) -> Result<T, CliError> {
        client.send(call, Some(&|summary: &str| self.ask_code(summary))).await
    }

    /// Asks for a fresh code, showing the server's summary.
    pub(crate) fn ask_code(&self, summary: &str) -> Result<String, CliError> {
        prompt::line(&format!("{}\nConfirm with a fresh code: ", crate::output::visible(summary)), self.no_input)
    }

    /// Wants the name typed before something is destroyed.
    pub(crate) fn confirm_by_name(&self, what: &str, name: &str, yes: bool) -> Result<(), CliError> {
        if yes {
            return Ok(());
        }
        let typed = prompt::line(&format!("This destroys {what} `{name}` for good. Type its name to go on: "), self.no_input)
            .map_err(|error| error.hint("--yes destroys it without asking"))?;
        if typed.trim() == name {
            Ok(())
        } else {
            Err(CliError::usage("that is not its name: nothing was done"))
        }
    }

    /// All rows of a list, page by page.
    pub(crate) async fn all<T: DeserializeOwned>(&self, client: &Client, path: &str) -> Result<Vec<T>, CliError> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let join = if path.contains('?') { '&' } else { '?' };
            let from = cursor.as_ref().map_or(String::new(), |cursor| format!("{join}cursor={cursor}"));
            let page: Page<T> = client.send(&Call::get(format!("{path}{from}")), None).await?;
            items.extend(page.items);
            match page.cursor {
                Some(next) if page.truncated && cursor.as_ref() != Some(&next) => cursor = Some(next),
                Some(_) | None => return Ok(items),
            }
        }
    }

    /// Finds a project by name or id.
    pub(crate) async fn project(&self, client: &Client, name_or_id: &str) -> Result<ProjectId, CliError> {
        if let Ok(id) = name_or_id.parse() {
            return Ok(id);
        }
        let projects: Vec<Project> = self.all(client, "/v1/projects").await?;
        projects
            .iter()
            .find(|project| project.name.as_str() == name_or_id.trim().to_lowercase())
            .map(|project| project.id)
            .ok_or_else(|| missing("project", name_or_id, "swarm project list shows those that are there"))
    }

    /// Finds an image by name or digest: what a job names is the digest.
    pub(crate) async fn image(&self, client: &Client, name_or_digest: &str) -> Result<Sha256Digest, CliError> {
        if let Ok(digest) = name_or_digest.parse() {
            return Ok(digest);
        }
        let images: Vec<Image> = self.all(client, "/v1/images").await?;
        images
            .iter()
            .filter(|image| image.name.as_str() == name_or_digest.trim().to_lowercase())
            .max_by_key(|image| image.created)
            .map(|image| image.manifest)
            .ok_or_else(|| missing("image", name_or_digest, "swarm image list shows those that are there; swarm image import PATH --name NAME brings one"))
    }

    /// Finds a tenant by name or id.
    pub(crate) async fn tenant(
        &self,
        client: &Client,
        name_or_id: &str,
    ) -> Result<TenantId, CliError> {
        if let Ok(id) = name_or_id.parse::<TenantId>() {
            return Ok(id);
        }
        let tenants: Vec<Tenant> = self.all(client, "/v1/tenants").await?;
        let found = tenants
            .into_iter()
            .find(|tenant| tenant.name.as_str() == name_or_id.trim().to_lowercase());
        found.map(|tenant| tenant.id).ok_or_else(|| {
            missing(
                "tenant",
                name_or_id,
                "swarm tenant list shows those that are there",
            )
        })
    }

    /// Finds a node by name or id.
    pub(crate) async fn node(&self, client: &Client, name_or_id: &str) -> Result<Node, CliError> {
        if let Ok(id) = name_or_id.parse::<NodeId>() {
            return client.send(&Call::get(format!("/v1/nodes/{id}")), None).await;
        }
        let nodes: Vec<Node> = self.all(client, "/v1/nodes").await?;
        nodes
            .into_iter()
            .find(|node| node.name.as_str() == name_or_id.trim().to_lowercase())
            .ok_or_else(|| missing("node", name_or_id, "swarm node list shows those that are there"))
    }

    /// Finds a volume by name or id.
    pub(crate) async fn volume(&self, client: &Client, name_or_id: &str) -> Result<Volume, CliError> {
        if let Ok(id) = name_or_id.parse::<VolumeId>() {
            return client.send(&Call::get(format!("/v1/volumes/{id}")), None).await;
        }
        let volumes: Vec<Volume> = self.all(client, "/v1/volumes").await?;
        let mut found = volumes.into_iter().filter(|volume| volume.spec.name.as_str() == name_or_id.trim().to_lowercase());
        match (found.next(), found.next()) {
            (Some(volume), None) => Ok(volume),
            (Some(_), Some(_)) => Err(CliError::usage(format!("several projects have a volume `{name_or_id}`")).hint("name it by its id")),
            (None, _) => Err(missing("volume", name_or_id, "swarm volume list shows those that are there")),
        }
    }
}

pub(crate) fn missing(noun: &str, name: &str, hint: &str) -> CliError {
    CliError::new(3, format!("there is no {noun} `{}`", crate::output::visible(name))).hint(hint)
}

/// Now, as the person's machine has it.
#[expect(clippy::disallowed_methods, reason = "the one place where the command line reads the time")]
pub(crate) fn now() -> vocabulary::UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    vocabulary::UnixTime::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
