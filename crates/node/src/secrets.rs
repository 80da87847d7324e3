//! Secrets of an attempt: released to a fresh key, opened here, and handed to memory that only the job's user reads.

use audit::node_log::NodeEvent;
use keys::secret::SecretError;
use receipt::statement::SecretGiven;
use runtime::secret::SecretFile;
use vocabulary::channel as paths;
use vocabulary::job::JobSecret;
use vocabulary::lease::LeaseHolder;
use vocabulary::plan::PlannedJob;
use vocabulary::secret::ReleasedSecret;
use volume::secret::{Asking, Expected, SecretRefusal};

use crate::agent::Shared;
use crate::channel::{ChannelError, patiently};
use crate::journal;

/// Why a secret was not opened. No part of it says anything of the value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretsError {
    /// The control plane refuses.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The release is not what was asked for.
    #[error(transparent)]
    Release(#[from] SecretRefusal),
    /// The node's own log cannot be written.
    #[error("{0}")]
    Log(#[from] std::io::Error),
    /// The value does not open.
    #[error("its value: {0}")]
    Value(#[from] SecretError),
}

/// Asks for one secret with a fresh key of our own, checks that the answer is for this attempt, and opens it.
pub(crate) async fn open(shared: &Shared, planned: &PlannedJob, named: &JobSecret) -> Result<(SecretFile, SecretGiven), SecretsError> {
    let asking = Asking::new()?;
    let request = asking.request();
    let url = paths::secret(planned.attempt, named.secret);
    let answered = patiently(|| shared.channel.post::<_, ReleasedSecret>(&url, &request)).await;
    let (attempt, secret) = (planned.attempt, named.secret);
    let event = match &answered {
        Ok(answer) => Some(NodeEvent::SecretReceived { attempt, secret, lease: answer.key.lease }),
        Err(error) => error.code().map(|code| NodeEvent::SecretRefused { attempt, secret, code: code.to_string() }),
    };
    // Before it is opened, the node's own log says that it came.
    if let Some(event) = event {
        journal::write(&shared.journal, event).await?;
    }
    let answer = answered?;
    let expected = Expected { secret: named.secret, tenant: Some(planned.tenant), holder: Some(LeaseHolder::Attempt(planned.attempt)) };
    let (lease, version) = (answer.key.lease, answer.key.version);
    let value = asking.open(&answer, &expected)?;
    Ok((SecretFile { name: named.name.clone(), value }, SecretGiven { lease, name: named.name.clone(), secret: named.secret, version }))
}
