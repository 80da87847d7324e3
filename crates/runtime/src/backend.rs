//! What makes a sandbox: libcontainer inside our own shim, or an OCI runtime's program that the shim drives.
//!
//! **Invariant:** a foreign program runs from a sealed copy whose digest is the one in the plan; the file on the disk is
//! never executed.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use vocabulary::Sha256Digest;
use vocabulary::runtime::{Runtime, RuntimeOffer};

/// The version of the library that is compiled in.
const LIBCONTAINER: &str = "libcontainer 0.7.0";
/// Bytes of a runtime's program: several times the largest there is.
const PROGRAM_BYTES: u64 = 256 << 20;
/// Bytes of what a runtime says about itself.
const WORD_BYTES: u64 = 16 * 1024;
/// Characters of a version that are kept.
const VERSION_CHARS: usize = 80;
/// How long a runtime may take to say its version, or its commands.
const WORD_PATIENCE: Duration = Duration::from_secs(20);
/// The commands that the shim calls.
const COMMANDS: [&str; 4] = ["create", "start", "kill", "delete"];
/// Where packages put a runtime. The search path of a caller has no say.
const PLACES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];

/// Why a runtime is not offered.
#[derive(Debug, Error)]
pub enum BackendError {
    /// Its program cannot be read or executed.
    #[error("runtime `{runtime}`: `{}`", path.display())]
    Program {
        /// The runtime.
        runtime: Runtime,
        /// Its program.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its program does not say which one it is.
    #[error("runtime `{runtime}`: `{}` does not call itself {runtime}, it says `{said}`", path.display())]
    Stranger {
        /// The runtime.
        runtime: Runtime,
        /// Its program.
        path: PathBuf,
        /// What it said.
        said: String,
    },
    /// Its program is not driven by a command line.
    #[error(
        "runtime `{runtime}`: `{}` ({version}) has no command `{missing}`: Kata Containers 2.0 and later are driven by containerd's protocol alone, which is not built",
        path.display()
    )]
    NoCommand {
        /// The runtime.
        runtime: Runtime,
        /// Its program.
        path: PathBuf,
        /// The version that it states.
        version: String,
        /// What the shim would call.
        missing: &'static str,
    },
    /// There is no program for what is a part of our own.
    #[error("runtime `youki`: it is a part of Swarm, no program can be named for it")]
    OwnPart,
}

/// A foreign runtime's program, as it was probed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binary {
    /// Where it lies.
    pub path: PathBuf,
    /// The version that it states.
    pub version: String,
    /// SHA-256 of its bytes. A file that has changed since is not executed.
    pub digest: Sha256Digest,
}

/// What makes the sandbox of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Which one.
    pub runtime: Runtime,
    /// Its program; `None` for the one that is a part of our own.
    pub binary: Option<Binary>,
}

impl Backend {
    /// The runtime at a path.
    ///
    /// # Errors
    /// When it cannot be read or executed, or calls itself by another name.
    pub fn probe(runtime: Runtime, path: &Path) -> Result<Self, BackendError> {
        if runtime == Runtime::Youki {
            return Err(BackendError::OwnPart);
        }
        let wrong = |source| BackendError::Program { runtime, path: path.to_owned(), source };
        let (program, digest) = seal(path).map_err(wrong)?;
        let said = ask(&program, "--version").map_err(wrong)?;
        let Some(version) = read_version(runtime, &said) else {
            let said = said.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(VERSION_CHARS).collect();
            return Err(BackendError::Stranger { runtime, path: path.to_owned(), said });
        };
        if runtime == Runtime::Kata {
            // The name alone does not say it: later versions kept the program, for its other commands.
            let help = ask(&program, "--help").map_err(|source| BackendError::Program { runtime, path: path.to_owned(), source })?;
            if let Some(missing) = missing_command(&help) {
                return Err(BackendError::NoCommand { runtime, path: path.to_owned(), version, missing });
            }
        }
        Ok(Self { runtime, binary: Some(Binary { path: path.to_owned(), version, digest }) })
    }

    /// Where packages put a runtime's program.
    fn places(runtime: Runtime) -> impl Iterator<Item = PathBuf> {
        let name = if runtime == Runtime::Kata { "kata-runtime" } else { runtime.as_str() };
        PLACES.iter().map(move |place| Path::new(place).join(name)).filter(|path| path.is_file())
    }

    /// Why a runtime that is installed is not offered.
    pub(crate) fn complaint(runtime: Runtime) -> Option<String> {
        Self::places(runtime).find_map(|path| Self::probe(runtime, &path).err()).map(|error| error.to_string())
    }

    /// Every runtime that lies where packages put them, the own one first.
    #[must_use]
    pub fn installed() -> Vec<Self> {
        let mut all = vec![Self::default()];
        for runtime in [Runtime::Runc, Runtime::Crun, Runtime::Runsc, Runtime::Kata] {
            all.extend(Self::places(runtime).find_map(|path| Self::probe(runtime, &path).ok()));
        }
        all
    }

    /// What a node says of it.
    #[must_use]
    pub fn offer(&self) -> RuntimeOffer {
        RuntimeOffer {
            runtime: self.runtime,
            version: self.binary.as_ref().map_or_else(|| LIBCONTAINER.to_owned(), |binary| binary.version.clone()),
            digest: self.binary.as_ref().map(|binary| binary.digest),
            untested: !self.runtime.tested(),
        }
    }

    /// The line of the isolation report.
    pub(crate) fn title(&self) -> String {
        self.binary.as_ref().map_or_else(|| LIBCONTAINER.to_owned(), |binary| format!("{} {}", self.runtime, binary.version))
    }
}

impl Binary {
    /// A sealed copy for execution.
    ///
    /// # Errors
    /// When the file cannot be read, or is not the one that was probed.
    pub(crate) fn open(&self) -> Result<OwnedFd, String> {
        let (program, digest) = seal(&self.path).map_err(|error| format!("`{}`: {error}", self.path.display()))?;
        if digest == self.digest {
            Ok(program)
        } else {
            Err(format!("`{}` is not the program that was probed: its SHA-256 is {digest}, not {}", self.path.display(), self.digest))
        }
    }
}

/// Copies a program into a sealed memory file: what is hashed is what is executed.
fn seal(path: &Path) -> std::io::Result<(OwnedFd, Sha256Digest)> {
    let source = File::open(path)?;
    let metadata = source.metadata()?;
    if !metadata.is_file() || metadata.len() > PROGRAM_BYTES {
        return Err(std::io::Error::other(format!("a program is a regular file of at most {PROGRAM_BYTES} bytes")));
    }
    seal_bytes("swarm-runtime", source.take(PROGRAM_BYTES))
}

/// A sealed memory file that can be executed, and the digest of its bytes.
pub(crate) fn seal_bytes(name: &str, mut source: impl Read) -> std::io::Result<(OwnedFd, Sha256Digest)> {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Hosts may make memory files without a word not executable; kernels before 6.3 do not know the word.
    let made = memfd_create(name, flags | MemfdFlags::EXEC).or_else(|_| memfd_create(name, flags));
    let mut target = File::from(made?);
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let mut chunk = vec![0; 1 << 20];
    loop {
        let read = source.read(&mut chunk)?;
        let part = chunk.get(..read).unwrap_or_default();
        if part.is_empty() {
            break;
        }
        context.update(part);
        target.write_all(part)?;
    }
    fcntl_add_seals(&target, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    // Execution needs a descriptor that is not open for writing.
    let readonly = File::open(format!("/proc/self/fd/{}", target.as_raw_fd()))?;
    Ok((readonly.into(), Sha256Digest::from_bytes(bytes)))
}

/// What the program answers to this one argument.
fn ask(program: &OwnedFd, argument: &str) -> std::io::Result<String> {
    let mut child = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
        .arg(argument)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let step = Duration::from_millis(10);
    let mut waited = Duration::ZERO;
    while child.try_wait()?.is_none() {
        if waited >= WORD_PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, format!("it does not answer to {argument}")));
        }
        crate::cgroup::pause(step);
        waited = waited.saturating_add(step);
    }
    let mut said = Vec::new();
    if let Some(output) = child.stdout.take() {
        output.take(WORD_BYTES).read_to_end(&mut said)?;
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// The first command that is missing in what a runtime says of itself: each stands at the begin of a line.
fn missing_command(help: &str) -> Option<&'static str> {
    COMMANDS.into_iter().find(|command| !help.lines().any(|line| line.split_whitespace().next().is_some_and(|word| word.trim_end_matches(',') == *command)))
}

/// `runc version 1.1.5`, `crun version 1.8.1`, `runsc version release-2022`, `kata-runtime  : 1.13.0`.
fn read_version(runtime: Runtime, said: &str) -> Option<String> {
    let name = if runtime == Runtime::Kata { "kata-runtime" } else { runtime.as_str() };
    let rest = said.lines().next()?.trim().strip_prefix(name)?.trim_start();
    let rest = rest.strip_prefix("version").or_else(|| rest.strip_prefix(':'))?.trim();
    let clean: String = rest.chars().filter(|c| c.is_ascii_graphic()).take(VERSION_CHARS).collect();
    Some(clean).filter(|clean| !clean.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_of_the_one_that_was_asked_for() {
        for (runtime, said, version) in [
            (Runtime::Runc, "runc version 1.1.5+ds1\ncommit: x\n", Some("1.1.5+ds1")),
            (Runtime::Crun, "crun version 1.8.1\n", Some("1.8.1")),
            (Runtime::Runsc, "runsc version 0.0~20221219.0\nspec: 1.0.2-dev", Some("0.0~20221219.0")),
            (Runtime::Kata, "kata-runtime  : 1.13.0\n   commit   : x", Some("1.13.0")),
            (Runtime::Runc, "crun version 1.8.1\n", None),
            (Runtime::Runc, "runc version \n", None),
            (Runtime::Runc, "", None),
        ] {
            assert_eq!(read_version(runtime, said).as_deref(), version, "{said}");
        }
    }

    #[test]
    fn a_program_that_is_none_or_another_is_refused_by_name() {
        assert!(matches!(Backend::probe(Runtime::Youki, Path::new("/bin/true")), Err(BackendError::OwnPart)));
        let absent = Backend::probe(Runtime::Kata, Path::new("/no/such/kata")).unwrap_err();
        assert!(absent.to_string().contains("kata") && absent.to_string().contains("/no/such/kata"), "{absent}");
        assert!(matches!(Backend::probe(Runtime::Runc, Path::new("/proc/self")), Err(BackendError::Program { .. })));
        let stranger = Backend::probe(Runtime::Runc, Path::new("/bin/true")).unwrap_err().to_string();
        assert!(stranger.contains("does not call itself runc"), "{stranger}");
    }

    #[test]
    fn the_commands_of_a_runtime_are_looked_for() {
        let text = |commands: &[&str]| format!("USAGE:\n   create things\n\nCOMMANDS:\n{}", commands.iter().map(|name| format!("     {name:12} do {name}\n")).collect::<String>());
        let all = ["create", "delete", "start", "kill"];
        assert_eq!(missing_command(&text(&all)), None);
        assert_eq!(missing_command(&text(&all[..3])), Some("kill"));
        assert_eq!(missing_command(&text(&["kata-check", "kata-env", "exec", "help, h"])), Some("start"));
        assert_eq!(missing_command(""), Some("create"));
    }

    #[test]
    fn a_program_that_has_changed_is_not_executed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("runc");
        std::fs::copy("/bin/busybox", &path).unwrap();
        let (_, digest) = seal(&path).unwrap();
        let binary = Binary { path: path.clone(), version: "1".to_owned(), digest };
        binary.open().unwrap();
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"x").unwrap();
        assert!(binary.open().unwrap_err().contains("not the program that was probed"));
    }

    #[test]
    fn the_own_part_is_the_default_and_is_offered() {
        let offer = Backend::default().offer();
        assert_eq!((offer.runtime, offer.version.as_str(), offer.digest, offer.untested), (Runtime::Youki, LIBCONTAINER, None, false));
        assert!(Backend { runtime: Runtime::Kata, binary: None }.offer().untested);
        assert_eq!(Backend::installed()[0], Backend::default());
    }
}
