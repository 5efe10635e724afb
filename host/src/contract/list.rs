//! What the contract offers, read from the very WIT text that the bindings are made of. [`crate::component`] compares a
//! component's imports with it before anything is compiled, so that a missing function can be named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use wit_parser::{Resolve, SourceMap, WorldItem};

/// The files of `wit/`, as compiled into this program.
pub const WIT: &[(&str, &str)] = &[
    ("probe.wit", include_str!("../../../wit/probe.wit")),
    ("types.wit", include_str!("../../../wit/types.wit")),
    ("run.wit", include_str!("../../../wit/run.wit")),
    ("wait.wit", include_str!("../../../wit/wait.wit")),
    ("clock.wit", include_str!("../../../wit/clock.wit")),
    ("log.wit", include_str!("../../../wit/log.wit")),
    ("settings.wit", include_str!("../../../wit/settings.wit")),
    ("cases.wit", include_str!("../../../wit/cases.wit")),
    ("leases.wit", include_str!("../../../wit/leases.wit")),
    ("kube-read.wit", include_str!("../../../wit/kube-read.wit")),
    (
        "kube-write.wit",
        include_str!("../../../wit/kube-write.wit"),
    ),
    ("pods.wit", include_str!("../../../wit/pods.wit")),
    ("http.wit", include_str!("../../../wit/http.wit")),
    ("metrics.wit", include_str!("../../../wit/metrics.wit")),
    ("device.wit", include_str!("../../../wit/device.wit")),
];

/// Interfaces that every probe may import without asking.
pub const CORE_INTERFACES: &[&str] = &["types", "run", "wait", "clock", "log", "settings", "cases"];

/// Interfaces of the contract with the names of their functions, as they stand in components: `[method]query.get`.
pub(crate) struct ContractList {
    interfaces: BTreeMap<String, BTreeSet<String>>,
}

impl ContractList {
    /// The list of the contract that this engine serves.
    pub(crate) fn served() -> &'static ContractList {
        static LIST: OnceLock<ContractList> = OnceLock::new();
        LIST.get_or_init(|| {
            ContractList::read(WIT).unwrap_or_else(|error| {
                // The same text went through `bindgen!` when this program was built.
                unreachable!("the embedded contract is not readable: {error}")
            })
        })
    }

    fn read(files: &[(&str, &str)]) -> Result<ContractList, String> {
        let mut sources = SourceMap::default();
        for (name, text) in files {
            sources.push_str(name, *text);
        }
        let group = sources.parse().map_err(|(sources, error)| {
            format!("{error} in {} files", sources.source_files().count())
        })?;
        let mut resolve = Resolve::default();
        let package = resolve
            .push_group(group)
            .map_err(|error| error.to_string())?;
        let mut interfaces: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for world in resolve.packages[package].worlds.values() {
            for item in resolve.worlds[*world].imports.values() {
                let WorldItem::Interface { id, .. } = item else {
                    continue;
                };
                let interface = &resolve.interfaces[*id];
                if let Some(name) = &interface.name {
                    interfaces.insert(name.clone(), interface.functions.keys().cloned().collect());
                }
            }
        }
        Ok(ContractList { interfaces })
    }

    /// Whether the contract has this interface.
    pub(crate) fn has_interface(&self, interface: &str) -> bool {
        self.interfaces.contains_key(interface)
    }

    /// Whether the contract has this function, named as in components.
    pub(crate) fn has_function(&self, interface: &str, function: &str) -> bool {
        self.interfaces
            .get(interface)
            .is_some_and(|functions| functions.contains(function))
    }
}

/// The name of a function for people and recordings: `kube-read` and `[method]query.get` give `kube-read.query.get`.
pub(crate) fn display_name(interface: &str, function: &str) -> String {
    if let Some(resource) = function.strip_prefix("[constructor]") {
        return format!("{interface}.{resource}");
    }
    let plain = function
        .split_once(']')
        .map_or(function, |(_, plain)| plain);
    format!("{interface}.{plain}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_the_contract() {
        let list = ContractList::served();
        assert!(list.has_interface("types"));
        assert!(list.has_function("kube-read", "[method]query.open-watch"));
        assert!(list.has_function("kube-read", "raw"));
        assert!(list.has_function("cases", "[static]case.conclude"));
        assert!(!list.has_function("kube-read", "[method]query.count"));
        assert!(!list.has_interface("guest"));
    }

    #[test]
    fn every_file_of_the_contract_is_embedded() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../wit");
        let on_disk: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".wit"))
            .collect();
        let embedded: BTreeSet<String> = WIT.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(on_disk, embedded);
    }

    #[test]
    fn functions_are_shown_as_in_recordings() {
        assert_eq!(
            display_name("kube-read", "[method]query.get"),
            "kube-read.query.get"
        );
        assert_eq!(
            display_name("kube-read", "[constructor]query"),
            "kube-read.query"
        );
        assert_eq!(display_name("cases", "open"), "cases.open");
    }
}
