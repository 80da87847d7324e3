//! Where spans are sent.

use std::sync::Arc;

use reqwest::header::CONTENT_TYPE;
use rustls_platform_verifier::BuilderVerifierExt as _;
use url::{Host, Url};

use crate::limits::ANSWER_WAIT;

/// Why an address is no collector's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CollectorError {
    /// It is no address.
    #[error("the OTLP endpoint is no URL; it looks like http://127.0.0.1:4318 or https://collector.example:4318")]
    Url,
    /// It is of another scheme.
    #[error("the OTLP endpoint is neither http:// nor https://; OTLP over gRPC is not built: name the collector's HTTP port, by custom 4318")]
    Scheme,
    /// It would be sent in clear to others.
    #[error("the OTLP endpoint is http:// and not on this machine: what is sent would travel in clear; use https://, or a collector on 127.0.0.1")]
    Clear,
    /// It holds more than an address.
    #[error("the OTLP endpoint has a user, password, query or fragment; it is an address alone")]
    More,
    /// There is no TLS.
    #[error("the authorities of this machine cannot be used: {0}")]
    Tls(String),
}

/// A collector.
#[derive(Debug, Clone)]
pub struct Collector {
    url: Url,
    client: reqwest::Client,
}

impl Collector {
    /// The collector at an address, as OpenTelemetry's `OTEL_EXPORTER_OTLP_ENDPOINT` names one: `v1/traces` is put behind it.
    pub fn new(endpoint: &str) -> Result<Self, CollectorError> {
        let url = parse(endpoint)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = |error: &dyn std::fmt::Display| CollectorError::Tls(error.to_string());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| tls(&error))?
            .with_platform_verifier()
            .map_err(|error| tls(&error))?
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .timeout(ANSWER_WAIT)
            // Nobody else is told, and no variable of the environment carries it elsewhere.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| tls(&error))?;
        Ok(Self { url, client })
    }

    /// Sends a request; says whether the collector took it. What it answers is not read.
    pub(crate) async fn send(&self, body: Vec<u8>) -> bool {
        let request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/json").body(body);
        match request.send().await {
            Ok(response) => response.status().is_success(),
            Err(_) => false,
        }
    }
}

fn parse(endpoint: &str) -> Result<Url, CollectorError> {
    let mut url: Url = endpoint.parse().map_err(|_| CollectorError::Url)?;
    let own = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => return Err(if matches!(url.scheme(), "http" | "https") { CollectorError::Url } else { CollectorError::Scheme }),
    };
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(CollectorError::More);
    }
    match url.scheme() {
        "https" => {}
        "http" if own => {}
        "http" => return Err(CollectorError::Clear),
        _ => return Err(CollectorError::Scheme),
    }
    let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_address_of_this_machine_or_of_tls() {
        for (endpoint, url) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://[::1]:4318/", "http://[::1]:4318/v1/traces"),
            ("http://localhost:4318/otlp", "http://localhost:4318/otlp/v1/traces"),
            ("https://collector.example", "https://collector.example/v1/traces"),
        ] {
            assert_eq!(parse(endpoint).unwrap().as_str(), url);
        }
        for (endpoint, error) in [
            ("", CollectorError::Url),
            ("collector", CollectorError::Url),
            ("http://collector.example:4318", CollectorError::Clear),
            ("http://192.0.2.1:4318", CollectorError::Clear),
            ("http://localhost.example", CollectorError::Clear),
            ("grpc://127.0.0.1:4317", CollectorError::Scheme),
            ("file:///etc/passwd", CollectorError::Scheme),
            ("https://user:canary@collector.example", CollectorError::More),
            ("https://collector.example/?key=canary", CollectorError::More),
        ] {
            let found = parse(endpoint).unwrap_err();
            assert_eq!(found, error, "{endpoint}");
            assert!(!found.to_string().contains("canary"), "what was typed is not repeated: it may hold a secret");
        }
    }
}
