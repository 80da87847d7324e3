//! Typing commands and reading what they say.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::Context as _;
use serde_json::Value;

/// What is told about each command before it runs, and what it said afterwards.
type Witness = fn(&[&str]);

/// One person's terminal: the program, and the folder in which its logins are kept.
#[derive(Debug, Clone)]
pub struct Shell {
    program: PathBuf,
    config: PathBuf,
    witness: Option<Witness>,
    environment: Vec<(String, PathBuf)>,
}

impl Shell {
    /// A terminal of its own.
    #[must_use]
    pub fn new(program: &Path, config: &Path) -> Self {
        Self { program: program.to_owned(), config: config.to_owned(), witness: None, environment: Vec::new() }
    }

    /// Tells somebody each command before it runs.
    #[must_use]
    pub fn watched(mut self, witness: Witness) -> Self {
        self.witness = Some(witness);
        self
    }

    /// Has its commands find a path in their environment.
    #[must_use]
    pub fn with_path(mut self, name: &str, path: &Path) -> Self {
        self.environment.push((name.to_owned(), path.to_owned()));
        self
    }

    /// Where its logins are kept.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    pub(crate) fn show(&self, arguments: &[&str]) {
        if let Some(witness) = self.witness {
            witness(arguments);
        }
    }

    /// The command, not yet started.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--config-dir").arg(&self.config).args(arguments);
        for name in ["SWARM_OUTPUT", "SWARM_CONTEXT", "SWARM_CONFIG_DIR", "SWARM_DATA_DIR", "SWARM_LISTEN", "SWARM_RUN_DIR", "SWARM_NODE_DIR"] {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, path)| (name, path)));
        command
    }

    /// Types a command and waits for its end.
    pub fn typed(&self, arguments: &[&str]) -> anyhow::Result<Typed> {
        self.typed_with(arguments, "")
    }

    /// Types a command and what it asks for.
    pub fn typed_with(&self, arguments: &[&str], answers: &str) -> anyhow::Result<Typed> {
        self.show(arguments);
        let mut child =
            self.command(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("swarm")?;
        // A command that asks for nothing may have closed its input.
        let _ = child.stdin.take().map(|mut input| input.write_all(answers.as_bytes()));
        let output = child.wait_with_output()?;
        Ok(Typed { line: arguments.join(" "), output })
    }

    /// Types a command with `-o json` and reads its document.
    pub fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        self.show(arguments);
        let mut all = vec!["-o", "json"];
        all.extend(arguments);
        let output = self.command(&all).stdin(Stdio::null()).output().context("swarm")?;
        Typed { line: arguments.join(" "), output }.ok()?.json()
    }
}

/// What a command did.
#[derive(Debug)]
pub struct Typed {
    line: String,
    output: Output,
}

impl Typed {
    /// Fails unless it succeeded.
    pub fn ok(self) -> anyhow::Result<Self> {
        anyhow::ensure!(self.output.status.success(), "`swarm {}`: {}\n{}", self.line, self.output.status, self.err());
        Ok(self)
    }

    /// Fails unless it was refused with this exit code; gives what it said.
    pub fn refused(self, exit: i32) -> anyhow::Result<String> {
        anyhow::ensure!(
            self.output.status.code() == Some(exit),
            "`swarm {}` should have been refused with exit code {exit}: {}\n{}{}",
            self.line,
            self.output.status,
            self.out(),
            self.err()
        );
        Ok(self.err())
    }

    /// Its exit code; none after a signal.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.output.status.code()
    }

    /// Standard output as it is.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.output.stdout
    }

    /// Standard output.
    #[must_use]
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    /// Standard error.
    #[must_use]
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// Its JSON document.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.output.stdout).with_context(|| format!("`swarm {}` did not print JSON: {}", self.line, self.out()))
    }
}
