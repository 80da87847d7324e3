//! What the command line remembers between calls: where the server is, whom it trusts, and the token; mode 0600.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vocabulary::UnixTime;

use crate::error::CliError;

/// One login.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// The API, such as `https://127.0.0.1:7443`.
    pub(crate) url: String,
    /// The deployment's public file, verbatim: pinned at first contact.
    pub(crate) deployment_file: String,
    /// The token, if logged in.
    #[serde(default)]
    pub(crate) token: Option<String>,
    /// When the token ends.
    #[serde(default)]
    pub(crate) expires: Option<UnixTime>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("url", &self.url).field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// The folder of all contexts.
#[derive(Debug, Clone)]
pub(crate) struct Contexts {
    folder: Option<PathBuf>,
}

impl Contexts {
    /// Logins in this folder, or else in the user's own; a program without either can do what needs no login.
    pub(crate) fn new(folder: Option<PathBuf>) -> Self {
        Self { folder: folder.or_else(config_home) }
    }

    fn folder(&self) -> Result<&Path, CliError> {
        self.folder.as_deref().ok_or_else(|| CliError::usage("neither XDG_CONFIG_HOME nor HOME is set").hint("name a folder with --config-dir"))
    }

    fn file(&self, name: &str) -> Result<PathBuf, CliError> {
        let fits = !name.is_empty() && name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        if fits { Ok(self.folder()?.join(format!("{name}.json"))) } else { Err(CliError::usage("a context's name has 1 to 64 letters, digits, - and _")) }
    }

    /// Reads a context.
    pub(crate) fn load(&self, name: &str) -> Result<Context, CliError> {
        let path = self.file(name)?;
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(CliError::new(4, format!("context `{name}` is not there: you are not logged in"))
                    .hint("log in: swarm login URL --ca-pin sha256:…"));
            }
            Err(error) => return Err(CliError::new(1, format!("{}: {error}", path.display()))),
        };
        let mode = fs::metadata(&path)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(CliError::new(4, format!("{} has mode {mode:o}: others could read the token", path.display()))
                .hint(format!("chmod 600 {}", path.display())));
        }
        serde_json::from_str(&text)
            .map_err(|error| CliError::new(1, format!("{} is damaged: {error}", path.display())).hint("log in again: swarm login"))
    }

    /// Writes a context: whole or not at all.
    pub(crate) fn save(&self, name: &str, context: &Context) -> Result<(), CliError> {
        let path = self.file(name)?;
        fs::create_dir_all(self.folder()?)?;
        fs::set_permissions(self.folder()?, fs::Permissions::from_mode(0o700))?;
        let text = serde_json::to_string_pretty(context).map_err(|error| CliError::new(1, error.to_string()))?;
        write_private(&path, text.as_bytes())
    }
}

/// Writes a file that only its owner reads: temporary file, fsync, rename, fsync of the folder.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("file");
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let result = (|| {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        fs::File::open(folder)?.sync_all()
    })();
    result.map_err(|error: std::io::Error| {
        let _ = fs::remove_file(&temporary);
        CliError::new(1, format!("cannot write {}: {error}", path.display()))
    })
}

/// The user's configuration folder (XDG base directory specification).
fn config_home() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|folder| !folder.is_empty()).map(PathBuf::from);
    variable("XDG_CONFIG_HOME").map(|folder| folder.join("swarm")).or_else(|| variable("HOME").map(|home| home.join(".config/swarm")))
}
