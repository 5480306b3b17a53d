//! A directory.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use stackkit_core::backup::ArtifactInfo;
use stackkit_core::process::{Tool, find_tool};
use stackkit_core::{Error, Result, Service};
use stackkit_volume::Volume;

use crate::conformance::target::{Capability, Fault, Instance, Seed, Target};
use crate::conformance::targets::{LARGE_VALUE_BYTES, UNICODE, VENDOR_TOOL_TIMEOUT, pattern};
use crate::volume::VolumeFixture;

/// The volume adapter as a target.
#[must_use]
pub fn volume() -> impl Target {
    VolumeTarget
}

struct VolumeTarget;

#[async_trait]
impl Target for VolumeTarget {
    fn name(&self) -> &'static str {
        "volume"
    }

    fn capabilities(&self) -> Vec<Capability> {
        vec![Capability::Health, Capability::Backup, Capability::VendorTool]
    }

    async fn instance(&self) -> Result<Box<dyn Instance>> {
        Ok(Box::new(VolumeInstance(crate::volume()?)))
    }
}

struct VolumeInstance(VolumeFixture);

impl VolumeInstance {
    fn at(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.0.path().join(name.as_ref())
    }

    /// Files of many sizes and modes, nested and empty directories, links of both kinds.
    fn seed_small(&self) -> io::Result<()> {
        for number in 0_u16..50 {
            let directory = self.at(format!("d{}/nested", number % 5));
            fs::create_dir_all(&directory)?;
            let file = directory.join(format!("file {number}"));
            fs::write(&file, pattern(usize::from(number) * 100))?;
            fs::set_permissions(&file, Permissions::from_mode(0o600 | u32::from(number % 8)))?;
            let time = SystemTime::UNIX_EPOCH + Duration::new(1_600_000_000 + u64::from(number), 123_456_789);
            File::options().write(true).open(&file)?.set_times(FileTimes::new().set_modified(time))?;
        }
        fs::write(self.at("large"), pattern(LARGE_VALUE_BYTES))?;
        fs::create_dir(self.at("empty directory"))?;
        symlink("d0/nested", self.at("link"))?;
        symlink("nowhere", self.at("dangling"))?;
        fs::hard_link(self.at("large"), self.at("hard link"))
    }

    fn seed_unicode(&self) -> io::Result<()> {
        for text in UNICODE {
            fs::write(self.at(text), text)?;
        }
        fs::create_dir(self.at(OsStr::from_bytes(b"no text \xFF\xFE")))?;
        fs::write(self.at(OsStr::from_bytes(b"line\nbreak \x01\x7F")), [0, 0xFF, 0])?;
        fs::write(self.at("n".repeat(255)), [])?;
        symlink(OsStr::from_bytes(b"to \xFF"), self.at("link to no text"))
    }
}

#[async_trait]
impl Instance for VolumeInstance {
    fn service(&self) -> Arc<dyn Service> {
        Arc::new(self.0.service())
    }

    fn faulty(&self, fault: &Fault) -> Option<Arc<dyn Service>> {
        match fault {
            Fault::Absent => Some(Arc::new(Volume::new("volume", self.0.path().with_file_name("absent")))),
            Fault::WrongPassword(_) | Fault::Address(_) => None,
        }
    }

    async fn seed(&self, seed: Seed) -> Result<()> {
        let seeded = match seed {
            Seed::Empty => Ok(()),
            Seed::Small => self.seed_small(),
            Seed::UnicodeAndBinary => self.seed_unicode(),
        };
        seeded.map_err(|error| Error::io("seed a volume", error))
    }

    async fn change(&self) -> Result<()> {
        let file = self.at(format!("change {}", fastrand::u64(..)));
        fs::write(file, "changed").map_err(|error| Error::io("change a volume", error))
    }

    async fn wipe(&self) -> Result<()> {
        let entries = fs::read_dir(self.0.path()).map_err(|error| Error::io("wipe a volume", error))?;
        entries.flatten().map(|entry| entry.path()).try_for_each(|path| remove(&path))
    }

    async fn content(&self) -> Result<String> {
        let mut lines = Vec::new();
        walk(self.0.path(), self.0.path(), &mut lines).map_err(|error| Error::io("hash a volume", error))?;
        lines.sort_unstable();
        Ok(blake3::hash(lines.join("\n").as_bytes()).to_hex().to_string())
    }

    async fn held(&self) -> Result<u64> {
        Ok(0)
    }

    async fn vendor_reads(&self, _artifact: &ArtifactInfo, file: &Path) -> Result<()> {
        let tar = Tool::new(find_tool("tar", &[])?).arg("--list").arg("--file").arg(file);
        tar.output(VENDOR_TOOL_TIMEOUT).await.map(drop)
    }
}

fn remove(path: &Path) -> Result<()> {
    let directory = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
    let removed = if directory { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(|error| Error::io("wipe a volume", error))
}

/// One line an entry: path, type and mode, owner, time, links, and a hash of the content or the link's target.
fn walk(root: &Path, directory: &Path, lines: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let meta = fs::symlink_metadata(&path)?;
        let content = match meta.file_type() {
            kind if kind.is_dir() => String::new(),
            kind if kind.is_symlink() => format!("{:?}", fs::read_link(&path)?),
            _ => blake3::hash(&fs::read(&path)?).to_hex().to_string(),
        };
        let name = path.strip_prefix(root).unwrap_or(&path);
        // The kernel counts a directory's links as its file system likes.
        let links = if meta.is_dir() { 0 } else { meta.nlink() };
        let time = (meta.mtime(), meta.mtime_nsec());
        lines.push(format!("{name:?} {:o} {} {} {time:?} {links} {content}", meta.mode(), meta.uid(), meta.gid()));
        if meta.is_dir() {
            walk(root, &path, lines)?;
        }
    }
    Ok(())
}
