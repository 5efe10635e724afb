//! Registries that lie, each a small server on a loopback port. What a true one does is proved against docker-registry, in the
//! tests of the whole system.

use super::*;
use crate::artifact::MANIFEST_MEDIA_TYPE;
use crate::layout::INDEX_MEDIA_TYPE;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::convert::Infallible;
use std::net::SocketAddr;
use tokio::net::TcpListener;

type Answer = hyper::Response<Full<bytes::Bytes>>;

/// What a server was asked: method, path with query, and the header `Authorization`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked(String, String, Option<String>);

struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    async fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let answer = Arc::new(answer);
        let log = asked.clone();
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    return;
                };
                let (answer, log) = (answer.clone(), log.clone());
                let serve = service_fn(move |request: hyper::Request<Incoming>| {
                    let authorization = request.headers().get("authorization");
                    let asked = Asked(
                        request.method().to_string(),
                        request.uri().to_string(),
                        authorization.map(|value| value.to_str().unwrap().to_owned()),
                    );
                    let given = answer(&asked);
                    // The question how this server is spoken to says nothing.
                    if asked.1 != "/v2/" {
                        log.lock().unwrap().push(asked);
                    }
                    async move { Ok::<_, Infallible>(given) }
                });
                tokio::spawn(async move {
                    let io = TokioIo::new(stream);
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(io, serve).await;
                });
            }
        });
        Server { address, asked }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    fn image(&self, digest: Digest) -> RegistryReference {
        RegistryReference::image(&format!("{}/team/app@{digest}", self.address)).unwrap()
    }
}

fn answer(status: u16, body: impl Into<bytes::Bytes>) -> Answer {
    let builder = hyper::Response::builder().status(status);
    builder.body(Full::new(body.into())).unwrap()
}

fn with(mut answer: Answer, name: &'static str, value: &str) -> Answer {
    answer.headers_mut().insert(name, value.parse().unwrap());
    answer
}

fn document(media_type: &str, bytes: &[u8]) -> Answer {
    with(answer(200, bytes.to_vec()), "content-type", media_type)
}

struct Logs(Option<Login>);

impl Logins for Logs {
    fn login(&self, _: &str) -> Result<Option<Login>, String> {
        Ok(self.0.clone())
    }
}

fn remote(login: Option<Login>) -> Remote {
    Remote::new(Settings {
        roots: RootCertStore::empty(),
        plain_http: BTreeSet::new(),
        logins: Arc::new(Logs(login)),
    })
    .unwrap()
}

fn password() -> Option<Login> {
    Some(Login::Password("user".to_owned(), "SECRET_WORD".to_owned()))
}

/// A manifest with one config of these bytes.
fn manifest(config: &[u8]) -> Vec<u8> {
    let config = json!({
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": Digest::of(config),
        "size": config.len(),
    });
    json!({"schemaVersion": 2, "config": config, "layers": []})
        .to_string()
        .into_bytes()
}

fn wide(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}

#[tokio::test]
async fn a_document_is_what_its_digest_says_or_nothing() {
    let good = manifest(b"{}");
    let digest = Digest::of(&good);
    let huge = vec![b' '; DOCUMENT_MAX as usize + 1];
    let nested =
        json!({"manifests": [{"mediaType": INDEX_MEDIA_TYPE, "digest": digest, "size": 2}]});
    let nested = nested.to_string().into_bytes();
    for (media_type, bytes, wanted, told) in [
        (
            MANIFEST_MEDIA_TYPE,
            manifest(b"evil"),
            digest,
            "instead of the promised",
        ),
        (
            MANIFEST_MEDIA_TYPE,
            huge.clone(),
            Digest::of(&huge),
            "more than 4194304 bytes",
        ),
        (
            INDEX_MEDIA_TYPE,
            nested.clone(),
            Digest::of(&nested),
            "is no container image",
        ),
        (
            "text/html",
            good.clone(),
            digest,
            "`text/html` is no container image",
        ),
    ] {
        let server = Server::start(move |_| document(media_type, &bytes)).await;
        let error = remote(None)
            .contents(&server.image(wanted))
            .await
            .unwrap_err();
        assert!(wide(&error).contains(told), "{told}: {}", wide(&error));
    }
}

#[tokio::test]
async fn a_missing_manifest_is_named_with_its_platform() {
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": MANIFEST_MEDIA_TYPE,
        "digest": Digest::of(b"none"),
        "size": 4,
        "platform": {"os": "linux", "architecture": "s390x"},
    }]});
    let index = index.to_string().into_bytes();
    let digest = Digest::of(&index);
    let server = Server::start(move |asked| {
        if asked.1.ends_with(&digest.to_string()) {
            document(INDEX_MEDIA_TYPE, &index)
        } else {
            answer(404, "")
        }
    })
    .await;
    let error = remote(None)
        .contents(&server.image(digest))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("for linux/s390x is not there"),
        "{error}"
    );
    let seen = remote(None).look(&server.image(digest)).await.unwrap();
    assert!(seen.platforms.is_empty());
    assert!(seen.missing.contains("linux/s390x"));
}

#[tokio::test]
async fn a_blob_is_what_its_digest_says_and_not_a_byte_longer() {
    let folder = tempfile::tempdir().unwrap();
    let digest = Digest::of(b"layer");
    for (bytes, told) in [
        (&b"evil!"[..], "instead of the promised"),
        (b"layer and more", "more than the promised 5 bytes"),
        (b"lay", "3 bytes instead of the promised 5"),
    ] {
        let server = Server::start(move |_| answer(200, bytes)).await;
        let image = server.image(digest);
        let error = remote(None)
            .spool(&image, digest, 5, folder.path())
            .await
            .unwrap_err();
        assert!(wide(&error).contains(told), "{told}: {}", wide(&error));
    }
    let server = Server::start(|_| answer(200, "layer")).await;
    let image = server.image(digest);
    let mut file = remote(None)
        .spool(&image, digest, 5, folder.path())
        .await
        .unwrap();
    let mut text = String::new();
    io::Read::read_to_string(&mut file, &mut text).unwrap();
    assert_eq!(text, "layer");
}

#[tokio::test]
async fn credentials_stay_with_the_registry() {
    let digest = Digest::of(b"layer");
    let store = Server::start(|_| answer(200, "layer")).await;
    let elsewhere = format!("http://{}/signed?key=x", store.address);
    let server = Server::start(move |asked| match &asked.2 {
        None => with(answer(401, ""), "www-authenticate", "Basic realm=\"x\""),
        Some(_) => with(answer(307, ""), "location", &elsewhere),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let image = server.image(digest);
    remote(password())
        .spool(&image, digest, 5, folder.path())
        .await
        .unwrap();
    // `user:SECRET_WORD`
    let basic = "Basic dXNlcjpTRUNSRVRfV09SRA==".to_owned();
    let sent: Vec<Option<String>> = server.asked().into_iter().map(|asked| asked.2).collect();
    assert_eq!(sent, [None, Some(basic)]);
    assert_eq!(
        store.asked(),
        [Asked("GET".into(), "/signed?key=x".into(), None)]
    );
}

#[tokio::test]
async fn nobody_is_sent_on_for_ever_nor_to_another_scheme() {
    let digest = Digest::of(b"layer");
    for to in ["/v2/team/app/blobs/again", "file:///etc/passwd", "http://"] {
        let server = Server::start(move |_| with(answer(302, ""), "location", to)).await;
        let error = remote(None)
            .contents(&server.image(digest))
            .await
            .unwrap_err();
        let rules = matches!(
            error,
            RemoteError::Rules { .. } | RemoteError::Answer { .. }
        );
        assert!(rules, "{to}: {error}");
        assert!(server.asked().len() <= HOPS + 1);
    }
}

#[tokio::test]
async fn a_token_stands_in_for_the_password() {
    let tokens = Server::start(|_| answer(200, r#"{"token": "TOKEN"}"#)).await;
    let challenge = format!(
        "Bearer realm=\"http://{}/token?a=b\",service=\"r.example\"",
        tokens.address
    );
    let good = manifest(b"{}");
    let digest = Digest::of(&good);
    let server = Server::start(move |asked| match asked.2.as_deref() {
        Some("Bearer TOKEN") => document(MANIFEST_MEDIA_TYPE, &good),
        _ => with(answer(401, ""), "www-authenticate", &challenge),
    })
    .await;
    let remote = remote(password());
    for _ in 0..2 {
        remote.contents(&server.image(digest)).await.unwrap();
    }
    let asked = tokens.asked();
    assert_eq!(asked.len(), 1, "the token is kept");
    assert_eq!(
        asked[0].1,
        "/token?a=b&service=r.example&scope=repository%3Ateam%2Fapp%3Apull&client_id=karat"
    );
    assert!(asked[0].2.as_deref().unwrap().starts_with("Basic "));
    let sent: Vec<Option<String>> = server.asked().into_iter().map(|asked| asked.2).collect();
    let token = || Some("Bearer TOKEN".to_owned());
    assert_eq!(sent, [None, token(), token()]);
}

#[tokio::test]
async fn no_message_repeats_what_a_server_says_of_credentials() {
    let echo = r#"{"errors": [{"code": "DENIED", "message": "user:SECRET_WORD"}]}"#;
    for status in [400, 401, 403, 500] {
        let server = Server::start(move |asked| match &asked.2 {
            None => with(answer(401, ""), "www-authenticate", "Basic realm=\"x\""),
            Some(_) => answer(status, echo),
        })
        .await;
        let image = server.image(Digest::of(b"x"));
        let error = remote(password()).contents(&image).await.unwrap_err();
        let said = format!("{} {error:?}", wide(&error));
        assert!(
            !said.contains("SECRET") && !said.contains("user:"),
            "{said}"
        );
        if status == 401 || status == 403 {
            assert!(said.contains("do not do"), "{said}");
        } else {
            assert!(said.contains("(DENIED)"), "{said}");
        }
    }
}

#[tokio::test]
async fn a_token_server_is_a_stranger_too() {
    let huge = "x".repeat(300 << 10);
    for (body, told) in [
        (huge, "more than 262144 bytes"),
        ("{}".to_owned(), "gives no token"),
        (r#"{"token": "a\nb"}"#.to_owned(), "no word for a header"),
    ] {
        let tokens = Server::start(move |_| answer(200, body.clone())).await;
        let challenge = format!("Bearer realm=\"http://{}/\"", tokens.address);
        let server =
            Server::start(move |_| with(answer(401, ""), "www-authenticate", &challenge)).await;
        let image = server.image(Digest::of(b"x"));
        let error = remote(None).contents(&image).await.unwrap_err();
        assert!(wide(&error).contains(told), "{told}: {error}");
    }
    let elsewhere = "Bearer realm=\"http://tokens.example/\"";
    let server = Server::start(move |_| with(answer(401, ""), "www-authenticate", elsewhere)).await;
    let image = server.image(Digest::of(b"x"));
    let error = remote(password()).contents(&image).await.unwrap_err();
    assert!(error.to_string().contains("no https address"), "{error}");
}

#[tokio::test]
async fn who_is_busy_is_asked_again_and_who_is_gone_is_told() {
    let good = manifest(b"{}");
    let digest = Digest::of(&good);
    let count = Arc::new(Mutex::new(0));
    let server = Server::start(move |asked| {
        let mut count = count.lock().unwrap();
        *count += usize::from(asked.1 != "/v2/");
        match *count {
            1 => with(answer(503, ""), "retry-after", "0"),
            _ => document(MANIFEST_MEDIA_TYPE, &good),
        }
    })
    .await;
    remote(None).contents(&server.image(digest)).await.unwrap();
    assert_eq!(server.asked().len(), 2);

    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let image = RegistryReference::image(&format!("{address}/x@{digest}")).unwrap();
    let error = remote(None).contents(&image).await.unwrap_err();
    let told = format!("no answer from {address}: ");
    assert!(error.to_string().starts_with(&told), "{error}");
}

#[test]
fn only_loopback_addresses_are_asked_in_plain_http() {
    for (text, loopback) in [
        ("https://127.0.0.1:5000/v2/", true),
        ("https://[::1]:5000/v2/", true),
        ("https://localhost/v2/", true),
        ("https://localhost.example/v2/", false),
        ("https://10.0.0.1/v2/", false),
        ("https://127.0.0.1.example/v2/", false),
    ] {
        assert_eq!(is_loopback(&Url::parse(text).unwrap()), loopback, "{text}");
    }
}

#[tokio::test]
async fn a_certificate_must_hold() {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let good = manifest(b"{}");
    let digest = Digest::of(&good);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, good) = (acceptor.clone(), good.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let serve = service_fn(move |_: hyper::Request<Incoming>| {
                    let given = document(MANIFEST_MEDIA_TYPE, &good);
                    async move { Ok::<_, Infallible>(given) }
                });
                let http = hyper::server::conn::http1::Builder::new();
                let _ = http.serve_connection(TokioIo::new(stream), serve).await;
            });
        }
    });
    let image = RegistryReference::image(&format!("{address}/x@{digest}")).unwrap();
    // Not even a loopback address is asked in plain HTTP because its certificate does not hold.
    let error = remote(None).contents(&image).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let trusting = Remote::new(Settings {
        roots,
        plain_http: BTreeSet::new(),
        logins: Arc::new(Logs(None)),
    })
    .unwrap();
    trusting.contents(&image).await.unwrap();
}
