//! Every environment variable that the program reads itself, with its meaning. Nothing else in this crate asks the
//! environment, and the engine never does. The list in `karat --help` and in the reference is made from [`ALL`].

use std::ffi::OsString;

/// One variable.
pub(crate) struct Variable {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it does, one sentence.
    pub(crate) help: &'static str,
}

/// Kubeconfig files, joined by `:`.
pub(crate) const KUBECONFIG: &str = "KUBECONFIG";
/// Probe sources.
pub(crate) const KARAT_PROBES: &str = "KARAT_PROBES";
/// Folder of compiled probes.
pub(crate) const KARAT_CACHE_DIR: &str = "KARAT_CACHE_DIR";
/// No colours.
pub(crate) const NO_COLOR: &str = "NO_COLOR";
/// Set by most CI systems.
pub(crate) const CI: &str = "CI";
/// OTLP receiver.
pub(crate) const OTEL_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Extra headers for the receiver.
pub(crate) const OTEL_HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
/// Name of this service.
pub(crate) const OTEL_SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
/// Folder of Docker's `config.json`.
pub(crate) const DOCKER_CONFIG: &str = "DOCKER_CONFIG";
/// Certificate authorities; read by rustls-native-certs.
const SSL_CERT_FILE: &str = "SSL_CERT_FILE";
/// Proxies; read by reqwest.
const HTTPS_PROXY: &str = "HTTPS_PROXY";
/// Home of caches.
const XDG_CACHE_HOME: &str = "XDG_CACHE_HOME";
/// Home folder.
const HOME: &str = "HOME";

/// All of them, in the order of the reference.
pub(crate) const ALL: &[Variable] = &[
    Variable {
        name: KUBECONFIG,
        help: "Kubeconfig files joined by `:`, read where `--kubeconfig` is not given.",
    },
    Variable {
        name: KARAT_PROBES,
        help: "Probe sources joined by `:`, read where `--probes-from` is not given.",
    },
    Variable {
        name: KARAT_CACHE_DIR,
        help: "Folder for compiled probes; the default is `karat` below XDG_CACHE_HOME or ~/.cache.",
    },
    Variable {
        name: NO_COLOR,
        help: "Any value that is not empty turns colours off.",
    },
    Variable {
        name: CI,
        help: "Any value but empty and `false` makes progress plain lines, even where a terminal is pretended.",
    },
    Variable {
        name: OTEL_ENDPOINT,
        help: "OTLP/HTTP receiver for traces, metrics and logs of a run; nothing is sent without it.",
    },
    Variable {
        name: OTEL_HEADERS,
        help: "Headers for the receiver, `key=value` joined by commas.",
    },
    Variable {
        name: OTEL_SERVICE_NAME,
        help: "Name under which the receiver sees this program; the default is `karat`.",
    },
    Variable {
        name: DOCKER_CONFIG,
        help: "Folder of the `config.json` with credentials for registries; the default is ~/.docker.",
    },
    Variable {
        name: SSL_CERT_FILE,
        help: "Certificate authorities that are believed of registries, in place of those of the system.",
    },
    Variable {
        name: HTTPS_PROXY,
        help: "Proxy to registries; HTTP_PROXY and NO_PROXY are heeded too.",
    },
];

/// A view of the environment, so that tests need not change the process.
pub(crate) struct Environment {
    read: Box<Read>,
}

type Read = dyn Fn(&str) -> Option<OsString> + Send + Sync;

impl Environment {
    /// The environment of the process.
    pub(crate) fn of_process() -> Environment {
        Environment {
            read: Box::new(|name| std::env::var_os(name)),
        }
    }

    /// A fixed environment.
    #[cfg(test)]
    pub(crate) fn fixed(values: &'static [(&'static str, &'static str)]) -> Environment {
        Environment {
            read: Box::new(move |name| {
                values
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| OsString::from(value))
            }),
        }
    }

    /// A variable that is set and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<OsString> {
        (self.read)(name).filter(|value| !value.is_empty())
    }

    /// A variable as text; none where it is not UTF-8.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.get(name).and_then(|value| value.into_string().ok())
    }

    /// Whether colours are unwanted.
    pub(crate) fn no_color(&self) -> bool {
        self.get(NO_COLOR).is_some()
    }

    /// Whether a CI system says that it is one.
    pub(crate) fn is_ci(&self) -> bool {
        self.get(CI).is_some_and(|value| value != "false")
    }

    /// Docker's file of credentials; none where there is no home either.
    pub(crate) fn docker_config(&self) -> Option<std::path::PathBuf> {
        let folder = match self.get(DOCKER_CONFIG) {
            Some(folder) => std::path::PathBuf::from(folder),
            None => std::path::PathBuf::from(self.get(HOME)?).join(".docker"),
        };
        Some(folder.join("config.json"))
    }

    /// Folder for compiled probes; none where there is no home either.
    pub(crate) fn cache_dir(&self) -> Option<std::path::PathBuf> {
        if let Some(folder) = self.get(KARAT_CACHE_DIR) {
            return Some(folder.into());
        }
        let base = match self.get(XDG_CACHE_HOME) {
            Some(folder) => std::path::PathBuf::from(folder),
            None => std::path::PathBuf::from(self.get(HOME)?).join(".cache"),
        };
        // A relative folder is invalid by the XDG specification and would end wherever the program was started.
        base.is_absolute().then(|| base.join("karat"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn empty_means_unset() {
        let env = Environment::fixed(&[("NO_COLOR", ""), ("CI", "false")]);
        assert!(!env.no_color());
        assert!(!env.is_ci());
        assert!(Environment::fixed(&[("CI", "1")]).is_ci());
    }

    #[test]
    fn the_cache_follows_xdg() {
        let dir = |values| Environment::fixed(values).cache_dir();
        assert_eq!(
            dir(&[("HOME", "/h")]),
            Some(PathBuf::from("/h/.cache/karat"))
        );
        assert_eq!(
            dir(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/c")]),
            Some(PathBuf::from("/c/karat"))
        );
        assert_eq!(dir(&[("XDG_CACHE_HOME", "relative")]), None);
        assert_eq!(
            dir(&[("KARAT_CACHE_DIR", "mine")]),
            Some(PathBuf::from("mine"))
        );
        assert_eq!(dir(&[]), None);
    }
}
