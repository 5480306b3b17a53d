//! Private PostgreSQL servers, and fresh databases on a shared one.

mod client;
mod find;
mod options;
mod pooler;
mod server;
mod template;

pub use find::{find_postgres, postgres_kind};
pub use options::PostgresOptions;
pub use pooler::{PgBouncer, PoolMode, pgbouncer};
pub use server::{PostgresServer, postgres_server, postgres_server_on};

use std::sync::atomic::{AtomicU64, Ordering};

use stackkit_core::Result;
use stackkit_postgres::Postgres;
use tokio::sync::OnceCell;

/// The server of this process. A static is never dropped: the watchdog ends it when the process goes.
static SHARED: OnceCell<PostgresServer> = OnceCell::const_new();

/// Counts the databases of this process, so that their names differ and none is the beginning of another.
static DATABASES: AtomicU64 = AtomicU64::new(0);

/// Makes a fresh, empty database on a server that all tests of this process share; both start when first asked for.
///
/// About 20 ms for a database and 100 ms for the server; the first server ever of a version takes a second longer,
/// for `initdb`.
///
/// # Errors
/// `ToolMissing` if `postgres` is not installed: which, where it was looked for, what installs it. `ToolFailed` with
/// the server's last words if it ends while it starts; `Timeout`.
///
/// # Cancel safety
/// Dropping the future leaves at most an empty database on the shared server.
pub async fn postgres() -> Result<PostgresFixture> {
    let server = SHARED.get_or_try_init(|| postgres_server(PostgresOptions::new())).await?;
    let database = format!("fixture_{:06}", DATABASES.fetch_add(1, Ordering::Relaxed));
    server.create_database(&database).await?;
    Ok(PostgresFixture { database, server })
}

/// A database of its own on the server that this process shares; dropped with the value.
///
/// ```no_run
/// # async fn test() -> stackkit_core::Result<()> {
/// let postgres = stackkit_fixtures::postgres().await?;
/// postgres.execute("create table orders(id int primary key)").await?;
/// assert_eq!(postgres.query("select count(*) from orders").await?, [[Some("0".to_owned())]]);
/// println!("{}", postgres.url());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PostgresFixture {
    database: String,
    server: &'static PostgresServer,
}

impl PostgresFixture {
    /// The URL of the database, over the server's Unix socket, as its superuser.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url_of(&self.database)
    }

    /// A handle on it, called `postgres`.
    ///
    /// # Errors
    /// None in practice: the URL is the fixture's own.
    pub fn service(&self) -> Result<Postgres> {
        Postgres::from_url(&self.url())
    }

    /// The database's name.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The server that it is on.
    #[must_use]
    pub fn server(&self) -> &PostgresServer {
        self.server
    }

    /// Runs one or more statements.
    ///
    /// # Errors
    /// `ToolFailed` with the SQLSTATE as the code and the driver's error as the cause; `Unreachable`.
    ///
    /// # Cancel safety
    /// The statements may have run.
    pub async fn execute(&self, sql: &str) -> Result<()> {
        self.server.execute_in(&self.database, sql).await
    }

    /// Runs a query and gives its rows as text; `None` is SQL's null.
    ///
    /// # Errors
    /// As [`PostgresFixture::execute`].
    ///
    /// # Cancel safety
    /// Cancel safe as far as the query is.
    pub async fn query(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        self.server.query_in(&self.database, sql).await
    }
}

impl Drop for PostgresFixture {
    fn drop(&mut self) {
        self.server.drop_databases(&self.database);
    }
}
