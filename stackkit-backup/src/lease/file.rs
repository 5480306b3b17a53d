//! A lease as a lock of the operating system on a file.
//!
//! The lock belongs to the open file, so two of one process keep each other out as two processes do, and it ends with
//! the process, however that ends. The file itself stays: a name that comes and goes can be locked twice. On a file
//! system of a network it is as good as the locks of that file system are.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stackkit_core::{Clock, Error, ErrorKind, Result};

use super::record::Record;
use super::{Claim, POLL, WaitFor, pause};

/// The largest text of a holder that is read.
const RECORD_BYTES_MAX: u64 = 64 << 10;

/// A file that is locked.
#[derive(Debug)]
pub(super) struct FileLock {
    file: Arc<File>,
    path: Arc<PathBuf>,
    record: Record,
}

/// What came of an attempt.
enum Attempt {
    Locked(File),
    /// Somebody else has it; who, if the file tells.
    Held(Option<Record>),
}

impl FileLock {
    /// Waits for the lock and takes it.
    ///
    /// # Errors
    /// `Busy` naming the holder when `claim.wait` is over; `Unsupported` if the file system has no locks;
    /// `PermissionDenied` if nothing can be written; `Io`.
    pub(super) async fn acquire(root: &Path, clock: &Clock, claim: &Claim<'_>) -> Result<Self> {
        let path = Arc::new(root.join(super::LEASES).join(format!("{}.lock", claim.name)));
        let record = Record::new(claim.purpose, claim.ttl);
        let deadline = match claim.wait_for {
            WaitFor::Anybody => clock.deadline(claim.wait),
            // A lock ends with its process, so whoever has it lives.
            WaitFor::TheDead => clock.instant(),
        };
        loop {
            let (place, own) = (Arc::clone(&path), record.clone());
            let holder = match blocking(&path, move || attempt(&place, &own)).await? {
                Attempt::Locked(file) => return Ok(Self { file: Arc::new(file), path, record }),
                Attempt::Held(holder) => holder,
            };
            let now = clock.instant();
            if now >= deadline {
                let message = "somebody else holds the lease";
                let busy = holder.map_or_else(|| Error::new(ErrorKind::Busy, message), |holder| holder.busy(message));
                return Err(busy.with_context("path", path.display()));
            }
            tokio::time::sleep_until((now + pause(POLL)).min(deadline)).await;
        }
    }

    /// Makes sure that the locked file is still the one that others would lock.
    pub(super) async fn check(&self) -> Result<()> {
        let (file, path) = (Arc::clone(&self.file), Arc::clone(&self.path));
        match blocking(&self.path, move || is_at(&file, &path)).await? {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Busy, "the lease's file was removed while it was locked")
                .with_context("path", self.path.display())),
        }
    }

    /// Unlocks the file.
    pub(super) async fn release(self) -> Result<()> {
        let Self { file, path, record } = self;
        blocking(&path, move || {
            let _ = record.released().to_bytes().map(|text| write(&file, &text));
            file.unlock()
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(path: &Path, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|e| Error::new(ErrorKind::Cancelled, "the runtime ended").with_source(e))?;
    done.map_err(|e| {
        let kind = match e.kind() {
            io::ErrorKind::Unsupported => Some(ErrorKind::Unsupported),
            // As a repository that somebody may only read.
            io::ErrorKind::ReadOnlyFilesystem => Some(ErrorKind::PermissionDenied),
            _ => None,
        };
        let error = Error::io("lock a lease", e).with_context("path", path.display());
        match kind {
            Some(kind) => error.with_kind(kind),
            None => error,
        }
    })
}

fn attempt(path: &Path, own: &Record) -> io::Result<Attempt> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    if let Some(directory) = path.parent() {
        builder.create(directory)?;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Attempt::Held(holder_in(&file))),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // Somebody who removed the file between the two made room for another of the same name.
    if !is_at(&file, path)? {
        return Ok(Attempt::Held(None));
    }
    // The text is for people only: a full disk must not keep anybody from pruning.
    let _ = own.to_bytes().map(|text| write(&file, &text));
    Ok(Attempt::Locked(file))
}

/// Who the file says that holds it: for people, and possibly half written.
fn holder_in(mut file: &File) -> Option<Record> {
    let mut text = Vec::new();
    file.rewind().ok()?;
    file.take(RECORD_BYTES_MAX).read_to_end(&mut text).ok()?;
    Record::from_bytes(&text).ok().filter(Record::is_held)
}

fn write(mut file: &File, text: &[u8]) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text)
}

/// Whether `path` names the open file.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let place = |metadata: &std::fs::Metadata| (metadata.dev(), metadata.ino());
    match std::fs::metadata(path) {
        Ok(there) => Ok(place(&there) == place(&file.metadata()?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether `path` names the open file: elsewhere an open file can't be removed.
#[cfg(not(unix))]
fn is_at(_file: &File, _path: &Path) -> io::Result<bool> {
    Ok(true)
}
