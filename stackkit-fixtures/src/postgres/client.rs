//! Statements over a connection of their own: the adapter's client is what is being tested.

use std::path::Path;
use std::time::Duration;

use stackkit_core::{Error, ErrorKind, Result};
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};
use tokio_util::task::AbortOnDropHandle;

/// How long opening a connection may take: it is a Unix socket of this machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection; its task goes with it.
pub(crate) struct Client {
    client: tokio_postgres::Client,
    _connection: AbortOnDropHandle<()>,
}

impl Client {
    pub(crate) async fn connect(socket_dir: &Path, port: u16, user: &str, database: &str) -> Result<Self> {
        let mut config = Config::new();
        config.host_path(socket_dir).port(port).user(user).dbname(database).connect_timeout(CONNECT_TIMEOUT);
        let (client, connection) = config.connect(NoTls).await.map_err(|error| failed("connect", error))?;
        let connection = tokio::spawn(async move {
            // A broken connection shows in the next statement.
            let _ = connection.await;
        });
        Ok(Self { client, _connection: AbortOnDropHandle::new(connection) })
    }

    pub(crate) async fn execute(&self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).await.map_err(|error| failed("execute", error))
    }

    pub(crate) async fn query(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let messages = self.client.simple_query(sql).await.map_err(|error| failed("query", error))?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }
}

/// The kind tells apart what a starting server says (class 57: it is starting up) and what a statement did wrong.
fn failed(operation: &'static str, error: tokio_postgres::Error) -> Error {
    let code = error.code().map(|state| state.code().to_owned());
    let kind = match code.as_deref() {
        Some("57P03") => ErrorKind::Starting,
        Some(_) => ErrorKind::ToolFailed,
        None => ErrorKind::Unreachable,
    };
    let failed = Error::new(kind, "postgres refused it").with_operation(operation).with_source(error);
    match code {
        Some(code) => failed.with_code(code),
        None => failed,
    }
}
