//! `swarm server backup` and `restore`: on the machine of the control plane, without a login.

use std::io::Read as _;
use std::path::Path;

use control::backup::{BackupError, BackupFailed, Known, Told};
use serde::Serialize;

use crate::app::{App, now};
use crate::args::ServerVerb;
use crate::error::{CliError, chain};
use crate::output::human_bytes;

/// Bytes of a checkpoint with its signatures.
const CHECKPOINT_MAX: u64 = 64 << 10;

/// What is printed of a backup.
#[derive(Debug, Serialize)]
struct Shown {
    folder: String,
    digest: String,
    #[serde(flatten)]
    manifest: control::backup::BackupManifest,
}

pub(crate) async fn verb(app: &App, verb: Option<ServerVerb>) -> Result<(), CliError> {
    match verb {
        Some(ServerVerb::Backup { data_dir, to }) => {
            let told = control::backup::backup(&data_dir, &to, now(), &mut |_| {}).await.map_err(|error| failed(&error))?;
            show(app, &to, told)?;
            app.output.say("keep the digest apart from the backup, and the passphrase apart from both");
            Ok(())
        }
        Some(ServerVerb::Restore { from, into, digest, checkpoint }) => {
            let checkpoint = checkpoint.map(|path| small(&path)).transpose()?;
            let told = control::backup::restore(&from, &into, &Known { digest, checkpoint }).await.map_err(|error| failed(&error))?;
            show(app, &into, told)?;
            app.output.say(format!("nothing runs yet: swarm server --data-dir {}", into.display()));
            Ok(())
        }
        None => Ok(()),
    }
}

fn show(app: &App, folder: &Path, Told { manifest, digest }: Told) -> Result<(), CliError> {
    let pairs = [
        ("folder", folder.display().to_string()),
        ("digest", digest.to_string()),
        ("deployment", manifest.deployment.clone()),
        ("made", manifest.created.to_string()),
        ("log", format!("{} entries, {} published", manifest.entries, manifest.published)),
        ("files", format!("{}, {}", manifest.files, human_bytes(manifest.bytes))),
    ];
    let shown = Shown { folder: folder.display().to_string(), digest: digest.to_string(), manifest };
    app.output.one(&shown, &pairs)
}

/// A damaged or older backup is a failed verification, a taken place a conflict, a wrong name usage.
fn failed(error: &BackupFailed) -> CliError {
    let exit = match error {
        BackupFailed::Files(BackupError::Damaged { .. } | BackupError::Digest { .. }) | BackupFailed::Older { .. } | BackupFailed::Checkpoint(_) => 6,
        BackupFailed::Files(BackupError::Exists(_) | BackupError::Interrupted(_) | BackupError::NotEmpty(_)) => 5,
        BackupFailed::Files(BackupError::NoDatabase(_) | BackupError::NoBackup(_)) => 3,
        BackupFailed::Files(BackupError::Open(_) | BackupError::Io { .. } | BackupError::OtherSchema { .. } | BackupError::Foreign { .. })
        | BackupFailed::Unborn(_)
        | BackupFailed::Deployment(_)
        | BackupFailed::SealMoves
        | BackupFailed::Objects(_) => 1,
    };
    CliError::new(exit, chain(error))
}

fn small(path: &Path) -> Result<Vec<u8>, CliError> {
    let told = |error| CliError::usage(format!("--checkpoint {}: {error}", path.display()));
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(told)?.take(CHECKPOINT_MAX).read_to_end(&mut bytes).map_err(told)?;
    Ok(bytes)
}
