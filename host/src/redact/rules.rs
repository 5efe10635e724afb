//! Rules of the operator: a TOML file of paths and patterns that this program cannot know.
//!
//! ```toml
//! [[rule]]
//! name = "rack"
//! kind = "Node"
//! path = "metadata.annotations['example.com/rack']"
//!
//! [[rule]]
//! name = "ticket"
//! pattern = "TICKET-[0-9]{6}"
//! ```
//!
//! What a rule finds becomes a mark that nobody can turn back. The file is strict, each mistake has its place, and its
//! text never leaves the machine: recordings name its SHA-256.

mod path;

use crate::manifest::source::{FileError, Source, shown};
use crate::manifest::values::is_dns_label;
use crate::recording::sha256_hex;
use path::Path;
use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::ops::Range;
use toml::Spanned as S;

/// Largest file of rules in bytes.
pub const MAX_RULES_SIZE: usize = 256 << 10;
/// Most rules of a file. Each pattern looks at every text.
const RULES_MAX: usize = 200;
/// Longest pattern in bytes.
const PATTERN_MAX: usize = 1000;
/// Bytes that a compiled pattern may take, and its cache as much again.
const COMPILED_MAX: usize = 1 << 20;
/// How deep parentheses may lie in each other.
const NEST_MAX: u32 = 50;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawFile {
    #[serde(default)]
    rule: Vec<S<RawRule>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawRule {
    name: S<String>,
    kind: Option<S<String>>,
    path: Option<S<String>>,
    pattern: Option<S<String>>,
    /// For people; not used.
    #[serde(rename = "why")]
    _why: Option<String>,
}

/// Rules of the operator. The default has none.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    paths: Vec<PathRule>,
    patterns: Vec<Regex>,
    names: Vec<String>,
    digest: Option<String>,
}

#[derive(Clone, Debug)]
struct PathRule {
    /// Empty for every kind.
    kind: String,
    path: Path,
}

impl Rules {
    /// Reads a file of rules. `origin` is what messages call it.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(text: &str, origin: &str) -> Result<Rules, FileError> {
        let source = Source::limited(text, origin, MAX_RULES_SIZE)?;
        let raw: RawFile = source.toml().map_err(FileError::Invalid)?;
        let mut reader = Reader {
            source,
            rules: Rules {
                digest: Some(sha256_hex(text.as_bytes())),
                ..Rules::default()
            },
            seen: BTreeSet::new(),
        };
        if raw.rule.is_empty() {
            return reader.refuse(
                0..0,
                "there is no rule; write a table `[[rule]]`, or leave the file out",
            );
        }
        if let Some(first) = raw.rule.get(RULES_MAX) {
            return reader.refuse(
                first.span(),
                format!(
                    "{} rules, and at most {RULES_MAX} are taken",
                    raw.rule.len()
                ),
            );
        }
        for rule in &raw.rule {
            reader.rule(rule)?;
        }
        Ok(reader.rules)
    }

    /// SHA-256 of the file in 64 hexadecimal digits; none where there is no file.
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// Names of the rules, in the order of the file.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(super) fn has_paths(&self) -> bool {
        !self.paths.is_empty()
    }

    pub(super) fn has_patterns(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// Calls `hide` for every value of an object of this kind that a path leads to.
    pub(super) fn at_paths(
        &self,
        kind: &str,
        object: &mut Value,
        hide: &mut dyn FnMut(&mut Value),
    ) {
        for rule in &self.paths {
            if rule.kind.is_empty() || rule.kind == kind {
                rule.path.visit(object, hide);
            }
        }
    }

    /// Replaces all that the patterns find; none where they find nothing.
    pub(super) fn replace(
        &self,
        text: &str,
        mut mark: impl FnMut(&str) -> String,
    ) -> Option<String> {
        let mut now: Option<String> = None;
        for pattern in &self.patterns {
            let before = now.as_deref().unwrap_or(text);
            if !pattern.is_match(before) {
                continue;
            }
            let after =
                pattern.replace_all(before, |found: &regex::Captures<'_>| match &found[0] {
                    // Between letters there is nothing to hide.
                    "" => String::new(),
                    found => mark(found),
                });
            now = Some(after.into_owned());
        }
        now.filter(|now| now != text)
    }
}

struct Reader<'a> {
    source: Source<'a>,
    rules: Rules,
    seen: BTreeSet<String>,
}

impl Reader<'_> {
    fn refuse<T>(&self, span: Range<usize>, message: impl Into<String>) -> Result<T, FileError> {
        Err(FileError::Invalid(self.source.problem(span, message)))
    }

    fn rule(&mut self, line: &S<RawRule>) -> Result<(), FileError> {
        let raw = line.get_ref();
        let name = raw.name.get_ref();
        if !is_dns_label(name, 63) {
            let message = format!(
                "`{}` cannot be the name of a rule; write small letters, digits and `-`",
                shown(name)
            );
            return self.refuse(raw.name.span(), message);
        }
        if !self.seen.insert(name.clone()) {
            let message = format!("there is another rule called `{}`", shown(name));
            return self.refuse(raw.name.span(), message);
        }
        match (&raw.path, &raw.pattern) {
            (Some(path), None) => self.path(raw.kind.as_ref(), path)?,
            (None, Some(pattern)) => {
                if let Some(kind) = &raw.kind {
                    return self.refuse(
                        kind.span(),
                        "a pattern looks at text of every kind; leave `kind` out, or write a `path`",
                    );
                }
                self.pattern(pattern)?;
            }
            _ => {
                return self.refuse(line.span(), "a rule has either a `path` or a `pattern`");
            }
        }
        self.rules.names.push(name.clone());
        Ok(())
    }

    fn path(&mut self, kind: Option<&S<String>>, path: &S<String>) -> Result<(), FileError> {
        let word = kind.map(|kind| kind.get_ref().as_str()).unwrap_or_default();
        let is_kind = word.len() <= 63
            && word.bytes().all(|b| b.is_ascii_alphanumeric())
            && word.bytes().next().is_none_or(|b| b.is_ascii_uppercase());
        if let Some(kind) = kind
            && (!is_kind || word.is_empty())
        {
            let message = format!(
                "`{}` is no kind; write it as objects do, such as `Node`",
                shown(word)
            );
            return self.refuse(kind.span(), message);
        }
        match Path::parse(path.get_ref()) {
            Ok(parsed) => {
                self.rules.paths.push(PathRule {
                    kind: word.to_owned(),
                    path: parsed,
                });
                Ok(())
            }
            Err(why) => {
                let message = format!("`{}` is no path: {why}", shown(path.get_ref()));
                self.refuse(path.span(), message)
            }
        }
    }

    fn pattern(&mut self, pattern: &S<String>) -> Result<(), FileError> {
        let text = pattern.get_ref();
        if text.len() > PATTERN_MAX {
            let message = format!(
                "a pattern of {} bytes; at most {PATTERN_MAX} are taken",
                text.len()
            );
            return self.refuse(pattern.span(), message);
        }
        let built = RegexBuilder::new(text)
            .size_limit(COMPILED_MAX)
            .dfa_size_limit(COMPILED_MAX)
            .nest_limit(NEST_MAX)
            .build();
        match built {
            Ok(regex) if regex.is_match("") => self.refuse(
                pattern.span(),
                "the pattern finds the empty text; ask for at least one character",
            ),
            Ok(regex) => {
                self.rules.patterns.push(regex);
                Ok(())
            }
            Err(regex::Error::CompiledTooBig(_)) => self.refuse(
                pattern.span(),
                format!("the pattern takes more than {COMPILED_MAX} bytes; repeat less"),
            ),
            Err(error) => {
                // The message of the library draws its own picture; its last line says what is wrong.
                let text = error.to_string();
                let why = text.lines().last().unwrap_or_default().trim();
                let why = why.strip_prefix("error: ").unwrap_or(why);
                self.refuse(
                    pattern.span(),
                    format!("the pattern cannot be read: {}", shown(why)),
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        match Rules::parse(text, "rules.toml") {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{text}"),
        }
    }

    #[test]
    fn a_file_of_rules_is_read() {
        let text = "[[rule]]\nname = \"rack\"\nkind = \"Node\"\npath = \"metadata.annotations['example.com/rack']\"\n\
                    [[rule]]\nname = \"ticket\"\npattern = \"TICKET-[0-9]+\"\nwhy = \"customers\"\n";
        let rules = Rules::parse(text, "rules.toml").unwrap();
        assert_eq!(rules.names(), ["rack", "ticket"]);
        assert_eq!(rules.digest(), Some(sha256_hex(text.as_bytes()).as_str()));
        assert!(!rules.is_empty() && Rules::default().is_empty());
        assert_eq!(
            rules.replace("see TICKET-77 and TICKET-78", |found| format!("<{found}>")),
            Some("see <TICKET-77> and <TICKET-78>".to_owned())
        );
        assert_eq!(rules.replace("nothing", |_| String::new()), None);
    }

    #[test]
    fn mistakes_have_a_place_and_a_way_out() {
        for (text, place, part) in [
            ("", "rules.toml:1:1", "no rule"),
            ("[[rule]]\nname = \"a\"\n", "rules.toml:1:1", "either"),
            (
                "[[rule]]\nname = \"a\"\npath = \"a\"\npattern = \"b\"\n",
                "rules.toml:1:1",
                "either",
            ),
            (
                "[[rule]]\nname = \"A b\"\npath = \"a\"\n",
                "rules.toml:2:8",
                "small letters",
            ),
            (
                "[[rule]]\nname = \"a\"\npath = \"a\"\n[[rule]]\nname = \"a\"\npath = \"b\"\n",
                "rules.toml:5:8",
                "another rule",
            ),
            (
                "[[rule]]\nname = \"a\"\npath = \"a..b\"\n",
                "rules.toml:3:8",
                "no path",
            ),
            (
                "[[rule]]\nname = \"a\"\nkind = \"nodes\"\npath = \"a\"\n",
                "rules.toml:3:8",
                "no kind",
            ),
            (
                "[[rule]]\nname = \"a\"\nkind = \"Node\"\npattern = \"a\"\n",
                "rules.toml:3:8",
                "every kind",
            ),
            (
                "[[rule]]\nname = \"a\"\npattern = \"(\"\n",
                "rules.toml:3:11",
                "cannot be read",
            ),
            (
                "[[rule]]\nname = \"a\"\npattern = \"x*\"\n",
                "rules.toml:3:11",
                "empty text",
            ),
            (
                "[[rule]]\nname = \"a\"\npattern = \"[0-9a-z]{1000}{1000}\"\n",
                "rules.toml:3:11",
                "",
            ),
            (
                "[[rules]]\nname = \"a\"\n",
                "rules.toml:1:3",
                "unknown field",
            ),
            (
                "[[rule]]\nname = \"a\"\npaths = \"a\"\n",
                "rules.toml:3:1",
                "unknown field",
            ),
        ] {
            let said = refusal(text);
            assert!(
                said.starts_with(place) && said.contains(part),
                "{text}: {said}"
            );
        }
        let many = "[[rule]]\nname = \"a\"\npath = \"a\"\n".repeat(RULES_MAX + 1);
        assert!(refusal(&many).contains("at most 200"));
        assert!(refusal(&"#".repeat(MAX_RULES_SIZE + 1)).contains("at most"));
    }
}
