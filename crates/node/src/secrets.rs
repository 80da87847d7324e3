//! Secrets of an attempt: released to a fresh key, opened here, and handed to memory that only the job's user reads.

use keys::secret::SecretError;
use receipt::statement::SecretGiven;
use runtime::secret::SecretFile;
use vocabulary::channel as paths;
use vocabulary::job::JobSecret;
use vocabulary::lease::LeaseHolder;
use vocabulary::plan::PlannedJob;
use vocabulary::secret::ReleasedSecret;
use volume::secret::{Asking, Expected, SecretRefusal};

use crate::channel::{Channel, ChannelError, patiently};

/// Why a secret was not opened. No part of it says anything of the value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretsError {
    /// The control plane refuses.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The release is not what was asked for.
    #[error(transparent)]
    Release(#[from] SecretRefusal),
    /// The value does not open.
    #[error("its value: {0}")]
    Value(#[from] SecretError),
}

/// Asks for one secret with a fresh key of our own, checks that the answer is for this attempt, and opens it.
pub(crate) async fn open(channel: &Channel, planned: &PlannedJob, named: &JobSecret) -> Result<(SecretFile, SecretGiven), SecretsError> {
    let asking = Asking::new()?;
    let request = asking.request();
    let url = paths::secret(planned.attempt, named.secret);
    let answer: ReleasedSecret = patiently(|| channel.post(&url, &request)).await?;
    let expected = Expected { secret: named.secret, tenant: Some(planned.tenant), holder: Some(LeaseHolder::Attempt(planned.attempt)) };
    let (lease, version) = (answer.key.lease, answer.key.version);
    let value = asking.open(&answer, &expected)?;
    Ok((SecretFile { name: named.name.clone(), value }, SecretGiven { lease, name: named.name.clone(), secret: named.secret, version }))
}
