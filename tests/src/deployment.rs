//! A deployment of its own on this machine: `swarm up` in the background, in a folder of its own, on free ports.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use crate::leftovers::{Snapshot, snapshot};
use crate::typed::Shell;

/// From the first start of the program to a server that answers: argon2 and certificates, on a busy machine.
const START: Duration = Duration::from_secs(120);
/// Jobs get their grace period, then the log is published.
const STOP: Duration = Duration::from_secs(90);

/// How a deployment is started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Further arguments of `swarm up`.
    pub arguments: Vec<String>,
    /// The control group of its jobs; without one it follows from the data folder.
    pub group: Option<String>,
}

/// A running deployment.
#[derive(Debug)]
pub struct Deployment {
    program: PathBuf,
    folder: PathBuf,
    options: Options,
    child: Option<Child>,
    url: String,
    ca_pin: String,
}

impl Deployment {
    /// Starts `swarm up` with all its state below `folder`, which must exist, and waits until it is ready.
    pub fn up(program: &Path, folder: &Path, options: Options) -> anyhow::Result<Self> {
        // The control plane runs as a user of its own, which must be able to pass through.
        std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        crate::write_private(&folder.join("passphrase"), "correct horse battery staple\n")?;
        let mut deployment = Self {
            program: program.to_owned(),
            folder: folder.to_owned(),
            options,
            child: None,
            url: String::new(),
            ca_pin: String::new(),
        };
        deployment.start()?;
        Ok(deployment)
    }

    /// The command line of `swarm up`.
    #[must_use]
    pub fn command_line(&self) -> Vec<String> {
        let place = |name: &str| self.folder.join(name).display().to_string();
        let mut arguments: Vec<String> = ["up", "--listen", "127.0.0.1:0", "--node-listen", "127.0.0.1:0"].map(str::to_owned).to_vec();
        for (flag, value) in [("--data-dir", place("data")), ("--passphrase-file", place("passphrase"))] {
            arguments.extend([flag.to_owned(), value]);
        }
        arguments.extend(self.group_flag());
        arguments.extend(self.options.arguments.iter().cloned());
        arguments
    }

    /// Other further arguments, from the next start on.
    pub fn next_arguments(&mut self, arguments: &[&str]) {
        self.options.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    }

    /// Starts the program (again) and waits until it is ready.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let _ = std::fs::remove_file(self.endpoints_file());
        let log = std::fs::File::options().append(true).create(true).open(self.log_file())?;
        let child = self
            .shell("operator")
            .command(&self.command_line().iter().map(String::as_str).collect::<Vec<_>>())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("swarm up")?;
        self.child = Some(child);
        let endpoints: Value = crate::wait_for("swarm up", START, || {
            if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                anyhow::bail!("swarm up ended: {status}\n{}", self.log());
            }
            let text = std::fs::read(self.endpoints_file()).unwrap_or_default();
            Ok(serde_json::from_slice(&text).ok())
        })
        .with_context(|| self.log())?;
        let text = |key: &str| endpoints.get(key).and_then(Value::as_str).map(str::to_owned).with_context(|| format!("endpoints.json has no `{key}`"));
        (self.url, self.ca_pin) = (text("api")?, text("ca_pin")?);
        Ok(())
    }

    /// The API's address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The pin of the root.
    #[must_use]
    pub fn ca_pin(&self) -> &str {
        &self.ca_pin
    }

    /// Where all state lies.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn endpoints_file(&self) -> PathBuf {
        self.data().join("endpoints.json")
    }

    fn group_flag(&self) -> Vec<String> {
        self.options.group.iter().flat_map(|group| ["--cgroup-parent".to_owned(), group.clone()]).collect()
    }

    /// The control group below which its node keeps jobs: the one that was chosen, or one named after the data folder.
    pub fn cgroup_parent(&self) -> anyhow::Result<String> {
        if let Some(group) = &self.options.group {
            return Ok(group.clone());
        }
        let mut child = std::process::Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("sha256sum")?;
        let text = self.data();
        child.stdin.take().context("standard input")?.write_all(text.as_os_str().as_encoded_bytes())?;
        let digest = String::from_utf8(child.wait_with_output()?.stdout)?;
        Ok(format!("swarm-{}", digest.chars().take(8).collect::<String>()))
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("up.log")
    }

    /// What `swarm up` said.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// The first administrator's ticket: in a file, as nobody looks at a terminal.
    pub fn ticket(&self) -> anyhow::Result<String> {
        let file = self.data().join("first-ticket");
        Ok(std::fs::read_to_string(&file).with_context(|| file.display().to_string())?.trim().to_owned())
    }

    /// Somebody's terminal: logins of different names are kept apart.
    #[must_use]
    pub fn shell(&self, name: &str) -> Shell {
        Shell::new(&self.program, &self.folder.join("config").join(name))
    }

    /// The process of `swarm up`.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// What on this machine belongs to it.
    pub fn leftovers(&self) -> anyhow::Result<Snapshot> {
        Ok(snapshot(&[&self.folder], &self.cgroup_parent()?))
    }

    /// Ends `swarm up` as Ctrl-C does, and waits for it.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        signal("INT", child.id())?;
        let status = crate::wait_for("the end of swarm up", STOP, || Ok(child.try_wait()?)).with_context(|| self.log())?;
        anyhow::ensure!(status.success(), "swarm up ended with {status}\n{}", self.log());
        Ok(())
    }

    /// Removes everything that it made on this machine, as `swarm down --erase` does.
    pub fn erase(&mut self, shell: &Shell) -> anyhow::Result<()> {
        let data = self.data().display().to_string();
        let group = self.group_flag();
        let down = ["down", "--data-dir", &data, "--erase", "--yes"].into_iter().chain(group.iter().map(String::as_str));
        shell.typed(&down.collect::<Vec<_>>())?.ok()?;
        self.child = None;
        Ok(())
    }

    /// Ends `swarm up` as a power cut would.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill()?;
        child.wait()?;
        Ok(())
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        // A test that failed half-way must not leave its deployment running. First the polite way, so that jobs end too.
        if let Some(mut child) = self.child.take() {
            let _ = signal("INT", child.id());
            if crate::wait_for("the end of swarm up", STOP, || Ok(child.try_wait()?)).is_err() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        // An erased one has none any more.
        if let Ok(group) = self.cgroup_parent() {
            crate::groups::end(&group);
        }
    }
}

/// Sends a signal by name.
pub fn signal(name: &str, pid: u32) -> anyhow::Result<()> {
    let status = std::process::Command::new("kill").args([&format!("-{name}"), "--", &pid.to_string()]).status().context("kill")?;
    anyhow::ensure!(status.success(), "kill -{name} {pid}: {status}");
    Ok(())
}
