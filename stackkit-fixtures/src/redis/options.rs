//! How a private Redis is configured.

use std::path::PathBuf;

use stackkit_core::{Error, Result, Secret};

use crate::redis::SOCKET;
use crate::server::PrivateDir;

/// What a private Redis has beyond its Unix socket.
///
/// ```
/// use stackkit_fixtures::RedisOptions;
/// let options = RedisOptions::new().with_tcp().with_password("correct horse").with_setting("maxmemory", "64mb");
/// assert!(!format!("{options:?}").contains("horse"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    pub(crate) tcp: bool,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) password: Option<Secret>,
    users: Vec<User>,
    settings: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
pub(crate) struct TlsFiles {
    certificate: PathBuf,
    key: PathBuf,
}

#[derive(Debug, Clone)]
struct User {
    name: String,
    password: Secret,
    rules: String,
}

impl RedisOptions {
    /// A Unix socket only, no password.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens on a TCP port of 127.0.0.1 too, which the kernel chooses.
    #[must_use]
    pub fn with_tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// Listens with TLS on a port of localhost too, with this certificate and key (PEM files).
    #[must_use]
    pub fn with_tls(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.tls = Some(TlsFiles { certificate: certificate.into(), key: key.into() });
        self
    }

    /// Sets the password of the user `default`.
    #[must_use]
    pub fn with_password(mut self, password: impl Into<Secret>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Adds an ACL user with rules such as `~cache:* +@read` (<https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/>).
    #[must_use]
    pub fn with_user(mut self, name: impl Into<String>, password: impl Into<Secret>, rules: impl Into<String>) -> Self {
        self.users.push(User { name: name.into(), password: password.into(), rules: rules.into() });
        self
    }

    /// Adds a line of `redis.conf`. The value stands there as it is: words, or a string in double quotes.
    #[must_use]
    pub fn with_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    pub(crate) fn secrets(&self) -> Vec<Secret> {
        self.password.iter().chain(self.users.iter().map(|user| &user.password)).cloned().collect()
    }

    /// The text of `redis.conf`: passwords stand in this file of mode 0600, never among the arguments.
    pub(crate) fn settings(&self, dir: &PrivateDir, port: Option<u16>, tls_port: Option<u16>) -> Result<String> {
        let path = |name: &str| quote(&dir.path().join(name).display().to_string());
        let mut lines = vec![
            format!("port {}", port.unwrap_or(0)),
            "bind 127.0.0.1".to_owned(),
            format!("unixsocket {}", path(SOCKET)),
            "unixsocketperm 700".to_owned(),
            format!("dir {}", path("")),
            "appendonly no".to_owned(),
            // With a save point, TERM saves: a stopped server keeps its data.
            "save 3600 1".to_owned(),
            "enable-debug-command local".to_owned(),
        ];
        if let (Some(files), Some(port)) = (&self.tls, tls_port) {
            let read = |file: &PathBuf| std::fs::read(file).map_err(|error| Error::io("read a TLS file", error));
            dir.write("tls.crt", &read(&files.certificate)?)?;
            dir.write("tls.key", &read(&files.key)?)?;
            lines.push(format!("tls-port {port}\ntls-auth-clients no"));
            lines.push(format!("tls-cert-file {}\ntls-key-file {}", path("tls.crt"), path("tls.key")));
        }
        lines.extend(self.password.iter().map(|password| format!("requirepass {}", quote(password.expose()))));
        lines.extend(self.settings.iter().map(|(name, value)| format!("{name} {value}")));
        lines.extend(self.users.iter().map(|user| {
            format!("user {} on {} {}", user.name, quote(&format!(">{}", user.password.expose())), user.rules)
        }));
        Ok(lines.join("\n") + "\n")
    }
}

/// Quotes a string as `redis.conf` reads it.
fn quote(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_are_escaped() {
        assert_eq!(quote("a b"), "\"a b\"");
        assert_eq!(quote("a\"b\\c#"), r#""a\"b\\c#""#);
    }
}
