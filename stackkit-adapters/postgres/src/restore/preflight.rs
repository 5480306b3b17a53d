//! What a restore needs of a server, looked at before anything is written.

use std::collections::BTreeSet;

use stackkit_core::backup::{ArtifactName, ArtifactSource};
use stackkit_core::{Error, Result};
use tokio::io::AsyncReadExt;

use super::dumped::Dumped;
use super::features;
use super::grants::{self, Roles};
use crate::archive::Entry;
use crate::client::{Session, number, text};
use crate::dump::Server;
use crate::layout::GLOBALS;
use crate::service::Postgres;
use crate::sql::literal;
use crate::target::Target;

/// The access method that every server has, and what entries without one say.
const METHODS_KNOWN: [&str; 2] = ["heap", ""];

/// How much of the roles' SQL is read: some ten thousand roles.
const GLOBALS_BYTES_MAX: u64 = 16 << 20;

/// A database with its indexes takes about twice what its rows are as text.
const BYTES_PER_DUMPED: u64 = 2;

/// What is looked at.
pub(crate) struct Preflight<'a> {
    pub(crate) service: &'a Postgres,
    pub(crate) admin: &'a Session,
    pub(crate) server: &'a Server,
    pub(crate) dumped: &'a Dumped,
    pub(crate) source: &'a dyn ArtifactSource,
    pub(crate) target: Option<&'a Target>,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) missing: Vec<String>,
    pub(crate) warnings: Vec<String>,
    pub(crate) room: Room,
}

/// The space that a restore takes while the old data is still there, and that which is free. Databases may be on several
/// file systems: the one with the most free space is compared, so that nothing is missing by mistake.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Room {
    needed_bytes: u64,
    /// Nothing if it is not known.
    free_bytes: Option<u64>,
}

impl Room {
    /// Takes that of another database of the same restore to it.
    pub(crate) fn add(&mut self, other: Self) {
        if other.free_bytes.is_some() {
            self.needed_bytes = self.needed_bytes.saturating_add(other.needed_bytes);
            self.free_bytes = self.free_bytes.into_iter().chain(other.free_bytes).max();
        }
    }

    /// What is missing, if it is too little.
    pub(crate) fn missing(self) -> Option<String> {
        let Self { needed_bytes, free_bytes } = self;
        let free = free_bytes.filter(|free| *free < needed_bytes)?;
        Some(format!("free space on the server: about {needed_bytes} bytes are needed, {free} are there"))
    }
}

impl Preflight<'_> {
    pub(crate) async fn run(&self) -> Result<Findings> {
        let mut found = Findings::default();
        self.versions(&mut found);
        self.places(&mut found).await?;
        self.encoding(&mut found).await?;
        self.extensions(&mut found).await?;
        self.roles(&mut found).await?;
        self.room(&mut found).await?;
        found.warnings.extend(self.dumped.selection.warnings.iter().cloned());
        Ok(found)
    }

    fn taken(&self) -> impl Iterator<Item = &Entry> {
        self.dumped.toc.entries.iter().filter(|entry| self.dumped.selection.takes(entry))
    }

    /// A dump of a newer server is no fault by itself: what it uses that this server lacks is.
    fn versions(&self, found: &mut Findings) {
        let dumped = self.dumped.toc.header.server;
        if dumped.is_some_and(|dumped| dumped.series() > self.server.version.series()) {
            found.missing.extend(features::lacking(self.taken(), self.server.version));
        }
    }

    /// Tablespaces and access methods.
    async fn places(&self, found: &mut Findings) -> Result<()> {
        let tablespaces: BTreeSet<&str> = self.taken().filter_map(|entry| entry.tablespace.as_deref()).collect();
        let known = self.column("SELECT spcname FROM pg_tablespace").await?;
        let absent = tablespaces.iter().filter(|name| !name.is_empty() && !known.contains(**name));
        found.missing.extend(absent.map(|name| format!("the tablespace {name}")));
        let methods: BTreeSet<&str> = self.taken().filter_map(|entry| entry.access_method.as_deref()).collect();
        let made: BTreeSet<&str> =
            self.taken().filter(|entry| entry.kind == "ACCESS METHOD").map(|entry| entry.tag.as_str()).collect();
        let known = self.column("SELECT amname FROM pg_am").await?;
        // An extension may make one, and only the extension knows.
        let has_extensions = self.taken().any(|entry| entry.kind == "EXTENSION");
        let is_absent = |name: &&&str| {
            !METHODS_KNOWN.contains(*name) && !made.contains(**name) && !known.contains(**name) && !has_extensions
        };
        let absent = methods.iter().filter(is_absent);
        found.missing.extend(absent.map(|name| format!("the access method {name}")));
        Ok(())
    }

    async fn encoding(&self, found: &mut Findings) -> Result<()> {
        let wants_icu =
            self.dumped.contents.database_options().is_some_and(|sql| sql.contains("LOCALE_PROVIDER = icu"));
        if self.target.is_none() && wants_icu {
            let known = self.column("SELECT 'icu' FROM pg_collation WHERE collprovider = 'i' LIMIT 1").await?;
            if known.is_empty() {
                found
                    .missing
                    .push("a server that was built with ICU, which the database's locale comes from".to_owned());
            }
        }
        let (Some(target), Some(layout)) = (self.target, &self.dumped.layout) else { return Ok(()) };
        let encoding = format!(" ENCODING = {}", literal(&layout.encoding));
        if !target.options.contains(&encoding) {
            let what = "the encoding of the database differs from that of the dump, which is";
            found.warnings.push(format!("{what} {}: a character that it lacks fails the restore", layout.encoding));
        }
        Ok(())
    }

    /// A dump does not say which version of an extension it had; the database that is replaced does.
    async fn extensions(&self, found: &mut Findings) -> Result<()> {
        if self.target.is_none() || self.dumped.contents.extensions.is_empty() {
            return Ok(());
        }
        let config = self.service.config();
        let session = Session::open_long(config, &config.database).await?;
        let sql = "SELECT e.extname, e.extversion, a.default_version FROM pg_extension e \
            JOIN pg_available_extensions a ON a.name = e.extname WHERE e.extversion <> a.default_version ORDER BY 1";
        for row in session.rows(sql).await? {
            let (name, old, new) = (text(&row, 0)?, text(&row, 1)?, text(&row, 2)?);
            if self.dumped.contents.extensions.iter().any(|extension| extension == name) {
                let warning = format!("the extension {name} is of version {old} here and will be of version {new}");
                found.warnings.push(warning);
            }
        }
        Ok(())
    }

    /// Roles that are granted something and do not exist, and how the dump would make them.
    async fn roles(&self, found: &mut Findings) -> Result<()> {
        let restore = &self.service.config().restore;
        let known = self.column("SELECT rolname FROM pg_roles").await?;
        let grantees: BTreeSet<String> = match restore.skip_privileges {
            true => BTreeSet::new(),
            false => self.taken().filter(|entry| entry.kind.ends_with("ACL")).flat_map(grants::roles).collect(),
        };
        let absent: Vec<&String> = grantees.iter().filter(|role| !known.contains(role.as_str())).collect();
        found.missing.extend(absent.iter().map(|role| format!("the role {role}, which is granted something")));
        let owners = self.dumped.contents.owners.iter().filter(|role| !known.contains(role.as_str()));
        let absent: BTreeSet<&String> = absent.into_iter().chain(owners).collect();
        if absent.is_empty() || !self.dumped.has_globals {
            return Ok(());
        }
        let name = ArtifactName::new(GLOBALS)?;
        let mut sql = Vec::new();
        let mut reader = self.source.open(&name).await?.take(GLOBALS_BYTES_MAX);
        let read = reader.read_to_end(&mut sql).await;
        read.map_err(|e| e.downcast::<Error>().unwrap_or_else(|e| Error::io("read the roles of a dump", e)))?;
        let roles = Roles::parse(&String::from_utf8_lossy(&sql));
        let statements = absent.into_iter().filter_map(|role| roles.statement(role));
        found.warnings.extend(statements.map(|sql| format!("globals.sql of the dump makes it: {sql}")));
        Ok(())
    }

    /// Looks for free space where the server's files are on this machine.
    async fn room(&self, found: &mut Findings) -> Result<()> {
        let Some(layout) = &self.dumped.layout else { return Ok(()) };
        let parts = layout.tables.iter().flat_map(|file| &file.parts);
        let dumped: u64 = parts.filter_map(|part| part.bytes).sum();
        let needed = match self.target {
            Some(target) if self.dumped.selection.is_all() => target.size_bytes.max(dumped),
            _ => dumped.saturating_mul(BYTES_PER_DUMPED),
        };
        let free_bytes = self.free_bytes().await?;
        if free_bytes.is_none() {
            let what = "how much space is free on the server can't be seen from here: about";
            found.warnings.push(format!("{what} {needed} bytes are needed"));
        }
        found.room = Room { needed_bytes: needed, free_bytes };
        Ok(())
    }

    /// The free bytes of the file system that holds the database, if it is on this machine and can be looked at.
    async fn free_bytes(&self) -> Result<Option<u64>> {
        if !self.service.config().is_here() {
            return Ok(None);
        }
        let may = "SELECT pg_has_role('pg_read_all_settings', 'USAGE')::int";
        if number(&self.admin.row(may).await?, 0)? == 0 {
            return Ok(None);
        }
        let database = literal(&self.service.config().database);
        let place = format!(
            "SELECT coalesce((SELECT nullif(pg_tablespace_location(dattablespace), '') FROM pg_database \
             WHERE datname = {database}), current_setting('data_directory'))"
        );
        let place = text(&self.admin.row(&place).await?, 0)?.to_owned();
        let look = move || rustix::fs::statvfs(place.as_str()).ok().map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize));
        let looked = tokio::task::spawn_blocking(look).await;
        looked.map_err(|error| Error::unexpected("looking for free space failed").with_source(error))
    }

    async fn column(&self, sql: &str) -> Result<BTreeSet<String>> {
        self.admin.rows(sql).await?.iter().map(|row| Ok(text(row, 0)?.to_owned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_missing_only_where_it_is_known_to_be() {
        let room = |needed_bytes, free_bytes| Room { needed_bytes, free_bytes };
        assert_eq!((room(5, Some(5)).missing(), room(5, None).missing()), (None, None));
        assert!(room(5, Some(4)).missing().is_some_and(|told| told.contains("about 5 bytes") && told.contains('4')));
        let mut both = room(5, Some(8));
        both.add(room(4, Some(6)));
        assert!(both.missing().is_some_and(|told| told.contains("about 9 bytes") && told.contains('8')), "{both:?}");
    }
}
