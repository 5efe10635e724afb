//! Bodies that arrive piece by piece, redacted before anybody can take a piece.
//!
//! A secret may lie across two chunks, so text is looked at in whole lines, a private key as a whole, and a JSON document as
//! the document that it is. A line that does not end is cut where no word is cut. Bytes that are no UTF-8 pass between the
//! redacted texts as they are: rules speak of text.

use crate::redact::Redactor;
use std::collections::VecDeque;

/// Bytes of an unfinished line that are held back.
const HOLD: usize = 64 << 10;
/// Largest JSON document that is redacted as one.
const DOCUMENT: usize = 1 << 20;
const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";

/// What arrived and was not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    raw: Vec<u8>,
    ready: VecDeque<u8>,
    is_document: bool,
}

impl Pieces {
    /// Pieces of one JSON document, or of anything else.
    pub(crate) fn new(is_document: bool) -> Pieces {
        Pieces {
            is_document,
            ..Pieces::default()
        }
    }

    /// More arrived.
    pub(crate) fn push(&mut self, redactor: &Redactor, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
        if self.is_document {
            if self.raw.len() <= DOCUMENT {
                return;
            }
            self.is_document = false;
        }
        let mut upto = whole_lines(&self.raw);
        if self.raw.len() - upto > HOLD {
            upto = between_words(&self.raw);
        }
        self.release(redactor, upto);
    }

    /// Nothing more arrives.
    pub(crate) fn end(&mut self, redactor: &Redactor) {
        self.release(redactor, self.raw.len());
    }

    /// At most `max` redacted bytes.
    pub(crate) fn take(&mut self, max: usize) -> Vec<u8> {
        let count = max.min(self.ready.len());
        self.ready.drain(..count).collect()
    }

    /// Whether there is something to take.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Bytes in memory.
    pub(crate) fn len(&self) -> usize {
        self.raw.len() + self.ready.len()
    }

    fn release(&mut self, redactor: &Redactor, upto: usize) {
        if upto == 0 {
            return;
        }
        let rest = self.raw.split_off(upto);
        let raw = std::mem::replace(&mut self.raw, rest);
        for chunk in raw.utf8_chunks() {
            let text = if self.is_document {
                redactor.redact_document(chunk.valid())
            } else {
                redactor.redact_text(chunk.valid())
            };
            self.ready.extend(text.into_bytes());
            self.ready.extend(chunk.invalid());
        }
    }
}

/// The end of the last whole line that lies in no private key.
fn whole_lines(raw: &[u8]) -> usize {
    let open = rfind(raw, BEGIN).filter(|at| {
        let behind = &raw[*at..];
        // The title of a key ends its line, and so does the mark of its end.
        rfind(behind, END).is_none_or(|end| !behind[end..].contains(&b'\n'))
    });
    let upto = match open {
        Some(at) if raw.len() - at <= HOLD => at,
        _ => raw.len(),
    };
    raw[..upto]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1)
}

/// A place near the end where no word and no character is cut; all of it where there is none.
fn between_words(raw: &[u8]) -> usize {
    let from = raw.len().saturating_sub(HOLD / 2);
    raw[from..]
        .iter()
        .rposition(|byte| byte.is_ascii_whitespace() || b",;\"'".contains(byte))
        .map_or(raw.len(), |at| from + at + 1)
}

fn rfind(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).rposition(|window| window == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(chunks: &[&[u8]], is_document: bool) -> (Vec<u8>, Vec<u8>) {
        let redactor = Redactor::new("abcdefgh").unwrap();
        let mut pieces = Pieces::new(is_document);
        for chunk in chunks {
            pieces.push(&redactor, chunk);
        }
        let early = pieces.take(usize::MAX);
        pieces.end(&redactor);
        (early, pieces.take(usize::MAX))
    }

    #[test]
    fn lines_come_when_they_end() {
        let (early, late) = fed(&[b"data: one\n\ndata: tw", b"o\nda", b"ta"], false);
        assert_eq!(early, b"data: one\n\ndata: two\n");
        assert_eq!(late, b"data");
    }

    #[test]
    fn a_secret_across_chunks_is_found() {
        let token = "Authorization: Bearer abcdefghijklmnopqrstuvwxyz0123456789";
        let (first, second) = token.as_bytes().split_at(40);
        let (early, late) = fed(&[first, second, b"\nrest"], false);
        let all = String::from_utf8([early, late].concat()).unwrap();
        assert!(!all.contains("abcdefghijklmnop"), "{all}");
        assert!(all.ends_with("rest"), "{all}");

        let key = b"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----\nafter\n";
        for cut in 1..key.len() {
            let (early, late) = fed(&[&key[..cut], &key[cut..]], false);
            let all = String::from_utf8([early, late].concat()).unwrap();
            assert!(!all.contains("MIIEvQ"), "cut at {cut}: {all}");
            assert!(all.ends_with("after\n"), "cut at {cut}: {all}");
        }
    }

    #[test]
    fn a_document_is_redacted_as_one() {
        let (early, late) = fed(&[b"{\"password\":\n", b"\"hunter2hunter2\",\"n\":1}"], true);
        assert!(early.is_empty());
        let text = String::from_utf8(late).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("\"n\":1"), "{text}");
    }

    #[test]
    fn an_endless_line_is_cut_between_words_and_binary_passes() {
        let word = b"word ".repeat(HOLD / 4);
        let (early, late) = fed(&[&word], false);
        assert!(!early.is_empty() && early.ends_with(b" "));
        assert_eq!([early, late].concat(), word);
        let binary = [0xff, 0xfe, b'a', b'\n', 0x80];
        let (early, late) = fed(&[&binary], false);
        assert_eq!([early, late].concat(), binary);
    }
}
