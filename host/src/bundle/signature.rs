//! Signatures: ECDSA on P-256 with SHA-256 in DSSE envelopes, as cosign and the in-toto tools make and check them.
//!
//! Sources: the DSSE protocol (secure-systems-lab/dsse: `protocol.md`, `envelope.md`) for the envelope and the bytes that
//! are signed. A key's id is the SHA-256 of its SubjectPublicKeyInfo; it helps to find a key and proves nothing.

use crate::recording::sha256_hex;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::{Signer as _, Verifier as _};
use p256::ecdsa::{self, DerSignature};
use p256::pkcs8::{DecodePrivateKey as _, DecodePublicKey as _, EncodePublicKey as _};
use serde::{Deserialize, Serialize};

/// Media type of what is signed.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// Most bytes of a key file.
const KEY_MAX: usize = 64 << 10;
/// Most signatures in one envelope.
const SIGNATURES_MAX: usize = 64;

/// A text is no key that can be used here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// cosign's own form, or a PKCS#8 key with a password.
    #[error(
        "the key is encrypted; write it without a password, for example with `openssl pkcs8 -in KEY -out PLAIN`"
    )]
    Encrypted,
    /// A public key where a private one is needed, or the other way round.
    #[error("this is a {found} key; a {wanted} one is needed")]
    Half {
        /// What it is.
        found: &'static str,
        /// What is needed.
        wanted: &'static str,
    },
    /// Anything else.
    #[error("no ECDSA P-256 key in PEM: {0}")]
    Unreadable(String),
}

/// A private key.
pub struct SigningKey(ecdsa::SigningKey);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.public().id())
    }
}

impl SigningKey {
    /// Reads PKCS#8 (`PRIVATE KEY`) or SEC1 (`EC PRIVATE KEY`).
    ///
    /// # Errors
    /// No such key; each common mistake has its own message.
    pub fn from_pem(text: &str) -> Result<SigningKey, KeyError> {
        let text = one_key(text)?;
        if text.contains("ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        if text.contains("-----BEGIN PUBLIC KEY-----") {
            return Err(KeyError::Half {
                found: "public",
                wanted: "private",
            });
        }
        let secret = if text.contains("-----BEGIN EC PRIVATE KEY-----") {
            // OpenSSL may put the curve into a block of its own in front.
            let from = text
                .find("-----BEGIN EC PRIVATE KEY-----")
                .unwrap_or_default();
            p256::SecretKey::from_sec1_pem(&text[from..]).map_err(|error| error.to_string())
        } else {
            p256::SecretKey::from_pkcs8_pem(text).map_err(|error| error.to_string())
        };
        secret
            .map(|secret| SigningKey(secret.into()))
            .map_err(KeyError::Unreadable)
    }

    /// The other half.
    pub fn public(&self) -> PublicKey {
        PublicKey(*self.0.verifying_key())
    }

    /// An envelope around a payload, as JSON with a newline.
    pub fn envelope(&self, payload: &[u8]) -> String {
        let signature: DerSignature = self.0.sign(&signed_bytes(PAYLOAD_TYPE, payload));
        let envelope = Written {
            payload: STANDARD.encode(payload),
            payload_type: PAYLOAD_TYPE.to_owned(),
            signatures: vec![WrittenSignature {
                keyid: self.public().id(),
                sig: STANDARD.encode(signature.as_bytes()),
            }],
        };
        let mut text = serde_json::json!(envelope).to_string();
        text.push('\n');
        text
    }
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(ecdsa::VerifyingKey);

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo (`PUBLIC KEY`), as `openssl pkey -pubout` and cosign write it.
    ///
    /// # Errors
    /// No such key; each common mistake has its own message.
    pub fn from_pem(text: &str) -> Result<PublicKey, KeyError> {
        let text = one_key(text)?;
        if text.contains("PRIVATE KEY-----") {
            return Err(KeyError::Half {
                found: "private",
                wanted: "public",
            });
        }
        ecdsa::VerifyingKey::from_public_key_pem(text)
            .map(PublicKey)
            .map_err(|error| KeyError::Unreadable(error.to_string()))
    }

    /// SHA-256 of the key in DER, 64 hexadecimal digits.
    pub fn id(&self) -> String {
        match self.0.to_public_key_der() {
            Ok(der) => sha256_hex(der.as_bytes()),
            // A point of this curve always has a form in DER.
            Err(_) => String::new(),
        }
    }

    /// The key in PEM.
    ///
    /// # Errors
    /// Never for a key that was read; the library has the error.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        self.0
            .to_public_key_pem(p256::pkcs8::LineEnding::LF)
            .map_err(|error| KeyError::Unreadable(error.to_string()))
    }
}

fn one_key(text: &str) -> Result<&str, KeyError> {
    if text.len() > KEY_MAX {
        return Err(KeyError::Unreadable(format!("larger than {KEY_MAX} bytes")));
    }
    Ok(text.trim())
}

/// What is signed: the type enters, so that a signature for one kind of document is none for another.
fn signed_bytes(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    payload: String,
    payload_type: String,
    signatures: Vec<WrittenSignature>,
}

#[derive(Serialize, Deserialize)]
struct WrittenSignature {
    #[serde(default)]
    keyid: String,
    sig: String,
}

/// An envelope that was read. Nothing is proved by it until [`Envelope::is_signed_by`] says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    payload: Vec<u8>,
    payload_type: String,
    /// Id as claimed, and the signature in DER.
    signatures: Vec<(String, Vec<u8>)>,
}

impl Envelope {
    /// Reads an envelope.
    ///
    /// # Errors
    /// No JSON, no base64, or more signatures than anybody needs; the text says which.
    pub fn parse(bytes: &[u8]) -> Result<Envelope, String> {
        let written: Written =
            serde_json::from_slice(bytes).map_err(|error| format!("no DSSE envelope: {error}"))?;
        if written.signatures.is_empty() {
            return Err("no signature in the envelope".to_owned());
        }
        if written.signatures.len() > SIGNATURES_MAX {
            return Err(format!("more than {SIGNATURES_MAX} signatures"));
        }
        let decode = |text: &str, what: &str| {
            STANDARD
                .decode(text)
                .map_err(|error| format!("the {what} is no base64: {error}"))
        };
        Ok(Envelope {
            payload: decode(&written.payload, "payload")?,
            payload_type: written.payload_type,
            signatures: written
                .signatures
                .iter()
                .map(|one| Ok((one.keyid.clone(), decode(&one.sig, "signature")?)))
                .collect::<Result<_, String>>()?,
        })
    }

    /// What was signed.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Ids of keys as the envelope claims them.
    pub fn claimed_keys(&self) -> impl Iterator<Item = &str> {
        self.signatures.iter().map(|(id, _)| id.as_str())
    }

    /// Whether a signature in it was made with this key, whatever id it claims.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        if self.payload_type != PAYLOAD_TYPE {
            return false;
        }
        let bytes = signed_bytes(&self.payload_type, &self.payload);
        self.signatures.iter().any(|(_, signature)| {
            DerSignature::from_bytes(signature)
                .is_ok_and(|signature| key.0.verify(&bytes, &signature).is_ok())
        })
    }
}
