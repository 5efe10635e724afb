//! Rule 7: which of the shown values come from the platform. A value counts when it occurs in an answer of its case and the
//! platform said it before this run ever sent it; everything else was computed or written by the probe.

use super::Evidence;
use super::timeline::Opened;
use crate::model::Observation;
use crate::recording::format::{Bytes, Entry, Failure, ReplyKind, Seen, function};
use serde_json::Value;
use std::cell::OnceCell;

/// The texts of an attempt, read once each.
pub(super) struct Texts<'a> {
    evidence: &'a Evidence<'a>,
    answers: Vec<OnceCell<Option<Vec<String>>>>,
    requests: Vec<OnceCell<Vec<String>>>,
}

/// What became of the values that a case showed.
pub(super) struct Shown {
    pub(super) observations: Vec<Observation>,
    /// Answers of the case that this copy does not have.
    pub(super) withheld: usize,
}

impl<'a> Texts<'a> {
    pub(super) fn new(evidence: &'a Evidence<'a>) -> Texts<'a> {
        let cells = evidence.entries.len();
        Texts {
            evidence,
            answers: (0..cells).map(|_| OnceCell::new()).collect(),
            requests: (0..cells).map(|_| OnceCell::new()).collect(),
        }
    }

    /// Texts of a live answer; none when it is withheld, empty when the entry is no answer of a server.
    fn answer(&self, index: usize) -> Option<&[String]> {
        self.answers[index]
            .get_or_init(|| {
                let entry = &self.evidence.entries[index];
                if !is_answer(entry) {
                    return Some(Vec::new());
                }
                Some(match self.evidence.replies.reply(entry)? {
                    Ok(Seen::Text(text)) | Ok(Seen::Event { text, .. }) => vec![text],
                    Ok(Seen::Page {
                        mut objects,
                        position,
                    }) => {
                        objects.push(position);
                        objects
                    }
                    Ok(Seen::Number(number)) => vec![number.to_string()],
                    Ok(Seen::Raw { code, body, .. }) => vec![code.to_string(), body],
                    Ok(Seen::Bytes(Bytes::Text(text))) => vec![text],
                    Err(Failure::Answered {
                        code,
                        reason,
                        message,
                        body,
                    }) => vec![code.to_string(), reason, message, body],
                    Ok(
                        Seen::Nothing
                        | Seen::Ready(_)
                        | Seen::Numbers(_)
                        | Seen::Bytes(Bytes::Base64(_)),
                    )
                    | Err(_) => Vec::new(),
                })
            })
            .as_deref()
    }

    /// Texts that a request sent to the cluster, refused ones included: the guest knew them.
    fn request(&self, index: usize) -> &[String] {
        self.requests[index].get_or_init(|| {
            let entry = &self.evidence.entries[index];
            let mut texts = Vec::new();
            // Numbers of responses and sizes of reads never leave the host.
            if entry.access.is_some() && !entry.function.starts_with("http.response.") {
                leaves(&entry.arguments, &mut texts);
            }
            texts
        })
    }

    /// Judges the values that a case showed.
    pub(super) fn shown(&self, opened: &Opened<'_>) -> Shown {
        let withheld = (opened.from + 1..opened.until)
            .filter(|index| self.answer(*index).is_none())
            .count();
        let observations = opened
            .observed
            .iter()
            .map(|(index, name, value)| Observation {
                name: name.clone(),
                value: value.clone(),
                from_answer: self.is_from_platform(opened.from, *index, value),
            })
            .collect();
        Shown {
            observations,
            withheld,
        }
    }

    fn is_from_platform(&self, from: usize, shown: usize, value: &str) -> bool {
        if value.trim().is_empty() || self.is_given(value) {
            return false;
        }
        let needle = Needle::new(value);
        let answers = |index: usize| {
            self.answer(index)
                .is_some_and(|texts| texts.iter().any(|text| needle.occurs(text)))
        };
        if !(from + 1..shown).any(answers) {
            return false;
        }
        // Whoever said it first: an answer may only repeat what its own request sent.
        (0..shown)
            .find_map(|index| {
                let sent = self.request(index).iter().any(|text| needle.occurs(text));
                if sent {
                    Some(false)
                } else {
                    answers(index).then_some(true)
                }
            })
            .unwrap_or(false)
    }

    /// What the engine itself told the guest is no news from the platform.
    fn is_given(&self, value: &str) -> bool {
        let header = self.evidence.header;
        value == header.run
            || header.namespaces.values().any(|given| given == value)
            || header.images.values().any(|given| given == value)
    }
}

fn is_answer(entry: &Entry) -> bool {
    let event = entry.function == function::WATCH_NEXT && !entry.facts.event.is_empty();
    (entry.facts.live || event) && matches!(entry.result, ReplyKind::Ok | ReplyKind::Answered)
}

fn leaves(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::String(text) => out.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| leaves(item, out)),
        Value::Object(map) => {
            for (key, item) in map {
                out.push(key.clone());
                leaves(item, out);
            }
        }
        Value::Null => {}
        scalar => out.push(scalar.to_string()),
    }
}

/// A value to look for: as it is, and as it stands inside JSON text.
struct Needle {
    forms: Vec<String>,
}

impl Needle {
    fn new(value: &str) -> Needle {
        let mut forms = vec![value.to_owned()];
        let quoted = Value::String(value.to_owned()).to_string();
        let escaped = &quoted[1..quoted.len() - 1];
        if escaped != value {
            forms.push(escaped.to_owned());
        }
        // An object that the guest read and shows again, whatever its spaces.
        if value.starts_with(['{', '['])
            && let Ok(parsed) = serde_json::from_str::<Value>(value)
        {
            let compact = parsed.to_string();
            if compact != value {
                forms.push(compact);
            }
        }
        Needle { forms }
    }

    fn occurs(&self, text: &str) -> bool {
        self.forms.iter().any(|form| occurs(text, form))
    }
}

/// Whether a value occurs as a whole word: the `7` of `17` proves nothing.
fn occurs(text: &str, value: &str) -> bool {
    let word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let (first, last) = (word(value.chars().next()), word(value.chars().next_back()));
    text.match_indices(value).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + value.len()..].chars().next();
        !(first && word(before) || last && word(after))
    })
}

#[cfg(test)]
mod tests {
    use super::{Needle, occurs};

    #[test]
    fn values_are_found_as_whole_words() {
        for (text, value, found) in [
            (r#"{"replicas":7}"#, "7", true),
            (r#"{"replicas":17}"#, "7", false),
            (r#"{"uid":"a-1"}"#, "a-1", true),
            (r#"{"phase":"NotRunning"}"#, "Running", false),
            ("17, 7", "7", true),
            ("größe", "größ", false),
            ("", "x", false),
        ] {
            assert_eq!(occurs(text, value), found, "{value} in {text}");
        }
        assert!(Needle::new("a \"b\"").occurs(r#"{"m":"a \"b\""}"#));
        assert!(Needle::new(r#"{ "a": 1 }"#).occurs(r#"{"x":{"a":1}}"#));
    }
}
