//! Changes single values of a checklist and leaves every other byte as it is: comments, order, quotes, the words of people.
//!
//! What cannot be changed so is refused with its line; nothing is ever rewritten as a whole.

use crate::form::tree::{self, Key, Kind, Node};
use crate::form::{FormError, SIZE_MAX};
use std::ops::Range;

/// A map of the file.
pub(super) type Pairs = [(Key, Node)];

/// A checklist and where its values stand.
pub(super) struct Sheet<'t> {
    text: &'t str,
    root: Node,
}

/// An entry below `spec`.
pub(super) struct At<'s> {
    pub(super) category: &'s str,
    pub(super) id: &'s str,
    pub(super) line: u32,
    pub(super) pairs: &'s Pairs,
}

/// Changes to come. None of them is made before all are known.
#[derive(Debug, Default)]
pub(super) struct Edits(Vec<(Range<usize>, String)>);

/// A place that cannot be changed alone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Uneditable {
    pub(super) line: u32,
    pub(super) what: String,
}

fn uneditable<T>(line: u32, what: impl Into<String>) -> Result<T, Uneditable> {
    Err(Uneditable {
        line,
        what: what.into(),
    })
}

/// The value below a key.
pub(super) fn get<'n>(pairs: &'n Pairs, key: &str) -> Option<&'n (Key, Node)> {
    pairs.iter().find(|(known, _)| known.text == key)
}

/// The text of a scalar; empty where there is none.
pub(super) fn text_of<'n>(pairs: &'n Pairs, key: &str) -> &'n str {
    match get(pairs, key) {
        Some((_, node)) if !node.is_null() => match &node.kind {
            Kind::Scalar { text, .. } => text,
            _ => "",
        },
        _ => "",
    }
}

/// The texts of a list; empty where there is none.
pub(super) fn list_of<'n>(pairs: &'n Pairs, key: &str) -> Vec<&'n str> {
    match get(pairs, key).map(|(_, node)| &node.kind) {
        Some(Kind::List(items)) => items.iter().map(scalar).collect(),
        _ => Vec::new(),
    }
}

fn scalar(node: &Node) -> &str {
    match &node.kind {
        Kind::Scalar { text, .. } if !node.is_null() => text,
        _ => "",
    }
}

fn scalar_raw(node: &Node) -> &str {
    match &node.kind {
        Kind::Scalar { text, .. } => text,
        _ => "",
    }
}

fn map(node: &Node) -> Option<&Pairs> {
    match &node.kind {
        Kind::Map(pairs) => Some(pairs),
        _ => None,
    }
}

/// A double-quoted scalar.
pub(super) fn quoted(value: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if crate::report::text::is_treacherous(c) => {
                let _ = match u32::from(c) {
                    n @ 0..=0xff => write!(out, "\\x{n:02x}"),
                    n @ 0..=0xffff => write!(out, "\\u{n:04x}"),
                    n => write!(out, "\\U{n:08x}"),
                };
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

impl<'t> Sheet<'t> {
    /// Reads a checklist. Its shape has been looked at by [`crate::form::read_product`].
    ///
    /// # Errors
    /// As [`crate::form::read_product`].
    pub(super) fn read(name: &str, text: &'t str) -> Result<Sheet<'t>, FormError> {
        debug_assert!(text.len() as u64 <= SIZE_MAX);
        let root = tree::parse(name, text)?;
        Ok(Sheet { text, root })
    }

    /// The fields below `metadata`.
    pub(super) fn metadata(&self) -> &Pairs {
        let root = map(&self.root).unwrap_or_default();
        get(root, "metadata")
            .and_then(|(_, node)| map(node))
            .unwrap_or_default()
    }

    /// All entries in the order of the file.
    pub(super) fn entries(&self) -> Vec<At<'_>> {
        let root = map(&self.root).unwrap_or_default();
        let spec = get(root, "spec").and_then(|(_, node)| map(node));
        let mut found = Vec::new();
        for (category, node) in spec.unwrap_or_default() {
            let Kind::List(items) = &node.kind else {
                continue;
            };
            for item in items {
                let pairs = map(item).unwrap_or_default();
                found.push(At {
                    category: &category.text,
                    id: text_of(pairs, "id"),
                    line: item.line,
                    pairs,
                });
            }
        }
        found
    }

    /// Sets a scalar. A key that is not there is put behind the first of the map, or behind the last if `at_end`.
    pub(super) fn set_text(
        &self,
        pairs: &Pairs,
        key: &str,
        value: &str,
        at_end: bool,
        edits: &mut Edits,
    ) -> Result<(), Uneditable> {
        let Some((key, node)) = get(pairs, key) else {
            return self.insert(pairs, key, &quoted(value), at_end, edits);
        };
        if !matches!(node.kind, Kind::Scalar { .. }) {
            return uneditable(node.line, format!("{} stands here", node.noun()));
        }
        let place = self.place(key, node)?;
        let is_block = self.text[place.clone()].starts_with(['|', '>']);
        let indent = self.column(key.bytes.start) + 2;
        let with = match block(value, indent, self.line_end()) {
            Some(block) if is_block => block,
            _ => quoted(value),
        };
        edits.put(place, with, self.text);
        Ok(())
    }

    /// Takes items out of a list and adds others at its end. Nothing is changed where nothing is to change.
    pub(super) fn set_list(
        &self,
        pairs: &Pairs,
        key: &str,
        goes: &dyn Fn(&str) -> bool,
        add: &[String],
        edits: &mut Edits,
    ) -> Result<(), Uneditable> {
        let fresh = || {
            let items: Vec<String> = add.iter().map(|item| quoted(item)).collect();
            format!("[{}]", items.join(", "))
        };
        let Some((key, node)) = get(pairs, key) else {
            if add.is_empty() {
                return Ok(());
            }
            return self.insert(pairs, key, &fresh(), false, edits);
        };
        let Kind::List(items) = &node.kind else {
            if node.is_null() {
                if !add.is_empty() {
                    edits.put(self.place(key, node)?, fresh(), self.text);
                }
                return Ok(());
            }
            return uneditable(node.line, format!("{} stands here", node.noun()));
        };
        if add.is_empty() && !items.iter().any(|item| goes(scalar(item))) {
            return Ok(());
        }
        if self.text[node.bytes.start..].starts_with('[') {
            self.flow_list(node, items, goes, add, edits)
        } else {
            self.block_list(key, items, goes, add, edits)
        }
    }

    fn flow_list(
        &self,
        node: &Node,
        items: &[Node],
        goes: &dyn Fn(&str) -> bool,
        add: &[String],
        edits: &mut Edits,
    ) -> Result<(), Uneditable> {
        let mut between = String::new();
        let mut at = node.bytes.start;
        for item in items {
            between.push_str(&self.text[at..item.bytes.start]);
            at = item.bytes.end;
        }
        between.push_str(&self.text[at..node.bytes.end]);
        if between.contains('#') {
            let what = "comments between the items of a list in brackets";
            return uneditable(node.line, what);
        }
        let kept = items.iter().filter(|item| !goes(scalar(item)));
        let all: Vec<String> = kept
            .map(|item| self.text[item.bytes.clone()].to_owned())
            .chain(add.iter().map(|item| quoted(item)))
            .collect();
        edits.put(
            node.bytes.clone(),
            format!("[{}]", all.join(", ")),
            self.text,
        );
        Ok(())
    }

    fn block_list(
        &self,
        key: &Key,
        items: &[Node],
        goes: &dyn Fn(&str) -> bool,
        add: &[String],
        edits: &mut Edits,
    ) -> Result<(), Uneditable> {
        let (Some(first), Some(last)) = (items.first(), items.last()) else {
            return uneditable(key.line, "an empty list without brackets stands here");
        };
        let begin = self.line_start(first.bytes.start);
        let dash = &self.text[begin..first.bytes.start];
        if dash.trim() != "-" {
            return uneditable(
                first.line,
                "the first item does not stand on a line of its own",
            );
        }
        let indent = &dash[..dash.len() - dash.trim_start().len()];
        let end = self.line_stop(last.bytes.end);
        let mut region = String::new();
        let mut at = begin;
        for item in items.iter().filter(|item| goes(scalar(item))) {
            let (from, to) = (
                self.line_start(item.bytes.start),
                self.line_stop(item.bytes.end),
            );
            let before = self.text[from..item.bytes.start].trim();
            let after = self.text[item.bytes.end..to].trim();
            if before != "-" || !(after.is_empty() || after.starts_with('#')) {
                return uneditable(item.line, "the item does not stand on a line of its own");
            }
            region.push_str(&self.text[at..from]);
            at = next_line(self.text, to).min(end.max(to));
        }
        region.push_str(&self.text[at.min(end)..end]);
        let mut region = region.trim_end_matches(['\r', '\n']).to_owned();
        for item in add {
            if !region.is_empty() {
                region.push_str(self.line_end());
            }
            region.push_str(indent);
            region.push_str("- ");
            region.push_str(&quoted(item));
        }
        if region.is_empty() {
            let colon = self.behind_colon(key)?;
            // Brackets, unless a comment stands between the key and its first item.
            if self.text[colon..begin].trim().is_empty() {
                edits.0.push((colon..end, " []".to_owned()));
            } else {
                edits.0.push((begin..end, region));
            }
        } else {
            edits.0.push((begin..end, region));
        }
        Ok(())
    }

    /// Puts a new key on a line of its own.
    fn insert(
        &self,
        pairs: &Pairs,
        key: &str,
        value: &str,
        at_end: bool,
        edits: &mut Edits,
    ) -> Result<(), Uneditable> {
        let beside = if at_end { pairs.last() } else { pairs.first() };
        let Some((beside, node)) = beside else {
            return uneditable(1, format!("there is no place for `{key}`"));
        };
        let place = self.place(beside, node)?;
        let at = self.line_stop(place.end);
        let indent = " ".repeat(self.column(beside.bytes.start));
        // Several new keys at one place come in the order in which they were asked for.
        let line = format!("{}{indent}{key}: {value}", self.line_end());
        match edits.0.iter_mut().find(|(range, _)| *range == (at..at)) {
            Some((_, there)) => there.push_str(&line),
            None => edits.0.push((at..at, line)),
        }
        Ok(())
    }

    /// The bytes of a value that is a scalar or in brackets, with the header of a block; empty behind the colon if none is written.
    fn place(&self, key: &Key, node: &Node) -> Result<Range<usize>, Uneditable> {
        let colon = self.behind_colon(key)?;
        let rest = &self.text[colon..];
        let lead = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        if rest[lead..].starts_with(['|', '>']) {
            let begin = colon + lead;
            let whole = self.text.get(begin..node.bytes.end.max(begin + 1));
            let length = whole.map_or(1, |whole| whole.trim_end().len());
            return Ok(begin..begin + length);
        }
        // The parser gives a value that is not written as `~`.
        let unwritten =
            node.is_null() && self.text.get(node.bytes.clone()) != Some(scalar_raw(node));
        Ok(if unwritten {
            colon..colon
        } else {
            node.bytes.clone()
        })
    }

    fn behind_colon(&self, key: &Key) -> Result<usize, Uneditable> {
        let rest = &self.text[key.bytes.end..];
        let lead = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        if rest[lead..].starts_with(':') {
            Ok(key.bytes.end + lead + 1)
        } else {
            uneditable(key.line, format!("no colon follows `{}`", key.text))
        }
    }

    fn line_start(&self, at: usize) -> usize {
        self.text[..at].rfind('\n').map_or(0, |at| at + 1)
    }

    /// Where the line of a byte ends, before its line break.
    fn line_stop(&self, at: usize) -> usize {
        let stop = self.text[at..]
            .find('\n')
            .map_or(self.text.len(), |length| at + length);
        if stop > at && self.text[..stop].ends_with('\r') {
            stop - 1
        } else {
            stop
        }
    }

    /// Columns before a byte. A form is indented with blanks, and so one byte is one column.
    fn column(&self, at: usize) -> usize {
        at - self.line_start(at)
    }

    fn line_end(&self) -> &'static str {
        if self.text.contains("\r\n") {
            "\r\n"
        } else {
            "\n"
        }
    }

    /// The text with all changes.
    pub(super) fn apply(&self, mut edits: Edits) -> Result<String, Uneditable> {
        edits.0.sort_by_key(|(range, _)| (range.start, range.end));
        let mut out = String::with_capacity(self.text.len() + 4096);
        let mut at = 0;
        for (range, with) in &edits.0 {
            let Some(before) = self.text.get(at..range.start) else {
                let line = self.text[..at].matches('\n').count() + 1;
                return uneditable(
                    u32::try_from(line).unwrap_or(u32::MAX),
                    "two changes meet here",
                );
            };
            out.push_str(before);
            out.push_str(with);
            at = range.end;
        }
        out.push_str(&self.text[at..]);
        Ok(out)
    }
}

impl Edits {
    /// Replaces bytes; a value that was not written gets a blank before it.
    fn put(&mut self, place: Range<usize>, mut with: String, text: &str) {
        if place.is_empty() {
            with.insert(0, ' ');
        }
        if text.get(place.clone()) != Some(with.as_str()) {
            self.0.push((place, with));
        }
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn next_line(text: &str, stop: usize) -> usize {
    let rest = &text[stop..];
    let lead = rest.len() - rest.trim_start_matches('\r').len();
    if rest[lead..].starts_with('\n') {
        stop + lead + 1
    } else {
        stop + lead
    }
}

/// A value as a literal block; none where a block cannot hold it.
fn block(value: &str, indent: usize, line_end: &str) -> Option<String> {
    let (header, body) = match value.strip_suffix('\n') {
        Some(body) => ("|", body),
        None => ("|-", value),
    };
    let odd = |c: char| c != '\n' && crate::report::text::is_treacherous(c);
    if body.is_empty()
        || body.starts_with([' ', '\t', '\n'])
        || body.ends_with('\n')
        || body.chars().any(odd)
    {
        return None;
    }
    let mut out = header.to_owned();
    for line in body.split('\n') {
        out.push_str(line_end);
        if !line.is_empty() {
            out.push_str(&" ".repeat(indent));
            out.push_str(line);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::{Value, read_product};

    fn entry(status: &str, evidence: &str, notes: &str) -> String {
        format!(
            "# top\nmetadata:\n  platformName: \"[x]\" # name\n  repoUrl:\n\nspec:\n  security:\n    # above\n    - id: a\n      level: MUST\n      \
             status: {status}\n      evidence: {evidence}\n      notes: {notes}\n    - id: b # second\n"
        )
    }

    /// Sets status, evidence (what begins with `karat/` goes) and notes of the first entry.
    fn set(text: &str, status: &str, add: &[&str], notes: &str) -> Result<String, Uneditable> {
        let sheet = Sheet::read("f", text).unwrap();
        let mut edits = Edits::default();
        let add: Vec<String> = add.iter().map(|item| (*item).to_owned()).collect();
        let entries = sheet.entries();
        let pairs = entries[0].pairs;
        sheet.set_text(pairs, "status", status, false, &mut edits)?;
        let ours = |item: &str| item.starts_with("karat/");
        sheet.set_list(pairs, "evidence", &ours, &add, &mut edits)?;
        sheet.set_text(pairs, "notes", notes, false, &mut edits)?;
        let made = sheet.apply(edits)?;
        let list = read_product("f", &made).unwrap_or_else(|error| panic!("{error}\n{made}"));
        assert_eq!(list.entries[0].status.text, status, "{made}");
        assert_eq!(list.entries[0].notes.text, notes, "{made}");
        assert_eq!(list.entries[1].id.text, "b", "{made}");
        let evidence: Vec<&str> = list.entries[0]
            .evidence
            .iter()
            .map(|item| item.text.as_str())
            .collect();
        assert!(
            evidence.ends_with(&add.iter().map(String::as_str).collect::<Vec<_>>()),
            "{made}"
        );
        assert_eq!(
            evidence.iter().filter(|item| ours(item)).count(),
            add.iter().filter(|item| ours(item)).count(),
            "{made}"
        );
        Ok(made)
    }

    #[test]
    fn a_form_is_changed_at_three_places_only() {
        let made = set(
            &entry("\"\"   # one of four", "[] # a list", "\"\"    # words"),
            "Implemented",
            &["karat/a.md"],
            "a \"b\"",
        );
        assert_eq!(
            made.unwrap(),
            entry(
                "\"Implemented\"   # one of four",
                "[\"karat/a.md\"] # a list",
                "\"a \\\"b\\\"\"    # words"
            )
        );
    }

    #[test]
    fn every_way_of_writing_a_value_is_changed_in_place() {
        for status in [
            "",
            " # none",
            "\"\"",
            "''",
            "~",
            "null",
            "N/A",
            "'N/A'",
            "Not Implemented # x",
        ] {
            for notes in [
                "",
                "\"\"",
                "'it''s'",
                "plain words",
                "|\n        one\n\n        two",
                "|-\n        one",
                ">\n        one\n        two\n",
                "\"one\n        two\"",
                "|",
            ] {
                for evidence in [
                    "",
                    "[]",
                    "[ ]",
                    "null",
                    "[\"x.md\", karat/old.md]",
                    "[x.md,\n        karat/old.md,\n      ]",
                    "\n        - x.md # mine\n        # between\n        - \"karat/old.md\" # old\n        - y.md",
                    "\n      - karat/old.md",
                    "\n        - karat/old.md\n        - karat/older.md",
                    "\n        - karat/old.md\n\n        # left alone\n        - x.md",
                    " # left alone\n        - karat/old.md",
                ] {
                    let text = entry(status, evidence, notes);
                    for text in [text.clone(), text.replace('\n', "\r\n")] {
                        for add in [&["karat/a.md", "karat/b.md"][..], &[]] {
                            let made = set(&text, "Implemented", add, "x: #y").unwrap();
                            for kept in [
                                "# mine",
                                "# between",
                                "# left alone",
                                "y.md",
                                "# top",
                                "# name",
                                "# above",
                                "# second",
                            ] {
                                assert_eq!(
                                    made.contains(kept),
                                    text.contains(kept),
                                    "{kept}\n{made}"
                                );
                            }
                            assert_eq!(made.contains("\r\n"), text.contains("\r\n"));
                            assert!(
                                !made.replace("\r\n", "").contains('\n') || !text.contains("\r\n"),
                                "{made:?}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_block_stays_a_block() {
        let text = entry("\"\"", "[]", "|\n        one\n\n        two");
        let made = set(&text, "", &[], "one\n\ntwo\nthree").unwrap();
        assert!(
            made.contains("notes: |-\n        one\n\n        two\n        three\n    - id: b"),
            "{made}"
        );
        for odd in [" lead", "a\n\n", "tab\u{7}", ""] {
            set(&text, "", &[], odd).unwrap();
        }
    }

    #[test]
    fn what_is_missing_is_put_where_it_belongs() {
        let text = "metadata:\n  platformName: x # y\nspec:\n  a:\n    - id: one # first\n      level: MUST\n    - level: MUST\n      id: b\n";
        let sheet = Sheet::read("f", text).unwrap();
        let mut edits = Edits::default();
        sheet
            .set_text(sheet.metadata(), "k8sConformanceUrl", "u", true, &mut edits)
            .unwrap();
        sheet
            .set_text(sheet.metadata(), "repoUrl", "r", true, &mut edits)
            .unwrap();
        let entries = sheet.entries();
        sheet
            .set_text(entries[0].pairs, "status", "N/A", false, &mut edits)
            .unwrap();
        sheet
            .set_list(
                entries[0].pairs,
                "evidence",
                &|_| false,
                &["a b".to_owned()],
                &mut edits,
            )
            .unwrap();
        sheet
            .set_text(entries[1].pairs, "notes", "n", false, &mut edits)
            .unwrap();
        assert_eq!(
            sheet.apply(edits).unwrap(),
            "metadata:\n  platformName: x # y\n  k8sConformanceUrl: \"u\"\n  repoUrl: \"r\"\nspec:\n  a:\n    - id: one # first\n      \
             status: \"N/A\"\n      evidence: [\"a b\"]\n      level: MUST\n    - level: MUST\n      notes: \"n\"\n      id: b\n"
        );
    }

    #[test]
    fn nothing_to_change_changes_nothing() {
        let text = entry("\"N/A\"", "\n        - x.md", "'words'");
        let sheet = Sheet::read("f", &text).unwrap();
        let mut edits = Edits::default();
        let entries = sheet.entries();
        sheet
            .set_text(entries[0].pairs, "status", "N/A", false, &mut edits)
            .unwrap();
        sheet
            .set_list(entries[0].pairs, "evidence", &|_| false, &[], &mut edits)
            .unwrap();
        assert!(edits.is_empty());
        assert_eq!(sheet.apply(edits).unwrap(), text);
    }

    #[test]
    fn what_cannot_be_changed_alone_is_refused_with_its_line() {
        for (evidence, says) in [
            ("[a, # mine\n        karat/old.md]", "comments"),
            ("\n        - a\n        - - karat/old.md", ""),
            ("{a: b}", "a map"),
            ("a.md", "a text"),
        ] {
            let text = entry("\"\"", evidence, "\"\"");
            let sheet = Sheet::read("f", &text).unwrap();
            let mut edits = Edits::default();
            let ours = |item: &str| item.starts_with("karat/");
            let entries = sheet.entries();
            let done = sheet.set_list(
                entries[0].pairs,
                "evidence",
                &ours,
                &["x".to_owned()],
                &mut edits,
            );
            if !says.is_empty() {
                let error = done.unwrap_err();
                assert!(error.what.contains(says) && error.line >= 12, "{error:?}");
            }
        }
    }

    #[test]
    fn quotes_hold_everything() {
        for value in [
            "",
            "a",
            "\"\\",
            "a: b # c",
            "[x]",
            "\u{7}\u{85}\u{2028}\u{e0041}\t\r\n",
            "'",
            "%",
            "é漢",
        ] {
            let text = format!("metadata:\n  description: {}\n", quoted(value));
            let list = read_product("f", &text).unwrap();
            assert_eq!(
                list.field("description").unwrap().value,
                Value::Text(value.to_owned())
            );
        }
    }
}
