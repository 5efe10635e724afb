//! Secrets that were written in another form: base64 of any alphabet, also wrapped, repeated or compressed before; hex;
//! percent form; JSON inside a string. What decodes to text in which anything is found is hidden as a whole.
//!
//! Text comes from strangers, so all is bounded: how deep one form lies in another, how many bytes one object may decode
//! to, how far a compressed text is followed. Where a bound is met, what looks like packed data is hidden unread.

use super::scan::Found;
use super::{How, Maps};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;
use std::io::Read;
use std::ops::Range;

/// How many forms may lie in each other.
const DEPTH_MAX: u8 = 5;
/// Bytes that one object or text may decode to.
pub(super) const DECODED_MAX: usize = 16 << 20;
/// Bytes that one compressed text is followed for.
const UNPACKED_MAX: u64 = 4 << 20;
/// Shortest base64 that is looked at: 12 bytes.
const BASE64_MIN: usize = 16;
/// Shortest hex that is looked at: 12 bytes.
const HEX_MIN: usize = 24;
/// Shortest base64 of bytes that are no text in which text is looked for.
const BINARY_MIN: usize = 32;
/// A line of wrapped base64 is at least so long; `base64`, PEM and MIME wrap at 64 and 76.
const WRAPPED_MIN: usize = 60;
/// Parts of a path or name that are tried one by one.
const PARTS_MAX: usize = 16;
/// Largest text that is read as JSON.
const DOCUMENT_MAX: usize = 4 << 20;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Decodes base64 of either alphabet, with or without padding and line ends.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        plain.push(match byte {
            b'-' => b'+',
            b'_' => b'/',
            b'=' | b'\r' | b'\n' | b' ' | b'\t' => continue,
            byte => byte,
        });
    }
    if plain.len() % 4 == 1 {
        // No base64 has that length; a letter of the text around it may have been caught.
        plain.pop();
    }
    BASE64.decode(plain).ok()
}

/// A run of letters that base64 can consist of, with its line ends and padding.
fn run(bytes: &[u8], at: usize) -> Range<usize> {
    let is_letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_');
    let mut end = at;
    loop {
        let line = bytes[end..].iter().take_while(|b| is_letter(**b)).count();
        end += line;
        if line < WRAPPED_MIN {
            break;
        }
        // Wrapped: the next line goes on, perhaps behind the indentation of YAML.
        let gap = bytes[end..]
            .iter()
            .take(80)
            .take_while(|b| matches!(b, b'\r' | b'\n' | b' ' | b'\t'))
            .count();
        let next = end + gap;
        let goes_on =
            bytes[end..next].contains(&b'\n') && bytes.get(next).copied().is_some_and(is_letter);
        if !goes_on {
            break;
        }
        end = next;
    }
    end += bytes[end..]
        .iter()
        .take(2)
        .take_while(|b| **b == b'=')
        .count();
    at..end
}

impl Maps {
    /// A run of base64 or hex that begins here and hides something. Gives where the run ends as well, so that nobody tries
    /// it again from its middle.
    pub(super) fn encoded(&mut self, text: &str, at: usize, how: How) -> (Option<Found>, usize) {
        let whole = run(text.as_bytes(), at);
        let end = whole.end;
        if whole.len() < BASE64_MIN {
            return (None, end);
        }
        if self.hides_something(&text[whole.clone()], how) {
            return (Some(Found::Secret(whole)), end);
        }
        // A path or a name that holds one. A comparison of the parts with the whole saves the search in most.
        let inner = &text[whole.clone()];
        for sign in ['/', '-', '_', '+'] {
            if !inner.contains(sign) {
                continue;
            }
            let mut from = whole.start;
            for part in inner.split(sign).take(PARTS_MAX) {
                let range = from..from + part.len();
                from = range.end + 1;
                if part.len() >= BASE64_MIN && self.hides_something(part, how) {
                    return (Some(Found::Secret(range)), end);
                }
            }
        }
        (None, end)
    }

    /// As [`Maps::encoded`], for a run that begins with no letter. Most are paths, so only the whole is tried.
    pub(super) fn packed_at(&mut self, text: &str, at: usize, how: How) -> Option<Range<usize>> {
        let bytes = text.as_bytes();
        let follows = at > 0
            && (bytes[at - 1].is_ascii_alphanumeric() || matches!(bytes[at - 1], b'/' | b'+'));
        let whole = run(bytes, at);
        (!follows && whole.len() >= BASE64_MIN && self.hides_something(&text[whole.clone()], how))
            .then_some(whole)
    }

    fn hides_something(&mut self, run: &str, how: How) -> bool {
        let Some(deeper) = how.deeper(DEPTH_MAX) else {
            return false;
        };
        let digits = run.trim_end_matches('=');
        if digits.len() >= HEX_MIN
            && digits.len().is_multiple_of(2)
            && digits.bytes().all(|b| b.is_ascii_hexdigit())
            && let Ok(bytes) = data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes())
            && self.is_telling(&bytes, deeper)
        {
            return true;
        }
        base64(run).is_some_and(|bytes| self.is_telling(&bytes, deeper))
    }

    /// Whether anything is found in what was decoded.
    fn is_telling(&mut self, bytes: &[u8], how: How) -> bool {
        if let Some(unpacked) = unpacked(bytes) {
            return match unpacked {
                Some(inner) if self.afford(inner.len()) => how
                    .deeper(DEPTH_MAX)
                    .is_some_and(|deeper| self.is_telling(&inner, deeper)),
                _ => true,
            };
        }
        if !self.afford(bytes.len()) {
            return true;
        }
        // Text of two bytes a letter looks like text with zeros in it.
        if let Ok(text) = std::str::from_utf8(bytes)
            && !bytes.contains(&0)
        {
            return self.look(text, how).is_some();
        }
        if bytes.len() < BINARY_MIN {
            return false;
        }
        // Binary data with text in it, or text of two bytes a letter.
        let zeros = bytes.iter().filter(|b| **b == 0).count();
        let text: String = bytes
            .iter()
            .filter(|b| **b != 0 || zeros * 3 < bytes.len())
            .map(|b| match b {
                b' '..=b'~' => char::from(*b),
                _ => '\n',
            })
            .collect();
        self.scan(&text, how, false).is_some()
    }

    fn afford(&mut self, bytes: usize) -> bool {
        self.decoded = self.decoded.saturating_add(bytes);
        self.decoded <= DECODED_MAX
    }

    /// A word in percent form around `at`, where a `%` is, that hides something. Gives where the word ends as well.
    pub(super) fn percent(
        &mut self,
        text: &str,
        from: usize,
        at: usize,
        how: How,
    ) -> (Option<Found>, usize) {
        let bytes = text.as_bytes();
        let is_inner = |b: &u8| {
            b.is_ascii_graphic()
                && !matches!(
                    b,
                    b'"' | b'\''
                        | b'<'
                        | b'>'
                        | b','
                        | b';'
                        | b'&'
                        | b'?'
                        | b'='
                        | b'/'
                        | b'('
                        | b')'
                        | b'#'
                )
        };
        let back = bytes[from..at]
            .iter()
            .rev()
            .take_while(|b| is_inner(b))
            .count();
        let end = at + bytes[at..].iter().take_while(|b| is_inner(b)).count();
        let range = at - back..end;
        let Some(deeper) = how.deeper(DEPTH_MAX) else {
            return (None, end);
        };
        let decode = |plus: bool| {
            let mut out = Vec::with_capacity(range.len());
            let mut rest = &bytes[range.clone()];
            while let Some((first, behind)) = rest.split_first() {
                let digits = behind.get(..2).filter(|_| *first == b'%');
                match digits.and_then(|two| data_encoding::HEXLOWER_PERMISSIVE.decode(two).ok()) {
                    Some(one) => {
                        out.extend_from_slice(&one);
                        rest = &behind[2..];
                    }
                    None => {
                        out.push(if plus && *first == b'+' { b' ' } else { *first });
                        rest = behind;
                    }
                }
            }
            out
        };
        let plain = decode(false);
        if plain.len() == range.len() {
            // A percent sign as such.
            return (None, end);
        }
        let found = self.is_telling(&plain, deeper)
            || (bytes[range.clone()].contains(&b'+') && self.is_telling(&decode(true), deeper));
        (found.then_some(Found::Secret(range)), end)
    }

    /// JSON inside a string, redacted as an object is. None where the text is none; inner none where nothing changed.
    pub(super) fn document(&mut self, text: &str, how: How) -> Option<Option<String>> {
        if !text.trim_start().starts_with(['{', '[']) || text.len() > DOCUMENT_MAX {
            return None;
        }
        let deeper = how.deeper(DEPTH_MAX)?;
        if !self.afford(text.len()) {
            return None;
        }
        let mut value: Value = serde_json::from_str(text).ok()?;
        let before = value.clone();
        self.inner_document(&mut value, deeper);
        Some((value != before).then(|| value.to_string()))
    }

    /// JSON that begins in the middle of a text: where it ends, and what it becomes if anything changes.
    pub(super) fn document_at(
        &mut self,
        text: &str,
        at: usize,
        how: How,
    ) -> Option<(usize, Option<String>)> {
        let rest = &text[at..];
        if !opens(rest) || rest.len() > DOCUMENT_MAX {
            return None;
        }
        let deeper = how.deeper(DEPTH_MAX)?;
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        let mut value = stream.next()?.ok()?;
        let end = at + stream.byte_offset();
        if !self.afford(end - at) {
            return None;
        }
        let before = value.clone();
        self.inner_document(&mut value, deeper);
        Some((end, (value != before).then(|| value.to_string())))
    }
}

/// Whether JSON with something in it may begin so: `{"`, also with blanks between.
fn opens(text: &str) -> bool {
    text.strip_prefix('{')
        .is_some_and(|inner| inner.trim_start().starts_with('"'))
}

/// What compressed bytes hold; inner none where it is too much or broken. None for bytes that are not compressed.
fn unpacked(bytes: &[u8]) -> Option<Option<Vec<u8>>> {
    fn all(reader: impl Read) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        // A text that was cut off still holds what comes before the cut.
        let result = reader.take(UNPACKED_MAX + 1).read_to_end(&mut out);
        let fits = out.len() as u64 <= UNPACKED_MAX;
        (fits && (result.is_ok() || !out.is_empty())).then_some(out)
    }
    match bytes {
        [0x1f, 0x8b, 8, ..] => Some(all(flate2::read::MultiGzDecoder::new(bytes))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::stream::read::Decoder::new(bytes).ok()?;
            decoder.window_log_max(23).ok()?;
            Some(all(decoder))
        }
        // Two bytes are no sign, so that what does not unpack was something else.
        [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] => {
            let inner = all(flate2::read::ZlibDecoder::new(bytes))?;
            Some(Some(inner))
        }
        _ => None,
    }
}
