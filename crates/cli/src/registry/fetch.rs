//! Blobs into a layout: hashed as they arrive, resumed where they broke off, kept only when their digest fits.

use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;
use vocabulary::Sha256Digest;

use super::{Found, PullError, Registry, Remote};

/// Bytes that are hashed at a time when a broken download is taken up again.
const PIECE: usize = 256 << 10;

fn at(path: &Path) -> impl Fn(std::io::Error) -> PullError {
    let place = path.display().to_string();
    move |source| PullError::Disk { place: place.clone(), source }
}

/// A download under way: the file, and the hash of what is in it.
struct Part {
    file: tokio::fs::File,
    hash: Sha256,
    have: u64,
}

/// How one try ended.
enum Try {
    Whole,
    BrokeOff,
}

impl Part {
    /// Opens what an earlier try left, and hashes it from its beginning: nobody vouches for bytes on a disk.
    async fn open(path: &Path, size: u64) -> Result<Self, PullError> {
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()).open(path).map_err(at(path))?;
        let mut part = Self { file: tokio::fs::File::from_std(file), hash: Sha256::new(), have: 0 };
        let there = part.file.metadata().await.map_err(at(path))?.len();
        if there > size {
            part.restart(path).await?;
            return Ok(part);
        }
        let mut piece = vec![0; PIECE];
        loop {
            let read = part.file.read(&mut piece).await.map_err(at(path))?;
            if read == 0 {
                return Ok(part);
            }
            part.hash.update(piece.get(..read).unwrap_or_default());
            part.have = part.have.saturating_add(u64::try_from(read).unwrap_or(0));
        }
    }

    async fn restart(&mut self, path: &Path) -> Result<(), PullError> {
        self.file.set_len(0).await.map_err(at(path))?;
        tokio::io::AsyncSeekExt::rewind(&mut self.file).await.map_err(at(path))?;
        self.hash = Sha256::new();
        self.have = 0;
        Ok(())
    }
}

impl Registry {
    /// Fetches everything that was found into an OCI layout. What an earlier pull left there is taken up.
    pub(crate) async fn fetch(&mut self, found: &Found, layout: &Path, bar: &ProgressBar) -> Result<(), PullError> {
        let blobs = layout.join("blobs/sha256");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&blobs).map_err(at(&blobs))?;
        for blob in &found.blobs {
            self.blob(*blob, &blobs, bar).await?;
        }
        let size = found.manifest.len();
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": [
            { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": found.digest, "size": size }] });
        for (path, bytes) in [
            (blobs.join(found.digest.hex()), found.manifest.as_slice()),
            (layout.join("oci-layout"), &b"{\"imageLayoutVersion\":\"1.0.0\"}"[..]),
            (layout.join("index.json"), index.to_string().as_bytes()),
        ] {
            std::fs::write(&path, bytes).map_err(at(&path))?;
        }
        Ok(())
    }

    async fn blob(&mut self, blob: Remote, folder: &Path, bar: &ProgressBar) -> Result<(), PullError> {
        let (whole, path): (PathBuf, PathBuf) = (folder.join(blob.digest.hex()), folder.join(format!("{}.part", blob.digest.hex())));
        // One that is whole was renamed by an earlier pull, which had hashed it; whoever uploads it hashes it again.
        if std::fs::metadata(&whole).is_ok_and(|there| there.is_file() && there.len() == blob.size) {
            bar.inc(blob.size);
            return Ok(());
        }
        let mut part = Part::open(&path, blob.size).await?;
        let begun = bar.position();
        let mut idle_tries = 0_u32;
        while part.have < blob.size {
            bar.set_position(begun.saturating_add(part.have));
            let before = part.have;
            match self.once(blob, &mut part, &path, bar).await? {
                Try::Whole => break,
                Try::BrokeOff if part.have > before => idle_tries = 0,
                Try::BrokeOff => {
                    idle_tries = idle_tries.saturating_add(1);
                    if idle_tries >= self.patience.tries {
                        return Err(PullError::Broken(blob.digest));
                    }
                }
            }
        }
        part.file.sync_all().await.map_err(at(&path))?;
        let digest = Sha256Digest::from_bytes(part.hash.finalize().into());
        if digest != blob.digest {
            std::fs::remove_file(&path).map_err(at(&path))?;
            return Err(PullError::Lie { what: blob.digest.to_string(), rule: format!("what was sent is {digest}") });
        }
        bar.set_position(begun.saturating_add(blob.size));
        std::fs::rename(&path, &whole).map_err(at(&path))
    }

    /// One request for what is missing. An error here is one that trying again does not help.
    async fn once(&mut self, blob: Remote, part: &mut Part, path: &Path, bar: &ProgressBar) -> Result<Try, PullError> {
        let lie = |rule: String| PullError::Lie { what: blob.digest.to_string(), rule };
        let from = (part.have > 0).then_some(part.have);
        let mut response = match self.get(&format!("blobs/{}", blob.digest), "application/octet-stream", from).await {
            Ok(response) => response,
            Err(PullError::Transport(_)) => return Ok(Try::BrokeOff),
            Err(PullError::Status(status)) if status.is_server_error() => return Ok(Try::BrokeOff),
            Err(error) => return Err(error),
        };
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let last = blob.size.saturating_sub(1);
            let fits = [format!("bytes {}-{last}/{}", part.have, blob.size), format!("bytes {}-{last}/*", part.have)];
            let said = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or("");
            if from.is_none() || !fits.iter().any(|range| range == said) {
                return Err(lie("another part was sent than was asked for".to_owned()));
            }
        } else if from.is_some() {
            // It knows no ranges: from the beginning.
            part.restart(path).await?;
        }
        let left = blob.size.saturating_sub(part.have);
        let said = response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if said.is_some_and(|said| said != left) {
            return Err(lie(format!("the registry announces {} bytes where {left} are missing", said.unwrap_or(0))));
        }
        let (mut window, mut in_window) = (Instant::now(), 0_u64);
        loop {
            let piece = match response.chunk().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(error) if error.is_timeout() => return Err(PullError::Slow(self.patience.idle)),
                Err(_) => return Ok(Try::BrokeOff),
            };
            let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
            if length > blob.size.saturating_sub(part.have) {
                part.restart(path).await?;
                return Err(lie(format!("more than its {} bytes were sent", blob.size)));
            }
            part.file.write_all(&piece).await.map_err(at(path))?;
            part.hash.update(&piece);
            part.have = part.have.saturating_add(length);
            bar.inc(length);
            in_window = in_window.saturating_add(length);
            if window.elapsed() >= self.patience.window {
                if in_window < self.patience.floor && part.have < blob.size {
                    part.file.flush().await.map_err(at(path))?;
                    return Err(PullError::Slow(self.patience.window));
                }
                (window, in_window) = (Instant::now(), 0);
            }
        }
        part.file.flush().await.map_err(at(path))?;
        Ok(if part.have == blob.size { Try::Whole } else { Try::BrokeOff })
    }
}
