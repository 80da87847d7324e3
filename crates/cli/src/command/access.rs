//! `swarm user`, `swarm service-account`, `swarm whoami`.

use vocabulary::api::{Invitation, PersonErase, Principal, PrincipalKind, PrincipalUpdate, ServiceAccountCreate, UserCreate, WhoAmI};

use crate::app::App;
use crate::args::{ServiceAccountVerb, UserVerb};
use crate::client::{Call, Client};
use crate::command::tenant::done;
use crate::error::CliError;

pub(crate) async fn user(app: &App, verb: UserVerb) -> Result<(), CliError> {
    let client = app.client()?;
    match verb {
        UserVerb::Create { name, rights } => {
            let body = UserCreate { name, roles: rights.roles, clearance: rights.clearance };
            let made: Invitation = app.send(&client, &Call::post("/v1/users", &body)?).await?;
            let mut pairs = vec![("user", made.principal.to_string())];
            match (&made.ticket, made.expires) {
                (Some(ticket), Some(expires)) => pairs.push(("ticket (once)", format!("{ticket}\nvalid until {expires}; swarm login --enrol"))),
                _ => pairs.push(("login", "you are a user there: swarm login --as TENANT".to_owned())),
            }
            app.output.one(&made, &pairs)?;
            app.output.say("hint: until the ticket is redeemed nobody acts as this user; the same line again makes a new ticket and voids this one");
            Ok(())
        }
        UserVerb::List => list(app, &client).await,
        UserVerb::Update { id, rights } => {
            let current: Vec<Principal> = app.all(&client, "/v1/principals").await?;
            let revision = current.iter().find(|principal| principal.id == id).map(|principal| principal.revision);
            let revision = revision.ok_or_else(|| CliError::new(3, format!("there is no principal {id}")))?;
            let body = PrincipalUpdate { roles: rights.roles, clearance: rights.clearance };
            let call = Call::new(reqwest::Method::PUT, format!("/v1/principals/{id}")).json(&body)?.if_match(revision);
            let changed: Principal = app.send(&client, &call).await?;
            show(app, &changed)
        }
        UserVerb::Erase { name } => done(app, &client, &Call::post("/v1/people/erase", &PersonErase { name })?).await,
        UserVerb::Delete { id } => done(app, &client, &Call::delete(format!("/v1/principals/{id}"))).await,
    }
}

pub(crate) async fn service_account(app: &App, verb: ServiceAccountVerb) -> Result<(), CliError> {
    let client = app.client()?;
    match verb {
        ServiceAccountVerb::Create { name, rights } => {
            let body = ServiceAccountCreate { name, roles: rights.roles, clearance: rights.clearance };
            let made: Principal = app.send(&client, &Call::post("/v1/service-accounts", &body)?).await?;
            show(app, &made)?;
            app.output.say(format!("hint: swarm token create NOTE --service-account {}", made.id));
            Ok(())
        }
        ServiceAccountVerb::List => list(app, &client).await,
        ServiceAccountVerb::Delete { id } => done(app, &client, &Call::delete(format!("/v1/principals/{id}"))).await,
    }
}

pub(crate) async fn whoami(app: &App) -> Result<(), CliError> {
    let who: WhoAmI = app.client()?.send(&Call::get("/v1/whoami"), None).await?;
    let mut pairs = vec![("name", who.name.to_string()), ("principal", who.principal.to_string()), ("kind", kind(who.kind).to_owned())];
    if let Some(tenant) = &who.tenant_name {
        pairs.push(("tenant", tenant.to_string()));
    }
    pairs.push(("roles", who.roles.join(", ")));
    pairs.push(("token ends", who.expires.to_string()));
    app.output.one(&who, &pairs)
}

async fn list(app: &App, client: &Client) -> Result<(), CliError> {
    let principals: Vec<Principal> = app.all(client, "/v1/principals").await?;
    app.output.list(&principals, &["id", "kind", "name", "roles", "clearance", "state"], |principal| {
        vec![
            principal.id.to_string(),
            kind(principal.kind).to_owned(),
            principal.name.to_string(),
            principal.roles.join(", "),
            principal.clearance.to_string(),
            if principal.invited { "invited" } else { "active" }.to_owned(),
        ]
    })
}

fn show(app: &App, principal: &Principal) -> Result<(), CliError> {
    app.output.one(
        principal,
        &[
            ("principal", principal.id.to_string()),
            ("kind", kind(principal.kind).to_owned()),
            ("name", principal.name.to_string()),
            ("roles", principal.roles.join(", ")),
            ("clearance", principal.clearance.to_string()),
        ],
    )
}

fn kind(kind: PrincipalKind) -> &'static str {
    match kind {
        PrincipalKind::Operator => "operator",
        PrincipalKind::User => "user",
        PrincipalKind::ServiceAccount => "service account",
    }
}
