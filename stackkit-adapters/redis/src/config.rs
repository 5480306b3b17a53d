//! What a [`Redis`](crate::Redis) handle is configured with.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use stackkit_core::{ConfigFault, Endpoint, Secret, Weakness};

/// The registered port of Redis.
pub const PORT_DEFAULT: u16 = 6379;

/// How long opening a connection may take, from the name to the accepted password. 5 s covers a slow name server and a
/// TLS handshake across continents.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// How long the answer to one short command may take outside of a probe, which has its own deadline. A server answers
/// within a millisecond unless a slow script or a fork blocks it.
pub const COMMAND_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// How long a dump or restore waits while no byte moves: the server's own default for a silent replica
/// (`repl-timeout`, 60 s).
pub const STALL_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// How long a dump waits for the server to begin its save while it is busy with another one: long enough for a save of
/// tens of gigabytes.
pub const SYNC_TIMEOUT_DEFAULT: Duration = Duration::from_secs(600);

/// Passwords of this store's sample configurations and images.
pub(crate) const PASSWORDS_DEFAULT: &[&str] = &["foobared", "redis", "redispassword"];

/// How many keys the inventory looks at to estimate how many there are of each prefix. 50 000 take the server about
/// 27 ms in all, in 200 slices of 0.14 ms (measured), and leave an error of at most half a percent of all keys.
pub const SAMPLE_KEYS_DEFAULT: u64 = 50_000;

/// What ends the prefix of a key: what the server's documentation uses in its examples.
pub const PREFIX_SEPARATORS_DEFAULT: &str = ":";

/// Where the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl Address {
    /// Whether bytes to it stay on this machine.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()),
        }
    }
}

/// How to reach one server.
///
/// ```
/// use stackkit_redis::RedisConfig;
/// let config = RedisConfig::new("cache.internal", 6379).with_tls(true).with_password("correct horse battery");
/// assert!(config.validate().is_empty());
/// assert!(!format!("{config:?}").contains("horse"));
/// ```
#[derive(Debug, Clone)]
pub struct RedisConfig {
    pub(crate) address: Address,
    pub(crate) tls: bool,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) database: Option<u64>,
    pub(crate) connect_timeout: Duration,
    pub(crate) command_timeout: Duration,
    pub(crate) stall_timeout: Duration,
    pub(crate) sync_timeout: Duration,
    pub(crate) reads_only: bool,
    pub(crate) sample_keys: u64,
    pub(crate) separators: Vec<u8>,
}

impl RedisConfig {
    /// A server on TCP: no TLS, no password, default timeouts.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self::at(Address::Tcp { host: host.into(), port })
    }

    /// A server on the Unix socket at this absolute path.
    pub fn unix(socket: impl Into<PathBuf>) -> Self {
        Self::at(Address::Unix(socket.into()))
    }

    fn at(address: Address) -> Self {
        Self {
            address,
            tls: false,
            ca_file: None,
            username: None,
            password: None,
            database: None,
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
            command_timeout: COMMAND_TIMEOUT_DEFAULT,
            stall_timeout: STALL_TIMEOUT_DEFAULT,
            sync_timeout: SYNC_TIMEOUT_DEFAULT,
            reads_only: false,
            sample_keys: SAMPLE_KEYS_DEFAULT,
            separators: PREFIX_SEPARATORS_DEFAULT.as_bytes().to_vec(),
        }
    }

    /// Whether to speak TLS and verify the server's certificate; off unless set.
    #[must_use]
    pub fn with_tls(mut self, tls: bool) -> Self {
        self.tls = tls;
        self
    }

    /// Trusts the certificates of this PEM file instead of the system's.
    #[must_use]
    pub fn with_ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Sets the ACL user; `default` unless set.
    #[must_use]
    pub fn with_username(mut self, username: impl Into<String>) -> Self {
        self.username = Some(username.into());
        self
    }

    /// Sets the password.
    #[must_use]
    pub fn with_password(mut self, password: impl Into<Secret>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Names the database that the application uses: shown in the endpoint. Probes, dumps and restores are of the whole
    /// server, all databases.
    #[must_use]
    pub fn with_database(mut self, database: u64) -> Self {
        self.database = Some(database);
        self
    }

    /// Sets [`CONNECT_TIMEOUT_DEFAULT`] anew.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets [`COMMAND_TIMEOUT_DEFAULT`] anew.
    #[must_use]
    pub fn with_command_timeout(mut self, timeout: Duration) -> Self {
        self.command_timeout = timeout;
        self
    }

    /// Sets [`STALL_TIMEOUT_DEFAULT`] anew.
    #[must_use]
    pub fn with_stall_timeout(mut self, timeout: Duration) -> Self {
        self.stall_timeout = timeout;
        self
    }

    /// Sets [`SYNC_TIMEOUT_DEFAULT`] anew.
    #[must_use]
    pub fn with_sync_timeout(mut self, timeout: Duration) -> Self {
        self.sync_timeout = timeout;
        self
    }

    /// Says that the application only reads: a server that refuses writes is then a risk, and stays ready.
    #[must_use]
    pub fn with_reads_only(mut self, reads_only: bool) -> Self {
        self.reads_only = reads_only;
        self
    }

    /// Sets [`SAMPLE_KEYS_DEFAULT`] anew. 0 samples no keys.
    #[must_use]
    pub fn with_sample_keys(mut self, keys: u64) -> Self {
        self.sample_keys = keys;
        self
    }

    /// Sets [`PREFIX_SEPARATORS_DEFAULT`] anew: the prefix of a key ends with the first byte that is any of these.
    #[must_use]
    pub fn with_prefix_separators(mut self, separators: impl AsRef<[u8]>) -> Self {
        self.separators = separators.as_ref().to_vec();
        self
    }

    /// Where it is, without credentials.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        let endpoint = match &self.address {
            Address::Tcp { host, port } => Endpoint::new(if self.tls { "rediss" } else { "redis" }, host, *port),
            Address::Unix(path) => Endpoint::local("redis+unix", path.to_string_lossy()),
        };
        match self.database {
            Some(database) => endpoint.with_database(database.to_string()),
            None => endpoint,
        }
    }

    /// Every fault and warning at once; does no I/O.
    #[must_use]
    pub fn validate(&self) -> Vec<ConfigFault> {
        let mut faults = Vec::new();
        let mut error = |wrong: bool, code: &str, message: &str| {
            if wrong {
                faults.push(ConfigFault::error(code, message));
            }
        };
        let (no_host, no_port, relative) = match &self.address {
            Address::Tcp { host, port } => (host.is_empty(), *port == 0, false),
            Address::Unix(path) => (false, false, !path.is_absolute()),
        };
        error(no_host, "redis.host.missing", "the host is empty");
        error(no_port, "redis.port.invalid", "port 0 is no port");
        error(relative, "redis.socket.relative", "the path of the socket is not absolute");
        let unix = matches!(self.address, Address::Unix(_));
        error(self.tls && unix, "redis.tls.socket", "TLS does not go over a Unix socket");
        error(self.ca_file.is_some() && !self.tls, "redis.tls.unused", "a CA file is named, but TLS is off");
        let nameless = self.username.is_some() && self.password.is_none();
        error(nameless, "redis.username.alone", "a user is named, but no password");
        let zero = [self.connect_timeout, self.command_timeout, self.stall_timeout, self.sync_timeout]
            .contains(&Duration::ZERO);
        error(zero, "redis.timeout.zero", "a timeout is zero");
        faults.extend(self.risks());
        faults
    }

    /// What works, but should not be left so.
    fn risks(&self) -> Vec<ConfigFault> {
        let mut faults = Vec::new();
        let mut warn = |code: &str, message: &str| faults.push(ConfigFault::warning(code, message));
        match self.password.as_ref().map(|password| password.weakness(PASSWORDS_DEFAULT)) {
            Some(Some(Weakness::Default)) => {
                warn("redis.password.default", "the password is one of the well-known defaults");
            }
            Some(Some(Weakness::Short)) => warn("redis.password.weak", "the password has fewer than 8 characters"),
            None if !self.address.is_local() => warn("redis.password.none", "no password over the network"),
            _ => {}
        }
        if !self.tls && !self.address.is_local() {
            warn("redis.tls.off", "no TLS over the network");
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(config: &RedisConfig) -> Vec<String> {
        config.validate().into_iter().map(|fault| fault.code).collect()
    }

    #[test]
    fn all_faults_come_at_once() {
        let config =
            RedisConfig::new("", 0).with_ca_file("/ca.pem").with_username("app").with_stall_timeout(Duration::ZERO);
        let expected = [
            "redis.host.missing",
            "redis.port.invalid",
            "redis.tls.unused",
            "redis.username.alone",
            "redis.timeout.zero",
            "redis.password.none",
            "redis.tls.off",
        ];
        assert_eq!(codes(&config), expected);
        assert_eq!(codes(&RedisConfig::unix("r.sock").with_tls(true)), ["redis.socket.relative", "redis.tls.socket"]);
    }

    #[test]
    fn default_and_weak_passwords_are_told_apart() {
        let with = |password: &str| codes(&RedisConfig::new("::1", 6379).with_password(password));
        assert_eq!(with("Foobared"), ["redis.password.default"]);
        assert_eq!(with("pass1"), ["redis.password.weak"]);
        assert!(with("correct horse").is_empty());
        assert!(codes(&RedisConfig::new("localhost", 6379)).is_empty());
    }
}
