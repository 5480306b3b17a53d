//! What a private PostgreSQL is asked for.

use stackkit_core::Secret;

/// What a private PostgreSQL has beyond its Unix socket.
///
/// ```
/// use stackkit_fixtures::PostgresOptions;
/// let options = PostgresOptions::new().with_tcp("correct horse").with_setting("work_mem", "8MB");
/// assert!(!format!("{options:?}").contains("horse"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    pub(super) major: Option<u32>,
    pub(super) password: Option<Secret>,
    pub(super) settings: Vec<(String, String)>,
}

impl PostgresOptions {
    /// A Unix socket only, every user of which is trusted; the version that the environment variable
    /// `STACKKIT_POSTGRES_MAJOR` names, else the one that is installed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs this major version, whatever else is installed: one that `cargo xtask servers` fetched, else where packages
    /// put it.
    #[must_use]
    pub fn with_major(mut self, major: u32) -> Self {
        self.major = Some(major);
        self
    }

    /// Listens on a TCP port of 127.0.0.1 too, which the kernel chooses. There the superuser needs this password
    /// (SCRAM-SHA-256).
    #[must_use]
    pub fn with_tcp(mut self, password: impl Into<Secret>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Sets a parameter of `postgresql.conf`.
    #[must_use]
    pub fn with_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }
}
