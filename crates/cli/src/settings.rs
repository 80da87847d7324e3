//! How a part was started, left in its folder for a support bundle: how, never with what.
//!
//! **Invariant:** every field is a number, a yes or no, or a word out of a fixed set, when it is written *and* when it is read:
//! no address, path, name or secret can be in it, also if somebody changed the file.

use std::net::SocketAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};
use vocabulary::runtime::Runtime;

use crate::args;
use crate::context::write_private;
use crate::error::CliError;

/// The file's name.
pub(crate) const FILE: &str = "settings.json";

/// Who reaches an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reach {
    /// Programs of this machine.
    ThisMachine,
    /// Every address of the machine.
    EveryAddress,
    /// One address of the machine.
    OneAddress,
}

impl Reach {
    fn of(address: &SocketAddr) -> Self {
        match address.ip() {
            ip if ip.is_loopback() => Self::ThisMachine,
            ip if ip.is_unspecified() => Self::EveryAddress,
            _ => Self::OneAddress,
        }
    }
}

/// What opens the seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Way {
    /// A file with the passphrase.
    PassphraseFile,
    /// Files with shares.
    ShareFiles,
    /// Nothing: it was started sealed.
    Sealed,
    /// `swarm up` hands it over.
    Supervisor,
    /// A person at the terminal.
    Asked,
}

/// How a control plane was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerSettings {
    /// The format: 1.
    version: u32,
    listen: Reach,
    listen_port: u16,
    node_listen: Reach,
    node_listen_port: u16,
    metrics: bool,
    /// Names and addresses for the certificate.
    hosts: usize,
    postgresql: bool,
    database_password: bool,
    objects_elsewhere: bool,
    opened_by: Way,
    other_user: bool,
    local_node: bool,
    supervised: bool,
    json_logs: bool,
    /// `SWARM_LOG` is set.
    log_filter: bool,
    /// A collector of traces was named.
    traces: bool,
}

/// How a node's agent was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeSettings {
    /// The format: 1.
    version: u32,
    runtimes: Vec<Runtime>,
    cdi_dirs: usize,
    gpu_scrub: bool,
    id_base: u32,
    id_blocks: u32,
    stop_jobs: bool,
    supervised: bool,
    json_logs: bool,
    /// `SWARM_LOG` is set.
    log_filter: bool,
    /// A collector of traces was named.
    traces: bool,
}

impl ServerSettings {
    pub(crate) fn of(args: &args::Server, traces: bool) -> Self {
        let addresses = &args.addresses;
        Self {
            version: 1,
            listen: Reach::of(&addresses.listen),
            listen_port: addresses.listen.port(),
            node_listen: Reach::of(&addresses.node_listen),
            node_listen_port: addresses.node_listen.port(),
            metrics: addresses.metrics_listen.is_some(),
            hosts: addresses.host.len(),
            postgresql: args.state.database.is_some(),
            database_password: args.state.database_password_file.is_some(),
            objects_elsewhere: args.state.objects.is_some(),
            opened_by: match args {
                args if args.sealed => Way::Sealed,
                args if !args.share_file.is_empty() => Way::ShareFiles,
                args if args.passphrase_file.is_some() => Way::PassphraseFile,
                args if args.supervised => Way::Supervisor,
                _ => Way::Asked,
            },
            other_user: args.user.is_some(),
            local_node: args.local_join.is_some(),
            supervised: args.supervised,
            json_logs: crate::logs::are_json(),
            log_filter: crate::logs::are_filtered(),
            traces,
        }
    }
}

impl NodeSettings {
    pub(crate) fn of(args: &args::NodeRun, traces: bool) -> Self {
        Self {
            version: 1,
            runtimes: args.runtimes.iter().map(|(runtime, _)| *runtime).collect(),
            cdi_dirs: args.gpus.cdi_dirs.len(),
            gpu_scrub: args.gpus.gpu_scrub.is_some(),
            id_base: args.ids.id_base,
            id_blocks: args.ids.id_blocks,
            stop_jobs: args.stop_jobs,
            supervised: args.supervised,
            json_logs: crate::logs::are_json(),
            log_filter: crate::logs::are_filtered(),
            traces,
        }
    }
}

/// Leaves settings in a folder.
pub(crate) fn leave<T: Serialize>(folder: &Path, settings: &T) -> Result<(), CliError> {
    let text = serde_json::to_string(settings).map_err(|error| CliError::new(1, error.to_string()))?;
    write_private(&folder.join(FILE), format!("{text}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn how_and_never_with_what() {
        let typed = "swarm server --data-dir /srv/canary --listen 10.1.2.3:7443 --host canary.example --admin canary --user canary \
            --database postgres://canary@db.canary.example/canary --database-password-file /canary --passphrase-file /canary/pass";
        let cli = args::Cli::parse_from(typed.split_whitespace());
        let args::Noun::Server(server) = cli.noun else { panic!("a server") };
        let settings = ServerSettings::of(&server, true);
        let text = serde_json::to_string(&settings).unwrap();
        assert!(!text.contains("canary") && !text.contains("10.1"), "{text}");
        assert!(settings.postgresql && settings.database_password && settings.listen == Reach::OneAddress && settings.opened_by == Way::PassphraseFile);
        assert_eq!(serde_json::from_str::<ServerSettings>(&text).unwrap(), settings);
        // A file that somebody changed brings no text in.
        for (from, to) in [("one_address", "canary"), ("\"metrics\":false", "\"metrics\":\"canary\""), ("\"version\":1", "\"version\":1,\"canary\":1")] {
            let doctored = text.replace(from, to);
            assert!(doctored != text && serde_json::from_str::<ServerSettings>(&doctored).is_err(), "{doctored}");
        }
    }
}
