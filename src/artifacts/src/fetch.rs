//! A plain request to a presigned URL, as a pod or a person would make it. For the probe only.

use std::{error::Error, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

const DEADLINE: Duration = Duration::from_secs(10);

/// What to do with the URL.
#[derive(Debug, Clone, Copy)]
pub(super) enum Method {
    Get,
    Put,
}

/// Nothing came back. Says no more: a cause could hold the URL.
#[derive(Debug)]
pub(super) struct NoAnswer;

impl<E: Error> From<E> for NoAnswer {
    fn from(_: E) -> Self {
        Self
    }
}

/// The status of the answer.
pub(super) async fn status(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    ca_pem: Option<&str>,
) -> Result<u16, NoAnswer> {
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(trust(ca_pem)?)
        .https_or_http()
        .enable_http1()
        .build();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let method = match method {
        Method::Get => http::Method::GET,
        Method::Put => http::Method::PUT,
    };
    let mut request = http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from_static(b"probe")))?;
    let answer = tokio::time::timeout(DEADLINE, client.request(request)).await??;
    Ok(answer.status().as_u16())
}

fn trust(ca_pem: Option<&str>) -> Result<ClientConfig, NoAnswer> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(pem) = ca_pem {
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            roots.add(certificate?)?;
        }
    }
    let provider = rustls::crypto::ring::default_provider();
    Ok(ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
