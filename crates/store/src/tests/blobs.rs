//! Blobs: names that stay inside, bytes that never change, uploads that are whole or not there.

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use futures::StreamExt;
use vocabulary::Sha256Digest;

use crate::blobs::{BlobError, BlobPath, Blobs, PathError, Placed};
use crate::limits::{BLOB_MAX, READ_PIECE, UPLOAD_PART};

fn path(text: &str) -> BlobPath {
    text.parse().unwrap()
}

fn sha256(bytes: &[u8]) -> Sha256Digest {
    Sha256Digest::from_bytes(digest(&SHA256, bytes).as_ref().try_into().unwrap())
}

fn files(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn names_stay_inside() {
    for (text, error) in [
        ("", PathError::Length),
        (&"a".repeat(513), PathError::Length),
        ("../etc/passwd", PathError::Part),
        ("a/../../b", PathError::Part),
        ("/etc/passwd", PathError::Part),
        ("a//b", PathError::Part),
        ("a/", PathError::Part),
        (".hidden", PathError::Part),
        ("a/.", PathError::Part),
        ("a#1", PathError::Character),
        ("a%2e%2e", PathError::Character),
        ("A", PathError::Character),
        ("a\0b", PathError::Character),
        ("a\\b", PathError::Character),
        ("ａ", PathError::Character),
        ("uploads/x", PathError::Reserved),
        ("uploads", PathError::Reserved),
    ] {
        assert_eq!(text.parse::<BlobPath>(), Err(error), "{text:?}");
    }
    for text in ["a", "tile/0/x001/067.p/12", "images/sha256/00ff", "0af3/seg/00-11_2"] {
        assert_eq!(text.parse::<BlobPath>().unwrap().as_str(), text);
    }
    assert!(path("a").join("../b").is_err());
}

#[tokio::test]
async fn a_name_is_written_once() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::local(&folder.path().join("blobs")).unwrap();
    let a = path("v/seg/a");
    assert!(matches!(blobs.get(&a, 10).await, Err(BlobError::Absent(_))));
    blobs.put(&a, Bytes::from_static(b"first")).await.unwrap();
    assert!(matches!(blobs.put(&a, Bytes::from_static(b"second")).await, Err(BlobError::Exists(_))));
    assert_eq!(blobs.get(&a, 5).await.unwrap(), "first");
    assert!(matches!(blobs.get(&a, 4).await, Err(BlobError::TooLarge { size: 5, limit: 4, .. })));
    blobs.put_same(&a, Bytes::from_static(b"first")).await.unwrap();
    assert!(matches!(blobs.put_same(&a, Bytes::from_static(b"other")).await, Err(BlobError::Differs(_))));
    blobs.replace(&a, Bytes::from_static(b"other")).await.unwrap();
    assert_eq!(blobs.get(&a, 100).await.unwrap(), Bytes::from_static(b"other"));
    blobs.replace(&a, Bytes::from_static(b"first")).await.unwrap();
    assert_eq!(blobs.range(&a, 1..3).await.unwrap(), "ir");
    for (start, end) in [(4, 6), (5, 5), (9, 10), (3, 2), (0, u64::MAX)] {
        let error = blobs.range(&a, start..end).await.unwrap_err();
        assert!(matches!(error, BlobError::Range { .. } | BlobError::TooLarge { .. }), "{start}..{end}: {error:?}");
    }
    let (size, rest) = blobs.stream(&a, Some(3)).await.unwrap();
    let rest: Vec<_> = rest.map(Result::unwrap).collect().await;
    assert_eq!((size, rest.concat().as_slice()), (5, &b"st"[..]));
    blobs.delete(&a).await.unwrap();
    blobs.delete(&a).await.unwrap();
    assert!(!blobs.exists(&a).await.unwrap());
}

#[tokio::test]
async fn of_many_creators_one_wins() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::local(folder.path()).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..32_u8 {
        let blobs = blobs.clone();
        tasks.spawn(async move { blobs.put(&path("one"), Bytes::from(vec![number; 100])).await.is_ok().then_some(number) });
    }
    let winners: Vec<u8> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(blobs.get(&path("one"), 100).await.unwrap(), vec![winners[0]; 100]);
}

#[tokio::test]
async fn lists_are_sorted_and_paged() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::local(folder.path()).unwrap();
    for number in (0..25).rev() {
        blobs.put(&path(&format!("v/{number:02}")), Bytes::from_static(b"x")).await.unwrap();
    }
    blobs.put(&path("w/1"), Bytes::new()).await.unwrap();
    let first = blobs.list(&path("v"), None, 10).await.unwrap();
    assert!(first.truncated);
    assert!(first.items.iter().map(|item| item.path.as_str().to_owned()).eq((0..10).map(|n| format!("v/{n:02}"))));
    let last = blobs.list(&path("v"), Some(&path("v/19")), 10).await.unwrap();
    assert_eq!((last.items.len(), last.truncated), (5, false));
    assert_eq!(blobs.list(&path("nothing"), None, 10).await.unwrap().items, []);
}

#[tokio::test]
async fn an_upload_is_whole_or_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::local(folder.path()).unwrap();
    let bytes: Bytes = (0..=250_u8).cycle().take(UPLOAD_PART * 2 + 12_345).collect();
    let (name, size) = (path("images/a"), bytes.len() as u64);
    // Whole, in pieces of any size.
    let mut upload = blobs.upload(&name, sha256(&bytes), size).await.unwrap();
    for piece in bytes.chunks(1_000_003) {
        upload.write(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    assert!(upload.finish().await.unwrap());
    assert_eq!(sha256(&blobs.get(&name, bytes.len()).await.unwrap()), sha256(&bytes));
    // Again: it is there already.
    let mut upload = blobs.upload(&name, sha256(&bytes), size).await.unwrap();
    upload.write(bytes.clone()).await.unwrap();
    assert!(!upload.finish().await.unwrap());

    let other = path("images/b");
    // Other bytes than announced, too few, too many, given up.
    let mut wrong = blobs.upload(&other, sha256(b"other"), size).await.unwrap();
    wrong.write(bytes.clone()).await.unwrap();
    assert!(matches!(wrong.finish().await, Err(BlobError::Mismatch { what: "digest", .. })));
    let mut short = blobs.upload(&other, sha256(&bytes), size).await.unwrap();
    short.write(bytes.slice(1..)).await.unwrap();
    assert!(matches!(short.finish().await, Err(BlobError::Mismatch { what: "size", .. })));
    let mut long = blobs.upload(&other, sha256(&bytes), size - 1).await.unwrap();
    assert!(matches!(long.write(bytes.clone()).await, Err(BlobError::Mismatch { what: "size", .. })));
    long.abort().await.unwrap();
    blobs.upload(&other, sha256(&bytes), size).await.unwrap().abort().await.unwrap();
    assert!(matches!(blobs.upload(&other, sha256(b""), 65 << 30).await, Err(BlobError::TooLarge { .. })));
    assert!(!blobs.exists(&other).await.unwrap());
    assert_eq!(files(folder.path()), ["images/a"]);

    // What a killed upload left goes at the next start.
    std::fs::create_dir_all(folder.path().join("uploads")).unwrap();
    std::fs::write(folder.path().join("uploads/1-0#1"), b"half").unwrap();
    let blobs = Blobs::local(folder.path()).unwrap();
    assert_eq!(files(folder.path()), ["images/a"]);
    assert!(blobs.exists(&name).await.unwrap());
}

#[tokio::test]
async fn a_staged_blob_is_whole_or_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::local(folder.path()).unwrap();
    let stage = async |name: &BlobPath, bytes: &Bytes| {
        let mut staged = blobs.stage(name).await.unwrap();
        for piece in bytes.chunks(700_001) {
            staged.write(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        staged
    };
    let bytes: Bytes = (0..=250_u8).cycle().take(UPLOAD_PART + 12_345).collect();
    let mut changed = bytes.to_vec();
    changed[READ_PIECE + 1] ^= 1;
    let (changed, short): (Bytes, Bytes) = (changed.into(), bytes.slice(1..));
    let (name, empty) = (path("volumes/a"), path("volumes/empty"));
    assert!(matches!(stage(&name, &bytes).await.place().await.unwrap(), Placed::Done));
    assert!(matches!(stage(&empty, &Bytes::new()).await.place().await.unwrap(), Placed::Done));
    assert_eq!((blobs.get(&name, bytes.len()).await.unwrap(), blobs.size(&empty).await.unwrap()), (bytes.clone(), 0));
    // The same bytes again are the same blob; others are not, and change nothing.
    assert!(matches!(stage(&name, &bytes).await.place().await.unwrap(), Placed::Done));
    for other in [&changed, &short, &Bytes::new()] {
        let Placed::Differs(rival) = stage(&name, other).await.place().await.unwrap() else { panic!("taken for the same") };
        rival.abort().await.unwrap();
    }
    assert_eq!(blobs.get(&name, bytes.len()).await.unwrap(), bytes);
    // Unless they are told to take its place.
    let Placed::Differs(rival) = stage(&name, &changed).await.place().await.unwrap() else { panic!("taken for the same") };
    rival.replace().await.unwrap();
    assert_eq!(blobs.get(&name, bytes.len()).await.unwrap(), changed);
    // Given up, broken off, too long.
    let other = path("volumes/b");
    stage(&other, &bytes).await.abort().await.unwrap();
    let mut long = blobs.stage(&other).await.unwrap();
    let mut refused = Ok(());
    for _ in 0..=BLOB_MAX / bytes.len() {
        refused = long.write(bytes.clone()).await;
    }
    assert!(matches!(refused, Err(BlobError::TooLarge { .. })));
    long.abort().await.unwrap();
    assert!(!blobs.exists(&other).await.unwrap());
    assert_eq!(files(folder.path()), ["volumes/a", "volumes/empty"]);
}

/// A blob of several pieces comes whole and in order, from every offset.
#[tokio::test]
async fn a_large_blob_streams_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let blobs = Blobs::local(folder.path()).unwrap();
    let bytes: Bytes = (0..READ_PIECE * 3 + 17).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect();
    let name = path("a");
    blobs.put(&name, bytes.clone()).await.unwrap();
    for offset in [0, 1, READ_PIECE, READ_PIECE * 3 + 16] {
        let (size, mut pieces) = blobs.stream(&name, Some(offset as u64)).await.unwrap();
        assert_eq!(size, bytes.len() as u64);
        let mut found = Vec::new();
        while let Some(piece) = pieces.next().await {
            found.extend_from_slice(&piece.unwrap());
        }
        assert_eq!(found, bytes[offset..]);
    }
}

#[tokio::test]
async fn a_shared_folder_keeps_the_uploads_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let now = super::NOW;
    let one = Blobs::shared(folder.path(), now).unwrap();
    let bytes = Bytes::from_static(b"an image");
    let mut upload = one.upload(&path("i/1"), sha256(&bytes), 8).await.unwrap();
    upload.write(bytes.slice(..4)).await.unwrap();
    // Another process opens the folder in the middle of it, and uploads too: their names differ.
    let other = Blobs::shared(folder.path(), now).unwrap();
    let mut second = other.upload(&path("i/2"), sha256(&bytes), 8).await.unwrap();
    second.write(bytes.clone()).await.unwrap();
    upload.write(bytes.slice(4..)).await.unwrap();
    assert!(upload.finish().await.unwrap() && second.finish().await.unwrap());
    assert_eq!(one.get(&path("i/2"), 8).await.unwrap(), other.get(&path("i/1"), 8).await.unwrap());
    // What nobody can be writing any more is removed: `now` is a day after the file.
    std::fs::write(folder.path().join("uploads/left"), b"half").unwrap();
    let changed = std::fs::metadata(folder.path().join("uploads/left")).unwrap().modified().unwrap();
    let changed = changed.duration_since(std::time::UNIX_EPOCH).unwrap();
    let changed = vocabulary::UnixTime::from_millis(u64::try_from(changed.as_millis()).unwrap());
    let day = u64::try_from(crate::limits::UPLOAD_KEPT.as_millis()).unwrap();
    Blobs::shared(folder.path(), changed.plus_millis(day - 1_000)).unwrap();
    assert_eq!(files(folder.path()), ["i/1", "i/2", "uploads/left"]);
    Blobs::shared(folder.path(), changed.plus_millis(day + 1)).unwrap();
    assert_eq!(files(folder.path()), ["i/1", "i/2"]);
}
