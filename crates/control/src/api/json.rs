//! JSON bodies from strangers: bounded in size, time and depth before anything is built from them.

use axum::body::Body;
use http::{HeaderMap, header};
use http_body_util::{BodyExt as _, Limited};
use serde::de::DeserializeOwned;
use vocabulary::ErrorCode;
use vocabulary::limits::{JSON_BODY_MAX, JSON_DEPTH_MAX};

use crate::api::problem::Failure;
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
    serde_json::from_str(text).map_err(|error| {
        // serde's message names the field and the rule; what it quotes of the body is cut and made harmless.
        let message: String = error.to_string().chars().filter(|c| !c.is_control()).take(300).collect();
        Failure::invalid(format!("the body does not fit: {message}"))
    })
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
    fn refuses_deep_unknown_and_trailing() {
        use vocabulary::api::ProjectCreate;
        assert!(parse::<ProjectCreate>(br#"{"name":"a"}"#).is_ok());
        for body in [
            &br#"{"name":"a","x":1}"#[..],
            br#"{"name":"a"} {}"#,
            br#"{"name":"a","name":"b"}"#,
            br#"{"name":1}"#,
            br#"{"name":"\u0000"}"#,
            b"\xff",
            b"",
        ] {
            assert_eq!(parse::<ProjectCreate>(body).unwrap_err().problem.code, ErrorCode::InvalidRequest);
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(parse::<serde_json::Value>(deep.as_bytes()).unwrap_err().problem.code, ErrorCode::InvalidRequest);
    }
}
