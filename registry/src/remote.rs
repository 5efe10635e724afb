//! A client of registries: the OCI distribution specification 1.1 (<https://github.com/opencontainers/distribution-spec>).
//!
//! A registry is a stranger. Every byte is hashed against the digest that was asked for, every answer is limited before memory
//! is taken, an index has one level, and what a server says in words is not repeated but for its error code: it could quote a
//! password. HTTPS unless the caller says otherwise; a loopback address is also asked in plain HTTP. Credentials go to the
//! registry they are for and to the token server that it names, never along a redirect to another host.
//!
//! Crates for this (oci-client 0.18) read documents, tokens and errors into memory whatever their size, repeat what a token server
//! says, and set up TLS and redirects themselves. This is written on the HTTP client that the rest of the program has.

mod auth;
mod transfer;

pub use auth::{Login, Logins};
pub use transfer::{PushError, Pushed, Seen};

use crate::artifact::Descriptor;
use crate::content::{ContentError, DOCUMENT_MAX, DOCUMENTS};
use crate::reference::{Digest, RegistryReference, Verifier, VerifyError, quoted, quoted_within};
use auth::{Actions, Tokens};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url, redirect};
use rustls::{ClientConfig, RootCertStore};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a connection may take to open, and how long it may be silent.
const CONNECT: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_secs(60);
/// Hops that an answer may send us on. Registries use one, to where their blobs lie.
const HOPS: usize = 5;
/// How often a request is made that a server has no time for, and a download that breaks off.
const TRIES: u32 = 3;
/// Longest wait that a server may ask for.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Most characters of a cause; the last of a chain says the most.
const CAUSE_MAX: usize = 400;
/// Most bytes of an error that are looked at.
const SAID_MAX: u64 = 64 << 10;

/// Why a registry did not give or take.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// No client can be made.
    #[error("no client for registries can be made: {0}")]
    Client(String),
    /// No answer.
    #[error("no answer from {registry}: {cause}")]
    Unreachable {
        /// Host and port.
        registry: String,
        /// What happened, from the inside of the HTTP client.
        cause: String,
    },
    /// It does not let us.
    #[error("{registry} refuses {doing} in {repository}: {}", if *logged_in { "the credentials do not do for that" } else { "it wants credentials and there are none" })]
    Denied {
        /// Host and port.
        registry: String,
        /// Below it.
        repository: String,
        /// `reading` or `writing`.
        doing: &'static str,
        /// Whether credentials were sent.
        logged_in: bool,
    },
    /// Credentials cannot be had or not be used.
    #[error("no credentials for {registry}: {cause}")]
    Login {
        /// Host and port.
        registry: String,
        /// Why.
        cause: String,
    },
    /// It is not there.
    #[error("{0} is not there")]
    Absent(String),
    /// An answer that is none.
    #[error("{registry} answers {what} with {status}{}", said.as_deref().map(|said| format!(" ({said})")).unwrap_or_default())]
    Answer {
        /// Host and port.
        registry: String,
        /// What was asked.
        what: String,
        /// HTTP status.
        status: u16,
        /// The error code of the distribution specification.
        said: Option<String>,
    },
    /// An answer that breaks the rules.
    #[error("{registry} breaks the rules of registries: {cause}")]
    Rules {
        /// Host and port.
        registry: String,
        /// How.
        cause: String,
    },
    /// Other bytes than asked for.
    #[error("{registry} gives something else as {what}")]
    Untrue {
        /// Host and port.
        registry: String,
        /// What was asked for.
        what: String,
        /// What differs.
        #[source]
        source: VerifyError,
    },
    /// More bytes than are read.
    #[error("{registry} answers {what} with more than {limit} bytes")]
    TooLarge {
        /// Host and port.
        registry: String,
        /// What was asked for.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// It is no image.
    #[error("{reference} cannot be moved")]
    Content {
        /// Its name.
        reference: String,
        /// Why.
        #[source]
        source: ContentError,
    },
    /// An index that points at nothing.
    #[error("{reference} is not whole: its manifest {child}{} is not there", platform.as_deref().map(|platform| format!(" for {platform}")).unwrap_or_default())]
    Incomplete {
        /// Its name.
        reference: String,
        /// The manifest.
        child: Digest,
        /// What it is for.
        platform: Option<String>,
    },
    /// Reading or writing here failed.
    #[error("cannot {action}")]
    Local {
        /// What was tried.
        action: &'static str,
        /// The refusal.
        #[source]
        source: io::Error,
    },
}

/// What the caller decides.
pub struct Settings {
    /// Certificate authorities that are believed.
    pub roots: RootCertStore,
    /// Registries (`host` or `host:port`) that are spoken to in plain HTTP.
    pub plain_http: BTreeSet<String>,
    /// Where credentials come from.
    pub logins: Arc<dyn Logins>,
}

/// Speaks to registries. Remembers tokens and how each is spoken to for as long as it lives.
pub struct Remote {
    client: Client,
    plain_http: BTreeSet<String>,
    bases: Mutex<BTreeMap<String, Url>>,
    tokens: Tokens,
}

/// A repository and how it is reached.
struct Repository {
    registry: String,
    path: String,
    base: Url,
}

/// A document as it came.
struct Fetched {
    descriptor: Descriptor,
    bytes: Vec<u8>,
}

impl Remote {
    /// Makes a client.
    ///
    /// # Errors
    /// [`RemoteError::Client`].
    pub fn new(settings: Settings) -> Result<Remote, RemoteError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| RemoteError::Client(error.to_string()))?
            .with_root_certificates(settings.roots)
            .with_no_client_auth();
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .user_agent(concat!("karat/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| RemoteError::Client(chain(error)))?;
        Ok(Remote {
            client,
            plain_http: settings.plain_http,
            bases: Mutex::default(),
            tokens: Tokens::new(settings.logins),
        })
    }

    async fn repository(&self, reference: &RegistryReference) -> Result<Repository, RemoteError> {
        let registry = reference.host().to_owned();
        let known = locked(&self.bases).get(&registry).cloned();
        let base = match known {
            Some(base) => base,
            None => {
                let base = self.base(&registry).await?;
                locked(&self.bases).insert(registry.clone(), base.clone());
                base
            }
        };
        Ok(Repository {
            registry,
            path: reference.repository.clone(),
            base,
        })
    }

    /// How a registry is spoken to.
    async fn base(&self, registry: &str) -> Result<Url, RemoteError> {
        let url = |scheme: &str| {
            Url::parse(&format!("{scheme}://{registry}/v2/")).map_err(|error| RemoteError::Rules {
                registry: registry.to_owned(),
                cause: error.to_string(),
            })
        };
        let (plain, secure) = (url("http")?, url("https")?);
        let named = |name: &String| name == registry || Some(name.as_str()) == plain.host_str();
        if self.plain_http.iter().any(named) {
            return Ok(plain);
        }
        // Nobody listens in between on a loopback address, and few registries there have a certificate. Who speaks TLS answers plain
        // HTTP with 400, or not at all.
        if is_loopback(&secure)
            && self.client.get(secure.clone()).send().await.is_err()
            && let Ok(answer) = self.client.get(plain.clone()).send().await
            && answer.status() != StatusCode::BAD_REQUEST
        {
            return Ok(plain);
        }
        Ok(secure)
    }

    /// Makes a request, with credentials where the registry wants them. What follows from 401 and from a server that is busy is
    /// dealt with; every other answer is the caller's.
    async fn ask(
        &self,
        repository: &Repository,
        actions: Actions,
        method: Method,
        url: Url,
        make: &(dyn Fn(RequestBuilder) -> RequestBuilder + Sync),
    ) -> Result<Response, RemoteError> {
        let mut url = url;
        let mut hops = 0;
        let mut tries = 1;
        let mut authenticated = false;
        loop {
            let ours = url.origin() == repository.base.origin();
            let mut request = make(self.client.request(method.clone(), url.clone()));
            if ours && let Some(header) = self.tokens.header(repository, actions) {
                request = request.header(reqwest::header::AUTHORIZATION, header);
            }
            let answer = request
                .send()
                .await
                .map_err(|error| unreachable(&url, error))?;
            let status = answer.status();
            if status == StatusCode::UNAUTHORIZED && ours && !authenticated {
                let headers = answer.headers().clone();
                self.tokens
                    .fetch(&self.client, repository, actions, &headers)
                    .await?;
                authenticated = true;
            } else if is_busy(status) && tries < TRIES {
                tokio::time::sleep(wait_of(answer.headers(), tries)).await;
                tries += 1;
            } else if status.is_redirection()
                && matches!(method, Method::GET | Method::HEAD)
                && let Some(next) = next(&url, answer.headers())
            {
                hops += 1;
                let secure = next.scheme() == "https"
                    || (next.scheme() == "http" && repository.base.scheme() == "http");
                if hops > HOPS || !secure || next.host_str().is_none() {
                    return Err(RemoteError::Rules {
                        registry: repository.registry.clone(),
                        cause: "it sends us on without an end, or to no https address".to_owned(),
                    });
                }
                url = next;
            } else if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) && ours {
                return Err(self.tokens.denied(repository, actions));
            } else {
                return Ok(answer);
            }
        }
    }

    /// An index or manifest, by digest or by tag.
    async fn document(
        &self,
        repository: &Repository,
        wanted: &str,
        size: Option<u64>,
    ) -> Result<Fetched, RemoteError> {
        let what = || format!("{}@{wanted}", repository.path);
        let url = repository.url(&format!("manifests/{wanted}"))?;
        let accept = DOCUMENTS.join(", ");
        let make = |request: RequestBuilder| request.header(ACCEPT, accept.as_str());
        let answer = self
            .ask(repository, Actions::Pull, Method::GET, url, &make)
            .await?;
        let answer = repository.expect(answer, StatusCode::OK, &what).await?;
        let media_type = answer
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .unwrap_or_default()
            .trim()
            .to_owned();
        let bytes = repository.bytes(answer, DOCUMENT_MAX, &what).await?;
        let actual = Digest::of(&bytes);
        if let Ok(expected) = wanted.parse::<Digest>() {
            let mut verifier = Verifier::new(expected, size.unwrap_or(bytes.len() as u64));
            let true_ = verifier.update(&bytes).and_then(|()| verifier.finish());
            true_.map_err(|source| RemoteError::Untrue {
                registry: repository.registry.clone(),
                what: what(),
                source,
            })?;
        }
        Ok(Fetched {
            descriptor: Descriptor::new(&media_type, actual, bytes.len() as u64),
            bytes,
        })
    }

    /// Whether something is there, below `manifests/` or `blobs/`.
    async fn is_there(
        &self,
        repository: &Repository,
        actions: Actions,
        path: &str,
    ) -> Result<Option<Response>, RemoteError> {
        let url = repository.url(path)?;
        let accept = DOCUMENTS.join(", ");
        let make = |request: RequestBuilder| request.header(ACCEPT, accept.as_str());
        let answer = self
            .ask(repository, actions, Method::HEAD, url, &make)
            .await?;
        match answer.status() {
            StatusCode::OK => Ok(Some(answer)),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(RemoteError::Answer {
                registry: repository.registry.clone(),
                what: format!("{}/{path}", repository.path),
                status: status.as_u16(),
                said: None,
            }),
        }
    }

    /// Reads a blob, hashing as it comes.
    async fn blob(
        &self,
        repository: &Repository,
        digest: Digest,
        size: u64,
        sink: &mut (dyn io::Write + Send),
    ) -> Result<(), RemoteError> {
        let what = || format!("{}@{digest}", repository.path);
        let url = repository.url(&format!("blobs/{digest}"))?;
        let answer = self
            .ask(repository, Actions::Pull, Method::GET, url, &|request| {
                request
            })
            .await?;
        let mut answer = repository.expect(answer, StatusCode::OK, &what).await?;
        let untrue = |source| RemoteError::Untrue {
            registry: repository.registry.clone(),
            what: what(),
            source,
        };
        let mut verifier = Verifier::new(digest, size);
        let at = answer.url().clone();
        while let Some(piece) = answer
            .chunk()
            .await
            .map_err(|error| unreachable(&at, error))?
        {
            verifier.update(&piece).map_err(untrue)?;
            sink.write_all(&piece)
                .map_err(|source| RemoteError::Local {
                    action: "keep what was read",
                    source,
                })?;
        }
        verifier.finish().map_err(untrue)
    }
}

impl Repository {
    fn url(&self, path: &str) -> Result<Url, RemoteError> {
        let joined = self.base.join(&format!("{}/{path}", self.path));
        joined.map_err(|error| self.breaks(error.to_string()))
    }

    fn breaks(&self, cause: impl Into<String>) -> RemoteError {
        RemoteError::Rules {
            registry: self.registry.clone(),
            cause: cause.into(),
        }
    }

    /// The answer, if it has this status; what is wrong otherwise.
    async fn expect(
        &self,
        answer: Response,
        status: StatusCode,
        what: &(dyn Fn() -> String + Sync),
    ) -> Result<Response, RemoteError> {
        let found = answer.status();
        if found == status {
            return Ok(answer);
        }
        if found == StatusCode::NOT_FOUND && status == StatusCode::OK {
            return Err(RemoteError::Absent(format!("{}/{}", self.registry, what())));
        }
        let body = self.bytes(answer, SAID_MAX, what).await.unwrap_or_default();
        Err(RemoteError::Answer {
            registry: self.registry.clone(),
            what: what(),
            status: found.as_u16(),
            said: code(&body),
        })
    }

    async fn bytes(
        &self,
        mut answer: Response,
        limit: u64,
        what: &(dyn Fn() -> String + Sync),
    ) -> Result<Vec<u8>, RemoteError> {
        let mut bytes = Vec::new();
        let at = answer.url().clone();
        while let Some(piece) = answer
            .chunk()
            .await
            .map_err(|error| unreachable(&at, error))?
        {
            if bytes.len() as u64 + piece.len() as u64 > limit {
                return Err(RemoteError::TooLarge {
                    registry: self.registry.clone(),
                    what: what(),
                    limit,
                });
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }
}

/// The code of an error of the distribution specification, and nothing else of what the server says.
fn code(body: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    let code = value["errors"][0]["code"].as_str()?;
    let is_code = code.len() <= 40 && code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    is_code.then(|| code.to_owned())
}

fn is_busy(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

fn wait_of(headers: &HeaderMap, tries: u32) -> Duration {
    let asked = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    let asked = asked
        .and_then(|text| text.parse().ok())
        .map(Duration::from_secs);
    asked.map_or(Duration::from_secs(u64::from(tries)), |wait| {
        wait.min(WAIT_MAX)
    })
}

fn next(url: &Url, headers: &HeaderMap) -> Option<Url> {
    url.join(headers.get(LOCATION)?.to_str().ok()?).ok()
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Without the address: a redirect's can hold a signature.
fn unreachable(url: &Url, error: reqwest::Error) -> RemoteError {
    let host = url.host_str().unwrap_or_default();
    let port = url
        .port()
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    RemoteError::Unreachable {
        registry: quoted(&format!("{host}{port}")),
        cause: chain(error),
    }
}

/// An error with its causes: the outer one of an HTTP client says next to nothing.
fn chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    quoted_within(&text, CAUSE_MAX)
}

fn locked<T>(value: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
