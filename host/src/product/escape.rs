//! Foreign text in what this program writes for others to read: file content, names, answers of clusters and words of probes.
//! Everything of theirs goes through [`code`] on its way into Markdown and through [`sentence`] on its way into the notes
//! of a checklist. Nothing is dropped silently: what could do harm is made visible.

use crate::report::text;

/// Longest foreign text where no other limit is given, in characters.
pub(crate) const SHOWN_MAX: usize = 240;

/// One code span of Markdown. Within one there are no mentions, links, images, HTML or headings; it also stays within the
/// cell of a table and on its line.
pub(crate) fn code(text: &str, max: usize) -> String {
    let inner = visible(text, max, |c, before| match c {
        // Ends a cell even inside of a span.
        '|' => true,
        // For readers that show the text without its markup.
        '@' => !before.is_some_and(char::is_alphanumeric),
        '#' => before == Some('#'),
        ':' => before == Some(':'),
        _ => false,
    });
    if inner.trim().is_empty() {
        return "(empty)".to_owned();
    }
    let mut longest = 0;
    let mut run = 0;
    for c in inner.chars() {
        run = if c == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    let fence = "`".repeat(longest + 1);
    let edge = |c: Option<char>| matches!(c, Some('`' | ' '));
    let pad = if edge(inner.chars().next()) || edge(inner.chars().next_back()) {
        " "
    } else {
        ""
    };
    format!("{fence}{pad}{inner}{pad}{fence}")
}

/// Part of a sentence in plain text that others may show as Markdown or HTML. It has no brackets, so that what stands
/// between some ends where it was meant to end.
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
    visible(text.trim(), max, |c, before| match c {
        '@' => !before.is_some_and(char::is_alphanumeric),
        '#' => before == Some('#'),
        ':' => before == Some(':'),
        _ => false,
    })
    .replace(['{', '}'], "")
}

/// The text with treacherous characters, and those that are asked for, as `\u{…}`.
fn visible(foreign: &str, max: usize, also: impl Fn(char, Option<char>) -> bool) -> String {
    let mut out = String::with_capacity(foreign.len().min(max * 4));
    let mut before = None;
    for (count, c) in foreign.chars().enumerate() {
        if count == max {
            out.push('…');
            break;
        }
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if text::is_treacherous(c) || also(c, before) => text::visible(&mut out, c),
            c => out.push(c),
        }
        before = Some(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

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
            "`:\\u{3a}set-output name=x:\\u{3a}y`",
            ":/u3aset-output name=x:/u3ay",
        ),
        ("##vso[task.x]", "`#\\u{23}vso[task.x]`", "#/u23vso(task.x)"),
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
    fn no_character_breaks_out() {
        for c in (0..=0x10ffff_u32).filter_map(char::from_u32) {
            let span = code(&format!("a{c}b"), 10);
            let text = sentence(&format!("a{c}b"), 10);
            assert!(
                !span.chars().chain(text.chars()).any(text::is_treacherous),
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
    fn long_text_ends() {
        assert_eq!(code("abcdef", 3), "`abc…`");
        assert_eq!(sentence("abcdef", 3), "abc…");
    }
}
