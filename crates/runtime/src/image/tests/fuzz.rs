//! Random hostile images. Whatever they hold: no panic, nothing outside the tree changes, all or nothing appears.

use super::super::archive::{Source, TarReader};
use super::super::unpack::Budgets;
use super::super::{manifest, parse_config};
use super::forge::*;
use proptest::prelude::*;
use std::io::{Cursor, Read};

/// Names that meet each other often, with every trick in them.
fn name() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        8 => "[abc]",
        2 => "link[12]",
        1 => Just("..".to_owned()),
        1 => Just(".".to_owned()),
        1 => Just(String::new()),
        2 => Just(".wh.a".to_owned()),
        1 => Just(".wh..wh..opq".to_owned()),
        1 => Just(".wh...".to_owned()),
        1 => Just("canary".to_owned()),
        1 => Just("tree".to_owned()),
    ];
    proptest::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"))
}

fn target() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => name(),
        1 => Just("/".to_owned()),
        1 => Just("../canary".to_owned()),
        1 => Just("../../canary/file".to_owned()),
        1 => Just("../../passwd".to_owned()),
        1 => Just("/proc/self/cwd".to_owned()),
        1 => Just("/proc/self/root".to_owned()),
        1 => Just("/etc/passwd".to_owned()),
        1 => Just("../../../../../../../../tmp".to_owned()),
        1 => Just("a/../../..".to_owned()),
    ]
}

fn entry() -> impl Strategy<Value = (u8, String, String, u32, u64, Vec<u8>)> {
    let kind = prop_oneof![4 => Just(b'0'), 3 => Just(b'5'), 4 => Just(b'2'), 3 => Just(b'1'), 1 => Just(b'6'), 1 => Just(b'3'), 1 => any::<u8>()];
    let bytes = proptest::collection::vec(any::<u8>(), 0..40);
    (kind, name(), target(), 0_u32..0o10000, prop_oneof![9 => 0_u64..2000, 1 => any::<u64>()], bytes)
}

fn layer() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(entry(), 0..14).prop_map(|entries| {
        let mut tar = Tar::new();
        for (kind, name, target, mode, uid, bytes) in entries {
            let link = if matches!(kind, b'1' | b'2') { target.clone().into_bytes() } else { Vec::new() };
            let header = Header { link, mode, uid: uid.min(0o7_777_777), ..Header::new(kind, name.as_bytes()) };
            if mode % 11 == 0 {
                tar = tar.pax(&[("path", name.as_bytes()), ("linkpath", target.as_bytes()), ("SCHILY.xattr.user.a", &bytes)]);
            }
            tar = if kind == b'0' { tar.with(header, &bytes) } else { tar.header(&header) };
        }
        tar.end()
    })
}

fn cases() -> ProptestConfig {
    ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() }
}

/// Leaves out what is refused, entry by entry, and so reaches deep states.
fn survivors(layers: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for layer in layers {
        kept.push(Tar::new().end());
        let mut good = Vec::new();
        let mut at = 0;
        while at + 1024 < layer.len() {
            // A PAX header, its body and its entry belong together.
            let mut end = at;
            loop {
                let header = tar::Header::from_byte_slice(&layer[end..end + 512]);
                let size = usize::try_from(header.entry_size().unwrap()).unwrap().next_multiple_of(512);
                let pax = header.entry_type().is_pax_local_extensions();
                end += 512 + size;
                if !pax {
                    break;
                }
            }
            let tried = [good.as_slice(), &layer[at..end]].concat();
            *kept.last_mut().unwrap() = Tar(tried.clone()).end();
            let place = Place::new();
            let layers: Vec<_> = kept.iter().cloned().map(Layer::plain).collect();
            if place.unpack(&image(&layers)).is_ok() {
                good = tried;
            }
            *kept.last_mut().unwrap() = Tar(good.clone()).end();
            at = end;
        }
    }
    kept
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn hostile_layers_change_nothing_outside(layers in proptest::collection::vec(layer(), 1..4)) {
        let place = Place::new();
        let layers: Vec<_> = layers.into_iter().map(Layer::plain).collect();
        let _ = place.unpack(&image(&layers));
    }

    #[test]
    fn mutated_archives_change_nothing_outside(base in layer(), changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), fix in any::<bool>()) {
        let mut tar = base;
        for (at, byte) in changes {
            let at = at.index(tar.len());
            tar[at] = byte;
            if fix && let Some(block) = tar.get_mut(at / 512 * 512..at / 512 * 512 + 512) {
                seal(block.try_into().unwrap());
            }
        }
        let place = Place::new();
        let _ = place.unpack(&image(&[Layer::plain(tar)]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..cases() })]

    #[test]
    fn what_survives_is_unpacked_twice_the_same(layers in proptest::collection::vec(layer(), 1..4)) {
        let layers: Vec<_> = survivors(&layers).into_iter().map(Layer::plain).collect();
        let (first, second) = (Place::new(), Place::new());
        let unpacked = first.unpack(&image(&layers)).unwrap();
        second.unpack(&image(&layers)).unwrap();
        prop_assert_eq!(first.tree(), second.tree());
        prop_assert!(unpacked.entries <= Budgets::default().entries);
        // Only kinds that an image may hold are there.
        for (path, seen) in first.tree() {
            let kind = seen.mode & 0o170_000;
            prop_assert!(matches!(kind, 0o040_000 | 0o100_000 | 0o120_000 | 0o010_000), "{:?} is {:o}", path, kind);
            prop_assert!(!path.file_name().unwrap().as_encoded_bytes().starts_with(b".wh."));
        }
    }
}

struct Memory(Cursor<Vec<u8>>);

impl Read for Memory {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        // As a network would give them: in pieces.
        let most = into.len().min(97);
        self.0.read(&mut into[..most])
    }
}

impl Source for Memory {
    fn skip(&mut self, count: u64) -> std::io::Result<()> {
        let skipped = std::io::copy(&mut (&mut self.0).take(count), &mut std::io::sink())?;
        if skipped == count { Ok(()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// Walks over whatever it is given to its end.
fn walk(bytes: Vec<u8>) -> usize {
    let limit = bytes.len();
    let mut archive = TarReader::new(Memory(Cursor::new(bytes)), 8192);
    let mut entries = 0;
    while let Ok(Some(entry)) = archive.next_entry() {
        entries += 1;
        assert!(entries <= limit, "an archive has fewer entries than bytes");
        let mut buffer = [0; 333];
        let mut read = 0_u64;
        while let Ok(count) = archive.read_data(&mut buffer)
            && count > 0
        {
            read += count as u64;
        }
        assert!(read <= entry.size);
    }
    entries
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..cases() })]

    #[test]
    fn the_reader_takes_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        walk(bytes);
    }

    #[test]
    fn the_reader_takes_any_block(block in proptest::collection::vec(any::<u8>(), 512), kind in proptest::sample::select(b"\x000123567xgLKS".to_vec()), size in "[0-7]{0,3}", body in proptest::collection::vec(any::<u8>(), 0..1200)) {
        let mut block: [u8; 512] = block.try_into().unwrap();
        for field in [100..108, 108..116, 116..124, 124..136, 136..148] {
            block[field].fill(b'0');
        }
        block[124..124 + size.len()].copy_from_slice(size.as_bytes());
        block[124 + size.len()] = 0;
        block[125 + size.len()..136].fill(0);
        block[156] = kind;
        seal(&mut block);
        walk([block.to_vec(), body].concat());
    }

    #[test]
    fn extended_headers_take_any_records(body in proptest::collection::vec(prop_oneof!["[0-9]{1,20} ?", "(path|linkpath|size|uid|mtime|SCHILY.xattr.user.x|GNU.sparse.x)=", "[-0-9.]{0,12}", "\n"], 0..20)) {
        let body = body.concat().into_bytes();
        walk(Tar::new().with(Header::new(b'x', b"x"), &body).file("y", b"data").end());
    }

    #[test]
    fn records_are_read_back(key in "[a-z]{1,8}", path in proptest::collection::vec(1_u8.., 1..300), value in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assume!(path.last() != Some(&b'/'));
        let key = format!("SCHILY.xattr.user.{key}");
        let tar = Tar::new().pax(&[(&key, &value), ("path", &path)]).file("y", b"").end();
        let mut archive = TarReader::new(Memory(Cursor::new(tar)), 8192);
        let entry = archive.next_entry().unwrap().unwrap();
        prop_assert_eq!(&entry.path, &path);
        prop_assert_eq!(&entry.xattrs[0].1, &value);
    }

    #[test]
    fn documents_take_any_change(at in any::<prop::sample::Index>(), insert in "[\\[\\]{}\",:0-9a-z-]{0,6}", cut in 0_usize..12, which in 0_usize..3) {
        let layers = [Layer::plain(Tar::new().end())];
        let config = serde_json::to_vec(&config_json(&layers)).unwrap();
        let manifest = serde_json::to_vec(&manifest_json(&config, &layers)).unwrap();
        let index = serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "manifests": [descriptor("application/vnd.oci.image.manifest.v1+json", &manifest)]})).unwrap();
        let mut bytes = vec![index, manifest, config].swap_remove(which);
        let at = at.index(bytes.len());
        let end = (at + cut).min(bytes.len());
        bytes.splice(at..end, insert.bytes());
        let _ = manifest::parse_index(&bytes);
        let _ = manifest::parse_manifest(&bytes);
        let _ = parse_config(&bytes);
    }
}
