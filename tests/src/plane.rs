//! A control plane alone, `swarm server`, one of several on the same database.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use crate::typed::Shell;

/// From the first start of the program to a server that answers: argon2 and certificates, on a busy machine.
const START: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(60);

/// A running `swarm server`.
#[derive(Debug)]
pub struct Plane {
    program: PathBuf,
    data: PathBuf,
    child: Option<Child>,
    url: String,
    ca_pin: String,
}

impl Plane {
    /// The command line of a control plane with its data in this folder, which a passphrase opens.
    pub fn command_line(data: &Path, further: &[&str]) -> anyhow::Result<Vec<String>> {
        std::fs::create_dir_all(data)?;
        let passphrase = data.join("passphrase");
        crate::write_private(&passphrase, "correct horse battery staple\n")?;
        let passphrase = passphrase.display().to_string();
        Ok(Self::without_opening(data, &[&["--passphrase-file", &passphrase], further].concat()))
    }

    fn without_opening(data: &Path, further: &[&str]) -> Vec<String> {
        let mut arguments: Vec<String> = ["server", "--listen", "127.0.0.1:0", "--node-listen", "127.0.0.1:0"].map(str::to_owned).to_vec();
        arguments.extend(["--data-dir".to_owned(), data.display().to_string()]);
        arguments.extend(further.iter().map(|argument| (*argument).to_owned()));
        arguments
    }

    /// Starts it and waits until it answers.
    pub fn start(program: &Path, data: &Path, further: &[&str]) -> anyhow::Result<Self> {
        Self::run(program, data, &Self::command_line(data, further)?, &[])
    }

    /// Starts it by a clock of its own: this machine's, set by what the file says (`+3600`: an hour forth; libfaketime). The time
    /// since the machine's start stays as it is.
    pub fn start_by_clock(program: &Path, data: &Path, clock: &Path) -> anyhow::Result<Self> {
        let clock = clock.to_str().context("the clock's file is not UTF-8")?;
        let environment = [
            ("LD_PRELOAD", "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"),
            ("FAKETIME_TIMESTAMP_FILE", clock),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ];
        Self::run(program, data, &Self::command_line(data, &[])?, &environment)
    }

    /// Starts it with nothing that opens its seal, and waits until it answers.
    pub fn start_sealed(program: &Path, data: &Path) -> anyhow::Result<Self> {
        Self::run(program, data, &Self::without_opening(data, &[]), &[])
    }

    fn run(program: &Path, data: &Path, arguments: &[String], environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let endpoints = data.join("endpoints.json");
        let _ = std::fs::remove_file(&endpoints);
        let said = data.join("said.log");
        let log = std::fs::File::options().append(true).create(true).open(&said)?;
        let shell = Shell::new(program, &data.join("config"));
        let mut child = shell
            .command(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("swarm server")?;
        let told = || std::fs::read_to_string(&said).unwrap_or_default();
        let found = crate::wait_for("swarm server", START, || {
            if let Some(status) = child.try_wait()? {
                anyhow::bail!("swarm server ended: {status}");
            }
            Ok(serde_json::from_slice::<Value>(&std::fs::read(&endpoints).unwrap_or_default()).ok())
        });
        let mut plane = Self { program: program.to_owned(), data: data.to_owned(), child: Some(child), url: String::new(), ca_pin: String::new() };
        let endpoints = found.with_context(told)?;
        let text = |key: &str| endpoints.get(key).and_then(Value::as_str).map(str::to_owned).with_context(|| format!("endpoints.json has no `{key}`"));
        (plane.url, plane.ca_pin) = (text("api")?, text("ca_pin")?);
        Ok(plane)
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
    /// The first administrator's ticket.
    pub fn ticket(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.data.join("first-ticket"))?.trim().to_owned())
    }
    /// What it said.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.join("said.log")).unwrap_or_default()
    }
    /// Somebody's terminal, whose logins are kept with this control plane.
    #[must_use]
    pub fn shell(&self, name: &str) -> Shell {
        Shell::new(&self.program, &self.data.join("config").join(name))
    }

    /// A terminal with another's logins, at this control plane: the tokens are the same, only the address differs.
    pub fn shell_of(&self, other: &Shell) -> anyhow::Result<Shell> {
        let name = other.config().file_name().and_then(std::ffi::OsStr::to_str).context("a login without a folder")?;
        let own = self.shell(name);
        let mut login: Value = serde_json::from_slice(&std::fs::read(other.config().join("default.json"))?)?;
        *login.get_mut("url").context("a login without `url`")? = Value::from(self.url.as_str());
        std::fs::create_dir_all(own.config())?;
        crate::write_private(&own.config().join("default.json"), &serde_json::to_string(&login)?)?;
        Ok(own)
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        crate::signal(name, self.child.as_ref().context("it does not run")?.id())
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Ends it in good order.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        crate::signal("TERM", child.id())?;
        let status = crate::wait_for("the end of swarm server", STOP, || Ok(child.try_wait()?)).with_context(|| self.log())?;
        anyhow::ensure!(status.success(), "swarm server ended with {status}\n{}", self.log());
        Ok(())
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        // Also a paused one ends by this signal.
        let _ = self.kill();
    }
}
