//! Reads a token: a JSON Web Signature in its compact form (RFC 7515) with the claims of a Kubernetes service account.
//! Nothing here believes it; whether it is signed is said by [`super::keys::KeySet::signed`].

use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Longest token in bytes.
const TOKEN_MAX: usize = 16 << 10;

/// How a token is signed. There are no others: not `none`, and nothing with a shared key, where a public key could be
/// passed off as the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// RSA, PKCS #1 v1.5, SHA-256.
    Rs256,
    /// ECDSA on P-256, SHA-256.
    Es256,
}

impl Algorithm {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Algorithm::Rs256 => "RS256",
            Algorithm::Es256 => "ES256",
        }
    }
}

/// A token that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) algorithm: Algorithm,
    /// Which key its signer says that it used.
    pub(crate) key: Option<String>,
    pub(crate) claims: Claims,
    /// The bytes that are signed.
    pub(crate) signed: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that a reader must understand. This one knows none.
    crit: Option<serde_json::Value>,
}

/// What a token claims, as far as it is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Claims {
    pub(crate) iss: String,
    pub(crate) sub: String,
    pub(crate) aud: Audience,
    /// Seconds since 1970.
    pub(crate) iat: i64,
    /// Seconds since 1970.
    pub(crate) exp: Option<i64>,
    #[serde(rename = "kubernetes.io")]
    pub(crate) kubernetes: Option<Kubernetes>,
}

/// `aud` is one text or a list of texts (RFC 7519, 4.1.3).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    /// The audience, if there is exactly one.
    pub(crate) fn only(&self) -> Option<&str> {
        match self {
            Audience::One(one) => Some(one),
            Audience::Many(many) => match many.as_slice() {
                [one] => Some(one),
                _ => None,
            },
        }
    }
}

/// The private claim of API servers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Kubernetes {
    pub(crate) namespace: String,
    pub(crate) serviceaccount: Named,
}

/// An object in a claim.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl Token {
    /// Reads a token.
    ///
    /// # Errors
    /// It is none, or is signed in a way that is not accepted; the text says which.
    pub(crate) fn parse(text: &str) -> Result<Token, String> {
        if text.len() > TOKEN_MAX {
            return Err(format!("larger than {TOKEN_MAX} bytes"));
        }
        let mut parts = text.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("no token: it does not have three parts".to_owned());
        };
        let signed = format!("{header}.{claims}").into_bytes();
        let header: Header = part("header", header)?;
        let algorithm = match header.alg.as_str() {
            "RS256" => Algorithm::Rs256,
            "ES256" => Algorithm::Es256,
            other => {
                let other: String = other.chars().take(20).collect();
                return Err(format!(
                    "algorithm {other} is not accepted; API servers sign with RS256 or ES256"
                ));
            }
        };
        if header.crit.is_some() {
            return Err("its header asks for extensions".to_owned());
        }
        Ok(Token {
            algorithm,
            key: header.kid,
            claims: part("claims", claims)?,
            signed,
            signature: decoded("signature", signature)?,
        })
    }
}

fn decoded(what: &str, text: &str) -> Result<Vec<u8>, String> {
    BASE64URL_NOPAD
        .decode(text.as_bytes())
        .map_err(|error| format!("its {what} is no base64url: {error}"))
}

fn part<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, String> {
    serde_json::from_slice(&decoded(what, text)?)
        .map_err(|error| format!("its {what} is not what a service account's token has: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn text(header: &Value, claims: &Value) -> String {
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        format!("{}.{}.c2ln", part(header), part(claims))
    }

    fn claims() -> Value {
        json!({
            "iss": "https://issuer", "sub": "system:serviceaccount:ns:name", "aud": ["a"], "iat": 1, "exp": 2,
            "jti": "x", "kubernetes.io": {"namespace": "ns", "serviceaccount": {"name": "name", "uid": "u"}},
        })
    }

    #[test]
    fn a_token_is_read_and_its_first_two_parts_are_what_is_signed() {
        let whole = text(&json!({"alg": "RS256", "kid": "k"}), &claims());
        let token = Token::parse(&whole).unwrap();
        assert_eq!(token.algorithm, Algorithm::Rs256);
        assert_eq!(token.key.as_deref(), Some("k"));
        assert_eq!(token.claims.aud.only(), Some("a"));
        assert_eq!(token.claims.kubernetes.unwrap().serviceaccount.uid, "u");
        assert_eq!(token.signature, b"sig");
        assert_eq!(
            token.signed,
            whole.rsplit_once('.').unwrap().0.as_bytes().to_vec()
        );
    }

    #[test]
    fn only_signatures_of_two_kinds_are_accepted() {
        for algorithm in [
            "none", "None", "", "HS256", "HS512", "RS1", "PS256", "EdDSA",
        ] {
            let error = Token::parse(&text(&json!({"alg": algorithm}), &claims())).unwrap_err();
            assert!(error.contains("is not accepted"), "{algorithm}: {error}");
        }
        let error = Token::parse(&text(&json!({"alg": "ES256", "crit": ["x"]}), &claims()));
        assert!(error.unwrap_err().contains("extensions"));
    }

    #[test]
    fn what_is_no_token_is_refused_in_words() {
        let with = |key: &str, value: Value| {
            let mut claims = claims();
            claims[key] = value;
            text(&json!({"alg": "ES256"}), &claims)
        };
        for (token, why) in [
            (String::new(), "three parts"),
            ("a.b".to_owned(), "three parts"),
            ("a.b.c.d".to_owned(), "three parts"),
            ("!.b.c".to_owned(), "base64url"),
            ("e30.e30.".to_owned(), "header"),
            (with("iat", json!("1")), "claims"),
            (with("iat", json!(1.5)), "claims"),
            (with("aud", json!(1)), "claims"),
            (with("kubernetes.io", json!({"namespace": "ns"})), "claims"),
            ("x".repeat(TOKEN_MAX + 1), "larger"),
        ] {
            let error = Token::parse(&token).unwrap_err();
            assert!(error.contains(why), "{why}: {error}");
        }
        let many = Token::parse(&with("aud", json!(["a", "b"]))).unwrap();
        assert_eq!(many.claims.aud.only(), None);
        let one = Token::parse(&with("aud", json!("a"))).unwrap();
        assert_eq!(one.claims.aud.only(), Some("a"));
    }
}
