//! Reads the checklists of the programme: the official form, `AIConformance-<version>.yaml`, and the `PRODUCT.yaml` that a
//! vendor made of it. Both have the same shape, metadata and entries by category; what differs is how much is demanded.
//!
//! - [`read_form`] is strict: version, ids, levels and texts must be there, each id once, nothing filled in. What comes out
//!   can be copied unchanged.
//! - [`read_product`] demands the shape only. Wrong values are for [`crate::lint`] to say, all at once.
//!
//! Both refuse what is larger than [`SIZE_MAX`], is no YAML, or uses YAML that a form never needs (see `form/tree.rs`). An
//! error names file, line, what was expected and what to do. The official texts are never part of this program.

pub(crate) mod tree;

#[cfg(test)]
mod tests;

use crate::catalog::Level;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use tree::{Kind, Node};

/// Largest file that is read, in bytes. The official forms have less than 10 KB.
pub const SIZE_MAX: u64 = 1 << 20;

/// Longest part of a wrong value that an error repeats, in characters.
const QUOTED_MAX: usize = 60;

/// Why a form or product could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {what}; expected {expected}")]
pub struct FormError {
    /// The file, as the caller named it.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// What is wrong. May quote the file.
    pub what: String,
    /// What should stand there.
    pub expected: String,
    /// What to do.
    pub hint: String,
    /// The file may be right, but is not understood here: a limit, or YAML that no form needs.
    pub unsupported: bool,
}

impl FormError {
    fn new(file: &str, line: u32, what: &str, expected: &str) -> FormError {
        FormError {
            file: file.to_owned(),
            line,
            what: what.to_owned(),
            expected: expected.to_owned(),
            hint: "compare the file with the official form of its version".to_owned(),
            unsupported: false,
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> FormError {
        self.hint = hint.into();
        self
    }

    fn unsupported(self, hint: impl Into<String>) -> FormError {
        FormError {
            unsupported: true,
            ..self.hint(hint)
        }
    }
}

/// A text and the line it begins in. The text is foreign and must be made harmless before it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// Line, from 1.
    pub line: u32,
    /// The text after YAML's escapes.
    pub text: String,
}

/// A value below `metadata`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// Nothing, or `null`.
    Null,
    /// Anything else, by its noun: `a number`.
    Other(&'static str),
}

/// One line of `metadata`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its key.
    pub key: Text,
    /// Its value.
    pub value: Value,
}

/// One requirement as a file has it. What is missing is an empty text in the line of the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Line of the entry.
    pub line: u32,
    /// The key below `spec` under which it stands.
    pub category: String,
    /// `id`
    pub id: Text,
    /// `description`
    pub description: Text,
    /// `level`, as written.
    pub level: Text,
    /// `status`
    pub status: Text,
    /// `evidence`
    pub evidence: Vec<Text>,
    /// `notes`
    pub notes: Text,
}

/// A file of the checklist's shape with whatever values it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checklist {
    /// `metadata`; none where the key is missing or holds nothing.
    pub metadata: Option<Vec<Field>>,
    /// Keys of `spec`; none where `spec` is missing or holds nothing.
    pub categories: Option<Vec<Text>>,
    /// All entries in the order of the file.
    pub entries: Vec<Entry>,
    /// Keys that no checklist has.
    pub unknown_keys: Vec<Text>,
}

impl Checklist {
    /// The metadata field with a key.
    pub fn field(&self, key: &str) -> Option<&Field> {
        let fields = self.metadata.as_ref()?;
        fields.iter().find(|field| field.key.text == key)
    }
}

/// One requirement of an official form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Category, by its key.
    pub category: String,
    /// Id.
    pub id: String,
    /// MUST or SHOULD.
    pub level: Level,
    /// The official text.
    pub description: String,
    /// Line in the form.
    pub line: u32,
}

/// An official form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Kubernetes version without `v`, such as `1.36`.
    pub version: String,
    /// Requirements in the order of the form.
    pub requirements: Vec<Requirement>,
}

/// The minor version in `v1.36`, `1.36` or `v1.36.2`: `1.36`.
pub fn minor_version(text: &str) -> Option<String> {
    let text = text.trim();
    let mut parts = text.strip_prefix('v').unwrap_or(text).split('.');
    let number = |part: Option<&str>| {
        part.filter(|part| {
            (1..=4).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
        })
        .map(str::to_owned)
    };
    let (major, minor) = (number(parts.next())?, number(parts.next())?);
    // A patch may carry a suffix of the vendor: `v1.36.2-gke.100`.
    parts
        .next()
        .is_none_or(|patch| patch.starts_with(|c: char| c.is_ascii_digit()))
        .then(|| format!("{major}.{minor}"))
}

/// Reads a file of at most [`SIZE_MAX`] bytes as text.
///
/// # Errors
/// It cannot be read, is too large or no UTF-8.
pub fn read_file(path: &Path, name: &str) -> Result<String, FormError> {
    let failed = |cause: &std::io::Error| {
        FormError::new(name, 1, &format!("it cannot be read: {cause}"), "a file")
            .unsupported("check the path and its permissions")
    };
    let metadata = std::fs::metadata(path).map_err(|error| failed(&error))?;
    if !metadata.is_file() {
        return Err(FormError::new(name, 1, "this is no file", "a YAML file")
            .unsupported("give the file itself"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(SIZE_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| failed(&error))?;
    decode(name, bytes)
}

fn decode(name: &str, bytes: Vec<u8>) -> Result<String, FormError> {
    if bytes.len() as u64 > SIZE_MAX {
        return Err(
            FormError::new(name, 1, "the file has more than 1 MB", "a form")
                .unsupported("a filled-in form has some 20 KB; put long texts into evidence files"),
        );
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let line = u32::try_from(line).unwrap_or(u32::MAX);
        FormError::new(name, line, "a byte is no UTF-8", "text in UTF-8")
            .hint("save the file as UTF-8")
    })
}

/// Reads what has the shape of a checklist. `file` names it in errors.
///
/// # Errors
/// No YAML, another shape, or more than is read.
pub fn read_product(file: &str, text: &str) -> Result<Checklist, FormError> {
    if text.len() as u64 > SIZE_MAX {
        decode(file, text.as_bytes().to_vec())?;
    }
    let root = tree::parse(file, text)?;
    let shape = Shape { file };
    let mut found = Checklist::default();
    for (key, value) in shape.map(&root, "a map with `metadata` and `spec`")? {
        match key.text.as_str() {
            "metadata" if !value.is_null() => {
                let pairs = shape.map(value, "a map of fields")?;
                found.metadata = Some(pairs.iter().map(field).collect());
            }
            "spec" if !value.is_null() => shape.spec(value, &mut found)?,
            "metadata" | "spec" => {}
            _ => found.unknown_keys.push(Text {
                line: key.line,
                text: key.text.clone(),
            }),
        }
    }
    Ok(found)
}

fn field((key, value): &(tree::Key, Node)) -> Field {
    let value = match (&value.kind, value.noun()) {
        (Kind::Scalar { text, .. }, "a text") => Value::Text(text.clone()),
        (_, "nothing") => Value::Null,
        (_, noun) => Value::Other(noun),
    };
    Field {
        key: Text {
            line: key.line,
            text: key.text.clone(),
        },
        value,
    }
}

struct Shape<'a> {
    file: &'a str,
}

impl Shape<'_> {
    fn wrong(&self, node: &Node, expected: &str) -> FormError {
        FormError::new(
            self.file,
            node.line,
            &format!("{} stands here", node.noun()),
            expected,
        )
    }

    fn map<'n>(
        &self,
        node: &'n Node,
        expected: &str,
    ) -> Result<&'n [(tree::Key, Node)], FormError> {
        match &node.kind {
            Kind::Map(pairs) => Ok(pairs),
            _ => Err(self.wrong(node, expected)),
        }
    }

    /// A scalar of any kind as text, for the programme's reader takes a number for a text too.
    fn text(&self, node: &Node, expected: &str) -> Result<Text, FormError> {
        let line = node.line;
        match &node.kind {
            Kind::Scalar { .. } if node.is_null() => Ok(Text {
                line,
                text: String::new(),
            }),
            Kind::Scalar { text, .. } => Ok(Text {
                line,
                text: text.clone(),
            }),
            _ => Err(self.wrong(node, expected)),
        }
    }

    fn list<'n>(&self, node: &'n Node, expected: &str) -> Result<&'n [Node], FormError> {
        match &node.kind {
            Kind::List(items) => Ok(items),
            _ if node.is_null() => Ok(&[]),
            _ => Err(self.wrong(node, expected)),
        }
    }

    fn spec(&self, node: &Node, found: &mut Checklist) -> Result<(), FormError> {
        let mut categories = Vec::new();
        for (key, value) in self.map(node, "a map of categories")? {
            categories.push(Text {
                line: key.line,
                text: key.text.clone(),
            });
            for item in self.list(value, "a list of requirements")? {
                let entry = self.entry(&key.text, item, &mut found.unknown_keys)?;
                found.entries.push(entry);
            }
        }
        found.categories = Some(categories);
        Ok(())
    }

    fn entry(
        &self,
        category: &str,
        node: &Node,
        unknown: &mut Vec<Text>,
    ) -> Result<Entry, FormError> {
        let absent = || Text {
            line: node.line,
            text: String::new(),
        };
        let mut entry = Entry {
            line: node.line,
            category: category.to_owned(),
            id: absent(),
            description: absent(),
            level: absent(),
            status: absent(),
            evidence: Vec::new(),
            notes: absent(),
        };
        for (key, value) in self.map(
            node,
            "a requirement with `id`, `description`, `level`, `status`, `evidence`, `notes`",
        )? {
            match key.text.as_str() {
                "id" => entry.id = self.text(value, "an id")?,
                "description" => entry.description = self.text(value, "a text")?,
                "level" => entry.level = self.text(value, "MUST or SHOULD")?,
                "status" => entry.status = self.text(value, "a status")?,
                "notes" => entry.notes = self.text(value, "a text")?,
                "evidence" => {
                    for item in self.list(value, "a list of paths and links")? {
                        entry.evidence.push(self.text(item, "a path or a link")?);
                    }
                }
                _ => unknown.push(Text {
                    line: key.line,
                    text: key.text.clone(),
                }),
            }
        }
        Ok(entry)
    }
}

/// Reads an official form. `file` names it in errors.
///
/// # Errors
/// As [`read_product`], and: no version, no requirement, an id twice or of other characters than `a-z0-9_`, a level that is
/// neither MUST nor SHOULD, an entry without text, or one that is filled in.
pub fn read_form(file: &str, text: &str) -> Result<Form, FormError> {
    let list = read_product(file, text)?;
    let error = |line, what: &str, expected: &str| FormError::new(file, line, what, expected);
    let version = match list.field("kubernetesVersion") {
        Some(Field {
            key,
            value: Value::Text(text),
        }) => minor_version(text).ok_or_else(|| {
            error(
                key.line,
                &format!("the version is `{}`", quoted(text)),
                "a version such as `v1.36`",
            )
        })?,
        Some(field) => {
            return Err(error(
                field.key.line,
                "the version is no text",
                "a version such as `v1.36`",
            ));
        }
        None => {
            return Err(error(
                1,
                "`metadata.kubernetesVersion` is missing",
                "an official form",
            ));
        }
    };
    if let Some(key) = list.unknown_keys.first() {
        let what = format!("the key `{}` is unknown", quoted(&key.text));
        return Err(error(key.line, &what, "the keys of an official form"));
    }
    let mut seen = BTreeMap::new();
    let mut requirements = Vec::new();
    for entry in list.entries {
        let id = entry.id.text;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if id.is_empty() || id.len() > 64 || !id.chars().all(plain) {
            let what = format!("the id is `{}`", quoted(&id));
            return Err(error(entry.id.line, &what, "small letters, digits and `_`"));
        }
        if let Some(first) = seen.insert(id.clone(), entry.id.line) {
            return Err(error(
                entry.id.line,
                &format!("the id `{id}` stands here a second time"),
                "each id once",
            )
            .hint(format!(
                "the first is in line {first}; take the form from the programme anew"
            )));
        }
        let level = match entry.level.text.as_str() {
            "MUST" => Level::Must,
            "SHOULD" => Level::Should,
            other => {
                let what = format!("the level of `{id}` is `{}`", quoted(other));
                return Err(error(entry.level.line, &what, "MUST or SHOULD"));
            }
        };
        if entry.description.text.trim().is_empty() {
            return Err(error(
                entry.line,
                &format!("`{id}` has no description"),
                "its official text",
            ));
        }
        if !entry.status.text.is_empty() || !entry.evidence.is_empty() {
            return Err(error(
                entry.line,
                &format!("`{id}` is filled in"),
                "the empty form",
            )
            .hint(
                "give the form of the programme, AIConformance-<version>.yaml, not a PRODUCT.yaml",
            ));
        }
        requirements.push(Requirement {
            category: entry.category,
            id,
            level,
            description: entry.description.text,
            line: entry.line,
        });
    }
    if requirements.is_empty() {
        return Err(error(
            1,
            "there is no requirement below `spec`",
            "an official form",
        ));
    }
    Ok(Form {
        version,
        requirements,
    })
}

/// The beginning of a foreign text, for a message.
fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
