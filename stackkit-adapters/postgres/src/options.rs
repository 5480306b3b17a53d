//! What a dump holds and how a restore replaces, as the caller says it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A table is dumped by several connections at once from this size on: below it, the start of a scan costs more than
/// it saves.
pub const SPLIT_BYTES_DEFAULT: u64 = 64 << 20;

/// Connections of a dump or restore unless set: the server's cores up to this. The server formats rows at about
/// 260 MB/s a core; beyond four of them a disk or a network is the limit as a rule.
pub const JOBS_MAX_DEFAULT: usize = 4;

/// Who reads the data of a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Engine {
    /// Several `COPY` connections of our own on one exported snapshot; `pg_dump` only tells the table of contents. The
    /// artifacts are the files of a directory archive.
    #[default]
    Parallel,
    /// `pg_dump --format=custom`, byte for byte, on a snapshot of our own: one artifact, one connection. For servers that
    /// only speak its way.
    PgDump,
}

/// Which databases of the cluster are dumped.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Databases {
    /// The one that the handle is configured with.
    #[default]
    Configured,
    /// Every database that allows connections and is no template.
    All,
    /// These.
    List(Vec<String>),
}

/// What stands outside of databases: roles, memberships, tablespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Globals {
    /// Nothing of it.
    Without,
    /// All of it but password hashes.
    #[default]
    WithoutPasswords,
    /// All of it. Needs the right to read `pg_authid`, a superuser's; the artifact then holds password hashes.
    WithPasswords,
}

/// What a dump holds, and how it is read.
///
/// ```
/// use stackkit_postgres::{PostgresConfig, PostgresDump};
/// let dump = PostgresDump::new().with_jobs(2).excluding_data_of(["public.audit_log"]).with_row_hashes(true);
/// let config = PostgresConfig::new("localhost", "shop").with_dump(dump);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PostgresDump {
    pub(crate) engine: Engine,
    pub(crate) jobs: Option<usize>,
    pub(crate) databases: Databases,
    pub(crate) schemas: Vec<String>,
    pub(crate) exclude_schemas: Vec<String>,
    pub(crate) tables: Vec<String>,
    pub(crate) exclude_tables: Vec<String>,
    pub(crate) exclude_table_data: Vec<String>,
    pub(crate) owners: bool,
    pub(crate) privileges: bool,
    pub(crate) globals: Globals,
    pub(crate) row_hashes: bool,
    pub(crate) split_bytes: u64,
}

impl Default for PostgresDump {
    fn default() -> Self {
        Self {
            engine: Engine::default(),
            jobs: None,
            databases: Databases::default(),
            schemas: Vec::new(),
            exclude_schemas: Vec::new(),
            tables: Vec::new(),
            exclude_tables: Vec::new(),
            exclude_table_data: Vec::new(),
            owners: true,
            privileges: true,
            globals: Globals::default(),
            row_hashes: false,
            split_bytes: SPLIT_BYTES_DEFAULT,
        }
    }
}

impl PostgresDump {
    /// The whole configured database, with the roles it needs, by [`Engine::Parallel`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets who reads the data; [`Engine::Parallel`] unless set.
    #[must_use]
    pub fn with_engine(mut self, engine: Engine) -> Self {
        self.engine = engine;
        self
    }

    /// Sets how many connections read data at once, at least 1; the server's cores up to [`JOBS_MAX_DEFAULT`] unless set.
    #[must_use]
    pub fn with_jobs(mut self, jobs: usize) -> Self {
        self.jobs = Some(jobs.max(1));
        self
    }

    /// Sets which databases of the cluster are dumped; the configured one unless set.
    #[must_use]
    pub fn with_databases(mut self, databases: Databases) -> Self {
        self.databases = databases;
        self
    }

    /// Dumps only schemas that match one of these patterns, as `pg_dump --schema` reads them.
    #[must_use]
    pub fn only_schemas<I: IntoIterator<Item = T>, T: Into<String>>(mut self, patterns: I) -> Self {
        self.schemas.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// Leaves out schemas that match one of these patterns, as `pg_dump --exclude-schema` reads them.
    #[must_use]
    pub fn excluding_schemas<I: IntoIterator<Item = T>, T: Into<String>>(mut self, patterns: I) -> Self {
        self.exclude_schemas.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// Dumps only tables, views and sequences that match one of these patterns, as `pg_dump --table` reads them.
    #[must_use]
    pub fn only_tables<I: IntoIterator<Item = T>, T: Into<String>>(mut self, patterns: I) -> Self {
        self.tables.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// Leaves out tables that match one of these patterns, as `pg_dump --exclude-table` reads them.
    #[must_use]
    pub fn excluding_tables<I: IntoIterator<Item = T>, T: Into<String>>(mut self, patterns: I) -> Self {
        self.exclude_tables.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// Dumps tables that match one of these patterns without their rows, as `pg_dump --exclude-table-data` reads them.
    #[must_use]
    pub fn excluding_data_of<I: IntoIterator<Item = T>, T: Into<String>>(mut self, patterns: I) -> Self {
        self.exclude_table_data.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// Leaves out who owns what.
    #[must_use]
    pub fn without_owners(mut self) -> Self {
        self.owners = false;
        self
    }

    /// Leaves out grants.
    #[must_use]
    pub fn without_privileges(mut self) -> Self {
        self.privileges = false;
        self
    }

    /// Sets what is dumped of roles and tablespaces; [`Globals::WithoutPasswords`] unless set.
    #[must_use]
    pub fn with_globals(mut self, globals: Globals) -> Self {
        self.globals = globals;
        self
    }

    /// Whether each row is hashed on its way, for a comparison after a restore. Off unless set; about 0.2 s of CPU a GB.
    #[must_use]
    pub fn with_row_hashes(mut self, on: bool) -> Self {
        self.row_hashes = on;
        self
    }

    /// Sets the size of a table from which on several connections read it; [`SPLIT_BYTES_DEFAULT`] unless set.
    #[must_use]
    pub fn with_split_bytes(mut self, bytes: u64) -> Self {
        self.split_bytes = bytes.max(1);
        self
    }
}

impl PostgresDump {
    /// Whether the dump leaves anything out.
    pub(crate) fn is_filtered(&self) -> bool {
        let patterns = [&self.schemas, &self.exclude_schemas, &self.tables, &self.exclude_tables];
        patterns.iter().any(|patterns| !patterns.is_empty())
    }

    /// What `pg_dump` is told of what the dump holds.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let patterns = [
            ("schema", &self.schemas),
            ("exclude-schema", &self.exclude_schemas),
            ("table", &self.tables),
            ("exclude-table", &self.exclude_tables),
            ("exclude-table-data", &self.exclude_table_data),
        ];
        let of = |(option, patterns): (&str, &Vec<String>)| -> Vec<String> {
            patterns.iter().map(|pattern| format!("--{option}={pattern}")).collect()
        };
        let mut arguments: Vec<String> = patterns.into_iter().flat_map(of).collect();
        arguments.extend((!self.owners).then(|| "--no-owner".to_owned()));
        arguments.extend((!self.privileges).then(|| "--no-privileges".to_owned()));
        arguments
    }
}

/// Where a restore puts the data.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Strategy {
    /// Into a new database beside the target, which then takes its place in one transaction.
    #[default]
    Swap,
    /// Into a new database of this name, which must not exist. Nothing is replaced.
    IntoNew(String),
    /// Into the target itself, in one transaction by one connection: what the dump holds is dropped and made again, what it
    /// does not hold stays. Needs ownership of what is replaced, not the right to create databases. What is replaced is
    /// locked against everybody until the end, and the plan is refused as stale if it was written to before that. Rows and
    /// census are compared before the commit. Subscriptions, rows of an extension's tables and dumps that are not in UTF-8
    /// are missing in the plan.
    InPlaceSingleTransaction,
}

impl Strategy {
    /// The strategy as the word that plans and the command line use.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Swap => "swap",
            Self::IntoNew(_) => "new",
            Self::InPlaceSingleTransaction => "in-place",
        }
    }
}

/// What becomes of who owns what.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Owners {
    /// Every object gets its owner, who must exist.
    #[default]
    Restore,
    /// Pairs `(in the dump, here)`: what the first owned belongs to the second. Other owners are restored.
    Map(Vec<(String, String)>),
    /// Everything belongs to the role that restores.
    Skip,
}

impl Owners {
    /// The roles here of the sorted owners of a dump.
    pub(crate) fn apply(&self, owners: &mut Vec<String>) {
        match self {
            Self::Restore => {}
            Self::Skip => owners.clear(),
            Self::Map(pairs) => {
                for owner in owners.iter_mut() {
                    if let Some((_, to)) = pairs.iter().find(|(from, _)| from == owner) {
                        owner.clone_from(to);
                    }
                }
                owners.sort_unstable();
                owners.dedup();
            }
        }
    }
}

/// How a restore replaces.
///
/// ```
/// use stackkit_postgres::{Owners, PostgresConfig, PostgresRestore, Strategy};
/// let restore = PostgresRestore::new().with_strategy(Strategy::IntoNew("shop_yesterday".into())).with_owners(Owners::Skip);
/// let config = PostgresConfig::new("localhost", "shop").with_restore(restore);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PostgresRestore {
    pub(crate) strategy: Strategy,
    pub(crate) owners: Owners,
    pub(crate) skip_privileges: bool,
    pub(crate) jobs: Option<usize>,
    #[serde(default)]
    pub(crate) databases: Vec<String>,
    pub(crate) schemas: Vec<String>,
    pub(crate) tables: Vec<String>,
    pub(crate) keep_old: Option<Duration>,
    pub(crate) force: bool,
}

impl PostgresRestore {
    /// Everything, by [`Strategy::Swap`], with owners and grants.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets where the data goes; [`Strategy::Swap`] unless set.
    #[must_use]
    pub fn with_strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Sets what becomes of who owns what; [`Owners::Restore`] unless set.
    #[must_use]
    pub fn with_owners(mut self, owners: Owners) -> Self {
        self.owners = owners;
        self
    }

    /// Leaves out grants.
    #[must_use]
    pub fn without_privileges(mut self) -> Self {
        self.skip_privileges = true;
        self
    }

    /// Sets how many connections load data and build indexes at once, at least 1; the server's cores up to
    /// [`JOBS_MAX_DEFAULT`] unless set.
    #[must_use]
    pub fn with_jobs(mut self, jobs: usize) -> Self {
        self.jobs = Some(jobs.max(1));
        self
    }

    /// Restores only these databases of a dump, by exact name; all of them unless set. Of a dump of several each is
    /// restored under its own name, of a dump of one that one under the configured name.
    #[must_use]
    pub fn only_databases<I: IntoIterator<Item = T>, T: Into<String>>(mut self, names: I) -> Self {
        self.databases.extend(names.into_iter().map(Into::into));
        self
    }

    /// Restores only what is in these schemas, by exact name.
    #[must_use]
    pub fn only_schemas<I: IntoIterator<Item = T>, T: Into<String>>(mut self, names: I) -> Self {
        self.schemas.extend(names.into_iter().map(Into::into));
        self
    }

    /// Restores only these tables, `schema.table` by exact name, with their data, indexes and constraints. A table without a
    /// schema is one of `public`.
    #[must_use]
    pub fn only_tables<I: IntoIterator<Item = T>, T: Into<String>>(mut self, names: I) -> Self {
        self.tables.extend(names.into_iter().map(Into::into));
        self
    }

    /// Sets how long a replaced database is kept at least, where it is kept: until then it is not among those that can
    /// be removed. For ever unless set.
    #[must_use]
    pub fn with_keep_old(mut self, time: Duration) -> Self {
        self.keep_old = Some(time);
        self
    }

    /// Replaces a database that has subscriptions or replication slots, which stay with the old one; swaps a chosen part of a
    /// dump for a whole database. In place: drops what
    /// hangs on what is replaced and is not in the dump, but for foreign keys, which are made again.
    #[must_use]
    pub fn with_force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }
}
