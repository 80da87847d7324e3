//! What lies on the edge of a rule: the longest names, the deepest trees, whiteouts of every kind, frames that say nothing.

use super::super::archive::{Source, TarReader};
use super::super::tree::open_in;
use super::forge::*;
use crate::image::ImageError;
use crate::limits::{HEADER_BYTES, IMAGE_DEPTH};
use rustix::fs::{OFlags, ResolveFlags};
use std::io::{Cursor, Read, Write};
use std::path::Path;

#[track_caller]
fn refused(tar: Vec<u8>, rule: &str) {
    match refusal_of(&[tar]) {
        ImageError::Entry { layer: 1, detail, .. } => assert!(detail.contains(rule), "`{detail}` does not say `{rule}`"),
        other => panic!("refused for another reason: {other}"),
    }
}

#[test]
fn targets_of_links_have_bounds() {
    let linked = |kind: u8, target: &[u8]| Tar::new().file("a", b"").pax(&[("linkpath", target)]).node(kind, "l").end();
    refused(Tar::new().symlink("l", "").end(), "1 to 4095 bytes");
    refused(linked(b'2', b"a\0b"), "1 to 4095 bytes");
    refused(linked(b'2', &[b'x'; 4096]), "1 to 4095 bytes");
    refused(linked(b'1', b"a\0b"), "NUL");
    refused(linked(b'1', &b"abcdef/x".repeat(512)), "longer than 4095");
    refused(linked(b'1', &[b'x'; 256]), "longer than 255");
    // Of a target only its length matters: it may be any bytes, and is kept as it is.
    for target in [b"\xff\xfe\n".as_slice(), b"///..//.", &[b'y'; 1000]] {
        assert_eq!(tree_of(&[linked(b'2', target)])[Path::new("l")].content, target);
    }
}

#[test]
fn the_longest_names_are_taken() {
    let part = "n".repeat(255);
    let longest = [part.as_str(); 16].join("/");
    assert_eq!(longest.len(), 4095);
    let place = Place::new();
    let tar = Tar::new().pax(&[("path", longest.as_bytes())]).file("x", b"found").end();
    assert_eq!(place.unpack(&image(&[Layer::plain(tar)])).unwrap().entries, 1);
    let root = std::fs::File::open(place.target()).unwrap();
    let mut text = String::new();
    std::fs::File::from(open_in(&root, longest.as_bytes(), OFlags::RDONLY, ResolveFlags::NO_SYMLINKS).unwrap()).read_to_string(&mut text).unwrap();
    assert_eq!(text, "found");
}

#[test]
fn a_whiteout_is_one_whatever_kind_of_entry_it_is() {
    let below = Tar::new().file("keep", b"kept").dir("gone").file("gone/x", b"").file("d/gone", b"").end();
    for kind in *b"0123456" {
        let whiteout = |name: &str| Header { link: if matches!(kind, b'1' | b'2') { b"keep".to_vec() } else { Vec::new() }, ..Header::new(kind, name.as_bytes()) };
        let above = Tar::new().header(&whiteout(".wh.gone")).header(&whiteout("d/.wh.gone")).end();
        let tree = tree_of(&[below.clone(), above]);
        assert_eq!(names(&tree), ["d", "keep"], "kind {}", char::from(kind));
        assert_eq!((tree[Path::new("keep")].links, tree[Path::new("keep")].content.as_slice()), (1, b"kept".as_slice()));
        let opaque = Tar::new().header(&whiteout("d/.wh..wh..opq")).file("d/new", b"").end();
        assert_eq!(names(&tree_of(&[below.clone(), opaque])), ["d", "d/new", "gone", "gone/x", "keep"]);
    }
    // One with bytes in it: they are none of any file's, and the entry after them is read as it stands.
    let filled = Tar::new().file(".wh.gone", &Header::new(b'0', b"hidden").block().repeat(3)).file("after", b"it").end();
    let tree = tree_of(&[below, filled]);
    assert_eq!(names(&tree), ["after", "d", "d/gone", "keep"]);
    assert_eq!(tree[Path::new("after")].content, b"it");
}

#[test]
fn the_deepest_tree_can_be_whited_out_and_replaced() {
    let deepest = "d/".repeat(IMAGE_DEPTH);
    let below = Tar::new().pax(&[("path", deepest.as_bytes())]).dir("x").end();
    for (above, left) in [
        (Tar::new().file(".wh.d", b""), vec![]),
        (Tar::new().file("new", b"").file(".wh..wh..opq", b""), vec!["new"]),
        (Tar::new().file("d", b"a file in its place"), vec!["d"]),
        (Tar::new().node(b'3', "d"), vec![]),
    ] {
        assert_eq!(names(&tree_of(&[below.clone(), above.end()])), left);
    }
}

#[test]
fn frames_and_members_that_say_nothing_are_passed_over() {
    let tar = Tar::new().file("x", b"bytes").end();
    // zstd's skippable frames, in which zstd:chunked keeps its table of contents.
    let skippable = |letter: u8, bytes: &[u8]| [&[0x50 | letter, 0x2a, 0x4d, 0x18], u32::try_from(bytes.len()).unwrap().to_le_bytes().as_slice(), bytes].concat();
    // A gzip member with an extra field, in which eStargz keeps where its own begins.
    let extra = |bytes: &[u8]| {
        let mut encoder = flate2::GzBuilder::new().extra(bytes).comment("c").filename("f").write(Vec::new(), flate2::Compression::none());
        encoder.flush().unwrap();
        encoder.finish().unwrap()
    };
    let zstds = [
        [zstd(&tar), skippable(0, &[7; 5000])].concat(),
        [skippable(15, b""), zstd(&tar)].concat(),
        [zstd(&tar[..700]), skippable(3, &zstd(b"not to be read")).repeat(1000), zstd(&tar[700..])].concat(),
    ];
    let gzips = [[gzip(&tar), extra(b"SG\x16\x000000000000000000STARGZ")].concat(), [extra(&[7; 60_000]), gzip(&tar)].concat()];
    for (media, blob) in zstds.into_iter().map(|blob| (ZSTD, blob)).chain(gzips.into_iter().map(|blob| (GZIP, blob))) {
        let place = Place::new();
        place.unpack(&image(&[Layer { media: format!("{OCI}{media}"), blob, diff_id: sha256(&tar) }])).unwrap();
        assert_eq!(names(&place.tree()), ["x"], "{media}");
    }
    // One that promises four gibibytes and ends: the layer is cut off, and nobody reserves memory for the promise.
    let promise = [zstd(&tar), vec![0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff], vec![7; 100]].concat();
    let error = Place::new().unpack(&image(&[Layer { media: format!("{OCI}{ZSTD}"), blob: promise, diff_id: sha256(&tar) }])).unwrap_err();
    assert!(matches!(error, ImageError::Refused(_)), "{error}");
}

struct Memory(Cursor<Vec<u8>>);

impl Read for Memory {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(into)
    }
}

impl Source for Memory {
    fn skip(&mut self, count: u64) -> std::io::Result<()> {
        std::io::copy(&mut (&mut self.0).take(count), &mut std::io::sink()).map(|_| ())
    }
}

/// As many attributes as the headers of one entry hold.
#[test]
fn a_header_full_of_attributes_is_read_once() {
    let mut body = Vec::new();
    let mut count = 0_u32;
    while body.len() < usize::try_from(HEADER_BYTES).unwrap() - 4096 {
        body.extend_from_slice(&record(&format!("SCHILY.xattr.trusted.{count:05}"), b""));
        count += 1;
    }
    let full = |more: &[u8]| Tar::new().with(Header::new(b'x', b"x"), &[body.as_slice(), more].concat()).file("x", b"").end();
    let entry = TarReader::new(Memory(Cursor::new(full(b""))), HEADER_BYTES).next_entry().unwrap().unwrap();
    assert_eq!(entry.xattrs.len(), usize::try_from(count).unwrap());
    // None of them is one that is kept.
    let place = Place::new();
    place.unpack(&image(&[Layer::plain(full(b""))])).unwrap();
    assert!(rustix::fs::llistxattr(place.target().join("x"), &mut [0_u8; 1000][..]).unwrap() == 0);
    // The first one again, after all the others.
    refused(full(&record("SCHILY.xattr.trusted.00000", b"")), "stands twice");
}
