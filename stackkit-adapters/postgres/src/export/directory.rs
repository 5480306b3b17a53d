//! Writes a directory archive: a file for each table and each large object, and the table of contents at last.

use std::path::Path;

use stackkit_core::backup::ArtifactName;
use stackkit_core::{Error, Result};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};

use super::pack::{BLOCK_BYTES, Into, Packer, ending};
use super::parts::{Blobs, Rows};
use super::{ExportReport, Job, Partial, absent, failed, tempfile_beside};
use crate::archive::{Data, Entry, Format, Header, write as format};
use crate::layout::TOC;

/// The longest list of large objects that is copied at once: some 100 million of them.
const LIST_BYTES_MAX: u64 = 4 << 30;

/// Writes the folder beside `path` and renames it.
pub(super) async fn write(job: &Job<'_>, path: &Path) -> Result<ExportReport> {
    absent(path).await?;
    let partial = tempfile_beside(path, true)?;
    tokio::fs::create_dir(&partial.path).await.map_err(failed)?;
    let report = fill(job, &partial).await?;
    // A folder that came meanwhile is not replaced, unless it is empty.
    tokio::fs::rename(&partial.path, path).await.map_err(failed)?;
    Ok(report)
}

async fn fill(job: &Job<'_>, folder: &Partial) -> Result<ExportReport> {
    let header = Header { format: Format::Tar, entries: job.chosen.count, ..job.header.clone() };
    let mut toc = create(folder, TOC).await?;
    toc.write_all(&format::header(&header)?).await.map_err(failed)?;
    let mut report = job.report();
    let mut entries = job.entries().await?;
    let mut bytes = Vec::new();
    let mut has_blobs = false;
    while let Some(entry) = entries.next().await? {
        let file = match (entry.has_data, entry.kind.as_str()) {
            (false, _) => String::new(),
            (true, "BLOBS") => {
                let name = list_name(&header, entry.dump_id);
                if !std::mem::replace(&mut has_blobs, true) {
                    report.large_objects = write_blobs(job, &header, folder, &name).await?;
                }
                copy_list(job, folder, &name).await?;
                name
            }
            _ => {
                report.tables += 1;
                write_rows(job, &header, &entry, folder).await?
            }
        };
        bytes.clear();
        format::entry(&header, &Entry { data: Data::File(file), ..entry }, &mut bytes)?;
        toc.write_all(&bytes).await.map_err(failed)?;
    }
    finish(toc).await?;
    Ok(report)
}

fn list_name(header: &Header, id: i32) -> String {
    match header.version {
        ..116 => "blobs.toc".to_owned(),
        _ => format!("blobs_{id}.toc"),
    }
}

async fn write_rows(job: &Job<'_>, header: &Header, entry: &Entry, folder: &Partial) -> Result<String> {
    let name = format!("{}.dat", entry.dump_id);
    let mut out = create(folder, &format!("{name}{}", ending(header))).await?;
    let mut rows = Rows::new(job.source, job.database, entry.dump_id)?;
    let mut packer = Packer::new(header, Into::File);
    while let Some(piece) = rows.next().await? {
        out.write_all(&packer.push(piece)?).await.map_err(failed)?;
    }
    out.write_all(&packer.finish()?).await.map_err(failed)?;
    finish(out).await?;
    Ok(name)
}

/// Writes all large objects, and the list of them under `name`.
async fn write_blobs(job: &Job<'_>, header: &Header, folder: &Partial, name: &str) -> Result<u64> {
    let mut list = create(folder, name).await?;
    let mut blobs = Blobs::new(job.source, job.database);
    let mut count = 0;
    while let Some(number) = blobs.next().await? {
        count += 1;
        let file = format!("blob_{number}.dat");
        list.write_all(format!("{number} {file}\n").as_bytes()).await.map_err(failed)?;
        let mut out = create(folder, &format!("{file}{}", ending(header))).await?;
        let mut packer = Packer::new(header, Into::File);
        while let Some(piece) = blobs.piece().await? {
            out.write_all(&packer.push(piece)?).await.map_err(failed)?;
        }
        out.write_all(&packer.finish()?).await.map_err(failed)?;
        finish(out).await?;
    }
    finish(list).await?;
    Ok(count)
}

/// Where the dump has a list for each of several entries, they stay apart: the dump's own list takes the place.
async fn copy_list(job: &Job<'_>, folder: &Partial, name: &str) -> Result<()> {
    let artifact = ArtifactName::new(format!("{}{name}", job.database.prefix))?;
    let path = folder.path.join(name);
    match job.source.info(&artifact) {
        Ok(info) if info.plain_bytes <= LIST_BYTES_MAX => {
            let mut reader = job.source.open(&artifact).await?.take(LIST_BYTES_MAX);
            let mut out = BufWriter::with_capacity(BLOCK_BYTES, File::create(&path).await.map_err(failed)?);
            tokio::io::copy(&mut reader, &mut out).await.map_err(failed)?;
            finish(out).await
        }
        Ok(_) => Err(Error::integrity("the list of large objects is impossibly long")),
        // Only the first entry's list was written, and holds all; those of the others are empty.
        Err(_absent) => {
            let out = File::options().append(true).create(true).open(&path).await.map_err(failed)?;
            out.sync_all().await.map_err(failed)
        }
    }
}

async fn create(folder: &Partial, name: &str) -> Result<BufWriter<File>> {
    let file = File::create_new(folder.path.join(name)).await.map_err(failed)?;
    Ok(BufWriter::with_capacity(BLOCK_BYTES, file))
}

async fn finish(mut out: BufWriter<File>) -> Result<()> {
    out.flush().await.map_err(failed)?;
    out.into_inner().sync_all().await.map_err(failed)
}
