//! How servers come to know us and we them, and what to say when that fails.

use std::error::Error;
use std::io;
use std::path::Path;

use async_nats::rustls::pki_types::pem::PemObject;
use async_nats::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use async_nats::rustls::{self, AlertDescription, CertificateError};
use async_nats::{ConnectError, ConnectErrorKind, ConnectOptions, ServerAddr};

use super::chain;
use crate::jetstream::{Address, ClusterError};

/// Adds what the address says of it. The files are read here, too: the library's words for those that it cannot use name none of them.
pub(super) fn add(mut options: ConnectOptions, address: &Address, servers: &[ServerAddr]) -> Result<ConnectOptions, ClusterError> {
    if let Some(server) = servers.iter().find(|server| server.has_user_pass()) {
        let (user, password) = (server.username().unwrap_or_default(), server.password().unwrap_or_default());
        options = options.user_and_password(user.into(), password.into());
    }
    if let Some(path) = &address.credentials {
        let fail = |error: io::Error| ClusterError::Credentials { path: path.clone(), said: error.to_string() };
        options = std::fs::read_to_string(path).and_then(|content| options.credentials(&content)).map_err(fail)?;
    }
    if let Some(path) = &address.authorities {
        check_certificates(path)?;
        options = options.add_root_certificates(path.clone());
    }
    if let Some((certificate, key)) = &address.certificate {
        check_certificates(certificate)?;
        check_key(key)?;
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    // Whoever says whom to trust, or shows a certificate, means TLS, and is not to be talked out of it by whoever is on the way. Servers that are
    // heard of later have no scheme of their own, either.
    let is_meant = servers.iter().any(ServerAddr::tls_required) || address.authorities.is_some() || address.certificate.is_some();
    Ok(options.require_tls(is_meant))
}

fn check_certificates(path: &Path) -> Result<(), ClusterError> {
    let fail = |said: String| ClusterError::KeyFile { what: "certificates", path: path.into(), said };
    let content = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    let found = CertificateDer::pem_slice_iter(&content).collect::<Result<Vec<_>, _>>().map_err(|error| fail(error.to_string()))?;
    if found.is_empty() { Err(fail("there is no certificate in it".into())) } else { Ok(()) }
}

fn check_key(path: &Path) -> Result<(), ClusterError> {
    let fail = |said: String| ClusterError::KeyFile { what: "key", path: path.into(), said };
    let content = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    match PrivateKeyDer::pem_slice_iter(&content).next() {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(fail(error.to_string())),
        None => Err(fail("there is no private key in it".into())),
    }
}

/// Why there is no connection.
pub(super) fn refusal(address: &Address, error: &ConnectError) -> ClusterError {
    let shown = address.to_string();
    let (said, advice) = match (error.kind(), tls_error(error)) {
        (ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication, _) => {
            return ClusterError::Unauthorized { address: shown, credentials: address.credentials.clone() };
        }
        (_, Some(error)) => why_no_tls(error),
        (ConnectErrorKind::Tls, None) => (chain(error), "mend the host, or what ca, cert and key name"),
        (_, None) => return ClusterError::Unreachable { address: shown, said: chain(error) },
    };
    ClusterError::NoTls { address: shown, said, advice }
}

/// What is wrong, and what would help.
fn why_no_tls(error: &rustls::Error) -> (String, &'static str) {
    match error {
        rustls::Error::InvalidCertificate(wrong) => match wrong {
            // An authority of the same name, but with another key, has signed nothing here.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                ("its certificate is signed by nobody whom we trust".into(), "give that authority's certificate with ca=FILE")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                (format!("its certificate is for another name ({wrong})"), "write the host as its certificate does")
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => {
                (format!("its certificate has expired, or is not valid yet ({wrong})"), "renew it, or set this machine's clock")
            }
            _ => (error.to_string(), "give the server a certificate for its name that an authority has signed, and name that with ca=FILE"),
        },
        rustls::Error::InvalidMessage(_) => {
            ("it speaks no TLS".into(), "have it do so (tls { … } in its configuration), or write nats:// without ca, cert and key")
        }
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA,
        ) => (format!("it wants a certificate of ours that it trusts ({error})"), "give one with cert=FILE&key=FILE"),
        _ => (error.to_string(), "mend the server's tls { … }, or what ca, cert and key name"),
    }
}

/// What the TLS library has said, if it was that: the system's errors carry it without counting it among their sources.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = carried.map(|error| error as &(dyn Error + 'static)).or_else(|| error.source());
    }
    None
}
