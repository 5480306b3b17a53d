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

/// A dump of one database.
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
}

impl Dumped {
    /// Reads the contents of a dump, and none of its data.
    ///
    /// # Errors
    /// `NotFound` and `Unsupported` for artifacts of another kind, `NotFound` also for a chosen name that the dump does not
    /// hold; `Integrity` if they are damaged.
    pub(crate) async fn read(source: &dyn ArtifactSource, restore: &PostgresRestore) -> Result<Self> {
        let (layout, toc, has_globals) = match layout::is_layout(source) {
            true => of_layout(source).await?,
            false => {
                let name = ArtifactName::new(ARTIFACT)?;
                inspect::check_format(source.info(&name)?)?;
                (None, Toc::read(source.open(&name).await?).await?, false)
            }
        };
        let selection = Selection::new(&toc.entries, &restore.schemas, &restore.tables)?;
        let taken = toc.entries.iter().filter(|entry| selection.takes(entry));
        let contents = Contents::of(&toc.header, taken);
        Ok(Self { contents, toc, layout, selection, has_globals })
    }

    /// The artifacts that the restore reads.
    pub(crate) fn artifacts(&self, source: &dyn ArtifactSource) -> Result<Vec<ArtifactName>> {
        let Some(layout) = self.layout.as_ref().filter(|_| !self.selection.is_all()) else {
            return Ok(source.artifacts().iter().map(|artifact| artifact.name().clone()).collect());
        };
        let data = self.toc.entries.iter().filter(|entry| self.selection.takes(entry)).map(|entry| entry.dump_id);
        let data: std::collections::BTreeSet<i32> = data.collect();
        let files = layout.tables.iter().filter(|file| data.contains(&file.dump_id));
        let parts = files.flat_map(|file| file.parts.iter().map(|part| part.artifact.clone()));
        let mut names: Vec<String> = parts.chain([CONTENTS.to_owned(), format!("{}{TOC}", layout.prefix)]).collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().map(ArtifactName::new).collect()
    }
}

async fn of_layout(source: &dyn ArtifactSource) -> Result<(Option<DatabaseLayout>, Toc, bool)> {
    let layout = Layout::read(source).await?;
    let [database] = <[DatabaseLayout; 1]>::try_from(layout.databases).map_err(|databases| {
        let names: Vec<&str> = databases.iter().map(|database| database.name.as_str()).collect();
        Error::new(ErrorKind::Unsupported, "the dump holds several databases")
            .with_context("databases", names.join(", "))
    })?;
    let name = ArtifactName::new(format!("{}{TOC}", database.prefix))?;
    let toc = Toc::read(source.open(&name).await?).await?;
    Ok((Some(database), toc, layout.globals))
}
