//! The HTTP client under the `kube` crate's: connections, and whose certificate is trusted.
//!
//! Small clusters and test servers serve one self-signed certificate and name that same certificate as the authority in
//! their kubeconfig. Go's clients accept it, so users expect it; rustls refuses an authority's certificate at the end of a
//! chain. A certificate that is, octet for octet, one that the operator configured is trusted here too, for the names in it.

use std::sync::Arc;

use hyper_util::{client::legacy, rt::TokioExecutor};
use kube::client::{Body, ConfigExt};
use rustls::{
    DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use tower::{BoxError, ServiceBuilder};

/// Makes the client. Retrying and timeouts are the caller's.
pub(super) fn client(config: kube::Config) -> Result<kube::Client, BoxError> {
    let mut tls = config.rustls_client_config()?;
    if let Some(roots) = config.root_cert.as_ref().filter(|_| !config.accept_invalid_certs) {
        tls.dangerous().set_certificate_verifier(Arc::new(Configured::new(roots)?));
    }
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .build();
    let http = legacy::Client::builder(TokioExecutor::new()).build::<_, Body>(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(kube::Client::new(service, config.default_namespace))
}

/// Trusts what chains to the configured certificates, and these themselves.
#[derive(Debug)]
struct Configured {
    chains: Arc<WebPkiServerVerifier>,
    roots: Vec<CertificateDer<'static>>,
}

impl Configured {
    fn new(roots: &[Vec<u8>]) -> Result<Self, BoxError> {
        let roots: Vec<_> = roots.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let mut store = RootCertStore::empty();
        for root in &roots {
            store.add(root.clone())?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chains =
            WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider).build()?;
        Ok(Self { chains, roots })
    }
}

impl ServerCertVerifier for Configured {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chained = self.chains.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        if chained.is_err() && self.roots.iter().any(|root| root.as_ref() == end_entity.as_ref()) {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            return Ok(ServerCertVerified::assertion());
        }
        chained
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}
