//! Small texts inside a manifest that have a grammar of their own: names, durations, quantities, effects.
//!
//! Pure functions from text to value. They say what is wrong and what to write; where it stands in the file is added by
//! [`super::parse`]. Nothing here accepts more than Kubernetes would, because every value may reach a cluster.

use super::{EffectPattern, SettingKind};
use crate::names::DNS_LABEL_MAX;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Verbs that a permission may ask for and an effect may name. `impersonate`, `bind`, `escalate`, `approve` and `sign`
/// are absent on purpose: no grant opens them.
pub const VERBS: &[&str] = &[
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
];

/// Longest duration that the contract can carry: milliseconds in 32 bits.
const LONGEST_DURATION: Duration = Duration::from_millis(u32::MAX as u64);

/// Whether text is a DNS label of at most `max` bytes, as Kubernetes wants the names of most objects.
pub(crate) fn is_dns_label(text: &str, max: usize) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= max.min(DNS_LABEL_MAX)
        && text.bytes().next().is_some_and(alphanumeric)
        && text.bytes().next_back().is_some_and(alphanumeric)
        && text.bytes().all(|b| alphanumeric(b) || b == b'-')
}

/// Whether text is DNS labels joined by dots, at most 253 bytes.
pub(crate) fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text
            .split('.')
            .all(|label| is_dns_label(label, DNS_LABEL_MAX))
}

/// Whether text is a plural resource name with an optional subresource: `pods`, `pods/log`.
pub(crate) fn is_resource(text: &str) -> bool {
    let (resource, subresource) = match text.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource)),
        None => (text, None),
    };
    is_dns_label(resource, DNS_LABEL_MAX)
        && subresource.is_none_or(|text| is_dns_label(text, DNS_LABEL_MAX))
}

/// Whether text is an API version as in manifests of Kubernetes: `v1`, `apps/v1`, `resource.k8s.io/v1beta2`.
pub(crate) fn is_api_version(text: &str) -> bool {
    let (group, version) = match text.split_once('/') {
        Some((group, version)) => (Some(group), version),
        None => (None, text),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let version_fits = version.strip_prefix('v').is_some_and(|rest| {
        match rest.split_once("alpha").or_else(|| rest.split_once("beta")) {
            Some((major, minor)) => digits(major) && digits(minor),
            None => digits(rest),
        }
    });
    version_fits && group.is_none_or(is_dns_subdomain)
}

/// Whether text is a path outside the resource API in its plainest spelling. Escapes, queries and dot segments are
/// refused, since two spellings of one path would let a grant for one open another.
pub(crate) fn is_plain_path(text: &str) -> bool {
    let segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    text.len() <= 256
        && text
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(segment))
}

/// For refusals of [`is_port`].
pub(crate) const PORT_FORM: &str = "write a number such as `\"8080\"`, or the name of a port";
/// For refusals of [`is_path_prefix`].
pub(crate) const PREFIX_FORM: &str =
    "write plain segments, as in `/metrics` or `/v1/`, or `/` for all";
/// For refusals of [`is_matcher`].
pub(crate) const MATCHER_FORM: &str = "write one equality, as in `job=\"dcgm\"`";
/// For refusals of [`is_proxy_name`].
pub(crate) const PROXY_NAME_FORM: &str =
    "write name and port as they are sent, as in `prometheus:9090` or `https:gateway:443`";

/// Whether text is a port: a number, or the name that a Service or container gives it.
pub(crate) fn is_port(text: &str) -> bool {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return !text.starts_with('0') && text.parse::<u16>().is_ok();
    }
    text.len() <= 15
        && is_dns_label(text, 15)
        && text.bytes().any(|b| b.is_ascii_lowercase())
        && !text.contains("--")
}

/// Whether text is the name of a proxy as the API server takes it: `[scheme:]name:port`.
pub(crate) fn is_proxy_name(text: &str) -> bool {
    let (rest, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let name = match rest.split_once(':') {
        Some(("http" | "https", name)) => name,
        Some(_) => return false,
        None => rest,
    };
    is_port(port) && is_dns_subdomain(name)
}

/// Whether text is the beginning of paths in its plainest spelling; see [`is_plain_path`].
pub(crate) fn is_path_prefix(text: &str) -> bool {
    text == "/" || is_plain_path(text.strip_suffix('/').unwrap_or(text))
}

/// Whether text is an equality of PromQL in its plainest spelling: `label="value"`.
pub(crate) fn is_matcher(text: &str) -> bool {
    let Some((label, value)) = text.split_once('=') else {
        return false;
    };
    let value = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'));
    text.len() <= 256
        && label.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && label != "__name__"
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && value.is_some_and(|value| {
            !value.is_empty()
                && value
                    .chars()
                    .all(|c| !c.is_control() && !matches!(c, '"' | '\\'))
        })
}

/// Whether text selects a part of an object: `/spec/devices/*/name`.
pub(crate) fn is_keep_path(text: &str) -> bool {
    text.len() <= 256
        && text.strip_prefix('/').is_some_and(|rest| {
            rest.split('/')
                .all(|s| !s.is_empty() && (s == "*" || !s.contains('*')))
        })
        && !text.chars().any(char::is_control)
}

/// Whether text names an image by digest: `registry.k8s.io/pause@sha256:…`, a tag before the `@` allowed.
pub(crate) fn is_image_by_digest(text: &str) -> bool {
    let Some((name, digest)) = text.split_once("@sha256:") else {
        return false;
    };
    let name_fits = text.len() <= 512
        && name.contains('/')
        && !name.contains("//")
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/' | b':'));
    name_fits
        && digest.len() == 64
        && digest
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
}

/// Whether text names a lock that leases know.
pub(crate) fn is_lock(text: &str) -> bool {
    match text.split_once('/') {
        None => matches!(text, "preemption" | "autoscaler"),
        Some(("pool" | "node" | "metrics", name)) => is_dns_subdomain(name),
        Some(("cluster", resource)) => is_dns_subdomain(resource),
        Some(_) => false,
    }
}

/// Reads a duration: whole numbers with the units `h`, `m`, `s` and `ms`, largest first, as in `90s` or `1h30m`.
///
/// # Errors
/// What is wrong, for a message that already quotes the text.
pub fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    const FORM: &str = "write a duration such as `90s`, `5m` or `1h30m`";
    const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    let mut rest = text;
    let mut total = 0u64;
    // Position of the smallest unit seen, so that `5s5m` and `5s5s` are refused.
    let mut next_unit = 0;
    if text.is_empty() {
        return Err(FORM);
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let after = &rest[digits..];
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let number: u64 = rest[..digits].parse().map_err(|_| FORM)?;
        let unit = UNITS
            .iter()
            .position(|(name, _)| *name == &after[..letters])
            .ok_or(FORM)?;
        if unit < next_unit {
            return Err(FORM);
        }
        next_unit = unit + 1;
        total = number
            .checked_mul(UNITS[unit].1)
            .and_then(|part| total.checked_add(part))
            .ok_or("a duration is at most 49 days")?;
        rest = &after[letters..];
    }
    let duration = Duration::from_millis(total);
    if duration > LONGEST_DURATION {
        return Err("a duration is at most 49 days");
    }
    Ok(duration)
}

/// Whether text is a quantity as Kubernetes reads it: `2Gi`, `500m`, `1e3`, `0.5`.
#[must_use]
pub fn is_quantity(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let number_fits = number.bytes().any(|b| b.is_ascii_digit())
        && number.bytes().filter(|b| *b == b'.').count() <= 1
        && text.len() <= 64;
    let exponent_fits = suffix.strip_prefix(['e', 'E']).is_some_and(|exponent| {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !digits.is_empty() && digits.len() <= 3 && digits.bytes().all(|b| b.is_ascii_digit())
    });
    let suffix_fits = matches!(
        suffix,
        "" | "n"
            | "u"
            | "m"
            | "k"
            | "M"
            | "G"
            | "T"
            | "P"
            | "E"
            | "Ki"
            | "Mi"
            | "Gi"
            | "Ti"
            | "Pi"
            | "Ei"
    );
    number_fits && (suffix_fits || exponent_fits)
}

/// Reads a number of bytes: whole, with `Ki`, `Mi` or `Gi`, or plain.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, &'static str> {
    const FORM: &str = "write a number of bytes such as `64Mi`";
    let (number, factor) = [("Ki", 10), ("Mi", 20), ("Gi", 30)]
        .into_iter()
        .find_map(|(suffix, shift)| {
            text.strip_suffix(suffix)
                .map(|number| (number, 1u64 << shift))
        })
        .unwrap_or((text, 1));
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(FORM);
    }
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or(FORM)
}

// === impl SettingKind ===

impl SettingKind {
    /// Checks a value that an operator or a manifest gives for a setting of this kind. Secrets have no form of their own.
    ///
    /// # Errors
    /// What to write instead.
    pub fn check(&self, value: &str) -> Result<(), String> {
        match self {
            SettingKind::String | SettingKind::Secret => Ok(()),
            SettingKind::Bool if matches!(value, "true" | "false") => Ok(()),
            SettingKind::Bool => Err("write `true` or `false`".to_owned()),
            SettingKind::Integer => match value.parse::<i64>() {
                Ok(number) if number.to_string() == value => Ok(()),
                _ => Err("write a whole number of at most 64 bits".to_owned()),
            },
            SettingKind::Duration => parse_duration(value).map(|_| ()).map_err(str::to_owned),
            SettingKind::Quantity if is_quantity(value) => Ok(()),
            SettingKind::Quantity => Err("write a quantity such as `2Gi` or `500m`".to_owned()),
            SettingKind::OneOf(words) if words.iter().any(|word| word == value) => Ok(()),
            SettingKind::OneOf(words) => Err(format!("write {}", one_of(words))),
        }
    }
}

/// Lists words for a message: `a`, `b` or `c`.
pub(crate) fn one_of<T: AsRef<str>>(words: &[T]) -> String {
    let mut text = String::new();
    for (i, word) in words.iter().enumerate() {
        let joint = match i {
            0 => "",
            _ if i + 1 == words.len() => " or ",
            _ => ", ",
        };
        text.push_str(joint);
        text.push('`');
        text.push_str(word.as_ref());
        text.push('`');
    }
    text
}

// === impl EffectPattern ===

impl FromStr for EffectPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "write `[verb ]resource[/subresource][.group]`, as in `create resourceclaims.resource.k8s.io`, or a path";
        let (verb, rest) = match text.split_once(' ') {
            Some((verb, rest)) => (Some(verb), rest),
            None => (None, text),
        };
        if let Some(verb) = verb
            && !VERBS.contains(&verb)
        {
            return Err(format!(
                "verb `{}` is not known; write {}",
                verb.escape_debug(),
                one_of(VERBS)
            ));
        }
        if rest.starts_with('/') {
            if !is_plain_path(rest) {
                return Err("a path has plain segments only, as in `/readyz`".to_owned());
            }
            if !matches!(verb, None | Some("get")) {
                return Err("a path can only be read; write `get` or no verb".to_owned());
            }
            return Ok(EffectPattern {
                verb: verb.map(str::to_owned),
                resource: rest.to_owned(),
                group: None,
            });
        }
        let (resource, group) = match rest.split_once('.') {
            Some((resource, group)) => (resource, Some(group)),
            None => (rest, None),
        };
        if !(resource == "*" || is_resource(resource)) || !group.is_none_or(is_dns_subdomain) {
            return Err(FORM.to_owned());
        }
        Ok(EffectPattern {
            verb: verb.map(str::to_owned),
            resource: resource.to_owned(),
            group: group.map(str::to_owned),
        })
    }
}

impl fmt::Display for EffectPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(verb) = &self.verb {
            write!(f, "{verb} ")?;
        }
        f.write_str(&self.resource)?;
        match &self.group {
            Some(group) => write!(f, ".{group}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("0s", 0),
            ("90s", 90_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1m1s1ms", 61_001),
            ("250ms", 250),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in [
            "",
            "5",
            "s",
            "-5s",
            "5 s",
            "1.5s",
            "5s5m",
            "5s5s",
            "5d",
            "50000000h",
            "99999999999999999999h",
            "5sx",
            "٣s",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn quantities_and_bytes() {
        for text in [
            "0", "2Gi", "500m", "1e3", "1E-3", "0.5", "+1", "-1", ".5", "5.",
        ] {
            assert!(is_quantity(text), "{text}");
        }
        for text in [
            "", "Gi", "2gi", "1.2.3", "1e", "e3", "2 Gi", ".", "--1", "2GiB",
        ] {
            assert!(!is_quantity(text), "{text}");
        }
        assert_eq!(parse_bytes("64Mi"), Ok(64 << 20));
        assert_eq!(parse_bytes("1024"), Ok(1024));
        for text in [
            "",
            "Mi",
            "64M",
            "-1",
            "+1",
            "1.5Gi",
            "99999999999Gi",
            "99999999999999999999",
        ] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn effects_keep_their_text() {
        for text in [
            "pods/log",
            "create resourceclaims.resource.k8s.io",
            "get /readyz",
            "/apis/resource.k8s.io",
            "list *",
            "*.apps",
            "deployments/scale.apps",
        ] {
            assert_eq!(text.parse::<EffectPattern>().unwrap().to_string(), text);
        }
        for (text, message) in [
            ("", "write `[verb ]resource"),
            ("read pods", "verb `read` is not known; write `get`, `list`"),
            ("create", ""),
            ("get  pods", "write `[verb ]resource"),
            ("pods.", "write `[verb ]resource"),
            ("pods/", "write `[verb ]resource"),
            ("*/log", "write `[verb ]resource"),
            ("Pods", "write `[verb ]resource"),
            ("post /readyz", "verb `post` is not known"),
            ("delete /readyz", "can only be read"),
            ("/a/../b", "plain segments only"),
            ("/a%2fb", "plain segments only"),
            ("/a//b", "plain segments only"),
        ] {
            match text.parse::<EffectPattern>() {
                // A single word is a resource, whatever it means in English.
                Ok(pattern) => assert_eq!((pattern.resource.as_str(), message), ("create", "")),
                Err(error) => assert!(
                    error.contains(message) && !message.is_empty(),
                    "{text}: {error}"
                ),
            }
        }
    }

    #[test]
    fn names_of_things() {
        for (text, fits) in [
            ("a", true),
            ("a-1", true),
            ("", false),
            ("-a", false),
            ("a-", false),
            ("A", false),
            ("a.b", false),
            ("ä", false),
        ] {
            assert_eq!(is_dns_label(text, 63), fits, "{text}");
        }
        assert!(
            !is_dns_label(&"a".repeat(41), 40)
                && is_dns_label(&"a".repeat(40), 40)
                && !is_dns_label(&"a".repeat(64), 99)
        );
        for (text, fits) in [
            ("v1", true),
            ("apps/v1", true),
            ("resource.k8s.io/v1beta2", true),
            ("v1alpha3", true),
            ("1", false),
            ("v", false),
            ("vbeta1", false),
            ("/v1", false),
            ("a/b/v1", false),
            ("v1beta", false),
        ] {
            assert_eq!(is_api_version(text), fits, "{text}");
        }
        for (text, fits) in [
            ("/spec/devices/*/name", true),
            ("/a", true),
            ("", false),
            ("/", false),
            ("a", false),
            ("/a//b", false),
            ("/a*", false),
            ("/a\n", false),
        ] {
            assert_eq!(is_keep_path(text), fits, "{text}");
        }
        let digest = "0123456789abcdef".repeat(4);
        for (text, fits) in [
            (format!("registry.k8s.io/pause@sha256:{digest}"), true),
            (format!("127.0.0.1:5000/a/b:1.0@sha256:{digest}"), true),
            (format!("pause@sha256:{digest}"), false),
            ("registry.k8s.io/pause:3.10".to_owned(), false),
            (
                format!("registry.k8s.io/pause@sha256:{}", &digest[1..]),
                false,
            ),
            (
                format!("registry.k8s.io/pause@sha256:{}", digest.to_uppercase()),
                false,
            ),
            (format!("registry.k8s.io/../pause x@sha256:{digest}"), false),
        ] {
            assert_eq!(is_image_by_digest(&text), fits, "{text}");
        }
        for (text, fits) in [
            ("preemption", true),
            ("pool/gpu", true),
            ("cluster/deviceclasses.resource.k8s.io", true),
            ("pool", false),
            ("pool/", false),
            ("disk/x", false),
        ] {
            assert_eq!(is_lock(text), fits, "{text}");
        }
    }
}
