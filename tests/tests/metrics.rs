//! The figures over HTTP, for those who mean well and for those who do not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Consumer, Producer};
use prometheus_parse::{Scrape, Value};
use rustix::process::Signal;
use tests::{DEADLINE, Process, Queue, eventually, proc_cpu_ticks, proc_status_kib};

/// A queue with metrics, and where these are.
fn queue() -> (Queue, SocketAddr) {
    let mut queue = Queue::serve(&["--metrics", "127.0.0.1:0"]);
    let address = address(queue.coordinator());
    (queue, address)
}

fn address(coordinator: &Process) -> SocketAddr {
    eventually("where the metrics are", || {
        let said = coordinator.stderr();
        let (_, rest) = said.split_once("metrics at http://")?;
        rest.split_once("/metrics\n")?.0.parse().ok()
    })
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Asks in these words; the answer's head and body.
fn ask(address: SocketAddr, request: &str) -> Option<(String, String)> {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.into(), body.into()))
}

fn scrape(address: SocketAddr) -> Option<Scrape> {
    let (head, body) = ask(address, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("\r\nContent-Type: text/plain; version=0.0.4"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
    Some(Scrape::parse(body.lines().map(|line| Ok(line.to_string()))).unwrap())
}

fn figure(scrape: &Scrape, name: &str, label: &str) -> f64 {
    let sample = scrape
        .samples
        .iter()
        .find(|sample| sample.metric == name && (label.is_empty() || sample.labels.values().any(|value| value == label)));
    match sample.unwrap_or_else(|| panic!("no {name}")).value {
        Value::Counter(value) | Value::Gauge(value) => value,
        ref other => panic!("{name} is {other:?}"),
    }
}

#[test]
fn they_are_the_queues_figures_as_they_are_now() {
    let (queue, address) = queue();
    let producer = Producer::<[u8]>::connect(&queue.endpoint()).unwrap();
    producer.put_all([&b"a"[..], b"b", b"c"]).unwrap();
    producer.flush().unwrap();
    let consumer = Consumer::<[u8]>::connect_with_prefetch(&queue.endpoint(), 0).unwrap();
    consumer.get().unwrap().unwrap().ack().unwrap();
    let _held = consumer.get().unwrap().unwrap();
    let scrape = eventually("what was done to be seen", || {
        let scrape = scrape(address).unwrap();
        let settled = figure(&scrape, "procq_items_acknowledged_total", "") == 1.0 && figure(&scrape, "procq_items", "held") == 1.0;
        settled.then_some(scrape)
    });
    assert_eq!(figure(&scrape, "procq_items_accepted_total", ""), 3.0);
    assert_eq!(figure(&scrape, "procq_items", "ready"), 1.0);
    assert_eq!([figure(&scrape, "procq_producers", ""), figure(&scrape, "procq_consumers", "")], [1.0, 1.0]);
    let (code, text, _) = queue.client("coordinator", &["status", "--prometheus"]).finish();
    assert_eq!((code, Scrape::parse(text.lines().map(|line| Ok(line.to_string()))).unwrap().samples.len()), (0, scrape.samples.len()));
}

#[test]
fn whatever_else_is_asked_is_refused_by_its_status() {
    let (_queue, address) = queue();
    let long = format!("GET /metrics HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(20_000));
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(500));
    let cases = [
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("GET /metrics/ HTTP/1.1\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405"),
        ("HELLO\r\n\r\n", "400"),
        (&long, "431"),
        (&many, "431"),
    ];
    for (request, status) in cases {
        let (head, _) = eventually("an answer", || ask(address, request));
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{:?}: {head}", &request[..20.min(request.len())]);
    }
    let (head, body) = ask(address, "HEAD /metrics HTTP/1.1\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && body.is_empty());
}

#[test]
fn an_address_that_is_taken_or_that_others_can_reach_is_refused() {
    let (queue, address) = queue();
    let socket = queue.folder().join("other.sock");
    let (code, _, stderr) = Process::start("coordinator", &socket, &["serve", "--metrics", &address.to_string()]).finish();
    assert_eq!(code, 1);
    assert!(
        stderr.contains(&format!("cannot serve metrics at {address}; give another --metrics")) && stderr.contains("in use"),
        "{stderr}"
    );
    let (code, _, stderr) = Process::start("coordinator", &socket, &["serve", "--metrics", "0.0.0.0:0"]).finish();
    assert_eq!(code, 2);
    assert!(stderr.contains("can be reached from other machines"), "{stderr}");
}

#[test]
fn a_run_has_them_too_until_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--metrics", "127.0.0.1:0", "--input", "-", "--consumers", "1", "--", "true", "{}"];
    let mut run = Process::start("coordinator", &folder.path().join("q.sock"), &arguments);
    let address = address(&run);
    run.write(b"a\nb\n");
    eventually("two to be done", || (figure(&scrape(address)?, "procq_items_acknowledged_total", "") == 2.0).then_some(()));
    assert_eq!(run.finish().0, 0);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_coordinator_that_is_busy_is_said_to_be_and_its_figures_come_later() {
    let (queue, address) = queue();
    scrape(address).unwrap();
    // Stopped as a whole, it answers when it goes on.
    tests::signal(queue.pid(), Signal::STOP);
    let mut stream = connect(address);
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    tests::signal(queue.pid(), Signal::CONT);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") || answer.starts_with("HTTP/1.1 503 "), "{answer}");
}

#[test]
fn clients_that_are_silent_slow_deaf_or_endless_hold_up_nobody_and_cost_nothing() {
    let (queue, address) = queue();
    scrape(address).unwrap();
    let memory = || proc_status_kib(queue.pid(), "VmRSS").unwrap();
    let before = memory();
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Silent ones, many more than there are places for.
        let silent: Vec<TcpStream> = (0..200).map(|_| connect(address)).collect();
        // One that says a byte now and then.
        scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                let Ok(mut stream) = TcpStream::connect(address) else { continue };
                for byte in b"GET /metrics HTTP/1.1\r\nA: ".iter().chain([b'a'; 100].iter()) {
                    if stream.write_all(&[*byte]).is_err() || enough.load(Ordering::Relaxed) {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        // One that says more and more, and reads nothing.
        scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                let Ok(mut stream) = TcpStream::connect(address) else { continue };
                let _ = stream.set_write_timeout(Some(Duration::from_millis(50)));
                while stream.write_all(&[b'x'; 64 * 1024]).is_ok() && !enough.load(Ordering::Relaxed) {}
            }
        });
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            // The queue has not noticed.
            let producer = Producer::<[u8]>::connect(&queue.endpoint()).unwrap();
            producer.put(b"item").unwrap();
            producer.flush().unwrap();
            eventually("figures for one who asks", || ask(address, "GET /metrics HTTP/1.1\r\n\r\n"));
        }
        enough.store(true, Ordering::Relaxed);
        drop(silent);
    });
    let after = memory();
    assert!(after < before + 4096, "{before} KiB before, {after} KiB after");
    // Once they have gone, nothing is left to be done.
    eventually("the coordinator to be at rest", || {
        let ticks = || proc_cpu_ticks(queue.pid()).unwrap();
        let before = ticks();
        std::thread::sleep(Duration::from_millis(300));
        (ticks() <= before + 1).then_some(())
    });
}
