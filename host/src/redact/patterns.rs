//! Patterns that need no knowledge of the cluster: tokens that services mark by a prefix, keys with their values, headers,
//! passwords in URLs, serials and accounts in text. Each looks at the beginning of one word and never goes back.

use super::keys::{KEY_MAX, hides, is_pair, is_secret_key};
use super::scan::{Found, is_uuid, is_word};
use super::{Class, WORD_MIN};
use std::ops::Range;

/// What stands at the beginning of a word that ends at `head`. `compound` is where the compound of words joined by `-` and
/// `.` ends that begins here; none where the word is in the middle of one.
pub(super) fn pattern(
    text: &str,
    at: usize,
    head: usize,
    compound: Option<usize>,
) -> Option<Found> {
    let bytes = text.as_bytes();
    let word = &bytes[at..head];
    let is = |other: &str| word.eq_ignore_ascii_case(other.as_bytes());
    let found = match word[0] | 0x20 {
        b'e' if word.starts_with(b"eyJ") => json_web_token(bytes, at).map(Found::Secret),
        b'b' if is("bearer") => {
            let value = value_after(bytes, head, b" \t+")?;
            // "bearer authentication failed" is prose.
            let telling = value.len() >= 20 || bytes[value.clone()].iter().any(u8::is_ascii_digit);
            (telling && value.len() >= WORD_MIN).then_some(Found::Secret(value))
        }
        b'b' if is("basic") => basic(text, head),
        b'a' if is("authorization") => header(bytes, at, head),
        b'c' if is("cookie") => header(bytes, at, head),
        b'a' if is("arn") => arn_account(bytes, head).map(|r| Found::Named(r, Class::Account)),
        b'a' if word.len() == 20
            && ["AKIA", "ASIA", "AROA", "AIDA"]
                .iter()
                .any(|kind| word.starts_with(kind.as_bytes()))
            && word
                .iter()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()) =>
        {
            Some(Found::Secret(at..head))
        }
        b'g' if is("gpu") => device_uuid(bytes, head),
        b'g' if is("gce") && text[head..].starts_with("://") => {
            let end = head_of_segment(bytes, head + 3);
            (end > head + 3).then_some(Found::Named(head + 3..end, Class::Account))
        }
        b'm' if is("mig") => device_uuid(bytes, head),
        b's' if is("serial") => serial(bytes, head),
        b's' if is("subscriptions") && bytes.get(head) == Some(&b'/') => {
            let start = head + 1;
            let end = start + 36;
            (bytes.len() >= end && is_uuid(&bytes[start..end]))
                .then_some(Found::Named(start..end, Class::Account))
        }
        b'1'..=b'9' if word.len() == 12 && text[head..].starts_with(".dkr.ecr.") => word
            .iter()
            .all(u8::is_ascii_digit)
            .then_some(Found::Named(at..head, Class::Account)),
        _ => None,
    };
    found
        .or_else(|| known_token(text, at))
        .or_else(|| user_info(bytes, head))
        .or_else(|| keyed(text, at, compound?))
}

/// `key: value`, `key=value`, `"key": "value"`, `\"key\":\"value\"`.
fn keyed(text: &str, at: usize, end: usize) -> Option<Found> {
    let bytes = text.as_bytes();
    let start = separator(bytes, end)?;
    let key = &bytes[at..end];
    if !is_secret_key(key) {
        return None;
    }
    let is_quoted = matches!(bytes[start - 1], b'"' | b'\'');
    let value = value_after(bytes, start, b"")?;
    let shown = &text[value.clone()];
    if !hides(key, shown) {
        return None;
    }
    let telling = value.len() >= WORD_MIN
        || is_quoted
        || (value.len() >= 4 && shown.bytes().any(|b| !b.is_ascii_alphabetic()));
    // "the token: not found" is prose.
    telling.then_some(Found::Secret(value))
}

/// The end of the compound of words joined by `-` and `.` that begins here, if it can be a key.
pub(super) fn compound_end(bytes: &[u8], at: usize) -> usize {
    let most = bytes.len().min(at + KEY_MAX + 1);
    let mut end = at;
    while end < most && (is_word(bytes[end]) || matches!(bytes[end], b'-' | b'.')) {
        end += 1;
    }
    end
}

/// `Basic dXNlcjpwYXNz`, with a blank or, in a form, a plus between.
fn basic(text: &str, head: usize) -> Option<Found> {
    let value = value_after(text.as_bytes(), head, b" \t+")?;
    is_pair(&text[value.clone()]).then_some(Found::Secret(value))
}

/// The password in `scheme://user:password@host`, or all before the `@` where there is no name.
fn user_info(bytes: &[u8], head: usize) -> Option<Found> {
    let rest = bytes.get(head..)?;
    if !rest.starts_with(b"://") {
        return None;
    }
    let start = head + 3;
    let length = bytes[start..]
        .iter()
        .take(2048)
        .take_while(|b| {
            !b.is_ascii_whitespace()
                && !matches!(b, b'/' | b'?' | b'#' | b'"' | b'\'' | b'<' | b'>')
        })
        .count();
    let authority = &bytes[start..start + length];
    // The last one: a careless program leaves an `@` in the password as it is.
    let at = authority.iter().rposition(|b| *b == b'@')?;
    let secret = match authority[..at].iter().position(|b| *b == b':') {
        Some(colon) => start + colon + 1..start + at,
        None if at >= 16 => start..start + at,
        None => return None,
    };
    (!secret.is_empty()).then_some(Found::Secret(secret))
}

/// The value of a header that holds a credential, up to the quote that was opened before or the end of the line.
fn header(bytes: &[u8], at: usize, head: usize) -> Option<Found> {
    let start = separator(bytes, head)?;
    if matches!(bytes.get(start), Some(b'{' | b'[')) {
        // A field of an object, which is looked at by its keys.
        return None;
    }
    let quote = |byte: Option<&u8>| byte.copied().filter(|b| matches!(b, b'"' | b'\''));
    let inside = quote(bytes.get(start.wrapping_sub(1)));
    let around = at
        .checked_sub(1)
        .and_then(|before| quote(bytes.get(before)));
    let ends = inside.or(around);
    let length = bytes[start..]
        .iter()
        .position(|b| matches!(b, b'\r' | b'\n') || Some(*b) == ends)
        .unwrap_or(bytes.len() - start);
    (length > 0).then_some(Found::Secret(start..start + length))
}

/// Where the value begins after `: `, `=`, `": "`, `\":\"`.
fn separator(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    let mut seen = false;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b' ' | b'\t' | b'"' | b'\'' | b'\\' if at - from < 8 => {}
            b':' | b'=' if !seen => seen = true,
            // An empty value: what follows its quotes is something else.
            _ => break,
        }
        at += 1;
    }
    seen.then_some(at)
}

/// A value of visible characters without quotes and separators, after at least one of `gap` (none: right here).
fn value_after(bytes: &[u8], from: usize, gap: &[u8]) -> Option<Range<usize>> {
    let start = from + bytes[from..].iter().take_while(|b| gap.contains(b)).count();
    if !gap.is_empty() && start == from {
        return None;
    }
    let length = bytes[start..]
        .iter()
        .take_while(|b| {
            // Passwords have other letters than those of English, too.
            (b.is_ascii_graphic() || **b >= 0x80)
                && !matches!(
                    b,
                    b'"' | b'\'' | b',' | b';' | b'&' | b')' | b'}' | b']' | b'\\'
                )
        })
        .count();
    Some(start..start + length)
}

fn json_web_token(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let part = |from: usize| {
        bytes[from..]
            .iter()
            .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            .count()
    };
    let header = part(at);
    let payload_at = at + header + 1;
    if header < 10 || bytes.get(payload_at - 1) != Some(&b'.') {
        return None;
    }
    let payload = part(payload_at);
    if payload < 4 {
        return None;
    }
    let mut end = payload_at + payload;
    // Two more parts in encrypted ones.
    for _ in 0..3 {
        if bytes.get(end) == Some(&b'.') {
            end += 1 + part(end + 1);
        }
    }
    Some(at..end)
}

fn arn_account(bytes: &[u8], head: usize) -> Option<Range<usize>> {
    // arn:partition:service:region:account:resource
    let mut colons = 0;
    for (offset, byte) in bytes[head..].iter().take(120).enumerate() {
        if *byte == b':' {
            colons += 1;
            let start = head + offset + 1;
            if colons == 4 {
                let digits = bytes[start..]
                    .iter()
                    .take_while(|b| b.is_ascii_digit())
                    .count();
                return (digits == 12).then_some(start..start + digits);
            }
        } else if byte.is_ascii_whitespace() {
            return None;
        }
    }
    None
}

fn device_uuid(bytes: &[u8], head: usize) -> Option<Found> {
    let start = head + 1;
    let end = start + 36;
    (bytes.get(head) == Some(&b'-') && bytes.len() >= end && is_uuid(&bytes[start..end]))
        .then_some(Found::Named(start..end, Class::Device))
}

/// `Serial Number : 1322621…`, `serial=…`, `"serialNumber": …` is a word of its own and not found here.
fn serial(bytes: &[u8], head: usize) -> Option<Found> {
    let mut at = head;
    for word in ["number", "no"] {
        let gap = bytes[at..]
            .iter()
            .take_while(|b| matches!(b, b' ' | b'_' | b'-'))
            .count();
        let end = at + gap + word.len();
        if bytes.len() >= end && bytes[at + gap..end].eq_ignore_ascii_case(word.as_bytes()) {
            at = end;
            break;
        }
    }
    // Tools align their tables with many spaces before the colon.
    at += bytes[at..]
        .iter()
        .take_while(|b| matches!(b, b' ' | b'\t'))
        .count();
    let value = value_after(bytes, separator(bytes, at)?, b"")?;
    let telling = value.len() >= 6
        && bytes[value.clone()].iter().any(u8::is_ascii_digit)
        && is_plain(&bytes[value.clone()]);
    telling.then_some(Found::Named(value, Class::Device))
}

/// Tokens that well-known services mark by a prefix, and how long they are at least.
fn known_token(text: &str, at: usize) -> Option<Found> {
    const PREFIXES: &[(&str, usize)] = &[
        ("AGE-SECRET-KEY-1", 40),
        ("AIza", 35),
        ("GOCSPX-", 20),
        ("SG.", 30),
        ("dckr_pat_", 20),
        ("dop_v1_", 20),
        ("ghp_", 20),
        ("gho_", 20),
        ("ghu_", 20),
        ("ghs_", 20),
        ("ghr_", 20),
        ("github_pat_", 20),
        ("glpat-", 20),
        ("gldt-", 20),
        ("glrt-", 20),
        ("hf_", 20),
        ("hvb.", 20),
        ("hvs.", 20),
        ("npm_", 20),
        ("nvapi-", 20),
        ("pypi-", 20),
        ("rk_live_", 20),
        ("sk-ant-", 20),
        ("sk-proj-", 20),
        ("sk_live_", 20),
        ("xapp-", 20),
        ("xoxa-", 20),
        ("xoxb-", 20),
        ("xoxe-", 20),
        ("xoxp-", 20),
        ("xoxr-", 20),
        ("xoxs-", 20),
        ("ya29.", 20),
    ];
    let rest = &text.as_bytes()[at..];
    if !matches!(
        rest[0],
        b'A' | b'G' | b'S' | b'd' | b'g' | b'h' | b'n' | b'p' | b'r' | b's' | b'x' | b'y'
    ) {
        return None;
    }
    let (_, least) = PREFIXES
        .iter()
        .find(|(prefix, _)| rest.starts_with(prefix.as_bytes()))?;
    let length = rest
        .iter()
        .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        .count();
    // A name may begin like a token; what was drawn at random has a digit.
    let telling = length >= *least && rest[..length].iter().any(u8::is_ascii_digit);
    telling.then_some(Found::Secret(at..at + length))
}

/// A private key in PEM form, from its first to its last dash.
pub(super) fn private_key(text: &str, at: usize) -> Option<Range<usize>> {
    const BEGIN: &str = "-----BEGIN ";
    const END: &str = "PRIVATE KEY-----";
    const END_BLOCK: &str = "PRIVATE KEY BLOCK-----";
    let rest = text.get(at..)?;
    let title = rest.strip_prefix(BEGIN)?;
    let title_end = title.find("-----")?;
    let is_block = title[..title_end].ends_with("PRIVATE KEY BLOCK");
    if !is_block && !title[..title_end].ends_with("PRIVATE KEY") {
        return None;
    }
    let body = BEGIN.len() + title_end + 5;
    let end = if is_block { END_BLOCK } else { END };
    // A key that is cut off is a key as well.
    let end = rest[body..]
        .find(end)
        .map_or(rest.len(), |to| body + to + end.len());
    Some(at..at + end)
}

/// A password that was hashed for a file: `$2y$10$…`, `$6$salt$…`, `$apr1$…`.
pub(super) fn crypted(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    const KINDS: &[&[u8]] = &[
        b"$1$", b"$2a$", b"$2b$", b"$2y$", b"$5$", b"$6$", b"$7$", b"$y$", b"$apr1$", b"$argon2",
    ];
    let rest = &bytes[at..];
    KINDS.iter().find(|kind| rest.starts_with(kind))?;
    let length = rest
        .iter()
        .take_while(|b| {
            b.is_ascii_alphanumeric() || matches!(b, b'$' | b'.' | b'/' | b'=' | b'+' | b',' | b'-')
        })
        .count();
    (length >= 30).then_some(at..at + length)
}

fn head_of_segment(bytes: &[u8], from: usize) -> usize {
    from + bytes[from..]
        .iter()
        .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        .count()
}

/// Whether a value may come back into a request without changing its grammar: no quotes, spaces or operators.
pub(super) fn is_plain(value: &[u8]) -> bool {
    !value.is_empty()
        && value.len() <= 253
        && value
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b':' | b'/'))
}
