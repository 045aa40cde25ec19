//! Every command of the README that is marked `sh` is run as it stands, in one shell after the other, in a folder of its own.

use std::process::Command;

use tests::{DEADLINE, Process, program};

const README: &str = include_str!("../../README.md");

fn blocks() -> Vec<String> {
    let after_fences = README.split("```sh\n").skip(1);
    after_fences.map(|rest| rest.split("```").next().unwrap().to_string()).collect()
}

#[test]
fn the_commands_of_the_readme_do_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let programs = program("coordinator").parent().unwrap().to_path_buf();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let blocks = blocks();
    assert_eq!(blocks.len(), 7);
    for block in &blocks {
        let mut command = Command::new("bash");
        command.args(["-c", &format!("set -euo pipefail\n{block}")]);
        command.current_dir(folder.path()).env("PATH", &path).env("XDG_RUNTIME_DIR", folder.path());
        // It goes over every file in cargo's registry, of which there may be many.
        let (code, stdout, stderr) = Process::spawn_plain(command).finish_within(8 * DEADLINE);
        assert_eq!(code, 0, "{block}\n{stdout}\n{stderr}");
    }
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let sums = read("sums.txt");
    assert!(sums.lines().count() > 100 && sums.lines().all(|line| line.as_bytes()[64..66] == *b"  "));
    let files = std::fs::read(folder.path().join("files.nul")).unwrap().iter().filter(|byte| **byte == 0).count();
    assert_eq!(read("sums-of-lib.txt").lines().count(), files);
    assert_eq!(read("failed.jsonl"), "");
    for name in ["squares.txt", "squares-by-workers.txt"] {
        let mut squares: Vec<u32> = read(name).lines().map(|line| line.parse().unwrap()).collect();
        squares.sort_unstable();
        assert_eq!(squares, (1..=100).map(|n| n * n).collect::<Vec<u32>>());
    }
    assert_eq!(read("in-order.txt"), read("jobs.txt"));
    let mut done: Vec<u32> = (read("done-1.txt") + &read("done-2.txt")).lines().map(|line| line.parse().unwrap()).collect();
    done.sort_unstable();
    assert_eq!(done, (1..=100).collect::<Vec<u32>>());
}

#[test]
fn the_worker_pool_example_does_every_job_failed_ones_again() {
    let queue = tests::Queue::serve(&["--expect-producers", "1", "--retry-delay", "1ms"]);
    let workers = [(); 2].map(|()| queue.client("examples/worker_pool", &["work"]));
    let (code, _, stderr) = queue.client("examples/worker_pool", &["put", "1000"]).finish();
    assert_eq!(code, 0, "{stderr}");
    let mut done = 0;
    for worker in workers {
        let (code, stdout, stderr) = worker.finish();
        assert_eq!(code, 0, "{stderr}");
        done += stdout.trim_end_matches(" jobs done\n").parse::<u32>().unwrap();
    }
    assert_eq!(done, 1000);
    assert_eq!(queue.finish().0, 0);
}
