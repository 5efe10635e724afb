//! A proxy before the API server that makes a cluster wrong in exactly one way.
//!
//! Without rules it forwards everything with the administrator's certificate, streaming bodies in both watch and list.
//! The first [`Rule`] that matches a request decides what happens instead. It runs on a thread of its own, so it may
//! outlive the async runtime of a test. Commands in pods pass as they are; logs and commands of a kubelet that is not there can
//! be made up ([`Rule::log`], [`Rule::exec`]).
//!
//! Read `rule` for what can go wrong, `serve` for who does it, then `edit` (documents and objects), `body` (bytes),
//! `events` (watches) and `kubelet` (logs and commands). [`Proxy::hits`] says how often each rule did something: a fault that never fired proves nothing.
//!
//! ```no_run
//! # async fn f(lab: &karat_testbed::ControlPlane) -> karat_testbed::Result<()> {
//! use karat_testbed::proxy::Rule;
//!
//! // Deletes are answered with success and never happen.
//! let proxy = lab.proxy().rule(Rule::on("DELETE", "^/apis/resource.k8s.io/").swallow()).start().await?;
//! let kubeconfig = proxy.kubeconfig();
//! # Ok(()) }
//! ```

mod body;
mod dice;
mod edit;
mod events;
mod forward;
mod kubelet;
mod rule;
mod serve;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use kube::Client;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::control_plane::{ControlPlane, client_of};
use crate::error::{Result, TestbedError};
use crate::pki::write_private;

pub use dice::Dice;
pub use events::EventFault;
pub use kubelet::Said;
use rule::Hits;
pub use rule::Rule;
use serve::Job;

/// One request that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Method.
    pub method: String,
    /// Path and query.
    pub uri: String,
    /// Index of the rule that was applied.
    pub rule: Option<usize>,
}

/// Describes a proxy; see [`ControlPlane::proxy`].
#[derive(Debug)]
pub struct ProxyBuilder<'a> {
    lab: &'a ControlPlane,
    rules: Vec<Rule>,
    plain: bool,
    upstream: PathBuf,
}

impl ControlPlane {
    /// Begins a proxy before this API server. It speaks TLS with a certificate of the laboratory's authority.
    #[must_use]
    pub fn proxy(&self) -> ProxyBuilder<'_> {
        ProxyBuilder {
            lab: self,
            rules: Vec::new(),
            plain: false,
            upstream: self.kubeconfig(),
        }
    }
}

impl ProxyBuilder<'_> {
    /// Adds a rule. The first one that matches a request wins.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Listens without TLS.
    #[must_use]
    pub fn plain_http(mut self) -> Self {
        self.plain = true;
        self
    }

    /// Forwards with the credentials of this kubeconfig instead of the administrator's.
    #[must_use]
    pub fn forward_with(mut self, kubeconfig: impl Into<PathBuf>) -> Self {
        self.upstream = kubeconfig.into();
        self
    }

    /// Starts listening on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// No port, no certificate, or an unusable kubeconfig.
    pub async fn start(self) -> Result<Proxy> {
        let tls = if self.plain {
            None
        } else {
            Some(acceptor(self.lab)?)
        };
        let access = |url: &str| self.lab.pki().kubeconfig(url, None);
        Proxy::start(self.upstream, self.rules, tls, self.lab.state_dir(), access).await
    }
}

/// A running proxy. Dropping it closes all its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    url: String,
    kubeconfig: PathBuf,
    seen: Arc<Mutex<Vec<Seen>>>,
    hits: Vec<Hits>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A proxy without rules and without TLS before any API server, with the credentials of its kubeconfig: to count
    /// requests. The kubeconfig that points to it is written into `folder`.
    ///
    /// # Errors
    /// No port, or an unusable kubeconfig.
    pub async fn before(kubeconfig: &Path, folder: &Path) -> Result<Proxy> {
        let access = |url: &str| {
            let access = serde_json::json!({
                "apiVersion": "v1", "kind": "Config", "current-context": "counted",
                "clusters": [{ "name": "counted", "cluster": { "server": url } }],
                "users": [{ "name": "counted", "user": {} }],
                "contexts": [{ "name": "counted", "context": { "cluster": "counted", "user": "counted" } }],
            });
            access.to_string()
        };
        Proxy::start(kubeconfig.to_owned(), Vec::new(), None, folder, access).await
    }

    async fn start(
        upstream: PathBuf,
        rules: Vec<Rule>,
        tls: Option<TlsAcceptor>,
        folder: &Path,
        access: impl FnOnce(&str) -> String,
    ) -> Result<Proxy> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let failed = |e: &dyn std::fmt::Display| TestbedError::Proxy(e.to_string());
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).map_err(|e| failed(&e))?;
        listener.set_nonblocking(true).map_err(|e| failed(&e))?;
        let address = listener.local_addr().map_err(|e| failed(&e))?;
        let scheme = if tls.is_none() { "http" } else { "https" };
        let url = format!("{scheme}://{address}");

        let kubeconfig = folder.join(format!(
            "proxy-{}.kubeconfig",
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        write_private(&kubeconfig, &access(&url))?;

        let (stop, stopped) = oneshot::channel();
        let (ready, answer) = oneshot::channel();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let hits = rules.iter().map(|rule| rule.hits.clone()).collect();
        let job = Job {
            upstream,
            rules: rules.into(),
            seen: Arc::clone(&seen),
            tls,
        };
        let thread = std::thread::Builder::new()
            .name("testbed-proxy".into())
            .spawn(move || job.run(listener, ready, stopped))
            .map_err(|e| failed(&e))?;
        answer.await.map_err(|e| failed(&e))??;
        Ok(Proxy {
            address,
            url,
            kubeconfig,
            seen,
            hits,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Kubeconfig that points to it. It holds no credentials; the proxy has them.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Client that goes through it.
    ///
    /// # Errors
    /// If the kubeconfig cannot be read.
    pub async fn client(&self) -> Result<Client> {
        client_of(&self.kubeconfig).await
    }

    /// All requests so far, in the order of their arrival.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How often each rule did what it says, in their order. What spoils bodies or events counts bodies and events.
    #[must_use]
    pub fn hits(&self) -> Vec<u32> {
        self.hits.iter().map(Hits::count).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn acceptor(lab: &ControlPlane) -> Result<TlsAcceptor> {
    let identity = lab.pki().local_server()?;
    let failed = |e: String| TestbedError::Proxy(format!("certificate: {e}"));
    let cert = CertificateDer::from_pem_slice(identity.cert_pem.as_bytes())
        .map_err(|e| failed(e.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())
        .map_err(|e| failed(e.to_string()))?;
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .and_then(|c| c.with_no_client_auth().with_single_cert(vec![cert], key))
    .map_err(|e| failed(e.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
