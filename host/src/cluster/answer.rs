//! From a response to an answer: reads it whole, within its limit, and tells the API server's words from those of something
//! in between.
//!
//! A load balancer that says 404 has not looked for the object, and a gateway that says 200 without a body has deleted
//! nothing. Who believed them would build a verdict on it, so such an answer counts as none.

use super::{HttpAnswer, Once, chain};
use http_body_util::BodyExt;
use kube::client::Body;
use std::time::Duration;

/// Reads the whole body.
pub(super) async fn read_all(
    parts: http::response::Parts,
    mut body: Body,
    max_bytes: u64,
) -> Result<HttpAnswer, Once> {
    let header = |name: &str| {
        parts
            .headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Once::Failed(chain(&e)))?;
        if let Ok(data) = frame.into_data() {
            if bytes.len() as u64 + data.len() as u64 > max_bytes {
                return Err(Once::TooLarge);
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(HttpAnswer {
        code: parts.status.as_u16(),
        content_type: header("content-type"),
        date: header("date"),
        body: bytes,
        tries: 1,
    })
}

/// `Retry-After` in seconds; the date form is not used by API servers.
pub(super) fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers
        .get("retry-after")?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}

/// Why an answer is not one of the API server; nothing where it may be. `accept` is what the request asked for.
///
/// Errors in plain text pass: the API server itself has one for paths that it does not know. From 500 on the words do not
/// matter, nobody concludes anything from them; nor do those of a 429.
pub(super) fn foreign(answer: &HttpAnswer, accept: &str) -> Option<String> {
    if !accept.contains("json") || answer.code == 429 || answer.code >= 500 {
        return None;
    }
    let code = answer.code;
    if is_html(&answer.content_type) {
        return Some(format!(
            "HTTP {code} in HTML: something between here and the API server answered"
        ));
    }
    if !(200..300).contains(&code) {
        return None;
    }
    // Whether it is JSON to the last byte is seen by whoever reads it. A body that was cut short rarely ends like an object.
    let body = answer.body.trim_ascii();
    let is_object = body.first() == Some(&b'{') && body.last() == Some(&b'}');
    (!is_object).then(|| {
        format!(
            "HTTP {code} with {} bytes that are no JSON object",
            answer.body.len()
        )
    })
}

/// Whether a content type is that of a page for people.
pub(super) fn is_html(content_type: &str) -> bool {
    content_type
        .trim_start()
        .get(..9)
        .is_some_and(|start| start.eq_ignore_ascii_case("text/html"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u16, content_type: &str, body: &str) -> HttpAnswer {
        HttpAnswer {
            code,
            content_type: content_type.to_owned(),
            date: String::new(),
            body: body.as_bytes().to_vec(),
            tries: 1,
        }
    }

    #[test]
    fn words_of_something_in_between_are_no_answer() {
        let json = "application/json";
        for (answer, is_foreign) in [
            (answer(200, json, "{\"kind\":\"Pod\"}\n"), false),
            (answer(200, "text/plain", "{}"), false),
            (answer(200, json, ""), true),
            (answer(201, json, "{\"kind\":\"Po"), true),
            (answer(200, "text/html", "{}"), true),
            (answer(404, "Text/HTML; charset=utf-8", "<html>"), true),
            (answer(302, "text/html", ""), true),
            // The API server's own words for a path that it does not know.
            (answer(404, "text/plain", "404 page not found\n"), false),
            (answer(502, "text/html", "<html>"), false),
            (answer(429, "text/html", "<html>"), false),
        ] {
            let found = foreign(&answer, json);
            assert_eq!(found.is_some(), is_foreign, "{answer:?}: {found:?}");
            assert_eq!(foreign(&answer, "*/*"), None);
        }
    }
}
