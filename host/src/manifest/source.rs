//! Where in a manifest something stands, and the errors that say so.
//!
//! A manifest may come from a stranger's component, so the line that a message quotes is shortened, and its control
//! characters are escaped before anyone prints it.

use super::MAX_MANIFEST_SIZE;
use serde::de::DeserializeOwned;
use std::fmt;
use std::ops::Range;

/// Most characters of a line that a message shows.
const SHOWN: usize = 120;

/// Why a text is not a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// It is larger than any manifest needs to be.
    #[error(
        "{origin}: the manifest has {size} bytes and at most {MAX_MANIFEST_SIZE} are read; shorten it"
    )]
    TooLarge {
        /// File, or component and section.
        origin: String,
        /// Size in bytes.
        size: usize,
    },
    /// It is not TOML, has an unknown or missing key, or a value of the wrong type.
    #[error("{0}")]
    Syntax(Box<Problem>),
    /// It is for a contract that this engine does not serve.
    #[error("{0}")]
    Contract(Box<Problem>),
    /// It is well-formed and makes no sense.
    #[error("{0}")]
    Invalid(Box<Problem>),
}

impl ManifestError {
    /// The place, where there is one.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            ManifestError::TooLarge { .. } => None,
            ManifestError::Syntax(problem)
            | ManifestError::Contract(problem)
            | ManifestError::Invalid(problem) => Some(problem),
        }
    }
}

/// Why a file of the operator cannot be read: grants, rules of redaction, `karat.toml`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It is larger than any such file needs to be.
    #[error("{origin}: the file has {size} bytes and at most {limit} are read; shorten it")]
    TooLarge {
        /// The file.
        origin: String,
        /// Size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Something in it is wrong.
    #[error("{0}")]
    Invalid(Box<Problem>),
}

/// What is wrong at one place of a manifest. `Display` gives three lines: message, quoted line, mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// File, or component and section.
    pub origin: String,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// The line, shortened and with control characters escaped.
    pub quoted: String,
    /// What is wrong and what to do.
    pub message: String,
    /// Column of the mark within [`Problem::quoted`], counted from 0; escapes move it.
    mark: usize,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem {
            origin,
            line,
            column,
            quoted,
            message,
            mark,
        } = self;
        let gutter = line.to_string().len();
        writeln!(f, "{origin}:{line}:{column}: {message}")?;
        writeln!(f, "{line} | {quoted}")?;
        write!(f, "{:gutter$} | {:mark$}^", "", "")
    }
}

/// The text of a manifest and the name of its file.
pub(crate) struct Source<'a> {
    text: &'a str,
    origin: &'a str,
    /// Byte offsets of the line ends, so that asking for a line is cheap also in a hostile manifest of many cases.
    line_ends: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(text: &'a str, origin: &'a str) -> Self {
        let line_ends = text
            .bytes()
            .enumerate()
            .filter(|(_, b)| *b == b'\n')
            .map(|(at, _)| at)
            .collect();
        Self {
            text,
            origin,
            line_ends,
        }
    }

    /// A file of the operator, if it is no larger than `limit`.
    ///
    /// # Errors
    /// [`FileError::TooLarge`].
    pub(crate) fn limited(text: &'a str, origin: &'a str, limit: usize) -> Result<Self, FileError> {
        if text.len() > limit {
            return Err(FileError::TooLarge {
                origin: origin.to_owned(),
                size: text.len(),
                limit,
            });
        }
        Ok(Self::new(text, origin))
    }

    /// The line that holds a byte, counted from 1.
    pub(crate) fn line(&self, offset: usize) -> usize {
        1 + self.line_ends.partition_point(|end| *end < offset)
    }

    /// Reads the text as TOML.
    ///
    /// # Errors
    /// The first thing that is wrong, at its place.
    pub(crate) fn toml<T: DeserializeOwned>(&self) -> Result<T, Box<Problem>> {
        toml::from_str(self.text)
            .map_err(|error| self.problem(error.span().unwrap_or(0..0), one_line(error.message())))
    }

    /// A problem at a place.
    pub(crate) fn problem(&self, span: Range<usize>, message: impl Into<String>) -> Box<Problem> {
        let before = self.before(span.start);
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let lead = &self.text[start..before.len()];
        let whole = self.text[start..].lines().next().unwrap_or_default();
        let escaped = |text: &str| -> String { text.chars().flat_map(escape).collect() };

        let column = lead.chars().count();
        let line = escaped(whole);
        let mut mark = escaped(lead).chars().count();
        // A long line is shown around the mark, not from its beginning.
        let skipped = if mark >= SHOWN { mark - SHOWN / 2 } else { 0 };
        let mut quoted: String = line.chars().skip(skipped).take(SHOWN).collect();
        if line.chars().count() > skipped + SHOWN {
            quoted.push('…');
        }
        if skipped > 0 {
            quoted.insert(0, '…');
            mark = mark - skipped + 1;
        }
        Box::new(Problem {
            origin: self.origin.to_owned(),
            line: self.line(span.start),
            column: column + 1,
            quoted,
            message: message.into(),
            mark,
        })
    }

    /// The text before a byte. The offset comes from the TOML reader; a wrong one moves the mark and never panics.
    fn before(&self, offset: usize) -> &str {
        let mut end = offset.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        &self.text[..end]
    }
}

/// Escapes what would move a cursor; quotes and other letters stay as they are, and a tab becomes a space.
fn escape(c: char) -> impl Iterator<Item = char> {
    let plain = match c {
        '\t' => Some(' '),
        c if c.is_control() || is_invisible(c) => None,
        c => Some(c),
    };
    let escaped = plain
        .is_none()
        .then(|| c.escape_unicode())
        .into_iter()
        .flatten();
    plain.into_iter().chain(escaped)
}

/// Characters that change how their neighbours are shown without being seen, used to disguise text.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Makes a value of the manifest fit for a message: shortened and escaped.
pub(crate) fn shown(text: &str) -> String {
    shown_up_to(60, text)
}

/// [`shown`] with another length in characters.
fn shown_up_to(max: usize, text: &str) -> String {
    let mut shown: String = text.chars().take(max).flat_map(escape).collect();
    if text.chars().nth(max).is_some() {
        shown.push('…');
    }
    shown
}

/// Messages of the TOML reader have a line for each expectation, and may quote keys of the file.
fn one_line(message: &str) -> String {
    let lines: Vec<&str> = message
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    shown_up_to(500, &lines.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str, at: usize) -> Problem {
        *Source::new(text, "probe.toml").problem(at..at, "wrong")
    }

    #[test]
    fn a_place_is_shown_with_its_line_and_a_mark() {
        let text = "id = \"a\"\n\ttitle = 5\n";
        let found = problem(text, text.find('5').unwrap());
        assert_eq!((found.line, found.column), (2, 10));
        assert_eq!(
            found.to_string(),
            "probe.toml:2:10: wrong\n2 |  title = 5\n  |          ^"
        );
    }

    #[test]
    fn columns_count_characters() {
        let text = "claim = \"größe\" x";
        let found = problem(text, text.find('x').unwrap());
        assert_eq!(found.column, 17);
        assert_eq!(found.mark, 16);
    }

    #[test]
    fn hostile_lines_are_escaped_and_shortened() {
        let text = format!(
            "a\u{1b}[2J\u{202e}b = {}X{}",
            "1".repeat(300),
            "2".repeat(300)
        );
        let found = problem(&text, text.find('X').unwrap());
        assert!(
            found.quoted.chars().count() <= SHOWN + 2,
            "{}",
            found.quoted
        );
        assert!(found.quoted.starts_with('…') && found.quoted.ends_with('…'));
        assert_eq!(found.quoted.chars().nth(found.mark), Some('X'));

        let found = problem(&text, 0);
        assert!(
            found.quoted.starts_with("a\\u{1b}[2J\\u{202e}b"),
            "{}",
            found.quoted
        );
    }

    #[test]
    fn offsets_outside_the_text_do_not_panic() {
        assert_eq!(problem("é", 1).column, 1);
        assert_eq!(problem("", 9).line, 1);
        assert_eq!(problem("a\n", 2).line, 2);
    }
}
