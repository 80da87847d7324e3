//! `swarm token`.

use vocabulary::api::{IssuedToken, TokenCreate, TokenInfo};

use crate::app::App;
use crate::args::TokenVerb;
use crate::client::Call;
use crate::command::tenant::done;
use crate::error::CliError;

pub(crate) async fn token(app: &App, verb: TokenVerb) -> Result<(), CliError> {
    let client = app.client()?;
    match verb {
        TokenVerb::Create { note, service_account, lifetime } => {
            let path = service_account.map_or_else(|| "/v1/tokens".to_owned(), |account| format!("/v1/service-accounts/{account}/tokens"));
            let body = TokenCreate { service_account, lifetime_s: lifetime, note };
            let issued: IssuedToken = app.send(&client, &Call::post(path, &body)?).await?;
            app.output.one(
                &issued,
                &[
                    ("id", issued.id.to_string()),
                    ("token (shown once)", issued.token.clone()),
                    ("ends", issued.expires.to_string()),
                    ("audit index", issued.audit_index.to_string()),
                ],
            )
        }
        TokenVerb::List { principal } => {
            let path = principal.map_or_else(|| "/v1/tokens".to_owned(), |principal| format!("/v1/tokens?principal={principal}"));
            let tokens: Vec<TokenInfo> = app.all(&client, &path).await?;
            app.output.list(&tokens, &["id", "kind", "for", "principal", "ends", "last used", "state"], |token| {
                vec![
                    token.id.to_string(),
                    token.kind.clone(),
                    token.note.as_ref().map_or_else(String::new, ToString::to_string),
                    token.principal.map_or_else(String::new, |id| id.to_string()),
                    token.expires.to_string(),
                    token.last_used.map_or_else(|| "never".to_owned(), |time| time.to_string()),
                    token.revoked.map_or_else(|| "valid".to_owned(), |time| format!("revoked {time}")),
                ]
            })
        }
        TokenVerb::Revoke { id, principal } => {
            let path = principal.map_or_else(|| format!("/v1/tokens/{id}"), |principal| format!("/v1/principals/{principal}/tokens/{id}"));
            done(app, &client, &Call::delete(path)).await
        }
    }
}
