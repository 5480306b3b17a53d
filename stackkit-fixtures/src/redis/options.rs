//! How a private Redis is configured.

use std::fmt::Write;
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

    /// Adds a line of `redis.conf`. The value is quoted.
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
        let path = dir.path().display().to_string();
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            // Writing to a String can't fail.
            let _ = writeln!(text, "{name} {}", quote(value));
        };
        line("port", &port.unwrap_or(0).to_string());
        line("bind", "127.0.0.1");
        line("unixsocket", &format!("{path}/{SOCKET}"));
        line("unixsocketperm", "700");
        line("dir", &path);
        line("appendonly", "no");
        line("save", "3600 1");
        line("enable-debug-command", "local");
        if let (Some(files), Some(port)) = (&self.tls, tls_port) {
            let read = |file: &PathBuf| std::fs::read(file).map_err(|error| Error::io("read a TLS file", error));
            line("tls-port", &port.to_string());
            line("tls-cert-file", &dir.write("tls.crt", &read(&files.certificate)?)?.display().to_string());
            line("tls-key-file", &dir.write("tls.key", &read(&files.key)?)?.display().to_string());
            line("tls-auth-clients", "no");
        }
        if let Some(password) = &self.password {
            line("requirepass", password.expose());
        }
        for (name, value) in &self.settings {
            line(name, value);
        }
        for user in &self.users {
            let _ = writeln!(
                text,
                "user {} on {} {}",
                user.name,
                quote(&format!(">{}", user.password.expose())),
                user.rules
            );
        }
        Ok(text)
    }
}

/// Quotes a value as `redis.conf` reads it: words, or one string in double quotes.
fn quote(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '/' | '.' | '_' | '-' | ':' | '*' | '@' | '+');
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_spaces_are_words_and_other_ones_are_quoted() {
        assert_eq!(quote("3600 1"), "3600 1");
        assert_eq!(quote(""), "\"\"");
        assert_eq!(quote("a\"b\\c#"), r#""a\"b\\c#""#);
    }
}
