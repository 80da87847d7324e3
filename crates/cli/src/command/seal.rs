//! `swarm seal`: what opens the root key, and who holds the shares of it.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use vocabulary::Sha256Digest;
use vocabulary::api::Done;
use vocabulary::custody::{SealConfirm, SealInit, SealOpen, SealShares, SealStatus};
use zeroize::{Zeroize as _, Zeroizing};

use crate::app::App;
use crate::args::SealVerb;
use crate::client::{Call, Client};
use crate::context::write_private;
use crate::error::CliError;
use crate::prompt;

pub(crate) async fn seal(app: &App, verb: SealVerb) -> Result<(), CliError> {
    match verb {
        SealVerb::Status => {
            let client = outside(app, None, None).await?;
            show(app, &client.send(&Call::get("/v1/seal"), None).await?)
        }
        SealVerb::Open { url, ca_pin, share_file } => {
            let client = outside(app, url.as_deref(), ca_pin.as_deref()).await;
            let client = client.map_err(|error| if url.is_some() { error } else { error.hint("name the server: swarm seal open URL --ca-pin sha256:…") })?;
            open(app, &client, &share_file).await
        }
        SealVerb::Init { shares, threshold, out } => init(app, shares, threshold, out.as_deref()).await,
    }
}

/// A client without a token: a custodian holds a share and needs no login.
async fn outside(app: &App, url: Option<&str>, pin: Option<&str>) -> Result<Client, CliError> {
    if let (Some(url), Some(pin)) = (url, pin) {
        let file = crate::trust::first_contact(url, pin).await?;
        return crate::trust::client(url, &file, None);
    }
    let context = app.context()?;
    crate::trust::client(&context.url, &context.deployment_file, None)
}

fn show(app: &App, status: &SealStatus) -> Result<(), CliError> {
    let mut pairs = vec![("seal", status.state.clone()), ("kind", kind(status)), ("generation", status.generation.to_string())];
    pairs.push(("root epoch", status.epoch.to_string()));
    if status.state == "sealed" && status.threshold.is_some() {
        pairs.push(("entered", progress(status)));
    }
    if let Some(until) = status.until {
        pairs.push(("wiped at", until.to_string()));
    }
    app.output.one(status, &pairs)
}

fn kind(status: &SealStatus) -> String {
    match (status.threshold, status.shares) {
        (Some(threshold), Some(shares)) => format!("{threshold} of {shares} shares open it"),
        _ => "a passphrase opens it (development profile only)".to_owned(),
    }
}

fn progress(status: &SealStatus) -> String {
    let places: Vec<String> = status.entered.iter().map(u8::to_string).collect();
    let which = if places.is_empty() { String::new() } else { format!(" (share {})", places.join(", ")) };
    format!("{} of {}{which}", status.entered.len(), status.threshold.unwrap_or(0))
}

/// Enters shares or the passphrase: from files, from standard input line by line, or as they are typed unseen.
async fn open(app: &App, client: &Client, files: &[PathBuf]) -> Result<(), CliError> {
    let mut status: SealStatus = client.send(&Call::get("/v1/seal"), None).await?;
    if status.state == "open" {
        app.output.say("the seal is open");
        return show(app, &status);
    }
    if status.kind == "passphrase" {
        let passphrase = match files {
            [] => prompt::secret("Passphrase of the seal: ", app.no_input)?,
            [file] => prompt::secret_file(file)?,
            _ => return Err(CliError::usage("this seal opens with one passphrase: give at most one file")),
        };
        status = enter(client, SealOpen { share: None, passphrase: Some(passphrase.to_string()), nonce: None }).await?;
        return show(app, &status);
    }
    let typed = files.is_empty();
    let mut files = files.iter();
    while status.state != "open" {
        let share = if typed {
            let question = format!("A share ({} are entered; nothing to stop): ", progress(&status));
            match prompt::secret(&question, app.no_input) {
                Ok(share) if share.trim().is_empty() => break,
                Ok(share) => share,
                // The lines of standard input are at their end: what is entered waits for other custodians.
                Err(_) if !std::io::stdin().is_terminal() && !app.no_input => break,
                Err(error) => return Err(error),
            }
        } else {
            match files.next() {
                Some(file) => prompt::secret_file(file)?,
                None => break,
            }
        };
        // Another custodian may have entered one meanwhile, or the attempt may have lapsed.
        let now: SealStatus = client.send(&Call::get("/v1/seal"), None).await?;
        match enter(client, SealOpen { share: Some(share.to_string()), passphrase: None, nonce: now.nonce }).await {
            Ok(after) => {
                status = after;
                if status.state != "open" {
                    app.output.say(format!("{} entered", progress(&status)));
                }
            }
            // At a terminal a slip is told and asked again; a program stops at the first one.
            Err(error) if typed && std::io::stdin().is_terminal() && error.problem.is_some() => app.output.say(format!("not taken: {error}")),
            Err(error) => return Err(error),
        }
    }
    show(app, &status)
}

async fn enter(client: &Client, mut body: SealOpen) -> Result<SealStatus, CliError> {
    let call = Call::post("/v1/seal/open", &body);
    body.share.zeroize();
    body.passphrase.zeroize();
    client.send(&call?, None).await
}

/// Draws shares, hands them out, and only then puts them in force.
async fn init(app: &App, shares: u8, threshold: u8, out: Option<&Path>) -> Result<(), CliError> {
    let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal() && !app.output.quiet;
    if out.is_none() && !terminal {
        return Err(CliError::usage("shares are shown at a terminal only").hint("--out FOLDER writes one file of mode 0600 for each custodian"));
    }
    if let Some(folder) = out {
        new_folder(folder)?;
    }
    let client = app.client()?;
    let drawn: SealShares = app.send(&client, &Call::post("/v1/seal/shares", &SealInit { shares, threshold })?).await?;
    let given: Vec<Zeroizing<String>> = drawn.shares.into_iter().map(Zeroizing::new).collect();
    for (place, share) in (1_usize..).zip(&given) {
        match out {
            Some(folder) => write_private(&folder.join(format!("share-{place}.txt")), format!("{}\n", share.as_str()).as_bytes())?,
            None => {
                app.output.say(format!("\nShare {place} of {}, for one custodian alone:\n\n{}\n", given.len(), share.as_str()));
                prompt::line("Written down? ENTER wipes the screen. ", app.no_input)?;
                // Clears the screen and what was scrolled out of it.
                crate::output::note("\u{1b}[2J\u{1b}[3J\u{1b}[H");
            }
        }
    }
    let received = digest(&given);
    drop(given);
    let confirm = Call::post("/v1/seal/confirm", &SealConfirm { generation: drawn.generation, received })?;
    let done: Done = app.send(&client, &confirm).await?;
    if let Some(folder) = out {
        app.output.say(format!("{shares} files in {}: give each to one custodian, and remove them here", folder.display()));
    }
    let mut pairs = vec![
        ("seal", format!("generation {}: {threshold} of {shares} shares open it, and nothing else", drawn.generation)),
        ("done", format!("audit index {}", done.audit_index)),
    ];
    pairs.extend(drawn.notes.iter().map(|note| ("note", note.clone())));
    app.output.one(&done, &pairs)
}

/// SHA-256 of all shares, each with a line feed: the server learns by it that they all arrived.
fn digest(shares: &[Zeroizing<String>]) -> Sha256Digest {
    let parts: Vec<&[u8]> = shares.iter().flat_map(|share| [share.as_bytes(), b"\n"]).collect();
    Sha256Digest::from_bytes(keys::derive::sha256(&parts))
}

/// A folder of mode 0700 that holds no shares yet: old ones beside new ones are how the wrong ones get into envelopes.
fn new_folder(folder: &Path) -> Result<(), CliError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let at = |error: std::io::Error| CliError::usage(format!("{}: {error}", folder.display()));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at)?;
    if std::fs::read_dir(folder).map_err(at)?.next().is_some() {
        return Err(CliError::usage(format!("{} is not empty", folder.display())).hint("name a new folder"));
    }
    Ok(())
}
