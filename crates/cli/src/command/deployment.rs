//! `swarm deployment`: what everybody may know about the deployment that was pinned.

use crate::app::App;
use crate::args::DeploymentVerb;
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
