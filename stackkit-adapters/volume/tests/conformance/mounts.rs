//! Full, read-only and mounted targets, on small file systems in memory. Only root can mount them.

use std::ffi::{CString, OsStr};
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::{MountFlags, mount as mount_fs};
use stackkit_core::backup::{RestoreContext, TargetState};
use stackkit_core::health::{Thresholds, Tier};
use stackkit_core::{BackupProvider, Clock, ErrorKind, HealthCheck, Phase, ProbeContext};
use stackkit_fixtures::wait_until;
use stackkit_volume::Volume;
use tempfile::TempDir;

use crate::health::probe_context;
use crate::memory::Backup;
use crate::support::{Place, dump, listing, names, plan, replace, restore, run};
use crate::{Case, Ending, Ignored, cases};

pub(crate) const CASES: &[Case] = cases![
    a_full_target_keeps_the_old_data,
    a_full_mount_point_keeps_the_old_data,
    a_read_only_target_keeps_the_old_data,
    a_mount_point_is_restored_from_inside,
    an_ext4_volume_keeps_its_lost_and_found,
    a_mount_inside_the_volume_stops_the_swap,
    a_full_disk_is_found_by_the_probe,
    a_mount_that_hangs_is_stuck_and_holds_one_thread,
];

/// A file system in memory, gone with the value.
struct Mount {
    directory: TempDir,
}

impl Mount {
    async fn new(size: &str) -> Result<Self, Ignored> {
        let directory = tempfile::tempdir().unwrap();
        mount(directory.path(), size).await?;
        Ok(Self { directory })
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    async fn make_read_only(&self) {
        let args = ["-o", "remount,ro"].map(OsStr::new);
        run("mount", &[&args[..], &[self.path().as_os_str()]].concat()).await.unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        unmount(self.directory.path());
    }
}

async fn mount(path: &Path, size: &str) -> Result<(), Ignored> {
    if !rustix::process::geteuid().is_root() {
        return Err(Ignored("only root can mount a small file system".to_owned()));
    }
    let options = format!("size={size}");
    let args = ["-t", "tmpfs", "-o", &options, "stackkit-test"].map(OsStr::new);
    let mounted = run("mount", &[&args[..], &[path.as_os_str()]].concat()).await;
    mounted.map(drop).map_err(|error| Ignored(format!("a file system can't be mounted: {error}")))
}

/// Also where the mount is busy or the runtime is gone: a lazy unmount on a thread with a runtime of its own.
fn unmount(path: &Path) {
    let path = path.to_path_buf();
    let unmounting = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(run("umount", &["-l".as_ref(), path.as_os_str()])).ok();
    });
    unmounting.join().ok();
}

/// A backup that does not fit one mebibyte.
async fn large_backup() -> Backup {
    let place = Place::empty();
    for name in ["a", "b", "c"] {
        fs::write(place.path().join(name), vec![3; 900_000]).unwrap();
    }
    dump(&place.volume).await.0
}

async fn fails_with_old_data(target: PathBuf, backup: &Backup) {
    let volume = Volume::new("small", &target);
    let before = listing(&target).await;
    let error = restore(&volume, backup, None).await.unwrap_err();
    assert_eq!((error.kind(), error.target()), (ErrorKind::Io, Some(TargetState::Old)), "{error:?}");
    let contents =
        |listing: String| listing.lines().filter(|line| !line.starts_with(' ')).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(contents(listing(&target).await), contents(before));
}

async fn a_full_target_keeps_the_old_data() -> Ending {
    let mount = Mount::new("1m").await?;
    let target = mount.path().join("data");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("old"), "old data").unwrap();
    fails_with_old_data(target, &large_backup().await).await;
    assert_eq!(names(mount.path()), ["data"]);
    Ok(())
}

async fn a_full_mount_point_keeps_the_old_data() -> Ending {
    let mount = Mount::new("1m").await?;
    fs::write(mount.path().join("old"), "old data").unwrap();
    fails_with_old_data(mount.path().to_path_buf(), &large_backup().await).await;
    assert_eq!(names(mount.path()), ["old"]);
    Ok(())
}

async fn a_read_only_target_keeps_the_old_data() -> Ending {
    let mount = Mount::new("1m").await?;
    let target = mount.path().join("data");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("old"), "old data").unwrap();
    mount.make_read_only().await;
    fails_with_old_data(target.clone(), &large_backup().await).await;
    let seen = Volume::new("small", &target).probe(&probe_context(Tier::Vitals)).await.unwrap();
    assert_eq!(seen.findings[0].code, "volume.readonly");
    Ok(())
}

async fn a_mount_point_is_restored_from_inside() -> Ending {
    let mount = Mount::new("64m").await?;
    fs::write(mount.path().join("old"), "old data").unwrap();
    let plain = plain_place();
    fs::set_permissions(plain.path(), fs::Permissions::from_mode(0o751)).unwrap();
    let (backup, dumped) = dump(&plain.volume).await;
    let volume = Volume::new("mounted", mount.path()).with_mount_required();
    let first = plan(&volume, &backup).await;
    assert!(first.warnings.iter().any(|warning| warning.contains("mount point")), "{first}");
    let report = volume.restore(first, &backup, &RestoreContext::new().with_expected(dumped.census.clone())).await;
    let kept = report.unwrap().old_data_kept_as.unwrap();
    assert_eq!(fs::read_to_string(Path::new(&kept).join("old")).unwrap(), "old data");
    assert_eq!(volume.census().await.unwrap(), dumped.census, "what is kept inside is not counted");
    // One that writes would change the time of change that is compared below.
    let seen = volume.clone().with_read_only().probe(&probe_context(Tier::Vitals)).await.unwrap();
    assert_eq!(seen.findings, []);
    let (restored, original) = (fs::metadata(mount.path()).unwrap(), fs::metadata(plain.path()).unwrap());
    assert_eq!((restored.mode(), restored.mtime_nsec()), (original.mode(), original.mtime_nsec()));

    fs::write(mount.path().join("more"), "x").unwrap();
    let report = replace(&volume, &backup).await.unwrap();
    assert_eq!((report.census, report.old_data_kept_as), (dumped.census, None));
    Ok(())
}

/// Without attributes, which a file system in memory may not hold.
fn plain_place() -> Place {
    let place = Place::empty();
    fs::create_dir_all(place.path().join("a/b")).unwrap();
    fs::write(place.path().join("a/b/file"), "content").unwrap();
    fs::write(place.path().join("file"), "content").unwrap();
    place
}

/// The usual volume of a container or a cloud: a whole ext4 file system, its `lost+found` in it.
async fn an_ext4_volume_keeps_its_lost_and_found() -> Ending {
    let directory = tempfile::tempdir().unwrap();
    let (image, point) = (directory.path().join("image"), directory.path().join("mounted"));
    fs::File::create(&image).unwrap().set_len(16 * 1024 * 1024).unwrap();
    fs::create_dir(&point).unwrap();
    if !rustix::process::geteuid().is_root() {
        return Err(Ignored("only root can mount a file system".to_owned()));
    }
    let ignored = |error: stackkit_core::Error| Ignored(format!("an ext4 file system can't be mounted: {error}"));
    run("mkfs.ext4", &["-q".as_ref(), image.as_os_str()]).await.map_err(ignored)?;
    run("mount", &["-o".as_ref(), "loop".as_ref(), image.as_os_str(), point.as_os_str()]).await.map_err(ignored)?;
    let volume = Volume::new("disk", &point).with_mount_required();
    fs::write(point.join("file"), "content").unwrap();
    let (backup, dumped) = dump(&volume).await;
    fs::write(point.join("file"), "changed").unwrap();
    let restored = replace(&volume, &backup).await;
    let entries = names(&point);
    unmount(&point);
    assert_eq!(restored.unwrap().census, dumped.census);
    assert_eq!(dumped.census.count("directories"), 0);
    assert_eq!(entries, ["file", "lost+found"]);
    Ok(())
}

async fn a_mount_inside_the_volume_stops_the_swap() -> Ending {
    let mount_point = Mount::new("8m").await?;
    let inner = mount_point.path().join("m");
    fs::create_dir(&inner).unwrap();
    fs::write(mount_point.path().join("a-first"), "old data").unwrap();
    mount(&inner, "1m").await?;
    let backup = dump(&plain_place().volume).await.0;
    let volume = Volume::new("mounted", mount_point.path());
    let error = restore(&volume, &backup, None).await.unwrap_err();
    assert_eq!((error.kind(), error.target()), (ErrorKind::Unsupported, Some(TargetState::Old)), "{error:?}");
    assert_eq!(names(mount_point.path()), ["a-first", "m"]);
    unmount(&inner);
    Ok(())
}

async fn a_full_disk_is_found_by_the_probe() -> Ending {
    let mount = Mount::new("1m").await?;
    fs::write(mount.path().join("filler"), vec![1; 1024 * 1024]).unwrap();
    let seen = Volume::new("small", mount.path()).probe(&probe_context(Tier::Vitals)).await.unwrap();
    let volume = Volume::new("small", mount.path());
    let verdict = Thresholds::new().verdict(&volume.rules(), &seen);
    assert!(verdict.findings.iter().any(|finding| finding.code == "volume.space.low"), "{verdict:?}");
    assert_eq!(seen.findings[0].code, "volume.write.failed");
    assert_eq!(seen.value("used_ratio"), Some(1.0));
    assert_eq!(names(mount.path()), ["filler"]);
    Ok(())
}

/// A file system whose server never answers: every look at it waits in the kernel.
struct HungMount {
    directory: TempDir,
    /// Closing it ends the waiting with an error, as a server that is given up does.
    server: Option<fs::File>,
}

impl HungMount {
    fn new() -> Result<Self, Ignored> {
        let failed = |error: std::io::Error| Ignored(format!("a FUSE file system can't be mounted: {error}"));
        let directory = tempfile::tempdir().unwrap();
        let server = fs::File::options().read(true).write(true).open("/dev/fuse").map_err(failed)?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        let options = CString::new(options).unwrap();
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        let mounted = mount_fs("stackkit-test", directory.path(), "fuse", flags, Some(options.as_c_str()));
        mounted.map_err(|errno| failed(errno.into()))?;
        Ok(Self { directory, server: Some(server) })
    }
}

impl Drop for HungMount {
    fn drop(&mut self) {
        self.server.take();
        unmount(self.directory.path());
    }
}

/// How many threads of this process look at that volume: their names are cut to 15 bytes.
fn probe_threads(id: &str) -> usize {
    let named = |task: &fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks.filter(|task| named(task).trim() == format!("probe {id}")).count()
}

async fn a_mount_that_hangs_is_stuck_and_holds_one_thread() -> Ending {
    let mut mount = HungMount::new()?;
    let volume = Volume::new("hung", mount.directory.path());
    let (clock, limit) = (Clock::system(), Duration::from_millis(300));
    for _ in 0..3 {
        let start = clock.instant();
        let error = volume.probe(&ProbeContext::new(Tier::Vitals, start + limit)).await.unwrap_err();
        let took = clock.instant() - start;
        assert!(took <= limit + Duration::from_millis(50), "{took:?}");
        assert_eq!((error.kind(), error.code()), (ErrorKind::Timeout, Some("stuck")));
        assert_eq!(error.phase(), Some(Phase::Query));
        assert_eq!(probe_threads("hung"), 1);
    }
    mount.server.take();
    let released = async || (probe_threads("hung") == 0).then_some(());
    wait_until("the thread comes back", Duration::from_secs(10), released).await.unwrap();
    let error = volume.probe(&probe_context(Tier::Vitals)).await.unwrap_err();
    assert_ne!(error.kind(), ErrorKind::Timeout, "{error}");
    Ok(())
}
