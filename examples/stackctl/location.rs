//! Where a service or a repository is, as the command line gives it.

use std::fmt;

use stackkit::{Error, Result, Secret};

/// A URL on the command line, or the name of the environment variable that holds it.
#[derive(Clone)]
pub(crate) enum Location {
    /// The URL itself: every user of the machine can read it.
    Url(Secret),
    /// The variable's name.
    Env(String),
}

impl Location {
    /// The URL. It may have a password in it.
    ///
    /// # Errors
    /// `Config` if the variable is not set, or is no text.
    pub(crate) fn url(&self) -> Result<Secret> {
        match self {
            Self::Url(url) => Ok(url.clone()),
            Self::Env(name) => match std::env::var(name) {
                Ok(url) => Ok(Secret::new(url)),
                Err(error) => Err(Error::config("the environment variable holds no URL")
                    .with_context("variable", name)
                    .with_source(error)),
            },
        }
    }

    /// Whether a password stands where every user of the machine can read it.
    pub(crate) fn shows_password(&self) -> bool {
        match self {
            Self::Url(url) => !passwords(url.expose()).is_empty(),
            Self::Env(_) => false,
        }
    }
}

/// The passwords in a URL, as they stand there: behind the user, or as an option such as `password=`.
pub(crate) fn passwords(url: &str) -> Vec<Secret> {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    // An unescaped slash ends the authority, but in a mistyped URL it may stand in the password.
    let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
    let behind_user = user.split_once(':').map(|(_, password)| password);
    let options = query.split('&').filter_map(|option| {
        let (name, value) = option.split_once('=')?;
        matches!(name, "password" | "pass" | "sslpassword").then_some(value)
    });
    behind_user.into_iter().chain(options).filter(|password| !password.is_empty()).map(Secret::from).collect()
}

impl From<&str> for Location {
    fn from(text: &str) -> Self {
        match text.strip_prefix("env:") {
            Some(name) => Self::Env(name.to_owned()),
            None => Self::Url(Secret::new(text)),
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => write!(f, "{url:?}"),
            Self::Env(name) => write!(f, "env:{name}"),
        }
    }
}
