//! Rules for what a probe asks for: permission lines, and the snapshots that need them.
//!
//! A line that could never be used (no capability for its verb, a scope without namespaces, a write that the reach
//! forbids) is refused here, so that an operator is never asked for more than a probe can do.

use super::parse::{Checked, Checker, plain};
use super::source::shown;
use super::values::{self, VERBS, is_dns_label, is_dns_subdomain, one_of};
use super::{EffectPattern, PermissionLine, ProxyLine, Scope, SnapshotLine, raw};
use crate::model::Reach;
use crate::names::DNS_LABEL_MAX;
use toml::Spanned;

impl Checker<'_> {
    pub(super) fn permission(
        &self,
        line: &Spanned<raw::Permission>,
        reach: Reach,
        capabilities: &[String],
        has_sandbox: bool,
    ) -> Checked<PermissionLine> {
        let raw = line.get_ref();
        let why = self.prose(&raw.why, "`why`")?;
        for verb in &raw.verbs {
            self.known(verb, "verb", VERBS)?;
        }
        for (what, list) in [
            ("API group", &raw.api_groups),
            ("resource", &raw.resources),
            ("verb", &raw.verbs),
            ("name", &raw.names),
            ("path", &raw.non_resource),
            ("port", &raw.ports),
            ("path", &raw.paths),
            ("matcher", &raw.matchers),
        ] {
            self.unique(what, list)?;
        }
        self.proxy_line(raw)?;
        let scope = if raw.non_resource.is_empty() {
            self.resource_line(line, reach, capabilities, has_sandbox)?
        } else {
            self.path_line(line, capabilities)?
        };
        Ok(PermissionLine {
            api_groups: plain(&raw.api_groups),
            resources: plain(&raw.resources),
            verbs: plain(&raw.verbs),
            scope,
            names: plain(&raw.names),
            non_resource: plain(&raw.non_resource),
            proxy: ProxyLine {
                ports: plain(&raw.ports),
                paths: plain(&raw.paths),
                matchers: plain(&raw.matchers),
            },
            optional: raw.optional,
            why,
            line: self.source.line(line.span().start),
        })
    }

    /// What narrows lines of `services/proxy` and `pods/proxy`, and nothing else.
    fn proxy_line(&self, raw: &raw::Permission) -> Checked<()> {
        let is_proxy = |resource: &Spanned<String>| {
            matches!(resource.get_ref().as_str(), "services/proxy" | "pods/proxy")
        };
        let only_proxies = !raw.resources.is_empty() && raw.resources.iter().all(is_proxy);
        let first = [&raw.ports, &raw.paths, &raw.matchers]
            .into_iter()
            .find_map(|list| list.first());
        if let (Some(first), false) = (first, only_proxies) {
            return self.refuse(
                first.span(),
                "`ports`, `paths` and `matchers` belong to lines of `services/proxy` and `pods/proxy` alone; make two lines",
            );
        }
        for port in &raw.ports {
            self.require(
                values::is_port(port.get_ref()),
                port,
                "port",
                values::PORT_FORM,
            )?;
        }
        for path in &raw.paths {
            self.require(
                values::is_path_prefix(path.get_ref()),
                path,
                "path",
                values::PREFIX_FORM,
            )?;
        }
        for matcher in &raw.matchers {
            self.require(
                values::is_matcher(matcher.get_ref()),
                matcher,
                "matcher",
                values::MATCHER_FORM,
            )?;
        }
        if only_proxies {
            for name in &raw.names {
                self.require(
                    values::is_proxy_name(name.get_ref()),
                    name,
                    "name",
                    values::PROXY_NAME_FORM,
                )?;
            }
        }
        Ok(())
    }

    fn path_line(
        &self,
        line: &Spanned<raw::Permission>,
        capabilities: &[String],
    ) -> Checked<Scope> {
        let raw = line.get_ref();
        for path in &raw.non_resource {
            self.require(
                values::is_plain_path(path.get_ref()),
                path,
                "path",
                "write plain segments only, as in `/readyz`",
            )?;
        }
        let stray = raw
            .api_groups
            .first()
            .or(raw.resources.first())
            .or(raw.names.first())
            .map(Spanned::span);
        if let Some(span) = stray.or(raw.scope.as_ref().map(Spanned::span)) {
            return self.refuse(span, "a line with `non-resource` has no groups, resources, names or scope; make two lines");
        }
        if let Some(verb) = raw.verbs.iter().find(|verb| verb.get_ref() != "get") {
            return self.refuse(
                verb.span(),
                "a line with `non-resource` can only be read; write `get` or no verbs",
            );
        }
        if !capabilities
            .iter()
            .any(|capability| capability == "kube-read")
        {
            return self.refuse(
                raw.non_resource[0].span(),
                "paths are read through `kube-read`; add it to `capabilities`",
            );
        }
        Ok(Scope::Cluster)
    }

    fn resource_line(
        &self,
        line: &Spanned<raw::Permission>,
        reach: Reach,
        capabilities: &[String],
        has_sandbox: bool,
    ) -> Checked<Scope> {
        let raw = line.get_ref();
        for (what, list) in [
            ("api-groups", &raw.api_groups),
            ("resources", &raw.resources),
            ("verbs", &raw.verbs),
        ] {
            if list.is_empty() {
                return self.refuse(
                    line.span(),
                    format!(
                        "the permission has no `{what}`; name at least one, or give `non-resource`"
                    ),
                );
            }
        }
        for group in &raw.api_groups {
            self.require(
                group.get_ref().is_empty() || is_dns_subdomain(group.get_ref()),
                group,
                "API group",
                "write a group such as `resource.k8s.io`, or `\"\"` for the core group; there is no wildcard",
            )?;
        }
        for resource in &raw.resources {
            self.require(
                values::is_resource(resource.get_ref()),
                resource,
                "resource",
                "write a plural such as `pods` or `pods/log`; there is no wildcard",
            )?;
        }
        for name in &raw.names {
            let text = name.get_ref();
            let fits = !text.is_empty()
                && text.len() <= 253
                && !matches!(text.as_str(), "." | "..")
                && text
                    .bytes()
                    .all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b'%' | b'*'));
            self.require(
                fits,
                name,
                "name",
                "write the name of one object; there is no wildcard",
            )?;
        }
        let (scope, scope_span) = match &raw.scope {
            None => (Scope::Sandbox, line.span()),
            Some(scope) => match scope.get_ref() {
                raw::Scope::Sandbox => (Scope::Sandbox, scope.span()),
                raw::Scope::Cluster => (Scope::Cluster, scope.span()),
                raw::Scope::Namespace(name) if is_dns_label(name, DNS_LABEL_MAX) => {
                    (Scope::Namespace(name.clone()), scope.span())
                }
                raw::Scope::Namespace(name) => {
                    return self.refuse(
                        scope.span(),
                        format!(
                            "`{}` cannot be the name of a namespace; write a DNS label",
                            shown(name)
                        ),
                    );
                }
            },
        };
        if scope == Scope::Sandbox && !has_sandbox {
            return self.refuse(
                scope_span,
                "scope `sandbox` means the namespaces of the manifest, and there is none; add `[[namespaces]]` or another scope",
            );
        }
        for verb in &raw.verbs {
            for resource in &raw.resources {
                let able = able(verb.get_ref(), resource.get_ref());
                if !able
                    .iter()
                    .any(|capability| capabilities.iter().any(|have| have == capability))
                {
                    let message = format!(
                        "`{} {}` needs capability {}; add it to `capabilities` or leave this out",
                        verb.get_ref(),
                        resource.get_ref(),
                        one_of(able)
                    );
                    return self.refuse(verb.span(), message);
                }
            }
            let writes = !matches!(verb.get_ref().as_str(), "get" | "list" | "watch");
            if writes && scope != Scope::Sandbox && reach < Reach::ClusterObjects {
                let message = format!(
                    "`{}` outside the sandbox needs reach `cluster-objects`; this manifest has reach `{reach}`",
                    verb.get_ref()
                );
                return self.refuse(verb.span(), message);
            }
        }
        Ok(scope)
    }

    pub(super) fn snapshots(
        &self,
        raw: &[Spanned<raw::Snapshot>],
        capabilities: &[String],
        permissions: &[PermissionLine],
    ) -> Checked<Vec<SnapshotLine>> {
        let mut lines: Vec<SnapshotLine> = Vec::with_capacity(raw.len());
        for line in raw {
            let snapshot = line.get_ref();
            let (api_version, resource) =
                (snapshot.api_version.get_ref(), snapshot.resource.get_ref());
            self.require(
                values::is_api_version(api_version),
                &snapshot.api_version,
                "api-version",
                "write `v1` or `group/version`",
            )?;
            self.require(
                is_dns_label(resource, DNS_LABEL_MAX),
                &snapshot.resource,
                "resource",
                "write a plural such as `pods`",
            )?;
            for path in &snapshot.keep {
                self.require(
                    values::is_keep_path(path.get_ref()),
                    path,
                    "path",
                    "write `/spec/devices/*/name`; `*` stands for every element",
                )?;
            }
            self.unique("path", &snapshot.keep)?;
            let labels = match &snapshot.labels {
                None => String::new(),
                Some(labels) => self.title(labels, "`labels`")?,
            };
            if !capabilities
                .iter()
                .any(|capability| capability == "kube-read")
            {
                return self.refuse(
                    line.span(),
                    "snapshots are read through `kube-read`; add it to `capabilities`",
                );
            }
            let group = api_version.split_once('/').map_or("", |(group, _)| group);
            let asked = permissions.iter().any(|permission| {
                permission.scope == Scope::Cluster
                    && permission.names.is_empty()
                    && permission.api_groups.iter().any(|have| have == group)
                    && permission.resources.contains(resource)
                    && permission.verbs.iter().any(|verb| verb == "list")
            });
            if !asked {
                let message = format!(
                    "the snapshot needs permission to `list` `{resource}` of group `{group}` with scope `cluster`; add it to `[[permissions]]`"
                );
                return self.refuse(snapshot.resource.span(), message);
            }
            let new = SnapshotLine {
                api_version: api_version.clone(),
                resource: resource.clone(),
                labels,
                keep: plain(&snapshot.keep),
            };
            let same = |old: &SnapshotLine| {
                (&old.api_version, &old.resource) == (&new.api_version, &new.resource)
            };
            if lines.iter().any(same) {
                // `open-snapshot` finds its snapshot by these two.
                let message = format!(
                    "there are two snapshots of `{resource}` of `{api_version}`; make one of them"
                );
                return self.refuse(snapshot.resource.span(), message);
            }
            lines.push(new);
        }
        Ok(lines)
    }
}

/// Capabilities that can make a call of this verb on this resource.
fn able(verb: &str, resource: &str) -> &'static [&'static str] {
    match (
        verb,
        resource.split_once('/').map(|(_, subresource)| subresource),
    ) {
        (_, Some("log" | "exec")) => &["pods"],
        (_, Some("proxy")) => &["http", "metrics"],
        ("get" | "list" | "watch", _) => &["kube-read"],
        _ => &["kube-write"],
    }
}

/// Whether some call that the line allows would match the pattern.
pub(super) fn covers(line: &PermissionLine, pattern: &EffectPattern) -> bool {
    if pattern.resource.starts_with('/') {
        return line.non_resource.contains(&pattern.resource);
    }
    let resource = match pattern.resource.as_str() {
        "*" => !line.resources.is_empty(),
        resource => line.resources.iter().any(|have| have == resource),
    };
    resource
        && pattern
            .group
            .as_ref()
            .is_none_or(|group| line.api_groups.contains(group))
        && pattern
            .verb
            .as_ref()
            .is_none_or(|verb| line.verbs.contains(verb))
}
