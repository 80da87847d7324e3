//! A collector of traces that keeps what it is sent: OTLP over HTTP, JSON.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use serde_json::Value;

/// A span, as the collector saw it.
#[derive(Debug, Clone)]
pub struct Span {
    /// Which service sent it.
    pub service: String,
    /// Its fields.
    pub fields: Value,
}

impl Span {
    /// A field that is text; empty where it is not there.
    #[must_use]
    pub fn text(&self, field: &str) -> &str {
        self.fields.get(field).and_then(Value::as_str).unwrap_or_default()
    }
}

/// A collector, for as long as it is kept.
#[derive(Debug)]
pub struct Collector {
    endpoint: String,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    /// Listens on a free port of this machine.
    pub fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("a port for the collector")?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::downgrade(&bodies);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Some(bodies) = kept.upgrade() else { return };
                std::thread::spawn(move || {
                    // Whoever goes away in the middle of a request sent nothing.
                    let _ = serve(stream, &bodies);
                });
            }
        });
        Ok(Self { endpoint, bodies })
    }

    /// Its address, as `--otlp-endpoint` takes it.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Everything that came, as it came.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner).concat()
    }

    /// All spans that came.
    pub fn spans(&self) -> anyhow::Result<Vec<Span>> {
        let bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut spans = Vec::new();
        for body in bodies {
            let document: Value = serde_json::from_slice(&body)?;
            for resource in array(&document, "resourceSpans") {
                let attributes = resource.get("resource").map(|resource| array(resource, "attributes")).unwrap_or_default();
                let service = attributes.iter().find(|attribute| attribute.get("key").is_some_and(|key| key == "service.name"));
                let service = service.and_then(|attribute| attribute.get("value")?.get("stringValue")?.as_str()).unwrap_or_default().to_owned();
                for scope in array(resource, "scopeSpans") {
                    spans.extend(array(scope, "spans").iter().map(|fields| Span { service: service.clone(), fields: fields.clone() }));
                }
            }
        }
        Ok(spans)
    }
}

fn array<'a>(document: &'a Value, field: &str) -> &'a [Value] {
    document.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn serve(mut stream: TcpStream, bodies: &Mutex<Vec<Vec<u8>>>) -> anyhow::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let (mut length, mut line, mut first) = (0_usize, String::new(), String::new());
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if first.is_empty() {
                first.clone_from(&line);
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        anyhow::ensure!(first.starts_with("POST /v1/traces "), "not what OTLP says: {first}");
        bodies.lock().unwrap_or_else(PoisonError::into_inner).push(body);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")?;
    }
}
