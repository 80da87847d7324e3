//! The life of keys as a person steers it, and what the log says of it.

use e2e::{World, text};

#[test]
fn old_data_stays_readable_under_new_keys_and_dies_with_its_volume() {
    let mut world = World::new().unwrap();
    world.volume("notes").unwrap();
    let put = |world: &World, name: &str, content: &[u8]| {
        let file = world.file(name, content).unwrap();
        world.tenant.typed(&["volume", "put", "notes", text(&file).unwrap()]).unwrap().ok().unwrap();
    };
    put(&world, "before", b"one");
    world.tenant.typed(&["volume", "rotate", "notes"]).unwrap().ok().unwrap();
    put(&world, "between", b"two");
    let code = world.admin.code().unwrap();
    world.tenant.typed_with(&["key", "rotate-tenant"], &format!("{code}\n")).unwrap().ok().unwrap();
    put(&world, "after", b"three");
    let opened = world.folder().join("opened");
    world.tenant.typed(&["volume", "get", "notes", text(&opened).unwrap()]).unwrap().ok().unwrap();
    for (name, content) in [("before", "one"), ("between", "two"), ("after", "three")] {
        assert_eq!(std::fs::read_to_string(opened.join(name)).unwrap(), content);
    }
    let keys = world.tenant.typed(&["key", "list"]).unwrap().ok().unwrap().out();
    assert!(keys.contains("deactivated") && keys.contains("active"), "{keys}");

    // Without the confirmation nothing is deleted; with it the keys are gone, and so is what they sealed.
    world.tenant.typed_with(&["volume", "delete", "notes", "--yes"], "000000\n").unwrap().refused(4).unwrap();
    world.tenant.typed(&["volume", "verify", "notes"]).unwrap().ok().unwrap();
    let code = world.admin.code().unwrap();
    world.tenant.typed_with(&["volume", "delete", "notes", "--yes"], &format!("{code}\n")).unwrap().ok().unwrap();
    world.tenant.typed(&["volume", "get", "notes", text(&world.folder().join("gone")).unwrap()]).unwrap().refused(3).unwrap();
    let keys = world.tenant.typed(&["key", "list"]).unwrap().ok().unwrap().out();
    assert!(keys.contains("destroyed"), "{keys}");

    // All of it is in the log, which is searched, verified and written out.
    let found = world.tenant.typed(&["audit", "search", "--action", "volumeDelete"]).unwrap().ok().unwrap().out();
    assert!(found.contains("volumeDelete"), "{found}");
    assert!(!world.tenant.typed(&["audit", "tail"]).unwrap().ok().unwrap().out().is_empty());
    world.tenant.typed(&["audit", "verify"]).unwrap().ok().unwrap();
    let export = world.folder().join("export");
    world.tenant.typed(&["audit", "export", text(&export).unwrap()]).unwrap().ok().unwrap();
    assert!(std::fs::read_dir(&export).unwrap().count() >= 2, "a checkpoint and what it covers");
    world.close().unwrap();
}
