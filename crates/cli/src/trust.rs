//! Whom the command line believes: the deployment that was pinned at first contact, and nobody else.

use std::sync::Arc;

use identity::tls::{KeyExchange, Trust, cli_client_config};
use identity::{LiveRevocations, VerifiedDeployment, Verifier, verify_deployment_file, verify_deployment_file_unpinned};
use vocabulary::Sha256Digest;

use crate::client::Client;
use crate::error::{CliError, chain};

fn clock() -> identity::tls::Clock {
    Arc::new(rustls::time_provider::DefaultTimeProvider)
}

/// Fetches the deployment's public file from a server under the pinned root, and checks it against the pin.
pub(crate) async fn first_contact(url: &str, pin: &str) -> Result<String, CliError> {
    let pin: Sha256Digest = pin.parse().map_err(|error| CliError::usage(format!("--ca-pin: {error}")))?;
    let tls = cli_client_config(Trust::Pin(pin), KeyExchange::default(), clock()).map_err(|error| CliError::new(1, chain(&error)))?;
    let client = Client::new(url, tls, None)?;
    let bytes = client.get_bytes("/v1/deployment", None, identity::limits::DEPLOYMENT_FILE_MAX).await?;
    verify_deployment_file(&bytes, &pin).map_err(|error| CliError::verification(format!("the deployment's public file: {error}")))?;
    String::from_utf8(bytes.to_vec()).map_err(|_| CliError::verification("the deployment's public file is not UTF-8"))
}

/// The remembered file: it was checked against the pin when it was stored, and must agree with itself.
fn known(file: &str) -> Result<VerifiedDeployment, CliError> {
    verify_deployment_file_unpinned(file.as_bytes())
        .map_err(|error| CliError::verification(format!("the remembered deployment file: {error}")).hint("log in again with --ca-pin"))
}

/// A client of the remembered deployment.
pub(crate) fn client(url: &str, file: &str, token: Option<String>) -> Result<Client, CliError> {
    let deployment = known(file)?;
    let verifier = Verifier::new(deployment.root().clone(), LiveRevocations::default())
        .map_err(|error| CliError::verification(format!("the remembered root: {error}")))?;
    let tls = cli_client_config(Trust::Root(Arc::new(verifier)), KeyExchange::default(), clock())
        .map_err(|error| CliError::new(1, chain(&error)))?;
    Client::new(url, tls, token)
}

/// The key of the deployment's log.
pub(crate) fn log_key(file: &str) -> Result<audit::VerifierKey, CliError> {
    let deployment = known(file)?;
    let text = deployment.file().log_keys.first().ok_or_else(|| CliError::verification("the deployment file names no log"))?;
    text.parse().map_err(|error| CliError::verification(format!("the log's key: {error}")))
}

/// The pin of the remembered root.
pub(crate) fn pin(file: &str) -> Result<Sha256Digest, CliError> {
    Ok(known(file)?.root().pin())
}
