//! `swarm verify FILE`: a receipt or a release, offline. Nothing is asked of any server; only the clock is read.

use std::io::Read as _;
use std::path::Path;

use receipt::{Line, Report, Verdict};

use crate::app::App;
use crate::args::Verify;
use crate::error::CliError;
use crate::output::{Format, line, visible};

pub(crate) fn verify(app: &App, args: &Verify) -> Result<(), CliError> {
    if let Some(key) = &args.release_key {
        return release(app, &args.file, key);
    }
    let bytes = read(&args.file, receipt::limits::RECEIPT_MAX)?;
    let (deployment, pin) = match &args.deployment {
        Some(path) => {
            // Whoever is logged in has pinned a deployment: another one's receipts must not pass for its own.
            let pinned = app.context().ok().map(|context| crate::trust::pin(&context.deployment_file)).transpose()?;
            (read(path, receipt::limits::DEPLOYMENT_MAX)?, args.ca_pin.or(pinned))
        }
        None => {
            let context = app.context().map_err(|error| {
                error.hint("name the deployment's public file: swarm verify FILE --deployment deployment.json --ca-pin sha256:…")
            })?;
            let pin = args.ca_pin.map_or_else(|| crate::trust::pin(&context.deployment_file), Ok)?;
            (context.deployment_file.into_bytes(), Some(pin))
        }
    };
    let policy = args.witness_policy.as_deref().map(witness_policy).transpose()?;
    let report = receipt::verify_witnessed(&bytes, &deployment, pin.as_ref(), Some(crate::app::now()), policy.as_ref());
    print(app, &report, "receipt")?;
    if report.ok {
        return Ok(());
    }
    let hint = format!("{}; fetch the deployment's file again with swarm deployment show --refresh, and the receipt with swarm job receipt", first_failure(&report));
    Err(CliError::verification("the receipt does not verify").hint(hint))
}

/// A release: `SHA256SUMS`, its signature beside it, and those of its files that lie in the same folder.
fn release(app: &App, list: &Path, key: &Path) -> Result<(), CliError> {
    let signature = read(&list.with_added_extension("sig"), SIGNATURE_MAX)?;
    let key = String::from_utf8_lossy(&read(key, RELEASE_KEY_MAX)?).into_owned();
    let bytes = read(list, receipt::limits::RELEASE_LIST_MAX)?;
    let folder = list.parent().unwrap_or(Path::new(""));
    let report = receipt::release::report(&bytes, &signature, &key, |name| digest(&folder.join(name)));
    print(app, &report, "release")?;
    if report.ok {
        return Ok(());
    }
    let hint = format!("{}; fetch the release again, and take its key from where you trust it", first_failure(&report));
    Err(CliError::verification("the release does not verify: do not install it").hint(hint))
}

/// Bytes of a detached signature: one more than an Ed25519 signature has would do; a larger file is judged all the same.
const SIGNATURE_MAX: usize = 4096;
/// Bytes of a PEM key: an Ed25519 key has 113.
const RELEASE_KEY_MAX: usize = 4096;

/// SHA-256 of a file of any size; nothing where there is none.
fn digest(path: &Path) -> Result<Option<[u8; 32]>, String> {
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let mut digest = receipt::release::FileDigest::default();
    let mut piece = vec![0; 1 << 16];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(Some(digest.finish())),
            Ok(count) => digest.update(piece.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// The reader's own witness policy.
pub(crate) fn witness_policy(path: &Path) -> Result<audit::WitnessPolicy, CliError> {
    let bytes = read(path, audit::limits::POLICY_MAX)?;
    audit::WitnessPolicy::parse(&bytes).map_err(|error| CliError::usage(format!("{}: {error}", path.display())))
}

/// Reads a file of at most `limit` bytes; one more is enough to see that it is larger.
pub(crate) fn read(path: &Path, limit: usize) -> Result<Vec<u8>, CliError> {
    let at = |error: std::io::Error| {
        let exit = if error.kind() == std::io::ErrorKind::NotFound { 3 } else { 1 };
        CliError::new(exit, format!("{}: {error}", path.display()))
    };
    let source: Box<dyn std::io::Read> =
        if path.as_os_str() == "-" { Box::new(std::io::stdin().lock()) } else { Box::new(std::fs::File::open(path).map_err(at)?) };
    let mut bytes = Vec::new();
    source.take(u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1)).read_to_end(&mut bytes).map_err(at)?;
    if bytes.len() > limit { Err(CliError::verification(format!("{} has more than {limit} bytes", path.display()))) } else { Ok(bytes) }
}

fn print(app: &App, report: &Report, what: &str) -> Result<(), CliError> {
    match app.output.format {
        Format::Table => {
            for one in &report.lines {
                line(&text(one))?;
            }
            line(&summary(report, what))
        }
        Format::Json | Format::Yaml | Format::Jsonl => app.output.one(report, &[]),
    }
}

/// `proved       claim: detail  [independent tool]`
fn text(one: &Line) -> String {
    // What failed must not look like what holds to somebody who reads fast.
    let verdict = match one.verdict {
        Verdict::NotProved => "NOT PROVED",
        Verdict::Proved | Verdict::NotChecked => one.verdict.as_str(),
    };
    format!("{verdict:11}  {}: {}  [{}]", visible(&one.claim), visible(&one.detail), one.tool.as_str())
}

fn summary(report: &Report, what: &str) -> String {
    let count = |verdict: Verdict| report.lines.iter().filter(|one| one.verdict == verdict).count();
    let (proved, failed, open) = (count(Verdict::Proved), count(Verdict::NotProved), count(Verdict::NotChecked));
    if report.ok {
        format!("\nThe {what} verifies: {proved} proved, {open} not checked. In brackets: with which kind of tool somebody else can repeat it.")
    } else {
        format!("\nThe {what} DOES NOT VERIFY: {failed} not proved, {proved} proved, {open} not checked. What hangs on a failed line was not judged.")
    }
}

fn first_failure(report: &Report) -> String {
    report.first_failure().map_or_else(|| "the file holds nothing to judge".to_owned(), |one| format!("{}: {}", one.claim, one.detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use receipt::Tool;

    fn report(verdict: Verdict) -> Report {
        let one = Line { claim: "the log signed".to_owned(), verdict, detail: "a\u{1b}[2Jb".to_owned(), tool: Tool::Independent };
        Report { ok: verdict != Verdict::NotProved, lines: vec![one] }
    }

    #[test]
    fn each_verdict_has_its_word_and_details_are_harmless() {
        let shown = |verdict| text(report(verdict).lines.first().unwrap());
        assert_eq!(shown(Verdict::Proved), "proved       the log signed: a\\u{1b}[2Jb  [independent tool]");
        assert_eq!(shown(Verdict::NotProved), "NOT PROVED   the log signed: a\\u{1b}[2Jb  [independent tool]");
        assert!(shown(Verdict::NotChecked).starts_with("not checked  "));
        assert!(summary(&report(Verdict::NotProved), "receipt").contains("DOES NOT VERIFY"));
        assert!(!summary(&report(Verdict::NotChecked), "receipt").contains("NOT"));
    }

    #[test]
    fn files_are_read_to_their_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r");
        std::fs::write(&path, [b'x'; 11]).unwrap();
        assert_eq!(read(&path, 11).unwrap().len(), 11);
        assert_eq!(read(&path, 10).unwrap_err().exit, 6);
        assert_eq!(read(&folder.path().join("absent"), 10).unwrap_err().exit, 3);
    }
}
