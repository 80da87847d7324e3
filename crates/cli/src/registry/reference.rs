//! `HOST[:PORT]/NAME[:TAG]` or `HOST[:PORT]/NAME@sha256:…`: the host is always written out, so nobody guesses whose image it is.

use std::fmt;
use std::str::FromStr;

use vocabulary::Sha256Digest;

/// Bytes of a repository's name: what registries take.
const NAME_MAX: usize = 255;
/// Bytes of a tag (OCI distribution specification).
const TAG_MAX: usize = 128;
/// Bytes of a host's name.
const HOST_MAX: usize = 253;

/// A manifest in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Point {
    /// What a name points to today.
    Tag(String),
    /// The manifest itself.
    Digest(Sha256Digest),
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => write!(f, "{digest}"),
        }
    }
}

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Host, with its port where one was given.
    pub(crate) host: String,
    /// The repository.
    pub(crate) name: String,
    /// Which of its manifests.
    pub(crate) point: Point,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = if matches!(self.point, Point::Tag(_)) { ':' } else { '@' };
        write!(f, "{}/{}{join}{}", self.host, self.name, self.point)
    }
}

/// Why a text is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReferenceError {
    #[error("the registry's host is missing: write HOST/NAME:TAG, such as registry.example/tools/python:3.13")]
    Host,
    #[error("the host is a name or an address with an optional port, without user, scheme or path")]
    HostForm,
    #[error("a repository's name has parts of a-z, 0-9 and single . _ - between them, at most {NAME_MAX} characters")]
    Name,
    #[error("a tag has 1 to {TAG_MAX} letters, digits, . _ or -, and begins with none of the last two")]
    Tag,
    #[error("after @ comes sha256: and 64 hexadecimal digits")]
    Digest,
}

fn part_fits(part: &str) -> bool {
    let separators = ["", ".", "_", "__"];
    let mut rest = part;
    loop {
        let word = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).len();
        if word == 0 {
            return false;
        }
        rest = rest.get(word..).unwrap_or_default();
        if rest.is_empty() {
            return true;
        }
        let end = rest.len() - rest.trim_start_matches(['.', '_', '-']).len();
        let separator = rest.get(..end).unwrap_or_default();
        if separator.is_empty() || !(separators.contains(&separator) || separator.bytes().all(|byte| byte == b'-')) {
            return false;
        }
        rest = rest.get(end..).unwrap_or_default();
    }
}

fn host_fits(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            ("ok", port.strip_prefix(':').map_or_else(|| port.is_empty().then_some("1"), Some))
        }
        None => host.split_once(':').map_or((host, Some("1")), |(name, port)| (name, Some(port))),
    };
    let port_fits = port.is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0));
    let label = |label: &str| !label.is_empty() && label.len() <= 63 && !label.starts_with('-') && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    port_fits && name.len() <= HOST_MAX && name.split('.').all(label)
}

impl FromStr for Reference {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (host, rest) = text.split_once('/').ok_or(ReferenceError::Host)?;
        // Without a dot, a port or the word itself it is the first part of a name whose host was left out.
        if !host.contains(['.', ':']) && host != "localhost" {
            return Err(ReferenceError::Host);
        }
        if !host_fits(host) {
            return Err(ReferenceError::HostForm);
        }
        let (name, point) = if let Some((name, digest)) = rest.split_once('@') {
            (name, Point::Digest(digest.parse().map_err(|_| ReferenceError::Digest)?))
        } else if let Some((name, tag)) = rest.split_once(':') {
            (name, Point::Tag(tag.to_owned()))
        } else {
            (rest, Point::Tag("latest".to_owned()))
        };
        if name.is_empty() || name.len() > NAME_MAX || !name.split('/').all(part_fits) {
            return Err(ReferenceError::Name);
        }
        if let Point::Tag(tag) = &point {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            if tag.is_empty() || tag.len() > TAG_MAX || tag.starts_with(['.', '-']) || !tag.chars().all(fits) {
                return Err(ReferenceError::Tag);
            }
        }
        Ok(Self { host: host.to_ascii_lowercase(), name: name.to_owned(), point })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_names_host_repository_and_point() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (text, shown) in [
            ("registry.example/tools/python:3.13", "registry.example/tools/python:3.13".to_owned()),
            ("Registry.Example:5000/a", "registry.example:5000/a:latest".to_owned()),
            ("localhost/a_b__c-d--e/f.g:V1_2.3-x", "localhost/a_b__c-d--e/f.g:V1_2.3-x".to_owned()),
            ("[::1]:5000/a:b", "[::1]:5000/a:b".to_owned()),
            (&format!("127.0.0.1:5000/a@{digest}"), format!("127.0.0.1:5000/a@{digest}")),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        use ReferenceError::{Digest, Host, HostForm, Name, Tag};
        for (text, error) in [
            ("python", Host),
            ("library/python:3", Host),
            ("user@registry.example/a", HostForm),
            ("https://registry.example/a", HostForm),
            ("registry.example:0/a", HostForm),
            ("registry.example:99999/a", HostForm),
            ("registry..example/a", HostForm),
            ("[::g]:1/a", HostForm),
            ("registry.example/A", Name),
            ("registry.example/", Name),
            ("registry.example/a//b", Name),
            ("registry.example/../v2", Name),
            ("registry.example/a._b", Name),
            ("registry.example/-a", Name),
            ("registry.example/a-", Name),
            ("registry.example/a?b=c", Name),
            ("registry.example/a%2fb", Name),
            ("registry.example/a:", Tag),
            ("registry.example/a:-b", Tag),
            ("registry.example/a:b/c", Tag),
            ("registry.example/a:b c", Tag),
            ("registry.example/a@sha256:00", Digest),
            ("registry.example/a:b@md5:00", Digest),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap_err(), error, "{text}");
        }
        assert_eq!(format!("registry.example/{}", "a".repeat(256)).parse::<Reference>().unwrap_err(), Name);
        assert_eq!(format!("registry.example/a:{}", "b".repeat(129)).parse::<Reference>().unwrap_err(), Tag);
    }
}
