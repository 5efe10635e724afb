//! Small words of the tables that check themselves while they are read, so that an error carries its line and column.

use std::str::FromStr;
use std::time::Duration;

use karat_engine::model::{Reason, Verdict};
use serde::Deserialize;

/// A regular expression.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(regex::Regex);

impl Pattern {
    /// Whether it occurs in the text.
    #[must_use]
    pub fn fits(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        regex::Regex::new(&text)
            .map(Self)
            .map_err(|e| format!("expression {text:?}: {e}"))
    }
}

/// A time such as `300ms`, `2s` or `1m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Time(pub Duration);

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let number: u64 = number.parse().map_err(|_| wrong_time(&text))?;
        let millis = match unit {
            "ms" => Some(number),
            "s" => number.checked_mul(1000),
            "m" => number.checked_mul(60_000),
            _ => None,
        };
        millis
            .map(|ms| Self(Duration::from_millis(ms)))
            .ok_or_else(|| wrong_time(&text))
    }
}

fn wrong_time(text: &str) -> String {
    format!("time {text:?}: write a whole number and `ms`, `s` or `m`")
}

/// What may be said: a verdict, with a reason where one is due, and alternatives: `fail`, `unknown no_accelerator`,
/// `fail | unknown`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Said(Vec<(Verdict, Option<Reason>)>);

impl Said {
    /// A plain pass.
    #[must_use]
    pub fn pass() -> Self {
        Self(vec![(Verdict::Pass, None)])
    }

    /// Whether this is one of the alternatives. A reason counts only where one is written.
    #[must_use]
    pub fn fits(&self, verdict: Option<Verdict>, reason: Option<Reason>) -> bool {
        self.0
            .iter()
            .any(|(v, r)| verdict == Some(*v) && (r.is_none() || *r == reason))
    }

    /// Whether this verdict is among the alternatives.
    #[must_use]
    pub fn allows(&self, verdict: Verdict) -> bool {
        self.0.iter().any(|(v, _)| *v == verdict)
    }

    /// Whether an `unknown` is allowed without saying which one.
    #[must_use]
    pub fn has_vague_unknown(&self) -> bool {
        self.0
            .iter()
            .any(|(v, r)| *v == Verdict::Unknown && r.is_none())
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (verdict, reason)) in self.0.iter().enumerate() {
            let bar = if i > 0 { " | " } else { "" };
            write!(f, "{bar}{verdict}")?;
            if let Some(reason) = reason {
                write!(f, " {reason}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Said {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split('|')
            .map(alternative)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl TryFrom<String> for Said {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

fn alternative(text: &str) -> Result<(Verdict, Option<Reason>), String> {
    const VERDICTS: [Verdict; 4] = [
        Verdict::Pass,
        Verdict::Fail,
        Verdict::NotApplicable,
        Verdict::Unknown,
    ];
    let mut words = text.split_whitespace();
    let word = words.next().unwrap_or_default();
    let verdict = VERDICTS
        .into_iter()
        .find(|v| v.to_string() == word)
        .ok_or_else(|| {
            format!("verdict {word:?}: one of pass, fail, not-applicable, unknown, then a reason")
        })?;
    let reason = words
        .next()
        .map(|word| Reason::parse(word).ok_or_else(|| format!("reason {word:?}: not known")))
        .transpose()?;
    match words.next() {
        Some(extra) => Err(format!("{text:?}: {extra:?} is too much")),
        None => Ok((verdict, reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        let time = |text: &str| Time::try_from(text.to_owned()).map(|t| t.0);
        assert_eq!(time("300ms"), Ok(Duration::from_millis(300)));
        assert_eq!(time("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["3", "s", "", "1.5s", "3 s", "-1s", "99999999999999999999s"] {
            assert!(time(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_reason_counts_only_where_it_is_written() {
        let said: Said = "fail | unknown gap".parse().unwrap();
        assert!(said.fits(Some(Verdict::Fail), None));
        assert!(said.fits(Some(Verdict::Unknown), Some(Reason::Gap)));
        assert!(!said.fits(Some(Verdict::Unknown), Some(Reason::Deadline)));
        assert!(!said.fits(Some(Verdict::Pass), None));
        assert!(!said.fits(None, None));
        assert_eq!(said.to_string(), "fail | unknown gap");
        for wrong in ["", "failed", "unknown because", "fail gap too", "fail |"] {
            assert!(wrong.parse::<Said>().is_err(), "{wrong:?}");
        }
    }
}
