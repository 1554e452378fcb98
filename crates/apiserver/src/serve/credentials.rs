//! A certificate authority of one's own, a certificate for the server, a token for the client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use uuid::Uuid;

use super::ServeError;

/// What guards one API for as long as it lives.
#[derive(Debug)]
pub(crate) struct Credentials {
    authority: CertifiedIssuer<'static, KeyPair>,
    token: String,
}

impl Credentials {
    pub(crate) fn new() -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "bitts-apiserver-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        Ok(Self {
            authority: CertifiedIssuer::self_signed(params, KeyPair::generate()?)?,
            // Two of them: 244 random bits.
            token: format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()),
        })
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// TLS with a certificate for this address and for the names of the loopback.
    pub(super) fn server_config(&self, address: IpAddr) -> Result<ServerConfig, ServeError> {
        let names = vec!["localhost".to_owned(), "kubernetes.default.svc".to_owned()];
        let mut params = CertificateParams::new(names)?;
        for ip in [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
            address,
        ] {
            params.subject_alt_names.push(SanType::IpAddress(ip));
        }
        params
            .distinguished_name
            .push(DnType::CommonName, "bitts-apiserver");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.authority)?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    pub(super) fn kubeconfig(&self, address: SocketAddr) -> String {
        // A server that listens everywhere is reached here by the loopback.
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        let server = SocketAddr::new(ip, address.port());
        let authority = STANDARD.encode(self.authority.pem());
        let token = &self.token;
        format!(
            "apiVersion: v1
kind: Config
clusters:
- name: bitts
  cluster:
    server: https://{server}
    certificate-authority-data: {authority}
users:
- name: bitts
  user:
    token: {token}
contexts:
- name: bitts
  context:
    cluster: bitts
    user: bitts
    namespace: default
current-context: bitts
"
        )
    }
}
