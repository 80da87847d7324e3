//! JSON bodies from strangers: bounded in size, time and depth before anything is built from them, and every name once.

use std::collections::BTreeSet;

use axum::body::Body;
use http::{HeaderMap, header};
use http_body_util::{BodyExt as _, Limited};
use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use vocabulary::ErrorCode;
use vocabulary::limits::{JSON_BODY_MAX, JSON_DEPTH_MAX};

use crate::api::problem::Failure;
use crate::api::strict::Strict;
use crate::limits::JSON_BODY_TIMEOUT;

/// Reads a whole JSON body, or says which limit it broke.
pub(crate) async fn read(headers: &HeaderMap, body: Body) -> Result<bytes::Bytes, Failure> {
    let json = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")));
    if !json {
        return Err(Failure::new(ErrorCode::UnsupportedMediaType, "the body must be application/json"));
    }
    let too_large = || Failure::new(ErrorCode::TooLarge, format!("a JSON body has at most {JSON_BODY_MAX} bytes"));
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<usize>().ok());
    if announced.is_some_and(|length| length > JSON_BODY_MAX) {
        return Err(too_large());
    }
    match tokio::time::timeout(JSON_BODY_TIMEOUT, Limited::new(body, JSON_BODY_MAX).collect()).await {
        Err(_) => Err(Failure::new(ErrorCode::RequestTimeout, "the body took too long to arrive")),
        Ok(Err(error)) if error.downcast_ref::<http_body_util::LengthLimitError>().is_some() => Err(too_large()),
        Ok(Err(_)) => Err(Failure::invalid("the body broke off")),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
    }
}

/// Parses a body into a type that refuses unknown fields.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    if depth(bytes) > JSON_DEPTH_MAX {
        return Err(Failure::invalid(format!("the body nests deeper than {JSON_DEPTH_MAX} levels")));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Failure::invalid("the body is not UTF-8"))?;
    if text.contains("\\u0000") || text.contains('\0') {
        return Err(Failure::invalid("the body holds a NUL character"));
    }
    let unfit = |error: serde_json::Error| {
        // serde's message names the field and the rule; what it quotes of the body is cut and made harmless.
        let message: String = error.to_string().chars().filter(|c| !c.is_control()).take(300).collect();
        Failure::invalid(format!("the body does not fit: {}", in_words_of_json(&message)))
    };
    let mut json = serde_json::Deserializer::from_str(text);
    let parsed = T::deserialize(Strict(&mut json)).map_err(unfit)?;
    json.end().map_err(unfit)?;
    // Types refuse a field that stands twice; maps (labels, an environment) take the last, and another reader might the first.
    serde_json::from_str::<Unambiguous>(text).map_err(unfit)?;
    Ok(parsed)
}

/// serde names what it expected as our program does (`struct JobSubmit`): whoever asks has JSON before them, and learns nothing else.
fn in_words_of_json(message: &str) -> String {
    let mut told: Vec<&str> = Vec::new();
    let mut words = message.split(' ').peekable();
    while let Some(word) = words.next() {
        let known = match word {
            "struct" => "object",
            "enum" => "choice",
            "variant" => "form",
            other => other,
        };
        if known != word && words.next_if(|name| name.starts_with(|first: char| first.is_ascii_uppercase())).is_some() {
            // "tuple struct Name", "internally tagged enum Name": the words before say nothing to others either.
            while told.last().is_some_and(|before| ["tuple", "unit", "newtype", "untagged", "tagged", "internally", "adjacently"].contains(before)) {
                told.pop();
            }
            told.push(known);
        } else {
            told.push(word);
        }
    }
    told.join(" ")
}

/// JSON of any form in which no object has a name twice.
struct Unambiguous;

impl<'de> serde::Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Unambiguous {
    type Value = Self;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("JSON")
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self, A::Error> {
        let mut names = BTreeSet::new();
        while let Some((name, Self)) = fields.next_entry::<String, Self>()? {
            if let Some(twice) = names.replace(name) {
                return Err(A::Error::custom(format_args!("`{twice}` stands twice in one object")));
            }
        }
        Ok(self)
    }
}

/// How deep arrays and objects nest, outside of strings.
fn depth(bytes: &[u8]) -> usize {
    let (mut level, mut deepest, mut in_string, mut escaped) = (0_usize, 0_usize, false, false);
    for byte in bytes {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                level = level.saturating_add(1);
                deepest = deepest.max(level);
            }
            b']' | b'}' => level = level.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_outside_strings() {
        assert_eq!(depth(br#"{"a":"[[[[\"[["}"#), 1);
        assert_eq!(depth(br#"[[{"a":[]}]]"#), 4);
        assert_eq!(depth(b"]]]"), 0);
    }

    #[test]
    fn names_of_the_program_are_not_told() {
        for (said, told) in [
            ("invalid type: sequence, expected struct ProjectCreate at line 1 column 0", "invalid type: sequence, expected object at line 1 column 0"),
            ("invalid length 1, expected tuple struct Pair with 2 elements", "invalid length 1, expected object with 2 elements"),
            ("data did not match any variant of untagged enum LoginAs", "data did not match any variant of choice"),
            ("unknown field `struct x`, expected `name`", "unknown field `struct x`, expected `name`"),
        ] {
            assert_eq!(in_words_of_json(said), told);
        }
        let told = parse::<vocabulary::api::ProjectCreate>(b"[]").unwrap_err().problem.detail;
        assert!(!told.contains("ProjectCreate"), "{told}");
    }

    #[test]
    fn refuses_deep_unknown_and_trailing() {
        use vocabulary::api::ProjectCreate;
        assert!(parse::<ProjectCreate>(br#"{"name":"a"}"#).is_ok());
        for body in [
            &br#"{"name":"a","x":1}"#[..],
            br#"{"name":"a"} {}"#,
            br#"{"name":"a","name":"b"}"#,
            br#"{"name":1}"#,
            br#"["a"]"#,
            br#"{"name":"\u0000"}"#,
            b"\xff",
            b"",
        ] {
            assert_eq!(parse::<ProjectCreate>(body).unwrap_err().problem.code, ErrorCode::InvalidRequest);
        }
        let twice = |body: &str| parse::<serde_json::Value>(body.as_bytes()).map_err(|failure| failure.problem.detail);
        for body in [r#"{"a":{"x":1,"x":1}}"#, r#"[[{"x":{},"\u0078":[]}]]"#, r#"{"":1,"":2}"#] {
            assert!(twice(body).unwrap_err().contains("stands twice"), "{body}");
        }
        assert!(twice(r#"[{"x":1},{"x":[null,true,-1,1.5,"x",{"x":{"x":0}}]}]"#).is_ok());
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(parse::<serde_json::Value>(deep.as_bytes()).unwrap_err().problem.code, ErrorCode::InvalidRequest);
    }
}
