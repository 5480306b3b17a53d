//! What a dump is, before anything is restored of it.

use stackkit_core::backup::{ArtifactName, ArtifactSource};
use stackkit_core::{Error, ErrorKind, Result};

use super::select::Selection;
use super::toc::Toc;
use crate::dump::ARTIFACT;
use crate::inspect;
use crate::layout::{self, CONTENTS, DatabaseLayout, Layout, TOC};
use crate::options::PostgresRestore;
use crate::toc::Contents;

/// One database of a dump.
#[derive(Debug)]
pub(crate) struct Dumped {
    pub(crate) toc: Toc,
    /// What the table of contents tells in sum.
    pub(crate) contents: Contents,
    /// Where its data is; nothing for an archive in one piece.
    pub(crate) layout: Option<DatabaseLayout>,
    /// What of it is restored.
    pub(crate) selection: Selection,
    /// Whether the roles are in it, as SQL.
    pub(crate) has_globals: bool,
    /// Whether the dump holds no other database.
    pub(crate) is_alone: bool,
}

impl Dumped {
    /// The only database of a dump, or the only one that is restored.
    ///
    /// # Errors
    /// Those of [`Dumped::all`]; `Unsupported` if there are several.
    pub(crate) async fn read(source: &dyn ArtifactSource, restore: &PostgresRestore) -> Result<Self> {
        let all = Self::all(source, restore).await?;
        let names = all.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        let [(_, dumped)] = <[(String, Self); 1]>::try_from(all).map_err(|_several| {
            let message = "the dump holds several databases: choose one (only_databases)";
            Error::new(ErrorKind::Unsupported, message).with_context("databases", names)
        })?;
        Ok(dumped)
    }

    /// Reads the contents of a dump, and none of its data. Gives each database that is restored, with its name in the dump,
    /// in the order of names.
    ///
    /// # Errors
    /// `NotFound` and `Unsupported` for artifacts of another kind, `NotFound` also for a chosen name that the dump does not
    /// hold; `Integrity` if they are damaged.
    pub(crate) async fn all(source: &dyn ArtifactSource, restore: &PostgresRestore) -> Result<Vec<(String, Self)>> {
        if !layout::is_layout(source) {
            let name = ArtifactName::new(ARTIFACT)?;
            inspect::check_format(source.info(&name)?)?;
            let toc = Toc::read(source.open(&name).await?).await?;
            let database = toc.header.database.clone();
            chosen(&[&database], restore)?;
            return Ok(vec![(database, Self::new(toc, restore)?)]);
        }
        let Layout { databases, globals, .. } = Layout::read(source).await?;
        let names: Vec<&str> = databases.iter().map(|database| database.name.as_str()).collect();
        let chosen = chosen(&names, restore)?;
        let is_alone = databases.len() == 1;
        let mut all = Vec::new();
        for database in
            databases.into_iter().filter(|database| chosen.is_none_or(|names| names.contains(&database.name)))
        {
            let name = ArtifactName::new(format!("{}{TOC}", database.prefix))?;
            let toc = Toc::read(source.open(&name).await?).await?;
            let dumped = Self::new(toc, restore)?;
            let name = database.name.clone();
            all.push((name, Self { layout: Some(database), has_globals: globals, is_alone, ..dumped }));
        }
        // Whoever locks several does it in the same order.
        all.sort_by(|(name, _), (other, _)| name.cmp(other));
        match all.is_empty() {
            true => Err(Error::integrity("the dump holds no database")),
            false => Ok(all),
        }
    }

    fn new(toc: Toc, restore: &PostgresRestore) -> Result<Self> {
        let selection = Selection::new(&toc.entries, &restore.schemas, &restore.tables)?;
        let taken = toc.entries.iter().filter(|entry| selection.takes(entry));
        let contents = Contents::of(&toc.header, taken);
        Ok(Self { contents, toc, layout: None, selection, has_globals: false, is_alone: true })
    }

    /// The artifacts that the restore reads.
    pub(crate) fn artifacts(&self, source: &dyn ArtifactSource) -> Result<Vec<ArtifactName>> {
        let Some(layout) = self.layout.as_ref().filter(|_| !self.selection.is_all() || !self.is_alone) else {
            return Ok(source.artifacts().iter().map(|artifact| artifact.name().clone()).collect());
        };
        let data = self.toc.entries.iter().filter(|entry| self.selection.takes(entry)).map(|entry| entry.dump_id);
        let data: std::collections::BTreeSet<i32> = data.collect();
        let files = layout.tables.iter().filter(|file| data.contains(&file.dump_id));
        let parts = files.flat_map(|file| file.parts.iter().map(|part| part.artifact.clone()));
        let mut names: Vec<String> = parts.chain([CONTENTS.to_owned(), format!("{}{TOC}", layout.prefix)]).collect();
        if self.selection.is_all() {
            names.extend(layout.blobs.iter().cloned());
        }
        names.sort_unstable();
        names.dedup();
        names.into_iter().map(ArtifactName::new).collect()
    }
}

/// The names of the databases that are to be restored, if not all are.
fn chosen<'a>(held: &[&str], restore: &'a PostgresRestore) -> Result<Option<&'a [String]>> {
    match restore.databases.iter().find(|name| !held.contains(&name.as_str())) {
        Some(name) => Err(Error::new(ErrorKind::NotFound, "the dump does not hold this database")
            .with_context("database", name)
            .with_context("held", held.join(", "))),
        None => Ok(Some(restore.databases.as_slice()).filter(|names| !names.is_empty())),
    }
}
