//! Finds out which commit this is built from, for the programs' `--version`.
//!
//! `PROCQ_COMMIT` says it, or the file that `.ci/package` puts into a package, or git. Where a build is not for use (unoptimised), git is not
//! asked: each commit would have everything built again.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=PROCQ_COMMIT");
    if variable("CARGO_FEATURE_PROGRAMS").is_none() {
        return;
    }
    let given = variable("PROCQ_COMMIT").filter(|commit| !commit.is_empty());
    if let Some(commit) = given.or_else(packaged).or_else(checked_out) {
        let (version, commit) = (env!("CARGO_PKG_VERSION"), commit.chars().take(12).collect::<String>());
        println!("cargo::rustc-env=PROCQ_VERSION={version} ({commit})");
    }
}

/// The commit of a package from a registry.
fn packaged() -> Option<String> {
    std::fs::read_to_string("COMMIT").ok().map(|commit| commit.trim().to_string())
}

/// The commit of a clone; not that of some other repository that this happens to lie in.
fn checked_out() -> Option<String> {
    if variable("PROFILE")? == "debug" {
        return None;
    }
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    // Each commit and each checkout adds a line to the second of these, where it is kept; the first changes with the branch.
    for name in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", name])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
