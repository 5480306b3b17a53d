//! Physical backups: a whole cluster, file by file, as `pg_basebackup` copies it.

mod crc32c;
mod dump;
mod extract;
mod label;
mod lsn;
mod manifest;
mod provider;
mod restore;
mod tar;
mod verify;

use std::path::{Path, PathBuf};

use stackkit_core::{BackupProvider, ConfigFault, Endpoint, Error, HealthCheck, Service, ServiceId};

use crate::config::PostgresConfig;
use crate::service::Postgres;

/// What the id of a handle is followed by where none is set.
const ID_SUFFIX: &str = "-physical";

/// The one artifact: a tar archive with the data directory, the WAL that it needs, and the server's manifest last.
pub(crate) const ARTIFACT: &str = "base.tar";

/// Its format: what `pg_basebackup --format=tar --wal-method=fetch --pgdata=-` writes.
pub(crate) const FORMAT: &str = "postgresql-base-tar";

/// The whole cluster of a [`Postgres`] handle as one service of its own: dumped by `pg_basebackup`, restored into a new
/// data directory that a server of the same major version starts from.
///
/// The artifact is what `pg_basebackup -Ft -X fetch -D -` writes, unchanged, while it is checked against the manifest
/// that the server puts at its end. A restore never touches a directory that holds anything.
///
/// It needs a server of version 13 or newer with `wal_level` at least `replica`, a role with `REPLICATION`, a
/// `replication` line in `pg_hba.conf`, and no tablespaces beside the two that each cluster has: to standard output
/// `pg_basebackup` writes one only, and it refuses a directory where named pipes wait for the others.
///
/// ```
/// use stackkit_core::Service;
/// use stackkit_postgres::Postgres;
/// let orders = Postgres::from_url("postgres://backup:correct-horse@db.internal/orders")?.with_id("orders");
/// let cluster = orders.base_backup().with_restore_to("/srv/restored/data");
/// assert_eq!(cluster.id().as_str(), "orders-physical");
/// # Ok::<(), stackkit_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct BaseBackup {
    postgres: Postgres,
    id: ServiceId,
    id_fault: Option<ConfigFault>,
    restore_to: Option<PathBuf>,
}

impl Postgres {
    /// The physical backups of the cluster that this database is in. Does no I/O.
    #[must_use]
    pub fn base_backup(&self) -> BaseBackup {
        let (id, id_fault) = named(&format!("{}{ID_SUFFIX}", self.id()));
        BaseBackup { postgres: self.clone(), id, id_fault, restore_to: None }
    }
}

fn named(id: &str) -> (ServiceId, Option<ConfigFault>) {
    ServiceId::or_fault(id, "postgres-physical", "postgres.physical.id")
}

impl BaseBackup {
    /// Gives the service another name in its stack than the handle's with `-physical`. A name that is no
    /// [`ServiceId`] is reported by [`Service::faults`].
    #[must_use]
    pub fn with_id(mut self, id: impl AsRef<str>) -> Self {
        (self.id, self.id_fault) = named(id.as_ref());
        self
    }

    /// The data directory that a restore makes: absent or empty, in a directory that exists. Without it nothing can be
    /// restored.
    #[must_use]
    pub fn with_restore_to(mut self, directory: impl Into<PathBuf>) -> Self {
        self.restore_to = Some(directory.into());
        self
    }

    /// Where a restore goes to, if that was said.
    #[must_use]
    pub fn restore_to(&self) -> Option<&Path> {
        self.restore_to.as_deref()
    }

    pub(crate) fn config(&self) -> &PostgresConfig {
        self.postgres.config()
    }

    /// Names the service and the operation in an error.
    fn named(&self, operation: &'static str) -> impl Fn(Error) -> Error + '_ {
        move |error| error.with_service(self.id.clone()).with_operation(operation)
    }
}

impl Service for BaseBackup {
    fn id(&self) -> &ServiceId {
        &self.id
    }

    fn kind(&self) -> &'static str {
        "postgresql"
    }

    fn endpoint(&self) -> Endpoint {
        self.config().endpoint()
    }

    fn faults(&self) -> Vec<ConfigFault> {
        let mut faults = self.config().validate();
        faults.extend(self.id_fault.clone());
        faults
    }

    fn health_check(&self) -> Option<&dyn HealthCheck> {
        None
    }

    fn backup_provider(&self) -> Option<&dyn BackupProvider> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_the_handles_unless_set() {
        let handle = Postgres::new(PostgresConfig::new("localhost", "shop")).with_id("shop");
        assert_eq!(handle.base_backup().id().as_str(), "shop-physical");
        assert_eq!(handle.base_backup().with_id("cluster").id().as_str(), "cluster");
        let faults = handle.base_backup().with_id("a b").faults();
        assert!(faults.iter().any(|fault| fault.code == "postgres.physical.id"), "{faults:?}");
    }
}
