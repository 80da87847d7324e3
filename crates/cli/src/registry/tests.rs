//! Registries that lie, stall, loop and trap; and Debian's, which does not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use indicatif::ProgressBar;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// What a registry was asked.
#[derive(Debug, Clone)]
struct Asked {
    path: String,
    headers: BTreeMap<String, String>,
}

/// What it answers.
enum Reply {
    /// Status, headers, body, with the true length.
    Whole(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// A head as it stands, then bytes, then the connection ends.
    Raw(String, Vec<u8>),
    /// A head, then bytes without end.
    Endless(String),
    /// A head, then one byte now and then.
    Trickle(String),
    /// A head, then nothing.
    Silent(String),
}

/// A script of a list of them.
type Boxed = Box<dyn Fn(&Asked) -> Reply + Send + Sync>;
type Script = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

/// A registry that follows a script, and what it was asked.
struct Hostile {
    address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

fn ok(bytes: &[u8]) -> Reply {
    Reply::Whole(200, vec![], bytes.to_vec())
}

fn head(status: u16, length: u64) -> String {
    format!("HTTP/1.1 {status} OK\r\ncontent-length: {length}\r\n\r\n")
}

impl Hostile {
    async fn start(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (script, seen): (Script, _) = (Arc::new(script), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&seen)));
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    fn registry(&self, access: Access<'_>) -> Registry {
        let reference: Reference = format!("{}/tools/python:3", self.address).parse().unwrap();
        Registry::new(&reference, Access { plain_http: true, patience: brisk(), ..access }).unwrap()
    }

    async fn find(&self) -> Result<Found, PullError> {
        self.registry(Access::default()).find(&Point::Tag("3".to_owned())).await
    }
}

/// Short enough for a test, and long beside what happens on one machine.
fn brisk() -> Patience {
    Patience { idle: Duration::from_millis(1500), window: Duration::from_millis(300), floor: 1 << 20, tries: 3 }
}

async fn serve(mut stream: TcpStream, script: Script, seen: Arc<Mutex<Vec<Asked>>>) {
    loop {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            let mut one = [0; 1];
            if stream.read(&mut one).await.ok() != Some(1) {
                return;
            }
            bytes.push(one[0]);
        }
        let text = String::from_utf8(bytes).unwrap();
        let mut lines = text.lines();
        let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
        let headers = lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        let asked = Asked { path, headers };
        seen.lock().unwrap().push(asked.clone());
        match script(&asked) {
            Reply::Whole(status, headers, body) => {
                let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
                if stream.write_all(&[head.as_bytes(), &body].concat()).await.is_err() {
                    return;
                }
            }
            Reply::Raw(head, body) => {
                let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
                return;
            }
            Reply::Endless(head) => {
                let _ = stream.write_all(head.as_bytes()).await;
                while stream.write_all(&[b'x'; 65536]).await.is_ok() {}
                return;
            }
            Reply::Trickle(head) => {
                let _ = stream.write_all(head.as_bytes()).await;
                while stream.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                return;
            }
            Reply::Silent(head) => {
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.read(&mut [0; 1]).await;
                return;
            }
        }
    }
}

fn digest(bytes: &[u8]) -> Sha256Digest {
    Sha256Digest::from_bytes(keys::derive::sha256(&[bytes]))
}

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

fn manifest(config: &[u8], layers: &[(Sha256Digest, u64)]) -> Vec<u8> {
    let layers: Vec<_> = layers.iter().map(|(digest, size)| json!({ "mediaType": LAYER, "digest": digest, "size": size })).collect();
    json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(config), "size": config.len() }, "layers": layers,
    })
    .to_string()
    .into_bytes()
}

/// A registry whose one layer is answered by `blob`; everything else is in order.
async fn with_layer(size: u64, layer: Sha256Digest, blob: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Hostile {
    Hostile::start(move |asked| {
        if asked.path.contains("/manifests/") {
            return ok(&manifest(b"{}", &[(layer, size)]));
        }
        if asked.path.ends_with(&digest(b"{}").to_string()) { ok(b"{}") } else { blob(asked) }
    })
    .await
}

/// Finds and fetches everything into a fresh folder.
async fn fetch(hostile: &Hostile) -> (tempfile::TempDir, Result<Sha256Digest, PullError>) {
    let folder = tempfile::tempdir().unwrap();
    let mut registry = hostile.registry(Access::default());
    let found = registry.find(&Point::Tag("3".to_owned())).await.unwrap();
    let fetched = registry.fetch(&found, &folder.path().join("layout"), &ProgressBar::hidden()).await;
    (folder, fetched.map(|()| found.digest))
}

fn kept(folder: &Path, digest: &Sha256Digest) -> Option<Vec<u8>> {
    std::fs::read(folder.join("layout/blobs/sha256").join(digest.hex())).ok()
}

#[tokio::test]
async fn an_index_leads_to_the_image_for_this_machine() {
    let whole = manifest(b"{}", &[(digest(b"layer"), 5)]);
    let (inner, size) = (digest(&whole), whole.len());
    let entry = |digest: Sha256Digest, size: usize, architecture: &str| {
        json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size, "platform": { "os": "linux", "architecture": architecture } })
    };
    let index = json!({ "schemaVersion": 2, "manifests": [entry(digest(b"arm"), 3, "arm64"), entry(inner, size, "amd64")] }).to_string();
    let served = whole.clone();
    let hostile = Hostile::start(move |asked| match asked.path.as_str() {
        "/v2/tools/python/manifests/3" => ok(index.as_bytes()),
        path if path.ends_with(&format!("/manifests/{inner}")) => ok(&served),
        path if path.ends_with(&format!("/blobs/{}", digest(b"layer"))) => ok(b"layer"),
        path if path.ends_with(&format!("/blobs/{}", digest(b"{}"))) => ok(b"{}"),
        _ => Reply::Whole(404, vec![], vec![]),
    })
    .await;
    let (folder, fetched) = fetch(&hostile).await;
    assert_eq!(fetched.unwrap(), inner);
    assert_eq!(kept(folder.path(), &digest(b"layer")).unwrap(), b"layer");
    assert_eq!(kept(folder.path(), &inner).unwrap(), whole);
    assert!(folder.path().join("layout/oci-layout").exists());
    // An index that leads to itself by way of others is given up; an image whose digest was named has that digest.
    let looping = Hostile::start(|asked| {
        let n = asked.path.len();
        let next = json!({ "schemaVersion": 2, "manifests": [
            { "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest(&[u8::try_from(n % 250).unwrap()]), "size": 5 }] });
        ok(next.to_string().as_bytes())
    })
    .await;
    assert!(matches!(looping.find().await, Err(PullError::Lie { .. })));
}

#[tokio::test]
async fn documents_that_are_not_what_they_should_be_are_refused() {
    let good = manifest(b"{}", &[(digest(b"layer"), 5)]);
    let other = digest(b"other");
    let body = good.clone();
    let swapped = Hostile::start(move |_| ok(&body)).await;
    let by_digest = swapped.registry(Access::default()).find(&Point::Digest(other)).await.unwrap_err();
    assert!(by_digest.to_string().contains(&digest(&good).to_string()), "{by_digest}");
    let body = good.clone();
    let header = Hostile::start(move |_| Reply::Whole(200, vec![("docker-content-digest", other.to_string())], body.clone())).await;
    assert!(header.find().await.unwrap_err().to_string().contains("another digest"));
    let body = good.clone();
    let encoded = Hostile::start(move |_| Reply::Whole(200, vec![("content-encoding", "gzip".to_owned())], body.clone())).await;
    assert!(encoded.find().await.unwrap_err().to_string().contains("compressed"));
    // A huge one ends at the limit, whether its length is told or not.
    for reply in [head(200, u64::MAX >> 1), "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_owned()] {
        let huge = Hostile::start(move |_| Reply::Endless(reply.clone())).await;
        assert!(huge.find().await.unwrap_err().to_string().contains("more than 4194304 bytes"));
    }
    let silent = Hostile::start(|_| Reply::Silent(head(200, 100))).await;
    assert!(matches!(silent.find().await, Err(PullError::Slow(_))));
    let trickle = Hostile::start(|_| Reply::Trickle(head(200, 1_000_000))).await;
    assert!(matches!(trickle.find().await, Err(PullError::Slow(_))));
    let bomb = manifest(b"{}", &[(digest(b"a"), IMAGE_BYTES), (digest(b"b"), IMAGE_BYTES)]);
    let bomb = Hostile::start(move |_| ok(&bomb)).await;
    assert!(bomb.find().await.unwrap_err().to_string().contains("bytes of all layers"));
    assert_eq!(bomb.asked().len(), 1, "nothing but the document was fetched");
    for status in [404, 403, 429, 500, 302] {
        let refused = Hostile::start(move |_| Reply::Whole(status, vec![], vec![])).await;
        assert!(refused.find().await.is_err(), "{status}");
    }
}

#[tokio::test]
async fn blobs_that_lie_are_not_kept() {
    let layer = b"the layer".to_vec();
    let (size, wanted) = (9, digest(&layer));
    let range = |asked: &Asked| asked.headers.contains_key("range");
    // (name, script, words of the refusal)
    let scripts: Vec<(&str, Boxed, &str)> = vec![
        ("another digest", Box::new(|_| ok(b"THE LAYER")), "what was sent is"),
        ("a longer length", Box::new(|_| Reply::Endless(head(200, 1 << 40))), "announces 1099511627776"),
        ("a shorter length", Box::new(|_| Reply::Raw(head(200, 3), b"the".to_vec())), "announces 3"),
        ("an endless body", Box::new(|_| Reply::Endless("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_owned())), "more than its 9 bytes"),
        ("a body that ends early, always", Box::new(|_| Reply::Raw(head(200, 9), vec![])), "broke off again and again"),
        ("silence", Box::new(|_| Reply::Silent(head(200, 9))), "nothing arrived"),
        (
            "another part than was asked for",
            Box::new(move |asked| {
                if !range(asked) {
                    return Reply::Raw(head(200, 9), b"the".to_vec());
                }
                Reply::Raw("HTTP/1.1 206 OK\r\ncontent-length: 6\r\ncontent-range: bytes 0-5/9\r\n\r\n".to_owned(), b"the la".to_vec())
            }),
            "another part",
        ),
        ("a part that nobody asked for", Box::new(|_| Reply::Whole(206, vec![("content-range", "bytes 0-8/9".to_owned())], b"the layer".to_vec())), "another part"),
        (
            "a false second half",
            Box::new(move |asked| {
                if !range(asked) {
                    return Reply::Raw(head(200, 9), b"the".to_vec());
                }
                Reply::Raw("HTTP/1.1 206 OK\r\ncontent-length: 6\r\ncontent-range: bytes 3-8/9\r\n\r\n".to_owned(), b" LAYER".to_vec())
            }),
            "what was sent is",
        ),
    ];
    for (name, script, words) in scripts {
        let hostile = with_layer(size, wanted, script).await;
        let (folder, fetched) = fetch(&hostile).await;
        let error = fetched.expect_err(name).to_string();
        assert!(error.contains(words), "{name}: {error}");
        assert_eq!(kept(folder.path(), &wanted), None, "{name}");
        assert!(!folder.path().join("layout/index.json").exists(), "{name}");
    }
    // A crawl is given up although something always arrives.
    let hostile = with_layer(1 << 20, wanted, |_| Reply::Trickle(head(200, 1 << 20))).await;
    assert!(matches!(fetch(&hostile).await.1, Err(PullError::Slow(_))));
}

#[tokio::test]
async fn what_broke_off_is_resumed_and_hashed_as_a_whole() {
    let layer: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let (size, wanted) = (layer.len(), digest(&layer));
    let served = layer.clone();
    // Every answer ends after a third of the blob.
    let part = move |asked: &Asked| {
        let from: usize = asked.headers.get("range").map_or(0, |range| range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap());
        let end = (from + size / 3 + 1).min(size);
        let head = match from {
            0 => head(200, u64::try_from(size).unwrap()),
            _ => format!("HTTP/1.1 206 OK\r\ncontent-length: {}\r\ncontent-range: bytes {from}-{}/{size}\r\n\r\n", size - from, size - 1),
        };
        Reply::Raw(head, served[from..end].to_vec())
    };
    let hostile = with_layer(u64::try_from(size).unwrap(), wanted, part).await;
    let (folder, fetched) = fetch(&hostile).await;
    fetched.unwrap();
    assert_eq!(kept(folder.path(), &wanted).unwrap(), layer);
    let ranges = hostile.asked().iter().filter(|asked| asked.headers.contains_key("range")).count();
    assert!(ranges >= 2, "{ranges} requests were for a part");

    // A second pull takes up what the first one left on the disk, and does not believe it.
    for (left, from) in [(layer[..1000].to_vec(), 1000), (vec![7; 1000], 1000), (vec![7; size + 1], 0)] {
        let served = layer.clone();
        let whole = with_layer(u64::try_from(size).unwrap(), wanted, move |asked| {
            let from: usize = asked.headers.get("range").map_or(0, |range| range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap());
            if from == 0 {
                return ok(&served);
            }
            Reply::Whole(206, vec![("content-range", format!("bytes {from}-{}/{size}", size - 1))], served[from..].to_vec())
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        let blobs = folder.path().join("layout/blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(blobs.join(format!("{}.part", wanted.hex())), &left).unwrap();
        let mut registry = whole.registry(Access::default());
        let found = registry.find(&Point::Tag("3".to_owned())).await.unwrap();
        let fetched = registry.fetch(&found, &folder.path().join("layout"), &ProgressBar::hidden()).await;
        let honest = left.starts_with(&layer[..10]) || from == 0;
        assert_eq!(fetched.is_ok(), honest, "{from}");
        assert_eq!(kept(folder.path(), &wanted).is_some(), honest);
        let asked = whole.asked().iter().filter_map(|asked| asked.headers.get("range").cloned()).next();
        assert_eq!(asked, (from > 0).then(|| format!("bytes={from}-")));
        // A false beginning is thrown away: the next pull begins anew and succeeds.
        registry.fetch(&found, &folder.path().join("layout"), &ProgressBar::hidden()).await.unwrap();
        assert_eq!(kept(folder.path(), &wanted).unwrap(), layer);
    }
}

fn credentials() -> Access<'static> {
    Access { credentials: Credentials::parse(b"robot:hunter2-canary"), ..Access::default() }
}

#[tokio::test]
async fn tokens_are_asked_for_with_our_own_scope_and_go_to_their_registry_only() {
    let store = Hostile::start(|_| ok(b"layer")).await;
    let to = format!("http://{}/bucket/layer", store.address);
    let hostile = Hostile::start(move |asked| {
        let bearer = asked.headers.get("authorization").is_some_and(|value| value == "Bearer good");
        match asked.path.split('?').next().unwrap() {
            "/token" => ok(br#"{"token":"good"}"#),
            _ if !bearer => {
                let realm = format!("Bearer realm=\"http://{}/token\",service=\"reg & co\",scope=\"repository:tools/python:pull,push\"", asked.headers["host"]);
                Reply::Whole(401, vec![("www-authenticate", realm)], vec![])
            }
            path if path.contains("/manifests/") => ok(&manifest(b"{}", &[(digest(b"layer"), 5)])),
            path if path.ends_with(&digest(b"{}").to_string()) => ok(b"{}"),
            _ => Reply::Whole(307, vec![("location", to.clone())], vec![]),
        }
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let mut registry = hostile.registry(credentials());
    let found = registry.find(&Point::Tag("3".to_owned())).await.unwrap();
    registry.fetch(&found, &folder.path().join("layout"), &ProgressBar::hidden()).await.unwrap();
    let asked = hostile.asked();
    let token: Vec<&Asked> = asked.iter().filter(|asked| asked.path.starts_with("/token")).collect();
    assert_eq!(token.len(), 1, "one token does for the whole pull");
    assert_eq!(token[0].path, "/token?service=reg+%26+co&scope=repository%3Atools%2Fpython%3Apull");
    let basic = base64::engine::general_purpose::STANDARD.encode("robot:hunter2-canary");
    assert_eq!(token[0].headers["authorization"], format!("Basic {basic}"));
    assert!(asked.iter().filter(|asked| asked.path.starts_with("/v2/")).all(|asked| asked.headers.get("authorization").is_none_or(|value| value == "Bearer good")));
    // The store that the redirect leads to sees no credential at all.
    assert_eq!(store.asked().len(), 1);
    assert!(!store.asked()[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn credentials_go_nowhere_else() {
    // A realm on another host, over plain http, or with a user in it, gets nothing.
    let thief = Hostile::start(|_| ok(br#"{"token":"x"}"#)).await;
    for realm in ["http://169.254.169.254/token", "https://thief.example/token", "http://thief.example/token", "https://a:b@127.0.0.1/token", "ftp://127.0.0.1/", "file:///etc/passwd"] {
        let hostile = Hostile::start(move |_| Reply::Whole(401, vec![("www-authenticate", format!("Bearer realm=\"{realm}\""))], vec![])).await;
        let error = hostile.registry(credentials()).find(&Point::Tag("3".to_owned())).await.unwrap_err();
        assert!(matches!(error, PullError::Realm(_)), "{realm}: {error}");
        assert!(!format!("{error}{error:?}").contains("canary"));
    }
    // A realm that redirects, or answers with something else, gives no token.
    let to = format!("http://{}/token", thief.address);
    let redirecting = Hostile::start(move |asked| match asked.path.starts_with("/token") {
        true => Reply::Whole(302, vec![("location", to.clone())], vec![]),
        false => Reply::Whole(401, vec![("www-authenticate", format!("Bearer realm=\"http://{}/token\"", asked.headers["host"]))], vec![]),
    })
    .await;
    assert!(matches!(redirecting.registry(credentials()).find(&Point::Tag("3".to_owned())).await, Err(PullError::Token(_))));
    assert!(thief.asked().is_empty());
    // Basic goes to the registry itself, and not along with its redirects.
    let to = format!("http://{}/elsewhere", thief.address);
    let basic = Hostile::start(move |asked| match asked.headers.contains_key("authorization") {
        false => Reply::Whole(401, vec![("www-authenticate", "Basic realm=\"r\"".to_owned())], vec![]),
        true => Reply::Whole(302, vec![("location", to.clone())], vec![]),
    })
    .await;
    assert!(basic.registry(credentials()).find(&Point::Tag("3".to_owned())).await.is_err());
    assert_eq!(thief.asked().len(), 1);
    assert!(!thief.asked()[0].headers.contains_key("authorization"));
    // A store that asks who one is gets no answer.
    let asking = Hostile::start(|_| Reply::Whole(401, vec![("www-authenticate", "Basic realm=\"r\"".to_owned())], vec![])).await;
    let to = format!("http://{}/x", asking.address);
    let sending = Hostile::start(move |_| Reply::Whole(307, vec![("location", to.clone())], vec![])).await;
    assert!(matches!(sending.registry(credentials()).find(&Point::Tag("3".to_owned())).await, Err(PullError::Status(StatusCode::UNAUTHORIZED))));
    assert_eq!(asking.asked().len(), 1);
}

#[tokio::test]
async fn loops_end_by_name() {
    let tokens = Hostile::start(|asked| match asked.path.starts_with("/token") {
        true => ok(br#"{"token":"never-good"}"#),
        false => Reply::Whole(401, vec![("www-authenticate", format!("Bearer realm=\"http://{}/token\"", asked.headers["host"]))], vec![]),
    })
    .await;
    assert!(matches!(tokens.find().await, Err(PullError::TokenLoop)));
    assert_eq!(tokens.asked().len(), 3, "asked, got a token, asked once more");
    let denied = Hostile::start(|_| Reply::Whole(401, vec![("www-authenticate", "Basic realm=\"r\"".to_owned())], vec![])).await;
    assert!(matches!(denied.find().await, Err(PullError::Denied)));
    assert!(matches!(denied.registry(credentials()).find(&Point::Tag("3".to_owned())).await, Err(PullError::Denied)));
    let unknown = Hostile::start(|_| Reply::Whole(401, vec![("www-authenticate", "Negotiate".to_owned())], vec![])).await;
    assert!(matches!(unknown.find().await, Err(PullError::Challenge)));
    let circle = Hostile::start(|asked| Reply::Whole(302, vec![("location", asked.path.clone())], vec![])).await;
    assert!(matches!(circle.find().await, Err(PullError::Redirects)));
    assert_eq!(circle.asked().len(), REDIRECTS_MAX + 1);
    for to in ["http://10.0.0.1/x", "http://registry.example/x", "file:///etc/passwd", "ftp://127.0.0.1/x", "https://user:pw@store.example/x", ""] {
        let leading = Hostile::start(move |_| Reply::Whole(302, vec![("location", to.to_owned())], vec![])).await;
        assert!(matches!(leading.find().await, Err(PullError::RedirectTo(_))), "{to}");
    }
    let long = Hostile::start(|asked| match asked.path.starts_with("/token") {
        true => Reply::Endless("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_owned()),
        false => Reply::Whole(401, vec![("www-authenticate", format!("Bearer realm=\"http://{}/token\"", asked.headers["host"]))], vec![]),
    })
    .await;
    assert!(matches!(long.find().await, Err(PullError::Token("its answer is too long"))));
}

#[test]
fn plain_http_is_for_this_machine_alone() {
    for host in ["127.0.0.1:5000", "[::1]:5000", "localhost:5000", "127.1.2.3"] {
        let reference: Reference = format!("{host}/a:b").parse().unwrap();
        assert!(Registry::new(&reference, Access { plain_http: true, ..Access::default() }).is_ok(), "{host}");
    }
    for host in ["registry.example", "10.0.0.1:5000", "localhost.example:5000", "[fe80::1]:5000"] {
        let reference: Reference = format!("{host}/a:b").parse().unwrap();
        let refused = Registry::new(&reference, Access { plain_http: true, ..Access::default() }).err().unwrap();
        assert!(refused.message.contains("--plain-http"), "{}", refused.message);
    }
    // A bundle without a certificate trusts nobody, and says so.
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("empty.pem");
    std::fs::write(&bundle, "nothing").unwrap();
    let reference: Reference = "registry.example/a:b".parse().unwrap();
    assert!(Registry::new(&reference, Access { ca_file: Some(&bundle), ..Access::default() }).err().unwrap().message.contains("no certificate"));
}

#[tokio::test]
async fn signatures_come_along_as_they_are() {
    let image = digest(b"image");
    let payload = br#"{"critical":{}}"#;
    let layer = |media: &str, size: usize, signature: &str| {
        json!({ "mediaType": media, "digest": digest(payload), "size": size, "annotations": { "dev.cosignproject.cosign/signature": signature } })
    };
    const KIND: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
    let serve = |layers: Vec<serde_json::Value>, blob: &'static [u8]| {
        let manifest = json!({ "schemaVersion": 2, "layers": layers }).to_string();
        Hostile::start(move |asked| match asked.path.as_str() {
            path if path.ends_with(&format!("/manifests/sha256-{}.sig", image.hex())) => ok(manifest.as_bytes()),
            path if path.contains("/blobs/") => ok(blob),
            _ => Reply::Whole(404, vec![], vec![]),
        })
    };
    let good = serve(vec![layer(KIND, payload.len(), "MEYC"), layer("application/other", 5, "MEYC")], payload).await;
    let found = good.registry(Access::default()).signatures(&image).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].payload, base64::engine::general_purpose::STANDARD.encode(payload));
    let none = Hostile::start(|_| Reply::Whole(404, vec![], vec![])).await;
    assert!(none.registry(Access::default()).signatures(&image).await.unwrap().is_empty());
    let other = serve(vec![layer(KIND, payload.len(), "MEYC")], b"another payload").await;
    let long = serve(vec![layer(KIND, 1 << 20, "MEYC")], payload).await;
    let many = serve((0..33).map(|_| layer(KIND, payload.len(), "MEYC")).collect(), payload).await;
    let odd = serve(vec![layer(KIND, payload.len(), &"M".repeat(300))], payload).await;
    for (hostile, words) in [(other, "is another"), (long, "longer than any"), (many, "more than 32"), (odd, "longer than any")] {
        let error = hostile.registry(Access::default()).signatures(&image).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_realm_on_another_host_must_have_been_named() {
    let realm = Hostile::start(|_| ok(br#"{"token":"good"}"#)).await;
    let port = realm.address.rsplit(':').next().unwrap().to_owned();
    let hostile = Hostile::start(move |asked| {
        if asked.headers.get("authorization").is_some_and(|value| value == "Bearer good") {
            return ok(&manifest(b"{}", &[(digest(b"layer"), 5)]));
        }
        Reply::Whole(401, vec![("www-authenticate", format!("Bearer realm=\"http://localhost:{port}/token\""))], vec![])
    })
    .await;
    // The same machine by another name is another host; a name that only ends or begins alike is none of those that were named.
    for named in [vec![], vec!["host"], vec!["localhost.example", "a.localhost", "127.0.0.1"]] {
        let auth_hosts = named.iter().map(|host: &&str| (*host).to_owned()).collect();
        let error = hostile.registry(Access { auth_hosts, ..credentials() }).find(&Point::Tag("3".to_owned())).await.unwrap_err();
        assert!(matches!(&error, PullError::Realm(host) if host == "http://localhost"), "{error}");
    }
    assert!(realm.asked().is_empty());
    let access = Access { auth_hosts: vec!["LocalHost".to_owned()], ..credentials() };
    hostile.registry(access).find(&Point::Tag("3".to_owned())).await.unwrap();
    let basic = base64::engine::general_purpose::STANDARD.encode("robot:hunter2-canary");
    assert_eq!(realm.asked()[0].headers["authorization"], format!("Basic {basic}"));
}

#[tokio::test]
async fn a_token_that_runs_out_is_replaced() {
    // Each token is good for one request.
    let given = std::sync::atomic::AtomicU32::new(0);
    let last = Mutex::new(None);
    let hostile = Hostile::start(move |asked| {
        if asked.path.starts_with("/token") {
            let token = format!("t{}", given.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
            *last.lock().unwrap() = Some(format!("Bearer {token}"));
            return ok(format!(r#"{{"token":"{token}"}}"#).as_bytes());
        }
        let good = last.lock().unwrap().take();
        if good.is_none() || asked.headers.get("authorization") != good.as_ref() {
            return Reply::Whole(401, vec![("www-authenticate", format!("Bearer realm=\"http://{}/token\"", asked.headers["host"]))], vec![]);
        }
        match asked.path.contains("/manifests/") {
            true => ok(&manifest(b"{}", &[(digest(b"layer"), 5)])),
            false if asked.path.ends_with(&digest(b"{}").to_string()) => ok(b"{}"),
            false => ok(b"layer"),
        }
    })
    .await;
    let (folder, fetched) = fetch(&hostile).await;
    fetched.unwrap();
    assert_eq!(kept(folder.path(), &digest(b"layer")).unwrap(), b"layer");
    assert_eq!(hostile.asked().iter().filter(|asked| asked.path.starts_with("/token")).count(), 3, "one for each document and blob");
}

/// Every text that is one change away from a good one.
fn changes(good: &str) -> Vec<String> {
    let mut all = vec![good.to_owned()];
    for (at, c) in good.char_indices() {
        let (before, rest) = good.split_at(at);
        let after = rest.strip_prefix(c).unwrap();
        all.push(format!("{before}{after}"));
        for new in "/\\@:?#%.-_[]\"'=, \t\r\n\0aZ9é\u{202e}".chars() {
            all.push(format!("{before}{new}{after}"));
            all.push(format!("{before}{new}{c}{after}"));
        }
    }
    all
}

#[test]
fn no_reference_leads_to_another_place_than_it_says() {
    let point = format!("sha256:{}", "0a".repeat(32));
    let good = ["registry.example:5000/tools/python:3.13".to_owned(), "[::1]:5000/a/b:c".to_owned(), format!("127.0.0.1/a@{point}")];
    let mut taken = 0;
    for text in good.iter().flat_map(|good| changes(good)) {
        let Ok(reference) = text.parse::<Reference>() else { continue };
        assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference, "{text:?}");
        // What is no address after all is refused before anything is sent.
        let Ok(base) = format!("https://{}/", reference.host).parse::<Url>() else { continue };
        assert_eq!((base.username(), base.password(), base.path(), base.query(), base.fragment()), ("", None, "/", None, None), "{text:?}");
        let place = format!("v2/{}/manifests/{}", reference.name, reference.point);
        let url = base.join(&place).unwrap();
        assert_eq!((url.path(), url.query(), url.fragment()), (format!("/{place}").as_str(), None, None), "{text:?}");
        assert!(same_origin(&url, &base), "{text:?}");
        taken += 1;
    }
    assert!(taken > 100, "{taken}");
}

#[test]
fn challenges_of_any_form_are_read_or_refused() {
    let good = r#"Bearer realm="https://auth.example/a\"b",service=reg , scope="x:y""#;
    let mut read = 0;
    for text in changes(good) {
        match auth::challenge(&text) {
            Some(Challenge::Bearer { realm, service }) => {
                assert!(realm.len() + service.map_or(0, |service| service.len()) <= text.len(), "{text:?}");
                read += 1;
            }
            Some(Challenge::Basic) => panic!("{text:?}"),
            None => {}
        }
    }
    assert!(read > 100, "{read}");
    for end in 0..good.len() {
        let _ = auth::challenge(good.split_at(end).0);
    }
}
