//! A directory as one tar stream.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, fstat};
use stackkit_core::backup::{ArtifactName, ArtifactSink, ArtifactSpec, DumpReport, PointInTime, VendorInfo};
use stackkit_core::{Census, Dump, Error, ServiceId, async_trait};
use tokio::sync::mpsc;

use crate::archive::{self, END, Entry, EntryKind, Extent, Xattr};
use crate::census::{Tally, file_node};
use crate::error::{PathText, Result, VolumeError, os_at};
use crate::tree::{
    CHUNK_BYTES, Chunks, FileAccess, Found, Links, Meta, Node, Walk, Warnings, file_xattrs, hash_zeros, holes, read_at,
};
use crate::worker::{Cancel, Worker};

/// The name of the only artifact.
pub(crate) const ARTIFACT: &str = "data.tar";

/// The format of the artifact.
pub(crate) const FORMAT: &str = "tar-pax";

/// How to unpack the artifact by hand, read from standard input into the current directory.
const RESTORE_COMMAND: &str =
    "tar --extract --file - --preserve-permissions --numeric-owner --xattrs --xattrs-include='*'";

/// Chunks between the thread that reads the directory and the task that writes the artifact: enough that neither
/// waits for the other's every step, 1 MiB in all.
const CHANNEL_CHUNKS: usize = 4;

/// The largest file that is read whole before its header is written, so that it can be read again when it changed
/// meanwhile. With its header it has to fit one chunk.
const WHOLE_BYTES_MAX: u64 = 192 * 1024;

/// How often a file that changes while it is read is read before it is taken as it comes.
const READ_ATTEMPTS: usize = 3;

/// The longest set of headers before the content of a file that is read whole. Longer ones, which only many large
/// attributes need, go the way of large files.
const WHOLE_HEADER_BYTES_MAX: usize = 32 * 1024;

const _: () = assert!(WHOLE_BYTES_MAX + (WHOLE_HEADER_BYTES_MAX as u64) < CHUNK_BYTES as u64);

/// A dump that has not run yet. It holds nothing open: a directory has no snapshot to pin.
#[derive(Debug)]
pub(crate) struct VolumeDump {
    pub(crate) path: PathBuf,
    pub(crate) point: PointInTime,
    pub(crate) service: ServiceId,
}

#[async_trait]
impl Dump for VolumeDump {
    fn point(&self) -> &PointInTime {
        &self.point
    }

    async fn run(self: Box<Self>, sink: &dyn ArtifactSink) -> stackkit_core::Result<DumpReport> {
        let spec = ArtifactSpec::new(ArtifactName::new(ARTIFACT)?, FORMAT)
            .with_media_type("application/x-tar")
            .with_restore_command(RESTORE_COMMAND);
        let mut writer = sink.create(spec).await?;
        let (sender, mut chunks) = mpsc::channel(CHANNEL_CHUNKS);
        let path = self.path;
        let worker = Worker::start(move |cancel| Dumper::new(Chunks::new(sender), cancel).run(&path));
        while let Some(chunk) = chunks.recv().await {
            writer.write(chunk).await?;
        }
        let dumped = worker.join().await.and_then(|dumped| dumped);
        let (census, warnings) =
            dumped.map_err(|error| Error::from(error).with_operation("dump").with_service(self.service.clone()))?;
        writer.finish().await?;
        Ok(DumpReport::new(census, VendorInfo::new("POSIX tar")).with_warnings(warnings.into_lines()))
    }
}

/// Reads a tree and sends its archive.
struct Dumper<'a> {
    chunks: Chunks,
    cancel: &'a Cancel,
    tally: Tally,
    links: Links,
    warnings: Warnings,
    /// The header blocks of the entry at hand.
    header: Vec<u8>,
}

impl<'a> Dumper<'a> {
    fn new(chunks: Chunks, cancel: &'a Cancel) -> Self {
        Self {
            chunks,
            cancel,
            tally: Tally::default(),
            links: Links::default(),
            warnings: Warnings::default(),
            header: Vec::new(),
        }
    }

    fn run(mut self, root: &Path) -> Result<(Census, Warnings)> {
        let mut walk = Walk::open(root, FileAccess::Open)?;
        while let Some((path, found)) = walk.next()? {
            self.cancel.check()?;
            self.entry(path, found)?;
        }
        self.chunks.put(&END)?;
        self.chunks.flush()?;
        self.warnings.append(walk.into_warnings());
        Ok((self.tally.census(), self.warnings))
    }

    fn entry(&mut self, path: &[u8], found: Found<'_>) -> Result<()> {
        match found {
            Found::Directory(directory, meta) => {
                let xattrs = file_xattrs(directory, path)?;
                self.tally.directory(path, meta.mode, &xattrs);
                self.put_header(path, &meta, EntryKind::Directory, xattrs)
            }
            Found::Symlink(meta, target) => {
                self.tally.symlink(path, &target);
                self.put_header(path, &meta, EntryKind::Symlink { target }, Vec::new())
            }
            Found::File(Some(file), meta) => self.file(path, &file, meta),
            Found::File(None, meta) | Found::Special(meta) => {
                self.warnings.push(path, skipped(meta.file_type));
                Ok(())
            }
        }
    }

    fn file(&mut self, path: &[u8], file: &OwnedFd, meta: Meta) -> Result<()> {
        if let Some((first, node)) = self.links.find(&meta) {
            self.tally.hard_link(path, node);
            let target = member_path(&first, false);
            return self.put_header(path, &meta, EntryKind::HardLink { target }, Vec::new());
        }
        let (meta, node) = match self.small_file(path, file, meta)? {
            Some(done) => done,
            None => self.large_file(path, file)?,
        };
        self.tally.file(path, meta.size, node);
        if !self.links.remember(&meta, path, node) {
            self.warnings.push(path, "stored once for each of its names: too many files have several");
        }
        Ok(())
    }

    /// Reads a file whole, again if it changed meanwhile, straight into the outgoing buffer, and says what the file was
    /// then. `None` if it is too large or sparse for that, or never stood still.
    fn small_file(&mut self, path: &[u8], file: &OwnedFd, first: Meta) -> Result<Option<(Meta, Node)>> {
        let mut meta = first;
        for _ in 0..READ_ATTEMPTS {
            if meta.size > WHOLE_BYTES_MAX || holes(file.as_fd(), &meta).is_some() {
                return Ok(None);
            }
            let xattrs = file_xattrs(file.as_fd(), path)?;
            let kind = EntryKind::File { size: meta.size, extents: None };
            let entry = self.encode(path, &meta, kind, xattrs)?;
            if self.header.len() > WHOLE_HEADER_BYTES_MAX {
                return Ok(None);
            }
            let (start, size) = (self.header.len(), usize::try_from(meta.size).unwrap_or(CHUNK_BYTES));
            let padding = archive::padding(meta.size);
            let room = self.chunks.room(start + size + padding)?;
            room[..start].copy_from_slice(&self.header);
            let content = &mut room[start..start + size];
            let length = read_at(file.as_fd(), content, 0).map_err(os_at("read", path))?;
            let after = Meta::from(fstat(file).map_err(os_at("stat", path))?);
            if length == size && !meta.differs(&after) {
                let node = file_node(meta.mode, meta.size, &blake3::hash(content), &entry.xattrs);
                room[start + size..start + size + padding].fill(0);
                self.chunks.advance(start + size + padding);
                return Ok(Some((meta, node)));
            }
            meta = after;
        }
        Ok(None)
    }

    /// Streams a file of any size. Its header stands before its content, so a file that changes meanwhile is cut or
    /// filled up with zeros to the size that the header says, and reported.
    fn large_file(&mut self, path: &[u8], file: &OwnedFd) -> Result<(Meta, Node)> {
        let meta = Meta::from(fstat(file).map_err(os_at("stat", path))?);
        let extents = holes(file.as_fd(), &meta);
        let xattrs = file_xattrs(file.as_fd(), path)?;
        let kind = EntryKind::File { size: meta.size, extents: extents.clone() };
        let entry = self.encode(path, &meta, kind, xattrs)?;
        self.chunks.put(&self.header)?;

        let mut hasher = blake3::Hasher::new();
        let (mut position, mut stored, mut is_short) = (0, 0, false);
        for extent in extents.unwrap_or_else(|| vec![Extent { offset: 0, length: meta.size }]) {
            hash_zeros(&mut hasher, extent.offset - position, self.cancel)?;
            is_short |= !self.extent(path, file, extent, &mut hasher)?;
            position = extent.offset + extent.length;
            stored += extent.length;
        }
        hash_zeros(&mut hasher, meta.size - position, self.cancel)?;
        self.chunks.put_zeros(archive::padding(stored) as u64)?;

        let after = Meta::from(fstat(file).map_err(os_at("stat", path))?);
        if is_short || meta.differs(&after) {
            self.warnings.push(path, "changed while it was read; the copy may mix old and new content");
        }
        Ok((meta, file_node(meta.mode, meta.size, &hasher.finalize(), &entry.xattrs)))
    }

    /// Sends one stretch of a file, with zeros for what the file lost meanwhile; whether it was all there.
    fn extent(&mut self, path: &[u8], file: &OwnedFd, extent: Extent, hasher: &mut blake3::Hasher) -> Result<bool> {
        let end = extent.offset + extent.length;
        let mut position = extent.offset;
        while position < end {
            self.cancel.check()?;
            let space = self.chunks.space()?;
            let wanted = usize::try_from(end - position).unwrap_or(CHUNK_BYTES).min(space.len());
            let length = read_at(file.as_fd(), &mut space[..wanted], position).map_err(os_at("read", path))?;
            if length == 0 {
                self.chunks.put_zeros(end - position)?;
                hash_zeros(hasher, end - position, self.cancel)?;
                return Ok(false);
            }
            hasher.update(&space[..length]);
            self.chunks.advance(length);
            position += length as u64;
        }
        Ok(true)
    }

    fn put_header(&mut self, path: &[u8], meta: &Meta, kind: EntryKind, xattrs: Vec<Xattr>) -> Result<()> {
        self.encode(path, meta, kind, xattrs)?;
        self.chunks.put(&self.header)
    }

    /// Fills `self.header`.
    fn encode(&mut self, path: &[u8], meta: &Meta, kind: EntryKind, xattrs: Vec<Xattr>) -> Result<Entry> {
        let entry = Entry {
            path: member_path(path, kind == EntryKind::Directory),
            kind,
            mode: meta.mode,
            uid: u64::from(meta.uid),
            gid: u64::from(meta.gid),
            mtime: meta.mtime,
            xattrs,
        };
        self.header.clear();
        archive::encode_entry(&entry, &mut self.header).map_err(|_too_long| {
            let reason = "its extended attributes are larger than 8 MiB";
            VolumeError::Unsupported { path: PathText::new(path), reason }
        })?;
        Ok(entry)
    }
}

/// A path as `tar` writes it for `tar -C volume .`.
fn member_path(path: &[u8], is_directory: bool) -> Vec<u8> {
    let mut member = Vec::with_capacity(path.len() + 3);
    member.extend_from_slice(b"./");
    member.extend_from_slice(path);
    if is_directory && !path.is_empty() {
        member.push(b'/');
    }
    member
}

fn skipped(file_type: FileType) -> &'static str {
    match file_type {
        FileType::Socket => "a socket was skipped",
        FileType::Fifo => "a FIFO was skipped",
        FileType::CharacterDevice | FileType::BlockDevice => "a device was skipped",
        _ => "an entry of unknown kind was skipped",
    }
}
