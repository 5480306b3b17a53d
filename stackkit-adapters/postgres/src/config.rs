//! What a [`Postgres`](crate::Postgres) handle is configured with.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use stackkit_core::{ConfigFault, Endpoint, FaultSeverity, Secret, Weakness};

use crate::options::{JOBS_MAX_DEFAULT, PostgresDump, PostgresRestore};
use crate::runner::ToolRunner;

/// How long opening a connection may take, start-up handshake included. libpq waits for ever; 10 s covers a
/// slow name server and a TLS handshake across continents.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// How long to wait for what somebody else has locked exclusively, a table as a rule: long enough for an ordinary
/// migration step, short enough that the requests queueing behind the dump's own lock are not starved.
pub const LOCK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// PostgreSQL's registered port.
pub const PORT_DEFAULT: u16 = 5432;

/// The longest identifier that a server keeps (`NAMEDATALEN` - 1); it cuts longer ones silently.
pub const IDENTIFIER_BYTES_MAX: usize = 63;

/// Where the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// A name or address.
    Tcp(String),
    /// The directory of the Unix socket.
    Unix(PathBuf),
}

impl Host {
    /// As libpq reads it: what starts with a slash is a socket directory.
    pub(crate) fn parse(text: &str) -> Self {
        match text.starts_with('/') {
            true => Self::Unix(text.into()),
            false => Self::Tcp(text.to_owned()),
        }
    }

    /// Whether bytes to it can't be read on a network.
    pub(crate) fn is_private(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp(name) if name == "localhost" => true,
            Self::Tcp(name) => match name.parse() {
                Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_private(),
                Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unique_local(),
                Err(_not_an_address) => false,
            },
        }
    }
}

/// Whether and how a connection is encrypted; libpq's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum TlsMode {
    /// Never.
    Disable,
    /// If the server offers it; the server is not checked.
    #[default]
    Prefer,
    /// Always; the server is not checked.
    Require,
    /// Always, and the certificate must be trusted and name the host.
    VerifyFull,
}

impl TlsMode {
    /// The mode as `PGSSLMODE` spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyFull => "verify-full",
        }
    }

    /// The mode that `PGSSLMODE` or `sslmode` spells `text`, if it is one of the four.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Disable, Self::Prefer, Self::Require, Self::VerifyFull].into_iter().find(|mode| mode.as_str() == text)
    }
}

/// How to reach one database, and what to dump it with.
///
/// ```
/// use stackkit_postgres::PostgresConfig;
/// let config = PostgresConfig::new("10.0.0.7", "shop").with_user("backup").with_password("correct horse battery");
/// assert!(config.validate().is_empty());
/// assert!(!format!("{config:?}").contains("horse"));
/// ```
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: Option<Secret>,
    pub(crate) database: String,
    pub(crate) tls: TlsMode,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) connect_timeout: Duration,
    pub(crate) lock_timeout: Duration,
    pub(crate) tool_dirs: Vec<PathBuf>,
    pub(crate) tool_runner: Option<Arc<dyn ToolRunner>>,
    pub(crate) content_digests: bool,
    pub(crate) expect_writable: bool,
    pub(crate) dump: PostgresDump,
    pub(crate) restore: PostgresRestore,
    /// Options of a URL that mean nothing here, told as warnings.
    pub(crate) ignored_options: Vec<String>,
}

impl PostgresConfig {
    /// `database` on `host`: a name, an address, or the directory of a Unix socket (it starts with a slash).
    ///
    /// User `postgres`, no password, port 5432, TLS if the server offers it.
    pub fn new(host: impl AsRef<str>, database: impl Into<String>) -> Self {
        Self {
            host: Host::parse(host.as_ref()),
            port: PORT_DEFAULT,
            user: "postgres".to_owned(),
            password: None,
            database: database.into(),
            tls: TlsMode::default(),
            ca_file: None,
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
            lock_timeout: LOCK_TIMEOUT_DEFAULT,
            tool_dirs: Vec::new(),
            tool_runner: None,
            content_digests: false,
            expect_writable: false,
            dump: PostgresDump::default(),
            restore: PostgresRestore::default(),
            ignored_options: Vec::new(),
        }
    }

    /// Sets the host, or the directory of a Unix socket.
    #[must_use]
    pub fn with_host(mut self, host: impl AsRef<str>) -> Self {
        self.host = Host::parse(host.as_ref());
        self
    }

    /// Sets the port; for a Unix socket it is part of the file's name.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Sets the role to log in as.
    #[must_use]
    pub fn with_user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    /// Sets the password. `~/.pgpass` is not read: what is used is what is configured.
    #[must_use]
    pub fn with_password(mut self, password: impl Into<Secret>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Sets the database.
    #[must_use]
    pub fn with_database(mut self, database: impl Into<String>) -> Self {
        self.database = database.into();
        self
    }

    /// Sets how connections are encrypted; [`TlsMode::Prefer`] unless set. A Unix socket is never encrypted.
    #[must_use]
    pub fn with_tls(mut self, tls: TlsMode) -> Self {
        self.tls = tls;
        self
    }

    /// Trusts the certificates of this PEM file instead of the system's; only [`TlsMode::VerifyFull`] checks any.
    #[must_use]
    pub fn with_ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(file.into());
        self
    }

    /// Sets how long opening a connection may take; [`CONNECT_TIMEOUT_DEFAULT`] unless set. A probe's own deadline
    /// holds when it is earlier.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets how long a dump, a census and a restore wait for what others have locked; [`LOCK_TIMEOUT_DEFAULT`] unless
    /// set.
    #[must_use]
    pub fn with_lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// Looks for `pg_dump` and `pg_restore` in this directory, and in no other than those added so.
    ///
    /// Without it they are looked for in `PATH` and where the usual packages put them.
    #[must_use]
    pub fn with_tool_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.tool_dirs.push(directory.into());
        self
    }

    /// Has `pg_dump` run somewhere else, such as in the server's container, for the table of contents of a dump by
    /// [`Engine::Parallel`](crate::Engine::Parallel). Unset, it is looked for here.
    #[must_use]
    pub fn with_tool_runner(mut self, runner: Arc<dyn ToolRunner>) -> Self {
        self.tool_runner = Some(runner);
        self
    }

    /// Whether the census carries a hash of each table's content beside its row count; off unless set.
    ///
    /// The hash does not depend on the order of rows. It reads every value: about five times the cost of counting.
    #[must_use]
    pub fn with_content_digests(mut self, on: bool) -> Self {
        self.content_digests = on;
        self
    }

    /// Whether a server that takes no writes is unready: a standby, or `default_transaction_read_only`. Off unless set,
    /// or the URL says `target_session_attrs=read-write` or `primary`.
    #[must_use]
    pub fn with_expect_writable(mut self, on: bool) -> Self {
        self.expect_writable = on;
        self
    }

    /// Sets what a dump holds and how it is read.
    #[must_use]
    pub fn with_dump(mut self, dump: PostgresDump) -> Self {
        self.dump = dump;
        self
    }

    /// Sets how a restore replaces.
    #[must_use]
    pub fn with_restore(mut self, restore: PostgresRestore) -> Self {
        self.restore = restore;
        self
    }

    /// Where the database is, without user and password.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        let endpoint = match &self.host {
            Host::Tcp(name) => Endpoint::new("postgres", name, self.port),
            Host::Unix(_) => Endpoint::local("postgres", self.socket_path().to_string_lossy()),
        };
        endpoint.with_database(&self.database)
    }

    /// The Unix socket, if the host is a directory.
    pub(crate) fn socket_path(&self) -> PathBuf {
        match &self.host {
            Host::Unix(directory) => directory.join(format!(".s.PGSQL.{}", self.port)),
            Host::Tcp(_) => PathBuf::new(),
        }
    }

    /// Whether the server is on this machine, as far as its address tells.
    pub(crate) fn is_here(&self) -> bool {
        match &self.host {
            Host::Unix(_) => true,
            Host::Tcp(name) if name == "localhost" => true,
            Host::Tcp(name) => name.parse().is_ok_and(|address: IpAddr| address.is_loopback()),
        }
    }

    /// How many connections work at once where nobody says: the cores of this machine if the server is on it, else
    /// [`JOBS_MAX_DEFAULT`], which is also the most.
    pub(crate) fn jobs_default(&self) -> usize {
        match std::thread::available_parallelism() {
            Ok(cores) if self.is_here() => cores.get().min(JOBS_MAX_DEFAULT),
            _ => JOBS_MAX_DEFAULT,
        }
    }

    /// Everything that is wrong, warnings included; found without I/O.
    #[must_use]
    pub fn validate(&self) -> Vec<ConfigFault> {
        let mut faults = self.errors();
        faults.extend(self.password_fault());
        faults.extend(self.tls_fault());
        let ignored = |option: &String| {
            ConfigFault::warning("postgres.option.ignored", format!("the URL's option {option:?} has no meaning here"))
        };
        faults.extend(self.ignored_options.iter().map(ignored));
        faults
    }

    /// The first fault that makes connecting pointless.
    pub(crate) fn first_error(&self) -> Option<ConfigFault> {
        self.errors().into_iter().find(|fault| fault.severity == FaultSeverity::Error)
    }

    fn errors(&self) -> Vec<ConfigFault> {
        let mut faults = Vec::new();
        let mut fault = |wrong: bool, code: &str, message: &str| {
            if wrong {
                faults.push(ConfigFault::error(code, message));
            }
        };
        let host_is_empty = matches!(&self.host, Host::Tcp(name) if name.is_empty());
        fault(host_is_empty, "postgres.host.empty", "the host is empty");
        fault(self.port == 0, "postgres.port.zero", "port 0 can't be connected to");
        fault(self.user.is_empty(), "postgres.user.empty", "the user is empty");
        fault(self.database.is_empty(), "postgres.database.empty", "the database is empty");
        let database_is_long = self.database.len() > IDENTIFIER_BYTES_MAX;
        fault(database_is_long, "postgres.database.long", "the database's name is longer than the server's 63 bytes");
        let nul = [&self.user, &self.database].iter().any(|text| text.contains('\0'))
            || self.password.as_ref().is_some_and(|password| password.expose().contains('\0'));
        fault(nul, "postgres.nul", "user, password and database can't hold a NUL byte");
        fault(self.connect_timeout.is_zero(), "postgres.connect_timeout.zero", "the connect timeout is zero");
        fault(self.lock_timeout.is_zero(), "postgres.lock_timeout.zero", "the lock timeout is zero");
        faults
    }

    pub(crate) fn password_fault(&self) -> Option<ConfigFault> {
        match self.password.as_ref()?.weakness(&["postgres", &self.user, &self.database])? {
            Weakness::Default => {
                let message = "the password is a well-known default, or equals the user or the database; set another";
                Some(ConfigFault::warning("postgres.password.default", message))
            }
            Weakness::Short => {
                Some(ConfigFault::warning("postgres.password.weak", "the password is shorter than 8 characters"))
            }
        }
    }

    pub(crate) fn tls_fault(&self) -> Option<ConfigFault> {
        let open = !self.host.is_private() && matches!(self.tls, TlsMode::Disable | TlsMode::Prefer);
        let unused = self.ca_file.is_some() && self.tls != TlsMode::VerifyFull;
        if unused {
            let message = "a CA file is set, but only sslmode=verify-full checks certificates";
            return Some(ConfigFault::warning("postgres.tls.unverified", message));
        }
        open.then(|| {
            let message =
                "the host is not private and TLS is optional or off: the password hash and all data can be read";
            ConfigFault::warning("postgres.tls.optional", message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(config: &PostgresConfig) -> Vec<String> {
        config.validate().into_iter().map(|fault| fault.code).collect()
    }

    #[test]
    fn all_faults_are_listed_at_once() {
        let config = PostgresConfig::new("", "").with_port(0).with_user("");
        let expected = ["postgres.host.empty", "postgres.port.zero", "postgres.user.empty", "postgres.database.empty"];
        assert_eq!(codes(&config)[..4], expected);
    }

    #[test]
    fn default_and_weak_passwords_are_told_without_their_text() {
        let config = |password: &str| PostgresConfig::new("localhost", "shop").with_user("app").with_password(password);
        assert_eq!(codes(&config("postgres")), ["postgres.password.default"]);
        assert_eq!(codes(&config("app")), ["postgres.password.default"]);
        assert_eq!(codes(&config("k9#xq")), ["postgres.password.weak"]);
        assert!(!config("k9#xq").validate()[0].to_string().contains("k9#xq"));
        assert!(codes(&config("k9#xq-and-more")).is_empty());
    }

    #[test]
    fn optional_tls_over_a_network_is_told() {
        assert!(codes(&PostgresConfig::new("10.0.0.7", "shop")).is_empty());
        assert_eq!(codes(&PostgresConfig::new("db.example.com", "shop")), ["postgres.tls.optional"]);
        assert!(codes(&PostgresConfig::new("db.example.com", "shop").with_tls(TlsMode::VerifyFull)).is_empty());
    }

    #[test]
    fn endpoints_hold_no_credentials() {
        let config = PostgresConfig::new("/run/postgresql", "shop").with_user("u-canary").with_password("p-canary");
        assert_eq!(config.endpoint().to_string(), "postgres:///run/postgresql/.s.PGSQL.5432?database=shop");
        assert!(!format!("{config:?}").contains("p-canary"));
    }
}
