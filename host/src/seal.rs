//! The identity of what a run wrote: labels and annotations below our prefix, written by the door alone, and a seal.
//!
//! Labels are copied: by controllers, by backup tools, by `get -o yaml | apply`. So nothing is ever deleted because of a
//! label. The seal is an HMAC with the run's key over run, resource, namespace and name; a copy under another name or in
//! another namespace does not verify. The key lies in the local journal ([`crate::journal`]) and in a Secret of the run's
//! home namespace ([`crate::sandbox`]). [`crate::clean`] is the reader.

use crate::journal::ObjectRef;
use crate::names::{
    ANNOTATION_EXPIRES, ANNOTATION_SEAL, LABEL_MANAGED_BY, LABEL_PROBE, LABEL_RUN, MANAGED_BY,
    PREFIX,
};
use hmac::{Hmac, Mac};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::fmt;

/// Version in front of every seal; another one is not ours to judge.
const VERSION: &str = "v1";

/// The secret key of one run. Whoever has it can make seals, so it is never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct RunKey([u8; 32]);

impl fmt::Debug for RunKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunKey(…)")
    }
}

/// A key that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the run key is not 64 hexadecimal digits")]
pub struct KeyError;

/// The system has no randomness.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes: {0}")]
pub struct NoRandomness(String);

impl NoRandomness {
    pub(crate) fn from_system(error: getrandom::Error) -> NoRandomness {
        NoRandomness(error.to_string())
    }
}

impl RunKey {
    /// A new key.
    ///
    /// # Errors
    /// The operating system gives no random bytes.
    pub fn generate() -> Result<RunKey, NoRandomness> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(NoRandomness::from_system)?;
        Ok(RunKey(bytes))
    }

    /// Reads 64 hexadecimal digits, as journals and the home Secret hold them.
    ///
    /// # Errors
    /// Anything else.
    pub fn from_hex(text: &str) -> Result<RunKey, KeyError> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE
            .decode(text.trim().as_bytes())
            .map_err(|_| KeyError)?;
        Ok(RunKey(bytes.try_into().map_err(|_| KeyError)?))
    }

    /// The form for the journal and the home Secret.
    pub fn to_hex(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.0)
    }

    /// A digest that may be shown: tells keys apart without giving one away.
    pub fn fingerprint(&self) -> String {
        let digest = Sha256::new()
            .chain_update(b"karat run key fingerprint")
            .chain_update(self.0)
            .finalize();
        data_encoding::HEXLOWER.encode(&digest[..8])
    }

    fn mac(&self, run: &str, object: &ObjectRef) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.0)
            .unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
        // Each field carries its length, so that no two different subjects give the same bytes.
        for field in [
            VERSION,
            run,
            &object.group,
            &object.resource,
            &object.namespace,
            &object.name,
        ] {
            mac.update(&(field.len() as u64).to_be_bytes());
            mac.update(field.as_bytes());
        }
        mac
    }
}

/// The seal of an object: `v1:<64 hexadecimal digits>`. The API version is not part of it, since an object is the same in all.
pub fn seal(key: &RunKey, run: &str, object: &ObjectRef) -> String {
    let code = key.mac(run, object).finalize().into_bytes();
    format!("{VERSION}:{}", data_encoding::HEXLOWER.encode(&code))
}

/// Whether a seal was made with this key for exactly this object. The comparison takes the same time for every wrong seal.
pub fn verify(key: &RunKey, run: &str, object: &ObjectRef, text: &str) -> bool {
    let Some(code) = text
        .strip_prefix(VERSION)
        .and_then(|rest| rest.strip_prefix(':'))
        .and_then(|hex| data_encoding::HEXLOWER.decode(hex.as_bytes()).ok())
    else {
        return false;
    };
    key.mac(run, object).verify_slice(&code).is_ok()
}

/// The seal that an object carries, if any.
pub fn carried(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"][ANNOTATION_SEAL].as_str()
}

/// Whether a label or annotation key lies below our prefix.
pub fn is_ours(key: &str) -> bool {
    let Some((prefix, _)) = key.split_once('/') else {
        return false;
    };
    prefix
        .strip_suffix(PREFIX)
        .is_some_and(|front| front.is_empty() || front.ends_with('.'))
}

/// What the door writes on an object before it is created.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    /// The run's key.
    pub key: &'a RunKey,
    /// Run id.
    pub run: &'a str,
    /// Probe id; none for objects of the engine itself.
    pub probe: Option<&'a str>,
    /// Time (RFC 3339) after which a later run may sweep the object.
    pub expires: &'a str,
}

/// The value of [`LABEL_PROBE`] for a probe id: label values have no `/`.
pub fn probe_label(probe: &str) -> String {
    probe.replace('/', ".")
}

impl Stamp<'_> {
    /// Writes labels, seal and expiry into `object`, and the run's labels into every pod template given by `templates`
    /// (as JSON pointers), so that what a controller makes of it can be found. Whatever the guest wrote below our prefix
    /// is dropped first.
    pub fn apply(&self, subject: &ObjectRef, object: &mut Value, templates: &[String]) {
        strip(object);
        let metadata = table(object, "metadata");
        self.labels(table_in(metadata, "labels"));
        let annotations = table_in(metadata, "annotations");
        annotations.insert(
            ANNOTATION_SEAL.to_owned(),
            seal(self.key, self.run, subject).into(),
        );
        annotations.insert(ANNOTATION_EXPIRES.to_owned(), self.expires.into());
        for pointer in templates {
            if let Some(template) = object.pointer_mut(pointer)
                && template.is_object()
            {
                strip(template);
                self.labels(table_in(table(template, "metadata"), "labels"));
            }
        }
    }

    fn labels(&self, labels: &mut Map<String, Value>) {
        labels.insert(LABEL_MANAGED_BY.to_owned(), MANAGED_BY.into());
        labels.insert(LABEL_RUN.to_owned(), self.run.into());
        if let Some(probe) = self.probe {
            labels.insert(LABEL_PROBE.to_owned(), probe_label(probe).into());
        }
    }
}

/// Drops labels and annotations below our prefix: a guest must not be able to write them.
pub fn strip(object: &mut Value) {
    for part in ["labels", "annotations"] {
        if let Some(table) = object
            .get_mut("metadata")
            .and_then(|metadata| metadata.get_mut(part))
            .and_then(Value::as_object_mut)
        {
            table.retain(|key, _| !is_ours(key));
        }
    }
}

/// The table at `key` of an object, made where it is missing or no table.
fn table<'a>(value: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => table_in(map, key),
        _ => unreachable!("made an object above"),
    }
}

fn table_in<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let slot = map.entry(key).or_insert(Value::Null);
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    match slot {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(namespace: &str, name: &str) -> ObjectRef {
        ObjectRef {
            group: "apps".into(),
            version: "v1".into(),
            resource: "deployments".into(),
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    #[test]
    fn a_seal_is_good_for_one_object_of_one_run_only() {
        let key = RunKey::generate().unwrap();
        let subject = object("ns", "echo-abcdefgh");
        let text = seal(&key, "abcdefgh", &subject);
        assert!(verify(&key, "abcdefgh", &subject, &text));
        assert!(verify(
            &key,
            "abcdefgh",
            &ObjectRef {
                version: "v2".into(),
                ..subject.clone()
            },
            &text
        ));
        for other in [
            object("other", "echo-abcdefgh"),
            object("ns", "clone-abcdefgh"),
            object("", "echo-abcdefgh"),
            ObjectRef {
                resource: "statefulsets".into(),
                ..subject.clone()
            },
            ObjectRef {
                group: String::new(),
                ..subject.clone()
            },
        ] {
            assert!(!verify(&key, "abcdefgh", &other, &text), "{other:?}");
        }
        assert!(!verify(&key, "bbbbbbbb", &subject, &text));
        assert!(!verify(
            &RunKey::generate().unwrap(),
            "abcdefgh",
            &subject,
            &text
        ));
    }

    #[test]
    fn broken_seals_do_not_verify() {
        let key = RunKey::generate().unwrap();
        let subject = object("ns", "a");
        let good = seal(&key, "r", &subject);
        for text in ["", "v1:", "v1:00", &good[3..], &good[..good.len() - 2]] {
            assert!(!verify(&key, "r", &subject, text), "{text}");
        }
        assert!(!verify(&key, "r", &subject, &good.replace("v1:", "v2:")));
        assert!(!verify(&key, "r", &subject, &good.to_uppercase()));
    }

    #[test]
    fn moving_a_letter_between_fields_changes_the_seal() {
        let key = RunKey::generate().unwrap();
        let text = seal(&key, "r", &object("ab", "c"));
        assert_ne!(text, seal(&key, "r", &object("a", "bc")));
    }

    #[test]
    fn keys_survive_their_text_and_stay_out_of_debug() {
        let key = RunKey::generate().unwrap();
        assert_eq!(RunKey::from_hex(&key.to_hex()).unwrap(), key);
        assert_eq!(RunKey::from_hex("12"), Err(KeyError));
        assert!(!format!("{key:?}").contains(&key.to_hex()[..8]));
        assert!(!key.to_hex().contains(&key.fingerprint()));
    }

    #[test]
    fn the_stamp_overwrites_what_the_guest_wrote_below_our_prefix() {
        let key = RunKey::generate().unwrap();
        let subject = object("ns", "echo-abcdefgh");
        let mut body = json!({
            "metadata": {
                "name": "echo-abcdefgh",
                "labels": {"app": "echo", "karat.internal/run": "victim00", "x.karat.internal/y": "z"},
                "annotations": {"karat.internal/seal": "v1:00", "note": "kept"},
            },
            "spec": {"template": {"metadata": {"labels": {"app": "echo", "karat.internal/probe": "lie"}}}},
        });
        Stamp {
            key: &key,
            run: "abcdefgh",
            probe: Some("vendor.example/check"),
            expires: "2030-01-01T00:00:00Z",
        }
        .apply(&subject, &mut body, &["/spec/template".to_owned()]);
        assert!(verify(&key, "abcdefgh", &subject, carried(&body).unwrap()));
        assert_eq!(
            body["metadata"]["labels"],
            json!({"app": "echo", "app.kubernetes.io/managed-by": "karat", "karat.internal/run": "abcdefgh",
                   "karat.internal/probe": "vendor.example.check"})
        );
        assert_eq!(body["metadata"]["annotations"]["note"], "kept");
        assert_eq!(
            body["spec"]["template"]["metadata"]["labels"]["karat.internal/probe"],
            "vendor.example.check"
        );
        assert!(body["spec"]["template"]["metadata"]["annotations"].is_null());
    }

    #[test]
    fn only_our_own_prefix_is_ours() {
        assert!(is_ours("karat.internal/run"));
        assert!(is_ours("a.b.karat.internal/x"));
        for key in [
            "notkarat.internal/run",
            "karat.internal",
            "karat.internal.example/run",
            "app",
        ] {
            assert!(!is_ours(key), "{key}");
        }
    }
}
