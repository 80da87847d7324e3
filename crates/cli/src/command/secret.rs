//! `swarm secret`: a value is sealed here, on the person's machine; the server sees sealed bytes, and nobody's arguments do.

use std::path::Path;

use keys::SystemRandom;
use vocabulary::limits::SECRET_MAX;
use vocabulary::secret::{ReleasedSecret, Secret, SecretCreate, SecretSlot, SecretUse};
use volume::secret::{Asking, Expected, SecretRefusal};
use zeroize::Zeroizing;

use crate::app::App;
use crate::args::SecretVerb;
use crate::client::{Call, Client};
use crate::command::tenant::done;
use crate::error::CliError;
use crate::prompt;

pub(crate) async fn secret(app: &App, verb: SecretVerb) -> Result<(), CliError> {
    let client = app.client()?;
    match verb {
        SecretVerb::Create { name, project, uses, from_file } => {
            // What can be refused here is refused before anything is made at the server.
            let value = value(app, name.as_str(), from_file.as_deref())?;
            let asking = Asking::new().map_err(|refusal| refused(&refusal))?;
            let project = app.project(&client, &project).await?;
            let uses = uses.into_iter().map(SecretUse::from).collect();
            let request = SecretCreate { name, project, uses, recipient: asking.recipient() };
            let slot: SecretSlot = app.send(&client, &Call::post("/v1/secrets", &request)?).await?;
            set(app, &client, asking, &slot, &value).await
        }
        SecretVerb::Set { secret, from_file } => {
            let secret = find(app, &client, &secret).await?;
            let value = value(app, secret.name.as_str(), from_file.as_deref())?;
            let asking = Asking::new().map_err(|refusal| refused(&refusal))?;
            let slot: SecretSlot = app.send(&client, &Call::post(format!("/v1/secrets/{}/versions", secret.id), &asking.request())?).await?;
            set(app, &client, asking, &slot, &value).await
        }
        SecretVerb::List => {
            let secrets: Vec<Secret> = app.all(&client, "/v1/secrets").await?;
            app.output.list(&secrets, &["id", "name", "for", "version", "set"], |secret| {
                vec![
                    secret.id.to_string(),
                    secret.name.to_string(),
                    uses(secret),
                    secret.version.to_string(),
                    secret.changed.map_or_else(|| "never".to_owned(), |time| time.to_string()),
                ]
            })
        }
        SecretVerb::Delete { secret, yes } => {
            let secret = find(app, &client, &secret).await?;
            app.confirm_by_name("secret", secret.name.as_str(), yes)?;
            done(app, &client, &Call::delete(format!("/v1/secrets/{}", secret.id))).await
        }
    }
}

fn uses(secret: &Secret) -> String {
    let words: Vec<&str> = secret.uses.iter().map(|use_| match use_ {
        SecretUse::Job => "job",
        SecretUse::Pull => "pull",
    }).collect();
    words.join(", ")
}

fn refused(refusal: &SecretRefusal) -> CliError {
    CliError::verification(format!("the released key: {refusal}"))
}

/// A value: the bytes of a private file as they are, or one line from prompt or standard input.
fn value(app: &App, name: &str, file: Option<&Path>) -> Result<Zeroizing<Vec<u8>>, CliError> {
    match file {
        Some(path) => prompt::secret_bytes(path, SECRET_MAX),
        None => {
            let line = prompt::secret(&format!("Value of {name}: "), app.no_input)?;
            if line.is_empty() {
                return Err(CliError::usage("the value is empty: nothing was made"));
            }
            Ok(Zeroizing::new(line.as_bytes().to_vec()))
        }
    }
}

/// Seals the value with the key that was released for it, and sends the sealed bytes.
async fn set(app: &App, client: &Client, asking: Asking, slot: &SecretSlot, value: &[u8]) -> Result<(), CliError> {
    let body = asking.seal(&slot.key, value, &mut SystemRandom).map_err(|refusal| refused(&refusal))?;
    let call = Call::new(reqwest::Method::PUT, format!("/v1/secrets/{}/value", slot.key.secret)).json(&body)?;
    let made: Secret = app.send(client, &call).await?;
    let mut pairs = vec![
        ("secret", made.id.to_string()),
        ("name", made.name.to_string()),
        ("for", uses(&made)),
        ("version", made.version.to_string()),
    ];
    pairs.extend(made.audit_index.map(|index| ("audit index", index.to_string())));
    app.output.one(&made, &pairs)
}

/// Finds a secret by name or id.
pub(crate) async fn find(app: &App, client: &Client, name_or_id: &str) -> Result<Secret, CliError> {
    let secrets: Vec<Secret> = app.all(client, "/v1/secrets").await?;
    let wanted = name_or_id.trim().to_lowercase();
    let mut found = secrets.into_iter().filter(|secret| secret.name.as_str() == wanted || secret.id.to_string() == wanted);
    match (found.next(), found.next()) {
        (Some(secret), None) => Ok(secret),
        (Some(_), Some(_)) => Err(CliError::usage(format!("several projects have a secret `{}`", crate::output::visible(name_or_id))).hint("name it by its id")),
        (None, _) => Err(crate::app::missing("secret", name_or_id, "swarm secret list shows those that are there")),
    }
}

/// Opens a secret on this machine, to pull an image with it.
pub(crate) async fn open(app: &App, client: &Client, name_or_id: &str) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let secret = find(app, client, name_or_id).await?;
    let asking = Asking::new().map_err(|refusal| refused(&refusal))?;
    let answer: ReleasedSecret = app.send(client, &Call::post(format!("/v1/secrets/{}/open", secret.id), &asking.request())?).await?;
    asking.open(&answer, &Expected { secret: secret.id, tenant: None, holder: None }).map_err(|refusal| refused(&refusal))
}
