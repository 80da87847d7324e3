//! The TLS listener: accepts, shakes hands in bounded time, serves HTTP/1.1 and HTTP/2, and can be told to close what it serves.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use identity::VerifiedPeer;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use vocabulary::ErrorCode;

use crate::api::activity::{Activity, Sources, tie};
use crate::clock;
use crate::limits::{CONNECTION_WINDOW, CONNECTIONS_MAX, FRAME_BYTES, GOODBYE_TIMEOUT, HANDSHAKE_TIMEOUT, HEADER_TIMEOUT, HEADERS_MAX, STREAM_WINDOW, STREAMS_MAX};
use crate::state::Control;

/// What is known of a connection before its first request.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    /// Where it comes from.
    pub(crate) remote: SocketAddr,
    /// Who shook hands, on the node channel.
    pub(crate) peer: Option<Arc<VerifiedPeer>>,
}

/// Serves until `stop`, each connection with the certificate of the moment, then lets requests in flight end for a moment. On the node channel every peer is judged by the gate,
/// its connection ends when the gate or its certificate says so, and refused certificates are counted as strangers.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: watch::Receiver<Arc<rustls::ServerConfig>>,
    router: axum::Router,
    nodes: Option<Arc<Control>>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let sources = Arc::new(Sources::default());
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
        let (stream, remote) = match accepted {
            Ok(pair) => pair,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some(source) = sources.enter(remote.ip()) else {
            tracing::debug!(%remote, "too many connections of one source");
            continue;
        };
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&tls.borrow()));
        let (router, nodes, stop) = (router.clone(), nodes.clone(), stop.clone());
        connections.spawn(async move {
            let _places = (place, source);
            serve_connection(stream, remote, &acceptor, router, nodes, stop).await;
        });
    }
    let _ = tokio::time::timeout(std::time::Duration::from_secs(5), async {
        while connections.join_next().await.is_some() {}
    })
    .await;
}

async fn serve_connection(
    stream: tokio::net::TcpStream,
    remote: SocketAddr,
    acceptor: &tokio_rustls::TlsAcceptor,
    router: axum::Router,
    nodes: Option<Arc<Control>>,
    stop: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let tls = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => {
            tracing::debug!(%remote, %error, "handshake refused");
            let refused = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).and_then(identity::tls::refusal_of);
            if let (Some(control), Some(refusal)) = (nodes, refused) {
                tracing::info!(%remote, %refusal, "a node's certificate was refused");
                control.count_stranger(Some(&Connection { remote, peer: None }), ErrorCode::Unauthenticated).await;
            }
            return;
        }
        Err(_) => {
            tracing::debug!(%remote, "handshake took too long");
            return;
        }
    };
    let guest = match nodes.as_ref().map(|control| Arc::clone(&control.gate).admit(tls.get_ref().1.peer_certificates(), clock::now())).transpose() {
        Ok(guest) => guest,
        Err(refusal) => {
            tracing::info!(%remote, %refusal, "a node's certificate was refused");
            if let Some(control) = nodes {
                control.count_stranger(Some(&Connection { remote, peer: None }), ErrorCode::Unauthenticated).await;
            }
            return;
        }
    };
    let connection = Connection { remote, peer: guest.as_ref().map(|guest| Arc::clone(&guest.peer)) };
    // Ends with the certificate, or at once when the peer is revoked; nobody's API connection ends this way.
    let over = async {
        match &guest {
            Some(guest) => guest.over(clock::now()).await,
            None => std::future::pending().await,
        }
    };
    let activity = Activity::until(tokio::time::Instant::now() + HEADER_TIMEOUT);
    let tied = Arc::clone(&activity);
    let service = hyper::service::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(connection.clone());
        let (request, whole) = tie(&tied, request);
        let answer = router.clone().oneshot(request);
        async move { answer.await.map(whole) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADERS_MAX)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_frame_size(FRAME_BYTES)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(HEADERS_MAX).unwrap_or(u32::MAX))
        .keep_alive_interval(std::time::Duration::from_secs(20))
        .keep_alive_timeout(std::time::Duration::from_secs(20));
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(tls), service);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        result = serving.as_mut() => {
            if let Err(error) = result { tracing::debug!(%remote, %error, "connection ended"); }
        }
        () = activity.idle() => {
            tracing::debug!(%remote, "nothing was asked for too long");
            // Says goodbye to whoever speaks HTTP/2, so that nothing is asked into a closing connection.
            serving.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(GOODBYE_TIMEOUT, serving).await;
        }
        reason = over => tracing::info!(%remote, reason, "connection closed"),
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }
}
