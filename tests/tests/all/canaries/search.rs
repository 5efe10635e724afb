//! Looks for many secrets in many files at once: plain, in base64 at each of its three alignments, in hex and percent form.

use super::kinds::percent;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::HashMap;

/// Bytes by which a place is looked at more closely.
const HEAD: usize = 10;

/// Something to look for.
struct Form {
    bytes: Vec<u8>,
    needle: usize,
    written: &'static str,
}

/// All that must not be found.
pub(super) struct Search {
    needles: Vec<String>,
    forms: Vec<Form>,
    heads: HashMap<[u8; HEAD], Vec<usize>>,
}

/// A secret that was found.
pub(super) struct Hit {
    pub(super) needle: String,
    pub(super) written: &'static str,
}

impl Search {
    pub(super) fn new<'a>(needles: impl IntoIterator<Item = &'a str>) -> Search {
        let mut search = Search {
            needles: Vec::new(),
            forms: Vec::new(),
            heads: HashMap::new(),
        };
        for needle in needles {
            search.add(needle);
        }
        search
    }

    fn add(&mut self, needle: &str) {
        assert!(
            needle.len() >= 12,
            "{needle} is too short to tell from chance"
        );
        let at = self.needles.len();
        self.needles.push(needle.to_owned());
        let mut add = |bytes: Vec<u8>, written| {
            let Some(head) = bytes.first_chunk::<HEAD>() else {
                panic!("{needle} is too short as {written}");
            };
            self.heads.entry(*head).or_default().push(self.forms.len());
            self.forms.push(Form {
                bytes,
                needle: at,
                written,
            });
        };
        add(needle.as_bytes().to_vec(), "plain");
        add(needle.to_ascii_lowercase().into_bytes(), "lower case");
        add(needle.to_ascii_uppercase().into_bytes(), "upper case");
        let hex: String = needle.bytes().map(|b| format!("{b:02x}")).collect();
        add(hex.to_ascii_uppercase().into_bytes(), "hex");
        add(hex.into_bytes(), "hex");
        add(percent(needle).into_bytes(), "percent");
        for (written, shift) in [("base64 + 0", 0), ("base64 + 1", 1), ("base64 + 2", 2)] {
            let mut bytes = vec![0; shift];
            bytes.extend_from_slice(needle.as_bytes());
            let packed = STANDARD.encode(&bytes);
            // What stands at both ends depends on what is beside it.
            let from = [0, 2, 3][shift];
            let whole = bytes.len() / 3 * 4;
            add(packed.as_bytes()[from..whole].to_vec(), written);
        }
    }

    /// Everything that is found in some bytes.
    pub(super) fn look(&self, bytes: &[u8]) -> Vec<Hit> {
        let mut hits = Vec::new();
        for window in bytes.windows(HEAD).enumerate() {
            let (at, head) = window;
            let Some(forms) = self.heads.get(head) else {
                continue;
            };
            for form in forms.iter().map(|form| &self.forms[*form]) {
                if bytes[at..].starts_with(&form.bytes) {
                    hits.push(Hit {
                        needle: self.needles[form.needle].clone(),
                        written: form.written,
                    });
                }
            }
        }
        hits
    }
}

#[test]
fn what_is_planted_is_found_in_every_form() {
    let needle = "s3cretOfTheHouse";
    let search = Search::new([needle]);
    for (text, written) in [
        (format!("x {needle} y"), "plain"),
        (STANDARD.encode(format!("abc{needle}z")), "base64 + 0"),
        (STANDARD.encode(format!("abcd{needle}z")), "base64 + 1"),
        (STANDARD.encode(format!("abcde{needle}z")), "base64 + 2"),
        (percent(needle), "percent"),
        (needle.bytes().map(|b| format!("{b:02x}")).collect(), "hex"),
    ] {
        let hits = search.look(text.as_bytes());
        assert!(hits.iter().any(|hit| hit.written == written), "{written}");
    }
    assert!(search.look(b"s3cretOfTheHous e").is_empty());
}
