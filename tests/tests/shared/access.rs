//! Who gets in where: TLS, certificates, credentials, several servers, domains. Who does not is told at once, with what to do.

use std::net::TcpListener;
use std::path::Path;

use tests::nats::NatsServer;

use crate::keys::{Authority, Operator};
use crate::machine::{ECHO, Place, account};
use crate::{end, needs_server};

/// A queue whose address has more parameters than are usual here.
fn place(url: &str, parameters: &[(&str, &Path)]) -> Place {
    let mut place = Place::at(url);
    parameters.iter().for_each(|(name, value)| place.address += &format!("&{name}={}", value.display()));
    place
}

/// A run gets in, and does all that is put.
#[track_caller]
fn works(place: &Place) {
    let input = place.input("x", 100);
    let results = place.run("a", Some(&input), &ECHO).results();
    assert_eq!(account([&input], &[results]), 0);
}

/// A run does not get in, and says so in one line that has all these words.
#[track_caller]
fn is_refused(place: &Place, words: &[&str]) {
    let (code, stderr) = end(place.run("a", None, &ECHO).process);
    assert_eq!((code, stderr.lines().count()), (1, 1), "{stderr}");
    let missing: Vec<_> = words.iter().filter(|word| !stderr.contains(**word)).collect();
    assert!(missing.is_empty(), "no {missing:?} in {stderr}");
}

fn tls(url: &str) -> String {
    url.replace("nats://", "tls://")
}

#[test]
fn a_queue_is_reached_over_tls_with_an_authority_of_its_own() {
    needs_server!();
    let authority = Authority::new();
    let server = NatsServer::start_with(&authority.certify("127.0.0.1").config(""));
    // A server that wants TLS gets it, asked for or not.
    for url in [server.url(), tls(&server.url())] {
        works(&place(&url, &[("ca", &authority.file())]));
    }
}

#[test]
fn a_server_whose_certificate_is_not_trusted_is_refused_with_what_would_help() {
    needs_server!();
    let (authority, other) = (Authority::new(), Authority::new());
    let server = NatsServer::start_with(&authority.certify("127.0.0.1").config(""));
    let unknown = ["certificate", "signed by nobody whom we trust", "give that authority's certificate with ca=FILE"];
    is_refused(&place(&server.url(), &[]), &unknown);
    is_refused(&place(&tls(&server.url()), &[("ca", &other.file())]), &unknown);
    let elsewhere = NatsServer::start_with(&authority.certify("elsewhere.example").config(""));
    is_refused(&place(&elsewhere.url(), &[("ca", &authority.file())]), &["certificate is for another name", "elsewhere.example"]);
    let late = NatsServer::start_with(&authority.certify_until("127.0.0.1", 2020).config(""));
    is_refused(&place(&late.url(), &[("ca", &authority.file())]), &["certificate", "expired", "renew"]);
}

#[test]
fn a_server_without_tls_is_not_spoken_to_where_tls_is_asked_for() {
    needs_server!();
    let (authority, server) = (Authority::new(), NatsServer::start());
    let ours = authority.certify("us");
    let words = ["speaks no TLS", "nats://", "tls { … }"];
    is_refused(&place(&tls(&server.url()), &[]), &words);
    // Whoever says whom to trust, or shows a certificate, means TLS.
    is_refused(&place(&server.url(), &[("ca", &authority.file())]), &words);
    is_refused(&place(&server.url(), &[("cert", &ours.certificate), ("key", &ours.key)]), &words);
}

#[test]
fn a_server_that_asks_for_our_certificate_gets_it() {
    needs_server!();
    let (authority, other) = (Authority::new(), Authority::new());
    let asks = format!("ca_file: {:?}, verify: true", authority.file());
    let server = NatsServer::start_with(&authority.certify("127.0.0.1").config(&asks));
    let (ours, strange, trusted) = (authority.certify("us"), other.certify("us"), authority.file());
    works(&place(&server.url(), &[("ca", &trusted), ("cert", &ours.certificate), ("key", &ours.key)]));
    is_refused(&place(&server.url(), &[("ca", &trusted)]), &["wants a certificate of ours", "cert=FILE&key=FILE"]);
    let strange = [("ca", &*trusted), ("cert", &strange.certificate), ("key", &strange.key)];
    is_refused(&place(&server.url(), &strange), &["certificate", "cert=FILE&key=FILE"]);
}

#[test]
fn certificates_that_cannot_be_read_are_told_by_their_file() {
    needs_server!();
    let authority = Authority::new();
    let server = NatsServer::start_with(&authority.certify("127.0.0.1").config(""));
    let (ours, trusted) = (authority.certify("us"), authority.file());
    let missing = Path::new("/no/such/file");
    is_refused(&place(&server.url(), &[("ca", missing)]), &["cannot use the certificates in /no/such/file", "No such file"]);
    is_refused(&place(&server.url(), &[("ca", &ours.key)]), &["cannot use the certificates in", "us.2100.key", "no certificate"]);
    let no_key = [("ca", &*trusted), ("cert", &ours.certificate), ("key", missing)];
    is_refused(&place(&server.url(), &no_key), &["cannot use the key in /no/such/file", "No such file"]);
    let no_key = [("ca", &*trusted), ("cert", &ours.certificate), ("key", &ours.certificate)];
    is_refused(&place(&server.url(), &no_key), &["cannot use the key in", "us.2100.pem"]);
}

#[test]
fn credentials_let_us_in_and_those_that_do_not_are_told_by_their_file() {
    needs_server!();
    let (operator, other) = (Operator::new(), Operator::new());
    let server = NatsServer::start_with(&operator.config());
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    works(&place(&server.url(), &[("creds", &file("ours.creds", &operator.credentials()))]));
    is_refused(&place(&server.url(), &[]), &["refuses who we are", "creds=FILE"]);
    let strange = file("strange.creds", &other.credentials());
    is_refused(&place(&server.url(), &[("creds", &strange)]), &["refuses the credentials in", "strange.creds", "give others"]);
    for (path, said) in [(file("empty.creds", "hello\n"), "cannot parse user JWT"), ("/no/such.creds".into(), "No such file")] {
        let path = path.as_path();
        is_refused(&place(&server.url(), &[("creds", path)]), &["cannot use the credentials in", path.to_str().unwrap(), said, "nsc"]);
    }
}

#[test]
fn one_of_several_servers_is_enough() {
    needs_server!();
    let server = NatsServer::start();
    // They are tried in any order: with so many that are not there, the right one is hardly ever the first.
    let closed: Vec<TcpListener> = (0..5).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let closed: Vec<String> = closed.into_iter().map(|listener| listener.local_addr().unwrap().to_string()).collect();
    let live = server.url().replace("nats://", "");
    works(&place(&format!("nats://{},{live}", closed.join(",")), &[]));
    is_refused(&place(&format!("nats://{}", closed.join(",")), &[]), &["no NATS server answers", &closed[0], &closed[4]]);
}

#[test]
fn a_domain_is_asked_for_by_its_name_and_one_that_is_not_there_is_told() {
    needs_server!();
    let [hub, leaf] = NatsServer::start_with_domain("leaf");
    for server in [&hub, &leaf] {
        works(&place(&server.url(), &[("domain", Path::new("leaf"))]));
        let words = ["no JetStream domain lead", "domain=NAME", "jetstream { domain: … }"];
        is_refused(&place(&server.url(), &[("domain", Path::new("lead"))]), &words);
    }
    is_refused(&place(&hub.url(), &[]), &["has no JetStream"]);
}
