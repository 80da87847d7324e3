//! `swarm image`: an image travels as its blobs, each by digest; what is there is not sent again.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use indicatif::ProgressBar;
use runtime::image::{Blob, BlobSource, ImageError, ImportPlan};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncSeekExt as _, ReadBuf};
use vocabulary::Name;
use vocabulary::api::{Image, ImageCreate};
use vocabulary::plan::BlobRef;
use vocabulary::signature::{ImagePolicy, ImagePolicyInForce, ImageSignature, ImageSignatures, ImageSigner};

use crate::app::App;
use crate::args::{ImagePolicyVerb, ImagePull, ImageVerb};
use crate::client::{Call, Client};
use crate::error::{CliError, chain};
use crate::output::{human_bytes, visible};
use crate::registry::{Access, Credentials, Patience, Registry};

/// Bytes of one piece of an upload.
const PIECE: usize = 256 << 10;
/// An upload that moves no byte for so long is given up; the server may take a while to verify a large blob.
const STALL: Duration = Duration::from_secs(120);

pub(crate) async fn image(app: &App, verb: ImageVerb) -> Result<(), CliError> {
    match verb {
        ImageVerb::Import { path, name } => import(app, &path, name, None).await,
        ImageVerb::Pull(pull) => self::pull(app, *pull).await,
        ImageVerb::Attach { image, payload, signature } => {
            let client = app.client()?;
            let manifest = app.image(&client, &image).await?;
            let payload = STANDARD.encode(small(&payload)?);
            let signature = String::from_utf8(small(&signature)?).map_err(|_| CliError::usage("the signature is not base64"))?;
            let call = attach_call(&manifest, vec![ImageSignature { payload, signature: signature.trim().to_owned() }])?;
            crate::command::tenant::done(app, &client, &call).await
        }
        ImageVerb::Policy(ImagePolicyVerb::Set { signers, repositories, required }) => set_policy(app, signers, repositories, required).await,
        ImageVerb::Policy(ImagePolicyVerb::Show) => {
            let policy: ImagePolicyInForce = app.client()?.send(&Call::get("/v1/image-policy"), None).await?;
            show_policy(app, &policy)
        }
        ImageVerb::List => {
            let images: Vec<Image> = app.all(&app.client()?, "/v1/images").await?;
            app.output.list(&images, &["name", "manifest", "size", "imported"], |image| {
                vec![image.name.to_string(), image.manifest.to_string(), human_bytes(image.size), image.created.to_string()]
            })
        }
    }
}

async fn import(app: &App, path: &Path, name: Name, source: Option<String>) -> Result<(), CliError> {
    let place = path.to_owned();
    let plan = tokio::task::spawn_blocking(move || runtime::image::inspect(&place))
        .await
        .map_err(|error| CliError::new(1, error.to_string()))?
        .map_err(|error| refused(&error))?;
    let client = app.client()?;
    describe(app, &plan);
    let total: u64 = plan.blobs.iter().map(|blob| blob.size).sum();
    let bar = crate::progress::bytes(app.output.quiet, total, "uploading");
    let mut sent = 0_u64;
    for blob in &plan.blobs {
        if there(&client, blob).await? {
            bar.inc(blob.size);
        } else {
            send(&client, blob, &bar).await?;
            sent = sent.saturating_add(blob.size);
        }
    }
    bar.finish_and_clear();
    vocabulary::fault::reached(vocabulary::fault::Point::ImageUploaded);
    let blobs = plan.blobs.iter().map(|blob| BlobRef { digest: blob.digest, size: blob.size }).collect();
    let made: Image = app.send(&client, &Call::post("/v1/images", &ImageCreate { name, manifest: plan.manifest, blobs, source })?).await?;
    let mut pairs = vec![
        ("image", made.name.to_string()),
        ("manifest", made.manifest.to_string()),
        ("size", format!("{}, of which {} sent; the rest was there", human_bytes(made.size), human_bytes(sent))),
    ];
    pairs.extend(made.source.clone().map(|source| ("pulled from", source)));
    pairs.extend(made.audit_index.map(|index| ("audit index", index.to_string())));
    app.output.one(&made, &pairs)
}

/// A small file that a person names.
fn small(path: &Path) -> Result<Vec<u8>, CliError> {
    let at = |error: std::io::Error| CliError::usage(format!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(std::fs::File::open(path).map_err(at)?, 64 << 10), &mut bytes).map_err(at)?;
    Ok(bytes)
}

fn attach_call(manifest: &vocabulary::Sha256Digest, signatures: Vec<ImageSignature>) -> Result<Call, CliError> {
    Call::post(format!("/v1/images/{manifest}/signatures"), &ImageSignatures { signatures })
}

async fn set_policy(app: &App, signers: Vec<(String, String)>, repositories: Vec<(String, String)>, required: u32) -> Result<(), CliError> {
    if let Some((name, _)) = repositories.iter().find(|(name, _)| !signers.iter().any(|(signer, _)| signer == name)) {
        return Err(CliError::usage(format!("--repository {}=…: there is no --signer of this name", visible(name))));
    }
    let mut policy = ImagePolicy { required: if signers.is_empty() { 0 } else { required }, signers: Vec::new() };
    for (name, file) in &signers {
        let references = repositories.iter().filter(|(of, _)| of == name).map(|(_, repository)| repository.clone()).collect();
        let key = String::from_utf8(small(Path::new(file))?).map_err(|_| CliError::usage(format!("{}: it is no PEM", visible(file))))?;
        let name = name.parse().map_err(|error| CliError::usage(format!("`{}`: {error}", visible(name))))?;
        policy.signers.push(ImageSigner { name, key, references });
    }
    let call = Call::new(reqwest::Method::PUT, "/v1/image-policy").json(&policy)?;
    let made: ImagePolicyInForce = app.send(&app.client()?, &call).await?;
    show_policy(app, &made)
}

fn show_policy(app: &App, shown: &ImagePolicyInForce) -> Result<(), CliError> {
    let policy = &shown.policy;
    let asked = match policy.signers.len() {
        0 => "nobody".to_owned(),
        count => format!("{} of {count} signers", policy.required),
    };
    let mut pairs = vec![("must have signed", asked)];
    for signer in &policy.signers {
        let key = receipt::cosign::ImageKey::from_pem(&signer.key).map_or_else(|error| error.to_string(), |key| key.id().to_string());
        let places = if signer.references.is_empty() { "any repository".to_owned() } else { signer.references.join(", ") };
        pairs.push(("signer", format!("{}, key {key}, for {places}", signer.name)));
    }
    pairs.extend(shown.changed.map(|time| ("set", time.to_string())));
    pairs.extend(shown.audit_index.map(|index| ("audit index", index.to_string())));
    app.output.one(shown, &pairs)
}

/// Pulls into a private layout, and imports that: what a registry sent is checked like anything else that strangers give.
async fn pull(app: &App, pull: ImagePull) -> Result<(), CliError> {
    let reference = pull.reference;
    let last = reference.name.rsplit('/').next().unwrap_or(&reference.name);
    let name = match pull.name {
        Some(name) => name,
        None => last.parse().map_err(|error| CliError::usage(format!("`{last}` is no name for an image here: {error}")).hint("choose one with --name"))?,
    };
    // The login comes first: nothing is fetched for nobody.
    let client = app.client()?;
    let credentials = match (&pull.secret, pull.username) {
        (Some(secret), _) => {
            let value = crate::command::secret::open(app, &client, secret).await?;
            let wrong = || CliError::usage(format!("secret `{}` is not USER:PASSWORD", visible(secret))).hint(format!("swarm secret set {}", visible(secret)));
            Some(Credentials::parse(&value).ok_or_else(wrong)?)
        }
        (None, Some(user)) => {
            let password = crate::prompt::secret(&format!("Password of {user} at {}: ", reference.host), app.no_input)?;
            let pair = zeroize::Zeroizing::new(format!("{user}:{}", password.as_str()));
            Some(Credentials::parse(pair.as_bytes()).ok_or_else(|| CliError::usage("user or password is empty, or has control characters"))?)
        }
        (None, None) => None,
    };
    let patience = Patience::default();
    let access = Access { credentials, auth_hosts: pull.auth_hosts, plain_http: pull.plain_http, ca_file: pull.ca_file.as_deref(), patience };
    let mut registry = Registry::new(&reference, access)?;
    let found = registry.find(&reference.point).await?;
    app.output.say(format!("{reference} is {}", found.digest));
    let layout = cache(pull.cache_dir)?.join(found.digest.hex());
    let total = found.blobs.iter().fold(0_u64, |sum, blob| sum.saturating_add(blob.size));
    let bar = crate::progress::bytes(app.output.quiet, total, "pulling");
    let fetched = registry.fetch(&found, &layout, &bar).await;
    bar.finish_and_clear();
    fetched?;
    let signatures = registry.signatures(&found.digest).await?;
    import(app, &layout, name, Some(reference.to_string())).await?;
    if !signatures.is_empty() {
        let count = signatures.len();
        let _: vocabulary::api::Done = app.send(&client, &attach_call(&found.digest, signatures)?).await?;
        app.output.say(format!("{count} signatures came along; whether they count says the tenant's image policy"));
    }
    std::fs::remove_dir_all(&layout).map_err(|error| CliError::new(1, format!("{}: {error}", layout.display())))
}

/// Where downloads lie until they are imported.
fn cache(chosen: Option<PathBuf>) -> Result<PathBuf, CliError> {
    let below = |variable: &str| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let found = chosen.or_else(|| Some(below("XDG_CACHE_HOME").or_else(|| Some(below("HOME")?.join(".cache")))?.join("swarm/pull")));
    found.ok_or_else(|| CliError::usage("there is no HOME to keep downloads in: name a folder with --cache-dir"))
}

fn describe(app: &App, plan: &ImportPlan) {
    let config = &plan.config;
    let command = visible(&config.argv(&[]).join(" "));
    let layers = plan.blobs.len().saturating_sub(2);
    app.output.say(format!(
        "{} for {}/{}: {layers} layers; its own command: {}",
        plan.manifest,
        visible(&config.os),
        visible(&config.architecture),
        if command.is_empty() { "none" } else { &command }
    ));
}

fn refused(error: &ImageError) -> CliError {
    let exit = match error {
        ImageError::Corrupt { .. } => 6,
        ImageError::Refused(_) | ImageError::DockerArchive(_) | ImageError::Budget { .. } | ImageError::Entry { .. } => 2,
        ImageError::Io { .. } => 1,
    };
    CliError::new(exit, chain(error))
}

async fn there(client: &Client, blob: &Blob) -> Result<bool, CliError> {
    let found: Result<BlobRef, CliError> = client.send(&Call::get(format!("/v1/image-blobs/{}", blob.digest)), None).await;
    match found {
        Ok(found) => Ok(found.size == blob.size),
        Err(error) if error.exit == 3 => Ok(false),
        Err(error) => Err(error),
    }
}

async fn send(client: &Client, blob: &Blob, bar: &ProgressBar) -> Result<(), CliError> {
    let (path, offset) = match &blob.source {
        BlobSource::File(path) => (path, 0),
        BlobSource::Archive { path, offset } => (path, *offset),
    };
    let at = |error: std::io::Error| CliError::new(1, format!("{}: {error}", path.display()));
    let mut file = tokio::fs::File::open(path).await.map_err(at)?;
    file.seek(SeekFrom::Start(offset)).await.map_err(at)?;
    let reader = Counted { inner: file.take(blob.size), bar: bar.clone() };
    let body = reqwest::Body::wrap_stream(tokio_util::io::ReaderStream::with_capacity(reader, PIECE));
    let url = format!("/v1/image-blobs/{}", blob.digest);
    tokio::select! {
        sent = client.upload(&url, blob.size, body) => sent,
        () = stalled(bar) => Err(CliError::new(8, format!("the upload of {} stands still", blob.digest)).hint("run the same command again: what arrived is not sent again")),
    }
}

/// Ends once nothing has moved for [`STALL`].
async fn stalled(bar: &ProgressBar) {
    let mut last = bar.position();
    loop {
        tokio::time::sleep(STALL).await;
        let now = bar.position();
        if now == last {
            return;
        }
        last = now;
    }
}

/// Tells the bar what is read.
struct Counted<R> {
    inner: R,
    bar: ProgressBar,
}

impl<R: AsyncRead + Unpin> AsyncRead for Counted<R> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        self.bar.inc(u64::try_from(buffer.filled().len().saturating_sub(before)).unwrap_or(0));
        polled
    }
}
