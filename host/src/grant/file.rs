//! Reads a grants file: strict TOML, every mistake with its place.
//!
//! ```toml
//! [[grant]]                          # like a permission line of a manifest, for one probe or for all (`*`)
//! probe = "dra-support"
//! api-groups = ["resource.k8s.io"]
//! resources = ["deviceclasses"]
//! verbs = ["get", "list", "watch"]
//! scope = "cluster"                  # or "sandbox" (default), or { namespace = "…" }
//!
//! [[grant]]
//! probe = "dra-support"
//! accept-asked = true                # all that its manifest asks
//!
//! [[exception]]                      # opens a row of the guard table, for one named probe
//! probe = "gang-scheduling"
//! kinds = ["clusterqueues.kueue.x-k8s.io"]
//! ```

use super::{ANY, Exceptions, Grant, Grants};
use crate::manifest::source::{FileError, Source, shown};
use crate::manifest::values::{self, is_dns_label, is_dns_subdomain, is_plain_path, is_resource};
use crate::manifest::{ProxyLine, Scope, VERBS};
use crate::names::DNS_LABEL_MAX;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::ops::Range;
use toml::Spanned as S;

/// Largest grants file in bytes.
pub const MAX_GRANTS_SIZE: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawFile {
    #[serde(default)]
    grant: Vec<S<RawGrant>>,
    #[serde(default)]
    exception: Vec<S<RawException>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawGrant {
    probe: S<String>,
    #[serde(default)]
    accept_asked: bool,
    #[serde(default)]
    api_groups: Vec<S<String>>,
    #[serde(default)]
    resources: Vec<S<String>>,
    #[serde(default)]
    verbs: Vec<S<String>>,
    scope: Option<S<Scope>>,
    #[serde(default)]
    names: Vec<S<String>>,
    #[serde(default)]
    non_resource: Vec<S<String>>,
    #[serde(default)]
    ports: Vec<S<String>>,
    #[serde(default)]
    paths: Vec<S<String>>,
    #[serde(default)]
    matchers: Vec<S<String>>,
    /// For people; not used.
    #[serde(rename = "why")]
    _why: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawException {
    probe: S<String>,
    #[serde(default)]
    foreign_objects: Vec<S<String>>,
    #[serde(default)]
    kinds: Vec<S<String>>,
    #[serde(default)]
    gateways: Vec<S<String>>,
    #[serde(default)]
    ingress_classes: Vec<S<String>>,
    #[serde(default)]
    annotations: Vec<S<String>>,
    #[serde(default)]
    load_balancers: bool,
    #[serde(default)]
    node_ports: bool,
    #[serde(default)]
    privileged: bool,
    /// For people; not used.
    #[serde(rename = "why")]
    _why: Option<String>,
}

impl Grants {
    /// Reads a grants file. `origin` is what messages call it.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(text: &str, origin: &str) -> Result<Grants, FileError> {
        let source = Source::limited(text, origin, MAX_GRANTS_SIZE)?;
        let raw: RawFile = source.toml().map_err(FileError::Invalid)?;
        let reader = Reader { source };
        let mut grants = Grants::default();
        for line in &raw.grant {
            if line.get_ref().accept_asked {
                grants.accepted.insert(reader.accepted(line)?);
            } else {
                grants.lines.push(reader.grant(line)?);
            }
        }
        for line in &raw.exception {
            grants.exceptions.push(reader.exception(line)?);
        }
        Ok(grants)
    }
}

struct Reader<'a> {
    source: Source<'a>,
}

impl Reader<'_> {
    fn refuse<T>(&self, span: Range<usize>, message: impl Into<String>) -> Result<T, FileError> {
        Err(FileError::Invalid(self.source.problem(span, message)))
    }

    fn each(
        &self,
        list: &[S<String>],
        what: &str,
        form: &str,
        holds: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>, FileError> {
        let mut seen = BTreeSet::new();
        for word in list {
            let text = word.get_ref().as_str();
            if !holds(text) {
                let message = format!("{what} `{}` is malformed; {form}", shown(text));
                return self.refuse(word.span(), message);
            }
            if !seen.insert(text) {
                let message = format!("{what} `{}` stands here twice", shown(text));
                return self.refuse(word.span(), message);
            }
        }
        Ok(list.iter().map(|word| word.get_ref().clone()).collect())
    }

    fn probe(&self, probe: &S<String>, any: bool) -> Result<String, FileError> {
        let text = probe.get_ref();
        let name = text.rsplit('/').next().unwrap_or_default();
        let vendor = text.strip_suffix(name).unwrap_or_default();
        let fits = is_dns_label(name, 40)
            && (vendor.is_empty() || vendor.strip_suffix('/').is_some_and(is_dns_subdomain));
        if fits || (any && text == ANY) {
            return Ok(text.clone());
        }
        let any = if any { ", or `*` for all probes" } else { "" };
        let message = format!(
            "`{}` is no probe id; write one such as `dra-support`{any}",
            shown(text)
        );
        self.refuse(probe.span(), message)
    }

    fn accepted(&self, line: &S<RawGrant>) -> Result<String, FileError> {
        let raw = line.get_ref();
        let lists = [
            &raw.api_groups,
            &raw.resources,
            &raw.verbs,
            &raw.names,
            &raw.non_resource,
            &raw.ports,
            &raw.paths,
            &raw.matchers,
        ];
        if raw.scope.is_some() || lists.iter().any(|list| !list.is_empty()) {
            return self.refuse(
                line.span(),
                "`accept-asked` grants all that the manifest asks; write nothing else beside it but the probe",
            );
        }
        // `*` here would accept whatever any stranger's manifest asks.
        self.probe(&raw.probe, false)
    }

    fn grant(&self, line: &S<RawGrant>) -> Result<Grant, FileError> {
        let raw = line.get_ref();
        let grant = Grant {
            probe: self.probe(&raw.probe, true)?,
            api_groups: self.each(
                &raw.api_groups,
                "API group",
                "write a group such as `resource.k8s.io`, `\"\"` for the core group, or `*`",
                |text| text.is_empty() || text == ANY || is_dns_subdomain(text),
            )?,
            resources: self.each(
                &raw.resources,
                "resource",
                "write a plural such as `pods` or `pods/log`, or `*`",
                |text| text == ANY || is_resource(text),
            )?,
            verbs: self.each(
                &raw.verbs,
                "verb",
                &format!("write one of {}, or `*`", VERBS.join(", ")),
                |text| text == ANY || VERBS.contains(&text),
            )?,
            names: self.each(
                &raw.names,
                "name",
                "write the name of one object; there is no wildcard",
                is_object_name,
            )?,
            non_resource: self.each(
                &raw.non_resource,
                "path",
                "write plain segments only, as in `/readyz`",
                is_plain_path,
            )?,
            proxy: ProxyLine {
                ports: self.each(&raw.ports, "port", values::PORT_FORM, values::is_port)?,
                paths: self.each(
                    &raw.paths,
                    "path",
                    values::PREFIX_FORM,
                    values::is_path_prefix,
                )?,
                matchers: self.each(
                    &raw.matchers,
                    "matcher",
                    values::MATCHER_FORM,
                    values::is_matcher,
                )?,
            },
            scope: match &raw.scope {
                None => Scope::Sandbox,
                Some(scope) => match scope.get_ref() {
                    Scope::Namespace(name) if !is_dns_label(name, DNS_LABEL_MAX) => {
                        let message =
                            format!("`{}` cannot be the name of a namespace", shown(name));
                        return self.refuse(scope.span(), message);
                    }
                    scope => scope.clone(),
                },
            },
            line: self.source.line(line.span().start),
        };
        let narrow = [&raw.ports, &raw.paths, &raw.matchers]
            .into_iter()
            .find_map(|list| list.first());
        let only_proxies = grant
            .resources
            .iter()
            .all(|resource| matches!(resource.as_str(), "services/proxy" | "pods/proxy"));
        if let (Some(first), false) = (narrow, only_proxies && !grant.resources.is_empty()) {
            return self.refuse(
                first.span(),
                "`ports`, `paths` and `matchers` belong to lines of `services/proxy` and `pods/proxy` alone; make two lines",
            );
        }
        let parts = [&grant.api_groups, &grant.resources, &grant.verbs];
        if grant.non_resource.is_empty() {
            if parts.iter().any(|list| list.is_empty()) {
                return self.refuse(
                    line.span(),
                    "a grant needs `api-groups`, `resources` and `verbs`, or `non-resource`, or `accept-asked = true`",
                );
            }
        } else if raw.scope.is_some()
            || !grant.names.is_empty()
            || parts.iter().any(|list| !list.is_empty())
        {
            return self.refuse(
                line.span(),
                "a line with `non-resource` has no groups, resources, verbs, names or scope; make two lines",
            );
        }
        Ok(grant)
    }

    fn exception(&self, line: &S<RawException>) -> Result<(String, Exceptions), FileError> {
        let raw = line.get_ref();
        let set = |list: Vec<String>| list.into_iter().collect::<BTreeSet<_>>();
        let exceptions = Exceptions {
            foreign_objects: set(self.each(
                &raw.foreign_objects,
                "subresource",
                "write it as `pods/exec` or `deployments.apps/scale`",
                |text| {
                    text.split_once('/').is_some_and(|(kind, sub)| {
                        is_dns_subdomain(kind) && is_dns_label(sub, DNS_LABEL_MAX)
                    })
                },
            )?),
            kinds: set(self.each(
                &raw.kinds,
                "kind",
                "write plural and group, as in `clusterqueues.kueue.x-k8s.io`",
                is_dns_subdomain,
            )?),
            gateways: set(self.each(
                &raw.gateways,
                "gateway",
                "write `namespace/name`",
                |text| {
                    text.split_once('/').is_some_and(|(namespace, name)| {
                        is_dns_label(namespace, DNS_LABEL_MAX) && is_dns_subdomain(name)
                    })
                },
            )?),
            ingress_classes: set(self.each(
                &raw.ingress_classes,
                "ingress class",
                "write its name",
                is_dns_subdomain,
            )?),
            annotations: set(self.each(
                &raw.annotations,
                "annotation",
                "write its whole key, as in `example.com/name`",
                |text| {
                    !text.is_empty()
                        && text.len() <= 317
                        && text.bytes().all(|b| b.is_ascii_graphic())
                },
            )?),
            load_balancers: raw.load_balancers,
            node_ports: raw.node_ports,
            privileged: raw.privileged,
        };
        if exceptions == Exceptions::default() {
            return self.refuse(
                line.span(),
                "the exception opens nothing; name what it is for, or remove it",
            );
        }
        // An exception for every probe would also hold for those of strangers.
        Ok((self.probe(&raw.probe, false)?, exceptions))
    }
}

/// Names of objects as they may stand in a path: Roles may hold colons, nothing may hold a separator.
fn is_object_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && !matches!(text, "." | "..")
        && text
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b'%' | b'*'))
}
