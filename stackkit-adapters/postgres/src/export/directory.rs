//! Writes a directory archive: a file for each table and each large object, and the table of contents at last.

use std::path::Path;

use stackkit_core::Result;
use tokio::fs::File;
use tokio::io::{AsyncWriteExt, BufWriter};

use super::groups::{Group, Groups};
use super::pack::{BLOCK_BYTES, Into, Packer, ending};
use super::parts::Rows;
use super::{ExportReport, Job, Partial, absent, failed, tempfile_beside};
use crate::archive::{Data, Entry, Format, GROUPS_SINCE, Header, write as format};
use crate::layout::TOC;

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
    let mut groups = Groups::new(job.source, job.database, &header);
    while let Some(entry) = entries.next().await? {
        let file = match (entry.has_data, entry.kind.as_str()) {
            (false, _) => String::new(),
            (true, "BLOBS") => {
                let name = list_name(&header, entry.dump_id);
                let blobs = groups.of(entry.dump_id).await?;
                report.large_objects += write_blobs(&header, folder, blobs, &name).await?;
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
    groups.finish().await?;
    finish(toc).await?;
    Ok(report)
}

fn list_name(header: &Header, id: i32) -> String {
    match header.version {
        ..GROUPS_SINCE => "blobs.toc".to_owned(),
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

/// Writes the large objects of an entry, and the list of them under `name`.
async fn write_blobs(header: &Header, folder: &Partial, mut blobs: Group<'_, '_>, name: &str) -> Result<u64> {
    let mut list = create(folder, name).await?;
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

async fn create(folder: &Partial, name: &str) -> Result<BufWriter<File>> {
    let file = File::create_new(folder.path.join(name)).await.map_err(failed)?;
    Ok(BufWriter::with_capacity(BLOCK_BYTES, file))
}

async fn finish(mut out: BufWriter<File>) -> Result<()> {
    out.flush().await.map_err(failed)?;
    out.into_inner().sync_all().await.map_err(failed)
}
