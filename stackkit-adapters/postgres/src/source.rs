//! Reads a [`PostgresConfig`] from a URL or from the environment.

use std::path::PathBuf;
use std::time::Duration;

use stackkit_core::{Error, Result};
use tokio_postgres::config::Host as DriverHost;

use crate::config::{Host, PORT_DEFAULT, PostgresConfig, TlsMode};

/// The schemes of a URL.
const SCHEMES: [&str; 2] = ["postgres", "postgresql"];

/// URL options that the driver's parser reads.
const OPTIONS_READ: [&str; 6] = ["host", "port", "user", "password", "dbname", "connect_timeout"];

/// Values of libpq's `target_session_attrs` that ask for a server that takes writes.
const WRITABLE: [&str; 2] = ["read-write", "primary"];

impl PostgresConfig {
    /// Reads `postgres://user:password@host:port/database?sslmode=…`.
    ///
    /// Options: `sslmode` (`disable`, `prefer`, `require`, `verify-full`), `sslrootcert`, `connect_timeout`
    /// in seconds, and `host`, which may be the directory of a Unix socket. Others are reported as warnings.
    ///
    /// # Errors
    /// `Config`; the message says what is wrong and never shows the URL.
    ///
    /// ```
    /// use stackkit_postgres::PostgresConfig;
    /// let config = PostgresConfig::from_url("postgres://app:s3cr%40t@db.internal/shop").unwrap();
    /// assert_eq!(config.endpoint().to_string(), "postgres://db.internal:5432/shop");
    /// ```
    pub fn from_url(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| fault("the URL does not start with postgres://"))?;
        if !SCHEMES.contains(&scheme) {
            return Err(fault("the URL's scheme is not postgres or postgresql").with_context("scheme", scheme));
        }
        let (head, query) = split_query(rest);
        let mut options = Options::parse(query)?;
        let plain = match options.read.is_empty() {
            true => format!("postgres://{head}"),
            false => format!("postgres://{head}?{}", options.read.join("&")),
        };
        let driver: tokio_postgres::Config =
            plain.parse().map_err(|e: tokio_postgres::Error| fault("the URL can't be read").with_source(e))?;
        let mut config = from_driver(&driver)?;
        config.tls = options.tls.unwrap_or_default();
        config.ca_file = options.ca_file.take();
        config.expect_writable = options.expect_writable;
        config.ignored_options = options.ignored;
        Ok(config)
    }

    /// Reads the environment: `STACKKIT_POSTGRES_URL`, else `DATABASE_URL`, else `PGHOST` (`localhost` unless set),
    /// `PGPORT`, `PGUSER`, `PGPASSWORD`, `PGDATABASE` (the user unless set), `PGSSLMODE` and `PGSSLROOTCERT`.
    ///
    /// Then `STACKKIT_POSTGRES_HOST`, `…_PORT`, `…_USER`, `…_PASSWORD`, `…_DATABASE`, `…_SSLMODE`, `…_CA_FILE`
    /// and `…_TOOL_DIRS` (a path list) override single fields.
    ///
    /// # Errors
    /// `Config` if nothing names a server, or a value can't be read; the message names the variable.
    pub fn from_env() -> Result<Self> {
        Self::from_vars(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// [`from_env`](Self::from_env) over any set of variables.
    pub(crate) fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let url = ["STACKKIT_POSTGRES_URL", "DATABASE_URL"].into_iter().find_map(|name| Some((name, var(name)?)));
        let mut config = match url {
            Some((name, url)) => Self::from_url(&url).map_err(|e| e.with_context("variable", name))?,
            None => from_libpq_vars(&var)?,
        };
        let field = |name: &str| var(&format!("STACKKIT_POSTGRES_{name}"));
        apply(&mut config, &field, ["HOST", "PORT", "USER", "PASSWORD", "DATABASE", "SSLMODE", "CA_FILE"])?;
        if let Some(dirs) = field("TOOL_DIRS") {
            config.tool_dirs = std::env::split_paths(&dirs).collect();
        }
        Ok(config)
    }
}

fn fault(message: &str) -> Error {
    Error::config(message).with_operation("configure")
}

/// Cuts the query off. A question mark in the credentials is theirs: the driver's parser ends them at the first `@`.
fn split_query(rest: &str) -> (&str, &str) {
    let credentials = rest.find('@').unwrap_or(0);
    match rest[credentials..].find('?') {
        Some(at) => (&rest[..credentials + at], &rest[credentials + at + 1..]),
        None => (rest, ""),
    }
}

/// The options of a URL, sorted by who reads them.
#[derive(Default)]
struct Options<'a> {
    read: Vec<&'a str>,
    ignored: Vec<String>,
    tls: Option<TlsMode>,
    ca_file: Option<PathBuf>,
    expect_writable: bool,
}

impl<'a> Options<'a> {
    fn parse(query: &'a str) -> Result<Self> {
        let mut options = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| fault("an option of the URL has no value"))?;
            match key {
                "sslmode" => options.tls = Some(tls_mode(value)?),
                "sslrootcert" => options.ca_file = Some(decode(value)?.into()),
                "target_session_attrs" if WRITABLE.contains(&value) => options.expect_writable = true,
                "target_session_attrs" if value == "any" => options.expect_writable = false,
                _ if OPTIONS_READ.contains(&key) => options.read.push(pair),
                _ => options.ignored.push(key.to_owned()),
            }
        }
        Ok(options)
    }
}

/// Undoes percent-encoding. Only paths of certificates need it here, and those only rarely.
fn decode(text: &str) -> Result<String> {
    let pair = format!("v={}", text.replace('+', "%2B"));
    let value = url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned());
    value.ok_or_else(|| fault("an option of the URL can't be decoded"))
}

fn tls_mode(text: &str) -> Result<TlsMode> {
    TlsMode::parse(text)
        .ok_or_else(|| fault("sslmode is not disable, prefer, require or verify-full").with_context("sslmode", text))
}

fn from_driver(driver: &tokio_postgres::Config) -> Result<PostgresConfig> {
    let host = match driver.get_hosts() {
        [] => Host::Tcp("localhost".to_owned()),
        [DriverHost::Tcp(name)] if name.contains('@') => {
            return Err(fault("an @ in the user or password must be written as %40"));
        }
        [DriverHost::Tcp(name)] => Host::parse(name),
        #[cfg(unix)]
        [DriverHost::Unix(directory)] => Host::Unix(directory.clone()),
        _ => return Err(fault("the URL names more than one host; add one service for each")),
    };
    let user = driver.get_user().unwrap_or("postgres");
    let mut config = PostgresConfig::new("", driver.get_dbname().unwrap_or(user)).with_user(user);
    config.host = host;
    config.port = driver.get_ports().last().copied().unwrap_or(PORT_DEFAULT);
    if let Some(password) = driver.get_password() {
        let text = std::str::from_utf8(password).map_err(|_not_utf8| fault("the password is not UTF-8"))?;
        config = config.with_password(text);
    }
    if let Some(timeout) = driver.get_connect_timeout() {
        config.connect_timeout = Duration::from_secs(timeout.as_secs());
    }
    Ok(config)
}

fn from_libpq_vars(var: &impl Fn(&str) -> Option<String>) -> Result<PostgresConfig> {
    let overridden = ["HOST", "DATABASE"].iter().any(|field| var(&format!("STACKKIT_POSTGRES_{field}")).is_some());
    if !overridden && ["PGHOST", "PGDATABASE", "PGUSER", "PGPORT"].iter().all(|name| var(name).is_none()) {
        return Err(fault("no server is named: set DATABASE_URL, or PGHOST and PGDATABASE"));
    }
    let user = var("PGUSER").unwrap_or_else(|| "postgres".to_owned());
    let mut config = PostgresConfig::new("localhost", user.as_str()).with_user(user);
    apply(&mut config, var, ["PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGSSLMODE", "PGSSLROOTCERT"])?;
    Ok(config)
}

/// Sets host, port, user, password, database, TLS mode and CA file from the variables of these names.
fn apply(config: &mut PostgresConfig, var: &impl Fn(&str) -> Option<String>, names: [&'static str; 7]) -> Result<()> {
    let [host, port, user, password, database, tls, ca_file] = names;
    if let Some(host) = var(host) {
        config.host = Host::parse(&host);
    }
    if let Some(text) = var(port) {
        let bad = |e: std::num::ParseIntError| {
            fault("the port is not a number").with_context("variable", port).with_source(e)
        };
        config.port = text.parse().map_err(bad)?;
    }
    if let Some(user) = var(user) {
        config.user = user;
    }
    if let Some(password) = var(password) {
        config.password = Some(password.into());
    }
    if let Some(database) = var(database) {
        config.database = database;
    }
    if let Some(text) = var(tls) {
        config.tls = tls_mode(&text).map_err(|e| e.with_context("variable", tls))?;
    }
    if let Some(file) = var(ca_file) {
        config.ca_file = Some(file.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vars(pairs: &[(&str, &str)]) -> Result<PostgresConfig> {
        PostgresConfig::from_vars(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn urls_name_everything() {
        let url =
            "postgresql://app:p%40ss%2F@db:6432/shop?sslmode=verify-full&sslrootcert=/etc/c%20a.pem&connect_timeout=3";
        let config = PostgresConfig::from_url(url).expect("a good URL");
        assert_eq!(config.endpoint().to_string(), "postgres://db:6432/shop");
        assert_eq!(config.user, "app");
        assert_eq!(config.password.expect("a password").expose(), "p@ss/");
        assert_eq!(config.tls, TlsMode::VerifyFull);
        assert_eq!(config.ca_file.expect("a file").to_str(), Some("/etc/c a.pem"));
        assert_eq!(config.connect_timeout, Duration::from_secs(3));
    }

    #[test]
    fn sockets_come_by_option_or_encoded_host() {
        for url in ["postgres://u@/db?host=/run/pg&port=6000", "postgres://u@%2Frun%2Fpg:6000/db"] {
            let config = PostgresConfig::from_url(url).expect(url);
            assert_eq!(config.socket_path().to_str(), Some("/run/pg/.s.PGSQL.6000"), "{url}");
        }
    }

    #[test]
    fn bad_urls_say_what_without_the_password() {
        let cases = [
            ("mysql://u:canary@h/d", "scheme"),
            ("u:canary@h", "postgres://"),
            ("postgres://u:canary@h:port/d", "can't be read"),
            ("postgres://u:p@canary@h/d", "%40"),
            ("postgres://u:canary@h,i/d", "more than one host"),
            ("postgres://u:canary@h/d?sslmode=verify-ca", "sslmode"),
            ("postgres://u:canary@h/d?x", "no value"),
        ];
        for (url, part) in cases {
            let error = PostgresConfig::from_url(url).expect_err(url);
            assert_eq!(error.kind(), stackkit_core::ErrorKind::Config);
            assert!(error.to_string().contains(part), "{error}");
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        }
    }

    #[test]
    fn options_of_other_programs_are_told() {
        let config = PostgresConfig::from_url("postgres://u@localhost/d?schema=public").expect("a good URL");
        assert_eq!(config.validate()[0].code, "postgres.option.ignored");
    }

    #[test]
    fn a_url_can_ask_for_a_server_that_takes_writes() {
        let asks = |attributes: &str| {
            let url = format!("postgres://u@localhost/d?target_session_attrs={attributes}");
            PostgresConfig::from_url(&url).map(|config| (config.expect_writable, config.validate().is_empty()))
        };
        assert_eq!(asks("read-write").expect("a good URL"), (true, true));
        assert_eq!(asks("primary").expect("a good URL"), (true, true));
        assert_eq!(asks("any").expect("a good URL"), (false, true));
        assert_eq!(asks("standby").expect("a good URL"), (false, false), "told as ignored");
    }

    #[test]
    fn the_environment_has_an_order() {
        let config = vars(&[("DATABASE_URL", "postgres://a@h1/d"), ("PGHOST", "h2")]).expect("a URL");
        assert_eq!(config.host, Host::Tcp("h1".into()));
        let config = vars(&[("PGHOST", "/run/pg"), ("PGUSER", "app"), ("PGPORT", "1")]).expect("fields");
        assert_eq!(config.database, "app");
        assert_eq!(config.socket_path().to_str(), Some("/run/pg/.s.PGSQL.1"));
        let config = vars(&[("PGHOST", "h"), ("STACKKIT_POSTGRES_PORT", "7")]).expect("an override");
        assert_eq!(config.port, 7);
        assert!(vars(&[]).expect_err("nothing is set").to_string().contains("DATABASE_URL"));
        assert!(vars(&[("PGHOST", "h"), ("PGPORT", "x")]).expect_err("no number").to_string().contains("PGPORT"));
    }

    proptest! {
        #[test]
        fn no_text_panics(url in "\\PC{0,80}") {
            let _parsed = PostgresConfig::from_url(&url);
            let _parsed = PostgresConfig::from_url(&format!("postgres://{url}"));
        }

        #[test]
        fn passwords_survive_encoding(password in "\\PC{1,20}") {
            let encoded: String = url::form_urlencoded::byte_serialize(password.as_bytes()).collect();
            let url = format!("postgres://u:{}@h/d", encoded.replace('+', "%20"));
            let config = PostgresConfig::from_url(&url).expect("an encoded URL");
            let read = config.password.expect("a password");
            prop_assert_eq!(read.expose(), password);
        }
    }
}
