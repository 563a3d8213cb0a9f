//! The certificate files, and TLS configurations made of them, made anew when a file has changed.

use crate::ALPN;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Where the certificates are. The default is libvirt's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities that both ends trust.
    pub ca: PathBuf,
    /// Revocation lists of these; looked at where the file is there.
    pub crl: PathBuf,
    /// What this host shows as the source of a migration.
    pub server_cert: PathBuf,
    /// Its key.
    pub server_key: PathBuf,
    /// What this host shows as the destination; where the file is not there, the server's.
    pub client_cert: PathBuf,
    /// Its key.
    pub client_key: PathBuf,
}

impl Default for TlsFiles {
    fn default() -> Self {
        Self::in_dir(Path::new("/etc/pki"))
    }
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// Not there, or not to be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// Not what it should be.
    #[error("{} is not PEM, or has none of what it should have: {reason}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it lacks.
        reason: String,
    },
    /// Does not fit the others.
    #[error("{} cannot be used: {reason}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl TlsFiles {
    /// Files with libvirt's names below another directory than `/etc/pki`.
    #[must_use]
    pub fn in_dir(pki: &Path) -> Self {
        Self {
            ca: pki.join("CA/cacert.pem"),
            crl: pki.join("CA/cacrl.pem"),
            server_cert: pki.join("libvirt/servercert.pem"),
            server_key: pki.join("libvirt/private/serverkey.pem"),
            client_cert: pki.join("libvirt/clientcert.pem"),
            client_key: pki.join("libvirt/private/clientkey.pem"),
        }
    }

    /// Reads everything once, for a check of the configuration.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn check(&self) -> Result<(), FilesError> {
        self.server_config()?;
        self.client_config().map(drop)
    }

    /// The certificate that this host shows as a client, and its key.
    pub(crate) fn client_pair(&self) -> (&Path, &Path) {
        // Both or none: a certificate with another one's key is of no use.
        if self.client_cert.exists() {
            (&self.client_cert, &self.client_key)
        } else {
            (&self.server_cert, &self.server_key)
        }
    }

    pub(crate) fn server_config(&self) -> Result<ServerConfig, FilesError> {
        let roots = Arc::new(self.roots()?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .with_crls(self.crls()?)
            .allow_unknown_revocation_status()
            .build()
            .map_err(|e| unusable(&self.ca, e))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| unusable(&self.ca, e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates(&self.server_cert)?, key(&self.server_key)?)
            .map_err(|e| mismatch(&self.server_cert, &self.server_key, e))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(config)
    }

    pub(crate) fn client_config(&self) -> Result<ClientConfig, FilesError> {
        let roots = Arc::new(self.roots()?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
            .with_crls(self.crls()?)
            .allow_unknown_revocation_status()
            .build()
            .map_err(|e| unusable(&self.ca, e))?;
        let (cert, key_file) = self.client_pair();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| unusable(&self.ca, e))?
            .with_webpki_verifier(verifier)
            .with_client_auth_cert(certificates(cert)?, key(key_file)?)
            .map_err(|e| mismatch(cert, key_file, e))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    fn roots(&self) -> Result<RootCertStore, FilesError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca)? {
            roots.add(certificate).map_err(|e| unusable(&self.ca, e))?;
        }
        Ok(roots)
    }

    fn crls(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, FilesError> {
        match CertificateRevocationListDer::pem_file_iter(&self.crl) {
            Err(PemError::Io(e)) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(pem(&self.crl, error)),
            Ok(lists) => lists.map(|list| list.map_err(|e| pem(&self.crl, e))).collect(),
        }
    }

    /// What changes when a file is replaced or written.
    fn stamp(&self) -> Stamp {
        let all = [
            &self.ca,
            &self.crl,
            &self.server_cert,
            &self.server_key,
            &self.client_cert,
            &self.client_key,
        ];
        all.map(|path| {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
        })
    }
}

type Stamp = [Option<(u64, u64, i64, i64)>; 6];

/// A configuration that follows its files.
pub(crate) struct Current<T> {
    files: TlsFiles,
    make: fn(&TlsFiles) -> Result<T, FilesError>,
    held: Mutex<Option<(Stamp, Arc<T>)>>,
}

impl<T> Current<T> {
    pub(crate) fn new(files: TlsFiles, make: fn(&TlsFiles) -> Result<T, FilesError>) -> Self {
        Self {
            files,
            make,
            held: Mutex::new(None),
        }
    }

    pub(crate) fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// The configuration of the files as they are now. Files that cannot be used leave the last good one in place: a
    /// renewal replaces certificate and key one after the other.
    pub(crate) fn get(&self) -> Result<Arc<T>, FilesError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the reading: what changes meanwhile is read again next time.
        let stamp = self.files.stamp();
        let old = match &*held {
            Some((then, config)) if *then == stamp => return Ok(Arc::clone(config)),
            Some((_, config)) => Some(Arc::clone(config)),
            None => None,
        };
        match ((self.make)(&self.files), old) {
            (Ok(config), _) => {
                let config = Arc::new(config);
                *held = Some((stamp, Arc::clone(&config)));
                Ok(config)
            }
            (Err(error), Some(old)) => {
                // Once per change, as the stamp is taken over.
                let error: &dyn std::error::Error = &error;
                tracing::warn!(
                    error,
                    "changed certificate files cannot be used, going on with the old ones"
                );
                *held = Some((stamp, Arc::clone(&old)));
                Ok(old)
            }
            (Err(error), None) => Err(error),
        }
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FilesError> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|e| pem(path, e))?;
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().map_err(|e| pem(path, e))?;
    if certificates.is_empty() {
        return Err(pem(path, PemError::NoItemsFound));
    }
    Ok(certificates)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, FilesError> {
    PrivateKeyDer::from_pem_file(path).map_err(|e| pem(path, e))
}

fn pem(path: &Path, error: PemError) -> FilesError {
    let path = path.to_owned();
    match error {
        PemError::Io(source) => FilesError::Read { path, source },
        PemError::NoItemsFound => FilesError::Pem {
            path,
            reason: "nothing between BEGIN and END lines that fits; a key must not be encrypted".into(),
        },
        other => FilesError::Pem {
            path,
            reason: other.to_string(),
        },
    }
}

fn unusable(path: &Path, reason: impl std::fmt::Display) -> FilesError {
    FilesError::Unusable {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

fn mismatch(cert: &Path, key: &Path, error: rustls::Error) -> FilesError {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            unusable(cert, format_args!("it does not belong to the key {}", key.display()))
        }
        other => unusable(cert, other),
    }
}
