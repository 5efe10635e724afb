//! Lines of `services/proxy` and `pods/proxy`: ports, prefixes of paths, and the matchers of PromQL.

use super::{Rule, sorted};
use crate::manifest::{ProxyLine, Scope};
use crate::recording::format::ResourceAccess;
use std::fmt::Write as _;

/// Whether a path lies below a prefix. A prefix ends where a segment ends, so `/metrics` does not open `/metricsx`.
pub(super) fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'))
}

/// Prefixes without those that others hold already, sorted.
pub(super) fn shortest(prefixes: &[String]) -> Vec<String> {
    let mut all = sorted(prefixes);
    let covered = |path: &String| {
        prefixes
            .iter()
            .any(|other| other != path && is_below(path, other))
    };
    all.retain(|path| !covered(path));
    all
}

/// The part of what was asked that a grant opens; none where nothing is left.
pub(super) fn meet(asked: &ProxyLine, granted: &ProxyLine) -> Option<ProxyLine> {
    let both = |asked: &[String], granted: &[String]| -> Option<Vec<String>> {
        match (asked.is_empty(), granted.is_empty()) {
            (_, true) => Some(asked.to_vec()),
            (true, false) => Some(sorted(granted)),
            (false, false) => {
                let common: Vec<String> = asked
                    .iter()
                    .filter(|word| granted.contains(word))
                    .cloned()
                    .collect();
                (!common.is_empty()).then_some(common)
            }
        }
    };
    let paths = if asked.paths.is_empty() || granted.paths.is_empty() {
        both(&asked.paths, &granted.paths)?
    } else {
        let mut common = Vec::new();
        for mine in &asked.paths {
            for theirs in &granted.paths {
                if is_below(mine, theirs) {
                    common.push(mine.clone());
                } else if is_below(theirs, mine) {
                    common.push(theirs.clone());
                }
            }
        }
        if common.is_empty() {
            return None;
        }
        common
    };
    Some(ProxyLine {
        ports: both(&asked.ports, &granted.ports)?,
        paths: shortest(&paths),
        // Without matchers a line allows none, and a grant cannot add what was not asked.
        matchers: if granted.matchers.is_empty() {
            asked.matchers.clone()
        } else {
            let mut matchers = asked.matchers.clone();
            matchers.retain(|matcher| granted.matchers.contains(matcher));
            matchers
        },
    })
}

/// Whether a rule opens the port and the path of a request. True for everything that is no request to a workload.
pub(super) fn opens(rule: &Rule, access: &ResourceAccess) -> bool {
    let Rule::Resource { proxy, .. } = rule else {
        return false;
    };
    if !access.is_proxied() {
        return true;
    }
    let port = access.name.rsplit(':').next().unwrap_or_default();
    (proxy.ports.is_empty() || proxy.ports.iter().any(|open| open == port))
        && (proxy.paths.is_empty() || proxy.paths.iter().any(|open| is_below(&access.path, open)))
}

/// Whether a rule names workloads, rather than a kind of them.
pub(super) fn names(rule: &Rule) -> bool {
    let Rule::Resource {
        resource,
        scope: Scope::Namespace(_),
        names,
        proxy,
        ..
    } = rule
    else {
        return false;
    };
    !names.is_empty()
        || (resource == "pods/proxy" && !proxy.ports.is_empty() && !proxy.paths.is_empty())
}

/// For people: ` port 8080 path /metrics`; empty for lines that say nothing of it.
pub(crate) fn describe(line: &ProxyLine) -> String {
    let mut text = String::new();
    for (what, words) in [
        ("port", &line.ports),
        ("path", &line.paths),
        ("matching", &line.matchers),
    ] {
        if !words.is_empty() {
            let _ = write!(text, " {what} {}", words.join(", "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(ports: &[&str], paths: &[&str], matchers: &[&str]) -> ProxyLine {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        ProxyLine {
            ports: owned(ports),
            paths: owned(paths),
            matchers: owned(matchers),
        }
    }

    #[test]
    fn prefixes_end_with_segments() {
        for (path, prefix, below) in [
            ("/metrics", "/metrics", true),
            ("/metrics/x", "/metrics", true),
            ("/metricsx", "/metrics", false),
            ("/v1/models", "/v1/", true),
            ("/v1", "/v1/", false),
            ("/v10", "/v1", false),
            ("/anything", "/", true),
            ("/", "/metrics", false),
        ] {
            assert_eq!(is_below(path, prefix), below, "{path} {prefix}");
        }
    }

    #[test]
    fn a_meeting_is_never_wider_than_either() {
        let all = line(&[], &[], &[]);
        let narrow = line(&["8080"], &["/metrics"], &["a=\"b\""]);
        assert_eq!(
            meet(&all, &narrow).unwrap(),
            line(&["8080"], &["/metrics"], &[])
        );
        assert_eq!(meet(&narrow, &all).unwrap(), narrow);
        assert_eq!(meet(&narrow, &line(&["9090"], &[], &[])), None);
        assert_eq!(meet(&narrow, &line(&[], &["/other"], &[])), None);
        assert_eq!(
            meet(
                &line(&[], &["/v1", "/metrics"], &[]),
                &line(&[], &["/v1/models", "/"], &[])
            )
            .unwrap()
            .paths,
            ["/metrics", "/v1"]
        );
        assert_eq!(
            meet(&narrow, &line(&[], &[], &["c=\"d\""]))
                .unwrap()
                .matchers,
            Vec::<String>::new()
        );
    }
}
