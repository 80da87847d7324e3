//! Digests, sizes, compressions, and that a tree appears whole or not at all.

use super::forge::*;
use crate::image::{ImageError, remove_leftovers, unpack};
use std::io::{Cursor, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use vocabulary::Sha256Digest;

fn tar() -> Vec<u8> {
    Tar::new().dir("etc").file("etc/hostname", b"image\n").file("data", &(0..200_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>()).end()
}

#[test]
fn every_compression_gives_the_same_tree() {
    let members = {
        let (first, second) = (tar()[..1000].to_vec(), tar()[1000..].to_vec());
        Layer { blob: [gzip(&first), gzip(b""), gzip(&second)].concat(), ..Layer::gzip(&tar()) }
    };
    let frames = Layer { blob: [zstd(&tar()[..1000]), zstd(&tar()[1000..])].concat(), ..Layer::zstd(&tar()) };
    let docker = Layer { media: "application/vnd.docker.image.rootfs.diff.tar.gzip".to_owned(), ..Layer::gzip(&tar()) };
    let plain = tree_of(&[tar()]);
    for layer in [Layer::gzip(&tar()), Layer::zstd(&tar()), members, frames, docker] {
        let place = Place::new();
        let unpacked = place.unpack(&image(&[layer])).unwrap();
        assert_eq!(place.tree(), plain);
        assert_eq!((unpacked.entries, unpacked.bytes, unpacked.skipped), (3, 800_006, 0));
        assert_eq!(unpacked.config.argv(&[]), ["/bin/sh"]);
        assert_eq!(unpacked.config.argv(&["ls".to_owned()]), ["ls"]);
    }
}

#[test]
fn a_changed_byte_of_any_blob_is_found() {
    for layer in [Layer::plain(tar()), Layer::gzip(&tar()), Layer::zstd(&tar())] {
        let good = image(&[layer]);
        for (digest, bytes) in &good.blobs {
            for at in [0, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
                let mut bad = good.clone();
                bad.blobs.get_mut(digest).unwrap()[at] ^= 1;
                match Place::new().unpack(&bad).unwrap_err() {
                    ImageError::Corrupt { digest: told, .. } => assert_eq!(told, digest.to_string()),
                    other => panic!("byte {at} of {digest}: {other}"),
                }
            }
        }
    }
}

#[test]
fn a_blob_of_another_length_is_found() {
    for layer in [Layer::plain(tar()), Layer::gzip(&tar()), Layer::zstd(&tar())] {
        let good = image(&[layer]);
        for (digest, bytes) in &good.blobs {
            for length in [0, 1, bytes.len() - 1, bytes.len() + 1, bytes.len() + 100_000] {
                let mut bad = good.clone();
                bad.blobs.get_mut(digest).unwrap().resize(length, 0);
                match Place::new().unpack(&bad).unwrap_err() {
                    ImageError::Corrupt { digest: told, .. } => assert_eq!(told, digest.to_string()),
                    other => panic!("length {length} of {digest}: {other}"),
                }
            }
        }
    }
}

#[test]
fn a_missing_blob_and_a_broken_source_are_errors_of_the_source() {
    let good = image(&[Layer::gzip(&tar())]);
    for digest in good.blobs.keys() {
        let mut bad = good.clone();
        bad.blobs.remove(digest);
        assert!(matches!(Place::new().unpack(&bad).unwrap_err(), ImageError::Io { what, .. } if what.contains(&digest.to_string())));
    }
    let place = Place::new();
    let broken = |digest: Sha256Digest| {
        let bytes = good.blobs[&digest].clone();
        let half = bytes.len() / 2;
        struct Torn;
        impl Read for Torn {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                Err(std::io::Error::other("the line is dead"))
            }
        }
        let whole = digest == good.manifest || digest == good.config;
        Ok(if whole { Box::new(Cursor::new(bytes)) as Box<dyn Read> } else { Box::new(Cursor::new(bytes).take(half as u64).chain(Torn)) })
    };
    let error = unpack(&broken, good.manifest, &place.target()).unwrap_err();
    assert!(matches!(&error, ImageError::Io { source, .. } if source.to_string().contains("the line is dead")), "{error}");
    place.assert_untouched();
}

#[test]
fn diff_ids_hold() {
    let wrong = Layer { diff_id: sha256(b"something else"), ..Layer::gzip(&tar()) };
    match Place::new().unpack(&image(&[wrong])).unwrap_err() {
        ImageError::Corrupt { digest, detail } => {
            assert_eq!(digest, sha256(b"something else").to_string());
            assert!(detail.contains("layer 1 uncompressed"), "{detail}");
        }
        other => panic!("{other}"),
    }
    let layers = [Layer::plain(tar()), Layer::plain(tar())];
    let config = config_json(&layers[..1]);
    let manifest = manifest_json(&serde_json::to_vec(&config).unwrap(), &layers);
    let error = Place::new().unpack(&image_of(&config, &manifest, &layers)).unwrap_err().to_string();
    assert!(error.contains("1 diff_ids for 2 layers"), "{error}");
}

#[test]
fn a_layer_that_is_not_what_its_media_type_says_is_refused() {
    for (media, blob) in [(GZIP, zstd(&tar())), (ZSTD, gzip(&tar())), (GZIP, tar()), (ZSTD, tar()), (TAR, gzip(&tar())), (TAR, b"not a tar".to_vec()), (GZIP, [gzip(&tar()), b"trailing".to_vec()].concat()), (ZSTD, [zstd(&tar()), b"trailing".to_vec()].concat())] {
        let layer = Layer { media: format!("{OCI}{media}"), blob, diff_id: sha256(&tar()) };
        let error = Place::new().unpack(&image(&[layer])).unwrap_err();
        assert!(matches!(error, ImageError::Refused(_) | ImageError::Entry { .. }), "{media}: {error}");
        assert!(error.to_string().contains("layer 1"), "{media}: {error}");
    }
}

#[test]
fn the_manifest_must_be_one_of_ours() {
    let layers = [Layer::plain(tar())];
    let config = config_json(&layers);
    let config_bytes = serde_json::to_vec(&config).unwrap();
    let manifest = manifest_json(&config_bytes, &layers);
    let refused = |manifest: &serde_json::Value| Place::new().unpack(&image_of(&config, manifest, &layers)).unwrap_err().to_string();
    type Change = fn(&mut serde_json::Value);
    let cases: [(Change, &str); 14] = [
        (|manifest| manifest["manifests"] = serde_json::json!([]), "both `layers` and `manifests`"),
        (|manifest| manifest["schemaVersion"] = 1.into(), "schemaVersion 1"),
        (|manifest| manifest["mediaType"] = "application/vnd.oci.image.index.v1+json".into(), "media type"),
        (|manifest| manifest["layers"][0]["urls"] = serde_json::json!(["https://example.org"]), "foreign layers"),
        (|manifest| manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar".into(), "foreign layers"),
        (|manifest| manifest["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into(), "foreign layers"),
        (|manifest| manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+lzma\u{1b}[m".into(), "media type"),
        (|manifest| manifest["config"]["mediaType"] = "application/vnd.oci.empty.v1+json".into(), "media type"),
        (|manifest| manifest["layers"][0]["digest"] = format!("sha512:{}", "0".repeat(128)).into(), "sha256:"),
        (|manifest| manifest["layers"][0]["digest"] = "sha256:../../../etc/passwd".into(), "sha256:"),
        (|manifest| manifest["layers"][0]["size"] = serde_json::json!(-1), "manifest"),
        (|manifest| manifest["layers"] = serde_json::json!([]), "without layers"),
        (|manifest| *manifest = serde_json::json!({"schemaVersion": 2, "manifests": []}), "an index"),
        (|manifest| *manifest = serde_json::json!([]), "manifest"),
    ];
    for (change, rule) in cases {
        let mut changed = manifest.clone();
        change(&mut changed);
        let text = refused(&changed);
        assert!(text.contains(rule), "`{text}` does not say `{rule}`");
        assert!(!text.contains('\u{1b}'));
    }
    let twice = String::from_utf8(serde_json::to_vec(&manifest).unwrap()).unwrap().replacen('{', "{\"layers\":[],", 1);
    let image = Image { manifest: sha256(twice.as_bytes()), ..image_of(&config, &manifest, &layers) };
    let image = Image { blobs: image.blobs.into_iter().chain([(image.manifest, twice.into_bytes())]).collect(), ..image };
    let text = Place::new().unpack(&image).unwrap_err().to_string();
    assert!(text.contains("duplicate field"), "{text}");
}

#[test]
fn the_config_must_be_for_this_machine() {
    let layers = [Layer::plain(tar())];
    let refused = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut config = config_json(&layers);
        change(&mut config);
        let manifest = manifest_json(&serde_json::to_vec(&config).unwrap(), &layers);
        Place::new().unpack(&image_of(&config, &manifest, &layers)).unwrap_err().to_string()
    };
    assert!(refused(&|config| config["architecture"] = "arm64".into()).contains("linux/arm64"));
    assert!(refused(&|config| config["os"] = "windows".into()).contains("windows/amd64"));
    assert!(refused(&|config| config["rootfs"]["type"] = "images".into()).contains("`images`"));
    assert!(refused(&|config| config["config"]["Env"] = serde_json::json!(["NOTHING"])).contains("NAME=value"));
    assert!(refused(&|config| config["config"]["Env"] = serde_json::json!(["=x"])).contains("NAME=value"));
    assert!(refused(&|config| config["config"]["Cmd"] = serde_json::json!(["a\0b"])).contains("NUL"));
    assert!(refused(&|config| config["config"]["User"] = "a\0b".into()).contains("NUL"));
    assert!(refused(&|config| config["config"]["Entrypoint"] = "text".into()).contains("image config"));
}

#[test]
fn the_target_must_be_free_and_closed() {
    let place = Place::new();
    let good = image(&[Layer::plain(tar())]);
    let blobs = |digest: Sha256Digest| Ok(Box::new(Cursor::new(good.blobs[&digest].clone())) as Box<dyn Read>);
    std::fs::create_dir(place.target()).unwrap();
    let text = unpack(&blobs, good.manifest, &place.target()).unwrap_err().to_string();
    assert!(text.contains("exists already"), "{text}");
    let link = place.directory.path().join("link");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    assert!(unpack(&blobs, good.manifest, &link).unwrap_err().to_string().contains("exists already"));
    assert!(unpack(&blobs, good.manifest, &place.directory.path().join("no/such/place")).is_err());

    let open = tempfile::tempdir().unwrap();
    std::fs::set_permissions(open.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let text = unpack(&blobs, good.manifest, &open.path().join("tree")).unwrap_err().to_string();
    assert!(text.contains("0700"), "{text}");
    assert_eq!(std::fs::read_dir(open.path()).unwrap().count(), 0);
    // Closed higher up is closed enough.
    let (closed, inner) = (open.path().join("closed"), open.path().join("closed/inner"));
    std::fs::create_dir_all(&inner).unwrap();
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
    unpack(&blobs, good.manifest, &inner.join("tree")).unwrap();
}

#[test]
fn a_refused_image_leaves_nothing() {
    let deep: String = (0..200).map(|_| "d/").collect();
    let bad = Tar::new().pax(&[("path", format!("{deep}x").as_bytes())]).file("x", b"").file("../escape", b"").end();
    let place = Place::new();
    place.unpack(&image(&[Layer::plain(tar()), Layer::plain(bad)])).unwrap_err();
    // `Place` has compared all that lies beside the tree.
    assert!(!place.target().exists());
}

#[test]
fn leftovers_of_a_crash_are_removed_and_living_ones_are_not() {
    let place = Place::new();
    let root = place.directory.path();
    let good = image(&[Layer::plain(tar())]);
    // A dead process: its lock went with it.
    std::fs::create_dir_all(root.join(".unpack-1-0/tree/a/b/c")).unwrap();
    std::fs::write(root.join(".unpack-1-0/tree/a/file"), "").unwrap();
    std::os::unix::fs::symlink("/canary", root.join(".unpack-1-0/tree/link")).unwrap();
    std::fs::write(root.join(".unpack-file"), "no directory").unwrap();
    std::os::unix::fs::symlink("canary", root.join(".unpack-link")).unwrap();
    // A living one, seen from the moment when its first blob is read.
    let seen = std::cell::RefCell::new(Vec::new());
    let blobs = |digest: Sha256Digest| {
        if digest != good.manifest && digest != good.config {
            let removed = remove_leftovers(root).unwrap();
            seen.borrow_mut().push((removed, look(root).into_keys().any(|path| path.starts_with(format!(".unpack-{}-", std::process::id())) || path.to_string_lossy().starts_with(&format!(".unpack-{}-", std::process::id())))));
        }
        Ok(Box::new(Cursor::new(good.blobs[&digest].clone())) as Box<dyn Read>)
    };
    unpack(&blobs, good.manifest, &place.target()).unwrap();
    assert_eq!(seen.into_inner(), [(1, true)], "the dead one went, the living one stayed");
    assert_eq!(remove_leftovers(root).unwrap(), 0);
    assert_eq!(remove_leftovers(&root.join("not there")).unwrap(), 0);
    let tops: Vec<_> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(tops.iter().filter(|name| name.starts_with(".unpack-")).count(), 2, "{tops:?}");
    assert_eq!(std::fs::read_to_string(root.join("canary/file")).unwrap(), "as it was");
    assert!(place.target().join(Path::new("etc/hostname")).exists());
}

#[test]
fn of_two_who_unpack_the_same_image_one_wins() {
    let place = Place::new();
    let good = image(&[Layer::plain(tar())]);
    let blobs = |digest: Sha256Digest| Ok(Box::new(Cursor::new(good.blobs[&digest].clone())) as Box<dyn Read>);
    let late = |digest: Sha256Digest| {
        if digest != good.manifest && digest != good.config {
            unpack(&blobs, good.manifest, &place.target()).unwrap();
        }
        blobs(digest)
    };
    let text = unpack(&late, good.manifest, &place.target()).unwrap_err().to_string();
    assert!(text.contains("exists already"), "{text}");
    place.assert_untouched();
    assert_eq!(place.tree(), tree_of(&[tar()]));
}
