//! Entries that would leave the tree, and entries that are only odd. Each is forged and unpacked for real.

use super::forge::*;
use crate::image::ImageError;
use std::path::Path;

/// The refused entry's layer and rule.
#[track_caller]
fn entry_refused(tars: &[Vec<u8>], layer: usize, rule: &str) {
    match refusal_of(tars) {
        ImageError::Entry { layer: told, detail, .. } => {
            assert_eq!(told, layer);
            assert!(detail.contains(rule), "`{detail}` does not say `{rule}`");
        }
        other => panic!("refused for another reason: {other}"),
    }
}

fn named(kind: u8, name: &[u8]) -> Vec<u8> {
    Tar::new().header(&Header::new(kind, name)).end()
}

#[test]
fn names_that_lead_upwards_are_refused() {
    for name in ["../escape", "a/../../escape", "..", "/../escape", "a/..", "./../x"] {
        for kind in [b'0', b'1', b'2', b'3', b'5', b'6'] {
            let tar = Tar::new().dir("a").header(&Header { link: b"a".to_vec(), ..Header::new(kind, name.as_bytes()) }).end();
            entry_refused(&[tar], 1, "`..` in a name");
        }
    }
}

#[test]
fn absolute_names_lie_in_the_tree() {
    let tree = tree_of(&[Tar::new().file("/etc/swarm-test-absolute", b"x").file("//double", b"y").file("./dot/./x", b"z").end()]);
    assert_eq!(names(&tree), ["dot", "dot/x", "double", "etc", "etc/swarm-test-absolute"]);
    assert!(!Path::new("/etc/swarm-test-absolute").exists());
}

#[test]
fn names_that_are_no_names_are_refused() {
    entry_refused(&[named(b'0', b"")], 1, "the name is empty");
    entry_refused(&[Tar::new().pax(&[("path", b"a\0b")]).file("x", b"").end()], 1, "NUL");
    entry_refused(&[Tar::new().pax(&[("path", "x".repeat(256).as_bytes())]).file("x", b"").end()], 1, "longer than 255");
    let long = "abcdef/x".repeat(512);
    entry_refused(&[Tar::new().pax(&[("path", long.as_bytes())]).file("x", b"").end()], 1, "longer than 4095");
    entry_refused(&[named(b'0', b".")], 1, "root of the tree can only be a directory");
    entry_refused(&[Tar::new().symlink("./", "x").end()], 1, "root of the tree can only be a directory");
    entry_refused(&[named(b'0', b"file/")], 1, "final `/`");
}

#[test]
fn names_are_bytes() {
    use std::os::unix::ffi::OsStrExt;
    let tree = tree_of(&[Tar::new().header(&Header::new(b'0', b"caf\xe9")).header(&Header::new(b'0', "café".as_bytes())).header(&Header::new(b'0', b"cafe\xcc\x81")).end()]);
    let bytes: Vec<_> = tree.keys().map(|path| path.as_os_str().as_bytes()).collect();
    assert_eq!(bytes, [b"cafe\xcc\x81".as_slice(), b"caf\xc3\xa9", b"caf\xe9"], "three names that look alike are three files");
}

#[test]
fn a_refused_name_is_shown_without_terminal_codes() {
    let text = refusal_of(&[named(b'0', b"\x1b[2J/../x")]).to_string();
    assert!(!text.contains('\x1b'), "{text}");
    assert!(text.contains("u{1b}"), "{text}");
}

#[test]
fn links_out_of_the_tree_end_inside_it() {
    for target in ["/canary", "../canary", "../../../../../../canary", "/../canary", "/proc/self/root/canary"] {
        let tar = Tar::new().symlink("out", target).file("out/file", b"overwritten").end();
        // Where the target is missing inside the tree, the entry lies below nothing.
        entry_refused(&[tar], 1, "below a link that leads nowhere");
        let tar = Tar::new().dir(target.trim_start_matches(['/', '.'])).symlink("out", target).file("out/file", b"new").end();
        let tree = tree_of(&[tar]);
        let inside = Path::new(target.trim_start_matches(['/', '.'])).join("file");
        assert_eq!(tree[&inside].content, b"new", "{target}");
    }
}

#[test]
fn links_of_lower_layers_are_followed_inside_the_tree_only() {
    let below = Tar::new().dir("usr").dir("usr/lib").symlink("lib", "usr/lib").symlink("abs", "/usr").end();
    let above = Tar::new().file("lib/x.so", b"1").file("abs/lib/y.so", b"2").file("abs/../z", b"").end();
    entry_refused(&[below.clone(), above], 2, "`..`");
    let above = Tar::new().file("lib/x.so", b"1").file("abs/lib/y.so", b"2").end();
    assert_eq!(names(&tree_of(&[below, above])), ["abs", "lib", "usr", "usr/lib", "usr/lib/x.so", "usr/lib/y.so"]);
}

#[test]
fn circles_and_files_are_no_directories() {
    entry_refused(&[Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", b"").end()], 1, "in a circle");
    entry_refused(&[Tar::new().file("a", b"").file("a/x", b"").end()], 1, "no directory");
    entry_refused(&[Tar::new().symlink("a", "a").file("a/x", b"").end()], 1, "in a circle");
}

#[test]
fn magic_links_are_not_followed() {
    // `/proc` is only an ordinary directory here, and a descriptor's link only a text.
    let tar = Tar::new().symlink("fd", "/proc/self/fd/0").symlink("cwd", "/proc/self/cwd").file("cwd/x", b"").end();
    entry_refused(&[tar], 1, "leads nowhere");
}

#[test]
fn what_lies_in_the_place_of_an_entry_goes_unfollowed() {
    let below = Tar::new()
        .symlink("link", "/canary/file")
        .symlink("dirlink", "../canary")
        .dir("full/deep/deeper")
        .file("full/deep/deeper/x", b"")
        .file("plain", b"old")
        .hardlink("second", "plain")
        .end();
    let above = Tar::new()
        .file("link", b"file over link")
        .dir("dirlink")
        .symlink("full", "elsewhere")
        .file("plain", b"new")
        .end();
    let tree = tree_of(&[below.clone(), above]);
    assert_eq!(names(&tree), ["dirlink", "full", "link", "plain", "second"]);
    assert_eq!(tree[Path::new("link")].content, b"file over link");
    assert_eq!(tree[Path::new("full")].content, b"elsewhere");
    assert_eq!(tree[Path::new("second")].content, b"old", "another name of the old file keeps the old bytes");
    for over in [Tar::new().node(b'6', "full").end(), Tar::new().file("full", b"f").end(), Tar::new().hardlink("full", "plain").end(), Tar::new().node(b'3', "full").end()] {
        let tree = tree_of(&[below.clone(), over]);
        assert!(!tree.contains_key(Path::new("full/deep")));
    }
    let tree = tree_of(&[below, Tar::new().dir("full").dir("plain").end()]);
    assert!(tree.contains_key(Path::new("full/deep/deeper/x")), "a directory over a directory keeps its files");
    assert_eq!(tree[Path::new("plain")].mode, 0o040_755);
}

#[test]
fn hard_links_lead_to_regular_files_that_are_there() {
    for (target, rule) in [
        ("/canary/file", "is not there"),
        ("../canary/file", "`..`"),
        ("later", "is not there"),
        ("link", "no regular file"),
        ("d", "no regular file"),
        ("fifo", "no regular file"),
        ("null", "is not there"),
        (".", "a directory"),
        ("", "the name is empty"),
        ("x/y/z", "is not there"),
        ("plain/x", "no directory"),
    ] {
        let tar = Tar::new()
            .symlink("link", "plain")
            .file("plain", b"bytes")
            .dir("d")
            .node(b'6', "fifo")
            .node(b'3', "null")
            .hardlink("new", target)
            .file("later", b"")
            .end();
        entry_refused(&[tar], 1, rule);
    }
    // Through a link that leads out, the target is looked for inside.
    entry_refused(&[Tar::new().symlink("out", "/canary").hardlink("new", "out/file").end()], 1, "is not there");
}

#[test]
fn hard_links_share_one_file() {
    let below = Tar::new().with(Header { mode: 0o4711, uid: 5, ..Header::new(b'0', b"a") }, b"bytes").hardlink("a", "a").end();
    let tree = tree_of(&[below, Tar::new().hardlink("deep/b", "/a").hardlink("a", "./a").end()]);
    assert_eq!(names(&tree), ["a", "deep", "deep/b"]);
    let (a, b) = (&tree[Path::new("a")], &tree[Path::new("deep/b")]);
    assert_eq!(a, b);
    assert_eq!((a.links, a.mode, a.owner, a.content.as_slice()), (2, 0o104_711, (5, 0), b"bytes".as_slice()));
}

#[test]
fn a_link_that_replaces_the_directory_of_its_target_is_refused() {
    let tar = Tar::new().file("d/x", b"").hardlink("d", "d/x").end();
    entry_refused(&[tar], 1, "is not there");
}

#[test]
fn whiteouts_hide_what_lower_layers_brought() {
    let below = Tar::new().file("keep", b"").file("gone", b"").file("d/x", b"").file("d/y/z", b"").symlink("l", "d").end();
    let above = Tar::new().file(".wh.gone", b"").file(".wh.never", b"").file("l/.wh.x", b"").end();
    assert_eq!(names(&tree_of(&[below.clone(), above])), ["d", "d/y", "d/y/z", "keep", "l"]);
    let tree = tree_of(&[below.clone(), Tar::new().file(".wh.l", b"").file(".wh.d", b"").end()]);
    assert_eq!(names(&tree), ["gone", "keep"], "the link goes, and nothing behind it");
    let tree = tree_of(&[below, Tar::new().file("missing/.wh.x", b"").file("missing/.wh..wh..opq", b"").end()]);
    assert!(!tree.contains_key(Path::new("missing")), "a whiteout makes no directory");
}

#[test]
fn an_opaque_directory_keeps_what_its_own_layer_brought() {
    let below = Tar::new().file("d/old", b"").file("d/sub/old", b"").file("d/sub/both", b"old").file("d/gone/x", b"").hardlink("kept", "d/old").end();
    let entries = |tar: Tar| tar.file("d/new", b"").file("d/sub/new", b"").file("d/sub/both", b"new").hardlink("d/linked", "kept");
    let opaque = |tar: Tar| tar.file("d/.wh..wh..opq", b"");
    let before = opaque(entries(Tar::new())).end();
    let after = entries(opaque(Tar::new())).end();
    let twice = opaque(entries(opaque(Tar::new()))).end();
    for above in [before, after, twice] {
        let tree = tree_of(&[below.clone(), above]);
        assert_eq!(names(&tree), ["d", "d/linked", "d/new", "d/sub", "d/sub/both", "d/sub/new", "kept"]);
        assert_eq!(tree[Path::new("d/sub/both")].content, b"new");
    }
    let root = tree_of(&[below, Tar::new().file("only", b"").file(".wh..wh..opq", b"").end()]);
    assert_eq!(names(&root), ["only"]);
}

#[test]
fn a_whiteout_leaves_its_own_layer_alone() {
    let below = Tar::new().file("d/old", b"").file("f", b"old").end();
    let above = Tar::new().file("f", b"new").file(".wh.f", b"").file("d/new", b"").file(".wh.d", b"").end();
    let tree = tree_of(&[below, above]);
    assert_eq!(names(&tree), ["d", "d/new", "f"]);
    let first = tree_of(&[Tar::new().file("a", b"").file(".wh.a", b"").file(".wh..wh..opq", b"").end()]);
    assert_eq!(names(&first), ["a"], "below the first layer there is nothing");
}

#[test]
fn whiteouts_of_no_name_are_refused() {
    let below = Tar::new().file("x", b"").end();
    for (name, rule) in [
        (".wh.", "no name"),
        (".wh..", "no name"),
        (".wh...", "no name"),
        ("d/.wh...", "no name"),
        (".wh..wh.x", "whiteout of a whiteout"),
        (".wh..wh..opq/x", "no directory"),
        (".wh.d/x", "no directory"),
    ] {
        entry_refused(&[below.clone(), Tar::new().file(name, b"").end()], 2, rule);
    }
    entry_refused(&[Tar::new().file("a", b"").hardlink("b", ".wh.a").end()], 1, "whiteout is no file");
}

#[test]
fn nodes_are_left_out_and_counted() {
    let place = Place::new();
    let below = Tar::new().file("dev/null", b"a file in the place of a device").end();
    let above = Tar::new().node(b'3', "dev/null").node(b'4', "dev/sda").node(b'3', "not/there").node(b'6', "fifo").end();
    let unpacked = place.unpack(&image(&[Layer::plain(below), Layer::plain(above)])).unwrap();
    assert_eq!((unpacked.skipped, unpacked.entries), (3, 2));
    let tree = place.tree();
    assert_eq!(names(&tree), ["dev", "fifo"], "the file of the lower layer goes all the same");
    assert_eq!(tree[Path::new("fifo")].mode, 0o010_644);
}

#[test]
fn owners_modes_and_times_are_as_the_image_says() {
    let entry = |kind, name: &[u8], mode| Header { mode, uid: 1000, gid: 50, mtime: 1_234_567_890, ..Header::new(kind, name) };
    let tar = Tar::new()
        .header(&entry(b'5', b"./", 0o701))
        .header(&entry(b'5', b"sticky", 0o1777))
        .with(entry(b'0', b"sticky/setuid", 0o6755), b"#!")
        .pax(&[("mtime", b"-1.25"), ("uid", b"65535"), ("gid", b"65534")])
        .header(&entry(b'5', b"closed", 0o000))
        .file("closed/inside", b"")
        .header(&Header { link: b"nowhere".to_vec(), ..entry(b'2', b"link", 0o777) })
        .header(&entry(b'6', b"fifo", 0o622))
        .file("implied/x", b"")
        .end();
    let place = Place::new();
    place.unpack(&image(&[Layer::plain(tar)])).unwrap();
    let tree = place.tree();
    let seen = |name: &str| (tree[Path::new(name)].mode, tree[Path::new(name)].owner, tree[Path::new(name)].mtime);
    assert_eq!(seen("sticky"), (0o041_777, (1000, 50), (1_234_567_890, 0)));
    assert_eq!(seen("sticky/setuid"), (0o106_755, (1000, 50), (1_234_567_890, 0)));
    assert_eq!(seen("closed"), (0o040_000, (65535, 65534), (-2, 750_000_000)), "as it was before a file was put into it");
    assert_eq!(seen("link"), (0o120_777, (1000, 50), (1_234_567_890, 0)));
    assert_eq!(seen("fifo"), (0o010_622, (1000, 50), (1_234_567_890, 0)));
    assert_eq!(seen("implied"), (0o040_755, (0, 0), (0, 0)));
    use std::os::unix::fs::MetadataExt;
    let root = std::fs::metadata(place.target()).unwrap();
    assert_eq!((root.mode(), root.uid(), root.mtime()), (0o040_701, 1000, 1_234_567_890));
}

#[test]
fn owners_that_no_job_has_are_refused() {
    for (records, rule) in [
        ([("uid", b"65536".as_slice())], "owner 65536"),
        ([("gid", b"4294967296".as_slice())], "group 4294967296"),
        ([("uid", b"-1".as_slice())], "`uid` is no number"),
        ([("uid", b"18446744073709551616".as_slice())], "`uid` is no number"),
    ] {
        entry_refused(&[Tar::new().pax(&records).file("x", b"").end()], 1, rule);
    }
    entry_refused(&[Tar::new().header(&Header { uid: 70000, ..Header::new(b'0', b"x") }).end()], 1, "owner 70000");
}

#[test]
fn attributes_that_the_host_would_obey_are_dropped() {
    let place = Place::new();
    let tar = Tar::new()
        .pax(&[
            ("SCHILY.xattr.user.note", b"line\n20 path=../escape\n"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\0\0\0"),
            ("SCHILY.xattr.system.posix_acl_access", b"\x02\0\0\0"),
            ("LIBARCHIVE.xattr.user.other", b"eA=="),
        ])
        .file("x", b"")
        .pax(&[("SCHILY.xattr.user.dir", b"d")])
        .dir("d")
        .end();
    let above = Tar::new().dir("d").end();
    place.unpack(&image(&[Layer::plain(tar.clone()), Layer::plain(above)])).unwrap();
    let list = |name: &str| {
        let mut buffer = [0; 4096];
        let read = rustix::fs::llistxattr(place.target().join(name), &mut buffer[..]).unwrap();
        String::from_utf8(buffer[..read].to_vec()).unwrap()
    };
    assert_eq!(list("x"), "user.note\0");
    assert_eq!(list("d"), "", "the upper layer describes the directory without it");
    assert_eq!(names(&place.tree()), ["d", "x"], "a record's value is no record");
    let place = Place::new();
    place.unpack(&image(&[Layer::plain(tar)])).unwrap();
    let mut value = [0; 100];
    let read = rustix::fs::lgetxattr(place.target().join("x"), "user.note", &mut value[..]).unwrap();
    assert_eq!(&value[..read], b"line\n20 path=../escape\n");
}

#[test]
fn attributes_have_a_bound() {
    let tar = |size: usize| Tar::new().pax(&[("SCHILY.xattr.user.a", &vec![b'a'; size])]).file("x", b"").end();
    match refusal_of(&[tar(65_536)]) {
        ImageError::Budget { layer: 1, limit } => assert!(limit.contains("extended attributes"), "{limit}"),
        other => panic!("{other}"),
    }
    entry_refused(&[Tar::new().pax(&[("SCHILY.xattr.user.", b"a")]).file("x", b"").end()], 1, "extended attribute");
    entry_refused(&[Tar::new().pax(&[("SCHILY.xattr.user.a", b"a"), ("SCHILY.xattr.user.a", b"b")]).file("x", b"").end()], 1, "stands twice");
}

#[test]
fn mount_points_are_directories() {
    for name in ["dev", "proc", "sys"] {
        entry_refused(&[Tar::new().symlink(name, "/tmp").end()], 1, "must be a directory");
        entry_refused(&[Tar::new().file(name, b"").end()], 1, "must be a directory");
        let replaced = Tar::new().dir(name).end();
        assert_eq!(names(&tree_of(&[Tar::new().symlink(name, "/tmp").end(), replaced])), [name]);
    }
}

#[test]
fn headers_that_readers_understand_differently_are_refused() {
    let x = |records: &[(&str, &[u8])]| Tar::new().pax(records).file("x", b"data").end();
    entry_refused(&[x(&[("path", b"a"), ("path", b"b")])], 1, "stands twice");
    entry_refused(&[x(&[("size", b"4"), ("size", b"0")])], 1, "stands twice");
    entry_refused(&[x(&[("size", b"-4")])], 1, "no number");
    entry_refused(&[x(&[("size", b"+4")])], 1, "no number");
    entry_refused(&[x(&[("size", b" 4")])], 1, "no number");
    entry_refused(&[x(&[("mtime", b"1e9")])], 1, "no time");
    entry_refused(&[Tar::new().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("x", b"").end()], 1, "two extended headers");
    let long = |tar: Tar, name: &[u8]| tar.with(Header::new(b'L', b"././@LongLink"), name);
    entry_refused(&[long(Tar::new().pax(&[("path", b"a")]), b"b\0").file("x", b"").end()], 1, "same name");
    entry_refused(&[long(long(Tar::new(), b"a\0"), b"b\0").file("x", b"").end()], 1, "two extended headers");
    entry_refused(&[long(Tar::new(), b"a\0b\0").file("x", b"").end()], 1, "NUL");
    entry_refused(&[long(Tar::new(), b"a\0").end()], 1, "without its entry");
    entry_refused(&[Tar::new().with(Header::new(b'g', b"g"), &record("path", b"x")).file("y", b"").end()], 1, "global header");
    entry_refused(&[Tar::new().with(Header::new(b'x', b"p"), b"9 path=a").file("y", b"").end()], 1, "malformed");
    entry_refused(&[Tar::new().with(Header::new(b'x', b"p"), b"99 path=a\n").file("y", b"").end()], 1, "malformed");
    entry_refused(&[Tar::new().with(Header::new(b'x', b"p"), b"path=a\n").file("y", b"").end()], 1, "malformed");
    entry_refused(&[Tar::new().header(&Header { size: 512, ..Header::new(b'5', b"d") }).bytes(&[0; 512]).end()], 1, "only a regular file");
    entry_refused(&[Tar::new().file("a", b"").header(&Header { size: 4, link: b"a".to_vec(), ..Header::new(b'1', b"h") }).bytes(b"data").end()], 1, "only a regular file");
    for kind in [b'S', b'D', b'M', b'N', b'V', b'z', 0xff] {
        let detail = refusal_of(&[named(kind, b"x")]).to_string();
        assert!(detail.contains("sparse") || detail.contains("is unknown"), "{detail}");
    }
}

#[test]
fn header_fields_are_read_strictly() {
    let forged = |change: &dyn Fn(&mut [u8; 512])| {
        let mut block = Header::new(b'0', b"x").block();
        change(&mut block);
        Tar(block.to_vec()).end()
    };
    entry_refused(&[forged(&|block| block[0] = b'y')], 1, "checksum");
    entry_refused(&[forged(&|block| block[148..156].fill(b'9'))], 1, "checksum");
    for (at, bytes) in [(124, b"+0000000001".as_slice()), (124, b"0000009"), (124, &[0xff; 12]), (124, &[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), (108, b"12x45\0"), (100, b"0 0")] {
        let change = |block: &mut [u8; 512]| {
            block[at..at + bytes.len()].copy_from_slice(bytes);
            seal(block);
        };
        let detail = refusal_of(&[forged(&change)]).to_string();
        assert!(detail.contains("octal") || detail.contains("too large"), "{detail}");
    }
    // Blank fields are 0, as old archives have them; the oldest have no magic and say by a slash what a directory is.
    let old = forged(&|block| {
        block[0..2].copy_from_slice(b"o/");
        block[108..136].fill(0);
        block[136..148].fill(b' ');
        block[156] = 0;
        block[257..265].fill(0);
        seal(block);
    });
    let tree = tree_of(&[old]);
    assert_eq!(tree[Path::new("o")].mode, 0o040_644);
}

#[test]
fn long_names_of_both_kinds_are_taken() {
    let name = ["n".repeat(200), "m".repeat(200)].join("/");
    let target = "t".repeat(300);
    let gnu = Tar::new()
        .with(Header::new(b'L', b"././@LongLink"), [name.as_bytes(), b"\0"].concat().as_slice())
        .with(Header::new(b'K', b"././@LongLink"), [target.as_bytes(), b"\0"].concat().as_slice())
        .symlink("short", "short")
        .end();
    let pax = Tar::new().pax(&[("path", name.as_bytes()), ("linkpath", target.as_bytes())]).symlink("short", "short").end();
    let prefixed = {
        let mut block = Header { link: b"p".to_vec(), ..Header::new(b'2', b"last") }.block();
        block[345..350].copy_from_slice(b"first");
        seal(&mut block);
        Tar(block.to_vec()).end()
    };
    for tar in [gnu, pax] {
        let tree = tree_of(&[tar]);
        assert_eq!(tree[Path::new(&name)].content, target.as_bytes());
    }
    assert_eq!(tree_of(&[prefixed])[Path::new("first/last")].content, b"p");
}

#[test]
fn sizes_of_extended_headers_hold() {
    // The header says 0 bytes, the record says 1,024: what follows is data, not an entry.
    let hidden = Header::new(b'0', b"hidden").block();
    let tar = Tar::new().pax(&[("size", b"1024")]).header(&Header::new(b'0', b"x")).bytes(&[hidden, hidden].concat()).file("y", b"").end();
    let tree = tree_of(&[tar]);
    assert_eq!(names(&tree), ["x", "y"]);
    assert_eq!(tree[Path::new("x")].content.len(), 1024);
}

#[test]
fn odd_but_valid_archives_are_taken() {
    let twice = Tar::new().file("x", b"first").file("x", b"second").dir("d").dir("d").end();
    assert_eq!(tree_of(&[twice])[Path::new("x")].content, b"second");
    assert!(tree_of(&[Tar::new().end()]).is_empty(), "an empty archive");
    assert!(tree_of(&[Vec::new()]).is_empty(), "no archive at all");
    let mut after = Tar::new().file("x", b"").end();
    after.extend_from_slice(b"bytes after the end are hashed and ignored");
    assert_eq!(names(&tree_of(&[after])), ["x"]);
    let same = Tar::new().file("x", b"").end();
    assert_eq!(names(&tree_of(&[same.clone(), same])), ["x"], "one layer twice");
    assert_eq!(names(&tree_of(&[Tar::new().file("x", b"").0])), ["x"], "no blocks of zeros at the end");
    let git = Tar::new().with(Header::new(b'g', b"pax_global_header"), &record("comment", b"0123456789")).file("x", b"").end();
    assert_eq!(names(&tree_of(&[git])), ["x"], "as git writes them");
}

#[test]
fn archives_that_are_cut_off_are_refused() {
    let whole = Tar::new().pax(&[("path", b"longer")]).file("x", &[7; 700]).end();
    // Up to the last padding of the file; an archive may lack its end.
    for length in 1..512 * 5 {
        let place = Place::new();
        let error = place.unpack(&image(&[Layer::plain(whole[..length].to_vec())])).unwrap_err().to_string();
        assert!(error.contains("cut off") || error.contains("without its entry"), "{length}: {error}");
    }
}

#[test]
fn zeros_become_holes_and_stay_zeros() {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = vec![0; 1 << 20];
    bytes[600_000] = 7;
    bytes.extend_from_slice(&[0; 100_000]);
    let place = Place::new();
    place.unpack(&image(&[Layer::gzip(&Tar::new().file("x", &bytes).end())])).unwrap();
    assert_eq!(place.tree()[Path::new("x")].content, bytes);
    let file = std::fs::metadata(place.target().join("x")).unwrap();
    assert!(file.blocks() * 512 < 400_000, "{} blocks", file.blocks());
}
