//! From a URL to the adapter that its scheme names.

use std::sync::Arc;

use stackkit_core::{Error, Result, Service, ServiceId};

/// The features that bring an adapter, with the URL schemes that it takes.
const ADAPTERS: [(&str, &[&str]); 3] =
    [("postgres", &["postgres", "postgresql"]), ("redis", &["redis", "rediss", "redis+unix"]), ("volume", &["file"])];

/// Builds the adapter that the URL's scheme names, called by the adapter's default name. Does no I/O.
///
/// | scheme | adapter | feature |
/// |---|---|---|
/// | `postgres://`, `postgresql://` | PostgreSQL | `postgres` |
/// | `redis://`, `rediss://`, `redis+unix://` | Redis | `redis` |
/// | `file://` | a directory | `volume` |
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
    let (scheme, _) = url.split_once("://").ok_or_else(|| Error::config("the URL has no scheme"))?;
    let scheme = scheme.to_ascii_lowercase();
    #[cfg_attr(
        not(any(feature = "postgres", feature = "redis", feature = "volume")),
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
        _ => Err(refused(&scheme)),
    }
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

    #[cfg(all(feature = "postgres", feature = "redis", feature = "volume"))]
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
        ] {
            assert_eq!(service(url).unwrap().kind(), kind, "{url}");
        }
        let id = ServiceId::new("cache").unwrap();
        assert_eq!(service_with_id(&id, "redis://localhost").unwrap().id(), &id);
    }
}
