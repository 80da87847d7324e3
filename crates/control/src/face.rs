//! The certificate that this process shows to people and nodes, and its renewal while it serves.

use std::path::PathBuf;
use std::sync::Arc;

use identity::tls::{Clients, Identity, KeyExchange, server_config};
use identity::{Class, EcdsaKey, ServerName};
use keys::SystemRandom;
use rustls::ServerConfig;
use store::Transaction;
use tokio::sync::watch;
use vocabulary::{SYSTEM_OWNER, UnixTime};

use crate::bootstrap::{StartError, certificates, internal};
use crate::deployment;
use crate::renewal::certificate_issued;
use crate::state::Control;

/// What connections are answered with from now on; those that stand are left alone.
#[derive(Debug)]
pub(crate) struct Face {
    names: Vec<ServerName>,
    data_dir: PathBuf,
    people: watch::Sender<Arc<ServerConfig>>,
    nodes: watch::Sender<Arc<ServerConfig>>,
    renew_at: UnixTime,
    ends: UnixTime,
}

/// A certificate with what the two listeners make of it.
struct Made {
    people: Arc<ServerConfig>,
    nodes: Arc<ServerConfig>,
    renew_at: UnixTime,
    ends: UnixTime,
}

impl Face {
    /// Issues the first certificate of this process, for the names under which it is reached.
    pub(crate) async fn make(control: &Control, names: Vec<ServerName>, data_dir: PathBuf, now: UnixTime) -> Result<Self, StartError> {
        let made = issue(control, &names, &data_dir, now).await?;
        let (people, nodes) = (watch::Sender::new(made.people), watch::Sender::new(made.nodes));
        Ok(Self { names, data_dir, people, nodes, renew_at: made.renew_at, ends: made.ends })
    }

    /// Issues the next one, at two thirds of this one's life.
    pub(crate) async fn renew(&mut self, control: &Control, now: UnixTime) -> Result<(), StartError> {
        if now < self.renew_at {
            return Ok(());
        }
        let made = issue(control, &self.names, &self.data_dir, now).await?;
        self.people.send_replace(made.people);
        self.nodes.send_replace(made.nodes);
        (self.renew_at, self.ends) = (made.renew_at, made.ends);
        Ok(())
    }

    /// When the certificate ends.
    pub(crate) const fn ends(&self) -> UnixTime {
        self.ends
    }

    /// What the API's listener shows.
    pub(crate) fn people(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.people.subscribe()
    }

    /// What the node channel's listener shows.
    pub(crate) fn nodes(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.nodes.subscribe()
    }
}

async fn issue(control: &Control, names: &[ServerName], data_dir: &std::path::Path, now: UnixTime) -> Result<Made, StartError> {
    let (_, row) = deployment::stored(&control.store).await?.ok_or(StartError::Mismatch("the deployment is gone from the database"))?;
    // Its key is open for this one signature: a running server has no use for it otherwise.
    let authority = row.authority(&control.store, &control.vault, Class::Control).await?;
    let key = EcdsaKey::generate().map_err(certificates)?;
    let public = key.public().map_err(certificates)?;
    let issued = authority.issue_control(control.control, &public, names, now, &mut SystemRandom).map_err(certificates)?;
    let (event, _) = certificate_issued(control, &issued).ok_or_else(|| internal("a certificate without a leaf"))?;
    let entry = control.system_entry(now, SYSTEM_OWNER, event).map_err(|failure| internal(failure.problem.detail))?;
    control.store.commit(Transaction::new().entry(entry), now).await.map_err(internal)?;
    let renew_at = issued.renew_at();
    let identity = Identity { chain: issued.chain, key: key.private().clone() };
    crate::sealed::leave_face(data_dir, &identity, issued.not_after)?;
    let config = |clients| {
        let clock = Arc::new(crate::clock::Handshakes);
        server_config(&identity, control.gate.verifier().root(), clients, KeyExchange::default(), clock).map(Arc::new).map_err(certificates)
    };
    let nodes = Clients::Nodes(Arc::clone(control.gate.verifier()));
    Ok(Made { people: config(Clients::Anybody)?, nodes: config(nodes)?, renew_at, ends: issued.not_after })
}
