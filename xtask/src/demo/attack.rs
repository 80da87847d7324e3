//! The demo attacks what it has made. Each attack must be refused; one that works ends the demo.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use e2e::Person;
use serde_json::Value;

use super::stage::{check, refused, say};
use super::{World, text, verify_offline};

/// Exit codes of `swarm`.
const DENIED: i32 = 4;
const NOT_FOUND: i32 = 3;
const VERIFICATION: i32 = 6;

pub(crate) fn all(world: &World, admin: &mut Person, job: &str, receipt: &Path) -> anyhow::Result<()> {
    revoked_token(world)?;
    other_tenant(world, admin, job)?;
    flipped_byte(world)?;
    rolled_back_root(world)?;
    doctored_receipt(world, receipt)?;
    escape(world)
}

/// A token that was revoked opens nothing.
fn revoked_token(world: &World) -> anyhow::Result<()> {
    let issued = world.clinic.json(&["token", "create", "thief", "--lifetime", "3600"])?;
    let field = |key: &str| issued.get(key).and_then(Value::as_str).with_context(|| format!("the token has no `{key}`"));
    let thief = world.deployment.shell("thief").watched(super::stage::typed);
    let login = ["login", world.deployment.url(), "--ca-pin", world.deployment.ca_pin(), "--token-stdin"];
    thief.typed_with(&login, &format!("{}\n", field("token")?))?.ok()?;
    thief.typed(&["volume", "list"])?.ok()?;
    world.clinic.typed(&["token", "revoke", field("id")?])?.ok()?;
    let reason = thief.typed(&["volume", "list"])?.refused(DENIED)?;
    refused("a stolen token, after its revocation", &reason);
    Ok(())
}

/// Another tenant, who knows the ids, sees nothing at all.
fn other_tenant(world: &World, admin: &mut Person, job: &str) -> anyhow::Result<()> {
    let shown = world.clinic.json(&["volume", "show", "patients"])?;
    let volume = shown.get("id").and_then(Value::as_str).context("the volume has no id")?;
    world.operator.typed(&["tenant", "create", "rival", "--admin", admin.name()])?.ok()?;
    let rival = world.deployment.shell("rival").watched(super::stage::typed);
    admin.login(&rival, Some((world.deployment.url(), world.deployment.ca_pin())), "rival")?;
    let stolen = world.folder.join("stolen");
    let reason = rival.typed(&["volume", "get", volume, text(&stolen)?])?.refused(NOT_FOUND)?;
    refused("another tenant reaches for the volume by its id", &reason);
    let reason = rival.typed(&["job", "receipt", job, "--wait", "1"])?.refused(NOT_FOUND)?;
    refused("another tenant reaches for the receipt", &reason);
    anyhow::ensure!(!stolen.exists() || std::fs::read_dir(&stolen)?.next().is_none(), "something was written to {}", stolen.display());
    let absent = rival.typed(&["volume", "get", "01890000-0000-7000-8000-000000000000", text(&stolen)?])?.refused(NOT_FOUND)?;
    anyhow::ensure!(same_words(&reason, &absent), "absent and foreign are told apart: {reason} / {absent}");
    check("what is foreign and what does not exist look the same");
    Ok(())
}

/// Whether two refusals differ in nothing but ids and numbers.
fn same_words(one: &str, other: &str) -> bool {
    let first = |text: &str| text.lines().find(|line| line.starts_with("error")).map(str::to_owned);
    first(one) == first(other)
}

/// A byte of ciphertext changes in the object store.
fn flipped_byte(world: &World) -> anyhow::Result<()> {
    let verify = |volume: &str| world.clinic.typed(&["volume", "verify", volume]);
    // Names of objects do not tell whose they are; the job's code lies there too. One of them is a segment of the patients' volume.
    for segment in objects(world, "seg")? {
        let sealed = std::fs::read(&segment)?;
        let mut changed = sealed.clone();
        let middle = changed.len() / 2;
        *changed.get_mut(middle).context("an empty segment")? ^= 1;
        std::fs::write(&segment, &changed)?;
        let patients = verify("patients").map(|typed| typed.refused(VERIFICATION));
        let model = verify("model");
        std::fs::write(&segment, sealed)?;
        if let Ok(reason) = patients? {
            say(&format!("one bit of {} was flipped", segment.display()));
            refused("a flipped bit in a sealed segment", &reason);
            model?.ok().context("the other volume, which nobody touched")?;
            for volume in ["patients", "model"] {
                verify(volume)?.ok()?;
            }
            check("with the bit restored, both volumes verify");
            return Ok(());
        }
    }
    anyhow::bail!("no flipped bit of any segment was noticed in the patients' volume")
}

/// The object store shows an older state of a volume.
fn rolled_back_root(world: &World) -> anyhow::Result<()> {
    let data = world.folder.join("breast_cancer.csv");
    let second = world.folder.join("addendum.txt");
    std::fs::write(&second, "a second state of the volume\n")?;
    world.clinic.typed(&[&["volume", "create", "ledger"], super::VOLUME].concat())?.ok()?;
    let before = objects(world, "chain")?;
    world.clinic.typed(&["volume", "put", "ledger", text(&data)?])?.ok()?;
    world.clinic.typed(&["volume", "put", "ledger", text(&second)?])?.ok()?;
    let mut roots: Vec<PathBuf> = objects(world, "chain")?.into_iter().filter(|path| !before.contains(path)).collect();
    roots.sort();
    let [older, newer] = roots.as_slice() else { anyhow::bail!("two puts made {} root records", roots.len()) };
    let honest = std::fs::read(newer)?;
    std::fs::copy(older, newer)?;
    let place = world.folder.join("rolled-back");
    let reason = world.clinic.typed(&["volume", "get", "ledger", text(&place)?])?.refused(VERIFICATION);
    std::fs::write(newer, honest)?;
    refused("an older root, put in the place of the newest", &reason?);
    world.clinic.typed(&["volume", "verify", "ledger"])?.ok()?;
    Ok(())
}

/// Bytes all over the receipt are changed, one at a time.
fn doctored_receipt(world: &World, receipt: &Path) -> anyhow::Result<()> {
    let honest = std::fs::read(receipt)?;
    let doctored = world.folder.join("doctored.json");
    let tries = 16_usize;
    let mut last = String::new();
    for number in 0..tries {
        let mut bytes = honest.clone();
        let place = honest.len().saturating_sub(1).saturating_mul(number) / tries.saturating_sub(1);
        *bytes.get_mut(place).context("an empty receipt")? ^= 1;
        std::fs::write(&doctored, bytes)?;
        let verdict = if number == 0 { verify_offline(world, &doctored)? } else { verify_quietly(world, &doctored)? };
        anyhow::ensure!(verdict.status.code() == Some(VERIFICATION), "a receipt with another byte {place} was not refused: {}", verdict.status);
        last = format!("{}{}", String::from_utf8_lossy(&verdict.stdout), String::from_utf8_lossy(&verdict.stderr));
    }
    refused(&format!("a doctored receipt: {tries} bytes from its first to its last, changed one at a time"), &last);
    Ok(())
}

fn verify_quietly(world: &World, receipt: &Path) -> anyhow::Result<std::process::Output> {
    let deployment = world.folder.join("deployment.json");
    let arguments = ["verify", text(receipt)?, "--deployment", text(&deployment)?, "--ca-pin", world.deployment.ca_pin()];
    Ok(std::process::Command::new(world.clinic.program()).args(arguments).output()?)
}

/// A hostile job tries to leave its sandbox.
fn escape(world: &World) -> anyhow::Result<()> {
    let code = crate::root().join("xtask/demo/escape");
    let port = world.deployment.url().rsplit(':').next().unwrap_or("443").trim_end_matches('/').to_owned();
    let variable = format!("HOST_PORT={port}");
    let run = ["job", "run", "sklearn", "--project", "study", "--purpose", "research", "--name", "escape", "--input", "patients"];
    let rest = ["--env", &variable, "--time-limit", "120", "--code", text(&code)?, "--", "python3", "/code/escape.py"];
    let done = world.clinic.typed(&[&run[..], &rest[..]].concat())?.ok()?;
    let told = format!("{}{}", done.out(), done.err());
    let lines: Vec<&str> = told.lines().map(str::trim).filter(|line| line.contains(": refused") || line.contains("tries were refused")).collect();
    super::stage::indented(&lines.join("\n"));
    anyhow::ensure!(!told.contains("IT WORKED"), "an escape worked");
    anyhow::ensure!(lines.iter().any(|line| line.ends_with("tries were refused")), "the job did not say how it ended: {told}");
    check("every attempt to leave the sandbox was refused");
    Ok(())
}

/// Fails where a text of the data set stands in a file of the server.
pub(crate) fn plain_text_is_nowhere(folder: &Path, canary: &str) -> anyhow::Result<()> {
    for file in files(folder)? {
        let bytes = std::fs::read(&file)?;
        let found = bytes.windows(canary.len()).any(|window| window == canary.as_bytes());
        anyhow::ensure!(!found, "{} holds the data in the clear", file.display());
    }
    Ok(())
}

/// Objects of one kind in the object stores of all volumes.
fn objects(world: &World, kind: &str) -> anyhow::Result<Vec<PathBuf>> {
    let all = files(&world.deployment.data())?;
    Ok(all.into_iter().filter(|path| path.parent().and_then(Path::file_name).and_then(|name| name.to_str()) == Some(kind)).collect())
}

/// All regular files below a folder.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            found.extend(files(&entry.path())?);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}
