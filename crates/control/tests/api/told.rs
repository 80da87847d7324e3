//! What a refusal tells: the whole of it, to somebody unknown and to the administrator of another tenant, for every route; and
//! below the routes, for what is no request, no HTTP and no TLS.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use control::{Access, routes};
use expect_test::expect_file;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::examples::{NOBODY, Things, example, things};
use super::hostile::{answer_of, tls, tls_for};
use super::support::{Answer, Ask, World};

/// Headers that an answer may have. None names a program or its version.
const HEADERS: [&str; 6] = ["allow", "cache-control", "content-length", "content-type", "date", "retry-after"];

fn headers(answer: &Answer) -> BTreeSet<&str> {
    answer.headers.keys().map(reqwest::header::HeaderName::as_str).collect()
}

/// Status, code and sentence, without the ids that were asked with and the index of the entry.
fn told(answer: &Answer, things: &Things) -> String {
    let unknown: Vec<&str> = headers(answer).into_iter().filter(|name| !HEADERS.contains(name)).collect();
    assert_eq!(unknown, Vec::<&str>::new(), "{}", answer.text());
    if answer.status.is_success() {
        return answer.status.as_str().to_owned();
    }
    let problem = super::support::problem(answer);
    let known: BTreeSet<&str> = ["audit_index", "code", "detail", "hint", "rules", "status", "step_up", "type"].into();
    assert!(problem.as_object().unwrap().keys().all(|field| known.contains(field.as_str())), "{problem}");
    assert_eq!(answer.headers["cache-control"], "no-store");
    let sentence = things.iter().filter(|(name, _)| **name != "entry").fold(problem["detail"].as_str().unwrap().to_owned(), |text, (name, id)| text.replace(id.as_str(), &format!("<{name}>")));
    format!("{} {}: {}", answer.status.as_str(), problem["code"].as_str().unwrap(), without_ids(&sentence))
}

/// A sentence in which every id is `<id>`.
fn without_ids(sentence: &str) -> String {
    let of_id = |letter: char| letter.is_ascii_hexdigit() || letter == '-';
    let mut told = String::new();
    let mut rest = sentence;
    while let Some(begin) = rest.find(of_id) {
        let (before, from) = rest.split_at(begin);
        let (word, after) = from.split_at(from.find(|letter| !of_id(letter)).unwrap_or(from.len()));
        told.push_str(before);
        told.push_str(if word.parse::<vocabulary::PrincipalId>().is_ok() { "<id>" } else { word });
        rest = after;
    }
    told + rest
}

/// The table of what is told lies in `testdata/told.txt`: a change of any answer is seen there.
#[tokio::test(flavor = "multi_thread")]
async fn every_route_tells_the_unknown_and_the_foreign_what_the_table_says() {
    let mut world = World::new().await;
    let mut things = things(&mut world).await;
    things.insert("nobody", NOBODY.to_owned());
    world.server.published_beyond(0).await;
    let mut table = String::new();
    let mut to_nobody = BTreeSet::new();
    // Each of them ends something of the caller, or makes the answers of those after it depend on the order.
    for route in routes().iter().filter(|route| route.id != "token_logout") {
        let ask = example(route.id, route.method, route.path, &things);
        // Where the log is asked for, its end moves.
        let nobody = world.server.ask(None, ask.clone()).await;
        let nobody_told = told(&nobody, &things);
        if let Access::Action(_) = route.access {
            to_nobody.insert((nobody.status.as_u16(), nobody.text(), headers(&nobody).into_iter().map(str::to_owned).collect::<Vec<_>>()));
            let foreign = world.bob(ask).await;
            let foreign = if foreign.status.is_success() { "as their own".to_owned() } else { told(&foreign, &things) };
            writeln!(table, "{} {}\n    nobody   {nobody_told}\n    foreign  {foreign}", route.method, route.path).unwrap();
        } else {
            writeln!(table, "{} {}\n    nobody   {nobody_told}", route.method, route.path).unwrap();
        }
    }
    // To the unknown every route that is not for everybody says the same, byte for byte: not even whether what they name exists.
    assert_eq!(to_nobody.len(), 1, "{to_nobody:?}");
    let (_, body, _) = to_nobody.first().unwrap();
    let whole: Value = serde_json::from_str(body).unwrap();
    let hint = vocabulary::ErrorCode::Unauthenticated.hint();
    assert_eq!(whole, json!({ "type": "urn:swarm:problem:unauthenticated", "code": "unauthenticated", "status": 401, "detail": "no valid token", "hint": hint }));
    expect_file!["../../testdata/told.txt"].assert_eq(table.trim_end());
    world.server.stop().await;
}

/// What is no route says the same to everybody, and which methods a path has stands in the public document anyway.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_route_tells_nothing_else() {
    let world = World::new().await;
    let none = Things::new();
    for token in [None, Some(world.alice_token.as_str())] {
        for path in ["/", "/v1/nothing", "/v1/volumes/a/b/c/d", "/.git/config", "/metrics", "/node/v1/plan"] {
            let answer = world.server.ask(token, Ask::get(path)).await;
            assert_eq!(told(&answer, &none), "404 not_found: there is no such route; see /v1/openapi.json");
        }
        let answer = world.server.ask(token, Ask::new("DELETE", "/v1/volumes")).await;
        assert_eq!(told(&answer, &none), "405 method_not_allowed: this route does not take this method");
        let allowed: BTreeSet<String> = answer.headers["allow"].to_str().unwrap().split(',').map(|method| method.trim().to_owned()).collect();
        assert_eq!(allowed, ["GET", "HEAD", "POST"].map(str::to_owned).into());
    }
    world.server.stop().await;
}

/// HTTP/1.1 that is none gets a bare status or nothing at all.
#[tokio::test(flavor = "multi_thread")]
async fn malformed_http_is_answered_with_a_bare_status() {
    let world = World::new().await;
    for bytes in [
        &b"\x00\x01\x02\x03\r\n\r\n"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\x7f HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /v1/login HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"POST /v1/login HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n",
    ] {
        let mut stream = tls(&world).await;
        stream.write_all(bytes).await.unwrap();
        let answer = answer_of(&mut stream, Duration::from_secs(60)).await;
        let Some((head, body)) = answer.split_once("\r\n\r\n") else {
            assert!(answer.is_empty(), "{answer}");
            continue;
        };
        assert!(head.starts_with("HTTP/1.1 4") || head.starts_with("HTTP/1.1 505"), "{head}");
        assert_eq!(body, "", "{head}");
        for line in head.lines().skip(1) {
            let name = line.split(':').next().unwrap().to_lowercase();
            assert!(["connection", "content-length", "date"].contains(&name.as_str()), "{line}");
        }
    }
    world.server.stop().await;
}

/// HTTP/2 that is none ends with the code of RFC 9113 and no word beside it.
#[tokio::test(flavor = "multi_thread")]
async fn malformed_http2_ends_with_a_bare_code() {
    const GOAWAY: u8 = 7;
    let world = World::new().await;
    let mut ended = 0;
    for frame in [
        // DATA on stream 0; HEADERS whose block is no HPACK; a frame that is longer than any; SETTINGS of a wrong length;
        // WINDOW_UPDATE by nothing.
        &b"\0\0\x01\0\0\0\0\0\0x"[..],
        b"\0\0\x04\x01\x05\0\0\0\x01\xff\xff\xff\xff",
        b"\xff\xff\xff\0\0\0\0\0\x01",
        b"\0\0\x05\x04\0\0\0\0\0aaaaa",
        b"\0\0\x04\x08\0\0\0\0\0\0\0\0\0",
    ] {
        let mut stream = tls_for(&world, b"h2").await;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        stream.write_all(frame).await.unwrap();
        let mut bytes = Vec::new();
        let read = async {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                bytes.extend_from_slice(&buffer[..n]);
            }
        };
        tokio::time::timeout(Duration::from_secs(60), read).await.expect("the server waits for ever");
        let mut rest = bytes.as_slice();
        while let [a, b, c, kind, _, _, _, _, _, after @ ..] = rest {
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            // SETTINGS, WINDOW_UPDATE, PING, RST_STREAM have no room for words; GOAWAY has, after its two numbers.
            assert!([3, 4, 6, GOAWAY, 8].contains(kind), "a frame of type {kind}");
            if *kind == GOAWAY {
                assert_eq!(length, 8, "{}", String::from_utf8_lossy(&after[8..length]));
                ended += 1;
            }
            rest = &after[length..];
        }
    }
    assert!(ended >= 4, "{ended}");
    world.server.stop().await;
}

/// What is no TLS gets an alert, which is a number. So does whoever comes to the channel of nodes without a certificate.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_tls_gets_an_alert_at_most() {
    let world = World::new().await;
    let server = world.server.server.as_ref().unwrap();
    for address in [server.address(), server.node_address()] {
        for bytes in [&b"GET /v1/health HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", b"\x17\x03\x03\x00\x02hi", b"SSH-2.0-x\r\n"] {
            let mut plain = tokio::net::TcpStream::connect(address).await.unwrap();
            plain.write_all(bytes).await.unwrap();
            plain.shutdown().await.unwrap();
            let mut answer = Vec::new();
            let _reset = tokio::time::timeout(Duration::from_secs(60), plain.read_to_end(&mut answer)).await.expect("the server waits for ever");
            let alert = matches!(answer.as_slice(), [] | [0x15, 3, _, 0, 2, 1 | 2, _]);
            assert!(alert, "{answer:?}");
        }
    }
    let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let plain = tokio::net::TcpStream::connect(server.node_address()).await.unwrap();
    let mut config = world.server.tls.clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut answer = Vec::new();
    // In TLS 1.3 the client is done before the server has judged it: the alert comes with the first read.
    if let Ok(mut stream) = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, plain).await {
        let _ended = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
        let _ended = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await.expect("the server waits for ever");
    }
    assert_eq!(answer, b"", "{}", String::from_utf8_lossy(&answer));
    world.server.stop().await;
}
