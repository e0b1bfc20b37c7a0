//! A small disk of its own, that can be filled: a file system in memory, which takes root to mount.

use std::{fs::File, io::Write as _, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

/// What fills it is written in pieces of so many bytes, so that nothing is left.
const PIECE: usize = 4096;
const FILLER: &str = "filler";

/// A mounted disk. It is unmounted when it is dropped.
pub struct Disk {
    folder: TempDir,
}

impl Disk {
    /// One of so many MiB.
    ///
    /// # Errors
    /// When it cannot be mounted: it takes root.
    pub fn mount(mebibytes: u32) -> Result<Self> {
        let folder = TempDir::new()?;
        let options = format!("size={mebibytes}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "frontdesk-chaos"]).arg(folder.path());
        let out = mount.output().context("mount")?;
        ensure!(out.status.success(), "a small disk could not be mounted: {}", String::from_utf8_lossy(&out.stderr));
        Ok(Self { folder })
    }

    /// Whether one can be mounted here.
    pub fn is_possible() -> bool {
        Self::mount(1).is_ok()
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Leaves no byte free; gives how many it took.
    pub fn fill(&self) -> Result<u64> {
        let mut file = File::create(self.path().join(FILLER))?;
        let mut written = 0;
        while file.write_all(&[0; PIECE]).is_ok() {
            written += PIECE as u64;
        }
        Ok(written)
    }

    /// Frees what was taken.
    pub fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.path().join(FILLER))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whoever still writes to it is about to be ended.
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}
