//! A seal of several people's shares, as custodians and an operator steer it.

use e2e::{Person, Plane, text};

#[test]
fn custodians_open_what_no_single_person_can() {
    let folder = tempfile::Builder::new().prefix("swarm-test-").tempdir().unwrap();
    let (program, data) = (e2e::program().unwrap(), folder.path().join("plane"));
    let mut plane = Plane::start(&program, &data, &[]).unwrap();
    let operator = plane.shell("operator");
    let mut admin = Person::new("admin", "a long password of the tests");
    admin.enrol(&operator, plane.url(), plane.ca_pin(), &plane.ticket().unwrap(), Some("operator")).unwrap();
    operator.typed(&["tenant", "create", "clinic", "--admin", "admin"]).unwrap().ok().unwrap();
    assert_eq!(operator.json(&["seal", "status"]).unwrap()["kind"], "passphrase");

    // Without a fresh code nobody is given shares.
    let shares = folder.path().join("shares");
    let init = ["seal", "init", "--shares", "3", "--threshold", "2", "--out", text(&shares).unwrap()];
    operator.typed_with(&init, "000000\n").unwrap().refused(4).unwrap();
    assert_eq!(operator.json(&["seal", "status"]).unwrap()["kind"], "passphrase");
    std::fs::remove_dir_all(&shares).ok();
    let code = admin.code().unwrap();
    operator.typed_with(&init, &format!("{code}\n")).unwrap().ok().unwrap();
    let share = |place: u8| shares.join(format!("share-{place}.txt"));
    let status = operator.json(&["seal", "status"]).unwrap();
    assert_eq!((&status["state"], &status["threshold"], &status["shares"]), (&"open".into(), &2.into(), &3.into()));

    // The root key moves on while the server runs, and all that lies under it comes along.
    let code = admin.code().unwrap();
    operator.typed_with(&["key", "rotate-root"], &format!("{code}\n")).unwrap().ok().unwrap();
    operator.typed(&["key", "rewrap", "--root", "--follow"]).unwrap().ok().unwrap();
    assert_eq!(operator.json(&["seal", "status"]).unwrap()["epoch"], 2);
    let inventory = operator.typed(&["key", "inventory", "--platform"]).unwrap().ok().unwrap().out();
    assert!(inventory.contains("log-key") && inventory.contains("root-ca"), "{inventory}");
    plane.stop().unwrap();

    // The passphrase of old opens nothing.
    let arguments = Plane::command_line(&data, &[]).unwrap();
    let told = operator.typed(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).unwrap().refused(1).unwrap();
    assert!(told.contains("share"), "{told}");

    // With nothing at hand it starts sealed: it says what opens it, and nothing else.
    let mut plane = Plane::start_sealed(&program, &data).unwrap();
    let operator = plane.shell_of(&operator).unwrap();
    let status = operator.json(&["seal", "status"]).unwrap();
    assert_eq!((&status["state"], &status["kind"]), (&"sealed".into(), &"shares".into()));
    let told = operator.typed(&["tenant", "list"]).unwrap().refused(1).unwrap();
    assert!(told.contains("sealed"), "{told}");
    // A custodian needs no login, only the pin.
    let custodian = plane.shell("custodian");
    let (url, pin) = (plane.url().to_owned(), plane.ca_pin().to_owned());
    let enter = |file: &std::path::Path| custodian.typed(&["seal", "open", &url, "--ca-pin", &pin, "--share-file", text(file).unwrap()]).unwrap();
    enter(&share(1)).ok().unwrap();
    // What is no share of this seal is named, and changes nothing.
    let told = enter(&share(1));
    assert!(told.code() != Some(0) && told.err().contains("share 1"), "{}", told.err());
    let right = std::fs::read_to_string(share(2)).unwrap();
    let slip = folder.path().join("slip");
    let (head, tail) = right.split_at(right.len() / 2);
    let other = if tail.starts_with('q') { 'p' } else { 'q' };
    let rest: String = tail.chars().skip(1).collect();
    e2e::write_private(&slip, &format!("{head}{other}{rest}")).unwrap();
    let told = enter(&slip);
    assert!(told.code() != Some(0), "a mistyped share was taken");
    assert!(!told.err().contains(right.trim()) && !told.err().contains(tail.trim()), "a share was repeated: {}", told.err());
    assert_eq!(operator.json(&["seal", "status"]).unwrap()["entered"], serde_json::json!([1]));
    enter(&share(3)).ok().unwrap();
    e2e::wait_for("the open server", std::time::Duration::from_secs(60), || {
        let answer = operator.typed(&["tenant", "list"])?;
        Ok((answer.code() == Some(0) && answer.out().contains("clinic")).then_some(()))
    })
    .unwrap();
    // No share is left where it could be found.
    for place in 1..=3 {
        let share = std::fs::read_to_string(share(place)).unwrap();
        assert!(!plane.log().contains(share.trim()));
    }
    plane.stop().unwrap();
}
