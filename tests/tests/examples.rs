//! The scripts in `examples/` do what they say.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use rustix::process::Signal;
use tempfile::TempDir;
use tests::engine::{Engine, is_about};
use tests::{Process, children_of, eventually, name_of, program, signal};

struct Place(TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// An example, ready to be started: with our programs in its path, and a runtime folder of its own.
    fn example(&self, name: &str, arguments: &[&Path]) -> Command {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("examples");
        let programs = program("coordinator").parent().expect("a folder").to_path_buf();
        let mut command = Command::new(examples.join(name));
        command.args(arguments).current_dir(self.0.path()).env("XDG_RUNTIME_DIR", self.0.path());
        command.env("PATH", format!("{}:{}", programs.display(), std::env::var("PATH").expect("a path")));
        command
    }
}

#[test]
fn files_has_each_file_once_though_it_was_killed_in_the_middle() {
    if !is_about(&[Engine::Memory, Engine::Journal], "the script has a journal of its own") {
        return;
    }
    let place = Place::new();
    let folder = place.path("folder");
    std::fs::create_dir(&folder).expect("a folder");
    for number in 0..300 {
        std::fs::write(folder.join(format!("file {number}")), number.to_string()).expect("a file");
    }
    let results = place.path("sums");
    let start = || Process::spawn_plain(place.example("files.sh", &[&folder, &results]));
    let mut killed = start();
    eventually("some results", || std::fs::metadata(&results).is_ok_and(|meta| meta.len() > 0).then_some(()));
    let coordinator = children_of(killed.pid()).into_iter().find(|pid| name_of(*pid) == "coordinator");
    signal(coordinator.expect("a run that is not done yet"), Signal::KILL);
    assert_eq!(killed.wait(), 137);
    assert!(place.path("sums.state").is_dir());
    let (code, _, said) = start().finish();
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("going on with") || said.is_empty(), "{said}");
    let lines = std::fs::read_to_string(&results).expect("the results");
    assert_eq!((lines.lines().count(), lines.lines().collect::<BTreeSet<_>>().len()), (300, 300));
    assert!(!place.path("sums.state").exists());
}

/// A few pages on this machine: `/ok…` is there, `/busy` is at its second visit, `/gone` never, and at `/broken` nobody answers.
fn serve_pages(listener: &TcpListener, visits: &Mutex<Vec<String>>) {
    for stream in listener.incoming() {
        let mut stream = stream.expect("a visitor");
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).expect("a request");
        let page = line.split(' ').nth(1).unwrap_or_default().to_string();
        let mut visits = visits.lock().expect("the visits so far");
        let is_first = !visits.contains(&page);
        visits.push(page.clone());
        drop(visits);
        let answer = match &page[..] {
            "/broken" => continue,
            "/gone" => "404 Not Found",
            "/busy" if is_first => "503 Busy",
            _ => "200 OK",
        };
        let _ = write!(stream, "HTTP/1.1 {answer}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}", page.len());
    }
}

#[test]
fn the_scraper_tries_again_what_may_come_and_gives_up_what_will_not() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("skipped: there is no curl");
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let site = format!("http://{}", listener.local_addr().expect("an address"));
    let visits: &'static Mutex<Vec<String>> = Box::leak(Box::default());
    std::thread::spawn(move || serve_pages(&listener, visits));
    let place = Place::new();
    let (urls, pages) = (place.path("urls"), place.path("pages"));
    let list = ["/ok1", "/gone", "/busy", "/broken", "/ok';touch${IFS}oops;'"].map(|page| format!("{site}{page}\n")).concat();
    std::fs::write(&urls, list).expect("a file");
    let mut command = place.example("scraper.sh", &[&urls, &pages]);
    command.env("PROCQ_RETRY_DELAY", "10ms..20ms").env("PROCQ_MAX_ATTEMPTS", "3").env("no_proxy", "*");
    let (code, out, said) = Process::spawn_plain(command).finish();
    assert_eq!((code, &out[..]), (3, ""), "{said}");
    let index = std::fs::read_to_string(pages.join("index.tsv")).expect("the index");
    let mut came: Vec<&str> = index.lines().map(|line| line.split('\t').next().expect("an address").trim_start_matches(&site)).collect();
    came.sort_unstable();
    assert_eq!(came, ["/busy", "/ok';touch${IFS}oops;'", "/ok1"], "{said}");
    let of_ok = index.lines().find(|line| line.contains("/ok1")).expect("a line").split('\t').nth(1).expect("a file");
    assert_eq!(std::fs::read_to_string(of_ok).expect("a page"), "/ok1");
    let failed = std::fs::read_to_string(pages.join("failed.jsonl")).expect("the dead letters");
    let causes: Vec<serde_json::Value> = failed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |page: &str| causes.iter().find(|letter| letter["item"] == format!("{site}{page}")).unwrap_or_else(|| panic!("{failed}"));
    assert!(of("/gone")["cause"].as_str().expect("text").contains("rejected"), "{failed}");
    assert_eq!((of("/gone")["attempts"].as_u64(), of("/broken")["attempts"].as_u64(), causes.len()), (Some(1), Some(3), 2), "{failed}");
    assert!(!place.path("oops").exists() && !place.path("pages/oops").exists());
    let visits = visits.lock().expect("the visits");
    let count = |page: &str| visits.iter().filter(|visit| *visit == page).count();
    assert_eq!((count("/gone"), count("/busy"), count("/broken")), (1, 2, 3));
}

#[test]
fn each_example_stands_in_the_list() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("examples");
    let list = std::fs::read_to_string(folder.join("README.md")).expect("the list");
    for entry in std::fs::read_dir(&folder).expect("the folder") {
        let name = entry.expect("an entry").file_name().into_string().expect("text");
        assert!(name == "README.md" || list.contains(&name), "{name} is not in examples/README.md");
    }
}
