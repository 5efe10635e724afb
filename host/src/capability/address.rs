//! Names of the Kubernetes API from the mouth of a guest: checked, then turned into paths in which they can mean nothing
//! but a name.

use crate::cluster::encode;
use crate::recording::format::{Failure, ResourceAccess};

/// Longest name or namespace; Kubernetes' own limit for names.
const NAME_MAX: usize = 253;
/// Longest selector.
const SELECTOR_MAX: usize = 4096;

/// A resource of the API: group, version, plural name, subresource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
}

impl Resource {
    /// Reads `("apps/v1", "deployments/scale")`.
    pub(crate) fn parse(api_version: &str, resource: &str) -> Result<Resource, Failure> {
        let (group, version) = match api_version.split_once('/') {
            Some((group, version)) if !group.is_empty() => (group, version),
            Some(_) => {
                return Err(malformed(
                    "API version",
                    api_version,
                    "has no group before `/`",
                ));
            }
            None => ("", api_version),
        };
        let (resource, subresource) = match resource.split_once('/') {
            Some((resource, sub)) if !sub.is_empty() => (resource, sub),
            Some(_) => return Err(malformed("resource", resource, "ends in `/`")),
            None => (resource, ""),
        };
        let parsed = Resource {
            group: group.to_owned(),
            version: version.to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
        };
        check(&parsed.access("get", "", ""))?;
        Ok(parsed)
    }

    /// The access for a request to this resource.
    pub(crate) fn access(&self, verb: &str, namespace: &str, name: &str) -> ResourceAccess {
        ResourceAccess {
            verb: verb.to_owned(),
            group: self.group.clone(),
            version: self.version.clone(),
            resource: self.resource.clone(),
            subresource: self.subresource.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            path: String::new(),
        }
    }

    /// `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

/// Checks every part of an access that becomes part of a path.
pub(crate) fn check(at: &ResourceAccess) -> Result<(), Failure> {
    let label = |what: &str, text: &str| {
        let fine = !text.is_empty()
            && text.len() <= 63
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        if fine {
            Ok(())
        } else {
            Err(malformed(what, text, "is not a lowercase DNS label"))
        }
    };
    if at.group.len() > NAME_MAX {
        return Err(malformed(
            "API group",
            &at.group,
            "is longer than 253 bytes",
        ));
    }
    if !at.group.is_empty() {
        for part in at.group.split('.') {
            label("API group", part)
                .map_err(|_| malformed("API group", &at.group, "is not a DNS name"))?;
        }
    }
    label("API version", &at.version)?;
    label("resource", &at.resource)?;
    if !at.subresource.is_empty() {
        label("subresource", &at.subresource)?;
    }
    if !at.namespace.is_empty() {
        label("namespace", &at.namespace)?;
    }
    if !at.name.is_empty() {
        check_name(&at.name)?;
    }
    Ok(())
}

/// Checks the name of an object: any path segment that Kubernetes allows, and no other.
pub(crate) fn check_name(name: &str) -> Result<(), Failure> {
    let why = if name.is_empty() {
        "is empty"
    } else if name.len() > NAME_MAX {
        "is longer than 253 bytes"
    } else if name == "." || name == ".." {
        "is a path"
    } else if name.contains(['/', '%', '\\', '?', '#']) {
        "contains a character of paths"
    } else if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        "contains blanks or control characters"
    } else {
        return Ok(());
    };
    Err(malformed("name", name, why))
}

/// Checks a selector as far as it concerns us; its grammar is the server's business.
pub(crate) fn check_selector(what: &str, selector: &str) -> Result<(), Failure> {
    if selector.len() > SELECTOR_MAX {
        return Err(malformed(what, selector, "is longer than 4096 bytes"));
    }
    if selector.chars().any(char::is_control) {
        return Err(malformed(what, selector, "contains control characters"));
    }
    Ok(())
}

/// The path of a request. The access was checked by [`check`].
pub(crate) fn path(at: &ResourceAccess) -> String {
    let mut path = if at.group.is_empty() {
        String::from("/api")
    } else {
        format!("/apis/{}", encode(&at.group))
    };
    let mut push = |segment: &str| {
        path.push('/');
        path.push_str(&encode(segment));
    };
    push(&at.version);
    if !at.namespace.is_empty() {
        push("namespaces");
        push(&at.namespace);
    }
    push(&at.resource);
    if !at.name.is_empty() {
        push(&at.name);
        if !at.subresource.is_empty() {
            push(&at.subresource);
        }
    }
    path
}

/// A query string from pairs; empty values are left out.
pub(crate) fn query(pairs: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (key, value) in pairs {
        if !value.is_empty() {
            text.push(if text.is_empty() { '?' } else { '&' });
            text.push_str(key);
            text.push('=');
            text.push_str(&encode(value));
        }
    }
    text
}

/// Checks a path outside the resource API and gives it back.
pub(crate) fn raw_path(path: &str) -> Result<&str, Failure> {
    let why = if !path.starts_with('/') {
        "does not start with `/`"
    } else if path.len() > NAME_MAX {
        "is longer than 253 bytes"
    } else if path.contains("//") || path.split('/').any(|part| part == "." || part == "..") {
        "is not in its shortest form"
    } else if !path
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"/-._~:".contains(&b))
    {
        "contains a query or an encoded character"
    } else if path
        .split('/')
        .nth(1)
        .is_some_and(|root| root == "api" || root == "apis")
    {
        "belongs to the resource API: use `query` or `discover`"
    } else {
        return Ok(path);
    };
    Err(malformed("path", path, why))
}

/// The failure for a word that makes no sense.
pub(crate) fn malformed(what: &str, text: &str, why: &str) -> Failure {
    let shown: String = text.chars().take(80).collect();
    let cut = if shown.len() < text.len() { "…" } else { "" };
    Failure::Malformed(format!("{what} {shown:?}{cut} {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(result: Result<impl std::fmt::Debug, Failure>) -> bool {
        matches!(result, Err(Failure::Malformed(_)))
    }

    #[test]
    fn resources_are_read_with_their_subresource() {
        let scale = Resource::parse("apps/v1", "deployments/scale").unwrap();
        assert_eq!(
            path(&scale.access("get", "ns", "echo")),
            "/apis/apps/v1/namespaces/ns/deployments/echo/scale"
        );
        let pods = Resource::parse("v1", "pods").unwrap();
        assert_eq!(path(&pods.access("list", "", "")), "/api/v1/pods");
        assert_eq!(pods.api_version(), "v1");
    }

    #[test]
    fn no_word_becomes_another_path() {
        for (api_version, resource) in [
            ("", "pods"),
            ("/v1", "pods"),
            ("v1", ""),
            ("v1", "pods/"),
            ("v1", "/pods"),
            ("v1", "pods/a/b"),
            ("v1", "pods/../secrets"),
            ("v1", "namespaces/kube-system/secrets"),
            ("v1", "pods%2f.."),
            ("v1", "pods?x"),
            ("v1/../v1", "pods"),
            ("apps/v1/x", "pods"),
            ("a..b/v1", "pods"),
            ("v1", "Pods"),
            ("v1 ", "pods"),
        ] {
            assert!(
                refused(Resource::parse(api_version, resource)),
                "{api_version} {resource}"
            );
        }
        let pods = Resource::parse("v1", "pods").unwrap();
        for name in [
            "..",
            ".",
            "a/b",
            "../../secrets/x",
            "%2e%2e",
            "a?b",
            "a#b",
            "a\\b",
            "a\nb",
            "a b",
        ] {
            assert!(refused(check(&pods.access("get", "ns", name))), "{name:?}");
        }
        assert!(refused(check_name("")));
        assert!(refused(check_name(&"a".repeat(300))));
        for namespace in ["a/b", "..", "A", "a.b", "%2f", &"a".repeat(64)] {
            assert!(
                refused(check(&pods.access("list", namespace, ""))),
                "{namespace}"
            );
        }
        // RBAC's own names have colons and are fine.
        assert!(check_name("system:node-proxier").is_ok());
    }

    #[test]
    fn raw_paths_are_plain() {
        assert_eq!(raw_path("/readyz").unwrap(), "/readyz");
        assert_eq!(raw_path("/openid/v1/jwks").unwrap(), "/openid/v1/jwks");
        for path in [
            "",
            "readyz",
            "//x",
            "/a//b",
            "/a/../b",
            "/..",
            "/a/.",
            "/metrics?x=1",
            "/a%2fb",
            "/api/v1/pods",
            "/apis",
            "/a b",
            "/ä",
        ] {
            assert!(refused(raw_path(path)), "{path}");
        }
    }

    #[test]
    fn selectors_are_encoded() {
        assert_eq!(
            query(&[("labelSelector", "a in (b,c)"), ("limit", ""), ("x", "1&2")]),
            "?labelSelector=a%20in%20%28b%2Cc%29&x=1%262"
        );
        assert!(refused(check_selector("label selector", "a=\u{0}b")));
        assert!(refused(check_selector("label selector", &"a".repeat(5000))));
    }
}
