//! How registries are spoken to: certificate authorities, plain HTTP, and the credentials of `docker login`.

use crate::args::RegistryArgs;
use crate::commands::Context;
use crate::probes::read_limited;
use crate::ui::diagnostics::{Classify as _, CommandError};
use anyhow::anyhow;
use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use karat_registry::remote::{Login, Logins, PushError, RemoteError, Settings};
use karat_registry::{ReferenceError, RegistryReference, Remote};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most bytes of a file of authorities, and of Docker's configuration.
const FILE_MAX: u64 = 4 << 20;
/// By which name Docker's configuration knows Docker Hub.
const HUB: (&str, &str) = ("registry-1.docker.io", "https://index.docker.io/v1/");

/// A client as the flags and the environment have it.
///
/// # Errors
/// An unreadable file of authorities.
pub(super) fn remote(context: &Context, args: &RegistryArgs) -> Result<Remote, CommandError> {
    let settings = Settings {
        roots: roots(args.ca_file.as_deref())?,
        plain_http: args.plain_http.iter().cloned().collect(),
        logins: Arc::new(Docker {
            config: context.environment.docker_config(),
        }),
    };
    Remote::new(settings).environment("cannot speak to registries")
}

/// The authorities of the system, and those of a file. Where the system has none, as in many images, those that browsers believe.
fn roots(file: Option<&Path>) -> Result<RootCertStore, CommandError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(file) = file {
        let doing = || format!("cannot use the authorities in {}", file.display());
        let pem = read_limited(file, FILE_MAX)?;
        let mut found = 0;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots.add(certificate.usage(doing())?).usage(doing())?;
            found += 1;
        }
        if found == 0 {
            return Err(
                CommandError::usage(anyhow!("there is no certificate in it")).doing(doing()),
            );
        }
    }
    Ok(roots)
}

/// Docker's `config.json`, with its helpers.
struct Docker {
    config: Option<PathBuf>,
}

impl Logins for Docker {
    fn login(&self, registry: &str) -> Result<Option<Login>, String> {
        let Some(path) = self.config.as_ref().filter(|path| path.exists()) else {
            return Ok(None);
        };
        let file = path.display();
        let bytes = read_limited(path, FILE_MAX).map_err(|_| format!("cannot read {file}"))?;
        let server = if registry == HUB.0 { HUB.1 } else { registry };
        // The words of these errors can hold what a helper printed, so none is repeated.
        match get_credential_from_reader(bytes.as_slice(), server) {
            Ok(DockerCredential::UsernamePassword(user, _)) if user.is_empty() => Ok(None),
            Ok(DockerCredential::UsernamePassword(user, word)) => {
                Ok(Some(Login::Password(user, word)))
            }
            Ok(DockerCredential::IdentityToken(token)) => Ok(Some(Login::IdentityToken(token))),
            Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(None),
            Err(CredentialRetrievalError::HelperFailure { stdout, .. })
                if stdout.contains("credentials not found") =>
            {
                Ok(None)
            }
            Err(CredentialRetrievalError::HelperFailure { helper, .. }) => {
                Err(format!("{helper}, which {file} names, failed"))
            }
            Err(
                CredentialRetrievalError::HelperCommunicationError
                | CredentialRetrievalError::MalformedHelperResponse,
            ) => Err(format!(
                "the credential helper that {file} names cannot be run"
            )),
            Err(_) => Err(format!("{file} is not as Docker writes it")),
        }
    }
}

/// The name of an image as a place in a registry.
///
/// # Errors
/// It is none.
pub(super) fn place(name: &str) -> Result<RegistryReference, CommandError> {
    RegistryReference::image(name).map_err(|error: ReferenceError| CommandError::usage(error))
}

/// The message with the command that helps.
pub(super) fn explained(error: RemoteError, doing: String) -> CommandError {
    let hint = match &error {
        RemoteError::Denied { registry, .. } => Some(format!(
            "log in to {registry} with `docker login`, or write Docker's config.json yourself; DOCKER_CONFIG names its folder"
        )),
        RemoteError::Unreachable { .. } => Some(
            "--plain-http HOST for a registry without TLS, --ca-file FILE for one with an authority of your own"
                .to_owned(),
        ),
        _ => None,
    };
    let error = CommandError::environment(error).doing(doing);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// The same for a push.
pub(super) fn explained_push(error: PushError, doing: String) -> CommandError {
    match error {
        PushError::Remote(error) => explained(error, doing),
        other => CommandError::usage(other).doing(doing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logins(config: &str) -> (tempfile::TempDir, Docker) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, config).unwrap();
        let docker = Docker { config: Some(path) };
        (folder, docker)
    }

    #[test]
    fn credentials_are_those_of_docker() {
        // `user:word`
        let (_folder, docker) = logins(
            r#"{"auths": {"r.example:5000": {"auth": "dXNlcjp3b3Jk"}, "https://index.docker.io/v1/": {"auth": "aHViOndvcmQ="}}}"#,
        );
        let password = |user: &str| Ok(Some(Login::Password(user.to_owned(), "word".to_owned())));
        assert_eq!(docker.login("r.example:5000"), password("user"));
        assert_eq!(docker.login("registry-1.docker.io"), password("hub"));
        assert_eq!(docker.login("r.example"), Ok(None));
        let nobody = Docker { config: None };
        assert_eq!(nobody.login("r.example"), Ok(None));
    }

    #[test]
    fn no_message_has_what_a_file_says() {
        let (_folder, docker) = logins(r#"{"auths": {"r.example": {"auth": "c2VjcmV0"}}}"#);
        let said = docker.login("r.example").unwrap_err();
        assert!(said.contains("not as Docker writes it"), "{said}");

        let (_other, docker) = logins(r#"{"credsStore": "karat-has-no-such-helper"}"#);
        let said = docker.login("r.example").unwrap_err();
        assert!(said.contains("cannot be run"), "{said}");
        assert!(!said.contains("secret"));
    }

    #[test]
    fn authorities_must_be_some() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, "hello").unwrap();
        assert_eq!(roots(Some(&file)).unwrap_err().exit().code(), 3);
        assert!(!roots(None).unwrap().is_empty());
    }
}
