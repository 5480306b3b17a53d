//! Configuration from a URL and from the environment.

use std::path::PathBuf;

use stackkit_core::{Error, Result, Secret};
use url::{Host, Url};

use crate::config::{Address, PORT_DEFAULT, RedisConfig};

impl RedisConfig {
    /// Reads `redis://[user][:password]@host[:port][/database]`, the same with `rediss://` for TLS, or
    /// `redis+unix://[user][:password]@/path/of/socket[?db=0]` (`unix://` too; without a user, `redis+unix:///path`).
    ///
    /// User, password and path may be percent-encoded. Options: `db`, `ca_file`, and for a socket `user` and `pass`.
    ///
    /// # Errors
    /// `Config`, with the part of the URL that is wrong and never its password.
    pub fn from_url(url: &str) -> Result<Self> {
        let (url, credentials) = without_credentials(url);
        let url = Url::parse(&url).map_err(|error| wrong("url", error.to_string()))?;
        let mut config = match url.scheme() {
            "redis" => tcp(&url)?,
            "rediss" => tcp(&url)?.with_tls(true),
            "redis+unix" | "unix" => socket(&url)?,
            scheme => {
                let message = format!("{scheme:?} is none of redis, rediss, redis+unix, unix");
                return Err(wrong("scheme", message));
            }
        };
        if let Some((user, password)) = credentials {
            config.username = Some(decode(&user, "user")?).filter(|user| !user.is_empty());
            config.password = password.map(|password| decode(&password, "password")).transpose()?.map(Secret::new);
        }
        if url.fragment().is_some() {
            return Err(wrong("fragment", "a redis URL has none; write # as %23"));
        }
        options(&url, &mut config)?;
        Ok(config)
    }

    /// Reads `REDIS_URL` (or `STACKKIT_REDIS_URL`, which wins), then `STACKKIT_REDIS_` with `HOST`, `PORT`, `SOCKET`,
    /// `USERNAME`, `PASSWORD`, `DATABASE`, `TLS` (`true` or `false`) and `CA_FILE`, each of which wins over the URL.
    ///
    /// # Errors
    /// `Config` if nothing names a server, or with the variable that can't be read.
    pub fn from_env() -> Result<Self> {
        Self::from_lookup(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let own = |field: &str| lookup(&format!("STACKKIT_REDIS_{field}"));
        let mut config = match (own("URL").or_else(|| lookup("REDIS_URL")), own("SOCKET"), own("HOST")) {
            (Some(url), ..) => Self::from_url(&url)?,
            (_, Some(socket), _) => Self::unix(socket),
            (_, _, Some(host)) => Self::new(host, PORT_DEFAULT),
            _ => {
                let names = "none of REDIS_URL, STACKKIT_REDIS_URL, STACKKIT_REDIS_HOST, STACKKIT_REDIS_SOCKET is set";
                return Err(Error::config(names));
            }
        };
        if let Some(path) = own("SOCKET") {
            config.address = Address::Unix(path.into());
        }
        if let Address::Tcp { host, port } = &mut config.address {
            *host = own("HOST").unwrap_or_else(|| host.clone());
            if let Some(text) = own("PORT") {
                *port = text.parse().map_err(|_digits| wrong("STACKKIT_REDIS_PORT", "not a port"))?;
            }
        }
        if let Some(text) = own("DATABASE") {
            config.database = Some(database(&text, "STACKKIT_REDIS_DATABASE")?);
        }
        if let Some(text) = own("TLS") {
            config.tls = text.parse().map_err(|_word| wrong("STACKKIT_REDIS_TLS", "neither true nor false"))?;
        }
        config.username = own("USERNAME").or(config.username);
        config.password = own("PASSWORD").map(Secret::new).or(config.password);
        config.ca_file = own("CA_FILE").map(PathBuf::from).or(config.ca_file);
        Ok(config)
    }
}

/// Takes user and password out of a URL. A URL of the `url` crate has no user without a host, and a socket has no host;
/// besides, what is not in the URL can't be in a message about it.
fn without_credentials(url: &str) -> (String, Option<(String, Option<String>)>) {
    let Some((scheme, rest)) = url.split_once("://") else { return (url.to_owned(), None) };
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let Some((credentials, host)) = rest[..authority_end].rsplit_once('@') else { return (url.to_owned(), None) };
    let (user, password) = match credentials.split_once(':') {
        Some((user, password)) => (user, Some(password.to_owned())),
        None => (credentials, None),
    };
    (format!("{scheme}://{host}{}", &rest[authority_end..]), Some((user.to_owned(), password)))
}

fn tcp(url: &Url) -> Result<RedisConfig> {
    let host = match url.host() {
        Some(Host::Domain(name)) if !name.is_empty() => decode(name, "host")?,
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        _ => return Err(wrong("host", "missing")),
    };
    let config = RedisConfig::new(host, url.port().unwrap_or(PORT_DEFAULT));
    match url.path().trim_start_matches('/') {
        "" => Ok(config),
        path => Ok(config.with_database(database(path, "path")?)),
    }
}

fn socket(url: &Url) -> Result<RedisConfig> {
    if url.host_str().is_some_and(|host| !host.is_empty()) {
        return Err(wrong("host", "a socket has none; the path starts with a third slash"));
    }
    if url.path().is_empty() || url.path() == "/" {
        return Err(wrong("path", "missing"));
    }
    Ok(RedisConfig::unix(decode(url.path(), "path")?))
}

fn options(url: &Url, config: &mut RedisConfig) -> Result<()> {
    let unix = matches!(config.address, Address::Unix(_));
    for option in url.query().unwrap_or_default().split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match name {
            "db" | "database" => config.database = Some(database(value, "option db")?),
            "ca_file" => config.ca_file = Some(decode(value, "option ca_file")?.into()),
            "user" if unix => config.username = Some(decode(value, "option user")?),
            "pass" if unix => config.password = Some(Secret::new(decode(value, "option pass")?)),
            _ => {
                return Err(wrong(
                    "options",
                    "one is none of those that this scheme has: db, ca_file; for a socket user, pass",
                ));
            }
        }
    }
    Ok(())
}

fn database(text: &str, part: &'static str) -> Result<u64> {
    text.parse().map_err(|_digits| wrong(part, "not a database number"))
}

/// The text with `%xx` resolved.
fn decode(text: &str, part: &'static str) -> Result<String> {
    let malformed = || wrong(part, "a percent sign is not followed by two hexadecimal digits");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).ok_or_else(malformed);
        let value = digit(rest.next())? * 16 + digit(rest.next())?;
        bytes.push(u8::try_from(value).map_err(|_range| malformed())?);
    }
    String::from_utf8(bytes).map_err(|_utf8| wrong(part, "not UTF-8"))
}

/// The message names the part; a value is never quoted, for it may be the secret.
fn wrong(part: &'static str, what: impl Into<String>) -> Error {
    Error::config(what).with_operation("read the redis configuration").with_context("part", part)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use stackkit_core::ErrorKind;

    use super::*;

    #[test]
    fn urls_are_read_whole() {
        let config = RedisConfig::from_url("rediss://app:p%40ss%2F+1@[::1]:6390/3?ca_file=/etc/ca%20one.pem").unwrap();
        assert_eq!(config.address, Address::Tcp { host: "::1".into(), port: 6390 });
        assert!(config.tls);
        assert_eq!((config.username.as_deref(), config.database), (Some("app"), Some(3)));
        assert_eq!(config.password.as_ref().map(Secret::expose), Some("p@ss/+1"));
        assert_eq!(config.ca_file.as_deref(), Some(Path::new("/etc/ca one.pem")));
        assert_eq!(config.endpoint().to_string(), "rediss://[::1]:6390/3");

        let config = RedisConfig::from_url("redis://:secret@cache").unwrap();
        assert_eq!(config.address, Address::Tcp { host: "cache".into(), port: 6379 });
        assert_eq!((config.username, config.database), (None, None));

        for scheme in ["redis+unix", "unix"] {
            let config = RedisConfig::from_url(&format!("{scheme}:///run/r%C3%BC.sock?db=2&user=u&pass=p")).unwrap();
            assert_eq!(config.address, Address::Unix("/run/rü.sock".into()));
            assert_eq!((config.username.as_deref(), config.database), (Some("u"), Some(2)));
            let config = RedisConfig::from_url(&format!("{scheme}://:a%3Ab@/r.sock")).unwrap();
            assert_eq!(config.address, Address::Unix("/r.sock".into()));
            assert_eq!((config.username, config.password), (None, Some(Secret::new("a:b"))));
        }
    }

    #[test]
    fn what_is_wrong_is_named_without_the_password() {
        for (url, part) in [
            ("cache", "url"),
            ("redis://u:canary@host:99999", "url"),
            ("http://u:canary@host", "scheme"),
            ("redis://u:canary%zz@host", "password"),
            ("redis:///3", "host"),
            ("redis://u:canary@host/shop", "path"),
            ("redis://u:canary@host/1#canary", "fragment"),
            ("redis://host?pass=canary", "options"),
            ("redis://host?db=canary", "option db"),
            ("redis+unix://host/run/r.sock", "host"),
            ("unix://", "path"),
        ] {
            let error = RedisConfig::from_url(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(error.context().any(|fact| fact == ("part", part)), "{url}: {error}");
            assert!(!format!("{error:?} {}", error.chain()).contains("canary"), "{url}: {error:?}");
        }
    }

    #[test]
    fn the_environment_wins_over_its_url() {
        let from = |pairs: &[(&str, &str)]| {
            let find = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            RedisConfig::from_lookup(find)
        };
        let config = from(&[
            ("REDIS_URL", "redis://u:p@a:1/2"),
            ("STACKKIT_REDIS_HOST", "b"),
            ("STACKKIT_REDIS_PORT", "7"),
            ("STACKKIT_REDIS_TLS", "true"),
            ("STACKKIT_REDIS_PASSWORD", "q"),
        ])
        .unwrap();
        assert_eq!(config.endpoint().to_string(), "rediss://b:7/2");
        assert_eq!(config.password.as_ref().map(Secret::expose), Some("q"));
        assert_eq!(from(&[("STACKKIT_REDIS_SOCKET", "/r")]).unwrap().address, Address::Unix("/r".into()));
        assert_eq!(from(&[]).unwrap_err().kind(), ErrorKind::Config);
        let error = from(&[("STACKKIT_REDIS_HOST", "b"), ("STACKKIT_REDIS_PORT", "x")]).unwrap_err();
        assert!(error.to_string().contains("STACKKIT_REDIS_PORT"), "{error}");
    }
}
