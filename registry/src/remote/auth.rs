//! Credentials: what a registry asks for (RFC 7235), and the token that it takes in their place
//! (<https://distribution.github.io/distribution/spec/auth/token/>).
//!
//! A header that was accepted is kept for one repository and one kind of access. It is marked as sensitive, no type here shows
//! what it holds, and no message has a word of it.

use super::{RemoteError, Repository, chain, is_loopback, locked};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};

/// Most bytes of a token server's answer. The longest tokens that are known have some ten thousand.
const TOKEN_MAX: u64 = 256 << 10;
/// By which name token servers know us.
const CLIENT: &str = "karat";

/// What somebody logs in with.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// User and password.
    Password(String, String),
    /// What a token server gave at an earlier login.
    IdentityToken(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(hidden)")
    }
}

/// Knows credentials.
pub trait Logins: Send + Sync {
    /// Those for a registry, `host` or `host:port`; none where there are none. May take its time: it is called on a thread for
    /// that.
    ///
    /// # Errors
    /// Why they cannot be had; without a word of them.
    fn login(&self, registry: &str) -> Result<Option<Login>, String>;
}

/// What is to be done in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Actions {
    Pull,
    Push,
}

/// Headers that were accepted, and where new ones come from.
pub(super) struct Tokens {
    logins: Arc<dyn Logins>,
    headers: Mutex<BTreeMap<(String, String, Actions), HeaderValue>>,
    /// Registries to which credentials were sent.
    logged_in: Mutex<BTreeSet<String>>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Tokens {
    pub(super) fn new(logins: Arc<dyn Logins>) -> Tokens {
        Tokens {
            logins,
            headers: Mutex::default(),
            logged_in: Mutex::default(),
        }
    }

    pub(super) fn header(&self, repository: &Repository, actions: Actions) -> Option<HeaderValue> {
        locked(&self.headers)
            .get(&key(repository, actions))
            .cloned()
    }

    pub(super) fn denied(&self, repository: &Repository, actions: Actions) -> RemoteError {
        RemoteError::Denied {
            registry: repository.registry.clone(),
            repository: repository.path.clone(),
            doing: match actions {
                Actions::Pull => "reading",
                Actions::Push => "writing",
            },
            logged_in: locked(&self.logged_in).contains(&repository.registry),
        }
    }

    /// Gets what a refusal asks for.
    pub(super) async fn fetch(
        &self,
        client: &Client,
        repository: &Repository,
        actions: Actions,
        refusal: &HeaderMap,
    ) -> Result<(), RemoteError> {
        let login = self.login(repository).await?;
        let header = match challenge(refusal) {
            Some(Challenge::Basic) => match login {
                Some(Login::Password(user, password)) => basic(&user, &password),
                Some(Login::IdentityToken(_)) => {
                    return Err(RemoteError::Login {
                        registry: repository.registry.clone(),
                        cause: "there is a token, and the registry wants user and password"
                            .to_owned(),
                    });
                }
                None => return Err(self.denied(repository, actions)),
            },
            Some(Challenge::Bearer { realm, service }) => {
                let scope = format!(
                    "repository:{}:{}",
                    repository.path,
                    match actions {
                        Actions::Pull => "pull",
                        Actions::Push => "pull,push",
                    }
                );
                let token = self
                    .token(client, repository, actions, &realm, &service, &scope, login)
                    .await?;
                format!("Bearer {token}")
            }
            None => {
                return Err(
                    repository.breaks("it wants credentials and does not say of which kind")
                );
            }
        };
        let mut header = HeaderValue::from_str(&header)
            .map_err(|_| repository.breaks("its token is no word for a header"))?;
        header.set_sensitive(true);
        locked(&self.headers).insert(key(repository, actions), header);
        Ok(())
    }

    async fn login(&self, repository: &Repository) -> Result<Option<Login>, RemoteError> {
        let logins = self.logins.clone();
        let registry = repository.registry.clone();
        let found = tokio::task::spawn_blocking(move || logins.login(&registry)).await;
        let failed = |cause| RemoteError::Login {
            registry: repository.registry.clone(),
            cause,
        };
        let login = found
            .map_err(|error| failed(error.to_string()))?
            .map_err(failed)?;
        if login.is_some() {
            locked(&self.logged_in).insert(repository.registry.clone());
        }
        Ok(login)
    }

    #[expect(clippy::too_many_arguments, reason = "one request, written down once")]
    async fn token(
        &self,
        client: &Client,
        repository: &Repository,
        actions: Actions,
        realm: &str,
        service: &str,
        scope: &str,
        login: Option<Login>,
    ) -> Result<String, RemoteError> {
        let mut url = Url::parse(realm)
            .map_err(|_| repository.breaks("the address of its token server is none"))?;
        let secure = url.scheme() == "https"
            || (url.scheme() == "http"
                && repository.base.scheme() == "http"
                && (is_loopback(&url) || url.host_str() == repository.base.host_str()));
        if !secure || url.host_str().is_none() {
            return Err(repository.breaks("its token server has no https address"));
        }
        let request = match login {
            // OAuth 2, as the same specification has it for identity tokens.
            Some(Login::IdentityToken(token)) => {
                let form = Url::parse_with_params(
                    "form:/",
                    [
                        ("grant_type", "refresh_token"),
                        ("service", service),
                        ("client_id", CLIENT),
                        ("scope", scope),
                        ("refresh_token", token.as_str()),
                    ],
                );
                let form = form.map_err(|error| repository.breaks(error.to_string()))?;
                client
                    .post(url.clone())
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(form.query().unwrap_or_default().to_owned())
            }
            other => {
                url.query_pairs_mut()
                    .append_pair("service", service)
                    .append_pair("scope", scope)
                    .append_pair("client_id", CLIENT);
                match other {
                    Some(Login::Password(user, password)) => {
                        client.get(url.clone()).basic_auth(user, Some(password))
                    }
                    _ => client.get(url.clone()),
                }
            }
        };
        let answer = request
            .send()
            .await
            .map_err(|error| RemoteError::Unreachable {
                registry: format!("the token server of {}", repository.registry),
                cause: chain(error),
            })?;
        let what = || "the request for a token".to_owned();
        match answer.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(self.denied(repository, actions));
            }
            _ => {}
        }
        let answer = repository.expect(answer, StatusCode::OK, &what).await?;
        let bytes = repository.bytes(answer, TOKEN_MAX, &what).await?;
        let token: Option<Token> = serde_json::from_slice(&bytes).ok();
        token
            .and_then(|token| token.token.or(token.access_token))
            .filter(|token| !token.is_empty())
            .ok_or_else(|| repository.breaks("its token server gives no token"))
    }
}

fn key(repository: &Repository, actions: Actions) -> (String, String, Actions) {
    (
        repository.registry.clone(),
        repository.path.clone(),
        actions,
    )
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: String },
}

/// The best of what is asked for: a token rather than a password.
fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let mut found = None;
    for header in headers.get_all(WWW_AUTHENTICATE) {
        let Ok(challenges) = http_auth::parse_challenges(header.to_str().unwrap_or_default())
        else {
            continue;
        };
        for challenge in challenges {
            let value = |name: &str| {
                let mut params = challenge.params.iter();
                params
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = value("realm")
            {
                let service = value("service").unwrap_or_default();
                return Some(Challenge::Bearer { realm, service });
            }
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                found = Some(Challenge::Basic);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(values: &[&'static str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(value));
        }
        challenge(&headers)
    }

    #[test]
    fn a_token_is_asked_for_rather_than_a_password() {
        let bearer = Challenge::Bearer {
            realm: "https://auth.example/token?x=1,2".to_owned(),
            service: "registry.example".to_owned(),
        };
        let text = r#"Bearer realm="https://auth.example/token?x=1,2",service="registry.example",scope="repository:a:pull""#;
        assert_eq!(asked(&[r#"Basic realm="x""#, text]), Some(bearer));
        assert_eq!(asked(&[r#"basic realm="x""#]), Some(Challenge::Basic));
        for none in ["", "Bearer", "Negotiate", "Bearer service=\"x\""] {
            assert_eq!(asked(&[none]), None, "{none}");
        }
    }

    #[test]
    fn a_login_is_never_shown() {
        let login = Login::Password("user".to_owned(), "word".to_owned());
        assert_eq!(format!("{login:?}"), "Login(hidden)");
    }
}
