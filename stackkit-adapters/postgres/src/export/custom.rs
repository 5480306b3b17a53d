//! Writes a custom archive: the table of contents, and the data of its entries behind it in the same order.

use std::collections::BTreeMap;
use std::io::SeekFrom;

use bytes::Bytes;
use stackkit_core::{Error, ErrorKind, Result};
use tokio::io::{AsyncSeek, AsyncSeekExt, AsyncWrite, AsyncWriteExt};

use super::groups::Groups;
use super::pack::{BLOCK_BYTES, Into, Packer};
use super::parts::Rows;
use super::{ExportReport, Job, failed};
use crate::archive::{Data, Entry, Format, Header, write as format};

/// Where the data of an entry is: nobody knows, known, and nowhere.
const UNKNOWN: u8 = 1;
const KNOWN: u8 = 2;
const NO_DATA: u8 = 3;

/// What the data of a table and of large objects begins with.
const BLOCK_DATA: u8 = 1;
const BLOCK_BLOBS: u8 = 3;

/// Where the data of each entry begins.
pub(super) type Places = BTreeMap<i32, u64>;

type Writer<'a> = &'a mut (dyn AsyncWrite + Send + Unpin);

/// Writes everything from the start to the end, so that a pipe is enough. Gives where the data is.
pub(super) async fn write(job: &Job<'_>, out: Writer<'_>) -> Result<(ExportReport, Places)> {
    let mut out = Output { out, position: 0 };
    let header = header(job);
    write_toc(job, &header, &mut out, &Places::new()).await?;
    let mut report = job.report();
    let mut places = Places::new();
    let mut entries = job.entries().await?;
    let mut groups = Groups::new(job.source, job.database, &header);
    while let Some(entry) = entries.next().await? {
        if !entry.has_data {
            continue;
        }
        places.insert(entry.dump_id, out.position);
        match entry.kind.as_str() {
            "BLOBS" => report.large_objects += write_blobs(&header, &entry, &mut groups, &mut out).await?,
            _ => {
                write_rows(job, &header, &entry, &mut out).await?;
                report.tables += 1;
            }
        }
    }
    groups.finish().await?;
    Ok((report, places))
}

/// Writes the table of contents once more, with the places in it: a reader then finds each table at once.
pub(super) async fn write_places<W>(job: &Job<'_>, out: &mut W, places: &Places) -> Result<()>
where
    W: AsyncWrite + AsyncSeek + Send + Unpin,
{
    out.seek(SeekFrom::Start(0)).await.map_err(failed)?;
    write_toc(job, &header(job), &mut Output { out, position: 0 }, places).await
}

fn header(job: &Job<'_>) -> Header {
    Header { format: Format::Custom, entries: job.chosen.count, ..job.header.clone() }
}

async fn write_toc(job: &Job<'_>, header: &Header, out: &mut Output<'_>, places: &Places) -> Result<()> {
    let mut bytes = format::header(header)?;
    let mut entries = job.entries().await?;
    while let Some(entry) = entries.next().await? {
        let data = match (entry.has_data, places.get(&entry.dump_id)) {
            (false, _) => Data::Offset { state: NO_DATA, offset: 0 },
            (true, None) => Data::Offset { state: UNKNOWN, offset: 0 },
            (true, Some(place)) => Data::Offset { state: KNOWN, offset: *place },
        };
        format::entry(header, &Entry { data, ..entry }, &mut bytes)?;
        if bytes.len() >= BLOCK_BYTES {
            out.put(&std::mem::take(&mut bytes)).await?;
        }
    }
    out.put(&bytes).await
}

async fn write_rows(job: &Job<'_>, header: &Header, entry: &Entry, out: &mut Output<'_>) -> Result<()> {
    out.put(&[BLOCK_DATA]).await?;
    out.put(&format::number(entry.dump_id)).await?;
    let mut rows = Rows::new(job.source, job.database, entry.dump_id)?;
    let mut packer = Packer::new(header, Into::Blocks);
    while let Some(piece) = rows.next().await? {
        out.block(&packer.push(piece)?).await?;
    }
    out.block(&packer.finish()?).await?;
    out.put(&format::number(0)).await
}

async fn write_blobs(header: &Header, entry: &Entry, groups: &mut Groups<'_>, out: &mut Output<'_>) -> Result<u64> {
    out.put(&[BLOCK_BLOBS]).await?;
    out.put(&format::number(entry.dump_id)).await?;
    let mut blobs = groups.of(entry.dump_id).await?;
    let mut count = 0;
    while let Some(number) = blobs.next().await? {
        count += 1;
        // The vendor counts with a sign.
        out.put(&format::number(number.cast_signed())).await?;
        let mut packer = Packer::new(header, Into::Blocks);
        while let Some(piece) = blobs.piece().await? {
            out.block(&packer.push(piece)?).await?;
        }
        out.block(&packer.finish()?).await?;
        out.put(&format::number(0)).await?;
    }
    out.put(&format::number(0)).await?;
    Ok(count)
}

/// A stream that knows where it is.
struct Output<'a> {
    out: Writer<'a>,
    position: u64,
}

impl Output<'_> {
    async fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.position += bytes.len() as u64;
        self.out.write_all(bytes).await.map_err(failed)
    }

    /// A length and bytes; nothing for no bytes, which would end the data.
    async fn block(&mut self, bytes: &Bytes) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let length = i32::try_from(bytes.len());
        let length = length.map_err(|_too_long| Error::new(ErrorKind::Unsupported, "a block is too long"))?;
        self.put(&format::number(length)).await?;
        self.put(bytes).await
    }
}
