//! The same image, unpacked by us and by umoci; and layouts that skopeo wrote.

use super::forge::*;
use crate::image::{ImageError, inspect, unpack};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a foreign tool; a machine without it fails the test, as `cargo xtask setup` installs it.
fn foreign(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).env_remove("XDG_RUNTIME_DIR").output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Writes an image as a layout whose tag is `latest`.
fn layout(image: &Image, at: &Path) -> PathBuf {
    let place = at.join("layout");
    std::fs::create_dir_all(place.join("blobs/sha256")).unwrap();
    let mut entry = descriptor(&format!("{OCI}manifest.v1+json"), &image.blobs[&image.manifest]);
    entry["platform"] = serde_json::json!({"os": "linux", "architecture": "amd64"});
    entry["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": "latest"});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]});
    std::fs::write(place.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    std::fs::write(place.join("index.json"), index.to_string()).unwrap();
    for (digest, bytes) in &image.blobs {
        std::fs::write(place.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
    }
    place
}

/// What `user.*` attributes a tree has.
fn attributes(root: &Path, tree: &BTreeMap<PathBuf, Seen>) -> BTreeMap<PathBuf, Vec<(String, Vec<u8>)>> {
    let mut all = BTreeMap::new();
    for path in tree.keys() {
        let full = root.join(path);
        let mut names = vec![0; 4096];
        let Ok(length) = rustix::fs::llistxattr(&full, names.as_mut_slice()) else { continue };
        let names = String::from_utf8(names[..length].to_vec()).unwrap();
        let mut found = Vec::new();
        for name in names.split('\0').filter(|name| name.starts_with("user.")) {
            let mut value = vec![0; 4096];
            let length = rustix::fs::lgetxattr(&full, name, value.as_mut_slice()).unwrap();
            found.push((name.to_owned(), value[..length].to_vec()));
        }
        if !found.is_empty() {
            all.insert(path.clone(), found);
        }
    }
    all
}

/// Which names are one file.
fn hard_links(root: &Path, tree: &BTreeMap<PathBuf, Seen>) -> Vec<Vec<PathBuf>> {
    use std::os::unix::fs::MetadataExt as _;
    let mut groups: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
    for (path, seen) in tree.iter().filter(|(_, seen)| seen.links > 1) {
        assert!(seen.links < 10);
        groups.entry(std::fs::symlink_metadata(root.join(path)).unwrap().ino()).or_default().push(path.clone());
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort();
    groups
}

/// Unpacks an image both ways. `implicit` are directories without an entry of their own: nobody says of when they are.
fn same_as_umoci(layers: &[Layer], implicit: &[&str]) -> BTreeMap<PathBuf, Seen> {
    let image = image(layers);
    let place = Place::new();
    let unpacked = place.unpack(&image).unwrap();
    assert_eq!(unpacked.skipped, 0);
    let theirs = tempfile::tempdir().unwrap();
    let layout = layout(&image, theirs.path());
    let bundle = theirs.path().join("bundle");
    foreign("umoci", &["unpack", "--image", &format!("{}:latest", layout.display()), bundle.to_str().unwrap()]);
    let root = bundle.join("rootfs");
    let timeless = |mut tree: BTreeMap<PathBuf, Seen>| {
        for path in implicit {
            tree.get_mut(Path::new(path)).unwrap_or_else(|| panic!("{path}")).mtime = (0, 0);
        }
        tree
    };
    let (ours, peers) = (timeless(place.tree()), timeless(look(&root)));
    let both: std::collections::BTreeSet<&PathBuf> = ours.keys().chain(peers.keys()).collect();
    for path in both {
        assert_eq!(ours.get(path), peers.get(path), "{}: ours, umoci's", path.display());
    }
    assert_eq!(hard_links(&place.target(), &ours), hard_links(&root, &peers));
    assert_eq!(attributes(&place.target(), &ours), attributes(&root, &peers));
    ours
}

fn owned(kind: u8, name: &str, mode: u32, uid: u64, gid: u64) -> Header {
    Header { mode, uid, gid, ..Header::new(kind, name.as_bytes()) }
}

#[test]
fn modes_owners_times_links_and_names() {
    let long = format!("deep/{}/{}", "d".repeat(120), "n".repeat(200));
    let tar = Tar::new()
        .header(&owned(b'5', "bin/", 0o755, 0, 0))
        .with(owned(b'0', "bin/su", 0o4755, 0, 0), b"setuid")
        .with(owned(b'0', "bin/wall", 0o2755, 0, 5), b"setgid")
        .header(&owned(b'5', "tmp", 0o1777, 0, 0))
        .header(&owned(b'5', "secret", 0o0, 1000, 1000))
        .with(owned(b'0', "secret/none", 0o0, 65_534, 65_534), b"nobody reads it")
        .with(Header { mtime: 1, ..owned(b'0', "old", 0o600, 1, 2) }, b"")
        .with(Header { mtime: 4_000_000_000, ..owned(b'0', "late", 0o644, 0, 0) }, b"late")
        .symlink("absolute", "/etc/passwd")
        .symlink("dangling", "../../../../nowhere")
        .header(&Header { link: b"old".to_vec(), ..owned(b'2', "owned-link", 0o777, 1000, 1001) })
        .hardlink("old-too", "old")
        .hardlink("bin/old", "old")
        .node(b'6', "pipe")
        .file("./dotted/./name", b"dot")
        .pax(&[("path", long.as_bytes())])
        .file("cut", b"long")
        .pax(&[("SCHILY.xattr.user.kind", b"odd")])
        .file("attributed", b"x")
        .with(Header::new(b'0', b"bytes-\xff\xfe"), b"no text")
        .file("with space\tand\ttabs", b"w")
        .end();
    let tree = same_as_umoci(&[Layer::gzip(&tar)], &["dotted", "deep", &format!("deep/{}", "d".repeat(120))]);
    assert_eq!(tree[Path::new("bin/su")].mode, 0o104_755);
}

#[test]
fn whiteouts_and_opaque_directories() {
    let lower = Tar::new()
        .dir("a")
        .file("a/gone", b"1")
        .file("a/stays", b"2")
        .dir("a/tree")
        .file("a/tree/leaf", b"3")
        .dir("opaque")
        .file("opaque/lower", b"4")
        .dir("opaque/deep")
        .file("opaque/deep/lower", b"5")
        .file("linked", b"6")
        .hardlink("linked-too", "linked")
        .end();
    let upper = Tar::new()
        .dir("a")
        .file("a/.wh.gone", b"")
        .file("a/.wh.tree", b"")
        .dir("opaque")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/upper", b"7")
        .file(".wh.linked", b"")
        .end();
    let top = Tar::new().dir("a").dir("a/tree").file("a/tree/new", b"8").end();
    let empty = Tar::new().end();
    let tree = same_as_umoci(&[Layer::gzip(&lower), Layer::plain(empty), Layer::gzip(&upper), Layer::gzip(&top)], &[]);
    assert_eq!(names(&tree), ["a", "a/stays", "a/tree", "a/tree/new", "linked-too", "opaque", "opaque/upper"]);
}

#[test]
fn things_that_take_the_place_of_others() {
    let lower = Tar::new()
        .dir("usr")
        .dir("usr/lib")
        .symlink("lib", "usr/lib")
        .dir("was-dir")
        .file("was-dir/inside", b"1")
        .file("was-file", b"2")
        .symlink("was-link", "usr")
        .file("same", b"old")
        .dir("changed")
        .end();
    let upper = Tar::new()
        // Below a link to a directory: it lands where the link leads.
        .file("lib/libx.so", b"3")
        .file("was-dir", b"now a file")
        .dir("was-file")
        .file("was-file/inside", b"4")
        .file("was-link", b"now a file")
        .file("same", b"new")
        .header(&owned(b'5', "changed", 0o700, 7, 8))
        .symlink("usr/back", "../lib")
        .end();
    let tree = same_as_umoci(&[Layer::plain(lower), Layer::plain(upper)], &["usr/lib"]);
    assert_eq!(tree[Path::new("usr/lib/libx.so")].content, b"3");
    assert_eq!(tree[Path::new("lib")].content, b"usr/lib");
}

#[test]
fn layouts_and_archives_of_skopeo_are_the_same_image() {
    let tar = Tar::new().dir("bin").with(Header { mode: 0o755, ..Header::new(b'0', b"bin/sh") }, b"#!").end();
    // skopeo compresses plain layers on the way, which is another manifest: these are compressed already.
    let image = image(&[Layer::gzip(&tar), Layer::gzip(&Tar::new().file("second", b"2").end())]);
    let folder = tempfile::tempdir().unwrap();
    let from = format!("oci:{}:latest", layout(&image, folder.path()).display());
    let place = |name: &str| folder.path().join(name);
    let copy = |to: String| foreign("skopeo", &["--insecure-policy", "--tmpdir", folder.path().to_str().unwrap(), "copy", &from, &to]);
    copy(format!("oci:{}:latest", place("copied").display()));
    copy(format!("oci-archive:{}:latest", place("copied.tar").display()));
    copy(format!("docker-archive:{}:a:latest", place("docker.tar").display()));
    let wanted = Place::new();
    wanted.unpack(&image).unwrap();
    for name in ["copied", "copied.tar"] {
        let plan = inspect(&place(name)).unwrap();
        assert_eq!(plan.manifest, image.manifest, "{name}");
        let read = Place::new();
        let blobs = |digest| plan.blobs.iter().find(|blob| blob.digest == digest).unwrap().open().map(|bytes| bytes as Box<dyn std::io::Read>);
        unpack(&blobs, plan.manifest, &read.target()).unwrap();
        assert_eq!(read.tree(), wanted.tree(), "{name}");
    }
    assert!(matches!(inspect(&place("docker.tar")), Err(ImageError::DockerArchive(_))));
}
