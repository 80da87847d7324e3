//! `swarm deployment`, `swarm seal`: what everybody may know about the deployment that was pinned.

use vocabulary::api::Health;

use crate::app::App;
use crate::args::{DeploymentVerb, SealVerb};
use crate::client::Call;
use crate::error::CliError;

pub(crate) async fn deployment(app: &App, verb: DeploymentVerb) -> Result<(), CliError> {
    let DeploymentVerb::Show { refresh } = verb;
    let mut context = app.context()?;
    let pin = crate::trust::pin(&context.deployment_file)?;
    if refresh {
        context.deployment_file = crate::trust::first_contact(&context.url, &pin.to_string()).await?;
        app.contexts.save(&app.context_name, &context)?;
    }
    // The bytes are what the root signed: no other format of it would verify.
    crate::output::bytes(context.deployment_file.as_bytes())?;
    app.output.say(format!("the pin of its root, for swarm verify --ca-pin: {pin}"));
    Ok(())
}

pub(crate) async fn seal(app: &App, verb: SealVerb) -> Result<(), CliError> {
    let SealVerb::Status = verb;
    let context = app.context()?;
    let client = crate::trust::client(&context.url, &context.deployment_file, None)?;
    let health: Health = client.send(&Call::get("/v1/health"), None).await?;
    let profile = crate::trust::profile(&context.deployment_file)?;
    let open = health.state == "ready";
    #[derive(Debug, serde::Serialize)]
    struct Seal<'a> {
        version: u32,
        open: bool,
        state: &'a str,
        kind: &'static str,
        profile: &'static str,
    }
    app.output.one(
        &Seal { version: 1, open, state: &health.state, kind: "passphrase", profile: profile.as_str() },
        &[
            ("seal", if open { "open".to_owned() } else { format!("closed: the server says `{}`", health.state) }),
            ("kind", "passphrase (argon2id), the only one of this version; the production profile refuses it".to_owned()),
            ("profile", profile.as_str().to_owned()),
        ],
    )
}
