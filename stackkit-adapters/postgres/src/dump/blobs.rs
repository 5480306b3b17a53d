//! Large objects: each is a file of an archive, `blob_OID.dat`.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use stackkit_core::backup::{ArtifactSink, ArtifactSpec};
use stackkit_core::{Error, Result};

use super::blob_pages::{Page, Pages};
use super::bundle::Bundle;
use super::by_hand;
use super::catalog;
use super::worker::Work;
use crate::archive::{Entry, GROUPS_SINCE};
use crate::error::PostgresError;
use crate::layout::formats;
use crate::wire::{CHUNK_BYTES, Wire, value};

/// The kinds of entries of large objects: their content, and, from archive 1.16 on, a group of them that is made.
pub(super) const CONTENT: &str = "BLOBS";
pub(super) const GROUP: &str = "BLOB METADATA";

/// How many objects are read in one go: their sizes are known before their content.
const BATCH: usize = 250;

/// What is read at once of an object that only its own functions may read.
const PIECE_BYTES: u64 = 256 * 1024;

/// Zeros for the holes of sparse objects.
static ZEROS: [u8; 8192] = [0; 8192];

/// An entry that holds large objects, and which they are.
#[derive(Debug)]
pub(super) struct Group {
    /// The file that lists them.
    pub(super) file: String,
    /// Their numbers; nothing if the archive does not say, as there is only one entry of them.
    objects: Option<Vec<u32>>,
}

/// What a table of contents says of large objects.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Groups that are made, by their entry; their contents come later.
    made: Vec<(i32, Vec<u32>)>,
    pub(super) all: Vec<Group>,
}

impl Groups {
    /// Notes an entry, if it is of large objects. Gives the file that lists them.
    pub(super) fn note(&mut self, version: u16, entry: &Entry) -> Option<String> {
        match entry.kind.as_str() {
            GROUP => {
                let numbers = entry.definition.split_ascii_whitespace().filter_map(|number| number.parse().ok());
                self.made.push((entry.dump_id, numbers.collect()));
                None
            }
            CONTENT if version >= GROUPS_SINCE => {
                let is_its = |(made, _): &(i32, Vec<u32>)| entry.depends_on.contains(made);
                let at = self.made.iter().position(is_its);
                let objects = at.map(|at| self.made.swap_remove(at).1);
                let file = format!("blobs_{}.toc", entry.dump_id);
                self.all.push(Group { file: file.clone(), objects });
                Some(file)
            }
            CONTENT => {
                self.all.push(Group { file: "blobs.toc".to_owned(), objects: None });
                Some("blobs.toc".to_owned())
            }
            _ => None,
        }
    }

    /// Stores the lists, and gives the numbers of all objects in their order.
    pub(super) async fn store(self, wire: &mut Wire, sink: &dyn ArtifactSink, prefix: &str) -> Result<Vec<u32>> {
        let mut all = Vec::new();
        for group in self.all {
            let objects = match group.objects {
                Some(objects) => objects,
                None => numbers(wire).await?,
            };
            store_list(sink, by_hand::spec(prefix, &group.file, formats::BLOBS_TOC)?, &objects).await?;
            all.extend(objects);
        }
        all.sort_unstable();
        Ok(all)
    }
}

/// The numbers of all large objects that the snapshot sees.
async fn numbers(wire: &mut Wire) -> Result<Vec<u32>> {
    let sql = b"COPY (SELECT oid FROM pg_catalog.pg_largeobject_metadata ORDER BY oid) TO STDOUT";
    let (mut copy, mut numbers, mut line) = (wire.copy_out(sql, false).await?, Vec::new(), 0_u32);
    while let Some(chunk) = copy.chunk().await? {
        for byte in chunk {
            match byte {
                b'0'..=b'9' => line = line.wrapping_mul(10).wrapping_add(u32::from(byte - b'0')),
                _ => numbers.push(std::mem::take(&mut line)),
            }
        }
    }
    Ok(numbers)
}

/// Stores the list of the files of `objects`.
async fn store_list(sink: &dyn ArtifactSink, spec: ArtifactSpec, objects: &[u32]) -> Result<()> {
    let mut writer = sink.create(spec).await?;
    // A line has at most 31 bytes.
    for objects in objects.chunks(CHUNK_BYTES / 32) {
        let lines: String = objects.iter().map(|object| format!("{object} blob_{object}.dat\n")).collect();
        writer.write(Bytes::from(lines)).await?;
    }
    writer.finish().await.map(drop)
}

/// How large objects are read.
#[derive(Debug, Clone, Default)]
pub(super) struct Objects {
    pub(super) numbers: Vec<u32>,
    /// Whether the table of their pages may be read; else each object is asked for.
    from_pages: bool,
    /// What a page of that table holds.
    page_bytes: u64,
}

impl Objects {
    /// How to read these.
    pub(super) async fn new(wire: &mut Wire, numbers: Vec<u32>) -> Result<Self> {
        let sql = "SELECT has_table_privilege('pg_catalog.pg_largeobject', 'SELECT'), \
            current_setting('block_size')::int8 / 4";
        let row = wire.rows(sql).await?.pop().unwrap_or_default();
        let (from_pages, page_bytes) = (value(&row, 0)? == "t", catalog::number(&row, 1)?);
        Ok(Self { numbers, from_pages, page_bytes })
    }

    /// How much of an object the number of a page stands for.
    fn step(&self) -> u64 {
        if self.from_pages { self.page_bytes } else { PIECE_BYTES }
    }

    /// The sizes of the objects between two, in their order.
    fn sizes(&self, first: u32, last: u32) -> String {
        let size = match self.from_pages {
            true => format!(
                "coalesce((SELECT l.pageno::int8 * {} + octet_length(l.data) FROM pg_catalog.pg_largeobject l \
                 WHERE l.loid = m.oid ORDER BY l.pageno DESC LIMIT 1), 0)",
                self.page_bytes
            ),
            // 262144 asks for reading, 2 is the end; what was opened is closed with the transaction, or by the next one.
            false => {
                "(SELECT lo_lseek64(fd, 0, 2) + 0 * lo_close(fd) FROM (SELECT lo_open(m.oid, 262144) AS fd OFFSET 0) o)"
                    .to_owned()
            }
        };
        format!(
            "SELECT m.oid, {size} FROM pg_catalog.pg_largeobject_metadata m WHERE m.oid BETWEEN {first} AND {last} \
             ORDER BY m.oid"
        )
    }

    /// The content of the objects between two, in pieces in their order.
    fn content(&self, first: u32, last: u32) -> String {
        let select = match self.from_pages {
            true => format!(
                "SELECT loid, pageno, data FROM pg_catalog.pg_largeobject WHERE loid BETWEEN {first} AND {last} \
                 ORDER BY loid, pageno"
            ),
            false => format!(
                "SELECT s.oid, p::int4, lo_get(s.oid, p * {PIECE_BYTES}, {PIECE_BYTES}) \
                 FROM ({}) s(oid, bytes), generate_series(0, (s.bytes + {PIECE_BYTES} - 1) / {PIECE_BYTES} - 1) p \
                 ORDER BY s.oid, p",
                self.sizes(first, last)
            ),
        };
        format!("COPY ({select}) TO STDOUT (FORMAT binary)")
    }
}

/// Reads batches of objects until there are none.
pub(super) async fn run(wire: &mut Wire, work: &Work<'_>) -> Result<()> {
    let mut bundle = None;
    let batches = || work.objects.numbers.chunks(BATCH);
    while let Some(batch) = batches().nth(work.state.next_batch.fetch_add(1, Ordering::Relaxed)) {
        copy(wire, work, batch, &mut bundle).await?;
        if bundle.as_ref().is_some_and(Bundle::is_full) {
            finish(work, bundle.take()).await?;
        }
    }
    finish(work, bundle).await
}

async fn finish(work: &Work<'_>, bundle: Option<Bundle>) -> Result<()> {
    let Some(bundle) = bundle else { return Ok(()) };
    let name = bundle.name().to_owned();
    bundle.finish().await?;
    work.state.blobs.lock().unwrap_or_else(PoisonError::into_inner).push(name);
    Ok(())
}

async fn copy(wire: &mut Wire, work: &Work<'_>, batch: &[u32], open: &mut Option<Bundle>) -> Result<()> {
    let (Some(first), Some(last)) = (batch.first(), batch.last()) else { return Ok(()) };
    let sizes = wire.rows(&work.objects.sizes(*first, *last)).await?;
    if sizes.len() != batch.len() {
        return Err(Error::unexpected("the snapshot sees other large objects than its table of contents"));
    }
    let mut bundle = match open.take() {
        Some(bundle) => bundle,
        None => {
            let number = work.state.blob_bundles.fetch_add(1, Ordering::Relaxed);
            Bundle::create(work.sink, work.prefix, &format!("blobs.{number:03}.tar")).await?
        }
    };
    let mut copy = wire.copy_out(work.objects.content(*first, *last).as_bytes(), false).await?;
    let (mut pages, mut next) = (Pages::default(), None);
    for row in &sizes {
        let mut file = File::begin(&mut bundle, catalog::number(row, 0)?, catalog::number(row, 1)?)?;
        loop {
            if next.is_none() {
                next = pages.next()?;
            }
            match next.take() {
                Some(page) if page.object == file.object => file.page(&page, work.objects.step()).await?,
                Some(page) => {
                    next = Some(page);
                    break;
                }
                None => match copy.chunk().await? {
                    Some(bytes) => pages.push(&bytes),
                    None => break,
                },
            }
        }
        file.end().await?;
    }
    if next.is_some() || copy.chunk().await?.is_some() {
        return Err(PostgresError::Answer("the large objects in their order").into());
    }
    *open = Some(bundle);
    Ok(())
}

/// A large object on its way into an archive.
struct File<'a> {
    bundle: &'a mut Bundle,
    object: u32,
    bytes: u64,
    written: u64,
}

impl<'a> File<'a> {
    fn begin(bundle: &'a mut Bundle, object: u32, bytes: u64) -> Result<Self> {
        bundle.begin(&format!("blob_{object}.dat"), bytes)?;
        Ok(Self { bundle, object, bytes, written: 0 })
    }

    async fn page(&mut self, page: &Page, step: u64) -> Result<()> {
        self.zeros_to(page.number * step).await?;
        self.written += page.content.len() as u64;
        if self.written > self.bytes {
            return Err(PostgresError::Answer("a large object of the size that it has").into());
        }
        self.bundle.append(&page.content).await
    }

    /// What nobody wrote reads as zeros.
    async fn zeros_to(&mut self, end: u64) -> Result<()> {
        while self.written < end {
            let count = usize::try_from(end - self.written).unwrap_or(usize::MAX).min(ZEROS.len());
            self.bundle.append(ZEROS.get(..count).unwrap_or_default()).await?;
            self.written += count as u64;
        }
        Ok(())
    }

    async fn end(mut self) -> Result<()> {
        self.zeros_to(self.bytes).await?;
        self.bundle.end();
        Ok(())
    }
}
