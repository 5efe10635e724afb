//! Makes text of guests, clusters and files harmless for a terminal and for the log of a CI system.
//!
//! Everything that was not written by this program goes through [`shown`] or [`shown_lines`] before it reaches a line: it
//! may hold escape sequences that repaint the screen, characters that reverse the order of others, line breaks that fake a
//! line of ours, or a command of a CI system. Such characters are made visible, never dropped, so a reader sees that
//! something was there.

use std::fmt::Write as _;

/// Longest foreign text on one line, in characters. A guest can fill the budget of a log with one line.
pub(crate) const LINE_MAX: usize = 400;

/// One line of harmless text of at most [`LINE_MAX`] characters.
pub(crate) fn shown(text: &str) -> String {
    shown_within(text, LINE_MAX)
}

/// As [`shown`], with another limit.
pub(crate) fn shown_within(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max * 4));
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
            c if is_treacherous(c) => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
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
pub(crate) fn shown_lines(text: &str, max_lines: usize) -> Vec<String> {
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

/// Control, formatting and other invisible characters: they change how the text around them is read.
fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            // Zero width characters, marks of direction, embeddings and overrides.
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            // Invisible operators and isolates.
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
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

/// Columns a text takes on a terminal.
pub(crate) fn width(text: &str) -> usize {
    unicode_width::UnicodeWidthStr::width(text)
}

/// Breaks text at spaces into lines of at most `columns`; a longer word stays whole.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().map_or(0, |line| width(line));
        let fits = line == 0 || line + 1 + width(word) <= columns;
        if !fits {
            lines.push(String::new());
        }
        if let Some(last) = lines.last_mut() {
            if fits && line > 0 {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

/// Time for people: `34 ms`, `1.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`.
pub(crate) fn duration_ms(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms} ms"),
        1..10 => format!("{}.{} s", seconds, ms % 1000 / 100),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// As [`duration_ms`].
pub(crate) fn duration(time: std::time::Duration) -> String {
    duration_ms(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// Bytes for people, in powers of 1024: `640 B`, `94 KiB`, `1.5 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    let scaled = |shift: u32, unit: &str| {
        let whole = count >> shift;
        let tenth = ((count & ((1 << shift) - 1)) * 10) >> shift;
        if whole < 10 {
            format!("{whole}.{tenth} {unit}")
        } else {
            format!("{whole} {unit}")
        }
    };
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => scaled(10, "KiB"),
        1_048_576..1_073_741_824 => scaled(20, "MiB"),
        _ => scaled(30, "GiB"),
    }
}

/// A number and its noun: `1 probe`, `2 probes`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
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

    #[test]
    fn text_wraps_at_words() {
        assert_eq!(wrap("aa bb cc", 5), ["aa bb", "cc"]);
        assert_eq!(wrap("longer-than-that x", 5), ["longer-than-that", "x"]);
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(duration_ms(0), "0 ms");
        assert_eq!(duration_ms(999), "999 ms");
        assert_eq!(duration_ms(9_950), "9.9 s");
        assert_eq!(duration_ms(59_999), "59 s");
        assert_eq!(duration_ms(125_000), "2 min 05 s");
        assert_eq!(duration_ms(7_800_000), "2 h 10 min");
        assert_eq!(bytes(640), "640 B");
        assert_eq!(bytes(96_300), "94 KiB");
        assert_eq!(bytes(1_572_864), "1.5 MiB");
        assert_eq!(bytes(64 << 20), "64 MiB");
        assert_eq!(counted(1, "probe"), "1 probe");
        assert_eq!(counted(0, "probe"), "0 probes");
    }
}
