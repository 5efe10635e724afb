//! What an artefact says about when and where it was made.

use crate::form::minor_version;

/// Month in which each minor version of Kubernetes was released.
pub(super) const RELEASED: &[(&str, &str)] = &[
    ("1.33", "2025-04"),
    ("1.34", "2025-08"),
    ("1.35", "2025-12"),
    ("1.36", "2026-04"),
    ("1.37", "2026-08"),
];

/// The minor version in a line in small letters such as `server version: v1.36.1`.
pub(super) fn server_version(line: &str) -> Option<String> {
    let rest = [
        "server version",
        "kubernetes version",
        "\"gitversion\"",
        "server.version",
    ]
    .iter()
    .find_map(|marker| Some(&line[line.find(marker)? + marker.len()..]))?;
    let rest = rest.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let rest = rest.strip_prefix("value").unwrap_or(rest);
    let rest = rest.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+')));
    let word = &rest[..end.unwrap_or(rest.len())];
    word.starts_with('v')
        .then(|| minor_version(word.trim_end_matches('.')))
        .flatten()
}

/// The UUID behind a word such as `cluster uid`, in a line in small letters.
pub(super) fn cluster_of(line: &str) -> Option<String> {
    let rest = [
        "cluster uid",
        "cluster-uid",
        "cluster_uid",
        "cluster.uid",
        "clusteruid",
    ]
    .iter()
    .find_map(|marker| Some(&line[line.find(marker)? + marker.len()..]))?;
    let is_uuid = |part: &[u8]| {
        part.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
    };
    let near = &rest.as_bytes()[..rest.len().min(60)];
    let found = near.windows(36).find(|part| is_uuid(part))?;
    String::from_utf8(found.to_vec()).ok()
}
