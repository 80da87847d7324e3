//! What the program says and how it ends, where no server is needed: grammar, help, errors, exit codes, both kinds of output.
#![expect(clippy::unwrap_used, reason = "a test that cannot start the program has failed")]

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// One line typed: exit code, standard output, standard error.
#[derive(Debug)]
struct Typed {
    code: i32,
    out: String,
    err: String,
}

fn typed_in(home: &Path, arguments: &[&str], input: &str) -> Typed {
    let mut child = Command::new(env!("CARGO_BIN_EXE_swarm"))
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", home)
        .current_dir(home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that asks nothing may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Typed { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn typed(arguments: &[&str]) -> Typed {
    typed_in(tempfile::tempdir().unwrap().path(), arguments, "")
}

#[test]
fn help_leads_with_first_steps_and_names_every_noun() {
    let help = typed(&["--help"]);
    assert_eq!(help.code, 0);
    for noun in ["up", "down", "doctor", "verify", "job", "image", "node", "volume", "audit", "policy", "deployment", "seal"] {
        assert!(help.out.lines().any(|line| line.trim_start().starts_with(&format!("{noun} "))), "{noun}\n{}", help.out);
    }
    assert!(help.out.contains("First steps:") && help.out.contains("swarm job run") && help.out.contains("Exit codes:"));
    assert!(!help.out.contains("supervised") && !help.out.contains("__shim"));
}

#[test]
fn each_noun_has_its_verbs() {
    for (noun, verbs) in [
        ("job", &["run", "list", "show", "logs", "stop", "receipt"][..]),
        ("image", &["import", "list"]),
        ("node", &["invite", "join", "run", "list", "show", "drain", "undrain", "dedicate", "revoke"]),
        ("quota", &["show", "set"]),
        ("volume", &["create", "put", "get", "list", "verify", "delete"]),
        ("seal", &["status", "open", "init"]),
        ("key", &["list", "inventory", "rotate-tenant", "rotate-root", "rewrap", "destroy", "cancel", "backup-retention"]),
        ("deployment", &["show"]),
    ] {
        let help = typed(&[noun, "--help"]);
        assert_eq!(help.code, 0, "{help:?}");
        for verb in verbs {
            assert!(help.out.lines().any(|line| line.trim_start().starts_with(&format!("{verb} "))), "{noun} {verb}\n{}", help.out);
        }
    }
}

#[test]
fn wrong_usage_ends_with_two_and_suggests() {
    for (arguments, says) in [
        (&["jobs"][..], "a similar subcommand exists: 'job'"),
        (&["job", "receit"], "'receipt'"),
        (&["job", "run", "image"], "--project"),
        (&["job", "run", "image", "--project", "p", "--purpose", "research", "--memory", "1MB"], "no unit"),
        (&["job", "run", "image", "--project", "p", "--purpose", "research", "--env", "noequals"], "KEY=VALUE"),
        (&["job", "run", "image", "--project", "p", "--purpose", "Not A Purpose"], "purpose"),
        (&["job", "show", "not-an-id"], "not-an-id"),
        (&["node", "join", "https://h", "--ca-pin", "sha256:12"], "64 lower-case hexadecimal"),
        (&["node", "invite", "n", "--region", "EU", "--jurisdiction", "EU"], "region"),
        (&["server", "--local-node", "n"], "--local-join"),
        (&["verify"], "FILE"),
    ] {
        let typed = typed(arguments);
        assert_eq!(typed.code, 2, "{arguments:?} {typed:?}");
        assert!(typed.err.contains(says) && typed.out.is_empty(), "{arguments:?} {typed:?}");
    }
}

/// Programs read errors of the command line itself as they read those of the server: one JSON document on standard error.
#[test]
fn local_errors_are_json_where_json_is_asked_for() {
    let home = tempfile::tempdir().unwrap();
    let error = |arguments: &[&str], exit: i32, word: &str| {
        let typed = typed_in(home.path(), arguments, "");
        assert_eq!(typed.code, exit, "{typed:?}");
        assert_eq!((typed.out.as_str(), typed.err.lines().count()), ("", 1), "{typed:?}");
        let told: serde_json::Value = serde_json::from_str(&typed.err).unwrap();
        assert_eq!(told["type"], format!("urn:swarm:local:{word}"), "{told}");
        assert_eq!((told["version"].as_u64(), told["exit"].as_i64()), (Some(1), Some(i64::from(exit))));
        assert!(told["detail"].as_str().is_some_and(|detail| !detail.is_empty() && !detail.starts_with("error")), "{told}");
        told
    };
    // Of the program.
    let told = error(&["-o", "json", "whoami"], 4, "denied");
    assert!(told["hint"].as_str().unwrap().contains("swarm login"), "{told}");
    std::fs::write(home.path().join("deployment.json"), "{}").unwrap();
    error(&["verify", "absent.json", "--deployment", "deployment.json", "-o", "jsonl"], 3, "not_found");
    error(&["verify", "deployment.json", "--deployment", "deployment.json", "--ca-pin", "x", "--format=json"], 2, "usage");
    // Of the grammar.
    for arguments in [&["jobs", "-o", "json"][..], &["-ojson", "job", "receit"], &["--format", "jsonl", "job", "show"], &["-o=json", "whoami", "--nonsense"]] {
        error(arguments, 2, "usage");
    }
    let told = error(&["-o", "json", "jobs"], 2, "usage");
    assert!(told["hint"].as_str().unwrap().contains("'job'"), "{told}");
    // What is no error stays what it is, and what comes after `--` is no flag.
    assert_eq!(typed(&["-o", "json", "--help"]).code, 0);
    assert!(typed(&["jobs", "--", "-o", "json"]).err.starts_with("error: "));
    assert!(typed(&["-o", "json", "jobs", "-o", "table"]).err.starts_with("error: "), "the last one counts");
}

#[test]
fn what_needs_a_login_says_how_to_get_one() {
    for arguments in [
        &["job", "list"][..],
        &["job", "run", "image", "--project", "p", "--purpose", "research", "--", "true"],
        &["job", "receipt", "01890000-0000-7000-8000-000000000000"],
        &["image", "list"],
        &["node", "list"],
        &["node", "revoke", "n"],
        &["deployment", "show"],
        &["seal", "status"],
        &["whoami"],
    ] {
        let typed = typed(arguments);
        assert_eq!(typed.code, 4, "{arguments:?} {typed:?}");
        assert!(typed.err.contains("error: context `default` is not there") && typed.err.contains("hint: log in: swarm login"), "{typed:?}");
        assert!(typed.out.is_empty());
    }
}

#[test]
fn without_a_home_only_logins_fail() {
    let alone = |arguments: &[&str]| Command::new(env!("CARGO_BIN_EXE_swarm")).args(arguments).env_clear().output().unwrap();
    assert_eq!(alone(&["explain", "sealed"]).status.code(), Some(0));
    let refused = alone(&["whoami"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--config-dir"));
}

#[test]
fn a_login_that_others_can_read_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(".config/swarm");
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("default.json");
    std::fs::write(&file, r#"{"url":"https://127.0.0.1:1","deployment_file":"","token":"swm_x"}"#).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = typed_in(home.path(), &["whoami"], "");
    assert_eq!(open.code, 4);
    assert!(open.err.contains("has mode 644") && open.err.contains("hint: chmod 600") && !open.err.contains("swm_x"), "{open:?}");
}

#[test]
fn explain_knows_every_code_in_every_format() {
    let one = typed(&["explain", "release_refused"]);
    assert_eq!(one.code, 0);
    assert!(one.out.contains("exit code    7"), "{one:?}");
    let json: serde_json::Value = serde_json::from_str(&typed(&["explain", "-o", "json"]).out).unwrap();
    assert_eq!(json["version"], 1);
    assert!(json["items"].as_array().unwrap().iter().any(|item| item["code"] == "no_placement"));
    assert_eq!(typed(&["explain", "-o", "jsonl"]).out.lines().count(), json["items"].as_array().unwrap().len());
    let unknown = typed(&["explain", "no\u{1b}[31msuch"]);
    assert_eq!(unknown.code, 3);
    assert!(unknown.err.contains("\\u{1b}[31m") && !unknown.err.contains('\u{1b}'), "{unknown:?}");
}

#[test]
fn verify_judges_offline_and_fails_with_six() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name).display().to_string();
    std::fs::write(at("receipt.json"), b"{}").unwrap();
    std::fs::write(at("deployment.json"), b"{\"\x1b[31m\":1}").unwrap();
    let failed = typed_in(home.path(), &["verify", "receipt.json", "--deployment", "deployment.json"], "");
    assert_eq!(failed.code, 6);
    assert!(failed.out.starts_with("NOT PROVED   "), "{failed:?}");
    assert!(failed.out.contains("[independent tool]") && failed.out.contains("DOES NOT VERIFY"), "{failed:?}");
    assert!(failed.err.contains("error: the receipt does not verify") && failed.err.contains("hint: "), "{failed:?}");
    assert!(!failed.out.contains('\u{1b}') && !failed.err.contains('\u{1b}'));
    let json = typed_in(home.path(), &["verify", "-", "--deployment", "deployment.json", "-o", "json"], "not a receipt");
    assert_eq!(json.code, 6);
    let report: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((&report["ok"], &report["lines"][0]["verdict"]), (&serde_json::json!(false), &serde_json::json!("not_proved")));
    // Nothing to compare with, and nothing to verify.
    let unknown = typed_in(home.path(), &["verify", "receipt.json"], "");
    assert_eq!(unknown.code, 4);
    assert!(unknown.err.contains("--deployment"), "{unknown:?}");
    assert_eq!(typed_in(home.path(), &["verify", "absent.json", "--deployment", "deployment.json"], "").code, 3);
    assert_eq!(typed_in(home.path(), &["verify", "receipt.json", "--deployment", "absent.json"], "").code, 3);
    assert_eq!(typed_in(home.path(), &["verify", "receipt.json", "--deployment", "deployment.json", "--ca-pin", "x"], "").code, 2);
}

#[test]
fn doctor_says_what_is_there_and_what_its_absence_costs() {
    let json = typed(&["doctor", "-o", "json"]);
    let seen: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    let facts = seen["facts"].as_array().unwrap();
    for name in ["user_namespace", "cgroups", "idmapped_overlay", "seccomp", "landlock", "fscrypt", "fuse", "tun", "ebpf", "tpm", "sev_snp"] {
        let fact = facts.iter().find(|fact| fact["name"] == name).unwrap_or_else(|| panic!("{name} is not told: {seen}"));
        assert!(fact["present"].is_boolean() && !fact["cost_of_absence"].as_str().unwrap().is_empty());
    }
    let needed = facts.iter().filter(|fact| fact["needed"] == true);
    let whole = needed.clone().count() == 14 && needed.clone().all(|fact| fact["present"] == true);
    assert_eq!((seen["jobs"].as_bool(), json.code), (Some(whole), i32::from(!whole)), "{json:?}");
    let table = typed(&["doctor"]);
    assert_eq!(table.code, json.code);
    assert_eq!(table.out.contains("This machine can run jobs."), whole);
    assert_eq!(table.err.contains("cannot run jobs"), !whole);
}

#[test]
fn images_that_are_none_are_refused_before_anything_is_asked_of_a_server() {
    let home = tempfile::tempdir().unwrap();
    let refused = typed_in(home.path(), &["image", "import", "absent.tar", "--name", "x"], "");
    assert!(matches!(refused.code, 1 | 2), "{refused:?}");
    assert!(refused.err.contains("absent.tar"), "{refused:?}");
}

#[test]
fn up_down_and_server_refuse_before_they_do_anything() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data").display().to_string();
    let root = rustix::process::geteuid().is_root();
    let erase = typed_in(home.path(), &["down", "--data-dir", &data, "--erase", "--yes"], "");
    assert_eq!(erase.code, if root { 3 } else { 4 }, "{erase:?}");
    let nothing = typed_in(home.path(), &["down", "--data-dir", &data], "");
    assert_eq!(nothing.code, 0);
    assert!(nothing.err.contains("nothing runs"), "{nothing:?}");
    assert!(!home.path().join("data").exists());
    let open = home.path().join("passphrase");
    std::fs::write(&open, b"correct horse battery staple\n").unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = open.display().to_string();
    let server = typed_in(home.path(), &["server", "--data-dir", &data, "--listen", "127.0.0.1:0", "--passphrase-file", &open], "");
    assert_eq!(server.code, 2, "{server:?}");
    assert!(server.err.contains("has mode 644") && !server.err.contains("battery") && !home.path().join("data").exists(), "{server:?}");
    let up = typed_in(home.path(), &["up", "--data-dir", &data, "--passphrase-file", &open, "--user", "root"], "");
    if root {
        assert_eq!(up.code, 2, "{up:?}");
        assert!(up.err.contains("has mode 644") && !home.path().join("data/server/state.db").exists(), "{up:?}");
    } else {
        assert_eq!(up.code, 4, "{up:?}");
        assert!(up.err.contains("needs root") && up.err.contains("hint: sudo swarm up"), "{up:?}");
    }
    assert_eq!(typed_in(home.path(), &["up", "--profile", "strict"], "").code, if root { 2 } else { 4 });
}

#[test]
fn prompts_fail_where_nobody_can_answer() {
    let home = tempfile::tempdir().unwrap();
    let quiet = typed_in(home.path(), &["server", "--data-dir", "data", "--no-input"], "");
    assert_eq!(quiet.code, 2);
    assert!(quiet.err.contains("--no-input"), "{quiet:?}");
    let ended = typed_in(home.path(), &["server", "--data-dir", "data"], "");
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains("standard input ended"), "{ended:?}");
    let join = typed_in(home.path(), &["node", "join", "https://127.0.0.1:1", "--ca-pin", &format!("sha256:{}", "0".repeat(64)), "--enrol-only", "--no-input"], "");
    assert_eq!(join.code, 2, "{join:?}");
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let child = Command::new("sh")
        .args(["-c", &format!("{} explain | head -n 1", env!("CARGO_BIN_EXE_swarm"))])
        .output()
        .unwrap();
    assert!(child.status.success() && child.stderr.is_empty(), "{}", String::from_utf8_lossy(&child.stderr));
}

#[test]
fn the_manual_has_a_page_for_every_command() {
    let home = tempfile::tempdir().unwrap();
    assert_eq!(typed_in(home.path(), &["man", "."], "").code, 0);
    let page = std::fs::read_to_string(home.path().join("swarm-job-run.1")).unwrap();
    assert!(page.contains("\\-\\-time\\-limit") && page.contains(".SH OPTIONS"), "{page}");
    assert!(home.path().join("swarm.1").exists() && !home.path().join("swarm-man.1").exists());
}

#[test]
fn a_release_is_verified_by_its_key() {
    let home = tempfile::tempdir().unwrap();
    let script = "printf package > swarm.deb; sha256sum swarm.deb > SHA256SUMS; openssl genpkey -algorithm ed25519 -out secret.pem;
        openssl pkey -in secret.pem -pubout -out release.pem; openssl pkeyutl -sign -inkey secret.pem -rawin -in SHA256SUMS -out SHA256SUMS.sig";
    assert!(Command::new("sh").args(["-ec", script]).current_dir(home.path()).status().unwrap().success());
    let verify = ["verify", "SHA256SUMS", "--release-key", "release.pem"];
    let good = typed_in(home.path(), &verify, "");
    assert_eq!(good.code, 0, "{}", good.err);
    assert!(good.out.contains("The release verifies: 2 proved, 0 not checked"), "{}", good.out);
    std::fs::write(home.path().join("swarm.deb"), "evil").unwrap();
    let bad = typed_in(home.path(), &verify, "");
    assert_eq!(bad.code, 6);
    assert!(bad.out.contains("NOT PROVED   swarm.deb") && bad.err.contains("do not install it"), "{}{}", bad.out, bad.err);
    std::fs::remove_file(home.path().join("SHA256SUMS.sig")).unwrap();
    assert_eq!(typed_in(home.path(), &verify, "").code, 3, "a list without a signature");
}

#[test]
fn whoever_is_logged_in_verifies_against_the_pinned_deployment() {
    let home = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../receipt/testdata/golden");
    let file = std::fs::read_to_string(golden.join("deployment.json")).unwrap();
    let (receipt, deployment) = (golden.join("receipt.json"), golden.join("deployment.json"));
    let verify = ["--config-dir", "contexts", "verify", receipt.to_str().unwrap(), "--deployment", deployment.to_str().unwrap()];
    let stranger = typed_in(home.path(), &verify, "");
    assert!(stranger.out.contains("not checked  the root is the pinned one"), "{}{}", stranger.out, stranger.err);
    let contexts = home.path().join("contexts");
    std::fs::create_dir(&contexts).unwrap();
    let context = contexts.join("default.json");
    let remember = |file: &str| {
        std::fs::write(&context, serde_json::json!({ "url": "https://127.0.0.1:1", "deployment_file": file }).to_string()).unwrap();
        std::fs::set_permissions(&context, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    remember(&file);
    let member = typed_in(home.path(), &verify, "");
    assert!(member.out.contains("proved       the root is the pinned one"), "{}{}", member.out, member.err);
    // A login that cannot be read must not let another deployment pass.
    remember("{}");
    assert_eq!(typed_in(home.path(), &verify, "").code, 6);
}
