//! What a person wrote and what a run says, in one entry. Ours is the text between `[karat:` and `]` in the notes, the status
//! that this text names as ours, and evidence below `karat/`. Everything else belongs to people and stays.

use super::decide::Standing;
use crate::lint::CONDITIONAL;

/// Folder of everything of ours beside `PRODUCT.yaml`, and the beginning of our evidence.
pub const OURS: &str = "karat/";

const BEGIN: &str = "[karat: ";
const END: char = ']';
/// What a remark says where it set no status.
const NO_STATUS: &str = "no status";

/// Our part of some notes.
pub(crate) struct Notes<'a> {
    before: &'a str,
    remark: Option<&'a str>,
    after: &'a str,
}

impl<'a> Notes<'a> {
    /// Takes notes apart. An opened remark that is never closed is a person's text.
    pub(crate) fn of(text: &'a str) -> Notes<'a> {
        let whole = text.match_indices(BEGIN).find_map(|(at, _)| {
            let rest = &text[at + BEGIN.len()..];
            let end = rest.find(END)?;
            (!rest[..end].contains('[')).then_some((at, rest, end))
        });
        match whole {
            Some((at, rest, end)) => Notes {
                before: &text[..at],
                remark: Some(&rest[..end]),
                after: &rest[end + END.len_utf8()..],
            },
            None => Notes {
                before: text,
                remark: None,
                after: "",
            },
        }
    }

    /// The status that we wrote with the remark; empty if we left it to a person, none without a remark.
    pub(crate) fn status(&self) -> Option<&'a str> {
        let (status, _) = self.remark?.split_once(". ")?;
        Some(if status == NO_STATUS { "" } else { status })
    }

    /// Whether our part speaks of a run.
    pub(crate) fn cites(&self, run: &str) -> bool {
        self.remark
            .is_some_and(|remark| remark.split([' ', ',', ';', '.']).any(|word| word == run))
    }

    /// The notes with another remark, or without one.
    pub(super) fn with(&self, remark: Option<&str>) -> String {
        match (self.remark, remark) {
            (None, None) => self.before.to_owned(),
            (Some(_), None) => {
                let (before, after) = (self.before, self.after);
                // One of the two blanks around it goes with it.
                let doubled = before.ends_with(' ') && after.starts_with(' ');
                let joined = format!("{before}{}", &after[usize::from(doubled)..]);
                if after.is_empty() {
                    joined.trim_end_matches(' ').to_owned()
                } else if before.is_empty() {
                    joined.trim_start_matches(' ').to_owned()
                } else {
                    joined
                }
            }
            (Some(_), Some(remark)) => format!("{}{BEGIN}{remark}{END}{}", self.before, self.after),
            (None, Some(remark)) => {
                let gap = match self.before.chars().next_back() {
                    None | Some('\n' | ' ') => "",
                    Some(_) if self.before.contains('\n') => "\n",
                    Some(_) => " ",
                };
                format!("{}{gap}{BEGIN}{remark}{END}", self.before)
            }
        }
    }
}

/// A remark: the status that we set, and why. `because` and `more` are harmless text without brackets.
pub(super) fn remark(status: Option<&str>, because: &str, more: &str) -> String {
    debug_assert!(!because.contains(['[', ']']) && !more.contains(['[', ']']));
    format!("{}. {because}. {more}", status.unwrap_or(NO_STATUS))
}

/// Whether evidence is ours.
pub(crate) fn is_ours(evidence: &str) -> bool {
    evidence.trim().starts_with(OURS)
}

/// What becomes of a status.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Status {
    /// What is written.
    pub(super) written: String,
    /// A person's status stays although the run says otherwise, or goes because the run contradicts it.
    pub(super) conflict: Option<Conflict>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Conflict {
    /// The person claims less than was shown.
    Less,
    /// The person claims what the run could not show.
    Unshown,
    /// The person claims what the run contradicts; the status is replaced.
    Contradicted(String),
}

/// The status of an entry. `ours` is what we wrote before, as [`Notes::status`] has it.
pub(super) fn status(there: &str, ours: Option<&str>, standing: Standing) -> Status {
    let plain = |written: &str| Status {
        written: written.to_owned(),
        conflict: None,
    };
    let of_person = !there.is_empty() && ours != Some(there);
    let set = standing.status();
    match (of_person, set) {
        (false, set) => plain(set.unwrap_or_default()),
        (true, Some(set)) if set == there => plain(there),
        (true, None) => Status {
            written: there.to_owned(),
            conflict: (standing == Standing::Open && there != "Not Implemented")
                .then_some(Conflict::Unshown),
        },
        (true, Some(set)) => {
            let goes = standing == Standing::Contradicted
                && !matches!(there, "Not Implemented" | "Partially Implemented");
            Status {
                written: if goes { set } else { there }.to_owned(),
                conflict: Some(if goes {
                    Conflict::Contradicted(there.to_owned())
                } else if standing == Standing::Absent && there == "Implemented" {
                    Conflict::Unshown
                } else {
                    Conflict::Less
                }),
            }
        }
    }
}

/// Whether the validator of the programme refuses `N/A` here, whatever the notes say.
pub(super) fn refuses_na(id: &str, is_must: bool) -> bool {
    is_must && id != CONDITIONAL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_of_people_survive_any_number_of_remarks() {
        for text in [
            "",
            "Mine.",
            "Mine.\nMore.",
            "Mine. ",
            "a ] b",
            "[link] a",
            "[karat: never closed",
            "é\n",
        ] {
            let first = Notes::of(text).with(Some("Implemented. because. more"));
            assert!(
                first.contains("[karat: Implemented. because. more]"),
                "{first}"
            );
            assert!(first.starts_with(text), "{first}");
            let again = Notes::of(&first).with(Some("N/A. other"));
            if !text.contains("[karat") {
                assert_eq!(
                    again,
                    first.replace("Implemented. because. more", "N/A. other")
                );
                assert_eq!(Notes::of(&first).status(), Some("Implemented"));
                assert_eq!(Notes::of(&again).with(None).trim_end(), text.trim_end());
            }
        }
        let around = Notes::of("Before. [karat: no status. x. y] After.");
        assert_eq!(around.status(), Some(""));
        assert_eq!(around.with(None), "Before. After.");
        let cited = Notes::of("Run b. [karat: N/A. Run a on v1.37.0, head c]");
        assert!(cited.cites("a") && cited.cites("c") && !cited.cites("b"));
        assert_eq!(
            around.with(Some("N/A. z")),
            "Before. [karat: N/A. z] After."
        );
        assert_eq!(Notes::of("[karat: N/A. z] After.").with(None), "After.");
    }

    #[test]
    fn a_status_belongs_to_whoever_wrote_it() {
        use Conflict::{Contradicted as No, Less, Unshown};
        use Standing::{Absent, Contradicted, NotRun, Open, Shown};
        let no = |word: &str| Some(No(word.to_owned()));
        #[rustfmt::skip]
        let table = [
            // there, written by us before, what the run says, what is written, conflict
            ("", None, Shown, "Implemented", None),
            ("", None, Open, "", None),
            ("", None, NotRun, "", None),
            ("", None, Absent, "N/A", None),
            ("", None, Contradicted, "Not Implemented", None),
            // Ours of an earlier run is replaced, whatever it was.
            ("Implemented", Some("Implemented"), Open, "", None),
            ("Implemented", Some("Implemented"), NotRun, "", None),
            ("Implemented", Some("Implemented"), Contradicted, "Not Implemented", None),
            ("Not Implemented", Some("Not Implemented"), Shown, "Implemented", None),
            ("N/A", Some("N/A"), Shown, "Implemented", None),
            // A person's stays, unless the run contradicts it.
            ("Implemented", Some(""), Open, "Implemented", Some(Unshown)),
            ("Implemented", None, Open, "Implemented", Some(Unshown)),
            ("Implemented", None, NotRun, "Implemented", None),
            ("Implemented", None, Shown, "Implemented", None),
            ("Implemented", None, Absent, "Implemented", Some(Unshown)),
            ("Implemented", Some(""), Contradicted, "Not Implemented", no("Implemented")),
            ("N/A", None, Contradicted, "Not Implemented", no("N/A")),
            ("Partially Implemented", None, Contradicted, "Partially Implemented", Some(Less)),
            ("Partially Implemented", Some("Implemented"), Shown, "Partially Implemented", Some(Less)),
            ("Not Implemented", None, Shown, "Not Implemented", Some(Less)),
            ("Not Implemented", None, Open, "Not Implemented", None),
            ("nonsense", None, Shown, "nonsense", Some(Less)),
        ];
        for (there, ours, standing, written, conflict) in table {
            let found = status(there, ours, standing);
            assert_eq!(
                (found.written.as_str(), found.conflict),
                (written, conflict),
                "{there} {ours:?} {standing:?}"
            );
        }
    }

    #[test]
    fn ours_is_what_lies_in_our_folder() {
        assert!(is_ours("karat/e2e.log") && is_ours(" karat/x"));
        for theirs in ["karat.md", "docs/karat/x", "https://karat/x", "Karat/x", ""] {
            assert!(!is_ours(theirs), "{theirs}");
        }
    }
}
