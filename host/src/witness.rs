//! The witness of a run: tokens that the cluster's own issuer signed, each about the run head of its moment.
//!
//! Whoever asks an API server for a token of a service account chooses the audience, and the issuer signs it with time,
//! account and uid. The audience here is [`audience`] of a run head, and for the last one of the statement. So the issuer's
//! key vouches that this evidence existed then. It vouches for nothing else: a proxy or another cluster can stand behind
//! the answers, and where the vendor holds the issuer's key, its word is the vendor's.
//!
//! `keeper` asks for tokens while a run goes on and keeps them in the run's folder, which is private. [`release`] lets
//! them into a bundle when the last one has expired, never before. `check` is the reviewer's side, `token` and
//! [`keys`] read what a stranger wrote, and [`issuer`] fetches keys from an issuer on the web.
//!
//! ```text
//! witness/tokens.json      in the order in which they were made: time, run head or digest of the statement, token
//! witness/account.json     the account as recorded, and the issuer's documents as the API server shows them
//! ```
//!
//! These two files are the only place where tokens are ever written, and redaction knows them by name alone: a token in
//! any other file is a leak. Probes can never ask for one, whatever is granted (`token-request` in [`crate::guard`]).

pub(crate) mod check;
pub mod issuer;
pub(crate) mod keeper;
pub mod keys;
pub(crate) mod token;

pub use check::{Grade, Witnessed};

use crate::bundle::WITNESS;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use token::Token;

/// Name of the tokens.
pub const TOKENS_FILE: &str = "tokens.json";
/// Name of the account and the issuer's documents.
pub const ACCOUNT_FILE: &str = "account.json";
/// Version of both files. Another one means another meaning.
const FORMAT: &str = "1.0";
/// How long a token lives: the least that API servers give.
pub(crate) const LIFETIME_SECONDS: u64 = 600;
/// Added to a token's end, because clocks differ.
const MARGIN: SignedDuration = SignedDuration::from_secs(60);
/// Most bytes of the tokens: thousands of attempts fit.
const TOKENS_FILE_MAX: u64 = 32 << 20;
/// Most bytes of the account and the issuer's documents.
const ACCOUNT_FILE_MAX: u64 = 4 << 20;

/// What a token is about, as its audience: `sha256` is a run head or the digest of the statement.
pub fn audience(sha256: &str) -> String {
    format!("urn:karat:witness:1:sha256:{sha256}")
}

/// What `tokens.json` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// Version of the file.
    pub format: String,
    /// In the order in which they were made.
    pub tokens: Vec<Entry>,
}

/// One token. It has either a head or a statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// When it came, RFC 3339, by the clock of the machine that ran the probes.
    pub at: String,
    /// The run head that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// The SHA-256 of the statement that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
    /// The token, a JSON Web Signature.
    pub token: String,
}

/// What `account.json` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Version of the file.
    pub format: String,
    /// The accounts, one for each time that the run was begun or gone on with.
    pub accounts: Vec<ServiceAccount>,
    /// `/.well-known/openid-configuration`; none where the operator may not read it.
    pub discovery: Option<Value>,
    /// `/openid/v1/jwks`; none where the operator may not read it.
    pub jwks: Option<Value>,
}

/// A service account, as it was when tokens of it were asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceAccount {
    /// Its namespace: the home of the run.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// Whether the witness of a run folder may be given away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    /// The run has none.
    Absent,
    /// The run, or its last part, was cut off before the last token.
    Unfinished,
    /// A token still lives, until then at the latest.
    Alive(Timestamp),
    /// Every token has expired.
    Expired,
}

/// The folder of the witness in a run folder or a bundle.
pub(crate) fn folder(root: &Path) -> PathBuf {
    root.join(WITNESS)
}

/// Whether a run was begun with a witness, and has not lost it.
pub fn is_there(run: &Path) -> bool {
    folder(run).is_dir()
}

/// Whether the witness of a run folder may be given away at a moment.
///
/// # Errors
/// The tokens cannot be read, or one of them does not say when it ends.
pub fn release(run: &Path, now: Timestamp) -> Result<Release, String> {
    let Some(tokens) = read_tokens(run)? else {
        return Ok(if is_there(run) {
            Release::Unfinished
        } else {
            Release::Absent
        });
    };
    let mut last: Option<Timestamp> = None;
    for (at, entry) in tokens.tokens.iter().enumerate() {
        let end = ends(entry).map_err(|cause| format!("token {}: {cause}", at + 1))?;
        last = Some(last.map_or(end, |last| last.max(end)));
    }
    // A live token is live, whatever else is missing.
    match last {
        Some(last) if now <= last => Ok(Release::Alive(last)),
        _ if tokens
            .tokens
            .last()
            .is_none_or(|entry| entry.statement.is_none()) =>
        {
            Ok(Release::Unfinished)
        }
        _ => Ok(Release::Expired),
    }
}

/// Whether the last token of a run folder is about this statement. It is not where somebody began to go on with the run and
/// did not come far.
///
/// # Errors
/// The tokens cannot be read.
pub(crate) fn is_about(run: &Path, statement: &str) -> Result<bool, String> {
    let tokens = read_tokens(run)?;
    let last = tokens.as_ref().and_then(|tokens| tokens.tokens.last());
    Ok(last.is_some_and(|last| last.statement.as_deref() == Some(statement)))
}

/// When a token is over by each of two clocks: the issuer's, and the one here, which saw it begin.
fn ends(entry: &Entry) -> Result<Timestamp, String> {
    let claims = Token::parse(&entry.token)?.claims;
    let (Some(expires), issued) = (claims.exp, claims.iat) else {
        return Err("it does not say when it expires".to_owned());
    };
    let wrong = |_| "its times are none".to_owned();
    let theirs = Timestamp::from_second(expires).map_err(wrong)?;
    let issued = Timestamp::from_second(issued).map_err(wrong)?;
    let seen: Timestamp = entry.at.parse().map_err(wrong)?;
    let ours = seen
        .checked_add(theirs.duration_since(issued))
        .map_err(wrong)?;
    theirs.max(ours).checked_add(MARGIN).map_err(wrong)
}

/// The tokens of a run folder or a bundle; none where there are none.
///
/// # Errors
/// The file is too large, no JSON, or of another version.
pub(crate) fn read_tokens(root: &Path) -> Result<Option<Tokens>, String> {
    let path = folder(root).join(TOKENS_FILE);
    let Some(bytes) = read_limited(&path, TOKENS_FILE_MAX)? else {
        return Ok(None);
    };
    let tokens: Tokens = serde_json::from_slice(&bytes)
        .map_err(|error| format!("{TOKENS_FILE}: no list of tokens: {error}"))?;
    readable(TOKENS_FILE, &tokens.format)?;
    Ok(Some(tokens))
}

/// The account of a run folder or a bundle; none where there is none.
///
/// # Errors
/// As [`read_tokens`].
pub(crate) fn read_account(root: &Path) -> Result<Option<Account>, String> {
    let path = folder(root).join(ACCOUNT_FILE);
    let Some(bytes) = read_limited(&path, ACCOUNT_FILE_MAX)? else {
        return Ok(None);
    };
    let account: Account = serde_json::from_slice(&bytes)
        .map_err(|error| format!("{ACCOUNT_FILE}: no account: {error}"))?;
    readable(ACCOUNT_FILE, &account.format)?;
    Ok(Some(account))
}

fn readable(file: &str, format: &str) -> Result<(), String> {
    if format == FORMAT {
        return Ok(());
    }
    let format: String = format.chars().take(40).collect();
    Err(format!(
        "{file}: format {format}, this release reads {FORMAT}"
    ))
}

fn read_limited(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{name}: {error}")),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("{name}: {error}"))?;
    if bytes.len() as u64 > limit {
        return Err(format!("{name}: larger than {limit} bytes"));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::BASE64URL_NOPAD;
    use serde_json::json;

    fn entry(at: &str, claims: &Value, last: bool) -> Entry {
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let token = format!("{}.{}.c2ln", part(&json!({"alg": "ES256"})), part(claims));
        let digest = "00".repeat(32);
        Entry {
            at: at.to_owned(),
            head: (!last).then(|| digest.clone()),
            statement: last.then_some(digest),
            token,
        }
    }

    fn claims(issued: i64, expires: Option<i64>) -> Value {
        json!({"iss": "https://i", "sub": "s", "aud": ["a"], "iat": issued, "exp": expires})
    }

    fn put(root: &Path, tokens: Vec<Entry>) {
        let file = Tokens {
            format: FORMAT.to_owned(),
            tokens,
        };
        fs::create_dir_all(folder(root)).unwrap();
        fs::write(
            folder(root).join(TOKENS_FILE),
            serde_json::to_vec(&file).unwrap(),
        )
        .unwrap();
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn no_token_is_let_go_while_it_lives_by_either_clock() {
        let root = tempfile::tempdir().unwrap();
        let release_at = |second| release(root.path(), at(second)).unwrap();
        assert_eq!(release_at(0), Release::Absent);
        // Both clocks agree.
        put(
            root.path(),
            vec![entry(
                "1970-01-01T00:16:40Z",
                &claims(1000, Some(1600)),
                true,
            )],
        );
        assert_eq!(release_at(1001), Release::Alive(at(1660)));
        assert_eq!(release_at(1660), Release::Alive(at(1660)));
        assert_eq!(release_at(1661), Release::Expired);
        // The clock here is 1000 s ahead: the token looks expired when it comes.
        put(
            root.path(),
            vec![entry(
                "1970-01-01T00:33:20Z",
                &claims(1000, Some(1600)),
                true,
            )],
        );
        assert_eq!(release_at(2001), Release::Alive(at(2660)));
        assert_eq!(release_at(2661), Release::Expired);
        // The clock here is behind.
        put(
            root.path(),
            vec![entry(
                "1970-01-01T00:00:00Z",
                &claims(1000, Some(1600)),
                true,
            )],
        );
        assert_eq!(release_at(700), Release::Alive(at(1660)));
        // An issuer that gave more than was asked for is believed.
        put(
            root.path(),
            vec![entry(
                "1970-01-01T00:16:40Z",
                &claims(1000, Some(5000)),
                true,
            )],
        );
        assert_eq!(release_at(4000), Release::Alive(at(5060)));
    }

    #[test]
    fn a_witness_that_was_cut_off_or_cannot_be_read_is_not_let_go() {
        let root = tempfile::tempdir().unwrap();
        let come = "1970-01-01T00:16:40Z";
        put(
            root.path(),
            vec![entry(come, &claims(1000, Some(1600)), false)],
        );
        assert_eq!(release(root.path(), at(1200)), Ok(Release::Alive(at(1660))));
        assert_eq!(release(root.path(), at(9000)), Ok(Release::Unfinished));
        put(root.path(), Vec::new());
        assert_eq!(release(root.path(), at(9000)), Ok(Release::Unfinished));
        for (token, why) in [
            (entry(come, &claims(1000, None), true), "expires"),
            (entry("yesterday", &claims(1000, Some(1600)), true), "times"),
            (
                entry(come, &claims(1000, Some(i64::MAX)), true),
                "its times",
            ),
        ] {
            put(root.path(), vec![token]);
            let error = release(root.path(), at(9000)).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        fs::write(
            folder(root.path()).join(TOKENS_FILE),
            r#"{"format":"2.0","tokens":[]}"#,
        )
        .unwrap();
        let error = release(root.path(), at(9000)).unwrap_err();
        assert!(error.contains("format 2.0"), "{error}");
    }
}
