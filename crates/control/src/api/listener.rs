//! The TLS listener: accepts, shakes hands in bounded time, serves HTTP/1.1 and HTTP/2, and can be told to close what it serves.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use identity::VerifiedPeer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use vocabulary::ErrorCode;

use crate::api::activity::{Activity, tie};
use crate::api::places::{Place, Places};
use crate::clock;
use crate::limits::{CONNECTION_WINDOW, FRAME_BYTES, GOODBYE_TIMEOUT, HANDSHAKE_TIMEOUT, HEADER_TIMEOUT, HEADERS_MAX, STREAM_WINDOW, STREAMS_MAX};
use crate::descriptors::{self, Share};
use crate::metrics::{Listener, Metrics};
use crate::state::Control;

/// What is known of a connection before its first request.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    /// Where it comes from.
    pub(crate) remote: SocketAddr,
    /// Who shook hands, on the node channel.
    pub(crate) peer: Option<Arc<VerifiedPeer>>,
    /// What it does; none where there was no handshake.
    pub(crate) activity: Option<Arc<Activity>>,
}

/// Whom a listener is for.
#[derive(Debug, Clone)]
pub(crate) enum Door {
    /// Everybody, while the server is sealed.
    Sealed,
    /// Everybody.
    Api(Arc<Control>),
    /// Nodes: every peer is judged by the gate, its connection ends when the gate or its certificate says so, and refused
    /// certificates are counted as strangers.
    Nodes(Arc<Control>),
}

impl Door {
    const fn nodes(&self) -> Option<&Arc<Control>> {
        match self {
            Self::Nodes(control) => Some(control),
            Self::Sealed | Self::Api(_) => None,
        }
    }

    fn metrics(&self) -> Option<(&Metrics, Listener)> {
        match self {
            Self::Sealed => None,
            Self::Api(control) => Some((&control.metrics, Listener::Api)),
            Self::Nodes(control) => Some((&control.metrics, Listener::Nodes)),
        }
    }
}

/// Serves until `stop`, each connection with the certificate of the moment, then lets requests in flight end for a moment.
pub(crate) async fn serve(listener: TcpListener, tls: watch::Receiver<Arc<rustls::ServerConfig>>, router: axum::Router, door: Door, stop: CancellationToken) {
    let places = Places::new(descriptors::places(if door.nodes().is_some() { Share::Nodes } else { Share::Api }));
    let mut connections = JoinSet::new();
    loop {
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
        let entered = tokio::select! {
            () = stop.cancelled() => break,
            entered = places.enter(remote.ip(), tokio::time::Instant::now()) => entered,
        };
        if let Some((metrics, listener)) = door.metrics() {
            metrics.displaced(listener, entered.displaced);
            if entered.place.is_none() {
                metrics.turned_away(listener);
            }
        }
        let Some(place) = entered.place else {
            tracing::debug!(%remote, "all places are taken by others at work");
            continue;
        };
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::clone(&tls.borrow()));
        let (router, door, stop) = (router.clone(), door.clone(), stop.clone());
        connections.spawn(async move {
            let _counted = door.metrics().map(|(metrics, listener)| metrics.connection(listener));
            let leave = place.leave.clone();
            tokio::select! {
                () = serve_connection(stream, remote, &acceptor, router, &door, &place, stop) => {}
                () = leave.cancelled() => tracing::debug!(%remote, "gave way to another"),
            }
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
    door: &Door,
    place: &Place,
    stop: CancellationToken,
) {
    let nodes = door.nodes();
    let _ = stream.set_nodelay(true);
    let tls = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => {
            tracing::debug!(%remote, %error, "handshake refused");
            let refused = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).and_then(identity::tls::refusal_of);
            if let (Some(control), Some(refusal)) = (nodes, refused) {
                tracing::info!(%remote, %refusal, "a node's certificate was refused");
                control.count_stranger(Some(&Connection { remote, peer: None, activity: None }), ErrorCode::Unauthenticated).await;
            }
            return;
        }
        Err(_) => {
            tracing::debug!(%remote, "handshake took too long");
            return;
        }
    };
    let guest = match nodes.map(|control| Arc::clone(&control.gate).admit(tls.get_ref().1.peer_certificates(), clock::now())).transpose() {
        Ok(guest) => guest,
        Err(refusal) => {
            tracing::info!(%remote, %refusal, "a node's certificate was refused");
            if let Some(control) = nodes {
                control.count_stranger(Some(&Connection { remote, peer: None, activity: None }), ErrorCode::Unauthenticated).await;
            }
            return;
        }
    };
    let activity = &place.activity;
    activity.greeted(tokio::time::Instant::now());
    if guest.is_some() {
        activity.member();
    }
    let connection = Connection { remote, peer: guest.as_ref().map(|guest| Arc::clone(&guest.peer)), activity: Some(Arc::clone(activity)) };
    // Ends with the certificate, or at once when the peer is revoked; nobody's API connection ends this way.
    let over = async {
        match &guest {
            Some(guest) => guest.over(clock::now()).await,
            None => std::future::pending().await,
        }
    };
    let tied = Arc::clone(activity);
    let service = hyper::service::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(connection.clone());
        let (request, tie) = tie(&tied, request);
        let answer = router.clone().oneshot(request);
        async move {
            match answer.await {
                Ok(answer) => Ok(tie.whole(answer).await),
                Err(never) => Err(never),
            }
        }
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
