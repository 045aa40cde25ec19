//! What an administrator hands out so that machines and servers know each other: certificates for TLS, and credentials of an account.

use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use serde_json::{Value, json};
use tempfile::TempDir;

/// An authority that no system knows.
pub struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key.
pub struct Certificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "an authority of procq's tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Authority { folder: tempfile::tempdir().unwrap(), issuer };
        std::fs::write(authority.file(), authority.issuer.pem()).unwrap();
        authority
    }

    /// What those have who trust it.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// Certifies a machine, by its name or address.
    pub fn certify(&self, name: &str) -> Certificate {
        self.certify_until(name, 2100)
    }

    /// The same, to the beginning of this year.
    pub fn certify_until(&self, name: &str, year: i32) -> Certificate {
        let mut params = CertificateParams::new([name.to_string()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        let [certificate, key] = [("pem", pem), ("key", key.serialize_pem())].map(|(kind, content)| {
            let path = self.folder.path().join(format!("{name}.{year}.{kind}"));
            std::fs::write(&path, content).unwrap();
            path
        });
        Certificate { certificate, key }
    }
}

impl Certificate {
    /// What stands in the configuration of the server that has it.
    pub fn config(&self, more: &str) -> String {
        format!("tls {{ cert_file: {:?}, key_file: {:?}, {more} }}", self.certificate, self.key)
    }
}

/// Who says which accounts there are at a server, and an account of it.
pub struct Operator {
    operator: nkeys::KeyPair,
    account: nkeys::KeyPair,
}

impl Operator {
    pub fn new() -> Operator {
        Operator { operator: nkeys::KeyPair::new_operator(), account: nkeys::KeyPair::new_account() }
    }

    /// What stands in the configuration of its servers.
    pub fn config(&self) -> String {
        let account = |key: &nkeys::KeyPair, storage: i64| {
            let unlimited = ["subs", "data", "payload", "imports", "exports", "conn", "leaf"].map(|limit| (limit.to_string(), json!(-1)));
            let mut limits = Value::from_iter(unlimited);
            limits["wildcards"] = true.into();
            let jetstream = ["mem_storage", "disk_storage", "streams", "consumer"];
            jetstream.into_iter().for_each(|limit| limits[limit] = storage.into());
            token(&self.operator, &key.public_key(), json!({ "type": "account", "version": 2, "limits": limits }))
        };
        let operator = token(&self.operator, &self.operator.public_key(), json!({ "type": "operator", "version": 2 }));
        // Servers with JetStream have to have an account for themselves, which may not use it.
        let system = nkeys::KeyPair::new_account();
        let accounts = [(&system, 0), (&self.account, -1)].map(|(key, storage)| format!("{}: {}", key.public_key(), account(key, storage)));
        let accounts = accounts.join(", ");
        format!("operator: {operator}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{ {accounts} }}", system.public_key())
    }

    /// What a user of the account has, as `nsc generate creds` writes it.
    pub fn credentials(&self) -> String {
        let user = nkeys::KeyPair::new_user();
        let unlimited = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1 });
        let (token, seed) = (token(&self.account, &user.public_key(), unlimited), user.seed().unwrap());
        format!(
            "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }
}

/// What one key says of another, in the form that servers read.
fn token(issuer: &nkeys::KeyPair, subject: &str, says: Value) -> String {
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let head = part(json!({ "typ": "JWT", "alg": "ed25519-nkey" }));
    let claims = json!({ "jti": subject, "iat": 0, "iss": issuer.public_key(), "name": "tests", "sub": subject, "nats": says });
    let signed = format!("{head}.{}", part(claims));
    let signature = BASE64_URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}
