//! Credentials, region and endpoint, from the URL, the usual AWS environment, and the usual AWS files.

use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};

use stackkit_core::{Error, Result, Secret};
use url::Url;

use super::ini::{self, Section};
use super::location::{self, BucketLocation};

/// The largest file of credentials that is read, in bytes: theirs are a few hundred.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The region where an endpoint is named: servers other than Amazon's have one region, and most call it this.
const REGION_DEFAULT: &str = "us-east-1";

/// The variables of the environment that are asked.
#[derive(Default)]
pub(super) struct Environment(BTreeMap<String, Secret>);

impl Environment {
    /// Those of this process.
    pub(super) fn of_process() -> Self {
        let ours = |name: &str| name == "HOME" || name.starts_with("AWS_");
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok().filter(|name| ours(name))?, Secret::new(value.into_string().ok()?)))
        };
        Self(std::env::vars_os().filter_map(text).collect())
    }

    /// A variable, if it is set and not empty.
    fn get(&self, name: &str) -> Option<&Secret> {
        self.0.get(name).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(|value| value.expose().to_owned())
    }

    fn first(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| self.text(name))
    }

    /// Where a file of the AWS tools is: where `variable` says, else below the home directory.
    fn file(&self, variable: &str, default: &str) -> Option<PathBuf> {
        let named = self.text(variable).map(PathBuf::from);
        named.or_else(|| Some(PathBuf::from(self.text("HOME")?).join(".aws").join(default)))
    }

    #[cfg(test)]
    pub(super) fn of(variables: &[(&str, &str)]) -> Self {
        Self(variables.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect())
    }
}

/// Where requests get their signatures from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    /// A key that does not change.
    Key { id: Secret, secret: Secret, token: Option<Secret> },
    /// The token of a service account, which is exchanged for a key.
    WebIdentity { token_file: String, role: String, session: Option<String>, sts_endpoint: Option<String> },
    /// The container's agent on its fixed address, asked at this path.
    Container { relative_uri: String },
    /// The container's agent at this address, with the token in this file.
    Pod { full_uri: String, token_file: String },
    /// The machine's metadata service, at this address if not at the usual one.
    Machine { endpoint: Option<String> },
}

/// All that a client of a bucket is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) credentials: Credentials,
    pub(super) region: String,
    pub(super) endpoint: Option<Url>,
    pub(super) path_style: bool,
}

/// Reads the files that the URL and the environment name, and settles what counts.
///
/// # Errors
/// `Config` that says what is missing and where it was looked for; the kinds of reading a file. No error repeats a
/// value.
pub(super) fn settle(location: &BucketLocation, environment: &Environment) -> Result<Settings> {
    let credentials_file = match &location.credentials_file {
        Some(file) => read(file)?.ok_or_else(|| {
            Error::config("the file of credentials that the URL names does not exist")
                .with_context("path", file.display())
        })?,
        None => read_default(environment.file("AWS_SHARED_CREDENTIALS_FILE", "credentials"))?,
    };
    let config_file = read_default(environment.file("AWS_CONFIG_FILE", "config"))?;
    settle_texts(location, environment, (&credentials_file, &config_file))
}

fn read_default(path: Option<PathBuf>) -> Result<String> {
    Ok(path.map(|path| read(&path)).transpose()?.flatten().unwrap_or_default())
}

fn read(path: &FilePath) -> Result<Option<String>> {
    let operation = "read the AWS settings";
    let failed = |e| Error::io(operation, e).with_context("path", path.display());
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if metadata.is_file() && metadata.len() <= FILE_BYTES_MAX => {}
        Ok(_) => {
            return Err(Error::config("this is no file of AWS settings")
                .with_operation(operation)
                .with_context("path", path.display()));
        }
        Err(error) => return Err(failed(error)),
    }
    std::fs::read_to_string(path).map(Some).map_err(failed)
}

fn settle_texts(location: &BucketLocation, environment: &Environment, files: (&str, &str)) -> Result<Settings> {
    let named = location.profile.clone().or_else(|| environment.first(&["AWS_PROFILE", "AWS_DEFAULT_PROFILE"]));
    let name = named.clone().unwrap_or_else(|| "default".to_owned());
    let sections = [ini::parse(files.0).remove(&name), ini::parse(files.1).remove(&name)];
    if named.is_some() && sections.iter().all(Option::is_none) {
        return Err(Error::config("the AWS files have no such profile").with_context("profile", name));
    }
    let mut profile = Section::default();
    sections.into_iter().flatten().for_each(|section| profile.complete_with(section));
    let of_profile = |key: &str| profile.get(key).map(|value| value.expose().to_owned());

    let endpoint = match &location.endpoint {
        Some(endpoint) => Some(endpoint.clone()),
        None => environment
            .first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
            .or_else(|| of_profile("endpoint_url"))
            .map(|text| location::endpoint(&text))
            .transpose()?,
    };
    let region = location.region.clone().or_else(|| environment.first(&["AWS_REGION", "AWS_DEFAULT_REGION"]));
    let region = match region.or_else(|| of_profile("region")) {
        Some(region) => location::region(&region)?,
        None if endpoint.is_some() => REGION_DEFAULT.to_owned(),
        None => {
            return Err(Error::config("the bucket's region is not known: say region= in the URL, or set AWS_REGION"));
        }
    };
    Ok(Settings {
        credentials: credentials(location, environment, &name, &profile)?,
        region,
        path_style: location.path_style.unwrap_or(endpoint.is_some()),
        endpoint,
    })
}

/// What the URL names comes before the environment, and that before the files, as with Amazon's own tools.
fn credentials(
    location: &BucketLocation,
    environment: &Environment,
    name: &str,
    profile: &Section,
) -> Result<Credentials> {
    let of_files = key_of_profile(name, profile);
    if location.credentials_file.is_some() || location.profile.is_some() {
        return of_files?.ok_or_else(|| {
            Error::config("the profile that the URL names has no aws_access_key_id and aws_secret_access_key")
                .with_context("profile", name)
        });
    }
    if let Some(key) = key_of_environment(environment)? {
        return Ok(key);
    }
    let text = |name: &str| environment.text(name);
    if let (Some(token_file), Some(role)) = (text("AWS_WEB_IDENTITY_TOKEN_FILE"), text("AWS_ROLE_ARN")) {
        let (session, sts_endpoint) = (text("AWS_ROLE_SESSION_NAME"), text("AWS_ENDPOINT_URL_STS"));
        return Ok(Credentials::WebIdentity { token_file, role, session, sts_endpoint });
    }
    if let Some(key) = of_files? {
        return Ok(key);
    }
    if let Some(relative_uri) = text("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
        return Ok(Credentials::Container { relative_uri });
    }
    let pod = (text("AWS_CONTAINER_CREDENTIALS_FULL_URI"), text("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"));
    if let (Some(full_uri), Some(token_file)) = pod {
        return Ok(Credentials::Pod { full_uri, token_file });
    }
    let endpoint = environment.first(&["AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_METADATA_ENDPOINT"]);
    if endpoint.is_some() || text("AWS_EC2_METADATA_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("false")) {
        return Ok(Credentials::Machine { endpoint });
    }
    // To ask the metadata service where there is none takes many seconds, so it is asked only where somebody says so.
    Err(Error::config(
        "no AWS credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or write \
         ~/.aws/credentials; a machine on EC2 uses its role with AWS_EC2_METADATA_DISABLED=false",
    )
    .with_context("profile", name))
}

fn key_of_environment(environment: &Environment) -> Result<Option<Credentials>> {
    let token = environment.get("AWS_SESSION_TOKEN").cloned();
    match (environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")) {
        (Some(id), Some(secret)) => Ok(Some(Credentials::Key { id: id.clone(), secret: secret.clone(), token })),
        (None, None) => Ok(None),
        _ => Err(Error::config("only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set")),
    }
}

fn key_of_profile(name: &str, profile: &Section) -> Result<Option<Credentials>> {
    let half = |message: &str| Err(Error::config(message).with_context("profile", name));
    match (profile.get("aws_access_key_id"), profile.get("aws_secret_access_key")) {
        (Some(id), Some(secret)) => {
            let token = profile.get("aws_session_token").cloned();
            Ok(Some(Credentials::Key { id: id.clone(), secret: secret.clone(), token }))
        }
        (None, None) => {
            let other = ["credential_", "sso_", "role_arn", "source_profile"];
            match other.iter().find_map(|start| profile.key_starting_with(start)) {
                None => Ok(None),
                Some(key) => Err(Error::config(
                    "the profile gets its key in a way that stackkit does not know: \
                     `aws configure export-credentials --format env` prints one for the environment",
                )
                .with_context("profile", name)
                .with_context("key", key)),
            }
        }
        _ => half("the profile has only one of aws_access_key_id and aws_secret_access_key"),
    }
}

#[cfg(test)]
mod tests {
    use stackkit_core::ErrorKind;

    use super::*;

    const FILE: &str = "[default]\naws_access_key_id = FILEID\naws_secret_access_key = hunter2\n\
        [backup]\naws_access_key_id = BACKUPID\naws_secret_access_key = hunter3\naws_session_token = hunter4\n\
        [half]\naws_access_key_id = HALF\n[sso]\nsso_session = x\n";
    const CONFIG: &str = "[profile backup]\nregion = eu-west-1\nendpoint_url = https://store:9000\n";

    fn url(text: &str) -> BucketLocation {
        BucketLocation::parse(&Url::parse(text).unwrap()).unwrap()
    }

    fn settled(location: &str, variables: &[(&str, &str)], files: (&str, &str)) -> Result<Settings> {
        settle_texts(&url(location), &Environment::of(variables), files)
    }

    fn id_of(settings: &Settings) -> &str {
        match &settings.credentials {
            Credentials::Key { id, .. } => id.expose(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_url_comes_before_the_environment_and_that_before_the_files() {
        let key = [("AWS_ACCESS_KEY_ID", "ENVID"), ("AWS_SECRET_ACCESS_KEY", "hunter1"), ("AWS_REGION", "us-west-2")];
        let found = settled("s3://bucket", &key, (FILE, CONFIG)).unwrap();
        assert_eq!((id_of(&found), found.region.as_str(), found.path_style), ("ENVID", "us-west-2", false));
        let found = settled("s3://bucket?profile=backup", &key, (FILE, CONFIG)).unwrap();
        assert_eq!((id_of(&found), found.region.as_str(), found.path_style), ("BACKUPID", "us-west-2", true));
        let found = settled("s3://bucket?region=x-1", &[], (FILE, CONFIG)).unwrap();
        assert_eq!((id_of(&found), found.region.as_str(), found.endpoint.as_ref()), ("FILEID", "x-1", None));
        let found = settled("s3://bucket", &[("AWS_PROFILE", "backup")], (FILE, CONFIG)).unwrap();
        assert_eq!((id_of(&found), found.region.as_str()), ("BACKUPID", "eu-west-1"));
        assert_eq!(found.endpoint.unwrap().as_str(), "https://store:9000/");
        let token =
            matches!(&found.credentials, Credentials::Key { token: Some(token), .. } if token.expose() == "hunter4");
        assert!(token, "the session token is lost");
    }

    #[test]
    fn endpoints_decide_the_style_and_the_region() {
        let key =
            [("AWS_ACCESS_KEY_ID", "ENVID"), ("AWS_SECRET_ACCESS_KEY", "hunter1"), ("AWS_ENDPOINT_URL", "http://h:1")];
        let found = settled("s3://bucket", &key, ("", "")).unwrap();
        assert_eq!((found.region.as_str(), found.path_style), ("us-east-1", true));
        let found = settled("s3://bucket?path_style=false&endpoint=https://other", &key, ("", "")).unwrap();
        assert_eq!((found.endpoint.unwrap().as_str(), found.path_style), ("https://other/", false));
        let error = settled("s3://bucket", &key[..2], ("", "")).unwrap_err();
        assert!(error.to_string().contains("region"), "{error}");
    }

    #[test]
    fn other_sources_are_used_only_when_they_are_named() {
        let source = |variables: &[(&str, &str)]| settled("s3://bucket?region=a", variables, ("", ""));
        let identity = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"), ("AWS_ROLE_ARN", "arn:x")];
        assert!(matches!(source(&identity).unwrap().credentials, Credentials::WebIdentity { .. }));
        let container = [("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x")];
        assert!(matches!(source(&container).unwrap().credentials, Credentials::Container { .. }));
        let machine = [("AWS_EC2_METADATA_DISABLED", "false")];
        assert_eq!(source(&machine).unwrap().credentials, Credentials::Machine { endpoint: None });
        let nothing = source(&[("AWS_ACCESS_KEY_ID", "")]).unwrap_err();
        assert_eq!(nothing.kind(), ErrorKind::Config);
        assert!(nothing.to_string().contains("AWS_EC2_METADATA_DISABLED=false"), "{nothing}");
    }

    #[test]
    fn what_is_half_or_unknown_is_told_without_values() {
        for (location, variables, told) in [
            ("s3://bucket?region=a", vec![("AWS_SECRET_ACCESS_KEY", "hunter1")], "only one of AWS_ACCESS_KEY_ID"),
            ("s3://bucket", vec![("AWS_PROFILE", "none")], "no such profile (profile=none)"),
            ("s3://bucket?region=a&profile=half", vec![], "only one of aws_access_key_id"),
            ("s3://bucket?region=a&profile=sso", vec![], "key=sso_session"),
            ("s3://bucket", vec![("AWS_ENDPOINT_URL", "http://a:hunter1@b")], "an S3 endpoint is"),
        ] {
            let error = settled(location, &variables, (FILE, CONFIG)).unwrap_err();
            assert!(error.to_string().contains(told), "{location}: {error}");
            assert!(!error.chain().to_string().contains("hunter"), "{}", error.chain());
        }
        let found = settled("s3://bucket?region=a", &[], (FILE, CONFIG)).unwrap();
        assert!(!format!("{found:?}").contains("hunter"));
    }
}
