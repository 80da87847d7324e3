//! Layout directories and archives.

use super::forge::*;
use crate::image::{BlobSource, ImageError, ImportPlan, inspect, unpack};
use serde_json::{Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};
use vocabulary::Sha256Digest;

/// The writer of `cargo xtask image`.
#[path = "../../../../../xtask/src/oci.rs"]
mod oci;

fn layer() -> Layer {
    Layer::gzip(&Tar::new().dir("bin").file("bin/sh", b"#!").end())
}

fn index(entries: impl IntoIterator<Item = Value>) -> Value {
    let entries: Vec<Value> = entries.into_iter().collect();
    json!({"schemaVersion": 2, "mediaType": format!("{OCI}index.v1+json"), "manifests": entries})
}

fn entry(manifest: &[u8], os: &str, architecture: &str) -> Value {
    let mut entry = descriptor(&format!("{OCI}manifest.v1+json"), manifest);
    entry["platform"] = json!({"os": os, "architecture": architecture});
    entry
}

/// Writes a layout directory with an image's blobs.
fn write(image: &Image, index: &Value) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let blobs = directory.path().join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(directory.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    std::fs::write(directory.path().join("index.json"), serde_json::to_vec(index).unwrap()).unwrap();
    for (digest, bytes) in &image.blobs {
        std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
    }
    directory
}

/// The directory as an archive.
fn archive(directory: &Path, prefix: &str) -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("image.tar");
    let mut tar = Tar::new();
    for (name, seen) in look(directory) {
        if seen.mode & 0o170_000 == 0o100_000 {
            tar = tar.file(&format!("{prefix}{}", name.display()), &seen.content);
        }
    }
    std::fs::write(&path, tar.end()).unwrap();
    (place, path)
}

fn ordinary() -> (Image, Value) {
    let image = image(&[layer()]);
    let index = index([entry(&image.blobs[&image.manifest], "linux", "amd64")]);
    (image, index)
}

/// Refused as a directory and as an archive, for the same reason.
#[track_caller]
fn refused(image: &Image, index: &Value, rule: &str) {
    let directory = write(image, index);
    let (_place, archived) = archive(directory.path(), "");
    for path in [directory.path(), &archived] {
        let text = inspect(path).unwrap_err().to_string();
        assert!(text.contains(rule), "`{text}` does not say `{rule}`");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}

fn unpacked(plan: &ImportPlan) -> Vec<String> {
    let place = Place::new();
    let blobs = |digest: Sha256Digest| {
        let blob = plan.blobs.iter().find(|blob| blob.digest == digest).ok_or(std::io::ErrorKind::NotFound)?;
        blob.open().map(|bytes| bytes as Box<dyn Read>)
    };
    unpack(&blobs, plan.manifest, &place.target()).unwrap();
    place.assert_untouched();
    names(&place.tree()).into_iter().map(str::to_owned).collect()
}

#[test]
fn directories_and_archives_are_read() {
    let (image, index) = ordinary();
    let directory = write(&image, &index);
    let (_place, dotted) = archive(directory.path(), "./");
    let (_other, plain) = archive(directory.path(), "");
    for path in [directory.path(), &dotted, &plain] {
        let plan = inspect(path).unwrap();
        assert_eq!(plan.manifest, image.manifest);
        assert_eq!(plan.blobs.iter().map(|blob| blob.digest).collect::<Vec<_>>(), [image.manifest, image.config, sha256(&layer().blob)]);
        for blob in &plan.blobs {
            let mut bytes = Vec::new();
            blob.open().unwrap().read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, image.blobs[&blob.digest]);
            assert_eq!(matches!(blob.source, BlobSource::File(_)), path == directory.path());
        }
        assert_eq!(plan.config.cmd, ["/bin/sh"]);
        assert_eq!(unpacked(&plan), ["bin", "bin/sh"]);
    }
}

#[test]
fn blobs_that_stand_twice_are_uploaded_once() {
    let layers = [layer(), layer()];
    let image = image(&layers);
    let directory = write(&image, &index([entry(&image.blobs[&image.manifest], "linux", "amd64")]));
    assert_eq!(inspect(directory.path()).unwrap().blobs.len(), 3);
}

#[test]
fn the_image_for_this_machine_is_chosen() {
    let (mut image, _) = ordinary();
    let manifest = image.blobs[&image.manifest].clone();
    let mut other = manifest.clone();
    other.push(b' ');
    image.blobs.insert(sha256(&other), other.clone());
    let attestation = entry(&other, "unknown", "unknown");
    let arm = entry(&other, "linux", "arm64");
    let found = |entries: Vec<Value>| inspect(write(&image, &index(entries)).path()).map(|plan| plan.manifest);
    assert_eq!(found(vec![arm.clone(), attestation.clone(), entry(&manifest, "linux", "amd64")]).unwrap(), image.manifest);
    let unnamed = descriptor(&format!("{OCI}manifest.v1+json"), &manifest);
    assert_eq!(found(vec![unnamed.clone(), arm.clone()]).unwrap(), image.manifest);
    assert_eq!(found(vec![unnamed.clone(), unnamed]).unwrap(), image.manifest, "one image named twice");
    assert_eq!(found(vec![descriptor("application/vnd.example.sbom", b"{}"), entry(&manifest, "linux", "amd64")]).unwrap(), image.manifest);

    let text = found(vec![arm.clone(), attestation]).unwrap_err().to_string();
    assert!(text.contains("no image for linux/amd64; it has: linux/arm64, unknown/unknown"), "{text}");
    let mut level3 = entry(&manifest, "linux", "amd64");
    level3["platform"]["variant"] = "v3".into();
    assert!(found(vec![level3]).unwrap_err().to_string().contains("linux/amd64/v3"));
    let mut named = entry(&other, "linux", "amd64");
    named["annotations"] = json!({"org.opencontainers.image.ref.name": "nightly\u{1b}[2J"});
    let text = found(vec![entry(&manifest, "linux", "amd64"), named]).unwrap_err().to_string();
    assert!(text.contains("several images") && text.contains("nightly") && !text.contains('\u{1b}'), "{text}");
    assert!(found(vec![]).unwrap_err().to_string().contains("holds no image"));

    let nested = serde_json::to_vec(&index([arm, entry(&manifest, "linux", "amd64")])).unwrap();
    image.blobs.insert(sha256(&nested), nested.clone());
    let outer = descriptor(&format!("{OCI}index.v1+json"), &nested);
    assert_eq!(inspect(write(&image, &index([outer.clone()])).path()).unwrap().manifest, image.manifest);
    let deeper = serde_json::to_vec(&index([outer])).unwrap();
    image.blobs.insert(sha256(&deeper), deeper.clone());
    refused(&image, &index([descriptor(&format!("{OCI}index.v1+json"), &deeper)]), "an index in an index in an index");
}

#[test]
fn an_index_that_is_none_is_refused() {
    let (image, good) = ordinary();
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 11] = [
        (|index| *index = json!([2, null, index["manifests"], null, null]), "image index"),
        (|index| index["manifests"][0] = json!(["application/vnd.oci.image.manifest.v1+json", index["manifests"][0]["digest"], index["manifests"][0]["size"], null, null, null]), "image index"),
        (|index| index["layers"] = json!([]), "both `layers` and `manifests`"),
        (|index| index["config"] = json!({}), "both `layers` and `manifests`"),
        (|index| index["schemaVersion"] = 3.into(), "schemaVersion 3"),
        (|index| index["mediaType"] = "text/\u{1b}[2Jplain".into(), "media type"),
        (|index| index["manifests"][0]["digest"] = "sha512:00".into(), "sha256:"),
        (|index| index["manifests"][0]["digest"] = "sha256:../../../../etc/shadow".into(), "sha256:"),
        (|index| index["manifests"][0]["size"] = 7.into(), "instead of 7"),
        (|index| index["manifests"] = json!(null), "image index"),
        (|index| index["manifests"] = Value::Array(vec![index["manifests"][0].clone(); 1001]), "1000 entries of an index"),
    ];
    for (change, rule) in cases {
        let mut index = good.clone();
        change(&mut index);
        match inspect(write(&image, &index).path()) {
            Err(error) => assert!(error.to_string().contains(rule), "`{error}` does not say `{rule}`"),
            Ok(_) => panic!("taken: {rule}"),
        }
    }
    let deep = format!("{{\"x\":{}", "[".repeat(100_000));
    let directory = write(&image, &good);
    std::fs::write(directory.path().join("index.json"), deep).unwrap();
    assert!(inspect(directory.path()).unwrap_err().to_string().contains("image index"));
    std::fs::write(directory.path().join("index.json"), vec![b' '; (4 << 20) + 1]).unwrap();
    assert!(matches!(inspect(directory.path()).unwrap_err(), ImageError::Budget { layer: 0, .. }));
}

#[test]
fn blobs_that_differ_are_found() {
    let (image, index) = ordinary();
    for digest in [image.manifest, image.config] {
        let mut bad = image.clone();
        bad.blobs.get_mut(&digest).unwrap()[0] ^= 1;
        refused(&bad, &index, "the bytes have the digest");
        let mut bad = image.clone();
        bad.blobs.get_mut(&digest).unwrap().push(b' ');
        refused(&bad, &index, "instead of");
        bad.blobs.remove(&digest);
        refused(&bad, &index, "does not have it");
    }
    let mut bad = image;
    bad.blobs.get_mut(&sha256(&layer().blob)).unwrap().push(0);
    refused(&bad, &index, "(layer 1)");
    bad.blobs.remove(&sha256(&layer().blob));
    refused(&bad, &index, "does not have it (layer 1)");
}

#[test]
fn other_things_are_refused_with_a_hint() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str, bytes: &[u8]| {
        std::fs::write(place.path().join(name), bytes).unwrap();
        inspect(&place.path().join(name)).unwrap_err()
    };
    let docker = Tar::new().file("manifest.json", b"[]").file("abc.json", b"{}").dir("abc").file("abc/layer.tar", b"").symlink("def/layer.tar", "../abc/layer.tar").end();
    let error = at("docker.tar", &docker);
    assert!(matches!(&error, ImageError::DockerArchive(path) if path.ends_with("docker.tar")), "{error}");
    assert!(error.to_string().contains("skopeo copy docker-archive:"), "{error}");
    assert!(at("image.tar.gz", &gzip(&docker)).to_string().contains("decompress it first"));
    assert!(at("image.tar.zst", &zstd(&docker)).to_string().contains("decompress it first"));
    assert!(at("text", b"hello").to_string().contains("no tar archive"));
    assert!(at("empty", b"").to_string().contains("no file `oci-layout`"));
    assert!(at("other.tar", &Tar::new().file("x", b"").end()).to_string().contains("no file `oci-layout`"));
    assert!(at("old.tar", &Tar::new().file("oci-layout", br#"{"imageLayoutVersion":"0.9"}"#).file("index.json", b"").end()).to_string().contains("0.9"));
    assert!(at("bare.tar", &Tar::new().file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#).end()).to_string().contains("no index.json"));
    assert!(at("twice.tar", &Tar::new().file("index.json", b"1").file("./index.json", b"2").end()).to_string().contains("stands twice"));
    assert!(at("link.tar", &Tar::new().symlink("index.json", "/etc/passwd").end()).to_string().contains("no regular file"));
    let mut cut = Tar::new().file("blobs/sha256/x", &[1; 5000]).0;
    cut.truncate(2000);
    assert!(at("cut.tar", &cut).to_string().contains("cut off"));
    let huge = Tar::new().header(&Header { size: u64::MAX, ..Header::new(b'0', b"blobs/sha256/x") }).file("y", b"").end();
    assert!(at("huge.tar", &huge).to_string().contains("cut off"));
    let bomb = Tar::new().header(&Header { size: 8 << 30, ..Header::new(b'x', b"x") }).bytes(&[0; 4096]).end();
    assert!(at("bomb.tar", &bomb).to_string().contains("a header is larger"));
    assert!(matches!(inspect(&place.path().join("nowhere")).unwrap_err(), ImageError::Io { .. }));
    assert!(inspect(Path::new("/dev/null")).unwrap_err().to_string().contains("neither a directory nor a file"));
    assert!(inspect(place.path()).unwrap_err().to_string().contains("no file `oci-layout`"));
}

#[test]
fn a_layout_of_links_to_devices_is_refused() {
    let (image, index) = ordinary();
    let directory = write(&image, &index);
    let blob = directory.path().join("blobs/sha256").join(image.config.hex());
    std::fs::remove_file(&blob).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &blob).unwrap();
    assert!(inspect(directory.path()).unwrap_err().to_string().contains("no regular file"));
}

#[test]
fn what_xtask_writes_is_read_and_always_the_same() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    std::fs::write(at("root.tar"), Tar::new().dir("bin").file("bin/run", &[b'x'; 100_000]).end()).unwrap();
    let options = oci::ImageOptions {
        entrypoint: vec!["/bin/run".to_owned(), "with \"quotes\"".to_owned()],
        cmd: vec!["default".to_owned()],
        env: vec!["PATH=/bin".to_owned()],
        workdir: "/srv".to_owned(),
        user: "1000:50".to_owned(),
        gzip: false,
    };
    for gzip in [false, true] {
        let options = oci::ImageOptions { gzip, ..options.clone() };
        let digest = oci::write_archive(&at("root.tar"), &options, &at("first.tar")).unwrap();
        assert_eq!(oci::write_archive(&at("root.tar"), &options, &at("second.tar")).unwrap(), digest);
        assert!(std::fs::read(at("first.tar")).unwrap() == std::fs::read(at("second.tar")).unwrap());
        let plan = inspect(&at("first.tar")).unwrap();
        assert_eq!(plan.manifest.to_string(), digest);
        assert_eq!(plan.config.argv(&["mine".to_owned()]), ["/bin/run", "with \"quotes\"", "mine"]);
        assert_eq!((plan.config.user.as_str(), plan.config.workdir.as_str()), ("1000:50", "/srv"));
        assert_eq!(unpacked(&plan), ["bin", "bin/run"]);
    }
    assert!(oci::write_archive(&at("nowhere.tar"), &options, &at("third.tar")).is_err());
    assert!(!at("third.tar").exists() && !at("third.tar.new").exists());
}

#[test]
fn the_busybox_image_runs() {
    let place = Place::new();
    let archive = place.directory.path().join("canary/busybox.tar");
    let digest = oci::busybox_archive(&archive).unwrap();
    let plan = inspect(&archive).unwrap();
    assert_eq!(plan.manifest.to_string(), digest);
    let blobs = |digest: Sha256Digest| plan.blobs.iter().find(|blob| blob.digest == digest).unwrap().open().map(|bytes| bytes as Box<dyn Read>);
    unpack(&blobs, plan.manifest, &place.target()).unwrap();
    let output = std::process::Command::new("chroot").arg(place.target()).args(["/bin/sh", "-c", "id -u user && ls -ld /tmp"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("1000\ndrwxrwxrwt"), "{text} {}", String::from_utf8_lossy(&output.stderr));
}
