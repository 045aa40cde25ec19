//! A place for journals: on a disk, since what is written to a file system in memory is neither kept nor synced.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];

/// A folder that goes with the value.
pub struct Disk {
    folder: TempDir,
    file_system: String,
}

impl Disk {
    /// Where temporary files go, or beside the benchmark itself if that is in memory.
    pub fn find() -> Result<Disk> {
        let program = std::env::current_exe()?;
        for place in [Some(&*std::env::temp_dir()), program.parent()].into_iter().flatten() {
            let file_system = file_system_of(place)?;
            if !IN_MEMORY.contains(&&*file_system) {
                let folder = tempfile::tempdir_in(place).with_context(|| format!("cannot make a folder in {}", place.display()))?;
                return Ok(Disk { folder, file_system });
            }
        }
        bail!("neither temporary files nor the benchmark itself are on a disk; set TMPDIR to a folder that is")
    }

    /// A folder in which a journal is made, and whatever is to lie on the same disk.
    pub fn folder(&self) -> Result<TempDir> {
        Ok(tempfile::tempdir_in(&self.folder)?)
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn file_system(&self) -> &str {
        &self.file_system
    }
}

/// The kind of file system that a path lies on: that of the last mount on the longest way to it.
fn file_system_of(path: &Path) -> Result<String> {
    let path = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("cannot read what is mounted")?;
    let mounts = mounts.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        Some((PathBuf::from(mount.split(' ').nth(4)?), kind.split(' ').next()?))
    });
    let above = mounts.filter(|(point, _)| path.starts_with(point)).max_by_key(|(point, _)| point.components().count());
    above.map(|(_, kind)| kind.to_string()).with_context(|| format!("nothing is mounted above {}", path.display()))
}
