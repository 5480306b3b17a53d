//! Looks at a directory without ever piling up threads.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags, fstatvfs, openat, statat, statx, unlinkat};
use rustix::io::{Errno, write};
use stackkit_core::health::{Axis, Finding, Severity, Tier};
use stackkit_core::{Clock, Error, ErrorKind, Observation, ProbeContext};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use crate::census;
use crate::config::VolumeConfig;
use crate::error::{Result, VolumeError, os, os_at};
use crate::metrics::{Space, find_mount, number, read_only, unmounted, world_writable};
use crate::worker::Cancel;

/// The file that the write probe makes and removes. A fixed name: one that a killed process left is removed by the
/// next probe.
const PROBE_FILE: &str = ".stackkit-probe";

/// The part of the time left that is kept for answering: a probe that says `stuck` by itself says more than one that
/// is dropped at its deadline.
const ANSWER_SHARE: u32 = 10;

/// Runs at most one look at a time, on a thread of its own.
///
/// A file system that hangs (a network file system whose server is gone) holds a thread in the kernel where nothing
/// can end it. So there is one such thread at most, it is none of the runtime's, and probes that find it still there
/// say `stuck`.
#[derive(Debug)]
pub(crate) struct Prober {
    slot: Arc<Semaphore>,
}

impl Default for Prober {
    fn default() -> Self {
        Self { slot: Arc::new(Semaphore::new(1)) }
    }
}

/// Cancels the look when nobody waits for it any more.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Prober {
    /// Looks once, at most until the deadline.
    pub(crate) async fn probe(&self, config: &VolumeConfig, cx: &ProbeContext) -> stackkit_core::Result<Observation> {
        let stuck = || Error::from(VolumeError::Stuck { path: (&config.path).into() });
        let remaining = cx.remaining();
        let deadline = cx.clock().instant() + remaining.saturating_sub(remaining / ANSWER_SHARE);
        let looked = tokio::time::timeout_at(deadline, async {
            let permit = Arc::clone(&self.slot).acquire_owned().await.map_err(|_closed| VolumeError::Worker(None))?;
            look_on_thread(config, cx, permit).await
        });
        looked.await.map_err(|_elapsed| stuck())?
    }
}

async fn look_on_thread(
    config: &VolumeConfig,
    cx: &ProbeContext,
    permit: OwnedSemaphorePermit,
) -> stackkit_core::Result<Observation> {
    let (sender, receiver) = oneshot::channel();
    let cancel = CancelOnDrop(Cancel::default());
    let look = Look { config: config.clone(), tier: cx.tier(), clock: cx.clock().clone(), cancel: cancel.0.clone() };
    std::thread::Builder::new()
        .name(format!("probe {}", config.id))
        .spawn(move || {
            let seen = look.run();
            // Before the answer: whoever gets it may probe again at once.
            drop(permit);
            sender.send(seen).ok();
        })
        .map_err(|error| Error::io("start a thread", error))?;
    receiver.await.map_err(|_closed| VolumeError::Worker(None))?
}

/// One look, for the thread that does it.
struct Look {
    config: VolumeConfig,
    tier: Tier,
    clock: Clock,
    cancel: Cancel,
}

impl Look {
    fn run(&self) -> stackkit_core::Result<Observation> {
        let directory = open(&self.config.path)?;
        let stat = rustix::fs::fstat(&directory).map_err(|errno| Error::from(os_at("stat", b"")(errno)))?;
        let mut observation = Observation::new();
        if stat.st_mode & 0o1002 == 0o002 {
            observation = observation.finding(world_writable());
        }
        if self.config.is_mount_point && !is_mount_point(&self.config.path, stat.st_dev) {
            observation = observation.finding(unmounted());
        }
        if self.tier < Tier::Vitals {
            return Ok(observation);
        }
        let space = Space::from(fstatvfs(&directory).map_err(|errno| Error::from(os_at("statvfs", b"")(errno)))?);
        observation = space.observe(observation, self.config.is_read_only);
        observation = self.mount(observation, stat.st_dev);
        if !self.config.is_read_only && !space.is_read_only {
            observation = self.write_probe(&directory, observation);
        }
        if self.tier < Tier::Inventory {
            return Ok(observation);
        }
        Ok(self.inventory(observation)?)
    }

    /// Where the file system is mounted, and its type; left out where the system does not tell.
    fn mount(&self, observation: Observation, device: u64) -> Observation {
        let Ok(mountinfo) = std::fs::read_to_string("/proc/self/mountinfo") else { return observation };
        let path = crate::config::resolve(&self.config.path);
        let device = (rustix::fs::major(device), rustix::fs::minor(device));
        match find_mount(&mountinfo, device, &path.to_string_lossy()) {
            Some((kind, point)) => observation.info("file_system", kind).info("mount_point", point),
            None => observation,
        }
    }

    /// Makes a file, writes one byte and removes it. Without `fsync`: that would cost milliseconds each time, and
    /// tells of the disk what its own monitoring tells better.
    fn write_probe(&self, directory: &OwnedFd, observation: Observation) -> Observation {
        let start: Instant = self.clock.instant();
        match write_once(directory) {
            Ok(()) => {
                let took = self.clock.instant().saturating_duration_since(start);
                observation.gauge("write_probe_ms", took.as_secs_f64() * 1000.0)
            }
            Err(errno) => observation.unavailable("write_probe_ms", "the write failed").finding(write_finding(errno)),
        }
    }

    /// Counts files and bytes, as far as the deadline allows.
    fn inventory(&self, observation: Observation) -> Result<Observation> {
        match census::fingerprint(&self.config.path, &self.cancel) {
            Ok(stat) => Ok(observation
                .gauge("files_count", number(stat.files))
                .gauge("directories_count", number(stat.directories))
                .gauge("files_size_bytes", number(stat.bytes))),
            Err(VolumeError::Os { errno: Errno::ACCESS, .. }) => {
                Ok(observation.unavailable("files_count", "a directory inside can't be read"))
            }
            Err(error) => Err(error),
        }
    }
}

/// Opens the directory for reading.
fn open(path: &Path) -> stackkit_core::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(|errno| {
        let error = match errno {
            Errno::NOTDIR => VolumeError::NotADirectory { path: path.into() },
            errno => os("open", path)(errno),
        };
        let error = Error::from(error);
        match error.kind() {
            ErrorKind::NotFound => error.with_code("volume.missing"),
            _ => error,
        }
    })
}

/// Whether `path` is the root of a mount: by the kernel's own word, else by the device of its parent.
fn is_mount_point(path: &Path, device: u64) -> bool {
    if let Ok(found) = statx(CWD, path, AtFlags::empty(), StatxFlags::TYPE)
        && found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT)
    {
        return found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    }
    statat(CWD, path.join(".."), AtFlags::empty()).is_ok_and(|parent| parent.st_dev != device)
}

fn write_once(directory: &OwnedFd) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let create = || openat(directory, PROBE_FILE, flags, Mode::from_raw_mode(0o600));
    let file = match create() {
        Err(Errno::EXIST) => {
            remove_probe_file(directory)?;
            create()?
        }
        created => created?,
    };
    let written = write(file.as_fd(), &[0]);
    let removed = remove_probe_file(directory);
    written.and(removed)
}

/// Another process that probes the same directory may have been faster.
fn remove_probe_file(directory: &OwnedFd) -> Result<(), Errno> {
    match unlinkat(directory, PROBE_FILE, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        removed => removed,
    }
}

fn write_finding(errno: Errno) -> Finding {
    let (message, hint) = match errno {
        Errno::ROFS => return read_only(),
        Errno::NOSPC | Errno::DQUOT => ("a file can't be written: no space is left", "make room, or raise the quota"),
        Errno::ACCESS | Errno::PERM => {
            ("a file can't be made: no permission", "grant write access, or say that the volume is read-only")
        }
        _ => ("a file can't be written", "look at the kernel's log"),
    };
    Finding::new("volume.write.failed", Axis::Ready, Severity::Critical, message).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_look_that_does_not_return_makes_the_next_say_stuck() {
        let prober = Prober::default();
        let hanging = Arc::clone(&prober.slot).try_acquire_owned().unwrap();
        let config = VolumeConfig::new("uploads", "/nowhere/at/all".into());
        let within = |limit| ProbeContext::new(Tier::Ping, Clock::system().instant() + limit);
        let error = prober.probe(&config, &within(Duration::from_millis(20))).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Timeout, Some("stuck")));
        drop(hanging);
        assert_eq!(
            prober.probe(&config, &within(Duration::from_secs(10))).await.unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }
}
