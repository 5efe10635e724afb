//! Asks the cluster's issuer for tokens while a run goes on, and keeps them in the run's folder.
//!
//! A witness has no holes: where a token cannot be had, all of it goes and the run goes on without, because a reviewer could
//! not tell a hole from a token that somebody took out.

use super::token::Token;
use super::{
    ACCOUNT_FILE, Account, Entry, FORMAT, LIFETIME_SECONDS, ServiceAccount, TOKENS_FILE, Tokens,
    audience, folder, read_account, read_tokens,
};
use crate::cluster::{Cluster, Request};
use crate::runfolder::{self, FolderError};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How often a token is asked for at most. One whose answer was lost does no harm: it is a token that nobody has.
const TRIES: u32 = 5;
/// How long one token may take in all. Attempts that are under way go on meanwhile; new ones wait.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most bytes of a document of the issuer.
const DOCUMENT_MAX: u64 = 1 << 20;
/// API servers give the key set in this type alone.
const ACCEPT: &str = "application/json, application/jwk-set+json, */*";

/// What a token is to be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About<'a> {
    /// A run head.
    Head(&'a str),
    /// The SHA-256 of the statement.
    Statement(&'a str),
}

/// The witness of a run that goes on.
#[derive(Debug)]
pub(crate) struct Keeper {
    cluster: Cluster,
    run: PathBuf,
    service_account: ServiceAccount,
    account: Account,
    tokens: Tokens,
}

/// Makes the place of a witness in a run folder, so that a run that goes on later knows that it has one.
///
/// # Errors
/// The file system refuses.
pub(crate) fn make_room(run: &Path) -> Result<(), FolderError> {
    runfolder::make_private(&folder(run))
}

impl Keeper {
    /// Begins, or goes on where an earlier part of the run stopped. Gives what the operator should know beside it.
    ///
    /// # Errors
    /// What is there cannot be read, or the file system refuses.
    pub(crate) async fn begin(
        cluster: Cluster,
        run: &Path,
        service_account: ServiceAccount,
    ) -> Result<(Keeper, Vec<String>), String> {
        let mut tokens = read_tokens(run)?.unwrap_or_else(|| Tokens {
            format: FORMAT.to_owned(),
            tokens: Vec::new(),
        });
        // The statement that it was about is no more when the run goes on.
        tokens.tokens.retain(|entry| entry.statement.is_none());
        let mut account = read_account(run)?.unwrap_or_else(|| Account {
            format: FORMAT.to_owned(),
            accounts: Vec::new(),
            discovery: None,
            jwks: None,
        });
        if account.accounts.last() != Some(&service_account) {
            account.accounts.push(service_account.clone());
        }
        let mut keeper = Keeper {
            cluster,
            run: run.to_owned(),
            service_account,
            account,
            tokens,
        };
        let warnings = keeper.read_issuer().await;
        keeper.save().map_err(|error| told(&error))?;
        Ok((keeper, warnings))
    }

    /// Asks for a token and keeps it.
    ///
    /// # Errors
    /// There is none; the text says why.
    pub(crate) async fn ask(&mut self, about: About<'_>) -> Result<(), String> {
        let (About::Head(sha256) | About::Statement(sha256)) = about;
        let token = timeout(PATIENCE, self.mint(sha256))
            .await
            .map_err(|_| format!("no token within {} s", PATIENCE.as_secs()))??;
        let (head, statement) = match about {
            About::Head(_) => (Some(sha256.to_owned()), None),
            About::Statement(_) => (None, Some(sha256.to_owned())),
        };
        self.tokens.tokens.push(Entry {
            at: Timestamp::now().to_string(),
            head,
            statement,
            token,
        });
        if matches!(about, About::Statement(_)) {
            // Keys may have changed in the middle of a long run; what cannot be read now was read at the start.
            let _ = self.read_issuer().await;
        }
        self.save().map_err(|error| told(&error))
    }

    /// Takes away what there is.
    pub(crate) fn give_up(self) {
        // A folder that stays is told again by whoever makes a bundle of the run: it has no last token.
        let _ = fs::remove_dir_all(folder(&self.run));
    }

    async fn mint(&self, sha256: &str) -> Result<String, String> {
        let ServiceAccount {
            namespace, name, ..
        } = &self.service_account;
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": [audience(sha256)], "expirationSeconds": LIFETIME_SECONDS},
        });
        let mut pause = self.cluster.back_off();
        let mut tries = 1;
        let answer = loop {
            match self.cluster.create_json(&path, &body).await {
                Ok(answer) => break answer,
                Err(error) if tries < TRIES && error.code().is_none_or(|code| code >= 500) => {}
                Err(error) => return Err(error.to_string()),
            }
            sleep(pause).await;
            pause *= 2;
            tries += 1;
        };
        let token = answer["status"]["token"].as_str().unwrap_or_default();
        self.fits(token, sha256)
            .map_err(|cause| format!("the server gave a token that cannot be used: {cause}"))?;
        Ok(token.to_owned())
    }

    /// Told now, to the one who can still do something, what a reviewer would find.
    fn fits(&self, token: &str, sha256: &str) -> Result<(), String> {
        let claims = Token::parse(token)?.claims;
        if claims.aud.only() != Some(&audience(sha256)) {
            return Err("it is for another audience".to_owned());
        }
        if claims.exp.is_none() {
            return Err("it never expires".to_owned());
        }
        let uid = claims.kubernetes.map(|claim| claim.serviceaccount.uid);
        if uid.as_ref() != Some(&self.service_account.uid) {
            return Err("it is of another account".to_owned());
        }
        Ok(())
    }

    /// The issuer's documents as the API server shows them; keys that were seen before stay.
    async fn read_issuer(&mut self) -> Vec<String> {
        let mut warnings = Vec::new();
        match self.document("/.well-known/openid-configuration").await {
            Ok(discovery) => self.account.discovery = Some(discovery),
            Err(cause) => warnings.push(cause),
        }
        match self.document("/openid/v1/jwks").await {
            Ok(mut jwks) => {
                if let (Some(keys), Some(known)) = (
                    jwks["keys"].as_array_mut(),
                    self.account
                        .jwks
                        .as_ref()
                        .and_then(|known| known["keys"].as_array()),
                ) {
                    let gone: Vec<Value> = known
                        .iter()
                        .filter(|key| !keys.contains(key))
                        .cloned()
                        .collect();
                    keys.extend(gone);
                }
                self.account.jwks = Some(jwks);
            }
            Err(cause) => warnings.push(cause),
        }
        warnings
            .into_iter()
            .map(|cause| {
                format!(
                    "the witness lacks a document of the issuer, which the reviewer has to bring then (--issuer-keys, --online): {cause}"
                )
            })
            .collect()
    }

    async fn document(&self, path: &str) -> Result<Value, String> {
        let mut request = Request::get(path).limited(DOCUMENT_MAX);
        request.accept = ACCEPT;
        self.cluster
            .send_json(&request)
            .await
            .map_err(|error| error.to_string())
    }

    fn save(&self) -> Result<(), FolderError> {
        make_room(&self.run)?;
        let folder = folder(&self.run);
        runfolder::replace_json(&folder.join(ACCOUNT_FILE), &self.account)?;
        runfolder::replace_json(&folder.join(TOKENS_FILE), &self.tokens)
    }
}

/// With the cause: the error of a folder names only the file.
fn told(error: &FolderError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::BASE64URL_NOPAD;
    use http_body_util::BodyExt as _;
    use kube::client::Body;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn service_account() -> ServiceAccount {
        ServiceAccount {
            namespace: "karat-abcdefgh-home".to_owned(),
            name: "karat-witness".to_owned(),
            uid: "uid-1".to_owned(),
        }
    }

    fn token(audience: &str, uid: &str, exp: Option<u64>) -> String {
        let part = |value: Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        format!(
            "{}.{}.c2ln",
            part(json!({"alg": "ES256"})),
            part(json!({
                "iss": "https://i", "sub": "s", "aud": [audience], "iat": 1, "exp": exp,
                "kubernetes.io": {"namespace": "n", "serviceaccount": {"name": "karat-witness", "uid": uid}},
            }))
        )
    }

    /// An API server that answers a path and body with a status and a document.
    fn scripted(answer: impl Fn(&str, &Value) -> (u16, Value) + Send + Sync + 'static) -> Cluster {
        let answer = Arc::new(answer);
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let answer = Arc::clone(&answer);
            async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let body = serde_json::from_slice(&body).unwrap_or_default();
                let (code, document) = answer(&path, &body);
                Ok::<_, std::io::Error>(
                    http::Response::builder()
                        .status(code)
                        .header("content-type", "application/json")
                        .body(Body::from(document.to_string().into_bytes()))
                        .unwrap(),
                )
            }
        });
        Cluster::for_test(kube::Client::new(service, "default"))
    }

    fn honest(path: &str, body: &Value, keys: &Value) -> (u16, Value) {
        match path {
            "/openid/v1/jwks" => (200, json!({"keys": keys})),
            "/.well-known/openid-configuration" => (200, json!({"issuer": "https://i"})),
            _ => {
                let audience = body["spec"]["audiences"][0].as_str().unwrap();
                let token = token(audience, "uid-1", Some(601));
                (201, json!({"status": {"token": token}}))
            }
        }
    }

    async fn begun(cluster: Cluster, run: &Path) -> Keeper {
        let (keeper, warnings) = Keeper::begin(cluster, run, service_account())
            .await
            .unwrap();
        assert_eq!(warnings, Vec::<String>::new());
        keeper
    }

    #[tokio::test]
    async fn tokens_are_asked_for_by_audience_and_kept_in_order() {
        let run = tempfile::tempdir().unwrap();
        let cluster = scripted(|path, body| {
            if path.ends_with("/token") {
                assert_eq!(
                    path,
                    "/api/v1/namespaces/karat-abcdefgh-home/serviceaccounts/karat-witness/token"
                );
                assert_eq!(body["spec"]["expirationSeconds"], 600);
            }
            honest(path, body, &json!([{"kid": "a"}]))
        });
        let mut keeper = begun(cluster, run.path()).await;
        let (first, second, last) = ("00".repeat(32), "11".repeat(32), "22".repeat(32));
        keeper.ask(About::Head(&first)).await.unwrap();
        keeper.ask(About::Head(&second)).await.unwrap();
        keeper.ask(About::Statement(&last)).await.unwrap();
        let tokens = read_tokens(run.path()).unwrap().unwrap().tokens;
        let about: Vec<_> = tokens
            .iter()
            .map(|entry| (entry.head.as_deref(), entry.statement.as_deref()))
            .collect();
        assert_eq!(
            about,
            [
                (Some(first.as_str()), None),
                (Some(second.as_str()), None),
                (None, Some(last.as_str()))
            ]
        );
        let audiences: Vec<_> = tokens
            .iter()
            .map(|entry| Token::parse(&entry.token).unwrap().claims.aud)
            .map(|aud| aud.only().unwrap().to_owned())
            .collect();
        assert_eq!(
            audiences,
            [audience(&first), audience(&second), audience(&last)]
        );
    }

    #[tokio::test]
    async fn a_run_that_goes_on_keeps_its_heads_and_the_keys_of_before() {
        let run = tempfile::tempdir().unwrap();
        let keys = |kid: &'static str| {
            scripted(move |path, body| honest(path, body, &json!([{"kid": kid}])))
        };
        let head = "00".repeat(32);
        let mut keeper = begun(keys("old"), run.path()).await;
        keeper.ask(About::Head(&head)).await.unwrap();
        keeper.ask(About::Statement(&head)).await.unwrap();
        let mut again = begun(keys("new"), run.path()).await;
        again.ask(About::Head(&head)).await.unwrap();
        let tokens = read_tokens(run.path()).unwrap().unwrap().tokens;
        assert_eq!(tokens.len(), 2);
        assert!(tokens.iter().all(|entry| entry.statement.is_none()));
        let account = read_account(run.path()).unwrap().unwrap();
        assert_eq!(account.accounts, [service_account()]);
        assert_eq!(
            account.jwks,
            Some(json!({"keys": [{"kid": "new"}, {"kid": "old"}]}))
        );
        again.give_up();
        assert!(!super::super::is_there(run.path()));
    }

    #[tokio::test]
    async fn a_token_is_asked_for_again_after_a_failure_of_the_server_but_not_after_a_no() {
        for (code, wanted) in [(503, TRIES), (403, 1)] {
            let run = tempfile::tempdir().unwrap();
            let asked = Arc::new(AtomicU32::new(0));
            let counter = Arc::clone(&asked);
            let cluster = scripted(move |path, body| {
                if path.ends_with("/token") {
                    counter.fetch_add(1, Ordering::Relaxed);
                    return (
                        code,
                        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}),
                    );
                }
                honest(path, body, &json!([]))
            });
            let mut keeper = begun(cluster, run.path()).await;
            let error = keeper.ask(About::Head("00")).await.unwrap_err();
            assert!(error.contains(&code.to_string()), "{error}");
            assert_eq!(asked.load(Ordering::Relaxed), wanted);
        }
    }

    #[tokio::test]
    async fn tokens_that_no_reviewer_would_take_are_told_at_once() {
        for (answer, why) in [
            (token("https://kubernetes", "uid-1", Some(1)), "audience"),
            (token(&audience("00"), "uid-2", Some(1)), "another account"),
            (token(&audience("00"), "uid-1", None), "never expires"),
            (String::new(), "no token"),
        ] {
            let run = tempfile::tempdir().unwrap();
            let cluster = scripted(move |path, body| match path.ends_with("/token") {
                true => (201, json!({"status": {"token": answer}})),
                false => honest(path, body, &json!([])),
            });
            let mut keeper = begun(cluster, run.path()).await;
            let error = keeper.ask(About::Head("00")).await.unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[tokio::test]
    async fn an_issuer_whose_documents_are_forbidden_is_a_warning() {
        let run = tempfile::tempdir().unwrap();
        let cluster = scripted(|path, body| match path.starts_with("/api/") {
            true => honest(path, body, &json!([])),
            false => (
                403,
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403}),
            ),
        });
        let (mut keeper, warnings) = Keeper::begin(cluster, run.path(), service_account())
            .await
            .unwrap();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        keeper.ask(About::Head("00")).await.unwrap();
        let account = read_account(run.path()).unwrap().unwrap();
        assert_eq!((account.discovery, account.jwks), (None, None));
    }
}
