//! From a URL to the adapter that its scheme names.

use std::sync::Arc;

use stackkit_core::{Error, Result, Service, ServiceId};

/// The features that bring an adapter, with the URL schemes that it takes.
const ADAPTERS: [(&str, &[&str]); 5] = [
    ("postgres", &["postgres", "postgresql"]),
    ("redis", &["redis", "rediss", "redis+unix"]),
    ("volume", &["file"]),
    ("checks", &["tcp", "heartbeat"]),
    ("checks-http", &["http", "https"]),
];

/// The scheme that needs no authority: `heartbeat:/run/worker.beat`.
#[cfg(feature = "checks")]
const HEARTBEAT: &str = "heartbeat:";

/// How old a heartbeat's file may be unless its URL says otherwise: a worker that reports each 15 s has missed three.
#[cfg(feature = "checks")]
const HEARTBEAT_MAX_AGE: std::time::Duration = std::time::Duration::from_secs(60);

/// Builds the adapter that the URL's scheme names, called by the adapter's default name. Does no I/O.
///
/// | scheme | adapter | feature |
/// |---|---|---|
/// | `postgres://`, `postgresql://` | PostgreSQL | `postgres` |
/// | `redis://`, `rediss://`, `redis+unix://` | Redis | `redis` |
/// | `file://` | a directory | `volume` |
/// | `tcp://host:port` | a port that accepts connections | `checks` |
/// | `http://`, `https://` | a URL that answers with 200 to 299 | `checks-http` |
/// | `heartbeat:/path` | a file that a worker touches each minute; `?max_age_seconds=300` for another time | `checks` |
///
/// ```
/// # #[cfg(feature = "redis")] {
/// let cache = stackkit::service("redis://127.0.0.1:6379").unwrap();
/// assert_eq!(cache.kind(), "redis");
/// # }
/// let error = stackkit::service("gopher://127.0.0.1").unwrap_err();
/// assert_eq!(error.kind(), stackkit::ErrorKind::Config);
/// ```
///
/// # Errors
/// `Config` if the scheme is unknown, if its feature is off (the error names it), or if the rest of the URL can't be
/// read. No error holds the URL: it may have a password in it.
pub fn service(url: &str) -> Result<Arc<dyn Service>> {
    build(url, None)
}

/// As [`service`], and gives the adapter a name in its stack.
///
/// # Errors
/// As [`service`].
pub fn service_with_id(id: &ServiceId, url: &str) -> Result<Arc<dyn Service>> {
    build(url, Some(id))
}

fn build(url: &str, id: Option<&ServiceId>) -> Result<Arc<dyn Service>> {
    let scheme = scheme_of(url).ok_or_else(|| Error::config("the URL has no scheme"))?;
    #[cfg_attr(
        not(any(feature = "postgres", feature = "redis", feature = "volume", feature = "checks")),
        expect(unused_variables, reason = "nothing to call by an id")
    )]
    let id_or = |default| id.map_or(default, ServiceId::as_str);
    match scheme.as_str() {
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => Ok(Arc::new(crate::Postgres::from_url(url)?.with_id(id_or("postgres")))),
        #[cfg(feature = "redis")]
        "redis" | "rediss" | "redis+unix" => Ok(Arc::new(crate::Redis::from_url(url)?.with_id(id_or("redis")))),
        #[cfg(feature = "volume")]
        "file" => Ok(Arc::new(crate::Volume::from_url(url)?.with_id(id_or("volume")))),
        #[cfg(feature = "checks")]
        "tcp" => Ok(Arc::new(stackkit_checks::TcpCheck::from_url(url)?.with_id(id_or("tcp")))),
        #[cfg(feature = "checks-http")]
        "http" | "https" => Ok(Arc::new(stackkit_checks::HttpCheck::from_url(url)?.with_id(id_or("http")))),
        #[cfg(feature = "checks")]
        "heartbeat" => heartbeat(url, id_or("heartbeat")),
        _ => Err(refused(&scheme)),
    }
}

/// What stands before `://`, or the one scheme that has a path alone.
fn scheme_of(url: &str) -> Option<String> {
    let (scheme, _) =
        url.split_once("://").or_else(|| url.split_once(":/").filter(|(scheme, _)| *scheme == "heartbeat"))?;
    Some(scheme.to_ascii_lowercase())
}

/// `heartbeat:/path`, also written with an empty authority, with `?max_age_seconds=N` perhaps.
#[cfg(feature = "checks")]
fn heartbeat(url: &str, id: &str) -> Result<Arc<dyn Service>> {
    let fault = |reason: &str| Error::config(format!("a heartbeat's URL is heartbeat:/path/of/the/file: {reason}"));
    let rest = url.get(HEARTBEAT.len()..).unwrap_or_default();
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = path.strip_prefix("//").unwrap_or(path);
    if !path.starts_with('/') {
        return Err(fault("the path is not absolute"));
    }
    let age_max = match query.strip_prefix("max_age_seconds=").map(str::parse) {
        None if query.is_empty() => HEARTBEAT_MAX_AGE,
        Some(Ok(seconds)) if seconds > 0 => std::time::Duration::from_secs(seconds),
        _ => return Err(fault("the only option is max_age_seconds, a whole number")),
    };
    Ok(Arc::new(stackkit_checks::HeartbeatCheck::of_file(id, path, age_max)))
}

/// Says whether a feature is missing or the scheme is nobody's.
fn refused(scheme: &str) -> Error {
    let owner = ADAPTERS.iter().find(|(_, schemes)| schemes.contains(&scheme));
    let error = match owner {
        Some((feature, _)) => Error::config(format!("the feature `{feature}` of stackkit is off")),
        None => {
            let known: Vec<&str> = ADAPTERS.iter().flat_map(|(_, schemes)| *schemes).copied().collect();
            Error::config("no adapter takes URLs of this scheme").with_context("known", known.join(" "))
        }
    };
    error.with_context("scheme", scheme)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_scheme_lists_the_known_ones_and_not_the_url() {
        let error = service("gopher://user:canary@host").unwrap_err().to_string();
        assert!(error.contains("scheme=gopher") && error.contains("postgresql"), "{error}");
        assert!(!error.contains("canary"), "{error}");
        assert!(!service("user:canary@host").unwrap_err().to_string().contains("user"));
    }

    #[test]
    fn a_feature_that_is_off_is_named() {
        for (feature, schemes) in ADAPTERS {
            for scheme in schemes {
                assert!(refused(scheme).to_string().contains(&format!("`{feature}`")), "{scheme}");
            }
        }
    }

    #[cfg(feature = "checks")]
    #[test]
    fn a_heartbeat_is_a_path() {
        for url in ["heartbeat:/run/a.beat", "heartbeat:///run/a.beat", "heartbeat:/run/a.beat?max_age_seconds=300"] {
            assert_eq!(service(url).unwrap().endpoint().path.as_deref(), Some("/run/a.beat"), "{url}");
        }
        for url in ["heartbeat://run/a", "heartbeat:a", "heartbeat:/a?max_age_seconds=0", "heartbeat:/a?age=1"] {
            assert_eq!(service(url).unwrap_err().kind(), stackkit_core::ErrorKind::Config, "{url}");
        }
    }

    #[cfg(all(feature = "postgres", feature = "redis", feature = "volume", feature = "checks-http"))]
    #[test]
    fn every_scheme_finds_its_adapter() {
        for (url, kind) in [
            ("postgres://localhost/shop", "postgresql"),
            ("postgresql://localhost/shop", "postgresql"),
            ("redis://localhost", "redis"),
            ("rediss://localhost", "redis"),
            ("redis+unix:///run/redis.sock", "redis"),
            ("REDIS://localhost", "redis"),
            ("file:///srv/uploads", "volume"),
            ("tcp://127.0.0.1:25", "tcp"),
            ("http://127.0.0.1:8080/readyz", "http"),
            ("https://shop.example/health", "http"),
            ("heartbeat:/run/worker.beat", "heartbeat"),
        ] {
            assert_eq!(service(url).unwrap().kind(), kind, "{url}");
        }
        let id = ServiceId::new("cache").unwrap();
        assert_eq!(service_with_id(&id, "redis://localhost").unwrap().id(), &id);
    }
}
