//! Where a deployment of this machine lies: its state, and the record of what runs.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use audit::hash::sha256;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::context::write_private;
use crate::error::CliError;
use crate::host::Process;

/// Where state lies unless something else is said.
pub(crate) const DATA_DIR: &str = "/var/lib/swarm";
/// Where the record of what runs lies then.
const RUN_DIR: &str = "/run/swarm";

/// The folders of a deployment.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// All of its state.
    pub(crate) data: PathBuf,
    /// What runs.
    pub(crate) run: PathBuf,
}

/// What runs, as `swarm down` and the next `swarm up` find it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Running {
    /// The format: 1.
    pub(crate) version: u32,
    /// `swarm up`.
    pub(crate) up: Process,
    /// Its parts, by name.
    pub(crate) parts: Vec<(String, Process)>,
}

/// Where a deployment is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoints {
    /// The format: 1.
    pub(crate) version: u32,
    /// The API: `https://HOST:PORT`.
    pub(crate) api: String,
    /// The nodes' channel: `HOST:PORT`.
    pub(crate) node: String,
    /// Where metrics are read: `http://HOST:PORT/metrics`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) metrics: Option<String>,
    /// The pin of the deployment's root.
    pub(crate) ca_pin: String,
    /// The process of the server that wrote it.
    #[serde(default)]
    pub(crate) pid: u32,
    /// The profile.
    pub(crate) profile: String,
}

impl Endpoints {
    /// Writes it into a folder, whole or not at all.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), CliError> {
        let text = serde_json::to_string(self).map_err(|error| CliError::new(1, error.to_string()))?;
        write_private(&folder.join("endpoints.json"), format!("{text}\n").as_bytes())
    }
}

impl Place {
    /// The place that is meant: with another data folder, what runs is recorded beside the data.
    pub(crate) fn new(data: &Path, run: Option<&Path>) -> Result<Self, CliError> {
        let data = std::path::absolute(data).map_err(|error| CliError::usage(format!("{}: {error}", data.display())))?;
        let run = match run {
            Some(run) => std::path::absolute(run).map_err(|error| CliError::usage(format!("{}: {error}", run.display())))?,
            None if data == Path::new(DATA_DIR) => PathBuf::from(RUN_DIR),
            None => data.join("run"),
        };
        if data.parent().is_none() {
            return Err(CliError::usage("--data-dir: the root folder is no place for state"));
        }
        Ok(Self { data, run })
    }

    pub(crate) fn server(&self) -> PathBuf {
        self.data.join("server")
    }
    pub(crate) fn node(&self) -> PathBuf {
        self.data.join("node")
    }
    pub(crate) fn log(&self) -> PathBuf {
        self.data.join("log")
    }
    /// The file in which the server leaves the local node's join token.
    pub(crate) fn join_token(&self) -> PathBuf {
        self.server().join("local-join-token")
    }
    fn record(&self) -> PathBuf {
        self.run.join("up.json")
    }

    /// The control group below which this deployment's jobs run: one of its own for each place.
    pub(crate) fn cgroup_parent(&self) -> String {
        if self.data == Path::new(DATA_DIR) {
            return "swarm".to_owned();
        }
        let digest = sha256(&[self.data.as_os_str().as_encoded_bytes()]);
        let short: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        format!("swarm-{short}")
    }

    /// Makes the folders that only root may change, and refuses those that others could.
    pub(crate) fn prepare(&self) -> Result<(), CliError> {
        for (path, mode) in [(&self.data, 0o755), (&self.run, 0o755), (&self.log(), 0o700), (&self.server(), 0o700)] {
            DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|error| CliError::new(1, format!("{}: {error}", path.display())))?;
        }
        // Others may pass through it, whatever the umask or its maker said: the control plane runs as another user.
        let data = std::fs::symlink_metadata(&self.data)?;
        if data.is_dir() && data.uid() == 0 && data.mode() & 0o011 != 0o011 {
            std::fs::set_permissions(&self.data, std::fs::Permissions::from_mode(data.mode() & 0o7777 | 0o011))?;
        }
        for path in [&self.data, &self.run] {
            let metadata = std::fs::symlink_metadata(path)?;
            if !metadata.is_dir() || metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
                return Err(CliError::usage(format!("{} must be a folder of root that nobody else may change", path.display()))
                    .hint(format!("chown root {0} && chmod 755 {0}, or name another folder", path.display())));
            }
        }
        Ok(())
    }

    /// Holds the place for us alone, until the file is dropped; `None` when somebody else holds it.
    pub(crate) fn hold(&self) -> Result<Option<File>, CliError> {
        let path = self.run.join("up.lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(|error| CliError::new(1, format!("{}: {error}", path.display())))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(CliError::new(1, format!("{}: {error}", path.display()))),
        }
    }

    /// What was recorded last; what cannot be read is as good as nothing, since every entry is checked against the kernel.
    pub(crate) fn running(&self) -> Option<Running> {
        serde_json::from_slice(&std::fs::read(self.record()).ok()?).ok()
    }

    /// Records what runs.
    pub(crate) fn write_running(&self, running: &Running) -> Result<(), CliError> {
        let text = serde_json::to_vec(running).map_err(|error| CliError::new(1, error.to_string()))?;
        write_private(&self.record(), &text)
    }

    /// Nothing runs any more.
    pub(crate) fn forget_running(&self) {
        let _ = std::fs::remove_file(self.record());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_data_folder_has_its_own_record_and_group() {
        let usual = Place::new(Path::new(DATA_DIR), None).unwrap();
        assert_eq!((usual.run.as_path(), usual.cgroup_parent().as_str()), (Path::new(RUN_DIR), "swarm"));
        let other = Place::new(Path::new("/srv/swarm"), None).unwrap();
        assert_eq!(other.run, Path::new("/srv/swarm/run"));
        assert!(other.cgroup_parent().starts_with("swarm-") && other.cgroup_parent().len() == 14);
        assert_ne!(other.cgroup_parent(), Place::new(Path::new("/srv/swarm2"), None).unwrap().cgroup_parent());
        assert_eq!(Place::new(Path::new("/srv/swarm"), Some(Path::new("/run/x"))).unwrap().run, Path::new("/run/x"));
        assert_eq!(Place::new(Path::new("/"), None).unwrap_err().exit, 2);
    }

    #[test]
    fn the_record_of_what_runs_comes_back_and_damage_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(folder.path(), Some(folder.path())).unwrap();
        assert_eq!(place.running(), None);
        let own = Process::own().unwrap();
        let running = Running { version: 1, up: own.clone(), parts: vec![("server".to_owned(), own)] };
        place.write_running(&running).unwrap();
        assert_eq!(place.running(), Some(running));
        std::fs::write(place.record(), b"{\"version\":1,\"up\":17}").unwrap();
        assert_eq!(place.running(), None);
    }

    #[test]
    fn others_may_pass_through_a_folder_that_a_careful_hand_made() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        DirBuilder::new().mode(0o700).create(&data).unwrap();
        let place = Place::new(&data, None).unwrap();
        place.prepare().unwrap();
        assert_eq!(std::fs::metadata(&data).unwrap().mode() & 0o777, 0o711);
        assert_eq!(std::fs::metadata(place.server()).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_place_is_held_once() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(folder.path(), Some(folder.path())).unwrap();
        let held = place.hold().unwrap();
        assert!(held.is_some() && place.hold().unwrap().is_none());
        drop(held);
        assert!(place.hold().unwrap().is_some());
    }
}
