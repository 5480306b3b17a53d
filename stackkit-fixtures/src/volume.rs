//! A private directory as a volume.

use std::fs;
use std::path::{Path, PathBuf};

use stackkit_core::{Error, Result};
use stackkit_volume::Volume;

use crate::server::{PrivateDir, QuickEnd};

/// Makes an empty directory on the disk of temporary files: memory file systems lack extended attributes.
///
/// # Errors
/// `Io`, `PermissionDenied`.
///
/// # Panics
/// Outside a Tokio runtime, as every function that spawns: a watchdog removes the directory if the process is killed.
pub fn volume() -> Result<VolumeFixture> {
    let dir = PrivateDir::on_disk(QuickEnd::KILL)?;
    let path = dir.path().join("volume");
    fs::create_dir(&path).map_err(|error| Error::io("make a volume", error))?;
    Ok(VolumeFixture { path, _dir: dir })
}

/// An empty directory of its own, gone with this value and with the process; what a restore puts beside it too.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> stackkit_core::Result<()> {
/// use stackkit_core::Service;
/// let uploads = stackkit_fixtures::volume()?;
/// std::fs::write(uploads.path().join("cat.png"), [0x89]).unwrap();
/// println!("{}", uploads.service().endpoint());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct VolumeFixture {
    path: PathBuf,
    _dir: PrivateDir,
}

impl VolumeFixture {
    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The URL: `file:///…`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("file://{}", self.path.display())
    }

    /// A handle on it, called `volume`.
    #[must_use]
    pub fn service(&self) -> Volume {
        Volume::new("volume", &self.path)
    }
}
