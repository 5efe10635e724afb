//! Keys of an issuer: a JSON Web Key Set (RFC 7517), and whether one of its keys signed a token.
//!
//! A key decides by its own kind how it is used: an RSA key never checks anything but RS256, a P-256 key nothing but
//! ES256. Keys of other kinds are left out, shared ones (`oct`) above all.

use super::token::{Algorithm, Token};
use data_encoding::BASE64URL_NOPAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::Value;

/// Most bytes of a key set.
pub const KEYS_MAX: u64 = 1 << 20;
/// Most keys that are tried.
const KEYS: usize = 200;

/// A text is no key set that can be used here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no JSON Web Key Set with a key for RS256 or ES256: {0}")]
pub struct KeysError(String);

/// The public keys of an issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySet(Vec<Key>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    id: Option<String>,
    value: Material,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// The point, uncompressed.
    P256(Vec<u8>),
}

/// What a key set says about a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signed {
    /// One of the keys signed it.
    Yes,
    /// The key that the token names is not in the set.
    NoKey,
    /// The key is there, and this is not its signature.
    No,
}

#[derive(Deserialize)]
struct WrittenSet {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Written {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    used: Option<String>,
    alg: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads a key set, as `/openid/v1/jwks` of an API server and the `jwks_uri` of an issuer give it.
    ///
    /// # Errors
    /// It is none, or none of its keys can be used.
    pub fn parse(bytes: &[u8]) -> Result<KeySet, KeysError> {
        let written: WrittenSet =
            serde_json::from_slice(bytes).map_err(|error| KeysError(error.to_string()))?;
        KeySet::of(&written.keys)
    }

    /// As [`KeySet::parse`], from a document that was read already.
    pub(crate) fn from_value(document: &Value) -> Result<KeySet, KeysError> {
        match document["keys"].as_array() {
            Some(keys) => KeySet::of(keys),
            None => Err(KeysError("it has no `keys`".to_owned())),
        }
    }

    fn of(written: &[Value]) -> Result<KeySet, KeysError> {
        if written.len() > KEYS {
            return Err(KeysError(format!("more than {KEYS} keys")));
        }
        let keys: Vec<Key> = written.iter().filter_map(key).collect();
        if keys.is_empty() {
            return Err(KeysError(format!(
                "none of its {} can be used",
                written.len()
            )));
        }
        Ok(KeySet(keys))
    }

    /// Whether a token was signed by one of these keys: the one that it names, or any where it names none.
    pub(crate) fn signed(&self, token: &Token) -> Signed {
        let mut answer = Signed::NoKey;
        for key in &self.0 {
            if token.key.is_some() && token.key != key.id {
                continue;
            }
            if key.value.signed(token) {
                return Signed::Yes;
            }
            answer = Signed::No;
        }
        answer
    }
}

impl Material {
    fn signed(&self, token: &Token) -> bool {
        match (self, token.algorithm) {
            (Material::Rsa { n, e }, Algorithm::Rs256) => RsaPublicKeyComponents { n, e }
                .verify(&RSA_PKCS1_2048_8192_SHA256, &token.signed, &token.signature)
                .is_ok(),
            (Material::P256(point), Algorithm::Es256) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                    .verify(&token.signed, &token.signature)
                    .is_ok()
            }
            _ => false,
        }
    }
}

/// A key that can be used. Others may stand beside it, and their numbers may be anything.
fn key(written: &Value) -> Option<Key> {
    let written: Written = serde_json::from_value(written.clone()).ok()?;
    if written.used.as_deref().is_some_and(|used| used != "sig") {
        return None;
    }
    let number = |text: &Option<String>| BASE64URL_NOPAD.decode(text.as_ref()?.as_bytes()).ok();
    let (algorithm, value) = match (written.kty.as_str(), written.crv.as_deref()) {
        ("RSA", _) => {
            let value = Material::Rsa {
                n: number(&written.n)?,
                e: number(&written.e)?,
            };
            (Algorithm::Rs256, value)
        }
        ("EC", Some("P-256")) => {
            let (x, y) = (number(&written.x)?, number(&written.y)?);
            if x.len() != 32 || y.len() != 32 {
                return None;
            }
            let point = [&[4], x.as_slice(), y.as_slice()].concat();
            (Algorithm::Es256, Material::P256(point))
        }
        _ => return None,
    };
    if written.alg.is_some_and(|alg| alg != algorithm.word()) {
        return None;
    }
    Some(Key {
        id: written.kid,
        value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// RFC 7515, appendix A.2: RS256, with claims that are no service account's. The key is the RFC's.
    const RSA_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    const RSA_TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    /// RFC 7515, appendix A.3: the same payload with ES256.
    const EC_X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
    const EC_Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
    const EC_TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

    /// The RFC's payload has no subject, so the parts are put together here.
    fn token(text: &str, algorithm: Algorithm, key: Option<&str>) -> Token {
        let (signed, signature) = text.rsplit_once('.').unwrap();
        let template = format!(
            "{}.{}.",
            BASE64URL_NOPAD.encode(br#"{"alg":"ES256"}"#),
            BASE64URL_NOPAD.encode(br#"{"iss":"","sub":"","aud":"","iat":0}"#)
        );
        Token {
            algorithm,
            key: key.map(str::to_owned),
            signed: signed.as_bytes().to_vec(),
            signature: BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap(),
            ..Token::parse(&template).unwrap()
        }
    }

    fn rsa(id: &str) -> Value {
        json!({"kty": "RSA", "kid": id, "use": "sig", "alg": "RS256", "n": RSA_N, "e": "AQAB"})
    }

    fn ec(id: &str) -> Value {
        json!({"kty": "EC", "kid": id, "crv": "P-256", "x": EC_X, "y": EC_Y})
    }

    fn set(keys: &[Value]) -> KeySet {
        KeySet::parse(json!({"keys": keys}).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn signatures_of_the_rfc_hold_and_a_changed_bit_does_not() {
        let keys = set(&[rsa("r"), ec("e")]);
        for (text, algorithm, own, other) in [
            (RSA_TOKEN, Algorithm::Rs256, "r", "e"),
            (EC_TOKEN, Algorithm::Es256, "e", "r"),
        ] {
            assert_eq!(keys.signed(&token(text, algorithm, None)), Signed::Yes);
            assert_eq!(keys.signed(&token(text, algorithm, Some(own))), Signed::Yes);
            assert_eq!(
                keys.signed(&token(text, algorithm, Some(other))),
                Signed::No
            );
            assert_eq!(
                keys.signed(&token(text, algorithm, Some("new"))),
                Signed::NoKey
            );
            let mut edited = token(text, algorithm, None);
            edited.signed[30] ^= 1;
            assert_eq!(keys.signed(&edited), Signed::No);
            let mut edited = token(text, algorithm, None);
            edited.signature[30] ^= 1;
            assert_eq!(keys.signed(&edited), Signed::No);
        }
    }

    #[test]
    fn a_key_is_used_for_its_own_algorithm_alone() {
        let keys = set(&[rsa("r"), ec("e")]);
        assert_eq!(
            keys.signed(&token(RSA_TOKEN, Algorithm::Es256, None)),
            Signed::No
        );
        assert_eq!(
            keys.signed(&token(EC_TOKEN, Algorithm::Rs256, None)),
            Signed::No
        );
    }

    #[test]
    fn keys_that_cannot_be_used_are_left_out() {
        let strange = [
            json!({"kty": "oct", "kid": "s", "k": "AAAA"}),
            json!({"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"}),
            json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": EC_Y}),
            json!({"kty": "RSA", "n": "!", "e": "AQAB"}),
            json!({"kty": "RSA", "use": "enc", "n": RSA_N, "e": "AQAB"}),
            json!({"kty": "RSA", "alg": "HS256", "n": RSA_N, "e": "AQAB"}),
            json!({"kty": 1}),
            json!("key"),
        ];
        let mut all = strange.to_vec();
        all.push(ec("e"));
        assert_eq!(set(&all).0.len(), 1);
        for text in [
            json!({"keys": strange}).to_string(),
            json!({"keys": vec![ec("e"); KEYS + 1]}).to_string(),
            json!({"keys": []}).to_string(),
            "{}".to_owned(),
            "-----BEGIN PUBLIC KEY-----".to_owned(),
        ] {
            assert!(KeySet::parse(text.as_bytes()).is_err());
        }
    }
}
