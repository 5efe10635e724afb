//! Finding what must not be seen inside text: one pass over the bytes, no backtracking, so that hostile text costs no more
//! than any other.
//!
//! A word begins after a byte that is neither letter, digit nor underscore. At each beginning the scanner asks a small
//! dictionary, then [`super::patterns`], chosen by the word's first letters, then whether a packed text begins here
//! ([`super::encoded`]). Rules of the operator ([`super::rules`]) look at the text before all that.

use super::patterns::{compound_end, crypted, pattern, private_key};
use super::{Class, DIGITS, How, MARK, Maps, WORD_MIN};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Places in one text where JSON may begin.
const DOCUMENTS_MAX: u32 = 8;

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

pub(super) fn is_word(byte: u8) -> bool {
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
pub(super) enum Found {
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
        self.look(text, How::text(self.depth))
    }

    /// Redacts a string of an object that has no meaning of its own; none when nothing changed.
    pub(super) fn string(&mut self, text: &str) -> Option<String> {
        self.look(text, How::string(self.depth))
    }

    /// Redacts a string that says what an object is, or a key: by patterns alone, since a node may be called like a kind.
    pub(super) fn word(&mut self, text: &str) -> Option<String> {
        self.look(text, How::word(self.depth))
    }

    /// Everything that can be found in one text, rules of the operator first.
    pub(super) fn look(&mut self, text: &str, how: How) -> Option<String> {
        let rules = Arc::clone(&self.rules);
        let by_rule = rules.replace(text, |found| self.mark(found));
        let now = by_rule.as_deref().unwrap_or(text);
        let found = if now.len() < WORD_MIN {
            None
        } else {
            let document = self.document(now, how);
            let is_document = document.is_some();
            let document = document.flatten();
            // Once more as text: where a key stands twice, a reader of JSON sees only one of its values.
            let now = document.as_deref().unwrap_or(now);
            self.scan(now, how, is_document).or(document)
        };
        found.or(by_rule)
    }

    /// One pass over a text. `is_document` says that it is JSON which was looked at as such.
    pub(super) fn scan(&mut self, text: &str, how: How, is_document: bool) -> Option<String> {
        if text.len() < WORD_MIN {
            return None;
        }
        let bytes = text.as_bytes();
        let mut out: Option<String> = None;
        let mut copied = 0;
        let mut at = 0;
        // Until where a compound of words, packed text and text in percent form were looked at.
        let (mut compound, mut packed, mut percent) = (0, 0, 0);
        // Until where a document was read, and how many were tried: one that is cut off is read to the end each time.
        let (mut document, mut inner) = (if is_document { text.len() } else { 0 }, 0);
        while at < bytes.len() {
            if !is_word(bytes[at]) {
                let secret = match bytes[at] {
                    _ if !self.built_in => None,
                    b'-' => private_key(text, at),
                    // Packed bytes that are no text may begin so: those of two bytes a letter do.
                    b'/' | b'+' if at >= packed => self.packed_at(text, at, how),
                    b'$' => crypted(bytes, at),
                    b'{' if inner < DOCUMENTS_MAX && at >= document => {
                        inner += 1;
                        if let Some((end, with)) = self.document_at(text, at, how) {
                            if let Some(with) = with {
                                splice(&mut out, text, &mut copied, &(at..end), &with);
                                at = end;
                                continue;
                            }
                            // What is in it was looked at; as text it is looked at once more.
                            document = end;
                        }
                        None
                    }
                    b'%' if at >= percent => {
                        let (found, end) = self.percent(text, copied, at, how);
                        percent = end.max(at + 1);
                        match found {
                            Some(Found::Secret(range)) => Some(range),
                            _ => None,
                        }
                    }
                    _ => None,
                };
                at = match secret {
                    Some(range) => {
                        let mark = self.mark(&text[range.clone()]);
                        splice(&mut out, text, &mut copied, &range, &mark);
                        range.end
                    }
                    None => at + 1,
                };
                continue;
            }
            let head = head_end(bytes, at);
            let mut found = self.known(text, at, head, how);
            if found.is_none() && self.built_in {
                let begins = (at >= compound).then(|| compound_end(bytes, at));
                compound = begins.unwrap_or(compound);
                found = pattern(text, at, head, begins);
                if found.is_none() && at >= packed {
                    let (hidden, end) = self.encoded(text, at, how);
                    packed = end;
                    found = hidden;
                }
            }
            match found {
                None => at = head,
                Some(found) => {
                    let (range, with) = match found {
                        Found::Known(range) => {
                            let word = &text[range.clone()];
                            let with = self.forward.get(word).or_else(|| self.hidden.get(word));
                            (range, with.cloned())
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

    /// A word of the dictionary.
    fn known(&self, text: &str, at: usize, head: usize, how: How) -> Option<Found> {
        let words = if how.namespaces {
            &self.text_words
        } else {
            &self.words
        };
        words
            .at(text, at, head)
            .filter(|word| how.words || word.bytes().any(|b| b.is_ascii_digit()))
            .find(|word| self.forward.contains_key(*word) || self.hidden.contains_key(*word))
            .map(|word| Found::Known(at..at + word.len()))
    }
}

fn splice(
    out: &mut Option<String>,
    text: &str,
    copied: &mut usize,
    range: &Range<usize>,
    with: &str,
) {
    // What was replaced already stays, also as a part of something larger.
    if range.start < *copied || text[range.clone()] == *with {
        return;
    }
    let out = out.get_or_insert_with(|| String::with_capacity(text.len() + 32));
    out.push_str(&text[*copied..range.start]);
    out.push_str(with);
    *copied = range.end;
}
