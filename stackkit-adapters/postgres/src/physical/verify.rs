//! What `pg_verifybackup` checks, while the bytes stream by: every file is in the manifest and as the manifest says,
//! none is missing, and the WAL that recovery needs is there.

use std::collections::{BTreeSet, HashMap};

use stackkit_core::{Census, Error, Result};
use xxhash_rust::xxh3::xxh3_128;

use crate::physical::crc32c::Crc32c;
use crate::physical::label::{LABEL_BYTES_MAX, Label};
use crate::physical::lsn::{is_segment, is_segment_size, segments};
use crate::physical::manifest::{Listed, ManifestReader, WalRange};
use crate::physical::tar::{Event, Kind, Member, TarReader};

/// The longest `PG_VERSION` that is kept: `15` and the end of a line, with room.
const VERSION_BYTES_MAX: usize = 16;

/// Files that may differ from the manifest or lack in it: `pg_verifybackup` ignores the same
/// (`bin/pg_verifybackup/pg_verifybackup.c`).
const UNLISTED: [&[u8]; 3] = [b"postgresql.auto.conf", b"recovery.signal", b"standby.signal"];

/// A file of the archive, by the hash of its path: 48 bytes a file, so a million of them take about 100 MB.
#[derive(Debug, Clone, Copy)]
struct Seen {
    size_bytes: u64,
    crc32c: u32,
    listed: bool,
}

/// What the member that is being read is for.
enum Current {
    Plain(Crc32c),
    /// Kept, and summed like others.
    Kept(Crc32c, Vec<u8>),
    Manifest,
}

/// What a whole base backup holds.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) census: Census,
    /// The server's major version.
    pub(crate) major: String,
    pub(crate) warnings: Vec<String>,
}

/// Reads a base backup piece by piece.
#[derive(Default)]
pub(crate) struct Verifier {
    tar: TarReader,
    member: Option<(Member, Current)>,
    files: HashMap<u128, Seen>,
    databases: BTreeSet<Vec<u8>>,
    segment_bytes: Option<u64>,
    census: Census,
    label: Option<Label>,
    major: Option<String>,
    has_settings: bool,
    is_of_standby: bool,
    manifest: Option<ManifestReader>,
}

impl Verifier {
    /// Where recovery starts, as soon as it was read; it is the first file of the archive.
    pub(crate) fn label(&self) -> Option<Label> {
        self.label
    }

    /// Takes the next bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let mut input = bytes;
        while self.next(&mut input)?.is_some() {}
        Ok(())
    }

    /// The next event of `input`, checked.
    pub(crate) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>> {
        let event = self.tar.next(input)?;
        match &event {
            Some(Event::Member(member)) => self.begin(member)?,
            Some(Event::Data(data)) => self.data(data)?,
            Some(Event::End) => self.end()?,
            None => {}
        }
        Ok(event)
    }

    fn begin(&mut self, member: &Member) -> Result<()> {
        if self.manifest.is_some() {
            return Err(wrong("a member follows the manifest", &member.path));
        }
        let current = match (member.kind, member.path.as_slice()) {
            (Kind::Link, path) => return Err(wrong("a symbolic link: tablespaces are not part of it", path)),
            (Kind::File, b"backup_manifest") => {
                self.manifest = Some(ManifestReader::default());
                Current::Manifest
            }
            (Kind::File, b"backup_label" | b"PG_VERSION") => Current::Kept(Crc32c::default(), Vec::new()),
            _ => Current::Plain(Crc32c::default()),
        };
        self.has_settings |= member.path == b"postgresql.conf";
        self.is_of_standby |= member.path == b"standby.signal";
        self.member = Some((member.clone(), current));
        Ok(())
    }

    fn data(&mut self, data: &[u8]) -> Result<()> {
        match &mut self.member {
            Some((_member, Current::Plain(sum))) => sum.update(data),
            Some((member, Current::Kept(sum, kept))) => {
                sum.update(data);
                kept.extend_from_slice(data);
                let max = if member.path == b"PG_VERSION" { VERSION_BYTES_MAX } else { LABEL_BYTES_MAX };
                if kept.len() > max {
                    return Err(wrong("a file is longer than the server writes it", &member.path));
                }
            }
            Some((_member, Current::Manifest)) => {
                let files = &mut self.files;
                let manifest = self.manifest.get_or_insert_default();
                manifest.push(data, &mut |listed| compare(files, &listed))?;
            }
            None => {}
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let Some((member, current)) = self.member.take() else { return Ok(()) };
        let sum = match current {
            Current::Manifest => return Ok(()),
            Current::Plain(sum) => sum,
            Current::Kept(sum, content) if member.path == b"backup_label" => {
                self.label = Some(Label::parse(&content)?);
                sum
            }
            Current::Kept(sum, content) => {
                self.major = Some(String::from_utf8_lossy(&content).trim().to_owned());
                sum
            }
        };
        match member.kind {
            Kind::File => self.file(&member, sum.value()),
            _ => {
                self.directory(&member.path);
                Ok(())
            }
        }
    }

    fn file(&mut self, member: &Member, crc32c: u32) -> Result<()> {
        self.census.add("files", 1);
        self.census.add("bytes", member.size_bytes);
        if member.path.strip_prefix(b"pg_wal/").is_some_and(is_segment) {
            self.census.add("wal_segments", 1);
            let expected = *self.segment_bytes.get_or_insert(member.size_bytes);
            if expected != member.size_bytes || !is_segment_size(expected) {
                return Err(wrong("the size of a WAL segment", &member.path));
            }
        }
        // The server does not list the WAL; what recovery needs of it is checked by its range.
        let listed = is_free(&member.path);
        let seen = Seen { size_bytes: member.size_bytes, crc32c, listed };
        match self.files.insert(xxh3_128(&member.path), seen) {
            None => Ok(()),
            Some(_first) => Err(wrong("a file is there twice", &member.path)),
        }
    }

    fn directory(&mut self, path: &[u8]) {
        if let Some(name) = path.strip_prefix(b"base/")
            && name.iter().all(u8::is_ascii_digit)
        {
            self.databases.insert(name.to_vec());
        }
    }

    /// What the archive holds, if all of it is there.
    pub(crate) fn finish(self) -> Result<Verified> {
        if !self.tar.is_between_members() || self.member.is_some() {
            return Err(Error::integrity("the base backup is cut"));
        }
        if self.label.is_none() {
            return Err(Error::integrity("the base backup has no backup_label"));
        }
        let major = self.major.ok_or_else(|| Error::integrity("the base backup has no PG_VERSION"))?;
        let manifest = self.manifest.ok_or_else(|| Error::integrity("the base backup has no backup_manifest"))?;
        let unlisted = self.files.values().filter(|seen| !seen.listed).count();
        if unlisted > 0 {
            return Err(Error::integrity("files are not in backup_manifest").with_context("files", unlisted));
        }
        let ranges = manifest.finish()?;
        let segment_bytes = self.segment_bytes.ok_or_else(|| Error::integrity("the base backup has no WAL"))?;
        if let Some(lacking) = missing_segment(&self.files, &ranges, segment_bytes) {
            return Err(Error::integrity("WAL that recovery needs is missing").with_context("segment", lacking));
        }
        let mut census = self.census;
        census.add("databases", u64::try_from(self.databases.len()).unwrap_or(u64::MAX));
        let warnings = [(!self.has_settings).then_some(NO_SETTINGS), self.is_of_standby.then_some(OF_STANDBY)];
        let warnings = warnings.into_iter().flatten().map(str::to_owned).collect();
        Ok(Verified { census, major, warnings })
    }
}

/// What is told of a backup without settings.
const NO_SETTINGS: &str =
    "postgresql.conf is not in the data directory, as Debian keeps it in /etc: save it by other means";

/// What is told of a backup that was made of a standby: the server copies the file that makes it one.
const OF_STANDBY: &str = "the backup is of a standby: a server that starts from it follows the same primary \
    (primary_conninfo, primary_slot_name), unless standby.signal is removed before its first start";

fn missing_segment(files: &HashMap<u128, Seen>, ranges: &[WalRange], segment_bytes: u64) -> Option<String> {
    let names = ranges.iter().flat_map(|range| segments(range.timeline, range.start, range.end, segment_bytes));
    let mut names = names.map(|name| format!("pg_wal/{name}"));
    names.find(|path| !files.contains_key(&xxh3_128(path.as_bytes())))
}

/// Compares what the manifest says of a file with what came.
fn compare(files: &mut HashMap<u128, Seen>, listed: &Listed) -> Result<()> {
    match files.get_mut(&xxh3_128(&listed.path)) {
        _ if is_free(&listed.path) => Ok(()),
        None => Err(wrong("a file of the manifest is missing", &listed.path)),
        Some(seen) if seen.size_bytes != listed.size_bytes => Err(wrong("the size of a file", &listed.path)),
        Some(seen) if seen.crc32c != listed.crc32c => Err(wrong("the checksum of a file", &listed.path)),
        Some(seen) => {
            seen.listed = true;
            Ok(())
        }
    }
}

/// Whether the manifest may lack the file or say something else of it.
fn is_free(path: &[u8]) -> bool {
    path.starts_with(b"pg_wal/") || UNLISTED.contains(&path)
}

fn wrong(what: &str, path: &[u8]) -> Error {
    let error = Error::integrity("the base backup is damaged or foreign").with_context("what", what);
    error.with_context("path", String::from_utf8_lossy(path).escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::physical::manifest::build::manifest;
    use crate::physical::tar::build::{file, header};

    const LABEL: &[u8] = b"START WAL LOCATION: 0/2000028 (file x)\nSTART TIMELINE: 1\n";
    const SEGMENT: &str = "pg_wal/000000010000000000000002";

    /// The files of a small backup; the WAL is not listed.
    fn files() -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("backup_label", LABEL.to_vec()),
            ("PG_VERSION", b"15\n".to_vec()),
            ("postgresql.conf", b"port = 1".to_vec()),
            ("base/1/1259", vec![3; 8192]),
        ]
    }

    fn archive(files: &[(&str, Vec<u8>)], listed: &[(&str, Vec<u8>)], segment: Option<&str>) -> Vec<u8> {
        let mut bytes: Vec<u8> = files.iter().flat_map(|(name, content)| file(name, content)).collect();
        bytes.extend(header("./base/1/", b'5', 0));
        bytes.extend(segment.into_iter().flat_map(|name| file(name, &vec![0; 1 << 20])));
        let listed: Vec<(&str, &[u8])> = listed.iter().map(|(name, content)| (*name, content.as_slice())).collect();
        bytes.extend(file("backup_manifest", manifest(&listed).as_bytes()));
        bytes
    }

    fn verify(bytes: &[u8]) -> Result<Verified> {
        let mut verifier = Verifier::default();
        bytes.chunks(1000).try_for_each(|piece| verifier.push(piece))?;
        verifier.finish()
    }

    /// A segment of 1 MiB has another number than one of 16 MiB: 0/2000028 is in the 33rd.
    const SMALL_SEGMENT: &str = "pg_wal/000000010000000000000020";

    #[test]
    fn a_whole_backup_is_counted() {
        let verified = verify(&archive(&files(), &files(), Some(SMALL_SEGMENT))).expect("a backup");
        let count = |name| verified.census.count(name);
        assert_eq!((count("files"), count("databases"), count("wal_segments")), (5, 1, 1));
        assert_eq!(verified.major, "15");
        assert!(verified.warnings.is_empty());
    }

    #[test]
    fn each_defect_is_found() {
        let with = |change: fn(&mut Vec<(&'static str, Vec<u8>)>)| {
            let mut files = files();
            change(&mut files);
            files
        };
        let good = archive(&files(), &files(), Some(SMALL_SEGMENT));
        let flipped = with(|files| files[3].1[100] ^= 1);
        let longer = with(|files| files[3].1.push(0));
        let lost = with(|files| drop(files.pop()));
        let more = with(|files| files.push(("base/1/9", Vec::new())));
        let twice = with(|files| files.push(("PG_VERSION", b"15\n".to_vec())));
        for (what, bytes) in [
            ("a flipped bit", archive(&flipped, &files(), Some(SMALL_SEGMENT))),
            ("another size", archive(&longer, &files(), Some(SMALL_SEGMENT))),
            ("a missing file", archive(&lost, &files(), Some(SMALL_SEGMENT))),
            ("a file too many", archive(&more, &files(), Some(SMALL_SEGMENT))),
            ("a file twice", archive(&twice, &files(), Some(SMALL_SEGMENT))),
            ("no WAL", archive(&files(), &files(), None)),
            ("other WAL", archive(&files(), &files(), Some(SEGMENT))),
            ("cut before the manifest", good[..good.len() - 4096].to_vec()),
            ("a link", [header("pg_tblspc/5", b'2', 0), good.clone()].concat()),
            ("nothing", Vec::new()),
        ] {
            let error = verify(&bytes).expect_err(what);
            assert_eq!(error.kind(), stackkit_core::ErrorKind::Integrity, "{what}: {error}");
        }
    }

    #[test]
    fn settings_that_are_elsewhere_are_told() {
        let files: Vec<_> = files().into_iter().filter(|(name, _)| *name != "postgresql.conf").collect();
        let verified = verify(&archive(&files, &files, Some(SMALL_SEGMENT))).expect("a backup");
        assert!(verified.warnings[0].contains("postgresql.conf"), "{:?}", verified.warnings);
    }
}
