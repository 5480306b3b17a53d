//! Buckets of S3 and of what speaks its protocol.

#[cfg(test)]
#[path = "tests.rs"]
mod against_minio;
#[cfg(test)]
mod answers;
mod bucket;
mod client;
mod ini;
mod location;
mod reply;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum, S3ConditionalPut};
use object_store::client::{HttpConnector, ReqwestConnector};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use stackkit_core::{Error, ErrorKind, Result};

pub(super) use self::bucket::Bucket;
use self::client::{Client, TIMEOUT_DEFAULT};
pub(super) use self::location::BucketLocation;
use self::settings::{Credentials, Environment, Settings};
use crate::error::storage;

/// How often a request is made again: with the pauses between, enough for a server to start again.
const RETRIES_MAX: usize = 8;

/// After this no request is made again. The last one ends at its own timeout at the latest.
const RETRY_DEADLINE: Duration = Duration::from_secs(60);

/// After so many times the timeout of a request none is made again either: who wants an answer soon wants an error soon.
const RETRY_TIMEOUTS: u32 = 3;

/// The pause before a request is made for the second time; each later one is longer, at random.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);

/// The longest pause between two requests.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// By what factor the longest pause grows.
const BACKOFF_BASE: f64 = 3.0;

/// How long a connection may take to be made, the handshake of TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes the client of a bucket, and asks the bucket whether the credentials may list it.
///
/// # Errors
/// `Config` for settings that are missing; `Unreachable` or `Timeout` if nothing answers; `Unauthenticated`,
/// `PermissionDenied`; `NotFound` if there is no such bucket.
pub(super) async fn open(location: BucketLocation) -> Result<(Arc<dyn ObjectStore>, Bucket)> {
    let settle = move || settings::settle(&location, &Environment::of_process()).map(|settings| (location, settings));
    let settled = tokio::task::spawn_blocking(settle).await;
    let (location, settings) =
        settled.map_err(|e| Error::new(ErrorKind::Cancelled, "the runtime ended").with_source(e))??;
    let client = client(&location, settings)?;
    let store: Arc<dyn ObjectStore> = match location.prefix.as_ref().is_empty() {
        true => Arc::new(client.store.clone()),
        false => Arc::new(PrefixStore::new(client.store.clone(), location.prefix.clone())),
    };
    let bucket = Bucket::new(client, location.prefix);
    bucket.greet().await?;
    Ok((store, bucket))
}

fn client(location: &BucketLocation, settings: Settings) -> Result<Client> {
    // Without a provider the first connection panics.
    stackkit_core::tls::ensure_provider();
    let failed = |e| storage("open the repository", &location.prefix, e).with_kind(ErrorKind::Config);
    let plain = settings.endpoint.as_ref().is_some_and(|endpoint| endpoint.scheme() == "http");
    let timeout = location.timeout.unwrap_or(TIMEOUT_DEFAULT);
    let options = ClientOptions::new()
        .with_allow_http(plain)
        .with_connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .with_timeout(timeout);
    let http = ReqwestConnector::default().connect(&options).map_err(failed)?;
    let url = bucket_url(location, &settings);
    let region = settings.region.clone();
    let retry_deadline = RETRY_DEADLINE.min(timeout * RETRY_TIMEOUTS);
    let backoff = BackoffConfig { init_backoff: BACKOFF_FIRST, max_backoff: BACKOFF_MAX, base: BACKOFF_BASE };
    let retry = RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout: retry_deadline };
    let builder = builder(location, &settings).with_client_options(options).with_retry(retry);
    let store = with_credentials(builder, settings.credentials).build().map_err(failed)?;
    Ok(Client { http, store, region, url, retry_deadline })
}

/// The bucket's own URL, without a slash at its end.
fn bucket_url(location: &BucketLocation, settings: &Settings) -> String {
    let bucket = &location.bucket;
    let (scheme, authority) = match &settings.endpoint {
        Some(endpoint) => (endpoint.scheme(), endpoint[url::Position::BeforeHost..url::Position::AfterPort].to_owned()),
        None => ("https", format!("s3.{}.amazonaws.com", settings.region)),
    };
    match settings.path_style {
        true => format!("{scheme}://{authority}/{bucket}"),
        false => format!("{scheme}://{bucket}.{authority}"),
    }
}

fn builder(location: &BucketLocation, settings: &Settings) -> AmazonS3Builder {
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&location.bucket)
        .with_region(&settings.region)
        .with_checksum_algorithm(Checksum::SHA256)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_virtual_hosted_style_request(!settings.path_style)
        // Many servers besides Amazon's do not know the deletion of many objects at once.
        .with_disable_bulk_delete(true);
    if settings.endpoint.is_some() {
        let url = bucket_url(location, settings);
        // With the bucket in the path, the store appends its name itself.
        let endpoint = if settings.path_style { url.trim_end_matches(&location.bucket) } else { &url };
        builder = builder.with_endpoint(endpoint);
    }
    builder
}

fn with_credentials(builder: AmazonS3Builder, credentials: Credentials) -> AmazonS3Builder {
    use AmazonS3ConfigKey as Key;
    let with = |builder: AmazonS3Builder, key, value: Option<String>| match value {
        Some(value) => builder.with_config(key, value),
        None => builder,
    };
    match credentials {
        Credentials::Key { id, secret, token } => {
            let builder = builder.with_access_key_id(id.expose()).with_secret_access_key(secret.expose());
            with(builder, Key::Token, token.map(|token| token.expose().to_owned()))
        }
        Credentials::WebIdentity { token_file, role, session, sts_endpoint } => {
            let builder = with(builder, Key::WebIdentityTokenFile, Some(token_file));
            let builder = with(builder, Key::RoleArn, Some(role));
            let builder = with(builder, Key::RoleSessionName, session);
            with(builder, Key::StsEndpoint, sts_endpoint)
        }
        Credentials::Container { relative_uri } => {
            with(builder, Key::ContainerCredentialsRelativeUri, Some(relative_uri))
        }
        Credentials::Pod { full_uri, token_file } => {
            let builder = with(builder, Key::ContainerCredentialsFullUri, Some(full_uri));
            with(builder, Key::ContainerAuthorizationTokenFile, Some(token_file))
        }
        Credentials::Machine { endpoint } => with(builder, Key::MetadataEndpoint, endpoint),
    }
}

/// The whole key of an object of the repository.
fn key_of(prefix: &Path, path: &Path) -> Path {
    prefix.parts().chain(path.parts()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url_of(location: &str, endpoint: Option<&str>, path_style: bool) -> String {
        let location = BucketLocation::parse(&url::Url::parse(location).unwrap()).unwrap();
        let settings = Settings {
            credentials: Credentials::Machine { endpoint: None },
            region: "eu-west-1".to_owned(),
            endpoint: endpoint.map(|endpoint| location::endpoint(endpoint).unwrap()),
            path_style,
        };
        let url = bucket_url(&location, &settings);
        let client = client(&location, settings).unwrap();
        assert_eq!(client.url, url);
        // The store's own idea of the bucket's address shows in its debug output only.
        assert!(format!("{:?}", client.store).contains(&format!("bucket_endpoint: {url:?}")), "{:?}", client.store);
        url
    }

    #[test]
    fn buckets_have_the_address_of_their_style() {
        assert_eq!(url_of("s3://data", None, false), "https://data.s3.eu-west-1.amazonaws.com");
        assert_eq!(url_of("s3://data", None, true), "https://s3.eu-west-1.amazonaws.com/data");
        assert_eq!(url_of("s3://data", Some("http://127.0.0.1:9000"), true), "http://127.0.0.1:9000/data");
        assert_eq!(url_of("s3://data", Some("https://[::1]:9000/"), true), "https://[::1]:9000/data");
        assert_eq!(url_of("s3://data", Some("https://store.example"), false), "https://data.store.example");
    }

    #[test]
    fn keys_are_below_the_prefix() {
        assert_eq!(key_of(&Path::default(), &Path::from("a/b")), Path::from("a/b"));
        assert_eq!(key_of(&Path::from("x/y"), &Path::from("a%/b c")).as_ref(), format!("x/y/{}", Path::from("a%/b c")));
    }
}
