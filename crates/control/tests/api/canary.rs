//! Secrets through every route: they come back in no answer, no log line and no file.

use std::io::Write;
use std::sync::{Arc, Mutex};

use control::routes;
use serde_json::{Value, json};

use super::examples::{NOBODY, example, things};
use super::support::{Ask, PASSPHRASE, PASSWORD, World};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Puts the canary into every text of a body that is no id, and says whether there was one.
fn poison(value: &mut Value, canary: &str) {
    match value {
        Value::String(text) => *text = canary.to_owned(),
        Value::Array(items) => items.iter_mut().for_each(|item| poison(item, canary)),
        Value::Object(fields) => fields.values_mut().for_each(|item| poison(item, canary)),
        Value::Null | Value::Bool(_) | Value::Number(_) => (),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_come_back_nowhere() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::set_global_default(subscriber).expect("this test has its process for itself");

    let mut world = World::new().await;
    let mut things = things(&mut world).await;
    things.insert("nobody", NOBODY.to_owned());
    const CANARY: &str = "Canary-7f3a-secret-value";
    for route in routes() {
        let ask = example(route.id, route.method, route.path, &things);
        // As a credential, by nobody.
        let mut answers = vec![
            world.server.ask(Some(CANARY), ask.clone()).await,
            world.server.ask(Some(&format!("swm_ses_{CANARY}")), ask.clone()).await,
        ];
        // As a password, a code, a ticket.
        if let Some(Value::Object(mut fields)) = ask.body.clone() {
            for name in ["password", "code", "ticket", "token"] {
                if fields.contains_key(name) {
                    fields.insert(name.to_owned(), json!(CANARY));
                }
            }
            let mut secret = ask.clone();
            secret.body = Some(Value::Object(fields));
            let login = matches!(route.id, "token_login" | "enrolment_begin" | "enrolment_complete" | "node_enrol" | "step_up_confirm");
            if login {
                answers.push(world.alice(secret).await);
            }
        }
        for answer in answers {
            assert!(!answer.text().contains(CANARY), "{}: {}", route.id, answer.text());
            assert!(!format!("{:?}", answer.headers).contains(CANARY), "{}", route.id);
        }
        // In every other text it may be quoted to whoever sent it, but is not logged.
        if let Some(mut body) = ask.body.clone() {
            poison(&mut body, CANARY);
            let mut poisoned = ask.clone();
            poisoned.body = Some(body);
            world.alice(poisoned).await;
        }
    }
    // What was really used: password, passphrase, tokens.
    let (alice, bob, operator) = (world.alice_token.clone(), world.bob_token.clone(), world.operator_token.clone());
    let audit = world.alice(Ask::get("/v1/audit?limit=1000")).await.text();
    let metrics = world.server.metrics().await;
    let kept = world.server.stop().await;
    let folder = kept.path().to_path_buf();
    let log = String::from_utf8_lossy(&lines.0.lock().unwrap()).into_owned();
    assert!(log.contains("refused") || log.len() > 100, "nothing was logged: the test sees nothing");
    let secrets = [CANARY, PASSWORD, PASSPHRASE, &alice, &bob, &operator];
    for secret in secrets {
        if let Some(line) = log.lines().find(|line| line.contains(secret)) {
            panic!("a secret is logged: {}", line.chars().take(400).collect::<String>());
        }
        assert!(!audit.contains(secret) && !metrics.contains(secret));
    }
    // No file holds them, nor the secret half of a token.
    let mut folders = vec![folder];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for item in std::fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let bytes = std::fs::read(&path).unwrap();
            for secret in secrets {
                let half = secret.rsplit('_').next().unwrap();
                assert!(!bytes.windows(half.len()).any(|window| window == half.as_bytes()), "{} holds a secret", path.display());
            }
        }
    }
    assert!(files > 3);
}
