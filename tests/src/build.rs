//! The programs under test, built from the sources as they are now. `cargo test` by itself builds no other package's programs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The path of `coordinator`, `producer`, `consumer` or `examples/NAME`, built and fresh, in the profile that the tests are built in.
pub fn program(name: &str) -> PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let path = DIRECTORY.get_or_init(build).join(name);
    assert!(path.is_file(), "{} was not built", path.display());
    path
}

fn build() -> PathBuf {
    let release = !cfg!(debug_assertions);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // What cargo tells a test of its package is not to reach the build: build scripts that look at it (`ring`'s) would have much built again, each
    // time that a build by hand and one by a test follow each other.
    let is_told = |name: &OsString| ["CARGO_MANIFEST_", "CARGO_PKG_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix));
    for name in std::env::vars_os().map(|(name, _)| name).filter(is_told) {
        command.env_remove(name);
    }
    command.args(["build", "--quiet", "--workspace", "--bins", "--examples"]).args(release.then_some("--release"));
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace's folder"));
    let status = command.status().expect("cargo, to build the programs under test");
    assert!(status.success(), "the programs under test do not build");
    target_directory().join(if release { "release" } else { "debug" })
}

/// The target directory holds this test program itself, a few folders down.
fn target_directory() -> PathBuf {
    let me = std::env::current_exe().expect("the test's own path");
    let is_target = |folder: &&Path| folder.join("CACHEDIR.TAG").is_file();
    me.ancestors().find(is_target).expect("cargo's target directory above the test").to_path_buf()
}
