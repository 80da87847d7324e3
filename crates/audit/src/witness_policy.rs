//! Policy files (C2SP tlog-policy): which logs are believed, and which witnesses must have signed.
//!
//! Lines: `log VKEY [URL]`, `witness NAME VKEY [URL]`, `group NAME all|any|K NAME…`, `quorum NAME`. A name is defined
//! before it is used and belongs to one group only, so that each witness counts in one way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::key::{KeyKind, VerifierKey};
use crate::limits::{POLICY_ITEMS_MAX, POLICY_MAX};
use crate::note::{Note, Signed};

/// The quorum that asks for nobody.
const NONE: &str = "none";

/// A log or a witness of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyKey {
    /// Its name in the file; for a log, the key's.
    pub name: String,
    /// Its key.
    pub key: VerifierKey,
    /// Where it is reached.
    pub url: Option<String>,
}

/// Several witnesses or groups of which some must have signed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    name: String,
    threshold: usize,
    members: Vec<String>,
}

/// A policy file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessPolicy {
    logs: Vec<PolicyKey>,
    witnesses: Vec<PolicyKey>,
    /// In the order of the file: members stand before the groups that name them.
    groups: Vec<Group>,
    quorum: String,
}

/// Why a policy file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Longer than a policy may be.
    #[error("a policy file has at most {POLICY_MAX} bytes")]
    TooLong,
    /// A byte that no policy has.
    #[error("a policy file is UTF-8 without control characters other than tab and line feed, and its last line ends with a line feed")]
    Text,
    /// A line is none of the four.
    #[error("line {0}: expected `log VKEY [URL]`, `witness NAME VKEY [URL]`, `group NAME all|any|K NAME…` or `quorum NAME`")]
    Line(usize),
    /// A verifier key is refused.
    #[error("line {0}: the verifier key is malformed or of the wrong type (logs: 0x01, witnesses: 0x04)")]
    Key(usize),
    /// The same public key stands twice.
    #[error("line {0}: this public key stands in the file already")]
    DuplicateKey(usize),
    /// A name is defined twice, or is `none`.
    #[error("line {0}: the name is taken")]
    NameTaken(usize),
    /// A name is used before it is defined.
    #[error("line {0}: `{1}` is not defined above")]
    Undefined(usize, String),
    /// A name is a member of two groups, or twice of one.
    #[error("line {0}: `{1}` is a member of a group already")]
    TwoGroups(usize, String),
    /// The threshold is not between 1 and the number of members.
    #[error("line {0}: a group's threshold is between 1 and the number of its members")]
    Threshold(usize),
    /// Not exactly one quorum.
    #[error("a policy has exactly one `quorum` line")]
    Quorum,
    /// Too many items of one kind.
    #[error("a policy has at most {POLICY_ITEMS_MAX} logs, witnesses and groups each")]
    TooMany,
}

/// What a policy says of a checkpoint whose log's signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// Whether the quorum is reached. A policy with `quorum none` is always satisfied.
    pub satisfied: bool,
    /// Names, in the policy, of the witnesses whose signatures are good, with the time of each (seconds since 1970).
    pub signed: Vec<(String, u64)>,
}

impl WitnessPolicy {
    /// Reads a policy file.
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        if bytes.len() > POLICY_MAX {
            return Err(PolicyError::TooLong);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| PolicyError::Text)?;
        let allowed = |c: char| !c.is_ascii_control() || c == '\t' || c == '\n';
        let text = text.strip_suffix('\n').filter(|text| text.chars().all(allowed)).ok_or(PolicyError::Text)?;
        let mut reading = Reading::default();
        for (line, number) in text.split('\n').zip(1..) {
            reading.line(line, number)?;
        }
        let Reading { logs, witnesses, groups, quorum, .. } = reading;
        Ok(Self { logs, witnesses, groups, quorum: quorum.ok_or(PolicyError::Quorum)? })
    }

    /// Its logs.
    #[must_use]
    pub fn logs(&self) -> &[PolicyKey] {
        &self.logs
    }
    /// Its witnesses.
    #[must_use]
    pub fn witnesses(&self) -> &[PolicyKey] {
        &self.witnesses
    }
    /// The keys of its witnesses.
    #[must_use]
    pub fn witness_keys(&self) -> Vec<VerifierKey> {
        self.witnesses.iter().map(|witness| witness.key.clone()).collect()
    }
    /// Whether it asks for no witness at all.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.quorum == NONE
    }

    /// Whether these witnesses (by their names in the policy) reach the quorum.
    #[must_use]
    pub fn reached_by(&self, names: &BTreeSet<&str>) -> bool {
        // INVARIANT: members stand above the groups that name them, so one pass decides all.
        let mut witnessed: BTreeMap<&str, bool> =
            self.witnesses.iter().map(|witness| (witness.name.as_str(), names.contains(witness.name.as_str()))).collect();
        for group in &self.groups {
            let count = group.members.iter().filter(|name| witnessed.get(name.as_str()) == Some(&true)).count();
            witnessed.insert(&group.name, count >= group.threshold);
        }
        self.is_none() || witnessed.get(self.quorum.as_str()) == Some(&true)
    }

    /// Judges signatures that were verified (see [`Note::verify`]). One public key counts once.
    #[must_use]
    pub fn judge(&self, signed: &[Signed]) -> Judged {
        let mut found = Vec::new();
        for witness in &self.witnesses {
            let time = signed.iter().find(|one| one.key == witness.key).and_then(|one| one.time);
            found.extend(time.map(|time| (witness.name.clone(), time)));
        }
        let names: BTreeSet<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        Judged { satisfied: self.reached_by(&names), signed: found }
    }

    /// Reads and judges a checkpoint: one of the policy's logs must have signed it.
    pub fn verify(&self, note: &Note) -> Result<(Checkpoint, Judged), CheckpointError> {
        let witnesses = self.witness_keys();
        let mut last = CheckpointError::NotSignedByLog;
        for log in &self.logs {
            match Checkpoint::verify(note, &log.key, &witnesses) {
                Ok((checkpoint, signed)) => return Ok((checkpoint, self.judge(&signed))),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// In one sentence, whom it asks for.
    #[must_use]
    pub fn summary(&self) -> String {
        if self.is_none() {
            return "no witness must have signed".to_owned();
        }
        match self.groups.iter().find(|group| group.name == self.quorum) {
            Some(group) => format!("{} of {} of `{}` must have signed", group.threshold, group.members.len(), group.name),
            None => format!("`{}` must have signed", self.quorum),
        }
    }
}

/// The file in its plain form: comments and double spaces are gone, the meaning is the same.
impl fmt::Display for WitnessPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = |one: &PolicyKey| one.url.as_ref().map_or_else(String::new, |url| format!(" {url}"));
        for log in &self.logs {
            writeln!(f, "log {}{}", log.key, url(log))?;
        }
        for witness in &self.witnesses {
            writeln!(f, "witness {} {}{}", witness.name, witness.key, url(witness))?;
        }
        for group in &self.groups {
            writeln!(f, "group {} {} {}", group.name, group.threshold, group.members.join(" "))?;
        }
        writeln!(f, "quorum {}", self.quorum)
    }
}

#[derive(Default)]
struct Reading {
    logs: Vec<PolicyKey>,
    witnesses: Vec<PolicyKey>,
    groups: Vec<Group>,
    quorum: Option<String>,
    /// Witnesses and groups defined so far: one name space.
    defined: BTreeSet<String>,
    /// Those that are members of a group.
    members: BTreeSet<String>,
}

impl Reading {
    fn line(&mut self, line: &str, number: usize) -> Result<(), PolicyError> {
        // White space is space and tab only; other characters of Unicode's belong to names.
        let items: Vec<&str> = line.split([' ', '\t']).filter(|item| !item.is_empty()).collect();
        match items.as_slice() {
            [] => Ok(()),
            [first, ..] if first.starts_with('#') => Ok(()),
            ["log", key] => self.log(key, None, number),
            ["log", key, url] => self.log(key, Some(url), number),
            ["witness", name, key] => self.witness(name, key, None, number),
            ["witness", name, key, url] => self.witness(name, key, Some(url), number),
            ["group", name, threshold, members @ ..] if !members.is_empty() => self.group(name, threshold, members, number),
            ["quorum", name] => self.quorum(name, number),
            _ => Err(PolicyError::Line(number)),
        }
    }

    fn key(&self, text: &str, kind: KeyKind, number: usize) -> Result<VerifierKey, PolicyError> {
        let key: VerifierKey = text.parse().map_err(|_| PolicyError::Key(number))?;
        if key.kind() != kind {
            return Err(PolicyError::Key(number));
        }
        // One key in two roles could stand for two: a log must not be its own witness.
        let known = self.logs.iter().chain(&self.witnesses).any(|one| one.key.public() == key.public());
        if known { Err(PolicyError::DuplicateKey(number)) } else { Ok(key) }
    }

    fn log(&mut self, key: &str, url: Option<&&str>, number: usize) -> Result<(), PolicyError> {
        let key = self.key(key, KeyKind::Ed25519, number)?;
        if self.logs.len() >= POLICY_ITEMS_MAX {
            return Err(PolicyError::TooMany);
        }
        self.logs.push(PolicyKey { name: key.name().to_owned(), key, url: url.map(|url| (*url).to_owned()) });
        Ok(())
    }

    fn define(&mut self, name: &str, number: usize) -> Result<(), PolicyError> {
        let fresh = name != NONE && self.defined.insert(name.to_owned());
        if fresh { Ok(()) } else { Err(PolicyError::NameTaken(number)) }
    }

    fn witness(&mut self, name: &str, key: &str, url: Option<&&str>, number: usize) -> Result<(), PolicyError> {
        let key = self.key(key, KeyKind::CosignatureV1, number)?;
        if self.witnesses.len() >= POLICY_ITEMS_MAX {
            return Err(PolicyError::TooMany);
        }
        self.define(name, number)?;
        self.witnesses.push(PolicyKey { name: name.to_owned(), key, url: url.map(|url| (*url).to_owned()) });
        Ok(())
    }

    fn group(&mut self, name: &str, threshold: &str, members: &[&str], number: usize) -> Result<(), PolicyError> {
        for member in members {
            if !self.defined.contains(*member) {
                return Err(PolicyError::Undefined(number, (*member).to_owned()));
            }
            if !self.members.insert((*member).to_owned()) {
                return Err(PolicyError::TwoGroups(number, (*member).to_owned()));
            }
        }
        let threshold = match threshold {
            "all" => members.len(),
            "any" => 1,
            digits => digits.parse().ok().filter(|k: &usize| k.to_string() == digits).ok_or(PolicyError::Threshold(number))?,
        };
        if !(1..=members.len()).contains(&threshold) {
            return Err(PolicyError::Threshold(number));
        }
        if self.groups.len() >= POLICY_ITEMS_MAX {
            return Err(PolicyError::TooMany);
        }
        self.define(name, number)?;
        let members = members.iter().map(|member| (*member).to_owned()).collect();
        self.groups.push(Group { name: name.to_owned(), threshold, members });
        Ok(())
    }

    fn quorum(&mut self, name: &str, number: usize) -> Result<(), PolicyError> {
        if self.quorum.is_some() {
            return Err(PolicyError::Quorum);
        }
        if name != NONE && !self.defined.contains(name) {
            return Err(PolicyError::Undefined(number, name.to_owned()));
        }
        self.quorum = Some(name.to_owned());
        Ok(())
    }
}
