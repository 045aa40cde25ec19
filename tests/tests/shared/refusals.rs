//! What cannot be shared: said at once, with what to do.

use std::io::Write;
use std::net::TcpStream;

use tests::nats::NatsServer;

use crate::machine::{ECHO, Place};
use crate::{end, needs_server};

#[test]
fn servers_that_do_not_let_us_in_or_keep_nothing_are_an_error_that_says_so() {
    needs_server!();
    let server = NatsServer::start_with("authorization { user: us, password: secret }");
    let plain = NatsServer::start_plain();
    let closed = server.url().replace("//", "//us:wrong@");
    for (url, said) in
        [(closed.as_str(), "refuses who we are"), (&plain.url(), "has no JetStream"), ("nats://127.0.0.1:1", "no NATS server answers")]
    {
        let (code, stderr) = end(Place::at(url).run("a", None, &ECHO).process);
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains(said) && !stderr.contains("wrong@") && stderr.lines().count() == 1, "{stderr}");
    }
    let place = Place::at(&server.url().replace("//", "//us:secret@"));
    drop(place.serve("a", &[]));
}

#[test]
fn machines_that_do_not_agree_on_the_queue_are_told_in_what() {
    needs_server!();
    let server = NatsServer::start();
    let place = Place::at(&server.url());
    let _first = place.serve("first", &["--capacity", "1000"]);
    let (code, stderr) = end(place.run("second", None, &[&["--capacity", "2000"], &ECHO[..]].concat()).process);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("expected procq queue of 2000 items") && stderr.contains("same settings as on the other machines"), "{stderr}");
    let other = Place { address: place.address.replace("ack_wait=2s", "ack_wait=3s"), ..Place::at(&server.url()) };
    let (code, stderr) = end(other.run("second", None, &[&["--capacity", "1000"], &ECHO[..]].concat()).process);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("ack_wait") && stderr.contains("expected 3s"), "{stderr}");
}

#[test]
fn items_that_no_message_can_hold_are_refused_with_the_limit() {
    needs_server!();
    let server = NatsServer::start();
    let place = Place::at(&server.url());
    let (code, stderr) = end(place.run("a", None, &[&["--max-item", "2MiB"], &ECHO[..]].concat()).process);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("max_payload") && stderr.contains("give --max-item"), "{stderr}");
    let input = place.folder.path().join("input");
    std::fs::write(&input, format!("small\n{}\nbehind\n", "x".repeat(1 << 20))).unwrap();
    let (code, stdout, stderr) = place.run("a", Some(&input), &ECHO).process.finish();
    assert_eq!((code, &stdout[..]), (1, "small\n"), "{}", &stderr[..stderr.len().min(500)]);
    assert!(stderr.contains("line 2") && stderr.contains("--max-item"), "{}", &stderr[..stderr.len().min(500)]);
}

#[test]
fn a_queue_that_is_deleted_underneath_ends_its_machines_with_the_cause() {
    needs_server!();
    let server = NatsServer::start();
    let place = Place::at(&server.url());
    let machines = ["a", "b"].map(|name| place.serve(name, &[]));
    let mut producer = machines[0].client("producer", &["--input", "-"]);
    producer.write(b"x\n");
    machines[0].wait_until("an item", |status| status.accepted == 1);
    let mut wire = TcpStream::connect(server.url().trim_start_matches("nats://")).unwrap();
    wire.write_all(b"CONNECT {\"verbose\":false}\r\nPUB $JS.API.STREAM.DELETE.jobs 0\r\n\r\nPING\r\n").unwrap();
    for machine in machines {
        let (code, stderr) = end(machine.process);
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains("jobs is gone from the servers") && stderr.contains("can take no further part"), "{stderr}");
    }
    assert_eq!(end(producer).0, 1);
}
