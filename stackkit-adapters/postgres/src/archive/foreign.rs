//! An archive that the vendor's tools wrote, as the artifacts of our own layout. Nothing is copied or unpacked to a disk:
//! each artifact is read from where it lies, and decompressed on its way.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use stackkit_core::backup::{ArtifactInfo, ArtifactName, ArtifactReader, ArtifactSource, ArtifactSpec};
use stackkit_core::{Error, ErrorKind, Result};
use tokio::io::AsyncReadExt;

use super::blobs::{self, BlobTar, Blobs, Sizes};
use super::custom;
use super::data::Data;
use super::input::{self, Input, PIECE_BYTES, Pieces};
use super::place::{Folder, Origin};
use super::toc::TocStream;
use super::{Compression, Data as Place, Entry, Format, Header, write};
use crate::layout::{CONTENTS, DataFile, DatabaseLayout, LAYOUT_VERSION, Layout, Part, TOC, formats};

/// A foreign archive.
pub(crate) struct Foreign<'a> {
    place: Where<'a>,
    header: Header,
    artifacts: Vec<ArtifactInfo>,
    files: HashMap<String, File>,
}

enum Where<'a> {
    Custom(Origin<'a>),
    Folder(Arc<Folder>),
}

/// What an artifact is made of.
#[derive(Clone)]
enum File {
    Bytes(Bytes),
    Toc,
    /// The rows of an entry, which begin there in a custom archive.
    Rows {
        id: i32,
        at: u64,
    },
    Blobs {
        id: i32,
        at: u64,
        sizes: Sizes,
    },
}

/// What is learned from a table of contents.
struct Learned {
    header: Header,
    /// Bytes of the table of contents as it is presented.
    toc_bytes: u64,
    encoding: String,
    tables: Vec<Table>,
    /// Entries of large objects, and the name of the list of each.
    blobs: Vec<(i32, String, Option<u64>)>,
    /// Where the data begins in a custom archive.
    data: Input,
}

struct Table {
    file: DataFile,
    at: Option<u64>,
}

impl<'a> Foreign<'a> {
    /// A custom archive.
    pub(super) async fn custom(origin: Origin<'a>) -> Result<Self> {
        let learned = learn(origin.open(0).await?).await?;
        if learned.header.format != Format::Custom {
            return Err(Error::integrity("the archive is of another kind than its place says"));
        }
        let is_known = learned.tables.iter().all(|table| table.at.is_some())
            && learned.blobs.iter().all(|(_, _, at)| at.is_some());
        let places = match is_known {
            true => HashMap::new(),
            false => {
                let wanted = learned.tables.iter().map(|table| table.file.dump_id);
                let wanted = wanted.chain(learned.blobs.iter().map(|(id, _, _)| *id)).collect();
                custom::scan(learned.data, learned.header.int_bytes, Some(wanted)).await?
            }
        };
        let at = |id: i32, known: Option<u64>| known.or_else(|| places.get(&id).copied()).ok_or_else(|| absent(id));
        let mut builder = Builder::default();
        for table in &learned.tables {
            let id = table.file.dump_id;
            // What it takes in the archive is not known without reading on to the next; nothing is promised.
            builder.add(&data_name(id), formats::ROWS, 0, File::Rows { id, at: at(id, table.at)? })?;
        }
        for (id, list, known) in &learned.blobs {
            let at = at(*id, *known)?;
            let sizes = Blobs::custom(origin.open(at).await?, *id, &learned.header).await?.measure().await?;
            builder.add_blobs(*id, list, at, sizes)?;
        }
        let (tables, header) = (learned.tables, learned.header);
        builder.finish(Where::Custom(origin), header, (tables, learned.encoding, learned.toc_bytes))
    }

    /// A folder or a tar file.
    pub(super) async fn folder(folder: Folder) -> Result<Self> {
        let folder = Arc::new(folder);
        let learned = learn(toc_of(&folder).await?).await?;
        if learned.header.format != Format::Tar {
            return Err(Error::integrity("the archive is of another kind than its place says"));
        }
        let mut builder = Builder::default();
        let mut tables = learned.tables;
        for table in &mut tables {
            let id = table.file.dump_id;
            let bytes = folder.plain_bytes(&data_name(id)).await?;
            if let Some(part) = table.file.parts.first_mut() {
                part.bytes = bytes;
            }
            builder.add(&data_name(id), formats::ROWS, bytes.unwrap_or(0), File::Rows { id, at: 0 })?;
        }
        for (id, list, _) in &learned.blobs {
            let sizes = blobs::sizes_of_folder(&folder, list).await?;
            builder.add_blobs(*id, list, 0, sizes)?;
        }
        builder.finish(Where::Folder(folder), learned.header, (tables, learned.encoding, learned.toc_bytes))
    }

    async fn reader(&self, file: &File) -> Result<ArtifactReader> {
        match (file, &self.place) {
            (File::Bytes(bytes), _) => Ok(Box::new(std::io::Cursor::new(bytes.clone()))),
            (File::Toc, place) => {
                let input = match place {
                    Where::Custom(origin) => origin.open(0).await?,
                    Where::Folder(folder) => toc_of(folder).await?,
                };
                let toc = TocStream::open(input).await?;
                Ok(input::reader(Presented::new(toc)))
            }
            (File::Rows { id, at }, Where::Custom(origin)) => {
                let mut input = origin.open(*at).await?;
                match custom::head(&mut input, self.header.int_bytes).await? {
                    Some((custom::Block::Data, found)) if found == *id => {}
                    _ => return Err(blobs::elsewhere(*id)),
                }
                let data = Data::of_blocks(input, self.header.int_bytes, self.header.compression)?;
                Ok(input::reader(data))
            }
            (File::Rows { id, .. }, Where::Folder(folder)) => Ok(input::reader(folder.open(&data_name(*id)).await?)),
            (File::Blobs { id, at, sizes }, Where::Custom(origin)) => {
                let blobs = Blobs::custom(origin.open(*at).await?, *id, &self.header).await?;
                Ok(input::reader(BlobTar::new(blobs, Arc::clone(sizes))))
            }
            (File::Blobs { sizes, .. }, Where::Folder(folder)) => {
                let numbers: Vec<u32> = sizes.iter().map(|(number, _)| *number).collect();
                let blobs = Blobs::Folder { folder: Arc::clone(folder), numbers: numbers.into_iter() };
                Ok(input::reader(BlobTar::new(blobs, Arc::clone(sizes))))
            }
        }
    }
}

#[async_trait]
impl ArtifactSource for Foreign<'_> {
    fn artifacts(&self) -> &[ArtifactInfo] {
        &self.artifacts
    }

    async fn open(&self, name: &ArtifactName) -> Result<ArtifactReader> {
        match self.files.get(name.as_str()) {
            Some(file) => self.reader(file).await,
            None => {
                let error = Error::new(ErrorKind::NotFound, "the archive has no such artifact");
                Err(error.with_context("artifact", name))
            }
        }
    }

    async fn open_range(&self, name: &ArtifactName, plain_bytes: Range<u64>) -> Result<ArtifactReader> {
        let length = plain_bytes.end.checked_sub(plain_bytes.start);
        let length = length.ok_or_else(|| Error::config("a range of an artifact ends before it begins"))?;
        let mut reader = self.open(name).await?;
        let mut before = (&mut reader).take(plain_bytes.start);
        let skipped = tokio::io::copy(&mut before, &mut tokio::io::sink()).await.map_err(input::of_io)?;
        if skipped < plain_bytes.start {
            return Err(Error::config("a range of an artifact begins behind its end"));
        }
        Ok(Box::new(reader.take(length)))
    }
}

async fn toc_of(folder: &Folder) -> Result<Input> {
    Ok(Input::new(input::reader(folder.open(TOC).await?), 0))
}

fn data_name(id: i32) -> String {
    format!("{id}.dat")
}

fn absent(id: i32) -> Error {
    Error::integrity("the archive lacks the data of an entry").with_context("entry", id)
}

/// Reads a table of contents to its end.
async fn learn(input: Input) -> Result<Learned> {
    let mut toc = TocStream::open(input).await?;
    let header = toc.header().clone();
    // Without the codec nothing of the archive can be read; that is said before the first write.
    drop(Data::of_file(Input::new(Box::new(tokio::io::empty()), 0), 0, in_files(&header))?);
    let (presented, mut scratch) = (presented(&header), Vec::new());
    let mut toc_bytes = write::header(&presented)?.len() as u64;
    let (mut encoding, mut tables, mut blobs) = (String::new(), Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    while let Some(entry) = toc.next().await? {
        let at = match entry.data {
            Place::Offset { state: 2, offset } => Some(offset),
            _ => None,
        };
        if entry.kind == "ENCODING" {
            encoding = entry.definition.split('\'').nth(1).unwrap_or_default().to_owned();
        }
        if entry.has_data && !seen.insert(entry.dump_id) {
            return Err(Error::integrity("two entries of the archive have one number"));
        }
        match entry.kind.as_str() {
            "BLOBS" if entry.has_data => blobs.push((entry.dump_id, list_name(&header, entry.dump_id), at)),
            "TABLE DATA" if entry.has_data => tables.push(Table { file: data_file(&entry)?, at }),
            _ if entry.has_data => {
                let error = Error::new(ErrorKind::Unsupported, "the archive holds data of an unknown kind");
                return Err(error.with_context("kind", &entry.kind));
            }
            _ => {}
        }
        scratch.clear();
        write::entry(&presented, &present(&header, entry), &mut scratch)?;
        toc_bytes += scratch.len() as u64;
    }
    Ok(Learned { header, toc_bytes, encoding, tables, blobs, data: toc.into_input() })
}

/// What the header says of the data; files of a folder say it by their names.
fn in_files(header: &Header) -> Compression {
    match header.format {
        Format::Custom => header.compression,
        Format::Tar => Compression::None,
    }
}

fn data_file(entry: &Entry) -> Result<DataFile> {
    if entry.copy.is_empty() {
        let message = "the archive holds rows as INSERT statements, which only pg_restore runs";
        return Err(Error::new(ErrorKind::Unsupported, message).with_context("table", &entry.tag));
    }
    let part = Part { artifact: data_name(entry.dump_id), offset: 0, bytes: None };
    Ok(DataFile {
        dump_id: entry.dump_id,
        schema: entry.schema.clone().unwrap_or_default(),
        table: entry.tag.clone(),
        rows: None,
        row_hash: None,
        parts: vec![part],
    })
}

/// The name of the list of large objects: from 1.16 on there may be several.
fn list_name(header: &Header, id: i32) -> String {
    match header.version {
        ..116 => "blobs.toc".to_owned(),
        _ => format!("blobs_{id}.toc"),
    }
}

/// The header of a folder without compression.
fn presented(header: &Header) -> Header {
    Header { format: Format::Tar, compression: Compression::None, ..header.clone() }
}

/// The entry as one of a folder.
fn present(header: &Header, entry: Entry) -> Entry {
    let file = match (entry.has_data, entry.kind.as_str()) {
        (false, _) => String::new(),
        (true, "BLOBS") => list_name(header, entry.dump_id),
        (true, _) => data_name(entry.dump_id),
    };
    Entry { data: Place::File(file), ..entry }
}

/// The table of contents as that of a folder.
struct Presented {
    toc: TocStream,
    is_begun: bool,
}

impl Presented {
    fn new(toc: TocStream) -> Self {
        Self { toc, is_begun: false }
    }
}

impl Pieces for Presented {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let header = presented(self.toc.header());
        let mut out = Vec::new();
        if !self.is_begun {
            self.is_begun = true;
            out = write::header(&header)?;
        }
        while out.len() < PIECE_BYTES {
            let Some(entry) = self.toc.next().await? else { break };
            write::entry(&header, &present(&header, entry), &mut out)?;
        }
        Ok((!out.is_empty()).then(|| out.into()))
    }
}

/// Gathers artifacts.
#[derive(Default)]
struct Builder {
    artifacts: Vec<ArtifactInfo>,
    files: HashMap<String, File>,
    tars: Vec<String>,
    blobs_count: u64,
}

impl Builder {
    fn add(&mut self, name: &str, format: &str, bytes: u64, file: File) -> Result<()> {
        let spec = ArtifactSpec::new(ArtifactName::new(name)?, format);
        // The archive holds no hashes; its bytes are checked by the codecs and by what must end them.
        self.artifacts.push(ArtifactInfo::new(spec, bytes, ""));
        self.files.insert(name.to_owned(), file);
        Ok(())
    }

    fn add_blobs(&mut self, id: i32, list: &str, at: u64, sizes: Sizes) -> Result<()> {
        let name = format!("blobs.{:03}.tar", self.tars.len());
        let lines = blobs::list(&sizes);
        self.add(list, formats::BLOBS_TOC, lines.len() as u64, File::Bytes(lines))?;
        self.blobs_count += sizes.len() as u64;
        self.add(&name, formats::FILES, blobs::tar_bytes(&sizes), File::Blobs { id, at, sizes })?;
        self.tars.push(name);
        Ok(())
    }

    fn finish(
        mut self,
        place: Where<'_>,
        header: Header,
        (tables, encoding, toc_bytes): (Vec<Table>, String, u64),
    ) -> Result<Foreign<'_>> {
        let database = DatabaseLayout {
            name: header.database.clone(),
            prefix: String::new(),
            position: None,
            encoding,
            tables: tables.into_iter().map(|table| table.file).collect(),
            blobs: std::mem::take(&mut self.tars),
            blobs_count: self.blobs_count,
        };
        let layout = Layout {
            version: LAYOUT_VERSION,
            server_version: header.server_text.clone(),
            databases: vec![database],
            globals: false,
        };
        let json = Bytes::from(layout.to_json()?);
        self.add(TOC, formats::TOC, toc_bytes, File::Toc)?;
        self.add(CONTENTS, formats::CONTENTS, json.len() as u64, File::Bytes(json))?;
        Ok(Foreign { place, header, artifacts: self.artifacts, files: self.files })
    }
}
