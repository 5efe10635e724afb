//! Credentials of registries, for the kubelet: Secrets of the operator, copied into the namespaces of probes.
//!
//! A copy must lie where the pods are, and so beside what a hostile probe makes. It is kept from the probe four times: its name
//! is drawn from the run's key and appears in no answer (the redaction learns it, and what the Secret holds); the guards
//! refuse every body that names it (`pull-secrets`), and every read of a Secret that the probe did not make; no Role of a
//! probe opens Secrets. It bears no label of the probe, so that narrowed lists leave it out. It goes with its namespace.

use super::{Sandbox, SandboxError, namespaced};
use crate::cluster::{ApiError, Cluster};
use crate::images::PullSecretName;
use crate::journal::{JournalHead, ObjectRef};
use crate::redact::Redactor;
use crate::seal;
use data_encoding::BASE64;
use serde_json::{Value, json};

/// Begin of the name of every copy.
const PREFIX: &str = "karat-pull-";

/// The types that the kubelet pulls with, and the key that each has its credentials under. Source: Kubernetes, "Secrets",
/// Docker config Secrets.
const TYPES: &[(&str, &str)] = &[
    ("kubernetes.io/dockerconfigjson", ".dockerconfigjson"),
    ("kubernetes.io/dockercfg", ".dockercfg"),
];

/// Why a pull secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PullSecretError {
    /// There is none.
    #[error(
        "pull secret {0} does not exist; make it with `kubectl create secret docker-registry`, or name another in karat.toml: [images] pull-secrets"
    )]
    Absent(PullSecretName),
    /// It cannot be read.
    #[error("pull secret {name} cannot be read: {source}")]
    Unread {
        /// Which.
        name: PullSecretName,
        /// What came back.
        source: ApiError,
    },
    /// It is not one.
    #[error(
        "Secret {name} is no pull secret: {cause}; `kubectl create secret docker-registry` makes one"
    )]
    NotOne {
        /// Which.
        name: PullSecretName,
        /// What is wrong.
        cause: &'static str,
    },
}

/// The pull secrets of a run, as they were at its beginning.
#[derive(Clone, Default)]
pub struct PullSecrets(Vec<PullSecret>);

#[derive(Clone)]
struct PullSecret {
    name: PullSecretName,
    kind: &'static str,
    key: &'static str,
    /// In base64, as the API has it.
    data: String,
}

impl std::fmt::Debug for PullSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.0.iter().map(|secret| secret.name.to_string());
        f.debug_list().entries(names).finish()
    }
}

impl PullSecrets {
    /// Reads them. `cluster` must be the engine's own connection.
    ///
    /// # Errors
    /// The first that is not there, cannot be read, or is of another type.
    pub async fn read(
        cluster: &Cluster,
        names: &[PullSecretName],
    ) -> Result<PullSecrets, PullSecretError> {
        let mut secrets = Vec::new();
        for name in names {
            let object = namespaced("", "secrets", &name.namespace, &name.name);
            let found = cluster.find_json(&object.path()).await;
            let found = found.map_err(|source| PullSecretError::Unread {
                name: name.clone(),
                source,
            })?;
            let Some(found) = found else {
                return Err(PullSecretError::Absent(name.clone()));
            };
            secrets.push(PullSecret::of(name, &found)?);
        }
        Ok(PullSecrets(secrets))
    }

    /// Teaches the redaction what they hold and what their copies are called.
    pub fn teach(&self, redactor: &Redactor, run: &JournalHead) {
        for secret in &self.0 {
            redactor.learn_secret(&secret.copy_in(run));
            redactor.learn_secret(&secret.data);
            let text = BASE64.decode(secret.data.as_bytes()).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            redactor.learn_secret(&text);
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                credentials(&value, &mut |text| redactor.learn_secret(text));
            }
        }
    }

    /// The names of the copies in each namespace of this run.
    #[must_use]
    pub fn copies(&self, run: &JournalHead) -> Vec<String> {
        self.0.iter().map(|secret| secret.copy_in(run)).collect()
    }
}

impl PullSecret {
    fn of(name: &PullSecretName, object: &Value) -> Result<PullSecret, PullSecretError> {
        let refused = |cause| PullSecretError::NotOne {
            name: name.clone(),
            cause,
        };
        let kind = object["type"].as_str().unwrap_or_default();
        let Some((kind, key)) = TYPES.iter().find(|(known, _)| *known == kind) else {
            return Err(refused("its type is none that a kubelet pulls with"));
        };
        let data = object["data"][*key].as_str().unwrap_or_default();
        let bytes = BASE64.decode(data.as_bytes()).unwrap_or_default();
        let holds = serde_json::from_slice::<Value>(&bytes).is_ok_and(|value| value.is_object());
        if !holds {
            return Err(refused("what it holds is not the JSON of a registry login"));
        }
        Ok(PullSecret {
            name: name.clone(),
            kind,
            key,
            data: data.to_owned(),
        })
    }

    /// The name of its copy: none that anybody could guess who has not the run's key, and the same when the run goes on.
    fn copy_in(&self, run: &JournalHead) -> String {
        let subject = ObjectRef {
            group: "karat.internal".to_owned(),
            version: "v1".to_owned(),
            resource: "pullsecrets".to_owned(),
            namespace: self.name.namespace.clone(),
            name: self.name.name.clone(),
        };
        let code = seal::seal(&run.key, &run.run, &subject);
        format!("{PREFIX}{}", &code[code.len() - 32..])
    }
}

impl Sandbox {
    /// What the copies are called in each namespace of a probe.
    pub fn pull_secrets(&self) -> Vec<String> {
        self.options.pull_secrets.copies(self.journal.head())
    }

    /// Copies the pull secrets into a namespace of the run, and gives their names there.
    pub(super) async fn copy_pull_secrets(
        &self,
        namespace: &str,
    ) -> Result<Vec<String>, SandboxError> {
        let head = self.journal.head();
        for secret in &self.options.pull_secrets.0 {
            let copy = namespaced("", "secrets", namespace, &secret.copy_in(head));
            let body = json!({
                "apiVersion": "v1", "kind": "Secret", "type": secret.kind, "immutable": true,
                "metadata": {"name": copy.name}, "data": {secret.key: secret.data},
            });
            self.create_inside(&copy, None, body).await?;
        }
        Ok(self.pull_secrets())
    }
}

/// Every credential of a registry login: its text values but user names and addresses, and the password in `auth`.
fn credentials(value: &Value, each: &mut impl FnMut(&str)) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value.as_str() {
                    Some(_) if matches!(key.as_str(), "username" | "email" | "serveraddress") => {}
                    Some(text) => {
                        each(text);
                        let plain = BASE64.decode(text.as_bytes()).unwrap_or_default();
                        if key == "auth"
                            && let Ok(plain) = String::from_utf8(plain)
                        {
                            each(&plain);
                            if let Some((_, password)) = plain.split_once(':') {
                                each(password);
                            }
                        }
                    }
                    None => credentials(value, each),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| credentials(item, each)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::RunKey;

    const PASSWORD: &str = "a long word and spaces";

    fn name() -> PullSecretName {
        PullSecretName::parse("registries/pull").unwrap()
    }

    fn object(kind: &str, key: &str, login: &Value) -> Value {
        let data = BASE64.encode(login.to_string().as_bytes());
        json!({"type": kind, "data": {key: data}})
    }

    fn login() -> Value {
        let auth = BASE64.encode(format!("robot:{PASSWORD}").as_bytes());
        json!({"auths": {"registry.example": {"username": "robot", "auth": auth, "identitytoken": "token-of-identity"}}})
    }

    fn head(run: &str) -> JournalHead {
        JournalHead {
            run: run.to_owned(),
            key: RunKey::generate().unwrap(),
            cluster: String::new(),
            server: String::new(),
            started: String::new(),
        }
    }

    fn secrets() -> PullSecrets {
        let object = object(
            "kubernetes.io/dockerconfigjson",
            ".dockerconfigjson",
            &login(),
        );
        PullSecrets(vec![PullSecret::of(&name(), &object).unwrap()])
    }

    #[test]
    fn both_types_of_kubernetes_are_read_and_nothing_else() {
        let old = json!({"registry.example": {"auth": "eDp5"}});
        assert!(
            PullSecret::of(
                &name(),
                &object("kubernetes.io/dockercfg", ".dockercfg", &old)
            )
            .is_ok()
        );
        for (wrong, told) in [
            (object("Opaque", ".dockerconfigjson", &login()), "its type"),
            (
                object("kubernetes.io/dockerconfigjson", "config", &login()),
                "not the JSON",
            ),
            (
                object("kubernetes.io/dockercfg", ".dockercfg", &json!("x")),
                "not the JSON",
            ),
        ] {
            let error = PullSecret::of(&name(), &wrong).err().unwrap().to_string();
            assert!(
                error.contains(told) && error.contains("registries/pull"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_name_of_a_copy_hangs_on_the_key_and_stays_in_a_run() {
        let (secrets, one, other) = (secrets(), head("abcdefgh"), head("abcdefgh"));
        let copies = secrets.copies(&one);
        assert_eq!(copies, secrets.copies(&one));
        assert_ne!(copies, secrets.copies(&other));
        assert_eq!(copies[0].len(), PREFIX.len() + 32);
        assert!(!format!("{secrets:?}").contains(&secrets.0[0].data));
    }

    #[test]
    fn the_redaction_hides_what_they_hold_in_any_form_and_the_name_of_the_copy() {
        let (secrets, run) = (secrets(), head("abcdefgh"));
        let redactor = Redactor::new("abcdefgh").unwrap();
        secrets.teach(&redactor, &run);
        let copy = &secrets.copies(&run)[0];
        let login = login().to_string();
        let auth = BASE64.encode(format!("robot:{PASSWORD}").as_bytes());
        for text in [
            format!("Unable to retrieve {copy}."),
            format!("read {}", BASE64.encode(login.as_bytes())),
            format!("read {login} of the registry"),
            format!("curl -H {auth}"),
            format!("pass={PASSWORD}"),
            "got token-of-identity".to_owned(),
            format!(
                "packed {}",
                BASE64.encode(format!("the word: {PASSWORD}").as_bytes())
            ),
        ] {
            let hidden = redactor.redact_text(&text);
            for secret in [copy.as_str(), PASSWORD, &auth, "token-of-identity"] {
                assert!(!hidden.contains(secret), "{hidden}");
                assert!(
                    !hidden.contains(&BASE64.encode(secret.as_bytes())),
                    "{hidden}"
                );
            }
            assert_ne!(hidden, text);
        }
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
            "spec": {"imagePullSecrets": [{"name": copy}], "containers": [{"name": "robot", "image": "registry.example/a"}]}});
        redactor.redact("", "pods", &mut pod);
        let text = pod.to_string();
        assert!(!text.contains(copy.as_str()), "{text}");
        assert!(
            text.contains("registry.example/a") && text.contains("robot"),
            "{text}"
        );
        assert!(redactor.restore(&mut pod).is_err());
    }
}
