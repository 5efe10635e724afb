//! What a probe, and so a recording, never gets to see; and the way back.
//!
//! Whole objects are redacted *before* projection, so that no choice of paths can pull a value out of the shape that the
//! rules know. What a probe must be able to compare and to use becomes a pseudonym: one-to-one in a run, long, UUID-shaped
//! for UUIDs. The map lives in memory only, and [`Redactor::restore`] puts the real values back into outgoing requests.
//! Secrets, tokens and environment values become marks that cannot be turned back: otherwise a probe could have the door
//! write a foreign password into an object of its own.
//!
//! It keeps names of Kubernetes' own objects (`default`, `kube-…`, `system:…`), everything of this run, and the uids of
//! objects. Text without structure (messages, logs) passes patterns and a dictionary of what was already replaced, as whole
//! words of 8 characters or more; so the engine teaches it nodes and namespaces before the first probe starts.
//!
//! Operators add [`Rules`] of their own. Where to look next: `walk` has the places of objects, `scan` the way through a
//! text, `patterns` and `keys` what is found without knowledge, `encoded` what was packed before.

mod encoded;
mod keys;
mod patterns;
mod rules;
mod scan;
#[cfg(test)]
mod tests;
mod walk;

pub use rules::{MAX_RULES_SIZE, Rules};

use hmac::{Hmac, Mac};
use scan::Dictionary;
use serde_json::Value;
use sha2::Sha256;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Version of the built-in rules, for the header of recordings.
pub const VERSION: &str = "2";

/// Shortest word that is replaced inside text; shorter ones are replaced only where the place tells what they are.
const WORD_MIN: usize = 8;

/// What a pseudonym stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Name of a node.
    Node,
    /// Name of a namespace that is neither Kubernetes' nor of this run.
    Namespace,
    /// Address of a node.
    Address,
    /// Serial number or UUID of a device or machine.
    Device,
    /// Account, project, subscription or instance of a cloud.
    Account,
}

impl Class {
    fn prefix(self) -> &'static str {
        match self {
            Class::Node => "node-",
            Class::Namespace => "ns-",
            Class::Address => "address-",
            Class::Device => "device-",
            Class::Account => "account-",
        }
    }
}

/// Prefix of marks that cannot be turned back.
const MARK: &str = "redacted-";
/// Hexadecimal digits after a prefix.
const DIGITS: usize = 16;

/// A request would carry a value that redaction removed for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the request holds a value that redaction removed and nobody can put back; change the object by a patch that leaves it out"
)]
pub struct Removed;

/// The redaction of one run. Shared by all its probes, so that equal things stay equal.
pub struct Redactor {
    run: String,
    inner: Mutex<Maps>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The map must not reach a log.
        f.debug_struct("Redactor")
            .field("run", &self.run)
            .finish_non_exhaustive()
    }
}

/// How a text is looked at.
#[derive(Clone, Copy, Debug)]
struct How {
    /// Whether names of namespaces are words to find: in messages, but not in objects, where they are often ordinary words.
    namespaces: bool,
    /// Whether all words of the dictionary are found, or only those that no field can be called.
    words: bool,
    /// How many packed forms lie around the text.
    depth: u8,
}

impl How {
    fn text(depth: u8) -> How {
        How {
            namespaces: true,
            words: true,
            depth,
        }
    }

    fn string(depth: u8) -> How {
        How {
            namespaces: false,
            ..How::text(depth)
        }
    }

    fn word(depth: u8) -> How {
        How {
            words: false,
            ..How::string(depth)
        }
    }

    /// One form further in; none beyond `most`.
    fn deeper(self, most: u8) -> Option<How> {
        (self.depth < most).then_some(How {
            depth: self.depth + 1,
            ..self
        })
    }
}

struct Maps {
    /// What the operator adds.
    rules: Arc<Rules>,
    /// Whether the rules of this program apply, or those of the operator alone.
    built_in: bool,
    /// Packed forms around what is being looked at.
    depth: u8,
    /// Bytes that the present object was decoded to.
    decoded: usize,
    /// Secret values that are found again wherever they stand, with their marks.
    hidden: HashMap<String, String>,
    /// Keyed by randomness of this run, so that nobody can test guesses against a recording.
    mac: Hmac<Sha256>,
    own: String,
    /// Run id.
    run: String,
    /// End of every name that the run gives to objects.
    suffix: String,
    /// Real value to pseudonym.
    forward: HashMap<String, String>,
    /// Pseudonym to real value.
    back: HashMap<String, String>,
    /// Marks that were handed out.
    marks: HashSet<String>,
    /// Words for text inside objects: all but namespaces, which are often ordinary words.
    words: Dictionary,
    /// Words for messages and logs.
    text_words: Dictionary,
}

impl Redactor {
    /// A redactor without any knowledge, for the run with this id.
    ///
    /// # Errors
    /// The operating system gives no random bytes.
    pub fn new(run: &str) -> Result<Redactor, crate::seal::NoRandomness> {
        Redactor::with_rules(run, Arc::default())
    }

    /// As [`Redactor::new`], with rules of the operator beside those of this program.
    ///
    /// # Errors
    /// As [`Redactor::new`].
    pub fn with_rules(run: &str, rules: Arc<Rules>) -> Result<Redactor, crate::seal::NoRandomness> {
        let mut salt = [0_u8; 32];
        getrandom::fill(&mut salt).map_err(crate::seal::NoRandomness::from_system)?;
        let redactor = Redactor::with_salt(run, &salt);
        redactor.lock().rules = rules;
        Ok(redactor)
    }

    /// With rules of the operator alone: for what was redacted before.
    ///
    /// # Errors
    /// As [`Redactor::new`].
    pub fn only(run: &str, rules: Arc<Rules>) -> Result<Redactor, crate::seal::NoRandomness> {
        let redactor = Redactor::with_rules(run, rules)?;
        redactor.lock().built_in = false;
        Ok(redactor)
    }

    /// What stands in the header of recordings: the version of the built-in rules and, where the operator added some, the
    /// SHA-256 of their file.
    pub fn version(&self) -> String {
        match self.lock().rules.digest() {
            Some(digest) => format!("{VERSION}+{digest}"),
            None => VERSION.to_owned(),
        }
    }

    fn with_salt(run: &str, salt: &[u8]) -> Redactor {
        let mac = <Hmac<Sha256> as Mac>::new_from_slice(salt)
            .unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
        Redactor {
            run: run.to_owned(),
            inner: Mutex::new(Maps {
                rules: Arc::default(),
                built_in: true,
                depth: 0,
                decoded: 0,
                hidden: HashMap::new(),
                run: run.to_owned(),
                mac,
                own: format!("karat-{run}-"),
                suffix: format!("-{run}"),
                forward: HashMap::new(),
                back: HashMap::new(),
                marks: HashSet::new(),
                words: Dictionary::default(),
                text_words: Dictionary::default(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Maps> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the next object or text.
    fn begin(&self) -> MutexGuard<'_, Maps> {
        let mut maps = self.lock();
        maps.decoded = 0;
        maps.depth = 0;
        maps
    }

    /// Teaches a value before it is met, and gives its pseudonym; the value itself where it is to stay.
    pub fn learn(&self, class: Class, real: &str) -> String {
        self.lock()
            .pseudonym(class, real)
            .unwrap_or_else(|| real.to_owned())
    }

    /// Teaches a secret value, which is then hidden wherever it stands. One shorter than a word of the dictionary is not
    /// learned: it would be found in every text.
    pub fn learn_secret(&self, real: &str) {
        let mut maps = self.lock();
        if real.len() >= WORD_MIN && !maps.hidden.contains_key(real) {
            let mark = maps.mark(real);
            maps.hide_everywhere(real, &mark);
        }
    }

    /// Redacts an object of the API in place, whatever the API server gave: also drops `managedFields` and last-applied
    /// annotations. `group` and `resource` (plural) say what it is, since items of lists have no kind.
    pub fn redact(&self, group: &str, resource: &str, object: &mut Value) {
        self.begin().object(group, resource, object);
    }

    /// Redacts a `meta/v1 Status` that an error came with: its message, and the name it is about.
    pub fn redact_status(&self, status: &mut Value) {
        self.begin().status(status);
    }

    /// Redacts text without structure: logs, messages, bodies that are no JSON.
    pub fn redact_text(&self, text: &str) -> String {
        self.begin().text(text).unwrap_or_else(|| text.to_owned())
    }

    /// As [`Redactor::redact_text`]; a text that is JSON is redacted as the object that it is, however large.
    pub fn redact_document(&self, text: &str) -> String {
        let mut maps = self.begin();
        if text.starts_with(['{', '['])
            && let Ok(before) = serde_json::from_str::<Value>(text)
        {
            let mut value = before.clone();
            maps.inner_document(&mut value, How::text(1));
            if value == before {
                return text.to_owned();
            }
            return value.to_string();
        }
        maps.text(text).unwrap_or_else(|| text.to_owned())
    }

    /// Redacts a document that is no object of the API, such as the arguments of a call.
    pub fn redact_value(&self, value: &mut Value) {
        self.begin().inner_document(value, How::text(1));
    }

    /// Teaches what a Node says of the machine below it, before any text speaks of that. The object is not changed.
    pub fn learn_machine(&self, node: &Value) {
        let mut maps = self.lock();
        if let Some(id) = node.pointer("/spec/providerID") {
            maps.account(id);
            maps.pseudonym(Class::Account, id.as_str().unwrap_or_default());
        }
        for id in ["machineID", "systemUUID", "bootID"] {
            let id = &node["status"]["nodeInfo"][id];
            maps.machine(id);
            maps.pseudonym(Class::Device, id.as_str().unwrap_or_default());
        }
    }

    /// Puts the real values back into text of a request: a name, a selector, an expression, a path.
    ///
    /// # Errors
    /// The text holds a mark.
    pub fn restore_text(&self, text: &str) -> Result<String, Removed> {
        Ok(self
            .lock()
            .restored(text)?
            .unwrap_or_else(|| text.to_owned()))
    }

    /// Puts the real values back into a body, keys included.
    ///
    /// # Errors
    /// The body holds a mark.
    pub fn restore(&self, body: &mut Value) -> Result<(), Removed> {
        self.lock().restore_value(body)
    }
}

impl Maps {
    /// The pseudonym of a value, made when it is met first. None for what stays as it is.
    fn pseudonym(&mut self, class: Class, real: &str) -> Option<String> {
        if self.stays(class, real) {
            return None;
        }
        if let Some(known) = self.forward.get(real) {
            return Some(known.clone());
        }
        let mut round = 0_u32;
        let made = loop {
            let made = self.shape(class, real, round);
            if !self.back.contains_key(&made) && !self.forward.contains_key(&made) {
                break made;
            }
            round += 1;
        };
        self.forward.insert(real.to_owned(), made.clone());
        self.back.insert(made.clone(), real.to_owned());
        if real.len() >= WORD_MIN {
            // One with a digit and a dash is no ordinary word.
            let telling = real.contains('-') && real.bytes().any(|b| b.is_ascii_digit());
            if class != Class::Namespace || telling {
                self.words.add(real);
            }
            self.text_words.add(real);
        }
        Some(made)
    }

    fn stays(&self, class: Class, real: &str) -> bool {
        if real.is_empty() || self.back.contains_key(real) || self.marks.contains(real) {
            return true;
        }
        match class {
            Class::Namespace => {
                real == "default" || real.starts_with("kube-") || real.starts_with(&self.own)
            }
            Class::Address => matches!(
                real,
                "0.0.0.0" | "127.0.0.1" | "::" | "::1" | "0.0.0.0/0" | "::/0"
            ),
            // A name that `run.name` made, for a node that does not exist. No foreign node can bear a run id that was drawn
            // after it was named.
            Class::Node => real.ends_with(&self.suffix),
            Class::Device | Class::Account => false,
        }
    }

    fn shape(&self, class: Class, real: &str, round: u32) -> String {
        let mut mac = self.mac.clone();
        mac.update(&round.to_be_bytes());
        mac.update(real.as_bytes());
        let hex = data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes());
        if class == Class::Device && scan::is_uuid(real.as_bytes()) {
            let uuid = [
                &hex[..8],
                &hex[8..12],
                &hex[12..16],
                &hex[16..20],
                &hex[20..32],
            ]
            .join("-");
            return if real.bytes().any(|b| b.is_ascii_uppercase()) {
                uuid.to_ascii_uppercase()
            } else {
                uuid
            };
        }
        format!("{}{}", class.prefix(), &hex[..DIGITS])
    }

    /// The mark of a secret value: equal for equal values, and no way back.
    fn mark(&mut self, real: &str) -> String {
        if self.marks.contains(real) {
            return real.to_owned();
        }
        let mut mac = self.mac.clone();
        mac.update(b"mark");
        mac.update(real.as_bytes());
        let hex = data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes());
        let mark = format!("{MARK}{}", &hex[..DIGITS]);
        self.marks.insert(mark.clone());
        mark
    }

    /// Puts a mark in a secret's place.
    fn hide(&mut self, text: &mut String) {
        self.remember(text);
        *text = self.mark(text);
    }

    /// Finds a secret again wherever it stands, if it looks as if it was drawn at random: most values of environments are
    /// ordinary words, and a verdict may hang on them.
    fn remember(&mut self, real: &str) {
        if looks_random(real) && !real.contains(&self.run) && !self.hidden.contains_key(real) {
            let mark = self.mark(real);
            self.hide_everywhere(real, &mark);
        }
    }

    fn hide_everywhere(&mut self, real: &str, mark: &str) {
        if self.forward.contains_key(real) || self.marks.contains(real) {
            return;
        }
        self.hidden.insert(real.to_owned(), mark.to_owned());
        self.words.add(real);
        self.text_words.add(real);
    }

    fn restored(&self, text: &str) -> Result<Option<String>, Removed> {
        let bytes = text.as_bytes();
        let mut out: Option<String> = None;
        let mut copied = 0;
        let mut at = 0;
        while at < bytes.len() {
            let found = scan::pseudonym_at(bytes, at).map(|length| &text[at..at + length]);
            if let Some(word) = found {
                if self.marks.contains(word) {
                    return Err(Removed);
                }
                if let Some(real) = self.back.get(word) {
                    let out = out.get_or_insert_with(|| String::with_capacity(text.len()));
                    out.push_str(&text[copied..at]);
                    out.push_str(real);
                    at += word.len();
                    copied = at;
                    continue;
                }
            }
            at += 1;
        }
        Ok(out.map(|mut out| {
            out.push_str(&text[copied..]);
            out
        }))
    }

    fn restore_value(&self, value: &mut Value) -> Result<(), Removed> {
        match value {
            Value::String(text) => {
                if let Some(real) = self.restored(text)? {
                    *text = real;
                }
            }
            Value::Array(items) => {
                for item in items {
                    self.restore_value(item)?;
                }
            }
            Value::Object(map) => {
                let mut keys = Vec::new();
                for (key, item) in map.iter_mut() {
                    self.restore_value(item)?;
                    if let Some(real) = self.restored(key)? {
                        keys.push((key.clone(), real));
                    }
                }
                for (old, real) in keys {
                    if let Some(item) = map.remove(&old) {
                        map.insert(real, item);
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        Ok(())
    }
}

/// Whether a text has the shape of a mark.
fn is_mark(text: &str) -> bool {
    text.strip_prefix(MARK)
        .is_some_and(|hex| hex.len() == DIGITS && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Letters of both cases among digits, or a long row of letters and digits.
fn looks_random(text: &str) -> bool {
    if !(16..=4096).contains(&text.len())
        || !text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'='))
    {
        return false;
    }
    let count = |is: fn(&u8) -> bool| text.bytes().filter(is).count();
    let digits = count(u8::is_ascii_digit);
    let (upper, lower) = (count(u8::is_ascii_uppercase), count(u8::is_ascii_lowercase));
    (digits >= 3 && upper > 0 && lower > 0)
        || (text.len() >= 24 && digits >= 4 && upper + lower > 0)
}
