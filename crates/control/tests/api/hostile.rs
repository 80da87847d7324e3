//! Bad input: a clear problem each time, nothing changed, and the server goes on.

use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::{Ask, World, now, problem};

fn raw(path: &str, body: impl Into<Vec<u8>>) -> Ask {
    Ask::new("POST", path).raw(body).header("content-type", "application/json")
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_bodies() {
    let world = World::new().await;
    let deep = |open: &str, close: &str, n: usize| format!("{{\"name\":{}1{}}}", open.repeat(n), close.repeat(n));
    for (what, body) in [
        ("nothing", String::new()),
        ("half", "{\"name\":".into()),
        ("no JSON", "hello".into()),
        ("list", "[]".into()),
        ("null", "null".into()),
        ("a wrong type", "{\"name\":1}".into()),
        ("a null field", "{\"name\":null}".into()),
        ("an unknown field", "{\"name\":\"a\",\"admin\":true}".into()),
        ("a doubled field", "{\"name\":\"a\",\"name\":\"b\"}".into()),
        ("two documents", "{\"name\":\"a\"}{}".into()),
        ("a comment", "{\"name\":\"a\"/**/}".into()),
        ("NUL", "{\"name\":\"a\\u0000b\"}".into()),
        ("a raw NUL", "{\"name\":\"a\0b\"}".into()),
        ("lonely surrogate", "{\"name\":\"\\ud800\"}".into()),
        ("depth 33", deep("[", "]", 33)),
        ("depth 400,000", deep("[", "]", 400_000)),
        ("deep objects", deep("{\"a\":", "}", 100_000)),
        ("huge number", "{\"name\":1e999999}".into()),
        ("infinity", "{\"name\":Infinity}".into()),
    ] {
        let answer = world.alice(raw("/v1/projects", body)).await.refused(400, "invalid_request");
        assert!(answer["detail"].as_str().unwrap().len() < 600, "{what}");
    }
    for bytes in [&b"\xff\xfe{\0}"[..], b"{\"name\":\"\xc3\x28\"}", b"\x80"] {
        world.alice(raw("/v1/projects", bytes)).await.refused(400, "invalid_request");
    }
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
        let ask = Ask::new("POST", "/v1/projects").raw("{\"name\":\"a\"}").header("content-type", kind);
        world.alice(ask).await.refused(415, "unsupported_media_type");
    }
    // Also where names are not fields but a map's: labels.
    let twice = "{\"name\":\"n\",\"place\":{\"region\":\"eu\",\"jurisdiction\":\"EU\",\"labels\":{\"x\":\"1\",\"x\":\"2\"}},\"lifetime_s\":600}";
    let told = world.server.ask(Some(&world.operator_token), raw("/v1/join-tokens", twice)).await.refused(400, "invalid_request");
    assert!(told["detail"].as_str().unwrap().contains("`x` stands twice"), "{told}");
    assert_eq!(world.alice(Ask::get("/v1/projects")).await.good()["items"], json!([]));
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_unicode_tricks() {
    let world = World::new().await;
    for name in [
        "", " ", "a b", "a/b", "../etc", "-a", ".", "a\u{202e}b", "a\u{200b}b", "\u{1b}[31mred", "аlice", "a\nb", "system", " Root ", "ＳＹＳＴＥＭ",
        "a;drop table", "' or '1'='1", "<script>alert(1)</script>", "${jndi:ldap://x}", "%00", &"a".repeat(65), &"a".repeat(100_000), &"ﷺ".repeat(30),
    ] {
        let told = world.alice(Ask::post("/v1/projects", json!({ "name": name }))).await.refused(400, "invalid_request");
        assert!(told["detail"].as_str().unwrap().len() < 600, "{name:.40}");
    }
    // One name, however it is written: the second one is taken.
    world.alice(Ask::post("/v1/projects", json!({ "name": "vision" }))).await.good();
    for alias in ["vision", " Vision ", "VISION", "ｖｉｓｉｏｎ", "\u{2003}vision\t"] {
        world.alice(Ask::post("/v1/projects", json!({ "name": alias }))).await.refused(409, "name_taken");
    }
    // And the other tenant may have it.
    world.bob(Ask::post("/v1/projects", json!({ "name": "vision" }))).await.good();
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn huge_bodies_and_headers() {
    let world = World::new().await;
    let huge = format!("{{\"name\":\"{}\"}}", "a".repeat(3 << 20));
    world.alice(raw("/v1/projects", huge.clone())).await.refused(413, "too_large");
    // A stranger's body is not even read.
    world.server.ask(None, raw("/v1/projects", huge.clone())).await.refused(401, "unauthenticated");
    world.server.ask(None, raw("/v1/login", huge)).await.refused(413, "too_large");
    let long = world.alice(Ask::get("/v1/whoami").header("swarm-step-up", "x".repeat(200))).await.refused(400, "invalid_request");
    assert!(long["detail"].as_str().unwrap().contains("swarm-step-up"));
    for query in ["limt=5", "limit=1&x=", "Limit=1", "%6cimit=1", "limit=1001"] {
        world.alice(Ask::get(format!("/v1/volumes?{query}"))).await.refused(400, "invalid_request");
    }
    // Nor is anything known where a route names nothing, to strangers either.
    for path in ["/v1/whoami?a=1", "/v1/audit?newest=yes"] {
        world.alice(Ask::get(path)).await.refused(400, "invalid_request");
    }
    world.server.ask(None, Ask::get("/v1/health?verbose=1")).await.refused(400, "invalid_request");
    world.server.ask(None, Ask::get("/v1/whoami?a=1")).await.refused(401, "unauthenticated");
    for query in ["limit=0", "limit=abc", "limit=-1", "limit=99999999999999999999", "cursor=%00", "cursor=not-an-id", "limit=1&limit=2"] {
        let answer = world.alice(Ask::get(format!("/v1/volumes?{query}"))).await;
        assert!(answer.status.as_u16() < 500, "{query}: {}", answer.text());
        if !answer.status.is_success() {
            problem(&answer);
        }
    }
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_credentials_and_doubled_headers() {
    let world = World::new().await;
    let (alice, bob) = (&world.alice_token, &world.bob_token);
    let ask = Ask::get("/v1/whoami").header("authorization", format!("Bearer {bob}"));
    world.server.ask(Some(alice), ask).await.refused(400, "two_credentials");
    world.alice(Ask::get("/v1/whoami").header("cookie", "session=1")).await.refused(400, "two_credentials");
    for wrong in [format!("bearer {alice}"), format!("Basic {alice}"), alice.clone(), format!("Bearer  {alice}"), "Bearer".into()] {
        let answer = world.server.ask(None, Ask::get("/v1/whoami").header("authorization", wrong)).await;
        answer.refused(401, "unauthenticated");
    }
    // The tenant comes from the credential: saying another one changes nothing.
    let ask = Ask::get("/v1/whoami").header("x-tenant", "beta").header("x-forwarded-for", "10.0.0.1").header("host", "beta.example");
    assert_eq!(world.alice(ask).await.good()["tenant_name"], "acme");
    world.server.stop().await;
}

pub(crate) async fn tls(world: &World) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    tls_for(world, b"http/1.1").await
}

pub(crate) async fn tls_for(world: &World, protocol: &[u8]) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let mut config = world.server.tls.clone();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = tokio::net::TcpStream::connect(world.server.server.as_ref().unwrap().address()).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
    tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await.unwrap()
}

/// Reads until the server closes; fails when it does not within `limit`.
pub(crate) async fn answer_of(stream: &mut tokio_rustls::client::TlsStream<tokio::net::TcpStream>, limit: Duration) -> String {
    let mut answer = Vec::new();
    let read = async {
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(n) => answer.extend_from_slice(&buffer[..n]),
            }
        }
    };
    tokio::time::timeout(limit, read).await.expect("the server waits for ever");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Slow clients are ended by the server, and do not keep others waiting.
#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_ended() {
    let world = World::new().await;
    let limit = Duration::from_secs(45);
    // Headers that never end.
    let mut headers = tls(&world).await;
    headers.write_all(b"GET /v1/health HTTP/1.1\r\nhost: x\r\nx-slow: ").await.unwrap();
    // A body that drips.
    let mut body = tls(&world).await;
    let head = format!(
        "POST /v1/projects HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: 1000\r\nconnection: close\r\n\r\n{{\"name\":",
        world.alice_token
    );
    body.write_all(head.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(body);
    let drip = async move {
        while writer.write_all(b" ").await.is_ok() && writer.flush().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let read = async move {
        let mut answer = vec![0; 4096];
        let n = tokio::time::timeout(limit, reader.read(&mut answer)).await.expect("the server waits for ever").unwrap_or(0);
        String::from_utf8_lossy(&answer[..n]).into_owned()
    };
    // Meanwhile others are served.
    let others = async {
        for _ in 0..10 {
            world.alice(Ask::get("/v1/whoami")).await.good();
        }
    };
    let (answer, slow, ()) = tokio::join!(
        async { tokio::select! { answer = read => answer, () = drip => panic!("the connection ended without an answer") } },
        answer_of(&mut headers, limit),
        others
    );
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("\"code\":\"request_timeout\""), "{answer}");
    assert!(!slow.starts_with("HTTP/1.1 200"), "{slow}");
    assert_eq!(world.alice(Ask::get("/v1/projects")).await.good()["items"], json!([]));
    world.server.stop().await;
}

/// Whoever shakes hands and then says nothing is ended, whichever protocol was agreed.
#[tokio::test(flavor = "multi_thread")]
async fn silent_clients_are_ended() {
    let world = World::new().await;
    let limit = Duration::from_secs(60);
    let mut nothing = tls(&world).await;
    let mut agreed = tls_for(&world, b"h2").await;
    let mut preface = tls_for(&world, b"h2").await;
    preface.write_all(b"PRI * HT").await.unwrap();
    let mut greeted = tls_for(&world, b"h2").await;
    greeted.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let said = tokio::join!(answer_of(&mut nothing, limit), answer_of(&mut agreed, limit), answer_of(&mut preface, limit), answer_of(&mut greeted, limit));
    assert!(said.0.is_empty(), "{}", said.0);
    world.server.stop().await;
}

/// A refusal reaches a client that is still sending, over HTTP/2 too.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_told_to_who_still_sends() {
    let world = World::new().await;
    let stream = tls_for(&world, b"h2").await;
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let asks = async {
        for (path, expected) in [("/v1/nope", 404), ("/v1/projects", 401), ("/v1/login", 413)] {
            let body = http_body_util::Full::new(bytes::Bytes::from(vec![b'x'; 5 << 20]));
            let request = http::Request::post(format!("https://127.0.0.1{path}")).header("content-type", "application/json").body(body).unwrap();
            let answer = sender.send_request(request).await.unwrap_or_else(|error| panic!("{path}: {error:?}"));
            assert_eq!(answer.status().as_u16(), expected, "{path}");
            let told = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap_or_else(|error| panic!("{path}: {error:?}")).to_bytes();
            let told: Value = serde_json::from_slice(&told).unwrap();
            assert_eq!(told["status"], expected, "{path}");
        }
    };
    tokio::select! {
        () = asks => {}
        ended = connection => panic!("the connection ended: {ended:?}"),
    }
    world.server.stop().await;
}

/// A refusal does not overtake a small body: over HTTP/1.1 the connection would end under a client that still writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_waits_for_a_small_body() {
    let world = World::new().await;
    let mut stream = tls(&world).await;
    for _ in 0..20 {
        stream.write_all(b"POST /v1/projects HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n").await.unwrap();
        stream.flush().await.unwrap();
        // The head is there and can be judged: whoever is told now is told on this connection nevertheless.
        world.server.ask(None, Ask::get("/v1/health")).await.good();
        stream.write_all(b"{\"name\":\"a\"}").await.unwrap();
        let mut answer = Vec::new();
        let read = async {
            let mut buffer = [0; 4096];
            while !answer.ends_with(b"}") {
                let n = stream.read(&mut buffer).await.unwrap();
                assert!(n > 0, "the connection ended: {}", String::from_utf8_lossy(&answer));
                answer.extend_from_slice(&buffer[..n]);
            }
        };
        tokio::time::timeout(Duration::from_secs(60), read).await.expect("the server waits for ever");
        let answer = String::from_utf8_lossy(&answer).to_lowercase();
        assert!(answer.starts_with("http/1.1 401") && !answer.contains("connection: close"), "{answer}");
    }
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_ends_the_connection() {
    let world = World::new().await;
    for bytes in [
        &b"\x00\x01\x02\x03\r\n\r\n"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/login HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"POST /v1/login HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n",
    ] {
        let mut stream = tls(&world).await;
        stream.write_all(bytes).await.unwrap();
        let answer = answer_of(&mut stream, Duration::from_secs(30)).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.1 505"), "{answer}");
    }
    // Headers without bound.
    let mut stream = tls(&world).await;
    let mut head = b"GET /v1/health HTTP/1.1\r\nhost: x\r\n".to_vec();
    for n in 0..20_000 {
        head.extend_from_slice(format!("x-{n}: aaaaaaaaaaaaaaaaaaaa\r\n").as_bytes());
    }
    let _closed = stream.write_all(&head).await;
    let answer = answer_of(&mut stream, Duration::from_secs(30)).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431") || answer.starts_with("HTTP/1.1 400"), "{answer}");
    // Plain text on the TLS port.
    let mut plain = tokio::net::TcpStream::connect(world.server.server.as_ref().unwrap().address()).await.unwrap();
    plain.write_all(b"GET /v1/health HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(30), plain.read_to_end(&mut answer)).await.expect("the server waits for ever").unwrap_or(0);
    assert!(!answer.starts_with(b"HTTP/"));
    world.alice(Ask::get("/v1/whoami")).await.good();
    world.server.stop().await;
}

/// A create with an idempotency key is one create, however often it is sent.
#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_is_for_one_request() {
    let world = World::new().await;
    let create = |name: &str| Ask::post("/v1/projects", json!({ "name": name })).header("idempotency-key", "key-1");
    let first = world.alice(create("vision")).await.good();
    assert_eq!(world.alice(create("vision")).await.good(), first);
    world.alice(create("speech")).await.refused(409, "idempotency_mismatch");
    // Another tenant's key of the same name is another key.
    let other: Value = world.bob(create("vision")).await.good();
    assert_ne!(other["id"], first["id"]);
    for bad in ["a b", &"k".repeat(129), "\u{e4}"] {
        let ask = Ask::post("/v1/projects", json!({ "name": "third" })).header("idempotency-key", bad);
        world.alice(ask).await.refused(400, "invalid_request");
    }
    assert!(now().millis() > 0);
    world.server.stop().await;
}
