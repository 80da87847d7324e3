//! A person with a password and an authenticator.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use crate::typed::Shell;

/// Seconds that one code lives (RFC 6238).
const STEP_S: u64 = 30;

/// Somebody who logs in.
#[derive(Debug)]
pub struct Person {
    name: String,
    password: String,
    /// The authenticator's secret, hexadecimal, once enrolled.
    secret: Option<String>,
    /// The newest step whose code was used: a code works once.
    used: u64,
}

impl Person {
    /// Somebody who has not enrolled yet.
    #[must_use]
    pub fn new(name: &str, password: &str) -> Self {
        Self { name: name.to_owned(), password: password.to_owned(), secret: None, used: 0 }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The authenticator's secret, once enrolled: the bytes.
    #[must_use]
    pub fn secret(&self) -> Option<Vec<u8>> {
        let pairs = self.secret.as_deref()?.as_bytes().chunks(2);
        pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
    }

    /// Takes the secret that a QR code shows (base32) into the authenticator.
    pub fn scan(&mut self, secret: &str) -> anyhow::Result<()> {
        self.secret = Some(hexadecimal(secret)?);
        Ok(())
    }

    /// First contact: pins the deployment, spends the ticket, sets up password and authenticator, and logs in.
    pub fn enrol(&mut self, shell: &Shell, url: &str, ca_pin: &str, ticket: &str, login_as: Option<&str>) -> anyhow::Result<()> {
        let mut arguments = vec!["login", url, "--ca-pin", ca_pin, "--enrol", "--name", &self.name];
        arguments.extend(login_as.iter().flat_map(|tenant| ["--as", *tenant]));
        shell.show(&arguments);
        let mut child =
            shell.command(&arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("swarm login")?;
        let mut input = child.stdin.take().context("standard input")?;
        let mut output = BufReader::new(child.stderr.take().context("standard error")?);
        writeln!(input, "{ticket}")?;
        let (mut said, mut secret) = (String::new(), None);
        while secret.is_none() {
            let mut line = String::new();
            if output.read_line(&mut line)? == 0 {
                anyhow::bail!("swarm login --enrol ended before it showed a secret: {said}");
            }
            secret = line.split_once("type the secret: ").map(|(_, text)| text.trim().to_owned());
            said.push_str(&line);
        }
        self.scan(&secret.unwrap_or_default())?;
        let password = self.password.clone();
        let code = self.code()?;
        writeln!(input, "{password}\n{password}\n{code}")?;
        let code = self.code()?;
        writeln!(input, "{password}\n{code}")?;
        drop(input);
        output.read_to_string(&mut said)?;
        let done = child.wait_with_output()?;
        anyhow::ensure!(done.status.success(), "swarm login --enrol: {}: {said}", done.status);
        Ok(())
    }

    /// Logs in with the next code.
    pub fn login(&mut self, shell: &Shell, first: Option<(&str, &str)>, login_as: &str) -> anyhow::Result<()> {
        let name = self.name.clone();
        let mut arguments = vec!["login"];
        arguments.extend(first.iter().flat_map(|(url, pin)| [*url, "--ca-pin", *pin]));
        arguments.extend(["--name", &name, "--as", login_as]);
        let code = self.code()?;
        let answer = format!("{}\n{code}\n", self.password);
        shell.typed_with(&arguments, &answer)?.ok()?;
        Ok(())
    }

    /// The next code that was not used: of the step before, of this one or of the next, as clocks may differ by one.
    pub fn code(&mut self) -> anyhow::Result<String> {
        let secret = self.secret.clone().context("the authenticator is not set up")?;
        let step = crate::wait_for("a fresh code", Duration::from_secs(3 * STEP_S), || {
            let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
            let step = seconds / STEP_S;
            // The step before is still good, unless it is about to lapse.
            let oldest = if seconds % STEP_S < 20 { step.saturating_sub(1) } else { step };
            let next = oldest.max(self.used.saturating_add(1));
            Ok((next <= step.saturating_add(1)).then_some(next))
        })?;
        self.used = step;
        totp(&secret, step)
    }
}

/// RFC 4226 with OpenSSL's HMAC: an authenticator that is not ours.
fn totp(secret_hex: &str, step: u64) -> anyhow::Result<String> {
    let mut child = Command::new("openssl")
        .args(["dgst", "-sha1", "-mac", "HMAC", "-macopt", &format!("hexkey:{secret_hex}"), "-binary"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("openssl")?;
    child.stdin.take().context("standard input")?.write_all(&step.to_be_bytes())?;
    let mac = child.wait_with_output()?;
    anyhow::ensure!(mac.status.success(), "openssl dgst: {}", mac.status);
    let offset = usize::from(mac.stdout.last().context("an empty MAC")? & 15);
    let word: [u8; 4] = mac.stdout.get(offset..offset.saturating_add(4)).context("a short MAC")?.try_into()?;
    Ok(format!("{:06}", (u32::from_be_bytes(word) & 0x7fff_ffff) % 1_000_000))
}

/// Base32 (RFC 4648) to hexadecimal; blanks and padding do not count.
fn hexadecimal(base32: &str) -> anyhow::Result<String> {
    let (mut bits, mut count, mut out) = (0_u32, 0_u32, String::new());
    for c in base32.chars().filter(|c| !c.is_whitespace() && *c != '=') {
        let value = match c.to_ascii_uppercase() {
            c @ 'A'..='Z' => u32::from(c).saturating_sub(u32::from('A')),
            c @ '2'..='7' => u32::from(c).saturating_sub(u32::from('2')).saturating_add(26),
            _ => anyhow::bail!("`{base32}` is no base32"),
        };
        bits = (bits << 5) | value;
        count = count.saturating_add(5);
        if let Some(rest) = count.checked_sub(8) {
            write!(out, "{:02x}", (bits >> rest) & 0xff)?;
            count = rest;
            bits &= (1_u32 << rest).saturating_sub(1);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authenticator_agrees_with_rfc_6238() {
        let secret = hexadecimal("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ").unwrap();
        assert_eq!(secret, "3132333435363738393031323334353637383930");
        assert_eq!(totp(&secret, 59 / STEP_S).unwrap(), "287082");
        assert_eq!(totp(&secret, 1_111_111_109 / STEP_S).unwrap(), "081804");
        assert!(hexadecimal("1").is_err());
    }
}
