//! Asking the person at the terminal, and reading secrets without showing them.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::CliError;

/// Secrets longer than this are no secrets of ours.
const SECRET_MAX: u64 = 4096;

/// Asks for a line: on the terminal, or from standard input when that is no terminal.
pub(crate) fn line(question: &str, no_input: bool) -> Result<String, CliError> {
    if no_input {
        return Err(CliError::usage(format!("an answer is needed, and --no-input forbids to ask: {}", question.trim())));
    }
    if std::io::stdin().is_terminal() {
        let mut err = std::io::stderr().lock();
        write!(err, "{question}")?;
        err.flush()?;
    }
    next_line()
}

/// Asks for a secret: not echoed on the terminal.
pub(crate) fn secret(question: &str, no_input: bool) -> Result<Zeroizing<String>, CliError> {
    if no_input {
        return Err(CliError::usage(format!("a secret is needed, and --no-input forbids to ask: {}", question.trim())));
    }
    if std::io::stdin().is_terminal() {
        return rpassword::prompt_password(question).map(Zeroizing::new).map_err(CliError::from);
    }
    next_line().map(Zeroizing::new)
}

/// The next line of standard input.
pub(crate) fn next_line() -> Result<String, CliError> {
    let mut text = String::new();
    let read = std::io::Read::take(std::io::stdin().lock(), SECRET_MAX);
    let mut read = std::io::BufReader::with_capacity(1, read);
    if read.read_line(&mut text)? == 0 {
        return Err(CliError::usage("standard input ended where an answer was needed"));
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Reads a secret from a file that nobody else may read.
pub(crate) fn secret_file(path: &Path) -> Result<Zeroizing<String>, CliError> {
    let at = |error: std::io::Error| CliError::usage(format!("{}: {error}", path.display()));
    let metadata = std::fs::metadata(path).map_err(at)?;
    let mode = metadata.permissions().mode() & 0o777;
    if metadata.is_file() && mode & 0o077 != 0 {
        return Err(CliError::usage(format!("{} has mode {mode:o}: others could read the secret", path.display()))
            .hint(format!("chmod 600 {}", path.display())));
    }
    if metadata.len() > SECRET_MAX {
        return Err(CliError::usage(format!("{} is longer than {SECRET_MAX} bytes", path.display())));
    }
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(at)?);
    Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}
