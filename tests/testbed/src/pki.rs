//! Keys, certificates and kubeconfigs of one laboratory (ECDSA P-256, made in memory, written with mode 0600).
//!
//! The authority lives as long as the [`Pki`] value, so tests can ask for client certificates of any user.
//! Nothing here is meant for a cluster that anybody depends on.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};

use crate::error::{Result, TestbedError};

/// A certificate with its private key, both PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Certificate.
    pub cert_pem: String,
    /// PKCS#8 private key.
    pub key_pem: String,
}

/// The authorities of a laboratory and the folder into which it writes.
pub struct Pki {
    dir: PathBuf,
    ca: CertifiedIssuer<'static, KeyPair>,
    front_proxy_ca: CertifiedIssuer<'static, KeyPair>,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pki")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl Pki {
    /// Makes all authorities, keys and certificates that the control plane needs and writes them below `dir`.
    ///
    /// The API server is named by loopback, by `host` and by `service`, the address that pods use.
    pub(crate) fn create(dir: &Path, host: Ipv4Addr, service: Ipv4Addr) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(TestbedError::io(dir))?;
        let pki = Self {
            dir: dir.to_owned(),
            ca: authority("kubernetes-ca")?,
            front_proxy_ca: authority("front-proxy-ca")?,
        };
        pki.write("ca.crt", &pki.ca.pem())?;
        pki.write("ca.key", &pki.ca.key().serialize_pem())?;
        pki.write("front-proxy-ca.crt", &pki.front_proxy_ca.pem())?;

        let service_accounts = key("sa")?;
        pki.write("sa.key", &service_accounts.serialize_pem())?;
        pki.write("sa.pub", &service_accounts.public_key_pem())?;

        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let (host, service) = (IpAddr::V4(host), IpAddr::V4(service));
        let names = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
        ];
        pki.write_identity(
            "apiserver",
            &leaf(
                &pki.ca,
                "kube-apiserver",
                &[],
                &names,
                &[loopback, host, service],
            )?,
        )?;
        pki.write_identity(
            "local-server",
            &leaf(&pki.ca, "localhost", &[], &["localhost"], &[loopback, host])?,
        )?;
        pki.write_identity(
            "apiserver-kubelet-client",
            &pki.client("kube-apiserver-kubelet-client", &["system:masters"])?,
        )?;
        pki.write_identity(
            "front-proxy-client",
            &leaf(&pki.front_proxy_ca, "front-proxy-client", &[], &[], &[])?,
        )?;
        Ok(pki)
    }

    /// A client certificate for `user` in `groups`.
    ///
    /// # Errors
    /// Only if the random number generator fails.
    pub fn client(&self, user: &str, groups: &[&str]) -> Result<Identity> {
        leaf(&self.ca, user, groups, &[], &[])
    }

    /// A server certificate for `localhost` and `127.0.0.1`, for webhooks, proxies and the like run by tests.
    ///
    /// # Errors
    /// Only if the random number generator fails.
    pub fn local_server(&self) -> Result<Identity> {
        leaf(
            &self.ca,
            "localhost",
            &[],
            &["localhost"],
            &[IpAddr::V4(Ipv4Addr::LOCALHOST)],
        )
    }

    /// A server certificate for these names and addresses.
    ///
    /// # Errors
    /// Only if the random number generator fails.
    pub fn server(&self, common_name: &str, dns: &[&str], ips: &[IpAddr]) -> Result<Identity> {
        leaf(&self.ca, common_name, &[], dns, ips)
    }

    /// The certificate of the cluster's authority, PEM.
    #[must_use]
    pub fn ca_pem(&self) -> String {
        self.ca.pem()
    }

    /// Path of a file made by [`Pki::create`].
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    /// Text of a kubeconfig for `server`; without an identity for servers that ask for none.
    #[must_use]
    pub fn kubeconfig(&self, server: &str, identity: Option<&Identity>) -> String {
        let b64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let mut cluster = serde_json::json!({ "server": server });
        if server.starts_with("https:") {
            cluster["certificate-authority-data"] = b64(&self.ca_pem()).into();
        }
        let user = identity.map_or_else(
            || serde_json::json!({}),
            |id| serde_json::json!({ "client-certificate-data": b64(&id.cert_pem), "client-key-data": b64(&id.key_pem) }),
        );
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "testbed", "cluster": cluster }],
            "users": [{ "name": "testbed", "user": user }],
            "contexts": [{ "name": "testbed", "context": { "cluster": "testbed", "user": "testbed" } }],
            "current-context": "testbed",
        });
        serde_yaml_ng::to_string(&config).unwrap_or_else(|_| config.to_string())
    }

    pub(crate) fn write_identity(&self, name: &str, identity: &Identity) -> Result<()> {
        self.write(&format!("{name}.crt"), &identity.cert_pem)?;
        self.write(&format!("{name}.key"), &identity.key_pem)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        write_private(&self.dir.join(file), text)
    }
}

/// Writes a file that only its owner can read.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(TestbedError::io(path))?;
    file.write_all(text.as_bytes())
        .map_err(TestbedError::io(path))
}

fn key(name: &str) -> Result<KeyPair> {
    KeyPair::generate().map_err(|source| TestbedError::Pki {
        name: name.to_owned(),
        source,
    })
}

fn params(common_name: &str, organisations: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common_name);
    for organisation in organisations {
        subject.push(DnType::OrganizationName, *organisation);
    }
    params.distinguished_name = subject;
    // A fixed past date, because the clock of a virtual machine may be behind that of its host.
    params.not_before = rcgen::date_time_ymd(2024, 1, 1);
    params.not_after = rcgen::date_time_ymd(2049, 12, 31);
    params
}

fn authority(name: &str) -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = params(name, &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    CertifiedIssuer::self_signed(params, key(name)?).map_err(|source| TestbedError::Pki {
        name: name.to_owned(),
        source,
    })
}

/// A leaf with names is a server's, one without is a client's.
fn leaf(
    ca: &CertifiedIssuer<'static, KeyPair>,
    common_name: &str,
    organisations: &[&str],
    dns: &[&str],
    ips: &[IpAddr],
) -> Result<Identity> {
    let failed = |source| TestbedError::Pki {
        name: common_name.to_owned(),
        source,
    };
    let mut params = params(common_name, organisations);
    params.use_authority_key_identifier_extension = true;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![if dns.is_empty() && ips.is_empty() {
        ExtendedKeyUsagePurpose::ClientAuth
    } else {
        ExtendedKeyUsagePurpose::ServerAuth
    }];
    for name in dns {
        params
            .subject_alt_names
            .push(SanType::DnsName((*name).try_into().map_err(failed)?));
    }
    params
        .subject_alt_names
        .extend(ips.iter().map(|ip| SanType::IpAddress(*ip)));
    let key = key(common_name)?;
    let cert = params.signed_by(&key, ca).map_err(failed)?;
    Ok(Identity {
        cert_pem: cert.pem(),
        key_pem: key.serialize_pem(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn keys_are_private_and_kubeconfigs_complete() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::create(dir.path(), Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST).unwrap();
        for file in ["ca.key", "sa.key", "apiserver.key"] {
            let mode = std::fs::metadata(pki.path(file))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o077, 0, "{file} is readable by others");
        }
        let id = pki.client("alice", &["team-a", "team-b"]).unwrap();
        let text = pki.kubeconfig("https://127.0.0.1:1", Some(&id));
        let parsed = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        assert_eq!(parsed.current_context.as_deref(), Some("testbed"));
        assert!(text.contains("certificate-authority-data"));
        let plain = pki.kubeconfig("http://127.0.0.1:1", None);
        assert!(
            !plain.contains("client-key-data") && !plain.contains("certificate-authority-data")
        );
    }
}
