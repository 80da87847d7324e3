//! Who one is to a registry: its challenge, and the token that its realm gives (the token protocol of the distribution project).

use zeroize::Zeroizing;

use super::PullError;

/// Bytes of a challenge.
const CHALLENGE_MAX: usize = 4096;
/// Bytes of a token.
pub(super) const TOKEN_MAX: usize = 16 << 10;
/// Bytes of a realm's answer.
pub(super) const ANSWER_MAX: usize = 64 << 10;

/// User and password. Cannot be printed, and is wiped.
pub(crate) struct Credentials {
    pub(super) user: String,
    pub(super) password: Zeroizing<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

impl Credentials {
    /// Reads `USER:PASSWORD`; one line end at its end is none of it.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        let (user, password) = text.strip_suffix('\r').unwrap_or(text).split_once(':')?;
        let fits = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
        (fits(user) && fits(password)).then(|| Self { user: user.to_owned(), password: Zeroizing::new(password.to_owned()) })
    }
}

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token from this realm. The scope is ours to say, not the registry's.
    Bearer {
        /// Where.
        realm: String,
        /// For whom.
        service: Option<String>,
    },
}

/// Reads one `WWW-Authenticate`; `None` for what is neither.
pub(super) fn challenge(value: &str) -> Option<Challenge> {
    if value.len() > CHALLENGE_MAX {
        return None;
    }
    let (scheme, rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service) = (None, None);
    let mut rest = rest.trim();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => {
                let mut value = String::new();
                let mut chars = quoted.char_indices();
                let end = loop {
                    match chars.next()? {
                        (at, '"') => break at,
                        (_, '\\') => value.push(chars.next()?.1),
                        (_, c) => value.push(c),
                    }
                };
                (value, quoted.get(end.checked_add(1)?..)?)
            }
            None => {
                let end = after.find(',').unwrap_or(after.len());
                (after.get(..end)?.trim().to_owned(), after.get(end..)?)
            }
        };
        let place = match key.trim().to_ascii_lowercase().as_str() {
            "realm" => Some(&mut realm),
            "service" => Some(&mut service),
            _ => None,
        };
        if let Some(place) = place
            && place.replace(value).is_some()
        {
            return None;
        }
        rest = match after.trim_start().strip_prefix(',') {
            Some(more) => more.trim_start(),
            None if after.trim().is_empty() => "",
            None => return None,
        };
    }
    Some(Challenge::Bearer { realm: realm?, service })
}

#[derive(serde::Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

/// The token in a realm's answer.
pub(super) fn token(bytes: &[u8]) -> Result<Zeroizing<String>, PullError> {
    // The parser's own words could quote a token.
    let answer: Answer = serde_json::from_slice(bytes).map_err(|_| PullError::Token("its answer is not the JSON of the token protocol"))?;
    let token = Zeroizing::new(answer.token.or(answer.access_token).ok_or(PullError::Token("its answer has no token"))?);
    let fits = !token.is_empty() && token.len() <= TOKEN_MAX && token.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(token) } else { Err(PullError::Token("its token is empty, too long or no visible ASCII")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_strictly() {
        let bearer = |realm: &str, service: Option<&str>| Some(Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) });
        assert_eq!(challenge("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(
            challenge("Bearer realm=\"https://auth.example/token\",service=\"registry.example\",scope=\"repository:other:push\""),
            bearer("https://auth.example/token", Some("registry.example"))
        );
        assert_eq!(challenge("bearer Realm=https://a/b , error=\"a,b=\\\"c\""), bearer("https://a/b", None));
        for text in ["Bearer", "Bearer service=\"x\"", "Bearer realm=\"a\",realm=\"b\"", "Bearer realm=\"a", "Bearer realm=\"a\" x", "Digest realm=\"a\"", "", "Bearer realm"] {
            assert_eq!(challenge(text), None, "{text}");
        }
        assert_eq!(challenge(&format!("Bearer realm=\"{}\"", "a".repeat(5000))), None);
    }

    #[test]
    fn tokens_and_credentials_are_bounded_and_never_shown() {
        assert_eq!(token(br#"{"access_token":"abc","expires_in":300}"#).unwrap().as_str(), "abc");
        for bytes in [&b"{}"[..], b"[]", br#"{"token":""}"#, br#"{"token":"a b"}"#, br#"{"token":"a\nb"}"#, b"secret"] {
            assert!(!token(bytes).unwrap_err().to_string().contains("secret"));
        }
        assert!(token(format!(r#"{{"token":"{}"}}"#, "a".repeat(TOKEN_MAX + 1)).as_bytes()).is_err());
        let parsed = Credentials::parse(b"robot:pass:word\n").unwrap();
        assert_eq!((parsed.user.as_str(), parsed.password.as_str()), ("robot", "pass:word"));
        assert_eq!(format!("{parsed:?}"), "Credentials(…)");
        for bytes in [&b"token-only"[..], b":x", b"x:", b"a\n:b", b"\xff:x"] {
            assert!(Credentials::parse(bytes).is_none());
        }
    }
}
