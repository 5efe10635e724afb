//! Fetches the keys of an issuer from the web, for `karat verify --online`: its discovery document (OpenID Connect
//! Discovery 1.0, 4), and the key set that this names.
//!
//! The address comes from a bundle, so from a stranger. It must be `https`, the certificate must hold, no redirect is
//! followed, nothing is sent but two GETs without credentials, and little is read. Who stands behind that address is for
//! the reviewer to judge: the report names it.

use super::keys::{KEYS_MAX, KeySet};
use jiff::Timestamp;
use reqwest::{Client, Url, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// How long one of the two documents may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Below an issuer's address.
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// No client could be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OnlineError {
    /// The text holds no certificate.
    #[error("no certificate authority in PEM: {0}")]
    Authority(String),
    /// TLS or HTTP.
    #[error("no client for the issuer can be made: {0}")]
    Client(String),
}

/// Fetches keys.
#[derive(Clone, Debug)]
pub struct Online {
    client: Client,
}

/// What an issuer publishes.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    pub(crate) keys: KeySet,
    pub(crate) at: Timestamp,
}

impl Online {
    /// Believes the authorities that browsers believe.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn with_web_roots() -> Result<Online, OnlineError> {
        Online::with(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect())
    }

    /// Believes these certificate authorities (PEM) and no others.
    ///
    /// # Errors
    /// No certificate in the text, or TLS cannot be set up.
    pub fn with_authorities(pem: &[u8]) -> Result<Online, OnlineError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let wrong = |error: &dyn std::fmt::Display| OnlineError::Authority(error.to_string());
            let certificate = certificate.map_err(|error| wrong(&error))?;
            roots.add(certificate).map_err(|error| wrong(&error))?;
        }
        if roots.is_empty() {
            return Err(OnlineError::Authority("there is none".to_owned()));
        }
        Online::with(roots)
    }

    fn with(roots: RootCertStore) -> Result<Online, OnlineError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| OnlineError::Client(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .redirect(redirect::Policy::none())
            .timeout(PATIENCE)
            .build()
            .map_err(|error| OnlineError::Client(chain(&error)))?;
        Ok(Online { client })
    }

    /// The keys that an issuer publishes now.
    ///
    /// # Errors
    /// Why there are none, for people; may quote the issuer.
    pub(crate) async fn fetch(&self, issuer: &str) -> Result<Fetched, String> {
        let address = address(issuer)?;
        let discovery = format!("{}{DISCOVERY}", address.as_str().trim_end_matches('/'));
        let document: Value = serde_json::from_slice(&self.get(&discovery).await?)
            .map_err(|error| format!("{discovery}: no JSON: {error}"))?;
        if document["issuer"].as_str() != Some(issuer) {
            return Err(format!("{discovery} is the document of another issuer"));
        }
        let Some(keys) = document["jwks_uri"].as_str() else {
            return Err(format!("{discovery} names no keys"));
        };
        let keys = web_address(keys)?;
        let found = KeySet::parse(&self.get(keys.as_str()).await?)
            .map_err(|error| format!("{}: {error}", shortened(keys.as_str())))?;
        Ok(Fetched {
            keys: found,
            at: Timestamp::now(),
        })
    }

    async fn get(&self, url: &str) -> Result<Vec<u8>, String> {
        let failed =
            |error: reqwest::Error| format!("{}: {}", shortened(url), chain(&error.without_url()));
        let mut answer = self.client.get(url).send().await.map_err(failed)?;
        if answer.status() != reqwest::StatusCode::OK {
            return Err(format!("{}: {}", shortened(url), answer.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() as u64 > KEYS_MAX {
                return Err(format!("{}: larger than {KEYS_MAX} bytes", shortened(url)));
            }
        }
        Ok(body)
    }
}

/// The address of an issuer: it is one, and nothing else.
fn address(issuer: &str) -> Result<Url, String> {
    let url = web_address(issuer)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("the issuer {} is no address", shortened(issuer)));
    }
    Ok(url)
}

fn web_address(text: &str) -> Result<Url, String> {
    let refused = |why: &str| format!("{} is no https address: {why}", shortened(text));
    let url = Url::parse(text).map_err(|error| refused(&error.to_string()))?;
    if url.scheme() != "https" || url.host_str().is_none() {
        return Err(refused("keys are fetched over https only"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("it holds credentials"));
    }
    Ok(url)
}

fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

/// An error with its causes: the outer one of an HTTP client says next to nothing.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_web_addresses_are_asked() {
        assert!(address("https://oidc.eks.eu-west-1.amazonaws.com/id/ABC").is_ok());
        for text in [
            "kubernetes/serviceaccount",
            "http://issuer.example",
            "file:///etc/passwd",
            "https://",
            "https://name:word@issuer.example",
            "https://issuer.example?x=1",
            "https://issuer.example#x",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_authority_must_be_one() {
        assert!(Online::with_web_roots().is_ok());
        for text in [
            "",
            "hello",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            let error = Online::with_authorities(text.as_bytes()).unwrap_err();
            assert!(matches!(error, OnlineError::Authority(_)), "{error}");
        }
    }
}
