//! YAML as far as a form needs it: maps, lists and scalars, each with its line and its bytes, so that one value can be
//! replaced and all others stay as they are. Anchors, aliases, tags, directives and a second document are refused before
//! anything is built from them, so that no text can grow when it is read. Depth and number of nodes are limited.

use super::FormError;
use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, Span};
use std::ops::Range;

/// Deepest nesting; a form has five levels.
const DEPTH_MAX: usize = 16;
/// Most nodes of one document.
const NODES_MAX: usize = 50_000;

/// A value and where it begins, counted from 1.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) line: u32,
    /// Its bytes. What ends by indentation ends with what follows it; a block scalar begins behind its header, and a value
    /// that is not written has the place of its colon.
    pub(crate) bytes: Range<usize>,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Scalar {
        text: String,
        /// Written without quotes, so that it may be a number or null.
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) line: u32,
    /// Its bytes, with quotes.
    pub(crate) bytes: Range<usize>,
    pub(crate) text: String,
}

impl Node {
    /// What it is, for messages.
    pub(crate) fn noun(&self) -> &'static str {
        match &self.kind {
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
            Kind::Scalar { .. } if self.is_null() => "nothing",
            Kind::Scalar { text, plain: true } => plain_noun(text),
            Kind::Scalar { .. } => "a text",
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }
}

/// What an unquoted scalar is to YAML 1.2 readers and to the one of the programme, which also knows dates.
pub(super) fn plain_noun(text: &str) -> &'static str {
    if matches!(text, "true" | "True" | "TRUE" | "false" | "False" | "FALSE") {
        return "a boolean";
    }
    if is_number(text) {
        return "a number";
    }
    let date = text.as_bytes();
    let digits = |range: std::ops::Range<usize>| {
        date.get(range)
            .is_some_and(|part| part.iter().all(u8::is_ascii_digit))
    };
    if digits(0..4)
        && date.get(4) == Some(&b'-')
        && digits(5..7)
        && date.get(7) == Some(&b'-')
        && digits(8..10)
        && date.get(10).is_none_or(|c| matches!(c, b'T' | b't' | b' '))
    {
        return "a date";
    }
    "a text"
}

fn is_number(text: &str) -> bool {
    let body = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(body, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let body = body.replace('_', "");
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(rest) = body.strip_prefix(prefix) {
            return !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix));
        }
    }
    // `inf` and `nan` are numbers to Rust and words to YAML.
    body.chars()
        .next()
        .is_some_and(|c| c.is_ascii_digit() || c == '.')
        && body.parse::<f64>().is_ok()
}

/// Reads one document.
///
/// # Errors
/// Text that is no YAML, or YAML that no form needs.
pub(crate) fn parse(file: &str, text: &str) -> Result<Node, FormError> {
    let mut reader = Reader {
        file,
        text,
        parser: Parser::new_from_str(text),
        nodes: 0,
    };
    let root = loop {
        match reader.next()? {
            (Event::StreamStart | Event::DocumentStart(..), _) => {}
            (Event::StreamEnd, span) => {
                return Err(reader.error(
                    line(&span),
                    "the file is empty",
                    "a map with `metadata` and `spec`",
                ));
            }
            (event, span) => break reader.node(event, &span, 0)?,
        }
    };
    loop {
        match reader.next()? {
            (Event::DocumentEnd, _) => {}
            (Event::StreamEnd, _) => return Ok(root),
            (_, span) => {
                return Err(reader
                    .error(line(&span), "a second document begins here", "one document")
                    .unsupported("remove the line `---` and what follows it"));
            }
        }
    }
}

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    nodes: usize,
}

fn line(span: &Span) -> u32 {
    u32::try_from(span.start.line()).unwrap_or(u32::MAX).max(1)
}

fn bytes(span: &Span) -> Range<usize> {
    span.byte_range().unwrap_or_default()
}

impl<'a> Reader<'a> {
    fn error(&self, line: u32, what: &str, expected: &str) -> FormError {
        FormError::new(self.file, line, what, expected)
    }

    /// The next event that is data.
    fn next(&mut self) -> Result<(Event<'a>, Span), FormError> {
        loop {
            match self.parser.next_event() {
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(found)) => return Ok(found),
                Some(Err(error)) => {
                    let at = u32::try_from(error.marker().line())
                        .unwrap_or(u32::MAX)
                        .max(1);
                    let limit = matches!(error.kind(), ErrorKind::RecursionLimitExceeded);
                    let error = self.no_yaml(at, &error.kind().to_string());
                    return Err(FormError {
                        unsupported: limit,
                        ..error
                    });
                }
                None => {
                    return Err(self.error(1, "the text ends too early", "a whole YAML document"));
                }
            }
        }
    }

    fn no_yaml(&self, at: u32, cause: &str) -> FormError {
        let error = self.error(at, &format!("this is no YAML ({cause})"), "YAML");
        // The scanner notices a tab at its line or, where it took it for a continuation, at the next.
        let index = (at as usize).saturating_sub(1);
        let tab = [index, index.saturating_sub(1)].into_iter().find(|at| {
            self.text.lines().nth(*at).is_some_and(|line| {
                line.chars()
                    .take_while(|c| c.is_whitespace())
                    .any(|c| c == '\t')
            })
        });
        match tab {
            Some(tab) => {
                let mut error = error.hint("indent with blanks; YAML allows no tabs there");
                error.line = u32::try_from(tab + 1).unwrap_or(at);
                error
            }
            None => error.hint("compare the line and the one above with the official form"),
        }
    }

    fn node(&mut self, event: Event<'a>, span: &Span, depth: usize) -> Result<Node, FormError> {
        let line = line(span);
        let mut bytes = bytes(span);
        self.nodes += 1;
        if depth > DEPTH_MAX || self.nodes > NODES_MAX {
            return Err(self
                .error(line, "there is too much in this file", "a form")
                .unsupported(format!(
                    "at most {DEPTH_MAX} levels and {NODES_MAX} values are read"
                )));
        }
        let (anchor, tagged) = match &event {
            Event::Scalar(_, _, anchor, tag)
            | Event::SequenceStart(_, anchor, tag)
            | Event::MappingStart(_, anchor, tag) => (*anchor > 0, tag.is_some()),
            _ => (false, false),
        };
        if anchor || matches!(event, Event::Alias(_)) {
            return Err(self
                .error(
                    line,
                    "an anchor or an alias stands here",
                    "values written out",
                )
                .unsupported("write the value itself; quote a text that begins with `&` or `*`"));
        }
        if tagged {
            return Err(self
                .error(line, "a tag stands here", "values without tags")
                .unsupported("remove the word that begins with `!`, or quote the text"));
        }
        let kind = match event {
            Event::Scalar(text, style, ..) => Kind::Scalar {
                text: text.into_owned(),
                plain: style == ScalarStyle::Plain,
            },
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, span) => {
                            bytes.end = span.end.byte_offset().unwrap_or(bytes.end);
                            break Kind::List(items);
                        }
                        (event, span) => items.push(self.node(event, &span, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(..) => self.map(depth)?,
            _ => return Err(self.error(line, "something else stands here", "a value")),
        };
        Ok(Node { line, bytes, kind })
    }

    fn map(&mut self, depth: usize) -> Result<Kind, FormError> {
        let mut pairs: Vec<(Key, Node)> = Vec::new();
        let mut seen = std::collections::BTreeMap::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(Kind::Map(pairs));
            }
            let key = self.node(event, &span, depth + 1)?;
            let Kind::Scalar { text, plain } = key.kind else {
                return Err(self.error(key.line, "a key is no word", "a word and a colon"));
            };
            if plain && text == "<<" {
                return Err(self
                    .error(key.line, "a merge key stands here", "keys written out")
                    .unsupported("write the keys themselves"));
            }
            if let Some(first) = seen.insert(text.clone(), key.line) {
                return Err(self
                    .error(
                        key.line,
                        &format!("the key `{text}` stands here a second time"),
                        "each key once",
                    )
                    .hint(format!("the first is in line {first}; remove one of them")));
            }
            let (event, span) = self.next()?;
            let value = self.node(event, &span, depth + 1)?;
            pairs.push((
                Key {
                    line: key.line,
                    bytes: key.bytes,
                    text,
                },
                value,
            ));
        }
    }
}
