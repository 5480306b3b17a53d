//! What an archive holds, learned from its table of contents while the bytes pass by. Sans-IO.

use bytes::{Buf, BytesMut};
use stackkit_core::{Census, Error, Result};

use crate::archive::{self, Entry, Header};

/// The longest entry that is kept in memory until it is whole. Most are a few hundred bytes; a definition of more than
/// this is none.
const ENTRY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Reads header and table of contents from pieces of an archive. One entry is in memory at a time.
#[derive(Debug, Default)]
pub(crate) struct TocReader {
    buffer: BytesMut,
    /// How long the buffer was at the last attempt. The next waits for twice that, so a long entry stays linear.
    tried_bytes: usize,
    entries_read: u64,
    contents: Option<Contents>,
}

/// What was learned.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) header: Header,
    /// Entries by kind.
    pub(crate) kinds: Census,
    /// The extensions that it creates.
    pub(crate) extensions: Vec<String>,
    /// The roles that own something, sorted.
    pub(crate) owners: Vec<String>,
    /// The statement that creates the database.
    pub(crate) create_database: Option<String>,
    /// Whether it carries settings, grants or a comment of the database itself.
    pub(crate) has_database_properties: bool,
}

impl TocReader {
    /// Takes the next bytes; those behind the table of contents are ignored.
    ///
    /// # Errors
    /// `Integrity` if the bytes are no archive; `Unsupported` for a format that is not known.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<()> {
        if self.is_complete() {
            return Ok(());
        }
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() < self.tried_bytes.saturating_mul(2) {
            return Ok(());
        }
        self.parse()
    }

    /// Whether the whole table of contents was read.
    pub(crate) fn is_complete(&self) -> bool {
        self.contents.as_ref().is_some_and(|contents| self.entries_read >= contents.header.entries)
    }

    /// The header, as soon as it was read.
    pub(crate) fn header(&self) -> Option<&Header> {
        self.contents.as_ref().map(|contents| &contents.header)
    }

    /// What was learned, at the end of the bytes.
    ///
    /// # Errors
    /// `Integrity` if they ended too early.
    pub(crate) fn finish(mut self) -> Result<Contents> {
        if !self.is_complete() {
            self.parse()?;
        }
        let is_complete = self.is_complete();
        let contents = self.contents.filter(|_| is_complete);
        contents.ok_or_else(|| Error::integrity("the archive ends inside its table of contents"))
    }

    fn parse(&mut self) -> Result<()> {
        if self.contents.is_none() {
            match archive::header(&self.buffer)? {
                Some((header, used)) => {
                    self.buffer.advance(used);
                    self.contents = Some(Contents::new(header));
                }
                None => return self.wait(),
            }
        }
        let Some(contents) = &mut self.contents else { return Ok(()) };
        while self.entries_read < contents.header.entries {
            let Some((entry, used)) = archive::entry(&contents.header, &self.buffer)? else { return self.wait() };
            self.buffer.advance(used);
            self.entries_read += 1;
            contents.note(&entry);
        }
        self.buffer = BytesMut::new();
        Ok(())
    }

    fn wait(&mut self) -> Result<()> {
        self.tried_bytes = self.buffer.len();
        match self.buffer.len() > ENTRY_BYTES_MAX {
            true => Err(Error::integrity("an entry of the archive's table of contents is impossibly long")),
            false => Ok(()),
        }
    }
}

impl Contents {
    fn new(header: Header) -> Self {
        Self {
            header,
            kinds: Census::new(),
            extensions: Vec::new(),
            owners: Vec::new(),
            create_database: None,
            has_database_properties: false,
        }
    }

    /// What a whole table of contents tells.
    pub(crate) fn of(header: &Header, entries: &[Entry]) -> Self {
        let mut contents = Self::new(header.clone());
        entries.iter().for_each(|entry| contents.note(entry));
        contents
    }

    fn note(&mut self, entry: &Entry) {
        self.kinds.add(&format!("entries.{}", entry.kind.to_lowercase().replace(' ', "_")), 1);
        if !entry.owner.is_empty()
            && let Err(place) = self.owners.binary_search(&entry.owner)
        {
            self.owners.insert(place, entry.owner.clone());
        }
        match entry.kind.as_str() {
            "EXTENSION" => self.extensions.push(entry.tag.clone()),
            "DATABASE" => self.create_database = Some(entry.definition.clone()),
            "DATABASE PROPERTIES" => self.has_database_properties = true,
            "ACL" | "COMMENT" if entry.tag.starts_with("DATABASE ") => self.has_database_properties = true,
            _ => {}
        }
    }

    /// What follows the name in the statement that creates the database: template, encoding and locale.
    pub(crate) fn database_options(&self) -> Option<&str> {
        let statement = self.create_database.as_deref()?.trim().trim_end_matches(';');
        statement.rfind(" WITH TEMPLATE = ").map(|at| &statement[at..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::samples;
    use proptest::prelude::*;

    #[test]
    fn entries_are_summed_up() {
        let mut toc = TocReader::default();
        let mut bytes = samples::header(14, 2);
        bytes.extend(samples::entry(14, "TABLE"));
        bytes.extend(samples::entry(14, "EXTENSION"));
        toc.push(&bytes).expect("an archive");
        let contents = toc.finish().expect("all of it");
        assert_eq!(contents.kinds.count("entries.table"), 1);
        assert_eq!((contents.extensions, contents.owners), (vec!["orders".to_owned()], vec!["app".to_owned()]));
    }

    #[test]
    fn a_cut_archive_is_refused() {
        let mut toc = TocReader::default();
        toc.push(&samples::header(14, 1)).expect("an archive so far");
        assert!(toc.finish().is_err());
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(piece in 1usize..50) {
            let mut bytes = samples::header(16, 3);
            (0..3).for_each(|_| bytes.extend(samples::entry(16, "TABLE DATA")));
            bytes.extend([1; 20]);
            let mut toc = TocReader::default();
            bytes.chunks(piece).for_each(|piece| toc.push(piece).expect("an archive"));
            prop_assert_eq!(toc.finish().expect("all of it").kinds.count("entries.table_data"), 3);
        }
    }
}
