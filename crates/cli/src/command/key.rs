//! `swarm key`: the inventory and the life of keys, never the keys themselves.

use std::time::Duration;

use vocabulary::UnixTime;
use vocabulary::api::KeyInfo;
use vocabulary::custody::{BackupRetention, Inventory, KeyDestroy, Rewrap, RootRotated, Scheduled};

use crate::app::App;
use crate::args::KeyVerb;
use crate::client::{Call, Client};
use crate::command::tenant::done;
use crate::error::CliError;

pub(crate) async fn key(app: &App, verb: KeyVerb) -> Result<(), CliError> {
    let client = app.client()?;
    match verb {
        KeyVerb::List => {
            let keys: Vec<KeyInfo> = app.all(&client, "/v1/keys").await?;
            app.output.list(&keys, &["id", "version", "purpose", "owner", "state", "created", "shredding"], |key| {
                vec![
                    key.id.to_string(),
                    key.version.to_string(),
                    key.purpose.clone(),
                    key.owner.clone(),
                    key.state.clone(),
                    key.created.to_string(),
                    shredding(key, crate::app::now()),
                ]
            })
        }
        KeyVerb::RotateTenant => done(app, &client, &Call::new(reqwest::Method::POST, "/v1/tenant-key/rotate")).await,
        KeyVerb::RotateRoot => {
            let rotated: RootRotated = app.send(&client, &Call::new(reqwest::Method::POST, "/v1/root-key/rotate")).await?;
            let mut pairs = vec![("root epoch", rotated.epoch.to_string()), ("done", format!("audit index {}", rotated.audit_index))];
            pairs.extend(rotated.notes.iter().map(|note| ("note", note.clone())));
            app.output.one(&rotated, &pairs)
        }
        KeyVerb::Rewrap { root, follow } => rewrap(app, &client, if root { "/v1/root-key/rewrap" } else { "/v1/tenant-key/rewrap" }, follow).await,
        KeyVerb::Inventory { platform } => {
            let path = if platform { "/v1/platform-key-inventory" } else { "/v1/key-inventory" };
            let inventory: Inventory = client.send(&Call::get(path), None).await?;
            app.output.list(&inventory.purposes, &["purpose", "algorithm", "bits", "under", "states", "oldest active", "next rotation", "rotation"], |line| {
                let states: Vec<String> = line.states.iter().map(|(state, count)| format!("{count} {state}")).collect();
                let time = |time: Option<UnixTime>| time.map_or_else(|| "-".to_owned(), |time| time.to_string());
                vec![
                    line.purpose.clone(),
                    line.algorithm.clone(),
                    line.bits.to_string(),
                    line.under.clone(),
                    if states.is_empty() { "none".to_owned() } else { states.join(", ") },
                    time(line.oldest_active),
                    time(line.next_rotation),
                    line.rotation.clone(),
                ]
            })
        }
        KeyVerb::Destroy { id, wait, yes } => {
            app.confirm_by_name("key", &id.to_string(), yes)?;
            let call = Call::post(format!("/v1/keys/{id}/destroy"), &KeyDestroy { wait_days: Some(wait) })?;
            let scheduled: Scheduled = app.send(&client, &call).await?;
            let mut pairs = vec![
                ("opens", "nothing opens it from now on".to_owned()),
                ("gone", format!("from the living system at {}; until then: swarm key cancel {id}", scheduled.due)),
                ("shredded", format!("unrecoverable from backups at {}, and pending until then", scheduled.unrecoverable_since)),
                ("done", format!("audit index {}", scheduled.audit_index)),
            ];
            pairs.extend(scheduled.notes.iter().map(|note| ("note", note.clone())));
            app.output.one(&scheduled, &pairs)
        }
        KeyVerb::Cancel { id } => done(app, &client, &Call::new(reqwest::Method::POST, format!("/v1/keys/{id}/cancel-destruction"))).await,
        KeyVerb::BackupRetention { days } => done(app, &client, &Call::post("/v1/backup-retention", &BackupRetention { days })?).await,
    }
}

/// The two dates of a key's shredding, or what is known of them.
fn shredding(key: &KeyInfo, now: UnixTime) -> String {
    match (key.destroy_at, key.gone_since, key.unrecoverable_since) {
        (Some(at), _, _) => format!("scheduled for {at}"),
        (None, Some(gone), Some(backups)) if now.since(backups).is_none() => format!("gone since {gone}; pending in backups until {backups}"),
        (None, Some(gone), Some(backups)) => format!("gone since {gone}; unrecoverable since {backups}"),
        _ => "-".to_owned(),
    }
}

/// How often the server is asked while somebody follows.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

async fn rewrap(app: &App, client: &Client, path: &str, follow: bool) -> Result<(), CliError> {
    let mut told = None;
    loop {
        let state: Rewrap = client.send(&Call::get(path), None).await?;
        if !follow || state.left == 0 {
            let lines: Vec<(String, String)> = state
                .versions
                .iter()
                .map(|line| (format!("version {}", line.version), format!("{}, {} keys, made {}", line.state, line.keys, line.created)))
                .collect();
            let left = format!("{} keys are left under old versions", state.left);
            let mut pairs = vec![("rewrap", if state.left == 0 { "done: nothing lies under an old version".to_owned() } else { left })];
            pairs.extend(lines.iter().map(|(name, value)| (name.as_str(), value.clone())));
            return app.output.one(&state, &pairs);
        }
        if told != Some(state.left) {
            app.output.say(format!("{} keys left", state.left));
            told = Some(state.left);
        }
        tokio::time::sleep(FOLLOW_EVERY).await;
    }
}
