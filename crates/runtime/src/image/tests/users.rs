//! Who the program runs as.

use crate::image::resolve_user;
use std::path::Path;

fn tree() -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    std::fs::create_dir(tree.path().join("etc")).unwrap();
    std::fs::write(
        tree.path().join("etc/passwd"),
        b"root:x:0:0:root:/root:/bin/sh\n# a comment\nshort:x:1\napp:x:1000:1001::/:\napp:x:7:7::/:\nhigh:x:70000:1::/:\nbad:x:one:1::/:\n\xc3\x28:x:5:5::/:\n12:x:9:9::/:\n",
    )
    .unwrap();
    std::fs::write(tree.path().join("etc/group"), "root:x:0:\nstaff:x:50:app\nhigh:x:65536:\n").unwrap();
    tree
}

#[test]
fn users_are_found_in_the_image() {
    let tree = tree();
    for (user, ids) in [
        ("", (0, 0)),
        ("root", (0, 0)),
        ("app", (1000, 1001)),
        ("app:staff", (1000, 50)),
        ("app:5", (1000, 5)),
        ("1000", (1000, 1001)),
        ("1234", (1234, 0)),
        ("12", (12, 0)),
        ("0:0", (0, 0)),
        ("65535:65535", (65535, 65535)),
        ("42:staff", (42, 50)),
    ] {
        assert_eq!(resolve_user(tree.path(), user).unwrap(), ids, "{user}");
    }
}

#[test]
fn unknown_and_impossible_users_are_refused() {
    let tree = tree();
    for (user, rule) in [
        ("nobody", "not in the image's /etc/passwd"),
        ("app:nogroup", "not in the image's /etc/group"),
        ("65536", "not below 65536"),
        ("0:4294967296", "not below 65536"),
        ("high", "not below 65536"),
        ("app:high", "not below 65536"),
        ("bad", "no numbers"),
        ("short", "not in the image's /etc/passwd"),
        ("-1", "not in the image's /etc/passwd"),
        ("+1", "not in the image's /etc/passwd"),
        (":0", "empty"),
        ("app:", "empty"),
        (":", "empty"),
        ("app:staff:x", "not in the image's /etc/group"),
        ("99999999999999999999", "not below 65536"),
    ] {
        let text = resolve_user(tree.path(), user).unwrap_err().to_string();
        assert!(text.contains(rule), "`{text}` does not say `{rule}`");
    }
}

#[test]
fn the_files_are_those_of_the_image() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("passwd"), "outside:x:0:0::/:\n").unwrap();
    let tree = place.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::create_dir(tree.join("etc")).unwrap();
    // The host's `/etc/passwd` and one beside the tree.
    for target in ["/etc/passwd", "../../passwd", "/proc/self/root/etc/passwd"] {
        let _ = std::fs::remove_file(tree.join("etc/passwd"));
        std::os::unix::fs::symlink(target, tree.join("etc/passwd")).unwrap();
        for user in ["outside", "root"] {
            assert!(resolve_user(&tree, user).is_err(), "{target} {user}");
        }
        assert_eq!(resolve_user(&tree, "5").unwrap(), (5, 0));
    }
    std::fs::write(tree.join("real"), "inside:x:8:9::/:\n").unwrap();
    std::fs::remove_file(tree.join("etc/passwd")).unwrap();
    std::os::unix::fs::symlink("/real", tree.join("etc/passwd")).unwrap();
    assert_eq!(resolve_user(&tree, "inside").unwrap(), (8, 9));
}

#[test]
fn files_that_are_none_or_too_large_are_refused() {
    let tree = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(tree.path().join("etc/passwd")).unwrap();
    assert!(resolve_user(tree.path(), "root").unwrap_err().to_string().contains("no regular file"));
    std::fs::remove_dir(tree.path().join("etc/passwd")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, tree.path().join("etc/passwd"), rustix::fs::Mode::RUSR).unwrap();
    assert!(resolve_user(tree.path(), "root").unwrap_err().to_string().contains("no regular file"));
    std::fs::remove_file(tree.path().join("etc/passwd")).unwrap();
    std::fs::write(tree.path().join("etc/passwd"), "x".repeat((1 << 20) + 1)).unwrap();
    assert!(resolve_user(tree.path(), "root").unwrap_err().to_string().contains("larger than"));
    assert!(resolve_user(Path::new("/not/there"), "root").is_err());
}
