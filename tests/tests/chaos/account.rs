//! Which items were put, and what became of each: results and dead letters, one of the two and once.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Items of one input file: `INPUT:NUMBER`.
const ITEMS: usize = 100_000;

/// All items, and whether each came out.
#[derive(Clone, Default)]
pub struct Account(Arc<Mutex<Vec<Vec<bool>>>>);

impl Account {
    /// Writes the next input.
    pub fn new_input(&self, folder: &Path) -> std::path::PathBuf {
        let mut inputs = self.0.lock().unwrap();
        let number = inputs.len();
        inputs.push(vec![false; ITEMS]);
        let path = folder.join(format!("input-{number}"));
        let mut lines = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
        (0..ITEMS).for_each(|n| writeln!(lines, "{number}:{n}").unwrap());
        path
    }

    /// Notes that an item came out.
    fn note(&self, item: &str) {
        let (input, number) =
            item.split_once(':').and_then(|(a, b)| Some((a.parse::<usize>().ok()?, b.parse::<usize>().ok()?))).expect(item);
        let before = std::mem::replace(&mut self.0.lock().unwrap()[input][number], true);
        assert!(!before, "{item} came out twice");
    }

    /// Reads results to their end.
    pub fn read(&self, results: impl Read + Send + 'static) -> JoinHandle<()> {
        let account = self.clone();
        std::thread::spawn(move || BufReader::with_capacity(1 << 16, results).lines().for_each(|line| account.note(&line.unwrap())))
    }

    /// Reads dead letters. How many.
    pub fn read_dead_letters(&self, path: &Path) -> usize {
        let letters = std::fs::read_to_string(path).unwrap();
        for line in letters.lines() {
            let letter: serde_json::Value = serde_json::from_str(line).unwrap();
            self.note(letter["item"].as_str().unwrap());
        }
        letters.lines().count()
    }

    /// All came out. How many.
    pub fn assert_complete(&self) -> usize {
        let inputs = self.0.lock().unwrap();
        for (input, items) in inputs.iter().enumerate() {
            let lost = items.iter().filter(|came| !**came).count();
            assert_eq!(lost, 0, "items of input {input} are lost, the first is {:?}", items.iter().position(|came| !came));
        }
        inputs.len() * ITEMS
    }
}

/// No process is left that has to do with this socket, and no file beside it.
pub fn assert_nothing_left(socket: &Path) {
    // Clients and commands have it in their environment, children of a run among their arguments.
    let mark = socket.to_str().unwrap().as_bytes();
    let processes = || {
        let all = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let is_ours = |pid: &u32| {
            let told = ["environ", "cmdline"].map(|name| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default());
            tests::is_alive(*pid) && told.concat().windows(mark.len()).any(|part| part == mark)
        };
        all.filter(is_ours).map(|pid| format!("{pid} {}", tests::name_of(pid))).collect::<Vec<_>>()
    };
    tests::eventually("the end of all processes", || {
        let left = processes();
        left.is_empty().then_some(())
    });
    let left: Vec<_> = std::fs::read_dir(socket.parent().unwrap()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(left.is_empty(), "{left:?} left behind");
}
