//! Looks at a directory without ever piling up threads.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags, fstatvfs, fsync, openat, statat, statx, unlinkat,
};
use rustix::io::{Errno, write};
use stackkit_core::health::{Axis, Finding, Severity, Tier};
use stackkit_core::{Error, ErrorKind, Observation, ProbeContext};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use crate::census;
use crate::config::VolumeConfig;
use crate::error::{Result, VolumeError, os, os_at};
use crate::metrics::{Space, find_mount, foreign_owner, number, read_only, unmounted, world_writable};
use crate::trend;
use crate::worker::Cancel;

/// The file that the write probe makes and removes. A fixed name: one that a killed process left is removed by the
/// next probe.
const PROBE_FILE: &str = ".stackkit-probe";

/// Why nothing is measured by writing.
const NOT_WRITTEN: &str = "nothing is written to a read-only volume";

/// The part of the time left that is kept for answering: a probe that says `stuck` by itself says more than one that
/// is dropped at its deadline.
const ANSWER_SHARE: u32 = 10;

/// The part of the time left that is kept for a walk to notice that its time is over: it asks at each entry.
const STOP_SHARE: u32 = 5;

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
        let (now, remaining) = (cx.clock().instant(), cx.remaining());
        let deadline = now + remaining.saturating_sub(remaining / ANSWER_SHARE);
        let stop = now + remaining.saturating_sub(remaining / STOP_SHARE);
        let looked = tokio::time::timeout_at(deadline, async {
            let permit = Arc::clone(&self.slot).acquire_owned().await.map_err(|_closed| VolumeError::Worker(None))?;
            look_on_thread(config, cx, permit, stop).await
        });
        looked.await.map_err(|_elapsed| stuck())?
    }
}

/// At `stop` the look is told that its time is over; it then answers with what it has, unless it hangs.
async fn look_on_thread(
    config: &VolumeConfig,
    cx: &ProbeContext,
    permit: OwnedSemaphorePermit,
    stop: Instant,
) -> stackkit_core::Result<Observation> {
    let (sender, mut receiver) = oneshot::channel();
    let cancel = CancelOnDrop(Cancel::default());
    let look = Look { config: config.clone(), cx: cx.clone(), cancel: cancel.0.clone() };
    std::thread::Builder::new()
        .name(format!("probe {}", config.id))
        .spawn(move || {
            let seen = look.run();
            // Before the answer: whoever gets it may probe again at once.
            drop(permit);
            sender.send(seen).ok();
        })
        .map_err(|error| Error::io("start a thread", error))?;
    let answer = match tokio::time::timeout_at(stop, &mut receiver).await {
        Ok(answer) => answer,
        Err(_elapsed) => {
            cancel.0.cancel();
            receiver.await
        }
    };
    answer.map_err(|_closed| VolumeError::Worker(None))?
}

/// One look, for the thread that does it.
struct Look {
    config: VolumeConfig,
    cx: ProbeContext,
    cancel: Cancel,
}

impl Look {
    fn run(&self) -> stackkit_core::Result<Observation> {
        let directory = open(&self.config.path)?;
        match self.cx.tier() {
            Tier::Inventory => Ok(self.inventory(self.sync_probe(&directory))?),
            _ => self.vitals(&directory),
        }
    }

    fn vitals(&self, directory: &OwnedFd) -> stackkit_core::Result<Observation> {
        let config = &self.config;
        let stat = rustix::fs::fstat(directory).map_err(|errno| Error::from(os_at("stat", b"")(errno)))?;
        let mut observation = Observation::new();
        if stat.st_mode & 0o1002 == 0o002 {
            observation = observation.finding(world_writable());
        }
        if !config.is_read_only && ![0, rustix::process::geteuid().as_raw()].contains(&stat.st_uid) {
            observation = observation.finding(foreign_owner(stat.st_uid));
        }
        if config.is_mount_point && !is_mount_point(&config.path, stat.st_dev) {
            observation = observation.finding(unmounted());
        }
        let space = Space::from(fstatvfs(directory).map_err(|errno| Error::from(os_at("statvfs", b"")(errno)))?);
        observation = space.observe(observation, config.is_read_only);
        observation = trend::observe(observation, space.available_bytes, &self.cx);
        observation = config.expected_write.observe(observation, space.available_bytes);
        observation = self.mount(observation, stat.st_dev);
        Ok(match self.is_written(space.is_read_only) {
            true => self.write_probe(directory, observation),
            false => observation.unavailable("write_probe_ms", NOT_WRITTEN),
        })
    }

    fn is_written(&self, file_system_is_read_only: bool) -> bool {
        !self.config.is_read_only && !file_system_is_read_only
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

    /// Makes a file, writes one byte and removes it. Without `fsync`, which would cost milliseconds each time.
    fn write_probe(&self, directory: &OwnedFd, observation: Observation) -> Observation {
        let start: Instant = self.cx.clock().instant();
        match write_once(directory, |_file| Ok(())) {
            Ok(()) => observation.gauge("write_probe_ms", self.ms_since(start)),
            Err(errno) => observation.unavailable("write_probe_ms", "the write failed").finding(write_finding(errno)),
        }
    }

    /// The same with `fsync`: a disk whose errors the page cache hides from the writer tells them here.
    fn sync_probe(&self, directory: &OwnedFd) -> Observation {
        let (observation, name) = (Observation::new(), "sync_probe_ms");
        let read_only = fstatvfs(directory).is_ok_and(|stat| Space::from(stat).is_read_only);
        if !self.is_written(read_only) {
            return observation.unavailable(name, NOT_WRITTEN);
        }
        let start: Instant = self.cx.clock().instant();
        let mut synced = Ok(());
        let written = write_once(directory, |file| {
            synced = fsync(file);
            Ok(())
        });
        match (written, synced) {
            (Ok(()), Ok(())) => observation.gauge(name, self.ms_since(start)),
            (_, Err(_errno)) => observation.unavailable(name, "the flush failed").finding(sync_finding()),
            // What the write probe of the vitals tells.
            (Err(_errno), _) => observation.unavailable(name, "the write failed"),
        }
    }

    fn ms_since(&self, start: Instant) -> f64 {
        self.cx.clock().instant().saturating_duration_since(start).as_secs_f64() * 1000.0
    }

    /// Counts files and bytes, as far as the time allows.
    fn inventory(&self, observation: Observation) -> Result<Observation> {
        let uncounted = |observation, reason| {
            let names = ["files_count", "directories_count", "files_size_bytes"];
            Ok(names.into_iter().fold(observation, |seen: Observation, name| seen.unavailable(name, reason)))
        };
        match census::fingerprint(&self.config.path, &self.cancel) {
            Ok(stat) => Ok(observation
                .gauge("files_count", number(stat.files))
                .gauge("directories_count", number(stat.directories))
                .gauge("files_size_bytes", number(stat.bytes))),
            Err(VolumeError::Os { errno: Errno::ACCESS, .. }) => {
                uncounted(observation, "a directory inside can't be read")
            }
            Err(VolumeError::Cancelled) => {
                uncounted(observation, "there are more files than can be counted in the time")
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

/// Makes the file, writes one byte, does `more` and removes the file.
fn write_once(directory: &OwnedFd, more: impl FnOnce(&OwnedFd) -> Result<(), Errno>) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let create = || openat(directory, PROBE_FILE, flags, Mode::from_raw_mode(0o600));
    let file = match create() {
        Err(Errno::EXIST) => {
            remove_probe_file(directory)?;
            create()?
        }
        created => created?,
    };
    let written = write(file.as_fd(), &[0]).and_then(|_written| more(&file));
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

fn sync_finding() -> Finding {
    let message = "what is written can't be flushed to the disk";
    Finding::new("volume.sync.failed", Axis::Ready, Severity::Critical, message)
        .with_hint("look at the kernel's log: the disk may be failing; data that was written may be lost")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stackkit_core::Clock;

    use super::*;

    #[tokio::test]
    async fn a_look_that_does_not_return_makes_the_next_say_stuck() {
        let prober = Prober::default();
        let hanging = Arc::clone(&prober.slot).try_acquire_owned().unwrap();
        let config = VolumeConfig::new("uploads", "/nowhere/at/all".into());
        let within = |limit| ProbeContext::new(Tier::Vitals, Clock::system().instant() + limit);
        let error = prober.probe(&config, &within(Duration::from_millis(20))).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Timeout, Some("stuck")));
        drop(hanging);
        assert_eq!(
            prober.probe(&config, &within(Duration::from_secs(10))).await.unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }

    #[test]
    fn a_walk_whose_time_is_over_leaves_the_numbers_out() {
        let mut config = VolumeConfig::new("uploads", env!("CARGO_MANIFEST_DIR").into());
        config.is_read_only = true;
        let cx = ProbeContext::new(Tier::Inventory, Clock::system().instant());
        let look = Look { config, cx, cancel: Cancel::default() };
        assert!(look.run().unwrap().value("files_count").is_some());
        look.cancel.cancel();
        let seen = look.run().unwrap();
        assert_eq!(seen.value("files_count"), None);
        assert!(seen.measurements.iter().any(|measurement| measurement.name == "files_size_bytes"));
    }
}
