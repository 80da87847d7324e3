//! Servers and databases that will not do, and URLs: each refused with what to do, and left alone.

use super::cluster::{Cluster, PASSWORD, ROLE};
use super::proxy::{Break, Proxy};
use crate::{OpenError, PostgresUrl, Store, StoreConfig, UrlError};

async fn refused(url: PostgresUrl) -> OpenError {
    Store::open(StoreConfig::postgres(url)).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_will_not_do_is_refused_by_name() {
    let cluster = Cluster::start();
    let on = |database: &str| -> PostgresUrl { cluster.url_of(database).parse().unwrap() };

    let missing = refused(on("elsewhere")).await;
    assert!(matches!(&missing, OpenError::NotLetIn { detail, .. } if detail.contains("does not exist")), "{missing:?}");
    let stranger: PostgresUrl = cluster.url_of("swarm").replace("user=swarm", "user=nobody").parse().unwrap();
    assert!(matches!(refused(stranger).await, OpenError::NotLetIn { .. }));
    let nowhere: PostgresUrl = "postgres:///swarm?host=/nonexistent&user=swarm".parse().unwrap();
    let nowhere = refused(nowhere).await;
    assert!(matches!(&nowhere, OpenError::Unreachable { server, .. } if server.starts_with("/nonexistent")), "{nowhere:?}");

    let superuser: PostgresUrl = cluster.url_of("swarm").replace("user=swarm", "user=postgres").parse().unwrap();
    let unfenced = refused(superuser).await;
    assert!(matches!(&unfenced, OpenError::Unfenced { user } if user == "postgres"), "{unfenced:?}");
    cluster.psql("postgres", "CREATE ROLE sly LOGIN BYPASSRLS");
    let sly: PostgresUrl = cluster.url_of("swarm").replace("user=swarm", "user=sly").parse().unwrap();
    assert!(matches!(refused(sly).await, OpenError::Unfenced { .. }));

    cluster.create("foreign_one");
    cluster.psql("foreign_one", "CREATE TABLE notes (text TEXT)");
    let foreign = refused(on("foreign_one")).await;
    assert!(matches!(&foreign, OpenError::Foreign { detail, .. } if detail.contains("public.notes")), "{foreign:?}");
    assert_eq!(cluster.psql("foreign_one", "SELECT count(*) FROM pg_namespace WHERE nspname = 'swarm'"), "0");

    cluster.psql("postgres", &format!("CREATE DATABASE latin OWNER {ROLE} ENCODING 'LATIN1' TEMPLATE template0"));
    let latin = refused(on("latin")).await;
    assert!(matches!(&latin, OpenError::Foreign { detail, .. } if detail.contains("LATIN1")), "{latin:?}");

    cluster.create("frozen");
    cluster.psql("postgres", "ALTER DATABASE frozen SET default_transaction_read_only = on");
    assert!(matches!(refused(on("frozen")).await, OpenError::ServerReadOnly { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_and_rows_that_contradict_are_refused_and_left_alone() {
    let cluster = Cluster::start();
    Store::open(StoreConfig::postgres(cluster.url())).await.unwrap().close().await;
    cluster.psql("swarm", "INSERT INTO swarm.schema_version VALUES (99, 0)");
    assert!(matches!(refused(cluster.url()).await, OpenError::Newer { found: 99, known: 1 }));
    cluster.psql("swarm", "DELETE FROM swarm.schema_version WHERE version = 99");
    for (harm, heal) in [
        ("UPDATE swarm.counter SET value = value + 1 WHERE name = 'change'", "UPDATE swarm.counter SET value = value - 1 WHERE name = 'change'"),
        ("UPDATE swarm.counter SET value = 7 WHERE name = 'audit'", "UPDATE swarm.counter SET value = 0 WHERE name = 'audit'"),
    ] {
        cluster.psql("swarm", harm);
        assert!(matches!(refused(cluster.url()).await, OpenError::Contradiction { .. }), "{harm}");
        cluster.psql("swarm", heal);
    }
    Store::open(StoreConfig::postgres(cluster.url())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_server_is_refused() {
    let cluster = Cluster::start();
    let proxy = Proxy::before(cluster.socket()).await;
    proxy.set(Break::Old);
    let url: PostgresUrl = format!("postgres://swarm@127.0.0.1:{}/swarm?sslmode=disable", proxy.port).parse().unwrap();
    let old = refused(url).await;
    assert!(matches!(&old, OpenError::ServerVersion { least: 15, .. }), "{old:?}");
    assert_eq!(cluster.psql("swarm", "SELECT count(*) FROM pg_namespace WHERE nspname = 'swarm'"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_asked_for_and_nowhere_shown() {
    let mut cluster = Cluster::start();
    cluster.ask_for_passwords();
    let refused = refused(cluster.url()).await;
    assert!(matches!(&refused, OpenError::NotLetIn { .. }), "{refused:?}");
    let wrong = self::refused(cluster.url().with_password("something else".to_owned().into())).await;
    assert!(matches!(&wrong, OpenError::NotLetIn { .. }) && !format!("{wrong:?}").contains("something else"), "{wrong:?}");
    let right = cluster.url().with_password(PASSWORD.to_owned().into());
    assert!(!format!("{right:?}").contains(PASSWORD));
    let config = StoreConfig::postgres(right);
    assert!(!format!("{config:?}").contains(PASSWORD));
    Store::open(config).await.unwrap().close().await;
}

#[test]
fn urls_say_where_and_who_and_carry_no_password() {
    let good: PostgresUrl = "postgres://swarm@127.0.0.1:6000/state?sslmode=disable".parse().unwrap();
    assert_eq!((good.user(), good.database(), good.server().as_str()), ("swarm", "state", "127.0.0.1:6000"));
    let socket: PostgresUrl = "postgresql:///state?host=/run/postgresql&user=swarm&port=5433".parse().unwrap();
    assert_eq!(socket.server(), "/run/postgresql/.s.PGSQL.5433");
    let encoded: PostgresUrl = "postgres://a%40b@%2Frun%2Fpostgresql/state".parse().unwrap();
    assert_eq!((encoded.user(), encoded.server().as_str()), ("a@b", "/run/postgresql/.s.PGSQL.5432"));
    let far: PostgresUrl = "postgres://swarm@db.example/state?sslmode=verify-full&sslrootcert=/etc/a%20b.pem".parse().unwrap();
    assert_eq!(far.server(), "db.example:5432");
    for url in [&good, &socket, &encoded, &far] {
        // What is shown is the same place again.
        let again: PostgresUrl = url.to_string().parse().unwrap();
        assert_eq!((again.to_string(), again.user(), again.server()), (url.to_string(), url.user(), url.server()));
    }
    let told = |text: &str| text.parse::<PostgresUrl>().unwrap_err();
    assert_eq!(told("postgres://swarm:secret@127.0.0.1/state?sslmode=disable"), UrlError::Password);
    assert_eq!(told("postgres://swarm@127.0.0.1/state?password=secret"), UrlError::Password);
    assert!(!told("postgres://swarm:secret@127.0.0.1/state").to_string().contains("secret"));
    assert_eq!(told("postgres://swarm@127.0.0.1/"), UrlError::Missing("database"));
    assert_eq!(told("postgres:///state?host=/run"), UrlError::Missing("user"));
    assert!(matches!(told("postgres:///state?user=swarm"), UrlError::Missing(_)));
    assert_eq!(told("postgres:///state?host=/run&user=swarm&options=-c%20x"), UrlError::Parameter("options".to_owned()));
    // In clear over no network, and over the loopback only where it is said.
    assert_eq!(told("postgres://swarm@db.example/state?sslmode=disable"), UrlError::Clear("disable".to_owned()));
    assert_eq!(told("postgres://swarm@10.0.0.1/state?sslmode=prefer"), UrlError::Clear("prefer".to_owned()));
    assert_eq!(told("postgres://swarm@localhost/state?sslmode=disable"), UrlError::Clear("disable".to_owned()));
    assert!(matches!(told("postgres://swarm@db.example/state"), UrlError::Missing(what) if what.contains("sslrootcert")));
    assert!(matches!(told("postgres:///state?host=/run&user=u&sslrootcert=/ca.pem"), UrlError::Parameter(_)));
    for odd in ["", "sqlite://x", "postgres", "postgres://swarm@h/d#x", "postgres:///d?host=/a%00b&user=u", &"x".repeat(5000)] {
        assert!(matches!(told(odd), UrlError::Form(_)), "{odd}");
    }
}

proptest::proptest! {
    /// Whatever an operator types is a URL or an error, never a panic, and what it shows holds no password.
    #[test]
    fn any_text_is_a_url_or_an_error(text in "(postgres|postgresql)://[ -~]{0,60}") {
        if let Ok(url) = text.parse::<PostgresUrl>() {
            proptest::prop_assert!(!url.user().is_empty() && !url.database().is_empty());
        }
    }
}
