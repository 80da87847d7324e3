//! `swarm tenant`, `swarm project`, `swarm status`.

use vocabulary::api::{Done, Project, ProjectCreate, Status, Tenant, TenantCreate, TenantCreated};
use vocabulary::witness::WitnessState;

use crate::app::App;
use crate::args::{ProjectVerb, TenantVerb};
use crate::client::Call;
use crate::error::CliError;

pub(crate) async fn tenant(app: &App, verb: TenantVerb) -> Result<(), CliError> {
    let client = app.client()?;
    match verb {
        TenantVerb::Create { name, admin } => {
            let made: TenantCreated = app.send(&client, &Call::post("/v1/tenants", &TenantCreate { name, admin })?).await?;
            let mut pairs = vec![
                ("tenant", made.tenant.id.to_string()),
                ("name", made.tenant.name.to_string()),
                ("administrator", made.admin.principal.to_string()),
            ];
            match &made.admin.ticket {
                Some(ticket) => pairs.push(("ticket (once)", format!("{ticket}\nfor the administrator: swarm login --enrol; the same line again makes a new one"))),
                None => pairs.push(("login", format!("swarm login --as {}", made.tenant.name))),
            }
            pairs.push(("audit index", made.admin.audit_index.to_string()));
            app.output.one(&made, &pairs)
        }
        TenantVerb::List => {
            let tenants: Vec<Tenant> = app.all(&client, "/v1/tenants").await?;
            app.output.list(&tenants, &["id", "name", "state"], |tenant| {
                let state = if tenant.suspended { "suspended" } else { "active" };
                vec![tenant.id.to_string(), tenant.name.to_string(), state.to_owned()]
            })
        }
        TenantVerb::Suspend { id } => done(app, &client, &Call::new(reqwest::Method::POST, format!("/v1/tenants/{id}/suspend"))).await,
        TenantVerb::Resume { id } => done(app, &client, &Call::new(reqwest::Method::POST, format!("/v1/tenants/{id}/resume"))).await,
    }
}

pub(crate) async fn project(app: &App, verb: ProjectVerb) -> Result<(), CliError> {
    let client = app.client()?;
    match verb {
        ProjectVerb::Create { name } => {
            let project: Project = app.send(&client, &Call::post("/v1/projects", &ProjectCreate { name })?).await?;
            app.output.one(&project, &[("project", project.id.to_string()), ("name", project.name.to_string())])
        }
        ProjectVerb::List => {
            let projects: Vec<Project> = app.all(&client, "/v1/projects").await?;
            app.output.list(&projects, &["id", "name"], |project| vec![project.id.to_string(), project.name.to_string()])
        }
    }
}

pub(crate) async fn status(app: &App) -> Result<(), CliError> {
    let client = app.client()?;
    let status: Status = client.send(&Call::get("/v1/status"), None).await?;
    let log: WitnessState = client.send(&Call::get("/v1/witnesses"), None).await?;
    let witnesses = match (&log.policy, log.cosigned_size) {
        (None, _) => "none: the log's integrity rests on the deployment's own key".to_owned(),
        (Some(_), None) => format!("{}; nothing is cosigned yet", log.quorum),
        (Some(_), Some(size)) => format!("{}; {size} entries are cosigned", log.quorum),
    };
    let pin = crate::trust::pin(&app.context()?.deployment_file)?;
    app.output.one(
        &status,
        &[
            ("deployment", status.deployment.to_string()),
            ("CA pin", pin.to_string()),
            ("profile", status.profile.as_str().to_owned()),
            ("version", status.version.clone()),
            ("nodes alive", status.nodes_alive.to_string()),
            ("audit entries", format!("{} ({} under the published checkpoint)", status.audit_size, status.published_size)),
            ("publishing", log.publishing),
            ("witnesses", witnesses),
            ("server time", status.now.to_string()),
        ],
    )
}

/// Sends a call that only answers with its audit index.
pub(crate) async fn done(app: &App, client: &crate::client::Client, call: &Call) -> Result<(), CliError> {
    let done: Done = app.send(client, call).await?;
    let mut pairs = vec![("done", format!("audit index {}", done.audit_index))];
    pairs.extend(done.notes.iter().map(|note| ("note", note.clone())));
    app.output.one(&done, &pairs)
}
