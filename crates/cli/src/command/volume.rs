//! `swarm volume`: sealed and opened here, on the person's machine; the server sees ciphertext.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::UNIX_EPOCH;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use indicatif::ProgressBar;
use keys::hpke::{RecipientKey, Sealed};
use keys::{PlainKey, SigningKey, SystemRandom, VerifyingKey};
use vocabulary::api::{Volume, VolumeCommit, VolumeCommitted};
use vocabulary::lease::{Lease, LeaseMode, LeaseRequest, release_info};
use vocabulary::limits::OBJECT_MAX;
use vocabulary::volume::VolumeSpec;
use vocabulary::{LeaseId, UnixTime, VolumeId};
use volume::io::{IoError, ObjectPort, PortError, Reader, Writer};
use volume::segment::SegmentKeys;

use crate::app::App;
use crate::args::VolumeVerb;
use crate::client::{Call, Client};
use crate::command::tenant::done;
use crate::error::{CliError, chain};
use crate::output::human_bytes;

pub(crate) async fn volume(app: &App, verb: VolumeVerb) -> Result<(), CliError> {
    let client = app.client()?;
    match verb {
        VolumeVerb::Create { name, project, region, jurisdictions, sensitivity, purpose, min_trust } => {
            let project = app.project(&client, &project).await?;
            let jurisdictions = jurisdictions.into_iter().collect();
            let spec = VolumeSpec { name, project, region, jurisdictions, sensitivity, purpose, min_trust };
            let made: Volume = app.send(&client, &Call::post("/v1/volumes", &spec)?).await?;
            show(app, &made)
        }
        VolumeVerb::List => {
            let volumes: Vec<Volume> = app.all(&client, "/v1/volumes").await?;
            app.output.list(&volumes, &["id", "name", "sensitivity", "purpose", "region", "commits"], |volume| {
                let spec = &volume.spec;
                vec![
                    volume.id.to_string(),
                    spec.name.to_string(),
                    spec.sensitivity.to_string(),
                    spec.purpose.to_string(),
                    spec.region.to_string(),
                    volume.head.seq.to_string(),
                ]
            })
        }
        VolumeVerb::Show { volume, files } => {
            let volume = app.volume(&client, &volume).await?;
            if files { list_files(app, &client, &volume).await } else { show(app, &volume) }
        }
        VolumeVerb::Put { volume, sources } => {
            let volume = app.volume(&client, &volume).await?;
            put(app, &client, &volume, &sources).await
        }
        VolumeVerb::Get { volume, target, file, overwrite } => {
            let volume = app.volume(&client, &volume).await?;
            get(app, &client, &volume, &target, file.as_deref(), overwrite).await
        }
        VolumeVerb::Verify { volume } => {
            let volume = app.volume(&client, &volume).await?;
            verify(app, &client, &volume).await
        }
        VolumeVerb::Rotate { volume } => {
            let volume = app.volume(&client, &volume).await?;
            done(app, &client, &Call::new(reqwest::Method::POST, format!("/v1/volumes/{}/rotate", volume.id))).await
        }
        VolumeVerb::Delete { volume, yes } => {
            let volume = app.volume(&client, &volume).await?;
            app.confirm_by_name("volume", volume.spec.name.as_str(), yes)?;
            done(app, &client, &Call::delete(format!("/v1/volumes/{}", volume.id))).await
        }
    }
}

fn show(app: &App, volume: &Volume) -> Result<(), CliError> {
    let spec = &volume.spec;
    let places: Vec<&str> = spec.jurisdictions.iter().map(vocabulary::Jurisdiction::as_str).collect();
    app.output.one(
        volume,
        &[
            ("volume", volume.id.to_string()),
            ("name", spec.name.to_string()),
            ("sensitivity", format!("{}, minimum trust {}", spec.sensitivity, volume.min_trust)),
            ("purpose", spec.purpose.to_string()),
            ("region", spec.region.to_string()),
            ("may be opened in", if places.is_empty() { "anywhere".to_owned() } else { places.join(", ") }),
            ("head", format!("sequence {}, root {}", volume.head.seq, volume.head.root)),
        ],
    )
}

/// Objects over the API, under a lease.
#[derive(Debug)]
struct Remote<'a> {
    client: &'a Client,
    volume: VolumeId,
    lease: LeaseId,
}

impl ObjectPort for Remote<'_> {
    async fn put(&self, path: String, bytes: Bytes) -> Result<(), PortError> {
        let url = format!("/v1/volumes/{}/objects/{path}", self.volume);
        self.client.put_bytes(&url, Some(self.lease.to_string()), bytes.into()).await.map_err(|error| PortError(error.message))
    }
    async fn get(&self, path: String) -> Result<Option<Bytes>, PortError> {
        let url = format!("/v1/volumes/{}/objects/{path}", self.volume);
        match self.client.get_bytes(&url, Some(self.lease.to_string()), OBJECT_MAX).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.exit == 3 => Ok(None),
            Err(error) => Err(PortError(error.message)),
        }
    }
}

/// A lease with its keys opened. The keys are wiped when it goes out of scope.
struct Held {
    lease: Lease,
    keys: SegmentKeys,
    signers: BTreeMap<u64, VerifyingKey>,
    signer: Option<SigningKey>,
}

async fn open_lease(app: &App, client: &Client, volume: &Volume, mode: LeaseMode) -> Result<Held, CliError> {
    let recipient = RecipientKey::generate().map_err(|error| CliError::new(1, error.to_string()))?;
    let signer = (mode == LeaseMode::Write).then(|| SigningKey::generate(&mut SystemRandom));
    let request = LeaseRequest {
        mode,
        purpose: Some(volume.spec.purpose.clone()),
        recipient: STANDARD.encode(recipient.public()),
        signer: signer.as_ref().map(|signer| STANDARD.encode(signer.verifying_key().as_bytes())),
    };
    let route = if mode == LeaseMode::Write { "write-leases" } else { "read-leases" };
    let lease: Lease = app.send(client, &Call::post(format!("/v1/volumes/{}/{route}", volume.id), &request)?).await?;
    let bad = |what: &str| CliError::verification(format!("the released keys: {what}"));
    let decode = |text: &str| STANDARD.decode(text).map_err(|_| bad("not base64"));
    let mut epochs = Vec::new();
    for key in &lease.keys {
        let sealed = Sealed { encapsulated: decode(&key.encapsulated)?, ciphertext: decode(&key.sealed)? };
        let info = release_info(lease.id, volume.id, key.key, key.version);
        let plain = recipient.open(&sealed, &info, b"").map_err(|error| bad(&error.to_string()))?;
        epochs.push((key.version, key.key, PlainKey::from_slice(&plain).ok_or_else(|| bad("not 32 bytes"))?));
    }
    let mut signers = BTreeMap::new();
    for writer in &lease.signers {
        let public: [u8; 32] = decode(&writer.signer)?.try_into().map_err(|_| bad("a signer is not 32 bytes"))?;
        signers.insert(writer.epoch, VerifyingKey::from_bytes(public));
    }
    let keys = SegmentKeys { tenant: lease.tenant, volume: volume.id, epochs };
    Ok(Held { lease, keys, signers, signer })
}

/// Gives the lease back; that it lapses by itself anyway is no reason to keep it.
async fn give_back(client: &Client, lease: LeaseId) {
    let ended: Result<vocabulary::api::Done, CliError> = client.send(&Call::delete(format!("/v1/leases/{lease}")), None).await;
    if let Err(error) = ended {
        tracing::debug!(error = error.message, "lease not given back");
    }
}

fn io_error(error: IoError) -> CliError {
    match error {
        IoError::Damage(damage) => CliError::verification(format!("damage found: {damage}"))
            .hint("nothing damaged was written; restore the object from a copy, or look at the store"),
        error @ (IoError::Port(_)
        | IoError::File { .. }
        | IoError::Name(_)
        | IoError::Seal(_)
        | IoError::TooManyFiles
        | IoError::NoFile(_)
        | IoError::Changed(_)) => CliError::new(1, chain(&error)),
    }
}

/// A local file with the name that it gets in the volume.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    name: String,
    length: u64,
    mtime: u64,
}

/// Walks sources: regular files only; links and devices are refused with their path.
pub(crate) fn walk(sources: &[PathBuf]) -> Result<Vec<Source>, CliError> {
    let mut found = Vec::new();
    for source in sources {
        let metadata = std::fs::symlink_metadata(source).map_err(|error| CliError::usage(format!("{}: {error}", source.display())))?;
        if metadata.is_dir() {
            walk_folder(source, "", &mut found)?;
        } else {
            let name = source.file_name().and_then(|name| name.to_str()).ok_or_else(|| CliError::usage(format!("{}: its name is not UTF-8", source.display())))?;
            take(source, name.to_owned(), &metadata, &mut found)?;
        }
    }
    Ok(found)
}

fn walk_folder(folder: &Path, prefix: &str, found: &mut Vec<Source>) -> Result<(), CliError> {
    let mut entries: Vec<_> = std::fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name = entry.file_name().into_string().map_err(|_| CliError::usage(format!("{}: its name is not UTF-8", path.display())))?;
        let name = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let metadata = std::fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            walk_folder(&path, &name, found)?;
        } else {
            take(&path, name, &metadata, found)?;
        }
    }
    Ok(())
}

fn take(path: &Path, name: String, metadata: &std::fs::Metadata, found: &mut Vec<Source>) -> Result<(), CliError> {
    if !metadata.is_file() {
        return Err(CliError::usage(format!("{} is no regular file: links and devices are refused", path.display())));
    }
    volume::name::check(&name).map_err(|error| CliError::usage(error.to_string()))?;
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    found.push(Source { path: path.to_owned(), name, length: metadata.len(), mtime: u64::try_from(since.as_millis()).unwrap_or(0) });
    Ok(())
}

fn told(bar: &ProgressBar) -> impl Fn(&str, u64) + Send + Sync + '_ {
    |_, bytes| bar.inc(bytes)
}

async fn put(app: &App, client: &Client, target: &Volume, paths: &[PathBuf]) -> Result<(), CliError> {
    let sources = walk(paths)?;
    let total = bytes_of(&sources);
    let committed = seal(app, client, target, &sources).await?;
    app.output.one(
        &committed,
        &[
            ("sealed", format!("{} files, {}", sources.len(), human_bytes(total))),
            ("head", format!("sequence {}, root {}", committed.head.seq, committed.head.root)),
            ("audit index", committed.audit_index.to_string()),
        ],
    )
}

/// Bytes of all sources.
pub(crate) fn bytes_of(sources: &[Source]) -> u64 {
    sources.iter().map(|source| source.length).sum()
}

/// Seals sources into a volume under a write lease, and commits its new root.
pub(crate) async fn seal(app: &App, client: &Client, target: &Volume, sources: &[Source]) -> Result<VolumeCommitted, CliError> {
    let Held { lease, keys, signers, signer } = open_lease(app, client, target, LeaseMode::Write).await?;
    let (Some(writer), Some(signer)) = (&lease.writer, signer) else { return Err(CliError::new(1, "the server opened no writer epoch")) };
    let port = Remote { client, volume: target.id, lease: lease.id };
    let bar = crate::progress::bytes(app.output.quiet, bytes_of(sources), "sealing");
    let work = async {
        let reader = Reader::open(&port, &keys, &lease.head, &signers).await?;
        let mut writing = Writer::new(reader, writer.epoch, signer);
        for source in sources {
            let at = |error| IoError::File { path: source.path.display().to_string(), source: error };
            let mut file = tokio::fs::File::open(&source.path).await.map_err(at)?;
            writing.add(&source.name, source.length, source.mtime, &mut file, &mut SystemRandom, &told(&bar)).await?;
        }
        writing.finish(crate::app::now(), &mut SystemRandom).await
    };
    let record = work.await.map_err(io_error)?;
    bar.finish_and_clear();
    let commit = VolumeCommit { lease: lease.id, record: STANDARD.encode(record.to_bytes()) };
    let committed: VolumeCommitted = app.send(client, &Call::post(format!("/v1/volumes/{}/commit", target.id), &commit)?).await?;
    give_back(client, lease.id).await;
    Ok(committed)
}

async fn get(app: &App, client: &Client, source: &Volume, target: &Path, only: Option<&str>, overwrite: bool) -> Result<(), CliError> {
    let held = open_lease(app, client, source, LeaseMode::Read).await?;
    let port = Remote { client, volume: source.id, lease: held.lease.id };
    let reader = Reader::open(&port, &held.keys, &held.lease.head, &held.signers).await.map_err(io_error)?;
    let files: Vec<_> = reader.files().iter().filter(|file| only.is_none_or(|only| file.name == only)).collect();
    if let (Some(only), true) = (only, files.is_empty()) {
        return Err(CliError::new(3, format!("the volume has no file `{}`", crate::output::visible(only))).hint("swarm volume show VOLUME --files"));
    }
    let total: u64 = files.iter().map(|file| file.length).sum();
    let bar = crate::progress::bytes(app.output.quiet, total, "opening");
    std::fs::create_dir_all(target)?;
    for file in &files {
        let place = place(target, &file.name, overwrite)?;
        let temporary = place.with_file_name(format!(".swarm-{}-{}", std::process::id(), file.object));
        let written = async {
            let at = |error| IoError::File { path: temporary.display().to_string(), source: error };
            let mut out = tokio::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).await.map_err(at)?;
            reader.read(file, &mut out, &told(&bar)).await?;
            out.sync_all().await.map_err(at)
        };
        // What could not be checked to the end never gets its name.
        if let Err(error) = written.await {
            let _ = std::fs::remove_file(&temporary);
            give_back(client, held.lease.id).await;
            return Err(io_error(error));
        }
        std::fs::rename(&temporary, &place)?;
    }
    std::fs::File::open(target)?.sync_all()?;
    bar.finish_and_clear();
    give_back(client, held.lease.id).await;
    app.output.say(format!("opened {} files, {}, into {}", files.len(), human_bytes(total), target.display()));
    Ok(())
}

/// Where a file goes: below the target, through real folders only.
fn place(target: &Path, name: &str, overwrite: bool) -> Result<PathBuf, CliError> {
    volume::name::check(name).map_err(|error| CliError::verification(error.to_string()))?;
    let mut at = target.to_owned();
    let relative = Path::new(name);
    for part in relative.parent().into_iter().flat_map(Path::components) {
        let Component::Normal(part) = part else { return Err(CliError::verification(format!("`{name}` leaves the target"))) };
        at.push(part);
        match std::fs::symlink_metadata(&at) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(CliError::usage(format!("{} is there and is no folder", at.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => std::fs::create_dir(&at)?,
            Err(error) => return Err(error.into()),
        }
    }
    let file = relative.file_name().ok_or_else(|| CliError::verification(format!("`{name}` is no file name")))?;
    at.push(file);
    match std::fs::symlink_metadata(&at) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(at),
        Err(error) => Err(error.into()),
        Ok(metadata) if overwrite && metadata.is_file() => Ok(at),
        Ok(_) => Err(CliError::new(5, format!("{} is there already", at.display())).hint("name another target, or pass --overwrite")),
    }
}

async fn list_files(app: &App, client: &Client, volume: &Volume) -> Result<(), CliError> {
    let held = open_lease(app, client, volume, LeaseMode::Read).await?;
    let port = Remote { client, volume: volume.id, lease: held.lease.id };
    let reader = Reader::open(&port, &held.keys, &held.lease.head, &held.signers).await.map_err(io_error)?;
    #[derive(serde::Serialize)]
    struct File {
        name: String,
        length: u64,
        mtime: UnixTime,
    }
    let files: Vec<File> = reader
        .files()
        .iter()
        .map(|file| File { name: file.name.clone(), length: file.length, mtime: UnixTime::from_millis(file.mtime) })
        .collect();
    give_back(client, held.lease.id).await;
    app.output.list(&files, &["name", "bytes", "changed"], |file| vec![file.name.clone(), file.length.to_string(), file.mtime.to_string()])
}

async fn verify(app: &App, client: &Client, volume: &Volume) -> Result<(), CliError> {
    let held = open_lease(app, client, volume, LeaseMode::Read).await?;
    let port = Remote { client, volume: volume.id, lease: held.lease.id };
    let opened = Reader::open(&port, &held.keys, &held.lease.head, &held.signers).await;
    let (findings, files) = match opened {
        Ok(reader) => {
            let total: u64 = reader.files().iter().map(|file| file.length).sum();
            let bar = crate::progress::bytes(app.output.quiet, total, "verifying");
            let findings = reader.verify(&told(&bar)).await.map_err(io_error)?;
            bar.finish_and_clear();
            (findings, reader.files().len())
        }
        Err(IoError::Damage(damage)) => (vec![damage], 0),
        Err(other) => return Err(io_error(other)),
    };
    give_back(client, held.lease.id).await;
    let found: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let report = serde_json::json!({"version": 1, "volume": volume.id, "root": held.lease.head.root, "files": files, "findings": found});
    let verdict = if found.is_empty() {
        format!("proved: every sealed byte of {files} files is under root {}", held.lease.head.root)
    } else {
        format!("not proved: {} findings", found.len())
    };
    let mut pairs = vec![("verdict", verdict)];
    pairs.extend(found.iter().map(|finding| ("finding", finding.clone())));
    app.output.one(&report, &pairs)?;
    if found.is_empty() { Ok(()) } else { Err(CliError::verification("the volume is damaged")) }
}
