//! Asking one witness: C2SP's `add-checkpoint`, over a node's channel or over HTTP.

use std::sync::Arc;

use audit::Checkpoint;
use audit::key::{KeyKind, VerifierKey, verifier_of};
use audit::merkle::verify_consistency;
use audit::note::{Note, NoteSignature};
use audit::witness::{AddCheckpoint, origin_hash};
use audit::witness_policy::PolicyKey;

use super::{Place, Witnesses};
use crate::limits::{WITNESS_ANSWER_MAX, WITNESS_DEADLINE, WITNESS_TRIES};
use crate::publisher::Tiles;
use crate::state::Control;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// What came of asking.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It signed the checkpoint.
    Signed {
        line: NoteSignature,
        /// When, seconds since 1970, as the witness says.
        seconds: u64,
    },
    /// It signed a larger one of the same history: somebody asked it for a newer checkpoint meanwhile.
    Ahead(u64),
    /// It shows a checkpoint of this log that this database does not have.
    Contradicts(String),
    /// It does not sign, and says why.
    Refuses(String),
    /// It does not answer, or not in the protocol.
    Silent(String),
}

/// An answer of the protocol.
struct Reply {
    status: u16,
    body: Vec<u8>,
    /// What it shows to monitors, where it did not sign.
    monitored: Option<Vec<u8>>,
}

/// Asks one witness for its signature. `known` is the size that it signed last, as far as we know.
pub(super) async fn ask(control: &Control, witness: &PolicyKey, note: &Note, checkpoint: &Checkpoint, known: u64) -> Outcome {
    match conversation(control, witness, note, checkpoint, known).await {
        Ok(outcome) => outcome,
        Err(error) => Outcome::Silent(error.to_string()),
    }
}

async fn conversation(control: &Control, witness: &PolicyKey, note: &Note, checkpoint: &Checkpoint, known: u64) -> Result<Outcome, Failed> {
    let place = Place::parse(witness.url.as_deref()).ok_or("the policy does not say where it is")?;
    let mut old = known.min(checkpoint.size);
    for _ in 0..WITNESS_TRIES {
        let paths = audit::prove::tiles_for_consistency(old, checkpoint.size);
        let tiles = Tiles::load(&control.blobs, &paths).await?;
        let proof = audit::prove::prove_consistency(&tiles, old, checkpoint.size)?;
        let request = AddCheckpoint { old, proof, note: note.clone() }.encode();
        let reply = control.witnesses.send(&place, &checkpoint.origin, request).await?;
        match reply.status {
            200 => return signed(&witness.key, note, &reply.body),
            409 => {
                let size = std::str::from_utf8(&reply.body).ok().and_then(|text| text.strip_suffix('\n')).and_then(|text| text.parse::<u64>().ok());
                let size = size.ok_or("its answer 409 does not say a size")?;
                if size > checkpoint.size {
                    return larger(control, witness, size, reply.monitored).await;
                }
                if size == old {
                    return Err("it answers 409 with the size that was asked from".into());
                }
                old = size;
            }
            422 => {
                let shown = match &reply.monitored {
                    Some(shown) => contradiction(control, &witness.name, shown).await?,
                    None => None,
                };
                return Ok(shown.map_or_else(|| Outcome::Refuses(told(&reply)), Outcome::Contradicts));
            }
            _ => return Ok(Outcome::Refuses(told(&reply))),
        }
    }
    Ok(Outcome::Silent("it names another size again and again".to_owned()))
}

/// What a refusal says: its status and the first line, printable.
fn told(reply: &Reply) -> String {
    let text = String::from_utf8_lossy(&reply.body);
    let line: String = text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(200).collect();
    format!("{}: {line}", reply.status)
}

/// As the specification tells the log to do: the answer behind the checkpoint is a note; whose line is the witness's is taken.
fn signed(key: &VerifierKey, note: &Note, body: &[u8]) -> Result<Outcome, Failed> {
    let bare = format!("{}\n", note.text());
    let read = Note::parse(&[bare.as_bytes(), body].concat())?;
    let good = read.verify(std::slice::from_ref(key))?;
    let seconds = good.iter().find_map(|one| one.time).ok_or("its signature has no time")?;
    let line = read.signatures().iter().find(|one| one.name == key.name() && one.id == key.id());
    let line = line.cloned().ok_or("its line is missing")?;
    Ok(Outcome::Signed { line, seconds })
}

/// A witness that names a larger size than the checkpoint's: another process may have asked it meanwhile; else it shows what
/// it signed, or it only says so.
async fn larger(control: &Control, witness: &PolicyKey, size: u64, monitored: Option<Vec<u8>>) -> Result<Outcome, Failed> {
    let published = control.store.publisher().await?.map_or(0, |publisher| publisher.size);
    if size <= published {
        return Ok(Outcome::Ahead(size));
    }
    let shown = match monitored {
        Some(shown) => contradiction(control, &witness.name, &shown).await?,
        None => None,
    };
    let unproved = || format!("409: it says that it signed {size} entries, of which {published} are published here, and shows no checkpoint of that size");
    Ok(shown.map_or_else(|| Outcome::Refuses(unproved()), Outcome::Contradicts))
}

/// Whether a checkpoint with this log's own signature shows another history than the database has; then the reason.
async fn contradiction(control: &Control, witness: &str, shown: &[u8]) -> Result<Option<String>, Failed> {
    let key = verifier_of(&control.log, KeyKind::Ed25519)?;
    let Some((seen, _)) = Note::parse(shown).ok().and_then(|note| Checkpoint::verify(&note, &key, &[]).ok()) else { return Ok(None) };
    let publisher = control.store.publisher().await?.ok_or("nothing is published")?;
    Ok(against(control, &seen, publisher.size, publisher.root).await?.map(|why| format!("witness `{witness}`: {why}")))
}

/// Whether a checkpoint that this log signed is of another history than what is published; then in words.
pub(super) async fn against(control: &Control, seen: &Checkpoint, size: u64, root: Option<[u8; 32]>) -> Result<Option<String>, Failed> {
    if seen.size > size {
        return Ok(Some(format!(
            "this log signed a checkpoint of {} entries, and the database has {size} under its last one: it was restored from an older copy. \
             Stop, bring the newer database back and start again; what is signed from here on would be a second history",
            seen.size
        )));
    }
    let root = root.map_or_else(audit::hash::empty_root, audit::Hash::from_bytes);
    let tiles = Tiles::load(&control.blobs, &audit::prove::tiles_for_consistency(seen.size, size)).await?;
    let proof = audit::prove::prove_consistency(&tiles, seen.size, size)?;
    if verify_consistency(seen.size, &seen.root, size, &root, &proof).is_ok() {
        return Ok(None);
    }
    Ok(Some(format!(
        "this log signed a checkpoint of {} entries that the published one of {size} does not extend: the log has two histories. Keep both \
         databases and the witness's checkpoint as evidence",
        seen.size
    )))
}

impl Witnesses {
    async fn send(&self, place: &Place, origin: &str, request: Vec<u8>) -> Result<Reply, Failed> {
        match place {
            Place::Node(node) => {
                let body = String::from_utf8(request)?;
                let answer = self.seats.ask(*node, body, WITNESS_DEADLINE).await.ok_or("the node does not answer")?;
                Ok(Reply { status: answer.status, body: answer.body.into_bytes(), monitored: answer.monitored.map(String::into_bytes) })
            }
            Place::Url(url) => {
                let client = self.client.get_or_init(client).as_ref().map_err(Clone::clone)?;
                let asked = client.post(format!("{url}/add-checkpoint")).header("content-type", "text/plain; charset=utf-8").body(request);
                let (status, body) = fetch(asked).await?;
                let mut monitored = None;
                if matches!(status, 409 | 422) {
                    // Its submission prefix is mostly its monitoring prefix too; where it is not, nothing is shown.
                    let shown = fetch(client.get(format!("{url}/{}/checkpoint", origin_hash(origin)))).await;
                    monitored = shown.ok().filter(|(status, _)| *status == 200).map(|(_, body)| body);
                }
                Ok(Reply { status, body, monitored })
            }
        }
    }
}

async fn fetch(request: reqwest::RequestBuilder) -> Result<(u16, Vec<u8>), Failed> {
    let mut response = request.send().await.map_err(reqwest::Error::without_url)?;
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(reqwest::Error::without_url)? {
        if body.len().saturating_add(piece.len()) > WITNESS_ANSWER_MAX {
            return Err(format!("its answer has more than {WITNESS_ANSWER_MAX} bytes").into());
        }
        body.extend_from_slice(&piece);
    }
    Ok((response.status().as_u16(), body))
}

/// A client for witnesses of others: this machine's certificate authorities, TLS 1.3, no redirect, no proxy.
fn client() -> Result<reqwest::Client, String> {
    use rustls_platform_verifier::BuilderVerifierExt;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(BuilderVerifierExt::with_platform_verifier)
        .map_err(|error| error.to_string())?
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .timeout(WITNESS_DEADLINE)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(|error| error.to_string())
}
