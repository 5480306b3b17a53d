//! From what the system says of a file system to measurements and findings.

use rustix::fs::{StatVfs, StatVfsMountFlags};
use stackkit_core::Observation;
use stackkit_core::health::{Axis, Finding, Metric, Severity, Tier};

/// What the probes measure.
pub(crate) const METRICS: &[Metric] = &[
    Metric::gauge("capacity_bytes", "statvfs: f_blocks × f_frsize", "Size of the file system"),
    Metric::gauge("used_bytes", "statvfs: f_blocks − f_bfree", "Bytes in use"),
    Metric::gauge("available_bytes", "statvfs: f_bavail", "Bytes that an ordinary user can still write"),
    Metric::gauge("used_ratio", "statvfs, as df counts it", "Used share of what an ordinary user can ever use"),
    Metric::gauge("available_average_bytes", "statvfs: f_bavail", "Available bytes, averaged over about six hours"),
    Metric::gauge(
        "time_to_full_seconds",
        "statvfs: f_bavail",
        "Until no space is left, if it goes on filling as it does",
    ),
    Metric::gauge("inodes_count", "statvfs: f_files", "Inodes of the file system"),
    Metric::gauge("inodes_available_count", "statvfs: f_favail", "Inodes that an ordinary user can still take"),
    Metric::gauge("inodes_used_ratio", "statvfs: f_favail / f_files", "Used share of the inodes"),
    Metric::gauge("read_only_bool", "statvfs: ST_RDONLY", "Whether the file system takes no writes"),
    Metric::gauge("write_probe_ms", "the write probe", "Time to make, write and remove a file of one byte"),
    Metric::gauge("expected_write_bytes", "the application", "Size of the next large write, such as a backup"),
    Metric::gauge(
        "expected_write_ratio",
        "the application, statvfs: f_bavail",
        "Share of the available bytes that the next large write takes",
    ),
    Metric::gauge("sync_probe_ms", "the write probe with fsync", "Time until a file of one byte is on the disk")
        .on(Tier::Inventory),
    Metric::gauge("files_count", "a walk over the directory", "Files, every name counted").on(Tier::Inventory),
    Metric::gauge("directories_count", "a walk over the directory", "Directories in it").on(Tier::Inventory),
    Metric::gauge("files_size_bytes", "a walk over the directory", "Sizes of all files, each counted once")
        .on(Tier::Inventory),
];

/// What `statvfs` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    /// `f_blocks` × `f_frsize`.
    pub(crate) capacity_bytes: u64,
    /// What is in use: `f_blocks` − `f_bfree`.
    pub(crate) used_bytes: u64,
    /// What an ordinary user can still write: `f_bavail`, not `f_bfree`, which counts root's reserve.
    pub(crate) available_bytes: u64,
    /// `f_files`; 0 where the file system makes inodes as it needs them.
    pub(crate) inodes: u64,
    /// `f_favail`.
    pub(crate) inodes_available: u64,
    /// `ST_RDONLY`.
    pub(crate) is_read_only: bool,
}

impl From<StatVfs> for Space {
    fn from(stat: StatVfs) -> Self {
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Self {
            capacity_bytes: bytes(stat.f_blocks),
            used_bytes: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
            available_bytes: bytes(stat.f_bavail),
            inodes: stat.f_files,
            inodes_available: stat.f_favail,
            is_read_only: stat.f_flag.contains(StatVfsMountFlags::RDONLY),
        }
    }
}

impl Space {
    /// The used share as `df` counts it: of what an ordinary user could ever use.
    fn used_ratio(&self) -> f64 {
        ratio(self.used_bytes, self.used_bytes.saturating_add(self.available_bytes))
    }

    /// The used share of the inodes, if their number is limited.
    fn inodes_used_ratio(&self) -> Option<f64> {
        (self.inodes > 0).then(|| 1.0 - ratio(self.inodes_available, self.inodes))
    }

    /// Adds the numbers and what is to be said of them. `is_read_only` says that nothing need be written.
    pub(crate) fn observe(&self, observation: Observation, is_read_only: bool) -> Observation {
        let mut observation = observation
            .gauge("capacity_bytes", number(self.capacity_bytes))
            .gauge("used_bytes", number(self.used_bytes))
            .gauge("available_bytes", number(self.available_bytes))
            .gauge("used_ratio", self.used_ratio())
            .gauge("read_only_bool", if self.is_read_only { 1.0 } else { 0.0 });
        observation = match self.inodes_used_ratio() {
            Some(used) => observation
                .gauge("inodes_count", number(self.inodes))
                .gauge("inodes_available_count", number(self.inodes_available))
                .gauge("inodes_used_ratio", used),
            None => ["inodes_count", "inodes_available_count", "inodes_used_ratio"]
                .into_iter()
                .fold(observation, |seen, name| seen.unavailable(name, "the file system has no limit of inodes")),
        };
        if self.is_read_only && !is_read_only {
            observation = observation.finding(read_only());
        }
        observation
    }
}

/// The finding for a file system that takes no writes.
pub(crate) fn read_only() -> Finding {
    Finding::new("volume.readonly", Axis::Ready, Severity::Critical, "the file system is read-only")
        .with_hint("look for I/O errors in the kernel's log and mount it read-write")
}

/// The finding for a directory that is not the mounted file system it should be.
pub(crate) fn unmounted() -> Finding {
    Finding::new("volume.unmounted", Axis::Ready, Severity::Critical, "the directory is not a mount point")
        .with_hint("mount the volume: what is seen is the directory below it")
}

/// The finding for a directory that everybody may write to and clean up.
pub(crate) fn world_writable() -> Finding {
    let message = "every user of the machine can add and remove files";
    Finding::new("volume.world_writable", Axis::Risk, Severity::Warning, message).with_hint("chmod o-w")
}

/// The finding for a directory of a user that is neither this one nor root.
pub(crate) fn foreign_owner(owner: u32) -> Finding {
    let message = format!("the directory belongs to another user, with the id {owner}");
    Finding::new("volume.owner.foreign", Axis::Risk, Severity::Info, message)
        .with_hint("chown it to the user that the service runs as, if that one is meant to own it")
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { number(part) / number(whole) }
}

/// A count as measurements carry it; exact below 2^53.
#[allow(
    clippy::cast_precision_loss,
    reason = "a measurement is a float, and no file system has 2^53 bytes to tell apart"
)]
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}

/// The type and the mount point of the file system with the given device number, from `/proc/self/mountinfo`
/// (proc(5)): the deepest one at or above `path`.
pub(crate) fn find_mount(mountinfo: &str, device: (u32, u32), path: &str) -> Option<(String, String)> {
    let device = format!("{}:{}", device.0, device.1);
    mountinfo
        .lines()
        .filter_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            let mut fields = mount.split(' ').skip(2);
            (fields.next()? == device).then_some(())?;
            let point = unescape(fields.nth(1)?);
            let is_above = path
                .strip_prefix(&point)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || point.ends_with('/'));
            is_above.then(|| (file_system.split(' ').next().unwrap_or_default().to_owned(), point))
        })
        .max_by_key(|(_, point)| point.len())
}

/// Undoes the octal escapes of the kernel: space, tab, newline and backslash.
fn unescape(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(used_bytes: u64, available_bytes: u64) -> Space {
        let capacity_bytes = used_bytes + available_bytes;
        Space { capacity_bytes, used_bytes, available_bytes, inodes: 100, inodes_available: 50, is_read_only: false }
    }

    fn codes(space: Space, is_read_only: bool) -> Vec<(String, Severity)> {
        let observation = space.observe(Observation::new(), is_read_only);
        observation.findings.into_iter().map(|finding| (finding.code.into_owned(), finding.severity)).collect()
    }

    #[test]
    fn an_empty_file_system_is_not_full_and_its_inodes_are_not_counted() {
        let seen = Space { inodes: 0, ..space(0, 0) }.observe(Observation::new(), false);
        assert_eq!(seen.value("used_ratio"), Some(0.0));
        assert_eq!(seen.value("inodes_used_ratio"), None);
        assert!(seen.measurements.iter().any(|measurement| measurement.name == "inodes_used_ratio"));
    }

    #[test]
    fn read_only_is_a_fault_only_where_it_is_not_wanted() {
        let space = Space { is_read_only: true, ..space(1, 9) };
        assert_eq!(codes(space, false), [("volume.readonly".to_owned(), Severity::Critical)]);
        assert_eq!(codes(space, true), []);
    }

    #[test]
    fn the_deepest_mount_above_wins() {
        let info = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                    30 22 254:0 /sub /srv/my\\040files rw - ext4 /dev/vda rw\n\
                    31 22 0:27 / /srv/my\\040files/t rw - tmpfs tmpfs rw\n\
                    32 22 254:0 / /srv/my rw - ext4 /dev/vda rw\n";
        let found = |path: &str| find_mount(info, (254, 0), path).map(|(_, point)| point);
        assert_eq!(found("/srv/my files/a"), Some("/srv/my files".to_owned()));
        assert_eq!(found("/var"), Some("/".to_owned()));
        assert_eq!(
            find_mount(info, (0, 27), "/srv/my files/t"),
            Some(("tmpfs".to_owned(), "/srv/my files/t".to_owned()))
        );
        assert_eq!(find_mount(info, (9, 9), "/srv"), None);
        assert_eq!(find_mount("garbage\n - x\n", (254, 0), "/"), None);
    }
}
