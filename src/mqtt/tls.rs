//! TLS towards the broker: whom we trust and who we are, from PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rumqttc::TlsConfiguration;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::TlsSettings;
use crate::secret::{self, SecretError};

/// Settings that no TLS connection can be made with.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file cannot be read or has nothing of what it should have.
    #[error("{} has no {expected}: {reason}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        expected: &'static str,
        /// What was found.
        reason: String,
    },
    /// The private key cannot be had.
    #[error("no private key for TLS")]
    Key(#[from] SecretError),
    /// The system has no authorities.
    #[error("the system has no certificate authorities: install ca-certificates, or set mqtt.ca_file")]
    NoSystemRoots,
    /// Certificate and key do not go together, or the library refuses them.
    #[error("the TLS settings are refused")]
    Refused(#[from] rustls::Error),
}

/// The TLS of one connection; the files are read again for each, so a renewed certificate needs no restart.
///
/// The cryptography is ring's, named here: no other part of the process can change it.
pub(super) fn configuration(settings: &TlsSettings) -> Result<TlsConfiguration, TlsError> {
    let roots = match &settings.ca_file {
        Some(path) => roots_in(path)?,
        None => system_roots()?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match &settings.client {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(certificates(chain)?, private_key(key)?)?,
    };
    Ok(TlsConfiguration::Rustls(Arc::new(config)))
}

fn roots_in(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    // Single unreadable certificates of a system are not our affair as long as some remain.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TlsError::NoSystemRoots) } else { Ok(roots) }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |reason: String| TlsError::Pem { path: path.to_owned(), expected: "certificate", reason };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(|found| found.collect::<Result<Vec<_>, _>>())
        .map_err(|error| failed(error.to_string()))?;
    if certificates.is_empty() { Err(failed("it has no PEM certificate".to_owned())) } else { Ok(certificates) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&secret::read(path)?).map_err(|error| TlsError::Pem {
        path: path.to_owned(),
        expected: "private key",
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ca.pem");
        for content in [None, Some("not PEM"), Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")] {
            if let Some(content) = content {
                std::fs::write(&path, content).expect("writable");
            }
            let settings = TlsSettings { ca_file: Some(path.clone()), client: None };
            let error = configuration(&settings).expect_err("no certificate");
            assert!(matches!(error, TlsError::Pem { .. } | TlsError::Refused(_)), "{content:?}: {error}");
        }
    }
}
