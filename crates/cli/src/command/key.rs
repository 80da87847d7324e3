//! `swarm key`: the inventory and the life of keys, never the keys themselves.

use vocabulary::api::KeyInfo;

use crate::app::App;
use crate::args::KeyVerb;
use crate::client::Call;
use crate::command::tenant::done;
use crate::error::CliError;

pub(crate) async fn key(app: &App, verb: KeyVerb) -> Result<(), CliError> {
    let client = app.client()?;
    match verb {
        KeyVerb::List => {
            let keys: Vec<KeyInfo> = app.all(&client, "/v1/keys").await?;
            app.output.list(&keys, &["id", "version", "purpose", "owner", "state", "created"], |key| {
                vec![
                    key.id.to_string(),
                    key.version.to_string(),
                    key.purpose.clone(),
                    key.owner.clone(),
                    key.state.clone(),
                    key.created.to_string(),
                ]
            })
        }
        KeyVerb::RotateTenant => done(app, &client, &Call::new(reqwest::Method::POST, "/v1/tenant-key/rotate")).await,
        KeyVerb::Destroy { id, yes } => {
            app.confirm_by_name("key", &id.to_string(), yes)?;
            done(app, &client, &Call::new(reqwest::Method::POST, format!("/v1/keys/{id}/destroy"))).await
        }
    }
}
