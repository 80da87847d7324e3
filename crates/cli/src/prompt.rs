//! Asking the person at the terminal, and reading secrets without showing them.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::CliError;

/// Secrets longer than this are no secrets of ours.
const SECRET_MAX: u64 = 4096;
/// The same as a length in memory.
pub(crate) const SECRET_BYTES: usize = 4096;

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
        return unseen(question);
    }
    next_line().map(Zeroizing::new)
}

/// Asks at the terminal itself. What is typed is hidden before the question is asked, so that nobody is ever too fast.
fn unseen(question: &str) -> Result<Zeroizing<String>, CliError> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let mut terminal = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    let before = tcgetattr(&terminal).map_err(std::io::Error::from)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    hidden.local_modes.insert(LocalModes::ECHONL);
    tcsetattr(&terminal, OptionalActions::Now, &hidden).map_err(std::io::Error::from)?;
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(SECRET_MAX).unwrap_or(0)));
    let read = terminal
        .write_all(question.as_bytes())
        .and_then(|()| terminal.flush())
        .and_then(|()| std::io::BufReader::with_capacity(1, std::io::Read::take(&terminal, SECRET_MAX)).read_line(&mut text));
    tcsetattr(&terminal, OptionalActions::Now, &before).map_err(std::io::Error::from)?;
    if read? == 0 {
        return Err(CliError::usage("the terminal ended where an answer was needed"));
    }
    Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
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

/// Reads a secret, one line, that a supervisor wrote to our standard input; what follows is left there.
pub(crate) fn secret_of_parent() -> Result<Zeroizing<String>, CliError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(SECRET_MAX).unwrap_or(0)));
    let mut one = [0; 1];
    loop {
        match rustix::io::read(rustix::stdio::stdin(), &mut one) {
            Ok(1) if one == *b"\n" => break,
            Ok(1) if bytes.len() < bytes.capacity() => bytes.extend_from_slice(&one),
            Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Err(CliError::usage("standard input holds no line with the secret")),
            Err(error) => return Err(CliError::new(1, format!("standard input: {error}"))),
        }
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| CliError::usage("the secret is not UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Reads a secret from a file that nobody else may read.
pub(crate) fn secret_file(path: &Path) -> Result<Zeroizing<String>, CliError> {
    let at = |error: std::io::Error| CliError::usage(format!("{}: {error}", path.display()));
    let file = private(path)?;
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(SECRET_MAX).unwrap_or(0)));
    std::io::Read::take(file, SECRET_MAX.saturating_add(1)).read_to_string(&mut text).map_err(at)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > SECRET_MAX {
        return Err(CliError::usage(format!("{} is longer than {SECRET_MAX} bytes", path.display())));
    }
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(CliError::usage(format!("{} is empty", path.display())));
    }
    Ok(Zeroizing::new(secret.to_owned()))
}

/// Reads the bytes of a private file as they are.
pub(crate) fn secret_bytes(path: &Path, most: usize) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let at = |error: std::io::Error| CliError::usage(format!("{}: {error}", path.display()));
    let file = private(path)?;
    // Never grows: a copy that moved on would be left behind unwiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(most.saturating_add(1)));
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    std::io::Read::take(file, limit).read_to_end(&mut bytes).map_err(at)?;
    match bytes.len() {
        0 => Err(CliError::usage(format!("{} is empty", path.display()))),
        length if length > most => Err(CliError::usage(format!("{} is longer than {most} bytes", path.display()))),
        _ => Ok(bytes),
    }
}

/// Opens a file that nobody else may read.
fn private(path: &Path) -> Result<std::fs::File, CliError> {
    let at = |error: std::io::Error| CliError::usage(format!("{}: {error}", path.display()));
    // The file that was opened is the one that is judged.
    let file = std::fs::File::open(path).map_err(at)?;
    let metadata = file.metadata().map_err(at)?;
    let mode = metadata.permissions().mode() & 0o777;
    if metadata.is_file() && mode & 0o077 != 0 {
        return Err(CliError::usage(format!("{} has mode {mode:o}: others could read the secret", path.display()))
            .hint(format!("chmod 600 {}", path.display())));
    }
    if metadata.is_dir() {
        return Err(CliError::usage(format!("{} is a folder", path.display())));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_come_from_private_files_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passphrase");
        std::fs::write(&path, "correct horse\r\n").unwrap();
        for (mode, fits) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o660, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(secret_file(&path).is_ok(), fits, "{mode:o}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(secret_file(&path).unwrap().as_str(), "correct horse");
        std::fs::write(&path, "\n").unwrap();
        assert!(secret_file(&path).unwrap_err().message.contains("empty"));
        std::fs::write(&path, "x".repeat(4097)).unwrap();
        assert!(secret_file(&path).unwrap_err().message.contains("longer"));
        // As bytes, nothing is cut off.
        std::fs::write(&path, [0xff, b'\n']).unwrap();
        assert_eq!(secret_bytes(&path, 2).unwrap().as_slice(), [0xff, b'\n']);
        assert!(secret_bytes(&path, 1).unwrap_err().message.contains("longer"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(secret_bytes(&path, 2).unwrap_err().message.contains("644"));
        assert_eq!(secret_bytes(folder.path(), 2).unwrap_err().exit, 2);
        assert_eq!(secret_file(folder.path()).unwrap_err().exit, 2);
        assert_eq!(secret_file(&folder.path().join("absent")).unwrap_err().exit, 2);
    }

    #[test]
    fn nothing_is_asked_where_asking_is_forbidden() {
        assert_eq!(line("Name: ", true).unwrap_err().exit, 2);
        assert_eq!(secret("Password: ", true).unwrap_err().exit, 2);
    }
}
