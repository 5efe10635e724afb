//! Finding what must not be seen inside text: one pass over the bytes, no backtracking, so that hostile text costs no more
//! than any other.
//!
//! A word begins after a byte that is neither letter, digit nor underscore. At each beginning the scanner asks a small
//! dictionary and a few patterns (tokens, keys, device UUIDs, account numbers), chosen by the word's first letters.

use super::{Class, DIGITS, MARK, Maps, WORD_MIN};
use std::collections::HashMap;
use std::ops::Range;

/// Words to find, by the letters and digits they begin with.
#[derive(Default)]
pub(super) struct Dictionary {
    /// First letters of a word (up to its first separator) to the lengths of the words that begin so, longest first.
    heads: HashMap<String, Vec<usize>>,
    /// One bit for the first two bytes of each word: almost every other word of a text stops here.
    starts: Option<Box<[u64; 1024]>>,
}

impl Dictionary {
    pub(super) fn add(&mut self, word: &str) {
        let bytes = word.as_bytes();
        let head = head_end(bytes, 0);
        if head == 0 {
            return;
        }
        let slot = slot(bytes, 0);
        let starts = self.starts.get_or_insert_with(|| Box::new([0; 1024]));
        starts[slot / 64] |= 1 << (slot % 64);
        let lengths = self.heads.entry(word[..head].to_owned()).or_default();
        if let Err(at) = lengths.binary_search_by(|length| word.len().cmp(length)) {
            lengths.insert(at, word.len());
        }
    }

    /// Candidates at a word's beginning, longest first.
    fn at<'a>(&'a self, text: &'a str, at: usize, head: usize) -> impl Iterator<Item = &'a str> {
        let bytes = text.as_bytes();
        let slot = slot(bytes, at);
        let hit = self
            .starts
            .as_ref()
            .is_some_and(|starts| starts[slot / 64] & (1 << (slot % 64)) != 0);
        hit.then(|| self.heads.get(&text[at..head]))
            .flatten()
            .into_iter()
            .flatten()
            .filter_map(move |length| {
                let end = at + length;
                let ends = bytes.len() == end || (end < bytes.len() && !is_word(bytes[end]));
                // Words are ASCII, so a length that cuts a character cannot be one.
                (ends && text.is_char_boundary(end)).then(|| &text[at..end])
            })
    }
}

fn slot(bytes: &[u8], at: usize) -> usize {
    let second = bytes.get(at + 1).copied().unwrap_or_default();
    usize::from(bytes[at]) << 8 | usize::from(second)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn head_end(bytes: &[u8], from: usize) -> usize {
    bytes[from..]
        .iter()
        .position(|b| !is_word(*b))
        .map_or(bytes.len(), |length| from + length)
}

/// Whether these bytes are `8-4-4-4-12` hexadecimal digits.
pub(super) fn is_uuid(bytes: &[u8]) -> bool {
    bytes.len() == 36
        && bytes.iter().enumerate().all(|(at, b)| match at {
            8 | 13 | 18 | 23 => *b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

/// Length of what has the shape of a pseudonym or a mark at this place. Whether it is one, the maps know.
pub(super) fn pseudonym_at(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let prefix = match rest.first()? {
        b'n' => ["node-", "ns-"].as_slice(),
        b'a' => &["address-", "account-"],
        b'd' => &["device-"],
        b'r' => &[MARK],
        _ => &[],
    };
    for prefix in prefix {
        let length = prefix.len() + DIGITS;
        if rest.starts_with(prefix.as_bytes())
            && rest.len() >= length
            && rest[prefix.len()..length].iter().all(u8::is_ascii_hexdigit)
        {
            return Some(length);
        }
    }
    (rest.len() >= 36 && rest[8] == b'-' && is_uuid(&rest[..36])).then_some(36)
}

/// What to do with a piece of text.
enum Found {
    /// A known word.
    Known(Range<usize>),
    /// A value with a pseudonym of this class.
    Named(Range<usize>, Class),
    /// A secret.
    Secret(Range<usize>),
}

impl Maps {
    /// Redacts a message or a log; none when nothing changed.
    pub(super) fn text(&mut self, text: &str) -> Option<String> {
        self.scan(text, true)
    }

    /// Redacts a string of an object that has no meaning of its own; none when nothing changed.
    pub(super) fn string(&mut self, text: &str) -> Option<String> {
        self.scan(text, false)
    }

    fn scan(&mut self, text: &str, with_namespaces: bool) -> Option<String> {
        if text.len() < WORD_MIN {
            return None;
        }
        let bytes = text.as_bytes();
        let mut out: Option<String> = None;
        let mut copied = 0;
        let mut at = 0;
        while at < bytes.len() {
            if !is_word(bytes[at]) {
                if bytes[at] == b'-'
                    && let Some(key) = private_key(text, at)
                {
                    let mark = self.mark(&text[key.clone()]);
                    splice(&mut out, text, &mut copied, &key, &mark);
                    at = key.end;
                    continue;
                }
                at += 1;
                continue;
            }
            let head = head_end(bytes, at);
            match self.find(text, at, head, with_namespaces) {
                None => at = head,
                Some(found) => {
                    let (range, with) = match found {
                        Found::Known(range) => {
                            let with = self.forward.get(&text[range.clone()]).cloned();
                            (range, with)
                        }
                        Found::Named(range, class) => {
                            let with = self.pseudonym(class, &text[range.clone()]);
                            (range, with)
                        }
                        Found::Secret(range) => {
                            let mark = self.mark(&text[range.clone()]);
                            (range, Some(mark))
                        }
                    };
                    if let Some(with) = with {
                        splice(&mut out, text, &mut copied, &range, &with);
                    }
                    at = range.end.max(head);
                }
            }
        }
        out.map(|mut out| {
            out.push_str(&text[copied..]);
            out
        })
    }

    fn find(&self, text: &str, at: usize, head: usize, with_namespaces: bool) -> Option<Found> {
        let words = if with_namespaces {
            &self.text_words
        } else {
            &self.words
        };
        if let Some(word) = words
            .at(text, at, head)
            .find(|word| self.forward.contains_key(*word))
        {
            return Some(Found::Known(at..at + word.len()));
        }
        pattern(text, at, head)
    }
}

fn splice(
    out: &mut Option<String>,
    text: &str,
    copied: &mut usize,
    range: &Range<usize>,
    with: &str,
) {
    let out = out.get_or_insert_with(|| String::with_capacity(text.len() + 32));
    out.push_str(&text[*copied..range.start]);
    out.push_str(with);
    *copied = range.end;
}

/// Patterns that need no knowledge of the cluster, at the beginning of a word that ends at `head`.
fn pattern(text: &str, at: usize, head: usize) -> Option<Found> {
    let bytes = text.as_bytes();
    let word = &bytes[at..head];
    let is = |other: &str| word.eq_ignore_ascii_case(other.as_bytes());
    match word[0] | 0x20 {
        b'e' if word.starts_with(b"eyJ") => json_web_token(bytes, at).map(Found::Secret),
        b'b' if is("bearer") => {
            let value = value_after(bytes, head, b" \t")?;
            // "bearer authentication failed" is prose.
            let telling = value.len() >= 20 || bytes[value.clone()].iter().any(u8::is_ascii_digit);
            (telling && value.len() >= 8).then_some(Found::Secret(value))
        }
        b'a' if is("authorization") => {
            let start = separator(bytes, head)?;
            let end = bytes[start..]
                .iter()
                .position(|b| matches!(b, b'\r' | b'\n' | b'"' | b'\'' | b','))
                .map_or(bytes.len(), |length| start + length);
            (end > start).then_some(Found::Secret(start..end))
        }
        b'a' if is("arn") => arn_account(bytes, head).map(|r| Found::Named(r, Class::Account)),
        b'a' if word.len() == 20 && (word.starts_with(b"AKIA") || word.starts_with(b"ASIA")) => {
            Some(Found::Secret(at..head))
        }
        b'g' if is("gpu") => device_uuid(bytes, head),
        b'g' if is("gce") && text[head..].starts_with("://") => {
            let end = head_of_segment(bytes, head + 3);
            (end > head + 3).then_some(Found::Named(head + 3..end, Class::Account))
        }
        b'g' if word.starts_with(b"gh")
            || word.starts_with(b"glpat")
            || word.starts_with(b"github_pat_") =>
        {
            known_token(text, at)
        }
        b'h' if word.starts_with(b"hf_") => known_token(text, at),
        b'x' if word.starts_with(b"xox") => known_token(text, at),
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
        b't' | b'p' | b's' | b'k' | b'a' | b'c' if is_secret_key(word) => {
            let start = separator(bytes, head)?;
            let value = value_after(bytes, start, b"")?;
            (value.len() >= WORD_MIN).then_some(Found::Secret(value))
        }
        _ => None,
    }
}

/// Whether a key's value is a secret, wherever it stands. Compared without separators and case.
pub(super) fn is_secret_key(key: &[u8]) -> bool {
    const KEYS: &[&str] = &[
        "token",
        "password",
        "passwd",
        "passphrase",
        "secret",
        "apikey",
        "accesskey",
        "secretkey",
        "secretaccesskey",
        "privatekey",
        "clientsecret",
        "clientkeydata",
        "authtoken",
        "accesstoken",
        "refreshtoken",
        "idtoken",
        "bearertoken",
        "bootstraptoken",
        "sessiontoken",
        "authorization",
        "credentials",
    ];
    if key.len() > 24 || key.len() < 5 {
        return false;
    }
    let mut plain = [0_u8; 24];
    let mut length = 0;
    for byte in key {
        if !matches!(byte, b'-' | b'_' | b'.') {
            plain[length] = byte.to_ascii_lowercase();
            length += 1;
        }
    }
    KEYS.iter().any(|word| word.as_bytes() == &plain[..length])
}

/// Where the value begins after `: `, `=`, `": "`.
fn separator(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    let mut seen = false;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b' ' | b'\t' | b'"' | b'\'' | b'\\' if at - from < 6 => {}
            b':' | b'=' if !seen => seen = true,
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
            b.is_ascii_graphic()
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
    if bytes.get(end) == Some(&b'.') {
        end += 1 + part(end + 1);
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

/// Tokens that well-known services mark by a prefix.
fn known_token(text: &str, at: usize) -> Option<Found> {
    const PREFIXES: &[&str] = &[
        "ghp_",
        "gho_",
        "ghu_",
        "ghs_",
        "ghr_",
        "github_pat_",
        "glpat-",
        "hf_",
        "xoxb-",
        "xoxp-",
        "xoxa-",
    ];
    let rest = &text[at..];
    PREFIXES.iter().find(|prefix| rest.starts_with(**prefix))?;
    let length = rest
        .bytes()
        .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        .count();
    (length >= 20).then_some(Found::Secret(at..at + length))
}

/// A private key in PEM form, from its first to its last dash.
fn private_key(text: &str, at: usize) -> Option<Range<usize>> {
    const BEGIN: &str = "-----BEGIN ";
    const END: &str = "PRIVATE KEY-----";
    let rest = text.get(at..)?;
    let title = rest.strip_prefix(BEGIN)?;
    let title_end = title.find("-----")?;
    if !title[..title_end].ends_with("PRIVATE KEY") {
        return None;
    }
    let body = BEGIN.len() + title_end + 5;
    // A key that is cut off is a key as well.
    let end = rest[body..]
        .find(END)
        .map_or(rest.len(), |to| body + to + END.len());
    Some(at..at + end)
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
