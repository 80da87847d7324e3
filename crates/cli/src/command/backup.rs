//! `swarm server backup` and `restore`: on the machine of the control plane, without a login.

use std::io::Read as _;
use std::path::Path;

use control::backup::{BackupError, BackupFailed, Known, ShredsDone, Told};
use control::shred::list::ListError;
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
    /// Of a restore: what the shred list did, `null` without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    shreds: Option<Option<ShredsDone>>,
}

pub(crate) async fn verb(app: &App, verb: Option<ServerVerb>) -> Result<(), CliError> {
    match verb {
        Some(ServerVerb::Backup { data_dir, to }) => {
            let told = control::backup::backup(&data_dir, &to, now(), &mut |_| {}).await.map_err(|error| failed(&error))?;
            show(app, &to, told, None)?;
            app.output.say("keep the digest apart from the backup, and the passphrase apart from both");
            Ok(())
        }
        Some(ServerVerb::Restore { from, into, digest, checkpoint, shred_list, no_shred_list, old_data_dir }) => {
            let checkpoint = checkpoint.map(|path| small(&path)).transpose()?;
            // One that is found is judged like one that is named: of another deployment, or damaged, it restores nothing.
            let found = || Some(old_data_dir.join(control::shred::list::FILE)).filter(|path| !no_shred_list && path.is_file());
            let shreds = shred_list.or_else(found);
            let known = Known { digest, checkpoint, shreds };
            let restored = control::backup::restore(&from, &into, &known, now()).await.map_err(|error| failed(&error))?;
            show(app, &into, restored.told, Some(restored.shreds))?;
            match restored.shreds {
                Some(done) => app.output.say(format!("what was destroyed after {} is not in the shred list, and would be back", done.until)),
                None => app.output.say("no shred list: what was destroyed after the backup is back, and nobody can tell what that is; delete, erase and revoke again"),
            }
            app.output.say(format!("nothing runs yet: swarm server --data-dir {}", into.display()));
            Ok(())
        }
        None => Ok(()),
    }
}

fn show(app: &App, folder: &Path, Told { manifest, digest }: Told, shreds: Option<Option<ShredsDone>>) -> Result<(), CliError> {
    let mut pairs = vec![
        ("folder", folder.display().to_string()),
        ("digest", digest.to_string()),
        ("deployment", manifest.deployment.clone()),
        ("made", manifest.created.to_string()),
        ("log", format!("{} entries, {} published", manifest.entries, manifest.published)),
        ("files", format!("{}, {}", manifest.files, human_bytes(manifest.bytes))),
    ];
    if let Some(done) = shreds {
        let told = |done: ShredsDone| format!("{} keys and {} people destroyed again; {} in the list, up to {}", done.replayed.keys, done.replayed.people, done.listed, done.until);
        pairs.push(("shreds", done.map_or_else(|| "no list: what was destroyed after the backup is back".to_owned(), told)));
    }
    let shown = Shown { folder: folder.display().to_string(), digest: digest.to_string(), manifest, shreds };
    app.output.one(&shown, &pairs)
}

/// A damaged or older backup is a failed verification, a taken place a conflict, a wrong name usage.
fn failed(error: &BackupFailed) -> CliError {
    let exit = match error {
        BackupFailed::Files(BackupError::Damaged { .. } | BackupError::Digest { .. }) | BackupFailed::Older { .. } | BackupFailed::Checkpoint(_) | BackupFailed::ShredsOlder { .. } | BackupFailed::Shreds(ListError::Damaged { .. }) => 6,
        BackupFailed::Files(BackupError::Exists(_) | BackupError::Interrupted(_) | BackupError::NotEmpty(_)) => 5,
        BackupFailed::Files(BackupError::NoDatabase(_) | BackupError::NoBackup(_)) => 3,
        BackupFailed::Files(BackupError::Open(_) | BackupError::Io { .. } | BackupError::OtherSchema { .. } | BackupError::Foreign { .. })
        | BackupFailed::Unborn(_)
        | BackupFailed::Deployment(_)
        | BackupFailed::SealMoves
        | BackupFailed::Replay(_)
        | BackupFailed::Shreds(ListError::Io { .. } | ListError::InUse(_))
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
