//! The link to a server over TCP: TLS 1.3 with AES-256-GCM to the one that the authority vouches for, or none.

use std::path::Path;

use super::cluster::{Cluster, PASSWORD};
use super::{NOW, put, tenant};
use crate::{Expect, OpenError, PostgresUrl, Store, StoreConfig, Transaction};

fn url(host: &str, port: u16, authority: &Path) -> PostgresUrl {
    let url = format!("postgres://swarm@{host}:{port}/swarm?sslrootcert={}", authority.display());
    url.parse::<PostgresUrl>().unwrap().with_password(PASSWORD.to_owned().into())
}

async fn refused(url: PostgresUrl) -> String {
    match Store::open(StoreConfig::postgres(url)).await.unwrap_err() {
        OpenError::Unreachable { detail, .. } => detail,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_is_tls_1_3_with_aes_256_and_the_server_is_the_right_one() {
    let mut cluster = Cluster::start();
    let (port, authority) = cluster.with_tls(&["ssl = on"]);
    for host in ["localhost", "127.0.0.1"] {
        let store = Store::open(StoreConfig::postgres(url(host, port, &authority))).await.unwrap();
        store.commit(Transaction::new().with(put(tenant(1), u64::from(host == "localhost"), Expect::Absent)), NOW).await.unwrap();
        let links = cluster.psql_at(
            port,
            "postgres",
            "SELECT DISTINCT s.ssl, s.version, s.cipher FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE a.usename = 'swarm'",
        );
        assert_eq!(links, "t|TLSv1.3|TLS_AES_256_GCM_SHA384");
        store.close().await;
    }
    // Another authority, and a name that the certificate does not bear.
    let stranger = tempfile::tempdir().unwrap();
    let other = stranger.path().join("other.pem");
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-subj", "/CN=another", "-days", "2", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-keyout", "/dev/null", "-out"])
        .arg(&other)
        .output()
        .unwrap();
    assert!(made.status.success());
    let detail = refused(url("localhost", port, &other)).await;
    assert!(detail.contains("certificate"), "{detail}");
    let detail = refused(url("127.0.0.2", port, &authority)).await;
    assert!(detail.contains("refused") || detail.contains("certificate"), "{detail}");
    let detail = refused(url("localhost", port, Path::new("/nonexistent.pem"))).await;
    assert!(detail.contains("/nonexistent.pem"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn older_versions_and_no_tls_at_all_are_refused() {
    let mut cluster = Cluster::start();
    let (port, authority) = cluster.with_tls(&["ssl = on", "ssl_max_protocol_version = 'TLSv1.2'"]);
    let detail = refused(url("localhost", port, &authority)).await;
    assert!(detail.contains("TLS"), "{detail}");
    let (port, authority) = cluster.with_tls(&["ssl = off"]);
    let detail = refused(url("localhost", port, &authority)).await;
    assert!(detail.contains("does not offer TLS"), "{detail}");
}
