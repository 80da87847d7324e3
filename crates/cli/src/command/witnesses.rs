//! `swarm audit witnesses` and `witness-policy`: who signs the log beside its owner.

use std::path::Path;

use audit::note::Note;
use audit::{Checkpoint, VerifierKey, WitnessPolicy};
use vocabulary::witness::{WitnessPolicySet, WitnessState};

use super::verify::{read, witness_policy};
use crate::app::App;
use crate::client::{Call, Client};
use crate::error::CliError;
use crate::output::Format;

pub(crate) async fn list(app: &App, client: &Client) -> Result<(), CliError> {
    let state: WitnessState = client.send(&Call::get("/v1/witnesses"), None).await?;
    if app.output.format != Format::Table {
        return app.output.one(&state, &[]);
    }
    let cosigned = match (state.cosigned_size, state.cosigned_at) {
        (Some(size), Some(at)) => format!("{size} of {} entries, at {at}", state.published_size),
        (_, _) => "nothing yet".to_owned(),
    };
    let pairs = [("quorum", state.quorum.clone()), ("cosigned", cosigned), ("publishing", state.publishing.clone())];
    app.output.one(&state, &pairs)?;
    app.output.list(&state.witnesses, &["name", "in policy", "signed", "said", "key", "url"], |one| {
        vec![
            one.name.clone(),
            if one.in_policy { "yes" } else { "no" }.to_owned(),
            one.signed_size.map_or_else(String::new, |size| size.to_string()),
            one.said.clone().unwrap_or_default(),
            one.key.clone(),
            one.url.clone(),
        ]
    })
}

pub(crate) async fn show(app: &App, client: &Client) -> Result<(), CliError> {
    let bytes = client.get_bytes("/v1/log/witness-policy", None, audit::limits::POLICY_MAX).await?;
    if app.output.format == Format::Table {
        return crate::output::bytes(&bytes);
    }
    let policy = String::from_utf8(bytes.to_vec()).map_err(|_| CliError::verification("the policy is not UTF-8"))?;
    app.output.one(&WitnessPolicySet { policy }, &[])
}

pub(crate) async fn set(app: &App, client: &Client, file: &Path) -> Result<(), CliError> {
    // What is wrong with it is said before anybody is asked for a code.
    let policy = witness_policy(file)?;
    let text = read(file, audit::limits::POLICY_MAX)?;
    let policy_text = String::from_utf8(text).map_err(|_| CliError::usage(format!("{}: not UTF-8", file.display())))?;
    app.output.say(policy.summary());
    super::tenant::done(app, client, &Call::put("/v1/log/witness-policy", &WitnessPolicySet { policy: policy_text })?).await
}

/// What the witnesses say of the log.
pub(crate) struct Judged {
    /// `proved`, `not proved` or `not checked`.
    pub(crate) verdict: &'static str,
    pub(crate) detail: String,
    /// The checkpoint that they signed.
    pub(crate) checkpoint: Option<Checkpoint>,
}

/// Judges the newest cosigned checkpoint by the reader's own policy.
pub(crate) async fn judge(client: &Client, file: Option<&Path>, log: &VerifierKey) -> Result<Judged, CliError> {
    let Some(policy) = file.map(witness_policy).transpose()? else {
        let detail = "name the witnesses that you trust: --witness-policy FILE".to_owned();
        return Ok(Judged { verdict: "not checked", detail, checkpoint: None });
    };
    let bytes = match client.get_bytes("/v1/log/cosigned-checkpoint", None, audit::limits::NOTE_MAX).await {
        Ok(bytes) => bytes,
        Err(error) if error.exit == 3 => {
            return Ok(Judged { verdict: "not proved", detail: "the log has no cosigned checkpoint".to_owned(), checkpoint: None });
        }
        Err(error) => return Err(error),
    };
    by_policy(&policy, &bytes, log)
}

fn by_policy(policy: &WitnessPolicy, bytes: &[u8], log: &VerifierKey) -> Result<Judged, CliError> {
    let refused = |why: String| CliError::verification(format!("the cosigned checkpoint: {why}"));
    let note = Note::parse(bytes).map_err(|error| refused(error.to_string()))?;
    if !policy.logs().is_empty() && !policy.logs().iter().any(|one| one.key == *log) {
        return Ok(Judged { verdict: "not proved", detail: format!("your policy does not name this log: log {log}"), checkpoint: None });
    }
    let (checkpoint, signed) = Checkpoint::verify(&note, log, &policy.witness_keys()).map_err(|error| refused(error.to_string()))?;
    let judged = policy.judge(&signed);
    let names: Vec<&str> = judged.signed.iter().map(|(name, _)| name.as_str()).collect();
    let names = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
    let verdict = match (policy.is_none(), judged.satisfied) {
        (true, _) => "not checked",
        (false, true) => "proved",
        (false, false) => "not proved",
    };
    let detail = format!("your policy asks: {}; {names} signed {} entries", policy.summary(), checkpoint.size);
    Ok(Judged { verdict, detail, checkpoint: Some(checkpoint) })
}

impl Judged {
    /// The leaves that were walked must give the root that the witnesses signed.
    pub(crate) fn fits(&self, leaves: &[Vec<u8>]) -> Result<(), CliError> {
        let Some(checkpoint) = &self.checkpoint else { return Ok(()) };
        let mut tree = audit::walk::CompactTree::new();
        let size = usize::try_from(checkpoint.size).unwrap_or(usize::MAX);
        for leaf in leaves.iter().take(size) {
            tree.push(audit::hash::leaf_hash(leaf));
        }
        if tree.size() == checkpoint.size && tree.root() == checkpoint.root {
            return Ok(());
        }
        if tree.size() < checkpoint.size {
            let why = format!("the witnesses signed {} entries, and the log shows {}: ask again in a second", checkpoint.size, leaves.len());
            return Err(CliError::verification(why));
        }
        Err(CliError::verification("the witnesses signed another log than the one that is shown here: keep both as evidence"))
    }
}
