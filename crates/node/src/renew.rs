//! Renewal of the node's certificate at two thirds of its life, over the channel itself.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use identity::EcdsaKey;
use identity::certificate::make_request;
use tokio_util::sync::CancellationToken;
use vocabulary::api::{NodeRenew, NodeRenewed};
use vocabulary::channel::CERTIFICATE;

use crate::agent::Shared;
use crate::channel::Backoff;
use crate::clock;
use crate::limits::RENEW_CHECK;
use crate::store::{self, TlsIdentity};

/// Renews until `stop`.
pub(crate) async fn renew(shared: Arc<Shared>, stop: CancellationToken) {
    let mut backoff = Backoff::default();
    stop.run_until_cancelled(async {
        loop {
            let tls = shared.node.tls();
            let now = clock::wall();
            if let Some(left) = tls.renew_at().since(now).filter(|left| *left > 0) {
                // The wall clock may be set meanwhile: it is looked at again and again.
                tokio::time::sleep(Duration::from_millis(left).min(RENEW_CHECK)).await;
                continue;
            }
            match once(&shared).await {
                Ok(()) => backoff = Backoff::default(),
                Err(error) => {
                    let ended = tls.not_after < now;
                    tracing::error!(error, ended, "the certificate was not renewed; when it has ended, this node has to join again");
                    backoff.wait().await;
                }
            }
        }
    })
    .await;
}

async fn once(shared: &Shared) -> Result<(), String> {
    let key = EcdsaKey::generate().map_err(|error| error.to_string())?;
    let csr = STANDARD.encode(make_request(&key).map_err(|error| error.to_string())?);
    let renewed: NodeRenewed = shared.channel.post(CERTIFICATE, &NodeRenew { csr }).await.map_err(|error| error.to_string())?;
    let now = clock::wall();
    let node = &shared.node;
    let tls = TlsIdentity::check(&node.deployment, node.file.node, &key, &renewed.chain, now).map_err(|error| error.to_string())?;
    if tls.renew_at() <= now {
        return Err("the new certificate is as old as the one at hand".to_owned());
    }
    let (dir, kept) = (shared.dir.clone(), tls.clone());
    let written = tokio::task::spawn_blocking(move || store::write_tls(&dir, &kept)).await;
    written.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    shared.channel.replace(&tls)?;
    node.replace_tls(tls);
    tracing::info!("the certificate was renewed");
    Ok(())
}
