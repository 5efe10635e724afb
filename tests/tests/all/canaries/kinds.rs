//! Secrets of many kinds, drawn at random, and the forms in which they are planted.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;
use std::io::Write as _;

/// A secret in its surroundings, and the parts of it that must be nowhere.
pub(super) struct Secret {
    pub(super) text: String,
    pub(super) needles: Vec<String>,
}

/// Randomness of a test run.
pub(super) struct Draw;

impl Draw {
    fn from(&self, letters: &[u8], count: usize) -> String {
        let mut bytes = vec![0_u8; count];
        getrandom::fill(&mut bytes).expect("random bytes");
        let mut text: String = bytes
            .iter()
            .map(|b| char::from(letters[usize::from(*b) % letters.len()]))
            .collect();
        // Patterns want a digit, and a row of this length without one is no accident that a test should have.
        text.replace_range(count / 2..=count / 2, "7");
        text
    }

    pub(super) fn letters(&self, count: usize) -> String {
        self.from(
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
            count,
        )
    }

    pub(super) fn small(&self, count: usize) -> String {
        self.from(b"abcdefghijklmnopqrstuvwxyz0123456789", count)
    }

    pub(super) fn hex(&self, count: usize) -> String {
        self.from(b"0123456789abcdef", count)
    }

    pub(super) fn digits(&self, count: usize) -> String {
        self.from(b"123456789", count)
    }

    fn capitals(&self, count: usize) -> String {
        self.from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", count)
    }

    pub(super) fn uuid(&self) -> String {
        [8, 4, 4, 4, 12].map(|count| self.hex(count)).join("-")
    }

    fn pem(&self) -> (String, Vec<String>) {
        let lines: Vec<String> = (0..4).map(|_| self.letters(64)).collect();
        let text = format!(
            "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----\n",
            lines.join("\n")
        );
        (text, lines)
    }
}

fn one(text: impl Into<String>, needle: impl Into<String>) -> Secret {
    Secret {
        text: text.into(),
        needles: vec![needle.into()],
    }
}

/// Draws one secret.
type Make = fn(&Draw) -> Secret;

/// Every kind that is known by its own shape.
pub(super) const KINDS: &[(&str, Make)] = &[
    ("account-token", |draw| {
        let (claims, signature) = (draw.letters(24), draw.letters(86));
        let payload = URL_SAFE_NO_PAD
            .encode(json!({"iss": "kubernetes/serviceaccount", "sub": claims}).to_string());
        Secret {
            text: format!("eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.{payload}.{signature}"),
            needles: vec![claims, payload, signature],
        }
    }),
    ("bearer", |draw| {
        let token = draw.letters(40);
        one(format!("Authorization: Bearer {token}"), token)
    }),
    ("basic", |draw| {
        let password = draw.letters(18);
        let pair = STANDARD.encode(format!("admin:{password}"));
        Secret {
            text: format!("Authorization: Basic {pair}"),
            needles: vec![pair, password],
        }
    }),
    ("basic-bare", |draw| {
        let password = draw.letters(18);
        let pair = STANDARD.encode(format!("admin:{password}"));
        Secret {
            text: format!("curl: Basic {pair}"),
            needles: vec![pair, password],
        }
    }),
    ("cookie", |draw| {
        let session = draw.letters(32);
        one(format!("Cookie: session={session}"), session)
    }),
    ("private-key", |draw| {
        let (text, needles) = draw.pem();
        Secret { text, needles }
    }),
    ("jwk", |draw| {
        let d = draw.letters(86);
        one(json!({"kty": "RSA", "e": "AQAB", "d": d}).to_string(), d)
    }),
    ("aws-key-id", |draw| {
        let id = format!("AKIA{}", draw.capitals(16));
        one(id.clone(), id)
    }),
    ("aws-secret", |draw| {
        let secret = draw.letters(40);
        one(format!("aws_secret_access_key = {secret}"), secret)
    }),
    ("github", |draw| {
        let token = draw.letters(36);
        one(format!("ghp_{token}"), token)
    }),
    ("github-fine", |draw| {
        let token = draw.letters(59);
        one(format!("github_pat_{}_{token}", draw.letters(22)), token)
    }),
    ("gitlab", |draw| {
        let token = draw.letters(20);
        one(format!("glpat-{token}"), token)
    }),
    ("slack", |draw| {
        let token = draw.letters(24);
        one(format!("xoxb-{}-{token}", draw.digits(12)), token)
    }),
    ("google", |draw| {
        let key = draw.letters(35);
        one(format!("AIza{key}"), key)
    }),
    ("hugging-face", |draw| {
        let token = draw.letters(34);
        one(format!("hf_{token}"), token)
    }),
    ("nvidia", |draw| {
        let key = draw.letters(64);
        one(format!("nvapi-{key}"), key)
    }),
    ("openai", |draw| {
        let key = draw.letters(48);
        one(format!("sk-proj-{key}"), key)
    }),
    ("vault", |draw| {
        let token = draw.letters(24);
        one(format!("hvs.{token}"), token)
    }),
    ("url-password", |draw| {
        let password = draw.letters(20);
        one(
            format!("postgres://app:{password}@db.example.com:5432/main"),
            password,
        )
    }),
    ("presigned-url", |draw| {
        let signature = draw.letters(43);
        one(
            format!("https://x.blob.core.windows.net/c/b?sv=2024-11-04&sp=r&sig={signature}%3D"),
            signature,
        )
    }),
    ("password-line", |draw| {
        let password = draw.letters(16);
        one(format!("DB_PASSWORD={password}"), password)
    }),
    ("password-json", |draw| {
        let password = draw.letters(16);
        one(json!({"db": {"password": password}}).to_string(), password)
    }),
    ("api-key-yaml", |draw| {
        let key = draw.letters(24);
        one(format!("server:\n  x-api-key: {key}\n"), key)
    }),
    ("docker-config", |draw| {
        let password = draw.letters(18);
        let pair = STANDARD.encode(format!("robot:{password}"));
        Secret {
            text: json!({"auths": {"registry.example.com": {"auth": pair}}}).to_string(),
            needles: vec![pair, password],
        }
    }),
    ("kubeconfig", |draw| {
        let (key, lines) = draw.pem();
        let (token, password) = (draw.letters(32), draw.letters(16));
        let data = STANDARD.encode(&key);
        let text = format!(
            "apiVersion: v1\nkind: Config\nusers:\n- name: admin\n  user:\n    client-key-data: {data}\n    token: {token}\n    password: {password}\n"
        );
        let mut needles = vec![token, password, data[60..160].to_owned()];
        needles.extend(lines);
        Secret { text, needles }
    }),
    ("secret-copy", |draw| {
        let value = draw.letters(24);
        let packed = STANDARD.encode(&value);
        Secret {
            text: json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "data": {"plain": packed}})
                .to_string(),
            needles: vec![packed, value],
        }
    }),
    ("hashed-password", |draw| {
        let hash = draw.letters(53);
        one(format!("admin:$2y$10${hash}"), hash)
    }),
    ("aws-account", |draw| {
        let account = draw.digits(12);
        one(format!("arn:aws:iam::{account}:role/nodes"), account)
    }),
    ("aws-registry", |draw| {
        let account = draw.digits(12);
        one(
            format!("{account}.dkr.ecr.eu-west-1.amazonaws.com/app:1"),
            account,
        )
    }),
    ("gpu-uuid", |draw| {
        let uuid = draw.uuid();
        one(format!("GPU 0: H100 (UUID: GPU-{uuid})"), uuid)
    }),
    ("serial", |draw| {
        let serial = draw.digits(13);
        one(format!("Serial Number                 : {serial}"), serial)
    }),
];

/// How a text is written.
type Write = fn(&str) -> Result<String>;

/// Forms in which a secret is planted.
pub(super) const FORMS: &[(&str, Write)] = &[
    ("plain", |text| Ok(text.to_owned())),
    ("base64", |text| Ok(STANDARD.encode(text))),
    ("base64-url", |text| {
        Ok(URL_SAFE_NO_PAD.encode(format!("~~? {text}")))
    }),
    ("base64-twice", |text| {
        Ok(STANDARD.encode(STANDARD.encode(text)))
    }),
    ("base64-wrapped", |text| {
        let packed = STANDARD.encode(format!("{}{text}", "# a long file\n".repeat(9)));
        let lines: Vec<&str> = (0..packed.len())
            .step_by(76)
            .map(|at| &packed[at..packed.len().min(at + 76)])
            .collect();
        Ok(lines.join("\n"))
    }),
    ("gzip", |text| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        out.write_all(text.as_bytes())?;
        Ok(STANDARD.encode(out.finish().context("gzip")?))
    }),
    ("hex", |text| {
        Ok(text.bytes().map(|b| format!("{b:02x}")).collect())
    }),
    ("percent", |text| Ok(percent(text))),
    ("json-string", |text| {
        Ok(json!({"level": "info", "body": json!({"note": text}).to_string()}).to_string())
    }),
    ("in-a-sentence", |text| {
        Ok(format!("worker said \"{text}\" and went on"))
    }),
];

/// Every byte in percent form.
pub(super) fn percent(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}
