//! An issuer on the web: two documents over HTTPS, with an authority of its own. And a forger, who has keys but no cluster.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// Path of the issuer on its server, as providers have one for each cluster.
const PLACE: &str = "/id/TESTBED";

/// Serves documents as long as the process lives.
pub(super) struct Issuer {
    pub(super) url: String,
    pub(super) authority: String,
    pages: Arc<Mutex<BTreeMap<String, Value>>>,
}

impl Issuer {
    pub(super) fn start() -> Result<Issuer> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let url = format!("https://{}{PLACE}", listener.local_addr()?);
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate()?)?;
        let key = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::default();
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        params
            .subject_alt_names
            .push(rcgen::SanType::IpAddress(address));
        let certificate = params.signed_by(&key, &authority)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )?;
        let tls = Arc::new(tls);
        let pages = Arc::new(Mutex::new(BTreeMap::new()));
        let served = Arc::clone(&pages);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tls, served) = (Arc::clone(&tls), Arc::clone(&served));
                // A client that does not believe the certificate ends the conversation; that is its answer.
                std::thread::spawn(move || answer(stream, tls, &served));
            }
        });
        Ok(Issuer {
            url,
            authority: authority.pem(),
            pages,
        })
    }

    /// Publishes keys, under a discovery document of this issuer.
    pub(super) fn publish(&self, jwks: &Value) {
        self.publish_as(&self.url, jwks);
    }

    /// Publishes keys under a discovery document that names some issuer.
    pub(super) fn publish_as(&self, name: &str, jwks: &Value) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.insert(
            format!("{PLACE}/.well-known/openid-configuration"),
            json!({"issuer": name, "jwks_uri": format!("{}/keys", self.url)}),
        );
        pages.insert(format!("{PLACE}/keys"), jwks.clone());
    }

    /// Takes everything down.
    pub(super) fn unpublish(&self) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.clear();
    }
}

fn answer(
    mut stream: TcpStream,
    tls: Arc<rustls::ServerConfig>,
    pages: &Mutex<BTreeMap<String, Value>>,
) -> Result<()> {
    let mut connection = rustls::ServerConnection::new(tls)?;
    let mut tls = rustls::Stream::new(&mut connection, &mut stream);
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        tls.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    let text = String::from_utf8(request)?;
    let path = text.split(' ').nth(1).context("a path")?;
    let page = {
        let pages = pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.get(path).map(Value::to_string)
    };
    let (status, body) = match page {
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", String::new()),
    };
    write!(
        tls,
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )?;
    tls.flush()?;
    connection.send_close_notify();
    rustls::Stream::new(&mut connection, &mut stream).flush()?;
    Ok(())
}

/// A part of a token.
pub(super) fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// Header and claims of a token.
pub(super) fn parts(token: &str) -> Result<(Value, Value)> {
    let mut parts = token.split('.').map(|part| {
        let bytes = URL_SAFE_NO_PAD.decode(part)?;
        anyhow::Ok(serde_json::from_slice(&bytes)?)
    });
    let header = parts.next().context("a header")??;
    Ok((header, parts.next().context("claims")??))
}

/// Has a key of its own.
pub(super) struct Forger(EcdsaKeyPair);

impl Forger {
    pub(super) fn new() -> Result<Forger> {
        let random = SystemRandom::new();
        let refused = |_| anyhow::anyhow!("no key");
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
            .map_err(refused)?;
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random)
                .map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(Forger(pair))
    }

    /// The key as a key set, under a name.
    pub(super) fn jwks(&self, name: &str) -> Value {
        let point = self.0.public_key().as_ref();
        let number = |from: usize| URL_SAFE_NO_PAD.encode(&point[from..from + 32]);
        json!({"keys": [{
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": name,
            "x": number(1), "y": number(33),
        }]})
    }

    /// A token with these claims, signed with the key, under a name.
    pub(super) fn sign(&self, name: &str, claims: &Value) -> Result<String> {
        let signed = format!(
            "{}.{}",
            part(&json!({"alg": "ES256", "kid": name})),
            part(claims)
        );
        let signature = self
            .0
            .sign(&SystemRandom::new(), signed.as_bytes())
            .map_err(|_| anyhow::anyhow!("cannot sign"))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}
