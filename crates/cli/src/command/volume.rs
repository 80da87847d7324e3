//! `swarm volume`: sealed and opened here, on the person's machine; the server sees ciphertext.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use indicatif::ProgressBar;
use keys::SystemRandom;
use vocabulary::fault::{self, Point};
use vocabulary::api::{Volume, VolumeCommit, VolumeCommitted};
use vocabulary::lease::{Lease, LeaseMode};
use vocabulary::limits::OBJECT_MAX;
use vocabulary::volume::VolumeSpec;
use vocabulary::{LeaseId, UnixTime, VolumeId};
use volume::folder::{self, FolderError, Placing, Source};
use volume::io::{IoError, ObjectPort, PortError, Reader, Writer};
use volume::lease::{Asking, Expected, Held, LeaseRefusal};

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
        self.client.put_bytes(&url, Some(self.lease.to_string()), bytes).await.map_err(|error| PortError(error.message))
    }
    async fn get(&self, path: String) -> Result<Option<Bytes>, PortError> {
        let url = format!("/v1/volumes/{}/objects/{path}", self.volume);
        match self.client.get_bytes(&url, Some(self.lease.to_string()), OBJECT_MAX).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.exit == 3 => Ok(None),
            Err(error) => Err(PortError(error.message)),
        }
    }
    async fn get_into(&self, path: String, buffer: &mut Vec<u8>) -> Result<bool, PortError> {
        let url = format!("/v1/volumes/{}/objects/{path}", self.volume);
        match self.client.get_into(&url, Some(self.lease.to_string()), OBJECT_MAX, buffer).await {
            Ok(()) => Ok(true),
            Err(error) if error.exit == 3 => Ok(false),
            Err(error) => Err(PortError(error.message)),
        }
    }
}

/// Asks for the volume's keys with fresh keys of our own.
async fn open_lease(app: &App, client: &Client, volume: &Volume, mode: LeaseMode) -> Result<Held, CliError> {
    let bad = |refusal: LeaseRefusal| CliError::verification(format!("the released keys: {refusal}"));
    let asking = Asking::new(mode, &mut SystemRandom).map_err(bad)?;
    let request = asking.request(Some(volume.spec.purpose.clone()));
    let route = if mode == LeaseMode::Write { "write-leases" } else { "read-leases" };
    let lease: Lease = app.send(client, &Call::post(format!("/v1/volumes/{}/{route}", volume.id), &request)?).await?;
    asking.open(lease, &Expected { volume: volume.id, tenant: None, holder: None }).map_err(bad)
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
        | IoError::Thread(_)
        | IoError::Changed(_)) => CliError::new(1, chain(&error)),
    }
}

/// Walks sources: regular files only; links and devices are refused with their path.
pub(crate) fn walk(sources: &[PathBuf]) -> Result<Vec<Source>, CliError> {
    let mut found = Vec::new();
    for source in sources {
        let metadata = std::fs::symlink_metadata(source).map_err(|error| CliError::usage(format!("{}: {error}", source.display())))?;
        if metadata.is_dir() {
            found.extend(folder::scan(source, u64::MAX).map_err(folder_error)?);
        } else {
            let name = source.file_name().and_then(|name| name.to_str()).ok_or_else(|| CliError::usage(format!("{}: its name is not UTF-8", source.display())))?;
            found.push(folder::single(source, name.to_owned()).map_err(folder_error)?);
        }
    }
    Ok(found)
}

/// What is wrong with a local file is the caller's to mend; what is wrong with the volume is damage.
fn folder_error(error: FolderError) -> CliError {
    match error {
        FolderError::Volume(error) => io_error(error),
        FolderError::Taken(_) => CliError::new(5, error.to_string()).hint("name another target, or pass --overwrite"),
        FolderError::File { .. } => CliError::new(1, error.to_string()),
        FolderError::NotRegular(_)
        | FolderError::NotUtf8(_)
        | FolderError::Name { .. }
        | FolderError::TooLong { .. }
        | FolderError::TooMany(_)
        | FolderError::NoFile(_)
        | FolderError::NoFolder(_) => CliError::usage(error.to_string()),
    }
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
    let Held { lease, keys, signers, writer } = open_lease(app, client, target, LeaseMode::Write).await?;
    let (epoch, signer) = writer.ok_or_else(|| CliError::new(1, "the server opened no writer epoch"))?;
    let port = Remote { client, volume: target.id, lease: lease.id };
    let bar = crate::progress::bytes(app.output.quiet, bytes_of(sources), "sealing");
    let work = async {
        let reader = Reader::open(&port, &keys, &lease.head, &signers).await?;
        let mut writing = Writer::new(reader, epoch, signer);
        folder::put(&mut writing, sources, &mut SystemRandom, &told(&bar)).await?;
        Ok(writing.finish(crate::app::now(), &mut SystemRandom).await?)
    };
    let record = work.await.map_err(folder_error)?;
    bar.finish_and_clear();
    fault::reached(Point::PutSealed);
    let commit = VolumeCommit { lease: lease.id, record: STANDARD.encode(record.to_bytes()) };
    let committed: VolumeCommitted = app.send(client, &Call::post(format!("/v1/volumes/{}/commit", target.id), &commit)?).await?;
    fault::reached(Point::PutCommitted);
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
    // What could not be checked to the end never gets its name.
    let placing = Placing { overwrite, durable: true, mode: 0o600 };
    if let Err(error) = folder::get(&reader, &files, target, placing, &told(&bar)).await {
        give_back(client, held.lease.id).await;
        return Err(folder_error(error));
    }
    bar.finish_and_clear();
    give_back(client, held.lease.id).await;
    app.output.say(format!("opened {} files, {}, into {}", files.len(), human_bytes(total), target.display()));
    Ok(())
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
