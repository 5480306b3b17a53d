//! What a dump is, before anything is restored of it.

use stackkit_core::backup::{ArtifactName, ArtifactSource};
use stackkit_core::{Error, ErrorKind, Result};

use super::toc::Toc;
use crate::dump::ARTIFACT;
use crate::inspect;
use crate::layout::{self, DatabaseLayout, Layout, TOC};
use crate::toc::Contents;

/// A dump of one database.
#[derive(Debug)]
pub(crate) struct Dumped {
    /// What its table of contents tells.
    pub(crate) contents: Contents,
    /// Where its data is, if it is of many artifacts.
    pub(crate) layout: Option<(DatabaseLayout, Toc)>,
}

impl Dumped {
    /// Reads the contents of a dump, and none of its data.
    ///
    /// # Errors
    /// `NotFound` and `Unsupported` for artifacts of another kind; `Integrity` if they are damaged.
    pub(crate) async fn read(source: &dyn ArtifactSource) -> Result<Self> {
        if !layout::is_layout(source) {
            let name = ArtifactName::new(ARTIFACT)?;
            inspect::check_format(source.info(&name)?)?;
            let contents = inspect::contents(source.open(&name).await?).await?;
            return Ok(Self { contents, layout: None });
        }
        let layout = Layout::read(source).await?;
        let [database] = <[DatabaseLayout; 1]>::try_from(layout.databases).map_err(|databases| {
            let names: Vec<&str> = databases.iter().map(|database| database.name.as_str()).collect();
            Error::new(ErrorKind::Unsupported, "the dump holds several databases")
                .with_context("databases", names.join(", "))
        })?;
        let name = ArtifactName::new(format!("{}{TOC}", database.prefix))?;
        let toc = Toc::read(source.open(&name).await?).await?;
        Ok(Self { contents: Contents::of(&toc.header, &toc.entries), layout: Some((database, toc)) })
    }
}
