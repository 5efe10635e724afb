//! The reviewer's side: whether the tokens of a bundle are about exactly this run, and whose keys say so.
//!
//! `exp` is not looked at, on purpose: tokens of a bundle have expired, and what counts is when they were made. The heads
//! come from the record; that the recordings have them is found out by the replay.

use super::issuer::{Fetched, Online};
use super::keys::{KeySet, Signed};
use super::token::Token;
use super::{
    ACCOUNT_FILE, Account, Entry, ServiceAccount, TOKENS_FILE, audience, read_account, read_tokens,
};
use crate::bundle::WITNESS;
use crate::names::{WITNESS_ACCOUNT, home_namespace};
use jiff::Timestamp;
use serde::Serialize;
use std::path::Path;

/// Most findings about single tokens; whoever has more has seen enough.
const FINDINGS: usize = 20;

/// Whose word the witness is, in rising order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    /// There is none, or it does not hold.
    #[default]
    None,
    /// The keys come from the bundle itself: worth as much as the vendor's signature.
    SelfAsserted,
    /// The keys come from the reviewer.
    Pinned,
    /// The keys come from the issuer, fetched now.
    Issuer,
}

impl Grade {
    /// The word of reports.
    pub fn word(self) -> &'static str {
        match self {
            Grade::None => "none",
            Grade::SelfAsserted => "self-asserted",
            Grade::Pinned => "pinned",
            Grade::Issuer => "issuer",
        }
    }
}

/// What the witness of a bundle comes to. Texts may quote the bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Witnessed {
    /// Whose word it is.
    pub grade: Grade,
    /// Who signed, as the tokens say.
    pub issuer: Option<String>,
    /// Number of tokens.
    pub tokens: usize,
    /// When the first was made, RFC 3339, by the issuer's clock.
    pub first: Option<String>,
    /// When the last was made.
    pub last: Option<String>,
    /// When the issuer's keys were fetched, RFC 3339.
    pub fetched: Option<String>,
}

/// What the bundle must be witnessed to be.
#[derive(Clone, Debug)]
pub(crate) struct Expected<'a> {
    /// Run id.
    pub(crate) run: &'a str,
    /// The run heads in their order, the one before the first recording included.
    pub(crate) heads: Vec<String>,
    /// SHA-256 of the statement.
    pub(crate) statement: Option<String>,
}

/// Keys that the reviewer brings.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Keys<'a> {
    pub(crate) pinned: Option<&'a KeySet>,
    pub(crate) online: Option<&'a Online>,
}

/// What was found out. Lines have a subject and a message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checked {
    pub(crate) witnessed: Witnessed,
    pub(crate) findings: Vec<(String, String)>,
    pub(crate) unchecked: Vec<(String, String)>,
}

impl Checked {
    fn find(&mut self, subject: impl Into<String>, message: impl Into<String>) {
        if self.findings.len() < FINDINGS {
            self.findings.push((subject.into(), message.into()));
        }
    }

    fn skip(&mut self, message: impl Into<String>) {
        self.unchecked.push((WITNESS.to_owned(), message.into()));
    }
}

/// Checks the witness of a bundle.
pub(crate) async fn check(root: &Path, expected: &Expected<'_>, keys: Keys<'_>) -> Checked {
    let mut done = Checked::default();
    let tokens_file = format!("{WITNESS}/{TOKENS_FILE}");
    let (entries, account) = match (read_tokens(root), read_account(root)) {
        (Ok(None), Ok(None)) => return done,
        (Ok(Some(tokens)), Ok(Some(account))) => (tokens.tokens, account),
        (tokens, account) => {
            for (file, missing, error) in [
                (TOKENS_FILE, matches!(tokens, Ok(None)), tokens.err()),
                (ACCOUNT_FILE, matches!(account, Ok(None)), account.err()),
            ] {
                if let Some(cause) = error {
                    done.find(format!("{WITNESS}/{file}"), cause);
                } else if missing {
                    done.find(
                        format!("{WITNESS}/{file}"),
                        "it is not there: it was removed",
                    );
                }
            }
            return done;
        }
    };
    let mut tokens = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        match Token::parse(&entry.token) {
            Ok(token) => tokens.push(token),
            Err(cause) => done.find(named(at), cause),
        }
    }
    if !done.findings.is_empty() {
        return done;
    }
    let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else {
        done.find(tokens_file, "it holds no token");
        return done;
    };
    let issuer = first.claims.iss.clone();
    if !is_name(&issuer) {
        done.find(
            named(0),
            "its issuer is no address that anybody could look at",
        );
        return done;
    }
    let time = |second: i64| Timestamp::from_second(second).ok().map(|at| at.to_string());
    done.witnessed = Witnessed {
        grade: Grade::None,
        issuer: Some(issuer.clone()),
        tokens: tokens.len(),
        first: time(first.claims.iat),
        last: time(last.claims.iat),
        fetched: None,
    };
    who(&mut done, &tokens, &account, expected.run);
    what(&mut done, &entries, &tokens, expected);
    let grade = signed(&mut done, &tokens, &account, &issuer, keys).await;
    if done.findings.is_empty() {
        done.witnessed.grade = grade;
    } else {
        // A witness that does not hold is none, and its words about itself are worth nothing.
        done.witnessed = Witnessed::default();
    }
    done
}

/// Every report names the issuer, so its name is text that is safe in all of them.
fn is_name(issuer: &str) -> bool {
    (1..=300).contains(&issuer.len())
        && issuer
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~:/?@!$&()*+,;=%".contains(&byte))
}

fn named(at: usize) -> String {
    format!("{WITNESS}/{TOKENS_FILE} token {}", at + 1)
}

/// Issuer, account and order of the tokens.
fn who(done: &mut Checked, tokens: &[Token], account: &Account, run: &str) {
    let account_file = format!("{WITNESS}/{ACCOUNT_FILE}");
    let home = home_namespace(run);
    let own = |known: &ServiceAccount| known.namespace == home && known.name == WITNESS_ACCOUNT;
    if account.accounts.is_empty() || !account.accounts.iter().all(own) {
        done.find(
            &account_file,
            format!("the witness of this run is the account {WITNESS_ACCOUNT} in {home}, and this is another one"),
        );
    }
    let issuer = tokens.first().map(|token| &token.claims.iss);
    if let Some(discovery) = &account.discovery
        && discovery["issuer"].as_str() != issuer.map(String::as_str)
    {
        done.find(
            &account_file,
            "the discovery document is of another issuer than the tokens",
        );
    }
    let subject = format!("system:serviceaccount:{home}:{WITNESS_ACCOUNT}");
    let mut session = 0;
    let mut before = i64::MIN;
    for (at, token) in tokens.iter().enumerate() {
        let claims = &token.claims;
        if Some(&claims.iss) != issuer {
            done.find(named(at), "another issuer signed it than the first one");
        }
        if claims.sub != subject {
            done.find(
                named(at),
                format!(
                    "it is a token of {}, not of the witness of this run",
                    claims.sub.chars().take(200).collect::<String>()
                ),
            );
        }
        let Some(named_account) = &claims.kubernetes else {
            done.find(named(at), "it does not say which account it is of");
            continue;
        };
        let object = &named_account.serviceaccount;
        // Accounts follow each other, one for each time that the run was gone on with.
        let place = account
            .accounts
            .iter()
            .skip(session)
            .position(|known| known.uid == object.uid);
        match place {
            Some(place) if named_account.namespace == home && object.name == WITNESS_ACCOUNT => {
                session += place;
            }
            _ => done.find(
                named(at),
                format!(
                    "it is of the account with uid {}, which {ACCOUNT_FILE} does not name at this place",
                    object.uid.chars().take(80).collect::<String>()
                ),
            ),
        }
        if claims.iat < before {
            done.find(
                named(at),
                "it is older than the one in front of it: they were reordered",
            );
        }
        before = claims.iat;
    }
}

/// What the tokens are about: every run head in its order, then the statement.
fn what(done: &mut Checked, entries: &[Entry], tokens: &[Token], expected: &Expected<'_>) {
    let heads = &expected.heads;
    let mut next = 0;
    for (at, (entry, token)) in entries.iter().zip(tokens).enumerate() {
        let is_last = at + 1 == entries.len();
        let listed = match (&entry.head, &entry.statement) {
            (Some(listed), None) | (None, Some(listed)) => listed,
            _ => {
                done.find(
                    named(at),
                    "it is listed with neither a head nor a statement, or with both",
                );
                return;
            }
        };
        if token.claims.aud.only() != Some(&audience(listed)) {
            done.find(
                named(at),
                "its audience is not what it is listed with: it was made for something else",
            );
            return;
        }
        if entry.statement.is_some() {
            if !is_last {
                done.find(named(at), "it is about a statement, and others follow");
                return;
            }
            if expected.statement.as_ref() != Some(listed) {
                done.find(
                    named(at),
                    "it is about another statement: run.json or a recording was changed since",
                );
            }
        } else if heads.get(next) == Some(listed) {
            next += 1;
        } else if next == 0 || heads.get(next - 1) != Some(listed) {
            // The head of before comes again where a run was gone on with.
            done.find(
                named(at),
                format!("it is not about run head {next}: recordings were changed, or tokens removed or reordered"),
            );
            return;
        }
    }
    let file = format!("{WITNESS}/{TOKENS_FILE}");
    if next < heads.len() {
        done.find(
            &file,
            format!("there is no token about run head {next} of {}: it was removed, or recordings were added", heads.len() - 1),
        );
    }
    if entries.last().is_none_or(|entry| entry.statement.is_none()) {
        done.find(
            &file,
            "there is no token about the statement: it was removed",
        );
    }
}

/// Whose keys signed, as far as keys are there.
async fn signed(
    done: &mut Checked,
    tokens: &[Token],
    account: &Account,
    issuer: &str,
    keys: Keys<'_>,
) -> Grade {
    let mut grade = Grade::None;
    if let Some(jwks) = &account.jwks {
        match KeySet::from_value(jwks) {
            Ok(own) => {
                if all(done, tokens, &own, "no key of account.json signed it") {
                    grade = Grade::SelfAsserted;
                }
            }
            Err(error) => done.find(format!("{WITNESS}/{ACCOUNT_FILE}"), error.to_string()),
        }
    }
    if let Some(pinned) = keys.pinned
        && all(done, tokens, pinned, "no key that you gave signed it")
    {
        grade = Grade::Pinned;
    }
    if let Some(online) = keys.online
        // Nobody is asked about what does not hold anyway.
        && done.findings.is_empty()
    {
        match online.fetch(issuer).await {
            Ok(fetched) => {
                if published(done, tokens, &fetched) {
                    done.witnessed.fetched = Some(fetched.at.to_string());
                    grade = Grade::Issuer;
                }
            }
            Err(cause) => done.skip(format!("the issuer's keys cannot be fetched: {cause}")),
        }
    }
    if grade == Grade::None && done.findings.is_empty() && done.unchecked.is_empty() {
        done.skip("the bundle has no key of the issuer: give some with --issuer-keys, or fetch them with --online");
    }
    grade
}

/// Whether each token is signed by one of these keys; a finding for each that is not.
fn all(done: &mut Checked, tokens: &[Token], keys: &KeySet, otherwise: &str) -> bool {
    let mut all = true;
    for (at, token) in tokens.iter().enumerate() {
        if keys.signed(token) != Signed::Yes {
            all = false;
            done.find(named(at), otherwise);
        }
    }
    all
}

/// As [`all`], with the keys of today: one that is gone may have been there, since issuers change their keys.
fn published(done: &mut Checked, tokens: &[Token], fetched: &Fetched) -> bool {
    let mut gone = 0;
    let mut wrong = false;
    for (at, token) in tokens.iter().enumerate() {
        match fetched.keys.signed(token) {
            Signed::Yes => {}
            Signed::NoKey => gone += 1,
            Signed::No => {
                wrong = true;
                done.find(
                    named(at),
                    "the issuer publishes a key of this name, and it did not sign this",
                );
            }
        }
    }
    if gone > 0 {
        done.skip(format!(
            "the issuer publishes no key for {gone} of {} tokens: it changed its keys since, or they were never its own",
            tokens.len()
        ));
    }
    gone == 0 && !wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::witness::{FORMAT, Tokens, folder};
    use data_encoding::BASE64URL_NOPAD;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    use serde_json::{Value, json};
    use std::fs;

    const RUN: &str = "abcdefgh";

    /// An issuer with a key.
    struct Signer(EcdsaKeyPair);

    impl Signer {
        fn new() -> Signer {
            let random = SystemRandom::new();
            let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
            let document = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
            Signer(EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).unwrap())
        }

        fn jwks(&self) -> Value {
            let point = self.0.public_key().as_ref();
            let number = |from: usize| BASE64URL_NOPAD.encode(&point[from..from + 32]);
            json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k", "x": number(1), "y": number(33)}]})
        }

        fn token(&self, claims: &Value) -> String {
            let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
            let header = json!({"alg": "ES256", "kid": "k"});
            let signed = format!("{}.{}", part(&header), part(claims));
            let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes());
            format!(
                "{signed}.{}",
                BASE64URL_NOPAD.encode(signature.unwrap().as_ref())
            )
        }
    }

    fn head(at: u8) -> String {
        format!("{at:02x}").repeat(32)
    }

    fn expected() -> Expected<'static> {
        Expected {
            run: RUN,
            heads: (0..3).map(head).collect(),
            statement: Some(head(0xff)),
        }
    }

    fn account(uid: &str) -> ServiceAccount {
        ServiceAccount {
            namespace: home_namespace(RUN),
            name: WITNESS_ACCOUNT.to_owned(),
            uid: uid.to_owned(),
        }
    }

    /// A witness whose tokens are about these digests, the last of them the statement; `uids` by place.
    fn entries(signer: &Signer, about: &[(&str, u8)]) -> Vec<Entry> {
        let last = about.len() - 1;
        let entries = about.iter().enumerate().map(|(at, (uid, digest))| {
            let digest = head(*digest);
            let claims = json!({
                "iss": "https://issuer", "aud": [audience(&digest)], "iat": 1000 + at, "exp": 1600 + at,
                "sub": format!("system:serviceaccount:{}:{WITNESS_ACCOUNT}", home_namespace(RUN)),
                "kubernetes.io": {
                    "namespace": home_namespace(RUN),
                    "serviceaccount": {"name": WITNESS_ACCOUNT, "uid": uid},
                },
            });
            Entry {
                at: "2026-01-01T12:00:00Z".to_owned(),
                head: (at != last).then(|| digest.clone()),
                statement: (at == last).then_some(digest),
                token: signer.token(&claims),
            }
        });
        entries.collect()
    }

    async fn checked(signer: &Signer, tokens: Vec<Entry>, pinned: Option<&KeySet>) -> Checked {
        let root = tempfile::tempdir().unwrap();
        let at = folder(root.path());
        fs::create_dir(&at).unwrap();
        let tokens = Tokens {
            format: FORMAT.to_owned(),
            tokens,
        };
        let known = Account {
            format: FORMAT.to_owned(),
            accounts: vec![account("first"), account("second")],
            discovery: Some(json!({"issuer": "https://issuer"})),
            jwks: Some(signer.jwks()),
        };
        fs::write(at.join(TOKENS_FILE), json!(tokens).to_string()).unwrap();
        fs::write(at.join(ACCOUNT_FILE), json!(known).to_string()).unwrap();
        let keys = Keys {
            pinned,
            online: None,
        };
        check(root.path(), &expected(), keys).await
    }

    #[tokio::test]
    async fn every_head_in_its_order_and_then_the_statement() {
        let signer = Signer::new();
        let done = checked(
            &signer,
            entries(
                &signer,
                &[("first", 0), ("first", 1), ("first", 2), ("first", 0xff)],
            ),
            None,
        )
        .await;
        assert_eq!(done.findings, []);
        assert_eq!(
            done.witnessed,
            Witnessed {
                grade: Grade::SelfAsserted,
                issuer: Some("https://issuer".to_owned()),
                tokens: 4,
                first: Some("1970-01-01T00:16:40Z".to_owned()),
                last: Some("1970-01-01T00:16:43Z".to_owned()),
                fetched: None,
            }
        );
        // A run that was gone on with has its last head again, by the next account.
        let again = [
            ("first", 0),
            ("first", 1),
            ("second", 1),
            ("second", 2),
            ("second", 0xff),
        ];
        let done = checked(&signer, entries(&signer, &again), None).await;
        assert_eq!(done.findings, []);
        for (about, why) in [
            (vec![("first", 0), ("first", 2), ("first", 0xff)], "head 1"),
            (vec![("first", 1), ("first", 2), ("first", 0xff)], "head 0"),
            (vec![("first", 0), ("first", 1), ("first", 0xff)], "head 2"),
            (
                vec![
                    ("first", 0),
                    ("first", 1),
                    ("first", 0),
                    ("first", 2),
                    ("first", 0xff),
                ],
                "head 2",
            ),
            (
                vec![("first", 0), ("first", 1), ("first", 2), ("first", 0xfe)],
                "another statement",
            ),
            (
                vec![("second", 0), ("first", 1), ("first", 2), ("first", 0xff)],
                "uid first",
            ),
            (
                vec![("first", 0), ("first", 1), ("first", 2), ("third", 0xff)],
                "uid third",
            ),
        ] {
            let done = checked(&signer, entries(&signer, &about), None).await;
            assert!(
                done.findings.iter().any(|(_, told)| told.contains(why)),
                "{why}: {:?}",
                done.findings
            );
            assert_eq!(done.witnessed, Witnessed::default(), "{why}");
        }
    }

    #[test]
    fn a_name_of_an_issuer_is_an_address() {
        for good in [
            "https://oidc.eks.eu-west-1.amazonaws.com/id/0123ABCD",
            "https://container.googleapis.com/v1/projects/p/locations/l/clusters/c",
            "kubernetes/serviceaccount",
        ] {
            assert!(is_name(good), "{good}");
        }
        let long = "x".repeat(301);
        for bad in [
            "",
            "a b",
            "<b>",
            "a\"",
            "`x`",
            "[x](y)",
            "a\n::error::",
            "\u{202e}",
            &long,
        ] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn keys_of_the_reviewer_outdo_those_of_the_bundle() {
        let (signer, other) = (Signer::new(), Signer::new());
        let whole = [("first", 0), ("first", 1), ("first", 2), ("first", 0xff)];
        let own = KeySet::from_value(&signer.jwks()).unwrap();
        let done = checked(&signer, entries(&signer, &whole), Some(&own)).await;
        assert_eq!(
            (done.findings.len(), done.witnessed.grade),
            (0, Grade::Pinned)
        );
        let foreign = KeySet::from_value(&other.jwks()).unwrap();
        let done = checked(&signer, entries(&signer, &whole), Some(&foreign)).await;
        assert_eq!(
            (done.findings.len(), done.witnessed.grade),
            (4, Grade::None)
        );
        let done = checked(&other, entries(&signer, &whole), Some(&own)).await;
        assert_eq!(
            (done.findings.len(), done.witnessed.grade),
            (4, Grade::None)
        );
    }
}
