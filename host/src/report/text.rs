//! Text that was not written by this program, and how it is made harmless for each place it may end in.
//!
//! Guests, clusters and files say what they like: escape sequences that repaint a screen, characters that reverse the order
//! of others, line breaks that fake a line of ours, commands of CI systems, markup. [`Foreign`] cannot be printed: whoever
//! wants to show it must name the sink, and so cannot forget to escape. What is dangerous is made visible, never dropped, so
//! a reader sees that something was there.
//!
//! [`shown`] and [`shown_lines`] are the same for callers that hold a plain `&str` and speak to a terminal.

use schemars::JsonSchema;
use serde::Serialize;
use std::fmt::Write as _;

/// Longest foreign text on one line, in characters. A guest can fill the budget of a log with one line.
pub const LINE_MAX: usize = 400;

/// Longest foreign text that is kept at all, in bytes. No sentence for people is longer.
pub const FOREIGN_MAX: usize = 64 << 10;

/// Text of a guest, a cluster or a file. It has no `Display`; each method names the place it is meant for.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(transparent)]
pub struct Foreign(String);

impl<T: Into<String>> From<T> for Foreign {
    fn from(text: T) -> Self {
        Foreign::new(text)
    }
}

impl Foreign {
    /// Takes a text; beyond [`FOREIGN_MAX`] bytes it is cut and says so.
    pub fn new(text: impl Into<String>) -> Foreign {
        let text: String = text.into();
        if text.len() <= FOREIGN_MAX {
            return Foreign(text);
        }
        let end = text.floor_char_boundary(FOREIGN_MAX);
        Foreign(format!(
            "{}… ({} more bytes)",
            &text[..end],
            text.len() - end
        ))
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is this text; where it was cut, whether the text would be cut to the same.
    pub fn is(&self, text: &str) -> bool {
        self.0 == text || text.len() > FOREIGN_MAX && *self == Foreign::new(text)
    }

    /// The text as it is: to compare, to measure, and for formats that carry any text, such as JSON. Never for people.
    pub fn as_data(&self) -> &str {
        &self.0
    }

    /// One line for a terminal or the log of a CI system.
    pub fn line(&self, max: usize) -> String {
        shown_within(&self.0, max)
    }

    /// One line inside the output of `go test`: as [`Foreign::line`], and nothing that a reader of test output could take for
    /// a result, wherever the line begins.
    pub fn log(&self, max: usize) -> String {
        let line = self.line(max);
        let start = line.trim_start();
        let fakes = [
            "--- ", "=== ", "PASS", "FAIL", "ok ", "ok\\t", "SKIP", "?  ",
        ]
        .iter()
        .any(|word| start.starts_with(word));
        if fakes { format!("| {start}") } else { line }
    }

    /// Characters for HTML, in text and in attributes between double quotes. Markup is left to the template, which escapes
    /// everything; line breaks and tabs stay, for they mean nothing there.
    pub fn html(&self, max: usize) -> String {
        let mut out = String::with_capacity(self.0.len().min(max.saturating_mul(4)));
        let mut rest = self.0.chars();
        for _ in 0..max {
            match rest.next() {
                None => return out,
                Some(c @ ('\n' | '\t')) => out.push(c),
                Some(c) if is_treacherous(c) => visible(&mut out, c),
                Some(c) => out.push(c),
            }
        }
        let left = rest.count();
        if left > 0 {
            let _ = write!(out, "… ({left} more)");
        }
        out
    }

    /// One line of characters that XML 1.0 can hold: what it cannot hold is among what a terminal must not get. Markup is left
    /// to the writer, which escapes it.
    pub fn xml(&self, max: usize) -> String {
        self.line(max)
    }

    /// Running text inside of a Markdown paragraph, list item or heading, on one line: no markup, no HTML, no mention, no
    /// link that was not written as one of ours.
    pub fn markdown(&self, max: usize) -> String {
        let line = self.line(max);
        let words: Vec<String> = line.split(' ').map(markdown_word).collect();
        words.join(" ")
    }

    /// A Markdown code span: what is inside is shown as it is, in a cell of a table too.
    pub fn markdown_code(&self, max: usize) -> String {
        code(&self.0, max)
    }
}

/// A word with nothing in it that Markdown would act upon. Words that the web pages of code hosts turn into mentions, links
/// or references stand in a code span: no escape reaches those, because they are looked for in the finished page.
fn markdown_word(word: &str) -> String {
    let lower = word.to_ascii_lowercase();
    let acts = word.contains(['@', '#'])
        || lower.contains("://")
        || lower.contains("www.")
        || lower.contains("gh-")
        || lower.contains("mailto:")
        || lower.contains("xmpp:");
    if acts {
        return code_span(word);
    }
    let mut out = String::with_capacity(word.len());
    for c in word.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            // Dots, commas and hyphens inside of a word mean nothing and would only make it hard to read.
            '.' | ',' | '/' | '%' | ';' | '?' | '\'' | '"' => out.push(c),
            '-' | '+' | ')' if !out.is_empty() => out.push(c),
            // Ordered lists begin with a number and a dot or a bracket; the number alone is harmless.
            c if c.is_ascii_punctuation() => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    let digits = out.bytes().take_while(u8::is_ascii_digit).count();
    if digits > 0 && matches!(&out[digits..], "." | ")") {
        out.insert(digits, '\\');
    }
    out
}

/// One code span of Markdown. Within one there are no mentions, links, images, HTML or headings; it also stays within the
/// cell of a table and on its line.
pub(crate) fn code(text: &str, max: usize) -> String {
    code_span(&escaped(text, max, |c, before| {
        // The first ends a cell even inside of a span; the second is for readers that show the text without its markup.
        c == '|' || is_mention(c, before)
    }))
}

/// A code span with a fence longer than any run of backquotes inside.
fn code_span(text: &str) -> String {
    if text.trim().is_empty() {
        return "(empty)".to_owned();
    }
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let edge = ['`', ' '];
    if text.starts_with(edge) || text.ends_with(edge) {
        format!("{fence} {text} {fence}")
    } else {
        format!("{fence}{text}{fence}")
    }
}

/// Part of a sentence in plain text that others may show as Markdown or HTML, such as the notes of a checklist. It has no
/// brackets, so that what stands between some ends where it was meant to end.
pub(crate) fn sentence(text: &str, max: usize) -> String {
    let text: String = text
        .chars()
        .map(|c| match c {
            '\n' | '\r' | '\t' => ' ',
            '[' | '{' => '(',
            ']' | '}' => ')',
            '<' => '‹',
            '>' => '›',
            '`' => '\'',
            '|' | '\\' => '/',
            c => c,
        })
        .collect();
    let text = text.replace("://", ": //");
    escaped(text.trim(), max, is_mention).replace(['{', '}'], "")
}

fn is_mention(c: char, before: Option<char>) -> bool {
    c == '@' && !before.is_some_and(char::is_alphanumeric)
}

/// One line of harmless text of at most [`LINE_MAX`] characters.
pub fn shown(text: &str) -> String {
    shown_within(text, LINE_MAX)
}

/// As [`shown`], with another limit.
pub fn shown_within(text: &str, max: usize) -> String {
    escaped(text, max, |_, _| false)
}

/// One line of at most `max` characters, in which treacherous ones, those that make a command, and those that `also` names
/// for the one before them stand as their numbers.
fn escaped(text: &str, max: usize, also: impl Fn(char, Option<char>) -> bool) -> String {
    let mut out = String::with_capacity(text.len().min(max.saturating_mul(4)));
    let mut rest = text.char_indices();
    let mut count = 0;
    let mut before = None;
    while let Some((at, c)) = rest.next() {
        if count == max {
            let left = 1 + rest.count();
            let _ = write!(out, "… ({left} more)");
            return out;
        }
        count += 1;
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_treacherous(c) || also(c, before) => visible(&mut out, c),
            // `##vso[`, `##[group]`, `##teamcity[` are commands wherever they stand in a line of a CI log.
            '#' if before == Some('#') && is_command(&text[at + 1..]) => out.push_str("\\u{23}"),
            // `::error::` is a command at the start of a line, and a wrapped line can start at any word.
            ':' if before == Some(':')
                && starts_with_letter(&text[at + 1..])
                && stands_alone(text, at - 1) =>
            {
                out.push_str("\\u{3a}");
            }
            c => out.push(c),
        }
        before = Some(c);
    }
    out
}

/// Harmless text that keeps its line breaks, at most `max_lines` of them; tabs become spaces.
pub fn shown_lines(text: &str, max_lines: usize) -> Vec<String> {
    let text = text.trim_end();
    let mut lines: Vec<String> = text
        .lines()
        .take(max_lines)
        .map(|line| shown(&line.trim_end_matches('\r').replace('\t', "    ")))
        .collect();
    let left = text.lines().skip(max_lines).count();
    if left > 0 {
        lines.push(format!("… ({left} more lines)"));
    }
    lines
}

/// JSON in which nothing acts on a terminal: such characters stand as escapes, which mean the same to every reader. They can
/// only be inside of strings.
pub(super) fn calm_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut units = [0; 2];
    for c in json.chars() {
        if c != '\n' && is_treacherous(c) {
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// Writes a character as its number.
pub(crate) fn visible(out: &mut String, c: char) {
    let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
}

/// Control, formatting and other invisible characters: they change how the text around them is read.
pub(crate) fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            // Zero width characters, marks of direction, embeddings and overrides.
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            // Invisible operators and isolates.
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            // Tags and private use.
            | '\u{e0000}'..='\u{e0fff}' | '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{10ffff}')
}

fn is_command(rest: &str) -> bool {
    rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric())
        .starts_with('[')
}

fn starts_with_letter(rest: &str) -> bool {
    rest.starts_with(|c: char| c.is_ascii_alphabetic())
}

/// Whether what starts at a byte starts a word. `std::fmt` and `fe80::a` are common and harmless.
fn stands_alone(text: &str, at: usize) -> bool {
    text[..at]
        .chars()
        .next_back()
        .is_none_or(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_characters_become_visible() {
        for (text, expected) in [
            ("plain text, ü, 漢字", "plain text, ü, 漢字"),
            ("\u{1b}[2J\u{1b}[31mred", "\\u{1b}[2J\\u{1b}[31mred"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("a\nPASS everything\r\n", "a\\nPASS everything\\r\\n"),
            ("user\u{202e}ssap\u{2066}x", "user\\u{202e}ssap\\u{2066}x"),
            ("zero\u{200b}width\u{feff}", "zero\\u{200b}width\\u{feff}"),
            ("\u{2028}\u{85}", "\\u{2028}\\u{85}"),
            ("\u{7f}\u{8}\u{7}", "\\u{7f}\\u{8}\\u{7}"),
            ("tag\u{e0041}", "tag\\u{e0041}"),
        ] {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn no_hostile_character_survives() {
        for c in (0..=0x10ffff_u32).filter_map(char::from_u32) {
            let out = shown(&format!("a{c}b"));
            assert!(!out.chars().any(char::is_control), "{c:?}: {out:?}");
            assert_eq!(out.lines().count(), 1);
        }
    }

    #[test]
    fn commands_of_ci_systems_are_broken() {
        for (text, expected) in [
            ("::error file=x::boo", ":\\u{3a}error file=x::boo"),
            ("a ::set-output name=x::y", "a :\\u{3a}set-output name=x::y"),
            (
                "x ##vso[task.setvariable]y",
                "x #\\u{23}vso[task.setvariable]y",
            ),
            ("##[group]x", "#\\u{23}[group]x"),
            ("###[group]x", "##\\u{23}[group]x"),
            ("##teamcity[x]", "#\\u{23}teamcity[x]"),
            (
                "std::fmt and fe80::a and [::1]:80",
                "std::fmt and fe80::a and [::1]:80",
            ),
            ("## heading", "## heading"),
        ] {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn long_text_says_what_is_missing() {
        assert_eq!(shown_within("abcdef", 6), "abcdef");
        assert_eq!(shown_within("abcdef", 4), "abcd… (2 more)");
        assert_eq!(
            shown_lines("a\n\tb\r\nc\nd\n", 2),
            ["a", "    b", "… (2 more lines)"]
        );
    }

    /// Text that tries something, what Markdown gets, and what notes get.
    const HOSTILE: &[(&str, &str, &str)] = &[
        ("plain text, ü", "`plain text, ü`", "plain text, ü"),
        ("", "(empty)", ""),
        (
            "<script>alert(1)</script>",
            "`<script>alert(1)</script>`",
            "‹script›alert(1)‹/script›",
        ),
        ("<!-- karat -->", "`<!-- karat -->`", "‹!-- karat --›"),
        (
            "![x](https://evil.example/p.png)",
            "`![x](https://evil.example/p.png)`",
            "!(x)(https: //evil.example/p.png)",
        ),
        (
            "[x](javascript:alert)",
            "`[x](javascript:alert)`",
            "(x)(javascript:alert)",
        ),
        (
            "@everyone look",
            "`\\u{40}everyone look`",
            "/u40everyone look",
        ),
        ("image@sha256:ab", "`image@sha256:ab`", "image@sha256:ab"),
        ("a`b", "``a`b``", "a'b"),
        ("``` a", "```` ``` a ````", "''' a"),
        ("`", "`` ` ``", "'"),
        ("a | b |", "`a \\u{7c} b \\u{7c}`", "a / b /"),
        (
            "a\n# heading\r\n- [ ] task",
            "`a\\n# heading\\r\\n- [ ] task`",
            "a # heading  - ( ) task",
        ),
        (
            "::set-output name=x::y",
            "`:\\u{3a}set-output name=x::y`",
            ":/u3aset-output name=x::y",
        ),
        ("##vso[task.x]", "`#\\u{23}vso[task.x]`", "##vso(task.x)"),
        (
            "a\u{202e}b\u{200b}",
            "`a\\u{202e}b\\u{200b}`",
            "a/u202eb/u200b",
        ),
        ("\u{1b}[2Jred", "`\\u{1b}[2Jred`", "/u1b(2Jred"),
        ("x] and more", "`x] and more`", "x) and more"),
        (
            "--- PASS: TestX (0.1s)",
            "`--- PASS: TestX (0.1s)`",
            "--- PASS: TestX (0.1s)",
        ),
        ("</details>", "`</details>`", "‹/details›"),
    ];

    #[test]
    fn hostile_text_is_made_harmless_for_both_places() {
        for (text, markdown, notes) in HOSTILE {
            assert_eq!(code(text, 100), *markdown, "{text:?}");
            // A backslash of ours is written as a slash in notes, where YAML and readers have their own ideas of it.
            assert_eq!(sentence(text, 100).replace('\\', "/"), *notes, "{text:?}");
        }
    }

    #[test]
    fn no_character_breaks_out_of_a_span_or_a_sentence() {
        for c in (0..=0x10ffff_u32).filter_map(char::from_u32) {
            let span = code(&format!("a{c}b"), 10);
            let text = sentence(&format!("a{c}b"), 10);
            assert!(
                !span.chars().chain(text.chars()).any(is_treacherous),
                "{c:?}"
            );
            assert!(span.starts_with('`') && span.ends_with('`'), "{c:?}");
            assert!(
                !text.contains(['[', ']', '<', '>', '`', '|', '{', '}']),
                "{c:?}"
            );
        }
    }

    #[test]
    fn long_spans_and_sentences_end() {
        assert_eq!(code("abcdef", 3), "`abc… (3 more)`");
        assert_eq!(sentence("abcdef", 3), "abc… (3 more)");
    }
}
