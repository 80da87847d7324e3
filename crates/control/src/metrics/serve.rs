//! Where metrics are read: plain HTTP on an address of this machine, if the operator asks for it.
//!
//! It takes no credential: whoever may open sockets on this machine may read, and what they read names nobody. A page in a
//! browser of this machine may not: it is answered only under a name of the machine itself.

use std::convert::Infallible;
use std::sync::Arc;

use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::limits::{METRICS_CONNECTIONS_MAX, METRICS_HEADERS_MAX, METRICS_TIMEOUT};
use crate::state::Control;

/// What Prometheus asks for.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves until `stop`. Who comes when all places are taken waits in the kernel's queue.
pub(crate) async fn run(listener: TcpListener, control: Arc<Control>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(METRICS_CONNECTIONS_MAX));
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
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let control = Arc::clone(&control);
        connections.spawn(async move {
            let _place = place;
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let control = Arc::clone(&control);
                async move { Ok::<_, Infallible>(answer(&control, &request).await) }
            });
            // One request each, in bounded time: a scrape is one, and nobody holds a place.
            let serving = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(METRICS_TIMEOUT)
                .max_buf_size(METRICS_HEADERS_MAX)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            if !matches!(tokio::time::timeout(METRICS_TIMEOUT, serving).await, Ok(Ok(()))) {
                tracing::debug!("a connection to the metrics was given up");
            }
        });
    }
    connections.shutdown().await;
}

async fn answer<B>(control: &Control, request: &http::Request<B>) -> Response<Full<bytes::Bytes>> {
    if !of_this_machine(request) {
        return told(StatusCode::MISDIRECTED_REQUEST, "metrics are answered under an address of this machine or `localhost` only\n");
    }
    if request.uri().path() != "/metrics" {
        return told(StatusCode::NOT_FOUND, "there is nothing but /metrics\n");
    }
    if request.method() != Method::GET {
        return told(StatusCode::METHOD_NOT_ALLOWED, "metrics are read with GET\n");
    }
    match control.metrics.text(control).await {
        Ok(text) => {
            let mut response = told(StatusCode::OK, "");
            *response.body_mut() = Full::from(text);
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
            response
        }
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be written");
            told(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written; the log says why\n")
        }
    }
}

/// Whether the request names this machine: a page that had its own name resolved to this address does not.
fn of_this_machine<B>(request: &http::Request<B>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Some(host) = host.to_str().ok().and_then(|host| host.parse::<http::uri::Authority>().ok()) else { return false };
    let name = host.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn told(status: StatusCode, text: &'static str) -> Response<Full<bytes::Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
