//! Images that would fill the disk, the memory or the day.

use super::super::unpack::Budgets;
use super::forge::*;
use crate::image::ImageError;
use crate::limits;
use std::io::Write;

#[track_caller]
fn over(result: Result<crate::image::Unpacked, ImageError>, layer: usize, limit: &str) {
    match result {
        Err(ImageError::Budget { layer: told, limit: text }) => {
            assert_eq!(told, layer);
            assert!(text.contains(limit), "`{text}` does not say `{limit}`");
        }
        other => panic!("{other:?}"),
    }
}

/// What this process has had in memory at most, in KiB. Each test runs in a process of its own.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().trim_end_matches(" kB").trim().parse().unwrap()
}

/// Zeros of a size that nobody could hold, compressed; the archive around them is broken or not as the test wants.
fn zeros(head: &[u8], count: u64) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(head).unwrap();
    let block = vec![0; 1 << 20];
    for _ in 0..count >> 20 {
        encoder.write_all(&block).unwrap();
    }
    encoder.finish().unwrap()
}

fn layer(media: &str, blob: Vec<u8>) -> Layer {
    Layer { media: format!("{OCI}{media}"), blob, diff_id: sha256(b"never reached") }
}

#[test]
fn a_file_larger_than_the_budget_is_refused_by_its_header() {
    let tar = Tar::new().header(&Header { size: limits::IMAGE_BYTES + 1, ..Header::new(b'0', b"x") }).end();
    over(Place::new().unpack(&image(&[Layer::plain(tar)])), 1, "bytes of files");
    let tar = Tar::new().header(&Header { size: u64::MAX, ..Header::new(b'0', b"x") }).end();
    over(Place::new().unpack(&image(&[Layer::plain(tar)])), 1, "bytes of files");
    let tar = Tar::new().pax(&[("size", b"18446744073709551615")]).file("x", b"").end();
    over(Place::new().unpack(&image(&[Layer::plain(tar)])), 1, "bytes of files");
}

#[test]
fn files_of_all_layers_count_together() {
    let budgets = Budgets { bytes: 1000, ..Budgets::default() };
    let tar = |name: &str, size: usize| Layer::plain(Tar::new().file(name, &vec![1; size]).end());
    Place::new().unpack_within(&image(&[tar("a", 500), tar("b", 500)]), &budgets).unwrap();
    over(Place::new().unpack_within(&image(&[tar("a", 500), tar("a", 501)]), &budgets), 2, "1000 bytes of files");
}

#[test]
fn bytes_that_belong_to_no_file_count_too() {
    let budgets = Budgets { stream: 10 << 20, ..Budgets::default() };
    // An archive that ends at once, then a hundred times the budget.
    over(Place::new().unpack_within(&image(&[layer(ZSTD, zeros(&[0; 1024], 1 << 30))]), &budgets), 1, "bytes of all layers");
    let small = Layer::plain(Tar::new().file("x", &[1; 6 << 20]).end());
    over(Place::new().unpack_within(&image(&[small.clone(), small]), &budgets), 2, "bytes of all layers");
}

#[test]
fn a_layer_that_swells_is_refused() {
    let budgets = Budgets { ratio_free: 8 << 20, ..Budgets::default() };
    let head = Header { size: 512 << 20, ..Header::new(b'0', b"x") }.block();
    let blob = zeros(&head, 512 << 20);
    assert!(blob.len() < 200 << 10);
    over(Place::new().unpack_within(&image(&[layer(ZSTD, blob)]), &budgets), 1, "1000 times its blob");
}

#[test]
fn entries_have_a_bound_implied_ones_too() {
    let budgets = Budgets { entries: 100, ..Budgets::default() };
    let many = |count: usize| (0..count).fold(Tar::new(), |tar, number| tar.file(&number.to_string(), b"")).end();
    Place::new().unpack_within(&image(&[Layer::plain(many(100))]), &budgets).unwrap();
    over(Place::new().unpack_within(&image(&[Layer::plain(many(101))]), &budgets), 1, "100 entries");
    over(Place::new().unpack_within(&image(&[Layer::plain(many(60)), Layer::plain(many(60))]), &budgets), 2, "100 entries");
    let nested: String = (0..90).map(|_| "d/").collect();
    let implied = (0..2).fold(Tar::new(), |tar, number| tar.pax(&[("path", format!("{number}/{nested}x").as_bytes())]).file("x", b"")).end();
    over(Place::new().unpack_within(&image(&[Layer::plain(implied)]), &budgets), 1, "100 entries");
    let whiteouts = (0..101).fold(Tar::new(), |tar, number| tar.file(&format!(".wh.{number}"), b"")).end();
    over(Place::new().unpack_within(&image(&[Layer::plain(many(0)), Layer::plain(whiteouts)]), &budgets), 2, "100 entries");
}

#[test]
fn depth_has_a_bound_that_links_do_not_evade() {
    let deep = |count: usize| "d/".repeat(count);
    let at = |path: String| Tar::new().pax(&[("path", path.as_bytes())]);
    let tar = at(deep(limits::IMAGE_DEPTH)).dir("x").end();
    Place::new().unpack(&image(&[Layer::plain(tar)])).unwrap();
    let tar = at(deep(limits::IMAGE_DEPTH + 1)).dir("x").end();
    over(Place::new().unpack(&image(&[Layer::plain(tar)])), 1, "depth of 512");
    let budgets = Budgets { depth: 20, ..Budgets::default() };
    // Each link leads to the end of the directories made so far.
    let tar = (0..5).fold(Tar::new(), |tar, number| {
        let (link, path) = (format!("l{number}"), format!("l{number}/{}", deep(8)));
        let before = if number == 0 { ".".to_owned() } else { format!("l{}/{}", number - 1, deep(8)) };
        tar.symlink(&link, &before).dir(&path)
    });
    over(Place::new().unpack_within(&image(&[Layer::plain(tar.end())]), &budgets), 1, "depth of 20");
}

#[test]
fn headers_have_a_bound_before_they_are_in_memory() {
    let before = peak();
    for kind in [b'x', b'g', b'L', b'K'] {
        let head = Header { size: 2 << 30, ..Header::new(kind, b"x") }.block();
        over(Place::new().unpack(&image(&[layer(ZSTD, zeros(&head, 16 << 20))])), 1, "bytes of headers of one entry");
        let head = Header { size: u64::MAX, ..Header::new(kind, b"x") }.block();
        over(Place::new().unpack(&image(&[layer(ZSTD, zeros(&head, 16 << 20))])), 1, "bytes of headers of one entry");
    }
    // Many small ones for one entry.
    let tar = (0..3000).fold(Tar::new(), |tar, _| tar.with(Header::new(b'g', b"g"), &record("comment", b"x")));
    over(Place::new().unpack(&image(&[Layer::plain(tar.file("x", b"").end())])), 1, "bytes of headers of one entry");
    assert!(peak() < before + (64 << 10), "{} KiB more", peak() - before);
}

#[test]
fn a_large_archive_needs_little_memory() {
    // 256 MiB in one file and 2,000 entries.
    let head = Header { size: 256 << 20, ..Header::new(b'0', b"zeros") }.block();
    let many = (0..2000).fold(Tar::new(), |tar, number| tar.file(&format!("d/{number}"), b"x")).0;
    let blob = [zstd(&many), zeros(&head, 256 << 20), zstd(&[0; 1024])].concat();
    let diff_id = {
        use std::io::Read;
        let mut hash = <sha2::Sha256 as sha2::Digest>::new();
        let mut reader = zstd::stream::read::Decoder::new(blob.as_slice()).unwrap();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match reader.read(&mut buffer).unwrap() {
                0 => break sha2::Digest::finalize(hash),
                read => sha2::Digest::update(&mut hash, &buffer[..read]),
            }
        }
    };
    let image = image(&[Layer { media: format!("{OCI}{ZSTD}"), blob, diff_id: vocabulary::Sha256Digest::from_bytes(diff_id.into()) }]);
    let before = peak();
    let place = Place::new();
    let unpacked = place.unpack(&image).unwrap();
    assert_eq!((unpacked.entries, unpacked.bytes), (2001, (256 << 20) + 2000));
    assert!(peak() < before + (32 << 10), "{} KiB more", peak() - before);
}

#[test]
fn sparse_files_are_refused() {
    // 512 bytes that claim to be 60 GiB.
    let mut block = Header { size: 512, ..Header::new(b'S', b"sparse") }.block();
    block[257..265].copy_from_slice(b"ustar  \0");
    block[386..398].copy_from_slice(b"00000000000\0");
    block[398..410].copy_from_slice(b"00000001000\0");
    block[483..495].copy_from_slice(b"740000000000");
    seal(&mut block);
    let gnu = Tar(block.to_vec()).bytes(&[1; 512]).end();
    let pax = Tar::new().pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"64424509440")]).file("x", b"1\n0\n512\n").end();
    for tar in [gnu, pax] {
        let text = refusal_of(&[tar]).to_string();
        assert!(text.contains("layer 1") && text.contains("sparse files are not taken"), "{text}");
    }
}

#[test]
fn a_zstd_window_that_needs_much_memory_is_refused() {
    let before = peak();
    // Magic, a frame header with a window descriptor of 2^31 bytes, then an empty last block.
    let frame = [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, (31 - 10) << 3][..], &[1, 0, 0]].concat();
    over(Place::new().unpack(&image(&[layer(ZSTD, frame)])), 1, "zstd window of 2^27");
    assert!(peak() < before + (64 << 10));
    let frame = [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, (27 - 10) << 3][..], &[1, 0, 0]].concat();
    let largest = Layer { diff_id: sha256(b""), ..layer(ZSTD, frame) };
    Place::new().unpack(&image(&[largest])).unwrap();
}

#[test]
fn empty_gzip_members_and_zstd_frames_are_gone_through() {
    let tar = Tar::new().file("x", b"").end();
    for (media, blob) in [(GZIP, [gzip(&tar), gzip(b"").repeat(200_000)].concat()), (ZSTD, [zstd(&tar), zstd(b"").repeat(200_000)].concat())] {
        let layer = Layer { diff_id: sha256(&tar), ..layer(media, blob) };
        let place = Place::new();
        place.unpack(&image(&[layer])).unwrap();
        assert_eq!(names(&place.tree()), ["x"]);
    }
    // A header of a gzip member that never ends.
    let endless = [&[0x1f, 0x8b, 8, 0b1000, 0, 0, 0, 0, 0, 0][..], &vec![b'n'; 1 << 20]].concat();
    let error = Place::new().unpack(&image(&[layer(GZIP, endless)])).unwrap_err();
    assert!(matches!(error, ImageError::Refused(_)), "{error}");
}

#[test]
fn documents_and_layers_are_counted() {
    let layers: Vec<_> = (0..limits::IMAGE_LAYERS + 1).map(|number| Layer::plain(Tar::new().file(&number.to_string(), b"").end())).collect();
    over(Place::new().unpack(&image(&layers)), 0, "128 layers");
    Place::new().unpack(&image(&layers[1..])).unwrap();
    let mut large = image(&layers[..1]);
    let manifest = [large.blobs[&large.manifest].clone(), vec![b' '; 5 << 20]].concat();
    large.manifest = sha256(&manifest);
    large.blobs.insert(large.manifest, manifest);
    over(Place::new().unpack(&large), 0, "bytes of an image manifest");
    let config = config_json(&layers[..1]);
    let mut manifest = manifest_json(&serde_json::to_vec(&config).unwrap(), &layers[..1]);
    manifest["config"]["size"] = (5 << 20).into();
    over(Place::new().unpack(&image_of(&config, &manifest, &layers[..1])), 0, "bytes of an image config");
    let mut manifest = manifest_json(&serde_json::to_vec(&config).unwrap(), &layers[..1]);
    manifest["layers"][0]["size"] = u64::MAX.into();
    over(Place::new().unpack(&image_of(&config, &manifest, &layers[..1])), 1, "bytes of all layers");
}

#[test]
fn whiteouts_without_end_do_not_take_for_ever() {
    // One full directory, emptied again and again: each pass over it after the first would find nothing.
    let full = (0..3000).fold(Tar::new().file("d/old", b""), |tar, number| tar.file(&format!("d/{number}"), b""));
    let again = (0..3000).fold(full, |tar, number| if number % 2 == 0 { tar.file("d/.wh..wh..opq", b"") } else { tar.file(".wh.d", b"") });
    let place = Place::new();
    place.unpack(&image(&[Layer::plain(Tar::new().file("d/lower", b"").end()), Layer::plain(again.end())])).unwrap();
    assert_eq!(place.tree().len(), 3002);
}
