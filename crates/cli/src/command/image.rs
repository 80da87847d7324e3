//! `swarm image`: an image travels as its blobs, each by digest; what is there is not sent again.

use std::io::SeekFrom;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use indicatif::ProgressBar;
use runtime::image::{Blob, BlobSource, ImageError, ImportPlan};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncSeekExt as _, ReadBuf};
use vocabulary::Name;
use vocabulary::api::{Image, ImageCreate};
use vocabulary::plan::BlobRef;

use crate::app::App;
use crate::args::ImageVerb;
use crate::client::{Call, Client};
use crate::error::{CliError, chain};
use crate::output::human_bytes;

/// Bytes of one piece of an upload.
const PIECE: usize = 256 << 10;
/// An upload that moves no byte for so long is given up; the server may take a while to verify a large blob.
const STALL: Duration = Duration::from_secs(120);

pub(crate) async fn image(app: &App, verb: ImageVerb) -> Result<(), CliError> {
    match verb {
        ImageVerb::Import { path, name } => import(app, &path, name).await,
        ImageVerb::List => {
            let images: Vec<Image> = app.all(&app.client()?, "/v1/images").await?;
            app.output.list(&images, &["name", "manifest", "size", "imported"], |image| {
                vec![image.name.to_string(), image.manifest.to_string(), human_bytes(image.size), image.created.to_string()]
            })
        }
    }
}

async fn import(app: &App, path: &Path, name: Name) -> Result<(), CliError> {
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
    let blobs = plan.blobs.iter().map(|blob| BlobRef { digest: blob.digest, size: blob.size }).collect();
    let made: Image = app.send(&client, &Call::post("/v1/images", &ImageCreate { name, manifest: plan.manifest, blobs })?).await?;
    let mut pairs = vec![
        ("image", made.name.to_string()),
        ("manifest", made.manifest.to_string()),
        ("size", format!("{}, of which {} sent; the rest was there", human_bytes(made.size), human_bytes(sent))),
    ];
    pairs.extend(made.audit_index.map(|index| ("audit index", index.to_string())));
    app.output.one(&made, &pairs)
}

fn describe(app: &App, plan: &ImportPlan) {
    let config = &plan.config;
    let command = crate::output::visible(&config.argv(&[]).join(" "));
    let layers = plan.blobs.len().saturating_sub(2);
    app.output.say(format!(
        "{} for {}/{}: {layers} layers; its own command: {}",
        plan.manifest,
        crate::output::visible(&config.os),
        crate::output::visible(&config.architecture),
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
