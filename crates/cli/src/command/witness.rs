//! `swarm witness`: a witness of its own for any log, speaking C2SP's `tlog-witness` over HTTP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use audit::limits::WITNESS_REQUEST_MAX;
use audit::witness::{Answer, KnownLogs, TEXT};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use node::witness::{Witness, WitnessPlace};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::args;
use crate::error::{CliError, chain};
use crate::host;

/// Connections at once: each log keeps one, and monitors come and go.
const CONNECTIONS_MAX: usize = 256;
/// From the first byte of a request to the end of its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// From the end of the headers to the answer: a request has at most 131 KiB, and is answered in milliseconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long requests in flight may last after the order to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// What the handlers share. A request is judged and remembered under the lock: no two of them by the same memory.
struct Shared {
    witness: Mutex<Witness>,
    logs: KnownLogs,
}

pub(crate) async fn witness(app: &App, args: args::Witness) -> Result<(), CliError> {
    crate::logs::start()?;
    let logs = known(&args.logs)?;
    let mut sizes = args.data_dir.as_os_str().to_owned();
    sizes.push(".sizes");
    let place = WitnessPlace { dir: args.data_dir.clone(), sizes: args.sizes.unwrap_or_else(|| sizes.into()) };
    let opened = Witness::open(place, args.name.as_deref(), &mut keys::SystemRandom).map_err(|error| {
        let missing = matches!(error, node::witness::WitnessError::Absent(_));
        let told = CliError::new(1, chain(&error));
        if missing { told.hint("swarm witness --name witness.example/w1 …") } else { told }
    })?;
    let listener = TcpListener::bind(args.listen).await.map_err(|error| CliError::new(1, format!("cannot listen on {}: {error}", args.listen)))?;
    let address = listener.local_addr()?;
    app.output.say(format!("witness key    {}", opened.key()));
    for log in logs.all() {
        app.output.say(format!("signs for      {}", log.origin));
    }
    app.output.say(format!("listening on   http://{address}"));
    host::notify("READY=1");
    let stop = CancellationToken::new();
    let shared = Arc::new(Shared { witness: Mutex::new(opened), logs });
    let serving = serve(listener, router(shared), stop.clone());
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        ended = super::server::asked_to_end() => ended?,
        () = serving.as_mut() => return Ok(()),
    }
    host::notify("STOPPING=1");
    stop.cancel();
    serving.await;
    Ok(())
}

/// `--log VKEY`, or `--log ORIGIN=VKEY` where the origin is not the key's name.
fn known(texts: &[String]) -> Result<KnownLogs, CliError> {
    let mut logs = KnownLogs::default();
    for text in texts {
        let whole: Result<audit::VerifierKey, _> = text.parse();
        let (origin, key) = match (whole, text.split_once('=')) {
            (Ok(key), _) => (None, Ok(key)),
            (Err(_), Some((origin, key))) => (Some(origin), key.parse()),
            (Err(error), None) => (None, Err(error)),
        };
        let key = key.map_err(|error| CliError::usage(format!("--log {text}: {error}")))?;
        logs.add(key, origin).map_err(|error| CliError::usage(format!("--log {text}: {error}")))?;
    }
    Ok(logs)
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/add-checkpoint", post(add))
        .route("/{hash}/checkpoint", get(monitor))
        .layer(DefaultBodyLimit::max(WITNESS_REQUEST_MAX))
        .layer(axum::middleware::from_fn(bounded))
        .with_state(shared)
}

async fn add(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let now = crate::app::now().seconds();
    // It waits for the disk.
    let answered = tokio::task::spawn_blocking(move || {
        let mut witness = shared.witness.lock().unwrap_or_else(PoisonError::into_inner);
        witness.add_checkpoint(&body, &shared.logs, now).answer
    });
    respond(answered.await)
}

async fn monitor(State(shared): State<Arc<Shared>>, Path(hash): Path<String>) -> Response {
    let shown = tokio::task::spawn_blocking(move || {
        shared.witness.lock().unwrap_or_else(PoisonError::into_inner).monitored(&hash, &shared.logs)
    });
    respond(shown.await)
}

fn respond(answer: Result<Answer, tokio::task::JoinError>) -> Response {
    let answer = answer.unwrap_or_else(|error| {
        tracing::error!(%error, "a request broke off");
        Answer { status: 500, content_type: TEXT, body: b"the request broke off; nothing was signed\n".to_vec() }
    });
    let status = http::StatusCode::from_u16(answer.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(http::header::CONTENT_TYPE, answer.content_type)], answer.body).into_response()
}

/// Accepts until `stop`, then lets requests in flight end for a moment.
async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = Arc::clone(&places).acquire_owned() => match place { Ok(place) => place, Err(_) => break },
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, remote)) => {
                let (router, stop) = (router.clone(), stop.clone());
                connections.spawn(async move {
                    let _place = place;
                    connection(stream, remote, router, stop).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    let ending = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(STOP_PATIENCE, ending).await;
}

async fn connection(stream: TcpStream, remote: SocketAddr, router: Router, stop: CancellationToken) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(32 << 10).keep_alive(true);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(32).keep_alive_interval(Duration::from_secs(20));
    let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        result = serving.as_mut() => {
            if let Err(error) = result { tracing::debug!(%remote, %error, "connection ended"); }
        }
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }
}

/// A request whose body does not come is answered and let go.
async fn bounded(request: axum::extract::Request, next: axum::middleware::Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => (http::StatusCode::REQUEST_TIMEOUT, "the request did not come in time\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_named_by_their_key_or_with_an_origin() {
        let key = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8";
        let logs = known(&[key.to_owned(), format!("go.sum database tree={key}")]).unwrap();
        let origins: Vec<&str> = logs.all().iter().map(|log| log.origin.as_str()).collect();
        assert_eq!(origins, ["sum.golang.org", "go.sum database tree"]);
        for wrong in ["x", "a=b", &format!("={key}"), &key.replace("033de0ae", "033de0af")] {
            assert_eq!(known(&[wrong.to_owned()]).unwrap_err().exit, 2, "{wrong}");
        }
        assert_eq!(known(&[key.to_owned(), key.to_owned()]).unwrap_err().exit, 2, "twice");
    }
}
